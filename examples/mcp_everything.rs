//! An MCP server with one of everything, for the protocol's conformance suite: `scripts/conformance` runs it.
//!
//! It is an ordinary host: native plugins in an ordinary registry, behind the server that `toolbay serve` has. The server
//! knows nothing of what is in here. Each tool, prompt and resource is a plugin of its own where the suite asks for a name
//! without a dot, since a tool that is called like its plugin needs no other name.

#![allow(clippy::print_stdout, reason = "the script that runs it reads the address")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay::{
    Answer, Assets, Content, Document, DocumentBody, FormAnswer, LogLevel, Question, QuestionKind, Questions, Scope,
    Speaker, Tool, ToolContext, ToolDefinition, ToolError, ToolOutput, Toolbay,
    manifest::{PromptArgument, PromptDeclaration, PromptMessage, ResourceDeclaration},
    mcp::{HttpOptions, TaskOptions, http_router, serve_http},
    plugin::NativePlugin,
    showing_tool, tool,
};

/// A red dot: a PNG of one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// Silence: a WAV without samples.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
/// The picture as a file of a plugin.
const PNG_BYTES: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, b'I', b'H', b'D', b'R', 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06, 0x00, 0x00, 0x00, 0x1f, 0x15, 0xc4, 0x89,
];

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct Prompted {
    /// What to ask the model.
    prompt: String,
}

#[derive(Deserialize, JsonSchema)]
struct Messaged {
    /// What to ask the user.
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Id {
    /// What stands in the address.
    id: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let bay = toolbay::builder().build()?;
    for plugin in plugins(&bay)? {
        bay.register(Scope::Global, plugin).await?;
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let session = bay.session("everything")?;
    let tasks = TaskOptions {
        after: Duration::from_millis(200),
        required: ["failing_job", "test_tool_with_task"].map(str::to_owned).into(),
        ..TaskOptions::default()
    };
    let router = http_router(session, |_| None, HttpOptions { tasks, ..HttpOptions::default() });
    serve_http(listener, router, async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await?;
    Ok(())
}

/// A plugin of one tool, called like it.
fn alone(tool: impl Tool + 'static) -> Result<NativePlugin, ToolError> {
    let name = tool.definition().name.clone();
    Ok(NativePlugin::new(name.as_str(), "1.0.0", "One of everything")?.tool(tool))
}

fn text(text: &str) -> Result<String, ToolError> {
    Ok(text.to_owned())
}

fn image() -> Content {
    Content::Image { data: PNG.to_owned(), mime_type: "image/png".to_owned() }
}

fn document(uri: &str, mime_type: &str, text: &str) -> Content {
    let (uri, mime_type, body) = (uri.to_owned(), Some(mime_type.to_owned()), DocumentBody::Text(text.to_owned()));
    Content::Document(Document { uri, mime_type, body })
}

fn plugins(bay: &Toolbay) -> Result<Vec<NativePlugin>, Box<dyn Error>> {
    let mut all = contents()?;
    all.extend(telling()?);
    all.extend(asking()?);
    all.extend(taking_long()?);
    all.extend(prompts()?);
    all.push(resources()?);
    all.extend(changing(bay)?);
    Ok(all)
}

/// Tools that show each kind of content.
fn contents() -> Result<Vec<NativePlugin>, Box<dyn Error>> {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } }
            }
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" }
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false
    });
    Ok(vec![
        alone(tool("test_simple_text", "Says something", async |_: Nothing, _: ToolContext| {
            text("This is a simple text response for testing.")
        }))?,
        alone(showing_tool("test_image_content", "Shows a picture", async |_: Nothing, _: ToolContext| {
            Ok(ToolOutput::showing(vec![image()]))
        }))?,
        alone(showing_tool("test_audio_content", "Plays a sound", async |_: Nothing, _: ToolContext| {
            let (data, mime_type) = (WAV.to_owned(), "audio/wav".to_owned());
            Ok(ToolOutput::showing(vec![Content::Audio { data, mime_type }]))
        }))?,
        alone(showing_tool("test_embedded_resource", "Shows a document", async |_: Nothing, _: ToolContext| {
            let shown = document("test://embedded-resource", "text/plain", "This is an embedded resource content.");
            Ok(ToolOutput::showing(vec![shown]))
        }))?,
        alone(showing_tool(
            "test_multiple_content_types",
            "Shows several things",
            async |_: Nothing, _: ToolContext| {
                let data = r#"{"test":"data","value":123}"#;
                Ok(ToolOutput::showing(vec![
                    Content::text("Multiple content types test:"),
                    image(),
                    document("test://mixed-content-resource", "application/json", data),
                ]))
            },
        ))?,
        alone(tool("test_error_handling", "Fails", async |_: Nothing, _: ToolContext| -> Result<(), _> {
            Err(ToolError::failed("This tool intentionally returns an error for testing"))
        }))?,
        alone(AnySchema(ToolDefinition::new("json_schema_2020_12_tool", "Has an elaborate schema", schema)?))?,
        alone(AnySchema(ToolDefinition::new("test_x_mcp_header", "Wants headers", headers_schema())?))?,
    ])
}

