//! JSON text from values and back.

use std::io;

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
        let mut out = Bounded { text: Vec::new(), allowed: call.limits().max_string_bytes };
        let written = if pretty {
            serde_json::to_writer_pretty(&mut out, &value)
        } else {
            serde_json::to_writer(&mut out, &value)
        };
        if written.is_err() {
            call.admit_string(out.allowed.saturating_add(1))?;
        }
        Ok(String::from_utf8(out.text).unwrap_or_default().into())
    })
}

/// A text that grows up to a limit: written in lines, a deep value is many times longer than without.
struct Bounded {
    text: Vec<u8>,
    allowed: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len().saturating_add(bytes.len()) > self.allowed {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many elements and entries a JSON text has at most, without parsing it.
fn count_values(text: &str) -> usize {
    let (mut values, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    values
}

fn parse_json(text: &str) -> HostResult<Dynamic> {
    charge_bytes(text.len().saturating_mul(8))?;
    call::with(|call| {
        let allowed = call.limits().max_array_len.saturating_add(call.limits().max_map_len);
        match count_values(text) {
            values if values > allowed => {
                Err(call.stop(ToolError::limit(Limit::ArraySize, allowed as u64, values as u64)))
            }
            _ => Ok(()),
        }
    })?;
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
