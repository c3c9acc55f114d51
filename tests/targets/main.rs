//! Rows and tables as lock targets, on every driver.

#[path = "../support/oracle.rs"]
mod oracle;

#[path = "../conformance/harness.rs"]
#[allow(dead_code, unused_imports)]
mod harness;

mod first_free;
mod inside;
mod rows;
mod seats;
mod tables;

macro_rules! on_each {
    ($($list:ident [$($backend:ident: $harness:ident),*] $cases:tt)*) => {$(
        on_each!(@backends $list [$($backend: $harness),*] $cases);
    )*};
    (@backends $list:ident [$($backend:ident: $harness:ident),*] $cases:tt) => {
        mod $list {$(
            mod $backend { on_each!(@cases $list $harness $cases); }
        )*}
    };
    (@cases $list:ident $harness:ident {$($case:ident,)*}) => {$(
        #[test]
        fn $case() {
            crate::$list::$case::<crate::harness::$harness>();
        }
    )*};
}

/// Where each case runs: `on::rows::diesel::…`.
mod on {
    on_each! {
        rows [postgres: PostgresClient, diesel: DieselConnection, pool: DieselPool, third: ThirdConnection] {
            a_row_is_locked_for_the_body,
            a_second_section_waits_for_the_row_and_sees_its_writes,
            shared_holders_share_the_row,
            the_gentler_lock_lets_references_in,
            a_row_by_several_columns,
            a_held_row_is_busy_and_holds_nothing,
            a_locked_table_does_not_hold_up_an_attempt,
            other_ends_of_the_wait_are_told_apart,
            a_deadlock_is_told,
            settings_are_as_they_were,
            a_missing_row_is_told,
            a_row_deleted_in_the_wait_is_missing,
            the_servers_errors_name_the_target,
            hostile_names_and_values_are_just_texts,
            a_nul_byte_is_refused_before_anything_is_sent,
            a_changed_row_is_told_under_repeatable_read,
        }
        tables [postgres: PostgresClient, diesel: DieselConnection, pool: DieselPool, third: ThirdConnection] {
            every_mode_is_the_one_that_pg_locks_shows,
            a_held_table_is_busy_and_holds_nothing,
            a_second_section_waits_for_the_table,
            a_stale_snapshot_is_refused,
            a_table_is_named_as_the_user_did,
        }
        first_free [postgres: PostgresClient, diesel: DieselConnection, pool: DieselPool, third: ThirdConnection] {
            each_row_goes_to_one_worker,
            locked_rows_are_passed_over,
            rows_are_sorted_as_their_columns_are,
            rows_that_others_refer_to_are_free,
            several_rows_are_taken_at_once,
            ids_may_be_any_text,
            a_condition_and_an_order_choose_the_row,
            an_id_of_another_type_is_told,
            an_error_gives_the_row_back,
            what_is_wrong_is_told,
            a_raw_transaction_is_left_alone,
        }
        inside [postgres: PostgresTransaction, diesel: DieselTransaction, pooled: DieselPooledTransaction, third: ThirdTransaction] {
            a_row_is_held_until_the_transaction_ends,
            a_refused_row_leaves_the_transaction_as_it_was,
            a_refused_table_leaves_the_transaction_as_it_was,
            a_free_row_stays_locked,
        }
    }
}
