//! Sections in one message: lock, statements, COMMIT and release. The promises of a section, on every
//! backend.

#[macro_use]
#[path = "../conformance/backends.rs"]
mod backends;
#[allow(dead_code)] // no test uses all of it
#[path = "../conformance/harness.rs"]
mod harness;
#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/proxy.rs"]
mod proxy;

mod copies;
mod cuts;
mod inside;
mod literals;
mod outside;
mod queued;
mod rows;
mod texts;
mod truth;
mod waiting;

use harness::*;
use pglock::{Error, Key};

/// A statement that fails unless a condition holds.
pub(crate) fn assert(condition: &str) -> String {
    format!("SELECT 1 / ({condition})::int;\n")
}

/// A condition: `pg_locks` shows that this session holds a key.
pub(crate) fn holds_key(key: &Key, mode: &str) -> String {
    let (classid, objid, objsubid) = key.pg_locks();
    format!(
        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND pid = pg_backend_pid() AND mode = '{mode}' \
         AND (classid, objid, objsubid) = ({classid}, {objid}, {objsubid})) = 1"
    )
}

/// The SQLSTATE of an error of the statements, or its text with diesel, which has no SQLSTATE.
#[track_caller]
pub(crate) fn of_statements(error: Error) -> String {
    let Error::Body(error) = error else {
        panic!("no error of the statements: {error:?}")
    };
    let postgres = error.downcast_ref::<postgres::Error>();
    if let Some(code) = postgres.and_then(postgres::Error::code) {
        return code.code().to_owned();
    }
    let diesel = error.downcast_ref::<diesel::result::Error>();
    diesel.expect("an error of a driver's").to_string()
}

macro_rules! outside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            outside::{
                statements_run_under_the_lock_and_are_committed,
                rows_without_a_column_do_no_harm,
                several_keys_and_shared_mode,
                rows_and_tables,
                an_error_of_the_statements_is_the_drivers_and_rolls_back,
                an_sqlstate_of_the_locks_in_the_statements_is_theirs,
                what_needs_no_transaction_is_refused_by_the_server,
                a_raw_transaction_is_told,
                a_stale_snapshot_is_told,
                the_session_scope_is_refused,
                a_connection_that_dies_in_the_statements_is_told,
                settings_are_the_callers_own,
            }
            texts::{
                a_commit_in_the_text_is_told,
                a_rollback_in_the_text_is_told,
                a_commit_and_a_begin_are_told,
                a_transaction_left_open_is_rolled_back_and_told,
                a_failed_transaction_of_the_text_is_rolled_back,
                words_in_strings_and_blocks_do_no_harm,
                any_text_ends_where_it_ends,
                a_nul_is_refused,
            }
            copies::{
                a_copy_from_or_to_the_client_is_told,
                a_text_with_that_word_is_one_section,
            }
            truth::{
                a_reset_in_the_text_loses_nothing,
                a_reset_hides_no_end_of_the_transaction,
                an_error_of_the_text_is_never_the_acquires,
                a_question_that_is_canceled_is_asked_again,
                without_an_answer_nothing_is_claimed,
                a_text_that_commits_and_then_fails_is_told,
            }
            waiting::{
                nothing_runs_while_the_lock_is_held,
                a_wait_of_several_slices_sees_what_was_written,
                a_lock_timeout_of_the_statements_is_theirs,
                the_sessions_own_lock_timeout_is_a_timeout,
                a_cancel_holds_nothing,
                a_stopped_wait_holds_nothing,
                a_wait_in_its_place_is_bounded_too,
                a_row_that_is_locked_times_out,
                a_deadlock_is_told_and_nothing_runs,
            }
            literals::{
                what_a_value_says_does_not_run,
                no_text_leaves_its_literal,
            }
        }
    };
}

macro_rules! inside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            inside::{
                the_lock_stays_until_the_transaction_ends,
                an_error_of_the_statements_leaves_the_transaction_as_it_was,
                a_held_lock_leaves_the_transaction_as_it_was,
                a_lock_timeout_of_the_statements_is_theirs,
                a_commit_in_the_text_is_told,
                an_aborted_transaction_is_told,
            }
            copies::{
                a_copy_from_or_to_the_client_leaves_the_transaction_as_it_was,
                a_text_with_that_word_keeps_the_lock_for_the_transaction,
            }
            truth::{
                an_error_of_the_text_in_a_transaction_is_never_the_acquires,
                a_text_that_ends_the_transaction_and_then_fails_is_told,
            }
        }
    };
}

on_every_backend!(outside_a_transaction, inside_a_transaction);
