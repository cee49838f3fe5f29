//! Plugins that are not called for a tenant for a while since they ran into their limits too often.

use axum::{http::Method, response::Response};
use toolbay_runtime::store::Role;

use super::plugins::{part, to_ms};
use crate::{
    call::{Call, nothing, ok},
    problem::Problem,
    table::{Endpoint, Group},
    views::{Page, QuarantineView},
};

pub(super) fn group() -> Group {
    let mut group = Group::new("quarantine");
    group.per_tenant(
        &Endpoint::new(Method::GET, "/quarantine", "listQuarantine", "Lists plugins in quarantine", list)
            .about("As the process that is asked has it.")
            .paged()
            .gives::<Page<QuarantineView>>(200, "A part of them, by plugin."),
    );
    group.of_tenant(
        &Endpoint::new(
            Method::DELETE,
            "/quarantine/{plugin}",
            "releasePlugin",
            "Lets a plugin be called again",
            release,
        )
        .role(Role::Operator)
        .gives_nothing("It is called again from the next call on."),
    );
    group
}

async fn list(call: Call) -> Result<Response, Problem> {
    let (tenant, page) = (call.tenant()?, call.page()?);
    call.known_scope()?;
    let all = call.app.control.toolbay().quarantined().into_iter().filter(|held| held.tenant == *tenant);
    let view = |held: toolbay_runtime::Quarantined| QuarantineView {
        plugin: held.plugin.to_string(),
        left_ms: to_ms(held.left),
        cause: held.cause,
    };
    ok(&part(all.map(view).collect(), &page, |held| &held.plugin))
}

async fn release(call: Call) -> Result<Response, Problem> {
    let plugin = call.plugin()?;
    call.known_scope()?;
    if call.app.control.toolbay().release(call.tenant()?, &plugin) {
        Ok(nothing())
    } else {
        Err(Problem::not_found("there is no such plugin in quarantine here"))
    }
}
