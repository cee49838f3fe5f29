//! `toolbay test`: runs the cases that lie beside plugins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use toolbay_testkit::check_cases;

use crate::{
    config::Config,
    exit::{CliError, Status},
    host,
    options::HostOptions,
    output,
};

/// Options of `toolbay test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A plugin, or a folder of plugins. The cases of NAME.rhai are in cases/NAME.jsonl beside it, those of a plugin's
    /// folder in its cases.jsonl or likewise beside it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    host: HostOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let config = Config::load(options.host.config.as_deref())?;
    let (mut tested, mut is_good) = (0, true);
    for path in &options.paths {
        for (plugin, cases) in plugins(path)? {
            tested += 1;
            is_good &= test(&options.host, &config, &plugin, &cases).await?;
        }
    }
    if tested == 0 {
        return Err(CliError::usage("no plugin with cases there: write them to cases/NAME.jsonl beside NAME.rhai"));
    }
    Ok(if is_good { Status::Success } else { Status::Failed })
}

/// Runs one plugin's cases and says what came of them.
async fn test(host: &HostOptions, config: &Config, plugin: &Path, cases: &Path) -> Result<bool, CliError> {
    let text = fs::read_to_string(cases)
        .map_err(|error| CliError::usage(format!("{} cannot be read: {error}", cases.display())))?;
    // Made once to find out whether options and file are sound: after that it cannot fail.
    host::builder(host, config)?;
    let builder = || host::builder(host, config).unwrap_or_default();
    let report = check_cases(plugin, &text, builder).await;
    let report = report.map_err(|error| CliError::usage(format!("{}: {error}", plugin.display())))?;
    let is_good = report.failed.is_empty();
    let (passed, failed) = (report.passed.len(), report.failed.len());
    let mut summary = format!("{}  {}: {passed} passed", if is_good { "ok    " } else { "failed" }, plugin.display());
    if failed > 0 {
        summary += &format!(", {failed} failed");
    }
    if report.passed_over > 0 {
        summary += &format!(", {} for hooks passed over", report.passed_over);
    }
    let lines = [summary].into_iter().chain(report.failed.iter().map(|problem| format!("        {problem}")));
    let uncalled = report.uncalled.iter().map(|tool| format!("        no case calls {tool}"));
    for line in lines.chain(uncalled) {
        output::line(&line).or_else(output::unless_closed)?;
    }
    Ok(is_good)
}

/// The plugins at `path` that have cases, with those.
fn plugins(path: &Path) -> Result<Vec<(PathBuf, PathBuf)>, CliError> {
    if !path.exists() {
        return Err(CliError::usage(format!("{} does not exist: give a plugin or a folder of them", path.display())));
    }
    if toolbay::load::is_plugin(path) {
        let cases = cases_of(path);
        let missing = || CliError::usage(format!("{} has no cases: write cases/NAME.jsonl beside it", path.display()));
        return Ok(vec![(path.to_owned(), cases.ok_or_else(missing)?)]);
    }
    let unreadable = |error| CliError::usage(format!("{} cannot be read: {error}", path.display()));
    let mut found: Vec<_> = fs::read_dir(path)
        .map_err(unreadable)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|plugin| toolbay::load::is_plugin(plugin))
        .filter_map(|plugin| cases_of(&plugin).map(|cases| (plugin, cases)))
        .collect();
    found.sort();
    Ok(found)
}

fn cases_of(plugin: &Path) -> Option<PathBuf> {
    let name = if plugin.is_dir() { plugin.file_name() } else { plugin.file_stem() }?;
    let beside = plugin.parent()?.join("cases").join(name).with_extension("jsonl");
    [plugin.join("cases.jsonl"), beside].into_iter().find(|cases| cases.is_file())
}
