//! The suite for runners, applied to one of native code: its packages name what their plugins do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute only, and to panic is what one of the plugins is for"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use toolbay_api::{
    ErrorKind, LoadError, Package, PermissionSet, Plugin, PluginContext, Runner, RuntimeKind, Tool, ToolContext,
    ToolDefinition, ToolError, ToolOutput, async_trait, plugin::NativePlugin, tool::Execution,
};
use toolbay_testkit::{Case, runner_conformance};

/// Loads packages whose one file is the name of a case.
struct NativeRunner;

const CASES: [Case; 7] = [Case::Echo, Case::Throw, Case::Spin, Case::Flood, Case::Ungranted, Case::Sleep, Case::Panic];

#[async_trait]
impl Runner for NativeRunner {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Native
    }

    async fn load(&self, package: &Package, _: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let text = package.files.values().next().map(|text| &**text).unwrap_or_default();
        let case = CASES.into_iter().find(|case| case.name() == text);
        let case = case.ok_or_else(|| LoadError::new(ErrorKind::Config, format!("there is no case {text:?}")))?;
        let parameters = if case == Case::Echo { Case::echo_parameters() } else { json!({ "type": "object" }) };
        let definition = ToolDefinition::new(case.name(), "Does as its name says", parameters).unwrap();
        let plugin = NativePlugin::new(case.name(), "1.0.0", "A case").unwrap().tool(CaseTool { case, definition });
        let asked = PermissionSet::parse(case.permission()).unwrap();
        Ok(Arc::new(plugin.with(|metadata| metadata.permissions = asked)))
    }
}

struct CaseTool {
    case: Case,
    definition: ToolDefinition,
}

#[async_trait]
impl Tool for CaseTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn execution(&self) -> Execution {
        if self.case == Case::Spin { Execution::Blocking } else { Execution::Async }
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        match self.case {
            Case::Echo => {
                cx.host().kv_set("reached", arguments.get("text").cloned().unwrap_or_default()).await?;
                Ok(arguments.into())
            }
            Case::Throw => Err(ToolError::failed("no such order")),
            Case::Flood => Ok(json!("x".repeat(100_000)).into()),
            Case::Ungranted => ToolOutput::json(cx.host().kv_get("reached").await?),
            Case::Sleep => std::future::pending().await,
            Case::Panic => panic!("as the case says"),
            Case::Spin | Case::Allocate => Err(ToolError::failed("not done here")),
        }
    }

    fn call_blocking(&self, _: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        // It does not ask whether it should go on; without an end the test's own process would have none.
        while std::time::Instant::now() < cx.deadline() + std::time::Duration::from_millis(500) {
            std::hint::spin_loop();
        }
        Err(ToolError::failed("nobody waits any more"))
    }
}

mod a_native_runner {
    use super::*;

    fn package(case: Case) -> Option<Package> {
        // Nothing meters what native code allocates.
        (case != Case::Allocate).then(|| Package::one_file(case.name(), case.name()))
    }

    runner_conformance!(NativeRunner, package);
}

#[test]
fn a_runner_that_does_not_keep_its_side_is_told_so() {
    use toolbay_testkit::{Trial, check_runner};

    // Its packages are mixed up: the one that should throw echoes.
    let mixed_up = |case: Case| Some(Package::one_file("x", if case == Case::Throw { "floods" } else { case.name() }));
    let problem = check_runner(Trial::Call(Case::Throw), || NativeRunner, mixed_up).unwrap_err();
    assert_eq!(problem, "the package for Throw does not load: its plugin is called floods, and not throws");
    let nothing = check_runner(Trial::UnknownTool, || NativeRunner, |_| None).unwrap_err();
    assert_eq!(nothing, "every runner can echo: there must be a package for it");
}
