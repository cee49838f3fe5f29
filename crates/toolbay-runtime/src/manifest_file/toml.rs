//! TOML into the tree. The parser refuses double keys and bounds the nesting itself.

use serde_json::{Number, Value};
use toml::de::{DeTable, DeValue};

use super::{Entry, Fault, Kind, MAX_DEPTH, Node, Place};

pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let table = DeTable::parse(text).map_err(|error| Fault {
        message: error.message().to_owned(),
        at: error.span().map(|span| Place::Offset(span.start)),
    })?;
    Ok(Node { at: Place::Offset(0), kind: table_of(table.get_ref(), 1)? })
}

fn table_of(table: &DeTable<'_>, depth: usize) -> Result<Kind, Fault> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let at = Place::Offset(key.span().start);
        let node = Node { at: Place::Offset(value.span().start), kind: kind_of(value.get_ref(), at, depth)? };
        entries.push((key.span().start, Entry { key: key.get_ref().to_string(), at, value: node }));
    }
    // The parser gives them by name. A model reads parameters in the order of their author.
    entries.sort_by_key(|(start, _)| *start);
    Ok(Kind::Table(entries.into_iter().map(|(_, entry)| entry).collect()))
}

fn kind_of(value: &DeValue<'_>, at: Place, depth: usize) -> Result<Kind, Fault> {
    if depth >= MAX_DEPTH {
        return Err(Fault::too_deep(at));
    }
    Ok(match value {
        DeValue::String(text) => Kind::Scalar(Value::from(text.as_ref())),
        DeValue::Boolean(truth) => Kind::Scalar(Value::Bool(*truth)),
        // JSON knows no dates, so a date is its text.
        DeValue::Datetime(date) => Kind::Scalar(Value::from(date.to_string())),
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            let parsed = i64::from_str_radix(digits, radix).map(Value::from);
            let parsed = parsed.or_else(|_| u64::from_str_radix(digits, radix).map(Value::from));
            Kind::Scalar(parsed.map_err(|_| Fault::new(format!("the number {number} is too large"), at))?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse().ok().and_then(Number::from_f64);
            let problem = || Fault::new(format!("{number} is no number that JSON has"), at);
            Kind::Scalar(Value::Number(parsed.ok_or_else(problem)?))
        }
        DeValue::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for item in items.iter() {
                let at = Place::Offset(item.span().start);
                nodes.push(Node { at, kind: kind_of(item.get_ref(), at, depth + 1)? });
            }
            Kind::List(nodes)
        }
        DeValue::Table(table) => table_of(table, depth + 1)?,
    })
}
