//! Streams of server-sent events: a tenant's events, and its runs as they happen.
//!
//! A reader that falls too far behind is told so by a last event, `lagged`, and sent away: it knows that it missed
//! something, and nobody keeps for it what it does not read. Heartbeats are comments. At each, and before each event, the
//! key is looked at again, so that one that was revoked reads no further.

use std::{pin::Pin, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderValue, Method,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::Response,
};
use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use toolbay_api::EventPattern;
use toolbay_runtime::{Control, EventStream, Heard, Principal, store::Role};

use crate::{
    call::Call,
    live::LiveEvents,
    problem::Problem,
    table::{Endpoint, Group},
    usage::OpenStream,
};

pub(super) fn group() -> Group {
    let events = Endpoint::new(Method::GET, "/events", "streamEvents", "Streams events", events)
        .about(
            "Server-sent events called `event`, each an event's envelope, from now on. A last event `lagged` says that the \
             reader was too slow, `end` that the server or the key is at its end.",
        )
        .param(
            "name",
            json!({ "type": "string", "pattern": r"^[A-Za-z0-9_.*?{},!\[\]-]{1,128}$" }),
            "Only events of this name, or whose names this glob means, as in `order.*`.",
        )
        .gives_text(200, "text/event-stream", "The events, for as long as the reader stays.");
    let runs = Endpoint::new(Method::GET, "/runs/live", "streamRuns", "Streams runs as they happen", runs)
        .about(
            "Server-sent events called `run`, each one thing that happened in a run, with the run's id. They end as those of \
             `/events` do.",
        )
        .gives_text(200, "text/event-stream", "The events of runs, for as long as the reader stays.");
    let mut group = Group::new("streams");
    group.per_tenant(&events);
    group.global(&events, Role::Operator);
    group.per_tenant(&runs);
    group
}

/// Where a stream's events come from.
enum Source {
    Events(EventStream),
    Runs(LiveEvents),
}

/// What comes next.
enum Next {
    /// An event's name and data.
    Event(&'static str, String),
    /// The last event's name.
    End(&'static str),
}

impl Source {
    async fn next(&mut self) -> Next {
        match self {
            Self::Events(events) => match events.next().await {
                Some(Heard::Event(event)) => {
                    Next::Event("event", serde_json::to_string(&*event).unwrap_or_else(|_| "null".to_owned()))
                }
                Some(Heard::Lost(_)) => Next::End("lagged"),
                None => Next::End("end"),
            },
            Self::Runs(runs) => match runs.next().await {
                Some(line) => Next::Event("run", (*line).to_owned()),
                None if runs.is_behind() => Next::End("lagged"),
                None => Next::End("end"),
            },
        }
    }
}

/// One stream.
struct Reading {
    source: Source,
    beat: Interval,
    stop: CancellationToken,
    control: Control,
    presented: String,
    who: Principal,
    is_done: bool,
    _slot: OpenStream,
}

async fn events(call: Call) -> Result<Response, Problem> {
    let mut events = call.app.control.toolbay().events().of(call.known_scope()?.clone());
    if let Some(name) = call.text("name") {
        events = events.matching(EventPattern::new(name).map_err(|error| Problem::invalid(error.to_string()))?);
    }
    open(&call, Source::Events(events))
}

async fn runs(call: Call) -> Result<Response, Problem> {
    call.known_scope()?;
    let events = call.app.live.open(call.tenant()?, call.app.options.stream_buffer);
    open(&call, Source::Runs(events))
}

fn open(call: &Call, source: Source) -> Result<Response, Problem> {
    let (app, who) = (&call.app, call.principal()?);
    let slot = app.usage.open_stream(who.key, app.options.max_streams_per_key)?;
    let every = app.options.heartbeat.max(Duration::from_millis(10));
    let mut beat = interval_at(Instant::now() + every, every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reading = Reading {
        source,
        beat,
        stop: app.stop.clone(),
        control: app.control.clone(),
        presented: call.presented.clone(),
        who: who.clone(),
        is_done: false,
        _slot: slot,
    };
    let mut response = Response::new(Body::from_stream(lines(reading)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that would gather the answer first are told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

type Lines = Pin<Box<dyn Stream<Item = Result<Bytes, std::convert::Infallible>> + Send>>;

fn lines(reading: Reading) -> Lines {
    // A first comment, so that the reader knows at once that it is heard.
    let hello = stream::once(async { Ok(Bytes::from_static(b": hello\n\n")) });
    let rest = stream::unfold(reading, |mut reading| async move {
        if reading.is_done {
            return None;
        }
        let line = reading.line().await;
        Some((Ok(line), reading))
    });
    Box::pin(stream::StreamExt::chain(hello, rest))
}

impl Reading {
    async fn line(&mut self) -> Bytes {
        let next = tokio::select! {
            biased;
            () = self.stop.cancelled() => Some(Next::End("end")),
            next = self.source.next() => Some(next),
            _ = self.beat.tick() => None,
        };
        // Not only whether the key counts, but whether it is still that of whom the stream was opened for.
        if self.control.authenticate(&self.presented).as_ref().is_none_or(|now| !is_same(now, &self.who)) {
            return self.end("end");
        }
        match next {
            None => Bytes::from_static(b": beat\n\n"),
            // JSON has no line breaks but escaped ones, so one line holds it.
            Some(Next::Event(name, data)) => format!("event: {name}\ndata: {data}\n\n").into(),
            Some(Next::End(name)) => self.end(name),
        }
    }

    fn end(&mut self, name: &str) -> Bytes {
        self.is_done = true;
        format!("event: {name}\ndata: {{}}\n\n").into()
    }
}

fn is_same(now: &Principal, then: &Principal) -> bool {
    (now.key, now.role, &now.tenant) == (then.key, then.role, &then.tenant)
}
