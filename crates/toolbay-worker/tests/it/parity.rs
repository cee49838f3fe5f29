//! Both tiers give the same value, or the same kind of error with the same words.

use std::time::Duration;

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Limits, PermissionSet, Runner, Scope};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::Toolbay;
use toolbay_worker::WorkerRunner;

use crate::support::{config, script};

/// Bodies of a tool that gets `args` and `cx`.
const BODIES: &[&str] = &[
    "args",
    "args.a + args.list[2]",
    "[1, -1, 0.1, 1e300, 9007199254740993, \"ü\\u{1F600}\", true, ()]",
    "#{ b: 1, a: #{ z: [], y: #{} } }",
    "let s = 0; for i in 0..10000 { s += i * i } s",
    "let x = parse_decimal(\"0.1\") + parse_decimal(\"0.2\"); x",
    "to_json(#{ a: [1, 2.5] })",
    "parse_json(\"{\\\"a\\\": [1, {\\\"b\\\": null}]}\")",
    "sha256(\"x\") + base64_encode(\"abc\")",
    "date_format(0, \"%Y-%m-%d\", \"Europe/Vienna\")",
    "regex_captures(\"(\\\\d+)-(\\\\d+)\", \"10-20\")",
    "kv_set(\"k\", args); kv_get(\"k\")",
    "[kv_compare_and_set(\"c\", (), 1.5), kv_compare_and_set(\"c\", 1.5, args), kv_get(\"c\"), kv_list(\"\", 9, \"b\")]",
    "kv_set(\"t\", 1, #{ ttl_ms: 60000 }); kv_get(\"t\")",
    "kv_set(\"t\", 1, #{ ttl_ms: 0 })",
    "kv_set(\"t\", 1, #{ for_ms: 1 })",
    "[cx.tenant, cx.user, cx.depth, cx.call_id]",
    "log(\"hello\"); print(\"x\"); 1",
    // Errors
    "throw \"plain\"",
    "throw #{ message: \"m\", details: [1, 2], retryable: true }",
    "fail(\"m\", #{ a: 1 })",
    "1 / 0",
    "nothing()",
    "let a = []; a[7]",
    "parse_json(\"{\")",
    "asset_get(\"none.json\", \"\")",
    "call_tool(\"no.such\", #{})",
    // Rhai sleeps a while for a variable that is in use.
    "let x = [1]; x.map(|y| x.len())",
    // Limits
    "loop {}",
    "fn f(n) { f(n + 1) } f(0)",
    "let a = []; loop { a.push(1) }",
    "let s = \"x\"; loop { s += s }",
    "let m = #{}; let i = 0; loop { m[i.to_string()] = i; i += 1 }",
    "let a = []; for i in 0..100 { a = [a] } a",
    "let a = []; loop { let s = \"x\"; s.pad(60000, \"y\"); a.push(s) }",
    "let s = \"x\"; s.pad(65000, \"y\"); [s, s, s, s, s, s]",
    "for i in 0..1000 { kv_get(\"k\") }",
    // Values
    "[7 / 2, -7 / 2, -7 % 3, 7.0 / 2, 2 ** 10, 2.0 ** 0.5, 1 << 4, 6 & 3, 6 | 1, 6 ^ 3]",
    "[9223372036854775807, -9223372036854775807 - 1, 0xff, 1_000, 1e-7, 0.1 + 0.2]",
    "9223372036854775807 + 1",
    "[(3.7).to_int(), (3).to_float(), \"42\".parse_int(), round_to(2.345, 2), (10).to_hex()]",
    "let s = \"Größe\"; [s.len, s.to_upper(), s.sub_string(1, 2), s.contains(\"ß\"), s.index_of(\"ß\"), s.replace(\"ö\", \"oe\"), s]",
    "[\"a,b,,c\".split(\",\"), \"  x \".trim(), `${1 + 1} and ${[1]}`, \"abc\"[1], \"x\" + 1 + true]",
    "let s = \"\"; for c in \"äbc\".chars() { s = c.to_string() + s; } s",
    "let a = [3, 1, 2]; a.sort(); a.push(9); a.insert(1, 8); [a, a.pop(), a.len, a.index_of(8), a.reverse(), 2 in a]",
    "let a = [1, 2, 3, 4, 5]; [a.filter(|x| x % 2 == 1), a.map(|x| x * x), a.reduce(|s, x| s + x, 0), a.extract(1..3), a.some(|x| x > 4)]",
    "let a = [\"b\", \"a\", \"c\"]; a.sort(|x, y| if x < y { 1 } else { -1 }); a",
    "let m = #{ z: 1, a: [1], \"b c\": #{} }; m.y = 2; m.remove(\"z\"); [m, m.keys(), m.values(), \"a\" in m, m.len(), m.nothing]",
    "let m = #{ a: #{ b: [1, #{ c: 2 }] } }; m.a.b[1].c += 5; m.a.b[-1].c",
    "#{ a: 1 } + #{ a: 2, b: 3 }",
    "to_json([#{ b: 1, a: () }, \"\\u00fc\\n\", 1.0, 1e300])",
    "let j = parse_json(`{\"n\": 1e2, \"big\": 12345678901234567890, \"u\": \"\\\\u00e4\", \"l\": [null, true]}`); [j.n, j.big, j.u, j.l]",
    "[regex_is_match(\"^a+b?$\", \"aaab\"), regex_find_all(\"[0-9]+\", \"1 22 x333\"), regex_replace(\"(\\\\w)(\\\\w)\", \"abcd\", \"$2$1\"), regex_split(\", *\", \"a, b,c\")]",
    "regex_is_match(\"(\", \"a\")",
    // Functions
    "let n = 1; let add = |x| x + n; n = 10; [add.call(1), [1, 2].map(add)]",
    "let make = |n| { |x| x * n }; make.call(3).call(4)",
    "let f = Fn(\"none\"); f.call(1)",
    "let n = 0; let step = || { n += 1; n }; step.call(); step.call(); n",
    "switch args.a { 1 => \"one\", 2 => \"two\", _ => \"many\" } + if args.text.len > 3 { \"!\" } else { \"?\" }",
    "let out = []; for (x, i) in [5, 6] { out.push(x * 10 + i); } let n = 3; while n > 0 { n -= 1; if n == 1 { continue; } out.push(n); } out",
    // Thrown and caught
    "let c = (); try { throw #{ message: \"m\", details: #{ a: 1 } }; } catch (e) { c = [e.message, e.details] } c",
    "let c = (); try { call_tool(\"no.such\", #{}) } catch (e) { c = [e.kind, e.message, e.retryable] } c",
    "try { call_tool(\"no.such\", #{}) } catch (e) { throw e; }",
    "throw #{ message: \"\", details: [1] }",
    "throw [1, 2]",
    "throw 42",
    "try { loop {} } catch { 1 }",
    // The host's
    "emit(\"order.placed\", #{ n: 1 }); emit(\"order.placed\"); \"told\"",
    "emit(\"no name\", 1)",
    "kv_set(\"list/a\", 1); kv_set(\"list/b\", #{ x: [()] }); [kv_list(\"list/\"), kv_delete(\"list/a\"), kv_delete(\"list/a\"), kv_get(\"list/b\"), kv_get(\"none\")]",
    "kv_set(\"\", 1)",
    "kv_set(\"k\", |x| x)",
    "exit([1, \"early\"]); 2",
    // Not there
    "eval(\"1\")",
    "import \"other\" as o; 1",
    "sleep(1)",
    "timestamp()",
];

