#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(crate = no_such_crate)]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
