//! The connections of one plugin: one for each tenant, opened when it is needed, checked against what was approved, and
//! opened anew with pauses where it breaks. Tenants share none, since a server may keep what one told it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use toolbay_api::{ErrorKind, TenantId, ToolContext, ToolError};

use crate::{
    link::{Link, LinkError, LinkOptions},
    pins::{Difference, Pins},
    server_file::{Place, ServerFile},
};

/// Connections of one plugin; the one that was not used for the longest time makes room for a new one.
const MAX_LINKS: usize = 64;
/// The pause after the first failure, doubled by each further one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The connections of one plugin.
pub(crate) struct Pool {
    file: ServerFile,
    pins: Arc<Pins>,
    options: LinkOptions,
    slots: Mutex<HashMap<TenantId, Arc<Slot>>>,
    /// Why no call is made any more.
    quarantine: Mutex<Option<String>>,
}

/// A tenant's connection.
struct Slot {
    /// Whoever opens or checks the connection holds it; the others wait for what comes of it.
    turn: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<(Place, Arc<Link>)>,
    failures: u32,
    not_before: Option<Instant>,
    used: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(file: ServerFile, pins: Arc<Pins>, options: LinkOptions) -> Self {
        Self { file, pins, options, slots: Mutex::default(), quarantine: Mutex::default() }
    }

    /// The connection of the call's tenant, as approved.
    ///
    /// # Errors
    /// `Unavailable`: the server is away, to be tried again; or it has changed, and an operator has to look at it. What
    /// reading its secrets fails with.
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing.
    pub(crate) async fn link(&self, cx: &ToolContext) -> Result<Arc<Link>, ToolError> {
        self.check_quarantine()?;
        let place = self.place(cx).await?;
        let slot = self.slot(cx.tenant());
        let _turn = slot.turn.acquire().await.map_err(|_| unavailable("the plugin is stopping"))?;
        if let Some(link) = slot.usable(&place) {
            if link.has_changed() {
                self.approve(&link).await?;
            }
            return Ok(link);
        }
        let pause = slot.state().not_before;
        if let Some(at) = pause {
            if at.saturating_duration_since(Instant::now()) >= cx.time_left() {
                return Err(unavailable("the MCP server broke down and is being started anew; try again in a minute"));
            }
            tokio::time::sleep_until(at).await;
        }
        let opened = Link::open(&place, &self.options).await.map_err(|error| self.tool_error(&error));
        let link = match opened {
            Ok(link) => Arc::new(link),
            Err(error) => {
                slot.failed();
                return Err(error);
            }
        };
        if let Err(error) = self.approve(&link).await {
            slot.failed();
            return Err(error);
        }
        let mut state = slot.state();
        state.open = Some((place, Arc::clone(&link)));
        Ok(link)
    }

    /// Notes that a call over `link` went well, or that the connection broke.
    pub(crate) fn note(&self, tenant: &TenantId, link: &Arc<Link>, broke: bool) {
        let slot = self.slots().get(tenant).cloned();
        let Some(slot) = slot else { return };
        let mut state = slot.state();
        let is_it = state.open.as_ref().is_some_and(|(_, open)| Arc::ptr_eq(open, link));
        if !is_it {
            return;
        }
        if broke {
            state.open = None;
            drop(state);
            slot.failed();
        } else {
            (state.failures, state.not_before) = (0, None);
        }
    }

