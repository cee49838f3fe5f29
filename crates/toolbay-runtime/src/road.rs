//! The road of a tool call: look-up, hooks in, schema, grants, approval, meter, plugin, shape, hooks out, reply.
//!
//! Every call takes it, whoever makes it: a model, an MCP client, a script inside another call. Steps 3 to 6 and 8 are
//! code and not hooks, so that nobody can register them away or put them in another order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use toolbay_api::{
    CallId, CancelFlag, Content, ErrorKind, Execution, HookPoint, Limit, Limits, Peer, ToolContext, ToolContextParts,
    ToolError, ToolName, ToolOutput,
    hook::{AfterToolCall, AfterToolCallOutcome, BeforeToolCall, BeforeToolCallOutcome, ErrorOrigin, OnError},
};
use tracing::{Instrument, Span};

use crate::{
    approval::{self, Ask, AskedBy, Desk, PendingApproval, Verdict},
    audit::{ApprovalRecord, ApprovalStage, AuditRecord, Decision},
    call_host::CallHost,
    callers,
    catalog::{HookEntry, Owner, ToolEntry},
    contract::Passed,
    events::Origin,
    gates::{Asking, Stop, Undecided},
    guarded::{Failure, guarded, now},
    health::Trial,
    meter::Permit,
    observe::RunEvent,
    outcomes::{self, Entrance, Once},
    redact::Redactor,
    reply::{CallMetadata, Reply},
    run::Run,
    shape, trace,
};

/// One call at the start of the road.
pub(crate) struct Trip {
    pub(crate) step: u32,
    pub(crate) call: CallId,
    pub(crate) name: String,
    pub(crate) arguments: Value,
    /// Tool calls that this one is made from inside of.
    pub(crate) depth: u32,
    /// The plugin that makes it; `None` from outside of plugins.
    pub(crate) caller: Option<Arc<Owner>>,
    /// When the call around this one ends.
    pub(crate) deadline: Option<Instant>,
    /// Whether an error hook made it, however far up: its errors are shown to no error hook.
    pub(crate) of_error_hook: bool,
    /// Secrets that the call around it has read, and that this one reads.
    pub(crate) redactor: Redactor,
    /// The events that it follows from, and those that are told in it will.
    pub(crate) origin: Origin,
    /// The program that made it, where that can be told and asked.
    pub(crate) peer: Option<Arc<dyn Peer>>,
    /// The arguments that a hook contract let through, once it has.
    pub(crate) let_through: Option<Value>,
    /// The span of the call that this one is made from, since the work may go on elsewhere; else the current one counts.
    pub(crate) within: Option<Span>,
    /// The call that this one is made inside of.
    pub(crate) parent: Option<CallId>,
    /// Where its caller has decisions and waits for them, if it can.
    pub(crate) desk: Option<Desk>,
    /// What it is known by where it comes again; only calls that a run makes by its own ids are.
    pub(crate) once: Option<Once>,
}

impl Trip {
    /// A call that is made from inside of no other.
    pub(crate) fn from_outside(step: u32, call: CallId, name: String, arguments: Value) -> Self {
        Self {
            step,
            call,
            name,
            arguments,
            depth: 0,
            caller: None,
            deadline: None,
            of_error_hook: false,
            redactor: Redactor::default(),
            origin: Origin::CALL,
            peer: None,
            let_through: None,
            within: None,
            parent: None,
            desk: None,
            once: None,
        }
    }

    /// Whether a plugin makes it, inside a call of its own. A call that is made as the run's own is none, however deep it lies.
    pub(crate) fn is_inside(&self) -> bool {
        self.caller.is_some()
    }

    /// For a caller that can wait for approvals.
    pub(crate) fn at(mut self, desk: Desk) -> Self {
        self.desk = Some(desk);
        self
    }

    pub(crate) fn once(mut self, once: Once) -> Self {
        self.once = Some(once);
        self
    }

    pub(crate) fn for_peer(mut self, peer: Option<Arc<dyn Peer>>) -> Self {
        self.peer = peer;
        self
    }
}

