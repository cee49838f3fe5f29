//! Signing in to a server: by OAuth with a user in front of a browser, or with what the server's operator gave us.

use std::sync::Arc;

use reqwest::Client;
use rmcp::transport::auth::{
    AuthClient, AuthError, AuthorizationManager, AuthorizationRequest, ClientCredentialsConfig, CredentialStore,
    InMemoryCredentialStore, OAuthState,
};
use toolbay_api::{Secret, async_trait};

use crate::{
    http::{HttpPolicy, OAuthHttp},
    link::LinkError,
};

/// Takes a user to the authorization server.
#[async_trait]
pub trait Browser: Send + Sync {
    /// Opens `url` and gives the address that the authorization server sent the user back to, with all its parameters.
    ///
    /// # Errors
    /// What went wrong, for the user.
    ///
    /// # Cancel safety
    /// Dropping the future gives up.
    async fn visit(&self, url: &str) -> Result<String, String>;
}

/// How to sign in with a user, and what came of it last time.
pub struct SignIn {
    /// Where the authorization server sends the user back to.
    pub redirect_uri: String,
    /// What a user is told of us.
    pub client_name: String,
    /// The https address of our client metadata document, where we have one.
    pub client_metadata_url: Option<String>,
    /// What the authorization server knows us by, where we are registered: an id and perhaps a secret.
    pub registered: Option<(String, Option<Secret>)>,
    /// Who takes the user there.
    pub browser: Arc<dyn Browser>,
    store: InMemoryCredentialStore,
}

/// Why we sign in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The server's `WWW-Authenticate`, where it has sent one.
    pub challenge: Option<String>,
    /// The scopes that we need; those that the server names where there are none.
    pub scopes: Vec<String>,
}

impl SignIn {
    /// By this browser, which comes back to `redirect_uri`.
    pub fn new(browser: Arc<dyn Browser>, redirect_uri: impl Into<String>) -> Self {
        Self {
            redirect_uri: redirect_uri.into(),
            client_name: "Toolbay".to_owned(),
            client_metadata_url: None,
            registered: None,
            browser,
            store: InMemoryCredentialStore::new(),
        }
    }

    /// A client with what is kept from last time, where that is still for the server's authorization server; where nothing
    /// is, without: the server then says what it wants. One that is signed in anew where that is `wanted`.
    pub(crate) async fn client(
        &self,
        url: &str,
        http: (Client, HttpPolicy),
        wanted: Option<&Wanted>,
    ) -> Result<AuthClient<Client>, LinkError> {
        let (client, policy) = http;
        let mut manager = manager(url, &client, policy).await?;
        manager.set_credential_store(self.store.clone());
        let Some(wanted) = wanted else {
            // What is kept for another authorization server is not used; then the server's challenge says what to do.
            manager.initialize_from_store().await.map_err(failed)?;
            return Ok(AuthClient::new(client, manager));
        };
        let kept = self.store.load().await.map_err(failed)?;
        let mut scopes = wanted.scopes.clone();
        if !scopes.is_empty() {
            // Those that we had are still needed, for what they were needed for.
            let had = kept.into_iter().flat_map(|kept| kept.granted_scopes);
            let more: Vec<_> = had.filter(|scope| !wanted.scopes.contains(scope)).collect();
            scopes.splice(0..0, more);
        }
        self.store.clear().await.map_err(failed)?;
        let mut request = AuthorizationRequest::new(&self.redirect_uri).with_client_name(&self.client_name);
        request.client_metadata_url.clone_from(&self.client_metadata_url);
        if let Some((id, secret)) = &self.registered {
            request = request.with_preregistered_client(id);
            request.client_secret = secret.as_ref().map(|secret| secret.expose().to_owned());
        }
        request.challenge.clone_from(&wanted.challenge);
        request.scopes = scopes;
        let mut state = OAuthState::Unauthorized(manager);
        state.start_authorization(request).await.map_err(failed)?;
        let there = state.get_authorization_url().await.map_err(failed)?;
        let back = self.browser.visit(&there).await.map_err(LinkError::SignInFailed)?;
        state.handle_callback_url(&back).await.map_err(failed)?;
        let manager = state.into_authorization_manager();
        let manager = manager.ok_or_else(|| LinkError::SignInFailed("it did not come to an end".to_owned()))?;
        Ok(AuthClient::new(client, manager))
    }
}

/// A client with a token for client credentials.
pub(crate) async fn with_credentials(
    url: &str,
    http: (Client, HttpPolicy),
    client_id: &str,
    client_secret: &Secret,
    scopes: &[String],
) -> Result<AuthClient<Client>, LinkError> {
    let (client, policy) = http;
    let mut state = OAuthState::Unauthorized(manager(url, &client, policy).await?);
    let config = ClientCredentialsConfig::ClientSecret {
        client_id: client_id.to_owned(),
        client_secret: client_secret.expose().to_owned(),
        scopes: scopes.to_vec(),
        resource: Some(url.to_owned()),
    };
    state.authenticate_client_credentials(config).await.map_err(failed)?;
    let manager = state.into_authorization_manager();
    let manager = manager.ok_or_else(|| LinkError::SignInFailed("it did not come to an end".to_owned()))?;
    Ok(AuthClient::new(client, manager))
}

async fn manager(url: &str, client: &Client, policy: HttpPolicy) -> Result<AuthorizationManager, LinkError> {
    let http = Arc::new(OAuthHttp { client: client.clone(), policy });
    AuthorizationManager::new_with_oauth_http_client(url, http).await.map_err(failed)
}

fn failed(error: AuthError) -> LinkError {
    LinkError::SignInFailed(error.to_string())
}
