//! Hostile scripts: each must end with its own kind, and leave the host alive and the next call fine.

use std::time::{Duration, Instant};

use serde_json::json;
use toolbay_api::{ErrorKind, Limit, ToolError};

use crate::fake::{Bench, tool_source};

/// How a script must end.
#[derive(Debug, Clone, Copy)]
enum End {
    /// By this limit.
    Limit(Limit),
    /// By any limit or the deadline: which one comes first depends on the machine.
    AnyLimit,
    /// By an error of its own.
    Script,
    /// By the panic of the host that it called.
    Panic,
    /// Not even loaded.
    Refused,
    /// Well.
    Fine,
}

use End::{AnyLimit, Fine, Panic, Refused, Script};
const OPERATIONS: End = End::Limit(Limit::Operations);
const DEPTH: End = End::Limit(Limit::CallDepth);
const TEXT: End = End::Limit(Limit::StringSize);
const ARRAY: End = End::Limit(Limit::ArraySize);
const MAP: End = End::Limit(Limit::MapSize);
const MEMORY: End = End::Limit(Limit::Memory);
const NESTING: End = End::Limit(Limit::Nesting);
const OUTPUT: End = End::Limit(Limit::Output);
const VARIABLES: End = End::Limit(Limit::Variables);
const HOST_CALLS: End = End::Limit(Limit::HostCalls);

const MEGABYTE: &str = r#"let s = "x"; while s.len() < 500000 { s += s; } "#;
const DEEP: &str = "let a = []; for i in 0..1200 { a = [a]; } ";

