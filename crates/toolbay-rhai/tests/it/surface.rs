//! Everything that a script can be given, looked at: a function that an upgrade of Rhai brings in stops here.

use expect_test::expect_file;

#[test]
fn the_functions_are_those_that_were_reviewed() {
    expect_file!["signatures.txt"].assert_eq(&(toolbay_rhai::signatures().join("\n") + "\n"));
}
