//! A provider's failures by what a caller can do about them, in words that show no key.

use std::time::Duration;

use genai::{Error, webc};
use serde_json::Value;

use super::config::Target;
use crate::model::{ModelError, ModelErrorKind};

/// Characters of a provider's own words that are shown to the user.
const MAX_SAID_CHARS: usize = 300;
/// Characters of the client's error that are kept for the operator; it may hold a whole request and its reply.
const MAX_DETAIL_CHARS: usize = 2_000;
/// No provider asks for longer; what does is a fault.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// The client's error in our form.
pub(super) fn model_error(error: &Error, target: &Target) -> ModelError {
    let (Error::WebModelCall { webc_error, .. } | Error::WebAdapterCall { webc_error, .. }) = error else {
        return with_detail(ModelErrorKind::BadRequest, "the request could not be made: see the log", error, target);
    };
    match webc_error {
        webc::Error::ResponseFailedStatus { status, body, headers } => {
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let said = serde_json::from_str::<Value>(body).ok();
            let said = said.as_ref().and_then(|body| body.get("error").or(Some(body)));
            by_status(status.as_u16(), said, retry_after(header), target).with_source(detail(error, target))
        }
        webc::Error::Reqwest(cause) if cause.is_timeout() => {
            with_detail(ModelErrorKind::TimedOut, "took too long to answer: try again", error, target)
        }
        webc::Error::Reqwest(cause) if cause.is_connect() => {
            let place = target.base_url.as_deref().unwrap_or_default();
            let message = format!("could not be reached {place}: check the address and that the server runs");
            with_detail(ModelErrorKind::Network, &message, error, target)
        }
        webc::Error::Reqwest(_) => {
            with_detail(ModelErrorKind::Network, "broke the connection off: try again", error, target)
        }
        webc::Error::ResponseFailedNotJson { .. }
        | webc::Error::ResponseFailedInvalidJson { .. }
        | webc::Error::JsonValueExt(_) => {
            let message = "gave an answer that is no JSON: check the base URL";
            with_detail(ModelErrorKind::Protocol, message, error, target)
        }
    }
}

/// A failure of a reply that comes piece by piece, before its first piece or after it.
pub(super) fn of_stream(error: &Error, target: &Target) -> ModelError {
    let told = match error {
        Error::WebStream { error, .. } => error.downcast_ref::<Error>(),
        Error::HttpError { .. } => Some(error),
        Error::ChatResponse { body, .. } => return reported(body.get("error").unwrap_or(body), target),
        Error::WebModelCall { .. } | Error::WebAdapterCall { .. } => return model_error(error, target),
        _ => return not_understood(target, &error.to_string()),
    };
    if let Some(Error::HttpError { status, body, headers, .. }) = told {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let said = serde_json::from_str::<Value>(body).ok();
        let said = said.as_ref().and_then(|body| body.get("error").or(Some(body)));
        return by_status(status.as_u16(), said, retry_after(header), target).with_source(detail(error, target));
    }
    with_detail(ModelErrorKind::Network, "broke the connection off: try again", error, target)
}

/// A failure that came with status 200.
pub(super) fn reported(error: &Value, target: &Target) -> ModelError {
    let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    by_status(status.unwrap_or(500), Some(error), None, target).with_source(scrubbed(&error.to_string(), target))
}

/// A reply that was not understood.
pub(super) fn not_understood(target: &Target, cause: &str) -> ModelError {
    let message = format!("the answer of the model {} was not understood: see the log", target.id);
    ModelError::new(ModelErrorKind::Protocol, message).with_source(scrubbed(cause, target))
}

fn by_status(status: u16, said: Option<&Value>, retry_after: Option<Duration>, target: &Target) -> ModelError {
    let id = &target.id;
    let said = said.and_then(|error| error.get("message").or(Some(error))).and_then(Value::as_str);
    let said = said.map(|said| format!(": {}", shortened(&scrubbed(said, target), MAX_SAID_CHARS)));
    let said = said.unwrap_or_default();
    let key = target.adapter.default_key_env_name().unwrap_or("the key");
    let (kind, message) = match status {
        // The provider's own words are left out: they may repeat a part of the key.
        401 | 403 => {
            (ModelErrorKind::Auth, format!("the key was not accepted for the model {id} ({status}): check {key}"))
        }
        402 => (ModelErrorKind::Auth, format!("the account has no credit left for the model {id}{said}")),
        404 => (ModelErrorKind::UnknownModel, format!("the provider has no model {id}{said}")),
        408 | 504 => {
            (ModelErrorKind::TimedOut, format!("the model {id} took too long to answer ({status}): try again"))
        }
        429 => {
            let wait = retry_after.map_or_else(String::new, |wait| format!(" in {} s", wait.as_secs_f64().ceil()));
            (
                ModelErrorKind::RateLimited { retry_after },
                format!("too many requests to the model {id}: try again{wait}"),
            )
        }
        500.. => {
            (ModelErrorKind::Overloaded, format!("the provider of the model {id} has a fault ({status}): try again"))
        }
        _ => (ModelErrorKind::BadRequest, format!("the model {id} did not accept the request ({status}){said}")),
    };
    ModelError::new(kind, message)
}

fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let seconds = |name: &str, unit: f64| header(name)?.trim().parse::<f64>().ok().map(|value| value * unit);
    // The form with a date is left out: nobody sends it, and it would need a clock.
    let asked = seconds("retry-after-ms", 1e-3).or_else(|| seconds("retry-after", 1.0))?;
    Duration::try_from_secs_f64(asked).ok().map(|asked| asked.min(MAX_RETRY_AFTER))
}

fn with_detail(kind: ModelErrorKind, message: &str, error: &Error, target: &Target) -> ModelError {
    ModelError::new(kind, format!("the model {} {message}", target.id)).with_source(detail(error, target))
}

fn detail(error: &Error, target: &Target) -> String {
    shortened(&scrubbed(&error.to_string(), target), MAX_DETAIL_CHARS)
}

/// `text` without the key, should a provider repeat it.
fn scrubbed(text: &str, target: &Target) -> String {
    if target.key.len() < 8 { text.to_owned() } else { text.replace(&*target.key, "[key]") }
}

fn shortened(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
