//! Which provider a model's name means, where it is reached and with which key.

use std::{fmt, sync::Arc, time::Duration};

use genai::adapter::AdapterKind;

use crate::model::{ModelError, ModelErrorKind};

/// The most time for a connection alone; a provider that is there answers well within it.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The providers that a model's name may begin with, the best known first.
pub(super) const PROVIDERS: [&str; 31] = [
    "openai",
    "openai_resp",
    "anthropic",
    "gemini",
    "ollama",
    "open_router",
    "groq",
    "mistral",
    "deepseek",
    "xai",
    "cohere",
    "together",
    "fireworks",
    "vertex",
    "bedrock_api",
    "github_copilot",
    "moonshot",
    "kimi",
    "zai",
    "bigmodel",
    "aliyun",
    "qwen_cloud",
    "baidu",
    "minimax",
    "mimo",
    "nebius",
    "aihubmix",
    "ollama_cloud",
    "omlx",
    "opencode_go",
    "requesty",
];

/// How to reach a model.
#[derive(Clone)]
pub struct ProviderConfig {
    /// The model's name, with or without its provider: `gpt-4o-mini`, `ollama:llama3`.
    pub model: String,
    /// Another address than the provider's own. A name that does not tell its provider is then taken to be one of an
    /// OpenAI-compatible server.
    pub base_url: Option<String>,
    /// The key.
    pub api_key: Option<String>,
    /// The longest time for one request.
    pub timeout: Duration,
    /// Whether models of OpenAI and of what is compatible with it are held to the schemas of tools by the provider (strict
    /// mode), for each tool that this mode has words for.
    pub strict_tools: bool,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            model: String::new(),
            base_url: None,
            api_key: None,
            timeout: Duration::from_secs(120),
            strict_tools: false,
        }
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderConfig")
            .field("model", &self.model)
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key.as_ref().map(|_| "..."))
            .field("timeout", &self.timeout)
            .field("strict_tools", &self.strict_tools)
            .finish()
    }
}

/// A model that was found.
pub(super) struct Target {
    /// The name as the user wrote it.
    pub(super) id: String,
    /// The name as the provider knows it.
    pub(super) name: String,
    pub(super) adapter: AdapterKind,
    /// With a slash at its end, as the client wants it.
    pub(super) base_url: Option<String>,
    /// Empty where the provider asks for none.
    pub(super) key: Arc<str>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.base_url.as_deref().unwrap_or(self.adapter.as_str()))
    }
}

impl Target {
    /// Reads key and address by `variable`, which looks up an environment variable.
    pub(super) fn from_lookup(id: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ModelError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let elsewhere = variable("OPENAI_BASE_URL");
        let (adapter, name) = adapter_of(id, elsewhere.is_some())?;
        let base_url = base_url_variable(adapter).and_then(variable);
        let key = adapter.default_key_env_name().and_then(variable);
        Self::new(id, name, adapter, base_url, key)
    }

    pub(super) fn from_config(config: ProviderConfig) -> Result<Self, ModelError> {
        let elsewhere = config.base_url.is_some();
        let (adapter, name) = match adapter_of(&config.model, false) {
            // Compatible servers speak chat completions; few know OpenAI's newer protocol, so it has to be asked for.
            Ok((AdapterKind::OpenAIResp, name)) if elsewhere && name == config.model => (AdapterKind::OpenAI, name),
            Err(_) if elsewhere => adapter_of(&config.model, true)?,
            found => found?,
        };
        let key = config.api_key.filter(|key| !key.trim().is_empty());
        Self::new(&config.model, name, adapter, config.base_url, key)
    }

    fn new(
        id: &str,
        name: &str,
        adapter: AdapterKind,
        base_url: Option<String>,
        key: Option<String>,
    ) -> Result<Self, ModelError> {
        let key = match (key, adapter.default_key_env_name()) {
            (Some(key), _) => key.trim().to_owned(),
            (None, None) => String::new(),
            (None, Some(variable)) => return Err(no_key(id, variable, base_url.as_deref())),
        };
        let base_url = base_url.map(|url| normal_base_url(&url, adapter)).transpose()?;
        Ok(Self { id: id.to_owned(), name: name.to_owned(), adapter, base_url, key: key.into() })
    }
}

