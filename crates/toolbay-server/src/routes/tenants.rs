//! Tenants.

use axum::{
    http::{Method, StatusCode, header::LOCATION},
    response::Response,
};
use serde_json::json;
use toolbay_runtime::store::{Revision, Role};

use crate::{
    call::{Call, Tag, answer, nothing, ok, tagged, with_header},
    problem::Problem,
    table::{Endpoint, Group},
    views::{Page, TenantView, TenantWanted},
};

pub(super) fn group() -> Group {
    let mut group = Group::new("tenants");
    group.add(
        Endpoint::new(Method::GET, "/api/v1/tenants", "listTenants", "Lists tenants", list)
            .role(Role::Operator)
            .paged()
            .gives::<Page<TenantView>>(200, "A part of the tenants, by name."),
    );
    group.add(
        Endpoint::new(Method::POST, "/api/v1/tenants", "createTenant", "Makes a tenant", create)
            .role(Role::Operator)
            .takes::<TenantWanted>(|| json!({ "name": "acme" }))
            .once()
            .gives::<TenantView>(201, "It is there."),
    );
    group.of_tenant(
        &Endpoint::new(Method::GET, "", "getTenant", "Shows a tenant", get)
            .about("A tenant's key sees its own.")
            .tagged()
            .gives::<TenantView>(200, "The tenant."),
    );
    group.of_tenant(
        &Endpoint::new(Method::POST, "/suspend", "suspendTenant", "Suspends a tenant", suspend)
            .about("Its keys are refused, on all replicas, until it is resumed.")
            .role(Role::Operator)
            .tagged()
            .once()
            .gives::<TenantView>(200, "Its keys are refused."),
    );
    group.of_tenant(
        &Endpoint::new(Method::POST, "/resume", "resumeTenant", "Resumes a tenant", resume)
            .role(Role::Operator)
            .tagged()
            .once()
            .gives::<TenantView>(200, "Its keys are taken again."),
    );
    group.of_tenant(
        &Endpoint::new(Method::DELETE, "", "removeTenant", "Removes a tenant", remove)
            .about("And everything of it but its audit: plugins, packages, keys, values, runs.")
            .role(Role::Admin)
            .tagged()
            .once()
            .gives_nothing("It is gone."),
    );
    group
}

async fn list(call: Call) -> Result<Response, Problem> {
    let listed = call.app.control.tenants(&call.actor()?, call.page()?).await?;
    ok(&Page { items: listed.items.iter().map(TenantView::from).collect(), next: listed.next })
}

async fn create(call: Call) -> Result<Response, Problem> {
    let TenantWanted { name } = call.json()?;
    let row = call.app.control.create_tenant(&call.actor()?, &name).await?;
    let response = tagged(answer(StatusCode::CREATED, &TenantView::from(&row))?, (&row).into());
    Ok(with_header(response, LOCATION, &format!("/api/v1/tenants/{name}")))
}

async fn get(call: Call) -> Result<Response, Problem> {
    let row = call.app.control.tenant(&call.actor()?, call.tenant()?).await?;
    Ok(tagged(ok(&TenantView::from(&row))?, (&row).into()))
}

async fn expected(call: &Call) -> Result<Option<Revision>, Problem> {
    if !call.has_condition() {
        return Ok(None);
    }
    let row = call.app.control.tenant(&call.actor()?, call.tenant()?).await?;
    call.matches(Some(&Tag::from(&row)))
}

async fn set_suspended(call: Call, suspended: bool) -> Result<Response, Problem> {
    let expected = expected(&call).await?;
    let row = call.app.control.suspend_tenant(&call.actor()?, call.tenant()?, suspended, expected).await?;
    Ok(tagged(ok(&TenantView::from(&row))?, (&row).into()))
}

async fn suspend(call: Call) -> Result<Response, Problem> {
    set_suspended(call, true).await
}

async fn resume(call: Call) -> Result<Response, Problem> {
    set_suspended(call, false).await
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let expected = expected(&call).await?;
    call.app.control.remove_tenant(&call.actor()?, call.tenant()?, expected).await?;
    Ok(nothing())
}
