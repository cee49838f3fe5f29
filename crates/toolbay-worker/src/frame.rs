//! The frames between host and worker, and how each is written and read.

use std::time::Duration;

use serde_json::Value;
use toolbay_api::{Callback, HookPoint, Limits, LoadError, LogLevel, ToolError};

use crate::{
    fault::{LoadFault, read_error, write_error},
    wire::{Malformed, Reader, Writer},
};

/// What a worker tells of itself when it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) landlock: bool,
    pub(crate) seccomp: bool,
    pub(crate) limits: bool,
    pub(crate) memory_cap: bool,
}

/// What a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Tool(&'a str),
    Hook(HookPoint),
    /// The handler of events that this pattern means; the event is the input.
    Event(&'a str),
    /// A callback, which has no input; for no tenant where the plugin is everybody's.
    Callback(Callback),
}

/// On whose behalf a call is made, and what else a script may see of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Situation<'a> {
    /// Empty where the call is for none.
    pub(crate) tenant: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) conversation: Option<&'a str>,
    pub(crate) run: &'a str,
    pub(crate) call: &'a str,
    pub(crate) idempotency_key: Option<&'a str>,
    /// A tool's depth, a hook's step.
    pub(crate) number: u32,
}

/// A call as the host sends it.
#[derive(Debug)]
pub(crate) struct CallFrame<'a> {
    pub(crate) call: u64,
    pub(crate) plugin: u64,
    pub(crate) target: Target<'a>,
    /// On [`monotonic`](crate::sys::monotonic): what stands before the call in the worker is on its time.
    pub(crate) deadline: Duration,
    pub(crate) limits: Limits,
    pub(crate) situation: Situation<'a>,
    /// JSON, to be read on the call's own account.
    pub(crate) input: &'a [u8],
}

