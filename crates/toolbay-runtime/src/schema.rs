//! JSON Schemas, compiled once at registration, and errors that a model can repair its arguments from.

use jsonschema::{Draft, PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, ToolError};

use crate::{expense, shape};

/// Problems that one reply lists at most; a model repairs a few at a time.
const MAX_PROBLEMS: usize = 20;
/// Bytes of a value or a schema fragment that a problem quotes at most.
const MAX_QUOTE: usize = 160;
/// Bytes of a pointer at most. Its steps are the caller's own keys, and every problem repeats it.
const MAX_POINTER: usize = 1_024;
/// Bytes that finding a value's problems may take, by a rough count. The validator lists every problem, and those of every
/// branch of every `anyOf` below every other: against a schema that refers to itself, twenty levels can fill any memory.
const MAX_EXPLANATION: u64 = 8 << 20;
/// Bytes of a compiled regular expression of a schema at most, against patterns made to fill memory.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    source: Value,
    /// How often a value may be looked at for each look at the one around it.
    branching: u64,
    /// How deep a value may be for validation to stay cheap.
    max_depth: Option<usize>,
}

impl Schema {
    /// Compiles `schema`: JSON Schema 2020-12, or draft-07 where its `$schema` says so.
    ///
    /// Nothing is ever fetched: a `$ref` that leads out of the schema is an error. Regular expressions run in linear
    /// time, so those that need look-around or back references are errors too.
    ///
    /// # Errors
    /// What is wrong and where in the schema, as text for the plugin's author.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let draft = match schema.get("$schema").and_then(Value::as_str) {
            None => Draft::Draft202012,
            Some(uri) if uri.trim_end_matches('#') == "https://json-schema.org/draft/2020-12/schema" => {
                Draft::Draft202012
            }
            Some(uri) if uri.trim_end_matches('#').ends_with("json-schema.org/draft-07/schema") => Draft::Draft7,
            Some(uri) => {
                return Err(format!("/$schema: {:?} is not supported: use JSON Schema 2020-12 or draft-07", cut(uri)));
            }
        };
        let max_depth = expense::max_depth(schema)?;
        let validator = jsonschema::options()
            .with_draft(draft)
            .offline()
            .with_pattern_options(
                PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES),
            )
            .build(schema)
            .map_err(|error| schema_problem(&error))?;
        Ok(Self { validator, source: schema.clone(), branching: branching(schema), max_depth })
    }

    /// Compiles the schema of a tool's parameters, whose root must describe an object.
    ///
    /// # Errors
    /// As [`compile`](Self::compile), and where the root is something else than an object.
    pub fn compile_parameters(schema: &Value) -> Result<Self, String> {
        match schema {
            Value::Object(map) if map.get("type").is_some_and(|kind| kind == "object") => Self::compile(schema),
            Value::Object(map) => Err(format!(
                "/type: the parameters of a tool are an object: write \"type\": \"object\" instead of {}",
                map.get("type").map_or_else(|| "nothing".to_owned(), |kind| cut(&kind.to_string()))
            )),
            other => Err(format!("the schema must be an object, not {}", kind_of(other))),
        }
    }

    /// Whether `value` fits. The fast way, without reasons.
    #[must_use]
    pub fn accepts(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Every problem of `value`, up to twenty.
    #[must_use]
    pub fn problems(&self, value: &Value) -> Vec<Problem> {
        let mut left = Some(MAX_EXPLANATION);
        spend(&mut left, value, self.branching, 1, 0);
        if left.is_none() && !self.accepts(value) {
            let expected = "another value; it is too large or too deeply nested to say where it goes wrong".to_owned();
            return vec![Problem { pointer: String::new(), expected, found: describe(value) }];
        }
        let problem = |error| Problem::new(&error, &self.source);
        self.validator.iter_errors(value).take(MAX_PROBLEMS).map(problem).collect()
    }

    /// `Ok` where `arguments` fit.
    ///
    /// # Errors
    /// `InvalidArguments`, which lists every problem with pointer, expected and found; `LimitExceeded` with
    /// [`Limit::Nesting`](toolbay_api::Limit::Nesting) where a schema that refers to itself would have to look at the
    /// parts of so deep a value too often.
    pub fn check_arguments(&self, arguments: &Value) -> Result<(), ToolError> {
        self.check_depth(arguments)?;
        if self.accepts(arguments) {
            return Ok(());
        }
        let problems = self.problems(arguments);
        let list: Vec<_> = problems.iter().map(Problem::sentence).collect();
        Err(ToolError::new(
            ErrorKind::InvalidArguments,
            format!("the arguments do not fit the tool's parameters; mend these and call again: {}", list.join("; ")),
        )
        .with_details(json!({ "problems": problems.iter().map(Problem::to_json).collect::<Vec<_>>() })))
    }

    /// `Ok` where `value` is not too deep to be validated at a bounded cost.
    fn check_depth(&self, value: &Value) -> Result<(), ToolError> {
        self.max_depth.map_or(Ok(()), |depth| shape::check_nesting(value, depth))
    }

    /// `Ok` where a tool's `result` fits its output schema.
    ///
    /// # Errors
    /// `Script`: the plugin broke its own promise.
    pub fn check_output(&self, result: &Value) -> Result<(), ToolError> {
        self.check_promise(result, "its own output schema")
    }

    /// As [`check_output`](Self::check_output), against what the error calls `promise`.
    pub(crate) fn check_promise(&self, result: &Value, promise: &str) -> Result<(), ToolError> {
        self.check_depth(result)?;
        if self.accepts(result) {
            return Ok(());
        }
        let problems = self.problems(result);
        let list: Vec<_> = problems.iter().map(Problem::sentence).collect();
        Err(ToolError::failed(format!("the tool's result does not fit {promise}: {}", list.join("; ")))
            .with_details(json!({ "problems": problems.iter().map(Problem::to_json).collect::<Vec<_>>() })))
    }
}

