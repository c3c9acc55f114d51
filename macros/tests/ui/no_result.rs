#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked]
fn nothing(conn: &mut Client) {}

#[locked]
fn number(conn: &mut Client) -> i64 {
    1
}

#[locked]
fn option(conn: &mut Client) -> Option<i64> {
    None
}

#[locked]
fn pair(conn: &mut Client) -> (i64, i64) {
    (1, 2)
}

fn main() {}
