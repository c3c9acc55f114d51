//! What a server can answer.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::verbs::Calls;

/// The whole reply to a message.
#[derive(Debug, Clone)]
pub struct Reply {
    pub items: Vec<Item>,
    pub end: End,
    /// How many columns a prepared statement has, and their type.
    pub columns: (u16, u32),
}

impl Reply {
    /// Whether it is a whole reply without an error, in which a statement completes and no row refuses.
    pub fn grants(&self, is_refusal: fn(&str) -> bool, libpq: bool) -> bool {
        let refuses = |item: &Item| match item {
            Item::Error(..) | Item::Unknown | Item::CopyIn | Item::CopyOut => true,
            Item::Rows(_, rows) => rows.iter().any(|row| {
                let first = row.first().and_then(Option::as_deref).unwrap_or_default();
                std::str::from_utf8(first).is_ok_and(is_refusal)
            }),
            _ => false,
        };
        // An empty query completes, too: its answer looks like a statement's.
        let completes = |item: &Item| match item {
            Item::Complete(_) | Item::Empty => true,
            Item::Rows(..) => libpq,
            _ => false,
        };
        matches!(self.end, End::Ready(_) | End::ReadyTwice(_))
            && self.items.iter().any(completes)
            && !self.items.iter().any(refuses)
    }
}

/// A message from the server.
#[derive(Debug, Clone)]
pub enum Item {
    /// A description, and rows that may have another number of columns.
    Rows(u16, Vec<Vec<Option<Vec<u8>>>>),
    /// Rows without a description.
    BareRow,
    Complete(Vec<u8>),
    Empty,
    Error(Vec<u8>, Text),
    Notice(Text),
    Parameter(Vec<u8>, Vec<u8>),
    Notification,
    CopyOut,
    CopyIn,
    /// A type that the protocol does not know.
    Unknown,
}

/// The text of an error or a notice.
#[derive(Debug, Clone)]
pub enum Text {
    Plain(Vec<u8>),
    /// The client's own mark, as in the statement, and a text after it.
    Marked(Vec<u8>),
}

/// The end of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `ReadyForQuery`, with a transaction status.
    Ready(u8),
    /// Two `ReadyForQuery`.
    ReadyTwice(u8),
    /// The connection is closed.
    Close,
    /// The same, in the middle of a message.
    Half,
}

/// Words and texts that pglock itself uses, and others.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "",
        "busy",
        "not held",
        "in transaction",
        "stale snapshot",
        "in recovery",
        "no such row",
        "shared session",
        "not postgres",
        "refused",
        "true",
        "false",
        "t",
        "=7",
        "1000 0 0 t",
        "1000 0 0 f",
        "55P03 canceling",
        "57014 canceling",
        "08006 gone",
        "40001 again",
        "rows a\x1eb\x1e",
        "rows \x1e",
        "deadlock detected",
        "canceling statement due to lock timeout",
        "canceling statement due to user request",
        "server closed the connection unexpectedly\n",
        "1\x1f2\x1f2\x1fShareLock\x1ftrue\x1ftrue\x1f99999999999\x1f27611b5b27\x1f27\x1f\x1b[c\x1fd\x07\x1f1e999\x1fNaN\x1f-1\x1finf\x1f1 2 x\x1f45279b7",
    ];
    prop_oneof![
        4 => select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(1..=255_u8, 0..20),
        1 => Just("\u{e9}\u{1F512}".as_bytes().to_vec()),
        1 => Just(vec![b'x'; 70_000]),
    ]
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        bytes().prop_map(Text::Plain),
        bytes().prop_map(Text::Marked)
    ]
}

fn sqlstate() -> impl Strategy<Value = Vec<u8>> {
    let states = [
        "55P03", "57014", "40P01", "40001", "53200", "25001", "25P01", "25P02", "08006", "57P01",
        "XX000", "", "00000", "zzzzzz",
    ];
    select(states.to_vec()).prop_map(|state| state.as_bytes().to_vec())
}

fn item<C: Calls>() -> impl Strategy<Value = Item> {
    let width = || prop_oneof![1 => Just(0_u16), 6 => Just(1), 1 => Just(3)];
    let rows = width().prop_flat_map(move |columns| {
        let row = |columns: u16| vec(option::weighted(0.8, bytes()), usize::from(columns));
        let other = width().prop_flat_map(row);
        let rows = vec(prop_oneof![9 => row(columns), 1 => other], 0..3);
        (Just(columns), rows).prop_map(|(columns, rows)| Item::Rows(columns, rows))
    });
    let tag = select(vec![
        "SELECT 1", "SET", "BEGIN", "COMMIT", "ROLLBACK", "", "\u{e9}", "SELECT x",
    ]);
    prop_oneof![
        8 => tag.prop_map(|tag| Item::Complete(tag.as_bytes().to_vec())),
        3 => rows,
        1 => Just(Item::BareRow),
        1 => Just(Item::Empty),
        2 => (sqlstate(), text()).prop_map(|(state, text)| Item::Error(state, text)),
        1 => text().prop_map(Item::Notice),
        1 => (bytes(), bytes()).prop_map(|(name, value)| Item::Parameter(name, value)),
        1 => Just(Item::Notification),
        1 => select(C::COPIES.to_vec()),
        1 => Just(Item::Unknown),
    ]
}

fn reply<C: Calls>() -> impl Strategy<Value = Reply> {
    let end = prop_oneof![
        12 => select(vec![b'I', b'I', b'I', b'T', b'E', b'?']).prop_map(End::Ready),
        1 => Just(End::ReadyTwice(b'I')),
        1 => Just(End::Close),
        1 => Just(End::Half),
    ];
    let good = Just(vec![Item::Complete(b"SELECT 0".to_vec())]);
    let items = prop_oneof![2 => good, 3 => vec(item::<C>(), 0..4)];
    let columns = (0..3_u16, select(vec![20, 23, 25]));
    (items, end, columns).prop_map(|(mut items, end, columns)| {
        if C::LIBPQ {
            let ends = |item: &Item| !matches!(item, Item::Error(..) | Item::Unknown);
            let whole = items.iter().take_while(|item| ends(item)).count();
            items.truncate(whole + 1);
        }
        Reply {
            items,
            end,
            columns,
        }
    })
}

pub fn script<C: Calls>() -> impl Strategy<Value = Vec<Reply>> {
    vec(reply::<C>(), 0..8)
}
