//! `toolbay plugins`: what is registered and how it fares, once or as it changes.

use std::{collections::BTreeSet, io::IsTerminal, sync::Arc, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::MissedTickBehavior};
use toolbay::{Ability, CodeState, LoadReport, PluginHealth, PluginName, Scope, TenantPlugin};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::{SessionOptions, WatchOptions},
    output, signals,
};

/// How often the table is looked at while it is watched.
const REFRESH: Duration = Duration::from_secs(1);

/// Options of `toolbay plugins`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print JSON: once, or with --watch a line each time that something changed
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: WatchOptions,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let host = Host::open(&options.session).await?;
    let shown = Shown { host: &host, options: &options };
    host.toolbay.check_health().await;
    if options.watch.watch {
        shown.live().await?
    } else {
        shown.once()?
    }
    host.stop().await;
    Ok(if host.report.failed.is_empty() { Status::Success } else { Status::Usage })
}

struct Shown<'a> {
    host: &'a Host,
    options: &'a Options,
}

impl Shown<'_> {
    fn once(&self) -> Result<(), CliError> {
        if self.options.json {
            return output::json_pretty(&self.to_json());
        }
        for line in self.lines() {
            output::line(&line)?;
        }
        Ok(())
    }

    /// Shows the plugins each time that something changed, until the command is asked to end.
    async fn live(&self) -> Result<(), CliError> {
        let end = signals::end()?;
        tokio::pin!(end);
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let _kept_up = self.host.keep_up(self.options.watch, move |report| {
            output::sync_report(report);
            told.notify_one();
        })?;
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = String::new();
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                _ = ticks.tick() => {}
                () = changed.notified() => {}
            }
            let text = if self.options.json { self.to_json().to_string() } else { self.lines().join("\n") };
            if text != last {
                let is_terminal = std::io::stdout().is_terminal();
                if is_terminal && !self.options.json {
                    // From the top of an empty screen: the table is one that changes, not one after another.
                    output::raw(b"\x1b[2J\x1b[H")?;
                }
                output::line(&text)?;
                last = text;
            }
        }
    }

    /// The plugins that the tenant has.
    fn plugins(&self) -> Vec<(TenantPlugin, PluginHealth)> {
        let tenant = &self.options.session.tenant;
        let (bay, own) = (&self.host.toolbay, Scope::Tenant(tenant.clone()));
        let mut health = bay.health(&Scope::Global);
        health.extend(bay.health(&own));
        let with_health = |plugin: TenantPlugin| {
            let its = health.iter().find(|its| its.name == plugin.plugin && its.scope == plugin.scope).cloned();
            its.map(|its| (plugin, its))
        };
        bay.tenant_plugins(tenant).into_iter().filter_map(with_health).collect()
    }

    fn lines(&self) -> Vec<String> {
        let titles = ["PLUGIN", "VERSION", "SCOPE", "STATE", "GEN", "CALLS", "HEALTH"];
        let mut rows = vec![titles.map(str::to_owned)];
        rows.extend(self.plugins().iter().map(|(plugin, health)| {
            let state = if plugin.enabled { health.state.to_string() } else { "Off".to_owned() };
            [
                plugin.plugin.to_string(),
                plugin.version.to_string(),
                plugin.scope.to_string(),
                state,
                health.generation.to_string(),
                health.calls.to_string(),
                plugin.problem.clone().unwrap_or_else(|| in_words(health)),
            ]
        }));
        let mut lines = output::table(&rows);
        lines.extend(self.abilities());
        let LoadReport { failed, .. } = &self.host.report;
        // Those that were mended since are in the table.
        let there: BTreeSet<_> =
            self.host.toolbay.plugins(&Scope::Global).into_iter().filter_map(|p| p.origin).collect();
        lines.extend(failed.iter().filter(|failed| !there.contains(&failed.origin)).map(ToString::to_string));
        lines
    }

    /// A line for each ability of the host: who provides it for the tenant, and who of them serves.
    fn abilities(&self) -> Vec<String> {
        let (bay, tenant) = (&self.host.toolbay, &self.options.session.tenant);
        let line = |ability: Arc<Ability>| {
            let providers = bay.providers(tenant, &ability.name);
            let by = match providers.split_first() {
                None => "no provider".to_owned(),
                Some((first, [])) => format!("by {first}"),
                Some((first, others)) => {
                    let others: Vec<_> = others.iter().map(PluginName::as_str).collect();
                    format!("by {first} (also {})", others.join(", "))
                }
            };
            format!("ability {}: {by}", ability.name)
        };
        bay.abilities().into_iter().map(line).collect()
    }

    fn to_json(&self) -> Value {
        let plugins: Vec<_> = self.plugins().iter().map(|(plugin, health)| entry(plugin, health)).collect();
        let failed = self.host.report.failed.iter().map(|failed| {
            json!({ "path": failed.origin, "scope": failed.scope.to_string(), "error": failed.error.to_string() })
        });
        let (bay, tenant) = (&self.host.toolbay, &self.options.session.tenant);
        let abilities = bay.abilities().into_iter().map(|ability| {
            json!({ "name": ability.name, "description": ability.description,
                "operations": ability.operations.keys().collect::<Vec<_>>(),
                "providers": bay.providers(tenant, &ability.name) })
        });
        json!({ "tenant": tenant, "plugins": plugins, "abilities": abilities.collect::<Vec<_>>(),
            "failed": failed.collect::<Vec<_>>() })
    }
}

fn entry(plugin: &TenantPlugin, health: &PluginHealth) -> Value {
    let error = |error: &toolbay::ToolError| json!({ "kind": error.kind.name(), "message": error.message });
    let check = health.last_check.as_ref().map(|(_, outcome)| match outcome {
        Ok(()) => json!({ "ok": true }),
        Err(problem) => json!({ "ok": false, "error": error(problem) }),
    });
    json!({
        "name": plugin.plugin, "version": plugin.version.to_string(), "scope": plugin.scope.to_string(),
        "enabled": plugin.enabled, "protected": plugin.protected, "problem": plugin.problem,
        "state": health.state.name(), "generation": health.generation, "code": health.code.name(), "calls": health.calls,
        "calls_in_flight": health.calls_in_flight, "errors": health.errors,
        "consecutive_failures": health.consecutive_failures, "last_error": health.last_error.as_ref().map(error),
        "well": health.is_well(), "down": health.is_down, "check": check, "open_circuits": health.open_circuits.len(),
    })
}

/// How a plugin fares, in a few words.
fn in_words(health: &PluginHealth) -> String {
    let failed_check = health.last_check.as_ref().and_then(|(_, outcome)| outcome.as_ref().err());
    if let CodeState::Failed(error) = &health.code {
        // Where it is, and no more of it than fits a table: `describe` has the rest.
        let place = error.position.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        return format!("does not compile: {}{place}", error.file.as_deref().unwrap_or("its code"));
    }
    match (failed_check, health.open_circuits.len()) {
        (Some(problem), _) if health.is_down => format!("down: {}", problem.message),
        (Some(problem), _) => format!("not well: {}", problem.message),
        (None, 0) if health.consecutive_failures > 0 => {
            format!("{} calls failed in a row", health.consecutive_failures)
        }
        (None, 0) => "well".to_owned(),
        (None, open) => format!("not called for {open} tenants since it fails"),
    }
}
