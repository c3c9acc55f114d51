//! The promises, each written once and checked on every backend: `cargo test --all-features
//! --test conformance` lists them as `backend::promise`.
//!
//! A backend outside a transaction runs the first list, one in a transaction of the caller's runs the
//! second.

#[path = "../support/line.rs"]
mod line;
#[path = "../support/oracle.rs"]
mod oracle;

mod ambient;
mod attacks;
#[macro_use]
mod backends;
mod counts;
mod gone;
mod harness;
mod held;
mod inside;
mod inspecting;
mod labels;
mod line_beside;
mod line_ends;
mod line_model;
mod line_order;
mod modes;
mod ranges;
mod sections;
mod slices;
mod snapshots;
mod transactions;
mod truth;
mod waiting;

use harness::*;
use pglock::LockBackend;

/// The connection that a body gets.
pub(crate) type SessionOf<'a, H> = <<H as Harness>::Backend<'a> as LockBackend>::Session;

macro_rules! outside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            sections::{
                every_kind_of_key_is_held_for_the_body_and_free_afterwards,
                shared_holders_share_and_keep_exclusive_ones_out,
                a_second_section_waits_for_the_first_and_sees_its_writes,
                the_bodys_error_comes_out_as_it_is_and_frees_the_lock,
                the_bodys_error_is_not_masked_by_a_lost_connection,
                a_panic_frees_the_lock_and_goes_on,
                a_transaction_left_open_is_rolled_back_and_told,
                a_lock_that_the_body_gave_away_is_told,
                a_connection_that_died_in_the_body_is_told,
                a_nested_section_leaves_the_outer_hold_alone,
                several_keys_are_held_together_and_freed_together,
                a_guard_holds_says_what_it_is_and_releases,
                a_session_lock_is_refused_in_a_raw_transaction,
                a_raw_transaction_with_work_in_it_is_not_committed,
                an_aborted_raw_transaction_is_told,
                a_transaction_lock_is_refused_outside_a_transaction,
            }
            counts::{
                a_lock_is_taken_exactly_once,
                a_failed_try_is_not_counted,
                the_two_key_spaces_never_meet,
                two_shared_holders_that_both_want_more_are_told,
                waiters_are_let_in_as_they_came,
            }
            ambient::{
                no_setting_changes_what_a_lock_does,
                a_section_that_idles_too_long_is_told,
                a_transaction_that_idles_too_long_is_told,
            }
            waiting::{
                a_try_on_a_held_key_is_none_and_holds_nothing,
                a_timeout_is_told_and_holds_nothing,
                timeouts_of_any_length_work,
                the_conflict_handler_runs_for_this_lock_alone,
                settings_are_as_they_were,
                the_sessions_own_lock_timeout_is_a_timeout,
                a_cancel_is_no_timeout_and_holds_nothing,
                a_connection_that_dies_while_waiting_is_told,
                a_deadlock_is_told_and_leaves_nothing_behind,
                several_keys_are_taken_in_one_order,
                a_lock_can_be_used_again_and_again,
            }
            transactions::{
                a_transaction_that_begins_again_is_prepared,
                work_is_committed_with_the_lock,
                the_next_holder_sees_the_commit,
                a_transaction_that_waited_sees_what_was_committed,
                an_error_rolls_the_work_back,
                an_error_commits_the_work_where_that_was_asked_for,
                a_panic_rolls_the_work_back,
                a_swallowed_sql_error_is_no_commit,
                a_commit_that_fails_is_no_commit,
                a_connection_that_died_before_the_commit_is_told,
                a_body_that_ends_the_transaction_itself_is_told,
                a_held_key_opens_no_transaction,
                a_deadlock_ends_the_transaction,
                a_stale_snapshot_is_refused_before_the_body,
                the_session_scope_contradicts_a_transaction,
            }
            inspecting::{
                holders_and_waiters_are_told,
                every_kind_of_key_is_told_apart,
                a_key_that_nobody_holds_has_no_holders,
                a_session_sees_its_own_locks,
                other_databases_are_left_out,
                what_may_not_be_seen_is_none,
                a_waiter_can_be_canceled_and_a_holder_ended,
                a_timeout_names_the_holder,
                a_table_in_front_of_the_view_hides_nothing,
            }
            labels::{
                a_label_swallows_nothing,
                nothing_runs_without_the_lock_behind_a_label,
            }
            modes::{
                a_downgraded_lock_is_shared_and_never_free,
                a_shared_lock_is_upgraded_if_nobody_else_shares,
                an_upgrade_against_another_is_refused,
                nested_holds_change_one_by_one,
                a_lock_that_is_lost_changes_nothing,
                no_mode_changes_in_a_raw_transaction,
                a_cancel_at_a_change_of_mode_changes_all_or_nothing,
            }
            ranges::{
                a_range_keeps_out_what_overlaps_and_nothing_else,
                a_guard_of_a_range_holds_and_keeps_its_mode,
                a_range_is_waited_for,
                who_holds_a_range_beside_may_wait_for_this_session,
                a_timeout_names_who_holds_a_range_in_the_way,
                a_range_that_cannot_be_taken_is_told,
            }
            attacks::{
                a_cancel_at_a_nested_release_leaves_the_outer_hold,
                a_cancel_at_a_nested_acquire_leaves_the_outer_hold,
                a_raw_transaction_that_has_only_locked_is_not_committed,
                a_body_that_puts_another_transaction_in_place_is_told,
                the_words_of_an_error_decide_nothing,
                a_failed_commit_that_may_succeed_later_is_contention,
                only_a_lock_of_the_session_is_held_by_it,
                thousands_of_keys_make_a_short_error,
                a_deferrable_default_does_not_outlast_a_timeout,
                a_raw_transaction_is_told_whatever_the_wait,
            }
            slices::{
                a_long_wait_ends_with_the_lock,
                an_index_is_built_concurrently_under_a_wait,
                the_sessions_own_timeouts_end_a_long_wait,
                a_token_ends_the_wait,
                a_name_is_shown_where_that_was_asked_for,
                a_session_that_holds_the_key_for_another_process_is_refused,
                a_session_that_holds_the_key_is_refused_to_transactions,
                a_session_that_has_lost_its_number_waits_in_transactions,
            }
            snapshots::{
                no_section_begins_with_a_snapshot,
                no_transaction_begins_with_a_snapshot,
                a_wait_leaves_no_snapshot,
                no_message_begins_with_a_snapshot,
            }
            line_order::{
                ten_are_let_in_as_they_came_after_many_slices,
                a_long_line_is_let_in_as_it_came,
                every_kind_of_key_has_a_line,
                a_writer_gets_in_among_readers,
                the_next_waits_for_the_heads_mutex,
                no_reader_passes_a_writer_between_its_slices,
                several_busy_keys_are_had_one_after_the_other,
                one_session_stands_in_many_lines_one_after_the_other,
                slots_are_had_in_the_order_of_the_line,
                pairs_of_a_users_are_no_places,
            }
            line_ends::{
                a_stop_leaves_nothing_in_line,
                a_timeout_leaves_nothing_in_line,
                a_cancel_leaves_nothing_in_line,
                many_cancels_leave_nothing_in_line,
                an_end_of_the_session_leaves_nothing_in_line,
                a_frozen_member_does_not_hold_up_the_line,
                a_frozen_member_keeps_no_key_for_long,
                who_stands_in_line_may_not_be_silent,
            }
            line_model::{
                any_mixture_excludes_and_leaves_nothing,
            }
            line_beside::{
                a_holder_passes_the_line,
                a_holder_passes_a_plain_waiter_beside_the_line,
                an_upgrade_waits_beside_the_line,
                an_upgrade_that_ends_keeps_what_was_held,
                a_wait_keeps_the_pairs_of_its_session,
            }
            gone::{
                a_session_whose_statements_are_gone_locks,
                a_body_whose_statements_are_gone_keeps_its_lock,
                a_session_of_nobodys_prepares_no_statement_a_key,
                a_body_that_discards_all_is_told,
            }
            truth::{
                a_reset_in_the_body_loses_nothing,
                a_reset_hides_no_end_of_the_transaction,
                nothing_else_looks_like_the_transaction,
                an_error_like_a_lost_connection_loses_none,
                a_copy_that_the_body_leaves_open_keeps_no_lock,
            }
        }
    };
}

