//! Code mode: the model writes one program that calls the tenant's tools as functions, in the place of one request for each
//! call.
//!
//! `run_code` is a tool of the host like every other: hooks, schema, rights, limits and audit see the call, and every call
//! that the program makes takes the road as the run's own, with the outer call as its parent. The program runs in the sandbox
//! and in the tier that the tenant's own scripts run in. It may make calls only while a driver that knows of it waits for it,
//! by [`CodeMode::call`]: so not from other plugins, not inside another program, and not by a client from outside.

mod allowance;
mod bindings;
mod host;
mod journal;
mod names;
mod run;
mod script;
mod signature;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay_api::{
    CallId, ErrorKind, RunId, Tool, ToolCall, ToolContext, ToolDefinition, ToolError, ToolOutput, async_trait,
    hook::ToolMatcher, tool,
};
use toolbay_runtime::{Approval, Desk, Reply, Run, ToolInfo};

use crate::{
    budget::Exhausted,
    search::{DESCRIBE_TOOL, SEARCH_TOOLS},
};
use bindings::Bindings;
use script::{End, Script};

pub use allowance::Allowance;
pub use journal::{Journal, JournalBounds};

/// The name of the tool that runs programs.
pub const RUN_CODE: &str = "run_code";

/// What a program may do, and what the model is told.
#[derive(Debug, Clone)]
pub struct CodeSettings {
    /// Tool calls of one program. The run's own bounds count them too.
    pub max_calls: u32,
    /// Calls of one `parallel` that run at the same time.
    pub max_parallel: usize,
    /// Bytes of what one program prints; the rest is left out.
    pub max_printed_bytes: usize,
    /// Bytes of the functions in the tool's description. Where they do not fit, the model gets less of each.
    pub max_listing_bytes: usize,
    /// Tools that the model is given beside `run_code`, as without code mode.
    pub beside: ToolMatcher,
    /// Tools that never run beside others in a `parallel`. Those that are annotated as `destructive` never do.
    pub exclusive: ToolMatcher,
    /// How much of a program is kept for running it again.
    pub journal: JournalBounds,
}

impl Default for CodeSettings {
    /// 100 calls, 8 at once, 4 KiB printed, 16 KiB of functions, no tool beside.
    fn default() -> Self {
        let none: [&str; 0] = [];
        let none = ToolMatcher::new(none).unwrap_or_default();
        Self {
            max_calls: 100,
            max_parallel: 8,
            max_printed_bytes: 4 << 10,
            max_listing_bytes: 16 << 10,
            beside: none.clone(),
            exclusive: none,
            journal: JournalBounds::default(),
        }
    }
}

/// Code mode, for the drivers of runs. Clones share the programs that are under way.
#[derive(Clone)]
pub struct CodeMode {
    settings: Arc<CodeSettings>,
    // std's Mutex, not tokio's: nothing is awaited while it is held. An entry goes with the call that made it.
    admitted: Arc<Mutex<AdmittedCalls>>,
}

type AdmittedCalls = HashMap<(RunId, CallId), Arc<Admitted>>;

/// A call of `run_code` that a driver waits for.
struct Admitted {
    run: Run,
    step: u32,
    desk: Desk,
    allowance: Allowance,
    /// What the program was answered before, where it is run again.
    known: Journal,
    script: Mutex<Option<Arc<Script>>>,
}

/// What a call of `run_code` brings along.
#[derive(Debug, Clone, Default)]
pub struct CodeTurn {
    /// The calls that it may make.
    pub allowance: Allowance,
    /// What was decided about calls that it made and that wait.
    pub given: Vec<Approval>,
    /// What it was answered until then: the [`CodeReply::journal`] of the reply with which it came back.
    pub journal: Journal,
}

/// What came of one program.
#[derive(Debug)]
pub struct CodeReply {
    /// The reply to the call of `run_code`.
    pub reply: Reply,
    /// The tools that the program called, by their qualified names, in order.
    pub calls: Vec<String>,
    /// What of the run or of the tenant's day ran out, if that ended the program.
    pub exhausted: Option<Exhausted>,
    /// Where [`Reply::waits`] says that calls wait: what the program was answered so far, to go on from.
    pub journal: Option<Journal>,
}

