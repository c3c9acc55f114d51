//! What does not compile, and what the compiler says then: `TRYBUILD=overwrite` writes it down.

#[test]
fn ui() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