/// What the host sends.
#[derive(Debug)]
pub(crate) enum ToWorker<'a> {
    /// Load this plugin for this call, and answer as to a call if `answer` says so.
    Load { call: u64, plugin: u64, answer: bool, package: &'a [u8] },
    /// Forget this plugin.
    Unload { plugin: u64 },
    /// Call a tool, a hook, a handler or a callback.
    Call(Box<CallFrame<'a>>),
    /// Nobody waits for this call any more.
    Cancel { call: u64 },
    /// The answer to a request; its form is the request's.
    Reply { call: u64, answer: &'a [u8] },
}

const LOAD: u8 = 1;
const UNLOAD: u8 = 2;
const CALL: u8 = 3;
const CANCEL: u8 = 4;
const REPLY: u8 = 5;

pub(crate) fn write_load(out: &mut Vec<u8>, call: u64, plugin: u64, answer: bool, package: &[u8]) {
    let mut frame = Writer::begin(out);
    frame.u8(LOAD);
    frame.u64(call);
    frame.u64(plugin);
    frame.u8(u8::from(answer));
    frame.raw(package);
    frame.end();
}

pub(crate) fn write_unload(out: &mut Vec<u8>, plugin: u64) {
    let mut frame = Writer::begin(out);
    frame.u8(UNLOAD);
    frame.u64(plugin);
    frame.end();
}

pub(crate) fn write_cancel(out: &mut Vec<u8>, call: u64) {
    let mut frame = Writer::begin(out);
    frame.u8(CANCEL);
    frame.u64(call);
    frame.end();
}

/// A reply, whose content `answer` writes.
pub(crate) fn write_reply(out: &mut Vec<u8>, call: u64, answer: impl FnOnce(&mut Writer<'_>)) {
    let mut frame = Writer::begin(out);
    frame.u8(REPLY);
    frame.u64(call);
    answer(&mut frame);
    frame.end();
}

/// A call as it is handed over for writing, with borrowed input.
pub(crate) struct CallParts<'a> {
    pub(crate) call: u64,
    pub(crate) plugin: u64,
    pub(crate) target: &'a Target<'a>,
    /// On [`monotonic`](crate::sys::monotonic).
    pub(crate) deadline: Duration,
    pub(crate) limits: &'a Limits,
    pub(crate) situation: &'a Situation<'a>,
    pub(crate) input: &'a Value,
}

pub(crate) fn write_call(out: &mut Vec<u8>, parts: &CallParts<'_>) {
    let mut frame = Writer::begin(out);
    frame.u8(CALL);
    frame.u64(parts.call);
    frame.u64(parts.plugin);
    match parts.target {
        Target::Tool(name) => {
            frame.u8(0);
            frame.text(name);
        }
        Target::Hook(point) => {
            frame.u8(1);
            frame.text(point.name());
        }
        Target::Event(pattern) => {
            frame.u8(2);
            frame.text(pattern);
        }
        Target::Callback(callback) => {
            frame.u8(3);
            frame.text(callback.name());
        }
    }
    frame.u64(u64::try_from(parts.deadline.as_micros()).unwrap_or(u64::MAX));
    write_limits(&mut frame, parts.limits);
    let situation = parts.situation;
    frame.text(situation.tenant);
    frame.maybe(situation.user);
    frame.maybe(situation.conversation);
    frame.text(situation.run);
    frame.text(situation.call);
    frame.maybe(situation.idempotency_key);
    frame.u32(situation.number);
    frame.json(parts.input);
    frame.end();
}

impl<'a> ToWorker<'a> {
    /// Reads a frame that the host wrote.
    pub(crate) fn read(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(content);
        let frame = match reader.u8()? {
            LOAD => Self::Load {
                call: reader.u64()?,
                plugin: reader.u64()?,
                answer: reader.u8()? == 1,
                package: reader.rest(),
            },
            UNLOAD => Self::Unload { plugin: reader.u64()? },
            CALL => Self::Call(Box::new(read_call(&mut reader)?)),
            CANCEL => Self::Cancel { call: reader.u64()? },
            REPLY => Self::Reply { call: reader.u64()?, answer: reader.rest() },
            _ => return Err(Malformed("an unknown frame")),
        };
        reader.finish()?;
        Ok(frame)
    }
}

/// Bytes before a reply's answer.
pub(crate) const REPLY_HEAD: usize = 1 + 8;

/// The call that a frame of the host's is a reply to, if it is one; found without reading the rest.
pub(crate) fn reply_to(content: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(content);
    (reader.u8() == Ok(REPLY)).then(|| reader.u64().ok()).flatten()
}

fn read_call<'a>(reader: &mut Reader<'a>) -> Result<CallFrame<'a>, Malformed> {
    let (call, plugin) = (reader.u64()?, reader.u64()?);
    let target = match (reader.u8()?, reader.text()?) {
        (0, name) => Target::Tool(name),
        (2, pattern) => Target::Event(pattern),
        (3, name) => Target::Callback(callback_called(name)?),
        (_, name) => Target::Hook(HookPoint::parse(name).ok_or(Malformed("an unknown hook point"))?),
    };
    Ok(CallFrame {
        call,
        plugin,
        target,
        deadline: Duration::from_micros(reader.u64()?),
        limits: read_limits(reader)?,
        situation: Situation {
            tenant: reader.text()?,
            user: reader.maybe()?,
            conversation: reader.maybe()?,
            run: reader.text()?,
            call: reader.text()?,
            idempotency_key: reader.maybe()?,
            number: reader.u32()?,
        },
        input: reader.bytes()?,
    })
}

fn callback_called(name: &str) -> Result<Callback, Malformed> {
    Callback::ALL.into_iter().find(|callback| callback.name() == name).ok_or(Malformed("an unknown callback"))
}

/// Writes limits as their numbers, in the order of their declaration.
pub(crate) fn write_limits(frame: &mut Writer<'_>, limits: &Limits) {
    frame.u64(u64::try_from(limits.timeout.as_micros()).unwrap_or(u64::MAX));
    for number in [
        limits.max_operations,
        limits.max_call_depth as u64,
        limits.max_expr_depth as u64,
        limits.max_memory_bytes,
        limits.max_string_bytes as u64,
        limits.max_array_len as u64,
        limits.max_map_len as u64,
        limits.max_variables as u64,
        limits.max_source_bytes as u64,
        limits.max_argument_bytes as u64,
        limits.max_output_bytes as u64,
        limits.max_nesting as u64,
        limits.max_log_bytes as u64,
        limits.max_host_calls,
        u64::from(limits.max_call_chain),
    ] {
        frame.u64(number);
    }
}