/// Parameters that the client repeats in headers.
fn headers_schema() -> Value {
    let header = |kind: &str, name: &str| json!({ "type": kind, "x-mcp-header": name });
    json!({
        "type": "object",
        "properties": {
            "region": header("string", "Region"),
            "priority": header("integer", "Priority"),
            "verbose": header("boolean", "Verbose"),
            "query": { "type": "string" }
        },
        "required": ["region"]
    })
}

/// A tool whose parameters no Rust type stands for: it gives back its arguments.
struct AnySchema(ToolDefinition);

#[toolbay::async_trait]
impl Tool for AnySchema {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    async fn call(&self, arguments: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::new(json!({ "arguments": arguments })))
    }
}

/// Tools that tell the client something while they run.
fn telling() -> Result<Vec<NativePlugin>, ToolError> {
    async fn pause() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let logging = |name| {
        alone(tool(name, "Logs to the client", async |_: Nothing, cx: ToolContext| {
            for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                cx.tell(LogLevel::Info, Some("everything"), json!(line));
                pause().await;
            }
            text("logged")
        }))
    };
    Ok(vec![
        logging("test_tool_with_logging")?,
        logging("test_logging_tool")?,
        alone(tool("test_tool_with_progress", "Tells how far it is", async |_: Nothing, cx: ToolContext| {
            for done in [0.0, 50.0, 100.0] {
                cx.progress(done, Some(100.0), Some(&format!("Completed step {done} of 100")));
                pause().await;
            }
            text("done")
        }))?,
        alone(tool("test_reconnection", "Takes a little", async |_: Nothing, _: ToolContext| {
            pause().await;
            text("Reconnection test completed")
        }))?,
    ])
}

fn name_form(field: &str) -> Value {
    json!({ "type": "object", "properties": { field: { "type": "string" } }, "required": [field] })
}

fn sure_form() -> Value {
    json!({ "type": "object", "properties": { "ok": { "type": "boolean" } }, "required": ["ok"] })
}

fn generate(prompt: &str, max_tokens: u32) -> Question {
    Question::Generate { messages: vec![(Speaker::User, prompt.to_owned())], system: None, max_tokens }
}

fn form(message: &str, schema: Value) -> Question {
    Question::Form { message: message.to_owned(), schema }
}

/// Asks one question and gives what the tool says of the answer.
async fn ask_one(cx: &ToolContext, name: &str, question: Question) -> Result<Answer, ToolError> {
    let mut answers = cx.ask(Questions::from([(name.to_owned(), question)])).await?;
    answers.remove(name).ok_or_else(|| ToolError::failed("there is no answer"))
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Form(FormAnswer::Accepted(fields)) => format!("action=accept, content={}", json!(fields)),
        Answer::Form(FormAnswer::Declined) => "action=decline".to_owned(),
        Answer::Form(FormAnswer::Cancelled) => "action=cancel".to_owned(),
        Answer::Generated { text, .. } => format!("LLM response: {text}"),
        Answer::Roots(roots) => roots.iter().map(|root| root.uri.as_str()).collect::<Vec<_>>().join(", "),
        _ => "something new".to_owned(),
    }
}

