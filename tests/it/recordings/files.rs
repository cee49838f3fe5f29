//! Files that are no recordings, and recordings that were changed: each is told with the line.

use serde_json::Value;
use toolbay::{
    AgentConfig, RecordBounds, ScriptedModel,
    replay::{self, ReadBounds, Recording},
};

use super::*;

#[track_caller]
fn refused(text: &str, line: usize, words: &str) {
    let error = read(text).expect_err("it is no recording");
    assert!(error.line == line && error.message.contains(words), "{error}");
    assert!(error.to_string().starts_with(&format!("line {line}: ")));
}

async fn whole() -> String {
    recorded(bay(), ScriptedModel::new().calls("add", json!({ "a": 1, "b": 2 })).says("It is 3.")).await
}

#[tokio::test]
async fn what_is_no_recording_is_refused_with_the_line_and_what_is_wrong_with_it() {
    let text = whole().await;
    let all: Vec<_> = text.lines().collect();
    let with = |at: usize, line: &str| {
        let mut all = all.clone();
        all[at - 1] = line;
        all.join("\n") + "\n"
    };
    refused("", 1, "empty");
    refused("hello\n", 1, "this is no recording");
    refused("{\"text\": \"a script\"}\n", 1, "has no \"toolbay_recording\"");
    refused(
        &text.replacen("\"toolbay_recording\":1", "\"toolbay_recording\":2", 1),
        1,
        "is of version 2, and this program reads version 1",
    );
    refused(&text.replacen("\"toolbay_recording\":1", "\"toolbay_recording\":0", 1), 1, "is to be 1");
    refused(&text.replacen("\"tenant\":", "\"tenants\":", 1), 1, "unknown field `tenants`");
    refused(&with(4, "{"), 4, "this is no JSON: EOF while parsing an object at column 1");
    refused(&with(4, "[]"), 4, "a line is a JSON object");
    refused(&with(4, "{\"kind\": \"asks\"}"), 4, "\"at_ms\" is missing");
    refused(&with(4, "{\"at_ms\": 1, \"kind\": \"jumps\"}"), 4, "unknown variant `jumps`");
    refused(&with(4, "{\"at_ms\": 1, \"kind\": \"spent\"}"), 4, "missing field `tokens`");
    refused(&with(3, ""), 3, "this is no JSON");
    refused(&(text.clone() + "{}\n"), all.len() + 1, "behind the last line");
    refused(&(all[..5].join("\n") + "\n"), 5, "ends here, before its run does");
    refused(text.trim_end(), all.len(), "was cut off within this line");
    refused(&text[..text.len() - 20], all.len(), "was cut off within this line");
    let error = Recording::read(&b"{\"toolbay_recording\":1\xff}\n"[..], &ReadBounds::default()).unwrap_err();
    assert_eq!(error.to_string(), "line 1: the line is not UTF-8");
    let deep = "[".repeat(100_000);
    refused(&with(4, &deep), 4, "recursion limit exceeded");
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_is_held() {
    let text = whole().await;
    let lines = ReadBounds { max_line_bytes: 2_000, ..ReadBounds::default() };
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    let error = Recording::read(endless, &lines).unwrap_err();
    assert_eq!(error.to_string(), "line 1: the line has more than 2000 bytes");
    let bytes = ReadBounds { max_bytes: text.len() as u64 - 1, ..ReadBounds::default() };
    let error = Recording::read(text.as_bytes(), &bytes).unwrap_err();
    assert_eq!(
        (error.line, error.message),
        (text.lines().count(), format!("the recording has more than {} bytes", text.len() - 1))
    );
    let just = ReadBounds { max_bytes: text.len() as u64, ..ReadBounds::default() };
    Recording::read(text.as_bytes(), &just).unwrap();
}

#[tokio::test]
async fn a_recording_that_would_be_too_long_says_so_in_its_last_line() {
    let session = bay().build().unwrap().session("acme").unwrap();
    let model = ScriptedModel::new().calls("long", json!({})).calls("long", json!({})).says("Much.");
    let bounds = RecordBounds { max_bytes: 10_000, ..RecordBounds::default() };
    let (text, reply) = recorded_with(session, model, AgentConfig::default(), bounds).await;
    assert!(reply.outcome.is_completed() && text.len() < 10_200, "{}", text.len());
    let last = text.lines().count();
    let error = replay::strict(&read(&text).unwrap()).unwrap_err();
    assert_eq!(
        (error.line, error.message.as_str()),
        (last, "the recording ends here: a recording has at most 10000 bytes")
    );
}

#[tokio::test]
async fn more_runs_at_once_than_are_recorded_leave_the_oldest_out() {
    let (recorder, mut lines) = toolbay::Recorder::new(RecordBounds { max_runs: 2, ..RecordBounds::default() });
    let session = bay().build().unwrap().session("acme").unwrap().with_observer(recorder);
    let begun = (0..3).map(|_| {
        toolbay::Agent::new(ScriptedModel::new().calls("add", json!({ "a": 1, "b": 1 })).says("2"), session.clone())
    });
    let agents: Vec<_> = begun.collect();
    let runs = agents.iter().map(|agent| agent.run("Go."));
    // Each is at its first step before any has ended: the tools yield.
    futures::future::join_all(runs).await;
    let mut ends = 0;
    while let Ok(line) = lines.try_recv() {
        ends += usize::from(line.is_last);
    }
    assert!((2..=3).contains(&ends), "{ends}");
}

/// A recording with one line changed.
fn changed(text: &str, change: impl Fn(&mut Value) -> bool) -> (String, usize) {
    let mut all = lines(text);
    let at = all.iter_mut().position(change).expect("a line to change");
    (all.iter().map(|line| format!("{line}\n")).collect(), at + 1)
}

#[tokio::test]
async fn any_difference_in_what_the_loop_does_is_found_at_its_line() {
    let text = recorded(bay().hook(guard("nothing", "closed")), busy()).await;
    replay::strict(&read(&text).unwrap()).unwrap();
    let kind = |line: &Value, kind: &str| line["kind"] == kind;
    let differs = |(text, at): (String, usize), words: &str| {
        let error = replay::strict(&read(&text).unwrap()).unwrap_err();
        assert!(error.line >= at && error.message.contains(words), "changed in line {at}: {error}");
        error.line - at
    };
    // What the loop is told: it then does something else, which is found where it does.
    differs(
        changed(&text, |line| {
            let is_head = line["toolbay_recording"] == 1;
            if is_head {
                line["config"]["bounds"]["max_tool_calls"] = json!(2);
            }
            is_head
        }),
        "the loop does something else: recorded is that it calls in step 1",
    );
    differs(
        changed(&text, |line| {
            let is_head = line["toolbay_recording"] == 1;
            if is_head {
                line["config"]["bounds"]["max_steps"] = json!(2);
            }
            is_head
        }),
        "now it ends: ",
    );
    differs(
        changed(&text, |line| {
            let is_reply = kind(line, "tool_replied");
            if is_reply {
                line["reply"]["text"] = json!("4");
            }
            is_reply
        }),
        "the loop asks with another message",
    );
    differs(
        changed(&text, |line| {
            let is_reply = kind(line, "tool_replied");
            if is_reply {
                line["reply"]["call_id"] = json!("call_99");
            }
            is_reply
        }),
        "no tool call \"call_99\" is waiting for a reply",
    );
    differs(
        changed(&text, |line| {
            let is_reply = kind(line, "model_replied");
            if is_reply {
                line["response"]["tool_calls"] = json!([]);
            }
            is_reply
        }),
        "now it ends",
    );
    // What it decided: found right there.
    for (what, place, value) in [
        ("asks", "step", json!(7)),
        ("asks", "messages", json!(9)),
        ("asks", "tools", json!(0)),
        ("asks", "new", json!(["0011223344556677"])),
        ("calls", "calls", json!([])),
        ("ends", "end", json!({ "outcome": { "kind": "step_limit" }, "text": "" })),
    ] {
        let found = differs(
            changed(&text, |line| {
                let is_it = kind(line, what);
                if is_it {
                    line[place] = value.clone();
                }
                is_it
            }),
            "the loop",
        );
        assert_eq!(found, 0, "{what}.{place}");
    }
    // Lines that are missing.
    for what in ["asks", "model_replied", "calls", "tool_replied", "ends", "began"] {
        let mut all = lines(&text);
        let at = all.iter().position(|line| kind(line, what)).unwrap();
        all.remove(at);
        let text: String = all.iter().map(|line| format!("{line}\n")).collect();
        let error = replay::strict(&read(&text).unwrap()).unwrap_err();
        assert!(error.line > at || what == "began", "{what}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever becomes of a file: it ends with a recording that is replayed or with an error at a line that is there.
    #[test]
    fn whatever_is_in_a_file_is_read_or_refused_at_a_line(
        changes in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let text = TEXT.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(recorded(bay(), busy()))
        });
        let mut lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
        for (what, at, other, byte) in changes {
            if lines.is_empty() { break; }
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match what {
                0 => drop(lines.remove(at)),
                1 => lines.swap(at, other),
                2 => lines.insert(at, lines[other].clone()),
                _ => {
                    let place = usize::from(byte) * lines[at].len() / 256;
                    if let Some(there) = lines[at].get_mut(place) { *there = byte.wrapping_mul(7); }
                }
            }
        }
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
        let there = bytes.iter().filter(|byte| **byte == b'\n').count().max(1);
        match Recording::read(&bytes[..], &ReadBounds::default()) {
            Ok(recording) => {
                if let Err(error) = replay::strict(&recording) {
                    prop_assert!((1..=there).contains(&error.line), "{error}");
                }
            }
            Err(error) => prop_assert!((1..=there).contains(&error.line), "{error}"),
        }
    }
}