impl Target {
    /// The provider by the names of OpenTelemetry's conventions, else by the client's.
    pub(super) fn telemetry_name(&self) -> &'static str {
        match self.adapter {
            AdapterKind::OpenAI | AdapterKind::OpenAIResp => "openai",
            AdapterKind::Anthropic => "anthropic",
            AdapterKind::Gemini => "gcp.gemini",
            AdapterKind::Vertex => "gcp.vertex_ai",
            AdapterKind::Moonshot | AdapterKind::Kimi => "moonshot_ai",
            AdapterKind::Xai => "x_ai",
            AdapterKind::Mistral => "mistral_ai",
            other => other.as_lower_str(),
        }
    }
}

/// The provider that `id` means and the model's name there. `elsewhere`: there is an OpenAI-compatible server that takes
/// all names without a provider.
fn adapter_of(id: &str, elsewhere: bool) -> Result<(AdapterKind, &str), ModelError> {
    let config = |message: String| ModelError::new(ModelErrorKind::Config, message);
    if id.trim().is_empty() {
        return Err(config("the model has no name: give one such as gpt-4o-mini or ollama:llama3".into()));
    }
    // A colon may also be part of a model's name (`llama3:8b`), so only a known provider counts as one.
    if let Some((prefix, name)) = id.split_once(':')
        && let Some(adapter) = adapter_called(prefix)
    {
        let name = name.strip_prefix(':').unwrap_or(name);
        return if name.is_empty() {
            Err(config(format!("{id:?} names a provider but no model: write {prefix}:MODEL")))
        } else {
            Ok((adapter, name))
        };
    }
    if elsewhere {
        return Ok((AdapterKind::OpenAI, id));
    }
    // The client takes every name that it does not know for one of Ollama's; a misspelt name should not end there.
    match AdapterKind::from_model(id) {
        Ok(adapter) if adapter != AdapterKind::Ollama => Ok((adapter, id)),
        _ => {
            let list = PROVIDERS.join(", ");
            let name = id.split_once(':').map_or(id, |(_, name)| name);
            let wrong = id.split_once(':').map_or_else(String::new, |(prefix, _)| format!(" ({prefix:?} is none)"));
            Err(config(format!(
                "the provider of the model {id:?} is not known{wrong}: write PROVIDER:MODEL, such as ollama:{id} or \
                 openai:{name}, with one of {list}; or set OPENAI_BASE_URL to an OpenAI-compatible server"
            )))
        }
    }
}

fn adapter_called(prefix: &str) -> Option<AdapterKind> {
    let prefix = prefix.to_ascii_lowercase().replace('-', "_");
    let name = if prefix == "openrouter" { "open_router" } else { &prefix };
    // The client's numbered custom providers are set up by variables of its own, which are no part of our promise.
    AdapterKind::from_lower_str(name).filter(|adapter| !matches!(adapter, AdapterKind::Custom(_)))
}

fn base_url_variable(adapter: AdapterKind) -> Option<&'static str> {
    match adapter {
        AdapterKind::OpenAI | AdapterKind::OpenAIResp => Some("OPENAI_BASE_URL"),
        AdapterKind::Anthropic => Some("ANTHROPIC_BASE_URL"),
        AdapterKind::Gemini => Some("GEMINI_BASE_URL"),
        AdapterKind::Ollama => Some("OLLAMA_BASE_URL"),
        _ => None,
    }
}

fn no_key(id: &str, variable: &str, base_url: Option<&str>) -> ModelError {
    let hint = if base_url.is_some() { " (any text, where the server asks for no key)" } else { "" };
    ModelError::new(ModelErrorKind::Auth, format!("there is no key for the model {id}: set {variable}{hint}"))
}

