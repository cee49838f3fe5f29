//! What a peer has to do, and the list of peers.

use std::{any::Any, error::Error, pin::Pin, sync::Arc};

use serde_json::Value;

use crate::{
    peers::{
        bare_rhai::{BareRhai, Grain},
        luau::Luau,
        quickjs::QuickJs,
        through_toolbay::ThroughToolbay,
        wasm::Wasm,
    },
    workload::Tool,
};

/// Whatever went wrong ends the measurement of that peer.
pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// One waiting call.
pub type Waiting = Pin<Box<dyn Future<Output = Fallible<()>> + Send>>;

/// An engine, used as its user would.
pub trait Peer: Send + Sync {
    /// Makes a call for each of `arguments`, one after the other, from JSON values to JSON values, and gives the last
    /// answer.
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value>;

    /// One call of the tool that looks up `key`, among thousands.
    fn wait(self: Arc<Self>, key: &'static str) -> Waiting;

    /// Loads the small plugin number `number`, so that it is ready to be called, and gives what keeps it loaded.
    fn load(&self, number: usize) -> Fallible<Box<dyn Any>>;
}

/// A peer in the tables.
pub struct Entry {
    /// Its short name, for the command line.
    pub name: &'static str,
    /// What stands in the table.
    pub title: &'static str,
    /// How its calls are kept apart while computing, waiting and loading. Empty: not measured.
    pub computing: &'static str,
    /// See `computing`.
    pub waiting: &'static str,
    /// See `computing`.
    pub loaded: &'static str,
    /// Makes it ready.
    pub start: fn() -> Fallible<Arc<dyn Peer>>,
}

/// All peers; Toolbay, to which the others are compared, is the first.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "toolbay",
        title: "Toolbay, Rhai",
        computing: "the whole road, all limits, schemas checked",
        waiting: "a fiber per call",
        loaded: "script, definition and validator; 1,000 tenants with 10 plugins each",
        start: ThroughToolbay::start,
    },
    Entry {
        name: "rhai",
        title: "bare Rhai",
        computing: "no limits, a fresh scope per call",
        waiting: "spawn_blocking, tokio's 512 threads",
        loaded: "the AST",
        start: BareRhai::start,
    },
    Entry {
        name: "grain",
        title: "bare Rhai, bytecode (grain)",
        computing: "no limits, a fresh scope and VM per call",
        waiting: "",
        loaded: "the program",
        start: Grain::start,
    },
    Entry {
        name: "luau-vm",
        title: "mlua (Luau), VM per call",
        computing: "sandboxed, memory limit, interrupt, bytecode kept",
        waiting: "a VM per call",
        loaded: "a VM per plugin, kept warm",
        start: Luau::vm_per_call,
    },
    Entry {
        name: "luau-env",
        title: "mlua (Luau), kept VM",
        computing: "sandboxed, fresh environment per call",
        waiting: "a coroutine and environment per call in one of two VMs",
        loaded: "a function and environment per plugin in one VM",
        start: Luau::environment_per_call,
    },
    Entry {
        name: "quickjs",
        title: "rquickjs",
        computing: "fresh context per call in a kept runtime, memory limit, interrupt, bytecode kept",
        waiting: "a runtime and a context per call",
        loaded: "a context per plugin, kept warm",
        start: QuickJs::start,
    },
    Entry {
        name: "wasm-demand",
        title: "wasmtime, on demand",
        computing: "fresh instance per call, epochs, memory limit",
        waiting: "",
        loaded: "",
        start: Wasm::on_demand,
    },
    Entry {
        name: "wasm-pool",
        title: "wasmtime, pooling",
        computing: "fresh instance per call, epochs, memory limit",
        waiting: "an instance and a fiber per call",
        loaded: "a compiled module",
        start: Wasm::pooling,
    },
    Entry {
        name: "wasm-fuel",
        title: "wasmtime, pooling, fuel",
        computing: "fresh instance per call, fuel, memory limit",
        waiting: "",
        loaded: "",
        start: Wasm::pooling_with_fuel,
    },
];

/// The peer called `name`.
pub fn entry(name: &str) -> Fallible<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| format!("no peer is called {name}").into())
}
