//! Hearing of changes: of this process's own at once, of others' by PostgreSQL's notifications, and of what these lose by
//! looking at the number of the last change. A notification is a hint; the number is the truth.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::stream::{self, BoxStream, StreamExt as _};
use sqlx::postgres::PgListener;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use toolbay_api::ToolError;

use crate::{
    commit::CHANNEL,
    db::{Pools, read},
    store::Inner,
    values::params,
};

/// The longest that is waited between attempts to listen again.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// Who is told of changes. Several tellings are one for who was not looking, so nothing piles up.
#[derive(Debug)]
pub(crate) struct Watched {
    told: watch::Sender<u64>,
    is_started: AtomicBool,
}

impl Default for Watched {
    fn default() -> Self {
        Self { told: watch::Sender::new(0), is_started: AtomicBool::new(false) }
    }
}

impl Watched {
    pub(crate) fn tell(&self) {
        self.told.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// An item for each telling from now on, until the store is dropped. One task looks for all.
    pub(crate) fn changes(inner: &Arc<Inner>) -> BoxStream<'static, ()> {
        let watched = &inner.watched;
        let told = watched.told.subscribe();
        if !watched.is_started.swap(true, Ordering::Relaxed) {
            tokio::spawn(look(Arc::downgrade(inner), inner.db.options.poll));
        }
        stream::unfold(told, |mut told| async move { told.changed().await.ok().map(|()| ((), told)) }).boxed()
    }
}

/// Looks until the store is dropped.
async fn look(store: Weak<Inner>, poll: Duration) {
    let mut listener: Option<PgListener> = None;
    let mut last = None;
    let mut wait = Duration::ZERO;
    let mut waited = Duration::ZERO;
    loop {
        let is_told = match &mut listener {
            None => {
                sleep(poll).await;
                waited += poll;
                false
            }
            Some(listening) => match timeout(poll, listening.try_recv()).await {
                Ok(Ok(Some(_))) => {
                    while listening.next_buffered().is_some() {}
                    true
                }
                // The connection is gone, and what was told meanwhile with it.
                Ok(Ok(None) | Err(_)) => {
                    listener = None;
                    (wait, waited) = (Duration::ZERO, Duration::ZERO);
                    false
                }
                Err(_) => false,
            },
        };
        let Some(inner) = store.upgrade() else { return };
        if is_told {
            inner.watched.tell();
            continue;
        }
        if listener.is_none() && waited >= wait {
            listener = listen(&inner).await;
            if listener.is_some() {
                inner.watched.tell();
            } else {
                (wait, waited) = ((wait * 2).clamp(poll, MOST_WAIT), Duration::ZERO);
            }
        }
        // Where the database is away there is nothing to tell; its return is a change of what is known here.
        match position(&inner).await {
            Ok(position) => {
                if last != Some(position) {
                    last = Some(position);
                    inner.watched.tell();
                }
            }
            Err(_) => last = None,
        }
    }
}

async fn position(inner: &Inner) -> Result<i64, ToolError> {
    read!(&inner.db, |link| link.number("SELECT position FROM store_state", params![]).await)
}

/// Hears of PostgreSQL's notifications; `None` where that is not to be had now, or ever.
async fn listen(inner: &Inner) -> Option<PgListener> {
    let Pools::Postgres { listener: pool, .. } = &inner.db.pools else { return None };
    let listen = async {
        let mut listener = PgListener::connect_with(pool).await?;
        // This task makes a new one itself, and knows by it that something may have been missed.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    match timeout(inner.db.options.connect_timeout, listen).await {
        Ok(Ok(listener)) => Some(listener),
        Ok(Err(error)) => {
            tracing::debug!(target: "toolbay::store", %error, "changes cannot be listened to; looking goes on");
            None
        }
        Err(_) => None,
    }
}
