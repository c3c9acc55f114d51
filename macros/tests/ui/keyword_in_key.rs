#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked(key = "withdraw:{r#type}")]
fn argument(conn: &mut Client, kind: &str) -> Result<(), Error> {
    Ok(())
}

#[locked(key = "withdraw:{kind.r#self}")]
fn field(conn: &mut Client, kind: &str) -> Result<(), Error> {
    Ok(())
}

#[locked(key = "withdraw:{kind.²}")]
fn digit(conn: &mut Client, kind: &str) -> Result<(), Error> {
    Ok(())
}

fn main() {}
