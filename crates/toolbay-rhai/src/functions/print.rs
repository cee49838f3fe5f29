//! Values as text, bounded in size and depth.
//!
//! Rhai prints containers by calling its print functions for each part, and where one of them fails prints that part by
//! `{:?}`, captured values included, at any size. These come before Rhai's, and never fail: past a limit they end the
//! call and give what they have.

use std::fmt::Write as _;

use rhai::{Array, Dynamic, ImmutableString, Map, Module};
use toolbay_api::{Limit, ToolError};

use super::register::add;
use crate::call::{self, Call, HostResult};

/// Levels of nesting that are printed.
const MAX_DEPTH: usize = 64;

pub(super) fn register(module: &mut Module) {
    for name in ["to_string", "print", "to_debug", "debug"] {
        add(module, name, ["array"], |array: &mut Array| text(|printer| printer.array(array, 0)));
        add(module, name, ["map"], |map: &mut Map| text(|printer| printer.map(map, 0)));
    }
    for name in ["to_string", "print"] {
        add(module, name, ["value"], |value: &mut Dynamic| text(|printer| printer.top(value)));
    }
    for name in ["to_debug", "debug"] {
        add(module, name, ["value"], |value: &mut Dynamic| text(|printer| printer.value(value, 0)));
    }
}

fn text(body: impl FnOnce(&mut Printer<'_>) -> bool) -> HostResult<ImmutableString> {
    call::with(|call| {
        let mut printer = Printer { call, out: String::new() };
        body(&mut printer);
        Ok(printer.out.into())
    })
}

/// Text under construction. Each method says whether to go on.
struct Printer<'a> {
    call: &'a Call,
    out: String,
}

impl Printer<'_> {
    /// A value by itself: a text stands without quotes.
    fn top(&mut self, value: &Dynamic) -> bool {
        match value.as_immutable_string_ref() {
            Ok(text) => self.push(&text),
            Err(_) if value.is_unit() => true,
            Err(_) => self.value(value, 0),
        }
    }

    fn value(&mut self, value: &Dynamic, depth: usize) -> bool {
        if value.is_locked() {
            return self.push("<in use>");
        }
        if let Ok(text) = value.as_immutable_string_ref() {
            return self.quoted(&text);
        }
        if let Ok(array) = value.as_array_ref() {
            return self.array(&array, depth);
        }
        if let Ok(map) = value.as_map_ref() {
            return self.map(&map, depth);
        }
        if value.is_unit() {
            return self.push("()");
        }
        if value.is_fnptr() {
            // Without the captured values: they may be anything, many times over.
            let name = value.clone().flatten().try_cast::<rhai::FnPtr>().map(|function| function.fn_name().to_owned());
            return self.push("Fn(") && self.push(&name.unwrap_or_default()) && self.push(")");
        }
        let _ = write!(self.out, "{value}");
        self.push("")
    }

    fn array(&mut self, array: &Array, depth: usize) -> bool {
        if depth >= MAX_DEPTH {
            return self.push("[...]");
        }
        self.push("[")
            && array
                .iter()
                .enumerate()
                .all(|(place, item)| (place == 0 || self.push(", ")) && self.value(item, depth + 1))
            && self.push("]")
    }

    fn map(&mut self, map: &Map, depth: usize) -> bool {
        if depth >= MAX_DEPTH {
            return self.push("#{...}");
        }
        self.push("#{")
            && map.iter().enumerate().all(|(place, (key, value))| {
                (place == 0 || self.push(", ")) && self.quoted(key) && self.push(": ") && self.value(value, depth + 1)
            })
            && self.push("}")
    }

    fn quoted(&mut self, text: &str) -> bool {
        let _ = write!(self.out, "{text:?}");
        self.push("")
    }

    fn push(&mut self, text: &str) -> bool {
        self.out.push_str(text);
        let allowed = self.call.limits().max_string_bytes;
        if self.out.len() > allowed {
            self.call.trip(&ToolError::limit(Limit::StringSize, allowed as u64, self.out.len() as u64));
            let end = self.out.floor_char_boundary(64);
            self.out.truncate(end);
            return false;
        }
        self.call.spend(1)
    }
}
