//! The suite for runners, applied to this one.

use toolbay_testkit::runner_conformance;
use toolbay_worker::WorkerRunner;

use crate::support::config;

#[path = "../../../toolbay-rhai/tests/it/conformance/cases.rs"]
mod cases;

runner_conformance!(WorkerRunner::new(config()).expect("workers"), cases::package);
