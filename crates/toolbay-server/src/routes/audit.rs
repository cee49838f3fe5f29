//! The audit: who did what, and whether the record is whole.

use axum::{http::Method, response::Response};
use serde_json::json;
use toolbay_runtime::store::{AuditQuery, Role};

use crate::{
    call::{Call, ok},
    problem::Problem,
    table::{Endpoint, Group},
    views::{AuditView, Page, VerdictView},
};

pub(super) fn group() -> Group {
    let action = json!({ "type": "string", "pattern": "^[a-z_.]{1,64}$" });
    let list = Endpoint::new(Method::GET, "/audit", "listAudit", "Lists the audit", list)
        .param("action", action, "Only lines with this action; one that ends in `.` means all that begin so.")
        .param("since", json!({ "type": "string", "format": "date-time" }), "Only lines from then on.")
        .param(
            "order",
            json!({ "type": "string", "enum": ["oldest", "newest"], "default": "oldest" }),
            "Which go first.",
        )
        .paged()
        .about("That of a tenant that was removed stays, for operators.")
        .gives::<Page<AuditView>>(200, "A part of the lines.");
    let verify = Endpoint::new(Method::GET, "/audit/verify", "verifyAudit", "Checks the audit", verify)
        .about("Reads the whole chain: each line holds the hash of the one before.")
        .gives::<VerdictView>(200, "Whether the chain is whole, and where not.");
    let mut group = Group::new("audit");
    for endpoint in [list, verify] {
        group.per_tenant(&endpoint);
        group.global(&endpoint, Role::Admin);
    }
    group
}

async fn list(call: Call) -> Result<Response, Problem> {
    let action = call.text("action").map(str::to_owned);
    let is_fine = |text: &String| {
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'))
    };
    if action.as_ref().is_some_and(|text| !is_fine(text)) {
        return Err(Problem::invalid("action must be 1 to 64 of a-z _ ."));
    }
    let newest_first = match call.text("order") {
        None | Some("oldest") => false,
        Some("newest") => true,
        Some(_) => return Err(Problem::invalid("order must be oldest or newest")),
    };
    let query = AuditQuery { action, since_ms: call.time("since")?, newest_first, page: call.page()? };
    let listed = call.app.control.audit(&call.actor()?, call.scope()?, &query).await?;
    ok(&Page { items: listed.items.iter().map(AuditView::from).collect(), next: listed.next })
}

async fn verify(call: Call) -> Result<Response, Problem> {
    let verdict = call.app.control.verify_audit(&call.actor()?, call.scope()?).await?;
    ok(&VerdictView { whole: verdict.broken_at.is_none(), lines: verdict.lines, broken_at: verdict.broken_at })
}