/// Reads what [`write_limits`] wrote.
pub(crate) fn read_limits(reader: &mut Reader<'_>) -> Result<Limits, Malformed> {
    fn size(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
        Ok(usize::try_from(reader.u64()?).unwrap_or(usize::MAX))
    }
    Ok(Limits {
        timeout: Duration::from_micros(reader.u64()?),
        max_operations: reader.u64()?,
        max_call_depth: size(reader)?,
        max_expr_depth: size(reader)?,
        max_memory_bytes: reader.u64()?,
        max_string_bytes: size(reader)?,
        max_array_len: size(reader)?,
        max_map_len: size(reader)?,
        max_variables: size(reader)?,
        max_source_bytes: size(reader)?,
        max_argument_bytes: size(reader)?,
        max_output_bytes: size(reader)?,
        max_nesting: size(reader)?,
        max_log_bytes: size(reader)?,
        max_host_calls: reader.u64()?,
        max_call_chain: u32::try_from(reader.u64()?).unwrap_or(u32::MAX),
    })
}

/// What a script asks the host for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    Log(LogLevel, String),
    Config,
    Assets,
    NowMs,
    Uuid,
    Random,
    KvGet(String),
    KvSet(String, Value),
    KvDelete(String),
    KvList(String, u64),
    /// Key, value, milliseconds.
    KvSetFor(String, Value, u64),
    KvCompareAndSet(Box<Comparison>),
    /// Prefix, the key before the first, how many.
    KvListAfter(String, String, u64),
    CallTool(String, Value),
    Tools,
    Http(Value),
    Secret(String),
    Emit(String, Value),
}

/// A comparison with what is stored; `null` is nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) key: String,
    pub(crate) expected: Value,
    pub(crate) new: Value,
    pub(crate) ttl_ms: Option<u64>,
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) operations: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) host_calls: u64,
    /// Bytes that the worker's heap held when the call was over, without what plugins and the calls beside it hold.
    pub(crate) heap_bytes: u64,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Value(Value),
    Error(ToolError),
    /// An error that a host function answered and the script let pass: its own end, at none of its own limits.
    Passed(ToolError),
    Loaded(Loaded),
    LoadError(LoadError),
}

/// A plugin that was loaded: what it says of itself, and which callbacks it has, so that the others cost no call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) manifest: Value,
    pub(crate) callbacks: Vec<Callback>,
}

/// Why a worker ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// The heap cap of the call that was running: what was allowed and what would have been used.
    Memory { allowed: u64, used: u64 },
    /// A signal that no program survives.
    Signal(u32),
}

/// What a worker sends.
#[derive(Debug)]
pub(crate) enum FromWorker {
    Ready(Ready),
    Request { call: u64, request: Request },
    Done { call: u64, spent: Spent, outcome: Outcome },
    Dying { call: u64, last_word: LastWord },
}

const READY: u8 = 65;
const REQUEST: u8 = 66;
const DONE: u8 = 67;
const DYING: u8 = 68;

pub(crate) fn write_ready(out: &mut Vec<u8>, ready: Ready) {
    let mut frame = Writer::begin(out);
    frame.u8(READY);
    for layer in [ready.landlock, ready.seccomp, ready.limits, ready.memory_cap] {
        frame.u8(u8::from(layer));
    }
    frame.end();
}

