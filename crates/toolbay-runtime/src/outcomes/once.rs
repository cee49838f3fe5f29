//! A call at the door of its plugin: whether the ledger lets it in, or answers in the plugin's place. The road asks it
//! between admission and the plugin, so that a call that was denied is in no ledger.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use toolbay_api::{Content, ErrorKind, Limit, ToolDefinition, ToolError, ToolOutput};

use super::{Begun, CallKey, KeptReply, LedgerCall, Outcome, Outcomes};
use crate::{clock::now_ms, run::Run};

/// What makes a call one that can come again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Once {
    pub(crate) key: CallKey,
    /// Whether it is made again since it failed; else a failure that is known is the answer.
    pub(crate) is_retry: bool,
}

/// Whether a call goes on to its plugin.
pub(crate) enum Entrance {
    /// It does, and the ledger is to be told how it ends, if it knows of it.
    Open(Option<Ticket>),
    /// This is the answer.
    Answered(Result<ToolOutput, ToolError>),
}

/// A call that the ledger has as started.
pub(crate) struct Ticket {
    outcomes: Outcomes,
    call: LedgerCall,
    attempts: u32,
}

/// Asks the ledger, where the host has one, about a call that was admitted. What only reads is not kept in it: it can be
/// made again whenever somebody wants to know.
pub(crate) async fn enter(run: &Run, once: Option<Once>, tool: &ToolDefinition, arguments: &Value) -> Entrance {
    let (Some(once), Some(outcomes)) = (once, &run.inner().outcomes) else { return Entrance::Open(None) };
    if tool.annotations.read_only == Some(true) {
        return Entrance::Open(None);
    }
    match asked(run, once, outcomes, tool, arguments).await {
        Ok(entrance) => entrance,
        // Without a word in the ledger nobody could tell later whether the call was made.
        Err(error) => Entrance::Answered(Err(error)),
    }
}

async fn asked(
    run: &Run,
    once: Once,
    outcomes: &Outcomes,
    tool: &ToolDefinition,
    arguments: &Value,
) -> Result<Entrance, ToolError> {
    let now_ms = now_ms(run.clock())?;
    let keep = i64::try_from(outcomes.keep.as_millis()).unwrap_or(i64::MAX);
    let call = LedgerCall {
        tenant: run.tenant().clone(),
        run: run.id(),
        key: once.key,
        tool: tool.name.to_string(),
        arguments: once.key.digest(arguments),
        expires_ms: now_ms.saturating_add(keep),
    };
    let open = |call, attempts| Entrance::Open(Some(Ticket { outcomes: outcomes.clone(), call, attempts }));
    let known = match outcomes.ledger.begin(&call, now_ms).await? {
        Begun::First => return Ok(open(call, 1)),
        Begun::Known(known) => known,
    };
    if known.arguments != call.arguments {
        let message =
            "a call of this id was made before with other arguments, so this one is not made; make it under a new id";
        return Err(ToolError::new(ErrorKind::Conflict, message));
    }
    let is_idempotent = tool.annotations.idempotent == Some(true);
    let answer = match known.outcome {
        Outcome::Committed(KeptReply::Whole(reply)) => Ok(read(reply)),
        // It is there to be seen once more; there is nothing to write down.
        Outcome::Committed(KeptReply::Digest { .. }) if is_idempotent => return Ok(Entrance::Open(None)),
        Outcome::Committed(KeptReply::Digest { bytes, .. }) => Err(too_long(bytes)),
        Outcome::Failed(error) => {
            let error = read_error(&error);
            if (is_idempotent && once.is_retry && error.retryable) || asked_first(error.kind) {
                return again(outcomes, call, known.attempts, now_ms).await;
            }
            Err(error)
        }
        Outcome::Started | Outcome::Unknown if is_idempotent => {
            return again(outcomes, call, known.attempts, now_ms).await;
        }
        Outcome::Started | Outcome::Unknown => Err(unknown(known.attempts)),
    };
    Ok(Entrance::Answered(answer))
}

