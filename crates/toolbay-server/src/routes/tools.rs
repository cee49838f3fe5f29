//! Tools: which there are, as providers want them, and calling one.
//!
//! A call that was taken is answered with status 200 and the wire result, whatever came of it: a tool's failure, an
//! unknown tool's name or arguments that do not fit are replies that the model is to read, and not the fault of the
//! program that carried them. Only where the tenant may call nothing for now (`RateLimited`) it is 429 with `Retry-After`,
//! since nothing was run and the program, not the model, can wait.

use axum::{http::Method, response::Response};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, PermissionSet, ToolName};
use toolbay_runtime::{Session, formats};

use crate::{
    call::{Call, ok},
    problem::Problem,
    table::{Endpoint, Group, Place},
    views::{CallResult, CallWanted, ToolsView},
};

/// Rights that one request may name.
const MAX_RIGHTS: usize = 64;
/// Characters of a user's or a conversation's name.
const MAX_NAME: usize = 200;

pub(super) fn group() -> Group {
    let rights = json!({ "type": "string", "maxLength": 2_000 });
    let format = json!({ "type": "string", "enum": ["openai", "anthropic", "mcp", "full"], "default": "full" });
    let mut group = Group::new("tools");
    group.add(
        Endpoint::new(Method::GET, "/api/v1/tools", "listTools", "Lists the tenant's tools", list)
            .place(Place::Own)
            .param("format", format, "For whom: the `tools` of an API of theirs, or all that Toolbay knows.")
            .param("rights", rights, "The user's rights, with commas between; tools may require some.")
            .gives::<ToolsView>(200, "The tools that the user may see, in alphabetical order."),
    );
    group.add(
        Endpoint::new(Method::POST, "/api/v1/tools/{tool}/call", "callTool", "Calls a tool", call_tool)
            .about(
                "The status is 200 whatever came of the call, and `success` and `error.kind` say what; but 429 where the \
                 tenant may call nothing for now.",
            )
            .place(Place::Own)
            .takes::<CallWanted>(|| json!({ "arguments": { "amount": "5.00" }, "user": "u-17" }))
            .gives::<CallResult>(200, "What came of the call."),
    );
    group
}

fn session(call: &Call) -> Result<Session, Problem> {
    let tenant = call.tenant()?;
    call.app.control.toolbay().session(tenant).map_err(|error| Problem::invalid(error.to_string()))
}

fn rights<'a>(given: impl Iterator<Item = &'a str>) -> Result<PermissionSet, Problem> {
    let given: Vec<_> = given.take(MAX_RIGHTS + 1).collect();
    if given.len() > MAX_RIGHTS {
        return Err(Problem::invalid(format!("a request names at most {MAX_RIGHTS} rights")));
    }
    PermissionSet::parse(given).map_err(|error| Problem::invalid(format!("rights: {error}")))
}

async fn list(call: Call) -> Result<Response, Problem> {
    let given = call.text("rights").unwrap_or_default();
    let session = session(&call)?.with_rights(rights(given.split(',').filter(|right| !right.is_empty()))?);
    let form = match call.text("format") {
        None | Some("full") => formats::full,
        Some("openai") => formats::openai,
        Some("anthropic") => formats::anthropic,
        Some("mcp") => formats::mcp,
        Some(_) => return Err(Problem::invalid("format must be openai, anthropic, mcp or full")),
    };
    ok(&ToolsView { tools: session.tools().iter().map(form).collect() })
}

async fn call_tool(call: Call) -> Result<Response, Problem> {
    let tool = ToolName::new(call.param("tool")).map_err(|error| Problem::invalid(error.to_string()))?;
    let CallWanted { arguments, user, conversation, rights: given } = call.json()?;
    let named = [("user", &user), ("conversation", &conversation)];
    if let Some((field, _)) = named.iter().find(|(_, name)| name.as_ref().is_some_and(|name| !is_name(name))) {
        let message = format!("{field} has 1 to {MAX_NAME} characters, without control characters");
        return Err(Problem::invalid(message));
    }
    let mut session = session(&call)?.with_rights(rights(given.iter().map(String::as_str))?);
    session = user.iter().fold(session, |session, user| session.with_user(user));
    session = conversation.iter().fold(session, |session, name| session.with_conversation(name));
    session = session.with_observer(call.app.live.observer(call.tenant()?));
    let reply = session.call(tool.as_str(), Value::Object(arguments)).await;
    match &reply.result {
        Ok(_) => call.app.metrics.called("ok"),
        Err(error) => {
            call.app.metrics.called(error.kind.name());
            if error.kind == ErrorKind::RateLimited && error.details.get("retry_after_s").is_some() {
                return Err(error.clone().into());
            }
        }
    }
    ok(&reply.to_wire())
}

pub(super) fn is_name(text: &str) -> bool {
    let count = text.chars().take(MAX_NAME + 1).count();
    (1..=MAX_NAME).contains(&count) && !text.chars().any(char::is_control)
}
