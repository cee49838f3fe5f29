//! The OpenAPI 3.1 document, made from the table of endpoints and the routes of plugins.
//!
//! OpenAPI 3.1 takes JSON Schema 2020-12 as it is, which is what both `schemars` and plugins give.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use toolbay_api::{PathStep, RouteDefinition};
use toolbay_runtime::RouteInfo;

use crate::{
    problem::ProblemBody,
    table::{Endpoint, Gate, Input, Outcome, Place},
};

const PROBLEM: &str = "application/problem+json";

/// Makes the document.
pub(crate) fn document<'a>(
    table: impl IntoIterator<Item = &'a std::sync::Arc<Endpoint>>,
    routes: &[RouteInfo],
) -> Value {
    // What is taken and what is given differ in which fields must be there.
    let mut taken = generator(SchemaSettings::draft2020_12().for_deserialize());
    let mut given = generator(SchemaSettings::draft2020_12().for_serialize());
    let problem = given.subschema_for::<ProblemBody>();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in table {
        let operation = operation(endpoint, &mut taken, &mut given, &problem);
        put(&mut paths, &endpoint.path, &endpoint.method.as_str().to_ascii_lowercase(), operation);
    }
    let mut schemas = taken.take_definitions(true);
    schemas.extend(given.take_definitions(true));
    for (number, route) in routes.iter().enumerate() {
        let path = format!("/plugins/{}{}", route.plugin, route.definition.path);
        let prefix = format!("route.{}.{number}", route.plugin);
        let operation = route_operation(route, &prefix, &mut schemas, &problem);
        put(&mut paths, &path, &route.definition.method.name().to_ascii_lowercase(), operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Toolbay",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Gives every tenant's AI agent its own tools, safely. Errors have one shape, `Problem`; \
                            what is another tenant's is answered like what is not there.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer", "description": "A key with a role: admin, operator or tenant." },
            },
            "schemas": schemas,
        },
    })
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    let settings = settings.with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn tags() -> Value {
    let all = [
        ("plugins", "Plugins: which there are, what is decided about them, their versions."),
        ("tools", "Tools: which there are, and calling one."),
        ("streams", "What happens, as it happens."),
        ("runs", "Runs that are kept."),
        ("quarantine", "Plugins that are not called for a while."),
        ("audit", "Who did what."),
        ("secrets", "Where secrets are found."),
        ("tenants", "Tenants."),
        ("keys", "Keys."),
        ("system", "The server itself."),
        ("routes", "Routes of native plugins."),
    ];
    all.into_iter().map(|(name, description)| json!({ "name": name, "description": description })).collect()
}

fn put(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(item) = item {
        item.insert(method.to_owned(), operation);
    }
}

fn operation(endpoint: &Endpoint, taken: &mut SchemaGenerator, given: &mut SchemaGenerator, problem: &Schema) -> Value {
    let mut operation = Map::new();
    operation.insert("tags".to_owned(), json!([endpoint.tag]));
    operation.insert("operationId".to_owned(), json!(endpoint.id));
    operation.insert("summary".to_owned(), json!(endpoint.summary));
    operation.insert("description".to_owned(), json!(description(endpoint)));
    let parameters = parameters(endpoint);
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
    match endpoint.input {
        Input::None => {}
        Input::Json { schema, optional, example } => {
            let content = json!({ "application/json": { "schema": schema(taken), "example": example() } });
            operation.insert("requestBody".to_owned(), json!({ "required": !optional, "content": content }));
        }
        Input::Package => {
            let body = json!({
                "required": true,
                "content": {
                    "text/plain": { "schema": { "type": "string", "minLength": 1 } },
                    "application/octet-stream": {},
                    "application/gzip": {},
                },
            });
            operation.insert("requestBody".to_owned(), body);
        }
    }
    if endpoint.gate == Gate::Open {
        let both = endpoint.id == "getDocument";
        operation.insert("security".to_owned(), if both { json!([{}, { "key": [] }]) } else { json!([]) });
    }
    let mut responses = Map::new();
    for outcome in &endpoint.outcomes {
        responses.insert(outcome.status.to_string(), success(endpoint, outcome, given));
    }
    for status in failures(endpoint) {
        responses.insert(status.to_string(), failure(status, problem));
    }
    operation.insert("responses".to_owned(), Value::Object(responses));
    Value::Object(operation)
}

