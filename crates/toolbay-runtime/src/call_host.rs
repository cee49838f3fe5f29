//! What a plugin can reach during one call: the [`Host`] of the runtime, narrowed to tenant, plugin and grants.

use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use toolbay_api::{
    Assets, CallId, ErrorKind, Grants, Host, HttpSendContext, Limit, Limits, LogLevel, Scope, SecretName, ServiceQuery,
    ToolDefinition, ToolError, ToolOutput, async_trait,
};
use tracing::Span;

use crate::{
    approval::Desk,
    catalog::Owner,
    chance, clock,
    denials::{Denials, Denied},
    events::{Emission, Origin},
    kv::{KvSpace, KvValue},
    redact::Redactor,
    road::{self, Trip},
    run::{Run, WeakRun},
    services::{self, Asker},
};

/// Keys that one listing gives at most.
const MAX_LISTED_KEYS: usize = 1_000;

/// One call's way out.
pub(crate) struct CallHost {
    run: WeakRun,
    owner: Arc<Owner>,
    call: CallId,
    depth: u32,
    deadline: Instant,
    logged: AtomicUsize,
    of_error_hook: bool,
    /// Learns each secret that is read; whoever made it keeps them from coming out.
    redactor: Redactor,
    origin: Origin,
    /// Where calls inside this one ask for approval.
    desk: Option<Desk>,
    /// The configuration, where it has to be made for this call.
    config: OnceLock<Option<Value>>,
    denials: Denials,
    /// The call's span: what it calls may go on in another task, where no span is the current one.
    span: Span,
}

impl CallHost {
    /// The way out of a call whose results, errors and other traces `redactor` is used on: it learns what the call reads.
    pub(crate) fn new(
        run: &Run,
        owner: Arc<Owner>,
        call: CallId,
        depth: u32,
        deadline: Instant,
        redactor: Redactor,
    ) -> Self {
        let (logged, of_error_hook, origin) = (AtomicUsize::new(0), false, Origin::CALL);
        let (run, config) = (run.downgrade(), OnceLock::new());
        let (denials, span) = (Denials::default(), Span::none());
        let desk = None;
        Self { run, owner, call, depth, deadline, logged, of_error_hook, redactor, origin, desk, config, denials, span }
    }

