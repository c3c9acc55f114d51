//! What happens in the model, and when.

use proptest::prelude::*;

use super::world::PROCESSES;

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// SIGKILL, and a new process in its place.
    Kill(usize),
    /// The same for all that are not in a term.
    KillOthers,
    /// SIGSTOP or SIGCONT.
    Stop(usize, bool),
    /// The network swallows, or lets through, what a process sends.
    FreezeRequests(usize, bool),
    /// The same for what is sent to it.
    FreezeReplies(usize, bool),
    /// A middlebox closes the connection, towards both sides.
    Cut(usize),
    /// `pg_terminate_backend` of whoever holds the lock.
    TerminateHolder,
    /// `pg_terminate_backend`, or an error, of somebody who has nothing to do with it.
    EndAnother,
    Crash,
    /// For so many steps the server answers nothing.
    Slow(u64),
}

/// A process; one past the last is whoever holds the lock.
fn process() -> impl Strategy<Value = usize> {
    prop_oneof![0..PROCESSES, Just(PROCESSES)]
}

/// The same, almost at once.
fn at_once(event: impl Strategy<Value = Event>) -> impl Strategy<Value = (u64, Event)> {
    (0..3_u64, event)
}

/// An event, and how many steps it comes after the one before: often before the next question, or
/// before the end of a term.
fn event(event: impl Strategy<Value = Event>) -> impl Strategy<Value = (u64, Event)> {
    (prop_oneof![0..150_u64, 0..40_u64], event)
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        process().prop_map(Event::Kill),
        Just(Event::KillOthers),
        blindness(process(), any::<bool>()),
        process().prop_map(Event::Cut),
        Just(Event::TerminateHolder),
        Just(Event::EndAnother),
        Just(Event::Crash),
        (0..250_u64).prop_map(Event::Slow),
    ]
}

/// What keeps a process from seeing what happens to its session.
fn blindness(
    process: impl Strategy<Value = usize>,
    on: impl Strategy<Value = bool>,
) -> impl Strategy<Value = Event> {
    (process, on, 0..3).prop_map(|(process, on, how)| match how {
        0 => Event::Stop(process, on),
        1 => Event::FreezeRequests(process, on),
        _ => Event::FreezeReplies(process, on),
    })
}

/// What chance seldom brings about: the leader is blind, or was for a while, and loses its session.
pub(super) fn scene() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let leader = || Just(PROCESSES);
    let loss = prop_oneof![
        Just(Event::TerminateHolder),
        Just(Event::Crash),
        Just(Event::Cut(PROCESSES)),
    ];
    let blind = event(blindness(leader(), Just(true)));
    let others = at_once(prop_oneof![Just(Event::KillOthers), any_event()]);
    let loses = (blind, at_once(loss), others).prop_map(|(one, two, three)| vec![one, two, three]);
    let sees = event(blindness(leader(), Just(false)));
    let stutters = (
        event(Just(Event::FreezeReplies(PROCESSES, true))),
        event(Just(Event::FreezeReplies(PROCESSES, false))),
        at_once(Just(Event::FreezeRequests(PROCESSES, true))),
        sees,
    );
    let stutters = stutters.prop_map(|(one, two, three, four)| vec![one, two, three, four]);
    let chance = event(any_event()).prop_map(|event| vec![event]);
    prop_oneof![3 => chance, 1 => loses, 1 => stutters]
}
