//! Errors inside errors.

use std::error::Error as StdError;
use std::{io, iter};

use super::Error;

/// An error and what it was caused by, also where its `source` passes something over.
pub(crate) fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    iter::successors(Some(error), |error| {
        let error: &'e (dyn StdError + 'static) = *error;
        if let Some(Error::Body(inner)) = error.downcast_ref() {
            return Some(&**inner);
        }
        #[cfg(feature = "diesel")]
        if let Some(diesel::result::Error::QueryBuilderError(inner)) = error.downcast_ref() {
            return Some(&**inner);
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

impl Error {
    /// Finds the error of a lock in another error: behind the context of `anyhow`, in a box, in the
    /// `diesel::result::Error` or the `std::io::Error` of a helper in between. An [`Error::Body`] is looked into, and is
    /// none itself. (`postgres::Error` cannot carry another error: a helper that locks must return something else.)
    ///
    /// ```
    /// use pglock::Error;
    /// # #[cfg(feature = "diesel")] {
    /// use diesel::{Connection, PgConnection, QueryResult};
    ///
    /// fn helper(conn: &mut PgConnection) -> QueryResult<()> {
    ///     pglock::Lock::new(conn, Vec::<pglock::Key>::new()).run(|_| Ok(()))
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
    /// let failed: Box<dyn std::error::Error> = helper(&mut conn).unwrap_err().into();
    /// assert!(matches!(Error::find_in(&*failed), Some(Error::NoKeys)));
    /// # Ok(())
    /// # }
    /// # main().unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn find_in<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        causes(error).find_map(|error| match error.downcast_ref() {
            Some(Self::Body(_)) | None => None,
            found => found,
        })
    }
}
