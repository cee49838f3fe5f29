//! Questions and answers in the protocol's words.

use rmcp::model::InputRequest;
use serde_json::{Map, Value, json};
use toolbay_api::{Answer, ErrorKind, FormAnswer, Question, Root, Speaker, ToolError};

/// Characters of one question as JSON.
const MAX_QUESTION: usize = 32 * 1024;

pub(super) fn input_required(message: &'static str) -> ToolError {
    ToolError::new(ErrorKind::InputRequired, message)
}

pub(super) fn bad_question(why: &str) -> ToolError {
    ToolError::new(ErrorKind::Script, format!("the tool asked a question that cannot be put: {why}"))
}

/// The question in the protocol's words.
pub(crate) fn request(question: &Question) -> Result<InputRequest, ToolError> {
    let json = match question {
        Question::Form { message, schema } => json!({
            "method": "elicitation/create",
            "params": { "mode": "form", "message": message, "requestedSchema": schema },
        }),
        Question::Generate { messages, system, max_tokens } => {
            let spoken = |(speaker, text): &(Speaker, String)| {
                let role = match speaker {
                    Speaker::User => "user",
                    Speaker::Assistant => "assistant",
                };
                json!({ "role": role, "content": { "type": "text", "text": text } })
            };
            let messages: Vec<_> = messages.iter().map(spoken).collect();
            let mut params = json!({ "messages": messages, "maxTokens": max_tokens });
            if let (Some(system), Some(params)) = (system, params.as_object_mut()) {
                params.insert("systemPrompt".to_owned(), json!(system));
            }
            json!({ "method": "sampling/createMessage", "params": params })
        }
        Question::Roots => json!({ "method": "roots/list", "params": {} }),
        _ => return Err(bad_question("it is of a kind that no client knows")),
    };
    if json.to_string().len() > MAX_QUESTION {
        return Err(bad_question("it is too long"));
    }
    serde_json::from_value(json).map_err(|error| bad_question(&error.to_string()))
}

/// A client's answer, where it is one to this question.
pub(crate) fn answer(question: &Question, raw: &Value) -> Option<Answer> {
    match question {
        Question::Form { schema, .. } => {
            let answer = match raw.get("action")?.as_str()? {
                "accept" => {
                    let content = raw.get("content").cloned().unwrap_or_else(|| json!({}));
                    FormAnswer::Accepted(filled_in(schema, content)?)
                }
                "decline" => FormAnswer::Declined,
                "cancel" => FormAnswer::Cancelled,
                _ => return None,
            };
            Some(Answer::Form(answer))
        }
        Question::Generate { .. } => {
            let content = raw.get("content")?;
            let blocks = content.as_array().map_or_else(|| std::slice::from_ref(content), Vec::as_slice);
            let text: Vec<_> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
            (!blocks.is_empty()).then(|| Answer::Generated {
                text: text.join("\n"),
                model: raw.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
            })
        }
        Question::Roots => {
            let roots = raw.get("roots")?;
            serde_json::from_value::<Vec<Root>>(roots.clone()).ok().map(Answer::Roots)
        }
        _ => None,
    }
}

/// The fields of a form, where each has the type that the schema wants and none is missing that is required. Such schemas
/// are flat, and fields that they do not know are left out.
fn filled_in(schema: &Value, content: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut content) = content else { return None };
    let properties = schema.get("properties")?.as_object()?;
    content.retain(|name, _| properties.contains_key(name));
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let all_there = required.into_iter().all(|name| content.contains_key(name));
    let all_fit = content.iter().all(|(name, value)| properties.get(name).is_some_and(|field| fits(field, value)));
    (all_there && all_fit).then_some(content)
}

fn fits(field: &Value, value: &Value) -> bool {
    let of_type = match field.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        _ => true,
    };
    let chosen = field.get("enum").and_then(Value::as_array).is_none_or(|options| options.contains(value));
    of_type && chosen
}
