//! A hook that stands everywhere, writes down where it was asked, and answers as told at one point.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{
    Hook, HookContext, HookError, HookPoint, HookRegistration, ToolOutput,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, BeforeAgentRun, BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome,
        BeforeToolCall, BeforeToolCallOutcome, HookResult, OnError, OnErrorOutcome, ReasoningStep,
        ReasoningStepOutcome,
    },
};

/// What a [`ScriptedHook`] does at a point. What is not legal there counts as going on.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the outcomes of the points")]
pub enum Answer {
    GoOn,
    Deny(String),
    Stop(String),
    Ask(String),
    /// New arguments, or new text of a run's answer.
    Rewrite(Value),
    Answer(Value),
    Replace(Value),
    Feedback(String),
    /// It cannot decide.
    Fail(String),
    Panic,
    /// It never answers.
    Hang,
}

/// A hook that stands at all points and answers as told at one.
pub struct ScriptedHook {
    at: Option<(HookPoint, Answer)>,
    asked: Arc<Mutex<Vec<HookPoint>>>,
}

impl ScriptedHook {
    /// A hook that goes on everywhere.
    #[must_use]
    pub fn passive() -> Self {
        Self { at: None, asked: Arc::default() }
    }

    /// A hook that gives `answer` at `point` and goes on elsewhere.
    #[must_use]
    pub fn at(point: HookPoint, answer: Answer) -> Self {
        Self { at: Some((point, answer)), asked: Arc::default() }
    }

    /// The points at which it was asked, as they come to be known.
    #[must_use]
    pub fn asked(&self) -> Arc<Mutex<Vec<HookPoint>>> {
        Arc::clone(&self.asked)
    }

    /// The hook in its place at all eight points.
    #[must_use]
    pub fn everywhere(self, name: &str) -> HookRegistration {
        HookRegistration::new(name, HookPoint::ALL, self)
    }

    #[allow(clippy::panic, reason = "to panic is what this hook is told")]
    async fn answer(&self, point: HookPoint) -> HookResult<Answer> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(point);
        match &self.at {
            Some((at, answer)) if *at == point => match answer {
                Answer::Fail(message) => Err(HookError::new(message.clone())),
                Answer::Panic => panic!("told to panic"),
                Answer::Hang => std::future::pending().await,
                answer => Ok(answer.clone()),
            },
            _ => Ok(Answer::GoOn),
        }
    }
}

#[async_trait]
impl Hook for ScriptedHook {
    async fn before_agent_run(&self, _: &BeforeAgentRun, _: &HookContext<'_>) -> HookResult<BeforeAgentRunOutcome> {
        Ok(match self.answer(HookPoint::BeforeAgentRun).await? {
            Answer::Stop(reason) => BeforeAgentRunOutcome::Stop(reason),
            _ => BeforeAgentRunOutcome::Continue,
        })
    }

    async fn after_agent_run(&self, _: &AfterAgentRun, _: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        Ok(match self.answer(HookPoint::AfterAgentRun).await? {
            Answer::Stop(reason) => AfterAgentRunOutcome::Stop(reason),
            Answer::Rewrite(Value::String(text)) => AfterAgentRunOutcome::Rewrite(text),
            _ => AfterAgentRunOutcome::Continue,
        })
    }

    async fn before_model_call(&self, _: &BeforeModelCall, _: &HookContext<'_>) -> HookResult<BeforeModelCallOutcome> {
        Ok(match self.answer(HookPoint::BeforeModelCall).await? {
            Answer::Stop(reason) => BeforeModelCallOutcome::Stop(reason),
            _ => BeforeModelCallOutcome::Continue,
        })
    }

    async fn after_model_call(&self, _: &AfterModelCall, _: &HookContext<'_>) -> HookResult<AfterModelCallOutcome> {
        Ok(match self.answer(HookPoint::AfterModelCall).await? {
            Answer::Stop(reason) => AfterModelCallOutcome::Stop(reason),
            _ => AfterModelCallOutcome::Continue,
        })
    }

    async fn before_tool_call(&self, _: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(match self.answer(HookPoint::BeforeToolCall).await? {
            Answer::Deny(reason) => BeforeToolCallOutcome::Deny(reason),
            Answer::Stop(reason) => BeforeToolCallOutcome::Stop(reason),
            Answer::Ask(what) => BeforeToolCallOutcome::Ask(what),
            Answer::Rewrite(arguments) => BeforeToolCallOutcome::Rewrite(arguments),
            Answer::Answer(data) => BeforeToolCallOutcome::Answer(ToolOutput::new(data)),
            _ => BeforeToolCallOutcome::Continue,
        })
    }

    async fn after_tool_call(&self, _: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        Ok(match self.answer(HookPoint::AfterToolCall).await? {
            Answer::Replace(data) => AfterToolCallOutcome::Replace(Ok(ToolOutput::new(data))),
            Answer::Stop(reason) => AfterToolCallOutcome::Stop(reason),
            _ => AfterToolCallOutcome::Keep,
        })
    }

    async fn on_reasoning_step(&self, _: &ReasoningStep, _: &HookContext<'_>) -> HookResult<ReasoningStepOutcome> {
        Ok(match self.answer(HookPoint::OnReasoningStep).await? {
            Answer::Stop(reason) => ReasoningStepOutcome::Stop(reason),
            _ => ReasoningStepOutcome::Continue,
        })
    }

    async fn on_error(&self, _: &OnError, _: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        Ok(match self.answer(HookPoint::OnError).await? {
            Answer::Feedback(text) => OnErrorOutcome::RetryWithFeedback(text),
            _ => OnErrorOutcome::Observe,
        })
    }
}
