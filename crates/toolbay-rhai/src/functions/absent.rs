//! What Rhai's packages have and scripts must not: each is replaced by an error.

use rhai::{FLOAT, INT, Module};

use super::{fail, register::add};
use crate::call::HostResult;

pub(super) fn register(module: &mut Module) {
    add(module, "sleep", ["seconds"], |_: INT| no_sleep());
    add(module, "sleep", ["seconds"], |_: FLOAT| no_sleep());
}

fn no_sleep() -> HostResult<()> {
    fail("`sleep` does not exist here: a call has a deadline and should end as soon as it can")
}
