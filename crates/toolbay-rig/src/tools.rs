//! A tenant's tool as one of rig's: each call takes the road, with hooks, schema, grants, meter and audit.

use rig_core::{
    message::ToolName,
    tool::{DynamicTool, ToolErrorKind, ToolExecutionError, ToolOutput},
};
use serde_json::Value;
use toolbay_api::{ErrorKind, ToolCall};
use toolbay_runtime::{Reply, ToolInfo};

use crate::Bridge;

/// `None` for a tool without a name, which there is none of.
pub(crate) fn dynamic_tool(bridge: &Bridge, tool: &ToolInfo) -> Option<DynamicTool> {
    let name = ToolName::new(&*tool.provider_name).ok()?;
    let (description, parameters) = (tool.definition.description.clone(), tool.definition.parameters.clone());
    let (bridge, called) = (bridge.clone(), tool.provider_name.to_string());
    Some(DynamicTool::new(name, description, parameters, move |arguments| {
        let (bridge, name) = (bridge.clone(), called.clone());
        Box::pin(async move {
            // Rig keeps the model's id to itself; the call's number tells calls of a run apart.
            let id = format!("rig-{}", bridge.count_call());
            let mut reply = bridge.run().call(0, ToolCall { id, name, arguments }).await;
            if let Some(stop) = reply.stop.take() {
                bridge.note_stop(stop);
            }
            answer(reply)
        })
    }))
}

fn answer(reply: Reply) -> Result<ToolOutput, ToolExecutionError> {
    let text = reply.model_text();
    match reply.result {
        Ok(output) if output.content.is_empty() && !output.data.is_string() => Ok(ToolOutput::json(output.data)),
        Ok(output) => Ok(match output.data {
            Value::String(text) if output.content.is_empty() => ToolOutput::text(text),
            _ => ToolOutput::text(text),
        }),
        // The source is not handed on: it is for the log of Toolbay's operator.
        Err(error) => Err(ToolExecutionError::new(kind(&error.kind), error.message.clone())
            .with_model_feedback(text)
            .with_retryable(error.retryable)
            .with_code(error.kind.name())),
    }
}

fn kind(kind: &ErrorKind) -> ToolErrorKind {
    match kind {
        ErrorKind::NotFound => ToolErrorKind::NotFound,
        ErrorKind::InvalidArguments => ToolErrorKind::InvalidArgs,
        ErrorKind::PermissionDenied | ErrorKind::NotEnabled | ErrorKind::DeniedByHook => {
            ToolErrorKind::PermissionDenied
        }
        ErrorKind::RateLimited => ToolErrorKind::RateLimited,
        ErrorKind::TimedOut => ToolErrorKind::Timeout,
        ErrorKind::Cancelled => ToolErrorKind::Cancelled,
        ErrorKind::Dependency | ErrorKind::Unavailable => ToolErrorKind::Provider,
        _ => ToolErrorKind::Other,
    }
}
