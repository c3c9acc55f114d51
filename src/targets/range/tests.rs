use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Whether two sessions could not hold both.
fn conflict(one: &KeyRange, other: &KeyRange) -> bool {
    let other: HashMap<_, _> = other.nodes.iter().zip(&other.modes).collect();
    one.nodes.iter().zip(&one.modes).any(|(key, mode)| {
        let meets = other.get(key);
        meets.is_some_and(|other| [mode, other].contains(&&Mode::Exclusive))
    })
}

fn overlap(one: &Range<i64>, other: &Range<i64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)]
}

/// Ends near each other, near borders of nodes and anywhere.
fn number() -> impl Strategy<Value = i64> {
    let border = (0..63_u32, -3..3_i64, any::<bool>()).prop_map(|(bits, near, negative)| {
        let border = 1_i64 << bits;
        if negative {
            -border + near
        } else {
            border - near
        }
    });
    let end = prop_oneof![i64::MIN..i64::MIN + 20, i64::MAX - 20..i64::MAX,];
    prop_oneof![4 => -40..40_i64, 2 => 20_261_200..20_261_300_i64, 2 => border, 1 => end, 1 => any::<i64>()]
}

fn range() -> impl Strategy<Value = (Range<i64>, Mode)> {
    let long = (number(), number(), Just(Mode::Exclusive));
    let short = (number(), 1..50_i64, mode())
        .prop_map(|(start, length, mode)| (start, start.saturating_add(length), mode));
    let year = (number(), 300..366_i64, mode())
        .prop_map(|(start, length, mode)| (start, start.saturating_add(length), mode));
    prop_oneof![3 => long, 6 => short, 1 => year].prop_filter_map(
        "a range of no numbers",
        |(one, other, mode)| {
            let numbers = one.min(other)..one.max(other);
            (!numbers.is_empty()).then_some((numbers, mode))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Both exclusive, both shared, and one of each.
    #[test]
    fn ranges_conflict_if_they_overlap((one, one_mode) in range(), (other, other_mode) in range()) {
        let expected = overlap(&one, &other) && (one_mode, other_mode) != (Mode::Shared, Mode::Shared);
        let of = |numbers, mode| KeyRange::of("room:7".into(), numbers, mode);
        prop_assert_eq!(conflict(&of(one.clone(), one_mode), &of(other, other_mode)), expected);
        let one = of(one, one_mode);
        prop_assert!(one.nodes.is_sorted());
        prop_assert!(one.nodes.windows(2).all(|pair| pair[0] != pair[1]));
        prop_assert!(!one.nodes.is_empty() && one.nodes.len() == one.modes.len());
        prop_assert!(one_mode == Mode::Shared || one.nodes.len() <= MOST_NODES, "{}", one.nodes.len());
        prop_assert!(!conflict(&one, &KeyRange::of("room:8".into(), one.numbers(), one_mode)));
    }
}

/// What the documentation of `KeyRange` says.
const MOST_NODES: usize = 250;

/// All ranges of a small part of the numbers, about a border of many nodes.
#[test]
fn all_small_ranges_conflict_if_they_overlap() {
    let numbers = || (-10..10_i64).flat_map(|start| (start + 1..11).map(move |end| start..end));
    let modes = [Mode::Exclusive, Mode::Shared];
    let of = |mode| move |range| KeyRange::of("room:7".into(), range, mode);
    for mode in modes {
        let ones: Vec<_> = numbers().map(of(mode)).collect();
        for other_mode in modes {
            for other in numbers().map(of(other_mode)) {
                for one in &ones {
                    let expected = overlap(&one.numbers, &other.numbers)
                        && (mode, other_mode) != (Mode::Shared, Mode::Shared);
                    assert_eq!(
                        conflict(one, &other),
                        expected,
                        "{one} {mode}, {other} {other_mode}"
                    );
                }
            }
        }
    }
}

#[test]
fn ranges_have_as_few_nodes_as_is_documented() {
    let of = |range| {
        KeyRange::of("room:7".into(), range, Mode::Exclusive)
            .nodes
            .len()
    };
    assert_eq!(of(i64::MIN + 1..i64::MAX), MOST_NODES);
    assert_eq!(of(i64::MIN..0), 2);
    assert_eq!(of(20_261_224..20_261_227), 34);
}

#[test]
fn what_cannot_be_taken_has_no_nodes() {
    #[allow(clippy::reversed_empty_ranges)]
    for empty in [7..7, 8..7, i64::MAX..i64::MIN, i64::MAX..i64::MAX] {
        assert!(
            KeyRange::of("room:7".into(), empty, Mode::Exclusive)
                .nodes
                .is_empty()
        );
    }
    for (end, long) in [(366, false), (367, true), (i64::MAX, true)] {
        for start in [0, i64::MIN] {
            let range = KeyRange::of(
                "room:7".into(),
                start..start.saturating_add(end),
                Mode::Shared,
            );
            assert_eq!(range.nodes.is_empty(), long, "{range}");
        }
    }
}

/// Frozen. If this fails, two versions of the crate do not keep each other out.
#[test]
fn ranges_have_the_published_keys() {
    let range = KeyRange::of("room:7".into(), -1..2, Mode::Exclusive);
    let taken = |name: &str| {
        let key = Key::namespaced("pglock.range", name.to_owned());
        let place = range.nodes.iter().position(|node| *node == key);
        place.map(|place| range.modes[place])
    };
    let (classid, objid, objsubid) = Key::from("room:7").pg_locks();
    for (node, mode) in [
        ("-1/0", Some(Mode::Exclusive)),
        ("0/0", Some(Mode::Exclusive)),
        ("1/0", Some(Mode::Exclusive)),
        ("2/0", None),
        ("-4/2", Some(Mode::Shared)),
        ("0/2", Some(Mode::Shared)),
        ("0/62", Some(Mode::Shared)),
        ("-4611686018427387904/62", Some(Mode::Shared)),
    ] {
        assert_eq!(
            taken(&format!("{classid}:{objid}:{objsubid} {node}")),
            mode,
            "{node}"
        );
    }
    // Computed with Python's xxhash.
    let range = KeyRange::of("room:7".into(), 20_261_224..20_261_228, Mode::Exclusive);
    let number = Key::namespaced("pglock.range", "2991109374:816356579:1 20261224/2");
    assert!(range.nodes.contains(&number));
    assert_eq!(number.as_i64(), Some(3_655_124_595_457_145_145));
}
