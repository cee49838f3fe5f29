//! The suite for runners, applied to this one.

use toolbay_rhai::RhaiRunner;
use toolbay_testkit::runner_conformance;

mod cases;

runner_conformance!(RhaiRunner::default(), cases::package);
