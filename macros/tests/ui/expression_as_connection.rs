#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(conn = pool.get())]
fn withdraw(pool: &Client) -> Result<(), Error> {
    Ok(())
}

fn main() {}
