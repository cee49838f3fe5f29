//! The road of a request: bounds, grant, place, look-up, address, connection, and again for each redirect.

mod builder;
mod line;

pub use builder::{HttpClientBuilder, HttpSetupError};

use std::{
    fmt, io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Response;
use serde_json::json;
use toolbay_api::{ErrorKind, ToolError};
use url::Host;

use crate::{
    address::AddressRules,
    connection::{self, Connector},
    limits::{HttpCall, HttpLimits},
    redirect,
    request::{HttpRequest, header_bytes},
    resolve::Resolver,
    response::HttpResponse,
    slots::{Slot, Slots},
    target::{Scheme, Target},
};
use line::Line;

/// Addresses that a connection is tried to. All that a name has are checked, but a hostile zone can have thousands.
const MAX_ADDRESSES: usize = 8;

/// Sends plugins' requests. One for the host process, as it counts what is in flight; a clone is the same one.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    limits: HttpLimits,
    rules: AddressRules,
    plain: PlainHttp,
    resolver: Arc<dyn Resolver>,
    connector: Connector,
    slots: Arc<Slots>,
}

/// Whether `http://` URLs can be asked for at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlainHttp {
    Refused,
    ByGrant,
}

impl HttpClient {
    /// A client to be set up; as it is, it reaches public addresses over TLS.
    #[must_use]
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder::default()
    }

    /// Sends `request` and reads the answer, following redirects.
    ///
    /// Called by a host function, with the grants of the plugin that called it. For each hop, the first as well, the
    /// grant for [`action`](HttpRequest::action) is asked before the name is looked up, since a look-up alone can carry
    /// data out, and every address of the name is checked before one is connected to.
    ///
    /// # Errors
    /// - `InvalidArguments` where the request is larger than [`HttpLimits`] says, or its URL cannot be sent.
    /// - `PermissionDenied` where the grant is missing for a hop, the hop leads to an address that is refused, or a
    ///   redirect leaves TLS. Which address it was stands in the source, for the operator.
    /// - `RateLimited` where the tenant has too many requests in flight.
    /// - `TimedOut` at the deadline, whatever the server does until then.
    /// - `Unavailable`, to be tried again, where there are too many requests in the process, the name has no address,
    ///   or the connection fails; not to be tried again where the answer is too large or redirects too often. Those
    ///   have `{limit, allowed}` as details.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection. The server may have acted on the request.
    pub async fn send(&self, request: HttpRequest, call: HttpCall<'_>) -> Result<HttpResponse, ToolError> {
        let mut line = Line::begin(&request, &call);
        let result = self.0.send(request, call, &mut line).await;
        line.end(&result);
        result
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("limits", &self.0.limits)
            .field("rules", &self.0.rules)
            .field("plain", &self.0.plain)
            .finish_non_exhaustive()
    }
}

impl Inner {
    async fn send(&self, request: HttpRequest, call: HttpCall<'_>, line: &mut Line) -> Result<HttpResponse, ToolError> {
        self.check_size(&request)?;
        self.check_grant(&request, &call)?;
        let slot = Arc::new(self.slots.take(call.tenant)?);
        let host = request.authority();
        let deadline = deadline_of(&request, &call);
        let late = || {
            let message = format!("the request to `{host}` was not answered in time; ask for less, or try later");
            ToolError::new(ErrorKind::TimedOut, message)
        };
        if deadline <= Instant::now() {
            return Err(late());
        }
        // One clock around the whole: a timeout for each read would let a server that drips bytes go on for ever.
        // Boxed, since the future of the whole exchange is large and callers keep it inside their own.
        let road = Box::pin(self.follow(request, &call, &slot, line));
        tokio::time::timeout_at(deadline.into(), road).await.unwrap_or_else(|_| Err(late()))
    }

    async fn follow(
        &self,
        mut request: HttpRequest,
        call: &HttpCall<'_>,
        slot: &Arc<Slot>,
        line: &mut Line,
    ) -> Result<HttpResponse, ToolError> {
        let mut redirects = 0;
        loop {
            let addresses = self.addresses(&request.target, slot).await?;
            let response = self.connector.exchange(&request, addresses).await?;
            line.status = response.status().as_u16();
            if header_bytes(response.headers()) > self.limits.max_response_header_bytes {
                return Err(connection::header_too_large(&request.authority()));
            }
            let Some(next) = redirect::next(&request, response.status(), response.headers())? else {
                return self.receive(&request, response, call, line).await;
            };
            if redirects == self.limits.max_redirects {
                return Err(too_much("redirects", redirects, &request.authority()));
            }
            redirects += 1;
            line.redirects = redirects;
            let from = request.authority();
            self.check_size(&next).map_err(|_| too_much("url_bytes", self.limits.max_url_bytes, &from))?;
            self.check_grant(&next, call).map_err(|mut error| {
                error.message = format!("{} (the host `{from}` redirected there)", error.message).into();
                error
            })?;
            request = next;
        }
    }