/// Has a known call made once more, under the same key.
async fn again(outcomes: &Outcomes, call: LedgerCall, attempts: u32, now_ms: i64) -> Result<Entrance, ToolError> {
    if outcomes.ledger.again(&call, attempts, now_ms).await? {
        let attempts = attempts.saturating_add(1);
        return Ok(Entrance::Open(Some(Ticket { outcomes: outcomes.clone(), call, attempts })));
    }
    let message = "this call is being made elsewhere at this moment; its run goes on there";
    Err(ToolError::new(ErrorKind::Conflict, message))
}

impl Ticket {
    /// Tells the ledger how the call ended. Where that fails the call is as one whose end nobody saw; its result stands.
    pub(crate) async fn settle(self, run: &Run, result: &Result<ToolOutput, ToolError>) {
        let outcome = match result {
            Ok(output) => Outcome::Committed(kept(output, self.outcomes.max_reply_bytes)),
            Err(error) if was_cut(error) => Outcome::Unknown,
            Err(error) => Outcome::Failed(written_error(error)),
        };
        let Self { outcomes, call, attempts } = self;
        let told = match now_ms(run.clock()) {
            Ok(now_ms) => outcomes.ledger.settle(&call, attempts, &outcome, now_ms).await,
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            let (tenant, run, tool) = (&call.tenant, call.run, call.tool.as_str());
            tracing::warn!(target: "toolbay::outcomes", %tenant, %run, tool, %error, "a call's outcome was not written down");
        }
    }
}

/// Whether the tool ended by asking something before it changed anything, and is called again with the answer: a user's, or
/// that of whoever approves a call inside it.
fn asked_first(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InputRequired | ErrorKind::ApprovalRequired)
}

/// Whether the tool was stopped rather than answering, so that it may have had an effect or none.
fn was_cut(error: &ToolError) -> bool {
    match error.kind {
        ErrorKind::TimedOut | ErrorKind::Cancelled | ErrorKind::Panic => true,
        ErrorKind::LimitExceeded { limit, .. } => limit != Limit::Output,
        _ => false,
    }
}

/// A reply as it is kept.
fn kept(output: &ToolOutput, max_bytes: usize) -> KeptReply {
    let mut reply = Map::new();
    reply.insert("data".to_owned(), output.data.clone());
    if !output.content.is_empty() {
        // Texts and bytes in base64, which always have a JSON form.
        reply.insert("content".to_owned(), json!(output.content));
    }
    let reply = Value::Object(reply);
    let text = reply.to_string();
    if text.len() <= max_bytes {
        return KeptReply::Whole(reply);
    }
    KeptReply::Digest { sha256: Sha256::digest(&text).into(), bytes: text.len() as u64 }
}

fn read(mut reply: Value) -> ToolOutput {
    let content: Option<Vec<Content>> =
        reply.get_mut("content").and_then(|all| serde_json::from_value(all.take()).ok());
    let data = reply.get_mut("data").map(Value::take).unwrap_or_default();
    ToolOutput { data, content: content.unwrap_or_default() }
}

/// An error as it is kept: without what is the operator's.
fn written_error(error: &ToolError) -> Value {
    let ToolError { kind, message, details, retryable, .. } = error;
    json!({ "kind": kind, "message": message, "details": details, "retryable": retryable })
}

fn read_error(kept: &Value) -> ToolError {
    let part = |name| kept.get(name).cloned().unwrap_or_default();
    // A kind of a newer version is an error that this one can say no more of.
    let kind = serde_json::from_value(part("kind")).unwrap_or(ErrorKind::Internal);
    let message = part("message").as_str().unwrap_or("the tool failed").to_owned();
    ToolError::new(kind, message).with_details(part("details")).with_retryable(part("retryable") == true)
}

fn too_long(bytes: u64) -> ToolError {
    let message = format!(
        "this call was made before and succeeded, but its result of {bytes} bytes was too long to be kept; it is not made \
         again: go on without the result"
    );
    ToolError::new(ErrorKind::Conflict, message).with_details(json!({ "outcome": "committed", "bytes": bytes }))
}

fn unknown(attempts: u32) -> ToolError {
    let message = "this call was begun before, and how it ended is not known: it may have had an effect or none. It is not \
                   made again; find out whether it had its effect, and tell the user, before you make another like it";
    ToolError::new(ErrorKind::Cancelled, message).with_details(json!({ "outcome": "unknown", "attempts": attempts }))
}
