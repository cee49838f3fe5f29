//! What a tool can show beside data: pictures, sounds, documents. It stands apart from [`result`](mod@crate::result)
//! since prompts and resources are made of it too.

use serde::{Deserialize, Serialize};

/// One piece of what a tool shows. Bytes are base64 text, since every wire that takes them wants them so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Content {
    /// Text.
    Text {
        /// The text itself.
        text: String,
    },
    /// A picture.
    Image {
        /// Its bytes in base64.
        data: String,
        /// Its media type, such as `image/png`.
        mime_type: String,
    },
    /// A sound.
    Audio {
        /// Its bytes in base64.
        data: String,
        /// Its media type, such as `audio/wav`.
        mime_type: String,
    },
    /// A document, whole.
    Document(Document),
}

/// A document under its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The address by which the plugin knows it.
    pub uri: String,
    /// Its media type, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// What is in it.
    pub body: DocumentBody,
}

/// What is in a [`Document`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentBody {
    /// Text.
    Text(String),
    /// Bytes in base64.
    Base64(String),
}

impl Content {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// The bytes that it takes, as text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text { text } => text.len(),
            Self::Image { data, mime_type } | Self::Audio { data, mime_type } => data.len() + mime_type.len(),
            Self::Document(document) => document.uri.len() + document.body.as_str().len(),
        }
    }

    /// Each text in it that a plugin chose, to be changed in place: a host takes secrets out of them.
    pub fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Text { text } => vec![text],
            Self::Image { data, mime_type } | Self::Audio { data, mime_type } => vec![data, mime_type],
            Self::Document(Document { uri, mime_type, body }) => {
                let body = match body {
                    DocumentBody::Text(text) | DocumentBody::Base64(text) => text,
                };
                [uri, body].into_iter().chain(mime_type).collect()
            }
        }
    }

    /// What a reader of text alone is told of it.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Text { text } => text.clone(),
            Self::Image { data, mime_type } => format!("[a picture, {mime_type}, {} bytes in base64]", data.len()),
            Self::Audio { data, mime_type } => format!("[a sound, {mime_type}, {} bytes in base64]", data.len()),
            Self::Document(document) => match &document.body {
                DocumentBody::Text(text) => text.clone(),
                DocumentBody::Base64(data) => format!("[{}, {} bytes in base64]", document.uri, data.len()),
            },
        }
    }
}

impl DocumentBody {
    /// The text, or the bytes in base64.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Base64(text) => text,
        }
    }
}
