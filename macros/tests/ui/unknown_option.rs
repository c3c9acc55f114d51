#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(wait = "2s")]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