/// A call that has passed steps 1 to 6: the only value that [`run_plugin`] takes.
struct Admitted<'a> {
    entry: &'a ToolEntry,
    arguments: Value,
    cx: ToolContext,
    cancel: CancelFlag,
    timeout: Duration,
    permit: Permit,
    /// Held until the plugin has answered, where this call is the one that tells whether it is back.
    trial: Option<Trial>,
}

/// Why a call did not reach its plugin.
enum Turned {
    Answered(ToolOutput),
    Refused(ToolError),
    Stopped(Stop),
    Waits(Box<PendingApproval>),
}

/// A call on the road. Where it is given up on the way, the audit learns of it all the same.
struct Travelling<'a> {
    run: &'a Run,
    entry: Option<&'a Arc<ToolEntry>>,
    trip: Trip,
    decisions: Vec<Decision>,
    started: Instant,
    span: Span,
    has_ended: bool,
}

impl Travelling<'_> {
    fn tool(&self) -> Arc<str> {
        self.entry.map_or_else(|| Arc::from(self.trip.name.as_str()), |entry| entry.info.definition.name.shared())
    }

    /// Leaves the call's one audit record.
    fn record(&mut self, raw: Option<&Result<ToolOutput, ToolError>>, reply: &Result<ToolOutput, ToolError>) {
        self.has_ended = true;
        let Self { run, entry, trip, decisions, started, span, .. } = self;
        trace::call_ended(span, run, entry.map(|entry| entry.owner.name.as_str()), reply);
        let Some(audit) = &run.inner().audit else { return };
        audit.record(&AuditRecord {
            caller: run.caller(),
            call: &trip.call,
            parent: trip.parent.as_ref(),
            tool: entry.map_or(&trip.name, |entry| entry.info.definition.name.as_str()),
            plugin: entry.map(|entry| (entry.owner.name.as_str(), entry.owner.version.to_string())),
            served_by: entry.and_then(|entry| entry.info.served_by.as_ref()).map(ToolName::as_str),
            depth: trip.depth,
            raw,
            reply,
            decisions,
            duration: now().saturating_duration_since(*started),
        });
    }
}

impl Drop for Travelling<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let given_up = ToolError::new(ErrorKind::Cancelled, "the caller gave the call up before it ended");
            self.record(None, &Err(given_up));
        }
    }
}

/// Takes one call down the road.
///
/// # Cancel safety
/// Dropping the future gives the permit back and drops the plugin's future; no after-hook follows, since there is no reply.
/// The audit gets a record with the error `Cancelled`.
pub(crate) async fn travel(run: &Run, trip: Trip) -> Reply {
    let span = trace::of_call(run, &trip);
    way(run, trip, span.clone()).instrument(span).await
}