fn description(endpoint: &Endpoint) -> String {
    let role = match endpoint.gate {
        Gate::Open => "For everybody.".to_owned(),
        Gate::Key(role) => match (endpoint.place, role.name()) {
            (Place::Own, _) => "For a tenant's key, about its tenant.".to_owned(),
            (_, "tenant") => "For every key.".to_owned(),
            (_, "operator") => "For operators' and administrators' keys.".to_owned(),
            _ => "For administrators' keys.".to_owned(),
        },
    };
    format!("{} {role}", endpoint.about).trim().to_owned()
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let mut all = Vec::new();
    for part in endpoint.path.split('/') {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else { continue };
        let schema = match name {
            "tenant" => json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$" }),
            "plugin" => json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$" }),
            "secret" => json!({ "type": "string", "pattern": "^[A-Z0-9_]{1,64}$" }),
            "tool" => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$" }),
            _ => json!({
                "type": "string",
                "format": "uuid",
                "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            }),
        };
        let mut param = json!({ "name": name, "in": "path", "required": true, "schema": schema });
        let example = match name {
            "tenant" => Some("acme"),
            "plugin" | "tool" => Some("hello"),
            "secret" => Some("STRIPE_KEY"),
            _ => None,
        };
        if let (Some(example), Value::Object(param)) = (example, &mut param) {
            param.insert("example".to_owned(), json!(example));
        }
        all.push(param);
    }
    for param in &endpoint.query {
        all.push(json!({
            "name": param.name, "in": "query", "required": param.required,
            "description": param.about, "schema": param.schema,
        }));
    }
    if endpoint.writes() && endpoint.tagged {
        all.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The entity tag of what the caller saw; where it is not so any more, nothing happens (412).",
            "schema": { "type": "string", "pattern": "^(\\*|\"[0-9a-f.]{1,64}\")$" },
        }));
    }
    if endpoint.once {
        all.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The request's own name: sent again, it is done once, and answered alike.",
            "schema": { "type": "string", "pattern": "^(\"[!#-~]{1,255}\"|[!#-~]{1,255})$" },
        }));
    }
    all
}

