//! What Rhai's packages have and scripts must not: each is replaced by an error.

use rhai::{Array, FLOAT, INT, ImmutableString, Module};

use super::{fail, register::add};
use crate::call::HostResult;

pub(super) fn register(module: &mut Module) {
    add(module, "sleep", ["seconds"], |_: INT| no_sleep());
    add(module, "sleep", ["seconds"], |_: FLOAT| no_sleep());
    // A list of all functions of all imported files, made anew by each call.
    add(module, "get_fn_metadata_list", [], no_list);
    add(module, "get_fn_metadata_list", ["name"], |_: ImmutableString| no_list());
    add(module, "get_fn_metadata_list", ["name", "parameters"], |_: ImmutableString, _: INT| no_list());
}

fn no_list() -> HostResult<Array> {
    fail("`get_fn_metadata_list` does not exist here")
}

fn no_sleep() -> HostResult<()> {
    fail("`sleep` does not exist here: a call has a deadline and should end as soon as it can")
}
