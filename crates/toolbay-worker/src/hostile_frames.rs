//! Whatever bytes come, reading them ends in a frame or an error: no panic, no memory out of proportion.
//!
//! A module of its own because it counts the memory that reading takes, with an allocator that counts.
#![allow(unsafe_code, reason = "the allocator trait is unsafe; every method hands on to the system's allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use toolbay_api::{Callback, ErrorKind, LoadError, LogLevel, ToolError};

use crate::{
    frame::{self, Comparison, FromWorker, LastWord, Loaded, Outcome, Ready, Request, Spent, ToWorker},
    wire::Inbox,
};

/// Bytes of memory that a byte of a frame may cost while it is read: an array of zeros has a value in two bytes, each
/// value takes 72, and an array that grows is there twice.
const MEMORY_A_BYTE: usize = 128;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    let held = HELD.get() + sign * isize::try_from(bytes).unwrap_or(isize::MAX);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every method hands its arguments on unchanged; the counting touches plain cells without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `body`, and the bytes that it held at most beyond those before.
fn weighed<R>(body: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = body();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// Reads `content` as a host does.
fn read(content: &[u8]) -> Result<(), TestCaseError> {
    let (_, bytes) = weighed(|| FromWorker::read(content).is_ok());
    prop_assert!(bytes <= content.len() * MEMORY_A_BYTE + 1_024, "{bytes} bytes for {}", content.len());
    // A worker reads its host's frames with the same alphabet, and trusts them; even so it must not panic.
    let _ = ToWorker::read(content);
    Ok(())
}

/// Frames as honest workers send them, one of each kind and more of those with much in them.
fn honest() -> Vec<Vec<u8>> {
    let value = json!({ "a": [1, 2.5, "text", null, { "b": [[], {}, "\u{1F600}\n"] }], "c": true });
    let error = ToolError::new(ErrorKind::Script, "failed").with_details(value.clone()).with_source("line 4");
    let load_error = LoadError::new(ErrorKind::Compile, "no").in_file("x.rhai");
    let mut frames = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        frames.push(out.split_off(4));
    };
    add(&|out| frame::write_ready(out, Ready::default()));
    let loaded = Loaded { manifest: value.clone(), callbacks: Callback::ALL.to_vec() };
    for outcome in [
        Outcome::Value(value.clone()),
        Outcome::Error(error.clone()),
        Outcome::Passed(error),
        Outcome::Loaded(loaded),
        Outcome::LoadError(load_error),
    ] {
        add(&|out| frame::write_done(out, 7, Spent::default(), &outcome));
    }
    for request in [
        Request::Log(LogLevel::Warn, "a line".to_owned()),
        Request::Config,
        Request::KvGet("key".to_owned()),
        Request::KvSet("key".to_owned(), value.clone()),
        Request::KvList("k".to_owned(), 10),
        Request::KvSetFor("key".to_owned(), value.clone(), 5),
        Request::KvCompareAndSet(Box::new(Comparison {
            key: "key".to_owned(),
            expected: value.clone(),
            new: value.clone(),
            ttl_ms: Some(5),
        })),
        Request::KvListAfter("k".to_owned(), "ka".to_owned(), 10),
        Request::CallTool("a.tool".to_owned(), value.clone()),
        Request::Tools,
        Request::Emit("order.placed".to_owned(), value.clone()),
    ] {
        add(&|out| frame::write_request(out, 7, &request));
    }
    add(&|out| out.extend_from_slice(&frame::dying_frame(7, LastWord::Signal(11))));
    frames
}

/// JSON that costs the most for its bytes, of about `bytes` of them.
fn dense(shape: u8, bytes: usize) -> Vec<u8> {
    let many = |item: &str| item.repeat(bytes / item.len() + 1);
    match shape {
        0 => format!("[{}0]", many("0,")),
        1 => format!("[{}[]]", many("[],")),
        2 => format!("[{}{{}}]", many("{},")),
        3 => format!("[{}\"\"]", many("\"\",")),
        4 => (0..bytes / 8).fold("{".to_owned(), |text, n| text + &*format!("\"{n:x}\":0,")) + "\"z\":0}",
        5 => many("["),
        6 => many("{\"\":"),
        _ => format!("\"{}\"", many("\\u0041")),
    }
    .into_bytes()
}

fn done_with(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_done(&mut out, 7, Spent::default(), &Outcome::Value(Value::Null));
    let mut content = out.split_off(4);
    content.truncate(content.len() - 8);
    content.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
    content.extend_from_slice(json);
    content
}

/// One change of a frame: at a place, which bytes go and which come.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let bytes = prop_oneof![
        vec(any::<u8>(), 0..9),
        // Lengths that lie.
        prop_oneof![Just(0_u32), Just(u32::MAX), Just(1 << 31), Just(1 << 20)]
            .prop_map(|length| length.to_le_bytes().to_vec()),
        Just(b"[[[[[[[[{\"a\":".to_vec()),
    ];
    (any::<prop::sample::Index>(), 0..9_usize, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_a_frame_or_an_error(tag in prop_oneof![any::<u8>(), 65..69_u8], rest in vec(any::<u8>(), 0..300)) {
        read(&[&[tag][..], &rest].concat())?;
    }

    #[test]
    fn changed_frames_are_a_frame_or_an_error(
        which in any::<prop::sample::Index>(),
        changes in vec(change(), 1..5),
    ) {
        let frames = honest();
        let mut content = which.get(&frames).clone();
        for (place, gone, bytes) in changes {
            let start = place.index(content.len() + 1);
            let end = (start + gone).min(content.len());
            content.splice(start..end, bytes);
        }
        read(&content)?;
    }

    #[test]
    fn dense_values_cost_in_proportion(shape in 0..8_u8, bytes in 0..20_000_usize) {
        read(&done_with(&dense(shape, bytes)))?;
    }

    #[test]
    fn a_stream_in_pieces_is_cut_within_its_bound(
        stream in vec(prop_oneof![vec(any::<u8>(), 0..40), Just(vec![0, 0, 0, 0]), Just(vec![255; 4])], 0..30),
        piece in 1..200_usize,
        longest in 0..2_000_usize,
    ) {
        let stream: Vec<u8> = stream.concat();
        let mut inbox = Inbox::default();
        let (result, bytes) = weighed(|| {
            for piece in stream.chunks(piece) {
                inbox.space().extend_from_slice(piece);
                loop {
                    match inbox.next(longest) {
                        Ok(Some(content)) if content.len() > longest => return Err(TestCaseError::fail("too long")),
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
            }
            Ok(())
        });
        result?;
        prop_assert!(bytes <= 2 * (longest + 4 + piece) + 64, "{bytes} bytes for frames of {longest}");
    }
}

#[test]
fn honest_frames_are_read() {
    for content in honest() {
        assert!(FromWorker::read(&content).is_ok(), "{content:?}");
    }
    assert!(FromWorker::read(&done_with(&dense(0, 100))).is_ok());
}
