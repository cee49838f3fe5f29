//! `toolbay describe`: all that an operator should know of a plugin before giving it anything.

use clap::Args;
use serde_json::{Value, json};
use toolbay::{CodeState, PluginInfo, PluginName, Scope, TenantId, TenantPlugin, Toolbay};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
};

/// Options of `toolbay describe`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The plugin; without it, all that the tenant has
    plugin: Option<PluginName>,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let (host, session) = Host::session(&options.session).await?;
    let wanted = |plugin: &TenantPlugin| options.plugin.as_ref().is_none_or(|name| *name == plugin.plugin);
    let mut all = host.toolbay.plugins(&Scope::Global);
    all.extend(host.toolbay.plugins(&Scope::Tenant(session.tenant().clone())));
    let info = |plugin: TenantPlugin| {
        let is_it = |info: &&PluginInfo| info.metadata.name == plugin.plugin && info.scope == plugin.scope;
        all.iter().find(is_it).cloned().map(|info| (plugin, info))
    };
    let plugins = host.toolbay.tenant_plugins(session.tenant()).into_iter().filter(wanted);
    let plugins: Vec<_> = plugins.filter_map(info).collect();
    if let (true, Some(name)) = (plugins.is_empty(), &options.plugin) {
        let tenant = session.tenant();
        return Err(CliError::usage(format!(
            "tenant {tenant} has no plugin called {name}: `toolbay plugins` lists them"
        )));
    }
    if options.json {
        output::json_pretty(&plugins.iter().map(|(plugin, info)| to_json(plugin, info)).collect::<Vec<_>>())?;
    } else {
        for (at, (plugin, info)) in plugins.iter().enumerate() {
            if at > 0 {
                output::line("")?;
            }
            describe(&host.toolbay, session.tenant(), plugin, info)?;
        }
    }
    host.stop().await;
    Ok(Status::Success)
}

fn describe(bay: &Toolbay, tenant: &TenantId, plugin: &TenantPlugin, info: &PluginInfo) -> Result<(), CliError> {
    let metadata = &info.metadata;
    output::line(&format!("{} {} ({})", metadata.name, metadata.version, info.scope))?;
    output::line(&format!("  {}", metadata.description))?;
    let mut facts = vec![("author", metadata.author.clone()), ("runtime", metadata.runtime.to_string())];
    let texts = [("license", &metadata.license), ("homepage", &metadata.homepage), ("source", &metadata.repository)];
    facts.extend(texts.into_iter().filter_map(|(what, text)| Some((what, text.clone()?))));
    if !metadata.keywords.is_empty() {
        facts.push(("keywords", metadata.keywords.join(", ")));
    }
    if let Some(framework) = &metadata.framework {
        facts.push(("framework", framework.to_string()));
    }
    if let Some(origin) = &info.origin {
        facts.push(("found at", origin.display().to_string()));
    }
    let requires = metadata.requires.iter().map(|needed| format!("{} {}", needed.name, needed.version));
    facts.push(("requires", listed(requires)));
    let given = if info.protected {
        "always"
    } else if plugin.enabled {
        "yes"
    } else {
        "no"
    };
    match &info.code {
        CodeState::Ready => {}
        CodeState::AtFirstUse => facts.push(("code", "compiled at first use".to_owned())),
        CodeState::Failed(error) => {
            facts.push(("code", format!("does not compile: {error}").replace('\n', "\n            ")))
        }
    }
    facts.push(("enabled", plugin.problem.as_ref().map_or_else(|| given.to_owned(), |why| format!("no: {why}"))));
    for (what, fact) in facts.into_iter().filter(|(_, fact)| !fact.is_empty()) {
        output::line(&format!("  {what:<10}{fact}"))?;
    }
    section(
        "tools",
        info.tools.iter().map(|tool| {
            let parameters = tool.definition.parameters.get("properties").and_then(Value::as_object);
            let names: Vec<_> = parameters.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            format!("{}({})  {}", tool.definition.name, names.join(", "), tool.definition.description)
        }),
    )?;
    section(
        "provides",
        info.abilities.iter().map(|ability| match bay.providers(tenant, ability).first() {
            Some(first) if *first == plugin.plugin => format!("{ability}  (serves {tenant})"),
            Some(first) => format!("{ability}  ({first} serves {tenant})"),
            None => ability.to_string(),
        }),
    )?;
    section(
        "hooks",
        info.hooks.iter().map(|hook| {
            let points: Vec<_> = hook.points.iter().map(|point| point.name()).collect();
            format!("{}  priority {}", points.join(", "), hook.priority)
        }),
    )?;
    section(
        "asks for",
        metadata.permissions.iter().map(|permission| {
            let given = info.host_grants.covers(permission.as_str());
            format!("{permission}{}", if given { "" } else { "  (not given by this host)" })
        }),
    )?;
    let limits = &info.limits;
    section(
        "limits",
        [
            format!("{:?} and {} operations a call", limits.timeout, limits.max_operations),
            format!("{} bytes of memory, {} of result", limits.max_memory_bytes, limits.max_output_bytes),
        ],
    )?;
    if plugin.config.as_object().is_some_and(|config| !config.is_empty()) {
        section("configuration", [plugin.config.to_string()])?;
    }
    Ok(())
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn section(title: &str, lines: impl IntoIterator<Item = String>) -> Result<(), CliError> {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        output::line(&format!("  {title}:"))?;
    }
    lines.try_for_each(|line| output::line(&format!("    {line}")))
}

fn to_json(plugin: &TenantPlugin, info: &PluginInfo) -> Value {
    let permissions = info.metadata.permissions.iter().map(
        |permission| json!({ "permission": permission, "given_by_host": info.host_grants.covers(permission.as_str()) }),
    );
    let hooks = info.hooks.iter().map(|hook| {
        let points: Vec<_> = hook.points.iter().map(|point| point.name()).collect();
        json!({ "name": &*hook.name, "points": points, "priority": hook.priority })
    });
    json!({
        "manifest": info.metadata, "scope": info.scope.to_string(), "origin": info.origin,
        "protected": info.protected, "enabled": plugin.enabled, "problem": plugin.problem, "priority": plugin.priority,
        "generation": info.generation, "code": info.code.name(), "config": plugin.config,
        "abilities": info.abilities,
        "tools": info.tools.iter().map(|tool| json!(&*tool.definition)).collect::<Vec<_>>(),
        "hooks": hooks.collect::<Vec<_>>(), "permissions": permissions.collect::<Vec<_>>(),
        "limits": { "timeout_ms": u64::try_from(info.limits.timeout.as_millis()).unwrap_or(u64::MAX),
            "max_operations": info.limits.max_operations, "max_memory_bytes": info.limits.max_memory_bytes,
            "max_output_bytes": info.limits.max_output_bytes },
    })
}