/// Name, end, the tool's body; `MEGABYTE` and `DEEP` stand for a text of half a megabyte `s` and a deep array `a`.
const SCRIPTS: &[(&str, End, &str)] = &[
    // Loops.
    ("loop", OPERATIONS, "loop {}"),
    ("while", OPERATIONS, "while true {}"),
    ("do", OPERATIONS, "do {} while true"),
    ("loop with work", OPERATIONS, "let x = 0; loop { x += 1; }"),
    ("for over a huge range", OPERATIONS, "for i in 0..9223372036854775807 {}"),
    ("for over steps", OPERATIONS, "for i in range(0, 9223372036854775807, 1) {}"),
    ("for over floats", OPERATIONS, "for i in range(0.0, 1e300, 1.0) {}"),
    (
        "callback in a callback",
        OPERATIONS,
        "let a = []; a.pad(1000, 1); a.for_each(|x| [1,2,3].pad(1000, 1)); loop { a.for_each(|x| x) }",
    ),
    ("map for ever", OPERATIONS, "let a = []; a.pad(1000, 1); loop { a.map(|x| x); }"),
    ("filter for ever", OPERATIONS, "let a = []; a.pad(1000, 1); loop { a.filter(|x| true); }"),
    ("reduce for ever", OPERATIONS, "let a = []; a.pad(1000, 1); loop { a.reduce(|s, x| s, 0); }"),
    (
        "sort for ever",
        OPERATIONS,
        "let a = []; for i in 0..1000 { a.push(1000 - i); } loop { let b = a; b.sort(|x, y| x - y); }",
    ),
    ("loop in a comparer", OPERATIONS, "[3, 2, 1].sort(|x, y| { loop {} })"),
    ("a comparer that throws", Script, "let a = [3, 2, 1]; a.sort(|x, y| { throw \"no\" }); 1"),
    ("loop in a key", OPERATIONS, "let m = #{}; m[{ loop {}; \"x\" }] = 1;"),
    ("loop in a default", OPERATIONS, "() ?? { loop {} }"),
    ("loop in a text", OPERATIONS, "`${{ loop {} }}`"),
    ("loop in a switch", OPERATIONS, "switch 1 { 1 => loop {}, _ => 2 }"),
    ("loop in a catch", OPERATIONS, "try { throw 1; } catch { loop {} }"),
    // Limits cannot be caught.
    ("catch the operations", OPERATIONS, "try { loop {} } catch (e) { return 1; }"),
    ("catch the operations for ever", OPERATIONS, "loop { try { loop {} } catch (e) { } }"),
    (
        "catch the operations around a callback",
        OPERATIONS,
        "let n = 1; try { [1].map(|x| { loop {} }) } catch (e) { return 1; }",
    ),
    (
        "catch the operations around a capture",
        OPERATIONS,
        "let n = 1; try { [1].map(|x| { loop { n += x; } }) } catch (e) { return n; }",
    ),
    ("catch the depth", DEPTH, "fn f() { f() } try { f(); } catch (e) { return 1; }"),
    ("catch the array", ARRAY, "try { let a = []; a.pad(1000000, 0); } catch (e) { return 1; }"),
    ("catch the text", TEXT, "try { let s = \"x\"; loop { s += s; } } catch (e) { return 1; }"),
    ("catch the host calls", HOST_CALLS, "try { loop { kv_get(\"a\"); } } catch (e) { return 1; }"),
    // Recursion.
    ("recursion", DEPTH, "fn f() { f() } f()"),
    ("recursion with work", DEPTH, "fn f(x) { f(x + 1) + 1 } f(0)"),
    ("mutual recursion", DEPTH, "fn f() { g() } fn g() { f() } f()"),
    ("recursion by pointer", DEPTH, "fn f() { Fn(\"f\").call() } f()"),
    ("recursion by callback", DEPTH, "fn f(x) { [1].map(|y| f(y)) } f(1)"),
    ("recursion in a sort", AnyLimit, "fn f(x) { [2, 1].sort(|a, b| f(a)); 1 } f(1)"),
    ("recursion of a method", DEPTH, "fn f() { this.f() } let x = 1; x.f()"),
    // Size.
    ("text doubles", TEXT, "let s = \"x\"; loop { s += s; }"),
    ("text doubles by interpolation", TEXT, "let s = \"x\"; loop { s = `${s}${s}`; }"),
    ("text pads", TEXT, "let s = \"\"; s.pad(9223372036854775807, \"ab\");"),
    ("text pads with nothing", Fine, "let s = \"x\"; s.pad(100, \"\"); s"),
    ("text pads by a letter", TEXT, "let s = \"\"; s.pad(9223372036854775807, 'a');"),
    ("replace multiplies", TEXT, "MEGABYTE let t = s; t.replace(\"x\", s);"),
    ("replace nothing", TEXT, "MEGABYTE let t = s; t.replace(\"\", s);"),
    ("replace a letter", TEXT, "MEGABYTE let t = s; t.replace('x', s);"),
    ("split by nothing", ARRAY, "MEGABYTE s.split(\"\")"),
    ("split by a letter", ARRAY, "MEGABYTE s.split('x')"),
    ("split from the end", ARRAY, "MEGABYTE s.split_rev(\"x\")"),
    ("split counted", ARRAY, "MEGABYTE s.split(\"x\", 9223372036854775807)"),
    ("letters", ARRAY, "MEGABYTE s.to_chars()"),
    ("array doubles", ARRAY, "let a = [1]; loop { a += a; }"),
    ("array in an array doubles", ARRAY, "let a = [1]; loop { a = [a, a]; }"),
    ("array grows", ARRAY, "let a = []; a.pad(99999, 0); loop { a.push(0); }"),
    ("array pads", ARRAY, "let a = []; a.pad(9223372036854775807, 0);"),
    ("array pads with texts", AnyLimit, "MEGABYTE let a = []; a.pad(1000, s); loop { a.pad(a.len() * 2, s); }"),
    ("blob grows", ARRAY, "blob(9223372036854775807)"),
    ("map grows", MAP, "let m = #{}; let a = #{a:1}; loop { m = #{ x: m, y: m, z: a }; }"),
    ("map of maps", MAP, "let m = #{}; let i = 0; loop { m[`${i}`] = m; i += 1; }"),
    ("map keys are long", AnyLimit, "MEGABYTE let m = #{}; let i = 0; loop { m[s + i] = 1; i += 1; }"),
    (
        "variables",
        VARIABLES,
        "fn f(n) { let a=1; let b=1; let c=1; let d=1; let e=1; let g=1; let h=1; n } let x = 0; loop { f(1); if x > 10 { let v = 1; VARS } x += 1; }",
    ),
    (
        "map keys grow when they are printed",
        TEXT,
        "let s = \"\\x01\"; while s.len() < 500000 { s += s; } let m = #{}; for i in 0..40 { m[s + i] = 1; } `${m}`.len()",
    ),
    ("too much is printed at the very end", TEXT, "MEGABYTE let m = #{}; m[s + 1] = 1; m[s + 2] = 1; print(m)"),
    // Memory that no limit of a single value sees.
    (
        "many arrays",
        MEMORY,
        "let x = []; x.pad(90000, 1); let k = []; fn keep(a, n) { let b = a; b[0] = n; if n == 0 { 0 } else { keep(b, n - 1) } } keep(x, 60)",
    ),
    (
        "captures",
        MEMORY,
        "let x = []; x.pad(90000, 1); let fs = []; for i in 0..1000 { let y = x; y[0] = i; fs.push(|| y); } fs.len()",
    ),
    (
        "captured texts are printed",
        AnyLimit,
        "MEGABYTE let fs = []; for i in 0..1000 { fs.push(|| s); } loop { let t = `${fs}`; }",
    ),
    (
        "captures in captures",
        AnyLimit,
        "let f = || 1; for i in 0..200 { let g = f; let h = f; f = || { g; h }; } loop { let t = `${[f]}`; }",
    ),
    ("curry", Refused, "let f = |x, y| x; loop { f = f.curry(f); }"),
    ("a closure holds itself", Script, "loop { let a = [1]; let f = || a; a.push(f); }"),
    // Nesting, where native recursion runs.
    ("deep array", NESTING, "DEEP a"),
    ("deep array is printed", Fine, "DEEP print(a); `${a}`.len(); a.to_string().len()"),
    ("deep array is debugged", Fine, "DEEP debug(a); a.to_debug().len()"),
    ("deep arrays are compared", NESTING, "DEEP a == a"),
    ("deep array is found", NESTING, "DEEP [a].contains(a)"),
    ("deep array is looked for", NESTING, "DEEP [a].index_of(a)"),
    ("deep arrays are deduplicated", NESTING, "DEEP let b = [a, a]; b.dedup(); 1"),
    ("deep array is in", NESTING, "DEEP a in [a]"),
    ("deep array as json", NESTING, "DEEP to_json(a)"),
    ("deep map as json", NESTING, "let m = #{}; for i in 0..1200 { m = #{m: m}; } m.to_json()"),
    ("deep array is stored", NESTING, "DEEP kv_set(\"a\", a)"),
    ("deep array is given to a tool", NESTING, "DEEP call_tool(\"echo\", #{a: a})"),
    ("deep array is thrown", Script, "DEEP throw a"),
    ("deep array is logged", NESTING, "DEEP log(a)"),
    ("deep array is an index", Script, "DEEP let m = #{}; m[a]"),
    ("deep details", Script, "DEEP throw #{ message: \"m\", details: a }"),
    ("deeper and deeper", AnyLimit, "let a = []; let m = #{}; loop { a = [a]; m = #{m: m}; a = [#{a: a}]; }"),
    (
        "deeper by a method",
        AnyLimit,
        "fn put(v) { if this.len() == 0 { this.push(v); } else { this[0].put(v); } } let a = []; let b = []; for i in 0..30 { b = [b]; } loop { a.put(b); let c = a; b = [[[[b]]]]; a = [[[[a]]]]; }",
    ),
    ("deep json", Script, "let s = \"\"; s.pad(100000, \"[\"); parse_json(s)"),
    (
        "json of many maps",
        ARRAY,
        "MEGABYTE let m = #{}; for i in 0..80 { m[s + i] = 1; } let t = \"[0\"; t.pad(980002, `,{\"\":0}`); parse_json(t + \"]\").len()",
    ),
    (
        "json nested too deeply",
        Script,
        "let s = \"\"; s.pad(100, '['); let t = \"\"; t.pad(100, ']'); parse_json(s + t)",
    ),
    // Output.
    ("large output", OUTPUT, "MEGABYTE s"),
    ("many small values", OUTPUT, "let a = []; a.pad(90000, 12345678); a"),
    ("not a number", Script, "0.0 / 0.0"),
    ("infinite", Script, "#{ x: 1.0 / 0.0 }"),
    ("a function", Script, "|x| x"),
    ("a function in a list", Script, "[1, Fn(\"t\")]"),
    ("a range", Script, "0..5"),
    ("a long error", Script, "MEGABYTE throw s"),
    ("a large error", Script, "let a = []; a.pad(90000, 12345678); throw a"),
    ("details are large", Script, "MEGABYTE fail(\"m\", s)"),
    // What is not there.
    ("eval", Refused, "eval(\"1\")"),
    ("eval by pointer", Script, "Fn(\"eval\").call(\"1\")"),
    ("sleep", Refused, "sleep(10)"),
    ("sleep by pointer", Script, "Fn(\"sleep\").call(10)"),
    ("sleep for less by pointer", Script, "Fn(\"sleep\").call(0.5)"),
    ("timestamp", Refused, "timestamp()"),
    ("timestamp by pointer", Script, "Fn(\"timestamp\").call()"),
    ("import of a file", Refused, "import \"/etc/passwd\" as p; 1"),
    ("import out of the folder", Refused, "import \"../x\" as p; 1"),
    ("import computed", Refused, "let p = \"x\"; import p as q; 1"),
    ("unknown function", Script, "open(\"/etc/passwd\")"),
    // Regular expressions.
    ("backtracking bait", Fine, "let s = \"\"; s.pad(20000, 'a'); regex_is_match(\"(a+)+$\", s + \"b\")"),
    ("huge program", Script, "regex_is_match(\"((a{100}){100}){100}\", \"a\")"),
    ("nested program", Script, "let s = \"\"; s.pad(2000, '('); regex_is_match(s, \"a\")"),
    ("replacement multiplies", TEXT, "MEGABYTE regex_replace(\"x\", s, \"xxxxxxxxxx\")"),
    ("a text multiplies a text", TEXT, "MEGABYTE regex_replace(\"x\", s, s)"),
    (
        "too many states for groups",
        Script,
        "let s = \"01\"; while s.len() < 500000 { s += s; } regex_captures(\"([01]*)(1)([01]{50})(x|$)\", s)",
    ),
    (
        "classes that come to nothing",
        Script,
        "let p = \"\"; p.pad(4000, \"[\\\\pL&&\\\\pN]\"); regex_is_match(p, \"a\")",
    ),
    ("groups multiply", TEXT, "MEGABYTE regex_replace(\"(x+)\", s, \"$1$1$1$1$1$1\")"),
    ("everything is found", ARRAY, "MEGABYTE regex_find_all(\"x\", s)"),
    ("everything is split", ARRAY, "MEGABYTE regex_split(\"\", s)"),
    // The host.
    ("host calls", HOST_CALLS, "loop { kv_get(\"a\"); }"),
    ("a flood of logs", HOST_CALLS, "loop { log(\"x\"); }"),
    ("a flood of prints", OPERATIONS, "MEGABYTE loop { print(s); }"),
    ("the host panics", Panic, "call_tool(\"panic\", #{})"),
    ("dates overflow", Script, "date_add(0, 9223372036854775807, \"years\", \"UTC\")"),
    ("dates overflow backwards", Script, "date_add(0, -9223372036854775808, \"days\", \"UTC\")"),
    ("dates far away", Script, "date_format(9223372036854775807, \"%Y\", \"UTC\")"),
    ("a date format without end", Script, "let f = \"\"; f.pad(100000, \"%c\"); date_format(0, f, \"UTC\")"),
    ("numbers overflow", Script, "9223372036854775807 + 1"),
    ("powers overflow", Script, "10 ** 100"),
    ("least number", Script, "let x = -9223372036854775808; x / -1"),
    ("shift too far", Fine, "1 << 1000; 1 >> -1000; 1"),
    ("round to nowhere", Fine, "round_to(1.5, 9223372036854775807); round_to(1.5, -9223372036854775808)"),
    ("random from everything", Fine, "random_int(-9223372036854775808, 9223372036854775807) != 3"),
    ("substrings out of bounds", Fine, "\"abc\".sub_string(-9223372036854775808, 9223372036854775807)"),
    ("bits out of bounds", Script, "let x = 1; x.set_bit(1000, true);"),
];