/// Code mode and the tool that it takes: [`AgentConfig::code`](crate::AgentConfig::code) takes the one, `builder.tool(...)` the
/// other.
///
/// ```
/// # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Order { id: i64 }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use toolbay_agent::code::{CodeSettings, code_mode};
/// use toolbay_api::{ToolContext, tool};
/// use toolbay_runtime::Toolbay;
///
/// let total = tool("total", "An order's total", async |order: Order, _: ToolContext| Ok(order.id * 10));
/// let (code, run_code) = code_mode(CodeSettings::default());
/// let run = Toolbay::builder().tool(total).tool(run_code).build()?.session("acme")?.run();
/// let shown = code.definition(&run).ok_or("run_code is registered")?;
/// assert!(shown.description.contains("tools::total(#{id: int})  // An order's total"));
/// # Ok(()) }
/// ```
#[must_use]
pub fn code_mode(settings: CodeSettings) -> (CodeMode, impl Tool + 'static) {
    let mode = CodeMode { settings: Arc::new(settings), admitted: Arc::default() };
    let about = "Runs a program that calls tools as functions.";
    // Only its definition is used, which is made from the type: it is called by way of the code mode that knows the run.
    let typed = tool(RUN_CODE, about, async |_: Program, _: ToolContext| Ok(()));
    (mode.clone(), RunCode { definition: typed.definition().clone(), mode })
}

/// The tool.
struct RunCode {
    definition: ToolDefinition,
    mode: CodeMode,
}

#[async_trait]
impl Tool for RunCode {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    /// Its journal sees to it that nothing is done twice.
    fn resumes(&self) -> bool {
        true
    }

    async fn call(&self, arguments: serde_json::Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let Program { code } = serde_json::from_value(arguments)
            .map_err(|error| ToolError::new(ErrorKind::InvalidArguments, error.to_string()))?;
        let script = self.mode.begin(cx)?;
        run::run(&script, &code, cx).await.map(ToolOutput::new)
    }
}

/// The arguments of `run_code`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Program {
    /// The program, in Rhai.
    #[schemars(length(min = 1))]
    code: String,
}

impl CodeMode {
    /// What programs may do.
    #[must_use]
    pub fn settings(&self) -> &CodeSettings {
        &self.settings
    }

    /// `run_code` as the model of `run` is to be given it, with the functions that there are. `None` where the run has no such
    /// tool.
    #[must_use]
    pub fn definition(&self, run: &Run) -> Option<ToolDefinition> {
        let tools = run.tools();
        let own = tools.iter().find(|tool| is_run_code(tool.definition.name.as_str()))?;
        let can_search =
            [SEARCH_TOOLS, DESCRIBE_TOOL].iter().all(|name| tools.iter().any(|tool| tool.definition.name == **name));
        let listing = bindings(tools).listing(self.settings.max_listing_bytes, can_search);
        let most = self.settings.max_calls;
        let mut definition = ToolDefinition::clone(&own.definition);
        definition.description = format!("{ABOUT}At most {most} calls in one program.\n\nFunctions:\n{listing}");
        Some(definition)
    }

    /// Whether the description of `run_code` has all functions with what they do.
    pub(crate) fn lists_all(&self, run: &Run) -> bool {
        bindings(run.tools()).fits(self.settings.max_listing_bytes)
    }

    /// Whether the model is given `tool` beside `run_code`.
    pub(crate) fn is_beside(&self, tool: &str) -> bool {
        self.settings.beside.matches(tool)
    }

