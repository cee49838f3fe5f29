//! From the script's error to the tool's: one face for the model, one for the operator.
//!
//! The model reads what the author threw, or one safe sentence with a line number. The operator's source has file,
//! line, column, the line's text and the calls that led there. Limits come from the call's own state, which knows the
//! figures.

use std::fmt;

use rhai::{Dynamic, EvalAltResult, Position};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Limit, ToolError};

use crate::{
    call::{self, Call, cut},
    convert,
    script::Script,
};

/// The most bytes of text that one error gives out.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// An error as it may leave: its message, which may be the script's own, or another tool's, is cut.
pub(crate) fn outwards(mut error: ToolError) -> ToolError {
    if error.message.len() > MAX_TEXT_BYTES {
        error.message = cut(&error.message, MAX_TEXT_BYTES).to_owned().into();
    }
    error
}

/// The tool's error for what ended the script, of any length.
pub(crate) fn tool_error(error: &EvalAltResult, call: &Call, script: &Script) -> ToolError {
    let failure = ScriptFailure::new(error, script);
    // A limit that tripped decides, whatever error the script made of it on its way out.
    if let Some(trip) = call.take_trip() {
        return trip.with_source(failure);
    }
    let limits = call.limits();
    let over = |limit, allowed: u64| ToolError::limit(limit, allowed, allowed.saturating_add(1));
    let place = failure.line_for_model();
    let error = match root(error) {
        EvalAltResult::ErrorRuntime(value, _) => return thrown(value, call, &failure).with_source(failure),
        EvalAltResult::ErrorTooManyOperations(_) => over(Limit::Operations, limits.max_operations),
        EvalAltResult::ErrorTooManyVariables(_) => over(Limit::Variables, limits.max_variables as u64),
        EvalAltResult::ErrorStackOverflow(_) => over(Limit::CallDepth, limits.max_call_depth as u64),
        EvalAltResult::ErrorDataTooLarge(what, _) => match what.as_str() {
            // The only sign by which Rhai tells its three sizes apart; a test holds each.
            "Length of string" => over(Limit::StringSize, limits.max_string_bytes as u64),
            "Size of object map" => over(Limit::MapSize, limits.max_map_len as u64),
            _ => over(Limit::ArraySize, limits.max_array_len as u64),
        },
        EvalAltResult::ErrorTerminated(..) => ToolError::new(ErrorKind::Cancelled, "the call was cancelled"),
        other => ToolError::failed(format!(
            "the tool failed because of an error in its script: {}{place}",
            cut(&problem(other), 500)
        )),
    };
    error.with_source(failure)
}

/// `failed` with the place that `error` came from in its details, as `at`.
pub(crate) fn placed(failed: ToolError, error: &EvalAltResult) -> ToolError {
    let position = program_position(error);
    let Some(line) = position.line() else { return failed };
    let at = json!({ "line": line, "column": position.position().unwrap_or(1) });
    let details = match failed.details.clone() {
        Value::Object(mut details) => {
            details.insert("at".to_owned(), at);
            Value::Object(details)
        }
        Value::Null => json!({ "at": at }),
        details => json!({ "at": at, "details": details }),
    };
    failed.with_details(details)
}

/// Where in the program an error is: the innermost place that has one.
fn program_position(error: &EvalAltResult) -> Position {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, position)
        | EvalAltResult::ErrorInModule(_, inner, position) => {
            let inner = program_position(inner);
            if inner.is_none() { *position } else { inner }
        }
        other => other.position(),
    }
}

/// The error for a value that the script threw.
fn thrown(value: &Dynamic, call: &Call, failure: &ScriptFailure) -> ToolError {
    if let Some(error) = call.thrown(value) {
        return error;
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return ToolError::failed(text.to_string());
    }
    let place = failure.line_for_model();
    let Ok(map) = value.as_map_ref() else {
        let text = convert::to_value(value, call.limits(), Limit::Output).map_or_else(
            |_| format!("the tool failed: its script threw a {}{place}", call::short_type(value.type_name())),
            |value| format!("the tool failed: {value}"),
        );
        return ToolError::failed(text);
    };
    let message = map.get("message").and_then(|message| message.as_immutable_string_ref().ok());
    let message = match message {
        Some(message) if !message.is_empty() => message.to_string(),
        _ => format!("the tool failed and gave no message{place}"),
    };
    let retryable = map.get("retryable").and_then(|retryable| retryable.as_bool().ok()).unwrap_or(false);
    let details = match map.get("details") {
        None => Value::Null,
        Some(details) => match convert::to_value(details, call.limits(), Limit::Output) {
            Ok(details) => details,
            // The message is worth more than the details: they are left out, and the text says so.
            Err(error) => Value::String(format!("left out: {}", error.message)),
        },
    };
    ToolError::failed(message).with_details(details).with_retryable(retryable)
}

