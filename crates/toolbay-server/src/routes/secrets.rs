//! Where secrets are found: references only, never values. Operators decide, since a reference names something in the
//! host's own keeper, and a tenant could name another's.

use axum::{http::Method, response::Response};
use serde_json::json;
use toolbay_api::SecretName;
use toolbay_runtime::store::{Role, SecretReference};

use crate::{
    call::{Call, nothing, ok},
    problem::Problem,
    table::{Endpoint, Group},
    views::{Page, SecretView, SecretWanted},
};

pub(super) fn group() -> Group {
    let list = Endpoint::new(Method::GET, "/secrets", "listSecrets", "Lists where secrets are found", list)
        .role(Role::Operator)
        .paged()
        .gives::<Page<SecretView>>(200, "A part of the references, by name, without what they refer to.");
    let put = Endpoint::new(Method::PUT, "/secrets/{secret}", "putSecret", "Says where a secret is found", put)
        .role(Role::Operator)
        .takes::<SecretWanted>(|| json!({ "reference": "ACME_STRIPE_KEY" }))
        .once()
        .gives::<SecretView>(200, "Plugins that may read it find it there from the next call on.");
    let delete = Endpoint::new(Method::DELETE, "/secrets/{secret}", "deleteSecret", "Takes a reference away", delete)
        .role(Role::Operator)
        .once()
        .gives_nothing("It is gone.");
    let mut group = Group::new("secrets");
    for endpoint in [list, put, delete] {
        group.of_tenant(&endpoint);
        group.global(&endpoint, Role::Admin);
    }
    group
}

fn name(call: &Call) -> Result<SecretName, Problem> {
    SecretName::new(call.param("secret")).map_err(Problem::from)
}

async fn list(call: Call) -> Result<Response, Problem> {
    let listed = call.app.control.secrets(&call.actor()?, call.scope()?, call.page()?).await?;
    let view = |SecretReference { name, reference, .. }| Some(SecretView { name, reference: reference? });
    ok(&Page { items: listed.items.into_iter().filter_map(view).collect(), next: listed.next })
}

async fn put(call: Call) -> Result<Response, Problem> {
    let (name, SecretWanted { reference }) = (name(&call)?, call.json()?);
    call.app.control.put_secret(&call.actor()?, call.scope()?, name.as_str(), Some(reference.clone())).await?;
    ok(&SecretView { name: name.to_string(), reference })
}

async fn delete(call: Call) -> Result<Response, Problem> {
    let name = name(&call)?;
    call.app.control.put_secret(&call.actor()?, call.scope()?, name.as_str(), None).await?;
    Ok(nothing())
}