/// The road itself; `span` is the call's.
async fn way(run: &Run, trip: Trip, span: Span) -> Reply {
    run.await_room().await;
    let started = now();
    // 1 look-up: one snapshot for the whole run, the tenant's own first, then global.
    let entry = run.view().tool(&trip.name);
    let mut travelling = Travelling { run, entry, trip, decisions: Vec::new(), started, span, has_ended: false };
    let Travelling { trip, decisions, .. } = &mut travelling;
    let mut entered = 0;
    let (mut raw, mut stop, mut usage, mut waits) = (None, None, None, Vec::new());

    // Held to the end: who waits for the last call of a plugin waits for the hooks around it too.
    let busy = entry.map(|entry| entry.owner.life.enter(trip.depth > 0)).transpose();
    let mut result = match (entry, &busy) {
        (None, _) => Err(not_found(run, trip)),
        (Some(_), Err(error)) => Err(error.clone()),
        (Some(entry), Ok(_)) => {
            observe_look_up(run, trip, entry);
            // 2 to 6
            match admit(run, entry, trip, started, &mut entered, decisions).await {
                Ok(admitted) => match enter(run, trip, entry, &admitted).await {
                    Entrance::Answered(result) => {
                        run.record_answer(
                            &trip.call,
                            entry.info.definition.name.as_str(),
                            output_schema(entry),
                            &result,
                        );
                        result
                    }
                    Entrance::Open(ticket) => {
                        usage = Some(admitted.cx.clone());
                        // 7 plugin, 8 shape
                        let limits = Arc::clone(admitted.cx.limits());
                        // Hooks, schema and audit see what the caller may see: no secret that was read on the way.
                        let (answer, trial) = run_plugin(run, admitted, &trip.redactor).await;
                        let result = trip.redactor.result(answer).and_then(|output| kept(entry, &limits, output));
                        note_health(run, entry, started, result.as_ref().err());
                        drop(trial);
                        run.record_answer(
                            &trip.call,
                            entry.info.definition.name.as_str(),
                            output_schema(entry),
                            &result,
                        );
                        waits = waiting_inside(trip, entry, &result);
                        if let Some(ticket) = ticket {
                            ticket.settle(run, &result).await;
                        }
                        // The audit keeps the raw result, so it is copied where a hook may yet replace it.
                        let may_be_replaced = entered > 0 || trip.let_through.is_some();
                        raw = (run.inner().audit.is_some() && may_be_replaced).then(|| result.clone());
                        result
                    }
                },
                Err(Turned::Answered(output)) => shaped(entry, &effective_limits(run, entry), output),
                Err(Turned::Refused(error)) => Err(error),
                Err(Turned::Stopped(by)) => {
                    let error = stopped(&by);
                    stop = Some(by);
                    Err(error)
                }
                Err(Turned::Waits(pending)) => {
                    waits.push(*pending);
                    Err(ToolError::new(ErrorKind::ApprovalRequired, "this call waits for approval"))
                }
            }
        }
    };
    let mut feedback = None;
    // A call that waits has not failed, and has no reply yet that hooks could see.
    if let Err(error) = &result
        && !trip.of_error_hook
        && busy.is_ok()
        && waits.is_empty()
    {
        let origin = ErrorOrigin::Tool { call: trip.call.clone(), tool: trip.name.clone() };
        let input = OnError { origin, error: error.clone() };
        feedback = run.on_error_in(trip, &input, decisions).await;
    }

    // 9 hooks out: those entered, in reverse.
    if let Some(entry) = entry.filter(|_| waits.is_empty()) {
        let (replaced, stopped_after) = hooks_out(run, trip, entry, entered, result, decisions).await;
        result = replaced;
        stop = stop.or(stopped_after);
    }
    // What hooks made of it; the decisions are without secrets already.
    result = trip.redactor.result(result);
    stop = stop.map(|stop| stop.redacted(&trip.redactor));
    feedback = feedback.map(|text: String| trip.redactor.text(&text).into_owned());

    // 10 reply, audit.
    let usage = usage.as_ref().map(ToolContext::usage);
    let metadata = CallMetadata {
        duration: now().saturating_duration_since(started),
        operations: usage.map_or(0, toolbay_api::Usage::operations),
        peak_bytes: usage.map_or(0, toolbay_api::Usage::peak_bytes),
        host_calls: usage.map_or(0, toolbay_api::Usage::host_calls),
        isolation: usage.map_or_else(toolbay_api::Isolation::default, toolbay_api::Usage::isolation),
    };
    let call = trip.call.clone();
    travelling.record(raw.as_ref().or_else(|| usage.is_some().then_some(&result)), &result);
    // The call around it tells of what waits in it.
    if travelling.trip.depth == 0 {
        tell_of_waiting(run, &waits);
    }
    let reply = Reply { call, tool: travelling.tool(), result, metadata, stop, feedback, waits };
    if run.is_observed() && reply.waits.is_empty() {
        let (call, tool, result) = (reply.call.clone(), reply.tool.to_string(), Box::new(reply.to_wire()));
        run.observe(RunEvent::ToolCallFinished { call, tool, result });
    }
    reply
}

