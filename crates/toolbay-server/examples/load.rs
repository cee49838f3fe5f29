//! What `scripts/load` measures: a native and a Rhai tool behind the API on an SQLite file, and beside them, in the same process on
//! a port of its own, an axum handler that takes and gives the same JSON and does nothing else. Prints both addresses and a tenant's
//! key as JSON.

use std::{error::Error, io::Write as _, sync::Arc};

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use toolbay_api::{Scope, TenantId, ToolContext, ToolError, plugin::NativePlugin, tool};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{
    Actor, Control, ControlOptions, Quota, Store, StoreAudit, Toolbay, control::KeyWanted, store::Role,
};
use toolbay_server::{Server, ServerOptions};
use toolbay_store::{SqlStore, StoreOptions};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    text: String,
}

const SCRIPT: &str = r#"const PLUGIN = #{ name: "script", version: "1.0.0", description: "Echoes", author: "Toolbay", tools: #{
    echo: #{ description: "Says it again", parameters: #{ type: "object", properties: #{ text: #{ type: "string" } }, required: ["text"] } } } };
fn echo(args) { args.text }
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "toolbay-data/load.db".to_owned());
    let audits = std::env::args().nth(2).as_deref() == Some("--audit");
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(&format!("sqlite:{path}"), StoreOptions::default()).await?);
    let quota = Quota { max_concurrent_calls: 100_000, max_calls_per_minute: u32::MAX };
    let builder = Toolbay::builder().runner(RhaiRunner::default()).quota(quota);
    let builder = match audits {
        true => builder.audit(Arc::new(StoreAudit::new(Arc::clone(&store)))),
        false => builder.without_audit(),
    };
    let bay = builder.build()?;
    let echo = tool("echo", "Says it again", async |args: Echo, _: ToolContext| Ok::<_, ToolError>(args.text));
    bay.register(Scope::Global, NativePlugin::new("native", "1.0.0", "Echoes")?.tool(echo)).await?;
    bay.load_source(Scope::Global, "script.rhai", SCRIPT).await?;
    let control = Control::open(bay, store, ControlOptions::default()).await?;
    let (me, acme) = (Actor::host("load"), TenantId::new("acme")?);
    control.create_tenant(&me, &acme).await?;
    let wanted = KeyWanted {
        role: Role::Tenant,
        tenant: Some(acme),
        label: "load".to_owned(),
        expires_at: None,
        rate: Some(u32::MAX),
    };
    let key = control.create_key(&me, wanted).await?;
    let options = ServerOptions { max_requests_per_key: 10_000, max_requests: 10_000, ..ServerOptions::default() };
    let server = Server::new(control, options).bind("127.0.0.1:0".parse()?).await?;
    let bare = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let line = json!({ "api": server.local_addr()?, "bare": bare.local_addr()?, "key": key.secret });
    writeln!(std::io::stdout(), "{line}")?;
    let handler = |Json(asked): Json<Value>| async move {
        Json(json!({ "success": true, "data": asked.pointer("/arguments/text"), "error": null, "metadata": {} }))
    };
    tokio::spawn(async move { axum::serve(bare, Router::new().route("/echo", post(handler))).await });
    server.serve(async { _ = tokio::signal::ctrl_c().await }).await?;
    Ok(())
}
