//! JSON text from values and back.

use rhai::{Dynamic, ImmutableString, Map, Module};
use serde_json::Value;
use toolbay_api::{ErrorKind, Limit, ToolError};

use super::{charge_bytes, fail, register::add};
use crate::{
    call::{self, HostResult},
    convert,
};

pub(super) fn register(module: &mut Module) {
    // Rhai has a `to_json` for maps, without bounds; only the same type comes before it.
    add(module, "to_json", ["map"], |value: Map| to_json(&Dynamic::from_map(value), false));
    add(module, "to_json", ["value"], |value: Dynamic| to_json(&value, false));
    add(module, "to_json", ["value", "pretty"], |value: Dynamic, pretty: bool| to_json(&value, pretty));
    add(module, "parse_json", ["text"], |text: ImmutableString| parse_json(&text));
}

fn to_json(value: &Dynamic, pretty: bool) -> HostResult<ImmutableString> {
    call::with(|call| {
        let value = call.unwrap(convert::to_value(value, call.limits(), Limit::StringSize))?;
        call.charge(convert::weight(&value))?;
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        match text {
            Ok(text) => {
                call.admit_string(text.len())?;
                Ok(text.into())
            }
            Err(error) => Err(call.throw(ToolError::failed(error.to_string()))),
        }
    })
}

fn parse_json(text: &str) -> HostResult<Dynamic> {
    charge_bytes(text.len().saturating_mul(8))?;
    // serde_json itself refuses what is nested deeper than 128.
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return fail(format!("the text is not JSON: {error}")),
    };
    call::with(|call| {
        let allowed = call.limits().max_nesting;
        if convert::is_nested_deeper_than(&value, allowed) {
            let error = ToolError::new(
                ErrorKind::InvalidArguments,
                format!("the JSON text is nested deeper than the {allowed} levels that are allowed"),
            );
            return Err(call.throw(error));
        }
        Ok(convert::to_dynamic(&value))
    })
}
