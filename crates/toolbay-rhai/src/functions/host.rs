//! The functions that reach the host: log, configuration, key-value store, other tools, events, HTTP, secrets, clock,
//! random numbers.
//!
//! The host checks each grant again; here a function whose permission the manifest does not ask for is not even
//! registered.

use std::{cell::Cell, sync::Arc, time::Duration};

use rhai::{Array, Dynamic, FLOAT, INT, ImmutableString, Map, Module};
use serde_json::Value;
use toolbay_api::{ErrorKind, Limit, LogLevel, ToolError};

use super::{fail, register::add};
use crate::{
    call::{self, Call, HostResult},
    check::{CALL_TOOL, EMIT, HTTP, SECRET},
    convert, meter,
};

/// Functions that need no permission.
pub(super) fn register(module: &mut Module) {
    add(module, "log", ["text"], |text: Dynamic| log(LogLevel::Info, &text));
    add(module, "log", ["level", "text"], |level: ImmutableString, text: Dynamic| log(level_called(&level)?, &text));
    add(module, "config", [], config);
    add(module, "config", ["key"], |key: ImmutableString| config_entry(&key));
    // Rhai's own is an error that a script can catch where it is called in a callback, and prints its value then.
    add(module, "exit", [], || leave(Dynamic::UNIT));
    add(module, "exit", ["value"], leave);
    add(module, "fail", ["message"], |message: ImmutableString| raise(&message, None));
    add(module, "fail", ["message", "details"], |message: ImmutableString, details: Dynamic| {
        raise(&message, Some(details))
    });
}

/// Functions by the permission that they need.
pub(super) fn guarded() -> Vec<(&'static str, Module)> {
    let mut read = Module::new();
    add(&mut read, "kv_get", ["key"], |key: ImmutableString| kv_get(&key));
    add(&mut read, "kv_list", ["prefix"], |prefix: ImmutableString| kv_list(&prefix, INT::MAX));
    add(&mut read, "kv_list", ["prefix", "limit"], |prefix: ImmutableString, limit: INT| kv_list(&prefix, limit));
    add(
        &mut read,
        "kv_list",
        ["prefix", "limit", "after"],
        |prefix: ImmutableString, limit: INT, after: ImmutableString| kv_list_after(&prefix, limit, &after),
    );
    let mut write = Module::new();
    add(&mut write, "kv_set", ["key", "value"], |key: ImmutableString, value: Dynamic| kv_set(&key, &value));
    add(&mut write, "kv_set", ["key", "value", "options"], |key: ImmutableString, value: Dynamic, options: Map| {
        kv_set_for(&key, &value, &options)
    });
    add(
        &mut write,
        "kv_compare_and_set",
        ["key", "expected", "new"],
        |key: ImmutableString, expected: Dynamic, new: Dynamic| kv_compare_and_set(&key, &expected, &new, &Map::new()),
    );
    add(
        &mut write,
        "kv_compare_and_set",
        ["key", "expected", "new", "options"],
        |key: ImmutableString, expected: Dynamic, new: Dynamic, options: Map| {
            kv_compare_and_set(&key, &expected, &new, &options)
        },
    );
    add(&mut write, "kv_delete", ["key"], |key: ImmutableString| kv_delete(&key));
    let mut tools = Module::new();
    add(&mut tools, "call_tool", ["name", "arguments"], |name: ImmutableString, arguments: Map| {
        call_tool(&name, &Dynamic::from_map(arguments))
    });
    let mut events = Module::new();
    add(&mut events, "emit", ["name"], |name: ImmutableString| emit(&name, &Dynamic::UNIT));
    add(&mut events, "emit", ["name", "payload"], |name: ImmutableString, payload: Dynamic| emit(&name, &payload));
    let mut web = Module::new();
    add(&mut web, "http", ["request"], |request: Map| http(&Dynamic::from_map(request)));
    add(&mut web, "http_get", ["url"], |url: ImmutableString| http(&request_to("GET", url)));
    add(&mut web, "http_post", ["url", "json"], |url: ImmutableString, json: Dynamic| {
        let mut request = request_to("POST", url);
        if let Some(mut map) = request.write_lock::<Map>() {
            map.insert("json".into(), json);
        }
        http(&request)
    });
    let mut secrets = Module::new();
    add(&mut secrets, "secret", ["name"], |name: ImmutableString| secret(&name));
    let mut clock = Module::new();
    add(&mut clock, "now", [], now);
    let mut random = Module::new();
    add(&mut random, "uuid", [], uuid);
    add(&mut random, "random", [], random_float);
    add(&mut random, "random_int", ["low", "high"], random_int);
    let modules = [
        ("kv:read", read),
        ("kv:write", write),
        (CALL_TOOL, tools),
        (EMIT, events),
        (HTTP, web),
        (SECRET, secrets),
        ("clock", clock),
        ("random", random),
    ];
    modules
        .into_iter()
        .map(|(permission, mut module)| {
            module.build_index();
            (permission, module)
        })
        .collect()
}

fn level_called(name: &str) -> HostResult<LogLevel> {
    Ok(match name {
        "trace" => LogLevel::Trace,
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        _ => return fail(format!("{name:?} is no log level: use trace, debug, info, warn or error")),
    })
}

