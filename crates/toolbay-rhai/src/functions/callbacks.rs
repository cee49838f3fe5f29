//! Rhai's functions of arrays and maps that call a function for each element, again.
//!
//! Rhai's own wrap whatever error the function ends with, so that a script can catch a limit behind them and go on with
//! a value that is over it; and they keep a captured variable where a value belongs. These have Rhai's names and types,
//! come before them, and treat the element, its place and `this` as they do.

use rhai::{Array, Dynamic, EvalAltResult, FnPtr, INT, ImmutableString, Map, Module, NativeCallContext};

use super::{
    compare::offset,
    fail,
    register::{add, add_mut},
};
use crate::call::{self, HostResult};

type Context<'a> = NativeCallContext<'a>;

pub(super) fn register(module: &mut Module) {
    let names = ["array", "function"];
    add_mut(module, "for_each", names, |context: Context<'_>, array: &mut Array, function: FnPtr| {
        let asked = Asked { context: &context, name: "for_each", function: &function };
        array.iter_mut().enumerate().try_for_each(|(place, item)| asked.with_this(item, place).map(drop))
    });
    add(module, "map", names, |context: Context<'_>, array: &mut Array, function: FnPtr| {
        let asked = Asked { context: &context, name: "map", function: &function };
        array.iter_mut().enumerate().map(|(place, item)| asked.of(item, place)).collect::<HostResult<Array>>()
    });
    add(module, "filter", names, |context: Context<'_>, array: &mut Array, function: FnPtr| {
        let asked = Asked { context: &context, name: "filter", function: &function };
        let mut kept = Array::new();
        for (place, item) in array.iter_mut().enumerate() {
            if asked.says_yes(item, place)? {
                kept.push(item.clone());
            }
        }
        Ok(kept)
    });
    add(module, "some", names, |context: Context<'_>, array: &mut Array, function: FnPtr| {
        let asked = Asked { context: &context, name: "some", function: &function };
        Ok(asked.first(array, 0)?.is_some())
    });
    add(module, "all", names, |context: Context<'_>, array: &mut Array, function: FnPtr| {
        let asked = Asked { context: &context, name: "all", function: &function };
        for (place, item) in array.iter_mut().enumerate() {
            if !asked.says_yes(item, place)? {
                return Ok(false);
            }
        }
        Ok(true)
    });
    let names = ["array", "other", "function"];
    add(module, "zip", names, |context: Context<'_>, array: &mut Array, other: Array, function: FnPtr| {
        let asked = Asked { context: &context, name: "zip", function: &function };
        let pairs = array.iter().zip(other).enumerate();
        pairs.map(|(place, (one, other))| asked.of_pair(one.clone(), other, place)).collect::<HostResult<Array>>()
    });
    searches(module);
    removals(module);
    folds(module);
    maps(module);
    by_name(module);
}

