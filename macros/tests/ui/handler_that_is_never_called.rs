#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(on_conflict = busy)]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