    /// The span that calls made from here are within.
    pub(crate) fn within(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// Where calls inside this one ask for approval; they are refused where there is no such place.
    pub(crate) fn asking_at(mut self, desk: Option<Desk>) -> Self {
        self.desk = desk;
        self
    }

    /// Where events that the call tells of come from.
    pub(crate) fn telling_from(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Whether an error hook is behind the call, so that what it calls in turn is shown to none.
    pub(crate) fn of_error_hook(mut self, yes: bool) -> Self {
        self.of_error_hook = yes;
        self
    }

    fn require(&self, action: &str) -> Result<(), ToolError> {
        let allowed = chance::check(action, self.run.inner().deterministic);
        allowed.and_then(|()| self.grants().require(action)).inspect_err(|error| self.denied(action, error))
    }

    /// Leaves an audit record where `error` is a denial.
    fn denied(&self, permission: &str, error: &ToolError) {
        let inner = self.run.inner();
        let denied = Denied {
            audit: inner.audit.as_deref(),
            caller: Some(&inner.caller),
            owner: &self.owner,
            call: self.call.as_str(),
            depth: self.depth,
            redactor: Some(&self.redactor),
        };
        self.denials.note(&denied, permission, error);
    }

    fn grants(&self) -> Grants {
        Grants {
            asked: Arc::clone(&self.owner.asked),
            host: Arc::clone(&self.owner.host_grants),
            tenant: Arc::clone(&self.run.inner().tenant_grants),
        }
    }

    /// The host's limits, lowered by the manifest and by the tenant.
    fn limits(&self) -> Limits {
        let limits = &self.owner.limits;
        let tenant = self.run.inner().tenant_limits.as_ref();
        tenant.map_or_else(|| Limits::clone(limits), |tenant| limits.lowered_by(tenant))
    }

    fn space(&self) -> KvSpace {
        let own = matches!(self.owner.scope, Scope::Tenant(_));
        KvSpace { tenant: self.run.tenant().clone(), plugin: self.owner.name.clone(), own }
    }

    fn now(&self) -> Result<i64, ToolError> {
        clock::now_ms(&*self.run.inner().clock)
    }

    async fn keep(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), ToolError> {
        let (inner, now) = (self.run.inner(), self.now()?);
        let expires_ms = ttl.map(|ttl| clock::end_of(ttl, now)).transpose()?;
        inner.kv.set(&self.space(), key, KvValue { value, expires_ms }, inner.kv_quota, now).await
    }
}

#[async_trait]
impl Host for CallHost {
    fn log(&self, level: LogLevel, message: &str) {
        let allowed = self.limits().max_log_bytes;
        let before = self.logged.fetch_add(message.len().max(1), Ordering::Relaxed);
        if before >= allowed {
            return;
        }
        let left = allowed - before;
        // Before it is cut, or a piece of a secret would be left at the end.
        let hidden = self.redactor.text(message);
        let shown = hidden.get(..hidden.floor_char_boundary(left)).unwrap_or_default();
        // A script's text must not be able to forge lines or terminal codes in the operator's log.
        let shown: String = shown.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
        let (tenant, plugin, call) = (self.run.tenant(), &self.owner.name, &self.call);
        match level {
            LogLevel::Trace => tracing::trace!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Debug => tracing::debug!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Info => tracing::info!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Warn => tracing::warn!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Error => tracing::error!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
        }
        if message.len() >= left {
            tracing::warn!(
                target: "toolbay::plugin", %tenant, %plugin, %call,
                "the call has logged its {allowed} bytes; what follows is dropped"
            );
        }
    }

    fn config(&self) -> &Value {
        self.run.view().config(&self.owner, &self.config)
    }

    fn assets(&self) -> &Assets {
        &self.owner.assets
    }

    async fn kv_get(&self, key: &str) -> Result<Option<Value>, ToolError> {
        self.require("kv:read")?;
        self.run.inner().kv.get(&self.space(), key, self.now()?).await
    }

    async fn kv_set(&self, key: &str, value: Value) -> Result<(), ToolError> {
        self.require("kv:write")?;
        self.keep(key, value, None).await
    }

    async fn kv_set_for(&self, key: &str, value: Value, ttl: Duration) -> Result<(), ToolError> {
        self.require("kv:write")?;
        self.keep(key, value, Some(ttl)).await
    }

    async fn kv_compare_and_set(
        &self,
        key: &str,
        expected: Option<Value>,
        new: Option<Value>,
        ttl: Option<Duration>,
    ) -> Result<bool, ToolError> {
        // To compare with a value is to learn of it.
        self.require("kv:read")?;
        self.require("kv:write")?;
        let (inner, now) = (self.run.inner(), self.now()?);
        let expires_ms = ttl.map(|ttl| clock::end_of(ttl, now)).transpose()?;
        let new = new.map(|value| KvValue { value, expires_ms });
        inner.kv.compare_and_set(&self.space(), key, expected, new, inner.kv_quota, now).await
    }

    async fn kv_delete(&self, key: &str) -> Result<bool, ToolError> {
        self.require("kv:write")?;
        self.run.inner().kv.delete(&self.space(), key, self.now()?).await
    }

    async fn kv_list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        self.kv_list_after(prefix, "", limit).await
    }

    async fn kv_list_after(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        self.require("kv:read")?;
        let limit = limit.min(MAX_LISTED_KEYS);
        self.run.inner().kv.list(&self.space(), prefix, after, limit, self.now()?).await
    }

    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        // The tool is named in the permission by its qualified name, whichever name the script used.
        let qualified = self.run.view().tool(tool).map(|entry| entry.info.definition.name.shared());
        self.require(&format!("tool:call:{}", qualified.as_deref().unwrap_or(tool)))?;
        let (depth, allowed) = (self.depth + 1, self.limits().max_call_chain);
        if depth > allowed {
            return Err(ToolError::limit(Limit::CallChain, u64::from(allowed), u64::from(depth)));
        }
        let run = self.run.upgrade()?;
        let trip = Trip {
            step: 0,
            call: run.next_call_id(),
            name: tool.to_owned(),
            arguments,
            depth,
            caller: Some(Arc::clone(&self.owner)),
            deadline: Some(self.deadline),
            of_error_hook: self.of_error_hook,
            redactor: self.redactor.clone(),
            origin: self.origin,
            // Whoever is outside knows nothing of this call: it could not tell its progress or its questions from the outer one's.
            peer: None,
            let_through: None,
            within: (!self.span.is_disabled()).then(|| self.span.clone()),
            parent: Some(self.call.clone()),
            desk: self.desk.clone(),
            // Its id is a number within the run, which depends on what else goes on.
            once: None,
        };
        road::travel(&run, trip).await.result
    }

    fn tools(&self) -> Vec<String> {
        let tools = self.run.view().tools(&self.run.inner().rights, Some(&self.owner));
        tools.into_iter().map(|tool| String::from(tool.definition.name.clone())).collect()
    }

