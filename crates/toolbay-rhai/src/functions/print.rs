//! Values as text, bounded in size and depth.
//!
//! Rhai prints containers by calling its print functions for each part, and where one of them fails prints that part by
//! `{:?}`, captured values included, at any size. These come before Rhai's, and never fail: past a limit they end the
//! call and give what they have.

use std::fmt::Write as _;

use rhai::{Array, Dynamic, FnPtr, ImmutableString, Map, Module, NativeCallContext};
use toolbay_api::{Limit, ToolError};

use super::register::add;
use crate::call::{self, Call, HostResult};

type Context<'a> = NativeCallContext<'a>;

/// Levels of nesting that are printed.
const MAX_DEPTH: usize = 64;

pub(super) fn register(module: &mut Module) {
    for name in ["to_string", "print", "to_debug", "debug"] {
        add(module, name, ["array"], |context: Context<'_>, array: &mut Array| {
            let value = Dynamic::from_array(std::mem::take(array));
            let printed = text(&context, &value, |printer| printer.value(&value, 0));
            *array = value.into_array().unwrap_or_default();
            printed
        });
        add(module, name, ["map"], |context: Context<'_>, map: &mut Map| {
            let value = Dynamic::from_map(std::mem::take(map));
            let printed = text(&context, &value, |printer| printer.value(&value, 0));
            *map = value.try_cast().unwrap_or_default();
            printed
        });
    }
    for name in ["name", "get$name"] {
        add(module, name, ["function"], |function: &mut FnPtr| {
            Ok(ImmutableString::from(call::without_seed(function.fn_name())))
        });
    }
    for name in ["to_string", "print"] {
        add(module, name, ["value"], |context: Context<'_>, value: &mut Dynamic| {
            text(&context, value, |printer| printer.top(value))
        });
    }
    for name in ["to_debug", "debug"] {
        add(module, name, ["value"], |context: Context<'_>, value: &mut Dynamic| {
            text(&context, value, |printer| printer.value(value, 0))
        });
        add(module, name, ["text"], |context: Context<'_>, value: ImmutableString| {
            text(&context, &Dynamic::UNIT, |printer| printer.quoted(&value))
        });
        add(module, name, ["function"], |function: FnPtr| {
            Ok(ImmutableString::from(format!("Fn({})", call::without_seed(function.fn_name()))))
        });
    }
}

fn text(
    context: &Context<'_>,
    value: &Dynamic,
    body: impl FnOnce(&mut Printer<'_>) -> bool,
) -> HostResult<ImmutableString> {
    // Rhai looks at the size of what was printed when it is printed, and prints it again, all of it, where it is over.
    if context.engine().ensure_data_size_within_limits(value).is_err() {
        return Err(call::with(|call| {
            let allowed = call.limits().max_array_len as u64;
            Ok(call.leave(&ToolError::limit(Limit::ArraySize, allowed, allowed.saturating_add(1))))
        })?);
    }
    call::with(|call| {
        let mut printer = Printer { call, out: String::new(), met_one_in_use: false };
        body(&mut printer);
        if printer.met_one_in_use {
            return super::fail("a captured variable is printed while it is in use");
        }
        Ok(printer.out.into())
    })
}

/// Text under construction. Each method says whether to go on.
struct Printer<'a> {
    call: &'a Call,
    out: String,
    met_one_in_use: bool,
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
        // Asking takes Rhai 50 ms where the variable is in use, so that the first one ends the printing.
        if value.is_shared() && value.is_locked() {
            self.met_one_in_use = true;
            return false;
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
            let name = value.read_lock::<FnPtr>().map(|function| function.fn_name().to_owned()).unwrap_or_default();
            return self.push("Fn(") && self.push(call::without_seed(&name)) && self.push(")");
        }
        if value.is_variant() {
            return self.push(call::short_type(value.type_name()));
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
        // A control character is written with up to ten.
        let controls = text.chars().filter(|character| character.is_control()).count();
        if !self.admits(text.len().saturating_add(controls.saturating_mul(4))) {
            return false;
        }
        let _ = write!(self.out, "{text:?}");
        self.push("")
    }

    fn push(&mut self, text: &str) -> bool {
        self.admits(text.len()) && {
            self.out.push_str(text);
            self.call.spend(1 + text.len() as u64 / 64)
        }
    }

    /// Whether so many more bytes may be written; past the limit the call ends.
    fn admits(&mut self, more: usize) -> bool {
        let (allowed, used) = (self.call.limits().max_string_bytes, self.out.len().saturating_add(more));
        if used <= allowed {
            return true;
        }
        self.call.trip(&ToolError::limit(Limit::StringSize, allowed as u64, used as u64));
        let end = self.out.floor_char_boundary(64);
        self.out.truncate(end);
        false
    }
}
