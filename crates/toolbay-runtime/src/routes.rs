//! HTTP routes of native plugins, for whoever serves them: which there are for a tenant, and one request's way to the
//! plugin's code. They stand in the catalogs like tools, so a route is gone with its plugin, and where the tenant has it
//! switched off.
//!
//! A request has what a tool call has but for hooks: quarantine, meter, deadline, a way out that is narrowed to tenant and
//! grants, redaction and an audit record.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use semver::Version;
use serde_json::{Map, Value};
use toolbay_api::{
    CallId, ErrorKind, Limit, Limits, LoadError, PathStep, PluginName, Route, RouteContext, RouteDefinition,
    RouteMethod, RouteRequest, RouteResponse, Scope, ToolError, ToolOutput,
};

use crate::{
    audit::AuditRecord,
    call_host::CallHost,
    catalog::{Owner, Registered},
    guarded::{Failure, guarded, now},
    redact::Redactor,
    run::Run,
    schema::Schema,
    session::Session,
    shape,
    toolbay::Toolbay,
};

/// Routes of one plugin at most: each request is compared with all of them.
const MAX_ROUTES: usize = 64;

/// A route, for listings.
#[derive(Debug, Clone)]
pub struct RouteInfo {
    /// Its plugin.
    pub plugin: PluginName,
    /// The plugin's version.
    pub version: Version,
    /// Where the plugin is registered.
    pub scope: Scope,
    /// What it says of itself.
    pub definition: RouteDefinition,
}

/// What a path below a plugin leads to.
#[derive(Debug)]
pub enum RouteFound {
    /// A route.
    Route(RouteCall),
    /// A path that other methods have routes at.
    OtherMethods(BTreeSet<RouteMethod>),
    /// Nothing, also where the tenant has no such plugin or has it switched off.
    Nothing,
}

/// A route, compiled and ready.
pub(crate) struct RouteEntry {
    route: Route,
    query: Option<Schema>,
    request: Option<Schema>,
    response: Option<Schema>,
}

/// Compiles a plugin's routes.
///
/// # Errors
/// `Config` for a plugin that is not native, for a path or schema that is none, and for too many; `Conflict` where one
/// request would fit two of them.
pub(crate) fn entries(routes: Vec<Route>, owner: &Owner) -> Result<Vec<Arc<RouteEntry>>, LoadError> {
    let config = |message: String| LoadError::new(ErrorKind::Config, message);
    if !owner.is_native && !routes.is_empty() {
        return Err(config("only native plugins serve HTTP routes".to_owned()));
    }
    if routes.len() > MAX_ROUTES {
        return Err(config(format!("the plugin has {} routes, and {MAX_ROUTES} are allowed", routes.len())));
    }
    let mut shapes = BTreeSet::new();
    let mut entries = Vec::with_capacity(routes.len());
    for route in routes {
        let RouteDefinition { method, path, query, request, response, .. } = &route.definition;
        let place = format!("routes.{} {path}", method.name());
        let steps = route.definition.steps().map_err(|problem| config(format!("{place}: {problem}")))?;
        // Two that differ in the names of their parts only are one.
        let shape: Vec<_> = steps
            .iter()
            .map(|step| match step {
                PathStep::Word(word) => Some((*word).to_owned()),
                PathStep::Named(_) => None,
            })
            .collect();
        if !shapes.insert((*method, shape)) {
            let message = format!("{place}: the plugin has two routes for the same requests");
            return Err(LoadError::new(ErrorKind::Conflict, message));
        }
        if request.is_some() && matches!(method, RouteMethod::Get | RouteMethod::Delete) {
            return Err(config(format!("{place}: a request of this method has no body")));
        }
        let compile = |what: &str, schema: &Option<Value>| {
            let compiled = schema.as_ref().map(Schema::compile).transpose();
            compiled.map_err(|problem| config(format!("{place}: {what}: {problem}")))
        };
        let query = match query {
            None => None,
            Some(schema) => Some(
                Schema::compile_parameters(schema).map_err(|problem| config(format!("{place}: query: {problem}")))?,
            ),
        };
        let (request, response) = (compile("request", request)?, compile("response", response)?);
        entries.push(Arc::new(RouteEntry { route, query, request, response }));
    }
    Ok(entries)
}

