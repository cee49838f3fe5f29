//! Who asks: the key that a request shows.
//!
//! A request without a key, with something that is none, and with one that is unknown, over, revoked or of a suspended
//! tenant are answered alike, after the same work.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{Extensions, HeaderMap, StatusCode, header::AUTHORIZATION},
};
use tokio::time::Instant;
use toolbay_runtime::Principal;

use crate::{app::App, problem::Problem};

/// Bytes of a key that is looked at; a longer one is none.
const MAX_KEY: usize = 256;

/// Finds out who asks. Gives the key too.
///
/// # Errors
/// 401; 429 where too many requests without a valid key came from this address.
pub(crate) fn authenticate(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<(Principal, String), Problem> {
    let presented = bearer(headers).unwrap_or_default();
    // Asked in any case, so that what is missing takes as long as what is wrong.
    if let Some(principal) = app.control.authenticate(presented) {
        return Ok((principal, presented.to_owned()));
    }
    app.metrics.refused_keys.inc();
    match app.guesses.note(peer_of(extensions), Instant::now().into_std()) {
        None => Err(Problem::unauthenticated()),
        Some(seconds) => {
            let message =
                "too many requests without a valid key came from this address; a valid key passes at any time";
            Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, "RateLimited", message, seconds))
        }
    }
}

/// The key in the header, where there is one header of the right form.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (first, None) = (all.next()?, all.next()) else { return None };
    let (scheme, key) = first.to_str().ok()?.split_once(' ')?;
    let key = key.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() && key.len() <= MAX_KEY).then_some(key)
}

fn peer_of(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}
