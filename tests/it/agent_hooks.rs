//! The conformance vectors of the public hook contract AGENT-HOOKS-0.1, over the production road: a session, an agent with a
//! scripted model, tools and hooks of a plugin. The judge is the contract's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use agent_hooks::{
    AgentContext, ApprovalOutcome, ApprovalRequest, ApprovalResolution, ApprovalResolver, EnforcementMode,
    HostDeclaration, Transform,
    ctk::prove_paths,
    ctk_engine::{
        IdentityPair, LoadRecord, RunRecord, VectorResult, assert_vector, scripted_intercept, scripted_resolve,
        should_skip,
    },
};
use serde_json::{Value, json};
use toolbay::{
    Agent, ErrorKind, HookContext, HookError, HookPoint, HookRegistration, ModelResponse, Scope, ScriptedModel, Tool,
    ToolCall, ToolContext, ToolDefinition, ToolError, ToolOutput, Toolbay,
    agent_hooks::{AgentHooks, Host, Identity, Records, declaration::CAPABILITIES},
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, AgentShutdown, AgentStartup, AgentStartupOutcome, BeforeAgentRun, BeforeAgentRunOutcome,
        BeforeModelCall, BeforeModelCallOutcome, BeforeToolCall, BeforeToolCallOutcome, Hook, HookResult,
    },
    interception::Evidence,
    message::FinishReason,
    plugin::NativePlugin,
};

use crate::support::project;

/// What the contract can say and a Toolbay hook cannot, so that the vector has nothing to run. The capabilities that we do
/// not declare leave out the others.
const NOT_SAYABLE: [&str; 1] = ["AH-CTK-102"];

type Log = Arc<Mutex<Vec<Value>>>;

/// A hook that says what a vector's script says, in the words that Toolbay's hooks have.
struct Scripted {
    rules: Vec<Value>,
    seen: Option<Log>,
}

/// The script's verdict.
enum Judged {
    Allow,
    Deny(String),
    Ask(String),
    Target(Value),
}

impl Scripted {
    fn judge(&self, cx: &HookContext<'_>) -> HookResult<Judged> {
        let interception = cx.interception.expect("the run is under the contract");
        let mut context = Value::Object(interception.context().clone());
        if let Some(seen) = &self.seen {
            seen.lock().unwrap().push(context.clone());
        }
        let verdict = scripted_intercept(&self.rules, &context);
        match verdict["__ctk_fault__"].as_str() {
            Some("mutate") => {
                // The hook's own copy: whatever becomes of it, nobody else sees it.
                context["target"] = json!({ "url": "https://mutated" });
                interception.reason("ctk:mutated");
                return Ok(Judged::Allow);
            }
            Some(fault) => return Err(HookError::new(fault)),
            None => {}
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        for warning in verdict["warnings"].as_array().into_iter().flatten() {
            interception
                .warn(text(&warning["reason"]).unwrap_or_default(), text(&warning["message"]).unwrap_or_default());
        }
        for label in verdict["result_labels"].as_array().into_iter().flatten() {
            interception.label(text(label).unwrap());
        }
        if let Some(artefact) = text(&verdict["evidence"]["artefact"]) {
            let verification_pointers = BTreeMap::new();
            interception.evidence(Evidence { artefact: Some(artefact), verification_pointers });
        }
        let reason = text(&verdict["reason"]);
        match verdict["decision"].as_str() {
            Some("allow") => {
                reason.into_iter().for_each(|reason| interception.reason(reason));
                Ok(Judged::Allow)
            }
            Some("deny") if verdict.get("approval").is_some() => Ok(Judged::Ask(reason.unwrap_or_default())),
            Some("deny") => Ok(Judged::Deny(reason.unwrap_or_default())),
            Some("transform") => {
                let (path, value) = (verdict["transform"]["path"].as_str(), &verdict["transform"]["value"]);
                let path = path.ok_or_else(|| HookError::new("a rewrite without a value"))?;
                let target = agent_hooks::apply_transform_path(context["target"].take(), path, value.clone());
                target.map(Judged::Target).map_err(|error| HookError::new(error.to_string()))
            }
            other => panic!("the script says {other:?}"),
        }
    }

    /// For the points at which only going on, stopping and rewriting exist.
    fn outcome<T>(
        &self,
        cx: &HookContext<'_>,
        go_on: T,
        stop: impl FnOnce(String) -> T,
        rewrite: impl FnOnce(Value) -> Option<T>,
    ) -> HookResult<T> {
        match self.judge(cx)? {
            Judged::Allow => Ok(go_on),
            Judged::Deny(reason) => Ok(stop(reason)),
            Judged::Target(target) => rewrite(target).ok_or_else(|| HookError::new("there is no such rewrite here")),
            Judged::Ask(_) => Err(HookError::new("there is no asking here")),
        }
    }
}

#[async_trait::async_trait]
impl Hook for Scripted {
    async fn agent_startup(&self, _: &AgentStartup, cx: &HookContext<'_>) -> HookResult<AgentStartupOutcome> {
        self.outcome(cx, AgentStartupOutcome::Continue, AgentStartupOutcome::Stop, |_| None)
    }

