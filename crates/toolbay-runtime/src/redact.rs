//! Keeps secrets from coming out of the calls that read them: whatever a call logs, fails with, is audited with or gives
//! back has `***` in the place of each value that `secret()` gave it.
//!
//! It stands apart since the road, the hooks and the calls' hosts all pass through it. A call shares one with the calls
//! that it makes, since it may hand them what it read.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::Value;
use toolbay_api::{ErrorKind, Secret, ToolError, ToolOutput};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";
/// A shorter value is not looked for: it would be found everywhere.
const MIN_BYTES: usize = 4;
/// A shorter piece of base64 is not looked for, for the same reason.
const MIN_CORE: usize = 6;
/// Secrets that one call and those inside it may read.
const MAX_SECRETS: usize = 64;

/// What a call has read, and the forms in which it may come out. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Whether there is anything to look for: nearly every call reads no secret and pays for this look alone.
    any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    secrets: Vec<Secret>,
    /// Longest first, so that no form is replaced in the middle of a longer one. Shared, so that nobody searches a long
    /// text under the lock.
    forms: Arc<Vec<String>>,
}

impl Redactor {
    /// Looks for `secret` from now on.
    ///
    /// # Errors
    /// `Unavailable` past the number of secrets that a call may read: each is looked for in all that comes out.
    pub(crate) fn learn(&self, secret: &Secret) -> Result<(), ToolError> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.secrets.contains(secret) {
            return Ok(());
        }
        if known.secrets.len() >= MAX_SECRETS {
            let message = format!("a call may read {MAX_SECRETS} secrets; keep what you have read in a variable");
            return Err(ToolError::new(ErrorKind::Unavailable, message).with_retryable(false));
        }
        known.secrets.push(secret.clone());
        let mut forms = Vec::clone(&known.forms);
        forms.extend(forms_of(secret.expose()));
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        known.forms = Arc::new(forms);
        self.0.any.store(true, Ordering::Release);
        Ok(())
    }

    /// The forms to look for, if there are any.
    fn forms(&self) -> Option<Arc<Vec<String>>> {
        let any = self.0.any.load(Ordering::Acquire);
        any.then(|| Arc::clone(&self.0.known.lock().unwrap_or_else(PoisonError::into_inner).forms))
    }

    /// `text` without secrets. A form that the text's end cuts short is hidden as well: lines are cut at limits.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(forms) = self.forms() else { return Cow::Borrowed(text) };
        let whole = hide(&forms, text);
        let cut = forms.iter().filter_map(|form| cut_short(form, &whole)).min();
        match cut {
            None => whole,
            Some(at) => Cow::Owned(format!("{}{HIDDEN}", whole.get(..at).unwrap_or_default())),
        }
    }

    /// `value` without secrets, in texts, names and numbers.
    pub(crate) fn value(&self, value: &mut Value) {
        if let Some(forms) = self.forms() {
            hide_in(&forms, value);
        }
    }

    /// `error` without secrets, in what it tells the model and in what it tells the operator.
    pub(crate) fn error(&self, mut error: ToolError) -> ToolError {
        if self.forms().is_none() {
            return error;
        }
        self.value(&mut error.details);
        let message = self.text(&error.message).into_owned();
        match error.operator_detail().map(chain_of) {
            None => {
                error.message = message.into();
                error
            }
            // An error's source cannot be changed, only replaced: by its own text, without secrets.
            Some(source) => ToolError::new(error.kind, message)
                .with_details(error.details)
                .with_retryable(error.retryable)
                .with_source(self.text(&source).into_owned()),
        }
    }

    /// A call's result without secrets.
    pub(crate) fn result(&self, result: Result<ToolOutput, ToolError>) -> Result<ToolOutput, ToolError> {
        match result {
            Ok(mut output) => {
                self.value(&mut output.data);
                for text in output.content.iter_mut().flat_map(toolbay_api::Content::texts_mut) {
                    let hidden = self.text(text).into_owned();
                    *text = hidden;
                }
                Ok(output)
            }
            Err(error) => Err(self.error(error)),
        }
    }
}

/// An error's text with that of its causes.
fn chain_of(error: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn hide<'a>(forms: &[String], text: &'a str) -> Cow<'a, str> {
    let mut hidden = Cow::Borrowed(text);
    for form in forms {
        if hidden.contains(form.as_str()) {
            hidden = Cow::Owned(hidden.replace(form.as_str(), HIDDEN));
        }
    }
    hidden
}

