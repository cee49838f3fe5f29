//! Guessing keys: failures are counted by the address that they come from, and too many are answered with status 429.
//!
//! Nobody can be locked out by it: a valid key is looked at before any count and passes, whatever else came from its
//! address. What the bound saves is work and log lines; keys of 256 bits are not found by guessing.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Addresses that are followed at once. Those beyond share one count, which locks out none but those who fail.
const MAX_ADDRESSES: usize = 8_192;
const WINDOW: Duration = Duration::from_secs(60);

/// Failures by address, for servers that answer them less and less.
pub struct Guesses {
    allowed: u32,
    // std's Mutex: held for a look or a change only.
    seen: Mutex<HashMap<Option<IpAddr>, Window>>,
}

#[derive(Clone, Copy)]
struct Window {
    begun: Instant,
    failures: u32,
}

impl Guesses {
    /// So many failures a minute from one address; with IPv6, from one /64.
    #[must_use]
    pub fn new(allowed: u32) -> Self {
        Self { allowed, seen: Mutex::default() }
    }

    /// Counts a failure from `peer`. Gives the seconds until its count begins anew where that was one too many.
    pub fn note(&self, peer: Option<IpAddr>, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = peer.map(network_of);
        if seen.len() >= MAX_ADDRESSES && !seen.contains_key(&key) {
            seen.retain(|_, window| now.saturating_duration_since(window.begun) < WINDOW);
            if seen.len() >= MAX_ADDRESSES {
                key = None;
            }
        }
        let window = seen.entry(key).or_insert(Window { begun: now, failures: 0 });
        if now.saturating_duration_since(window.begun) >= WINDOW {
            *window = Window { begun: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
        let left = WINDOW.saturating_sub(now.saturating_duration_since(window.begun));
        (window.failures > self.allowed).then(|| left.as_secs().max(1))
    }
}

/// The network that one guesser has for himself: with IPv6 that is a /64 at least.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