    /// `Ok` unless the server has changed what was approved.
    pub(crate) fn check_quarantine(&self) -> Result<(), ToolError> {
        match &*self.quarantine.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(why) => {
                let message = "the MCP server describes its tools in another way than was approved, and is not called \
                               until an operator has looked at the difference";
                Err(unavailable(message).with_retryable(false).with_source(why.clone()))
            }
        }
    }

    /// Ends all connections. Whoever waits for one is told.
    pub(crate) fn close(&self) {
        for (_, slot) in self.slots().drain() {
            slot.turn.close();
            slot.state().open = None;
        }
    }

    /// Compares what the server offers with what was approved.
    async fn approve(&self, link: &Link) -> Result<(), ToolError> {
        let offered = link.tools().await.map_err(|error| self.tool_error(&error))?;
        let label = &self.options.label;
        let mut changed = Vec::new();
        for difference in self.pins.differences(&offered) {
            match difference {
                Difference::Changed(_) => changed.push(difference.to_string()),
                other => tracing::info!(target: "toolbay::mcp", server = %label, "{other}"),
            }
        }
        if !changed.is_empty() {
            let why = changed.join("; ");
            tracing::error!(target: "toolbay::mcp", server = %label, why, "in quarantine until an operator accepts it");
            *self.quarantine.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
        self.check_quarantine()
    }

    /// Where the server is, with the tenant's secrets. They are read at each call, so that results are searched for them.
    async fn place(&self, cx: &ToolContext) -> Result<Place, ToolError> {
        let mut secrets = HashMap::new();
        for name in self.file.secrets() {
            secrets.insert(name, cx.host().secret(name).await?);
        }
        self.file.place(|name| {
            let secret = secrets.get(name).cloned();
            secret.ok_or_else(|| ToolError::new(ErrorKind::Internal, "a secret was not read"))
        })
    }

    fn slot(&self, tenant: &TenantId) -> Arc<Slot> {
        let mut slots = self.slots();
        if !slots.contains_key(tenant) && slots.len() >= MAX_LINKS {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.state().used).map(|(tenant, _)| tenant.clone());
            if let Some(oldest) = oldest {
                slots.remove(&oldest);
            }
        }
        let new = || Arc::new(Slot { turn: Semaphore::new(1), state: Mutex::default() });
        let slot = Arc::clone(slots.entry(tenant.clone()).or_insert_with(new));
        slot.state().used = Some(Instant::now());
        slot
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a caller is told. The server's own words are the operator's.
    pub(crate) fn tool_error(&self, error: &LinkError) -> ToolError {
        tracing::warn!(target: "toolbay::mcp", server = %self.options.label, %error, "no answer");
        let told = match error {
            LinkError::TimedOut => {
                ToolError::new(ErrorKind::TimedOut, "the MCP server did not answer in time; try again")
            }
            LinkError::Refused(_) => {
                let message = "the address of the MCP server is not for plugins; tell the operator";
                ToolError::new(ErrorKind::PermissionDenied, message)
            }
            LinkError::Error { code: -32602, .. } => {
                let message = "the MCP server does not take these arguments, or has this tool no more";
                ToolError::new(ErrorKind::InvalidArguments, message)
            }
            LinkError::SignInNeeded(_) | LinkError::SignInFailed(_) => {
                unavailable("the MCP server does not accept the plugin's credentials; tell the operator")
                    .with_retryable(false)
            }
            LinkError::Error { .. } => ToolError::new(ErrorKind::Dependency, "the MCP server answered with an error"),
            LinkError::Broken(_) => {
                ToolError::new(ErrorKind::Dependency, "the MCP server does not keep to the protocol; tell the operator")
            }
            LinkError::Unreachable(_) => unavailable("the MCP server cannot be reached; try again later"),
        };
        told.with_source(error.clone())
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, where it is there and to this very place.
    fn usable(&self, place: &Place) -> Option<Arc<Link>> {
        let mut state = self.state();
        let is_good = matches!(&state.open, Some((there, link)) if there == place && !link.is_over());
        if !is_good {
            state.open = None;
        }
        state.open.as_ref().map(|(_, link)| Arc::clone(link))
    }

    fn failed(&self) {
        let mut state = self.state();
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(state.failures)).min(LONGEST_PAUSE);
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + pause);
    }
}

fn unavailable(message: &'static str) -> ToolError {
    ToolError::new(ErrorKind::Unavailable, message)
}
