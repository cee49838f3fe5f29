//! What a server may ask and tell us in a connection. By itself the answer is no; a program with a user in front of it can
//! answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
        ElicitResult, ElicitationAction, ElicitationCapability, FormElicitationCapability, Implementation,
        ListRootsResult, LoggingMessageNotificationParam, RootsCapabilities, SamplingCapability, SamplingMessage,
    },
    service::{NotificationContext, RequestContext},
};
use serde_json::{Map, Value, json};
use toolbay_api::{Answer, FormAnswer, Question, QuestionKind, Speaker, async_trait};

/// Answers what servers ask.
#[async_trait]
pub trait Answerer: Send + Sync {
    /// Whether it answers questions of this kind. Servers are told.
    fn answers(&self, kind: QuestionKind) -> bool;

    /// Answers one question; `None` says no.
    ///
    /// # Cancel safety
    /// Dropping the future takes the question back.
    async fn answer(&self, question: Question) -> Option<Answer>;
}

/// Our end of a connection.
pub(crate) struct Handler {
    pub(crate) label: Arc<str>,
    pub(crate) answerer: Option<Arc<dyn Answerer>>,
    /// Set when the server says that its tools have changed.
    pub(crate) changed: Arc<AtomicBool>,
}

impl Handler {
    fn answers(&self, kind: QuestionKind) -> bool {
        self.answerer.as_ref().is_some_and(|it| it.answers(kind))
    }

    async fn ask(&self, question: Question) -> Option<Answer> {
        match &self.answerer {
            Some(answerer) if answerer.answers(question.kind()) => answerer.answer(question).await,
            _ => None,
        }
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        if self.answers(QuestionKind::Form) {
            let forms = ElicitationCapability::new().with_form(FormElicitationCapability::new());
            capabilities.elicitation = Some(forms);
        }
        if self.answers(QuestionKind::Generate) {
            capabilities.sampling = Some(SamplingCapability::default());
        }
        if self.answers(QuestionKind::Roots) {
            capabilities.roots = Some(RootsCapabilities::default());
        }
        ClientConfig::new(capabilities, Implementation::new("toolbay", env!("CARGO_PKG_VERSION")))
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } = params else {
            return Ok(ElicitResult::new(ElicitationAction::Decline));
        };
        let schema = serde_json::to_value(&requested_schema).unwrap_or_default();
        Ok(match self.ask(Question::Form { message, schema: schema.clone() }).await {
            Some(Answer::Form(FormAnswer::Accepted(fields))) => {
                ElicitResult::new(ElicitationAction::Accept).with_content(Value::Object(with_defaults(&schema, fields)))
            }
            Some(Answer::Form(FormAnswer::Cancelled)) => ElicitResult::new(ElicitationAction::Cancel),
            _ => ElicitResult::new(ElicitationAction::Decline),
        })
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let spoken = |message: &SamplingMessage| {
            let message = serde_json::to_value(message).unwrap_or_default();
            let speaker = if message.get("role").is_some_and(|role| role == "assistant") {
                Speaker::Assistant
            } else {
                Speaker::User
            };
            let text = message.pointer("/content/text").and_then(Value::as_str).unwrap_or_default();
            (speaker, text.to_owned())
        };
        let messages = params.messages.iter().map(spoken).collect();
        let question = Question::Generate { messages, system: params.system_prompt, max_tokens: params.max_tokens };
        match self.ask(question).await {
            Some(Answer::Generated { text, model }) => {
                Ok(CreateMessageResult::new(SamplingMessage::assistant_text(text), model).with_stop_reason("endTurn"))
            }
            _ => Err(ErrorData::invalid_request("the request was refused", None)),
        }
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        let roots = match self.ask(Question::Roots).await {
            Some(Answer::Roots(roots)) => roots,
            _ => Vec::new(),
        };
        serde_json::from_value(json!({ "roots": roots }))
            .map_err(|_| ErrorData::internal_error("the roots have no form", None))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.store(true, Ordering::SeqCst);
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        let text: String = params.data.to_string().chars().take(1_000).collect();
        tracing::debug!(target: "toolbay::mcp", server = %self.label, "{text}");
    }
}

/// The fields with the schema's defaults for those that were left out (SEP-1034).
fn with_defaults(schema: &Value, mut fields: Map<String, Value>) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, field) in properties.into_iter().flatten() {
        if let (false, Some(default)) = (fields.contains_key(name), field.get("default")) {
            fields.insert(name.clone(), default.clone());
        }
    }
    fields
}
