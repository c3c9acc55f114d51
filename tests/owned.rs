//! Guards that own their connection, and what can move to another thread.

#[path = "support/oracle.rs"]
mod oracle;

use std::thread;

use diesel::connection::{Connection, SimpleConnection};
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use oracle::{Oracle, connect, unique_key, unique_name, url};
use pglock::driver::{Owned, OwnedBackend, Session};
use pglock::{
    Error, Key, Lock, LockGuard, LockInfo, Permit, QueuedPool, Semaphore, Slots, StopToken,
};
use postgres::{Client, NoTls};
use r2d2::{ManageConnection, Pool, PooledConnection};
use r2d2_postgres::PostgresConnectionManager;

type Postgres = PostgresConnectionManager<NoTls>;
type Diesel = ConnectionManager<PgConnection>;

fn pool<M: ManageConnection>(manager: M) -> Pool<M> {
    Pool::builder().max_size(2).build(manager).unwrap()
}

fn postgres_pool() -> Pool<Postgres> {
    pool(Postgres::new(url().parse().unwrap(), NoTls))
}

fn diesel_pool() -> Pool<Diesel> {
    pool(Diesel::new(url()))
}

/// Keeps a lock for as long as it lives, on whichever thread.
struct Leader<B: OwnedBackend> {
    guard: LockGuard<B::Owned>,
}

fn lead<B: OwnedBackend>(backend: B, key: &Key) -> Result<Leader<B>, Error> {
    let guard = Lock::new(backend, key).acquire_owned()?;
    Ok(Leader { guard })
}

fn holds_until_it_is_dropped<B: OwnedBackend<Owned: Send> + Send + 'static>(
    mut new: impl FnMut() -> B,
) where
    B::Session: Session,
{
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let mut leader = lead(new(), &key).unwrap();
    oracle.holder(&key);
    leader.guard.send("SELECT 1").unwrap();
    let refused = Lock::new(new(), &key)
        .timeout(std::time::Duration::ZERO)
        .acquire_owned();
    assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
    let busy = Lock::new(new(), &key).try_acquire_owned();
    assert!(matches!(busy, Ok(None)), "{busy:?}");
    let leader = thread::spawn(|| leader).join().unwrap();
    oracle.holder(&key);
    LockGuard::release(leader.guard).unwrap();
    oracle.wait_until_free(&key);
    drop(lead(new(), &key).unwrap());
    oracle.wait_until_free(&key);
    says_that_its_connection_was_swapped(&mut new);
    keeps_its_slot_until_it_is_dropped(new);
}

/// It can only ask the connection that is in it now.
fn says_that_its_connection_was_swapped<B: OwnedBackend>(new: &mut impl FnMut() -> B) {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let (mut one, mut other) = (new(), new());
    let mut other = other.session().unwrap();
    let mut lock = Lock::new(&mut one, &key);
    let mut guard = lock.acquire().unwrap();
    std::mem::swap(&mut *guard, &mut *other);
    let error = LockGuard::release(guard).unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error:?}");
    oracle.holder(&key);
    other.send("SELECT pg_advisory_unlock_all()").unwrap();
    oracle.assert_free(&key);
}

fn keeps_its_slot_until_it_is_dropped<B: OwnedBackend<Owned: Send> + Send + 'static>(
    mut new: impl FnMut() -> B,
) where
    B::Session: Session,
{
    let (mut oracle, slots) = (Oracle::new(), Slots::new(unique_name("semaphore"), 1));
    let key = &slots.keys()[0];
    let mut permit = Semaphore::new(new(), slots.key(), 1)
        .acquire_owned()
        .unwrap();
    oracle.holder(key);
    permit.send("SELECT 1").unwrap();
    let refused = Semaphore::new(new(), slots.key(), 1)
        .timeout(std::time::Duration::ZERO)
        .acquire_owned();
    assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
    let busy = Semaphore::new(new(), slots.key(), 1).try_acquire_owned();
    assert!(matches!(busy, Ok(None)), "{busy:?}");
    let told = Semaphore::new(new(), slots.key(), 1)
        .timeout(std::time::Duration::ZERO)
        .run_or_else(|_| Ok::<_, Error>(false), |busy| Ok(busy.is_busy()));
    assert!(told.unwrap());
    let permit = thread::spawn(|| permit).join().unwrap();
    oracle.holder(key);
    Permit::release(permit).unwrap();
    oracle.wait_until_free(key);
    drop(
        Semaphore::new(new(), slots.key(), 1)
            .acquire_owned()
            .unwrap(),
    );
    oracle.wait_until_free(key);
}

