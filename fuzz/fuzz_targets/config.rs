//! The configuration file of the command, by the very source files that read it: the command is a program and no library.
#![no_main]
#![allow(dead_code, reason = "the rest of the files belongs to the command")]

#[path = "../../crates/toolbay-cli/src/approval.rs"]
mod approval;
#[path = "../../crates/toolbay-cli/src/code_mode.rs"]
mod code_mode;
#[path = "../../crates/toolbay-cli/src/config.rs"]
mod config;
#[path = "../../crates/toolbay-cli/src/exit.rs"]
mod exit;
#[path = "../../crates/toolbay-cli/src/oauth.rs"]
mod oauth;
#[path = "../../crates/toolbay-cli/src/outside.rs"]
mod outside;
#[path = "../../crates/toolbay-cli/src/spending.rs"]
mod spending;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match config::Config::parse("toolbay.toml", text) {
        Ok(config) => {
            let _ = (config.limits(), config.tiers());
        }
        Err(error) => assert!(error.len() < 8_000, "an error of {} bytes", error.len()),
    }
});
