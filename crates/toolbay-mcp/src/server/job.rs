//! One call of a tool with everything that it needs to go on by itself, once nobody waits for it.

use std::{pin::Pin, sync::Arc};

use rmcp::{ErrorData, model::CallToolResult};
use serde_json::Value;
use tokio::sync::mpsc;
use toolbay_api::{Peer, QuestionKind};
use toolbay_runtime::{Approval, Reply, Session};

use crate::{
    approvals,
    exchange::{Exchange, Told, Unanswered},
    options::Shared,
    owner::Owner,
    tasks::{Outcome, Running},
    tools::{self, Bounds, Revision},
};

/// How often a user is asked to approve one call: a hook that changes its mind each time must not ask for ever.
const MAX_ASKED: usize = 8;

/// A call to be made.
pub(super) struct Call {
    pub(super) session: Session,
    pub(super) exchange: Arc<Exchange>,
    pub(super) tool: String,
}

/// What a call's answer is made with.
#[derive(Clone)]
pub(super) struct Ending {
    pub(super) session: Session,
    pub(super) shared: Arc<Shared>,
    pub(super) owner: Owner,
    pub(super) revision: Revision,
    /// Whether the client knows links to resources.
    pub(super) links: bool,
    /// The tool, as the client called it.
    pub(super) tool: String,
}

impl Call {
    /// Takes the call down the road, with what was approved. Where the client's user can be asked while it waits, he is.
    pub(super) async fn made(self, arguments: Value, mut approvals: Vec<Approval>) -> Reply {
        let Self { session, exchange, tool } = self;
        let peer = || Arc::clone(&exchange) as Arc<dyn Peer>;
        if !exchange.answers(QuestionKind::Form) {
            return session.call_for(peer(), &tool, arguments).await;
        }
        for _ in 0..MAX_ASKED {
            let mut reply = session.call_waiting(Some(peer()), &tool, arguments.clone(), approvals).await;
            if reply.waits.is_empty() {
                return reply;
            }
            match approvals::ask(&session, &exchange, &reply.waits).await {
                // The question is this call's result.
                None => return reply,
                Some(Ok(decided)) => approvals = decided,
                Some(Err(error)) => {
                    reply.result = Err(error);
                    return reply;
                }
            }
        }
        session.call_for(peer(), &tool, arguments).await
    }
}

impl Ending {
    /// The answer.
    ///
    /// # Errors
    /// Invalid parameters for a tool that does not exist. One that the tenant or the user may not see must look just like
    /// that, whatever the road refused the call for. A tool's own `NotFound` (of a record, say) is told apart by the tool's
    /// being there.
    pub(super) fn result(&self, reply: Reply) -> Result<CallToolResult, ErrorData> {
        let info = || self.session.tool(&self.tool);
        if reply.is_error() && info().is_none() {
            return Err(unknown_tool(&self.tool));
        }
        let bounds = Bounds { results: &self.shared.results, owner: &self.owner, links: self.links };
        Ok(tools::result(reply, self.revision, &bounds, info))
    }
}

/// What is left of a call that has become a task.
pub(super) async fn as_task(
    mut job: Pin<Box<impl Future<Output = Reply>>>,
    mut told: mpsc::Receiver<Told>,
    exchange: Arc<Exchange>,
    running: Running,
    ending: Ending,
) {
    let reply = loop {
        tokio::select! {
            biased;
            () = running.cancelled() => break None,
            Some(next) = told.recv() => if let Told::Status(message) = next {
                running.say(&message);
            },
            reply = &mut job => break Some(reply),
        }
    };
    // Whoever reads that the task is over finds its call on record.
    drop(job);
    let Some(reply) = reply else { return running.end(Outcome::<CallToolResult>::Cancelled) };
    let unanswered = reply.result.as_ref().err().and_then(|error| exchange.unanswered(error));
    running.end(match unanswered {
        Some(Unanswered::Missing(capabilities)) => {
            Outcome::Error(ErrorData::missing_required_client_capability(capabilities))
        }
        _ => match ending.result(reply) {
            Ok(result) => Outcome::Result(result),
            Err(error) => Outcome::Error(error),
        },
    });
}

/// The name is the client's own; only as much of it is given back as a name can have.
fn unknown_tool(name: &str) -> ErrorData {
    let name: String = name.chars().take(128).collect();
    ErrorData::invalid_params(format!("Unknown tool: {name}; tools/list has those that there are"), None)
}
