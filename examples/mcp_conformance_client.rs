//! An MCP client for the protocol's conformance suite: `scripts/conformance` has the suite start it, once for each
//! scenario. It is a program around `toolbay::mcp_client::Link`, which is what an MCP plugin's tools are called over: it
//! connects, signs in where it is told to, lists the tools and calls each.

#![allow(clippy::print_stderr, reason = "the suite keeps what is said there")]

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use toolbay::{
    Answer, FormAnswer, Question, QuestionKind, Secret,
    mcp_client::{
        Answerer, Browser, HttpPolicy, Link, LinkError, LinkOptions, Offered, Place, Revisions, SignIn,
        server_file::ReadyAuth,
    },
};

/// How often the server may ask us to sign in anew before we believe that it will never be enough.
const MAX_SIGN_INS: usize = 3;

/// What the suite gives to scenarios that need it.
#[derive(Default, Deserialize)]
struct Context {
    client_id: Option<String>,
    client_secret: Option<String>,
    #[serde(default, rename = "toolCalls")]
    tool_calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Fills in each form with what it suggests, and has a model that says little.
struct Agreeable;

#[toolbay::async_trait]
impl Answerer for Agreeable {
    fn answers(&self, _: QuestionKind) -> bool {
        true
    }

    async fn answer(&self, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Form { schema, .. } => {
                // What the form suggests is put in by the link.
                let mut fields = arguments(&schema);
                fields.retain(|name, _| field(&schema, name).and_then(|field| field.get("default")).is_none());
                Answer::Form(FormAnswer::Accepted(fields))
            }
            Question::Generate { .. } => Answer::Generated { text: "Hello.".to_owned(), model: "none".to_owned() },
            Question::Roots => Answer::Roots(Vec::new()),
            _ => return None,
        })
    }
}

/// A user who agrees to everything: the suite's authorization server sends back at once.
struct Headless;

#[toolbay::async_trait]
impl Browser for Headless {
    async fn visit(&self, url: &str) -> Result<String, String> {
        let get = async {
            let rest = url.strip_prefix("http://").ok_or("only http here")?;
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let mut stream = TcpStream::connect(host).await?;
            let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("location:"));
            let (_, location) = line.and_then(|line| line.split_once(':')).ok_or("there is no way back")?;
            Ok::<_, Box<dyn Error + Send + Sync>>(location.trim().to_owned())
        };
        get.await.map_err(|error| error.to_string())
    }
}

fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

/// Values for what a schema requires.
fn arguments(schema: &Value) -> Map<String, Value> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let value = |name: &str| match field(schema, name).and_then(|field| field.get("type")?.as_str()) {
        Some("number" | "integer") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("text"),
    };
    required.map(|name| (name.to_owned(), value(name))).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("the server's address is missing")?;
    let scenario = std::env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_else(|_| "{}".to_owned());
    let context: Context = serde_json::from_str(&context)?;
    let mut http = HttpPolicy::default();
    for loopback in ["127.0.0.0/8", "::1/128"] {
        http.addresses.allow(loopback.parse()?);
    }
    let mut options =
        LinkOptions { label: "suite".into(), http, answerer: Some(Arc::new(Agreeable)), ..LinkOptions::default() };
    if let Ok(revision) = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION") {
        options.revisions = Revisions::Only(revision);
    }
    let mut auth = None;
    let registered = context.client_id.clone().zip(context.client_secret.clone());
    if scenario.starts_with("auth/client-credentials") {
        let (client_id, client_secret) = registered.ok_or("there are no client credentials")?;
        let client_secret = Secret::new(client_secret);
        auth = Some(ReadyAuth::ClientCredentials { client_id, client_secret, scopes: Vec::new() });
    } else if scenario.starts_with("auth/") {
        let mut sign_in = SignIn::new(Arc::new(Headless), "http://localhost:3000/callback");
        sign_in.client_metadata_url = Some("https://conformance-test.local/client-metadata.json".to_owned());
        sign_in.registered = registered.map(|(id, secret)| (id, Some(Secret::new(secret))));
        options.sign_in = Some(Arc::new(sign_in));
    }
    let place = Place::Http { url, auth };
    let all = async {
        for _ in 0..=MAX_SIGN_INS {
            match visit(&place, &options, &context).await {
                Err(LinkError::SignInNeeded(wanted)) => options.wanted = Some(wanted),
                other => return other.map_err(Into::into),
            }
        }
        Err("the server is never content with how we sign in".into())
    };
    tokio::time::timeout(Duration::from_secs(25), all).await?
}

/// What the tool is called with. One of the suite's wants to be shown how another describes its parameters.
fn arguments_of(tool: &Offered, all: &[Offered]) -> Map<String, Value> {
    let mut arguments = arguments(&tool.parameters);
    let other = all.iter().find(|other| tool.name == "json_schema_echo" && other.name != tool.name);
    if let Some(other) = other {
        arguments.insert("schema".to_owned(), other.parameters.clone());
    }
    arguments
}

/// Connects, lists and calls.
async fn visit(place: &Place, options: &LinkOptions, context: &Context) -> Result<(), LinkError> {
    let link = Link::open(place, options).await?;
    let tools = link.tools().await?;
    let calls: Vec<(String, Map<String, Value>)> = if context.tool_calls.is_empty() {
        tools.iter().map(|tool: &Offered| (tool.name.clone(), arguments_of(tool, &tools))).collect()
    } else {
        context.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
    };
    let mut failed = BTreeMap::new();
    for (name, arguments) in calls {
        match link.call(&name, arguments, None).await {
            Ok(_) => {}
            Err(error @ LinkError::SignInNeeded(_)) => return Err(error),
            // A call that the server refuses is its word; the next tool may do.
            Err(error) => {
                failed.insert(name, error.to_string());
            }
        }
    }
    if !failed.is_empty() {
        eprintln!("{failed:?}");
    }
    link.close().await;
    Ok(())
}