/// What went wrong, in words that hold nothing of the script but names.
fn problem(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorArithmetic(text, _) => {
            // Rhai's texts end in the operands, which may be a secret of the tenant's.
            let words = text.split(|character: char| !character.is_alphabetic() && character != ' ').next();
            words.unwrap_or("arithmetic error").trim_end().to_lowercase()
        }
        EvalAltResult::ErrorVariableNotFound(name, _) => format!("there is no variable `{name}`"),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            format!("there is no function `{}`", call::without_seed(signature))
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => format!("there is no property `{name}`"),
        EvalAltResult::ErrorModuleNotFound(name, _) => format!("there is no module `{name}`"),
        EvalAltResult::ErrorIndexNotFound(..) => "there is no such index".into(),
        EvalAltResult::ErrorArrayBounds(len, index, _) => {
            format!("the index {index} is outside of an array of {len}")
        }
        EvalAltResult::ErrorStringBounds(len, index, _) => {
            format!("the index {index} is outside of a text of {len} characters")
        }
        EvalAltResult::ErrorBitFieldBounds(len, index, _) => format!("the bit {index} is outside of {len} bits"),
        EvalAltResult::ErrorMismatchDataType(wanted, actual, _)
        | EvalAltResult::ErrorMismatchOutputType(wanted, actual, _) => {
            if wanted.is_empty() {
                format!("a value of type {actual} does not fit here")
            } else {
                format!("a value of type {wanted} is needed and there is one of type {actual}")
            }
        }
        EvalAltResult::ErrorIndexingType(name, _) => format!("a value of type {name} cannot be indexed like this"),
        EvalAltResult::ErrorFor(_) => "`for` cannot go through this value".into(),
        EvalAltResult::ErrorUnboundThis(_) => "`this` is not bound".into(),
        EvalAltResult::ErrorAssignmentToConstant(name, _) => format!("the constant `{name}` cannot be changed"),
        EvalAltResult::ErrorNonPureMethodCallOnConstant(name, _) => {
            format!("a constant cannot be changed by `{name}`")
        }
        EvalAltResult::ErrorDataRace(..) => "a captured variable is changed while it is in use".into(),
        EvalAltResult::ErrorDotExpr(..) => "a `.` stands where it cannot".into(),
        EvalAltResult::ErrorVariableExists(name, _) => format!("the variable `{name}` exists already"),
        EvalAltResult::ErrorForbiddenVariable(name, _) => format!("the name `{name}` cannot be used for a variable"),
        EvalAltResult::ErrorTooManyModules(_) => "too many modules are imported".into(),
        EvalAltResult::ErrorParsing(..) => "its text does not compile".into(),
        EvalAltResult::ErrorTerminated(..)
        | EvalAltResult::ErrorTooManyOperations(_)
        | EvalAltResult::ErrorTooManyVariables(_)
        | EvalAltResult::ErrorStackOverflow(_)
        | EvalAltResult::ErrorDataTooLarge(..) => "stopped here by a limit".into(),
        _ => "it cannot go on".into(),
    }
}

/// The error at the bottom of the calls that it came through.
fn root(error: &EvalAltResult) -> &EvalAltResult {
    let mut error = error;
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = error {
        error = inner;
    }
    error
}

/// A script's failure as its author and the operator see it.
#[derive(Debug, Clone)]
pub(crate) struct ScriptFailure {
    problem: String,
    file: String,
    position: Position,
    excerpt: Option<String>,
    trace: Vec<String>,
}

impl ScriptFailure {
    fn new(error: &EvalAltResult, script: &Script) -> Self {
        let mut trace = Vec::new();
        let mut file = script.entry().to_owned();
        let mut inner = error;
        loop {
            match inner {
                EvalAltResult::ErrorInFunctionCall(name, source, next, position) => {
                    if trace.len() < 32 {
                        trace.push(format!(
                            "in the call of `{}` at {file}:{}",
                            cut(call::without_seed(name), 100),
                            place(*position)
                        ));
                    }
                    if !source.is_empty() {
                        file.clone_from(source);
                    }
                    inner = next;
                }
                EvalAltResult::ErrorInModule(name, next, _) => {
                    if !name.is_empty() {
                        file.clone_from(name);
                    }
                    inner = next;
                }
                _ => break,
            }
        }
        let position = inner.position();
        let problem = match inner {
            EvalAltResult::ErrorRuntime(value, _) => match value.as_immutable_string_ref() {
                Ok(text) => format!("threw {:?}", cut(&text, 500)),
                Err(_) => format!("threw a {}", call::short_type(value.type_name())),
            },
            other => self::problem(other),
        };
        let excerpt = position.line().and_then(|line| script.line(&file, line));
        Self { problem, file, position, excerpt, trace }
    }

    fn line_for_model(&self) -> String {
        self.position.line().map_or_else(String::new, |line| format!(" (line {line})"))
    }
}

fn place(position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{line}:{column}"),
        (Some(line), None) => format!("{line}"),
        (None, _) => "?".into(),
    }
}

impl fmt::Display for ScriptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, place(self.position), self.problem)?;
        if let Some(excerpt) = &self.excerpt {
            let line = self.position.line().unwrap_or_default().to_string();
            let indent = " ".repeat(self.position.position().unwrap_or(1).saturating_sub(1).min(200));
            write!(f, "\n  {line} | {excerpt}\n  {:width$} | {indent}^", "", width = line.len())?;
        }
        for call in self.trace.iter().rev() {
            write!(f, "\n  {call}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScriptFailure {}
