//! The first free row, in a transaction that pglock opens.

use std::thread;

use pglock::{Error, FirstFree, FirstFreeRows};

use crate::harness::{Harness, on, sql};
use crate::oracle::{Oracle, connect, unique_name};
use crate::seats::Seats;

fn free(seats: &Seats) -> FirstFree {
    FirstFree::new(seats.name.as_str(), "id").order_by("id")
}

/// A thousand rows, eight workers, each row once.
pub fn each_row_goes_to_one_worker<H: Harness>() {
    const ROWS: usize = 1_000;
    let seats = Seats::new();
    connect()
        .batch_execute(&format!(
            "INSERT INTO {0} (id) SELECT generate_series(4, {ROWS}); \
             UPDATE {0} SET buyer = 'nobody'",
            seats.name
        ))
        .unwrap();
    let work = || {
        let mut mine = Vec::new();
        H::with(|backend| {
            let free = free(&seats).with("buyer", "nobody");
            // One, then up to seven, and so on.
            let rows = [free.clone().up_to(1), free.up_to(7)];
            let mut take = |turn: usize| {
                rows[turn % 2]
                    .run_in_transaction(backend, |tx, ids: Vec<i32>| {
                        for id in &ids {
                            sql(tx, &seats.book(*id, "somebody"))?;
                        }
                        Ok::<_, Error>(ids)
                    })
                    .unwrap()
            };
            let mut turn = 0;
            while let Some(ids) = take(turn) {
                mine.extend(ids);
                turn += 1;
            }
        });
        mine
    };
    let taken: Vec<Vec<i32>> = thread::scope(|threads| {
        let workers: Vec<_> = (0..8).map(|_| threads.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let mut all = taken.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=1_000));
}

pub fn locked_rows_are_passed_over<H: Harness>() {
    let seats = Seats::new();
    let mut holder = seats.holder();
    H::with(|backend| {
        let taken = free(&seats).run_in_transaction(backend, |_, id: String| {
            assert!(!seats.is_free(2, "UPDATE"));
            assert!(seats.is_free(3, "UPDATE"));
            Ok::<_, Error>(id)
        });
        assert_eq!(taken.unwrap().as_deref(), Some("2"));
        holder.run(&format!("SELECT FROM {} FOR UPDATE", seats.name));
        let taken = free(&seats).run_in_transaction(backend, |_, _: i32| -> Result<(), Error> {
            panic!("no row is free")
        });
        assert!(taken.unwrap().is_none());
    });
}

/// As numbers are, and not as their texts.
pub fn rows_are_sorted_as_their_columns_are<H: Harness>() {
    let seats = Seats::new();
    let more = format!(
        "INSERT INTO {} (id) SELECT generate_series(9, 11)",
        seats.name
    );
    connect().batch_execute(&more).unwrap();
    H::with(|backend| {
        let late = || free(&seats).filter("id > 8");
        let taken = late().run_in_transaction(backend, |_, id: i32| Ok::<_, Error>(id));
        assert_eq!(taken.unwrap(), Some(9));
        let taken = late()
            .up_to(9)
            .run_in_transaction(backend, |_, ids: Vec<i32>| Ok::<_, Error>(ids));
        assert_eq!(taken.unwrap(), Some(vec![9, 10, 11]));
    });
}

/// Somebody inserts a reference to the first row, and so does the body, over another connection.
pub fn rows_that_others_refer_to_are_free<H: Harness>() {
    let seats = Seats::new();
    let ticket = Tickets::new(&seats);
    let mut other = seats.other(&ticket.insert(1));
    H::with(|backend| {
        let taken = free(&seats).run_in_transaction(backend, |_, id: i32| {
            assert!(seats.is_free(id, "KEY SHARE"));
            assert!(!seats.is_free(id, "NO KEY UPDATE"));
            connect().batch_execute(&ticket.insert(id)).unwrap();
            Ok::<_, Error>(id)
        });
        assert_eq!(taken.unwrap(), Some(1));

        let to_delete = free(&seats).for_update();
        let taken = to_delete.run_in_transaction(backend, |tx, id: i32| {
            assert!(!seats.is_free(id, "KEY SHARE"));
            sql(tx, &format!("DELETE FROM {} WHERE id = {id}", seats.name))?;
            Ok::<_, Error>(id)
        });
        assert_eq!(taken.unwrap(), Some(2));
        other.run("COMMIT");
    });
}

/// A table whose rows refer to seats.
struct Tickets(String);

impl Tickets {
    fn new(seats: &Seats) -> Self {
        let name = unique_name("tickets");
        let create = format!("CREATE TABLE {name} (seat int REFERENCES {})", seats.name);
        connect().batch_execute(&create).unwrap();
        Self(name)
    }

    fn insert(&self, seat: i32) -> String {
        format!("INSERT INTO {} VALUES ({seat})", self.0)
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        let _ = connect().batch_execute(&format!("DROP TABLE {}", self.0));
    }
}

pub fn several_rows_are_taken_at_once<H: Harness>() {
    let seats = Seats::new();
    let mut holder = seats.holder();
    H::with(|backend| {
        let mut take = |free: FirstFreeRows| {
            let taken = free.run_in_transaction(backend, |tx, ids: Vec<i32>| {
                assert!(ids.iter().all(|id| !seats.is_free(*id, "NO KEY UPDATE")));
                sql(tx, "SELECT 1")?;
                Ok::<_, Error>(ids)
            });
            taken.unwrap()
        };
        assert_eq!(take(free(&seats).up_to(1)), Some(vec![2]));
        assert_eq!(take(free(&seats).up_to(2)), Some(vec![2, 3]));
        assert_eq!(take(free(&seats).up_to(u32::MAX)), Some(vec![2, 3]));
        let descending = FirstFree::new(seats.name.as_str(), "id").order_by_desc("id");
        assert_eq!(take(descending.up_to(9)), Some(vec![3, 2]));
        assert_eq!(take(free(&seats).up_to(0)), None);
        assert_eq!(take(free(&seats).filter("id = 1").up_to(9)), None);
        holder.run("ROLLBACK");
        assert_eq!(take(free(&seats).up_to(9)), Some(vec![1, 2, 3]));

        let error = free(&seats)
            .up_to(3)
            .run_in_transaction(backend, |tx, ids: Vec<i32>| {
                sql(tx, &seats.book(ids[2], "ada"))?;
                Err::<(), _>(Error::body("no"))
            });
        assert!(matches!(error, Err(Error::Body(_))), "{error:?}");
        assert_eq!(seats.buyer(3), None);
        let by_day = FirstFree::new(seats.name.as_str(), "day").up_to(3);
        let error = by_day.run_in_transaction(backend, |_, _: Vec<i32>| Ok::<_, Error>(()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("of up to 3 free rows of"), "{error}");
    });
    assert!((1..=3).all(|id| seats.is_free(id, "UPDATE")));
}

/// Whatever an id looks like, it comes as one id.
pub fn ids_may_be_any_text<H: Harness>() {
    let seats = Seats::new();
    let ids = [
        "", "a,b", "{c}", "\"d\"", "\\", "NULL", "e\nf", "it's", "\u{1e}", " g ", "=h", "🔒",
    ];
    let mut client = connect();
    client
        .batch_execute(&format!("DELETE FROM {}", seats.name))
        .unwrap();
    let insert = format!("INSERT INTO {} (id, buyer) VALUES ($1, $2)", seats.name);
    for (n, id) in (0_i32..).zip(ids) {
        client.execute(&insert, &[&n, &id]).unwrap();
    }
    H::with(|backend| {
        let by_buyer = || FirstFree::new(seats.name.as_str(), "buyer").order_by("id");
        let all = by_buyer().up_to(99);
        let taken = all.run_in_transaction(backend, |_, ids: Vec<String>| Ok::<_, Error>(ids));
        assert_eq!(taken.unwrap().unwrap(), ids);
        for id in ids {
            let one = by_buyer().with("buyer", id);
            let taken = one.run_in_transaction(backend, |_, id: String| Ok::<_, Error>(id));
            assert_eq!(taken.unwrap().as_deref(), Some(id));
        }
    });
}

/// Both are the caller's SQL, which may end in a comment.
pub fn a_condition_and_an_order_choose_the_row<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let mut take = |free: FirstFree| {
            let taken = free.run_in_transaction(backend, |_, id: i64| Ok::<_, Error>(id));
            taken.unwrap()
        };
        let any = || FirstFree::new(seats.name.as_str(), "id");
        assert_eq!(take(any().order_by_desc("id")), Some(3));
        assert_eq!(take(any().filter("id > 1").order_by("id")), Some(2));
        assert_eq!(take(any().filter("id > 1 -- all").order_by("id")), Some(2));
        let both = any().filter("id = 1 OR id = 2").filter("day < now()");
        assert_eq!(take(both.order_by("day").order_by_desc("id")), Some(2));
        assert_eq!(take(free(&seats).filter("false")), None);
        assert_eq!(
            take(free(&seats).filter(r"E'$$' = '$$'").with("id", 2)),
            Some(2)
        );
        assert_eq!(take(free(&seats).filter("id > 1").with("id", 1)), None);
    });
}

