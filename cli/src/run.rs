//! `pglock run`: a command under a lock.

use crate::args::RunArgs;
use crate::exit::Failure;
use crate::grant::grant;
use crate::signals::{Signals, end_by};
use crate::supervise::Supervisor;

pub(crate) fn run(url: &str, args: &RunArgs) -> Result<u8, Failure> {
    let signals = Signals::listen()?;
    let granted = grant(url, args, &signals);
    if let Some(signal) = signals.running() {
        drop(granted);
        end_by(signal);
    }
    Supervisor::new(granted?, &signals, args).run()
}
