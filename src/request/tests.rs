use proptest::prelude::*;

use super::*;

#[test]
fn timeouts_become_what_lock_timeout_can_hold() {
    assert_eq!(millis(Duration::ZERO), None);
    assert_eq!(millis(Duration::from_nanos(1)), Some(1));
    assert_eq!(millis(Duration::from_micros(1_500)), Some(2));
    assert_eq!(millis(Duration::from_secs(2)), Some(2_000));
    assert_eq!(millis(Duration::MAX), Some(i32::MAX));
}

proptest! {
    /// Never 0, which would wait for ever, never less than was asked for, and at most a
    /// millisecond more, up to what `lock_timeout` can hold.
    #[test]
    fn a_duration_of_any_length_is_kept(seconds: u64, nanos in 0..1_000_000_000_u32) {
        for seconds in [seconds, seconds % 3_000_000, 0] {
            let timeout = Duration::new(seconds, nanos);
            match millis(timeout) {
                None => prop_assert_eq!(timeout, Duration::ZERO),
                Some(i32::MAX) => prop_assert!(timeout.as_millis() >= i32::MAX as u128 - 1),
                Some(millis) => {
                    prop_assert!(millis > 0);
                    let waited = Duration::from_millis(millis as u64);
                    prop_assert!(waited >= timeout);
                    prop_assert!(waited - timeout < Duration::from_millis(1));
                }
            }
        }
    }

    /// Whatever the order and however often each is given.
    #[test]
    fn key_sets_have_one_order(
        names in proptest::collection::vec(".{0,3}", 0..9),
        numbers in proptest::collection::vec(-3..3_i64, 0..9),
        seed: u64,
    ) {
        let names = names.iter().map(|name| Key::from(name.as_str()));
        let keys: Vec<Key> = names.chain(numbers.into_iter().map(Key::from)).collect();
        let mut shuffled: Vec<Key> = keys.iter().chain(&keys).cloned().collect();
        shuffled.sort_by_key(|key| key.as_i64().map(|number| number.rotate_left(7) ^ seed as i64));
        let (one, other) = (Request::new(keys.into()), Request::new(shuffled.into()));
        prop_assert_eq!(&one.lock, &other.lock);
        prop_assert!(one.lock.keys().is_sorted());
        prop_assert!(one.lock.keys().windows(2).all(|pair| pair[0] != pair[1]));
    }
}

#[test]
fn keys_are_sorted_and_taken_once() {
    let one =
        Request::new(vec![Key::from(2), Key::from(1), Key::from(2), Key::from((0, 1))].into());
    let other = Request::new(vec![Key::from((0, 1)), Key::from(1), Key::from(2)].into());
    assert_eq!(one.lock, other.lock);
    assert_eq!(one.lock.keys().len(), 3);
}
