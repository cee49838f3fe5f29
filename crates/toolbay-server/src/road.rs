//! The road of a request to the API, one function: who asks, how much they may, whose things it is about, what they sent,
//! and only then the endpoint's code.
//!
//! Whose things: a tenant's key sees its own tenant only. That is settled by comparing two names, before anything is
//! looked up, so that a tenant that is there and one that is not take the same way to the same answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, StatusCode, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, TRANSFER_ENCODING},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use toolbay_api::{Scope, TenantId};
use toolbay_runtime::{Principal, control::OnceKey, store::Role};

use crate::{
    app::App,
    auth::authenticate,
    call::Call,
    envelope::RouteName,
    problem::Problem,
    table::{Endpoint, Gate, Input, Place},
    usage::Answering,
};

/// Bytes of a query.
const MAX_QUERY: usize = 8 << 10;
/// Bytes of an `Idempotency-Key`.
const MAX_ONCE: usize = 255;

/// Answers a request to an endpoint.
pub(crate) async fn travel(
    app: Arc<App>,
    endpoint: Arc<Endpoint>,
    params: Result<BTreeMap<String, String>, Problem>,
    request: Request,
) -> Response {
    let name = RouteName(endpoint.path.as_str().into());
    let mut response = answer(app, &endpoint, params, request).await.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(name);
    response
}

async fn answer(
    app: Arc<App>,
    endpoint: &Endpoint,
    params: Result<BTreeMap<String, String>, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // 1 who asks, and 2 how much they may
    let (principal, presented) = match endpoint.gate {
        Gate::Open => (None, String::new()),
        Gate::Key(_) => {
            let (principal, key) = authenticate(&app, &parts.headers, &parts.extensions)?;
            (Some(principal), key)
        }
    };
    let now = Instant::now().into_std();
    let _in_flight = principal.as_ref().map(|who| app.usage.admit(who, &app.options, now)).transpose()?;
    // 3 whose things it is about
    let params = params?;
    let scope = place(endpoint, principal.as_ref(), &params)?;
    // 4 what they sent
    let query = query_of(&parts.uri)?;
    check_query(endpoint, &query)?;
    check_headers(endpoint, &parts.headers)?;
    let body = body_of(&app, endpoint, &parts.headers, body).await?;
    let digest = request_digest(&parts, &query, &body);
    let (once, is_again, _answering) = once_of(&app, endpoint, principal.as_ref(), &parts.headers, digest).await?;
    // 5 the endpoint's code
    let time = app.options.request_timeout;
    let handler = Arc::clone(&endpoint.handler);
    let Parts { headers, extensions, .. } = parts;
    let call = Call { app, principal, presented, scope, params, query, headers, extensions, body, once, is_again };
    timeout(time, handler(call)).await.unwrap_or_else(|_| Err(too_late(time)))
}

/// Whose things the request is about, where the key may have to do with them.
fn place(
    endpoint: &Endpoint,
    principal: Option<&Principal>,
    params: &BTreeMap<String, String>,
) -> Result<Option<Scope>, Problem> {
    let (Gate::Key(needed), Some(principal)) = (endpoint.gate, principal) else { return Ok(None) };
    let check_role = || if principal.role >= needed { Ok(()) } else { Err(lacks_role(needed)) };
    match endpoint.place {
        Place::Nowhere => check_role().map(|()| None),
        Place::Global => check_role().map(|()| Some(Scope::Global)),
        Place::Own => {
            check_role()?;
            let Some(tenant) = &principal.tenant else {
                return Err(Problem::denied(
                    "this key belongs to no tenant: name one, as in /api/v1/tenants/TENANT/plugins, or use a tenant's key",
                ));
            };
            Ok(Some(Scope::Tenant(tenant.clone())))
        }
        Place::Tenant => {
            let named = params.get("tenant").map_or("", String::as_str);
            let named = TenantId::new(named).map_err(|error| Problem::invalid(error.to_string()))?;
            if principal.role == Role::Tenant && principal.tenant.as_ref() != Some(&named) {
                return Err(no_such_tenant());
            }
            check_role()?;
            Ok(Some(Scope::Tenant(named)))
        }
    }
}

/// One text for a tenant that is not there and for another's.
pub(crate) fn no_such_tenant() -> Problem {
    Problem::not_found("there is no such tenant")
}

fn lacks_role(needed: Role) -> Problem {
    let role = match needed {
        Role::Tenant => "a tenant's",
        Role::Operator => "an operator's or administrator's",
        Role::Admin => "an administrator's",
    };
    Problem::denied(format!("this needs {role} key"))
}

/// The query, with every name once and every byte meant.
pub(crate) fn query_of(uri: &Uri) -> Result<BTreeMap<String, String>, Problem> {
    let text = uri.query().unwrap_or_default();
    if text.len() > MAX_QUERY {
        return Err(Problem::invalid("the query is too long"));
    }
    let mut query = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?);
        if query.contains_key(&name) {
            return Err(Problem::invalid(format!("the query has {:?} twice", short(&name))));
        }
        query.insert(name, value);
    }
    Ok(query)
}

/// A part of a path or query without its percent signs, which must have stood for UTF-8.
pub(crate) fn decoded(text: &str) -> Result<String, Problem> {
    let malformed = || Problem::invalid("the address has a malformed percent-escape, or one that is no UTF-8");
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(is_hex(bytes.next()) && is_hex(bytes.next())) {
            return Err(malformed());
        }
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| malformed())?;
    if text.contains('\0') {
        return Err(Problem::invalid("the address has the character U+0000, which is not allowed"));
    }
    Ok(text.into_owned())
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn check_query(endpoint: &Endpoint, query: &BTreeMap<String, String>) -> Result<(), Problem> {
    if let Some(unknown) = query.keys().find(|name| !endpoint.query.iter().any(|param| param.name == name.as_str())) {
        let known: Vec<_> = endpoint.query.iter().map(|param| param.name).collect();
        let known = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
        let message = format!("the query has {:?}, which is not known here; there is: {known}", short(unknown));
        return Err(Problem::invalid(message));
    }
    let missing = endpoint.query.iter().find(|param| param.required && !query.contains_key(param.name));
    missing.map_or(Ok(()), |param| Err(Problem::invalid(format!("the query lacks {}", param.name))))
}

