//! One page of a long value: as much as fits from an offset on, and where the next page begins.

use serde_json::{Map, Value, json};

use super::cut;

/// Bytes of a page that say what it is.
const FRAME: usize = 120;

/// The page of `part` that begins at `offset`, in about `most` bytes: a character of a text, an item of a list or a key of an
/// object. It says how much there is, and as `next_offset` where the next page begins, `null` after the last.
#[must_use]
pub fn page(part: &Value, offset: usize, most: usize) -> Value {
    let room = most.saturating_sub(FRAME).max(40);
    match part {
        Value::String(text) => {
            let shown: String = text.chars().skip(offset).take(room / 2).collect();
            // By what JSON makes of it: a text of quotes and line ends takes twice its bytes.
            let count = shown.chars().count();
            let total = text.chars().count();
            json!({ "text": shown, "total_characters": total, "next_offset": next(offset + count, total) })
        }
        Value::Array(items) => {
            let mut shown = Vec::new();
            let mut used = 0;
            for item in items.iter().skip(offset) {
                let (item, bytes) = fitting(item, room);
                if used + bytes > room && !shown.is_empty() {
                    break;
                }
                used += bytes + 1;
                shown.push(item);
            }
            let count = shown.len();
            json!({ "items": shown, "total_items": items.len(), "next_offset": next(offset + count, items.len()) })
        }
        Value::Object(entries) => {
            let mut shown = Map::new();
            let mut used = 0;
            for (key, value) in entries.iter().skip(offset) {
                let (value, bytes) = fitting(value, room / 2);
                let bytes = bytes + key.len() + 4;
                if used + bytes > room && !shown.is_empty() {
                    break;
                }
                used += bytes;
                shown.insert(key.clone(), value);
            }
            let count = shown.len();
            json!({ "entries": shown, "total_keys": entries.len(), "next_offset": next(offset + count, entries.len()) })
        }
        other => json!({ "value": other, "next_offset": null }),
    }
}

fn next(reached: usize, total: usize) -> Option<usize> {
    (reached < total).then_some(reached)
}

/// `value`, or what fits of it; its own pointer reads the rest.
fn fitting(value: &Value, room: usize) -> (Value, usize) {
    let text = value.to_string();
    if text.len() <= room {
        return (value.clone(), text.len());
    }
    let cut = cut(value, room);
    let bytes = cut.len() + 2;
    (serde_json::from_str(&cut).unwrap_or(Value::String(cut)), bytes)
}
