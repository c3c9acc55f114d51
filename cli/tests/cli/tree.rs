//! `pglock ls --tree`: who waits for whom.

use postgres::Client;

use crate::oracle::{Oracle, Table, connect};
use crate::process::{assert_fails, stdout};
use crate::unique;

fn pid(client: &mut Client) -> i32 {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).unwrap();
    row.get(0)
}

/// Sends a statement that has to wait, and leaves it waiting until its session is ended.
fn wait_in_vain(mut client: Client, statement: &str) {
    let statement = statement.to_owned();
    std::thread::spawn(move || {
        let _ = client.batch_execute(&statement);
    });
}

/// The line of a process, and those below it.
fn below(tree: &str, pid: i32) -> Vec<&str> {
    let start = format!("pid {pid},");
    let mut lines = tree.lines().skip_while(|line| !line.starts_with(&start));
    let first = lines.next();
    let below = lines.take_while(|line| !line.starts_with("pid ") && !line.starts_with("a "));
    first.into_iter().chain(below).collect()
}

#[test]
fn waiters_stand_below_the_one_they_wait_for() {
    let ((_, key), table, mut oracle) = (unique(), Table::new(), Oracle::new());
    let number = key.as_i64().unwrap();
    let [mut root, mut holder, mut first, mut second] = [(); 4].map(|()| connect());
    let [at_root, at_holder, at_first, at_second] =
        [&mut root, &mut holder, &mut first, &mut second].map(pid);

    // The holder of the key waits for a table, whose holder holds no advisory lock.
    let lock_table = format!("BEGIN; LOCK TABLE {}", table.name);
    root.batch_execute(&lock_table).unwrap();
    let lock_key = format!("SELECT pg_advisory_lock({number})");
    holder.batch_execute(&lock_key).unwrap();
    wait_in_vain(holder, &lock_table);
    wait_in_vain(first, &lock_key);
    oracle.wait_for_waiters(&key, 1);
    wait_in_vain(second, &format!("SELECT pg_advisory_lock_shared({number})"));
    oracle.wait_for_waiters(&key, 2);
    crate::oracle::wait_until("the wait for the table", || {
        let query = "SELECT FROM pg_locks WHERE NOT granted AND pid = $1";
        oracle.client.query_opt(query, &[&at_holder]).unwrap()
    });

    let tree = stdout(&["ls", "--tree"]);
    let lines = below(&tree, at_root);
    let [_, of_holder, of_first, of_second] = lines.as_slice() else {
        panic!("{tree}");
    };
    let starts = [
        (of_holder, format!("└─ pid {at_holder},")),
        (of_first, format!("   ├─ pid {at_first},")),
        (of_second, format!("   └─ pid {at_second},")),
    ];
    for (line, start) in starts {
        assert!(line.starts_with(&start), "{start}: {tree}");
    }
    let holds = format!("holds {number} (exclusive)");
    assert!(of_holder.contains(&holds), "{tree}");
    assert!(of_holder.contains("for another lock (relation)"), "{tree}");
    let waits = format!("for {number} (exclusive)");
    assert!(
        of_first.contains("waits") && of_first.contains(&waits),
        "{tree}"
    );
    assert!(
        of_second.contains(&format!("for {number} (shared)")),
        "{tree}"
    );
    for pid in [at_holder, at_first, at_second] {
        oracle.terminate(pid);
    }
}

#[test]
fn who_waits_for_two_stands_below_both() {
    let ((_, key), mut oracle) = (unique(), Oracle::new());
    let number = key.as_i64().unwrap();
    let [mut one, mut other, mut waiter] = [(); 3].map(|()| connect());
    let at = [&mut one, &mut other, &mut waiter].map(pid);
    for holder in [&mut one, &mut other] {
        let share = format!("SELECT pg_advisory_lock_shared({number})");
        holder.batch_execute(&share).unwrap();
    }
    wait_in_vain(waiter, &format!("SELECT pg_advisory_lock({number})"));
    oracle.wait_for_waiter(&key);
    let tree = stdout(&["ls", "--tree"]);
    let start = format!("└─ pid {},", at[2]);
    let mut again = 0;
    for holder in [at[0], at[1]] {
        let lines = below(&tree, holder);
        assert_eq!(lines.len(), 2, "{tree}");
        assert!(lines[1].starts_with(&start), "{tree}");
        again += usize::from(lines[1].ends_with("(see above)"));
    }
    assert_eq!(again, 1, "{tree}");
    oracle.terminate(at[2]);
    assert_fails(&["ls", "--tree", "--json"], 64, "cannot be used with");
}
