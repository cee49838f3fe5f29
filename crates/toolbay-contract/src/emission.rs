//! One moment of a run, asked and settled by the contract's own implementation.
//!
//! An emitter is made for each moment rather than for each run: hooks that stand at a moment depend on the tool and on what
//! the tenant has switched on, calls run beside each other, and an emitter belongs to one of them at a time.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_hooks::{
    AgentContext, AgentContextBuilder, ApprovalRequest, ApprovalResolution, ApprovalResolver, Decision, Evidence,
    HostError, IdentityProvider, InterceptionEmitter, InterceptionRecord, Interceptor, Transform, Verdict, Warning,
};
use serde_json::Value;
use toolbay_api::{async_trait, interception::Remarks};
use toolbay_runtime::contract::{Composition, Denial, Moment, Settled, Vote, Voter};

use crate::{
    change::change,
    settings::{AgentHooks, Identity},
};

/// The moments of one run.
pub(crate) struct Emissions {
    settings: AgentHooks,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    moments: Mutex<AgentContextBuilder>,
}

impl Emissions {
    pub(crate) fn new(settings: AgentHooks, moments: AgentContextBuilder) -> Self {
        Self { settings, moments: Mutex::new(moments) }
    }

    fn context(&self, moment: Moment) -> AgentContext {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        match moment {
            Moment::AgentStartup { tools } => moments.agent_startup(tools),
            Moment::Input { content, role } => moments.input(content, role),
            Moment::PreModelCall { model, messages } => moments.pre_model_call(&model, messages),
            Moment::PostModelCall { model, response } => {
                let part = |key: &str| response.get(key).cloned().unwrap_or_default();
                let calls = part("tool_calls").as_array().cloned().unwrap_or_default();
                let finish = part("finish_reason");
                moments.post_model_call(&model, part("content"), calls, finish.as_str().unwrap_or("other"))
            }
            Moment::PreToolCall { call, tool, arguments } => moments.pre_tool_call(&call, &tool, arguments),
            Moment::PostToolCall { call, tool, arguments, value, is_error } => {
                moments.post_tool_call(&call, &tool, arguments, value, is_error)
            }
            Moment::Output { content } => moments.output(content),
            Moment::AgentShutdown { reason } => moments.agent_shutdown(reason),
        }
    }

    fn emitter(&self) -> Result<InterceptionEmitter, HostError> {
        let AgentHooks { mode, composition, identity, resolver, approval_timeout, redactor, .. } = &self.settings;
        let resolver = resolver.as_ref().map(|resolver| {
            let timed = Timed { resolver: Arc::clone(resolver), limit: *approval_timeout };
            Box::new(timed) as Box<dyn ApprovalResolver>
        });
        let mut emitter = InterceptionEmitter::new(*mode, resolver);
        emitter.set_composition(*composition);
        let provider = match identity {
            Identity::JcsSha256 => IdentityProvider::JcsSha256,
            Identity::Unbound => IdentityProvider::Null,
            Identity::Custom { name, function } => {
                let function = Arc::clone(function);
                IdentityProvider::custom(name.clone(), move |context| function(context)).map_err(|(error, _)| error)?
            }
        };
        emitter.set_identity_provider(provider).map_err(|(error, _)| error)?;
        if let Some(redactor) = redactor {
            let redactor = Arc::clone(redactor);
            emitter.set_approval_redactor(move |context| redactor(context));
        }
        Ok(emitter)
    }
}

#[async_trait]
impl Composition for Emissions {
    async fn compose(&self, moment: Moment, voters: Vec<Voter>) -> Settled {
        let mut context = self.context(moment);
        let mut emitter = match self.emitter() {
            Ok(emitter) => emitter,
            Err(error) => return Settled { target: Value::Null, denied: Some(failure(&error)) },
        };
        let late: Vec<_> = voters.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        for (voter, late) in voters.into_iter().zip(&late) {
            let name = Some(voter.name().to_owned());
            emitter.register_at(Box::new(Seat { voter, late: Arc::clone(late) }), name, None);
        }
        let mut record = emitter.emit_unchecked(&mut context).await;
        record.declaration.clone_from(&self.settings.declaration);
        name_the_late(&mut record, &late);
        if let Some(sink) = &self.settings.records {
            sink(&record);
        }
        tracing::debug!(
            target: "toolbay::contract", point = %record.interception_point, verdict = record.verdict.decision.as_str(),
            reason = record.verdict.reason, identity = record.input_identity, "settled",
        );
        let denied = (!record.proceeds()).then(|| denial(&record));
        Settled { target: context.remove("target").unwrap_or_default(), denied }
    }
}

