//! Keys: operators have to do with those of tenants, administrators with all. A key's secret is in the answer that makes it and nowhere else.

use axum::{
    http::{Method, StatusCode, header::LOCATION},
    response::Response,
};
use serde_json::json;
use toolbay_api::TenantId;
use toolbay_runtime::{NewKey, control::KeyWanted, store::Role};

use crate::{
    call::{Call, answer, millis_of, nothing, ok, with_header},
    problem::Problem,
    table::{Endpoint, Group},
    views::{KeyAsked, KeyView, NewKeyView, Page, RotateWanted},
};

/// Characters of a label.
const MAX_LABEL: usize = 200;
const MAX_RATE: u32 = 1_000_000;
/// How long an old key may go on beside a new one: 30 days.
const MAX_GRACE_MS: u64 = 2_592_000_000;

pub(super) fn group() -> Group {
    let tenant = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$" });
    let mut group = Group::new("keys");
    group.add(
        Endpoint::new(Method::GET, "/api/v1/keys", "listKeys", "Lists keys", list)
            .role(Role::Operator)
            .param("tenant", tenant, "Only this tenant's. Operators must say which.")
            .paged()
            .gives::<Page<KeyView>>(200, "A part of the keys, newest first, without their secrets."),
    );
    group.add(
        Endpoint::new(Method::POST, "/api/v1/keys", "createKey", "Makes a key", create)
            .role(Role::Operator)
            .takes::<KeyAsked>(|| json!({ "role": "tenant", "tenant": "acme", "label": "acme's agent" }))
            .once()
            .gives::<NewKeyView>(201, "The key. Its secret is shown this once."),
    );
    group.add(
        Endpoint::new(
            Method::POST,
            "/api/v1/keys/{key}/rotate",
            "rotateKey",
            "Makes a key in the place of one",
            rotate,
        )
        .role(Role::Operator)
        .may_take::<RotateWanted>(|| json!({ "grace_ms": 86_400_000 }))
        .once()
        .gives::<NewKeyView>(201, "The new key. The old one goes on for the time that was asked."),
    );
    group.add(
        Endpoint::new(Method::DELETE, "/api/v1/keys/{key}", "revokeKey", "Revokes a key", revoke)
            .role(Role::Operator)
            .once()
            .gives_nothing("It is refused from now on, on all replicas."),
    );
    group
}

async fn list(call: Call) -> Result<Response, Problem> {
    let tenant = call.text("tenant").map(TenantId::new).transpose();
    let tenant = tenant.map_err(|error| Problem::invalid(error.to_string()))?;
    let listed = call.app.control.keys(&call.actor()?, tenant.as_ref(), call.page()?).await?;
    ok(&Page { items: listed.items.iter().map(KeyView::from).collect(), next: listed.next })
}

async fn create(call: Call) -> Result<Response, Problem> {
    let KeyAsked { role, tenant, label, expires_at, rate } = call.json()?;
    let role = Role::from(role);
    if (role == Role::Tenant) != tenant.is_some() {
        return Err(Problem::invalid("a key of the role tenant needs a tenant, and no other key has one"));
    }
    if label.chars().count() > MAX_LABEL {
        return Err(Problem::invalid(format!("label has at most {MAX_LABEL} characters")));
    }
    if rate.is_some_and(|rate| !(1..=MAX_RATE).contains(&rate)) {
        return Err(Problem::invalid(format!("rate must be a number from 1 to {MAX_RATE}")));
    }
    let expires_at = expires_at.map(|time| millis_of("expires_at", &time.0)).transpose()?;
    let wanted = KeyWanted { role, tenant, label, expires_at, rate };
    made(&call.app.control.create_key(&call.actor()?, wanted).await?)
}

async fn rotate(call: Call) -> Result<Response, Problem> {
    let (id, RotateWanted { grace_ms }) = (call.id("key")?, call.json_or_default()?);
    let grace = i64::try_from(grace_ms).ok().filter(|_| grace_ms <= MAX_GRACE_MS);
    let grace = grace.ok_or_else(|| Problem::invalid(format!("grace_ms must be at most {MAX_GRACE_MS}")))?;
    made(&call.app.control.rotate_key(&call.actor()?, id, grace).await?)
}

fn made(key: &NewKey) -> Result<Response, Problem> {
    let view = NewKeyView { key: (&key.row).into(), secret: key.secret.clone() };
    let place = format!("/api/v1/keys/{}", view.key.id);
    Ok(with_header(answer(StatusCode::CREATED, &view)?, LOCATION, &place))
}

async fn revoke(call: Call) -> Result<Response, Problem> {
    call.app.control.revoke_key(&call.actor()?, call.id("key")?).await?;
    Ok(nothing())
}
