//! Names to addresses. A trait, because the check of what it answers is only worth something if a test can make it
//! answer differently each time, and because some hosts have a resolver of their own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use async_trait::async_trait;

/// Finds the addresses of a host name.
///
/// It is asked once for each hop, and the connection goes to one of the addresses of that answer and to no other.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of `host`, which is a name in lower-case ASCII (IDN in punycode) without a dot at the end.
    ///
    /// # Errors
    /// Where the name has no address or the answer did not come.
    ///
    /// # Cancel safety
    /// The future is run to its end in a task of its own, also when the request was given up, and holds the request's
    /// place among those in flight until then. So it must end by itself within a few seconds.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
///
/// Names are looked up as they are, never below a search domain of the machine: a grant for `api` must not reach
/// `api.corp.example`. Therefore names that stand only in a hosts file may not be found; a host that needs those
/// gives its own [`Resolver`]. `localhost` and names below it are 127.0.0.1, without a look-up (RFC 6761, section 6.3).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        // The dot at the end is what makes a name absolute. The port has no meaning here.
        let addresses = tokio::net::lookup_host((format!("{host}."), 0)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}
