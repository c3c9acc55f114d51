#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(try, on_conflict = busy)]
fn withdraw(conn: &mut Client) -> Result<Option<()>, Error> {
    Ok(Some(()))
}

fn main() {}
