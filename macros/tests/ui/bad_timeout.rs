#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(timeout = "2 weeks")]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
