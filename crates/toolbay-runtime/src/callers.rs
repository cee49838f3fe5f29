//! Who may call a tool: step 4 of the road asks here, and so does every list of tools.

use toolbay_api::{ErrorKind, ToolError};

use crate::catalog::{Owner, ToolEntry};

/// Whether `by`, or somebody outside of plugins where it is `None`, is among the callers that the tool allows.
pub(crate) fn may_call(entry: &ToolEntry, by: Option<&Owner>) -> bool {
    let Some(allowed) = &entry.info.definition.allowed_callers else { return true };
    match by {
        None => allowed.allow_agent(),
        Some(plugin) => allowed.allow_plugin(&plugin.name, &plugin.scope, &entry.owner.scope),
    }
}

/// `Ok` where [`may_call`] says yes.
///
/// # Errors
/// `PermissionDenied`, which says who is not allowed and where that is written.
pub(crate) fn check(entry: &ToolEntry, by: Option<&Owner>) -> Result<(), ToolError> {
    if may_call(entry, by) {
        return Ok(());
    }
    let tool = &entry.info.definition.name;
    let who = match by {
        None => "it is for other plugins, not for the agent or another caller from outside".to_owned(),
        Some(plugin) => format!("the plugin `{}` is not among the callers that it allows", plugin.name),
    };
    let message = format!("{tool} cannot be called here: {who} (`allowed_callers` of the tool); use another tool");
    Err(ToolError::new(ErrorKind::PermissionDenied, message))
}
