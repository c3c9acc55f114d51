//! What is told is what happened.

use std::ops::RangeInclusive;

use pglock::driver::{BoxError, Failure, Finish, Opening, Session, Statement, Transacted};
use pglock::{Error, Key, Lock, LockBackend};

use crate::harness::{Harness, InTransaction, on};
use crate::of_statements;
use crate::oracle::{Oracle, Table, connect, unique_key, unique_name};

pub fn a_reset_in_the_text_loses_nothing<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    let text = format!("SELECT 'COMMIT'; {0}; RESET ALL; {0}", table.insert());
    H::with(|backend| Lock::new(backend, &key).batch_execute(&text).unwrap());
    assert_eq!(table.rows(), 2);
}

pub fn a_reset_hides_no_end_of_the_transaction<H: Harness>() {
    let (key, mut oracle) = (unique_key(), Oracle::new());
    H::with(|backend| {
        for end in [
            "RESET ALL; COMMIT",
            "COMMIT; RESET ALL",
            "COMMIT; RESET ALL; BEGIN",
        ] {
            let table = Table::new();
            let text = format!("{0}; {end}; {0}", table.insert());
            let lost = Lock::new(&mut *backend, &key).batch_execute(&text);
            assert!(
                matches!(lost, Err(Error::LockLost { .. })),
                "{end}: {lost:?}"
            );
            assert_eq!(table.rows(), 1, "{end}");
            oracle.assert_free(&key);
        }
    });
}

/// A function that fails with an SQLSTATE, so that the text needs no word like BEGIN.
struct Fails(String);

impl Fails {
    fn new() -> Self {
        let name = unique_name("fails");
        let create = format!(
            "CREATE FUNCTION {name}(state text) RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'of the text' USING ERRCODE = state; END $$"
        );
        connect().batch_execute(&create).unwrap();
        Self(name)
    }

    fn with(&self, state: &str) -> String {
        format!("SELECT {}('{state}')", self.0)
    }
}

impl Drop for Fails {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP FUNCTION {}", self.0));
    }
}

/// The states with which an acquire finds no transaction, or an aborted one; and those of a connection
/// that is lost, which a foreign server's error can have.
const STATES: [&str; 9] = [
    "25P01", "25P02", "25001", "08000", "08006", "08P01", "57P01", "57P05", "25P03",
];

pub fn an_error_of_the_text_is_never_the_acquires<H: Harness>() {
    let (key, table, fails, mut oracle) = (unique_key(), Table::new(), Fails::new(), Oracle::new());
    let failing = STATES.map(|state| (state, fails.with(state)));
    let failing = failing.iter().map(|(state, text)| (*state, text.as_str()));
    let savepoints = [
        ("25P01", "SAVEPOINT a"),
        ("25P01", "RELEASE SAVEPOINT a"),
        ("25P01", "ROLLBACK TO SAVEPOINT a"),
    ];
    let failing: Vec<_> = failing.chain(savepoints).collect();
    H::with(|backend| {
        on(backend, "SET pglock_test.session = 'this'").unwrap();
        for (state, text) in failing {
            for behind in ["", "; SELECT 'begin'"] {
                let text = format!("{}; {text}{behind}", table.insert());
                let error = Lock::new(&mut *backend, &key).batch_execute(&text);
                let told = of_statements(error.unwrap_err());
                assert!(
                    told == state || told == "of the text" || told.contains("SAVEPOINT"),
                    "{text}: {told}"
                );
                oracle.assert_free(&key);
            }
        }
        // The connection lives, and a pool has kept it.
        on(
            backend,
            &crate::assert("current_setting('pglock_test.session') = 'this'"),
        )
        .unwrap();
    });
    assert_eq!(table.rows(), 0);
}

pub fn an_error_of_the_text_in_a_transaction_is_never_the_acquires<H: InTransaction>() {
    let (key, table, fails, mut oracle) = (unique_key(), Table::new(), Fails::new(), Oracle::new());
    H::with(|backend| {
        on(backend, &table.insert()).unwrap();
        for state in STATES {
            for behind in ["", "; SELECT 'begin'"] {
                let text = format!("{}; {}{behind}", table.insert(), fails.with(state));
                let error = Lock::new(&mut *backend, &key).batch_execute(&text);
                let told = of_statements(error.unwrap_err());
                assert!(told == state || told == "of the text", "{text}: {told}");
                oracle.assert_free(&key);
                on(backend, &table.assert_rows(1)).unwrap();
            }
        }
    });
}

/// A session on which some messages, by their number, are cancelled before they do anything.
struct Canceled<'s, S> {
    session: &'s mut S,
    messages: u32,
    cancels: RangeInclusive<u32>,
}

impl<'s, S: Session> Canceled<'s, S> {
    fn new(session: &'s mut S, cancels: RangeInclusive<u32>) -> Self {
        Self {
            session,
            messages: 0,
            cancels,
        }
    }