/// Tools that ask the client something. What asks is written once; whether the client is asked during the call or between
/// two calls is the server's business.
fn asking() -> Result<Vec<NativePlugin>, ToolError> {
    let asks = |name: &'static str, key: &'static str, question: Question| {
        alone(tool(name, "Asks the client", move |_: Nothing, cx: ToolContext| {
            let question = question.clone();
            async move { Ok(said(&ask_one(&cx, key, question).await?)) }
        }))
    };
    let sure = || form("Please confirm", sure_form());
    Ok(vec![
        alone(tool("test_sampling", "Asks the client's model", async |args: Prompted, cx: ToolContext| {
            Ok(said(&ask_one(&cx, "answer", generate(&args.prompt, 100)).await?))
        }))?,
        alone(tool("test_elicitation", "Asks the user", async |args: Messaged, cx: ToolContext| {
            let field = |of: &str| json!({ "type": "string", "description": of });
            let schema = json!({
                "type": "object",
                "properties": { "username": field("User's response"), "email": field("User's email address") },
                "required": ["username", "email"]
            });
            Ok(format!("User response: {}", said(&ask_one(&cx, "user", form(&args.message, schema)).await?)))
        }))?,
        asks("test_elicitation_sep1034_defaults", "values", form("Please change what is not right", defaults()))?,
        asks("test_elicitation_sep1330_enums", "choices", form("Please choose", choices()))?,
        asks("test_streaming_elicitation", "confirm", sure())?,
        alone(tool(
            "test_input_required_result_elicitation",
            "Asks for a name",
            async |_: Nothing, cx: ToolContext| match cx
                .ask_form("user_name", "What is your name?", name_form("name"))
                .await?
            {
                FormAnswer::Accepted(fields) => {
                    Ok(format!("Hello, {}!", fields.get("name").and_then(Value::as_str).unwrap_or_default()))
                }
                _ => text("Hello!"),
            },
        ))?,
        asks(
            "test_input_required_result_sampling",
            "capital_question",
            generate("What is the capital of France?", 100),
        )?,
        asks("test_input_required_result_list_roots", "client_roots", Question::Roots)?,
        alone(tool(
            "test_input_required_result_request_state",
            "Asks and knows it",
            async |_: Nothing, cx: ToolContext| {
                Ok(format!("state-ok: {}", said(&ask_one(&cx, "confirm", form("Please confirm", sure_form())).await?)))
            },
        ))?,
        asks("test_input_required_result_tampered_state", "confirm", sure())?,
        alone(tool(
            "test_input_required_result_multiple_inputs",
            "Asks thrice at once",
            async |_: Nothing, cx: ToolContext| {
                let questions = [
                    ("user_name", form("What is your name?", name_form("name"))),
                    ("greeting", generate("Generate a greeting", 50)),
                    ("client_roots", Question::Roots),
                ];
                let answers = cx.ask(questions.map(|(name, question)| (name.to_owned(), question)).into()).await?;
                Ok(answers.values().map(said).collect::<Vec<_>>().join("; "))
            },
        ))?,
        alone(tool("test_input_required_result_multi_round", "Asks twice", async |_: Nothing, cx: ToolContext| {
            let name = cx.ask_form("step1", "Step 1: What is your name?", name_form("name")).await?;
            let color = cx.ask_form("step2", "Step 2: What is your favorite color?", name_form("color")).await?;
            Ok(format!("{}; {}", said(&Answer::Form(name)), said(&Answer::Form(color))))
        }))?,
        alone(tool(
            "test_input_required_result_capabilities",
            "Asks what it can",
            async |_: Nothing, cx: ToolContext| {
                let all = [
                    ("name", form("What is your name?", name_form("name"))),
                    ("greeting", generate("Generate a greeting", 50)),
                ];
                let can = all.into_iter().filter(|(_, question)| cx.can_ask(question.kind()));
                let answers = cx.ask(can.map(|(name, question)| (name.to_owned(), question)).collect()).await?;
                Ok(answers.values().map(said).collect::<Vec<_>>().join("; "))
            },
        ))?,
        alone(tool("test_missing_capability", "Needs the client's model", async |_: Nothing, cx: ToolContext| {
            Ok(
                json!({ "can": cx.can_ask(QuestionKind::Generate), "said": said(&ask_one(&cx, "hello", generate("Hello", 10)).await?) }),
            )
        }))?,
    ])
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Seconds {
    /// How long it takes.
    seconds: u64,
    /// What to call it.
    #[serde(default)]
    label: String,
}

#[derive(Deserialize, JsonSchema)]
struct File {
    filename: String,
}

/// Tools that take so long that their calls become tasks, and one that does not.
fn taking_long() -> Result<Vec<NativePlugin>, ToolError> {
    async fn pause() {
        tokio::time::sleep(Duration::from_millis(600)).await;
    }

    Ok(vec![
        alone(tool("greet", "Greets", async |args: Named, _: ToolContext| Ok(format!("Hello, {}!", args.name))))?,
        alone(tool("slow_compute", "Takes its time", async |args: Seconds, _: ToolContext| {
            tokio::time::sleep(Duration::from_secs(args.seconds)).await;
            Ok(format!("{} is done", args.label))
        }))?,
        alone(tool("failing_job", "Fails in the end", async |_: Nothing, _: ToolContext| -> Result<(), _> {
            pause().await;
            Err(ToolError::failed("This job always fails"))
        }))?,
        // The client cannot say which folders it works on, which is an error of the protocol.
        alone(tool("protocol_error_job", "Asks what nobody answers", async |_: Nothing, cx: ToolContext| {
            pause().await;
            Ok(said(&ask_one(&cx, "roots", Question::Roots).await?))
        }))?,
        alone(tool("confirm_delete", "Asks before it deletes", async |args: File, cx: ToolContext| {
            pause().await;
            let sure = json!({ "type": "object", "properties": { "confirm": { "type": "boolean" } }, "required": ["confirm"] });
            let answer = ask_one(&cx, "confirm", form(&format!("Delete {}?", args.filename), sure)).await?;
            Ok(format!("{}: {}", args.filename, said(&answer)))
        }))?,
        alone(tool("multi_input", "Asks twice at once", async |_: Nothing, cx: ToolContext| {
            pause().await;
            let both = ["first", "second"].map(|name| (name.to_owned(), form("What is the name?", name_form("name"))));
            let answers = cx.ask(Questions::from(both)).await?;
            Ok(answers.values().map(said).collect::<Vec<_>>().join("; "))
        }))?,
        alone(tool("test_tool_with_task", "Asks and then takes long", async |_: Nothing, cx: ToolContext| {
            let answer = ask_one(&cx, "user_name", form("What is your name?", name_form("name"))).await?;
            pause().await;
            Ok(format!("Hello: {}", said(&answer)))
        }))?,
    ])
}

fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "Your name", "default": "John Doe" },
            "age": { "type": "integer", "description": "Your age", "default": 30 },
            "score": { "type": "number", "description": "Your score", "default": 95.5 },
            "status": {
                "type": "string", "description": "Your status", "enum": ["active", "inactive", "pending"], "default": "active"
            },
            "verified": { "type": "boolean", "description": "Whether you are verified", "default": true }
        },
        "required": []
    })
}

