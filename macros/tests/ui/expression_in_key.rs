#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(key = "withdraw:{user.id()}")]
fn withdraw(conn: &mut Client, user: i64) -> Result<(), Error> {
    Ok(())
}

fn main() {}
