//! Real models over HTTP, through the `genai` client: OpenAI and what is compatible with it, Anthropic, Gemini, Ollama
//! and others. It stands behind the feature `providers`, since most of a build's HTTP and TLS hangs on it.
//!
//! # Layout
//!
//! `config`: which provider, where and with which key. `request` and `response`: the conversation in both directions.
//! `stream` has replies piece by piece.
//! `fallback` reads replies that the client refuses, `continuity` keeps what only the provider can read, `failure` tells
//! errors apart by what a caller can do.

mod config;
mod continuity;
mod failure;
mod fallback;
mod request;
mod response;
mod stream;

use std::fmt;

use async_trait::async_trait;
use genai::{Client, ModelIden, WebConfig, chat::ChatOptions, resolver};
use toolbay_api::{ModelRequest, ModelResponse};

pub use config::ProviderConfig;

use crate::{
    model::{Model, ModelError, ModelErrorKind},
    parts::Parts,
};
use config::Target;
use continuity::Continuity;

/// A model of a provider. One value serves any number of runs at once and keeps its connections.
pub struct Provider {
    target: Target,
    client: Client,
    continuity: Continuity,
    strict_tools: bool,
}

impl Provider {
    /// The model called `model` with key and address from the environment.
    ///
    /// A name is understood in this order:
    ///
    /// 1. `PROVIDER:NAME` asks that provider: `openai:my-model`, `ollama:llama3`, `groq:...`, `open_router:...`;
    /// 2. with `OPENAI_BASE_URL` set, any other name goes there, over chat completions;
    /// 3. a name that tells its provider goes there: `gpt-4o-mini`, `claude-...`, `gemini-...`.
    ///
    /// The key comes from the provider's usual variable (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`, ...),
    /// another address from `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL`, `GEMINI_BASE_URL` or `OLLAMA_BASE_URL`.
    ///
    /// # Errors
    /// `Auth` where the key is not there, with the variable to set; `Config` where the provider cannot be told or an
    /// address is none.
    pub fn from_env(model: &str) -> Result<Self, ModelError> {
        let ProviderConfig { timeout, strict_tools, .. } = ProviderConfig::default();
        Self::connect(Target::from_lookup(model, |name| std::env::var(name).ok())?, timeout, strict_tools)
    }

    /// A model with key and address as given; the environment is not looked at.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn new(config: ProviderConfig) -> Result<Self, ModelError> {
        let (timeout, strict_tools) = (config.timeout, config.strict_tools);
        Self::connect(Target::from_config(config)?, timeout, strict_tools)
    }

    /// Makes the client. No connection is made before the first request.
    fn connect(target: Target, timeout: std::time::Duration, strict_tools: bool) -> Result<Self, ModelError> {
        let web = WebConfig::default().with_timeout(timeout).with_connect_timeout(timeout.min(config::CONNECT_TIMEOUT));
        let auth = resolver::AuthData::from_single(target.key.to_string());
        let mut settings = resolver::ProviderConfig::from(auth);
        if let Some(url) = &target.base_url {
            settings.endpoint = Some(resolver::Endpoint::from_owned(url.as_str()));
        }
        let client = Client::builder().with_web_config(web).append_provider_config(target.adapter, settings).build();
        let client = client.map_err(|error| {
            ModelError::new(ModelErrorKind::Config, "the HTTP client could not be made: see the log")
                .with_source(error.to_string())
        })?;
        Ok(Self { target, client, continuity: Continuity::default(), strict_tools })
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("target", &self.target).finish_non_exhaustive()
    }
}

#[async_trait]
impl Model for Provider {
    fn id(&self) -> &str {
        &self.target.id
    }

    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        self.answer(request, &Parts::none()).await
    }

    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        self.answer(request, parts).await
    }
}

impl Provider {
    /// Asks, piece by piece where somebody wants that.
    async fn answer(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        // The raw body is what the fallback reader reads, and the only place of some fields.
        let mut options = ChatOptions::default().with_capture_raw_body(true).with_normalize_reasoning_content(true);
        options.max_tokens = request.max_output_tokens;
        options.temperature = request.temperature;
        let place = self.continuity.place(&request.messages);
        let schemas = request::Schemas::of(&request.tools, self.target.adapter, self.strict_tools);
        let chat = request::chat_request(request, &schemas, self.target.adapter, &self.continuity);
        let model = ModelIden::new(self.target.adapter, self.target.name.as_str());
        if parts.are_wanted() {
            let reply = self.streamed(model, chat, options, parts).await?;
            self.continuity.keep(place, &reply.content);
            return response::model_response(reply, &self.target).map(|response| schemas.restored(response));
        }
        let response = match self.client.exec_chat(model, chat, Some(&options)).await {
            Ok(reply) => {
                self.continuity.keep(place, &reply.content);
                response::model_response(reply, &self.target)
            }
            Err(genai::Error::ChatResponseGeneration { response_body, cause, .. }) => {
                fallback::read(&response_body).ok_or_else(|| failure::not_understood(&self.target, &cause))
            }
            Err(error) => Err(failure::model_error(&error, &self.target)),
        };
        response.map(|response| schemas.restored(response))
    }
}
