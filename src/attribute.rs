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
/// The function returns a `Result` whose error is `From<pglock::Error>`. It can be generic, a method,
/// or have lifetimes. In the body, the name of the connection stands for what the lock gives: the
/// connection, or the transaction.
///
/// # Options
///
/// | option | | default |
/// | --- | --- | --- |
/// | `key = "seat:{id}"` | a name, with arguments in braces as in `format!`; also fields, as in `{self.id}` and `{seat.id:04}` | the path of the function: `my_crate::seats::sell` |
/// | `conn = name` | the argument to lock on, or a field, as in `conn = self.conn` | the first argument that is a `&mut` |
/// | `timeout = "2s"` | how long to wait, in `ms`, `s`, `m` or `h`; `"0ms"` is one attempt | no limit |
/// | `shared` | lets other shared holders in | exclusive |
/// | `transaction` | BEGIN, lock, body, COMMIT; rolled back on error | a session lock outside a transaction |
/// | `try` | runs the body only if the lock is free, or becomes free within the timeout | waits |
/// | `on_conflict = path` | a function that takes the timeout's [`Error`](crate::Error), called instead of returning it; its result becomes the function's | the error |
/// | `crate = path` | where pglock is found, if it is renamed or re-exported | `::pglock` |
///
/// With `try` the function returns `Result<Option<T>, E>`, and so does the body: it ends in
/// `Ok(Some(…))`, and `Ok(None)` comes from the attribute when another session holds the lock.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// # use postgres::{Client, NoTls};
/// fn busy(timeout: pglock::Error) -> anyhow::Result<String> {
///     Ok(format!("please try again: {timeout}"))
/// }
///
/// #[pglock::locked(key = "doc:on-conflict:{seat}", timeout = "0ms", on_conflict = busy)]
/// fn sell(conn: &mut Client, seat: &str) -> anyhow::Result<String> {
///     conn.batch_execute("SELECT 'sell'")?;
///     Ok("sold".to_owned())
/// }
///
/// # let url = std::env::var("DATABASE_URL")?;
/// let (mut ada, mut bob) = (Client::connect(&url, NoTls)?, Client::connect(&url, NoTls)?);
/// pglock::with_lock(&mut ada, "doc:on-conflict:12A", |_| {
///     let answer = sell(&mut bob, "12A")?;
///     assert!(answer.starts_with("please try again"), "{answer}");
///     anyhow::Ok(())
/// })?;
/// assert_eq!(sell(&mut bob, "12A")?, "sold");
/// # }
/// # Ok(())
/// # }
/// ```
///
/// The default key does not contain the name of a type: two methods with the same name in one
/// module share a lock unless you give them keys.
///
/// An argument whose name is a keyword can be written in the key as in `format!`, `{type}`, or as
/// in code, `{r#type}`.
///
/// # Connections in fields
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "postgres")] {
/// use postgres::{Client, NoTls};
///
/// struct Shop {
///     conn: Client,
///     sold: u32,
/// }
///
/// impl Shop {
///     #[pglock::locked(key = "doc:seat:{seat}", conn = self.conn)]
///     fn sell(&mut self, seat: &str) -> anyhow::Result<u32> {
///         self.conn.execute("SELECT $1::text", &[&seat])?;
///         self.sold += 1;
///         Ok(self.sold)
///     }
/// }
///
/// # let url = std::env::var("DATABASE_URL")?;
/// let conn = Client::connect(&url, NoTls)?;
/// let mut shop = Shop { conn, sold: 0 };
/// assert_eq!(shop.sell("12A")?, 1);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// In the body, `self.conn` stands for what the lock gives. The lock borrows that field: the body can
/// use the other fields, but no method that borrows all of `self`. A variable that happens to be
/// called `conn` is another thing. A field of an argument, `conn = shop.conn`, is reached by its bare
/// name, as if `conn` were an argument.
///
/// ```compile_fail,E0425
/// # struct Shop { conn: postgres::Client }
/// # impl Shop {
/// #[pglock::locked(conn = self.conn)]
/// fn sell(&mut self) -> anyhow::Result<()> {
///     Ok(conn.batch_execute("SELECT 'sell'")?) // write `self.conn`
/// }
/// # }
/// ```
///
/// A pool can be locked on through a shared reference: `conn = self.pool` works with `&self`.
///
/// # Errors at compile time
///
/// The compiler rejects a name in the key that is not an argument, an option that is unknown or
/// contradicts another, an `async fn`, a function without a `Result`, and one without a connection.
pub use pglock_macros::locked;
