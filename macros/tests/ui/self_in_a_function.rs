#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(key = "withdraw:{self.id}")]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
