//! The API on an SQLite file with a plugin of each kind, for trying it and for `scripts/schemathesis`. Prints where it
//! listens, and a key of each role, as JSON. The program `toolbay serve` is the real thing.
//!
//! ```text
//! cargo run -p toolbay-server --example serve -- toolbay-data/try.db
//! ```

use std::{error::Error, io::Write as _, sync::Arc};

use serde_json::json;
use toolbay_api::{
    PermissionSet, Route, RouteContext, RouteMethod, RouteRequest, RouteResponse, Scope, TenantId, ToolContext,
    ToolError, plugin::NativePlugin, tool,
};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{
    Actor, Control, ControlOptions, Toolbay,
    control::{Install, KeyWanted, Upload},
    store::Role,
};
use toolbay_server::{Server, ServerOptions};
use toolbay_store::{SqlStore, StoreOptions};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    text: String,
}

const HELLO: &str = r#"const PLUGIN = #{
    name: "hello", version: "1.0.0", description: "Greets",
    config_schema: #{ type: "object", properties: #{ tone: #{ type: "string", enum: ["loud", "soft"] } }, additionalProperties: false },
    tools: #{ hello: #{ description: "Greets somebody", parameters: #{ type: "object", properties: #{ name: #{ type: "string" } } } } },
};
fn hello(args) { "hello " + args.name }
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "toolbay-data/try.db".to_owned());
    let store = Arc::new(SqlStore::open(&format!("sqlite:{path}"), StoreOptions::default()).await?);
    let bay = Toolbay::builder().runner(RhaiRunner::default()).grants(PermissionSet::all()).build()?;
    bay.register(Scope::Global, shop()?).await?;
    let control = Control::open(bay, store, ControlOptions::default()).await?;
    let (me, acme) = (Actor::host("example"), TenantId::new("acme")?);
    if control.tenant(&me, &acme).await.is_err() {
        control.create_tenant(&me, &acme).await?;
        let upload = Upload { file_name: "hello.rhai".to_owned(), content: HELLO.as_bytes().into() };
        let uploaded = control.upload(&me, &Scope::Tenant(acme.clone()), upload).await?;
        control.install(&me, &Scope::Tenant(acme.clone()), &uploaded.version.plugin, Install::default()).await?;
    }
    let key = async |role, tenant| {
        let wanted = KeyWanted { role, tenant, label: "try".to_owned(), expires_at: None, rate: Some(1_000_000) };
        control.create_key(&me, wanted).await.map(|key| key.secret)
    };
    let keys = json!({
        "admin": key(Role::Admin, None).await?, "operator": key(Role::Operator, None).await?,
        "tenant": key(Role::Tenant, Some(acme)).await?,
    });
    let _following = control.follow();
    let options = ServerOptions { failures_per_minute: 1_000_000, ..ServerOptions::default() };
    let server = Server::new(control.clone(), options).bind("127.0.0.1:0".parse()?).await?;
    let line = json!({ "url": format!("http://{}", server.local_addr()?), "keys": keys });
    writeln!(std::io::stdout(), "{line}")?;
    server.serve(async { _ = tokio::signal::ctrl_c().await }).await?;
    Ok(())
}

fn shop() -> Result<NativePlugin, ToolError> {
    let echo = tool("echo", "Says it again", async |args: Echo, _: ToolContext| Ok::<_, ToolError>(args.text));
    let order = Route::new(RouteMethod::Get, "/orders/{id}", "One order", async |asked: RouteRequest, _: RouteContext| {
        Ok(RouteResponse::ok(json!({ "id": asked.params.get("id"), "tenant": asked.tenant })))
    })
    .query(json!({
        "type": "object", "properties": { "full": { "type": "string", "enum": ["yes", "no"] } }, "additionalProperties": false,
    }))
    .response(json!({ "type": "object", "properties": { "id": { "type": "string" } }, "required": ["id", "tenant"] }));
    let place = Route::new(RouteMethod::Post, "/orders", "Orders something", async |asked: RouteRequest, _: RouteContext| {
        Ok(RouteResponse { status: 201, body: asked.body })
    })
    .request(json!({
        "type": "object", "properties": { "count": { "type": "integer" } }, "required": ["count"], "additionalProperties": false,
    }));
    Ok(NativePlugin::new("shop", "1.0.0", "A shop")?.tool(echo).route(order).route(place))
}