#[test]
fn a_guard_owns_a_connection() {
    holds_until_it_is_dropped(connect);
    holds_until_it_is_dropped(|| PgConnection::establish(&url()).unwrap());
}

#[test]
fn a_guard_owns_a_pooled_connection() {
    let pool = postgres_pool();
    holds_until_it_is_dropped(|| pool.get().unwrap());
    let pool = diesel_pool();
    holds_until_it_is_dropped(|| pool.get().unwrap());
}

#[test]
fn a_guard_owns_a_connection_of_a_pool() {
    let pool = postgres_pool();
    holds_until_it_is_dropped(|| pool.clone());
    let pool = diesel_pool();
    holds_until_it_is_dropped(|| pool.clone());
    let queued = QueuedPool::new(pool);
    holds_until_it_is_dropped(|| queued.clone());
}

/// The guard dereferences to the connection, as a borrowing one does.
#[test]
fn an_owned_connection_is_used_as_any() {
    let key = unique_key();
    let guard = Lock::new(connect(), &key).acquire_owned().unwrap();
    let client = LockGuard::into_inner(guard).unwrap();
    Oracle::new().assert_free(&key);
    let mut guard: LockGuard<Owned<Client>> = Lock::new(client, &key).acquire_owned().unwrap();
    guard.execute("SELECT 1", &[]).unwrap();
    let connection = PgConnection::establish(&url()).unwrap();
    let mut guard = Lock::new(connection, unique_key()).acquire_owned().unwrap();
    guard.batch_execute("SELECT 1").unwrap();
}

#[test]
fn a_lock_is_cloned_with_its_pool() {
    let (mut oracle, key) = (Oracle::new(), unique_key());
    let pool = postgres_pool();
    let mut lock = Lock::new(&pool, &key).shared();
    let mut other = lock.clone();
    assert_eq!(lock.lock_info(), other.lock_info());
    let guards = (lock.acquire().unwrap(), other.acquire().unwrap());
    assert_eq!(oracle.held(&key), ["ShareLock", "ShareLock"]);
    drop(guards);
    oracle.assert_free(&key);
}

/// No driver's connection is `Sync`, so nothing that contains one is.
#[test]
fn what_can_go_to_another_thread_does() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Error>();
    sync::<Error>();
    send::<Key>();
    sync::<Key>();
    send::<LockInfo>();
    sync::<LockInfo>();
    send::<StopToken>();
    sync::<StopToken>();
    send::<Lock<Client>>();
    send::<Lock<PgConnection>>();
    send::<Lock<Pool<Postgres>>>();
    sync::<Lock<Pool<Postgres>>>();
    send::<Lock<QueuedPool<Diesel>>>();
    sync::<Lock<QueuedPool<Diesel>>>();
    send::<Semaphore<Client>>();
    send::<Semaphore<Pool<Postgres>>>();
    sync::<Semaphore<Pool<Postgres>>>();
    send::<Permit<Owned<PgConnection>>>();
    send::<Permit<PooledConnection<Diesel>>>();
    send::<LockGuard<&mut Client>>();
    send::<LockGuard<Owned<Client>>>();
    send::<LockGuard<Owned<PgConnection>>>();
    send::<LockGuard<PooledConnection<Postgres>>>();
    send::<LockGuard<PooledConnection<Diesel>>>();
}
