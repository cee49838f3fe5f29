//! Plugins: which there are, what is decided about them, and their versions.

mod figures;

pub(in crate::routes) use figures::to_ms;

use axum::{
    http::{Method, StatusCode, header::LOCATION},
    response::Response,
};
use semver::Version;
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, PluginName, Scope};
use toolbay_runtime::{
    Control, PluginInfo,
    control::{Install, Upload, redacted_config},
    store::{Registration, Revision, Role},
};

use crate::{
    call::{Call, Tag, answer, nothing, ok, tagged, with_header},
    problem::Problem,
    table::{Endpoint, Group},
    views::{
        ConfigView, ConfigWanted, InstallWanted, Page, PluginDetail, PluginView, PriorityWanted, RegistrationView,
        VersionView,
    },
};

pub(super) fn group() -> Group {
    let mut group = Group::new("plugins");
    for endpoint in reading() {
        group.per_tenant(&endpoint);
        group.global(&endpoint, Role::Admin);
    }
    for endpoint in deciding().into_iter().chain(versions_of_plugins()) {
        group.per_tenant(&endpoint);
        group.global(&endpoint, Role::Admin);
    }
    group
}

fn reading() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::GET, "/plugins", "listPlugins", "Lists plugins", list)
            .paged()
            .gives::<Page<PluginView>>(200, "A part of the plugins, switched off ones too, in alphabetical order."),
        Endpoint::new(Method::GET, "/plugins/{plugin}", "getPlugin", "Shows a plugin", get)
            .tagged()
            .gives::<PluginDetail>(200, "The plugin. It has an entity tag where anything is decided about it."),
        Endpoint::new(Method::GET, "/plugins/{plugin}/config", "getPluginConfig", "Shows a configuration", config)
            .tagged()
            .gives::<ConfigView>(200, "The plugin's configuration here."),
        Endpoint::new(
            Method::GET,
            "/plugins/{plugin}/status",
            "getPluginStatus",
            "Shows a plugin's state",
            figures::status,
        )
        .gives::<crate::views::StatusView>(200, "Where in its life the plugin is."),
        Endpoint::new(
            Method::GET,
            "/plugins/{plugin}/health",
            "getPluginHealth",
            "Shows how a plugin fares",
            figures::health,
        )
        .gives::<crate::views::HealthView>(200, "How the plugin fares."),
        Endpoint::new(
            Method::GET,
            "/plugins/{plugin}/versions",
            "listPluginVersions",
            "Lists uploaded versions",
            versions,
        )
        .gives::<Page<VersionView>>(200, "The uploaded versions, newest first."),
    ]
}

fn deciding() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::POST, "/plugins/{plugin}/enable", "enablePlugin", "Switches a plugin on", enable)
            .tagged()
            .once()
            .gives::<RegistrationView>(200, "It is on from the next call on."),
        Endpoint::new(Method::POST, "/plugins/{plugin}/disable", "disablePlugin", "Switches a plugin off", disable)
            .about("Its configuration is kept.")
            .tagged()
            .once()
            .gives::<RegistrationView>(200, "It is off from the next call on."),
        Endpoint::new(Method::PUT, "/plugins/{plugin}/config", "putPluginConfig", "Sets a configuration", put_config)
            .about("It must fit the plugin's `config_schema` together with the host's own.")
            .takes::<ConfigWanted>(|| json!({ "config": { "currency": "EUR" } }))
            .tagged()
            .once()
            .gives::<RegistrationView>(200, "It holds from the next call on."),
        Endpoint::new(
            Method::DELETE,
            "/plugins/{plugin}/config",
            "deletePluginConfig",
            "Takes a configuration away",
            delete_config,
        )
        .tagged()
        .once()
        .gives::<RegistrationView>(200, "The host's own holds from the next call on."),
        Endpoint::new(
            Method::PUT,
            "/plugins/{plugin}/priority",
            "putPluginPriority",
            "Sets a preference",
            put_priority,
        )
        .takes::<PriorityWanted>(|| json!({ "priority": -10 }))
        .tagged()
        .once()
        .gives::<RegistrationView>(200, "It holds from the next call on."),
        Endpoint::new(Method::POST, "/plugins/{plugin}/reload", "reloadPlugin", "Loads a plugin anew", reload)
            .about("In the process that is asked, from what is installed.")
            .gives_nothing("It was loaded anew."),
    ]
}

