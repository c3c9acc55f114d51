#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(key = 42)]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
