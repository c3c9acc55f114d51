//! `pglock run`: a command under a lock.

use crate::args::RunArgs;
use crate::exit::Failure;
use crate::grant::{Granted, grant};
use crate::signals::{Signals, end_by};
use crate::supervise::Held;

pub(crate) fn run(url: &str, args: &RunArgs) -> Result<u8, Failure> {
    let signals = Signals::listen()?;
    let granted = grant(url, args, &signals);
    if let Some(signal) = signals.running() {
        drop(granted);
        end_by(signal);
    }
    let Granted {
        guard,
        lease,
        asked,
    } = granted?;
    Held::keep(guard, lease, asked, &signals, args)?.run()
}
