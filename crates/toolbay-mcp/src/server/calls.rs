//! Requests that a tool answers: calls, and prompts and resources that are made by a tool. All go down the road of tool
//! calls, with the client at hand for progress and questions.

use std::{collections::BTreeMap, sync::Arc};

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, ClientCapabilities, CreateTaskResult, GetPromptRequestParams,
        GetPromptResponse, InputRequiredResult, InputResponses, ReadResourceRequestParams, ReadResourceResponse,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use toolbay_api::{ErrorKind, ToolError, ToolOutput};
use toolbay_runtime::{PendingApproval, Reply};

use super::{
    McpServer,
    job::{self, Call, Ending},
};
use crate::{
    approvals,
    exchange::{Exchange, Told, Unanswered, words},
    owner::Owner,
    prompts, resources,
    state::{Carried, Purpose},
    tools::{self, Revision},
};

/// A request that a tool answers, whatever its method.
struct Work<'a> {
    /// The request's method and its subject, as the client wrote them: what a state is sealed for.
    method: &'a str,
    subject: &'a str,
    tool: &'a str,
    arguments: Value,
    responses: Option<InputResponses>,
    state: Option<String>,
    /// What its answer is made with where the call goes on as a task.
    as_task: Option<Ending>,
}

/// What became of it.
enum Worked {
    Replied(Box<Reply>),
    Asks(InputRequiredResult),
    Task(CreateTaskResult),
}

impl McpServer {
    pub(super) async fn answer_call(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let version = context.protocol_version();
        let ending = Ending {
            session: self.session.clone(),
            shared: Arc::clone(&self.shared),
            owner: Owner::of(&self.session),
            revision: Revision::of(version.as_ref()),
            links: tools::knows_links(version.as_ref()),
            tool: params.name.to_string(),
        };
        let knows_tasks = context.client_capabilities().is_some_and(|client| client.supports_tasks());
        let as_task = (ending.revision == Revision::AnyValue && knows_tasks).then(|| ending.clone());
        if ending.revision == Revision::AnyValue && !knows_tasks {
            self.check_needs_no_task(&params.name)?;
        }
        let work = Work {
            method: "tools/call",
            subject: &params.name,
            tool: &params.name,
            arguments: Value::Object(params.arguments.unwrap_or_default()),
            responses: params.input_responses,
            state: params.request_state,
            as_task,
        };
        match self.work(work, &context).await? {
            Worked::Asks(questions) => Ok(questions.into()),
            Worked::Task(task) => Ok(task.into()),
            Worked::Replied(reply) => Ok(ending.result(*reply)?.into()),
        }
    }

    /// Refuses a call of a tool that takes too long for clients without tasks.
    fn check_needs_no_task(&self, name: &str) -> Result<(), ErrorData> {
        let tasks = &self.shared.tasks;
        if tasks.require_nothing()
            || !self.find(name).is_some_and(|info| tasks.are_required_for(info.definition.name.as_str()))
        {
            return Ok(());
        }
        let required = ClientCapabilities::builder().enable_tasks().build();
        Err(ErrorData::missing_required_client_capability(required))
    }

    pub(super) async fn answer_prompt(
        &self,
        params: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let info = prompts::find(&self.session, &params.name)?;
        let arguments = prompts::arguments(&info, params.arguments.unwrap_or_default())?;
        let Some(tool) = &info.tool else {
            return Ok(prompts::said(&info, &arguments).into());
        };
        let work = Work {
            method: "prompts/get",
            subject: &params.name,
            tool: tool.as_str(),
            arguments: json!(arguments),
            responses: params.input_responses,
            state: params.request_state,
            as_task: None,
        };
        match self.work(work, &context).await? {
            Worked::Asks(questions) => Ok(questions.into()),
            Worked::Task(_) => Err(ErrorData::internal_error("only tool calls become tasks", None)),
            Worked::Replied(reply) => Ok(prompts::written(&info, output_of(*reply)?).into()),
        }
    }

    pub(super) async fn answer_read(
        &self,
        params: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if let Some(page) = self.shared.results.read(&Owner::of(&self.session), &params.uri) {
            return Ok(page?.into());
        }
        let (info, variables) =
            resources::find(&self.session, &params.uri).ok_or_else(|| resources::not_found(&params.uri))?;
        let Some(tool) = &info.tool else {
            return Ok(resources::file(&info, &params.uri)?.into());
        };
        let mut arguments: BTreeMap<String, String> = variables.into_iter().collect();
        arguments.insert("uri".to_owned(), params.uri.clone());
        let work = Work {
            method: "resources/read",
            subject: &params.uri,
            tool: tool.as_str(),
            arguments: json!(arguments),
            responses: params.input_responses,
            state: params.request_state,
            as_task: None,
        };
        match self.work(work, &context).await? {
            Worked::Asks(questions) => Ok(questions.into()),
            Worked::Task(_) => Err(ErrorData::internal_error("only tool calls become tasks", None)),
            Worked::Replied(reply) => match reply.result {
                Err(error) if error.kind == ErrorKind::NotFound => Err(resources::not_found(&params.uri)),
                _ => Ok(resources::given(&info, &params.uri, output_of(*reply)?).into()),
            },
        }
    }

