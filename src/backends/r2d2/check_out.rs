//! Taking a connection out of a pool.

use std::thread;
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, Pool, PooledConnection};

use crate::error::Error;
use crate::failure::BoxError;
use crate::targets::LockInfo;

/// Takes a connection out of the pool, within the pool's own timeout and that of the lock. A timeout
/// of zero is a single attempt.
pub(crate) fn check_out<M: ManageConnection>(
    pool: &Pool<M>,
    lock: &LockInfo,
    timeout: Option<Duration>,
) -> Result<PooledConnection<M>, Error> {
    let checked_out = match timeout {
        Some(Duration::ZERO) => attempt(pool),
        Some(timeout) => {
            let timeout = timeout.min(pool.connection_timeout());
            pool.get_timeout(timeout).map_err(BoxError::from)
        }
        None => pool.get().map_err(BoxError::from),
    };
    checked_out.map_err(|source| {
        let in_use = pool.state().connections >= pool.max_size();
        Error::no_session(lock, in_use, source)
    })
}

/// Waits for a connection that is being opened, but not for one that is in use.
///
/// Another thread can get the one that is opened, and the pool does not say so. So if an opening takes
/// longer than usual, this looks again from time to time; asking the pool again would open one more.
fn attempt<M: ManageConnection>(pool: &Pool<M>) -> Result<PooledConnection<M>, BoxError> {
    const USUAL: Duration = Duration::from_millis(50);
    const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

    if let Some(connection) = pool.try_get() {
        return Ok(connection);
    }
    let (size, limit) = (pool.max_size(), pool.connection_timeout());
    let all_in_use = || pool.state().connections >= size;
    let in_use = || format!("all connections of the pool are in use, {size} of {size}").into();
    if all_in_use() {
        return Err(in_use());
    }
    let start = Instant::now();
    let first = match pool.get_timeout(USUAL.min(limit)) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    while start.elapsed() < limit {
        if all_in_use() {
            return Err(in_use());
        }
        thread::sleep(BETWEEN_LOOKS);
        if let Some(connection) = pool.try_get() {
            return Ok(connection);
        }
    }
    match pool.get_timeout(Duration::ZERO) {
        Ok(connection) => Ok(connection),
        // The pool gives the reason of a failure only once: one of the two errors has it.
        Err(last) if last.to_string().len() > first.to_string().len() => Err(last.into()),
        Err(_) => Err(first.into()),
    }
}
