//! Rhai's functions of arrays that can blow up within one operation or go on after an error, again.
//!
//! `pad` copies a value as often as a script says, whatever it weighs; `dedup` takes an error of the comparison for an
//! answer and goes on; `sort` panics on floats that are no number. These have Rhai's names and types and come before them.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, FnPtr, INT, Module, NativeCallContext};
use toolbay_api::{Limit, ToolError};

use super::{
    fail,
    register::{add, add_mut},
};
use crate::{
    call::{self, HostResult},
    meter,
};

pub(super) fn register(module: &mut Module) {
    add_mut(module, "pad", ["array", "length", "item"], |array: &mut Array, len: INT, item: Dynamic| {
        pad(array, len, item)
    });
    add_mut(module, "dedup", ["array", "comparer"], dedup);
    for (name, descends) in [("sort", false), ("sort_desc", true)] {
        add_mut(module, name, ["array"], move |array: &mut Array| sort(array, descends));
    }
    for (name, descends) in [("order", false), ("order_desc", true)] {
        add(module, name, ["array"], move |mut array: Array| sort(&mut array, descends).map(|()| array));
    }
}

/// Sorts elements of one type that has an order. Rhai's panics on floats that are no number.
fn sort(array: &mut Array, descends: bool) -> HostResult<()> {
    let steps = array.len().checked_ilog2().unwrap_or(0) as usize + 1;
    call::with(|call| call.charge(array.len().saturating_mul(steps) / 8))?;
    let Some(first) = array.first() else { return Ok(()) };
    let of_one_type = array.iter().all(|item| item.type_id() == first.type_id() && !item.is_shared());
    let order = of_one_type.then(|| order_of(first)).flatten();
    let Some(order) = order else {
        return fail("the elements are not of one type that has an order: give a function that compares two");
    };
    array.sort_by(|one, other| if descends { order(other, one) } else { order(one, other) });
    Ok(())
}

/// How values of this one's type are compared.
fn order_of(value: &Dynamic) -> Option<fn(&Dynamic, &Dynamic) -> Ordering> {
    fn by<T: Ord>(one: Result<T, &str>, other: Result<T, &str>) -> Ordering {
        one.ok().cmp(&other.ok())
    }
    if value.is_int() {
        Some(|one, other| by(one.as_int(), other.as_int()))
    } else if value.is_string() {
        Some(|one, other| {
            by(
                one.as_immutable_string_ref().as_deref().map_err(|given| *given),
                other.as_immutable_string_ref().as_deref().map_err(|given| *given),
            )
        })
    } else if value.is_float() {
        Some(|one, other| one.as_float().unwrap_or(f64::NAN).total_cmp(&other.as_float().unwrap_or(f64::NAN)))
    } else if value.is_decimal() {
        Some(|one, other| by(one.as_decimal(), other.as_decimal()))
    } else if value.is_char() {
        Some(|one, other| by(one.as_char(), other.as_char()))
    } else if value.is_bool() {
        Some(|one, other| by(one.as_bool(), other.as_bool()))
    } else if value.is_unit() {
        Some(|_, _| Ordering::Equal)
    } else {
        None
    }
}

/// Appends copies of `item` until there are `len` elements.
fn pad(array: &mut Array, len: INT, item: Dynamic) -> HostResult<()> {
    let len = usize::try_from(len).unwrap_or(0);
    let missing = len.saturating_sub(array.len());
    if missing == 0 {
        return Ok(());
    }
    call::with(|call| {
        call.admit_array(len)?;
        // What one copy weighs is seen by making it.
        let before = meter::held();
        let copy = item.clone();
        let each = u64::try_from(meter::held() - before).unwrap_or(0).saturating_add(size_of::<Dynamic>() as u64);
        let (held, allowed) = (u64::try_from(before).unwrap_or(0), call.limits().max_memory_bytes);
        let needed = each.saturating_mul(missing as u64).saturating_add(held);
        if needed > allowed {
            return Err(call.stop(ToolError::limit(Limit::Memory, allowed, needed)));
        }
        call.charge(usize::try_from(needed.saturating_sub(held) / 128).unwrap_or(usize::MAX))?;
        drop(copy);
        array.resize(len, item);
        Ok(())
    })
}

/// Drops each element for which `comparer`, given it and the one kept before it, says so.
fn dedup(context: NativeCallContext<'_>, array: &mut Array, comparer: FnPtr) -> HostResult<()> {
    let mut kept = Array::with_capacity(array.len());
    let mut items = std::mem::take(array).into_iter();
    let mut result = Ok(());
    for item in items.by_ref() {
        let repeats = match kept.last() {
            Some(last) => comparer.call_raw(&context, None, [last.clone(), item.clone()]),
            None => Ok(Dynamic::FALSE),
        };
        match repeats {
            Ok(repeats) if repeats.as_bool().unwrap_or(false) => {}
            Ok(_) => kept.push(item),
            Err(error) => {
                kept.push(item);
                result = Err(error);
                break;
            }
        }
    }
    kept.extend(items);
    *array = kept;
    result
}