pub fn an_id_of_another_type_is_told<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let by_day = FirstFree::new(seats.name.as_str(), "day");
        let error = by_day.run_in_transaction(backend, |_, _: i64| -> Result<(), Error> {
            panic!("a day is no number")
        });
        let Err(Error::UnreadableId { id, lock, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(id, "2026-11-20");
        assert!(lock.to_string().contains(&seats.name));
        assert!(seats.is_free(1, "UPDATE"));
        let taken = free(&seats).run_in_transaction(backend, |_, id: u8| Ok::<_, Error>(id));
        assert_eq!(taken.unwrap(), Some(1));
    });
}

pub fn an_error_gives_the_row_back<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let error = free(&seats).run_in_transaction(backend, |tx, _: i32| {
            sql(tx, &seats.book(1, "ada"))?;
            Err::<(), _>(Error::body("no"))
        });
        assert!(matches!(error, Err(Error::Body(_))), "{error:?}");
        assert_eq!(seats.buyer(1), None);
        assert!(seats.is_free(1, "UPDATE"));
        let error = free(&seats).run_in_transaction(backend, |tx, _: i32| {
            let _ = sql(tx, "SELECT 1 / 0");
            Ok::<_, Error>(())
        });
        assert!(
            matches!(error, Err(Error::NotCommitted { .. })),
            "{error:?}"
        );
    });
}

