#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(shared, key = "a", shared)]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
