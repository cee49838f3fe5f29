//! The client as a tool sees it while the tool runs: a [`Peer`] made for one request.
//!
//! Up to 2025-11-25 a server asks its client by requests of its own while the call waits. From 2026-07-28 it may not: the
//! call ends with the questions, and the client makes it again with the answers. Here both are one thing to the tool. What
//! was answered in earlier rounds comes back in the request state, which is sealed for the one who made the call and for
//! this very call; nothing is kept on the server in between.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rmcp::{
    RoleServer,
    model::{
        ClientCapabilities, ClientResult, ElicitationCapability, InputRequest, LoggingLevel,
        LoggingMessageNotificationParam, ProgressNotificationParam, ProgressToken, RootsCapabilities,
        SamplingCapability, ServerRequest,
    },
    service::RequestContext,
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use toolbay_api::{
    Answer, Answers, ErrorKind, FormAnswer, LogLevel, Peer, Progress, Question, QuestionKind, Questions, Root, Speaker,
    ToolError, async_trait,
};

/// What a tool may tell before the client has taken the first of it.
const MAX_TOLD: usize = 64;
/// Questions of one call, over all rounds.
const MAX_QUESTIONS: usize = 32;
/// Characters of one question as JSON.
const MAX_QUESTION: usize = 32 * 1024;

/// Something on its way to the client.
pub(crate) enum Told {
    Progress(ProgressNotificationParam),
    Message(LoggingMessageNotificationParam),
}

/// How the client is asked.
enum Asking {
    /// By requests while the call waits.
    Inline(rmcp::Peer<RoleServer>),
    /// By the result of this call, for the next.
    InRounds(Box<Mutex<Rounds>>),
}

#[derive(Default)]
struct Rounds {
    /// What the client sent with this round.
    responses: BTreeMap<String, Value>,
    /// What was answered, in this round and in those before.
    given: BTreeMap<String, Value>,
    /// What is left to be answered.
    open: BTreeMap<String, InputRequest>,
    /// What the client would have to be able to.
    missing: Option<ClientCapabilities>,
}

/// Why a call ended without a result.
pub(crate) enum Unanswered {
    /// These are the questions, and those before were answered like this.
    Open { questions: BTreeMap<String, InputRequest>, given: BTreeMap<String, Value> },
    /// The client has not said that it can answer such questions.
    Missing(ClientCapabilities),
}

/// The client, for the time of one request.
pub(crate) struct Exchange {
    asking: Asking,
    capabilities: ClientCapabilities,
    token: Option<ProgressToken>,
    /// Messages below it are not for this client; none are where there is none.
    level: Option<LoggingLevel>,
    told: mpsc::Sender<Told>,
}

impl Exchange {
    /// For a client that is asked while the call waits.
    pub(crate) fn inline(
        context: &RequestContext<RoleServer>,
        level: LoggingLevel,
    ) -> (Arc<Self>, mpsc::Receiver<Told>) {
        Self::new(context, Asking::Inline(context.peer.clone()), Some(level))
    }

    /// For a client that is asked in rounds, of which this one brings `responses` and those before brought `given`.
    pub(crate) fn in_rounds(
        context: &RequestContext<RoleServer>,
        responses: BTreeMap<String, Value>,
        given: BTreeMap<String, Value>,
    ) -> (Arc<Self>, mpsc::Receiver<Told>) {
        let rounds = Rounds { responses, given, ..Rounds::default() };
        Self::new(context, Asking::InRounds(Box::new(Mutex::new(rounds))), context.meta.log_level())
    }

    fn new(
        context: &RequestContext<RoleServer>,
        asking: Asking,
        level: Option<LoggingLevel>,
    ) -> (Arc<Self>, mpsc::Receiver<Told>) {
        let (told, taken) = mpsc::channel(MAX_TOLD);
        let capabilities = context.client_capabilities().unwrap_or_default();
        let token = context.meta.get_progress_token();
        (Arc::new(Self { asking, capabilities, token, level, told }), taken)
    }

    /// Why the call that just failed with `error` has no result, where it is for a question.
    pub(crate) fn unanswered(&self, error: &ToolError) -> Option<Unanswered> {
        let Asking::InRounds(rounds) = &self.asking else { return None };
        if error.kind != ErrorKind::InputRequired {
            return None;
        }
        let mut rounds = lock(rounds);
        if let Some(missing) = rounds.missing.take() {
            return Some(Unanswered::Missing(missing));
        }
        let questions = std::mem::take(&mut rounds.open);
        (!questions.is_empty()).then(|| Unanswered::Open { questions, given: std::mem::take(&mut rounds.given) })
    }

