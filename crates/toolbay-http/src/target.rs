//! Where a request goes, parsed once: scheme, host and port in one spelling each. The grant, the look-up, the address
//! check and the connection all read this value, so that no two of them can understand a URL differently.

use std::fmt;

use url::{Host, Url};

/// Bytes of a URL that is parsed at all, since a plugin's text comes here before any limit of the host's is looked at.
const MAX_URL_BYTES: usize = 64 << 10;

/// A URL that can be asked for, in its one spelling.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    url: Url,
    host: Host<String>,
    port: u16,
    scheme: Scheme,
}

/// How the connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP over TLS.
    Https,
    /// HTTP in the clear.
    Http,
}

/// A text that is no URL to ask for. The messages complete the sentence "`url` ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("must not have more than {MAX_URL_BYTES} bytes")]
    Length,
    #[error("must not hold spaces, control characters or backslashes: percent-encode them")]
    Characters,
    #[error("is no absolute URL such as https://api.example.com/v1 ({0})")]
    Syntax(#[from] url::ParseError),
    #[error("must begin with https:// or http://")]
    Scheme,
    #[error("must not hold a user name or password: send an `authorization` header")]
    UserInfo,
    #[error("must name a host of letters, digits, hyphens, underscores and dots, or an IP address")]
    Host,
    #[error("must not name port 0")]
    Port,
}

impl Target {
    /// Parses an absolute URL.
    ///
    /// The host is in lower case, IDN in punycode, an IPv4 address in dotted decimals whether it came as decimal,
    /// octal, hexadecimal or percent-encoded text (WHATWG URL, section 3.5), without a dot at its end. A fragment is
    /// dropped, since it is not for the server.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetError> {
        check_text(text)?;
        Self::from_url(Url::parse(text)?)
    }

    /// Parses the `Location` of an answer that came from here.
    pub(crate) fn join(&self, location: &str) -> Result<Self, TargetError> {
        check_text(location)?;
        Self::from_url(self.url.join(location)?)
    }

    fn from_url(mut url: Url) -> Result<Self, TargetError> {
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(TargetError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')).map(str::to_owned) {
            url.set_host(Some(&name)).map_err(|_| TargetError::Host)?;
        }
        url.set_fragment(None);
        let host = url.host().ok_or(TargetError::Host)?.to_owned();
        if let Host::Domain(name) = &host
            && !is_host_name(name)
        {
            return Err(TargetError::Host);
        }
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(TargetError::Port)?;
        Ok(Self { url, host, port, scheme })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL, to add a query to. Nothing that [`Target`] holds beside it depends on the query.
    pub(crate) fn query_mut(&mut self) -> url::form_urlencoded::Serializer<'_, url::UrlQuery<'_>> {
        self.url.query_pairs_mut()
    }

    pub(crate) fn host(&self) -> &Host<String> {
        &self.host
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port as actions and logs have them: `api.example.com`, `api.example.com:8443`, `[2001:db8::1]`. The
    /// scheme's own port is left out.
    pub(crate) fn authority(&self) -> String {
        // `Url::port` is `None` for the scheme's own port, however it was written.
        match self.url.port() {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_string(),
        }
    }

    /// The action that must be granted to ask this with `method`.
    pub(crate) fn action(&self, method: &str) -> String {
        let word = match self.scheme {
            Scheme::Https => "http",
            Scheme::Http => "http-plain",
        };
        format!("{word}:{method}:{}", self.authority())
    }

    /// Whether both have the same origin (RFC 6454): scheme, host and port.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }
}

impl fmt::Debug for Target {
    /// Without path and query: those may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.authority())
    }
}

/// The URL parser drops tabs and line breaks and takes a backslash for a slash. Both are ways to show a reader another
/// host than the one that is asked, and nobody needs them.
fn check_text(text: &str) -> Result<(), TargetError> {
    if text.len() > MAX_URL_BYTES {
        return Err(TargetError::Length);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(TargetError::Characters);
    }
    Ok(())
}

/// RFC 1123 names, and underscores, which some services use.
///
/// The parser lets more through, `*` among it, and a grant's own text must never be taken for a host.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
