//! An answer as a plugin gets it.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::header::{HeaderMap, SET_COOKIE};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A server's answer: any status, since whether 404 is an error is the plugin's to say.
#[derive(Clone)]
pub struct HttpResponse {
    /// The status, 200 to 599 as a rule.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body as it came, not decompressed.
    pub body: Bytes,
    /// The URL that answered, after redirects.
    pub url: String,
}

impl HttpResponse {
    /// The form for plugins: `{status, headers, body, url}`, or `body_base64` in place of `body` where the body is not
    /// UTF-8.
    ///
    /// `headers` has names in lower case. Fields of the same name are joined by `, ` (RFC 9110, section 5.3), but
    /// `set-cookie` by line breaks, since its values hold commas. Bytes that are not UTF-8 become `U+FFFD`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let headers: Map<_, _> =
            self.headers.keys().map(|name| (name.as_str().to_owned(), self.joined(name).into())).collect();
        match std::str::from_utf8(&self.body) {
            Ok(text) => json!({"status": self.status, "headers": headers, "body": text, "url": self.url}),
            Err(_) => {
                let encoded = STANDARD.encode(&self.body);
                json!({"status": self.status, "headers": headers, "body_base64": encoded, "url": self.url})
            }
        }
    }

    fn joined(&self, name: &reqwest::header::HeaderName) -> String {
        let values: Vec<_> =
            self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        values.join(if *name == SET_COOKIE { "\n" } else { ", " })
    }
}

impl Serialize for HttpResponse {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl fmt::Debug for HttpResponse {
    /// Without header values, body and query: those may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
