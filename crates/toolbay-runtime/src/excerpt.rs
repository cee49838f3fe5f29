//! Values that are too long for whoever reads them: cut so that the text fits, with the structure kept, and read by pages.
//! Lists stay lists and objects objects, and each says how much of it is missing.
//!
//! Here rather than with either user, since a model's results and those of a client of another protocol are cut alike.

mod page;

pub use page::page;
use serde_json::{Map, Value, json};

/// What is kept of each text, list and object, and how deep; each step keeps less.
const STEPS: [Keep; 8] = [
    Keep { bytes: 8192, items: 256, depth: 12 },
    Keep { bytes: 2048, items: 64, depth: 10 },
    Keep { bytes: 512, items: 32, depth: 8 },
    Keep { bytes: 256, items: 16, depth: 6 },
    Keep { bytes: 96, items: 8, depth: 5 },
    Keep { bytes: 48, items: 4, depth: 4 },
    Keep { bytes: 24, items: 2, depth: 3 },
    Keep { bytes: 16, items: 1, depth: 2 },
];

#[derive(Clone, Copy)]
struct Keep {
    bytes: usize,
    items: usize,
    depth: usize,
}

/// `value` as text of at most about `most` bytes, at least 200: a text as it is, anything else as JSON.
///
/// ```
/// use serde_json::{Value, json};
/// use toolbay_runtime::excerpt::cut;
///
/// let orders: Vec<_> = (0..1000).map(|id| json!({ "id": id })).collect();
/// let shown = cut(&json!({ "orders": orders }), 400);
/// let shown: Value = serde_json::from_str(&shown).unwrap();
/// assert_eq!(shown["orders"][0]["id"], 0);
/// ```
#[must_use]
pub fn cut(value: &Value, most: usize) -> String {
    // A text alone is cut where the bound is, not where a step is.
    if let Value::String(text) = value {
        let room = most.saturating_sub(40);
        return short_text(text, room);
    }
    let texts = STEPS.iter().map(|keep| part(value, *keep, keep.depth).to_string());
    let fitting = texts.into_iter().find(|text| text.len() <= most);
    fitting.unwrap_or_else(|| kind(value))
}

fn part(value: &Value, keep: Keep, depth: usize) -> Value {
    match value {
        Value::String(text) if text.len() > keep.bytes => Value::String(short_text(text, keep.bytes)),
        Value::Array(items) if depth == 0 && !items.is_empty() => json!(kind(value)),
        Value::Object(entries) if depth == 0 && !entries.is_empty() => json!(kind(value)),
        Value::Array(items) => {
            let mut shown: Vec<_> = items.iter().take(keep.items).map(|item| part(item, keep, depth - 1)).collect();
            if items.len() > keep.items {
                shown.push(json!(format!("… {} more items", items.len() - keep.items)));
            }
            Value::Array(shown)
        }
        Value::Object(entries) => {
            // Keys say what there is, so more of them stay than of a list's items.
            let most = keep.items.saturating_mul(4);
            let shown =
                entries.iter().take(most).map(|(key, value)| (short_text(key, 256), part(value, keep, depth - 1)));
            let mut shown: Map<_, _> = shown.collect();
            if entries.len() > most {
                shown.insert("…".to_owned(), json!(format!("{} more keys", entries.len() - most)));
            }
            Value::Object(shown)
        }
        other => other.clone(),
    }
}

/// The first `most` bytes of a text, and how many are missing.
fn short_text(text: &str, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    match text.get(..end) {
        Some(start) if end < text.len() => format!("{start}… {} more bytes", text.len() - end),
        _ => text.to_owned(),
    }
}

/// What a value is, without its content.
fn kind(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("… a list of {} items", items.len()),
        Value::Object(entries) => format!("… an object of {} keys", entries.len()),
        Value::String(text) => format!("… a text of {} bytes", text.len()),
        other => other.to_string(),
    }
}
