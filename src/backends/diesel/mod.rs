//! diesel: `PgConnection`.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;

use crate::driver::{
    BoxError, Failure, Finish, LockBackend, Opening, Session, Statement, Transacted,
    TransactionBackend, end_session,
};
use crate::{prepared, sql};

mod error;
mod query;

use self::error::failure;
pub(crate) use self::error::is_in_the_way;
use self::query::{answer_of_text, is_in_one_transaction, is_in_transaction, lines, typed};

type Manager = AnsiTransactionManager;

impl LockBackend for PgConnection {
    type Session = Self;
    type Handle<'a> = &'a mut Self;

    fn session(&mut self) -> Result<Self::Handle<'_>, BoxError> {
        Ok(self)
    }
}

impl TransactionBackend for PgConnection {}

impl Session for PgConnection {
    type Transaction<'t> = Self;

    const HAS_SQLSTATE: bool = false;

    fn in_transaction(&mut self) -> bool {
        depth(self) > 0
    }

    fn is_broken(&mut self) -> bool {
        Manager::is_broken_transaction_manager(self)
    }

    fn hung_up(&mut self) -> Option<BoxError> {
        let error = self.notifications_iter().find_map(Result::err);
        error.map(Into::into)
    }

    fn message(&mut self, statements: &str, question: &str) -> Result<Vec<String>, Failure> {
        // Alone, what goes in front of a message would only be warned of.
        let has_statements = !statements.is_empty() && statements != sql::FIRST;
        if has_statements || question.is_empty() {
            let sent = self.batch_execute(statements);
            sent.map_err(|error| failure(self, error))?;
        }
        match question {
            "" => Ok(Vec::new()),
            question => lines(self, diesel::sql_query(question)),
        }
    }

    fn prepared(&mut self, before: &str, statement: &Statement) -> Result<Vec<String>, Failure> {
        // A label is for others to read: it must stand in the text.
        if before.contains(sql::LABEL) && !self.in_transaction() {
            return answer_of_text(
                self,
                &[before, &statement.clone().raising().text()].concat(),
            );
        }
        // EXECUTE is cheaper for the server than a look at the portal, but it brings no rows.
        if statement.is_never_refused() {
            let raising = statement.clone().raising();
            return prepared::run_with(self, &raising, |session, text| {
                session.send(text).map(|()| Vec::new())
            });
        }
        let mut gone = false;
        // In a transaction, a statement that is gone would abort it.
        if !prepared::is_text_only(self) && !self.in_transaction() {
            let lines = typed(self, statement);
            match &lines {
                Err(failure) if failure.is_missing("__diesel_stmt_") => {
                    prepared::give_up(self);
                    gone = true;
                }
                Ok(lines) if lines.first().is_some_and(|line| line == sql::ANOTHER) => {
                    prepared::give_up(self);
                }
                Ok(lines) if is_in_transaction(lines) && !is_in_one_transaction(self)? => {
                    prepared::give_up(self);
                }
                _ => return lines,
            }
        }
        if !statement.needs_message() {
            return lines(self, diesel::sql_query(statement.text()));
        }
        let answer = answer_of_text(self, &statement.clone().raising().text());
        match gone {
            true => answer.map_err(prepared::after_abort),
            false => answer,
        }
    }

    fn transact<R>(
        &mut self,
        opening: &Opening,
        body: impl FnOnce(&mut Self) -> (R, Finish),
    ) -> Result<Transacted<R>, Failure> {
        let outer = depth(self);
        let begun = match outer {
            0 => Manager::begin_transaction_sql(self, &opening.begin()),
            _ => Manager::begin_transaction(self),
        };
        begun.map_err(|error| failure(self, error))?;
        let open = RollbackOnDrop {
            connection: self,
            outer,
        };
        let (result, finish) = body(open.connection);
        let ended = match finish {
            Finish::Rollback | Finish::Leave => Ok(()),
            // diesel notices by itself that the COMMIT in the batch has ended its transaction.
            Finish::Commit if outer == 0 => opening.commit(open.connection),
            Finish::Commit => Manager::commit_transaction(open.connection)
                .map_err(|error| failure(open.connection, error)),
        };
        Ok(Transacted { result, ended })
    }

    fn terminate(&mut self) {
        end_session(|text| self.send(text));
        Manager::transaction_manager_status_mut(self).set_in_error();
    }
}

/// diesel's own transactions stay open when a body panics.
struct RollbackOnDrop<'c> {
    connection: &'c mut PgConnection,
    outer: u32,
}

impl Drop for RollbackOnDrop<'_> {
    fn drop(&mut self) {
        while depth(self.connection) > self.outer {
            if Manager::rollback_transaction(self.connection).is_err() {
                break;
            }
        }
    }
}

fn depth(connection: &mut PgConnection) -> u32 {
    match Manager::transaction_manager_status_mut(connection).transaction_depth() {
        Ok(Some(depth)) => depth.get(),
        Ok(None) | Err(_) => 0,
    }
}
