//! QuickJS through rquickjs: a fresh context for each call, with a memory limit and an interrupt.

use std::{any::Any, sync::Arc, time::Instant};

use rquickjs::{
    AsyncContext, AsyncRuntime, CatchResultExt, Context, Ctx, Function, Module, Persistent, Promise, Runtime,
    WriteOptions, function::Async,
};
use serde_json::{Value, json};

use crate::{
    peer::{Fallible, Peer, Waiting},
    workload::{MEMORY_LIMIT, TIME_LIMIT, Tool, look_up, look_up_blocking},
};

const TOOLS: &str = include_str!("../scripts/tools.js");

/// A kept runtime, one for contexts that stay, and the tools' bytecode.
pub struct QuickJs {
    runtime: Runtime,
    staying: Runtime,
    // For ever, since contexts use it in place.
    bytecode: &'static [u8],
}

impl QuickJs {
    /// Compiles the tools.
    pub fn start() -> Fallible<Arc<dyn Peer>> {
        let runtime = Runtime::new()?;
        runtime.set_memory_limit(MEMORY_LIMIT);
        let began = Instant::now();
        // A kept runtime would need its deadline renewed; here it never ends a call, so that the cost is the same.
        runtime.set_interrupt_handler(Some(Box::new(move || began.elapsed() > TIME_LIMIT * 100)));
        let bytecode = Context::full(&runtime)?.with(|ctx| compile(&ctx, TOOLS))?;
        // Ten thousand contexts hold more than one call may.
        let staying = Runtime::new()?;
        Ok(Arc::new(Self { runtime, staying, bytecode: bytecode.leak() }))
    }

    fn call(&self, tool: Tool, arguments: &Value) -> Fallible<Value> {
        let context = Context::full(&self.runtime)?;
        context.with(|ctx| {
            ctx.globals().set("kv_get", Function::new(ctx.clone(), |key: String| look_up_blocking(&key)))?;
            let arguments = ctx.json_parse(serde_json::to_string(arguments)?)?;
            let function: Function = load(&ctx, self.bytecode)?.get(tool.name()).map_err(|_| "no such tool")?;
            let answer: rquickjs::Value = function.call((arguments,)).catch(&ctx).map_err(|error| error.to_string())?;
            let text = ctx.json_stringify(answer)?.ok_or("the answer is no JSON")?.to_string()?;
            Ok(serde_json::from_str(&text)?)
        })
    }

    async fn wait_in_context(&self, key: &'static str) -> Fallible<()> {
        let runtime = AsyncRuntime::new()?;
        runtime.set_memory_limit(MEMORY_LIMIT).await;
        let deadline = Instant::now() + TIME_LIMIT;
        runtime.set_interrupt_handler(Some(Box::new(move || Instant::now() > deadline))).await;
        let context = AsyncContext::full(&runtime).await?;
        let bytecode = self.bytecode;
        let answer: Result<String, String> = context
            .async_with(async move |ctx| {
                let answer: rquickjs::Result<String> = async {
                    let kv_get = Function::new(ctx.clone(), Async(async |key: String| look_up(&key).await))?;
                    ctx.globals().set("kv_get", kv_get)?;
                    let arguments = ctx.json_parse(json!({ "key": key }).to_string())?;
                    let function: Function = load(&ctx, bytecode)?.get("wait")?;
                    let answer: Promise = function.call((arguments,))?;
                    let answer: rquickjs::Value = answer.into_future().await?;
                    ctx.json_stringify(answer)?.ok_or(rquickjs::Error::Unknown)?.to_string()
                }
                .await;
                answer.catch(&ctx).map_err(|error| error.to_string())
            })
            .await;
        if answer? == "1" { Ok(()) } else { Err("a wrong answer".into()) }
    }
}

fn compile(ctx: &Ctx<'_>, source: &str) -> rquickjs::Result<Vec<u8>> {
    let options = WriteOptions { strip_source: true, ..WriteOptions::default() };
    Module::declare(ctx.clone(), "tools", source)?.write(options)
}

fn load<'js>(ctx: &Ctx<'js>, bytecode: &'static [u8]) -> rquickjs::Result<rquickjs::Object<'js>> {
    // SAFETY: the bytes were written by the same build of QuickJS and live for ever.
    let (module, _) = unsafe { Module::load(ctx.clone(), bytecode) }?.eval()?;
    module.namespace()
}

impl Peer for QuickJs {
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value> {
        let mut last = Value::Null;
        for arguments in arguments {
            last = self.call(tool, &arguments)?;
        }
        Ok(last)
    }

    fn wait(self: Arc<Self>, key: &'static str) -> Waiting {
        Box::pin(async move { self.wait_in_context(key).await })
    }

    fn load(&self, number: usize) -> Fallible<Box<dyn Any>> {
        let source = format!(
            "export function add(args) {{\n  let price = args.price;\n  if (args.weight > 10) {{\n    \
             price += {number};\n  }}\n  return {{ price, note: \"surcharge {number}\" }};\n}}\n"
        );
        let context = Context::full(&self.staying)?;
        let function = context.with(|ctx| -> rquickjs::Result<_> {
            let (module, _) = Module::declare(ctx.clone(), "small", source)?.eval()?;
            let function: Function = module.get("add")?;
            Ok(Persistent::save(&ctx, function))
        })?;
        Ok(Box::new((function, context)))
    }
}
