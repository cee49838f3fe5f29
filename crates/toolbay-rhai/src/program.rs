//! Programs: scripts that are run from top to bottom, in which the tenant's tools are functions.
//!
//! A tool `calculator.add` is called as `calculator.add(#{ a: 2, b: 3 })` or `calculator__add(#{ a: 2, b: 3 })`, a tool
//! that is named like its plugin as `pay(#{ amount: 5 })`. All are `call_tool` under another name: the same grant, the
//! same road.

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, Map, Scope};
use toolbay_api::PermissionSet;

use crate::{
    call::{self, Call},
    engine::{Library, not_asked, refuse},
    functions, meter,
};

/// A plugin's tools, as the value before the dot.
#[derive(Clone)]
struct ToolSpace(ImmutableString);

/// Makes a constant for each plugin that has tools, so that they can be called behind a dot.
pub(crate) fn declare_tools(call: &Call, scope: &mut Scope<'_>) {
    let tools = meter::Outside::of(meter::outside(|| call.host().tools()));
    for tool in tools.iter() {
        if let Some((plugin, _)) = tool.split_once('.') {
            let name = identifier(plugin);
            if !scope.contains(&name) {
                scope.push_constant(name, ToolSpace(plugin.into()));
            }
        }
    }
}

/// Lets `engine` take functions that it does not have for tools.
pub(crate) fn call_tools_by_name(engine: &mut Engine, library: &Arc<Library>, asked: &PermissionSet) {
    engine.register_type_with_name::<ToolSpace>("tools");
    let missing = not_asked(asked);
    let library = Arc::clone(library);
    #[allow(deprecated, reason = "not deprecated but volatile, by Rhai's own word; a test would tell")]
    engine.on_missing_function(move |name, arguments, _, _| {
        if let Some(value) = refuse(&missing, name, arguments.len())? {
            return Ok(Some(value));
        }
        tool_call(&library, name, arguments)
    });
}

/// The call of a tool that `name` stands for; `None` where there is no such tool.
fn tool_call(
    library: &Library,
    name: &str,
    arguments: &mut [&mut Dynamic],
) -> Result<Option<Dynamic>, Box<EvalAltResult>> {
    let (space, arguments) = match arguments {
        [first, rest @ ..] => match first.read_lock::<ToolSpace>().map(|space| space.0.clone()) {
            Some(space) => (Some(space), &mut *rest),
            None => (None, arguments),
        },
        [] => (None, arguments),
    };
    let arguments = match arguments {
        [] => Dynamic::from_map(Map::new()),
        [arguments] if arguments.is_map() => arguments.clone(),
        _ => return Ok(None),
    };
    // Rhai asks here after every error of a function that it has, too; such a name is not a tool's.
    if space.is_none() && library.has_function(name) {
        return Ok(None);
    }
    let Some(tool) = call::with(|call| Ok(find(call, space.as_deref(), name)))? else { return Ok(None) };
    functions::host::call_tool(&tool, &arguments).map(Some)
}

/// The tool that a script calls `name`, behind the dot of a plugin or on its own.
fn find(call: &Call, space: Option<&str>, name: &str) -> Option<String> {
    let tools = meter::Outside::of(meter::outside(|| call.host().tools()));
    let mut tools = tools.iter();
    match space {
        Some(space) => tools.find(|tool| {
            tool.split_once('.').is_some_and(|(plugin, local)| plugin == space && identifier(local) == name)
        }),
        None => tools.find(|tool| identifier(&tool.replace('.', "__")) == name),
    }
    .cloned()
}

/// A name with `_` for what an identifier cannot have.
fn identifier(name: &str) -> String {
    name.replace(['-', '.'], "_")
}
