#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

#[locked]
struct Withdraw;

fn main() {}
