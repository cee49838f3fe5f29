//! What a redirect turns a request into. Redirects are followed by hand, because each hop is a request of its own to a
//! host that the first grant says nothing about.

use reqwest::{
    Method, StatusCode,
    header::{
        ACCEPT, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, HeaderMap,
        HeaderName, HeaderValue, LOCATION, RANGE, USER_AGENT,
    },
};
use toolbay_api::{ErrorKind, ToolError};

use crate::{
    request::HttpRequest,
    target::{Scheme, Target},
};

/// Fields that go along to another origin. A list of what may leave rather than of what may not: `authorization` and
/// `cookie` are known to be secret, but so are the `x-api-key` and `private-token` of a hundred APIs.
const GO_ALONG: [HeaderName; 7] =
    [ACCEPT, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, RANGE, USER_AGENT];

/// The request that the answer asks for instead of `request`, or `None` where it is no redirect.
///
/// # Errors
/// `PermissionDenied` where it points to what no plugin may ask for: another scheme, a user name in the URL, or from
/// TLS to the clear. Whether host and address are allowed is not decided here.
pub(crate) fn next(
    request: &HttpRequest,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<HttpRequest>, ToolError> {
    let keeps_method = match status {
        // The Fetch standard, section 4.4, step 12, which RFC 9110, section 15.4, allows: browsers made it so.
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => request.method != Method::POST,
        StatusCode::SEE_OTHER => matches!(request.method, Method::GET | Method::HEAD),
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => return Ok(None),
    };
    let Some(location) = headers.get(LOCATION) else {
        return Ok(None);
    };
    let target = target_of(&request.target, location)?;
    let mut next = HttpRequest { target, ..request.clone() };
    if !keeps_method {
        next.method = Method::GET;
        next.body.clear();
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION] {
            next.headers.remove(name);
        }
    }
    if !next.target.has_origin_of(&request.target) {
        let names: Vec<_> = next.headers.keys().filter(|name| !GO_ALONG.contains(name)).cloned().collect();
        for name in names {
            next.headers.remove(name);
        }
    }
    Ok(Some(next))
}

fn target_of(from: &Target, location: &HeaderValue) -> Result<Target, ToolError> {
    let denied = |why: &str| {
        let message = format!("the host `{}` redirected the request, but the new URL {why}", from.authority());
        ToolError::new(ErrorKind::PermissionDenied, message)
    };
    let location = location.to_str().map_err(|_| denied("is not ASCII"))?;
    let target = from.join(location).map_err(|error| denied(&error.to_string()))?;
    if from.scheme() == Scheme::Https && target.scheme() == Scheme::Http {
        return Err(denied("leaves TLS for plain http"));
    }
    Ok(target)
}
