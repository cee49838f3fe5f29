//! Whoever made a call, while it runs: progress and messages go there, and questions can be put to it.
//!
//! It stands apart from [`Host`](crate::Host), since a host is the same for every call and a peer is there or not. A call
//! that a plugin makes inside another has none: the program outside knows nothing of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{ErrorKind, ToolError},
    host::LogLevel,
};

/// How far a call is. Each figure has to be larger than the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What is done.
    pub done: f64,
    /// What there is to do, where it is known.
    pub total: Option<f64>,
    /// In words.
    pub message: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// Something that only the caller's side can answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Question {
    /// To the user: a form, by a flat JSON Schema of an object.
    Form {
        /// What is wanted and why.
        message: String,
        /// The fields.
        schema: Value,
    },
    /// To the caller's model.
    Generate {
        /// What was said so far.
        messages: Vec<(Speaker, String)>,
        /// The system prompt, where there is to be one.
        system: Option<String>,
        /// The longest answer, in tokens.
        max_tokens: u32,
    },
    /// For the folders and files that the caller works on.
    Roots,
}

/// The kinds of [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QuestionKind {
    /// [`Question::Form`].
    Form,
    /// [`Question::Generate`].
    Generate,
    /// [`Question::Roots`].
    Roots,
}

impl Question {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> QuestionKind {
        match self {
            Self::Form { .. } => QuestionKind::Form,
            Self::Generate { .. } => QuestionKind::Generate,
            Self::Roots => QuestionKind::Roots,
        }
    }
}

/// What came back for a [`Question`], of its kind.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// What the user did with the form.
    Form(FormAnswer),
    /// What the model wrote. Not to be trusted more than arguments are.
    Generated {
        /// Its text.
        text: String,
        /// The model's name.
        model: String,
    },
    /// The folders and files.
    Roots(Vec<Root>),
}

/// What a user did with a form.
#[derive(Debug, Clone, PartialEq)]
pub enum FormAnswer {
    /// Filled it in. The fields fit the schema.
    Accepted(Map<String, Value>),
    /// Said no.
    Declined,
    /// Closed it.
    Cancelled,
}

/// A folder or file of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its address, `file://...`.
    pub uri: String,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Questions and answers by the names that the tool gave them.
pub type Questions = BTreeMap<String, Question>;
/// See [`Questions`].
pub type Answers = BTreeMap<String, Answer>;

/// The program that made a call.
///
/// What is told is dropped where the program did not ask for it or takes it too slowly: neither method waits.
#[async_trait]
pub trait Peer: Send + Sync {
    /// Tells how far the call is.
    fn progress(&self, progress: Progress);

    /// Tells something for the program's log.
    fn message(&self, level: LogLevel, logger: Option<&str>, data: Value);

    /// Whether it answers questions of this kind.
    fn answers(&self, kind: QuestionKind) -> bool;

    /// Puts all questions at once.
    ///
    /// Some programs can be asked while the call waits, others only between two calls. For the latter this fails, the
    /// tool hands the error on, and when the program has the answers the tool is called again from its beginning, with the
    /// same arguments: then the same questions, by the same names, are answered at once. So a tool asks before it changes
    /// anything, and asks the same each time.
    ///
    /// # Errors
    /// `InputRequired` where the answers come with the next call, and where it does not answer such questions at all; to be
    /// handed on as it is.
    ///
    /// # Cancel safety
    /// Dropping the future takes the questions back.
    async fn ask(&self, questions: Questions) -> Result<Answers, ToolError>;
}

/// The error of a question that nobody is there to answer.
pub(crate) fn nobody_to_ask() -> ToolError {
    let message = "this tool has to ask something, and whoever called it cannot be asked; call it from a client that answers questions";
    ToolError::new(ErrorKind::InputRequired, message)
}
