//! The help texts, as snapshots: what a user reads is decided, not left to happen.

use expect_test::{ExpectFile, expect_file};

use super::Desk;

#[track_caller]
fn check(args: &[&str], expected: ExpectFile) {
    let help = Desk::new().run(args).ends(0).stdout;
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn the_help_of_each_command_is_as_decided() {
    check(&["--help"], expect_file!["help/toolbay.txt"]);
    check(&["new", "--help"], expect_file!["help/new.txt"]);
    check(&["check", "--help"], expect_file!["help/check.txt"]);
    check(&["test", "--help"], expect_file!["help/test.txt"]);
    check(&["tools", "--help"], expect_file!["help/tools.txt"]);
    check(&["plugins", "--help"], expect_file!["help/plugins.txt"]);
    check(&["describe", "--help"], expect_file!["help/describe.txt"]);
    check(&["doctor", "--help"], expect_file!["help/doctor.txt"]);
    check(&["index", "--help"], expect_file!["help/index.txt"]);
    check(&["call", "--help"], expect_file!["help/call.txt"]);
    check(&["code", "--help"], expect_file!["help/code.txt"]);
    check(&["agent", "--help"], expect_file!["help/agent.txt"]);
    check(&["replay", "--help"], expect_file!["help/replay.txt"]);
    check(&["runs", "--help"], expect_file!["help/runs.txt"]);
    check(&["mcp", "--help"], expect_file!["help/mcp.txt"]);
    check(&["serve", "--help"], expect_file!["help/serve.txt"]);
    check(&["db", "--help"], expect_file!["help/db.txt"]);
    check(&["db", "migrate", "--help"], expect_file!["help/db-migrate.txt"]);
    check(&["db", "status", "--help"], expect_file!["help/db-status.txt"]);
    check(&["db", "backup", "--help"], expect_file!["help/db-backup.txt"]);
    check(&["keys", "--help"], expect_file!["help/keys.txt"]);
    check(&["keys", "create", "--help"], expect_file!["help/keys-create.txt"]);
    check(&["tenants", "--help"], expect_file!["help/tenants.txt"]);
    check(&["enable", "--help"], expect_file!["help/enable.txt"]);
    check(&["config", "--help"], expect_file!["help/config.txt"]);
    check(&["install", "--help"], expect_file!["help/install.txt"]);
    check(&["audit", "--help"], expect_file!["help/audit.txt"]);
    check(&["audit", "verify", "--help"], expect_file!["help/audit-verify.txt"]);
    check(&["completions", "--help"], expect_file!["help/completions.txt"]);
}

#[test]
fn the_version_is_that_of_the_project() {
    let version = Desk::new().run(&["--version"]).ends(0).stdout;
    assert_eq!(version, format!("toolbay {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_a_command_the_help_is_shown_as_an_error() {
    Desk::new().run(&[]).refuses(&["Usage: toolbay", "Commands:"]);
    Desk::new().run(&["cal"]).refuses(&["unrecognized subcommand 'cal'", "call"]);
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = Desk::new().run(&["completions", shell]).ends(0).stdout;
        assert!(script.contains("tenant-tools"), "{shell}");
    }
}
