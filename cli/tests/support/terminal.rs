//! A terminal, and what is shown on it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

pub struct Terminal {
    /// Our side.
    pub keys: OwnedFd,
    end: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn new(columns: u16) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let mut options = File::options();
        let end = options.read(true).write(true).open(name.to_str().unwrap());
        let end = end.unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&end, size).unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, all) = (File::from(keys.try_clone().unwrap()), Arc::clone(&written));
        thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut some) {
                all.lock().unwrap().extend(&some[..count]);
            }
        });
        Self { keys, end, written }
    }

    /// For a process.
    pub fn end(&self) -> File {
        self.end.try_clone().unwrap()
    }

    /// All that was ever written.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Each state of a line: what was written between two returns, without the commands to the terminal.
    pub fn lines(&self) -> Vec<String> {
        let written = self.written();
        written.split(['\r', '\n']).map(without_commands).collect()
    }
}

fn without_commands(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += piece
            .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
            .get(1..)
            .unwrap_or_default();
    }
    plain
}
