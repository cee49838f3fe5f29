//! Luau through mlua, sandboxed, with a memory limit and an interrupt: a virtual machine per call, or one that is kept
//! with a fresh environment per call.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mlua::{
    Function, Lua, LuaSerdeExt, Table, VmState,
    chunk::{Chunk, ChunkMode, Compiler},
};
use serde_json::{Value, json};

use crate::{
    peer::{Fallible, Peer, Waiting},
    workload::{MEMORY_LIMIT, TIME_LIMIT, Tool, look_up, look_up_blocking},
};

const TOOLS: &str = include_str!("../scripts/tools.luau");

/// A kept machine would need its deadline renewed for each call; this one is never reached, so that the cost is the same.
const KEPT_TIME: Duration = Duration::from_secs(3_600);

/// Whether host functions wait as futures or hold their thread.
#[derive(Clone, Copy)]
enum Waits {
    Async,
    Blocking,
}

/// The tools' bytecode, and the machines that are kept.
pub struct Luau {
    bytecode: Vec<u8>,
    kept: Option<Kept>,
}

/// One machine for one call after the other, and one a core for calls that wait.
struct Kept {
    computing: Machine,
    waiting: [Machine; 2],
    turn: AtomicUsize,
}

/// A machine with the tools' main function, of which each call takes a copy.
struct Machine {
    lua: Lua,
    main: Function,
}

impl Luau {
    /// A machine for each call.
    pub fn vm_per_call() -> Fallible<Arc<dyn Peer>> {
        Ok(Arc::new(Self { bytecode: Compiler::new().set_optimization_level(2).compile(TOOLS)?, kept: None }))
    }

    /// A fresh environment for each call.
    pub fn environment_per_call() -> Fallible<Arc<dyn Peer>> {
        let bytecode = Compiler::new().set_optimization_level(2).compile(TOOLS)?;
        let kept = Kept {
            computing: Machine::new(&bytecode, Waits::Blocking)?,
            waiting: [Machine::new(&bytecode, Waits::Async)?, Machine::new(&bytecode, Waits::Async)?],
            turn: AtomicUsize::new(0),
        };
        Ok(Arc::new(Self { bytecode, kept: Some(kept) }))
    }

    fn call(&self, tool: Tool, arguments: &Value) -> Fallible<Value> {
        match &self.kept {
            None => {
                let lua = machine(Waits::Blocking, TIME_LIMIT)?;
                let tools: Table = binary(&lua, &self.bytecode).eval()?;
                call(&lua, &tools, tool, arguments)
            }
            Some(kept) => call(&kept.computing.lua, &kept.computing.tools()?, tool, arguments),
        }
    }

    async fn wait_in_machine(&self, key: &str) -> Fallible<()> {
        let arguments = json!({ "key": key });
        let answer: mlua::Value = match &self.kept {
            None => {
                let lua = machine(Waits::Async, TIME_LIMIT)?;
                let tools: Table = binary(&lua, &self.bytecode).eval()?;
                tools.get::<Function>("wait")?.call_async(lua.to_value(&arguments)?).await?
            }
            Some(kept) => {
                let turn = kept.turn.fetch_add(1, Ordering::Relaxed);
                let machine = &kept.waiting[turn % kept.waiting.len()];
                let tools = machine.tools()?;
                tools.get::<Function>("wait")?.call_async(machine.lua.to_value(&arguments)?).await?
            }
        };
        if answer.as_integer() == Some(1) { Ok(()) } else { Err(format!("{answer:?}").into()) }
    }
}

impl Machine {
    fn new(bytecode: &[u8], waits: Waits) -> Fallible<Self> {
        let lua = machine(waits, KEPT_TIME)?;
        let main = binary(&lua, bytecode).into_function()?;
        Ok(Self { lua, main })
    }

    /// The tools in an environment of their own.
    fn tools(&self) -> Fallible<Table> {
        let main = self.main.deep_clone()?;
        main.set_environment(environment(&self.lua)?)?;
        Ok(main.call(())?)
    }
}

/// A table of its own in front of the globals, which are read-only.
fn environment(lua: &Lua) -> Fallible<Table> {
    let (environment, metatable) = (lua.create_table()?, lua.create_table()?);
    metatable.raw_set("__index", lua.globals())?;
    environment.set_metatable(Some(metatable))?;
    Ok(environment)
}

/// A sandboxed machine with the host function, a memory limit and an interrupt after `time`.
fn machine(waits: Waits, time: Duration) -> Fallible<Lua> {
    let lua = Lua::new();
    let kv_get = match waits {
        Waits::Async => lua.create_async_function(async |_, key: String| Ok(look_up(&key).await))?,
        Waits::Blocking => lua.create_function(|_, key: String| Ok(look_up_blocking(&key)))?,
    };
    lua.globals().set("kv_get", kv_get)?;
    lua.set_memory_limit(MEMORY_LIMIT)?;
    let (deadline, steps) = (Instant::now() + time, AtomicU64::new(0));
    // The clock is read at every 1,024th interrupt only, since there is one at every call and turn of a loop.
    lua.set_interrupt(move |_| {
        if steps.fetch_add(1, Ordering::Relaxed) & 1_023 == 0 && Instant::now() > deadline {
            return Err(mlua::Error::runtime("time is up"));
        }
        Ok(VmState::Continue)
    });
    lua.sandbox(true)?;
    Ok(lua)
}

fn binary<'a>(lua: &'a Lua, bytecode: &'a [u8]) -> Chunk<'a> {
    lua.load(bytecode).set_mode(ChunkMode::Binary).set_name("tools")
}

fn call(lua: &Lua, tools: &Table, tool: Tool, arguments: &Value) -> Fallible<Value> {
    let answer: mlua::Value = tools.get::<Function>(tool.name())?.call(lua.to_value(arguments)?)?;
    Ok(lua.from_value(answer)?)
}

impl Peer for Luau {
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value> {
        let mut last = Value::Null;
        for arguments in arguments {
            last = self.call(tool, &arguments)?;
        }
        Ok(last)
    }

    fn wait(self: Arc<Self>, key: &'static str) -> Waiting {
        Box::pin(async move { self.wait_in_machine(key).await })
    }

    fn load(&self, number: usize) -> Fallible<Box<dyn Any>> {
        let source = format!(
            "return {{ add = function(args)\n    local price = args.price\n    if args.weight > 10 then\n        \
             price += {number}\n    end\n    return {{ price = price, note = \"surcharge {number}\" }}\nend }}\n"
        );
        let bytecode = Compiler::new().set_optimization_level(2).compile(source)?;
        Ok(match &self.kept {
            None => {
                let lua = machine(Waits::Blocking, TIME_LIMIT)?;
                let tools: Table = binary(&lua, &bytecode).eval()?;
                Box::new((lua, tools))
            }
            Some(kept) => {
                let lua = &kept.computing.lua;
                let tools: Table = binary(lua, &bytecode).set_environment(environment(lua)?).eval()?;
                Box::new(tools)
            }
        })
    }
}
