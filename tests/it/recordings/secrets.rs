//! What must not be in a recording: secrets that a call or a hook has read, and what schemas call `writeOnly`.

use toolbay::{PermissionSet, RecordBounds, ToolDefinition, WireResult, plugin::NativePlugin};
use toolbay_testkit::FakeSecrets;

use super::*;

const TOKEN: &str = "tok-3141592653";
const PASSWORD: &str = "correct horse";

/// Says a secret that it reads, and fails with it.
fn reader(name: &str) -> impl Tool + 'static {
    let fails = name == "spills";
    tool(name, "Reads a secret", move |_: Nothing, cx: ToolContext| async move {
        let token = cx.host().secret("TOKEN").await?;
        if fails { Err(ToolError::failed(format!("bad {token}"))) } else { Ok(json!({ "is": token })) }
    })
}

/// Takes a password and says it again.
struct SignsIn(ToolDefinition);

#[async_trait]
impl Tool for SignsIn {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    async fn call(&self, arguments: Value, _: &ToolContext) -> Result<toolbay::ToolOutput, ToolError> {
        Ok(json!({ "welcome": arguments["user"], "with": arguments["password"], "pin": arguments["pin"] }).into())
    }
}

fn signs_in() -> SignsIn {
    let parameters = json!({ "type": "object", "properties": {
        "user": { "type": "string" },
        "password": { "type": "string", "writeOnly": true },
        "pin": { "type": "string", "format": "password" },
    } });
    SignsIn(ToolDefinition::new("sign_in", "Signs in", parameters).unwrap())
}

#[tokio::test]
async fn no_secret_and_nothing_that_is_write_only_is_recorded() {
    let plugin = NativePlugin::new("vault", "1.0.0", "Reads secrets")
        .unwrap()
        .with(|plugin| plugin.permissions = PermissionSet::parse(["secret:read:*"]).unwrap())
        .tool(reader("tells"))
        .tool(reader("spills"));
    let bay = bay()
        .tool(signs_in())
        .grants(PermissionSet::all())
        .secrets(FakeSecrets::new([("TOKEN", TOKEN)]))
        .build()
        .unwrap();
    bay.register(toolbay::Scope::Global, plugin).await.unwrap();
    let arguments = json!({ "user": "ada", "password": PASSWORD, "pin": "271828" });
    let model = ScriptedModel::new()
        .calls_all([("vault.tells", json!({})), ("vault.spills", json!({}))])
        .calls("sign_in", arguments.clone())
        .raw_calls("sign_in", arguments.to_string())
        // A model that learned them elsewhere, from here on.
        .says(format!("Your token is {TOKEN} and the password {PASSWORD}, pin 271828."));
    let session = bay.session("acme").unwrap();
    let (text, reply) = recorded_with(session, model, AgentConfig::default(), RecordBounds::default()).await;
    assert!(reply.outcome.is_completed() && reply.text.contains(TOKEN), "{}", reply.text);
    for secret in [TOKEN, PASSWORD, "271828"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(text.contains("***") && text.contains("ada"));
    // What was hidden is hidden alike wherever the loop meets it.
    replay::strict(&read(&text).unwrap()).unwrap();
    let answered: Vec<_> = lines(&text).into_iter().filter(|line| line["kind"] == "tool_answered").collect();
    let result: WireResult = serde_json::from_value(answered[2]["result"].clone()).unwrap();
    assert_eq!(result.data, json!({ "welcome": "ada", "with": "***", "pin": "***" }));
}

#[tokio::test]
async fn a_key_of_a_call_is_in_no_recording() {
    let keyed = tool("keyed", "Has a key", async |_: Nothing, cx: ToolContext| {
        assert_eq!(cx.idempotency_key().map(str::len), Some(64));
        Ok(cx.run().to_string())
    });
    let text = recorded(bay().tool(keyed), ScriptedModel::new().calls("keyed", json!({})).says("Done.")).await;
    assert!(!text.contains("idempotency"));
    let head: toolbay::record::lines::Head = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let call = lines(&text).iter().find(|line| line["kind"] == "tool_started").unwrap()["call"].clone();
    let key = toolbay::outcomes::CallKey::of(&head.tenant, head.run, &toolbay::CallId::new(call.as_str().unwrap()));
    assert!(!text.contains(&key.to_string()));
}

#[tokio::test]
async fn a_run_that_reads_more_secrets_than_can_be_looked_for_is_recorded_no_further() {
    let secrets: Vec<_> = (0..70).map(|n| (format!("S{n}"), format!("value-{n}"))).collect();
    let plugin = NativePlugin::new("vault", "1.0.0", "Reads secrets")
        .unwrap()
        .with(|plugin| plugin.permissions = PermissionSet::parse(["secret:read:*"]).unwrap())
        .tool(tool("reads", "Reads", async |args: Add, cx: ToolContext| {
            for n in args.a..args.b {
                cx.host().secret(&format!("S{n}")).await?;
            }
            Ok(())
        }));
    let pairs = secrets.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let bay = bay().grants(PermissionSet::all()).secrets(FakeSecrets::new(pairs)).build().unwrap();
    bay.register(toolbay::Scope::Global, plugin).await.unwrap();
    let model = ScriptedModel::new()
        .calls("vault.reads", json!({ "a": 0, "b": 40 }))
        .calls("vault.reads", json!({ "a": 40, "b": 70 }))
        .says("value-69");
    let session = bay.session("acme").unwrap();
    let (text, reply) = recorded_with(session, model, AgentConfig::default(), RecordBounds::default()).await;
    assert!(reply.outcome.is_completed());
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "cut");
    assert!(!text.contains("value-69"));
}
