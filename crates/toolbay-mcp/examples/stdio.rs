//! A whole MCP server on standard input and output, or with `--http` over HTTP: one native `calculator`.
//!
//! ```sh
//! cargo run -p toolbay-mcp --example stdio
//! ```

use std::{error::Error, io::Write};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use toolbay_api::{ErrorKind, Scope, ToolContext, ToolError, plugin::NativePlugin, tool};
use toolbay_mcp::{HttpOptions, http_router, serve_http, serve_stdio};
use toolbay_runtime::Toolbay;

#[derive(Deserialize, JsonSchema)]
struct Two {
    /// The first number.
    a: f64,
    /// The second number.
    b: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let add = tool("add", "Adds two numbers", async |two: Two, _: ToolContext| Ok(json!({ "sum": two.a + two.b })));
    let divide = tool("divide", "Divides one number by another", async |two: Two, _: ToolContext| {
        if two.b == 0.0 {
            return Err(ToolError::new(ErrorKind::Script, "division by zero: give a divisor other than 0"));
        }
        Ok(json!({ "quotient": two.a / two.b }))
    });
    let toolbay = Toolbay::builder().build()?;
    let calculator = NativePlugin::new("calculator", "1.0.0", "Calculates")?.tool(add).tool(divide);
    toolbay.register(Scope::Global, calculator).await?;
    let session = toolbay.session("default")?;
    if std::env::args().any(|argument| argument == "--http") {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(std::io::stderr(), "listening on http://{}/mcp", listener.local_addr()?)?;
        let router = http_router(session, |_| None, HttpOptions::default());
        serve_http(listener, router, std::future::pending()).await?;
    } else {
        serve_stdio(session).await?;
    }
    Ok(())
}
