//! Toolbay's vocabulary.
//!
//! Everything callable is a [`Tool`] of a [`Plugin`]. A [`Runner`] loads a [`Package`] into a plugin; the host
//! registers it in a [`Scope`], globally or for one tenant. A tool sees the world through its [`ToolContext`] and
//! the [`Host`] in it, which is already narrowed to the tenant, the plugin and its grants. [`Hook`]s stand at the
//! eight [`HookPoint`]s of an agent run and answer each with that point's own outcome.
//!
//! This crate does no I/O and knows no async runtime: a runner, a tool or a hook needs nothing else to compile
//! against.
//!
//! # Layout
//!
//! - [`names`]: `TenantId`, `PluginName`, `ToolName`, ids of runs and calls, `Scope`.
//! - [`mod@tool`]: the `Tool` trait, its definition, typed native tools.
//! - [`ability`]: interfaces that the host declares and plugins provide.
//! - [`context`]: what a call knows of itself.
//! - [`host`]: the plugin's only way out; [`reach`]: what a host lends through it, HTTP and secrets.
//! - [`plugin`]: `Plugin`, `Runner`, `Package`; [`declared`]: what is known of one before its code is compiled; [`callback`]: a plugin's callbacks; [`manifest`]: what a plugin says of itself.
//! - [`program`]: the functions that a program has for tools.
//! - [`event`]: events and who listens to them; [`service`](mod@service): what native plugins lend each other.
//! - [`route`]: HTTP routes of native plugins.
//! - [`hook`]: points, inputs, outcomes; [`interception`]: what hooks see and say under a public contract; [`message`]: the conversation that hooks and models see.
//! - [`peer`]: whoever made a call, to be told and asked; [`content`]: what a tool shows beside data.
//! - [`limits`], [`permission`], [`callers`], [`error`], [`result`](mod@result).

pub mod ability;
pub mod asset;
pub mod callback;
pub mod callers;
pub mod content;
pub mod context;
pub mod declared;
pub mod error;
pub mod event;
pub mod hook;
pub mod host;
pub mod interception;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod names;
pub mod peer;
pub mod permission;
pub mod plugin;
pub mod program;
pub mod reach;
pub mod result;
pub mod route;
pub mod service;
pub mod tool;

pub use async_trait::async_trait;

pub use ability::{Ability, Operation};
pub use asset::{Asset, Assets};
pub use callback::{Callback, CallbackContext};
pub use callers::AllowedCallers;
pub use content::{Content, Document, DocumentBody};
pub use context::{Caller, CancelFlag, Isolation, ToolContext, ToolContextParts, Usage};
pub use declared::{CodeState, Declared};
pub use error::{ErrorKind, Limit, ToolError};
pub use event::{Event, EventContext, EventHandler, EventId, EventPattern, EventSource, Subscription};
pub use hook::{Hook, HookContext, HookError, HookPoint, HookRegistration};
pub use host::{Host, LogLevel};
pub use limits::{Limits, LimitsRequest};
pub use manifest::{Manifest, RuntimeKind};
pub use message::{Message, ModelRequest, ModelResponse, ToolCall};
pub use names::{AbilityName, CallId, EventName, NameError, PluginName, RunId, Scope, ServiceName, TenantId, ToolName};
pub use peer::{Answer, Answers, FormAnswer, Peer, Progress, Question, QuestionKind, Questions, Root, Speaker};
pub use permission::{Grants, Permission, PermissionSet};
pub use plugin::{LoadError, Package, Plugin, PluginContext, PluginMetadata, Runner};
pub use program::ToolFunction;
pub use reach::{HttpSend, HttpSendContext, Secret, SecretName, SecretProvider};
pub use result::{ToolOutput, WireResult};
pub use route::{
    PathStep, Route, RouteContext, RouteDefinition, RouteHandler, RouteMethod, RouteRequest, RouteResponse,
};
pub use service::{HostServices, ServiceQuery, ServiceRegistration, ServiceScope, service};
pub use tool::{Annotations, Execution, Tool, ToolDefinition, blocking_tool, showing_tool, tool};
