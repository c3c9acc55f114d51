#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(key = "withdraw:{user_id")]
fn withdraw(conn: &mut Client, user_id: i64) -> Result<(), Error> {
    Ok(())
}

fn main() {}
