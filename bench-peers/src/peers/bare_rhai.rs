//! Rhai as its book shows it, without limits: the tree walker, and the bytecode machine (`grain`).

use std::{any::Any, sync::Arc};

use rhai::{
    AST, CallFnOptions, Dynamic, Engine, Scope,
    grain::{Compiler, Program, SharedProgram, Vm},
    serde::{from_dynamic, to_dynamic},
};
use serde_json::{Value, json};

use crate::{
    peer::{Fallible, Peer, Waiting},
    workload::{Tool, look_up_blocking},
};

const TOOLS: &str = include_str!("../scripts/tools.rhai");

/// A script with one small tool, a different one for each number.
pub fn small_plugin(number: usize) -> String {
    format!(
        "fn add(args) {{\n    let price = args.price;\n    if args.weight > 10 {{ price += {number}; }}\n    \
         #{{ price: price, note: \"surcharge {number}\" }}\n}}\n"
    )
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.register_fn("kv_get", |key: &str| look_up_blocking(key));
    engine
}

/// An engine and the tools' tree.
pub struct BareRhai {
    engine: Engine,
    ast: AST,
}

impl BareRhai {
    /// Compiles the tools.
    pub fn start() -> Fallible<Arc<dyn Peer>> {
        let engine = engine();
        let ast = engine.compile(TOOLS)?;
        Ok(Arc::new(Self { engine, ast }))
    }

    fn call(&self, tool: Tool, arguments: &Value) -> Fallible<Value> {
        let options = CallFnOptions::new().eval_ast(false);
        let arguments = to_dynamic(arguments)?;
        let mut scope = Scope::new();
        let answer: Dynamic =
            self.engine.call_fn_with_options(options, &mut scope, &self.ast, tool.name(), (arguments,))?;
        Ok(from_dynamic(&answer)?)
    }
}

impl Peer for BareRhai {
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value> {
        let mut last = Value::Null;
        for arguments in arguments {
            last = self.call(tool, &arguments)?;
        }
        Ok(last)
    }

    fn wait(self: Arc<Self>, key: &'static str) -> Waiting {
        let call = move || self.call(Tool::Wait, &json!({ "key": key })).map(drop);
        Box::pin(async { tokio::task::spawn_blocking(call).await? })
    }

    fn load(&self, number: usize) -> Fallible<Box<dyn Any>> {
        Ok(Box::new(self.engine.compile(small_plugin(number))?))
    }
}

/// An engine and the tools' bytecode.
pub struct Grain {
    engine: Engine,
    program: SharedProgram,
}

impl Grain {
    /// Compiles the tools; none of them may be left to the tree walker.
    pub fn start() -> Fallible<Arc<dyn Peer>> {
        let engine = engine();
        let program = Compiler::new().compile(&engine.compile(TOOLS)?);
        if program.residual_count() > 0 {
            return Err(format!("grain could not lower {:?}", program.first_unsupported()).into());
        }
        Ok(Arc::new(Self { engine, program: program.into_shared() }))
    }

    fn call(&self, tool: Tool, arguments: &Value) -> Fallible<Value> {
        let options = CallFnOptions::new().eval_ast(false);
        let arguments = to_dynamic(arguments)?;
        let mut scope = Scope::new();
        let program: &Program = &self.program;
        let answer: Dynamic =
            Vm::new(&self.engine).call_fn_with_options(options, &mut scope, program, tool.name(), (arguments,))?;
        Ok(from_dynamic(&answer)?)
    }
}

impl Peer for Grain {
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value> {
        let mut last = Value::Null;
        for arguments in arguments {
            last = self.call(tool, &arguments)?;
        }
        Ok(last)
    }

    fn wait(self: Arc<Self>, key: &'static str) -> Waiting {
        let call = move || self.call(Tool::Wait, &json!({ "key": key })).map(drop);
        Box::pin(async { tokio::task::spawn_blocking(call).await? })
    }

    fn load(&self, number: usize) -> Fallible<Box<dyn Any>> {
        Ok(Box::new(Compiler::new().compile(&self.engine.compile(small_plugin(number))?).into_shared()))
    }
}
