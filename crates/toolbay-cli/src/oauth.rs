//! The section of the configuration file that lets tokens of an authorization server in beside the host's own keys.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay::mcp::{FetchedKeys, JwtIssuer, JwtOptions};

use crate::outside::HttpSection;

/// Whose tokens let clients in at /mcp, beside the host's own keys. Toolbay is the resource of OAuth 2.1 then.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OauthSection {
    /// The authorization server, just as its tokens have it in iss.
    issuer: String,
    /// This server's address as clients know it, which tokens must have in aud: `https://tools.example.com/mcp`.
    resource: String,
    /// Where the authorization server publishes its keys; the section http says which networks and whether `http://` will do.
    jwks_uri: String,
    /// The claim that names the tenant.
    #[serde(default = "tenant_claim")]
    tenant_claim: String,
    /// The scope that a token must have; without it any will do.
    required_scope: Option<String>,
}

fn tenant_claim() -> String {
    "tenant".to_owned()
}

impl OauthSection {
    /// Who reads the tokens; the error begins with the key.
    pub(crate) fn issuer(&self, http: &HttpSection) -> Result<JwtIssuer, String> {
        for (key, address) in [("resource", &self.resource), ("jwks_uri", &self.jwks_uri)] {
            let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
                return Err(format!("oauth.{key}: {address:?} is no address: write it as https://HOST/PATH"));
            }
        }
        for (key, text) in [("issuer", &self.issuer), ("tenant_claim", &self.tenant_claim)] {
            if text.is_empty() {
                return Err(format!("oauth.{key}: must not be empty"));
            }
        }
        let client = http.client().map_err(|problem| format!("http.{problem}"))?;
        let options = JwtOptions {
            issuer: self.issuer.clone(),
            resource: self.resource.clone(),
            tenant_claim: self.tenant_claim.clone(),
            required_scope: self.required_scope.clone(),
        };
        Ok(JwtIssuer::new(options, FetchedKeys { url: self.jwks_uri.clone(), http: Arc::new(client) }))
    }
}