impl RouteEntry {
    /// The words that the caller chose and how many were given by the route, where `words` fit.
    fn fit(&self, words: &[String]) -> Option<(BTreeMap<String, String>, usize)> {
        let steps = self.route.definition.steps().ok()?;
        if steps.len() != words.len() {
            return None;
        }
        let (mut params, mut given) = (BTreeMap::new(), 0);
        for (step, word) in steps.iter().zip(words) {
            match step {
                PathStep::Word(wanted) if wanted == word => given += 1,
                PathStep::Word(_) => return None,
                PathStep::Named(name) => _ = params.insert((*name).to_owned(), word.clone()),
            }
        }
        Some((params, given))
    }

    fn info(&self, owner: &Owner) -> RouteInfo {
        RouteInfo {
            plugin: owner.name.clone(),
            version: owner.version.clone(),
            scope: owner.scope.clone(),
            definition: self.route.definition.clone(),
        }
    }
}

impl Toolbay {
    /// The routes of the plugins registered in `scope`, by plugin and as the plugin has them.
    #[must_use]
    pub fn routes(&self, scope: &Scope) -> Vec<RouteInfo> {
        let catalog = self.registry().catalog(scope);
        let of = |registered: &Arc<Registered>| {
            registered.routes.iter().map(|entry| entry.info(&registered.owner)).collect::<Vec<_>>()
        };
        catalog.plugins().flat_map(of).collect()
    }
}

impl Session {
    /// The routes that the tenant has now, by plugin and as the plugin has them.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteInfo> {
        let view = self.toolbay().registry().view(self.tenant());
        let mut plugins: Vec<_> = view.plugins().collect();
        plugins.sort_by(|a, b| a.owner.name.cmp(&b.owner.name));
        plugins.iter().flat_map(|plugin| plugin.routes.iter().map(|entry| entry.info(&plugin.owner))).collect()
    }

    /// Finds the route of `plugin` for a request, by the words of its path below the plugin. Where several fit, the one
    /// with the most words of its own is taken.
    #[must_use]
    pub fn route(&self, plugin: &PluginName, method: RouteMethod, words: &[String]) -> RouteFound {
        let run = self.run();
        let found = run.view().plugins().find(|registered| registered.owner.name == *plugin);
        let Some(registered) = found.map(Arc::clone) else { return RouteFound::Nothing };
        let fitting = registered.routes.iter().filter_map(|entry| Some((entry, entry.fit(words)?)));
        let (mut best, mut others) = (None, BTreeSet::new());
        for (entry, (params, given)) in fitting {
            if entry.route.definition.method != method {
                others.insert(entry.route.definition.method);
            } else if best.as_ref().is_none_or(|(_, _, most)| given > *most) {
                best = Some((Arc::clone(entry), params, given));
            }
        }
        match best {
            Some((entry, params, _)) => {
                RouteFound::Route(RouteCall { run, owner: Arc::clone(&registered.owner), entry, params })
            }
            None if others.is_empty() => RouteFound::Nothing,
            None => RouteFound::OtherMethods(others),
        }
    }
}

/// A request that found its route.
pub struct RouteCall {
    run: Run,
    owner: Arc<Owner>,
    entry: Arc<RouteEntry>,
    params: BTreeMap<String, String>,
}

impl RouteCall {
    /// The route.
    #[must_use]
    pub fn definition(&self) -> &RouteDefinition {
        &self.entry.route.definition
    }

    /// Has the plugin answer.
    ///
    /// # Errors
    /// `InvalidArguments` where query or body do not fit their schemas; `RateLimited`; `Unavailable` where the plugin is in
    /// quarantine or the host shuts down; `TimedOut`, `Panic`; `Script` where the answer is not what the route promised;
    /// else what the plugin says.
    ///
    /// # Cancel safety
    /// Dropping the future drops the plugin's.
    pub async fn answer(self, query: BTreeMap<String, String>, body: Value) -> Result<RouteResponse, ToolError> {
        let begun = now();
        let call = self.run.next_call_id();
        let redactor = Redactor::default();
        let answered = self.ask(query, body, &call, &redactor).await;
        let status = answered.as_ref().map_or(0, |answer| answer.status);
        let result = redactor.result(answered.map(|answer| ToolOutput::new(answer.body)));
        if let Err(error) = &result {
            self.run.note_breach(&self.owner, error);
        }
        if let Some(audit) = &self.run.inner().audit {
            let definition = self.definition();
            let tool = format!("{} /plugins/{}{}", definition.method.name(), self.owner.name, definition.path);
            audit.record(&AuditRecord {
                caller: self.run.caller(),
                call: &call,
                parent: None,
                tool: &tool,
                plugin: Some((self.owner.name.as_str(), self.owner.version.to_string())),
                served_by: None,
                depth: 0,
                raw: None,
                reply: &result,
                decisions: &[],
                duration: now().saturating_duration_since(begun),
            });
        }
        result.map(|output| RouteResponse { status, body: output.data })
    }

