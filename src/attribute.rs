//! The attribute, which the crate `pglock-macros` expands.

/// Runs a function under a lock: the whole body is the critical section.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// use postgres::{Client, NoTls};
///
/// #[pglock::locked(key = "doc:withdraw:{user_id}", timeout = "2s")]
/// fn withdraw(conn: &mut Client, user_id: i64, amount: i64) -> anyhow::Result<i64> {
///     let balance: i64 = conn.query_one("SELECT 100::bigint", &[])?.get(0);
///     Ok(balance - amount)
/// }
///
/// # let url = std::env::var("DATABASE_URL")?;
/// let mut client = Client::connect(&url, NoTls)?;
/// assert_eq!(withdraw(&mut client, 42, 10)?, 90);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// It is for functions that return a `Result`, whose error is `From<pglock::Error>`: also generic
/// ones, methods, and functions with lifetimes. In the body, the name of the connection stands for
/// what the lock gives: the connection, or the transaction.
///
/// # Options
///
/// | option | | default |
/// | --- | --- | --- |
/// | `key = "seat:{id}"` | a name, with arguments in braces as in `format!`; also `{self.id}` and `{seat.id:04}` | the path of the function: `my_crate::seats::sell` |
/// | `conn = name` | the argument to lock on | the first that is a `&mut` |
/// | `timeout = "2s"` | how long to wait, in `ms`, `s`, `m` or `h`; `"0ms"` is one attempt | for ever |
/// | `shared` | lets other shared holders in | exclusive |
/// | `transaction` | BEGIN, lock, body, COMMIT; rolled back on error | a session lock outside a transaction |
/// | `try` | only if the lock is free, or becomes free within the timeout | waits |
/// | `on_conflict = path` | a function without arguments, called in place of the timeout's error; its result is the function's | the error |
///
/// With `try` the function returns `Result<Option<T>, E>`, in its signature as in its body: it says
/// `Ok(Some(…))`, and `Ok(None)` comes from the attribute when somebody else holds the lock.
///
/// The default key has no name of a type in it: two methods of one name in one module have the same
/// lock, unless they are given a key.
///
/// An argument whose name is a keyword can be written in the key as `format!` wants it, `{type}`, or
/// as the code does, `{r#type}`.
///
/// What does not fit is an error at compile time: a name in the key that is no argument, an option
/// that is unknown or contradicts another, an `async fn`, no `Result`, no connection.
pub use pglock_macros::locked;