pub fn what_is_wrong_is_told<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        let mut refused = |free: FirstFree| {
            let taken = free.run_in_transaction(backend, |_, _: i32| Ok::<_, Error>(()));
            taken.unwrap_err()
        };
        let error = refused(free(&seats).with("it's", "\\"));
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        let shown = format!(
            "cannot acquire the first free row of \"{}\" with \"it's\" = \"\\\\\" (exclusive)",
            seats.name
        );
        assert_eq!(error.to_string(), shown);
        // The value only looks like an answer of pglock's.
        let error = refused(free(&seats).with("id", "pglock:busy"));
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        let error = refused(free(&seats).filter("id = 1) OR (no_column"));
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        let error = refused(free(&seats).filter("\0"));
        assert!(matches!(error, Error::NulByte { .. }), "{error:?}");
        let error = refused(free(&seats).order_by("\0"));
        assert!(matches!(error, Error::NulByte { .. }), "{error:?}");
        let taken = free(&seats).run_in_transaction(backend, |_, _: i32| Ok::<_, Error>(()));
        assert!(taken.unwrap().is_some());
    });
}

/// Otherwise it would be committed with pglock's transaction.
pub fn a_raw_transaction_is_left_alone<H: Harness>() {
    let seats = Seats::new();
    H::with(|backend| {
        on(backend, &format!("BEGIN; {}", seats.book(3, "ada"))).unwrap();
        let error = free(&seats).run_in_transaction(backend, |_, _: i32| Ok::<_, Error>(()));
        assert!(
            matches!(error, Err(Error::InTransaction { .. })),
            "{error:?}"
        );
        assert_eq!(seats.buyer(3), None);
        let _ = on(backend, "ROLLBACK");
    });
    assert!(seats.modes(&mut Oracle::new()).is_empty());
}
