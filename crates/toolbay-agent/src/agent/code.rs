//! What a driver does about calls of `run_code`: it lets their programs make calls, counts these, and keeps what a program
//! that waits was answered.

use std::sync::Arc;

use tokio::time::Instant;
use toolbay_api::{Peer, ToolCall, ToolDefinition};
use toolbay_runtime::{Approval, Run, ToolInfo};

use super::{
    Agent, ToolRetries,
    drive::Drive,
    retry::{self, Attempt},
};
use crate::{
    code::{CodeMode, CodeReply, CodeTurn, RUN_CODE, is_run_code},
    search::is_search,
};

/// What a call is made with.
pub(super) struct Turn {
    /// Where it is one of `run_code`, and its program may call tools.
    code: Option<(CodeMode, CodeTurn)>,
    given: Vec<Approval>,
    retries: Option<ToolRetries>,
    ends: Option<Instant>,
}

impl Turn {
    /// Makes the call.
    pub(super) async fn make(self, run: &Run, step: u32, call: ToolCall, peer: Option<Arc<dyn Peer>>) -> CodeReply {
        match self.code {
            // Nobody is told of a program's progress but by the calls that it makes.
            Some((mode, turn)) => mode.call(run, step, call, CodeTurn { given: self.given, ..turn }).await,
            None => {
                let attempt = Attempt { step, call, given: self.given, peer };
                let reply = retry::call(run, attempt, self.retries.as_ref(), self.ends).await;
                CodeReply { reply, calls: Vec::new(), exhausted: None, journal: None }
            }
        }
    }
}

impl Drive<'_> {
    /// What a call is made with, with the approvals that there are for it.
    pub(super) fn turn(&mut self, call: &ToolCall) -> Turn {
        let given = self.given(&call.id);
        let is_code = self.tool(&call.name).is_some_and(|tool| is_run_code(tool.definition.name.as_str()));
        let (retries, ends) = (self.agent.config.tool_retries.clone(), self.ends);
        let Some(mode) = self.agent.config.code.as_ref().filter(|_| is_code) else {
            return Turn { code: None, given, retries, ends };
        };
        let mut allowance = self.stepper.allowance();
        allowance.day.clone_from(&self.agent.config.day);
        let journal = self.decided.journals.remove(&call.id).unwrap_or_default();
        Turn { code: Some((mode.clone(), CodeTurn { allowance, journal, given: Vec::new() })), given, retries, ends }
    }

    /// Counts what a program called, and keeps what it was answered, where it waits.
    pub(super) fn note_code(&mut self, call: &str, made: &mut CodeReply) {
        let CodeReply { calls, exhausted, journal, .. } = made;
        self.stepper.called_inside(calls, exhausted.take());
        if let Some(journal) = journal.take() {
            self.decided.journals.insert(call.to_owned(), journal);
        }
    }

    /// The words for a call that waited and cannot be waited for any longer.
    pub(super) fn given_up(&self, call: &str, why: &str) -> String {
        match self.decided.journals.get(call) {
            Some(journal) if !journal.is_empty() => format!(
                "the program was ended where a call needs approval, and {why}. What it called before has had its effect: {}. Go \
                 on without the rest.",
                journal.asked().collect::<Vec<_>>().join(", ")
            ),
            _ => format!("not called: it needs approval, and {why}. Go on without it."),
        }
    }
}

/// The tools that a model in code mode is given: `run_code`, what is to stand beside it, and the search where the functions do
/// not all stand in its description. `None` without code mode.
pub(super) fn tools_for_code<'a>(agent: &Agent, run: &'a Run) -> Option<Vec<&'a ToolInfo>> {
    let code = agent.config.code.as_ref()?;
    let tools = run.tools();
    tools.iter().find(|tool| tool.definition.name == *RUN_CODE)?;
    let many = agent.config.search.as_ref().is_some_and(|search| tools.len() > search.over) || !code.lists_all(run);
    let is_given = |tool: &&ToolInfo| {
        let name = tool.definition.name.as_str();
        is_run_code(name) || code.is_beside(name) || (many && is_search(name))
    };
    Some(tools.iter().filter(is_given).collect())
}

/// `run_code` as the model is told of it; `None` for every other tool, and without code mode.
pub(super) fn definition(agent: &Agent, run: &Run, tool: &ToolInfo) -> Option<ToolDefinition> {
    let code = agent.config.code.as_ref().filter(|_| is_run_code(tool.definition.name.as_str()))?;
    code.definition(run)
}