fn versions_of_plugins() -> Vec<Endpoint> {
    let file_name = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$" });
    vec![
        Endpoint::new(Method::POST, "/plugins", "uploadPlugin", "Uploads a plugin", upload)
            .about(
                "The body is a one-file plugin's source, or a gzipped tar archive of a plugin's folder. It is checked as \
                 loading checks it, and kept; `install` puts it to use.",
            )
            .required_param("file_name", file_name, "The file's name: its ending says what it is, as in `pay.rhai`, `pay.tar.gz`.")
            .takes_package()
            .once()
            .gives::<VersionView>(201, "It is kept, under a version of its own.")
            .gives::<VersionView>(200, "It was there already."),
        Endpoint::new(Method::POST, "/plugins/{plugin}/install", "installPlugin", "Installs an uploaded version", install)
            .about("Also an upgrade. A version that would break callers is refused unless that is allowed.")
            .may_take::<InstallWanted>(|| json!({ "version": "1.2.0", "allow_breaking": false }))
            .tagged()
            .once()
            .gives::<RegistrationView>(200, "It is installed and, where it was not switched off before, on."),
        Endpoint::new(Method::POST, "/plugins/{plugin}/rollback", "rollbackPlugin", "Installs the version before", rollback)
            .may_take::<InstallWanted>(|| json!({ "allow_breaking": true }))
            .tagged()
            .once()
            .gives::<RegistrationView>(200, "It is installed."),
        Endpoint::new(Method::DELETE, "/plugins/{plugin}", "removePlugin", "Removes a plugin", remove)
            .about("An uploaded one; or what was decided about another.")
            .param("purge", json!({ "type": "boolean", "default": false }), "Whether its uploaded versions go too.")
            .tagged()
            .once()
            .gives_nothing("It is gone from the next call on."),
    ]
}

async fn list(call: Call) -> Result<Response, Problem> {
    let page = call.page()?;
    let mut all = plugins(&call.app.control, call.known_scope()?);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    ok(&part(all, &page, |plugin| &plugin.name))
}

/// The part of a list that is whole in memory, which is in the order of its names.
pub(super) fn part<T>(all: Vec<T>, page: &toolbay_runtime::store::Page, name: impl Fn(&T) -> &str) -> Page<T> {
    let after = page.after.as_deref();
    let mut rest = all.into_iter().filter(|item| after.is_none_or(|after| name(item) > after));
    let items: Vec<_> = rest.by_ref().take(page.limit as usize).collect();
    let next = rest.next().and_then(|_| items.last().map(|last| name(last).to_owned()));
    Page { items, next }
}

async fn get(call: Call) -> Result<Response, Problem> {
    let (scope, name) = (call.scope()?, call.plugin()?);
    let control = &call.app.control;
    let row = control.registration(&call.actor()?, scope, &name).await?;
    let live = plugins(control, scope).into_iter().find(|plugin| plugin.name == name.as_str());
    let info = info(control, scope, &name);
    let plugin = match (live, &row) {
        (Some(live), _) => live,
        // Decided about, and not there: it could not be loaded.
        (None, Some(row)) => absent(control, row),
        (None, None) => return Err(no_such_plugin()),
    };
    let detail = PluginDetail {
        plugin,
        permissions: info.iter().flat_map(|info| info.metadata.permissions.iter().map(ToString::to_string)).collect(),
        config_schema: info.as_ref().and_then(|info| info.metadata.config_schema.clone()),
        registration: row.as_ref().map(|row| shown(control, row)),
    };
    let response = ok(&detail)?;
    Ok(row.as_ref().map(Tag::from).into_iter().fold(response, tagged))
}

/// One text for what is not there and for what is another's.
pub(super) fn no_such_plugin() -> Problem {
    Problem::not_found("there is no such plugin here")
}

/// The plugins of a scope as they are served.
fn plugins(control: &Control, scope: &Scope) -> Vec<PluginView> {
    let bay = control.toolbay();
    let failed = control.status().failed;
    let problem = |name: &PluginName| {
        failed
            .iter()
            .find(|(of, plugin, _)| of == scope && plugin == name)
            .map(|(_, _, problem)| problem.message.to_string())
    };
    match scope {
        Scope::Global => bay
            .plugins(scope)
            .into_iter()
            .map(|info| PluginView {
                name: info.metadata.name.to_string(),
                version: info.metadata.version.to_string(),
                scope: (&info.scope).into(),
                description: info.metadata.description.clone(),
                enabled: info.enabled_by_default || info.protected,
                protected: info.protected,
                priority: 0,
                problem: problem(&info.metadata.name),
                tools: tools_of(&info),
            })
            .collect(),
        Scope::Tenant(tenant) => {
            let (own, global) = (bay.plugins(scope), bay.plugins(&Scope::Global));
            let view = |plugin: toolbay_runtime::TenantPlugin| {
                let catalog = if plugin.scope == Scope::Global { &global } else { &own };
                let info = catalog.iter().find(|info| info.metadata.name == plugin.plugin);
                PluginView {
                    name: plugin.plugin.to_string(),
                    version: plugin.version.to_string(),
                    scope: (&plugin.scope).into(),
                    description: info.map(|info| info.metadata.description.clone()).unwrap_or_default(),
                    enabled: plugin.enabled,
                    protected: plugin.protected,
                    priority: plugin.priority,
                    problem: plugin.problem.or_else(|| problem(&plugin.plugin)),
                    tools: info.map(tools_of).unwrap_or_default(),
                }
            };
            bay.tenant_plugins(tenant).into_iter().map(view).collect()
        }
    }
}

