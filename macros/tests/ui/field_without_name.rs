#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(conn = pair.0)]
fn withdraw(pair: &mut (Client, i64)) -> Result<(), Error> {
    Ok(())
}

fn main() {}
