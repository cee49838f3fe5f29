//! What becomes of what several hooks say: each sentence of the first part of `docs/hooks.md`, over the road of a call. Lists
//! of hooks are made up, and what the road does is compared with what the sentences foretell.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};
use toolbay::{
    HookContext, HookError, HookPoint, HookRegistration, PermissionSet, Scope, ToolOutput, Toolbay,
    hook::{
        AfterToolCall, AfterToolCallOutcome, BeforeToolCall, BeforeToolCallOutcome, FailurePolicy, Hook, HookResult,
        ToolMatcher,
    },
    plugin::NativePlugin,
};
use toolbay_testkit::{RecordingAudit, scripted_tools};

use crate::support::tenant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Continue,
    /// Adds its number to the arguments.
    Rewrite,
    /// Makes of the arguments what the tool does not take.
    Spoil,
    Deny,
    Ask,
    Answer,
    Stop,
    Fail,
    Panic,
    Hang,
}

#[derive(Debug, Clone)]
struct Spec {
    does: Does,
    priority: i32,
    tenants_own: bool,
    on_failure: Option<FailurePolicy>,
    /// Whether its globs match the tool that is called.
    matches: bool,
}

struct Told {
    number: usize,
    does: Does,
    log: Arc<Mutex<Vec<String>>>,
}

fn with_number(arguments: &Value, number: usize) -> Value {
    let mut trail = arguments["trail"].as_array().cloned().unwrap_or_default();
    trail.push(json!(number));
    json!({ "trail": trail })
}

#[async_trait::async_trait]
impl Hook for Told {
    async fn before_tool_call(&self, call: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        self.log.lock().unwrap().push(format!("in {} {}", self.number, call.arguments));
        Ok(match self.does {
            Does::Continue => BeforeToolCallOutcome::Continue,
            Does::Rewrite => BeforeToolCallOutcome::Rewrite(with_number(&call.arguments, self.number)),
            Does::Spoil => BeforeToolCallOutcome::Rewrite(json!(self.number)),
            Does::Deny => BeforeToolCallOutcome::Deny("closed".into()),
            Does::Ask => BeforeToolCallOutcome::Ask("sure?".into()),
            Does::Answer => BeforeToolCallOutcome::Answer(ToolOutput::new(json!(format!("answer {}", self.number)))),
            Does::Stop => BeforeToolCallOutcome::Stop("enough".into()),
            Does::Fail => return Err(HookError::new("the cause")),
            Does::Panic => panic!("the cause"),
            Does::Hang => std::future::pending().await,
        })
    }

    async fn after_tool_call(&self, _: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        self.log.lock().unwrap().push(format!("out {}", self.number));
        Ok(AfterToolCallOutcome::Keep)
    }
}

/// What the sentences foretell: who is asked with what, what the caller gets, which decisions the audit has.
#[derive(Debug, Default, PartialEq)]
struct Course {
    asked: Vec<String>,
    result: String,
    stopped_by: Option<String>,
    decisions: Vec<String>,
}

fn foretold(specs: &[Spec]) -> Course {
    let mut course = Course::default();
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|number| (specs[*number].priority, specs[*number].tenants_own, *number));
    let mut arguments = json!({ "trail": [] });
    let mut entered = Vec::new();
    let mut result = None;
    let mut asks = Vec::new();
    for number in order {
        let spec = &specs[number];
        entered.push(number);
        if !spec.matches {
            continue;
        }
        let name = format!("h{number}");
        course.asked.push(format!("in {number} {arguments}"));
        let mut note = |decision: &str| course.decisions.push(format!("before_tool_call {name}: {decision}"));
        match spec.does {
            Does::Continue => {}
            Does::Rewrite => {
                note("rewrite");
                arguments = with_number(&arguments, number);
            }
            Does::Spoil => {
                note("rewrite");
                arguments = json!(number);
            }
            Does::Deny => {
                note("deny: closed");
                result = Some(format!("DeniedByHook: {name}: closed"));
            }
            Does::Ask => {
                note("ask: sure?");
                asks.push(format!("{name}: sure?"));
            }
            Does::Answer => {
                note("answer");
                result = Some(match asks.is_empty() {
                    true => format!("\"answer {number}\""),
                    false => needs(&asks),
                });
            }
            Does::Stop => {
                note("stop: enough");
                course.stopped_by = Some(name.clone());
                result = Some(format!("DeniedByHook: {name} stopped the run: enough"));
            }
            Does::Fail | Does::Panic | Does::Hang => {
                note(match spec.does {
                    Does::Fail => "failed: the cause",
                    Does::Panic => "failed: panicked: the cause",
                    _ => "failed: no answer within 1s",
                });
                if spec.on_failure != Some(FailurePolicy::Open) {
                    result = Some(format!("HookFailed: the hook {name} could not decide"));
                }
            }
        }
        if result.is_some() {
            break;
        }
    }
    course.result = result.unwrap_or_else(|| match arguments.is_object() {
        true if asks.is_empty() => arguments.to_string(),
        true => needs(&asks),
        false => "InvalidArguments: ".to_owned(),
    });
    let out = entered.into_iter().rev().filter(|number| specs[*number].matches);
    course.asked.extend(out.map(|number| format!("out {number}")));
    course
}

fn needs(asks: &[String]) -> String {
    format!("ApprovalRequired: this call needs approval ({})", asks.join("; "))
}