    async fn agent_shutdown(&self, _: &AgentShutdown, cx: &HookContext<'_>) -> HookResult<()> {
        self.outcome(cx, (), |_| (), |_| None)
    }

    async fn before_agent_run(
        &self,
        input: &BeforeAgentRun,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeAgentRunOutcome> {
        self.outcome(cx, BeforeAgentRunOutcome::Continue, BeforeAgentRunOutcome::Stop, |target| {
            let mut messages = input.messages.clone();
            *messages.last_mut()? = toolbay::Message::user(target["content"].as_str()?);
            Some(BeforeAgentRunOutcome::Rewrite(messages))
        })
    }

    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        self.outcome(cx, BeforeModelCallOutcome::Continue, BeforeModelCallOutcome::Stop, |target| {
            let messages = serde_json::from_value(target).ok()?;
            let request = toolbay::ModelRequest { messages, ..input.request.clone() };
            Some(BeforeModelCallOutcome::Rewrite(Box::new(request)))
        })
    }

    async fn after_model_call(
        &self,
        input: &AfterModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<AfterModelCallOutcome> {
        self.outcome(cx, AfterModelCallOutcome::Continue, AfterModelCallOutcome::Stop, |target| {
            let text = target["content"].as_str()?.to_owned();
            Some(AfterModelCallOutcome::Rewrite(Box::new(ModelResponse { text, ..input.response.clone() })))
        })
    }

    async fn before_tool_call(&self, _: &BeforeToolCall, cx: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(match self.judge(cx)? {
            Judged::Allow => BeforeToolCallOutcome::Continue,
            Judged::Deny(reason) => BeforeToolCallOutcome::Deny(reason),
            Judged::Ask(reason) => BeforeToolCallOutcome::Ask(reason),
            Judged::Target(arguments) => BeforeToolCallOutcome::Rewrite(arguments),
        })
    }

    async fn after_tool_call(&self, _: &AfterToolCall, cx: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        let deny = |reason| AfterToolCallOutcome::Replace(Err(ToolError::new(ErrorKind::DeniedByHook, reason)));
        self.outcome(cx, AfterToolCallOutcome::Keep, deny, |target| {
            Some(AfterToolCallOutcome::Replace(Ok(ToolOutput::new(target))))
        })
    }

    async fn after_agent_run(&self, _: &AfterAgentRun, cx: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        self.outcome(cx, AfterAgentRunOutcome::Continue, AfterAgentRunOutcome::Stop, |target| {
            Some(AfterAgentRunOutcome::Rewrite(target["content"].as_str()?.to_owned()))
        })
    }
}

/// A tool that does what a vector says of it, and writes down that it was called.
struct Told {
    definition: ToolDefinition,
    behaviour: Vec<Value>,
    calls: Log,
}

#[async_trait::async_trait]
impl Tool for Told {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    async fn call(&self, arguments: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        let fits = |told: &&Value| told.get("when_args").is_none_or(|wanted| *wanted == arguments);
        let told = self.behaviour.iter().find(fits).expect("the vector says what the tool does").clone();
        self.calls.lock().unwrap().push(json!({ "name": self.definition.name, "args": arguments }));
        if told["is_error"] == true {
            return Err(ToolError::failed(told["return"].to_string()));
        }
        Ok(ToolOutput::new(told["return"].clone()))
    }
}

struct Resolver(Vec<Value>);

#[async_trait::async_trait]
impl ApprovalResolver for Resolver {
    async fn resolve(&self, request: ApprovalRequest<'_>) -> ApprovalResolution {
        let shown = Value::Object(request.context.clone());
        let said = scripted_resolve(&self.0, &shown, request.context_identity.as_deref().unwrap_or_default());
        assert!(said.get("__ctk_fault__").is_none(), "the vector wants the resolver to fail");
        let outcome = match said["outcome"].as_str() {
            Some("approve") => ApprovalOutcome::Approve,
            Some("reject") => ApprovalOutcome::Reject,
            _ => ApprovalOutcome::Unresolved,
        };
        let echoed = said["context_identity"].as_str().unwrap_or_default();
        let bound = !(echoed.is_empty() && request.context_identity.is_none());
        ApprovalResolution {
            outcome,
            context_identity: bound.then(|| echoed.to_owned()),
            verdict: said.get("verdict").map(|verdict| agent_hooks::verdict_from_wire(verdict).unwrap()),
        }
    }
}

/// One vector, ready to be run.
struct Vector {
    id: String,
    whole: Value,
    seen: Log,
    calls: Log,
}

impl Vector {
    fn list(&self, key: &str) -> Vec<Value> {
        self.whole[key].as_array().cloned().unwrap_or_default()
    }

