//! The server as its callers meet it: HTTP over the loopback address, on an SQLite file.

mod api;
mod bounds;
mod conditions;
mod errors;
mod isolation;
mod keys;
mod mounted;
mod streams;
mod support;
mod system;
