//! A plugin's state and health. What a global plugin's calls tell is other tenants' doing too, so a tenant is shown what
//! concerns itself, and operators everything.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use toolbay_api::{PluginName, Scope};
use toolbay_runtime::{PluginHealth, PluginState};

use super::no_such_plugin;
use crate::{
    call::{Call, ok},
    problem::Problem,
    views::{ErrorView, Figures, HealthView, StatusView, Time, Withheld},
};

/// A plugin as the caller has it: where it is registered, whether it is on, and why not.
struct Seen {
    place: Scope,
    enabled: bool,
    problem: Option<String>,
    /// Whether its figures are the caller's business.
    whole: bool,
}

fn seen(call: &Call, name: &PluginName) -> Result<Seen, Problem> {
    let bay = call.app.control.toolbay();
    match call.known_scope()? {
        Scope::Global => {
            let info = bay.plugins(&Scope::Global).into_iter().find(|info| info.metadata.name == *name);
            let info = info.ok_or_else(no_such_plugin)?;
            let enabled = info.enabled_by_default || info.protected;
            Ok(Seen { place: Scope::Global, enabled, problem: None, whole: true })
        }
        Scope::Tenant(tenant) => {
            let found = bay.tenant_plugins(tenant).into_iter().find(|plugin| plugin.plugin == *name);
            let found = found.ok_or_else(no_such_plugin)?;
            let whole = found.scope != Scope::Global || call.is_operator();
            Ok(Seen { place: found.scope, enabled: found.enabled, problem: found.problem, whole })
        }
    }
}

pub(super) async fn status(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let Seen { place, enabled, problem, whole } = seen(&call, &name)?;
    let status = call.app.control.toolbay().statuses(&place).into_iter().find(|status| status.name == name);
    let status = status.ok_or_else(no_such_plugin)?;
    ok(&StatusView {
        name: name.to_string(),
        version: status.version.to_string(),
        scope: (&place).into(),
        state: status.state.name().to_owned(),
        enabled,
        problem,
        since: whole.then(|| Time::of(millis(status.since))),
        calls_in_flight: whole.then_some(status.calls_in_flight as u64),
        last_error: status.last_error.as_ref().filter(|_| whole).map(ErrorView::from),
    })
}

pub(super) async fn health(call: Call) -> Result<Response, Problem> {
    let name = call.plugin()?;
    let Seen { place, whole, .. } = seen(&call, &name)?;
    let bay = call.app.control.toolbay();
    let health = bay.health(&place).into_iter().find(|health| health.name == name).ok_or_else(no_such_plugin)?;
    let withheld = match call.scope()? {
        Scope::Global => None,
        Scope::Tenant(tenant) => {
            let by =
                |by: &str, left: Duration, cause: String| Withheld { by: by.to_owned(), left_ms: to_ms(left), cause };
            let circuit = health.open_circuits.iter().find(|open| open.tenant == *tenant);
            let circuit = circuit.map(|open| by("breaker", open.left, open.cause.clone()));
            circuit.or_else(|| {
                let mut all = bay.quarantined().into_iter();
                let held = all.find(|held| held.tenant == *tenant && held.plugin == name)?;
                Some(by("quarantine", held.left, held.cause))
            })
        }
    };
    let checked = health.last_check.as_ref().is_none_or(|(_, outcome)| outcome.is_ok());
    let well = matches!(health.state, PluginState::Active) && checked && !health.is_down && withheld.is_none();
    ok(&HealthView {
        name: name.to_string(),
        version: health.version.to_string(),
        scope: (&place).into(),
        well,
        withheld,
        figures: whole.then(|| figures(&health)),
    })
}

fn figures(health: &PluginHealth) -> Figures {
    Figures {
        generation: health.generation,
        uptime_ms: to_ms(health.uptime),
        calls: health.calls,
        errors: health.errors.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
        consecutive_failures: health.consecutive_failures,
        p50_ms: health.latency.p50.as_secs_f64() * 1e3,
        p99_ms: health.latency.p99.as_secs_f64() * 1e3,
        open_circuits: health.open_circuits.len(),
        down: health.is_down,
    }
}

pub(in crate::routes) fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
