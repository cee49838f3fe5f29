//! A program's run from text to answer: compiled, run in the sandbox until it ends or is ended, and told to the model.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use toolbay_api::{
    CancelFlag, ErrorKind, Isolation, Limits, LoadError, ToolContext, ToolContextParts, ToolError, ToolOutput,
};

use super::{
    host::ScriptHost,
    script::{End, Script},
};

/// The name of a program in messages.
const FILE: &str = "code.rhai";

/// Calls that an error lists at most, the last ones.
const MAX_LISTED_CALLS: usize = 40;

/// What is kept of a call's time for telling what came of it, at most.
const TIME_TO_TELL: Duration = Duration::from_millis(200);

/// Runs `code` and gives what the model is to read.
///
/// # Errors
/// `Compile` and the program's own, with line and column in words and in the details as `at`; what ended it otherwise. The
/// details have the `calls` so far.
pub(super) async fn run(script: &Arc<Script>, code: &str, cx: &ToolContext) -> Result<Value, ToolError> {
    let left = cx.time_left();
    let time_to_tell = TIME_TO_TELL.min(left / 10);
    let deadline = cx.deadline().checked_sub(time_to_tell).unwrap_or_else(Instant::now);
    let outcome = tokio::select! {
        biased;
        () = script.ended() => None,
        outcome = evaluate(script, code, cx, deadline) => Some(outcome),
        // Also where it waits for a call that would be over at that time: no error of that call's comes before this one.
        () = tokio::time::sleep_until(deadline.into()) => {
            let text = format!("the program did not end within its {:?}: do less in one", left - time_to_tell);
            script.end(End::Failed(ToolError::new(ErrorKind::TimedOut, text)));
            None
        }
    };
    // A program that was ended has no result, whatever it made of it.
    match (script.end_so_far(), outcome) {
        (Some(End::Failed(error)), _) => Err(told(script, error)),
        (Some(End::Exhausted(exhausted)), _) => {
            let kind = ErrorKind::LimitExceeded {
                limit: toolbay_api::Limit::HostCalls,
                allowed: exhausted.allowed,
                used: exhausted.used,
            };
            Err(told(script, ToolError::new(kind, format!("{exhausted}; go on without more calls"))))
        }
        (Some(End::Stopped(stop)), _) => {
            let text = format!("{} stopped the run: {}", stop.by, stop.reason);
            Err(told(script, ToolError::new(ErrorKind::DeniedByHook, text)))
        }
        // Not told: it is not over. The road brings back what waits.
        (Some(End::Suspended), _) => {
            Err(ToolError::new(ErrorKind::ApprovalRequired, "calls of this program wait for approval"))
        }
        (None, Some(Ok(output))) => {
            let mut answer = json!({ "result": output.data });
            let (printed, notes) = script.printed();
            if let Value::Object(answer) = &mut answer {
                if !printed.is_empty() {
                    answer.insert("printed".to_owned(), printed.into());
                }
                if !notes.is_empty() {
                    answer.insert("notes".to_owned(), notes.into());
                }
            }
            Ok(answer)
        }
        (None, Some(Err(error))) => Err(told(script, hinted(script, error))),
        (None, None) => Err(ToolError::new(ErrorKind::Internal, "the program was ended by nobody")),
    }
}

/// Compiles and runs it.
async fn evaluate(
    script: &Arc<Script>,
    code: &str,
    cx: &ToolContext,
    deadline: Instant,
) -> Result<ToolOutput, ToolError> {
    let limits = Arc::new(limits(cx.limits(), script.settings.max_printed_bytes));
    let functions = script.bindings.functions();
    let plugin = script.run().program(FILE, code, &functions, &limits).await.map_err(|error| not_compiled(&error))?;
    let Some(tool) = plugin.tools().into_iter().next() else {
        return Err(ToolError::new(ErrorKind::Internal, "a program without anything to run"));
    };
    let inner = ToolContext::new(ToolContextParts {
        caller: Arc::clone(cx.caller()),
        call: cx.call().clone(),
        depth: cx.depth(),
        deadline,
        limits,
        idempotency_key: None,
        host: Arc::new(ScriptHost::new(script)),
        cancelled: CancelFlag::default(),
        peer: None,
    });
    let _used = Used { inner: inner.clone(), outer: cx.clone() };
    tool.call(json!({}), &inner).await
}

