//! The sessions of clients that speak a revision from before 2026-07-28, bounded in number and each bound to whoever began
//! it.
//!
//! `rmcp`'s manager ends a session that was idle for too long, but lets any number begin, and anybody use one whose id he
//! knows. Here a session's id is worth nothing without the credential that began it: it is for the same tenant, user and
//! rights, or it is not there.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::Stream;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        WorkerTransport,
        streamable_http_server::session::{
            ServerSseMessage, SessionId, SessionManager,
            local::{LocalSessionManager, LocalSessionManagerError, LocalSessionWorker},
        },
    },
};
use toolbay_api::TenantId;

use super::door::{Badge, visitor};

/// `rmcp`'s manager with a bound for each tenant, and owners.
pub(super) struct BoundedSessions {
    inner: LocalSessionManager,
    max: usize,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    owners: HashMap<SessionId, Badge>,
    counts: HashMap<TenantId, usize>,
}

/// Why a session could not be begun or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionsError {
    #[error("too many clients are connected; try again later")]
    Full,
    #[error(transparent)]
    Session(#[from] LocalSessionManagerError),
}

impl BoundedSessions {
    /// At most `max` sessions of one tenant at once, each ended after being idle for `idle`.
    pub(super) fn new(max: usize, idle: Duration) -> Self {
        let mut inner = LocalSessionManager::default();
        inner.session_config.keep_alive = Some(idle);
        Self { inner, max, taken: Mutex::default() }
    }

    /// Whether no further session of the tenant can begin now.
    pub(super) fn is_full(&self, tenant: &TenantId) -> bool {
        self.taken().counts.get(tenant).is_some_and(|count| *count >= self.max)
    }

    /// Whether the session was begun by whoever has this badge.
    pub(super) fn is_of(&self, id: &str, badge: &Badge) -> bool {
        self.taken().owners.get(id).is_some_and(|owner| owner == badge)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // The maps are whole whatever a panicking thread was about to do with them.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a session in that is about to begin.
    fn reserve(&self, tenant: &TenantId) -> Result<(), SessionsError> {
        let mut taken = self.taken();
        let count = taken.counts.entry(tenant.clone()).or_default();
        if *count >= self.max {
            return Err(SessionsError::Full);
        }
        *count += 1;
        Ok(())
    }

    fn release(&self, tenant: &TenantId) {
        let mut taken = self.taken();
        if let Some(count) = taken.counts.get_mut(tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.counts.remove(tenant);
            }
        }
    }
}

impl SessionManager for BoundedSessions {
    type Error = SessionsError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionsError> {
        let badge = visitor(|visitor| visitor.badge.clone()).ok_or(SessionsError::Full)?;
        let tenant = badge.tenant().clone();
        self.reserve(&tenant)?;
        match self.inner.create_session().await {
            Ok((id, transport)) => {
                self.taken().owners.insert(SessionId::clone(&id), badge);
                Ok((id, transport))
            }
            Err(error) => {
                self.release(&tenant);
                Err(error.into())
            }
        }
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionsError> {
        Ok(self.inner.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionsError> {
        Ok(self.inner.has_session(id).await?)
    }

    /// Called at the client's wish and after every other end of a session, idleness included.
    async fn close_session(&self, id: &SessionId) -> Result<(), SessionsError> {
        let closed = self.inner.close_session(id).await;
        let owner = self.taken().owners.remove(id);
        if let Some(owner) = owner {
            self.release(owner.tenant());
        }
        Ok(closed?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        Ok(self.inner.create_stream(id, message).await?)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), SessionsError> {
        Ok(self.inner.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        Ok(self.inner.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        Ok(self.inner.resume(id, last_event_id).await?)
    }
}