    fn check_size(&self, request: &HttpRequest) -> Result<(), ToolError> {
        let bounds = [
            ("url", request.target.url().as_str().len(), self.limits.max_url_bytes),
            ("headers", request.header_bytes(), self.limits.max_request_header_bytes),
            ("body", request.body.len(), self.limits.max_request_bytes),
        ];
        for (member, used, allowed) in bounds {
            if used > allowed {
                let message = format!("the HTTP request's `{member}` has {used} bytes, and {allowed} are allowed");
                let details =
                    json!({"limit": format!("http_request_{member}_bytes"), "allowed": allowed, "used": used});
                return Err(ToolError::new(ErrorKind::InvalidArguments, message).with_details(details));
            }
        }
        Ok(())
    }

    fn check_grant(&self, request: &HttpRequest, call: &HttpCall<'_>) -> Result<(), ToolError> {
        if request.target.scheme() == Scheme::Http && self.plain == PlainHttp::Refused {
            let message = format!("this host sends no plain http: use https with `{}`", request.authority());
            return Err(ToolError::new(ErrorKind::PermissionDenied, message));
        }
        call.allow.require(&request.action())
    }

    /// The addresses to connect to, all of them checked.
    async fn addresses(&self, target: &Target, slot: &Arc<Slot>) -> Result<Vec<IpAddr>, ToolError> {
        let found = match target.host() {
            // An address in a URL is never looked up, by the connector neither, so this check is its only one.
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => self.look_up(name, slot).await?,
        };
        // One refused address refuses the name. A public name with a private address among its own is what an attack
        // by rebinding looks like, and to go on with the rest would only make it succeed less often.
        let checked: Result<Vec<_>, _> = found.into_iter().map(|address| self.rules.check(address)).collect();
        let mut checked = checked.map_err(|refused| {
            let message =
                format!("the host `{}` is at an address that plugins must not reach; use another", target.authority());
            ToolError::new(ErrorKind::PermissionDenied, message).with_source(refused)
        })?;
        checked.truncate(MAX_ADDRESSES);
        Ok(checked)
    }

    async fn look_up(&self, name: &str, slot: &Arc<Slot>) -> Result<Vec<IpAddr>, ToolError> {
        let failed = |error: io::Error| {
            let message = format!("the host name `{name}` has no address, or none was found in time; try again later");
            ToolError::new(ErrorKind::Unavailable, message).with_source(error)
        };
        // The system's look-up runs on a thread that cannot be stopped. In a task of its own that keeps the request's
        // place, requests that are given up early cannot pile up threads beyond the places that there are.
        let (resolver, owned, slot) = (Arc::clone(&self.resolver), name.to_owned(), Arc::clone(slot));
        let task = tokio::spawn(async move {
            let found = resolver.resolve(&owned).await;
            drop(slot);
            found
        });
        let found = task.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        if found.is_empty() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        Ok(found)
    }

    async fn receive(
        &self,
        request: &HttpRequest,
        mut response: Response,
        call: &HttpCall<'_>,
        line: &mut Line,
    ) -> Result<HttpResponse, ToolError> {
        let host = request.authority();
        let allowed = self.limits.max_response_bytes.min(call.max_response_bytes);
        let announced = response.content_length().unwrap_or_default();
        if announced > u64::try_from(allowed).unwrap_or(u64::MAX) {
            return Err(too_much("response_bytes", allowed, &host));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| connection::failed(&host, error))? {
            line.bytes += chunk.len();
            if line.bytes > allowed {
                return Err(too_much("response_bytes", allowed, &host));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body: body.into(),
            url: request.target.url().to_string(),
        })
    }
}

/// The earlier of the call's deadline and the request's own timeout.
fn deadline_of(request: &HttpRequest, call: &HttpCall<'_>) -> Instant {
    let own = request.timeout.and_then(|timeout: Duration| Instant::now().checked_add(timeout));
    own.map_or(call.deadline, |own| own.min(call.deadline))
}

/// The error of a server that goes beyond a bound. Asking again would change nothing.
fn too_much(limit: &str, allowed: usize, host: &str) -> ToolError {
    let message = match limit {
        "url_bytes" => format!("`{host}` redirected to a URL of more than {allowed} bytes, which is the limit"),
        "redirects" => format!("`{host}` redirected the request again after {allowed} redirects, which is the limit"),
        _ => format!("`{host}` answered with more than {allowed} bytes, which is the limit; ask it for less at once"),
    };
    ToolError::new(ErrorKind::Unavailable, message)
        .with_retryable(false)
        .with_details(json!({ "limit": format!("http_{limit}"), "allowed": allowed }))
}
