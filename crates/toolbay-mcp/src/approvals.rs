//! Approvals by the user behind a client: a call that needs one is put to the user as a form, and what the user answers, and
//! nothing else, becomes the decision.
//!
//! A form's name has the approval's own id in it, which nobody knows before it is asked, so that neither an argument nor the
//! answer to a tool's own question can be taken for a decision.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use toolbay_api::{Answer, ErrorKind, FormAnswer, Question, Questions, ToolError};
use toolbay_runtime::{Approval, Decision, PendingApproval, Session};

use crate::exchange::{Exchange, words};

/// How long a user may think while a call waits.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Bytes of arguments that are put before a user. Nobody approves what he is not shown.
const MAX_SHOWN: usize = 16 * 1024;
/// Characters of what the user says.
const MAX_REASON: usize = 500;

/// The forms for calls that wait.
///
/// # Errors
/// `ApprovalRequired` where one cannot be shown as a whole.
pub(crate) fn forms(waits: &[PendingApproval]) -> Result<Questions, ToolError> {
    waits.iter().map(|pending| Ok((name(pending), form(pending)?))).collect()
}

/// What is decided of calls that wait, where `responses` have an answer for each of them.
///
/// # Errors
/// `NotFound` where such a call is another tenant's.
pub(crate) fn decided(
    session: &Session,
    waits: &[PendingApproval],
    responses: &BTreeMap<String, Value>,
) -> Result<Option<Vec<Approval>>, ToolError> {
    let answer = |pending: &PendingApproval| words::answer(&form(pending).ok()?, responses.get(&name(pending))?);
    // Nothing is taken down as decided before all is.
    let Some(answers) = waits.iter().map(answer).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let decided = waits.iter().zip(answers).map(|(pending, answer)| decide(session, pending, answer));
    decided.collect::<Result<_, _>>().map(Some)
}

/// Asks the client while the call waits. `None` where that cannot be: then the call is to end, with `waits`.
pub(crate) async fn ask(
    session: &Session,
    exchange: &Exchange,
    waits: &[PendingApproval],
) -> Option<Result<Vec<Approval>, ToolError>> {
    let forms = match forms(waits) {
        Ok(forms) => forms,
        Err(error) => return Some(Err(error)),
    };
    let late = || {
        let text = "this call needs approval, and nobody answered in time; the call was not made";
        Some(Err(ToolError::new(ErrorKind::ApprovalRequired, text)))
    };
    let answered = tokio::time::timeout(PATIENCE, exchange.ask_anew(forms, waits)).await.unwrap_or_else(|_| late())?;
    Some(answered.and_then(|mut answers| {
        let decide = |pending: &PendingApproval| {
            let answer = answers.remove(&name(pending)).unwrap_or(Answer::Form(FormAnswer::Cancelled));
            decide(session, pending, answer)
        };
        waits.iter().map(decide).collect()
    }))
}

fn decide(session: &Session, pending: &PendingApproval, answer: Answer) -> Result<Approval, ToolError> {
    let text = |fields: &serde_json::Map<String, Value>, name: &str| {
        let text = fields.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect::<String>()
    };
    let reject = |reason: String| Decision::Reject { reason };
    let decision = match answer {
        Answer::Form(FormAnswer::Accepted(fields)) => match text(&fields, "decision").as_str() {
            "approve" => Decision::Approve,
            _ => match text(&fields, "reason") {
                reason if reason.is_empty() => reject("the user rejected it".to_owned()),
                reason => reject(reason),
            },
        },
        Answer::Form(FormAnswer::Declined) => reject("the user declined".to_owned()),
        _ => reject("the user closed the question without an answer".to_owned()),
    };
    let by = session
        .user()
        .map_or_else(|| "the user of an MCP client".to_owned(), |user| format!("{user}, by an MCP client"));
    session.decide(&by, pending, &decision)
}

fn name(pending: &PendingApproval) -> String {
    format!("approval-{}", pending.id)
}

/// One line each, so that no text among them can look like another of them.
fn form(pending: &PendingApproval) -> Result<Question, ToolError> {
    let arguments = pending.arguments.to_string();
    if arguments.len() > MAX_SHOWN {
        let text = "this call needs approval, and its arguments are too long to be shown to a user; send less at once, or have \
                    an operator approve it";
        return Err(ToolError::new(ErrorKind::ApprovalRequired, text));
    }
    let line = |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
    let message = format!(
        "Approve this tool call?\nTool: {}\nArguments: {}\nWhy you are asked: {}",
        pending.tool,
        line(&arguments),
        line(&pending.reason)
    );
    let schema = json!({
        "type": "object",
        "properties": {
            "decision": { "type": "string", "title": "Decision", "enum": ["approve", "reject"] },
            "reason": { "type": "string", "title": "Reason", "description": "Why not, for the model", "maxLength": MAX_REASON }
        },
        "required": ["decision"]
    });
    Ok(Question::Form { message, schema })
}
