//! `toolbay check`: whether plugins load, by the loader's own word, in a Toolbay that is thrown away afterwards.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use toolbay::{ErrorKind, Failed, LoadReport, Loaded, Manifest, PluginInfo, Scope, Skipped, Toolbay};

use crate::{
    exit::{CliError, Status},
    host,
    options::HostOptions,
    output,
};

/// Options of `toolbay check`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A plugin's file, a plugin's folder, or a folder of plugins
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostOptions,
}

/// What was found, in the order of the command line.
#[derive(Default)]
struct Findings {
    good: Vec<(Loaded, Option<PluginInfo>)>,
    bad: Vec<Failed>,
    skipped: Vec<Skipped>,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let mut findings = Findings::default();
    for path in &options.paths {
        // One for each path: what lies in different places need not get on together.
        let toolbay = host::empty(&options.host)?;
        findings.add(&toolbay, path).await;
    }
    let printed = if options.json { output::json_pretty(&findings.to_json()) } else { findings.print() };
    printed.or_else(output::unless_closed)?;
    if findings.good.is_empty() && findings.bad.is_empty() {
        let paths: Vec<_> = options.paths.iter().map(|path| path.display().to_string()).collect();
        return Err(CliError::usage(format!("no plugin in {}", paths.join(", "))));
    }
    Ok(if findings.bad.is_empty() { Status::Success } else { Status::Usage })
}

impl Findings {
    async fn add(&mut self, toolbay: &Toolbay, path: &Path) {
        let scope = Scope::Global;
        let mut report = host::load(toolbay, &scope, path).await;
        self.forgive_requirements(toolbay, path, &mut report).await;
        let plugins = toolbay.plugins(&scope);
        self.good.extend(report.loaded.into_iter().map(|loaded| {
            let info = plugins.iter().find(|plugin| plugin.metadata.name == loaded.name).cloned();
            (loaded, info)
        }));
        self.bad.extend(report.failed);
        self.skipped.extend(report.skipped);
    }

    /// A plugin that is checked alone is not to blame for the absence of those that it requires: that becomes a warning.
    async fn forgive_requirements(&mut self, toolbay: &Toolbay, path: &Path, report: &mut LoadReport) {
        let alone = toolbay::load::is_plugin(path);
        let Some(Failed { error, .. }) = report.failed.first().filter(|_| alone) else { return };
        if error.kind != ErrorKind::Dependency {
            return;
        }
        if let Ok(mut loaded) = toolbay.check(Scope::Global, path).await {
            loaded.warnings.push(error.message.clone());
            report.failed.clear();
            self.good.push((loaded, None));
        }
    }

    fn print(&self) -> Result<(), CliError> {
        for (loaded, info) in &self.good {
            let Loaded { name, version, origin, tools, hooks, warnings, .. } = loaded;
            output::line(&format!("ok      {name} {version}  {}", origin.display()))?;
            match info.as_ref().map(names) {
                Some(names) => {
                    for (what, names) in names.into_iter().filter(|(_, names)| !names.is_empty()) {
                        output::line(&format!("        {what}: {}", names.join(", ")))?;
                    }
                }
                None => output::line(&format!("        {tools} tools, {hooks} hooks"))?,
            }
            for warning in warnings {
                output::line(&format!("        warning: {warning}"))?;
            }
        }
        for Failed { origin, error, .. } in &self.bad {
            let text = error.to_string().replace('\n', "\n        ");
            // An error that names the file already, with its line, needs no second name before it.
            let path = if error.file.is_some() { String::new() } else { format!("{}: ", origin.display()) };
            output::line(&format!("failed  {path}{text}"))?;
        }
        for Skipped { origin, reason } in &self.skipped {
            output::line(&format!("skipped {}: {reason}", origin.display()))?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let good = self.good.iter().map(|(loaded, info)| {
            let mut entry = json!({
                "path": loaded.origin, "ok": true, "name": loaded.name, "version": loaded.version.to_string(),
            });
            if let (Some(entry), Some(info)) = (entry.as_object_mut(), info) {
                entry.extend(about(&info.metadata));
                entry.extend(names(info).into_iter().map(|(what, names)| (what.to_owned(), json!(names))));
            }
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("warnings".to_owned(), json!(loaded.warnings));
            }
            entry
        });
        let bad = self.bad.iter().map(|Failed { origin, error, .. }| {
            json!({ "path": origin, "ok": false, "error": {
                "kind": error.kind.name(),
                "message": error.message,
                "file": error.file,
                "line": error.position.map(|(line, _)| line),
                "column": error.position.map(|(_, column)| column),
                "excerpt": error.excerpt,
            } })
        });
        let skipped = self.skipped.iter().map(|skipped| json!({ "path": skipped.origin, "reason": skipped.reason }));
        json!({
            "ok": self.bad.is_empty() && !self.good.is_empty(),
            "plugins": good.chain(bad).collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
        })
    }
}

/// What a plugin says of itself for readers; nothing in the host goes by it.
fn about(metadata: &Manifest) -> [(String, Value); 7] {
    let Manifest { description, author, license, homepage, repository, keywords, provides, .. } = metadata;
    [
        ("description", json!(description)),
        ("author", json!(author)),
        ("license", json!(license)),
        ("homepage", json!(homepage)),
        ("repository", json!(repository)),
        ("keywords", json!(keywords)),
        ("provides", json!(provides)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}

/// What a plugin has and asks for, by name.
fn names(info: &PluginInfo) -> [(&'static str, Vec<String>); 3] {
    let points = info.hooks.iter().flat_map(|hook| hook.points.iter().map(|point| point.name().to_owned()));
    [
        ("tools", info.tools.iter().map(|tool| tool.definition.name.to_string()).collect()),
        ("hooks", points.collect()),
        ("permissions", info.metadata.permissions.iter().map(ToString::to_string).collect()),
    ]
}