fn log(level: LogLevel, text: &Dynamic) -> HostResult<()> {
    call::with(|call| {
        call.count_host_call()?;
        if let Ok(text) = text.as_immutable_string_ref() {
            call.log(level, &text);
            return Ok(());
        }
        let value = call.unwrap(convert::to_value(text, call.limits(), Limit::StringSize))?;
        call.log(level, &value.to_string());
        Ok(())
    })
}

fn config() -> HostResult<Dynamic> {
    call::with(|call| {
        call.count_host_call()?;
        let config = meter::outside(|| call.host().config());
        call.charge(convert::weight(config))?;
        // A plugin without configuration has an empty one.
        Ok(if config.is_null() { Dynamic::from_map(Map::new()) } else { convert::to_dynamic(config) })
    })
}

fn config_entry(key: &str) -> HostResult<Dynamic> {
    call::with(|call| {
        call.count_host_call()?;
        let Some(entry) = meter::outside(|| call.host().config()).get(key) else { return Ok(Dynamic::UNIT) };
        call.charge(convert::weight(entry))?;
        Ok(convert::to_dynamic(entry))
    })
}

fn leave(value: Dynamic) -> HostResult<Dynamic> {
    call::with(|call| Err(call.exit(value)))
}

fn raise(message: &str, details: Option<Dynamic>) -> HostResult<()> {
    let thrown = match details {
        None => message.into(),
        Some(details) => {
            let mut map = Map::new();
            map.insert("message".into(), message.into());
            map.insert("details".into(), details);
            Dynamic::from_map(map)
        }
    };
    Err(rhai::EvalAltResult::ErrorRuntime(thrown, rhai::Position::NONE).into())
}

fn kv_get(key: &str) -> HostResult<Dynamic> {
    call::with(|call| {
        call.count_host_call()?;
        let ask = || {
            let (host, key) = (Arc::clone(call.host()), key.to_owned());
            async move { host.kv_get(&key).await.map(Option::unwrap_or_default) }
        };
        call.wait(ask, |value| weighed(call, value))
    })
}

/// A host's answer as the script gets it.
fn weighed(call: &Call, value: &Value) -> HostResult<Dynamic> {
    call.charge(convert::weight(value))?;
    Ok(convert::to_dynamic(value))
}

fn kv_list(prefix: &str, limit: INT) -> HostResult<Array> {
    call::with(|call| {
        call.count_host_call()?;
        let limit = usize::try_from(limit.max(0)).unwrap_or(usize::MAX);
        let ask = || {
            let (host, prefix) = (Arc::clone(call.host()), prefix.to_owned());
            async move {
                let keys = host.kv_list(&prefix, limit).await?;
                Ok(keys.into_iter().map(Value::String).collect())
            }
        };
        call.wait(ask, |keys| weighed(call, keys)?.into_typed_array().or_else(|_| Ok(Array::new())))
    })
}

fn kv_list_after(prefix: &str, limit: INT, after: &str) -> HostResult<Array> {
    call::with(|call| {
        call.count_host_call()?;
        let limit = usize::try_from(limit.max(0)).unwrap_or(usize::MAX);
        let ask = || {
            let (host, prefix, after) = (Arc::clone(call.host()), prefix.to_owned(), after.to_owned());
            async move {
                let keys = host.kv_list_after(&prefix, &after, limit).await?;
                Ok(keys.into_iter().map(Value::String).collect())
            }
        };
        call.wait(ask, |keys| weighed(call, keys)?.into_typed_array().or_else(|_| Ok(Array::new())))
    })
}

fn kv_set(key: &str, value: &Dynamic) -> HostResult<()> {
    call::with(|call| {
        call.count_host_call()?;
        let value = crossing(call, value, Limit::Output)?;
        let ask = || {
            let (host, key) = (Arc::clone(call.host()), key.to_owned());
            async move { host.kv_set(&key, value).await.map(|()| Value::Null) }
        };
        call.wait(ask, |_| Ok(()))
    })
}

fn kv_set_for(key: &str, value: &Dynamic, options: &Map) -> HostResult<()> {
    let Some(ttl) = time_to_live(options)? else { return kv_set(key, value) };
    call::with(|call| {
        call.count_host_call()?;
        let value = crossing(call, value, Limit::Output)?;
        let ask = || {
            let (host, key) = (Arc::clone(call.host()), key.to_owned());
            async move { host.kv_set_for(&key, value, ttl).await.map(|()| Value::Null) }
        };
        call.wait(ask, |_| Ok(()))
    })
}

fn kv_compare_and_set(key: &str, expected: &Dynamic, new: &Dynamic, options: &Map) -> HostResult<bool> {
    let ttl = time_to_live(options)?;
    call::with(|call| {
        call.count_host_call()?;
        let expected = meter::Outside::of(Cell::new(Some(crossing(call, expected, Limit::Output)?)));
        let new = crossing(call, new, Limit::Output)?;
        let ask = || {
            let (host, key, expected) = (Arc::clone(call.host()), key.to_owned(), expected.take());
            async move { host.kv_compare_and_set(&key, expected, Some(new), ttl).await.map(Value::Bool) }
        };
        call.wait(ask, |was_equal| Ok(*was_equal == Value::Bool(true)))
    })
}