/// A hook in the contract's circle.
struct Seat {
    voter: Voter,
    late: Arc<AtomicBool>,
}

#[async_trait]
impl Interceptor for Seat {
    async fn intercept(&self, context: &AgentContext) -> Verdict {
        match self.voter.vote(context).await {
            Vote::Allow(remarks) => with_remarks(Verdict::allow(), remarks),
            Vote::Deny { reason, liftable: true, remarks } => {
                with_remarks(Verdict::escalate(Some(reason), None), remarks)
            }
            Vote::Deny { reason, liftable: false, remarks } => with_remarks(Verdict::deny(Some(reason), None), remarks),
            Vote::Rewrite { target, remarks } => {
                let verdict = with_remarks(Verdict::allow(), remarks);
                match change(context.get("target").unwrap_or(&Value::Null), &target) {
                    None => verdict,
                    Some((path, value)) => {
                        Verdict { decision: Decision::Transform, transform: Some(Transform { path, value }), ..verdict }
                    }
                }
            }
            // A verdict that fails the contract's own check, which is what makes it a no.
            Vote::Illegal => Verdict { decision: Decision::Transform, ..Verdict::allow() },
            // The trait has no way to fail but this one, which its caller catches; no panic hook runs for it.
            Vote::Failed => resume_unwind(Box::new("the hook failed")),
            Vote::Late => {
                self.late.store(true, Ordering::Relaxed);
                resume_unwind(Box::new("the hook was late"))
            }
        }
    }
}

/// A resolver under a time limit.
struct Timed {
    resolver: Arc<dyn ApprovalResolver>,
    limit: Option<Duration>,
}

#[async_trait]
impl ApprovalResolver for Timed {
    async fn resolve(&self, request: ApprovalRequest<'_>) -> ApprovalResolution {
        let Some(limit) = self.limit else { return self.resolver.resolve(request).await };
        match tokio::time::timeout(limit, self.resolver.resolve(request)).await {
            Ok(resolution) => resolution,
            // As above: the caller takes it for a resolver that failed, which is a no.
            Err(_elapsed) => resume_unwind(Box::new("the approval came too late")),
        }
    }
}

fn with_remarks(verdict: Verdict, remarks: Remarks) -> Verdict {
    let Remarks { reason, warnings, labels, evidence, .. } = remarks;
    let warning = |(reason, message)| Warning { reason: Some(reason), message: Some(message) };
    Verdict {
        reason: verdict.reason.or(reason),
        warnings: warnings.into_iter().map(warning).collect(),
        result_labels: labels,
        evidence: evidence.map(|evidence| Evidence {
            artefact: evidence.artefact,
            verification_pointers: evidence.verification_pointers,
        }),
        ..verdict
    }
}

/// The contract's implementation knows one time limit for all; ours have one each, so who was late is known here alone.
fn name_the_late(record: &mut InterceptionRecord, late: &[Arc<AtomicBool>]) {
    let failed = HostError::InterceptorFailed.to_string();
    let was_late = |index: Option<u32>| {
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| late.get(index)).is_some_and(|late| late.load(Ordering::Relaxed))
    };
    let named = |reason: &mut Option<String>, index| {
        if reason.as_ref() == Some(&failed) && was_late(index) {
            *reason = Some(HostError::InterceptorTimeout.to_string());
        }
    };
    named(&mut record.verdict.reason, record.decided_by);
    for summary in &mut record.verdicts {
        named(&mut summary.reason, Some(summary.index));
    }
}

fn denial(record: &InterceptionRecord) -> Denial {
    let reason = record.verdict.reason.clone().unwrap_or_else(|| "denied without a reason".to_owned());
    Denial {
        is_failure: reason.starts_with("host_error:"),
        reason,
        // The record's message of a failure is for operators.
        message: None,
        by: record.decided_by.and_then(|index| usize::try_from(index).ok()),
    }
}

fn failure(error: &HostError) -> Denial {
    Denial { reason: error.to_string(), message: None, by: None, is_failure: true }
}
