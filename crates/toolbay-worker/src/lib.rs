//! Rhai plugins in worker processes: the tier of the sandbox whose promises do not rest on the sandbox alone.
//!
//! [`WorkerRunner`] loads the same plugins as toolbay-rhai's runner and gives the same results, but a script is parsed
//! and run in a process that can do nothing except compute and talk to its host: no file system, no network, no other
//! process, no environment; a memory cap that ends the process; killed at the deadline. What a script asks for beyond
//! its own values goes to the host as a request, where all grants are checked.
//!
//! A program is its own worker with two lines:
//!
//! ```no_run
//! #[global_allocator]
//! static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;
//!
//! fn main() {
//!     toolbay_worker::run_if_worker();
//!     // the program itself, with a WorkerRunner
//! }
//! ```
//!
//! # What a failure looks like
//!
//! - The memory cap: [`LimitExceeded`](toolbay_api::ErrorKind::LimitExceeded) with the limit and what was used.
//! - The deadline: [`TimedOut`](toolbay_api::ErrorKind::TimedOut).
//! - A process that broke down (stack overflow, abort, a signal): [`Panic`](toolbay_api::ErrorKind::Panic), with
//!   `details` of `{"signal": 11}` or `{"exit": 101}`.
//! - Another call's doing, a fault of the wire, no worker to be had:
//!   [`Unavailable`](toolbay_api::ErrorKind::Unavailable), to be tried again. The tenant's own workers all busy:
//!   [`RateLimited`](toolbay_api::ErrorKind::RateLimited).
//!
//! # Packaged files
//!
//! A plugin's assets stay with the host until a script first looks at them; then they are sent whole, once for each
//! plugin and worker, parsed where they are JSON, and kept until the worker ends or forgets the plugin. They count
//! neither for the call that looked first nor for any other, and have a bound of their own.
//!
//! # Layout
//!
//! - `runner`, `plugin`, `call`: the crate's face to [`toolbay_api`].
//! - `pool`, `storm`, `worker`, `driver`, `mail`, `process`, `scale`, `death`: workers as the host holds them.
//! - `child`, `alloc`, `sys`, `isolation`: the worker itself.
//! - `wire`, `frame`, `fault`, `package`, `hook_wire`: what goes between them.

#[cfg(not(unix))]
compile_error!("worker processes need a Unix system; elsewhere plugins run in process, with toolbay-rhai");

mod alloc;
mod call;
mod child;
mod config;
mod death;
mod driver;
mod fault;
mod frame;
mod hook_wire;
#[cfg(test)]
mod hostile_frames;
mod isolation;
mod mail;
mod package;
mod plugin;
mod pool;
mod process;
mod runner;
mod scale;
mod storm;
mod sys;
mod wire;
mod worker;

pub use alloc::CappedAlloc;
pub use child::{run_if_worker, worker_main};
pub use config::{WorkerConfig, WorkerProgram};
pub use isolation::{Isolation, Layers, lock_down};
pub use runner::{WorkerInfo, WorkerRunner};
pub use sys::{EXIT_MEMORY, EXIT_PROTOCOL, EXIT_SIGNAL};
