//! The functions that scripts have beside Rhai's packages.
//!
//! One file for each family. All of them charge operations for work that grows with their input, and refuse a result
//! that is too large before it is built: inside one function no progress callback runs.

use rhai::Module;
use toolbay_api::{ErrorKind, ToolError};

use crate::call::{self, HostResult};

mod absent;
mod array;
mod asset;
mod callbacks;
mod compare;
mod date;
mod encode;
pub(crate) mod host;
mod json;
mod number;
mod print;
mod regex;
pub(crate) mod register;
mod text;

/// Functions that every plugin has.
pub(crate) fn pure() -> Module {
    let mut module = Module::new();
    absent::register(&mut module);
    array::register(&mut module);
    asset::register(&mut module);
    callbacks::register(&mut module);
    compare::register(&mut module);
    date::register(&mut module);
    encode::register(&mut module);
    host::register(&mut module);
    json::register(&mut module);
    number::register(&mut module);
    print::register(&mut module);
    regex::register(&mut module);
    text::register(&mut module);
    module.build_index();
    module
}

/// Functions that exist only where a manifest asks for their permission.
pub(crate) fn guarded() -> Vec<(&'static str, Module)> {
    host::guarded()
}

/// An error that the script can catch, with this message.
pub(crate) fn fail<T>(message: impl Into<String>) -> HostResult<T> {
    call::with(|call| Err(call.throw(ToolError::new(ErrorKind::InvalidArguments, message.into()))))
}

/// Charges for reading `bytes` of text.
fn charge_bytes(bytes: usize) -> HostResult<()> {
    call::with(|call| call.charge(1 + bytes / 64))
}
