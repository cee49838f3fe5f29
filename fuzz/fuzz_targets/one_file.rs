//! One-file plugins: compiling a script and reading its `PLUGIN` constant off the syntax tree runs nothing of it, ends, and
//! gives a manifest that keeps to the rules.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use toolbay::{Limits, Package, PermissionSet, PluginContext, RhaiRunner, Runner, Scope};

static RUNNER: LazyLock<RhaiRunner> = LazyLock::new(RhaiRunner::default);

fuzz_target!(|text: &str| {
    let package = Package::one_file("plugin.rhai", text);
    let limits = Limits { timeout: Duration::from_secs(2), ..Limits::default() };
    let cx = PluginContext { scope: Scope::Global, limits, grants: PermissionSet::all().into() };
    match block_on(RUNNER.load(&package, &cx)) {
        Ok(plugin) => plugin.metadata().validate().expect("what was loaded keeps to the rules"),
        Err(error) => assert!(error.to_string().len() < 20_000, "an error of {} bytes", error.to_string().len()),
    }
});
