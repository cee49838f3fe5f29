//! The functions that a host made for a program: each calls one tool, and `parallel` calls several at once.
//!
//! They are native functions in static modules, not text that is put before the program: so a name can be nothing but a
//! name, errors stand where the program calls, and the program's lines keep their numbers.

use std::{collections::BTreeMap, sync::Arc};

use rhai::{Array, Dynamic, Engine, Map, Module, Shared};
use toolbay_api::{ToolFunction, program::CALL_SEVERAL};

use crate::{
    call::HostResult,
    functions::{fail, host::call_tool, register::add},
};

/// A program's functions for tools, made once and shared by its calls.
pub(crate) struct Bindings {
    spaces: Vec<(String, Shared<Module>)>,
    /// What is called without a space.
    bare: Shared<Module>,
}

impl Bindings {
    pub(crate) fn new(functions: &[ToolFunction]) -> Self {
        let mut spaces: BTreeMap<&str, Module> = BTreeMap::new();
        for function in functions {
            define(spaces.entry(&function.space).or_default(), function);
        }
        let indexed = |(space, mut module): (&str, Module)| {
            module.set_id(space);
            module.build_index();
            (space.to_owned(), module.into())
        };
        let spaces = spaces.into_iter().map(indexed).collect();
        let mut bare = Module::new();
        add(&mut bare, "parallel", ["calls"], |calls: Array| parallel(calls));
        bare.build_index();
        Self { spaces, bare: bare.into() }
    }

    /// Gives them to an engine.
    pub(crate) fn bind(&self, engine: &mut Engine) {
        engine.register_global_module(Arc::clone(&self.bare));
        for (space, module) in &self.spaces {
            engine.register_static_module(space, Arc::clone(module));
        }
    }
}

/// Adds one tool's function, in each form in which it may be called.
fn define(module: &mut Module, function: &ToolFunction) {
    let (name, tool) = (function.name.as_str(), Arc::<str>::from(function.tool.as_str()));
    let places: Arc<[String]> = function.positional.clone().into();
    if function.without_arguments {
        let tool = Arc::clone(&tool);
        add(module, name, [], move || call_tool(&tool, &Dynamic::from_map(Map::new())));
    }
    {
        let (tool, places) = (Arc::clone(&tool), Arc::clone(&places));
        add(module, name, ["arguments"], move |arguments: Dynamic| {
            if arguments.is_map() {
                return call_tool(&tool, &arguments);
            }
            match &*places {
                [_] => call_tool(&tool, &named(&places, [arguments])),
                _ => fail(format!("{tool} takes one map of its arguments: #{{ name: value }}")),
            }
        });
    }
    match places.len() {
        2 => add(module, name, ["a", "b"], move |a: Dynamic, b: Dynamic| call_tool(&tool, &named(&places, [a, b]))),
        3 => add(module, name, ["a", "b", "c"], move |a: Dynamic, b: Dynamic, c: Dynamic| {
            call_tool(&tool, &named(&places, [a, b, c]))
        }),
        4 => add(module, name, ["a", "b", "c", "d"], move |a: Dynamic, b: Dynamic, c: Dynamic, d: Dynamic| {
            call_tool(&tool, &named(&places, [a, b, c, d]))
        }),
        _ => {}
    }
}

/// Values in the order of the parameters, under their names.
fn named<const N: usize>(names: &[String], values: [Dynamic; N]) -> Dynamic {
    Dynamic::from_map(names.iter().zip(values).map(|(name, value)| (name.as_str().into(), value)).collect())
}

fn parallel(calls: Array) -> HostResult<Dynamic> {
    let mut arguments = Map::new();
    arguments.insert("calls".into(), Dynamic::from_array(calls));
    call_tool(CALL_SEVERAL, &Dynamic::from_map(arguments))
}
