//! Loading and calling.

use serde_json::json;

use crate::fake::{Bench, assets};

const FX: &str = r#"//! Converts between currencies.
const PLUGIN = #{ name: "fx", version: "1.0.0", author: "Acme", permissions: ["kv:read"],
    tools: #{ convert: #{ description: "Convert an amount", parameters: #{ type: "object", properties: #{
        amount: #{ type: "number", minimum: 0 }, to: #{ type: "string", pattern: "^[A-Z]{3}$" } }, required: ["amount", "to"] } } } };
fn convert(args, cx) { #{ amount: args.amount * kv_get("rate:" + args.to) } }
"#;

#[tokio::test]
async fn a_one_file_plugin_is_loaded_and_called() {
    let bench = Bench::default();
    bench.host.kv.lock().unwrap().insert("rate:EUR".into(), json!(0.5));
    let plugin = bench.source(FX).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plugin.metadata().description, "Converts between currencies.");
    let parameters = plugin.tools()[0].definition().parameters.clone();
    assert_eq!(
        parameters.to_string(),
        r#"{"type":"object","properties":{"amount":{"type":"number","minimum":0},"to":{"type":"string","pattern":"^[A-Z]{3}$"}},"required":["amount","to"]}"#
    );
    let answer = bench.call(&*plugin, "convert", json!({ "amount": 3.0, "to": "EUR" })).await.unwrap();
    assert_eq!(answer, json!({ "amount": 1.5 }));
}

#[tokio::test]
async fn scripts_have_what_the_list_of_functions_says() {
    let bench = Bench::with_host(|host| {
        host.assets = assets(&[(
            "db.json",
            r#"{"users": {"u1": {"name": "Ada", "age": 36}, "u2": {"name": "Bob", "age": 9}}, "list": [{"k": 1}, {"k": 2}]}"#,
        )]);
        host.config = json!({ "unit": "EUR", "n": 3 });
    });
    let cases = [
        (r#"kv_set("a", #{x: 1}); kv_get("a").x"#, json!(1)),
        (
            r#"kv_set("a", 1); kv_set("ab", 1); [kv_list("a"), kv_list("a", 1), kv_delete("a"), kv_delete("a"), kv_get("a")]"#,
            json!([["a", "ab"], ["a"], true, false, null]),
        ),
        (r#"[config("unit"), config().n, config("none")]"#, json!(["EUR", 3, null])),
        (r#"call_tool("echo", #{a: [1, 2]})"#, json!({ "a": [1, 2] })),
        (r#"call_tool("yield", #{})"#, json!("yielded")),
        (
            r#"try { call_tool("none", #{}) } catch (e) { return [e.kind, e.message, e.details.asked, e.retryable]; }"#,
            json!(["NotFound", "there is no tool \"none\"", "none", false]),
        ),
        (r#"try { call_tool("slow", #{}) } catch (e) { return e.kind; }"#, json!("TimedOut")),
        (r#"[now(), uuid().len(), random() < 1.0, random_int(1, 6)]"#, json!([1_700_000_000_000_i64, 36, true, 4])),
        (r#"asset_get("db.json", "/users/u1").name"#, json!("Ada")),
        (
            r#"[asset_get("db.json", "/users/u9"), asset_keys("db.json", "/users"), asset_find("db.json", "/users", "/age", 9), asset_find("db.json", "/list", "/k", 2.0), asset_names(), asset_text("db.json").len() > 20]"#,
            json!([null, ["u1", "u2"], ["u2"], [1], ["db.json"], true]),
        ),
        (r#"try { asset_get("x.json", "") } catch (e) { return e.kind; }"#, json!("NotFound")),
        (r#"to_json(#{b: 1, a: [1.5, (), true, "x\"y"]})"#, json!(r#"{"a":[1.5,null,true,"x\"y"],"b":1}"#)),
        (r#"parse_json(`{"a": [1, 2.5, null, "x"]}`).a[1]"#, json!(2.5)),
        (r#"try { parse_json("{") } catch (e) { return e.message.sub_string(0, 20); }"#, json!("the text is not JSON")),
        (r#"[round_to(2.675, 2), float_text(1e16), float_text(3.0)]"#, json!([2.67, "1e+16", "3.0"])),
        (
            r#"[regex_is_match("^a+$", "aaa"), regex_find("[0-9]+", "ab12c"), regex_find("x", "y"), regex_find_all("[a-z]", "a1b"), regex_captures("(a)(b)?", "a"), regex_named("(?<y>[0-9]{4})", "in 2024").y, regex_replace("(a)(b)", "ab", "$2$1"), regex_split(", *", "a, b,c")]"#,
            json!([true, "12", null, ["a", "b"], ["a", "a", null], "2024", "ba", ["a", "b", "c"]]),
        ),
        (
            r#"[base64_encode("hi"), base64_decode_text("aGk="), base64_decode("aGk=").len(), hex_encode("hi"), hex_decode("6869").len(), sha256(""), url_encode("a b/ü"), url_decode("a+b%2F")]"#,
            json!([
                "aGk=",
                "hi",
                2,
                "6869",
                2,
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "a%20b%2F%C3%BC",
                "a b/"
            ]),
        ),
        (
            r#"[date_parse("1970-01-01"), date_parse("1970-01-01 01:00", "Europe/Berlin"), date_parse("2024-02-29T12:00:00Z"), date_parse_format("05.06.2024", "%d.%m.%Y", "UTC")]"#,
            json!([0, 0, 1_709_208_000_000_i64, 1_717_545_600_000_i64]),
        ),
        (
            r#"[date_format(0, "%Y-%m-%d %H:%M", "America/New_York"), date_parts(0, "UTC").weekday, date_from_parts(#{year: 1970, month: 1, day: 2}, "UTC"), date_add(date_parse("2024-01-31"), 1, "months", "UTC") == date_parse("2024-02-29"), timezone_exists("Mars/Olympus")]"#,
            json!(["1969-12-31 19:00", 4, 86_400_000, true, false]),
        ),
        (r#"try { date_format(0, "%Q", "UTC") } catch (e) { return "no"; }"#, json!("no")),
        (r#"parse_decimal("0.1") + parse_decimal("0.2")"#, json!("0.3")),
        (r#"let x = 3; [1, 2].map(|v| v * x)"#, json!([3, 6])),
        (r#"[cx.tenant, cx.user, cx.conversation, cx.depth, cx.call_id]"#, json!(["acme", "ada", null, 0, "call-1"])),
    ];
    for (body, expected) in cases {
        match bench.run(body).await {
            Ok(value) => assert_eq!(value, expected, "{body}"),
            Err(error) => panic!("{body}: {error} {:?}", error.operator_detail().map(ToString::to_string)),
        }
    }
}