    fn next<'q>(&mut self, sql: &'q str) -> &'q str {
        if sql.contains("INSERT") {
            self.messages = 0; // it may be sent twice: a session is not sure to have a prepared statement
        }
        self.messages += 1;
        match self.cancels.contains(&self.messages) {
            true => "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)",
            false => sql,
        }
    }
}

impl<S: Session> LockBackend for Canceled<'_, S> {
    type Session = Self;
    type Handle<'a>
        = &'a mut Self
    where
        Self: 'a;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl<S: Session> Session for Canceled<'_, S> {
    type Transaction<'t> = S::Transaction<'t>;

    const HAS_SQLSTATE: bool = S::HAS_SQLSTATE;

    fn in_transaction(&mut self) -> bool {
        self.session.in_transaction()
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        if statements.is_empty() {
            let question = self.next(question);
            return self.session.message("", question);
        }
        let statements = self.next(statements);
        self.session.message(statements, question)
    }

    fn prepared(&mut self, before: &str, statement: &Statement) -> Result<Vec<String>, Failure> {
        match self.next("") {
            "" => self.session.prepared(before, statement),
            canceled => self.session.message(canceled, ""),
        }
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Self::Transaction<'_>) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        self.session.transact(opening, body)
    }
}

/// Runs a text, and cancels some of the messages, of which the text's is the first.
fn with_cancels<H: Harness>(
    key: &Key,
    text: &str,
    cancels: RangeInclusive<u32>,
) -> Result<(), Error> {
    H::with(|backend| {
        let mut session = backend.session().map_err(Error::body)?;
        let mut canceled = Canceled::new(&mut *session, cancels);
        let done = Lock::new(&mut canceled, key).batch_execute(text);
        session.send(&crate::assert("now() = statement_timestamp()"))?;
        Oracle::new().assert_free(key);
        done
    })
}

pub fn a_question_that_is_canceled_is_asked_again<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    let text = format!("{}; SELECT 'COMMIT'", table.insert());
    for (cancels, rows) in [(2..=2, 1), (2..=7, 2)] {
        with_cancels::<H>(&key, &text, cancels).unwrap();
        assert_eq!(table.rows(), rows);
    }
    // In an open transaction the cancel aborts it, and that is an answer.
    let text = format!("{0}; BEGIN; {0}", table.insert());
    let open = with_cancels::<H>(&key, &text, 2..=2);
    assert!(
        matches!(open, Err(Error::TransactionLeftOpen { .. })),
        "{open:?}"
    );
    assert_eq!(table.rows(), 2);
}

pub fn without_an_answer_nothing_is_claimed<H: Harness>() {
    let (key, table) = (unique_key(), Table::new());
    let text = format!("{}; SELECT 'COMMIT'", table.insert());
    let unknown = with_cancels::<H>(&key, &text, 2..=u32::MAX).unwrap_err();
    assert!(
        matches!(unknown, Error::CommitUnknown { .. }),
        "{unknown:?}"
    );
    assert!(unknown.to_string().contains("not known"), "{unknown}");
    assert!(unknown.to_string().contains(&key.to_string()), "{unknown}");
    assert_eq!(table.rows(), 1);
}

/// What came before is committed.
pub fn a_text_that_commits_and_then_fails_is_told<H: Harness>() {
    let key = unique_key();
    for (end, cancels) in [("COMMIT", 0..=0), ("COMMIT; BEGIN", 0..=0), ("end", 2..=4)] {
        let table = Table::new();
        let text = format!("{0}; {end}; {0}; SELECT 1 / 0", table.insert());
        let lost = with_cancels::<H>(&key, &text, cancels);
        assert!(
            matches!(
                lost,
                Err(Error::LockLost {
                    source: Some(_),
                    ..
                })
            ),
            "{end}: {lost:?}"
        );
        assert_eq!(table.rows(), 1, "{end}");
    }
    let table = Table::new();
    let text = format!("{0}; ROLLBACK; {0}; SELECT 1 / 0", table.insert());
    of_statements(with_cancels::<H>(&key, &text, 0..=0).unwrap_err());
    assert_eq!(table.rows(), 0);
}

pub fn a_text_that_ends_the_transaction_and_then_fails_is_told<H: InTransaction>() {
    for (end, rows) in [("COMMIT", 1), ("ROLLBACK", 0)] {
        let (key, table) = (unique_key(), Table::new());
        H::with(|backend| {
            let text = format!("{0}; {end}; {0}; SELECT 1 / 0", table.insert());
            let lost = Lock::new(&mut *backend, &key).batch_execute(&text);
            assert!(
                matches!(
                    lost,
                    Err(Error::LockLost {
                        source: Some(_),
                        ..
                    })
                ),
                "{end}: {lost:?}"
            );
        });
        assert_eq!(table.rows(), rows, "{end}");
    }
}
