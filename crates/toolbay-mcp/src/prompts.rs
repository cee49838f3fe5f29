//! How prompts look on this wire.

use std::collections::BTreeMap;

use rmcp::{
    ErrorData,
    model::{
        CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, GetPromptResult, JsonObject, Prompt,
        PromptArgument, PromptMessage, Reference, Role,
    },
};
use serde_json::Value;
use toolbay_api::{Speaker, ToolOutput};
use toolbay_runtime::{PromptInfo, Session};

use crate::tools;

/// The prompt as a client lists it.
pub(crate) fn definition(info: &PromptInfo) -> Prompt {
    let argument = |argument: &toolbay_api::manifest::PromptArgument| {
        let shown = PromptArgument::new(argument.name.clone()).with_required(argument.required);
        match &argument.description {
            Some(description) => shown.with_description(description.clone()),
            None => shown,
        }
    };
    let arguments: Vec<_> = info.declaration.arguments.iter().map(argument).collect();
    Prompt::new(
        info.name.to_string(),
        Some(info.declaration.description.clone()),
        (!arguments.is_empty()).then_some(arguments),
    )
}

/// The prompt called `name`, if the user may see it.
pub(crate) fn find(session: &Session, name: &str) -> Result<PromptInfo, ErrorData> {
    session.prompts().into_iter().find(|info| info.name == name).ok_or_else(|| {
        let name: String = name.chars().take(128).collect();
        ErrorData::invalid_params(format!("Unknown prompt: {name}; prompts/list has those that there are"), None)
    })
}

/// The arguments that the prompt knows, as text.
///
/// # Errors
/// Invalid parameters for one that is missing, and for one that is no text.
pub(crate) fn arguments(info: &PromptInfo, given: JsonObject) -> Result<BTreeMap<String, String>, ErrorData> {
    let mut arguments = BTreeMap::new();
    for (name, value) in given {
        match value {
            Value::String(text) if info.declaration.arguments.iter().any(|known| known.name == name) => {
                arguments.insert(name, text);
            }
            // Clients send along what other prompts know.
            Value::String(_) => {}
            _ => return Err(ErrorData::invalid_params("the arguments of a prompt are strings", None)),
        }
    }
    let missing = info.declaration.arguments.iter().find(|it| it.required && !arguments.contains_key(&it.name));
    match missing {
        Some(missing) => {
            Err(ErrorData::invalid_params(format!("the prompt needs the argument {:?}", missing.name), None))
        }
        None => Ok(arguments),
    }
}

/// What the prompt says, with the arguments in their places.
pub(crate) fn said(info: &PromptInfo, arguments: &BTreeMap<String, String>) -> GetPromptResult {
    let known = &info.declaration.arguments;
    let message = |message: &toolbay_api::manifest::PromptMessage| {
        let role = match message.role {
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        let value = |name: &str| {
            let declared = known.iter().any(|argument| argument.name == name);
            declared.then(|| arguments.get(name).map_or("", String::as_str))
        };
        PromptMessage::new_text(role, filled(&message.text, value))
    };
    let messages = info.declaration.messages.iter().map(message).collect();
    GetPromptResult::new(messages).with_description(info.declaration.description.clone())
}

/// `text` with a value in the place of each `{name}` that has one. What stands in a value is left as it is.
fn filled<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}').and_then(|(name, behind)| Some((value(name)?, behind))) {
            Some((value, behind)) => {
                filled.push_str(value);
                rest = behind;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// What a tool wrote for the prompt: each piece is something that the user says.
pub(crate) fn written(info: &PromptInfo, output: ToolOutput) -> GetPromptResult {
    let blocks = if output.content.is_empty() {
        vec![ContentBlock::text(output.to_text())]
    } else {
        output.content.into_iter().map(tools::block).collect()
    };
    let messages = blocks.into_iter().map(|block| PromptMessage::new(Role::User, block)).collect();
    GetPromptResult::new(messages).with_description(info.declaration.description.clone())
}

/// What the argument could be that a user begins to write.
pub(crate) fn complete(session: &Session, params: &CompleteRequestParams) -> Result<CompleteResult, ErrorData> {
    let mut values = Vec::new();
    if let Reference::Prompt(prompt) = &params.r#ref {
        let info = find(session, &prompt.name)?;
        let argument = info.declaration.arguments.iter().find(|argument| argument.name == params.argument.name);
        let begun = params.argument.value.to_lowercase();
        let known = argument.into_iter().flat_map(|argument| &argument.values);
        values.extend(known.filter(|value| value.to_lowercase().starts_with(&begun)).cloned());
    }
    values.truncate(CompletionInfo::MAX_VALUES);
    let info = CompletionInfo::with_all_values(values).map_err(|error| ErrorData::internal_error(error, None))?;
    Ok(CompleteResult::new(info))
}