    fn catalog(&self) -> Vec<(Arc<str>, Arc<ToolDefinition>)> {
        let inner = self.run.inner();
        let tools = inner.tools.get_or_init(|| inner.view.tools(&inner.rights, None));
        tools.iter().map(|tool| (Arc::clone(&tool.provider_name), Arc::clone(&tool.definition))).collect()
    }

    async fn emit(&self, name: &str, payload: Value) -> Result<(), ToolError> {
        let bay = &self.run.inner().bay;
        let emission = Emission {
            name,
            payload,
            scope: Scope::Tenant(self.run.tenant().clone()),
            origin: self.origin,
            limits: &self.limits(),
            redactor: Some(&self.redactor),
            require: &|action| self.require(action),
        };
        let told = bay.told_by_plugin(&self.owner, emission);
        // Beside the grant, the manifest's own list of events may say no.
        let told = told.inspect_err(|error| self.denied(&format!("event:emit:{name}"), error))?;
        bay.pass_on(told).await.map(|_| ())
    }

    fn find_service(&self, query: &ServiceQuery<'_>) -> Result<Arc<dyn Any + Send + Sync>, ToolError> {
        let (allows, require) = (|action: &str| self.grants().allow(action), |action: &str| self.require(action));
        let view = self.run.view();
        let asker = Asker { owner: &self.owner, is_on: &|owner| view.is_on(owner), allows: &allows, require: &require };
        // Beside the grant, the lender may say no.
        services::find(view.sight(), asker, query)
            .inspect_err(|error| self.denied(&format!("service:{}", query.name.unwrap_or_default()), error))
    }

    async fn http(&self, request: Value) -> Result<Value, ToolError> {
        let Some(sender) = &self.run.inner().http else {
            // Without a sender nothing can be checked either: which action it is, is the sender's to say.
            let message = "this host sends no HTTP requests; tell the operator";
            return Err(ToolError::new(ErrorKind::Unavailable, message).with_retryable(false));
        };
        let allowed = self.limits().max_string_bytes;
        let context = HttpSendContext {
            tenant: self.run.tenant(),
            require: &|action| self.require(action),
            deadline: self.deadline,
            max_response_bytes: allowed,
        };
        // Beside the grants, the sender says no to addresses.
        let answer = sender.send(request, context).await.inspect_err(|error| self.denied("http", error))?;
        // Base64 is longer than the bytes that the sender bounded, and a script's strings are bounded too.
        match answer.get("body_base64").and_then(Value::as_str) {
            Some(body) if body.len() > allowed => {
                let message = format!(
                    "the server answered with bytes that have {} bytes in base64, and {allowed} are allowed; ask it for \
                     less at once",
                    body.len()
                );
                Err(ToolError::new(ErrorKind::Unavailable, message)
                    .with_retryable(false)
                    .with_details(serde_json::json!({ "limit": "http_response_bytes", "allowed": allowed })))
            }
            _ => Ok(answer),
        }
    }

    async fn secret(&self, name: &str) -> Result<String, ToolError> {
        // Configurations refer to secrets by `secret:NAME`; what stands in them is as good as the name, and no better.
        let name = SecretName::new(name.strip_prefix("secret:").unwrap_or(name))?;
        self.require(&format!("secret:read:{name}"))?;
        let unavailable = |message| ToolError::new(ErrorKind::Unavailable, message).with_retryable(false);
        let Some(provider) = &self.run.inner().secrets else {
            return Err(unavailable("this host keeps no secrets; tell the operator"));
        };
        let asked = tokio::time::timeout_at(self.deadline.into(), provider.secret(self.run.tenant(), &name)).await;
        let late = |_| {
            let message = format!("the secret {name} was not given in time; try again later");
            ToolError::new(ErrorKind::TimedOut, message)
        };
        let secret = asked.map_err(late)??.ok_or_else(|| {
            ToolError::new(ErrorKind::NotFound, format!("there is no secret called {name}; the operator can add it"))
        })?;
        // Learned before it is given: from then on it can come out of the call anywhere.
        self.redactor.learn(&secret)?;
        self.run.inner().seen.learn(&secret);
        tracing::info!(
            target: "toolbay::audit",
            tenant = %self.run.tenant(), plugin = %self.owner.name, call = %self.call, %name,
            "secret read"
        );
        Ok(secret.expose().to_owned())
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        self.require("clock")?;
        self.now()
    }

    fn uuid(&self) -> Result<String, ToolError> {
        self.require("random")?;
        Ok(chance::uuid())
    }

    fn random(&self) -> Result<u64, ToolError> {
        self.require("random")?;
        Ok(chance::random())
    }
}
