//! Wasm in wasmtime: a module compiled ahead of time, a fresh instance for each call, JSON text through its memory.

use std::{any::Any, sync::Arc, time::Duration};

use serde_json::{Value, json};
use wasmtime::{
    Caller, Config, Engine, Extern, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig,
    Store, StoreLimits, StoreLimitsBuilder,
};

use crate::{
    peer::{Fallible, Peer, Waiting},
    workload::{MEMORY_LIMIT, TIME_LIMIT, Tool, look_up, look_up_blocking},
};

const TOOLS: &str = include_str!("../scripts/tools.wat");

/// Where the module takes its arguments and leaves its answer.
const ARGUMENTS: usize = 4_096;
const ANSWER: usize = 65_536;

/// How often the epoch moves on.
const EPOCH: Duration = Duration::from_millis(10);

/// Calls that may be in flight.
const INSTANCES: u32 = 10_100;

/// What stops a call that does not end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Epochs,
    Fuel,
}

/// An engine and the tools, linked once for calls that block and once for those that can be awaited.
pub struct Wasm {
    engine: Engine,
    stop: Stop,
    blocking: InstancePre<StoreLimits>,
    awaited: InstancePre<StoreLimits>,
}

impl Wasm {
    /// Each instance gets its memory from the system.
    pub fn on_demand() -> Fallible<Arc<dyn Peer>> {
        Self::start(Stop::Epochs, InstanceAllocationStrategy::OnDemand)
    }

    /// Instances come from a pool.
    pub fn pooling() -> Fallible<Arc<dyn Peer>> {
        Self::start(Stop::Epochs, pool())
    }

    /// As `pooling`, and instructions are counted.
    pub fn pooling_with_fuel() -> Fallible<Arc<dyn Peer>> {
        Self::start(Stop::Fuel, pool())
    }

    fn start(stop: Stop, allocation: InstanceAllocationStrategy) -> Fallible<Arc<dyn Peer>> {
        let mut config = Config::new();
        config.allocation_strategy(allocation);
        config.consume_fuel(stop == Stop::Fuel).epoch_interruption(stop == Stop::Epochs);
        let engine = Engine::new(&config)?;
        let module = Module::new(&engine, TOOLS)?;

        let mut blocking = Linker::new(&engine);
        blocking.func_wrap("host", "kv_get", |mut caller: Caller<'_, StoreLimits>, at: i32, length: i32| {
            key(&mut caller, at, length).map(|key| narrow(look_up_blocking(&key)))
        })?;
        let mut awaited = Linker::new(&engine);
        awaited.func_wrap_async(
            "host",
            "kv_get",
            |mut caller: Caller<'_, StoreLimits>, (at, length): (i32, i32)| {
                Box::new(async move { Ok(narrow(look_up(&key(&mut caller, at, length)?).await)) })
            },
        )?;
        let (blocking, awaited) = (blocking.instantiate_pre(&module)?, awaited.instantiate_pre(&module)?);

        let ticking = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(EPOCH);
            }
        });
        Ok(Arc::new(Self { engine, stop, blocking, awaited }))
    }

    fn store(&self) -> Fallible<Store<StoreLimits>> {
        let mut store = Store::new(&self.engine, StoreLimitsBuilder::new().memory_size(MEMORY_LIMIT).build());
        store.limiter(|limits| limits);
        match self.stop {
            Stop::Fuel => store.set_fuel(1_000_000_000)?,
            Stop::Epochs => {
                let ticks = TIME_LIMIT.as_millis() / EPOCH.as_millis();
                store.set_epoch_deadline(u64::try_from(ticks)?);
            }
        }
        Ok(store)
    }

    fn call(&self, tool: Tool, arguments: &Value) -> Fallible<Value> {
        let mut store = self.store()?;
        let instance = self.blocking.instantiate(&mut store)?;
        let memory = instance.get_memory(&mut store, "memory").ok_or("no memory")?;
        let text = serde_json::to_vec(arguments)?;
        memory.write(&mut store, ARGUMENTS, &text)?;
        let call = instance.get_typed_func::<(i32, i32), i32>(&mut store, "call")?;
        let length = call.call(&mut store, (tool as i32, i32::try_from(text.len())?))?;
        answer(memory.data(&store), length)
    }

    async fn wait_in_instance(&self, key: &str) -> Fallible<()> {
        let mut store = self.store()?;
        let instance = self.awaited.instantiate_async(&mut store).await?;
        let memory = instance.get_memory(&mut store, "memory").ok_or("no memory")?;
        let text = serde_json::to_vec(&json!({ "key": key }))?;
        memory.write(&mut store, ARGUMENTS, &text)?;
        let call = instance.get_typed_func::<(i32, i32), i32>(&mut store, "call")?;
        let length = call.call_async(&mut store, (Tool::Wait as i32, i32::try_from(text.len())?)).await?;
        let answer = answer(memory.data(&store), length)?;
        if answer == Tool::Wait.answer() { Ok(()) } else { Err(answer.to_string().into()) }
    }
}

fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(INSTANCES).total_memories(INSTANCES).total_stacks(INSTANCES).total_tables(0);
    pool.max_memory_size(MEMORY_LIMIT).max_unused_warm_slots(100);
    InstanceAllocationStrategy::Pooling(pool)
}

/// The key that the module points to.
fn key(caller: &mut Caller<'_, StoreLimits>, at: i32, length: i32) -> wasmtime::Result<String> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { wasmtime::bail!("no memory") };
    let (at, length) = (usize::try_from(at)?, usize::try_from(length)?);
    let Some(bytes) = memory.data(&*caller).get(at..).and_then(|rest| rest.get(..length)) else {
        wasmtime::bail!("a key outside of the memory")
    };
    Ok(String::from_utf8(bytes.to_vec())?)
}

fn narrow(answer: i64) -> i32 {
    i32::try_from(answer).unwrap_or(i32::MAX)
}

fn answer(memory: &[u8], length: i32) -> Fallible<Value> {
    let length = usize::try_from(length)?;
    let bytes = memory.get(ANSWER..).and_then(|rest| rest.get(..length)).ok_or("an answer outside of the memory")?;
    Ok(serde_json::from_slice(bytes)?)
}

impl Peer for Wasm {
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value> {
        let mut last = Value::Null;
        for arguments in arguments {
            last = self.call(tool, &arguments)?;
        }
        Ok(last)
    }

    fn wait(self: Arc<Self>, key: &'static str) -> Waiting {
        Box::pin(async move { self.wait_in_instance(key).await })
    }

    fn load(&self, number: usize) -> Fallible<Box<dyn Any>> {
        let source = format!(
            r#"(module
                (memory (export "memory") 1)
                (data (i32.const 0) "surcharge {number}")
                (func (export "add") (param $price i64) (param $weight i64) (result i64)
                    (if (result i64) (i64.gt_s (local.get $weight) (i64.const 10))
                        (then (i64.add (local.get $price) (i64.const {number})))
                        (else (local.get $price)))))"#
        );
        Ok(Box::new(Module::new(&self.engine, source)?))
    }
}
