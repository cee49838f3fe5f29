//! The sessions of clients that speak a revision from before 2026-07-28, bounded in number.
//!
//! `rmcp`'s manager ends a session that was idle for too long, but lets any number begin. Each tenant has a manager of
//! its own: a session's id is then worth nothing at another tenant's address.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `rmcp`'s manager with a bound.
pub(super) struct BoundedSessions {
    inner: LocalSessionManager,
    free: Arc<Semaphore>,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    taken: Mutex<HashMap<SessionId, OwnedSemaphorePermit>>,
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
    /// At most `max` sessions at once, each ended after being idle for `idle`.
    pub(super) fn new(max: usize, idle: Duration) -> Self {
        let mut inner = LocalSessionManager::default();
        inner.session_config.keep_alive = Some(idle);
        let free = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { inner, free, taken: Mutex::default() }
    }

    /// Whether no further session can begin now.
    pub(super) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<SessionId, OwnedSemaphorePermit>> {
        // The map is whole whatever a panicking thread was about to do with it.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionManager for BoundedSessions {
    type Error = SessionsError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionsError> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| SessionsError::Full)?;
        let (id, transport) = self.inner.create_session().await?;
        self.taken().insert(SessionId::clone(&id), permit);
        Ok((id, transport))
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
        self.taken().remove(id);
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
