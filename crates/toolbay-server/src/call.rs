//! One request as an endpoint's code gets it: authenticated, placed, with its parameters read.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    http::{
        Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, IF_MATCH},
    },
    response::Response,
};
use bytes::Bytes;
use chrono::DateTime;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use toolbay_api::{PluginName, Scope, TenantId};
use toolbay_runtime::{
    Actor, Principal,
    control::OnceKey,
    store::{Page, Registration, Revision, Role, TenantRow},
};
use uuid::Uuid;

use crate::{app::App, problem::Problem, road::no_such_tenant};

/// Parts of a list that are given where the caller does not say.
const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;
/// Bytes of a cursor.
const MAX_CURSOR: usize = 512;

/// One request.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    /// Whose key it came with. `None` at open endpoints only.
    pub(crate) principal: Option<Principal>,
    /// The key itself, for streams, which look now and then whether it still counts.
    pub(crate) presented: String,
    /// Whose things it is about.
    pub(crate) scope: Option<Scope>,
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) body: Bytes,
    pub(crate) once: Option<OnceKey>,
    /// Whether the same request was done before.
    pub(crate) is_again: bool,
}

impl Call {
    /// Who asks.
    pub(crate) fn principal(&self) -> Result<&Principal, Problem> {
        self.principal.as_ref().ok_or_else(Problem::unauthenticated)
    }

    /// Who asks, as control knows them.
    pub(crate) fn actor(&self) -> Result<Actor, Problem> {
        Ok(self.principal()?.actor(self.once.clone()))
    }

    /// Whether the key is an operator's or an administrator's.
    pub(crate) fn is_operator(&self) -> bool {
        self.principal.as_ref().is_some_and(|principal| principal.role >= Role::Operator)
    }

    /// Whose things it is about.
    pub(crate) fn scope(&self) -> Result<&Scope, Problem> {
        self.scope.as_ref().ok_or_else(Problem::internal)
    }

    /// The same, where there is such a tenant: everything else of one that is not would look like that of one that has
    /// nothing yet.
    pub(crate) fn known_scope(&self) -> Result<&Scope, Problem> {
        match self.scope()? {
            Scope::Tenant(tenant) if !self.app.control.has_tenant(tenant) => Err(no_such_tenant()),
            scope => Ok(scope),
        }
    }

    /// The tenant whose things it is about.
    pub(crate) fn tenant(&self) -> Result<&TenantId, Problem> {
        match self.scope()? {
            Scope::Tenant(tenant) => Ok(tenant),
            Scope::Global => Err(Problem::internal()),
        }
    }

    /// The plugin in the path.
    pub(crate) fn plugin(&self) -> Result<PluginName, Problem> {
        PluginName::new(self.param("plugin")).map_err(|error| Problem::invalid(error.to_string()))
    }

    /// The number in the path.
    pub(crate) fn id(&self, name: &str) -> Result<Uuid, Problem> {
        let text = self.param(name);
        // Other ways of writing one are not taken, so that each thing has one address.
        let id = Uuid::try_parse(text).ok().filter(|id| id.to_string() == text);
        id.ok_or_else(|| Problem::invalid(format!("{name} must be a UUID in lower case")))
    }

    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A switch in the query.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("{name} must be true or false"))),
        }
    }

    /// A time in the query, in milliseconds since 1970.
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        self.text(name).map(|text| millis_of(name, text)).transpose()
    }

    /// Which part of a list.
    pub(crate) fn page(&self) -> Result<Page, Problem> {
        let limit = match self.text("limit") {
            None => DEFAULT_LIMIT,
            Some(text) => {
                let plain = text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
                let limit = plain.then(|| text.parse().ok()).flatten().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                limit.ok_or_else(|| Problem::invalid(format!("limit must be a number from 1 to {MAX_LIMIT}")))?
            }
        };
        let after = self.text("cursor").map(str::to_owned);
        if after.as_ref().is_some_and(|cursor| {
            cursor.is_empty() || cursor.len() > MAX_CURSOR || cursor.chars().any(char::is_control)
        }) {
            return Err(Problem::invalid("cursor must be the `next` of the part before"));
        }
        Ok(Page { after, limit })
    }

    /// The body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            Problem::invalid(format!("the body is not what it should be: {place}{}", error.into_inner()))
        })?;
        reader.end().map_err(|error| Problem::invalid(format!("the body is not what it should be: {error}")))?;
        // Databases take no NUL in a text, and nobody means one.
        let whole: Value = serde_json::from_slice(&self.body)
            .map_err(|error| Problem::invalid(format!("the body is not what it should be: {error}")))?;
        if has_nul(&whole) {
            return Err(Problem::invalid("the body has the character U+0000 in a text, which is not allowed"));
        }
        Ok(read)
    }

    /// The body, or what stands for none.
    pub(crate) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// Whether the request goes by what the caller saw. One that was done already is answered as it was then.
    pub(crate) fn has_condition(&self) -> bool {
        self.headers.contains_key(IF_MATCH) && !self.is_again
    }

    /// As what the caller saw something that has `tag` now, where it says so.
    ///
    /// # Errors
    /// 412 where it saw something else.
    pub(crate) fn matches(&self, current: Option<&Tag>) -> Result<Option<Revision>, Problem> {
        let mut given = self.headers.get_all(IF_MATCH).iter().peekable();
        if given.peek().is_none() {
            return Ok(None);
        }
        let failed = || {
            let message = "it is not as you saw it (If-Match): read it again, and decide anew";
            Problem::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message)
        };
        for value in given {
            let text = value.to_str().map_err(|_| Problem::invalid("If-Match must be entity tags or *"))?;
            for tag in text.split(',').map(str::trim) {
                let is_tag = tag == "*" || tag.trim_start_matches("W/").starts_with('"') && tag.ends_with('"');
                if !is_tag {
                    return Err(Problem::invalid("If-Match must be entity tags or *"));
                }
                match current {
                    Some(current) if tag == "*" || tag == current.text() => return Ok(Some(current.revision)),
                    _ => {}
                }
            }
        }
        Err(failed())
    }
}

/// What a row was at some moment. A row that was removed and made anew has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    id: Uuid,
    revision: Revision,
}

impl Tag {
    fn text(&self) -> String {
        format!("\"{}.{}\"", self.id.simple(), self.revision)
    }
}

impl From<&Registration> for Tag {
    fn from(row: &Registration) -> Self {
        Self { id: row.id, revision: row.revision }
    }
}

impl From<&TenantRow> for Tag {
    fn from(row: &TenantRow) -> Self {
        Self { id: row.id, revision: row.revision }
    }
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(target: "toolbay::server", %error, "an answer has no JSON form");
        Problem::internal()
    })?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// 200 with a body.
pub(crate) fn ok(body: &impl Serialize) -> Result<Response, Problem> {
    answer(StatusCode::OK, body)
}

/// 204.
pub(crate) fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Adds what the caller needs to change just this.
pub(crate) fn tagged(mut response: Response, tag: Tag) -> Response {
    if let Ok(value) = HeaderValue::from_str(&tag.text()) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// Adds a header.
pub(crate) fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A time as it is written, in milliseconds since 1970.
pub(crate) fn millis_of(name: &str, text: &str) -> Result<i64, Problem> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .map_err(|_| Problem::invalid(format!("{name} must be a time by RFC 3339, as in 2030-01-31T12:00:00Z")))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}