/// `ttl_ms` of the options of a writing function, which have nothing else.
fn time_to_live(options: &Map) -> HostResult<Option<Duration>> {
    if let Some(unknown) = options.keys().find(|key| *key != "ttl_ms") {
        return fail(format!(
            "{unknown:?} is no option here: there is `ttl_ms`, the milliseconds that the value lasts"
        ));
    }
    let Some(ttl) = options.get("ttl_ms") else { return Ok(None) };
    match ttl.as_int() {
        Ok(ttl @ 1..) => Ok(Some(Duration::from_millis(ttl.unsigned_abs()))),
        _ => fail("`ttl_ms` must be a whole number of milliseconds, 1 or more"),
    }
}

/// A script's value on its way to the host.
fn crossing(call: &Call, value: &Dynamic, limit: Limit) -> HostResult<Value> {
    let value = call.give(|| convert::to_value(value, call.limits(), limit))?;
    match call.charge(convert::weight(&value)) {
        Ok(()) => Ok(value),
        Err(error) => {
            meter::outside(|| drop(value));
            Err(error)
        }
    }
}

fn kv_delete(key: &str) -> HostResult<bool> {
    call::with(|call| {
        call.count_host_call()?;
        let ask = || {
            let (host, key) = (Arc::clone(call.host()), key.to_owned());
            async move { host.kv_delete(&key).await.map(Value::Bool) }
        };
        call.wait(ask, |existed| Ok(*existed == Value::Bool(true)))
    })
}

pub(crate) fn call_tool(name: &str, arguments: &Dynamic) -> HostResult<Dynamic> {
    call::with(|call| {
        call.count_host_call()?;
        let arguments = crossing(call, arguments, Limit::Arguments)?;
        let ask = || {
            let (host, name) = (Arc::clone(call.host()), name.to_owned());
            async move { host.call_tool(&name, arguments).await.map(|output| output.data) }
        };
        call.wait_for_tool(ask, |data| weighed(call, data))
    })
}

fn emit(name: &str, payload: &Dynamic) -> HostResult<()> {
    call::with(|call| {
        call.count_host_call()?;
        let payload = crossing(call, payload, Limit::Arguments)?;
        let ask = || {
            let (host, name) = (Arc::clone(call.host()), name.to_owned());
            async move { host.emit(&name, payload).await.map(|()| Value::Null) }
        };
        call.wait(ask, |_| Ok(()))
    })
}

fn request_to(method: &str, url: ImmutableString) -> Dynamic {
    let mut request = Map::new();
    request.insert("method".into(), method.into());
    request.insert("url".into(), url.into());
    Dynamic::from_map(request)
}

fn http(request: &Dynamic) -> HostResult<Dynamic> {
    call::with(|call| {
        call.count_host_call()?;
        let request = crossing(call, request, Limit::Arguments)?;
        let ask = || {
            let host = Arc::clone(call.host());
            async move { host.http(request).await }
        };
        // As with a tool: that a server did not answer in the time of the request is for the script to know.
        call.wait_for_tool(ask, |answer| weighed(call, answer))
    })
}

fn secret(name: &str) -> HostResult<ImmutableString> {
    call::with(|call| {
        call.count_host_call()?;
        let ask = || {
            let (host, name) = (Arc::clone(call.host()), name.to_owned());
            async move { host.secret(&name).await.map(Value::String) }
        };
        call.wait(ask, |value| {
            call.charge(convert::weight(value))?;
            Ok(value.as_str().unwrap_or_default().into())
        })
    })
}

fn now() -> HostResult<INT> {
    call::with(|call| {
        call.count_host_call()?;
        call.ask(|host| host.now_ms(), |now| Ok(*now))
    })
}

fn uuid() -> HostResult<ImmutableString> {
    call::with(|call| {
        call.count_host_call()?;
        call.ask(|host| host.uuid(), |uuid| Ok(uuid.as_str().into()))
    })
}

fn random_bits() -> HostResult<u64> {
    call::with(|call| {
        call.count_host_call()?;
        call.ask(|host| host.random(), |bits| Ok(*bits))
    })
}

fn random_float() -> HostResult<FLOAT> {
    // The 53 bits of a double's fraction, so that each value is equally likely and 1 is never reached.
    Ok((random_bits()? >> 11) as FLOAT / (1_u64 << 53) as FLOAT)
}

fn random_int(low: INT, high: INT) -> HostResult<INT> {
    if low > high {
        return call::with(|call| {
            let message = format!("random_int({low}, {high}): the lower bound is above the upper one");
            Err(call.throw(ToolError::new(ErrorKind::InvalidArguments, message)))
        });
    }
    let values = (i128::from(high) - i128::from(low) + 1) as u128;
    // Multiply and shift: the bias is below 2^-64 times the number of values, too small to see in 64 bits.
    let offset = (u128::from(random_bits()?) * values) >> 64;
    Ok((i128::from(low) + offset as i128) as INT)
}