fn tools_of(info: &PluginInfo) -> Vec<String> {
    info.tools.iter().map(|tool| tool.definition.name.to_string()).collect()
}

/// A plugin that was decided about and is not served.
fn absent(control: &Control, row: &Registration) -> PluginView {
    let failed = control.status().failed;
    let told = failed.into_iter().find(|(scope, plugin, _)| *scope == row.scope && *plugin == row.plugin);
    PluginView {
        name: row.plugin.to_string(),
        version: row.version.to_string(),
        scope: (&row.scope).into(),
        description: String::new(),
        enabled: false,
        protected: false,
        priority: row.priority.unwrap_or_default(),
        problem: Some(
            told.map_or_else(|| "it is not loaded here".to_owned(), |(_, _, problem)| problem.message.to_string()),
        ),
        tools: Vec::new(),
    }
}

/// What a plugin that the scope has says of itself, wherever it is registered.
pub(super) fn info(control: &Control, scope: &Scope, name: &PluginName) -> Option<PluginInfo> {
    let bay = control.toolbay();
    let place = match scope {
        Scope::Global => Scope::Global,
        Scope::Tenant(tenant) => bay.tenant_plugins(tenant).into_iter().find(|plugin| plugin.plugin == *name)?.scope,
    };
    bay.plugins(&place).into_iter().find(|info| info.metadata.name == *name)
}

async fn config(call: Call) -> Result<Response, Problem> {
    let (scope, name) = (call.scope()?, call.plugin()?);
    let control = &call.app.control;
    let row = control.registration(&call.actor()?, scope, &name).await?;
    let info = info(control, scope, &name);
    if row.is_none() && info.is_none() {
        return Err(no_such_plugin());
    }
    let effective = match scope {
        _ if !call.is_operator() => None,
        Scope::Global => info.as_ref().map(|info| info.config.clone()),
        Scope::Tenant(tenant) => {
            let mut all = control.toolbay().tenant_plugins(tenant).into_iter();
            all.find(|plugin| plugin.plugin == name).map(|plugin| plugin.config)
        }
    };
    let schema = info.map(|info| info.metadata.config_schema);
    let said = row.as_ref().and_then(|row| row.config.as_ref());
    let view = ConfigView {
        config: said.map(|config| redacted(schema.as_ref(), config)),
        effective: effective.map(|config| redacted(schema.as_ref(), &config)),
        schema: schema.flatten(),
    };
    let response = ok(&view)?;
    Ok(row.as_ref().map(Tag::from).into_iter().fold(response, tagged))
}

/// As what the caller saw the registration, where the request says so.
async fn expected(call: &Call, name: &PluginName) -> Result<Option<Revision>, Problem> {
    if !call.has_condition() {
        return Ok(None);
    }
    let row = call.app.control.registration(&call.actor()?, call.scope()?, name).await?;
    call.matches(row.as_ref().map(Tag::from).as_ref())
}

fn decided(call: &Call, row: &Registration) -> Result<Response, Problem> {
    Ok(tagged(ok(&shown(&call.app.control, row))?, row.into()))
}

/// A registration without what its plugin's schema says is secret.
fn shown(control: &Control, row: &Registration) -> RegistrationView {
    let schema = info(control, &row.scope, &row.plugin).map(|info| info.metadata.config_schema);
    let config = row.config.as_ref().map(|config| redacted(schema.as_ref(), config));
    RegistrationView { config, ..row.into() }
}

/// A configuration as it may be shown. Where the plugin is not there, nobody knows which of it is secret.
fn redacted(schema: Option<&Option<Value>>, config: &Value) -> Value {
    match (schema, config) {
        (Some(schema), config) => redacted_config(schema.as_ref(), config),
        (None, Value::Object(fields)) => fields.keys().map(|name| (name.clone(), json!("***"))).collect(),
        (None, _) => json!("***"),
    }
}