    fn scripts(&self) -> Vec<Vec<Value>> {
        match self.whole["interceptor_scripts"].as_array() {
            Some(scripts) => scripts.iter().map(|rules| rules.as_array().cloned().unwrap_or_default()).collect(),
            None => vec![self.list("interceptor_script")],
        }
    }

    /// The first script writes down what it sees.
    fn hook(&self, index: usize) -> Option<Scripted> {
        let rules = self.scripts().get(index)?.clone();
        Some(Scripted { rules, seen: (index == 0).then(|| Arc::clone(&self.seen)) })
    }

    fn resolver(&self) -> Arc<dyn ApprovalResolver> {
        Arc::new(Resolver(self.list("approval_script")))
    }

    fn redact(&self) -> impl Fn(&AgentContext) -> AgentContext + Send + Sync + 'static {
        let paths = self.list("redact_for_approval");
        move |context| {
            let mut context = context.clone();
            for path in paths.iter().filter_map(Value::as_str) {
                let hidden = Transform { path: path.to_owned(), value: json!("[redacted]") };
                let _ = agent_hooks::apply_transform_to_ctx(&mut context, &hidden);
            }
            context
        }
    }

    /// The settings as the vector's fields give them.
    fn settings(&self) -> (AgentHooks, Vec<HookRegistration>, Records) {
        let records = Records::new(1000);
        let evaluate_only = self.whole["mode"] == "evaluate_only";
        let contract = AgentHooks {
            mode: if evaluate_only { EnforcementMode::EvaluateOnly } else { EnforcementMode::Enforce },
            composition: match self.whole.get("composition") {
                Some(composition) => serde_json::from_value(composition.clone()).unwrap(),
                None => agent_hooks::CompositionConfig::default(),
            },
            identity: match self.whole.get("identity_provider") {
                None => Identity::JcsSha256,
                Some(Value::Null) => Identity::Unbound,
                Some(name) => Identity::Custom { name: name.as_str().unwrap().to_owned(), function: Arc::new(fault) },
            },
            resolver: (!self.list("approval_script").is_empty()).then(|| self.resolver()),
            redactor: (!self.list("redact_for_approval").is_empty()).then(|| Arc::new(self.redact()) as _),
            records: Some(records.sink()),
            ..AgentHooks::default()
        };
        let hooks = (0..self.scripts().len()).map(|index| {
            let hook = self.hook(index).unwrap();
            HookRegistration::new(format!("interceptor-{index}"), HookPoint::ALL, hook)
        });
        (contract, hooks.collect(), records)
    }