/// The first element that the function says yes to.
fn searches(module: &mut Module) {
    fn find(context: &Context<'_>, array: &mut Array, function: &FnPtr, start: INT) -> HostResult<Dynamic> {
        let asked = Asked { context, name: "find", function };
        let place = asked.first(array, start)?;
        Ok(place.and_then(|place| array.get(place)).cloned().unwrap_or(Dynamic::UNIT))
    }
    fn find_map(context: &Context<'_>, array: &mut Array, function: &FnPtr, start: INT) -> HostResult<Dynamic> {
        let asked = Asked { context, name: "find_map", function };
        let start = offset(start, array.len());
        for (place, item) in array.iter_mut().enumerate().skip(start) {
            let value = asked.of(item, place)?;
            if !value.is_unit() {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    }
    fn index_of(context: &Context<'_>, array: &mut Array, function: &FnPtr, start: INT) -> HostResult<INT> {
        let asked = Asked { context, name: "index_of", function };
        Ok(asked.first(array, start)?.and_then(|place| INT::try_from(place).ok()).unwrap_or(-1))
    }
    let names = ["array", "function"];
    add(module, "find", names, |cx: Context<'_>, array: &mut Array, by: FnPtr| find(&cx, array, &by, 0));
    add(module, "find_map", names, |cx: Context<'_>, array: &mut Array, by: FnPtr| find_map(&cx, array, &by, 0));
    add(module, "index_of", names, |cx: Context<'_>, array: &mut Array, by: FnPtr| index_of(&cx, array, &by, 0));
    let names = ["array", "function", "start"];
    add(module, "find", names, |cx: Context<'_>, array: &mut Array, by: FnPtr, from: INT| find(&cx, array, &by, from));
    add(module, "find_map", names, |cx: Context<'_>, array: &mut Array, by: FnPtr, from: INT| {
        find_map(&cx, array, &by, from)
    });
    add(module, "index_of", names, |cx: Context<'_>, array: &mut Array, by: FnPtr, from: INT| {
        index_of(&cx, array, &by, from)
    });
}

/// `drain` takes out what the function says yes to, `retain` what it says no to; both give what they took out.
fn removals(module: &mut Module) {
    for (name, out) in [("drain", true), ("retain", false)] {
        add_mut(module, name, ["array", "function"], move |context: Context<'_>, array: &mut Array, by: FnPtr| {
            let asked = Asked { context: &context, name, function: &by };
            let (mut kept, mut taken) = (Array::with_capacity(array.len()), Array::new());
            let mut items = std::mem::take(array).into_iter().enumerate();
            let mut failed = None;
            for (place, mut item) in items.by_ref() {
                let answer = asked.says_yes(&mut item, place);
                if answer.as_ref().is_ok_and(|yes| *yes == out) {
                    taken.push(item)
                } else {
                    kept.push(item)
                }
                failed = answer.err();
                if failed.is_some() {
                    break;
                }
            }
            kept.extend(items.map(|(_, item)| item));
            *array = kept;
            failed.map_or(Ok(taken), Err)
        });
        add_mut(module, name, ["map", "function"], move |context: Context<'_>, map: &mut Map, by: FnPtr| {
            let asked = Asked { context: &context, name, function: &by };
            let (mut kept, mut taken) = (Map::new(), Map::new());
            let mut entries = std::mem::take(map).into_iter();
            let mut failed = None;
            for (key, mut value) in entries.by_ref() {
                let answer = asked.entry_says_yes(&key, &mut value);
                let place = if answer.as_ref().is_ok_and(|yes| *yes == out) { &mut taken } else { &mut kept };
                place.insert(key, value);
                failed = answer.err();
                if failed.is_some() {
                    break;
                }
            }
            kept.extend(entries);
            *map = kept;
            failed.map_or(Ok(taken), Err)
        });
    }
}

fn folds(module: &mut Module) {
    fn forwards(cx: &Context<'_>, array: &mut Array, function: &FnPtr, initial: Dynamic) -> HostResult<Dynamic> {
        let asked = Asked { context: cx, name: "reduce", function };
        array.iter_mut().enumerate().try_fold(initial, |sum, (place, item)| asked.of_sum(sum, item, place))
    }
    fn backwards(cx: &Context<'_>, array: &mut Array, function: &FnPtr, initial: Dynamic) -> HostResult<Dynamic> {
        let asked = Asked { context: cx, name: "reduce_rev", function };
        array.iter_mut().enumerate().rev().try_fold(initial, |sum, (place, item)| asked.of_sum(sum, item, place))
    }
    let names = ["array", "function"];
    add(module, "reduce", names, |cx: Context<'_>, array: &mut Array, by: FnPtr| {
        forwards(&cx, array, &by, Dynamic::UNIT)
    });
    add(module, "reduce_rev", names, |cx: Context<'_>, array: &mut Array, by: FnPtr| {
        backwards(&cx, array, &by, Dynamic::UNIT)
    });
    let names = ["array", "function", "initial"];
    add(module, "reduce", names, |cx: Context<'_>, array: &mut Array, by: FnPtr, initial: Dynamic| {
        forwards(&cx, array, &by, initial)
    });
    add(module, "reduce_rev", names, |cx: Context<'_>, array: &mut Array, by: FnPtr, initial: Dynamic| {
        backwards(&cx, array, &by, initial)
    });
}

