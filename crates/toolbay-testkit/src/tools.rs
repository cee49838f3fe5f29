//! Native tools that do as they are told by their own names.

use async_trait::async_trait;
use serde_json::{Value, json};
use toolbay_api::{NameError, Tool, ToolContext, ToolDefinition, ToolError, ToolOutput, plugin::NativePlugin};

/// What a scripted tool does.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Echo,
    Fail,
    Hang,
    Panic,
}

struct ScriptedTool {
    definition: ToolDefinition,
    behaviour: Behaviour,
}

#[async_trait]
impl Tool for ScriptedTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    #[allow(clippy::panic, reason = "to panic is what this tool is for")]
    async fn call(&self, arguments: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        match self.behaviour {
            Behaviour::Echo => Ok(arguments.into()),
            Behaviour::Fail => Err(ToolError::failed("told to fail")),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Panic => panic!("told to panic"),
        }
    }
}

/// The plugin `test` with the tools `test.echo`, `test.fail`, `test.hang` and `test.panic`, which take any arguments.
///
/// # Errors
/// None in practice: the names are fixed.
pub fn scripted_tools() -> Result<NativePlugin, ToolError> {
    let named = |error: NameError| ToolError::new(toolbay_api::ErrorKind::Config, error.to_string());
    let mut plugin = NativePlugin::new("test", "1.0.0", "Tools for tests")?;
    for (name, behaviour) in
        [("echo", Behaviour::Echo), ("fail", Behaviour::Fail), ("hang", Behaviour::Hang), ("panic", Behaviour::Panic)]
    {
        let definition =
            ToolDefinition::new(name, format!("Told to {name}"), json!({ "type": "object" })).map_err(named)?;
        plugin = plugin.tool(ScriptedTool { definition, behaviour });
    }
    Ok(plugin)
}