pub(crate) fn write_request(out: &mut Vec<u8>, call: u64, request: &Request) {
    let mut frame = Writer::begin(out);
    frame.u8(REQUEST);
    frame.u64(call);
    match request {
        Request::Log(level, text) => {
            frame.u8(0);
            frame.u8(*level as u8);
            frame.text(text);
        }
        Request::Config => frame.u8(1),
        Request::Assets => frame.u8(2),
        Request::NowMs => frame.u8(3),
        Request::Uuid => frame.u8(4),
        Request::Random => frame.u8(5),
        Request::KvGet(key) => {
            frame.u8(6);
            frame.text(key);
        }
        Request::KvSet(key, value) => {
            frame.u8(7);
            frame.text(key);
            frame.json(value);
        }
        Request::KvDelete(key) => {
            frame.u8(8);
            frame.text(key);
        }
        Request::KvList(prefix, limit) => {
            frame.u8(9);
            frame.text(prefix);
            frame.u64(*limit);
        }
        Request::CallTool(tool, arguments) => {
            frame.u8(10);
            frame.text(tool);
            frame.json(arguments);
        }
        Request::Tools => frame.u8(11),
        Request::Http(request) => {
            frame.u8(12);
            frame.json(request);
        }
        Request::Secret(name) => {
            frame.u8(13);
            frame.text(name);
        }
        Request::KvSetFor(key, value, ttl_ms) => {
            frame.u8(20);
            frame.text(key);
            frame.json(value);
            frame.u64(*ttl_ms);
        }
        Request::KvCompareAndSet(comparison) => {
            frame.u8(21);
            frame.text(&comparison.key);
            frame.json(&comparison.expected);
            frame.json(&comparison.new);
            frame.u8(u8::from(comparison.ttl_ms.is_some()));
            frame.u64(comparison.ttl_ms.unwrap_or_default());
        }
        Request::KvListAfter(prefix, after, limit) => {
            frame.u8(22);
            frame.text(prefix);
            frame.text(after);
            frame.u64(*limit);
        }
        Request::Emit(event, payload) => {
            frame.u8(14);
            frame.text(event);
            frame.json(payload);
        }
    }
    frame.end();
}

pub(crate) fn write_done(out: &mut Vec<u8>, call: u64, spent: Spent, outcome: &Outcome) {
    let mut frame = Writer::begin(out);
    frame.u8(DONE);
    frame.u64(call);
    for number in [spent.operations, spent.peak_bytes, spent.host_calls, spent.heap_bytes] {
        frame.u64(number);
    }
    match outcome {
        Outcome::Value(value) => {
            frame.u8(0);
            frame.json(value);
        }
        Outcome::Error(error) => {
            frame.u8(1);
            write_error(&mut frame, error);
        }
        Outcome::LoadError(error) => {
            frame.u8(2);
            frame.json(&LoadFault::from(error));
        }
        Outcome::Passed(error) => {
            frame.u8(3);
            write_error(&mut frame, error);
        }
        Outcome::Loaded(Loaded { manifest, callbacks }) => {
            frame.u8(4);
            frame.json(manifest);
            frame.u8(u8::try_from(callbacks.len()).unwrap_or(u8::MAX));
            for callback in callbacks {
                frame.text(callback.name());
            }
        }
    }
    frame.end();
}

/// The last frame of a worker, made without allocating: by the allocator itself or in a signal handler.
pub(crate) fn dying_frame(call: u64, last_word: LastWord) -> [u8; 30] {
    let (tag, first, second) = match last_word {
        LastWord::Memory { allowed, used } => (0, allowed, used),
        LastWord::Signal(signal) => (1, u64::from(signal), 0),
    };
    let mut frame = [0; 30];
    let mut rest = frame.as_mut_slice();
    for part in
        [&26_u32.to_le_bytes()[..], &[DYING], &call.to_le_bytes(), &[tag], &first.to_le_bytes(), &second.to_le_bytes()]
    {
        if let Some((place, behind)) = rest.split_at_mut_checked(part.len()) {
            place.copy_from_slice(part);
            rest = behind;
        } else {
            break;
        }
    }
    frame
}

/// The call whose end a frame of a worker's says it is, if it is one; found without reading the rest.
pub(crate) fn end_of(content: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(content);
    (reader.u8() == Ok(DONE)).then(|| reader.u64().ok()).flatten()
}

