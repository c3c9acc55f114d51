#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked]
fn withdraw(user_id: i64) -> Result<(), Error> {
    Ok(())
}

fn main() {}
