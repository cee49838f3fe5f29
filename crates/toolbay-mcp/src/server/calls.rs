//! Requests that a tool answers: calls, and prompts and resources that are made by a tool. All go down the road of tool
//! calls, with the client at hand for progress and questions.

use std::collections::BTreeMap;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, GetPromptRequestParams, GetPromptResponse, InputRequiredResult,
        InputResponses, ReadResourceRequestParams, ReadResourceResponse,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use toolbay_api::{ErrorKind, ToolError, ToolOutput};
use toolbay_runtime::Reply;

use super::McpServer;
use crate::{
    exchange::{Exchange, Told, Unanswered},
    prompts, resources,
    state::Purpose,
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
}

/// What became of it.
enum Worked {
    Replied(Box<Reply>),
    Asks(InputRequiredResult),
}

impl McpServer {
    pub(super) async fn answer_call(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let revision = Revision::of(context.protocol_version().as_ref());
        let work = Work {
            method: "tools/call",
            subject: &params.name,
            tool: &params.name,
            arguments: Value::Object(params.arguments.unwrap_or_default()),
            responses: params.input_responses,
            state: params.request_state,
        };
        let reply = match self.work(work, &context).await? {
            Worked::Asks(questions) => return Ok(questions.into()),
            Worked::Replied(reply) => reply,
        };
        // A tool that the tenant or the user may not see must look just like one that does not exist, whatever the road
        // refused the call for. A tool's own `NotFound` (of a record, say) is told apart by the tool's being there.
        if reply.is_error() && self.find(&params.name).is_none() {
            return Err(unknown_tool(&params.name));
        }
        Ok(tools::result(*reply, revision, || self.find(&params.name)).into())
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
        };
        match self.work(work, &context).await? {
            Worked::Asks(questions) => Ok(questions.into()),
            Worked::Replied(reply) => Ok(prompts::written(&info, output_of(*reply)?).into()),
        }
    }

    pub(super) async fn answer_read(
        &self,
        params: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
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
        };
        match self.work(work, &context).await? {
            Worked::Asks(questions) => Ok(questions.into()),
            Worked::Replied(reply) => match reply.result {
                Err(error) if error.kind == ErrorKind::NotFound => Err(resources::not_found(&params.uri)),
                _ => Ok(resources::given(&info, &params.uri, output_of(*reply)?).into()),
            },
        }
    }

    /// Calls the tool, and tells the client what the tool tells while it runs.
    async fn work(&self, work: Work<'_>, context: &RequestContext<RoleServer>) -> Result<Worked, ErrorData> {
        let session = &self.session;
        let rounds = Revision::of(context.protocol_version().as_ref()) == Revision::AnyValue;
        // As the client sent them, before anything looks at them: a state is for this very call.
        let purpose =
            rounds.then(|| Purpose::new(session.tenant(), session.user(), work.method, work.subject, &work.arguments));
        let (exchange, mut told) = match &purpose {
            Some(purpose) => {
                let given = work.state.as_deref().map(|state| self.seal.open(purpose, state)).transpose()?;
                Exchange::in_rounds(context, work.responses.unwrap_or_default(), given.unwrap_or_default())
            }
            None => Exchange::inline(context, self.level()),
        };
        let peer = std::sync::Arc::clone(&exchange) as std::sync::Arc<dyn toolbay_api::Peer>;
        let call = session.call_for(peer, work.tool, work.arguments);
        tokio::pin!(call);
        let reply = loop {
            tokio::select! {
                biased;
                Some(next) = told.recv() => tell(context, next).await,
                reply = &mut call => break reply,
                // Nobody reads this answer: the client gave up or is gone.
                () = context.ct.cancelled() => return Err(ErrorData::internal_error("the call was cancelled", None)),
            }
        };
        tell_the_rest(context, &mut told).await;
        let unanswered = reply.result.as_ref().err().and_then(|error| exchange.unanswered(error));
        match (unanswered, purpose) {
            (Some(Unanswered::Missing(capabilities)), _) => {
                Err(ErrorData::missing_required_client_capability(capabilities))
            }
            (Some(Unanswered::Open { questions, given }), Some(purpose)) => {
                let state = self.seal.seal(&purpose, &given)?;
                Ok(Worked::Asks(InputRequiredResult::new(Some(questions), Some(state))))
            }
            _ => Ok(Worked::Replied(Box::new(reply))),
        }
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

/// The name is the client's own; only as much of it is given back as a name can have.
fn unknown_tool(name: &str) -> ErrorData {
    let name: String = name.chars().take(128).collect();
    ErrorData::invalid_params(format!("Unknown tool: {name}; tools/list has those that there are"), None)
}
