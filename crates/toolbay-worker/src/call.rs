//! One call from the host's side: finds a place, sends it, answers what its script asks for, watches its deadline.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use toolbay_api::{ErrorKind, Host, Limits, LoadError, ToolError};

use crate::{
    death,
    driver::{self, answer},
    frame::{Comparison, Outcome, Request},
    mail::Letter,
    pool::{Class, Owner, Pool, unavailable},
    worker::{CallSpec, InFlight},
};

/// Workers that are tried where one ends between being chosen and being written to.
const TRIES: usize = 3;

/// Runs a call in a worker, where it has a place at latest at `place_by`. `make` is asked when it has one.
///
/// # Errors
/// The script's own; `TimedOut` at its deadline; what a lost worker means for it; what the pool says.
///
/// # Cancel safety
/// Dropping the future cancels the call; a worker that does not end it in time is killed.
pub(crate) async fn run<'a>(
    pool: &Pool,
    owner: &Owner,
    class: Class,
    place_by: Instant,
    make: impl Fn() -> CallSpec<'a>,
) -> Result<Outcome, ToolError> {
    let mut tries = 0;
    let (in_flight, host) = loop {
        let slot = pool.place(owner, class, place_by).await?;
        let worker = Arc::clone(&slot.worker);
        let spec = make();
        let host = spec.host.clone();
        match worker.submit(spec, slot) {
            Ok(in_flight) => break (in_flight, host),
            // Nothing of the call was begun, so another worker may have it.
            Err(gone) => drop(gone.0),
        }
        tries += 1;
        if tries >= TRIES {
            return Err(unavailable("the tool's worker process ended before the call began; try again"));
        }
    };
    attend(pool, in_flight, host).await
}

/// Waits for the end, and serves the script until then.
async fn attend(pool: &Pool, mut in_flight: InFlight, host: Option<Arc<dyn Host>>) -> Result<Outcome, ToolError> {
    let worker = Arc::clone(&in_flight.worker);
    // The worker ends the call itself at the deadline; only one that cannot is given up here.
    let given_up = in_flight.deadline + pool.config.grace;
    // One timer for both, since most calls are over before either.
    let mut timer = pin!(tokio::time::sleep_until((Instant::now() + driver::WATCH).min(given_up).into()));
    let mut overrun = pin!(async {
        timer.as_mut().await;
        if Instant::now() < given_up {
            // The call is a long one: its worker is weighed from now on.
            worker.control.notify_one();
            timer.as_mut().reset(given_up.into());
            timer.as_mut().await;
        }
    });
    loop {
        let mail = Arc::clone(&in_flight.mail);
        let letter = tokio::select! {
            biased;
            letter = poll_fn(|cx| mail.poll(cx)) => letter,
            () = overrun.as_mut() => {
                in_flight.give_up(Duration::ZERO);
                return Err(death::timed_out());
            }
        };
        match letter {
            Letter::Done(outcome) => {
                in_flight.is_over = true;
                return Ok(outcome);
            }
            Letter::Lost(error) => {
                in_flight.is_over = true;
                return Err(error);
            }
            Letter::Request(request) => {
                let Some(host) = &host else { continue };
                tokio::select! {
                    () = serve(&in_flight, &**host, request) => {}
                    // The worker may end meanwhile.
                    letter = poll_fn(|cx| mail.poll(cx)) => mail.put(letter),
                    () = overrun.as_mut() => {
                        in_flight.give_up(Duration::ZERO);
                        return Err(death::timed_out());
                    }
                }
            }
        }
    }
}

/// Does what a script asked for. The host checks the grant.
async fn serve(in_flight: &InFlight, host: &dyn Host, request: Request) {
    let (worker, call) = (&*in_flight.worker, in_flight.call);
    match request {
        Request::KvGet(key) => answer(worker, call, host.kv_get(&key).await, |frame, value| {
            frame.u8(u8::from(value.is_some()));
            if let Some(value) = value {
                frame.json(value);
            }
        }),
        Request::KvSet(key, value) => answer(worker, call, host.kv_set(&key, value).await, |_, ()| {}),
        Request::KvDelete(key) => {
            answer(worker, call, host.kv_delete(&key).await, |frame, existed| frame.u8(u8::from(*existed)));
        }
        Request::KvList(prefix, limit) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            answer(worker, call, host.kv_list(&prefix, limit).await, |frame, keys| frame.json(keys));
        }
        Request::KvSetFor(key, value, ttl_ms) => {
            let ttl = Duration::from_millis(ttl_ms);
            answer(worker, call, host.kv_set_for(&key, value, ttl).await, |_, ()| {});
        }
        Request::KvCompareAndSet(comparison) => {
            let Comparison { key, expected, new, ttl_ms } = *comparison;
            let ttl = ttl_ms.map(Duration::from_millis);
            let was_equal = host.kv_compare_and_set(&key, Some(expected), Some(new), ttl).await;
            answer(worker, call, was_equal, |frame, was_equal| frame.u8(u8::from(*was_equal)));
        }
        Request::KvListAfter(prefix, after, limit) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            answer(worker, call, host.kv_list_after(&prefix, &after, limit).await, |frame, keys| frame.json(keys));
        }
        Request::CallTool(tool, arguments) => {
            let output = host.call_tool(&tool, arguments).await.map(|output| output.data);
            answer(worker, call, output, |frame, data| frame.json(data));
        }
        Request::Http(request) => {
            answer(worker, call, host.http(request).await, |frame, answer| frame.json(answer));
        }
        Request::Emit(event, payload) => answer(worker, call, host.emit(&event, payload).await, |_, ()| {}),
        Request::Secret(name) => answer(worker, call, host.secret(&name).await, |frame, secret| frame.text(secret)),
        // The driver has answered these.
        Request::Log(..)
        | Request::Config
        | Request::Assets
        | Request::NowMs
        | Request::Uuid
        | Request::Random
        | Request::Tools => {}
    }
}

/// A failure of a worker while loading.
pub(crate) fn load_error(error: &ToolError, limits: &Limits) -> LoadError {
    if error.kind == ErrorKind::TimedOut {
        let message =
            format!("loading took longer than the {:?} that a call may take: write less, or simpler", limits.timeout);
        return LoadError::new(ErrorKind::TimedOut, message);
    }
    let message = match error.operator_detail() {
        Some(detail) => format!("{}: {detail}", error.message),
        None => error.message.clone().into_owned(),
    };
    LoadError::new(error.kind, message)
}

/// An outcome that does not belong here.
pub(crate) fn out_of_place() -> ToolError {
    ToolError::new(ErrorKind::Internal, "a worker gave an answer of the wrong kind; tell the operator")
}
