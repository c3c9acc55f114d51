#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

struct Shop {
    conn: Client,
}

impl Shop {
    #[locked(conn = self)]
    fn sell(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