    /// The settings as the vector's declaration gives them.
    fn declared(&self, document: &Value) -> (LoadRecord, Option<(AgentHooks, Vec<HookRegistration>, Records)>) {
        let (seen, scripts) = (Arc::clone(&self.seen), self.scripts());
        let host = Host::for_conformance()
            .kind(
                "ctk.scripted",
                Box::new(move |config, _| {
                    let index = config["script"].as_u64().ok_or("config.script must be an index")?;
                    let index = usize::try_from(index).map_err(|_| "no such script")?;
                    let rules = scripts.get(index).cloned().ok_or("no such script")?;
                    Ok(Arc::new(Scripted { rules, seen: (index == 0).then(|| Arc::clone(&seen)) }))
                }),
            )
            .and_then(|host| host.identity("ctk-fault", fault))
            .and_then(|host| host.resolver("ctk-scripted", self.resolver()))
            .and_then(|host| host.redactor("ctk-redact", self.redact()))
            .unwrap();
        let (same, detail) = prove_paths(document, host.names().surface(), &host.names().names(), &self.id);
        let loaded = HostDeclaration::from_value(document.clone()).and_then(|document| host.load(&document));
        let load = LoadRecord {
            outcome: if loaded.is_ok() { "accepted" } else { "refused" }.to_owned(),
            class: loaded.as_ref().err().map(|error| error.code().to_owned()),
            paths_equivalent: Some(same),
            detail: (!detail.is_empty()).then_some(detail),
        };
        (load, loaded.ok().map(|declared| (declared.contract, declared.hooks, declared.records)))
    }

    fn model(&self) -> ScriptedModel {
        let replies = self.whole["scenario"]["model_script"].as_array().cloned().unwrap_or_default();
        replies.into_iter().fold(ScriptedModel::new(), |model, reply| {
            let reply = &reply["respond"];
            let calls = reply["tool_calls"].as_array().into_iter().flatten().map(|call| ToolCall {
                id: call["id"].as_str().unwrap().to_owned(),
                name: call["name"].as_str().unwrap().to_owned(),
                arguments: call["args"].clone(),
            });
            model.replies(ModelResponse {
                text: reply["content"].as_str().unwrap_or_default().to_owned(),
                tool_calls: calls.collect(),
                finish: serde_json::from_value(reply["finish_reason"].clone()).unwrap_or(FinishReason::Other),
                ..ModelResponse::default()
            })
        })
    }