/// One problem of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Where, as a JSON pointer; empty for the whole.
    pub pointer: String,
    /// What the schema wants there.
    pub expected: String,
    /// What was there.
    pub found: String,
}

impl Problem {
    fn new(error: &jsonschema::ValidationError<'_>, schema: &Value) -> Self {
        let mut pointer = error.instance_path().as_str().to_owned();
        let mut found = describe(error.instance());
        let fragment = || schema.pointer(error.schema_path().as_str()).map(|value| cut(&value.to_string()));
        let expected = match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                found = "nothing".to_owned();
                "a value: this property is required".to_owned()
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                found = format!("the unknown {}", cut(&unexpected.join(", ")));
                match known_properties(error, schema) {
                    Some(known) => format!("no other properties than {known}"),
                    None => "no further properties".to_owned(),
                }
            }
            ValidationErrorKind::Type { .. } => fragment()
                .map_or_else(|| "another type".to_owned(), |kind| format!("the type {}", kind.replace('"', ""))),
            ValidationErrorKind::Enum { options } => format!("one of {}", cut(&options.to_string())),
            ValidationErrorKind::Constant { expected_value } => format!("just {}", cut(&expected_value.to_string())),
            ValidationErrorKind::Pattern { pattern } => format!("text that matches the pattern {}", cut(pattern)),
            ValidationErrorKind::FalseSchema => "nothing: no value is allowed here".to_owned(),
            kind => match fragment() {
                Some(fragment) => format!("{} {fragment}", kind.keyword()),
                None => kind.keyword().to_owned(),
            },
        };
        Self { pointer: cut_to(MAX_POINTER, &pointer), expected, found }
    }

    /// The problem as a sentence for a model.
    #[must_use]
    pub fn sentence(&self) -> String {
        let place = if self.pointer.is_empty() { "the whole" } else { &self.pointer };
        format!("{place}: expected {}, found {}", self.expected, self.found)
    }

    fn to_json(&self) -> Value {
        json!({ "pointer": self.pointer, "expected": self.expected, "found": self.found })
    }
}

/// The widest choice in `schema`, where it can refer to itself; else each value is looked at a bounded number of times.
fn branching(schema: &Value) -> u64 {
    fn widest(schema: &Value) -> (u64, bool) {
        let of_children = |children: &mut dyn Iterator<Item = &Value>| {
            children.map(widest).fold((1, false), |(width, refers), child| (width.max(child.0), refers || child.1))
        };
        match schema {
            Value::Array(items) => of_children(&mut items.iter()),
            Value::Object(map) => {
                let (inner, refers) = of_children(&mut map.values());
                let choices = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|key| map.get(key)?.as_array());
                let own = choices.map(|branches| branches.len() as u64).sum();
                (inner.max(own), refers || ["$ref", "$dynamicRef"].iter().any(|key| map.contains_key(*key)))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (1, false),
        }
    }
    let (width, refers) = widest(schema);
    if refers { width } else { 1 }
}

/// Takes what the problems of `value` could cost at most from what is left: for each look at it an error with its path.
fn spend(left: &mut Option<u64>, value: &Value, branching: u64, looks: u64, path: u64) {
    *left = left.and_then(|left| left.checked_sub(looks.saturating_mul(64 + path)));
    let looks = looks.saturating_mul(branching);
    match value {
        _ if left.is_none() => {}
        Value::Array(items) => items.iter().for_each(|item| spend(left, item, branching, looks, path + 4)),
        Value::Object(map) => {
            map.iter().for_each(|(key, item)| spend(left, item, branching, looks, path + key.len() as u64));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The properties that the schema around `additionalProperties` knows.
fn known_properties(error: &jsonschema::ValidationError<'_>, schema: &Value) -> Option<String> {
    let (around, _) = error.schema_path().as_str().rsplit_once('/')?;
    let known = schema.pointer(around)?.get("properties")?.as_object()?;
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    Some(cut(&names.join(", ")))
}

/// What is wrong with a schema itself.
fn schema_problem(error: &jsonschema::ValidationError<'_>) -> String {
    let place = match error.instance_path().as_str() {
        "" => error.schema_path().as_str(),
        path => path,
    };
    let text = match error.kind() {
        ValidationErrorKind::Referencing(error) => {
            format!("a $ref leads to nothing in this schema (remote ones are never fetched): {error}")
        }
        ValidationErrorKind::AnyOf { .. } if place.ends_with("/type") => format!(
            "{} is no type of JSON Schema: use string, number, integer, boolean, object, array or null",
            error.instance()
        ),
        _ => error.to_string(),
    };
    let text = cut(&text);
    if place.is_empty() { text } else { format!("{place}: {text}") }
}

/// A value in a few words: its type, and itself where it is short.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(map) if map.is_empty() => "an empty object".to_owned(),
        Value::Object(map) => {
            format!("an object with {}", cut(&map.keys().map(String::as_str).collect::<Vec<_>>().join(", ")))
        }
        Value::String(text) => format!("the string {:?}", cut(text)),
        scalar => format!("the {} {scalar}", kind_of(scalar)),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `text`, cut to what a problem may quote.
fn cut(text: &str) -> String {
    cut_to(MAX_QUOTE, text)
}

fn cut_to(max: usize, text: &str) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max);
    format!("{}…", text.get(..end).unwrap_or_default())
}