    /// What the client lacks for `questions`.
    fn lacks(&self, questions: &Questions) -> Option<ClientCapabilities> {
        let mut missing = ClientCapabilities::default();
        let mut any = false;
        for question in questions.values().filter(|question| !self.answers(question.kind())) {
            any = true;
            match question.kind() {
                QuestionKind::Form => missing.elicitation = Some(ElicitationCapability::default()),
                QuestionKind::Generate => missing.sampling = Some(SamplingCapability::default()),
                _ => missing.roots = Some(RootsCapabilities::default()),
            }
        }
        any.then_some(missing)
    }
}

#[async_trait]
impl Peer for Exchange {
    fn progress(&self, progress: Progress) {
        let Some(token) = &self.token else { return };
        let mut param = ProgressNotificationParam::new(token.clone(), progress.done);
        param.total = progress.total;
        param.message = progress.message;
        // A client that takes too slowly misses some: a tool is not held up by its audience.
        let _ = self.told.try_send(Told::Progress(param));
    }

    fn message(&self, level: LogLevel, logger: Option<&str>, data: Value) {
        let level = match level {
            LogLevel::Trace | LogLevel::Debug => LoggingLevel::Debug,
            LogLevel::Info => LoggingLevel::Info,
            LogLevel::Warn => LoggingLevel::Warning,
            LogLevel::Error => LoggingLevel::Error,
        };
        if self.level.is_none_or(|least| rank(level) < rank(least)) {
            return;
        }
        let mut param = LoggingMessageNotificationParam::new(level, data);
        param.logger = logger.map(str::to_owned);
        let _ = self.told.try_send(Told::Message(param));
    }

    fn answers(&self, kind: QuestionKind) -> bool {
        match kind {
            // A client that says `elicitation: {}` has forms; one that says `url` alone has not.
            QuestionKind::Form => {
                self.capabilities.elicitation.as_ref().is_some_and(|it| it.form.is_some() || it.url.is_none())
            }
            QuestionKind::Generate => self.capabilities.sampling.is_some(),
            QuestionKind::Roots => self.capabilities.roots.is_some(),
            _ => false,
        }
    }

    async fn ask(&self, questions: Questions) -> Result<Answers, ToolError> {
        let lacking = self.lacks(&questions);
        let missing_error =
            || input_required("this client has not said that it answers such questions; use one that does");
        match (&self.asking, lacking) {
            (Asking::Inline(_), Some(_)) => Err(missing_error()),
            (Asking::InRounds(rounds), Some(missing)) => {
                lock(rounds).missing = Some(missing);
                Err(missing_error())
            }
            (Asking::Inline(peer), None) => ask_now(peer, questions).await,
            (Asking::InRounds(rounds), None) => look_up(&mut lock(rounds), questions),
        }
    }
}

/// Asks one after the other while the call waits; the call's deadline bounds it.
async fn ask_now(peer: &rmcp::Peer<RoleServer>, questions: Questions) -> Result<Answers, ToolError> {
    let mut answers = Answers::new();
    for (name, question) in questions {
        let request = match request(&question)? {
            InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
            InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
            InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
            _ => return Err(bad_question("it is of a kind that no client knows")),
        };
        let failed = |error: rmcp::ServiceError| {
            ToolError::new(ErrorKind::Dependency, "the client did not answer the tool's question; try again")
                .with_source(error)
        };
        let result: ClientResult = peer.send_request(request).await.map_err(failed)?;
        let answer = serde_json::to_value(&result).ok().and_then(|raw| answer(&question, &raw)).ok_or_else(|| {
            let message = "the client's answer does not fit the tool's question; answer what the form asks for";
            ToolError::new(ErrorKind::Dependency, message)
        })?;
        answers.insert(name, answer);
    }
    Ok(answers)
}

