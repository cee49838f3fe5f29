//! Telling clients that what they listed has changed.
//!
//! A publication anywhere wakes every listener; each compares what its own tenant sees with what it saw, by identity
//! first, so that another tenant's change costs it next to nothing and tells it nothing.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{RoleServer, model::ResourceUpdatedNotificationParam, service::SubscriptionSink};
use toolbay_runtime::{Glimpse, Session};

use crate::resources;

/// What a client listed, in short.
#[derive(Clone, PartialEq)]
struct Marks {
    tools: u64,
    prompts: u64,
    resources: u64,
}

impl Marks {
    fn of(session: &Session) -> Self {
        let tools =
            digest(session.tools().iter().map(|info| serde_json::to_string(&*info.definition).unwrap_or_default()));
        let prompts = digest(session.prompts().iter().map(|info| format!("{info:?}")));
        let resources = session.resources();
        let resources = digest(resources.iter().map(|info| format!("{} {:?}", info.name, info.declaration)));
        Self { tools, prompts, resources }
    }
}

fn digest(all: impl Iterator<Item = String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    all.for_each(|one| one.hash(&mut hasher));
    hasher.finish()
}

/// Resources that a client watches, each with its mark when it was told of it last.
pub(crate) type Watched = Arc<Mutex<Vec<(String, u64)>>>;

/// Those resources, as they are now.
pub(crate) fn watch(session: &Session, uris: &[String]) -> Watched {
    Arc::new(Mutex::new(uris.iter().map(|uri| (uri.clone(), mark_of(session, uri))).collect()))
}

/// The version of what stands at `uri`; 0 where nothing does.
pub(crate) fn mark_of(session: &Session, uri: &str) -> u64 {
    resources::find(session, uri)
        .map_or(0, |(info, _)| digest([format!("{} {} {}", info.plugin, info.version, info.generation)].into_iter()))
}

/// What is new since the last look.
struct News {
    tools: bool,
    prompts: bool,
    resources: bool,
    updated: Vec<String>,
}

/// A client's eyes. To be opened before the client is told that it is heard: else what changes in between is missed.
pub(crate) struct Eyes {
    session: Session,
    changes: tokio::sync::watch::Receiver<u64>,
    seen: Glimpse,
    marks: Marks,
    watched: Watched,
}

impl Eyes {
    pub(crate) fn open(session: Session, watched: Watched) -> Self {
        // In this order: what changes in between is seen twice rather than not at all.
        let changes = session.changes();
        let (seen, marks) = (session.glimpse(), Marks::of(&session));
        Self { session, changes, seen, marks, watched }
    }

    /// Whether it is these resources that are watched, whatever they are like.
    pub(crate) fn are_on(&self, watched: &Watched) -> bool {
        let uris = |watched: &Watched| -> Vec<String> {
            let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.iter().map(|(uri, _)| uri.clone()).collect()
        };
        Arc::ptr_eq(&self.watched, watched) || uris(&self.watched) == uris(watched)
    }

    /// Waits for a change of what the tenant sees. `None` where none can come any more.
    async fn next(&mut self) -> Option<News> {
        loop {
            self.changes.changed().await.ok()?;
            let now = self.session.glimpse();
            if now == self.seen {
                continue;
            }
            self.seen = now;
            let marks = Marks::of(&self.session);
            let mut news = News {
                tools: marks.tools != self.marks.tools,
                prompts: marks.prompts != self.marks.prompts,
                resources: marks.resources != self.marks.resources,
                updated: Vec::new(),
            };
            self.marks = marks;
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            for (uri, mark) in &mut *watched {
                let now = mark_of(&self.session, uri);
                if now != *mark {
                    *mark = now;
                    news.updated.push(uri.clone());
                }
            }
            drop(watched);
            return Some(news);
        }
    }
}

/// Tells a client that listens by `subscriptions/listen`, until it is gone.
pub(crate) async fn tell_newer(mut eyes: Eyes, sink: SubscriptionSink) {
    let accepted = sink.accepted().clone();
    while let Some(news) = eyes.next().await {
        let mut is_there = true;
        if news.tools && accepted.tools_list_changed == Some(true) {
            is_there &= sink.notify_tool_list_changed().await.is_ok();
        }
        if news.prompts && accepted.prompts_list_changed == Some(true) {
            is_there &= sink.notify_prompt_list_changed().await.is_ok();
        }
        if news.resources && accepted.resources_list_changed == Some(true) {
            is_there &= sink.notify_resource_list_changed().await.is_ok();
        }
        for uri in news.updated {
            is_there &= sink.notify_resource_updated(uri).await.is_ok();
        }
        if !is_there {
            return;
        }
    }
}

/// Tells a client of a revision before 2026-07-28, which is told of lists without asking, until it is gone.
pub(crate) async fn tell_older(mut eyes: Eyes, peer: rmcp::Peer<RoleServer>) {
    while let Some(news) = eyes.next().await {
        let mut is_there = true;
        if news.tools {
            is_there &= peer.notify_tool_list_changed().await.is_ok();
        }
        if news.prompts {
            is_there &= peer.notify_prompt_list_changed().await.is_ok();
        }
        if news.resources {
            is_there &= peer.notify_resource_list_changed().await.is_ok();
        }
        for uri in news.updated {
            is_there &= peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.is_ok();
        }
        if !is_there {
            return;
        }
    }
}