/// Steps 2 to 6. `entered` becomes the number of hooks around tool calls that the call went past.
async fn admit<'a>(
    run: &Run,
    entry: &'a ToolEntry,
    trip: &mut Trip,
    started: Instant,
    entered: &mut usize,
    decisions: &mut Vec<Decision>,
) -> Result<Admitted<'a>, Turned> {
    // 2 hooks in
    let Way { arguments, asks, answer } = hooks_in(run, entry, trip, entered, decisions).await?;
    if let Some(answer) = answer {
        // An answer is not given either before what hooks want approved is.
        if !asks.is_empty() {
            approve(run, entry, trip, &arguments, asks)?;
        }
        return Err(Turned::Answered(answer));
    }

    // 3 schema, on the arguments as the hooks left them
    let limits = effective_limits(run, entry);
    shape::check(&arguments, Limit::Arguments, limits.max_argument_bytes, limits.max_nesting)
        .map_err(Turned::Refused)?;
    entry.parameters.check_arguments(&arguments).map_err(Turned::Refused)?;
    if let Some(own) = &entry.serving {
        own.parameters.check_arguments(&arguments).map_err(Turned::Refused)?;
    }

    // 4 grants: whom the tool allows, and the user's rights. What the plugin itself may do is checked by its host at every effect.
    callers::check(entry, trip.caller.as_deref()).map_err(Turned::Refused)?;
    for right in entry.info.definition.required_permissions.iter() {
        if !run.inner().rights.covers(right.as_str()) {
            return Err(Turned::Refused(ToolError::new(
                ErrorKind::PermissionDenied,
                format!("the user lacks the right `{right}`, which this tool requires; an operator can give it"),
            )));
        }
    }

    // 5 approval: what hooks, policies and the tool's annotation want approved
    approve(run, entry, trip, &arguments, asks)?;

    // 6 meter
    run.inner().ward.check(run.tenant(), &entry.owner.name, started).map_err(Turned::Refused)?;
    let trial = entry.owner.vitals.admit(&entry.owner.name, run.tenant()).map_err(Turned::Refused)?;
    let permit = run.inner().meter.reserve(started).map_err(Turned::Refused)?;

    let timeout = entry.info.definition.timeout.map_or(limits.timeout, |own| own.min(limits.timeout));
    let deadline = trip.deadline.map_or(started + timeout, |outer| outer.min(started + timeout));
    let cancel = match entry.tool.execution() {
        Execution::Blocking => CancelFlag::armed(),
        Execution::Async => CancelFlag::default(),
    };
    let (owner, call, redactor) = (Arc::clone(&entry.owner), trip.call.clone(), trip.redactor.clone());
    let host = CallHost::new(run, owner, call, trip.depth, deadline, redactor)
        .of_error_hook(trip.of_error_hook)
        .telling_from(trip.origin)
        .within(Span::current())
        .asking_at(trip.desk.clone().filter(|_| entry.tool.resumes()));
    let cx = ToolContext::new(ToolContextParts {
        caller: Arc::clone(run.caller()),
        call: trip.call.clone(),
        depth: trip.depth,
        deadline,
        limits,
        idempotency_key: trip.once.map(|once| Arc::from(once.key.to_string())),
        host: Arc::new(host),
        cancelled: cancel.clone(),
        peer: trip.peer.clone(),
    });
    Ok(Admitted { entry, arguments, cx, cancel, timeout: deadline - started, permit, trial })
}

/// Step 5.
fn approve(run: &Run, entry: &ToolEntry, trip: &Trip, arguments: &Value, asks: Vec<Ask>) -> Result<(), Turned> {
    match approval::settle(run, entry, trip, arguments, asks) {
        Verdict::Go => Ok(()),
        Verdict::Refused(error) => Err(Turned::Refused(error)),
        Verdict::Waits(pending) => Err(Turned::Waits(pending)),
    }
}

/// What waits of the calls that a tool made, where that is why the tool ended and it may be called again.
fn waiting_inside(trip: &Trip, entry: &ToolEntry, result: &Result<ToolOutput, ToolError>) -> Vec<PendingApproval> {
    let ended = result.as_ref().is_err_and(|error| error.kind == ErrorKind::ApprovalRequired);
    let desk = trip.desk.as_ref().filter(|_| trip.depth == 0 && ended && entry.tool.resumes());
    desk.map(Desk::waiting).unwrap_or_default()
}

fn tell_of_waiting(run: &Run, waits: &[PendingApproval]) {
    for pending in waits {
        if let Some(audit) = &run.inner().audit {
            let user = run.caller().user.as_deref();
            audit.approval(&ApprovalRecord { user, pending, stage: ApprovalStage::Asked });
        }
        if run.is_observed() {
            run.observe(RunEvent::ApprovalAsked { pending: Box::new(pending.clone()) });
        }
    }
}

/// How a call came past the hooks on its way in.
struct Way {
    arguments: Value,
    /// What they want approved.
    asks: Vec<Ask>,
    /// What one of them gives in the tool's place.
    answer: Option<ToolOutput>,
}

