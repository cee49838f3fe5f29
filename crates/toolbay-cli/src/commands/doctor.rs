//! `toolbay doctor`: what would fail and why, before anybody runs into it. Each finding says what to do.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};
use toolbay::{Failed, PluginHealth, PluginInfo, Scope, TenantId, worker};

use crate::{
    config::Config,
    exit::{CliError, Status},
    host::{self, Host},
    options::SessionOptions,
    output,
};

/// Options of `toolbay doctor`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionOptions,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Ok,
    Warning,
    Failure,
}

impl Grade {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

struct Finding {
    grade: Grade,
    about: String,
    text: String,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let mut report = Vec::new();
    let mut find = |grade, about: &str, text: String| report.push(Finding { grade, about: about.to_owned(), text });
    find(Grade::Ok, "toolbay", format!("version {}", env!("CARGO_PKG_VERSION")));
    // A file that cannot be read ends the command with its own words, as it ends every other.
    let config = Config::load(options.session.host.config.as_deref())?;
    isolation(config.allows_in_process(), &mut find);
    if let Some(path) = &options.session.host.config {
        find(Grade::Ok, "configuration", format!("{} is sound", path.display()));
    }
    let host = Host::load(&options.session, &config, host::at_once(), options.session.store.url()?).await?;
    for Failed { origin, scope, error } in &host.report.failed {
        find(Grade::Failure, &origin.display().to_string(), format!("does not load for {scope}: {error}"));
    }
    host.toolbay.check_health().await;
    let mut tenants: BTreeSet<TenantId> = config.tenants().map(|(tenant, _)| tenant.clone()).collect();
    tenants.extend(options.session.plugins.tenant_tools.iter().map(|pair| pair.key.clone()));
    tenants.insert(options.session.tenant.clone());
    let scopes = std::iter::once(Scope::Global).chain(tenants.iter().cloned().map(Scope::Tenant));
    for scope in scopes {
        let health = host.toolbay.health(&scope);
        for info in host.toolbay.plugins(&scope) {
            let its = health.iter().find(|health| health.name == info.metadata.name);
            plugin(&info, its, &mut find);
        }
    }
    for (tenant, named) in config.tenants() {
        let there = host.toolbay.tenant_plugins(tenant);
        for name in named {
            let about = format!("tenants.{tenant}.plugins.{name}");
            match there.iter().find(|plugin| plugin.plugin == *name) {
                None => find(Grade::Warning, &about, "speaks of a plugin that the tenant does not have".to_owned()),
                Some(plugin) => {
                    if let Some(problem) = &plugin.problem {
                        find(Grade::Failure, &about, format!("keeps the plugin off: {problem}"));
                    }
                }
            }
        }
    }
    host.stop().await;
    report.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
    let worst = report.first().map_or(Grade::Ok, |finding| finding.grade);
    let printed = if options.json { output::json_pretty(&to_json(&report, worst)) } else { print(&report) };
    printed.or_else(output::unless_closed)?;
    Ok(if worst == Grade::Failure { Status::Usage } else { Status::Success })
}

/// Whether scripts of tenants can run in worker processes here.
fn isolation(allows_in_process: bool, find: &mut impl FnMut(Grade, &str, String)) {
    let probed = worker::Isolation::probe();
    let missing = probed.missing();
    if missing.is_empty() {
        find(Grade::Ok, "isolation", "worker processes can be locked down fully".to_owned());
        return;
    }
    let (grade, what) = if allows_in_process {
        (Grade::Warning, "run in this process, as isolation.allow_in_process says")
    } else {
        (Grade::Failure, "do not load unless isolation.allow_in_process is set")
    };
    let missing = missing.join("; ");
    let text =
        format!("worker processes cannot be locked down fully here; missing: {missing}: scripts of tenants {what}");
    find(grade, "isolation", text);
}

/// What of a plugin that loaded will not work.
fn plugin(info: &PluginInfo, health: Option<&PluginHealth>, find: &mut impl FnMut(Grade, &str, String)) {
    let about = format!("{} ({})", info.metadata.name, info.scope);
    let mut is_sound = true;
    let mut tell = |grade, text: String| {
        is_sound = false;
        find(grade, &about, text);
    };
    for permission in info.metadata.permissions.iter().filter(|asked| !info.host_grants.covers(asked.as_str())) {
        tell(Grade::Warning, format!("asks for {permission}, which this host does not give: what needs it is refused"));
    }
    let asks = |start: &str| info.metadata.permissions.iter().any(|asked| asked.as_str().starts_with(start));
    for name in secrets_in(&info.config) {
        let action = format!("secret:read:{name}");
        if !info.metadata.permissions.covers(&action) || !info.host_grants.covers(&action) {
            tell(Grade::Warning, format!("its configuration refers to the secret {name}, and {action} is not granted"));
        }
    }
    if asks("http-plain:") {
        tell(Grade::Warning, "asks for HTTP without encryption".to_owned());
    }
    if let Some((_, Err(problem))) = health.and_then(|health| health.last_check.as_ref()) {
        tell(Grade::Failure, format!("is not well: {}", problem.message));
    }
    if is_sound {
        find(Grade::Ok, &about, format!("version {}", info.metadata.version));
    }
}

/// The names of the secrets that a configuration refers to.
fn secrets_in(config: &Value) -> Vec<&str> {
    match config {
        Value::String(text) => text.strip_prefix("secret:").into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(secrets_in).collect(),
        Value::Object(fields) => fields.values().flat_map(secrets_in).collect(),
        _ => Vec::new(),
    }
}

fn print(report: &[Finding]) -> Result<(), CliError> {
    for Finding { grade, about, text } in report {
        let text = text.replace('\n', "\n         ");
        output::line(&format!("{:<8} {about}: {text}", grade.name()))?;
    }
    Ok(())
}

fn to_json(report: &[Finding], worst: Grade) -> Value {
    let findings = report
        .iter()
        .map(|Finding { grade, about, text }| json!({ "grade": grade.name(), "about": about, "text": text }));
    json!({ "ok": worst != Grade::Failure, "findings": findings.collect::<Vec<_>>() })
}
