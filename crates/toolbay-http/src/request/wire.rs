//! The JSON form of a request.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{HttpRequest, RequestError, fields};

/// The members that there are. Their types are checked below rather than by serde, whose errors repeat the value.
///
/// An absent member and `null` are the same, since scripts write an option that is not set as either.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    method: Option<Value>,
    url: Option<Value>,
    headers: Option<Value>,
    query: Option<Value>,
    body: Option<Value>,
    body_base64: Option<Value>,
    json: Option<Value>,
    timeout_ms: Option<Value>,
}

pub(super) fn parse(value: Value) -> Result<HttpRequest, RequestError> {
    if !value.is_object() {
        return Err(RequestError::whole("must be an object such as {\"url\": \"https://api.example.com/v1\"}"));
    }
    // What is left to go wrong is an unknown member, of which serde shows the name. A plugin can make that any length.
    let wire: Wire = serde_json::from_value(value)
        .map_err(|error| RequestError::whole(format_args!("does not fit: {}", shown(&error.to_string(), 300))))?;
    let method = wire.method.map_or(Ok("GET".to_owned()), |value| text("method", value))?;
    let url = text("url", wire.url.unwrap_or_default())?;
    let mut request = HttpRequest::parse(&method, &url)?;
    if let Some(query) = wire.query {
        add_query(&mut request, &members("query", query)?)?;
    }
    for (name, value) in wire.headers.map_or(Ok(Map::new()), |value| members("headers", value))? {
        let value = text(&format!("headers.{}", shown(&name, 80)), value)?;
        fields::add_header(&mut request.headers, &name, &value)?;
    }
    match (wire.body, wire.body_base64, wire.json) {
        (None, None, None) => {}
        (Some(body), None, None) => {
            request.set_body("body", text("body", body)?.into(), "text/plain; charset=utf-8")?;
        }
        (None, Some(body), None) => {
            let bytes = STANDARD
                .decode(text("body_base64", body)?)
                .map_err(|_| RequestError::of("body_base64", "is not base64 (the standard alphabet, padded)"))?;
            request.set_body("body_base64", bytes.into(), "application/octet-stream")?;
        }
        (None, None, Some(json)) => request.set_body("json", json.to_string().into(), "application/json")?,
        _ => return Err(RequestError::of("body", "is there twice: give one of body, body_base64 and json")),
    }
    if let Some(value) = wire.timeout_ms {
        let problem = "must be a whole number of milliseconds, at least 1";
        let milliseconds = value.as_u64().filter(|n| *n > 0).ok_or_else(|| RequestError::of("timeout_ms", problem))?;
        request.timeout = Some(Duration::from_millis(milliseconds));
    }
    Ok(request)
}

/// A plugin's own text in a message: cut, and without control characters.
pub(super) fn shown(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn text(member: &str, value: Value) -> Result<String, RequestError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(RequestError::of(member, "must be a text")),
    }
}

fn members(member: &str, value: Value) -> Result<Map<String, Value>, RequestError> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(RequestError::of(member, "must be an object")),
    }
}

fn add_query(request: &mut HttpRequest, query: &Map<String, Value>) -> Result<(), RequestError> {
    if query.is_empty() {
        return Ok(());
    }
    let mut pairs = request.target.query_mut();
    for (name, value) in query {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        for value in values {
            match value {
                Value::String(text) => pairs.append_pair(name, text),
                Value::Number(number) => pairs.append_pair(name, &number.to_string()),
                Value::Bool(flag) => pairs.append_pair(name, if *flag { "true" } else { "false" }),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    let problem = "must be a text, a number, a boolean or a list of those";
                    return Err(RequestError::of(format_args!("query.{}", shown(name, 80)), problem));
                }
            };
        }
    }
    Ok(())
}