fn hide_in(forms: &[String], value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(hidden) = hide(forms, text) {
                *text = hidden;
            }
        }
        Value::Number(number) => {
            if let Cow::Owned(hidden) = hide(forms, &number.to_string()) {
                *value = Value::String(hidden);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide_in(forms, item)),
        Value::Object(map) => {
            map.values_mut().for_each(|entry| hide_in(forms, entry));
            if map.keys().any(|key| matches!(hide(forms, key), Cow::Owned(_))) {
                let entries = std::mem::take(map).into_iter();
                *map = entries.map(|(key, entry)| (hide(forms, &key).into_owned(), entry)).collect();
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Where `text` ends in the beginning of `form`, of [`MIN_BYTES`] at least.
fn cut_short(form: &str, text: &str) -> Option<usize> {
    let longest = (form.len().saturating_sub(1)).min(text.len());
    (MIN_BYTES..=longest).rev().find_map(|length| {
        let at = text.len() - length;
        form.get(..length).is_some_and(|head| text.ends_with(head)).then_some(at)
    })
}

/// The forms in which a secret may stand in a text: as it is, as in JSON, URL-encoded, and in base64, alone or with
/// something before and behind it, as in an `Authorization: Basic` header.
fn forms_of(secret: &str) -> Vec<String> {
    if secret.len() < MIN_BYTES {
        return Vec::new();
    }
    let json = Value::from(secret).to_string();
    let upper = url_encoded(secret, false);
    let mut forms = vec![
        secret.to_owned(),
        json.get(1..json.len().saturating_sub(1)).unwrap_or(secret).to_owned(),
        upper.replace("%20", "+"),
        upper,
        url_encoded(secret, true),
    ];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        forms.push(engine.encode(secret));
    }
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for before in 0..3_usize {
            // The digits that hold bits of the secret alone, whatever stands around it.
            let text = engine.encode([&vec![0; before], secret.as_bytes()].concat());
            let (from, to) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
            forms.extend(text.get(from..to).filter(|core| core.len() >= MIN_CORE).map(str::to_owned));
        }
    }
    forms
}

fn url_encoded(text: &str, lower: bool) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if lower => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn knowing(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new(secret)).unwrap();
        redactor
    }

    #[test]
    fn a_secret_is_hidden_in_each_of_its_forms() {
        let secret = "s3cr\"et/va lue+";
        let redactor = knowing(secret);
        for form in forms_of(secret) {
            let hidden = redactor.text(&format!("<{form}>")).into_owned();
            assert!(hidden.contains(HIDDEN) && !hidden.contains(&form), "{form}: {hidden}");
        }
        for before in ["", "u", "us", "user:"] {
            let header = STANDARD.encode(format!("{before}{secret} and more"));
            let hidden = redactor.text(&header).into_owned();
            assert!(hidden.contains(HIDDEN), "{before}: {header} {hidden}");
        }
    }

    #[test]
    fn a_value_is_searched_in_texts_names_and_numbers() {
        let redactor = knowing("12345678");
        let mut value = json!({"a12345678": [1, "x 12345678 y", 1_123_456_789, {"deep": "12345678"}], "n": 1234});
        redactor.value(&mut value);
        assert_eq!(value, json!({"a***": [1, "x *** y", "1***9", {"deep": "***"}], "n": 1234}));
    }

    #[test]
    fn a_secret_cut_short_at_the_end_of_a_line_is_hidden() {
        let redactor = knowing("abcdefghij");
        assert_eq!(redactor.text("key abcdef"), "key ***");
        assert_eq!(redactor.text("key abc"), "key abc");
        assert_eq!(redactor.text("abcdef and on"), "abcdef and on");
    }

    #[test]
    fn an_error_keeps_its_kind_and_loses_the_secret_in_all_its_parts() {
        let redactor = knowing("swordfish");
        let error = ToolError::new(ErrorKind::Script, "bad swordfish")
            .with_details(json!({"key": "swordfish"}))
            .with_retryable(true)
            .with_source("line 3: swordfish");
        let error = redactor.error(error);
        assert_eq!((error.kind, error.retryable), (ErrorKind::Script, true));
        assert!(!format!("{error:?} {}", error.operator_detail().unwrap()).contains("swordfish"), "{error:?}");
    }

    #[test]
    fn a_short_value_is_not_looked_for() {
        assert_eq!(knowing("abc").text("abc"), "abc");
    }
}
