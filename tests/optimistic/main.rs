//! Versions, on both drivers.

#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/proxy.rs"]
mod proxy;

mod cases;
mod driver;
mod names;
mod retries;
mod triggers;
mod with_diesel;

macro_rules! on_both {
    ($($module:ident { $($case:ident,)* })*) => {
        mod postgres_crate {$($(
            #[test]
            fn $case() {
                crate::$module::$case::<postgres::Client>();
            }
        )*)*}
        mod diesel_crate {$($(
            #[test]
            fn $case() {
                crate::$module::$case::<diesel::PgConnection>();
            }
        )*)*}
    };
}

on_both! {
    cases {
        a_save_raises_the_version_and_changes_no_other_column,
        a_stale_save_changes_nothing_and_conflicts_again,
        a_save_that_waited_for_another_conflicts,
        a_missing_row_is_an_error_and_never_inserted,
        a_save_that_matches_several_rows_changes_none,
        a_delete_is_checked,
        no_increment_is_lost,
        a_null_version_is_refused,
        a_column_of_another_type_is_refused,
        a_version_that_can_go_no_higher_is_refused,
        the_last_version_is_that_of_the_column,
        an_empty_list_of_changes_is_refused,
        a_serialization_failure_is_a_conflict,
        the_reason_stands_in_an_error_once,
        a_rolled_back_save_leaves_the_old_version,
        a_save_reads_no_other_row,
    }
    retries {
        a_conflict_is_tried_again_in_every_error_type,
        a_serialization_failure_is_tried_again,
        what_is_no_conflict_is_not_tried_again,
    }
    triggers {
        the_trigger_raises_the_version_once_for_everybody,
        long_columns_have_triggers_of_their_own,
        a_save_that_a_trigger_suppresses_is_no_conflict,
        a_save_that_a_policy_suppresses_is_no_conflict,
        a_save_whose_new_version_is_unusable_is_no_refusal,
    }
}
