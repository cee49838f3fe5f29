//! The deadline holds also where one operation of the interpreter is a lot of native work.

use std::time::{Duration, Instant};

use serde_json::json;
use toolbay_api::ErrorKind;

use crate::fake::{Bench, tool_source};

/// Work that goes on for ever with large values, at the default size limits.
const SCRIPTS: &[(&str, &str)] = &[
    ("nothing", "loop {}"),
    ("copies of an array", "let a = []; a.pad(99000, 1); loop { let b = a; b[0] = 2; }"),
    ("copies of a map", "let m = #{}; for i in 0..20000 { m[`k${i}`] = i; } loop { let n = m; n.k0 = 1; }"),
    ("copies of texts", "let s = \"x\"; while s.len() < 500000 { s += s; } loop { let t = s + \"a\"; t[0] = 'y'; }"),
    ("pushes to a long array", "let a = []; a.pad(90000, 1); loop { a.push(1); a.pop(); }"),
    (
        "sorting",
        "let a = []; for i in 0..90000 { a += [i * 7919 % 90001]; if a.len() > 30000 { break; } } loop { let b = a; b.sort(); }",
    ),
    (
        "sorting by a function",
        "let a = []; for i in 0..5000 { a.push(i * 7919 % 5003); } loop { let b = a; b.sort(|x, y| x - y); }",
    ),
    (
        "searching a text",
        "let s = \"a\"; while s.len() < 500000 { s += s; } let t = s.sub_string(0, 1000) + \"b\"; loop { s.index_of(t); }",
    ),
    ("replacing", "let s = \"a\"; while s.len() < 300000 { s += s; } loop { let t = s; t.replace(\"a\", \"b\"); }"),
    ("splitting", "let s = \"a \"; while s.len() < 100000 { s += s; } loop { s.split(' '); }"),
    ("upper case", "let s = \"a\"; while s.len() < 500000 { s += s; } loop { s.to_upper(); }"),
    ("characters", "let s = \"ü\"; while s.len() < 500000 { s += s; } loop { s[s.len() - 1]; }"),
    ("comparing", "let a = []; a.pad(90000, 1); let b = a; loop { a == b; }"),
    ("looking up", "let a = []; a.pad(90000, 1); let b = []; b.pad(1000, 2); loop { a.contains(b); }"),
    ("to json", "let a = []; a.pad(90000, 1); loop { to_json(a); }"),
    ("from json", "let a = []; a.pad(90000, 1); let s = to_json(a); loop { parse_json(s); }"),
    ("hashing", "let s = \"a\"; while s.len() < 500000 { s += s; } loop { sha256(s); }"),
    ("base64", "let s = \"a\"; while s.len() < 300000 { s += s; } loop { base64_encode(s); }"),
    ("printing", "let a = []; a.pad(90000, 1); loop { let t = `${a}`; }"),
    (
        "printing captures",
        "let s = \"x\"; while s.len() < 500000 { s += s; } let fs = []; for i in 0..1000 { fs.push(|| s); } loop { let t = `${fs}`; }",
    ),
    ("deep values", "let a = []; for i in 0..2000 { a = [a]; } loop { let b = a; b.push(1); }"),
    ("regex", "let s = \"ab\"; while s.len() < 500000 { s += s; } loop { regex_is_match(\"(a|b)*c\", s); }"),
    (
        "regex with many states",
        "let s = \"01\"; while s.len() < 500000 { s += s; } loop { try { regex_is_match(\"[01]*1[01]{200}x\", s); } catch (e) { } }",
    ),
    (
        "regex with unicode",
        "let s = \"aü\"; while s.len() < 500000 { s += s; } loop { regex_is_match(\"(\\\\w{1,4}\\\\s)+x\", s); }",
    ),
    (
        "regex captures",
        "let s = \"01\"; while s.len() < 500000 { s += s; } loop { try { regex_captures(\"([01]*)(1)([01]{50})(x|$)\", s); } catch (e) { } }",
    ),
    ("dates", "loop { date_format(date_add(0, 1, \"months\", \"Europe/Berlin\"), \"%c\", \"Europe/Berlin\"); }"),
    ("decimals", "let x = parse_decimal(\"1.0000001\"); loop { x = x * parse_decimal(\"1.0000001\"); x.sqrt(); }"),
    ("reducing", "let a = []; a.pad(90000, 1); loop { a.reduce(|s, x| s + x, 0); }"),
    ("throwing", "loop { try { throw #{ a: 1 } } catch (e) { } }"),
    ("errors of Rhai's", "loop { try { 1 / 0 } catch (e) { } }"),
];

#[tokio::test]
async fn a_call_ends_soon_after_its_deadline() {
    let deadlines: &[u64] = if cfg!(debug_assertions) { &[50] } else { &[10, 50, 250] };
    let only = std::env::var("HOSTILE").ok();
    let (mut overruns, mut wrong) = (Vec::new(), Vec::new());
    for (name, body) in SCRIPTS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        for deadline in deadlines {
            let mut bench = Bench::with_limits(|limits| limits.max_operations = u64::MAX);
            bench.limits.max_memory_bytes = 1 << 30;
            let plugin = bench.source(&tool_source(body)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            bench.limits.timeout = Duration::from_millis(*deadline);
            let began = Instant::now();
            let result = bench.call(&*plugin, "t", json!({})).await;
            let took = began.elapsed();
            if !result.as_ref().is_err_and(|error| error.kind == ErrorKind::TimedOut) {
                wrong.push(format!("{name}: {result:?}").chars().take(400).collect::<String>());
            }
            overruns.push((took.saturating_sub(Duration::from_millis(*deadline)), *name, *deadline));
        }
    }
    overruns.sort();
    for (overrun, name, deadline) in overruns.iter().rev().take(12) {
        println!("{overrun:?} over {deadline} ms: {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The promise is 25 ms in a release build on an idle machine, which the figures above show; the test must also hold
    // beside others, where the system alone takes the thread away for hundreds of milliseconds.
    let bound = Duration::from_secs(2);
    assert!(overruns.last().is_none_or(|(overrun, ..)| *overrun < bound), "{:?}", overruns.last());
}