fn body(script: &str) -> String {
    let variables: String = (0..1_100).map(|n| format!("let v{n} = 1; ")).collect();
    script.replace("MEGABYTE", MEGABYTE).replace("DEEP", DEEP).replace("VARS", &variables)
}

fn bench() -> Bench {
    Bench::with_limits(|limits| {
        limits.max_operations = 300_000;
        limits.max_host_calls = 1_000;
    })
}

fn ends(end: End, result: &Result<serde_json::Value, ToolError>) -> bool {
    match (end, result) {
        (Fine, Ok(_)) => true,
        (End::Limit(wanted), Err(error)) => {
            matches!(error.kind, ErrorKind::LimitExceeded { limit, allowed, used } if limit == wanted && used > allowed)
        }
        (AnyLimit, Err(error)) => matches!(error.kind, ErrorKind::LimitExceeded { .. } | ErrorKind::TimedOut),
        (Script, Err(error)) => {
            matches!(error.kind, ErrorKind::Script | ErrorKind::InvalidArguments) && error.message.len() <= 4 << 10
        }
        (Panic, Err(error)) => error.kind == ErrorKind::Panic,
        _ => false,
    }
}

#[tokio::test]
async fn every_hostile_script_ends_with_its_own_kind() {
    let mut bench = bench();
    let only = std::env::var("HOSTILE").ok();
    let mut wrong = Vec::new();
    for (name, end, script) in SCRIPTS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        // Where any limit will do, the deadline is one of them; elsewhere it must not come first on a loaded machine.
        bench.limits.timeout = Duration::from_secs(if matches!(end, AnyLimit) { 3 } else { 60 });
        let began = Instant::now();
        // Functions cannot be defined within functions: they go behind the tool.
        let (inner, outer) = split_functions(&body(script));
        let source = format!("{}{outer}", tool_source(&inner));
        if std::env::var_os("VERBOSE").is_some() {
            println!("{name}");
        }
        match (end, bench.source(&source).await) {
            (Refused, Err(_)) => continue,
            (_, Err(error)) => wrong.push(format!("{name}: not loaded: {error}")),
            (_, Ok(plugin)) => {
                let result = bench.call(&*plugin, "t", json!({})).await;
                if !ends(*end, &result) {
                    let result = result.map(|value| value.to_string().chars().take(100).collect::<String>());
                    let detail = match &result {
                        Err(error) => format!("{error} {:?}", error.operator_detail().map(ToString::to_string)),
                        Ok(value) => value.clone(),
                    };
                    wrong.push(format!("{name}: wanted {end:?}: {}", detail.chars().take(400).collect::<String>()));
                }
            }
        }
        let took = began.elapsed();
        if took > Duration::from_secs(2) {
            println!("{name} took {took:?}");
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), SCRIPTS.len(), wrong.join("\n"));
    assert_eq!(bench.run("40 + 2").await.unwrap(), json!(42));
}

/// Takes `fn ... { ... }` definitions out of a body.
fn split_functions(body: &str) -> (String, String) {
    let (mut inner, mut outer) = (String::new(), String::new());
    let mut rest = body;
    while let Some(at) = rest.find("fn ") {
        inner.push_str(&rest[..at]);
        let mut depth = 0;
        let mut end = rest.len();
        for (place, character) in rest[at..].char_indices() {
            match character {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        end = at + place + 1;
                        break;
                    }
                }
                _ => {}
            }
        }
        outer.push_str(&rest[at..end]);
        outer.push('\n');
        rest = &rest[end..];
    }
    inner.push_str(rest);
    (inner, outer)
}