/// Finds the answers among those that came, or leaves the questions open.
fn look_up(rounds: &mut Rounds, questions: Questions) -> Result<Answers, ToolError> {
    let mut answers = Answers::new();
    for (name, question) in questions {
        // What came with this round counts first: a client may correct itself.
        let raw = rounds.responses.get(&name).or_else(|| rounds.given.get(&name));
        let found = raw.and_then(|raw| Some((raw.clone(), answer(&question, raw)?)));
        match found {
            Some((raw, answer)) => {
                rounds.given.insert(name.clone(), raw);
                answers.insert(name, answer);
            }
            None => {
                rounds.open.insert(name, request(&question)?);
            }
        }
    }
    if rounds.open.len() + rounds.given.len() > MAX_QUESTIONS {
        rounds.open.clear();
        return Err(bad_question("there are too many of them in one call"));
    }
    if rounds.open.is_empty() {
        Ok(answers)
    } else {
        Err(input_required("the tool has questions to be answered first"))
    }
}

fn input_required(message: &'static str) -> ToolError {
    ToolError::new(ErrorKind::InputRequired, message)
}

fn bad_question(why: &str) -> ToolError {
    ToolError::new(ErrorKind::Script, format!("the tool asked a question that cannot be put: {why}"))
}

/// The question in the protocol's words.
fn request(question: &Question) -> Result<InputRequest, ToolError> {
    let json = match question {
        Question::Form { message, schema } => json!({
            "method": "elicitation/create",
            "params": { "mode": "form", "message": message, "requestedSchema": schema },
        }),
        Question::Generate { messages, system, max_tokens } => {
            let spoken = |(speaker, text): &(Speaker, String)| {
                let role = match speaker {
                    Speaker::User => "user",
                    Speaker::Assistant => "assistant",
                };
                json!({ "role": role, "content": { "type": "text", "text": text } })
            };
            let messages: Vec<_> = messages.iter().map(spoken).collect();
            let mut params = json!({ "messages": messages, "maxTokens": max_tokens });
            if let (Some(system), Some(params)) = (system, params.as_object_mut()) {
                params.insert("systemPrompt".to_owned(), json!(system));
            }
            json!({ "method": "sampling/createMessage", "params": params })
        }
        Question::Roots => json!({ "method": "roots/list", "params": {} }),
        _ => return Err(bad_question("it is of a kind that no client knows")),
    };
    if json.to_string().len() > MAX_QUESTION {
        return Err(bad_question("it is too long"));
    }
    serde_json::from_value(json).map_err(|error| bad_question(&error.to_string()))
}

/// A client's answer, where it is one to this question.
fn answer(question: &Question, raw: &Value) -> Option<Answer> {
    match question {
        Question::Form { schema, .. } => {
            let answer = match raw.get("action")?.as_str()? {
                "accept" => {
                    let content = raw.get("content").cloned().unwrap_or_else(|| json!({}));
                    FormAnswer::Accepted(filled_in(schema, content)?)
                }
                "decline" => FormAnswer::Declined,
                "cancel" => FormAnswer::Cancelled,
                _ => return None,
            };
            Some(Answer::Form(answer))
        }
        Question::Generate { .. } => {
            let content = raw.get("content")?;
            let blocks = content.as_array().map_or_else(|| std::slice::from_ref(content), Vec::as_slice);
            let text: Vec<_> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
            (!blocks.is_empty()).then(|| Answer::Generated {
                text: text.join("\n"),
                model: raw.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
            })
        }
        Question::Roots => {
            let roots = raw.get("roots")?;
            serde_json::from_value::<Vec<Root>>(roots.clone()).ok().map(Answer::Roots)
        }
        _ => None,
    }
}

/// The fields of a form, where each has the type that the schema wants and none is missing that is required. Such schemas
/// are flat, and fields that they do not know are left out.
fn filled_in(schema: &Value, content: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut content) = content else { return None };
    let properties = schema.get("properties")?.as_object()?;
    content.retain(|name, _| properties.contains_key(name));
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let all_there = required.into_iter().all(|name| content.contains_key(name));
    let all_fit = content.iter().all(|(name, value)| properties.get(name).is_some_and(|field| fits(field, value)));
    (all_there && all_fit).then_some(content)
}

fn fits(field: &Value, value: &Value) -> bool {
    let of_type = match field.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        _ => true,
    };
    let chosen = field.get("enum").and_then(Value::as_array).is_none_or(|options| options.contains(value));
    of_type && chosen
}

/// From the least important on. The protocol's type has no order.
fn rank(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}

fn lock(rounds: &Mutex<Rounds>) -> MutexGuard<'_, Rounds> {
    rounds.lock().unwrap_or_else(PoisonError::into_inner)
}
