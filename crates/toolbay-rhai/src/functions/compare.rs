//! Equality, look-up and sorting of containers.
//!
//! Rhai compares nested values by native recursion without an end, clones the wanted value for each element, and goes on
//! sorting after the comparison failed. These come before Rhai's.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, FnPtr, INT, ImmutableString, Map, Module, NativeCallContext};
use toolbay_api::{Limit, ToolError};

use super::register::{add, add_mut};
use crate::call::{self, Call, HostResult};

/// Levels of nesting that are compared.
const MAX_DEPTH: usize = 1_000;

pub(super) fn register(module: &mut Module) {
    let names = ["left", "right"];
    add(module, "==", names, |left: &mut Array, right: Array| equal_arrays(left, &right));
    add(module, "!=", names, |left: &mut Array, right: Array| Ok(!equal_arrays(left, &right)?));
    add(module, "==", names, |left: &mut Map, right: Map| equal_maps(left, &right));
    add(module, "!=", names, |left: &mut Map, right: Map| Ok(!equal_maps(left, &right)?));
    add(module, "contains", ["array", "value"], |array: &mut Array, value: Dynamic| {
        Ok(position(array, &value, 0)?.is_some())
    });
    add(module, "index_of", ["array", "value"], |array: &mut Array, value: Dynamic| index(position(array, &value, 0)?));
    // Rhai takes a text for the name of a function that might exist.
    add(module, "index_of", ["array", "value"], |array: &mut Array, value: ImmutableString| {
        index(position(array, &value.into(), 0)?)
    });
    add(module, "index_of", ["array", "value", "start"], |array: &mut Array, value: ImmutableString, start: INT| {
        index(position(array, &value.into(), offset(start, array.len()))?)
    });
    add(module, "index_of", ["array", "value", "start"], |array: &mut Array, value: Dynamic, start: INT| {
        index(position(array, &value, offset(start, array.len()))?)
    });
    add_mut(module, "dedup", ["array"], dedup);
    for name in ["sort", "sort_by"] {
        add_mut(module, name, ["array", "comparer"], |context: NativeCallContext, array: &mut Array, by: FnPtr| {
            *array = sorted(&context, std::mem::take(array), &by)?;
            Ok(())
        });
    }
    for name in ["order", "order_by"] {
        add(module, name, ["array", "comparer"], |context: NativeCallContext, array: Array, by: FnPtr| {
            sorted(&context, array, &by)
        });
    }
}

fn equal_arrays(left: &Array, right: &Array) -> HostResult<bool> {
    call::with(|call| Equality { call }.arrays(left, right, 0))
}

fn equal_maps(left: &Map, right: &Map) -> HostResult<bool> {
    call::with(|call| Equality { call }.maps(left, right, 0))
}

/// Compares values as Rhai's `==` does: numbers by value, what has no common type as different.
struct Equality<'a> {
    call: &'a Call,
}

