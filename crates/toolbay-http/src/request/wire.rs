//! The JSON form of a request, before it is checked.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{HttpRequest, RequestError, fields};
use crate::target::Target;

/// An absent member and `null` are the same, since scripts write an option that is not set as either.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireRequest {
    method: Option<String>,
    url: String,
    // Maps of `Value`, not of `String`: their own map keeps the order in which a query was written.
    headers: Option<Map<String, Value>>,
    query: Option<Map<String, Value>>,
    body: Option<String>,
    body_base64: Option<String>,
    json: Option<Value>,
    timeout_ms: Option<u64>,
}

impl TryFrom<WireRequest> for HttpRequest {
    type Error = RequestError;

    fn try_from(wire: WireRequest) -> Result<Self, RequestError> {
        let method = wire.method.as_deref().map_or_else(|| fields::method("GET"), fields::method)?;
        let mut target = Target::parse(&wire.url).map_err(|error| RequestError::of("url", error))?;
        if let Some(query) = wire.query.filter(|query| !query.is_empty()) {
            add_query(&mut target, &query)?;
        }
        let mut request = Self { method, target, headers: Default::default(), body: Default::default(), timeout: None };
        for (name, value) in wire.headers.unwrap_or_default() {
            let Value::String(value) = value else {
                return Err(RequestError::of(format_args!("headers.{}", shown(&name)), "must be a text"));
            };
            fields::add_header(&mut request.headers, &name, &value)?;
        }
        match (wire.body, wire.body_base64, wire.json) {
            (None, None, None) => {}
            (Some(text), None, None) => request.set_body("body", text.into(), "text/plain; charset=utf-8")?,
            (None, Some(text), None) => {
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|_| RequestError::of("body_base64", "is not base64 (the standard alphabet, padded)"))?;
                request.set_body("body_base64", bytes.into(), "application/octet-stream")?;
            }
            (None, None, Some(json)) => request.set_body("json", json.to_string().into(), "application/json")?,
            _ => return Err(RequestError::of("body", "is there twice: give one of body, body_base64 and json")),
        }
        request.timeout = match wire.timeout_ms {
            Some(0) => return Err(RequestError::of("timeout_ms", "must be at least 1")),
            milliseconds => milliseconds.map(Duration::from_millis),
        };
        Ok(request)
    }
}

fn add_query(target: &mut Target, query: &Map<String, Value>) -> Result<(), RequestError> {
    let mut pairs = target.query_mut();
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
                    return Err(RequestError::of(format_args!("query.{}", shown(name)), problem));
                }
            };
        }
    }
    Ok(())
}

/// A plugin's own name in a message: cut, and without control characters.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(80).collect::<String>().escape_default().to_string()
}
