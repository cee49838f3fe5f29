//! Outgoing HTTP for tenants' plugins: by grant, to checked addresses, within bounds.
//!
//! A plugin's author may be hostile, and so may the server that it asks and the zone that names that server. This
//! crate is the one place where a plugin's request leaves the host, and all that it opens is opened by the host:
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use serde_json::json;
//! use toolbay_api::{ErrorKind, PermissionSet, TenantId};
//! use toolbay_http::{HttpCall, HttpClient, HttpRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One for the process.
//! let client = HttpClient::builder().build()?;
//!
//! // What a plugin asks for, and what it may.
//! let request = HttpRequest::from_json(json!({"url": "https://169.254.169.254/latest/meta-data/"}))?;
//! let grants = PermissionSet::parse(["http:GET:*"])?;
//! let tenant = TenantId::new("acme")?;
//!
//! let call = HttpCall {
//!     tenant: &tenant,
//!     allow: &|action: &str| grants.covers(action),
//!     deadline: Instant::now() + Duration::from_secs(5),
//!     max_response_bytes: 64 << 10,
//! };
//! // The grant covers every host, but this one is at a cloud's metadata address.
//! let error = client.send(request, call).await.unwrap_err();
//! assert_eq!(error.kind, ErrorKind::PermissionDenied);
//! # Ok(())
//! # }
//! ```
//!
//! # Grants
//!
//! A request needs the permission `http:METHOD:HOST` for `https://` URLs. The method is in upper case; the host is in
//! lower case, IDN in punycode, without a dot at the end, an IPv6 address in brackets. Any port but 443 follows:
//! `http:GET:api.example.com:8443`. So a grant without a port is one for port 443 only, a grant with `:*` at its end is
//! one for all other ports, and a `*` that ends a grant covers hosts and ports alike: `http:GET:api.*` covers
//! `api.evil.example:22`. As a `*` also stands for dots, `http:GET:*.example.com` covers `a.b.example.com`, though not
//! `example.com`.
//!
//! Plain `http://` needs two keys. The host process says [`allow_plain_http`](HttpClientBuilder::allow_plain_http),
//! and the grant is another word, `http-plain:METHOD:HOST`, where port 80 is the one left out. A grant for a host is
//! thus never one for talking to it in the clear, and a redirect from TLS to the clear is not followed at all.
//!
//! # Addresses
//!
//! The client looks names up itself, checks every address that it finds by [`AddressRules`], and connects to one of
//! those and to no other; an address in a URL is checked likewise. Only public addresses pass, and what the host names
//! by [`allow_network`](HttpClientBuilder::allow_network). A name with one refused address is refused. The grant is
//! asked first, so that an ungranted name is not even looked up.
//!
//! # Redirects
//!
//! They are followed by hand, at most [`max_redirects`](HttpLimits::max_redirects) times. Each hop is a request of its
//! own: scheme, grant for its method and host, look-up, addresses. The method changes as in browsers. To another origin
//! only a few harmless header fields go along; a body goes along where the status says so (307, 308) and the hop is
//! granted.
//!
//! # Connections
//!
//! Each hop has a connection of its own, in HTTP/1.1, closed after the answer. None is pooled, since a pool would hand
//! what one check opened to a request whose own check may have had another answer, and one tenant's connection to the
//! next. That costs a handshake for each request. No proxy of the environment is used, no cookies are kept, nothing is
//! decompressed (`accept-encoding: identity` is sent, and a compressed answer is given as it came).
//!
//! # TLS
//!
//! `rustls` with `ring`, which needs no cmake and has an eighth of the source of `aws-lc-rs`. The trusted roots are
//! Mozilla's, compiled in by `webpki-roots`, and those that the host [adds](HttpClientBuilder::add_roots_pem): the
//! machine's own store is a file that differs between replicas and is missing in small containers, and where it is
//! looked for can be changed in the environment. The price is that roots age with the program, and that revocation is
//! not checked.
//!
//! # What it does not do
//!
//! It cannot keep a plugin from sending what it knows to a host that it was granted. It bounds requests at once, not
//! requests a minute: those are host calls, which the call's own limits count. A plugin can learn that a name which it
//! was granted leads to a refused address, though not to which.
//!
//! # Layout
//!
//! - `client`: the road of a request; `connection`: one hop of it; `redirect`: what the next hop is.
//! - `request`, `response`: the forms that plugins see; `target`: a URL in its one spelling.
//! - `send`: the client as the sender of a host's plugins.
//! - `address`, `resolve`, `allow`, `limits`, `slots`: what each step of the road asks.

mod address;
mod allow;
mod client;
mod connection;
mod limits;
mod redirect;
mod request;
mod resolve;
mod response;
mod send;
mod slots;
mod target;

pub use ipnet::IpNet;

pub use address::{AddressRefused, AddressRules};
pub use allow::Allow;
pub use client::{HttpClient, HttpClientBuilder, HttpSetupError};
pub use limits::{HttpCall, HttpLimits};
pub use request::HttpRequest;
pub use resolve::{Resolver, SystemResolver};
pub use response::HttpResponse;
