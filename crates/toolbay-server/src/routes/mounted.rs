//! The routes of native plugins, below `/plugins/NAME`: the same authentication, bounds and shape of errors as everything
//! else, and what leads to no plugin of the tenant's is not there.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use toolbay_api::{PluginName, RouteMethod};
use toolbay_runtime::{RouteCall, RouteFound, Session};

use super::tools::is_name;
use crate::{
    app::App,
    auth::authenticate,
    call::{answer, nothing},
    envelope::RouteName,
    problem::Problem,
    road::{decoded, query_of, read_body},
};

/// The template by which these requests are counted.
const TEMPLATE: &str = "/plugins/{plugin}/*";

/// A request to a plugin's route.
pub(crate) struct Mounted {
    pub(crate) app: Arc<App>,
    pub(crate) request: Request,
}

/// Answers it.
pub(crate) async fn serve(mounted: Mounted) -> Response {
    let mut response = ask(mounted).await.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(RouteName(TEMPLATE.into()));
    response
}

async fn ask(Mounted { app, request }: Mounted) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (who, _) = authenticate(&app, &parts.headers, &parts.extensions)?;
    let _in_flight = app.usage.admit(&who, &app.options, Instant::now().into_std())?;
    let Some(tenant) = &who.tenant else {
        return Err(Problem::denied("plugins' routes are for tenants' keys, and this key belongs to no tenant"));
    };
    let (plugin, words) = words_of(parts.uri.path())?;
    let mut session = app.control.toolbay().session(tenant).map_err(|error| Problem::invalid(error.to_string()))?;
    if let Some(user) = user_of(&parts.headers)? {
        session = session.with_user(user);
    }
    // One that no route can have finds out which there are.
    let found = match method_of(&parts.method) {
        Some(method) => session.route(&plugin, method, &words),
        None => others(&session, &plugin, &words),
    };
    let call = match found {
        RouteFound::Route(call) => call,
        RouteFound::OtherMethods(others) => return Err(not_that_method(&others)),
        RouteFound::Nothing => return Err(Problem::not_found("there is no such plugin or route here")),
    };
    let query = query_of(&parts.uri)?;
    let body = json_of(&app, &call, &parts.headers, body).await?;
    let answered = timeout(app.options.request_timeout, call.answer(query, body)).await;
    let Ok(answered) = answered else {
        return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "TimedOut", "the route took too long; try again later"));
    };
    let given = answered?;
    let status = StatusCode::from_u16(given.status).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT { Ok(nothing()) } else { answer(status, &given.body) }
}

/// The plugin and the words below it. They are taken apart before they are decoded: an escaped slash is no slash.
fn words_of(path: &str) -> Result<(PluginName, Vec<String>), Problem> {
    let nowhere = || Problem::not_found("there is no such plugin or route here");
    let mut words = path.strip_prefix("/plugins/").ok_or_else(nowhere)?.split('/');
    let plugin = decoded(words.next().unwrap_or_default())?;
    let plugin = PluginName::new(plugin).map_err(|error| Problem::invalid(error.to_string()))?;
    let mut words = words.map(decoded).collect::<Result<Vec<_>, _>>()?;
    if words == [""] {
        words.clear();
    }
    let is_trick = |word: &String| {
        matches!(word.as_str(), "" | "." | "..") || word.contains(['/', '\\']) || word.chars().any(char::is_control)
    };
    if words.iter().any(is_trick) {
        return Err(Problem::invalid("a step of the path must not be empty, `.`, `..`, or hold a slash"));
    }
    Ok((plugin, words))
}

fn method_of(method: &Method) -> Option<RouteMethod> {
    match *method {
        Method::GET | Method::HEAD => Some(RouteMethod::Get),
        Method::POST => Some(RouteMethod::Post),
        Method::PUT => Some(RouteMethod::Put),
        Method::PATCH => Some(RouteMethod::Patch),
        Method::DELETE => Some(RouteMethod::Delete),
        _ => None,
    }
}

/// The methods that a path has routes for.
fn others(session: &Session, plugin: &PluginName, words: &[String]) -> RouteFound {
    let all = [RouteMethod::Get, RouteMethod::Post, RouteMethod::Put, RouteMethod::Patch, RouteMethod::Delete];
    let is_there = |method: &RouteMethod| matches!(session.route(plugin, *method, words), RouteFound::Route(_));
    let there: BTreeSet<_> = all.into_iter().filter(is_there).collect();
    if there.is_empty() { RouteFound::Nothing } else { RouteFound::OtherMethods(there) }
}

fn not_that_method(others: &BTreeSet<RouteMethod>) -> Problem {
    let mut names: Vec<_> = others.iter().copied().map(RouteMethod::name).collect();
    if others.contains(&RouteMethod::Get) {
        names.push("HEAD");
    }
    Problem::method_not_allowed(&names.join(", "))
}

/// The tenant's user, whom the key's holder names.
fn user_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(user) = headers.get("toolbay-user") else { return Ok(None) };
    let user = user.to_str().ok().filter(|user| is_name(user));
    user.map(Some).ok_or_else(|| Problem::invalid("Toolbay-User has 1 to 200 visible ASCII characters"))
}

async fn json_of(app: &App, call: &RouteCall, headers: &HeaderMap, body: axum::body::Body) -> Result<Value, Problem> {
    let options = &app.options;
    if call.definition().request.is_none() {
        let body = read_body(body, headers, 0, options.body_timeout).await;
        return body.map(|_| Value::Null).map_err(|problem| match problem.status {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::invalid("this route takes no body"),
            _ => problem,
        });
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let message = "the body must be sent with the Content-Type application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
    }
    let body = read_body(body, headers, options.max_body_bytes, options.body_timeout).await?;
    serde_json::from_slice(&body).map_err(|error| Problem::invalid(format!("the body is no JSON: {error}")))
}
