#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(try)]
fn withdraw(conn: &mut Client) -> Result<i64, Error> {
    Ok(1)
}

fn main() {}