impl Equality<'_> {
    fn values(&self, left: &Dynamic, right: &Dynamic, depth: usize) -> HostResult<bool> {
        self.call.charge(1)?;
        // Asking whether a captured variable is in use takes Rhai 50 ms, so that it is asked once at most.
        if (left.is_shared() && left.is_locked()) || (right.is_shared() && right.is_locked()) {
            return super::fail("a captured variable is compared while it is in use");
        }
        if let (Ok(left), Ok(right)) = (left.as_array_ref(), right.as_array_ref()) {
            return self.arrays(&left, &right, depth);
        }
        if let (Ok(left), Ok(right)) = (left.as_map_ref(), right.as_map_ref()) {
            return self.maps(&left, &right, depth);
        }
        if let (Ok(left), Ok(right)) = (left.as_immutable_string_ref(), right.as_immutable_string_ref()) {
            self.call.charge(left.len().min(right.len()) / 64)?;
            return Ok(*left == *right);
        }
        if let (Ok(left), Ok(right)) = (left.as_blob_ref(), right.as_blob_ref()) {
            return Ok(*left == *right);
        }
        Ok(scalars(left, right))
    }

    fn arrays(&self, left: &Array, right: &Array, depth: usize) -> HostResult<bool> {
        self.deeper(depth)?;
        if left.len() != right.len() {
            return Ok(false);
        }
        for (left, right) in left.iter().zip(right) {
            if !self.values(left, right, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn maps(&self, left: &Map, right: &Map, depth: usize) -> HostResult<bool> {
        self.deeper(depth)?;
        if left.len() != right.len() {
            return Ok(false);
        }
        // Both are in the order of their keys.
        for ((left_key, left), (right_key, right)) in left.iter().zip(right) {
            if left_key != right_key || !self.values(left, right, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn deeper(&self, depth: usize) -> HostResult<()> {
        if depth < MAX_DEPTH {
            return Ok(());
        }
        Err(self.call.stop(ToolError::limit(Limit::Nesting, MAX_DEPTH as u64, depth as u64 + 1)))
    }
}

fn scalars(left: &Dynamic, right: &Dynamic) -> bool {
    if let (Ok(left), Ok(right)) = (left.as_int(), right.as_int()) {
        return left == right;
    }
    let number = |value: &Dynamic| value.as_float().or_else(|_| value.as_int().map(|value| value as f64));
    if let (Ok(left), Ok(right)) = (number(left), number(right)) {
        return left == right;
    }
    if let (Ok(left), Ok(right)) = (left.as_bool(), right.as_bool()) {
        return left == right;
    }
    if let (Ok(left), Ok(right)) = (left.as_char(), right.as_char()) {
        return left == right;
    }
    if let (Ok(left), Ok(right)) = (left.as_decimal(), right.as_decimal()) {
        return left == right;
    }
    left.is_unit() && right.is_unit()
}

/// The place of the first element from `start` on that equals `value`.
fn position(array: &Array, value: &Dynamic, start: usize) -> HostResult<Option<usize>> {
    call::with(|call| {
        let equality = Equality { call };
        for (place, item) in array.iter().enumerate().skip(start) {
            if equality.values(item, value, 0)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    })
}

fn index(place: Option<usize>) -> HostResult<INT> {
    Ok(place.and_then(|place| INT::try_from(place).ok()).unwrap_or(-1))
}

/// Where a negative start counts from the end.
pub(super) fn offset(start: INT, len: usize) -> usize {
    match usize::try_from(start) {
        Ok(start) => start,
        Err(_) => len.saturating_sub(usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX)),
    }
}

fn dedup(array: &mut Array) -> HostResult<()> {
    call::with(|call| {
        let equality = Equality { call };
        let mut kept = Array::with_capacity(array.len());
        for item in std::mem::take(array) {
            let repeats = match kept.last() {
                Some(last) => equality.values(last, &item, 0)?,
                None => false,
            };
            if !repeats {
                kept.push(item);
            }
        }
        *array = kept;
        Ok(())
    })
}

/// A stable merge sort that ends at the first error of the comparison. std's cannot be left, and panics where a
/// comparison is no order.
fn sorted(context: &NativeCallContext<'_>, array: Array, by: &FnPtr) -> HostResult<Array> {
    let mut runs: Vec<Array> = array.into_iter().map(|item| vec![item]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pairs = runs.into_iter();
        while let Some(left) = pairs.next() {
            merged.push(match pairs.next() {
                Some(right) => merge(context, left, right, by)?,
                None => left,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default())
}

fn merge(context: &NativeCallContext<'_>, left: Array, right: Array, by: &FnPtr) -> HostResult<Array> {
    let mut merged = Array::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        let next = if compare(context, one, other, by)? == Ordering::Greater { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

/// What the comparer says: a number below, equal to or above zero, or whether the first is not greater.
fn compare(context: &NativeCallContext<'_>, one: &Dynamic, other: &Dynamic, by: &FnPtr) -> HostResult<Ordering> {
    let answer: Dynamic = by.call_within_context(context, (one.clone(), other.clone()))?;
    if let Ok(number) = answer.as_int() {
        return Ok(number.cmp(&0));
    }
    match answer.as_bool() {
        Ok(true) => Ok(Ordering::Less),
        Ok(false) => Ok(Ordering::Greater),
        Err(given) => super::fail(format!("the comparer must give a whole number or a bool, not a {given}")),
    }
}
