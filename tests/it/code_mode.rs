//! Code mode: a model's program calls tools as functions, each call takes the road as the run's own, and nothing that the
//! program does gets it more than the run has.

mod approval;
mod functions;
mod hostile;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use expect_test::{Expect, expect};
use serde_json::json;
use toolbay::{
    Agent, AgentConfig, AgentReply, Bounds, DayBudget, DayLimits, HookPoint, HookRegistration, MemoryLedger, Message,
    RhaiRunner, RunOutcome, Scope, ScriptedModel, Session, StepperConfig, ToolContext, ToolError, Toolbay,
    ToolbayBuilder,
    code::{CodeMode, CodeSettings, code_mode},
    hook::ToolMatcher,
    plugin::NativePlugin,
    search, tool,
    worker::{WorkerConfig, WorkerProgram, WorkerRunner},
};
use toolbay_testkit::{Answer, RecordingAudit, ScriptedHook};

use crate::support::{Nothing, host, toolbay_command};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Order {
    id: i64,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Note {
    /// What to write down.
    title: String,
    due: Option<String>,
}

/// A shop with orders, whose totals are ten times their numbers.
fn shop() -> NativePlugin {
    let orders = tool("orders", "Lists the orders.\nAll of them.", async |_: Nothing, _: ToolContext| Ok([1, 2, 3]));
    let total = tool("total", "An order's total", async |order: Order, _: ToolContext| match order.id {
        404 => Err(ToolError::failed("no such order")),
        id => Ok(json!({ "id": id, "total": id * 10 })),
    });
    let note = tool("note", "Writes down", async |note: Note, _: ToolContext| {
        Ok(format!("{} ({})", note.title, note.due.as_deref().unwrap_or("some day")))
    });
    NativePlugin::new("shop", "1.0.0", "A shop").unwrap().tool(orders).tool(total).tool(note)
}

/// A host in code mode, and the mode.
async fn bay_with(builder: ToolbayBuilder, settings: CodeSettings) -> (Toolbay, CodeMode) {
    let (mode, run_code) = code_mode(settings);
    let bay = host(builder.tool(run_code)).await;
    bay.register(Scope::Global, shop()).await.unwrap();
    (bay, mode)
}

async fn bay() -> (Toolbay, CodeMode) {
    bay_with(Toolbay::builder().runner(RhaiRunner::default()), CodeSettings::default()).await
}

fn config(mode: &CodeMode) -> AgentConfig {
    AgentConfig { code: Some(mode.clone()), ..AgentConfig::default() }
}

/// A run whose model writes `code` and then says that it is done.
async fn run(session: Session, config: AgentConfig, code: &str) -> AgentReply {
    let model = ScriptedModel::new().calls("run_code", json!({ "code": code })).says("done");
    Agent::new(model, session).config(config).run("go").await.unwrap()
}

/// What the model read of its program.
fn read(reply: &AgentReply) -> String {
    let texts = reply.messages.iter().filter_map(|message| match message {
        Message::Tool { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n---\n")
}

async fn text_of(bay: &Toolbay, mode: &CodeMode, code: &str) -> String {
    read(&run(bay.session("acme").unwrap(), config(mode), code).await)
}

/// A hook before calls of `tools` that gives `answer`.
fn before(name: &str, tools: &str, answer: Answer) -> HookRegistration {
    let point = HookPoint::BeforeToolCall;
    let tools = ToolMatcher::new([tools]).unwrap();
    HookRegistration { tools, ..HookRegistration::new(name, [point], ScriptedHook::at(point, answer)) }
}

/// Runs each program and compares what the model reads.
async fn check(programs: &[&str], expected: Expect) {
    let (bay, mode) = bay().await;
    let mut shown = String::new();
    for program in programs {
        let text = text_of(&bay, &mode, program).await;
        shown.push_str(&format!("> {}\n{text}\n", program.replace('\n', "\n> ")));
    }
    expected.assert_eq(&shown);
}

#[tokio::test]
async fn a_program_calls_tools_as_functions_and_gives_what_it_ends_with() {
    let programs = [
        "let sum = 0; for id in shop::orders() { sum += shop::total(#{id: id}).total; } sum",
        "shop::total(2).total",
        r#"[shop::note(#{title: "a"}), shop::note(#{title: "b", due: "today"}), shop::note("c")]"#,
        r#"call_tool("shop.total", #{id: 3})"#,
        "print(\"one\"); print(2); ()",
        "fn twice(id) { shop::total(id).total * 2 } shop::orders().map(|id| twice(id))",
        "exit(shop::total(1)); shop::total(404)",
    ];
    check(
        &programs,
        expect![[r#"
        > let sum = 0; for id in shop::orders() { sum += shop::total(#{id: id}).total; } sum
        {"result":60}
        > shop::total(2).total
        {"result":20}
        > [shop::note(#{title: "a"}), shop::note(#{title: "b", due: "today"}), shop::note("c")]
        {"result":["a (some day)","b (today)","c (some day)"]}
        > call_tool("shop.total", #{id: 3})
        {"result":{"id":3,"total":30}}
        > print("one"); print(2); ()
        {"result":null,"printed":"one\n2"}
        > fn twice(id) { shop::total(id).total * 2 } shop::orders().map(|id| twice(id))
        {"result":[20,40,60]}
        > exit(shop::total(1)); shop::total(404)
        {"result":{"id":1,"total":10}}
    "#]],
    )
    .await;
}

#[tokio::test]
async fn an_error_says_where_it_is_and_what_was_called_before_it() {
    let programs = [
        "let x = 1;\nlet = 2;",
        "let x = shop::total(1);\n  shop::total(404)",
        "shop::total(#{id: \"one\"})",
        "shop::total(1, 2)",
        "shop::totals(1)",
        "shops::total(1)",
        "shop.total(1)",
        "let a = [1];\na[7]",
        "print(\"before\");\nthrow #{ message: \"stock is out\", details: #{ sku: 7 } }",
        "call_tool(\"mail.send\", #{})",
    ];
    check(&programs, expect![[r#"
        > let x = 1;
        > let = 2;
        Compile: line 2, column 5: the script does not compile: Expecting name of a variable
          let = 2;
              ^
        details: {"at":{"line":2,"column":5},"calls":[]}
        > let x = shop::total(1);
        >   shop::total(404)
        Script: no such order
        details: {"calls":["shop.total: ok","shop.total: Script"]}
        > shop::total(#{id: "one"})
        Script: InvalidArguments: the arguments do not fit the tool's parameters; mend these and call again: /id: expected the type integer, found the string "one"
        details: {"details":{"problems":[{"pointer":"/id","expected":"the type integer","found":"the string \"one\""}]},"calls":["shop.total: InvalidArguments"]}
        > shop::total(1, 2)
        Script: line 1, column 7: the tool failed because of an error in its script: there is no function `shop::total (i64, i64)` (line 1); there are shop::note, shop::orders, shop::total
        details: {"at":{"line":1,"column":7},"calls":[]}
        > shop::totals(1)
        Script: line 1, column 7: the tool failed because of an error in its script: there is no function `shop::totals (i64)` (line 1); there are shop::note, shop::orders, shop::total
        details: {"at":{"line":1,"column":7},"calls":[]}
        > shops::total(1)
        Script: line 1, column 1: the tool failed because of an error in its script: there is no module `shops` (line 1); tools are in shop::, test::
        details: {"at":{"line":1,"column":1},"calls":[]}
        > shop.total(1)
        Script: line 1, column 1: the tool failed because of an error in its script: there is no variable `shop` (line 1); there are shop::note, shop::orders, shop::total
        details: {"at":{"line":1,"column":1},"calls":[]}
        > let a = [1];
        > a[7]
        Script: line 2, column 3: the tool failed because of an error in its script: the index 7 is outside of an array of 1 (line 2)
        details: {"at":{"line":2,"column":3},"calls":[]}
        > print("before");
        > throw #{ message: "stock is out", details: #{ sku: 7 } }
        Script: line 2, column 1: stock is out
        details: {"at":{"line":2,"column":1},"details":{"sku":7},"calls":[],"printed":"before"}
        > call_tool("mail.send", #{})
        NotFound: line 1, column 1: there is no tool called "mail.send": tools are in shop::, test::
        details: {"at":{"line":1,"column":1},"calls":[]}
    "#]]).await;
}

#[tokio::test]
async fn an_error_of_a_tool_can_be_caught() {
    let programs = [
        "let r = (); try { shop::total(404) } catch (e) { r = `${e.kind}: ${e.message}`; } r",
        "let r = (); try { test::panic() } catch (e) { r = e.kind; } r",
        "shop::orders().map(|id| try_total(id)); fn try_total(id) { let r = -1; try { r = shop::total(id + 401); } catch { } r }",
    ];
    check(
        &programs,
        expect![[r#"
            > let r = (); try { shop::total(404) } catch (e) { r = `${e.kind}: ${e.message}`; } r
            {"result":"Script: no such order"}
            > let r = (); try { test::panic() } catch (e) { r = e.kind; } r
            {"result":"Panic"}
            > shop::orders().map(|id| try_total(id)); fn try_total(id) { let r = -1; try { r = shop::total(id + 401); } catch { } r }
            {"result":[{"id":402,"total":4020},{"id":403,"total":4030},-1]}
        "#]],
    )
    .await;
}

#[tokio::test]
async fn several_calls_at_once_are_answered_in_their_order_and_one_failure_does_not_lose_the_others() {
    let programs = [
        r#"parallel([#{tool: "shop::total", args: #{id: 1}}, #{tool: "shop.total", args: #{id: 404}}, #{tool: "shop::orders"}])"#,
        r#"parallel([#{tool: "shop::total", args: #{id: 1}}, #{tool: "no::such"}])"#,
        r#"parallel([#{tool: "shop::total", arguments: #{id: 1}}])"#,
        "parallel([])",
        "parallel([1])",
    ];
    check(&programs, expect![[r#"
        > parallel([#{tool: "shop::total", args: #{id: 1}}, #{tool: "shop.total", args: #{id: 404}}, #{tool: "shop::orders"}])
        {"result":[{"ok":{"id":1,"total":10}},{"error":{"details":null,"kind":"Script","message":"no such order","retryable":false}},{"ok":[1,2,3]}]}
        > parallel([#{tool: "shop::total", args: #{id: 1}}, #{tool: "no::such"}])
        {"result":[{"ok":{"id":1,"total":10}},{"error":{"details":null,"kind":"NotFound","message":"there is no tool called \"no::such\": tools are in shop::, test::","retryable":false}}]}
        > parallel([#{tool: "shop::total", arguments: #{id: 1}}])
        Script: line 1, column 1: InvalidArguments: parallel: entry 0 is not #{tool: "space::name", args: #{...}}; nothing was called
        details: {"at":{"line":1,"column":1},"calls":[]}
        > parallel([])
        {"result":[]}
        > parallel([1])
        Script: line 1, column 1: InvalidArguments: parallel: entry 0 is not #{tool: "space::name", args: #{...}}; nothing was called
        details: {"at":{"line":1,"column":1},"calls":[]}
    "#]]).await;
}

/// A tool that holds its calls until as many run as it waits for, and counts how many there were at most.
fn crowd(size: usize) -> (impl toolbay::Tool + 'static, Arc<AtomicUsize>) {
    let (gate, most, now) =
        (Arc::new(tokio::sync::Barrier::new(size)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let crowd = tool("crowd", "Waits for others", move |_: Nothing, _: ToolContext| {
        let (gate, most, now) = (Arc::clone(&gate), Arc::clone(&most), Arc::clone(&now));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.wait().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok("met")
        }
    });
    (crowd, seen)
}

#[tokio::test]
async fn several_calls_run_at_the_same_time_and_no_more_than_the_setting_says() {
    let (crowd, most) = crowd(3);
    let builder = Toolbay::builder().runner(RhaiRunner::default()).tool(crowd);
    let (bay, mode) = bay_with(builder, CodeSettings { max_parallel: 3, ..CodeSettings::default() }).await;
    let code =
        r#"let c = []; for i in 0..9 { c.push(#{tool: "tools::crowd"}); } parallel(c).filter(|r| r.ok == "met").len()"#;
    assert_eq!(text_of(&bay, &mode, code).await, r#"{"result":9}"#);
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_must_run_alone_does_also_among_several() {
    let (crowd, most) = crowd(1);
    let builder = Toolbay::builder().runner(RhaiRunner::default()).tool(crowd);
    let exclusive = ToolMatcher::new(["crowd"]).unwrap();
    let (bay, mode) = bay_with(builder, CodeSettings { exclusive, ..CodeSettings::default() }).await;
    let code = r#"parallel([#{tool: "tools::crowd"}, #{tool: "tools::crowd"}, #{tool: "shop::orders"}]).len()"#;
    assert_eq!(text_of(&bay, &mode, code).await, r#"{"result":3}"#);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn every_call_takes_the_road_as_the_runs_own() {
    let audit = Arc::new(RecordingAudit::default());
    let builder = Toolbay::builder().runner(RhaiRunner::default()).audit(audit.clone());
    let guard = before("guard", "shop.total", Answer::Rewrite(json!({ "id": 7 })));
    let (bay, mode) = bay_with(builder.hook(guard), CodeSettings::default()).await;
    assert_eq!(text_of(&bay, &mode, "shop::total(1).total").await, r#"{"result":70}"#);
    let calls: Vec<_> = audit
        .records()
        .into_iter()
        .map(|one| {
            format!(
                "{} {} in {:?}, depth {}: {} {:?}",
                one.tool, one.call, one.parent, one.depth, one.outcome, one.decisions
            )
        })
        .collect();
    expect![[r#"
        shop.total call_1.1 in Some("call_1"), depth 1: ok ["before_tool_call guard: rewrite"]
        run_code call_1 in None, depth 0: ok []"#]]
    .assert_eq(&calls.join("\n"));
}

#[tokio::test]
async fn a_hooks_no_is_an_error_and_its_stop_ends_the_run() {
    let deny = before("closed", "shop.note", Answer::Deny("not today".into()));
    let stop = before("fuse", "shop.orders", Answer::Stop("enough".into()));
    let builder = Toolbay::builder().runner(RhaiRunner::default()).hook(deny).hook(stop);
    let (bay, mode) = bay_with(builder, CodeSettings::default()).await;
    let text = text_of(&bay, &mode, "let r = (); try { shop::note(\"a\") } catch (e) { r = e.message; } r").await;
    assert_eq!(text, r#"{"result":"closed: not today"}"#);
    let code = "try { shop::orders() } catch { } loop { shop::total(1); }";
    let reply = run(bay.session("acme").unwrap(), config(&mode), code).await;
    assert_eq!(reply.outcome, RunOutcome::Stopped { by: "fuse".into(), reason: "enough".into() });
    assert_eq!(reply.tool_calls, 2);
}

#[tokio::test]
async fn the_runs_own_bounds_count_the_calls_of_programs() {
    let (bay, mode) = bay().await;
    let bounds =
        |bounds| AgentConfig { stepper: StepperConfig { bounds, ..StepperConfig::default() }, ..config(&mode) };
    let forever = "let n = 0; loop { try { shop::total(1) } catch { } n += 1; }";
    let session = || bay.session("acme").unwrap();

    let five = bounds(Bounds { max_tool_calls: 5, ..Bounds::default() });
    let reply = run(session(), five, forever).await;
    assert_eq!(
        (reply.tool_calls, reply.exhausted.unwrap().to_string().as_str()),
        (5, "the run's limit of 5 tool calls is used up")
    );

    let per_tool = Bounds { max_calls_per_tool: [("shop.*".to_owned(), 2)].into(), ..Bounds::default() };
    let reply = run(session(), bounds(per_tool), forever).await;
    assert_eq!(reply.tool_calls, 3);
    assert!(
        read(&reply).starts_with("LimitExceeded: the run's limit of 2 calls of shop.* is used up"),
        "{}",
        read(&reply)
    );

    let budget = DayBudget { max_tool_calls: Some(4), ..DayBudget::default() };
    let day = Some(DayLimits { budget, ledger: MemoryLedger::new() });
    let reply = run(session(), AgentConfig { day, ..config(&mode) }, forever).await;
    assert_eq!(reply.tool_calls, 4);
    assert!(read(&reply).contains("the tenant's 4 tool calls of the day are used up"), "{}", read(&reply));
}

#[tokio::test]
async fn what_is_printed_is_bounded_and_results_are_cut_like_all_others() {
    let builder = Toolbay::builder().runner(RhaiRunner::default());
    let (results, read_result) =
        toolbay::results::results(toolbay::ResultBounds { max_shown_bytes: 300, ..Default::default() });
    let (bay, mode) =
        bay_with(builder.tool(read_result), CodeSettings { max_printed_bytes: 20, ..CodeSettings::default() }).await;
    let text = text_of(&bay, &mode, "for i in 0..100 { print(`line ${i}`); } 1").await;
    assert_eq!(text, r#"{"result":1,"printed":"line 0\nline 1\nline 2\n[the rest of what was printed is left out]"}"#);
    let config = AgentConfig { results: Some(results), ..config(&mode) };
    let reply = run(bay.session("acme").unwrap(), config, "let a = []; for i in 0..1000 { a.push(i); } a").await;
    assert!(read(&reply).contains("read_result with the handle"), "{}", read(&reply));
}

#[tokio::test]
async fn the_model_is_given_the_program_tool_and_what_is_to_stand_beside_it() {
    let settings = CodeSettings { beside: ToolMatcher::new(["test.echo"]).unwrap(), ..CodeSettings::default() };
    let (bay, mode) = bay_with(Toolbay::builder().runner(RhaiRunner::default()), settings).await;
    let model = ScriptedModel::new().says("hi");
    Agent::new(model.clone(), bay.session("acme").unwrap()).config(config(&mode)).run("go").await.unwrap();
    let request = model.requests().remove(0);
    let names: Vec<_> = request.tools.iter().map(|tool| tool.name.to_string()).collect();
    assert_eq!(names, ["run_code", "test__echo"]);
    let functions = request.tools[0].description.split("Functions:\n").nth(1).unwrap().to_owned();
    expect![[r#"
        shop::note(#{title: string, due?: string | ()})  // Writes down
        shop::orders()  // Lists the orders.
        shop::total(#{id: int})  // An order's total
        test::echo()  // Told to echo
        test::fail()  // Told to fail
        test::hang()  // Told to hang
        test::panic()  // Told to panic
    "#]]
    .assert_eq(&functions);

    // Without code mode there is no such tool, though the host has it.
    let model = ScriptedModel::new().says("hi");
    Agent::new(model.clone(), bay.session("acme").unwrap()).run("go").await.unwrap();
    assert!(model.requests()[0].tools.iter().all(|tool| tool.name != *"run_code"));
}

#[tokio::test]
async fn with_many_tools_the_model_gets_less_of_each_and_a_way_to_ask() {
    let (find, describe) = search::tools();
    let builder = Toolbay::builder().runner(RhaiRunner::default()).tool(find).tool(describe);
    let mut many = NativePlugin::new("many", "1.0.0", "Many").unwrap();
    for number in 0..60 {
        let about = format!("Does the thing number {number}, which takes some words to say");
        many =
            many.tool(tool(&format!("thing_{number:02}"), &about, async |order: Order, _: ToolContext| Ok(order.id)));
    }
    let (bay, mode) = bay_with(builder, CodeSettings { max_listing_bytes: 1_000, ..CodeSettings::default() }).await;
    bay.register(Scope::Global, many).await.unwrap();
    let model = ScriptedModel::new()
        .calls("search_tools", json!({ "query": "thing number 41" }))
        .calls("describe_tool", json!({ "name": "many__thing_41" }))
        .calls("run_code", json!({ "code": "many::thing_41(5)" }))
        .says("done");
    let session = bay.session("acme").unwrap();
    let reply = Agent::new(model.clone(), session).config(config(&mode)).run("go").await.unwrap();
    let tools: Vec<_> = model.requests()[3].tools.iter().map(|tool| tool.name.to_string()).collect();
    assert_eq!(tools, ["describe_tool", "run_code", "search_tools"]);
    let functions = model.requests()[0].tools[1].description.split("Functions:\n").nth(1).unwrap().to_owned();
    assert!(functions.len() <= 1_000, "{}", functions.len());
    assert!(functions.starts_with("search_tools finds functions") && functions.ends_with(" more\n"), "{functions}");
    let texts = read(&reply);
    assert!(texts.contains(r#""function":"many::thing_41(#{id: int})""#), "{texts}");
    assert!(texts.ends_with(r#"{"result":5}"#), "{texts}");
}

#[tokio::test]
async fn a_program_runs_the_same_in_a_worker_process() {
    let program = WorkerProgram::Path(toolbay_command());
    let workers = WorkerRunner::new(WorkerConfig { program, ..WorkerConfig::default() }).unwrap();
    let (far, far_mode) = bay_with(Toolbay::builder().runner(workers), CodeSettings::default()).await;
    let (near, near_mode) = bay().await;
    for code in [
        "let sum = 0; for id in shop::orders() { sum += shop::total(#{id: id}).total; } sum",
        r#"print("x"); parallel([#{tool: "shop::total", args: #{id: 1}}, #{tool: "shop::total", args: #{id: 404}}])"#,
        "let x = 1;\nlet = 2;",
        "let x = shop::total(1);\n  shop::total(404)",
        "let a = [1];\na[7]",
        "let r = (); try { shop::total(404) } catch (e) { r = e.message; } r",
        "loop { try { shop::total(1) } catch { } }",
        "kv_get(\"x\")",
        "call_tool(\"run_code\", #{ code: \"1\" })",
    ] {
        let (one, other) = (text_of(&near, &near_mode, code).await, text_of(&far, &far_mode, code).await);
        assert_eq!(one, other, "{code}");
    }
}