fn choices() -> Value {
    let titled = |names: [(&str, &str); 3]| names.map(|(value, title)| json!({ "const": value, "title": title }));
    let first = [("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option")];
    let options = ["option1", "option2", "option3"];
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "description": "One", "enum": options },
            "titledSingle": { "type": "string", "description": "One by title", "oneOf": titled(first) },
            "legacyEnum": {
                "type": "string", "description": "One in the old way",
                "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]
            },
            "untitledMulti": {
                "type": "array", "description": "Some", "minItems": 1, "maxItems": 3,
                "items": { "type": "string", "enum": options }
            },
            "titledMulti": {
                "type": "array", "description": "Some by title", "minItems": 1, "maxItems": 3,
                "items": { "anyOf": titled(first) }
            }
        },
        "required": []
    })
}

/// A plugin with one prompt, called like it.
fn prompt(name: &str, declaration: PromptDeclaration) -> Result<NativePlugin, Box<dyn Error>> {
    let (key, declaration) = (toolbay::ToolName::new(name)?, declaration);
    Ok(NativePlugin::new(name, "1.0.0", "A prompt")?.with(|manifest| {
        manifest.prompts.insert(key, declaration);
    }))
}

/// A prompt that the plugin's tool `write` writes.
fn written_prompt(name: &str, write: impl Tool + 'static) -> Result<NativePlugin, Box<dyn Error>> {
    let declaration = PromptDeclaration {
        description: "A prompt that a tool writes".to_owned(),
        tool: Some(write.definition().name.clone()),
        ..PromptDeclaration::default()
    };
    Ok(prompt(name, declaration)?.tool(write))
}

fn prompts() -> Result<Vec<NativePlugin>, Box<dyn Error>> {
    let says = |text: &str| vec![PromptMessage { role: Speaker::User, text: text.to_owned() }];
    let simple = PromptDeclaration {
        description: "A prompt without arguments".to_owned(),
        messages: says("This is a simple prompt for testing."),
        ..PromptDeclaration::default()
    };
    let argument = |name: &str| PromptArgument {
        name: name.to_owned(),
        description: Some(format!("The argument {name}")),
        required: true,
        values: ["paris", "party", "park"].map(str::to_owned).to_vec(),
    };
    let with_arguments = PromptDeclaration {
        description: "A prompt with arguments".to_owned(),
        arguments: vec![argument("arg1"), argument("arg2")],
        messages: says("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"),
        tool: None,
    };
    let image = showing_tool("write", "Writes a prompt with a picture", async |_: Nothing, _: ToolContext| {
        Ok(ToolOutput::showing(vec![image(), Content::text("Please analyze the image above.")]))
    });
    let asked = tool("write", "Writes a prompt by the user's word", async |_: Nothing, cx: ToolContext| {
        let answer = cx.ask_form("user_context", "What context should the prompt use?", name_form("context")).await?;
        Ok(format!("Use this: {}", said(&Answer::Form(answer))))
    });
    #[derive(Deserialize, JsonSchema)]
    struct Resource {
        /// The document's address.
        #[serde(rename = "resourceUri")]
        resource_uri: String,
    }
    let embedded = showing_tool("write", "Writes a prompt with a document", async |args: Resource, _: ToolContext| {
        Ok(ToolOutput::showing(vec![
            document(&args.resource_uri, "text/plain", "Embedded resource content for testing."),
            Content::text("Please process the embedded resource above."),
        ]))
    });
    let uri = PromptArgument {
        name: "resourceUri".to_owned(),
        description: Some("The document's address".to_owned()),
        required: true,
        values: Vec::new(),
    };
    Ok(vec![
        prompt("test_simple_prompt", simple)?,
        prompt("test_prompt_with_arguments", with_arguments)?,
        written_prompt("test_prompt_with_image", image)?,
        written_prompt("test_input_required_result_prompt", asked)?,
        written_prompt("test_prompt_with_embedded_resource", embedded)?.with(|manifest| {
            manifest.prompts.values_mut().for_each(|prompt| prompt.arguments.push(uri.clone()));
        }),
    ])
}