async fn travelled(specs: &[Spec]) -> Course {
    let audit = Arc::new(RecordingAudit::default());
    let bay = Toolbay::builder().audit(audit.clone()).build().unwrap();
    bay.register(Scope::Global, scripted_tools().unwrap()).await.unwrap();
    let log = Arc::default();
    for (number, spec) in specs.iter().enumerate() {
        let told = Told { number, does: spec.does, log: Arc::clone(&log) };
        let points = [HookPoint::BeforeToolCall, HookPoint::AfterToolCall];
        let mut hook = HookRegistration::new(format!("h{number}"), points, told).with_priority(spec.priority);
        hook.on_failure = spec.on_failure;
        hook.tools = ToolMatcher::new([if spec.matches { "test.*" } else { "other.*" }]).unwrap();
        let plugin = NativePlugin::new(&format!("p{number}"), "1.0.0", "A test's hook").unwrap().hook(hook);
        bay.register(if spec.tenants_own { tenant("acme") } else { Scope::Global }, plugin).await.unwrap();
    }
    let reply = bay.session("acme").unwrap().call("test.echo", json!({ "trail": [] })).await;
    let result = match &reply.result {
        Ok(output) => output.data.to_string(),
        Err(error) => error.to_string(),
    };
    let asked = log.lock().unwrap().clone();
    let decisions = audit.records().remove(0).decisions;
    Course { asked, result, stopped_by: reply.stop.map(|stop| stop.by.to_string()), decisions }
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    use Does::{Answer, Ask, Continue, Deny, Fail, Hang, Panic, Rewrite, Spoil, Stop};
    // Going on and rewriting come up most, or few lists would reach their third hook.
    let goes_on = prop::sample::select(vec![Continue, Rewrite, Rewrite, Spoil]);
    let decides = prop::sample::select(vec![Deny, Ask, Answer, Stop, Fail, Panic, Hang]);
    let on_failure = prop::sample::select(vec![None, Some(FailurePolicy::Open), Some(FailurePolicy::Closed)]);
    let spec = (prop_oneof![2 => goes_on, 1 => decides], 0..3, any::<bool>(), on_failure, prop::bool::weighted(0.8));
    let spec = spec.prop_map(|(does, priority, tenants_own, on_failure, matches)| Spec {
        does,
        priority,
        tenants_own,
        on_failure,
        matches,
    });
    prop::collection::vec(spec, 0..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_call_goes_as_the_sentences_foretell(specs in specs()) {
        // Paused: a hook that hangs takes its second in no time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let mut course = runtime.block_on(travelled(&specs));
        let foretold = foretold(&specs);
        // Longer errors say the same and what to do.
        prop_assert!(course.result.starts_with(&foretold.result), "{} is not {}", course.result, foretold.result);
        prop_assert!(!course.result.contains("the cause"), "the model reads an operator's text: {}", course.result);
        course.result.clone_from(&foretold.result);
        prop_assert_eq!(course, foretold);
    }
}

/// A script hook with these permissions asked for, at a host that grants `granted`.
async fn scripted(answer: &str, point: &str, permissions: &str, granted: PermissionSet) -> String {
    let source = format!(
        "const PLUGIN = #{{ name: \"guard\", version: \"1.0.0\", description: \"d\", author: \"Acme\", permissions: [{permissions}],\n\
         hooks: #{{ {point}: #{{}} }} }};\nfn {point}(input, cx) {{ {answer} }}"
    );
    let bay = toolbay::builder().grants(granted).build().unwrap();
    bay.register(Scope::Global, scripted_tools().unwrap()).await.unwrap();
    bay.load_source(tenant("acme"), "guard.rhai", &source).await.unwrap();
    let reply = bay.session("acme").unwrap().call("test.echo", json!({ "n": 1 })).await;
    match reply.result {
        Ok(output) => output.data.to_string(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_script_hook_tightens_by_itself_and_needs_a_grant_and_its_manifest_for_more() {
    let (before, after) = ("before_tool_call", "after_tool_call");
    for (answer, point, expected) in [
        ("()", before, "{\"n\":1}"),
        ("\"continue\"", before, "{\"n\":1}"),
        ("#{ deny: \"no\" }", before, "DeniedByHook: guard: no"),
        ("#{ ask: \"sure?\" }", before, "ApprovalRequired: this call needs approval (guard: sure?)"),
        ("#{ stop: \"no\" }", before, "DeniedByHook: guard stopped the run: no"),
        ("#{ stop: \"no\" }", after, "DeniedByHook: guard stopped the run: no"),
    ] {
        let got = scripted(answer, point, "", PermissionSet::default()).await;
        assert!(got.starts_with(expected), "{answer}: {got}");
    }
    for (answer, point, permission, expected) in [
        ("#{ rewrite: #{ n: 2 } }", before, "hook:rewrite", "{\"n\":2}"),
        ("#{ answer: 7 }", before, "hook:answer", "7"),
        ("#{ replace: 8 }", after, "hook:replace", "8"),
    ] {
        let asked = format!("{permission:?}");
        assert_eq!(scripted(answer, point, &asked, PermissionSet::all()).await, expected);
        for (asked, granted) in [(asked.as_str(), PermissionSet::default()), ("", PermissionSet::all())] {
            let got = scripted(answer, point, asked, granted).await;
            assert!(got.starts_with("HookFailed: the hook guard could not decide"), "{answer}: {got}");
        }
    }
}
