//! Mends a conversation that a run starts from. Providers refuse one in which a tool call has no reply or a reply has
//! no call, and a conversation that was put away after a crash or rewritten by a hook can be like that.

use toolbay_api::{Message, ToolCall};

/// `messages`, with a reply for each call right behind its message and without other replies.
pub(super) fn mended(messages: Vec<Message>) -> Vec<Message> {
    let mut mended = Vec::with_capacity(messages.len());
    let mut open: Vec<ToolCall> = Vec::new();
    for message in messages {
        match message {
            Message::Tool { call_id, text, is_error } => {
                if let Some(index) = open.iter().position(|call| call.id == call_id) {
                    open.remove(index);
                    mended.push(Message::Tool { call_id, text, is_error });
                }
            }
            other => {
                answer(&mut mended, &mut open);
                if let Message::Assistant { tool_calls, .. } = &other {
                    open.clone_from(tool_calls);
                }
                mended.push(other);
            }
        }
    }
    answer(&mut mended, &mut open);
    mended
}

fn answer(mended: &mut Vec<Message>, open: &mut Vec<ToolCall>) {
    mended.extend(open.drain(..).map(|call| Message::Tool {
        call_id: call.id,
        text: "the call was interrupted; it may have had an effect or none".into(),
        is_error: true,
    }));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn calls(ids: &[&str]) -> Message {
        let call = |id: &&str| ToolCall { id: (*id).into(), name: "t".into(), arguments: json!({}) };
        Message::Assistant { text: String::new(), reasoning: None, tool_calls: ids.iter().map(call).collect() }
    }

    fn reply(id: &str) -> Message {
        Message::Tool { call_id: id.into(), text: "ok".into(), is_error: false }
    }

    #[test]
    fn a_call_without_a_reply_gets_one_and_a_reply_without_a_call_goes() {
        let mended = mended(vec![
            reply("nobody"),
            calls(&["a", "b"]),
            reply("b"),
            reply("b"),
            Message::user("and?"),
            reply("a"),
            calls(&["c"]),
        ]);
        let shape: Vec<_> = mended
            .iter()
            .map(|message| match message {
                Message::Tool { call_id, is_error, .. } => format!("{call_id} {is_error}"),
                Message::Assistant { .. } => "assistant".into(),
                _ => "other".into(),
            })
            .collect();
        assert_eq!(shape, ["assistant", "b false", "a true", "other", "assistant", "c true"]);
    }

    #[test]
    fn a_whole_conversation_stays_as_it_is() {
        let whole = vec![Message::user("hi"), calls(&["a", "b"]), reply("b"), reply("a")];
        assert_eq!(mended(whole.clone()), whole);
    }
}