impl FromWorker {
    /// Reads a frame that a worker wrote, which may be anything.
    pub(crate) fn read(content: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(content);
        let frame = match reader.u8()? {
            READY => Self::Ready(Ready {
                landlock: reader.u8()? == 1,
                seccomp: reader.u8()? == 1,
                limits: reader.u8()? == 1,
                memory_cap: reader.u8()? == 1,
            }),
            REQUEST => Self::Request { call: reader.u64()?, request: read_request(&mut reader)? },
            DONE => {
                Self::Done { call: reader.u64()?, spent: read_spent(&mut reader)?, outcome: read_outcome(&mut reader)? }
            }
            DYING => {
                let call = reader.u64()?;
                let last_word = match (reader.u8()?, reader.u64()?, reader.u64()?) {
                    (0, allowed, used) => LastWord::Memory { allowed, used },
                    (_, signal, _) => LastWord::Signal(u32::try_from(signal).unwrap_or_default()),
                };
                Self::Dying { call, last_word }
            }
            _ => return Err(Malformed("an unknown frame")),
        };
        reader.finish()?;
        Ok(frame)
    }
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, Malformed> {
    Ok(match reader.u8()? {
        0 => {
            let level = match reader.u8()? {
                0 => LogLevel::Trace,
                1 => LogLevel::Debug,
                2 => LogLevel::Info,
                3 => LogLevel::Warn,
                _ => LogLevel::Error,
            };
            Request::Log(level, reader.text()?.to_owned())
        }
        1 => Request::Config,
        2 => Request::Assets,
        3 => Request::NowMs,
        4 => Request::Uuid,
        5 => Request::Random,
        6 => Request::KvGet(reader.text()?.to_owned()),
        7 => Request::KvSet(reader.text()?.to_owned(), reader.json()?),
        8 => Request::KvDelete(reader.text()?.to_owned()),
        9 => Request::KvList(reader.text()?.to_owned(), reader.u64()?),
        10 => Request::CallTool(reader.text()?.to_owned(), reader.json()?),
        11 => Request::Tools,
        12 => Request::Http(reader.json()?),
        13 => Request::Secret(reader.text()?.to_owned()),
        20 => Request::KvSetFor(reader.text()?.to_owned(), reader.json()?, reader.u64()?),
        21 => Request::KvCompareAndSet(Box::new(Comparison {
            key: reader.text()?.to_owned(),
            expected: reader.json()?,
            new: reader.json()?,
            ttl_ms: match (reader.u8()?, reader.u64()?) {
                (0, _) => None,
                (_, ttl_ms) => Some(ttl_ms),
            },
        })),
        22 => Request::KvListAfter(reader.text()?.to_owned(), reader.text()?.to_owned(), reader.u64()?),
        14 => Request::Emit(reader.text()?.to_owned(), reader.json()?),
        _ => return Err(Malformed("an unknown request")),
    })
}

fn read_spent(reader: &mut Reader<'_>) -> Result<Spent, Malformed> {
    Ok(Spent {
        operations: reader.u64()?,
        peak_bytes: reader.u64()?,
        host_calls: reader.u64()?,
        heap_bytes: reader.u64()?,
    })
}

fn read_outcome(reader: &mut Reader<'_>) -> Result<Outcome, Malformed> {
    Ok(match reader.u8()? {
        0 => Outcome::Value(reader.json()?),
        1 => Outcome::Error(read_error(reader)?),
        2 => Outcome::LoadError(reader.json::<LoadFault>()?.into()),
        3 => Outcome::Passed(read_error(reader)?),
        4 => {
            let (manifest, count) = (reader.json()?, usize::from(reader.u8()?));
            if count > Callback::ALL.len() {
                return Err(Malformed("more callbacks than there are"));
            }
            let callbacks = (0..count).map(|_| callback_called(reader.text()?)).collect::<Result<_, _>>()?;
            Outcome::Loaded(Loaded { manifest, callbacks })
        }
        _ => return Err(Malformed("an unknown outcome")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_is_a_frame_like_others() {
        let last_word = LastWord::Memory { allowed: 5, used: 9 };
        let frame = dying_frame(3, last_word);
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let read = FromWorker::read(&frame[4..]).unwrap();
        assert!(matches!(read, FromWorker::Dying { call: 3, last_word: same } if same == last_word));
    }

    #[test]
    fn limits_come_back_as_they_were() {
        let limits = Limits { max_call_chain: 3, max_log_bytes: 17, ..Limits::default() };
        let mut out = Vec::new();
        let mut frame = Writer::begin(&mut out);
        write_limits(&mut frame, &limits);
        frame.end();
        assert_eq!(read_limits(&mut Reader::new(&out[4..])).unwrap(), limits);
    }

    #[test]
    fn no_beginning_of_a_frame_is_a_frame() {
        let mut out = Vec::new();
        write_request(&mut out, 1, &Request::KvSet("key".into(), serde_json::json!([1, 2])));
        for length in 0..out.len() - 4 {
            assert!(FromWorker::read(&out[4..4 + length]).is_err(), "{length}");
        }
        assert!(FromWorker::read(&out[4..]).is_ok());
    }
}
