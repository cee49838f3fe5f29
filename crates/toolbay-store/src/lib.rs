//! Keeps what a Toolbay host must not forget, in an SQLite file or in PostgreSQL: [`SqlStore`].
//!
//! # Layout
//!
//! - [`SqlStore`] (`store`): the ports of `toolbay-runtime`, each method handed to the file of its table.
//! - `db`: connections, transactions and their time; `link`: one connection; `values`: values in and out of it; `fault`: what
//!   goes wrong. No other file tells the two databases apart, but for a handful of statements.
//! - `migrations`: the schema and its versions, with `migrations/*.sql`.
//! - `commit`: a change, step by step; `tenants`, `registrations`, `packages`, `keys`, `secrets`, `answers`: its steps.
//! - `snapshot`, `changes`: what replicas follow.
//! - `audit`, `runs`, `suspended`, `outbox`, `kv`: what needs no step.

mod answers;
mod audit;
mod changes;
mod commit;
mod db;
mod fault;
mod keys;
mod kv;
mod link;
mod migrations;
mod options;
mod outbox;
mod packages;
mod page;
mod registrations;
mod runs;
mod secrets;
mod snapshot;
mod store;
mod suspended;
mod tenants;
mod values;

pub use audit::ChainProblem;
pub use migrations::{MigrationState, MigrationStatus, SchemaStatus};
pub use options::{Bounds, StoreOptions};
pub use store::SqlStore;