async fn enable(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let expected = expected(&call, &name).await?;
    decided(&call, &call.app.control.enable(&call.actor()?, call.scope()?, &name, expected).await?)
}

async fn disable(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let expected = expected(&call, &name).await?;
    decided(&call, &call.app.control.disable(&call.actor()?, call.scope()?, &name, expected).await?)
}

async fn put_config(call: Call) -> Result<Response, Problem> {
    let (name, ConfigWanted { config }) = (call.plugin()?, call.json()?);
    let expected = expected(&call, &name).await?;
    let config = Some(config.into());
    decided(&call, &call.app.control.put_config(&call.actor()?, call.scope()?, &name, config, expected).await?)
}

async fn delete_config(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let expected = expected(&call, &name).await?;
    decided(&call, &call.app.control.put_config(&call.actor()?, call.scope()?, &name, None, expected).await?)
}

async fn put_priority(call: Call) -> Result<Response, Problem> {
    let (name, PriorityWanted { priority }) = (call.plugin()?, call.json()?);
    let expected = expected(&call, &name).await?;
    decided(&call, &call.app.control.put_priority(&call.actor()?, call.scope()?, &name, priority, expected).await?)
}

async fn reload(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    call.app.control.reload(&call.actor()?, call.scope()?, &name).await?;
    Ok(nothing())
}

async fn versions(call: Call) -> Result<Response, Problem> {
    let (scope, name) = (call.scope()?, call.plugin()?);
    let control = &call.app.control;
    let rows = control.versions(&call.actor()?, scope, &name).await?;
    if rows.is_empty() && info(control, scope, &name).is_none() {
        return Err(no_such_plugin());
    }
    ok(&Page { items: rows.iter().map(VersionView::from).collect(), next: None })
}

async fn upload(call: Call) -> Result<Response, Problem> {
    let file_name = call.text("file_name").unwrap_or_default().to_owned();
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = file_name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !begins || file_name.len() > 128 || !file_name.bytes().all(is_fine) {
        return Err(Problem::invalid(
            "file_name must be 1 to 128 of A-Z a-z 0-9 _ . - and begin with a letter or a digit",
        ));
    }
    if call.body.is_empty() {
        return Err(Problem::invalid("the body must be the package, and it is empty"));
    }
    let package = Upload { file_name, content: call.body.to_vec().into() };
    let uploaded = call.app.control.upload(&call.actor()?, call.scope()?, package).await.map_err(|error| {
        // What is wrong with a package is never the fault of the request's form.
        let is_content = matches!(error.kind, ErrorKind::InvalidArguments);
        let mut problem = Problem::from(error);
        if is_content {
            problem.status = StatusCode::UNPROCESSABLE_ENTITY;
        }
        problem
    })?;
    let version = VersionView { warnings: uploaded.warnings, ..VersionView::from(&uploaded.version) };
    let status = if uploaded.known { StatusCode::OK } else { StatusCode::CREATED };
    let base = match uploaded.version.scope {
        Scope::Global => "/api/v1/global".to_owned(),
        Scope::Tenant(_) if !call.is_operator() => "/api/v1".to_owned(),
        Scope::Tenant(ref tenant) => format!("/api/v1/tenants/{tenant}"),
    };
    let place = format!("{base}/plugins/{}/versions", version.plugin);
    Ok(with_header(answer(status, &version)?, LOCATION, &place))
}

async fn install_wanted(call: &Call, name: &PluginName) -> Result<Install, Problem> {
    let InstallWanted { version, allow_breaking } = call.json_or_default()?;
    let version = version.map(|text| Version::parse(&text)).transpose();
    let version = version.map_err(|error| Problem::invalid(format!("version: {error}")))?;
    Ok(Install { version, allow_breaking, seen: expected(call, name).await? })
}

async fn install(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let install = install_wanted(&call, &name).await?;
    decided(&call, &call.app.control.install(&call.actor()?, call.scope()?, &name, install).await?)
}

async fn rollback(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let install = install_wanted(&call, &name).await?;
    decided(&call, &call.app.control.rollback(&call.actor()?, call.scope()?, &name, install).await?)
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let (name, purge) = (call.plugin()?, call.flag("purge")?);
    let expected = expected(&call, &name).await?;
    call.app.control.remove(&call.actor()?, call.scope()?, &name, expected, purge).await?;
    Ok(nothing())
}
