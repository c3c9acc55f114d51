//! How to choose a lock and how to live with it, topic by topic.
//!
//! | read | when |
//! | --- | --- |
//! | [`first_lock`] | you have ten minutes and no lock yet |
//! | [`choosing`] | several things here would do |
//! | [`keys`] | you name your locks |
//! | [`transactions`] | the section writes to the database |
//! | [`timeouts`] | somebody is waiting for an answer |
//! | [`pools`] | many threads share connections |
//! | [`held`] | the work is not in this database |
//! | [`leaders`] | one of many processes has to do it |
//! | [`operations`] | it runs, and you are on call |

/// The first lock, in ten minutes.
///
#[doc = include_str!("first_lock.md")]
pub mod first_lock {}

/// Which lock for what.
///
#[doc = include_str!("which.md")]
#[doc = include_str!("choosing.md")]
pub mod choosing {}

/// What to call a lock.
///
#[doc = include_str!("keys.md")]
pub mod keys {}

/// Locks and transactions.
///
#[doc = include_str!("transactions.md")]
pub mod transactions {}

/// Timeouts, conflicts, and waits that somebody ends.
///
#[doc = include_str!("timeouts.md")]
pub mod timeouts {}

/// Pools and threads.
///
#[doc = include_str!("pools.md")]
pub mod pools {}

/// A lock for work elsewhere.
///
#[doc = include_str!("held.md")]
pub mod held {}

/// One leader among several processes.
///
#[doc = include_str!("leaders.md")]
pub mod leaders {}

/// What locks mean to the server.
///
#[doc = include_str!("../../docs/operations.md")]
pub mod operations {}
