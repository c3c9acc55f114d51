//! What can be locked: keys, ranges, rows and tables; and in which mode.

mod first_free;
mod lock_info;
mod mode;
mod range;
mod row;
mod slots;
mod table;
mod target;

pub(crate) use first_free::Order;
pub use first_free::{FirstFree, FirstFreeRows};
pub use lock_info::LockInfo;
pub use mode::{Mode, TableMode};
pub use range::KeyRange;
pub(crate) use row::Columns;
pub use row::Row;
pub use slots::Slots;
pub use table::{Table, TableName};
pub use target::{IntoTarget, SessionTarget, Target};
