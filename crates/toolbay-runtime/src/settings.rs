//! A plugin's configuration from its layers: the defaults of its schema, the host's file, the host's environment, the
//! tenant. Later layers go before earlier ones, field by field.
//!
//! A plugin names none of the sources. The variables that may speak to it are told by its name and its schema's fields,
//! and the host hands over which there are.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toolbay_api::{ErrorKind, LoadError, PluginName};

use crate::schema::Schema;

/// How deep defaults are looked for.
const MAX_DEPTH: usize = 16;

/// The host's variables that may speak to plugins, by their names without the prefix. In order, so that a field of an
/// object goes before the whole object, whatever the process was given first.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes over the variables whose names begin with `prefix`.
    pub(crate) fn new(prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): (String, String)| Some((name.strip_prefix(prefix)?.to_owned(), value));
        Self(variables.into_iter().filter_map(ours).collect())
    }

    /// Whether a variable speaks to the plugin.
    pub(crate) fn speaks_to(&self, plugin: &PluginName) -> bool {
        let start = start_of(plugin);
        self.0.keys().any(|name| name.starts_with(&start))
    }

    /// The layer for the plugin.
    ///
    /// # Errors
    /// `Config` where a variable names no field of `schema`, or its text is no value of the field's type. The text itself
    /// is not quoted: it may be meant to be secret.
    fn layer(&self, plugin: &PluginName, schema: Option<&Value>) -> Result<Value, LoadError> {
        let (start, mut layer) = (start_of(plugin), Value::Object(Map::new()));
        for (name, text) in &self.0 {
            let Some(path) = name.strip_prefix(&start) else { continue };
            let problem = |what: &str| {
                let message = format!("the environment variable …{name} {what}");
                LoadError::new(ErrorKind::Config, message)
            };
            let (mut at, mut into) = (schema, &mut layer);
            for part in path.split("__") {
                let fields = at.and_then(|at| at.get("properties")).and_then(Value::as_object);
                let field = fields.and_then(|fields| fields.iter().find(|(field, _)| variable_name(field) == part));
                let Some((field, inner)) = field else {
                    return Err(problem("names no field of the plugin's config_schema: mend its name or take it away"));
                };
                if !into.is_object() {
                    *into = Value::Object(Map::new());
                }
                let Value::Object(map) = into else { return Err(problem("cannot be placed")) };
                into = map.entry(field.clone()).or_insert(Value::Null);
                at = Some(inner);
            }
            let is_text = at.and_then(|at| at.get("type")).is_none_or(|kind| kind == "string");
            *into = if is_text {
                Value::from(text.as_str())
            } else {
                serde_json::from_str(text).map_err(|_| problem("is no JSON, and its field is no text"))?
            };
        }
        Ok(layer)
    }
}

/// How the names of the plugin's variables begin.
fn start_of(plugin: &PluginName) -> String {
    format!("{}__", variable_name(plugin.as_str()))
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

/// The configuration that a plugin has where its tenant says nothing, checked with what is decided `for_all` laid over it.
///
/// # Errors
/// `Config` with the first place that does not fit.
pub(crate) fn of_host(
    plugin: &PluginName,
    schema: Option<&Value>,
    file: Option<&Value>,
    environment: &Environment,
    for_all: Option<&Value>,
) -> Result<Value, LoadError> {
    let mut config = defaults_of(schema);
    if let Some(file) = file {
        lay_over(&mut config, file.clone());
    }
    lay_over(&mut config, environment.layer(plugin, schema)?);
    let fits = for_all.map_or_else(|| check(schema, &config), |over| layered(schema, &config, &[over]).map(|_| ()));
    fits.map_err(|problem| LoadError::new(ErrorKind::Config, problem))?;
    Ok(config)
}

/// The configuration that a tenant's own plugin has beneath what the tenant decided: the defaults, which need not be a whole
/// configuration where that makes them one.
///
/// # Errors
/// `Config` with the first place that does not fit.
pub(crate) fn of_tenants_own(schema: Option<&Value>, tenant: Option<&Value>) -> Result<Value, LoadError> {
    let config = defaults_of(schema);
    let fits = check(schema, &config).or_else(|problem| match tenant {
        None => Err(problem),
        Some(tenant) => layered(schema, &config, &[tenant]).map(|_| ()),
    });
    fits.map_err(|problem| LoadError::new(ErrorKind::Config, problem))?;
    Ok(config)
}

fn defaults_of(schema: Option<&Value>) -> Value {
    schema.map_or_else(|| Value::Object(Map::new()), |schema| defaults(schema, 0))
}

/// A configuration with `layers` laid over it, later ones over earlier ones, checked.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(crate) fn layered(schema: Option<&Value>, base: &Value, layers: &[&Value]) -> Result<Value, String> {
    let mut config = base.clone();
    for layer in layers {
        lay_over(&mut config, (*layer).clone());
    }
    check(schema, &config)?;
    Ok(config)
}

fn check(schema: Option<&Value>, config: &Value) -> Result<(), String> {
    let Some(schema) = schema else { return Ok(()) };
    let schema = Schema::compile(schema).map_err(|problem| format!("config_schema: {problem}"))?;
    match schema.problems(config).first() {
        None => Ok(()),
        Some(first) => Err(format!("the configuration does not fit config_schema: {}", first.sentence())),
    }
}

/// Puts `over` on `base`: objects field by field, everything else whole.
fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (field, value) in over {
                lay_over(base.entry(field).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// The defaults that a schema of an object gives, with those of the objects in it.
fn defaults(schema: &Value, depth: usize) -> Value {
    let mut all = Map::new();
    let fields = schema.get("properties").and_then(Value::as_object).filter(|_| depth < MAX_DEPTH);
    for (field, inner) in fields.into_iter().flatten() {
        match inner.get("default") {
            Some(default) => _ = all.insert(field.clone(), default.clone()),
            None => {
                let inner = defaults(inner, depth + 1);
                if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                    all.insert(field.clone(), inner);
                }
            }
        }
    }
    Value::Object(all)
}
