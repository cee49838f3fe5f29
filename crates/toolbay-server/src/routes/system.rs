//! The server itself: whether it is there and ready, what it counts, its document and the page that shows it.

use std::sync::atomic::Ordering;

use axum::{
    body::Body,
    http::{
        HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::Response,
};
use toolbay_api::Scope;
use toolbay_runtime::store::Role;

use crate::{
    auth::authenticate,
    call::{Call, ok},
    openapi,
    problem::Problem,
    table::{Endpoint, Gate, Group},
    views::{Condition, FailedView, StoreView, WhoView},
};

/// What a page of ours may load: what this server gives, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn group(open_metrics: bool) -> Group {
    let mut group = Group::new("system");
    group.add(
        Endpoint::new(Method::GET, "/healthz", "isHealthy", "Says that the process is there", healthz)
            .gate(Gate::Open)
            .gives::<Condition>(200, "It is."),
    );
    group.add(
        Endpoint::new(Method::GET, "/readyz", "isReady", "Says whether requests should come here", readyz)
            .about("Not while the store cannot be read, nor when the process is about to end.")
            .gate(Gate::Open)
            .gives::<Condition>(200, "They should."),
    );
    let gate = if open_metrics { Gate::Open } else { Gate::Key(Role::Operator) };
    group.add(
        Endpoint::new(Method::GET, "/metrics", "getMetrics", "Gives what the server counts", metrics)
            .gate(gate)
            .gives_text(200, "application/openmetrics-text", "The counts, as Prometheus reads them."),
    );
    group.add(
        Endpoint::new(Method::GET, "/api/v1/whoami", "whoAmI", "Says whose key it is", whoami)
            .gives::<WhoView>(200, "What the key is and allows."),
    );
    group.add(
        Endpoint::new(Method::GET, "/api/v1/status", "getStatus", "Says how it stands with the store", status)
            .role(Role::Operator)
            .gives::<StoreView>(200, "How it stands."),
    );
    group.add(
        Endpoint::new(Method::GET, "/api/v1/openapi.json", "getDocument", "Gives this document", document)
            .about("With a tenant's key it has the routes of that tenant's plugins, with an operator's those for everybody.")
            .gate(Gate::Open)
            .gives_text(200, "application/json", "OpenAPI 3.1."),
    );
    for (path, id, media) in [
        ("/docs", "getDocs", "text/html"),
        ("/docs/docs.js", "getDocsScript", "text/javascript"),
        ("/docs/docs.css", "getDocsStyle", "text/css"),
    ] {
        group.add(
            Endpoint::new(
                Method::GET,
                path,
                id,
                "Gives a part of the page that shows this document",
                docs(path, media),
            )
            .gate(Gate::Open)
            .gives_text(200, media, "The part."),
        );
    }
    group
}

async fn healthz(_: Call) -> Result<Response, Problem> {
    ok(&Condition { status: "ok".to_owned() })
}

async fn readyz(call: Call) -> Result<Response, Problem> {
    let not_ready = |message| Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message, 2);
    if call.app.is_closing.load(Ordering::Acquire) {
        return Err(not_ready("the server is shutting down"));
    }
    if call.app.control.status().problem.is_some() {
        return Err(not_ready("the database cannot be read for now; tools go on as they were"));
    }
    ok(&Condition { status: "ok".to_owned() })
}

async fn metrics(call: Call) -> Result<Response, Problem> {
    let text = call.app.metrics.text(&call.app);
    Ok(text_of("application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}

async fn whoami(call: Call) -> Result<Response, Problem> {
    let who = call.principal()?;
    let tenant = who.tenant.as_ref().map(ToString::to_string);
    ok(&WhoView { prefix: who.prefix.clone(), role: who.role.into(), tenant })
}

async fn status(call: Call) -> Result<Response, Problem> {
    let status = call.app.control.status();
    let failed = status.failed.into_iter().map(|(scope, plugin, problem)| FailedView {
        tenant: match scope {
            Scope::Global => None,
            Scope::Tenant(tenant) => Some(tenant.to_string()),
        },
        plugin: plugin.to_string(),
        problem: problem.message.to_string(),
    });
    ok(&StoreView { position: status.position.0, ready: status.problem.is_none(), failed: failed.collect() })
}

async fn document(call: Call) -> Result<Response, Problem> {
    let app = &call.app;
    // A key is not needed, but one that is shown must count.
    if !call.headers.contains_key(axum::http::header::AUTHORIZATION) {
        let made = || serde_json::to_vec(&openapi::document(&app.table, &[])).unwrap_or_default().into();
        return Ok(text_of("application/json", app.document.get_or_init(made).clone()));
    }
    let (who, _) = authenticate(app, &call.headers, &call.extensions)?;
    let _in_flight = app.usage.admit(&who, &app.options, tokio::time::Instant::now().into_std())?;
    let bay = app.control.toolbay();
    let routes = match who.tenant {
        Some(tenant) => bay.session(&tenant).map(|session| session.routes()).unwrap_or_default(),
        None => bay.routes(&Scope::Global),
    };
    ok(&openapi::document(&app.table, &routes))
}

fn text_of(media: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn docs(
    path: &'static str,
    media: &'static str,
) -> impl Fn(Call) -> std::future::Ready<Result<Response, Problem>> + Send + Sync + 'static {
    let (text, full) = match media {
        "text/html" => (include_str!("../docs/docs.html"), "text/html; charset=utf-8"),
        "text/css" => (include_str!("../docs/docs.css"), "text/css; charset=utf-8"),
        _ => (include_str!("../docs/docs.js"), "text/javascript; charset=utf-8"),
    };
    move |_| {
        let mut response = text_of(full, text);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if path == "/docs" {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        }
        std::future::ready(Ok(response))
    }
}
