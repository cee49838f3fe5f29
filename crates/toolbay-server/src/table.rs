//! The table of endpoints: what each one is called, who may ask it, what it takes and gives, and its code.
//!
//! Routes and OpenAPI document are made from the same table, so an endpoint that is not documented cannot be reached and
//! one that is documented is there. That, and plugins' routes, whose JSON Schemas go into the document as they are, is why
//! the document is not made by macros over the handlers.

use std::sync::Arc;

use axum::{http::Method, response::Response};
use futures::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use toolbay_runtime::store::Role;

use crate::{call::Call, problem::Problem};

/// An endpoint's code.
pub(crate) type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Response, Problem>> + Send + Sync>;

/// The schema of what an endpoint takes or gives.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Everybody who can reach the server.
    Open,
    /// Holders of keys with this role at least.
    Key(Role),
}

/// Whose things an endpoint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody's.
    Nowhere,
    /// Those of the key's tenant.
    Own,
    /// Those of the tenant in the path.
    Tenant,
    /// Those that are for everybody.
    Global,
}

/// A body that an endpoint takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    None,
    Json {
        schema: SchemaOf,
        optional: bool,
        example: fn() -> Value,
    },
    /// The bytes of a package.
    Package,
}

/// A parameter of the query.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) schema: Value,
    pub(crate) about: &'static str,
    pub(crate) required: bool,
}

/// What an endpoint answers where it succeeds.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) about: &'static str,
    pub(crate) media: &'static str,
    pub(crate) schema: Option<SchemaOf>,
}

/// One endpoint.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) tag: &'static str,
    pub(crate) id: String,
    pub(crate) summary: &'static str,
    pub(crate) about: &'static str,
    pub(crate) gate: Gate,
    pub(crate) place: Place,
    pub(crate) query: Vec<Param>,
    pub(crate) input: Input,
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether it goes by entity tags: gives them, and takes `If-Match` where it writes.
    pub(crate) tagged: bool,
    /// Whether it takes `Idempotency-Key`.
    pub(crate) once: bool,
    pub(crate) handler: Handler,
}

impl Endpoint {
    pub(crate) fn new<F>(
        method: Method,
        path: &str,
        id: &str,
        summary: &'static str,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        Self {
            method,
            path: path.to_owned(),
            tag: "",
            id: id.to_owned(),
            summary,
            about: "",
            gate: Gate::Key(Role::Tenant),
            place: Place::Nowhere,
            query: Vec::new(),
            input: Input::None,
            outcomes: Vec::new(),
            tagged: false,
            once: false,
            handler: Arc::new(move |call| Box::pin(handler(call))),
        }
    }

    pub(crate) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    pub(crate) fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    pub(crate) fn role(self, role: Role) -> Self {
        self.gate(Gate::Key(role))
    }

    pub(crate) fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub(crate) fn param(mut self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.query.push(Param { name, schema, about, required: false });
        self
    }

    pub(crate) fn required_param(mut self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.query.push(Param { name, schema, about, required: true });
        self
    }

    /// Gives a list in parts.
    pub(crate) fn paged(self) -> Self {
        let limit = serde_json::json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 });
        let cursor = serde_json::json!({ "type": "string", "minLength": 1, "maxLength": 512 });
        self.param("limit", limit, "How many at most.").param(
            "cursor",
            cursor,
            "Where the part before ended: its `next`. A part without `next` is the last.",
        )
    }

    /// Takes JSON of the type `T`.
    pub(crate) fn takes<T: JsonSchema>(mut self, example: fn() -> Value) -> Self {
        let schema: SchemaOf = |generator| generator.subschema_for::<T>();
        self.input = Input::Json { schema, optional: false, example };
        self
    }

    /// Takes JSON of the type `T`, or nothing.
    pub(crate) fn may_take<T: JsonSchema>(mut self, example: fn() -> Value) -> Self {
        let schema: SchemaOf = |generator| generator.subschema_for::<T>();
        self.input = Input::Json { schema, optional: true, example };
        self
    }

    pub(crate) fn takes_package(mut self) -> Self {
        self.input = Input::Package;
        self
    }

    /// Gives JSON of the type `T`.
    pub(crate) fn gives<T: JsonSchema>(mut self, status: u16, about: &'static str) -> Self {
        let schema: SchemaOf = |generator| generator.subschema_for::<T>();
        self.outcomes.push(Outcome { status, about, media: "application/json", schema: Some(schema) });
        self
    }

    /// Gives text of a kind, or nothing.
    pub(crate) fn gives_text(mut self, status: u16, media: &'static str, about: &'static str) -> Self {
        self.outcomes.push(Outcome { status, about, media, schema: None });
        self
    }

    pub(crate) fn gives_nothing(self, about: &'static str) -> Self {
        self.gives_text(204, "", about)
    }

    pub(crate) fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Whether it may change something.
    pub(crate) fn writes(&self) -> bool {
        self.method != Method::GET
    }
}

/// Endpoints of one subject.
pub(crate) struct Group {
    tag: &'static str,
    all: Vec<Endpoint>,
}

impl Group {
    pub(crate) fn new(tag: &'static str) -> Self {
        Self { tag, all: Vec::new() }
    }

    /// Adds an endpoint under its own path.
    pub(crate) fn add(&mut self, mut endpoint: Endpoint) {
        endpoint.tag = self.tag;
        self.all.push(endpoint);
    }

    /// Adds an endpoint for the key's own tenant and, for operators, below each tenant's path.
    pub(crate) fn per_tenant(&mut self, endpoint: &Endpoint) {
        let mut own = endpoint.clone().place(Place::Own);
        own.path = format!("/api/v1{}", endpoint.path);
        self.add(own);
        self.of_tenant(endpoint);
    }

    /// Adds an endpoint below each tenant's path.
    pub(crate) fn of_tenant(&mut self, endpoint: &Endpoint) {
        let mut named = endpoint.clone().place(Place::Tenant);
        named.path = format!("/api/v1/tenants/{{tenant}}{}", endpoint.path);
        named.id = format!("{}OfTenant", endpoint.id);
        self.add(named);
    }

    /// Adds an endpoint for what is for everybody, for keys of this role.
    pub(crate) fn global(&mut self, endpoint: &Endpoint, role: Role) {
        let mut global = endpoint.clone().place(Place::Global).role(role);
        global.path = format!("/api/v1/global{}", endpoint.path);
        global.id = format!("{}Global", endpoint.id);
        self.add(global);
    }

    pub(crate) fn into_endpoints(self) -> impl Iterator<Item = Endpoint> {
        self.all.into_iter()
    }
}