fn resources() -> Result<NativePlugin, Box<dyn Error>> {
    let resource = |uri: &str, mime_type: &str, asset: Option<&str>| ResourceDeclaration {
        uri: uri.to_owned(),
        description: "Something to read".to_owned(),
        mime_type: Some(mime_type.to_owned()),
        asset: asset.map(str::to_owned),
        tool: None,
    };
    let mut template = resource("test://template/{id}/data", "application/json", None);
    template.tool = Some(toolbay::ToolName::new("by_id")?);
    let all = [
        ("static_text", resource("test://static-text", "text/plain", Some("text.txt"))),
        ("static_binary", resource("test://static-binary", "image/png", Some("dot.png"))),
        ("watched", resource("test://watched-resource", "text/plain", Some("text.txt"))),
        ("template", template),
    ];
    let by_id = tool("by_id", "Gives the data of an id", async |args: Id, _: ToolContext| {
        Ok(json!({ "id": args.id, "templateTest": true, "data": format!("Data for ID: {}", args.id) }))
    });
    let text = "This is the content of the static text resource.".as_bytes();
    let assets = [("text.txt", text), ("dot.png", PNG_BYTES)];
    let assets: Assets =
        assets.map(|(name, bytes)| (name.to_owned(), toolbay::Asset::new(bytes.to_vec()))).into_iter().collect();
    let mut plugin = NativePlugin::new("library", "1.0.0", "Things to read")?.tool(by_id).assets(assets);
    for (name, declaration) in all {
        let name = toolbay::ToolName::new(name)?;
        plugin = plugin.with(|manifest| {
            manifest.resources.insert(name, declaration);
        });
    }
    Ok(plugin)
}

/// Tools that change what there is: each puts a plugin in or takes it out.
fn changing(bay: &Toolbay) -> Result<Vec<NativePlugin>, Box<dyn Error>> {
    let extra = |name: &'static str, make: fn() -> Result<NativePlugin, Box<dyn Error>>| {
        let (bay, there) = (bay.clone(), Arc::new(AtomicBool::new(false)));
        tool(name, "Changes what there is", move |_: Nothing, _: ToolContext| {
            let (bay, there) = (bay.clone(), Arc::clone(&there));
            async move {
                let plugin = make().map_err(|error| ToolError::failed(error.to_string()))?;
                let plugin_name = toolbay::Plugin::metadata(&plugin).name.clone();
                if there.fetch_xor(true, Ordering::SeqCst) {
                    // Not waited for: it is stopped when this very call, which saw it, has ended.
                    tokio::spawn(async move { bay.unregister(&Scope::Global, &plugin_name).await });
                } else {
                    let loaded = bay.register(Scope::Global, plugin).await;
                    loaded.map_err(|error| ToolError::failed(error.to_string()))?;
                }
                text("changed")
            }
        })
    };
    let a_tool = || Ok(alone(tool("extra_tool", "Comes and goes", async |_: Nothing, _: ToolContext| text("here")))?);
    let a_prompt = || {
        let messages = vec![PromptMessage { role: Speaker::User, text: "Here.".to_owned() }];
        prompt(
            "extra_prompt",
            PromptDeclaration { description: "Comes and goes".to_owned(), messages, ..PromptDeclaration::default() },
        )
    };
    Ok(vec![alone(extra("test_trigger_tool_change", a_tool))?, alone(extra("test_trigger_prompt_change", a_prompt))?])
}