/// `url` in the form that the client appends its paths to.
fn normal_base_url(url: &str, adapter: AdapterKind) -> Result<String, ModelError> {
    let url = url.trim();
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        let message = format!("the base URL {url:?} is none: write it as in http://127.0.0.1:8000/v1");
        return Err(ModelError::new(ModelErrorKind::Config, message));
    }
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let mut normal = path.trim_end_matches('/').to_owned();
    // Anthropic's own clients take the address without the version.
    if adapter == AdapterKind::Anthropic && !normal.ends_with("/v1") {
        normal.push_str("/v1");
    }
    normal.push('/');
    if let Some(query) = query {
        normal.push('?');
        normal.push_str(query);
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(id: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let lookup =
            |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
        match Target::from_lookup(id, lookup) {
            Ok(target) => Ok(format!("{} {} {}", target.adapter, target.name, target.base_url.unwrap_or_default())),
            Err(error) => Err(format!("{:?}: {error}", error.kind)),
        }
    }

    #[test]
    fn a_name_leads_to_its_provider() {
        let keys = [("OPENAI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k"), ("GEMINI_API_KEY", "k")];
        assert_eq!(find("gpt-4o-mini", &keys).unwrap(), "OpenAI gpt-4o-mini ");
        assert_eq!(find("gpt-5", &keys).unwrap(), "OpenAIResp gpt-5 ");
        assert_eq!(find("openai:gpt-5", &keys).unwrap(), "OpenAI gpt-5 ");
        assert_eq!(find("claude-sonnet-4-5", &keys).unwrap(), "Anthropic claude-sonnet-4-5 ");
        assert_eq!(find("gemini-2.5-flash", &keys).unwrap(), "Gemini gemini-2.5-flash ");
        assert_eq!(find("ollama:llama3:8b", &[]).unwrap(), "Ollama llama3:8b ");
        assert_eq!(find("ollama::llama3", &[]).unwrap(), "Ollama llama3 ");
    }

    #[test]
    fn a_compatible_server_takes_every_name_without_a_provider() {
        let here = [("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), ("OPENAI_API_KEY", "k"), ("GROQ_API_KEY", "k")];
        assert_eq!(find("qwen3:8b", &here).unwrap(), "OpenAI qwen3:8b http://127.0.0.1:8000/v1/");
        assert_eq!(find("claude-x", &here).unwrap(), "OpenAI claude-x http://127.0.0.1:8000/v1/");
        assert_eq!(find("gpt-5", &here).unwrap(), "OpenAI gpt-5 http://127.0.0.1:8000/v1/");
        assert_eq!(find("openai_resp:gpt-5", &here).unwrap(), "OpenAIResp gpt-5 http://127.0.0.1:8000/v1/");
        assert_eq!(find("groq:llama", &here).unwrap(), "Groq llama ");
    }

    #[test]
    fn addresses_are_brought_into_one_form() {
        let at = |url: &str| find("claude-x", &[("ANTHROPIC_BASE_URL", url), ("ANTHROPIC_API_KEY", "k")]);
        assert_eq!(at("http://h").unwrap(), "Anthropic claude-x http://h/v1/");
        assert_eq!(at("http://h/v1/").unwrap(), "Anthropic claude-x http://h/v1/");
        assert_eq!(normal_base_url("https://h/x?a=b", AdapterKind::OpenAI).unwrap(), "https://h/x/?a=b");
        assert!(at("h:80").unwrap_err().contains("write it as in"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            find("gpt-4o-mini", &[]).unwrap_err(),
            "Auth: there is no key for the model gpt-4o-mini: set OPENAI_API_KEY"
        );
        assert!(find("gpt-4o-mini", &[("OPENAI_API_KEY", " ")]).unwrap_err().contains("set OPENAI_API_KEY"));
        assert!(find("claude-x", &[]).unwrap_err().contains("set ANTHROPIC_API_KEY"));
        assert!(find("gemini-x", &[]).unwrap_err().contains("set GEMINI_API_KEY"));
        assert!(find("m", &[("OPENAI_BASE_URL", "http://h")]).unwrap_err().contains("any text, where the server"));
        assert!(find("qwen3", &[]).unwrap_err().contains("write PROVIDER:MODEL, such as ollama:qwen3"));
        assert!(find("openai:", &[]).unwrap_err().contains("names a provider but no model"));
        assert!(find("", &[]).unwrap_err().contains("has no name"));
    }

    #[test]
    fn a_provider_that_there_is_not_is_answered_with_those_that_there_are() {
        for name in PROVIDERS {
            assert!(adapter_called(name).is_some(), "{name}");
        }
        let error = find("opnai:gpt-4o", &[]).unwrap_err();
        assert!(error.contains("\"opnai\" is none") && error.contains("openai:gpt-4o"), "{error}");
        assert!(error.contains("anthropic, gemini, ollama"), "{error}");
        assert_eq!(find("openrouter:meta/llama", &[("OPEN_ROUTER_API_KEY", "k")]).unwrap(), "OpenRouter meta/llama ");
    }

    #[test]
    fn a_key_is_never_shown() {
        let config = ProviderConfig { model: "gpt-4o".into(), api_key: Some("sk-secret".into()), ..Default::default() };
        assert!(!format!("{config:?}").contains("sk-secret"));
        assert!(!format!("{:?}", Target::from_config(config).unwrap()).contains("sk-secret"));
    }
}
