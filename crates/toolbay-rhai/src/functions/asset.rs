//! The plugin's packaged files, read piece by piece: a script gets one record of a large JSON file without the whole
//! ever becoming a script's value.

use rhai::{Array, Dynamic, INT, ImmutableString, Module};
use serde_json::Value;
use toolbay_api::{ErrorKind, Limit, ToolError};

use super::{fail, register::add};
use crate::{
    call::{self, Call, HostResult},
    convert, meter,
};

/// Bytes of a JSON pointer.
const MAX_POINTER_BYTES: usize = 1 << 10;

pub(super) fn register(module: &mut Module) {
    add(module, "asset_get", ["name", "pointer"], |name: ImmutableString, pointer: ImmutableString| {
        get(&name, &pointer)
    });
    add(module, "asset_keys", ["name", "pointer"], |name: ImmutableString, pointer: ImmutableString| {
        keys(&name, &pointer)
    });
    add(
        module,
        "asset_find",
        ["name", "pointer", "field", "value"],
        |name: ImmutableString, pointer: ImmutableString, field: ImmutableString, value: Dynamic| {
            find(&name, &pointer, &field, &value)
        },
    );
    add(module, "asset_text", ["name"], |name: ImmutableString| text(&name));
    add(module, "asset_names", [], names);
}

/// Gives `body` the value at `pointer`, if there is one.
fn at<R>(name: &str, pointer: &str, body: impl FnOnce(&Call, Option<&Value>) -> HostResult<R>) -> HostResult<R> {
    call::with(|call| {
        call.count_host_call()?;
        short(pointer)?;
        // A JSON file is parsed when it is first read, and kept by the host.
        let value = call.give(|| call.host().assets().json_at(name, pointer))?;
        body(call, value)
    })
}

fn get(name: &str, pointer: &str) -> HostResult<Dynamic> {
    at(name, pointer, |call, value| {
        let Some(value) = value else { return Ok(Dynamic::UNIT) };
        call.charge(convert::weight(value))?;
        Ok(convert::to_dynamic(value))
    })
}

fn keys(name: &str, pointer: &str) -> HostResult<Array> {
    at(name, pointer, |call, value| match value {
        Some(Value::Object(entries)) => {
            call.admit_array(entries.len())?;
            call.charge(entries.len())?;
            Ok(entries.keys().map(Into::into).collect())
        }
        Some(Value::Array(items)) => {
            call.admit_array(items.len())?;
            call.charge(items.len())?;
            Ok((0..items.len()).map(index).collect())
        }
        _ => Ok(Array::new()),
    })
}

fn find(name: &str, pointer: &str, field: &str, wanted: &Dynamic) -> HostResult<Array> {
    at(name, pointer, |call, value| {
        short(field)?;
        let wanted = call.unwrap(convert::to_value(wanted, call.limits(), Limit::StringSize))?;
        let matches = |entry: &Value| entry.pointer(field).is_some_and(|found| equal(found, &wanted));
        let found: Array = match value {
            Some(Value::Object(entries)) => {
                call.charge(entries.len().saturating_mul(1 + field.len() / 64))?;
                entries.iter().filter(|(_, entry)| matches(entry)).map(|(key, _)| key.into()).collect()
            }
            Some(Value::Array(items)) => {
                call.charge(items.len().saturating_mul(1 + field.len() / 64))?;
                items.iter().enumerate().filter(|(_, item)| matches(item)).map(|(place, _)| index(place)).collect()
            }
            _ => Array::new(),
        };
        call.admit_array(found.len())?;
        Ok(found)
    })
}

/// Refuses a JSON pointer that nothing lies at: each step of it is looked at for each entry.
fn short(pointer: &str) -> HostResult<()> {
    if pointer.len() > MAX_POINTER_BYTES {
        return fail(format!("the JSON pointer is longer than {MAX_POINTER_BYTES} bytes"));
    }
    Ok(())
}

/// Equality as a script means it: 1 and 1.0 are the same number.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

fn text(name: &str) -> HostResult<ImmutableString> {
    call::with(|call| {
        call.count_host_call()?;
        let assets = meter::outside(|| call.host().assets());
        let bytes = call.give(|| assets.get(name))?.bytes();
        call.admit_string(bytes.len())?;
        call.charge(1 + bytes.len() / 64)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(call
                .throw(ToolError::new(ErrorKind::InvalidArguments, format!("the asset {name:?} is not UTF-8 text")))),
        }
    })
}

fn names() -> HostResult<Array> {
    call::with(|call| {
        call.count_host_call()?;
        Ok(meter::outside(|| call.host().assets()).names().map(Into::into).collect())
    })
}

fn index(place: usize) -> Dynamic {
    Dynamic::from_int(INT::try_from(place).unwrap_or(INT::MAX))
}