fn maps(module: &mut Module) {
    let names = ["map", "function"];
    add(module, "map", names, |context: Context<'_>, map: &mut Map, function: FnPtr| {
        let asked = Asked { context: &context, name: "map", function: &function };
        let entries = map.iter_mut().map(|(key, value)| Ok((key.clone(), asked.of_entry(key, value)?)));
        entries.collect::<HostResult<Map>>()
    });
    add(module, "filter", names, |context: Context<'_>, map: &mut Map, function: FnPtr| {
        let asked = Asked { context: &context, name: "filter", function: &function };
        let mut kept = Map::new();
        for (key, value) in map.iter_mut() {
            if asked.entry_says_yes(key, value)? {
                kept.insert(key.clone(), value.clone());
            }
        }
        Ok(kept)
    });
}

/// Rhai takes a function's name for the function, which it has long called deprecated.
fn by_name(module: &mut Module) {
    fn refuse(name: &str) -> HostResult<()> {
        fail(format!("give the function itself: Fn({:?}), or |x| ...", call::cut(name, 60)))
    }
    for name in ["all", "some", "filter", "map", "drain", "retain", "reduce", "reduce_rev", "sort", "dedup"] {
        add_mut(module, name, ["array", "name"], |_: &mut Array, by: ImmutableString| refuse(&by));
    }
    for name in ["reduce", "reduce_rev"] {
        let names = ["array", "name", "initial"];
        add_mut(module, name, names, |_: &mut Array, by: ImmutableString, _: Dynamic| refuse(&by));
    }
}

/// A script's function, asked about elements on behalf of the function `name`.
struct Asked<'a> {
    context: &'a Context<'a>,
    name: &'static str,
    function: &'a FnPtr,
}

impl Asked<'_> {
    /// Its answer about an element that is bound to `this`, and nothing else.
    fn with_this(&self, item: &mut Dynamic, place: usize) -> HostResult<Dynamic> {
        self.answer(Some(item), [], [number(place)], None)
    }

    /// Its answer about an element, bound to `this` or given as the first argument.
    fn of(&self, item: &mut Dynamic, place: usize) -> HostResult<Dynamic> {
        self.answer(Some(item), [], [number(place)], Some(0))
    }

    fn of_pair(&self, one: Dynamic, other: Dynamic, place: usize) -> HostResult<Dynamic> {
        self.answer(None, [one, other], [number(place)], None)
    }

    fn of_sum(&self, sum: Dynamic, item: &mut Dynamic, place: usize) -> HostResult<Dynamic> {
        self.answer(Some(item), [sum], [number(place)], Some(1))
    }

    fn of_entry(&self, key: &str, value: &mut Dynamic) -> HostResult<Dynamic> {
        self.answer(Some(value), [key.into()], [], Some(1))
    }

    fn says_yes(&self, item: &mut Dynamic, place: usize) -> HostResult<bool> {
        Ok(self.of(item, place)?.as_bool().unwrap_or(false))
    }

    fn entry_says_yes(&self, key: &str, value: &mut Dynamic) -> HostResult<bool> {
        Ok(self.of_entry(key, value)?.as_bool().unwrap_or(false))
    }

    /// The place of the first element from `start` on that it says yes to.
    fn first(&self, array: &mut Array, start: INT) -> HostResult<Option<usize>> {
        let start = offset(start, array.len());
        for (place, item) in array.iter_mut().enumerate().skip(start) {
            if self.says_yes(item, place)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn answer<const N: usize, const X: usize>(
        &self,
        this: Option<&mut Dynamic>,
        arguments: [Dynamic; N],
        extra: [Dynamic; X],
        place_of_this: Option<usize>,
    ) -> HostResult<Dynamic> {
        let answer =
            self.function.call_raw_with_extra_args(self.name, self.context, this, arguments, extra, place_of_this);
        // What a loop breaks with may still be a captured variable.
        answer.map(Dynamic::flatten).map_err(bare)
    }
}

/// The error itself, where no script may catch it: what Rhai wraps around it would make that possible.
fn bare(error: Box<EvalAltResult>) -> Box<EvalAltResult> {
    if error.unwrap_inner().is_catchable() {
        return error;
    }
    let mut error = error;
    loop {
        match *error {
            EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
                error = inner;
            }
            other => return other.into(),
        }
    }
}

fn number(place: usize) -> Dynamic {
    Dynamic::from_int(INT::try_from(place).unwrap_or(INT::MAX))
}