impl Way {
    fn with(arguments: Value) -> Self {
        Self { arguments, asks: Vec::new(), answer: None }
    }
}

/// Step 2: by priority, global before tenant; rewrites chain; whatever is not `continue`, `ask` or a rewrite turns the call.
async fn hooks_in(
    run: &Run,
    entry: &ToolEntry,
    trip: &mut Trip,
    entered: &mut usize,
    decisions: &mut Vec<Decision>,
) -> Result<Way, Turned> {
    let arguments = std::mem::take(&mut trip.arguments);
    let hooks = run.view().hooks_around_tools();
    if hooks.is_empty() && run.composition().is_none() {
        return Ok(Way::with(arguments));
    }
    // Hooks are shown no more than a tool would be: the caller, not the hook, is told of what is too much.
    let limits = effective_limits(run, entry);
    shape::check(&arguments, Limit::Arguments, limits.max_argument_bytes, limits.max_nesting)
        .map_err(Turned::Refused)?;
    if run.composition().is_some() {
        return match run.contract_pre_tool_call(entry, trip, arguments, decisions).await {
            Passed::Go(arguments) => Ok(Way::with(trip.let_through.insert(arguments).clone())),
            Passed::Refused(error) => Err(Turned::Refused(error)),
            Passed::Stopped(stop) => Err(Turned::Stopped(stop)),
        };
    }
    let definition = &entry.info.definition;
    let mut input = BeforeToolCall {
        call: trip.call.clone(),
        tool: definition.name.clone(),
        arguments,
        definition: Arc::clone(definition),
    };
    let point = HookPoint::BeforeToolCall;
    let asking = Asking::of_trip(run, trip, point);
    let mut asks = Vec::new();
    for hook in hooks {
        *entered += 1;
        let registration = &hook.registration;
        if !registration.points.contains(&point) || !concerns(hook, entry) {
            continue;
        }
        let name = &registration.name;
        let answer = {
            let sitting = asking.sit(hook);
            guarded(sitting.deadline(), registration.hook.before_tool_call(&input, &sitting.context())).await
        };
        let outcome = match asking.settle(hook, decisions, answer) {
            Ok(outcome) => outcome,
            Err(Undecided::PassedOver) => continue,
            Err(Undecided::Refused(error)) => return Err(Turned::Refused(error)),
        };
        match outcome {
            BeforeToolCallOutcome::Continue => asking.record(hook, decisions, "continue"),
            BeforeToolCallOutcome::Rewrite(arguments) => {
                asking.record(hook, decisions, "rewrite");
                input.arguments = arguments;
            }
            BeforeToolCallOutcome::Answer(output) => {
                asking.record(hook, decisions, "answer");
                return Ok(Way { arguments: input.arguments, asks, answer: Some(output) });
            }
            BeforeToolCallOutcome::Deny(reason) => {
                asking.record(hook, decisions, &format!("deny: {reason}"));
                return Err(Turned::Refused(ToolError::new(ErrorKind::DeniedByHook, format!("{name}: {reason}"))));
            }
            BeforeToolCallOutcome::Ask(what) => {
                asking.record(hook, decisions, &format!("ask: {what}"));
                // The hooks behind it are asked all the same: nobody need approve what one of them denies.
                asks.push(Ask { by: AskedBy::Hook(name.to_string()), reason: what });
            }
            BeforeToolCallOutcome::Stop(reason) => {
                asking.record(hook, decisions, &format!("stop: {reason}"));
                return Err(Turned::Stopped(Stop { by: Arc::clone(name), reason }));
            }
        }
    }
    Ok(Way { arguments: input.arguments, asks, answer: None })
}