    async fn ask(
        &self,
        query: BTreeMap<String, String>,
        body: Value,
        call: &CallId,
        redactor: &Redactor,
    ) -> Result<RouteResponse, ToolError> {
        let (entry, owner, shared) = (&self.entry, &self.owner, self.run.inner());
        let limits = match &shared.tenant_limits {
            None => Arc::clone(&owner.limits),
            Some(tenant) => Arc::new(owner.limits.lowered_by(tenant)),
        };
        check_query(entry.query.as_ref(), &query)?;
        match &entry.request {
            Some(schema) => {
                shape::check(&body, Limit::Arguments, limits.max_argument_bytes, limits.max_nesting)?;
                schema.check_arguments(&body)?;
            }
            None if body.is_null() => {}
            None => return Err(ToolError::new(ErrorKind::InvalidArguments, "this route takes no body")),
        }
        let started = now();
        shared.ward.check(self.run.tenant(), &owner.name, started)?;
        let _permit = shared.meter.reserve(started)?;
        let _busy = owner.life.enter(false)?;
        let timeout = entry.route.definition.timeout.map_or(limits.timeout, |own| own.min(limits.timeout));
        let deadline = started + timeout;
        let host = CallHost::new(&self.run, Arc::clone(owner), call.clone(), 0, deadline, redactor.clone());
        let cx = RouteContext { deadline, limits: Arc::clone(&limits), host: Arc::new(host) };
        let caller = self.run.caller();
        let request = RouteRequest {
            tenant: caller.tenant.clone(),
            user: caller.user.clone(),
            params: self.params.clone(),
            query,
            body,
        };
        let answer = match guarded(deadline, entry.route.handler.handle(request, cx)).await {
            Ok(answer) => answer?,
            Err(failure) => return Err(failed(failure, timeout)),
        };
        promised(entry, &answer, &limits)?;
        Ok(answer)
    }
}

impl fmt::Debug for RouteCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteCall").field("definition", self.definition()).finish_non_exhaustive()
    }
}

fn check_query(schema: Option<&Schema>, query: &BTreeMap<String, String>) -> Result<(), ToolError> {
    let Some(schema) = schema else {
        return match query.keys().next() {
            None => Ok(()),
            Some(_) => Err(ToolError::new(ErrorKind::InvalidArguments, "this route takes no query")),
        };
    };
    let fields: Map<_, _> = query.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    schema.check_arguments(&Value::Object(fields))
}

fn failed(failure: Failure, timeout: Duration) -> ToolError {
    match failure {
        Failure::TimedOut => {
            let message = format!("the route took longer than the {timeout:?} that it has; try again later");
            ToolError::new(ErrorKind::TimedOut, message)
        }
        Failure::Panicked(message) => {
            ToolError::new(ErrorKind::Panic, "the route broke down; tell the operator").with_source(message)
        }
    }
}

/// Whether the plugin kept what its route promises.
fn promised(entry: &RouteEntry, answer: &RouteResponse, limits: &Limits) -> Result<(), ToolError> {
    if !(200..300).contains(&answer.status) {
        let message = format!("the route answered with status {}; a failure is an error of its code", answer.status);
        return Err(ToolError::failed(message));
    }
    shape::check(&answer.body, Limit::Output, limits.max_output_bytes, limits.max_nesting)?;
    let is_bodiless = answer.status == 204 && answer.body.is_null();
    match &entry.response {
        Some(schema) if !is_bodiless => schema.check_promise(&answer.body, "the route's own response schema"),
        _ => Ok(()),
    }
}
