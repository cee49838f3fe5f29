//! The client as a tool sees it while the tool runs: a [`Peer`] made for one request.
//!
//! Up to 2025-11-25 a server asks its client by requests of its own while the call waits. From 2026-07-28 it may not: the
//! call ends with the questions, and the client makes it again with the answers. Here both are one thing to the tool. What
//! was answered in earlier rounds comes back in the request state, which is sealed for the one who made the call and for
//! this very call; nothing is kept on the server in between. A call that became a task waits for its answers again.
//!
//! # Layout
//!
//! - this file: the peer, and how it asks while the call waits.
//! - `rounds`: asking between two rounds, and in tasks. `words`: questions and answers as the protocol has them.

mod rounds;
pub(crate) mod words;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
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
use serde_json::Value;
use tokio::sync::mpsc;
use toolbay_api::{
    Answers, ErrorKind, LogLevel, Peer, Progress, Question, QuestionKind, Questions, ToolError, async_trait,
};
use toolbay_runtime::PendingApproval;

use self::{
    rounds::{Rounds, lock},
    words::{answer, bad_question, input_required, request},
};

/// What a tool may tell before the client has taken the first of it.
const MAX_TOLD: usize = 64;

/// Something on its way to the client.
pub(crate) enum Told {
    Progress(ProgressNotificationParam),
    Message(LoggingMessageNotificationParam),
    /// How far a task is, in words.
    Status(String),
}

/// How the client is asked.
enum Asking {
    /// By requests while the call waits.
    Inline(rmcp::Peer<RoleServer>),
    /// By the result of this call, for the next.
    InRounds(Box<Mutex<Rounds>>),
}

/// Why a call ended without a result.
pub(crate) enum Unanswered {
    /// These are the questions, and those before were answered like this.
    Open { questions: BTreeMap<String, InputRequest>, given: BTreeMap<String, Value> },
    /// These have to be approved first.
    Waits { waits: Vec<PendingApproval>, given: BTreeMap<String, Value> },
    /// The client has not said that it can answer such questions.
    Missing(ClientCapabilities),
}

/// The client, for the time of one call.
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
        let rounds = Rounds::new(responses, given);
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
        let mut rounds = lock(rounds);
        if error.kind == ErrorKind::ApprovalRequired && !rounds.waits.is_empty() {
            let (waits, given) = (std::mem::take(&mut rounds.waits), std::mem::take(&mut rounds.given));
            return Some(Unanswered::Waits { waits, given });
        }
        if error.kind != ErrorKind::InputRequired {
            return None;
        }
        if let Some(missing) = rounds.missing.take() {
            return Some(Unanswered::Missing(missing));
        }
        let questions = std::mem::take(&mut rounds.open);
        (!questions.is_empty()).then(|| Unanswered::Open { questions, given: std::mem::take(&mut rounds.given) })
    }

    /// From now on whoever asks waits for the task's answers. Says no where the call is about to end with questions.
    pub(crate) fn goes_on_in_task(&self) -> bool {
        match &self.asking {
            Asking::Inline(_) => false,
            Asking::InRounds(rounds) => lock(rounds).go_on_in_task(),
        }
    }

    /// What the task waits for.
    pub(crate) fn open_requests(&self) -> BTreeMap<String, InputRequest> {
        match &self.asking {
            Asking::Inline(_) => BTreeMap::new(),
            Asking::InRounds(rounds) => lock(rounds).waiting(),
        }
    }

    /// Answers a question that the task waits for; there may be none of that name.
    pub(crate) fn answer(&self, key: &str, response: Value) {
        if let Asking::InRounds(rounds) = &self.asking {
            lock(rounds).answer(key, response);
        }
    }

    /// Asks what must not be answered by what came with earlier questions, where the client can be asked while the call waits.
    /// `None` where it cannot: then the call is to end, with `waits`.
    pub(crate) async fn ask_anew(
        &self,
        questions: Questions,
        waits: &[PendingApproval],
    ) -> Option<Result<Answers, ToolError>> {
        match &self.asking {
            Asking::Inline(peer) => Some(ask_now(peer, questions).await),
            Asking::InRounds(rounds) => {
                {
                    let mut all = lock(rounds);
                    if !all.is_in_task() {
                        all.waits = waits.to_vec();
                        return None;
                    }
                }
                Some(rounds::ask(rounds, questions).await)
            }
        }
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

    fn is_in_task(&self) -> bool {
        match &self.asking {
            Asking::Inline(_) => false,
            Asking::InRounds(rounds) => lock(rounds).is_in_task(),
        }
    }
}

#[async_trait]
impl Peer for Exchange {
    fn progress(&self, progress: Progress) {
        // A client that takes too slowly misses some: a tool is not held up by its audience.
        if self.is_in_task() {
            let Progress { done, total, message } = progress;
            let figures = || total.map_or_else(|| done.to_string(), |total| format!("{done} of {total}"));
            let _ = self.told.try_send(Told::Status(message.unwrap_or_else(figures)));
            return;
        }
        let Some(token) = &self.token else { return };
        let mut param = ProgressNotificationParam::new(token.clone(), progress.done);
        param.total = progress.total;
        param.message = progress.message;
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
            (Asking::InRounds(rounds), None) => rounds::ask(rounds, questions).await,
        }
    }
}

/// Asks one after the other while the call waits; the call's deadline bounds it.
async fn ask_now(peer: &rmcp::Peer<RoleServer>, questions: Questions) -> Result<Answers, ToolError> {
    let mut answers = Answers::new();
    for (name, question) in questions {
        let answer = ask_one(peer, &question).await?;
        answers.insert(name, answer);
    }
    Ok(answers)
}

async fn ask_one(peer: &rmcp::Peer<RoleServer>, question: &Question) -> Result<toolbay_api::Answer, ToolError> {
    let request = match request(question)? {
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
    serde_json::to_value(&result).ok().and_then(|raw| answer(question, &raw)).ok_or_else(|| {
        let message = "the client's answer does not fit the tool's question; answer what the form asks for";
        ToolError::new(ErrorKind::Dependency, message)
    })
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
