#![allow(unused)]

use pglock_macros::locked;

struct Client;
struct Error;

struct Shop {
    conn: Client,
}

impl Shop {
    #[locked(key = "seat:{seat}")]
    fn sell(&mut self, seat: &str) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