/// The statuses with which an endpoint can fail.
fn failures(endpoint: &Endpoint) -> Vec<u16> {
    let mut all = vec![400, 408, 500, 503];
    if endpoint.id == "getDocument" {
        all.extend([401, 429]);
    }
    if let Gate::Key(_) = endpoint.gate {
        all.extend([401, 403, 429, 504]);
        if endpoint.place != Place::Nowhere || endpoint.path.contains('{') || endpoint.writes() {
            all.push(404);
        }
        if !matches!(endpoint.input, Input::None) {
            all.extend([413, 415]);
        }
        if endpoint.writes() {
            all.extend([409, 422]);
            if matches!(endpoint.input, Input::None) {
                all.push(413);
            }
        }
        if endpoint.writes() && endpoint.tagged {
            all.push(412);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn success(endpoint: &Endpoint, outcome: &Outcome, given: &mut SchemaGenerator) -> Value {
    let mut headers = Map::new();
    headers.insert("X-Request-Id".to_owned(), json!({ "schema": { "type": "string" } }));
    if endpoint.tagged && outcome.status != 204 {
        headers.insert("ETag".to_owned(), json!({ "schema": { "type": "string" } }));
    }
    if outcome.status == 201 {
        headers.insert("Location".to_owned(), json!({ "schema": { "type": "string" } }));
    }
    let mut response = json!({ "description": outcome.about, "headers": headers });
    if let (false, Value::Object(response)) = (outcome.media.is_empty(), &mut response) {
        let body = match outcome.schema {
            Some(schema) => json!({ "schema": schema(given) }),
            None if outcome.media == "application/json" => json!({ "schema": { "type": "object" } }),
            None => json!({ "schema": { "type": "string" } }),
        };
        response.insert("content".to_owned(), json!({ outcome.media: body }));
    }
    response
}

fn failure(status: u16, problem: &Schema) -> Value {
    let (about, kind, message) = match status {
        400 => ("The request is malformed.", "InvalidArguments", "the query has \"colour\", which is not known here"),
        401 => ("The key is missing or does not count.", "Unauthenticated", "this needs a valid key"),
        403 => ("The key does not allow it.", "PermissionDenied", "this needs an administrator's key"),
        404 => ("There is no such thing, or none for this key.", "NotFound", "there is no such plugin here"),
        408 => ("The body took too long to arrive.", "TimedOut", "the body was not there within 20s"),
        409 => (
            "It does not fit how things are, or somebody was quicker.",
            "Conflict",
            "somebody changed it at the same time",
        ),
        412 => ("It is not as the caller saw it.", "PreconditionFailed", "it is not as you saw it (If-Match)"),
        413 => (
            "What was sent is too large.",
            "LimitExceeded",
            "the body is larger than the 1048576 bytes that are allowed",
        ),
        415 => (
            "The body is of another kind.",
            "UnsupportedMediaType",
            "the body must be sent with the Content-Type application/json",
        ),
        422 => ("It was understood and cannot be done.", "Config", "the configuration does not fit config_schema"),
        429 => (
            "Too many requests; come back after `Retry-After` seconds.",
            "RateLimited",
            "this key allows 6000 requests a minute",
        ),
        503 => {
            ("Something is away or busy; come back after `Retry-After` seconds.", "Unavailable", "the database is away")
        }
        504 => ("It took too long.", "TimedOut", "this took longer than 60s"),
        _ => ("Something broke down.", "Internal", "something broke down here"),
    };
    let title = axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let example = json!({
        "type": "about:blank", "title": title, "status": status, "detail": message, "kind": kind, "message": message,
        "details": null, "retryable": matches!(status, 408 | 429 | 503 | 504),
        "request_id": "019a94c2-6a1b-7c30-9d2e-7d0c3a51be24",
    });
    let mut headers = json!({ "X-Request-Id": { "schema": { "type": "string" } } });
    if let (429 | 503, Value::Object(headers)) = (status, &mut headers) {
        headers.insert("Retry-After".to_owned(), json!({ "schema": { "type": "integer", "minimum": 1 } }));
    }
    json!({
        "description": about,
        "headers": headers,
        "content": { PROBLEM: { "schema": problem, "example": example } },
    })
}

fn route_operation(route: &RouteInfo, prefix: &str, schemas: &mut Map<String, Value>, problem: &Schema) -> Value {
    let RouteDefinition { method, summary, query, request, response, .. } = &route.definition;
    let mut parameters: Vec<Value> = Vec::new();
    for step in route.definition.steps().unwrap_or_default() {
        if let PathStep::Named(name) = step {
            let schema = json!({ "type": "string", "minLength": 1 });
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
    }
    let fields = query.as_ref().and_then(|query| query.get("properties")).and_then(Value::as_object);
    let required = query.as_ref().and_then(|query| query.get("required")).and_then(Value::as_array);
    for (name, schema) in fields.into_iter().flatten() {
        let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
        parameters.push(json!({ "name": name, "in": "query", "required": is_required, "schema": schema }));
    }
    parameters.push(json!({
        "name": "Toolbay-User", "in": "header", "required": false,
        "description": "The tenant's user for whom the request is made.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 200 },
    }));
    let mut responses = Map::new();
    let body =
        response.as_ref().map_or_else(|| json!({}), |schema| hoist(schema, &format!("{prefix}.response"), schemas));
    responses.insert(
        "200".to_owned(),
        json!({ "description": "What the plugin gives.", "content": { "application/json": { "schema": body } } }),
    );
    for status in [201, 202, 204] {
        responses.insert(status.to_string(), json!({ "description": "As 200, where the plugin says so." }));
    }
    let mut failures = vec![400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 504];
    let mut operation = json!({
        "tags": ["routes"],
        "operationId": format!("{prefix}.{}", method.name().to_ascii_lowercase()),
        "summary": summary,
        "description": format!("A route of the plugin {} {}. For tenants' keys.", route.plugin, route.version),
        "parameters": parameters,
    });
    if let Value::Object(operation) = &mut operation {
        if let Some(schema) = request {
            failures.push(415);
            let schema = hoist(schema, &format!("{prefix}.request"), schemas);
            let content = json!({ "application/json": { "schema": schema } });
            operation.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
        }
        for status in failures {
            responses.insert(status.to_string(), failure(status, problem));
        }
        operation.insert("responses".to_owned(), Value::Object(responses));
    }
    operation
}

/// Puts a plugin's schema among the document's, since its references count from its own root and would lead elsewhere
/// where it stands inside of another document.
fn hoist(schema: &Value, name: &str, schemas: &mut Map<String, Value>) -> Value {
    let mut root = schema.clone();
    for key in ["$defs", "definitions"] {
        let Some(Value::Object(parts)) = root.as_object_mut().and_then(|root| root.remove(key)) else { continue };
        for (part, mut schema) in parts {
            redirect(&mut schema, name);
            schemas.insert(part_name(name, &part), schema);
        }
    }
    if let Value::Object(root) = &mut root {
        root.remove("$schema");
        root.remove("$id");
    }
    redirect(&mut root, name);
    schemas.insert(name.to_owned(), root);
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn part_name(name: &str, part: &str) -> String {
    let plain: String = part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    format!("{name}.{plain}")
}

fn redirect(schema: &mut Value, name: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, name)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), &mut *value) {
                    ("$ref", Value::String(target)) => {
                        let part = target.strip_prefix("#/$defs/").or_else(|| target.strip_prefix("#/definitions/"));
                        let to =
                            part.map(|part| part_name(name, part)).or_else(|| (target == "#").then(|| name.to_owned()));
                        if let Some(to) = to {
                            *target = format!("#/components/schemas/{to}");
                        }
                    }
                    (_, value) => redirect(value, name),
                }
            }
        }
        _ => {}
    }
}