/// Step 9: the hooks that were entered, in reverse, each with what the one before it left.
async fn hooks_out(
    run: &Run,
    trip: &Trip,
    entry: &ToolEntry,
    entered: usize,
    result: Result<ToolOutput, ToolError>,
    decisions: &mut Vec<Decision>,
) -> (Result<ToolOutput, ToolError>, Option<Stop>) {
    if run.composition().is_some() {
        return match &trip.let_through {
            Some(arguments) => run.contract_post_tool_call(entry, trip, arguments.clone(), result, decisions).await,
            None => (result, None),
        };
    }
    let Some(hooks) = run.view().hooks_around_tools().get(..entered).filter(|hooks| !hooks.is_empty()) else {
        return (result, None);
    };
    let tool = entry.info.definition.name.clone();
    let mut input = AfterToolCall { call: trip.call.clone(), tool, result };
    let point = HookPoint::AfterToolCall;
    let asking = Asking::of_trip(run, trip, point);
    for hook in hooks.iter().rev() {
        let registration = &hook.registration;
        if !registration.points.contains(&point) || !concerns(hook, entry) {
            continue;
        }
        let answer = {
            let sitting = asking.sit(hook);
            guarded(sitting.deadline(), registration.hook.after_tool_call(&input, &sitting.context())).await
        };
        match asking.settle(hook, decisions, answer) {
            Ok(AfterToolCallOutcome::Keep) => asking.record(hook, decisions, "keep"),
            Ok(AfterToolCallOutcome::Replace(replaced)) => {
                asking.record(hook, decisions, "replace");
                input.result = replaced;
            }
            Ok(AfterToolCallOutcome::Stop(reason)) => {
                asking.record(hook, decisions, &format!("stop: {reason}"));
                let stop = Stop { by: Arc::clone(&registration.name), reason };
                return (Err(stopped(&stop)), Some(stop));
            }
            Err(Undecided::PassedOver) => {}
            // What the hook was to look at is withheld, and the hooks further out see that.
            Err(Undecided::Refused(error)) => input.result = Err(error),
        }
    }
    (input.result, None)
}

/// Before step 7: whether somebody answers in the plugin's place, since it was called before or is not to be called.
async fn enter(run: &Run, trip: &Trip, entry: &ToolEntry, admitted: &Admitted<'_>) -> Entrance {
    let definition = &entry.info.definition;
    match run.stand_in().filter(|_| trip.depth == 0) {
        Some(stand_in) => {
            Entrance::Answered(stand_in.answer(&trip.call, definition.name.as_str(), &admitted.arguments))
        }
        None => outcomes::enter(run, trip.once, definition, &admitted.arguments).await,
    }
}

fn output_schema(entry: &ToolEntry) -> Option<&Value> {
    entry.info.definition.output.as_ref()
}

/// Step 7: the plugin's own code, under the deadline, with its panics caught.
async fn run_plugin(
    run: &Run,
    admitted: Admitted<'_>,
    redactor: &Redactor,
) -> (Result<ToolOutput, ToolError>, Option<Trial>) {
    let Admitted { entry, arguments, cx, cancel, timeout, permit, trial } = admitted;
    if run.is_observed() {
        let (call, tool) = (cx.call().clone(), entry.info.definition.name.to_string());
        let mut arguments = run.arguments_for_the_record(&tool, &arguments);
        redactor.value(&mut arguments);
        run.observe(RunEvent::ToolCallStarted { call, tool, arguments });
    }
    let outcome = match entry.tool.execution() {
        Execution::Async => guarded(cx.deadline(), entry.tool.call(arguments, &cx)).await,
        Execution::Blocking => {
            let _cancel_when_dropped = CancelOnDrop(cancel);
            let span = Span::current();
            let (tool, cx_there, busy) = (Arc::clone(&entry.tool), cx.clone(), entry.owner.life.stay());
            let thread = tokio::task::spawn_blocking(move || {
                // Kept to the end of the thread, not of the wait: else a caller could fill all threads with late calls.
                let _kept = (permit, busy);
                span.in_scope(|| tool.call_blocking(arguments, &cx_there))
            });
            match guarded(cx.deadline(), thread).await {
                Ok(Ok(result)) => Ok(result),
                Ok(Err(lost)) => Err(Failure::Panicked(lost.to_string())),
                Err(failure) => Err(failure),
            }
        }
    };
    let answer = match outcome {
        Ok(result) => result,
        Err(Failure::TimedOut) => Err(ToolError::new(
            ErrorKind::TimedOut,
            format!("the tool did not answer within its {timeout:?}; ask for less at once or try again"),
        )),
        Err(Failure::Panicked(message)) => {
            let message = redactor.text(&message).into_owned();
            tracing::error!(target: "toolbay::road", tool = %entry.info.definition.name, message, "a plugin panicked");
            let text = "the tool broke down; this is a fault of the tool, not of the arguments: tell the operator";
            Err(ToolError::new(ErrorKind::Panic, text).with_source(message))
        }
    };
    (answer, trial)
}

