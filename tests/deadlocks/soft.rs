//! Cycles of which an edge is only the order of a queue: the server lets one past the others, and nobody
//! may fail.

use crate::harness::Harness;
use crate::oracle::unique_key;
use crate::parties::{Form, Party, assert_all_well, exclusive, party, play, shared};

fn plays<H: Harness + 'static>(parties: &[Party]) {
    let ends = play::<H>(parties);
    assert_all_well(parties, &ends);
}

/// Forms of those who hold something, and of those who only wait.
const PAIRS: [[Form; 2]; 6] = [
    [Form::Section, Form::Section],
    [Form::Section, Form::Plain],
    [Form::Plain, Form::Section],
    [Form::CallersTransaction, Form::CallersTransaction],
    [Form::CallersTransaction, Form::Section],
    [Form::Section, Form::OwnTransaction],
];

fn in_pairs<H: Harness + 'static>(parties: impl Fn([Form; 2]) -> Vec<Party> + Sync) {
    std::thread::scope(|threads| {
        for forms in PAIRS {
            let parties = &parties;
            threads.spawn(move || plays::<H>(&parties(forms)));
        }
    });
}

/// One shares a key and wants another; who shares that wants the first too, behind a writer.
pub fn a_reader_behind_a_writer<H: Harness + 'static>() {
    in_pairs::<H>(|[holder, writer]| {
        let (one, other) = (unique_key(), unique_key());
        vec![
            party(writer, None, exclusive(&one)),
            party(holder, Some(shared(&one)), exclusive(&other)),
            party(holder, Some(shared(&other)), shared(&one)),
        ]
    });
}

/// Two readers of two keys with a writer in front of each.
pub fn two_readers_behind_two_writers<H: Harness + 'static>() {
    in_pairs::<H>(|[holder, writer]| {
        let (one, other) = (unique_key(), unique_key());
        vec![
            party(writer, None, exclusive(&one)),
            party(writer, None, exclusive(&other)),
            party(holder, Some(shared(&one)), shared(&other)),
            party(holder, Some(shared(&other)), shared(&one)),
        ]
    });
}

/// One has to be let past two others at once.
pub fn a_reader_behind_two_writers<H: Harness + 'static>() {
    in_pairs::<H>(|[holder, writer]| {
        let (one, other) = (unique_key(), unique_key());
        vec![
            party(holder, Some(shared(&other)), exclusive(&one)),
            party(writer, None, exclusive(&other)),
            party(writer, None, exclusive(&other)),
            party(holder, Some(exclusive(&one)), shared(&other)),
        ]
    });
}