/// Tells the outer call what the program used, also where it is dropped.
struct Used {
    inner: ToolContext,
    outer: ToolContext,
}

impl Drop for Used {
    fn drop(&mut self) {
        let (from, to) = (self.inner.usage(), self.outer.usage());
        to.set_operations(from.operations());
        to.set_peak_bytes(from.peak_bytes());
        if from.isolation() == Isolation::Process {
            to.set_isolation(Isolation::Process);
        }
        for _ in 0..from.host_calls() {
            to.count_host_call();
        }
    }
}

/// The limits of the program: those of the call, with room left for what is told beside its result.
fn limits(outer: &Limits, printed: usize) -> Limits {
    // What is printed can double as JSON text.
    let beside = printed.saturating_mul(2).saturating_add(1_024);
    let max_output_bytes = outer.max_output_bytes.saturating_sub(beside).max(outer.max_output_bytes / 2);
    Limits { max_output_bytes, max_nesting: outer.max_nesting.saturating_sub(1).max(1), ..outer.clone() }
}

fn not_compiled(error: &LoadError) -> ToolError {
    let mut text = error.message.clone();
    if let (Some((_, column)), Some(excerpt)) = (error.position, &error.excerpt) {
        text.push_str(&format!("\n  {excerpt}\n  {:indent$}^", "", indent = column.saturating_sub(1).min(200)));
    }
    let failed = ToolError::new(error.kind, text);
    match error.position {
        Some((line, column)) => failed.with_details(json!({ "at": { "line": line, "column": column } })),
        None => failed,
    }
}

/// The error with a word about what there is, where the program calls what there is not.
fn hinted(script: &Script, mut error: ToolError) -> ToolError {
    let named = |before: &str| error.message.split_once(before)?.1.split(['`', ' ', '(']).next();
    let wrong =
        ["there is no function `", "there is no module `", "there is no variable `"].into_iter().find_map(named);
    let Some(wrong) = wrong else { return error };
    let is_path = wrong.contains("::") || error.message.contains("there is no module");
    let near = script.bindings.near(wrong);
    // A variable that is called like a space: tools are not methods of it.
    if is_path || near.starts_with("there are ") {
        error.message = format!("{}; {near}", error.message).into();
    }
    error
}

/// The error as the model reads it: where, what, and what has been done already.
fn told(script: &Script, error: ToolError) -> ToolError {
    let at = error.details.get("at").cloned();
    let place = at.as_ref().and_then(|at| Some((at.get("line")?.as_u64()?, at.get("column")?.as_u64()?)));
    // The details of wrong arguments are not shown to models, since those of a call stand in its message. These here do not.
    let (kind, mut message) = match error.kind {
        ErrorKind::InvalidArguments => (ErrorKind::Script, format!("{}: {}", error.kind.name(), error.message)),
        kind => (kind, error.message.clone().into_owned()),
    };
    if let Some((line, column)) = place {
        message = format!("line {line}, column {column}: {message}");
    }
    let calls = script.calls_so_far();
    let mut details = json!({});
    if let Value::Object(details) = &mut details {
        if let Some(at) = at {
            details.insert("at".to_owned(), at);
        }
        if let Some(own) = own_details(&error) {
            details.insert("details".to_owned(), own);
        }
        let left_out = calls.len().saturating_sub(MAX_LISTED_CALLS);
        let mut listed: Vec<String> = calls.into_iter().skip(left_out).collect();
        if left_out > 0 {
            listed.insert(0, format!("{left_out} more before these"));
        }
        details.insert("calls".to_owned(), listed.into());
        let (printed, notes) = script.printed();
        if !printed.is_empty() {
            details.insert("printed".to_owned(), printed.into());
        }
        if !notes.is_empty() {
            details.insert("notes".to_owned(), notes.into());
        }
    }
    // Not to be tried again as it is: what it called was called.
    let told = ToolError::new(kind, message).with_details(details).with_retryable(false);
    match error.operator_detail() {
        Some(source) => told.with_source(source.to_string()),
        None => told,
    }
}

/// What an error said beside its place.
fn own_details(error: &ToolError) -> Option<Value> {
    let mut own = error.details.clone();
    if let Value::Object(map) = &mut own {
        map.shift_remove("at");
        // What was no object itself.
        if let (Some(inner), 1) = (map.get("details").cloned(), map.len()) {
            return Some(inner);
        }
        return (!map.is_empty()).then_some(own);
    }
    (!own.is_null()).then_some(own)
}