    /// Takes a model's call of `run_code` down the road, and lets its program call the run's tools.
    ///
    /// Where calls of the program need approval the reply has them as [`waits`](Reply::waits). The same call, made with what was
    /// decided and with the reply's journal, runs the program again from its beginning: what it asked before is answered from
    /// the journal, and nothing is called twice.
    ///
    /// # Cancel safety
    /// Dropping the future drops the program where it stands, and the calls that it waits for.
    pub async fn call(&self, run: &Run, step: u32, call: ToolCall, turn: CodeTurn) -> CodeReply {
        let CodeTurn { allowance, given, journal: known } = turn;
        let key = (run.id(), CallId::new(call.id.as_str()));
        let desk = Desk::new(key.1.clone(), given);
        let (own, script) = (desk.clone(), Mutex::default());
        let admitted = Arc::new(Admitted { run: run.clone(), step, desk, allowance, known, script });
        self.lock().insert(key.clone(), Arc::clone(&admitted));
        let _forget = Forget { mode: self, key };
        let mut reply = run.call_at(&own, step, call, None).await;
        let script = admitted.script();
        let end = script.as_ref().and_then(|script| script.end_so_far());
        if let Some(End::Stopped(stop)) = &end {
            reply.stop.get_or_insert_with(|| stop.clone());
        }
        // A program that is not even begun, since its own call waits, keeps what it had.
        let so_far = || script.as_ref().map_or_else(|| admitted.known.clone(), |script| script.journal());
        let journal = (!reply.waits.is_empty()).then(so_far);
        let calls = script.as_ref().map(|script| script.new_calls()).unwrap_or_default();
        CodeReply { reply, calls, exhausted: end.and_then(End::exhausted), journal }
    }

    /// The program of a call that a driver waits for.
    ///
    /// # Errors
    /// `PermissionDenied` for every other call.
    fn begin(&self, cx: &ToolContext) -> Result<Arc<Script>, ToolError> {
        let key = (cx.run(), cx.call().clone());
        let admitted = self.lock().get(&key).filter(|_| cx.depth() == 0).map(Arc::clone);
        let Some(admitted) = admitted else {
            let text =
                "run_code is for the model of an agent in code mode, and for nobody else: call the tools themselves";
            return Err(ToolError::new(ErrorKind::PermissionDenied, text));
        };
        let Admitted { run, step, desk, allowance, known, .. } = &*admitted;
        let settings = Arc::clone(&self.settings);
        let (desk, allowance, known) = (desk.clone(), allowance.clone(), known.clone());
        let script = Arc::new(Script::new(settings, run.clone(), *step, cx.clone(), desk, allowance, known));
        *admitted.script.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&script));
        Ok(script)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RunId, CallId), Arc<Admitted>>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    fn script(&self) -> Option<Arc<Script>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl End {
    fn exhausted(self) -> Option<Exhausted> {
        if let Self::Exhausted(exhausted) = self { Some(exhausted) } else { None }
    }
}

/// Takes an admission back.
struct Forget<'a> {
    mode: &'a CodeMode,
    key: (RunId, CallId),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.mode.lock().remove(&self.key);
    }
}

impl fmt::Debug for CodeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeMode").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whether a tool is the one here.
pub(crate) fn is_run_code(name: &str) -> bool {
    name == RUN_CODE
}

fn bindings(tools: &[ToolInfo]) -> Bindings {
    Bindings::new(tools.iter().map(|tool| (Arc::clone(&tool.provider_name), Arc::clone(&tool.definition))))
}

/// The signature of a tool as a function, where `tools` are a run's and `run_code` is one of them.
pub(crate) fn signature_in(tools: &[(Arc<str>, Arc<ToolDefinition>)], tool: &str) -> Option<String> {
    let has_code = tools.iter().any(|(_, tool)| is_run_code(tool.name.as_str()));
    has_code.then(|| Bindings::new(tools.iter().cloned()).signature_of(tool)).flatten()
}

/// What the model is told of programs, whatever the tools.
const ABOUT: &str = r#"Runs a Rhai program that calls tools as functions. Use it for everything that takes several calls or a loop, and return only what matters: what a tool gives stays in the program unless the program returns or prints it.
The last expression is the result; print(x) is shown beside it. Rhai: let x = 1; maps #{a: 1, "b c": 2}; arrays [1, 2]; `text ${x}`; for v in list { } ; if a == b { } else { }; list.map(|v| v.n), .filter(|v| v.ok), .len(), .push(v); m.key; () is null; if "k" in m { }.
Call: space::name(#{key: value}). Required parameters can also be given by their places where there are few of them: space::name(value). `?:` marks what may be left out.
A tool that fails throws #{kind, message}: let r = (); try { r = space::name(1); } catch (e) { r = e.message; } (try has no value of its own). parallel([#{tool: "space::name", args: #{...}}, ...]) makes several calls at once and gives #{ok: value} or #{error: #{kind, message}} for each, in order; nothing is thrown.
An error comes back with line, column and the calls that were made before it; those have had their effect.
"#;