/// Tells a tool on a blocking thread that nobody waits for it any more.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Whether a hook is to be asked about a call: by the tool's name or, where that is an ability's operation, by the name of
/// the tool that serves it too. Else a guard of that tool could be gone round by way of the ability.
fn concerns(hook: &HookEntry, entry: &ToolEntry) -> bool {
    let tools = &hook.registration.tools;
    let own = entry.info.served_by.as_ref();
    tools.matches(entry.info.definition.name.as_str()) || own.is_some_and(|own| tools.matches(own.as_str()))
}

/// Step 8 for what a tool gave: where it serves an ability's operation, its own output schema holds too.
fn kept(entry: &ToolEntry, limits: &Limits, output: ToolOutput) -> Result<ToolOutput, ToolError> {
    match &entry.serving {
        Some(own) => shaped(own, limits, output).and_then(|output| shaped(entry, limits, output)),
        None => shaped(entry, limits, output),
    }
}

/// Step 8: bounds and the output schema.
fn shaped(entry: &ToolEntry, limits: &Limits, output: ToolOutput) -> Result<ToolOutput, ToolError> {
    shape::check(&output.data, Limit::Output, limits.max_output_bytes, limits.max_nesting)?;
    // What is shown counts like what is said, and has a bound of its own: it is sent beside the data.
    let shown: usize = output.content.iter().map(Content::bytes).fold(0, usize::saturating_add);
    if shown > limits.max_output_bytes {
        return Err(ToolError::limit(Limit::Output, limits.max_output_bytes as u64, shown as u64));
    }
    if let Some(schema) = &entry.output {
        let promise = if entry.serving.is_some() { "the ability's output schema" } else { "its own output schema" };
        schema.check_promise(&output.data, promise)?;
    }
    Ok(output)
}

/// The host's limits, lowered by the manifest (at registration) and by the tenant.
fn effective_limits(run: &Run, entry: &ToolEntry) -> Arc<Limits> {
    match &run.inner().tenant_limits {
        None => Arc::clone(&entry.owner.limits),
        Some(tenant) => Arc::new(entry.owner.limits.lowered_by(tenant)),
    }
}

/// Counts how a call ended, and says so where the plugin is not called any more for it: since it used more than it may,
/// or since it is not there.
fn note_health(run: &Run, entry: &ToolEntry, started: Instant, error: Option<&ToolError>) {
    let plugin = &entry.owner.name;
    if entry.owner.vitals.note(run.tenant(), now().saturating_duration_since(started), error) {
        tracing::warn!(target: "toolbay::health", tenant = %run.tenant(), %plugin, cause = ?error, "circuit open");
    }
    if let Some(error) = error {
        run.note_breach(&entry.owner, error);
    }
}

fn observe_look_up(run: &Run, trip: &Trip, entry: &ToolEntry) {
    if run.is_observed() {
        run.observe(RunEvent::ToolLookedUp {
            call: trip.call.clone(),
            tool: entry.info.definition.name.to_string(),
            plugin: entry.owner.name.clone(),
            scope: entry.owner.scope.clone(),
            served_by: entry.info.served_by.as_ref().map(ToString::to_string),
        });
    }
}

fn not_found(run: &Run, trip: &Trip) -> ToolError {
    let name = trip.name.as_str();
    if let Some(plugin) = run.view().switched_off(name) {
        let message = format!("the plugin {plugin} is switched off for this tenant, and its tools with it");
        return ToolError::new(ErrorKind::NotEnabled, message);
    }
    let near = run.view().suggestions(name, &run.inner().rights, trip.caller.as_deref());
    let shown: String = name.chars().take(80).collect();
    let hint = if near.is_empty() {
        "list the tools to see what there is".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    ToolError::new(ErrorKind::NotFound, format!("there is no tool called {shown:?}; {hint}"))
}

fn stopped(stop: &Stop) -> ToolError {
    ToolError::new(ErrorKind::DeniedByHook, format!("{} stopped the run: {}", stop.by, stop.reason))
}