macro_rules! inside_a_transaction {
    ($backend:ident, $harness:ty) => {
        promises! { $backend, $harness:
            inside::{
                a_lock_is_held_until_the_transaction_ends,
                a_savepoint_that_is_rolled_back_takes_its_locks_with_it,
                a_transaction_that_waited_sees_what_was_committed,
                a_refused_acquire_leaves_the_transaction_as_it_was,
                other_ends_of_the_wait_leave_the_transaction_usable,
                a_connection_that_dies_while_waiting_is_told,
                a_deadlock_leaves_the_transaction_usable,
                the_session_scope_is_refused,
                a_stale_snapshot_is_refused,
                an_aborted_transaction_is_told,
                an_error_rolls_back_to_the_lock_and_no_further,
                the_bodys_error_is_the_callers_to_handle,
            }
            inspecting::{
                a_timeout_in_a_transaction_names_the_holder,
                a_table_in_front_of_the_view_hides_nothing_in_a_transaction,
            }
            labels::{
                a_label_swallows_nothing_in_a_transaction,
            }
            modes::{
                a_transactions_lock_is_upgraded_and_never_downgraded,
            }
            ranges::{
                a_range_is_held_until_the_transaction_ends,
                a_refused_range_leaves_nothing_in_the_transaction,
            }
            attacks::{
                a_savepoint_of_the_callers_is_left_alone,
                is_held_tells_an_aborted_transaction,
            }
            slices::{
                a_session_that_holds_the_key_is_refused_to_the_callers_transaction,
                a_long_wait_in_a_transaction_ends_with_the_lock,
                a_deadlock_of_two_long_waits_is_found,
            }
            snapshots::{
                no_lock_leaves_a_snapshot_in_the_callers_transaction,
            }
            gone::{
                a_transaction_whose_statements_are_gone_locks,
            }
            truth::{
                an_error_like_a_lost_connection_leaves_the_transaction_usable,
            }
        }
    };
}

on_every_backend!(outside_a_transaction, inside_a_transaction);

mod third_driver {
    outside_a_transaction!(connection, crate::ThirdConnection);
    inside_a_transaction!(transaction, crate::ThirdTransaction);
}