    /// Calls the tool, and tells the client what the tool tells while it runs.
    async fn work(&self, work: Work<'_>, context: &RequestContext<RoleServer>) -> Result<Worked, ErrorData> {
        let Work { method, subject, tool, arguments, responses, state, as_task } = work;
        let session = &self.session;
        let rounds = Revision::of(context.protocol_version().as_ref()) == Revision::AnyValue;
        // As the client sent them, before anything looks at them: a state is for this very call.
        let purpose = rounds.then(|| Purpose::new(session, method, subject, &arguments));
        let mut approvals = Vec::new();
        let (exchange, mut told) = match &purpose {
            Some(purpose) => {
                let carried = state.as_deref().map(|state| self.shared.seal.open(purpose, state)).transpose()?;
                let Carried { given, waits, .. } = carried.unwrap_or_default();
                let responses = responses.unwrap_or_default();
                match approvals::decided(session, &waits, &responses) {
                    Ok(Some(decided)) => approvals = decided,
                    // Only some were answered, or none: all are asked again.
                    Ok(None) => return self.ask_for_approval(purpose, given, waits),
                    Err(error) => return Err(ErrorData::internal_error(error.message, None)),
                }
                Exchange::in_rounds(context, responses, given)
            }
            None => Exchange::inline(context, self.level()),
        };
        let call = Call { session: session.clone(), exchange: Arc::clone(&exchange), tool: tool.to_owned() };
        let mut job = Box::pin(call.made(arguments, approvals));
        let after = tokio::time::sleep(self.shared.tasks.after());
        tokio::pin!(after);
        let mut may_become_a_task = as_task.is_some();
        let reply = loop {
            tokio::select! {
                biased;
                Some(next) = told.recv() => tell(context, next).await,
                reply = &mut job => break reply,
                // Nobody reads this answer: the client gave up or is gone.
                () = context.ct.cancelled() => return Err(ErrorData::internal_error("the call was cancelled", None)),
                () = &mut after, if may_become_a_task => {
                    may_become_a_task = false;
                    let Some(ending) = &as_task else { continue };
                    if let Some((task, running)) = self.shared.tasks.begin(&ending.owner, &exchange) {
                        self.shared.tasks.spawn(job::as_task(job, told, exchange, running, ending.clone()));
                        return Ok(Worked::Task(CreateTaskResult::new(task)));
                    }
                    // There is no room for one: the client waits, as it would without the extension.
                }
            }
        };
        tell_the_rest(context, &mut told).await;
        let unanswered = reply.result.as_ref().err().and_then(|error| exchange.unanswered(error));
        match (unanswered, purpose) {
            (Some(Unanswered::Missing(capabilities)), _) => {
                Err(ErrorData::missing_required_client_capability(capabilities))
            }
            (Some(Unanswered::Open { questions, given }), Some(purpose)) => {
                let state = self.shared.seal.seal(&purpose, Carried::new(given, Vec::new()))?;
                Ok(Worked::Asks(InputRequiredResult::new(Some(questions), Some(state))))
            }
            (Some(Unanswered::Waits { waits, given }), Some(purpose)) => self.ask_for_approval(&purpose, given, waits),
            _ => Ok(Worked::Replied(Box::new(reply))),
        }
    }

    fn ask_for_approval(
        &self,
        purpose: &Purpose,
        given: BTreeMap<String, Value>,
        waits: Vec<PendingApproval>,
    ) -> Result<Worked, ErrorData> {
        let broken = |error: ToolError| ErrorData::internal_error(error.message, None);
        let forms = approvals::forms(&waits).map_err(broken)?;
        let asked = forms.iter().map(|(name, form)| Ok((name.clone(), words::request(form)?)));
        let asked = asked.collect::<Result<_, ToolError>>().map_err(broken)?;
        let state = self.shared.seal.seal(purpose, Carried::new(given, waits))?;
        Ok(Worked::Asks(InputRequiredResult::new(Some(asked), Some(state))))
    }

    fn level(&self) -> rmcp::model::LoggingLevel {
        *self.client.level.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn tell(context: &RequestContext<RoleServer>, told: Told) {
    // A client that does not hear is gone, and its call is about to be cancelled.
    let _ = match told {
        Told::Progress(param) => context.peer.notify_progress(param).await,
        #[allow(deprecated, reason = "clients of 2025-11-25 have no other way to be told")]
        Told::Message(param) => context.peer.notify_logging_message(param).await,
        Told::Status(_) => return,
    };
}

/// What the tool told before it ended goes before its result.
async fn tell_the_rest(context: &RequestContext<RoleServer>, told: &mut mpsc::Receiver<Told>) {
    while let Ok(next) = told.try_recv() {
        tell(context, next).await;
    }
}

/// What a tool gave for a prompt or a resource, where an error cannot be a result.
fn output_of(reply: Reply) -> Result<ToolOutput, ErrorData> {
    reply.result.map_err(|error: ToolError| match error.kind {
        ErrorKind::InvalidArguments => ErrorData::invalid_params(error.to_string(), Some(error.details)),
        _ => ErrorData::internal_error(error.to_string(), Some(json!({ "retryable": error.retryable }))),
    })
}
