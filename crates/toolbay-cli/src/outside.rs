//! The sections of the configuration file that open a way out of this host: HTTP, and secrets. They stand apart from the
//! file's other sections since here a mistake opens something.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use toolbay::{
    EnvSecrets, FileSecrets, HttpSend, HttpSendContext, SecretChain, ToolError, async_trait,
    http::{HttpClient, HttpLimits, IpNet},
    mcp_client::HttpPolicy,
};

/// Plugins' HTTP requests; hosts and methods are granted like everything else.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpSection {
    /// Whether http:// may be granted, as http-plain:GET:HOST.
    allow_plain_http: bool,
    /// Networks that are not public and may be reached all the same: 10.0.0.0/8.
    allow_networks: Vec<String>,
    /// Bytes of an answer; a call's max_string_bytes may be less.
    max_response_bytes: Option<usize>,
    /// A request's time in milliseconds, where the call's is longer.
    timeout_ms: Option<u64>,
}

impl HttpSection {
    /// Where MCP servers may be that are called; the error begins with the key.
    pub(crate) fn mcp(&self) -> Result<HttpPolicy, String> {
        let mut policy = HttpPolicy::default();
        for network in self.networks() {
            policy.addresses.allow(network?);
        }
        Ok(policy)
    }

    fn networks(&self) -> impl Iterator<Item = Result<IpNet, String>> {
        self.allow_networks.iter().map(|network| {
            network.parse().map_err(|_| {
                format!("allow_networks: {network:?} is no network: write an address and its bits, as in 10.0.0.0/8")
            })
        })
    }

    /// The client that the section describes; the error begins with the key.
    pub(crate) fn client(&self) -> Result<TimedHttp, String> {
        let mut limits = HttpLimits::default();
        limits.max_response_bytes = self.max_response_bytes.unwrap_or(limits.max_response_bytes);
        let mut builder = HttpClient::builder().limits(limits);
        if self.allow_plain_http {
            builder = builder.allow_plain_http();
        }
        for network in self.networks() {
            builder = builder.allow_network(network?);
        }
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(TimedHttp { client, timeout: self.timeout_ms.map(Duration::from_millis) })
    }
}

/// A client whose requests have a time of their own.
pub(crate) struct TimedHttp {
    client: HttpClient,
    timeout: Option<Duration>,
}

#[async_trait]
impl HttpSend for TimedHttp {
    async fn send(&self, request: Value, cx: HttpSendContext<'_>) -> Result<Value, ToolError> {
        let latest = self.timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        let deadline = latest.map_or(cx.deadline, |latest| latest.min(cx.deadline));
        HttpSend::send(&self.client, request, HttpSendContext { deadline, ..cx }).await
    }
}

/// Where the secrets lie that plugins read by grant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SecretsSection {
    /// The variables of the environment that begin with this.
    environment: Option<String>,
    /// Then the files of this folder.
    directory: Option<PathBuf>,
}

impl SecretsSection {
    /// The provider that the section describes, if it names a place; the error begins with the key.
    pub(crate) fn provider(&self) -> Result<Option<SecretChain>, String> {
        let mut chain = SecretChain::default();
        if let Some(prefix) = &self.environment {
            chain = chain
                .then(EnvSecrets::new(prefix.as_str()).map_err(|error| format!("environment: {}", error.message))?);
        }
        if let Some(folder) = &self.directory {
            chain = chain.then(FileSecrets::open(folder).map_err(|error| format!("directory: {}", error.message))?);
        }
        Ok((self.environment.is_some() || self.directory.is_some()).then_some(chain))
    }
}
