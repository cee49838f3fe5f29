//! What an error costs: a script that ran into a limit of its own costs its worker, one whose host refused it something
//! does not.

use std::time::Duration;

use serde_json::{Value, json};
use toolbay_api::{
    ErrorKind, HttpSend, HttpSendContext, Limit, Limits, PermissionSet, Scope, ToolContext, ToolError, async_trait,
    plugin::NativePlugin, tool,
};
use toolbay_runtime::Toolbay;
use toolbay_worker::{WorkerConfig, WorkerRunner};

use crate::support::{Bay, config, limits};

/// The error that a host's function answers where it is asked for it by name.
fn error_called(name: &str) -> ToolError {
    match name {
        "limit" => ToolError::limit(Limit::Operations, 5, 6),
        "memory" => ToolError::limit(Limit::Memory, 5, 6),
        "late" => ToolError::new(ErrorKind::TimedOut, "somebody else was late"),
        "broken" => ToolError::new(ErrorKind::Panic, "somebody else broke down"),
        "internal" => ToolError::new(ErrorKind::Internal, "somebody else is at fault"),
        _ => ToolError::new(ErrorKind::Unavailable, "somebody else is away"),
    }
}

/// A network where every address is the name of an error.
struct Broken;

#[async_trait]
impl HttpSend for Broken {
    async fn send(&self, request: Value, _: HttpSendContext<'_>) -> Result<Value, ToolError> {
        Err(error_called(request["url"].as_str().unwrap_or_default()))
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Asked {
    how: String,
}

const CODE: &str = r#"fn t(args) {
        switch args.what {
            "http" => http_get(args.how),
            "tool" => call_tool("broken.fail", #{ how: args.how }),
            "again" => try { http_get(args.how) } catch (error) { throw error; },
            "instead" => try { http_get(args.how) } catch (error) { throw "gave up"; },
            "caught" => { try { http_get(args.how) } catch (error) { } loop {} }
            "spin" => loop {},
            "deep" => down(0),
            _ => 1
        }
    }
    fn down(n) { down(n + 1) }
    fn on_health_check(cx) { http_get("late") }
    fn on_event(event) { http_get(event.payload) }"#;

/// A host with one worker a tenant, whose other plugins and network fail as they are told to.
async fn bay(limits: Limits) -> Bay {
    let runner = WorkerRunner::new(WorkerConfig { max_workers_per_tenant: 1, ..config() }).unwrap();
    let builder = Toolbay::builder().limits(limits).grants(PermissionSet::all()).http(Broken).runner(runner.clone());
    let toolbay = builder.build().unwrap();
    let fail = |asked: Asked, _: ToolContext| async move { Err::<Value, _>(error_called(&asked.how)) };
    let broken = NativePlugin::new("broken", "1.0.0", "d").unwrap().tool(tool("fail", "Fails", fail));
    toolbay.register(Scope::Global, broken).await.unwrap();
    let source = format!(
        "const PLUGIN = #{{ name: \"x\", version: \"1.0.0\", description: \"d\", permissions: [\"*\"], events: #{{ \"go\": #{{}} }}, \
         tools: #{{ t: #{{ description: \"d\", parameters: #{{ type: \"object\" }} }} }} }};\n{CODE}"
    );
    toolbay
        .load_source(Scope::tenant("acme").unwrap(), "x.rhai", &source)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    Bay { toolbay, runner }
}

#[tokio::test]
async fn what_the_host_refused_costs_no_worker() {
    let bay = bay(limits()).await;
    assert_eq!(bay.data("x.t", json!({})).await, json!(1));
    let pid = bay.pid_of("acme").expect("a worker");
    for what in ["http", "tool", "again", "instead"] {
        for how in ["away", "late", "broken", "internal", "limit", "memory"] {
            // One that goes well, or the breaker would end the series.
            assert_eq!(bay.data("x.t", json!({})).await, json!(1));
            let error = bay.error("x.t", json!({ "what": what, "how": how })).await;
            let wanted = if what == "instead" { ErrorKind::Script } else { error_called(how).kind };
            assert_eq!(error.kind, wanted, "{what} {how}: {error}");
            assert_eq!(bay.pid_of("acme"), Some(pid), "{what} {how} cost the worker");
        }
    }
    bay.toolbay.check_health().await;
    let scope = Scope::tenant("acme").unwrap();
    let (_, checked) = bay.toolbay.health(&scope).pop().unwrap().last_check.unwrap();
    assert_eq!(checked.unwrap_err().kind, ErrorKind::TimedOut);
    let told = bay.toolbay.publish_and_wait(&scope, "go", json!("away"), Duration::from_secs(20)).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(bay.pid_of("acme"), Some(pid), "a callback or a handler cost the worker");
}

#[tokio::test]
async fn a_limit_of_the_scripts_own_costs_its_worker_whatever_the_host_refused_before() {
    let few = Limits { max_operations: 50_000, ..limits() };
    let short = Limits { max_operations: u64::MAX, timeout: Duration::from_millis(300), ..limits() };
    for (limits, kinds) in [(few, ["limit", "away", "late"]), (short, ["late", "away", "limit"])] {
        let bay = bay(limits).await;
        for (what, how) in
            [("spin", ""), ("deep", ""), ("caught", kinds[0]), ("caught", kinds[1]), ("caught", kinds[2])]
        {
            assert_eq!(bay.data("x.t", json!({})).await, json!(1));
            let pid = bay.pid_of("acme").expect("a worker");
            let error = bay.error("x.t", json!({ "what": what, "how": how })).await;
            assert!(matches!(error.kind, ErrorKind::TimedOut | ErrorKind::LimitExceeded { .. }), "{error}");
            // Where the host's clock was first, the worker goes when the script has been cancelled.
            let is_gone = async {
                while bay.pid_of("acme") == Some(pid) {
                    tokio::task::yield_now().await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(5), is_gone).await;
            assert!(waited.is_ok(), "the worker lived on after {what} {how}: {error}");
        }
    }
}