fn limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(20),
        max_operations: 60_000,
        max_memory_bytes: 12 << 20,
        max_string_bytes: 64 << 10,
        max_array_len: 50_000,
        max_map_len: 50_000,
        max_host_calls: 100,
        max_output_bytes: 128 << 10,
        ..Limits::default()
    }
}

async fn outcomes(runner: impl Runner + 'static) -> Vec<Value> {
    let toolbay =
        Toolbay::builder().runner(runner).limits(limits()).grants(PermissionSet::all()).build().expect("a host");
    let mut outcomes = Vec::new();
    for (index, body) in BODIES.iter().enumerate() {
        let name = format!("p{index}");
        let (body, functions) = match body.strip_prefix("fn f(n) { f(n + 1) } ") {
            Some(rest) => (rest, "fn f(n) { f(n + 1) }"),
            None => (*body, ""),
        };
        let source = script(&name, &name, &format!("{functions}\nfn {name}(args, cx) {{ {body} }}"));
        let outcome = match toolbay.load_source(Scope::Global, &format!("{name}.rhai"), &source).await {
            Err(error) => json!({ "load": error.kind.name(), "text": error.to_string() }),
            Ok(_) => {
                let session = toolbay.session("acme").expect("a tenant").with_user("ann");
                let reply = session.call(&name, json!({ "a": 1, "list": [1, 2, 3.5], "text": "ü" })).await;
                match reply.result {
                    Ok(output) => json!({ "value": output.data, "operations": reply.metadata.operations }),
                    // How far over a memory limit a call was found is a matter of the tier.
                    Err(error) => match error.kind {
                        ErrorKind::LimitExceeded { limit, allowed, .. } => {
                            json!({ "limit": limit, "allowed": allowed })
                        }
                        kind => json!({ "kind": kind.name(), "message": error.message, "details": error.details,
                            "retryable": error.retryable,
                            "operator": error.operator_detail().map(ToString::to_string) }),
                    },
                }
            }
        };
        outcomes.push(outcome);
    }
    outcomes
}

#[tokio::test]
async fn both_tiers_give_the_same() {
    let near = outcomes(RhaiRunner::default()).await;
    let far = outcomes(WorkerRunner::new(config()).expect("workers")).await;
    for ((body, near), far) in BODIES.iter().zip(&near).zip(&far) {
        assert_eq!(near, far, "{body}");
    }
}
