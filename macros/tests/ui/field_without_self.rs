#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(conn = self.conn)]
fn withdraw(conn: &mut Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
