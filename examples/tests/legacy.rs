//! An old plugin behind the adapter: its actions are tools like others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; to panic is what the old plugin does"
)]

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use serde_json::{Value, json};
use toolbay::{ErrorKind, Scope, ToolError, Toolbay};
use toolbay_examples::legacy::{Action, LegacyPlugin, adapt};

/// A plugin as it was.
struct Orders;

impl LegacyPlugin for Orders {
    fn handle(&self, action: &str, payload: Value) -> Result<Value, String> {
        match (action, payload["id"].as_i64()) {
            ("find" | "get_order", Some(1)) => Ok(json!({ "id": 1, "total": 9.5 })),
            ("find", Some(2)) => Err("denied: order 2 is another customer's".to_owned()),
            ("find", Some(3)) => Err("busy: the order book is locked; try again".to_owned()),
            ("find", Some(4)) => Err("SELECT * FROM orders: no such table (/var/db/orders)".to_owned()),
            ("find", Some(5)) => panic!("index out of bounds"),
            ("find", Some(6)) => Err("invalid: 6 is no order's number".to_owned()),
            ("find", _) => Err("not_found: there is no such order".to_owned()),
            _ => Err(format!("unknown action {action}")),
        }
    }
}

fn action(name: &'static str, use_instead: Option<&'static str>) -> Action {
    let parameters = json!({ "type": "object", "properties": { "id": { "type": "integer" } }, "required": ["id"] });
    Action { name, description: "Finds an order by its number.", parameters, use_instead }
}

async fn host() -> Toolbay {
    let bay = toolbay::builder().build().unwrap();
    let actions = vec![action("find", None), action("get_order", Some("orders.find"))];
    let orders = adapt("orders", "2.0.0", "Knows the orders", Arc::new(Orders), actions).unwrap();
    bay.register(Scope::Global, orders).await.unwrap();
    bay
}

async fn call(bay: &Toolbay, tenant: &str, tool: &str, arguments: Value) -> Result<Value, ToolError> {
    bay.session(tenant).unwrap().call(tool, arguments).await.result.map(|output| output.data)
}

#[tokio::test]
async fn an_action_is_a_tool_with_a_schema() {
    let bay = host().await;
    assert_eq!(call(&bay, "acme", "orders.find", json!({ "id": 1 })).await.unwrap(), json!({ "id": 1, "total": 9.5 }));
    let error = call(&bay, "acme", "orders.find", json!({ "id": "1" })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArguments);
    assert!(error.message.contains("/id"), "{error}");
}

#[tokio::test]
async fn errors_have_the_kinds_that_their_codes_stand_for() {
    let bay = host().await;
    let expected = [
        (2, "PermissionDenied: order 2 is another customer's"),
        (3, "Unavailable: the order book is locked; try again"),
        (4, "Script: the action failed; tell the operator"),
        (6, "InvalidArguments: 6 is no order's number"),
        (7, "NotFound: there is no such order"),
    ];
    for (id, text) in expected {
        let error = call(&bay, "acme", "orders.find", json!({ "id": id })).await.unwrap_err();
        assert_eq!(error.to_string(), text);
        let detail = error.operator_detail().map(ToString::to_string);
        assert_eq!(detail.is_some_and(|text| text.contains("/var/db")), id == 4);
    }
    let error = call(&bay, "acme", "orders.find", json!({ "id": 5 })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Panic);
}

#[tokio::test]
async fn a_deprecated_action_says_so_to_the_model_and_once_to_the_operator() {
    let log = log();
    let bay = host().await;
    for tenant in ["acme", "globex", "acme"] {
        assert_eq!(call(&bay, tenant, "orders.get_order", json!({ "id": 1 })).await.unwrap()["id"], 1);
    }
    let session = bay.session("acme").unwrap();
    let description = session.tool("orders.get_order").unwrap().definition.description.clone();
    assert!(description.ends_with("Deprecated: use orders.find instead."), "{description}");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("deprecated")).collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains("get_order") && warnings[0].contains("orders.find"));
}

/// The log of the whole process: tools that block run on threads of their own.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).init();
        log
    })
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
