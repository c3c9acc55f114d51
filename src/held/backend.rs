//! Where a hold finds its session.

use std::sync::Arc;

use super::hold::{Desk, Order, Refused, Reply, Serve, serve, start};
use super::{Held, Keeper};
use crate::driver::{BoxError, LockBackend};
use crate::error::Error;

/// Where a hold finds its session: a connection, a pooled one or a pool that it can own; a function that connects,
/// as `|| Client::connect(…)` or `|| pool.get()`; or a [`Keeper`], on which many holds share a session.
///
/// The type parameter only tells these apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot hold a lock for work elsewhere",
    note = "give a connection or a pool that the hold can own (`pool.clone()`), a function that connects (`|| Client::connect(…)`), or a `pglock::held::Keeper`"
)]
pub trait HoldBackend<Via>: sealed::Hold<Via> {}

#[diagnostic::do_not_recommend]
impl<Via, B: sealed::Hold<Via>> HoldBackend<Via> for B {}

mod sealed {
    use super::{Error, Held, Order};

    pub trait Hold<Via> {
        fn hold(self, order: Order) -> Result<Held, Error>;
    }
}

/// By a backend that the hold owns.
#[derive(Debug)]
pub struct ByBackend;

/// By a function that connects.
#[derive(Debug)]
pub struct ByConnecting<C, E>(std::marker::PhantomData<(C, E)>);

/// By a keeper.
#[derive(Debug)]
pub struct ByKeeper;

impl<B: LockBackend + Send + 'static> sealed::Hold<ByBackend> for B {
    fn hold(mut self, order: Order) -> Result<Held, Error> {
        let serve: Box<Serve> =
            Box::new(move |desk, order, reply| serve(&mut self, desk, order, reply));
        start(serve, &order).map(|(held, _)| held)
    }
}

impl<F, C, E> sealed::Hold<ByConnecting<C, E>> for F
where
    F: FnOnce() -> Result<C, E> + Send + 'static,
    C: LockBackend,
    E: Into<BoxError>,
{
    fn hold(self, order: Order) -> Result<Held, Error> {
        let serve: Box<Serve> =
            Box::new(move |desk, order, reply| by_connecting(self, desk, order, reply));
        start(serve, &order).map(|(held, _)| held)
    }
}

impl sealed::Hold<ByKeeper> for Keeper {
    fn hold(self, order: Order) -> Result<Held, Error> {
        self.serve(&order)
    }
}

impl sealed::Hold<ByKeeper> for &Keeper {
    fn hold(self, order: Order) -> Result<Held, Error> {
        self.serve(&order)
    }
}

pub(super) fn by_connecting<C: LockBackend, E: Into<BoxError>>(
    connect: impl FnOnce() -> Result<C, E>,
    desk: &Arc<Desk>,
    order: &Order,
    reply: &Reply,
) {
    match connect() {
        Ok(mut backend) => serve(&mut backend, desk, order, reply),
        Err(error) => {
            let refused = Error::no_session(&order.request.lock, false, error);
            let _ = reply.send(Err(Refused::Failed(refused)));
        }
    }
}
