//! What a store is told when it is opened: times, connections, and bounds of what tenants can make grow.

use std::time::Duration;

/// How a store talks to its database, and how much it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Connections to PostgreSQL, or readers of an SQLite file; it has one writer more.
    pub connections: u32,
    /// Operations that may wait for a connection; one more is refused at once with `Unavailable`.
    pub waiting: usize,
    /// How long an operation may wait for a connection, and a connection for its database.
    pub connect_timeout: Duration,
    /// How long one operation may take, waiting included. The server is told to give up its statements as well.
    pub timeout: Duration,
    /// The same for what may take long: migrations, removing a tenant, backups, a whole snapshot.
    pub long_timeout: Duration,
    /// How often to look whether another process has changed something. PostgreSQL tells by itself; looking is for where
    /// that is lost.
    pub poll: Duration,
    /// How much is kept.
    pub bounds: Bounds,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            waiting: 512,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(5),
            long_timeout: Duration::from_secs(60),
            poll: Duration::from_millis(250),
            bounds: Bounds::default(),
        }
    }
}

/// How much is kept at most. What goes beyond is refused with `LimitExceeded`, where nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Registrations of one scope.
    pub registrations: u32,
    /// Versions of one plugin in one scope.
    pub versions: u32,
    /// Bytes of all packages of one scope.
    pub package_bytes: u64,
    /// Keys of one tenant, and keys of no tenant. Keys that are over go first.
    pub keys: u32,
    /// Secrets of one scope, those that are gone included.
    pub secrets: u32,
    /// Spaces of plugins in which one tenant keeps values.
    pub spaces: u32,
    /// Runs of one tenant. The oldest go.
    pub runs: u32,
    /// Runs of one tenant that wait for somebody's decision.
    pub suspended_runs: u32,
    /// Answers that are remembered of one owner. Those that end first go.
    pub answers: u32,
    /// Events of one scope that wait for delivery.
    pub events: u32,
    /// Events of one scope that were given up. The oldest go.
    pub dead_events: u32,
    /// Bytes of one JSON document: a configuration, a manifest, an answer, an event, the state of a run.
    pub document_bytes: usize,
    /// Bytes of one audit entry's detail, and of each of its texts a sixteenth. What is longer is cut, since an audit that
    /// refuses what is long does not see it.
    pub audit_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            registrations: 1_000,
            versions: 100,
            package_bytes: 256 << 20,
            keys: 1_000,
            secrets: 1_000,
            spaces: 1_000,
            runs: 1_000,
            suspended_runs: 1_000,
            answers: 10_000,
            events: 10_000,
            dead_events: 1_000,
            document_bytes: 4 << 20,
            audit_bytes: 16 << 10,
        }
    }
}