    /// Runs the vector's agent, as a host would.
    async fn run(&self, contract: AgentHooks, hooks: Vec<HookRegistration>, records: &Records) -> RunRecord {
        let bay = Toolbay::builder().without_audit().build().unwrap();
        let mut guards = NativePlugin::new("guards", "1.0.0", "The vector's hooks").unwrap();
        for hook in hooks {
            guards = guards.hook(hook);
        }
        bay.register(Scope::Global, guards).await.unwrap();
        for tool in self.whole["scenario"]["tools"].as_array().into_iter().flatten() {
            let name = tool["name"].as_str().unwrap();
            let parameters = json!({ "type": "object" });
            let definition = ToolDefinition::new(name, "What the vector says", parameters).unwrap();
            let behaviour = tool["behavior"].as_array().cloned().unwrap_or_default();
            let told = Told { definition, behaviour, calls: Arc::clone(&self.calls) };
            bay.register(Scope::Global, NativePlugin::new(name, "1.0.0", "A tool").unwrap().tool(told)).await.unwrap();
        }
        let session = bay.session("acme").unwrap().with_contract(Arc::new(contract));
        let input = self.whole["scenario"]["input"]["content"].as_str().unwrap();
        let reply = Agent::new(self.model(), session).run(input).await.unwrap();
        let completed = reply.outcome.is_completed();
        let records = records.take();
        RunRecord {
            outcome: if completed { "completed" } else { "blocked" }.to_owned(),
            final_output: if completed { json!(reply.text) } else { Value::Null },
            tool_invocations: self.calls.lock().unwrap().clone(),
            identities: records
                .iter()
                .map(|record| IdentityPair {
                    input_identity: record.input_identity.clone(),
                    enforced_identity: record.enforced_identity.clone(),
                })
                .collect(),
            records: records.iter().map(|record| serde_json::to_value(record).unwrap()).collect(),
            ..RunRecord::default()
        }
    }

    async fn judge(&self) -> VectorResult {
        let record = match self.whole.get("host_declaration") {
            None => {
                let (contract, hooks, records) = self.settings();
                self.run(contract, hooks, &records).await
            }
            Some(document) => {
                let (load, settings) = self.declared(document);
                let record = match settings {
                    Some((contract, hooks, records)) => self.run(contract, hooks, &records).await,
                    None => RunRecord { outcome: "error".to_owned(), ..RunRecord::default() },
                };
                RunRecord { load: Some(load), ..record }
            }
        };
        let seen = self.seen.lock().unwrap().clone();
        assert_vector(&self.whole, &seen, &record)
    }
}

fn fault(_: &AgentContext) -> String {
    panic!("the vector wants the identity to fail")
}

fn vectors() -> Option<Vec<Vector>> {
    let data = std::env::var_os("TOOLBAY_DATA").map_or_else(|| project().join("../shared/data"), PathBuf::from);
    let mut paths: Vec<_> = fs::read_dir(data.join("agent-hooks")).ok()?.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let whole: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let id = whole["id"].as_str().unwrap().to_owned();
        Vector { id, whole, seen: Log::default(), calls: Log::default() }
    };
    Some(paths.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "json")).map(read).collect())
}

/// The ids in the table of `docs/hooks.md`, each with a reason.
fn excused() -> BTreeSet<String> {
    let text = fs::read_to_string(project().join("docs/hooks.md")).expect("docs/hooks.md is there");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| AH-CTK-")?.split_once(" | "));
    rows.inspect(|(id, reason)| assert!(reason.len() > 20, "AH-CTK-{id} is left out without a reason"))
        .map(|(id, _)| format!("AH-CTK-{id}"))
        .collect()
}

#[tokio::test]
async fn every_vector_that_applies_passes_over_the_road_and_the_others_have_their_reason() {
    let Some(vectors) = vectors() else {
        println!("skipped: the vectors are not here (TOOLBAY_DATA, or shared/data beside the project)");
        return;
    };
    let (mut passed, mut skipped, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for vector in &vectors {
        let missing = should_skip(&vector.whole, &CAPABILITIES);
        if missing.is_some() || NOT_SAYABLE.contains(&vector.id.as_str()) {
            println!("{} skipped: {}", vector.id, missing.as_deref().unwrap_or("a Toolbay hook cannot say it"));
            skipped.insert(vector.id.clone());
            continue;
        }
        let result = vector.judge().await;
        match result.status {
            "pass" => passed += 1,
            _ => wrong.push(format!("{} {}: {:#?}", result.id, result.title, result.failures)),
        }
    }
    println!("{passed} of {} vectors passed, {} skipped", vectors.len(), skipped.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(skipped, excused(), "the table of docs/hooks.md is not what is skipped");
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let claim = format!("{passed} of its {} conformance vectors", vectors.len());
    assert!(readme.contains(&claim), "README.md does not say {claim:?}");
}