/// A condition or a promise that an endpoint does not keep must not be passed over in silence.
fn check_headers(endpoint: &Endpoint, headers: &HeaderMap) -> Result<(), Problem> {
    if endpoint.writes() && !endpoint.tagged && headers.contains_key(IF_MATCH) {
        return Err(Problem::invalid("this takes no If-Match"));
    }
    if endpoint.writes() && !endpoint.once && headers.contains_key("idempotency-key") {
        return Err(Problem::invalid("this takes no Idempotency-Key"));
    }
    Ok(())
}

async fn body_of(app: &App, endpoint: &Endpoint, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let (options, kind) = (&app.options, headers.get(CONTENT_TYPE));
    let essence = kind.and_then(|kind| kind.to_str().ok()).map(|kind| {
        let essence = kind.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    });
    match endpoint.input {
        Input::None => {
            let body = read_body(body, headers, 0, options.body_timeout).await;
            match body {
                Ok(body) => Ok(body),
                Err(problem) if problem.status == StatusCode::PAYLOAD_TOO_LARGE => {
                    Err(Problem::invalid("this takes no body"))
                }
                Err(problem) => Err(problem),
            }
        }
        Input::Json { optional, .. } => {
            let is_there = headers.contains_key(TRANSFER_ENCODING)
                || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
            if !is_there && optional {
                return Ok(Bytes::new());
            }
            if !is_there {
                return Err(Problem::invalid("this takes a body in JSON, and there is none"));
            }
            if essence.as_deref() != Some("application/json") {
                return Err(unsupported("application/json"));
            }
            read_body(body, headers, options.max_body_bytes, options.body_timeout).await
        }
        Input::Package => {
            let known = ["application/octet-stream", "application/gzip", "text/plain"];
            if !essence.is_some_and(|essence| known.contains(&essence.as_str())) {
                return Err(unsupported("application/octet-stream, application/gzip or text/plain"));
            }
            read_body(body, headers, options.max_package_bytes, options.body_timeout).await
        }
    }
}

fn unsupported(wanted: &str) -> Problem {
    let message = format!("the body must be sent with the Content-Type {wanted}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}

/// Reads a body, as long as it may be and as slow as it may come.
pub(crate) async fn read_body(body: Body, headers: &HeaderMap, max: usize, time: Duration) -> Result<Bytes, Problem> {
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|told| told > max as u64) {
        return Err(Problem::too_large(max));
    }
    match timeout(time, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(max)),
        Ok(Err(_)) => Err(Problem::invalid("the body did not arrive as it should have")),
        Err(_) => {
            let message = format!("the body was not there within {time:?}; send it faster, or less at once");
            let mut problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "TimedOut", message);
            problem.retryable = true;
            Err(problem)
        }
    }
}

fn too_late(time: Duration) -> Problem {
    let message = format!("this took longer than {time:?}; it may have been done or not: look, and try again later");
    let mut problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "TimedOut", message);
    problem.retryable = true;
    problem
}

/// What tells one request from another of the same name. Each part with its length, so that no two read alike.
fn request_digest(parts: &Parts, query: &BTreeMap<String, String>, body: &[u8]) -> [u8; 32] {
    let mut sum = Sha256::new();
    let mut part = |bytes: &[u8]| {
        sum.update((bytes.len() as u64).to_le_bytes());
        sum.update(bytes);
    };
    part(parts.method.as_str().as_bytes());
    part(parts.uri.path().as_bytes());
    for (name, value) in query {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    for value in parts.headers.get_all(IF_MATCH) {
        part(value.as_bytes());
    }
    part(b"body");
    part(body);
    sum.finalize().into()
}

/// The request's own name, by the IETF's draft on the header `Idempotency-Key`: 409 while one of that name is being
/// answered, 422 where another request had it.
async fn once_of(
    app: &App,
    endpoint: &Endpoint,
    principal: Option<&Principal>,
    headers: &HeaderMap,
    request: [u8; 32],
) -> Result<(Option<OnceKey>, bool, Option<Answering>), Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (Some(value), Some(principal), true) = (given.next(), principal, endpoint.once) else {
        return Ok((None, false, None));
    };
    let malformed = || {
        Problem::invalid(
            "Idempotency-Key must be one text of 1 to 255 visible ASCII characters, none of them a quotation mark",
        )
    };
    if given.next().is_some() {
        return Err(malformed());
    }
    let text = value.to_str().map_err(|_| malformed())?;
    // The draft has it in quotation marks, and nearly everybody sends it without.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_fine = |b: u8| b.is_ascii_graphic() && b != b'"';
    if text.is_empty() || text.len() > MAX_ONCE || !text.bytes().all(is_fine) {
        return Err(malformed());
    }
    let answering = app.usage.begin_once(principal.key, text)?;
    let now_ms = chrono::Utc::now().timestamp_millis();
    let before = app.control.store().answered(principal.key, text, now_ms).await?;
    if before.as_ref().is_some_and(|(before, _)| *before != request) {
        let message = "this Idempotency-Key was used for another request: give each request one of its own";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyMismatch", message));
    }
    Ok((Some(OnceKey { owner: principal.key, key: text.to_owned(), request }), before.is_some(), Some(answering)))
}
