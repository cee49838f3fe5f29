//! `server.json`: which server a plugin stands for. The keys that other programs have for the same are called as there.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use toolbay_api::{ErrorKind, LoadError, Secret, SecretName};

/// The file's name among the plugin's assets.
pub const FILE: &str = "server.json";

/// Arguments or variables of one server.
const MAX_ENTRIES: usize = 100;
/// Characters of one of them.
const MAX_TEXT: usize = 4_000;

/// Which server, and how to come to it: either `command` or `url`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerFile {
    /// The program to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment, all of it: it gets no variable that is neither here nor in `inheritEnv`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Value>,
    /// Variables of this process that it gets too, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit_env: Vec<String>,
    /// The address to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How to show who is calling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// How a caller shows who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Auth {
    /// A token that does not change.
    Bearer(Value),
    /// OAuth 2.1 client credentials; where to ask for tokens is found from the server.
    ClientCredentials {
        /// Who asks.
        client_id: Value,
        /// What proves it.
        client_secret: Value,
        /// What is asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
    },
}

/// A text, or `secret:NAME` for one that is read when it is needed. The file itself holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(pub String);

impl Value {
    /// The secret's name, where it is one.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        self.0.strip_prefix("secret:")
    }
}

/// Where a server is, with nothing left to look up.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A program to start.
    Command {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its whole environment.
        env: BTreeMap<String, String>,
    },
    /// An address to call.
    Http {
        /// The address.
        url: String,
        /// How to show who is calling.
        auth: Option<ReadyAuth>,
    },
}

/// [`Auth`] with nothing left to look up.
#[derive(Clone, PartialEq, Eq)]
pub enum ReadyAuth {
    /// See [`Auth::Bearer`].
    Bearer(Secret),
    /// See [`Auth::ClientCredentials`].
    ClientCredentials {
        /// Who asks.
        client_id: String,
        /// What proves it.
        client_secret: Secret,
        /// What is asked for.
        scopes: Vec<String>,
    },
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { command, .. } => {
                f.debug_struct("Command").field("command", command).finish_non_exhaustive()
            }
            Self::Http { url, .. } => f.debug_struct("Http").field("url", url).finish_non_exhaustive(),
        }
    }
}

impl ServerFile {
    /// Reads the file.
    ///
    /// # Errors
    /// `Config` with what is wrong and what to write.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let config = |message: String| LoadError::new(ErrorKind::Config, message).in_file(format!("assets/{FILE}"));
        let file: Self = serde_json::from_slice(bytes).map_err(|error| config(error.to_string()))?;
        file.check().map_err(config)?;
        Ok(file)
    }

    /// What is wrong with it, if anything.
    fn check(&self) -> Result<(), String> {
        let too_long = |text: &str| text.len() > MAX_TEXT || text.contains('\0');
        match (&self.command, &self.url) {
            (Some(command), None) => {
                if command.trim().is_empty() || too_long(command) {
                    return Err("command: write the program to start".to_owned());
                }
                if self.auth.is_some() {
                    return Err("auth is for servers with a url: give a program what it needs in env".to_owned());
                }
            }
            (None, Some(url)) => {
                let parsed = url::Url::parse(url).map_err(|error| format!("url: {error}"))?;
                if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
                    return Err("url: write an http or https address".to_owned());
                }
                if !parsed.username().is_empty() || parsed.password().is_some() {
                    return Err("url: put no credentials into the address, but a secret into auth".to_owned());
                }
                if !self.args.is_empty() || !self.env.is_empty() || !self.inherit_env.is_empty() {
                    return Err("args, env and inheritEnv are for servers with a command".to_owned());
                }
            }
            _ => return Err("write either command or url".to_owned()),
        }
        if self.args.len() > MAX_ENTRIES || self.env.len() > MAX_ENTRIES || self.inherit_env.len() > MAX_ENTRIES {
            return Err(format!("at most {MAX_ENTRIES} arguments and variables"));
        }
        if self.args.iter().any(|text| too_long(text)) || self.env.values().any(|value| too_long(&value.0)) {
            return Err(format!("an argument or a variable has more than {MAX_TEXT} characters"));
        }
        let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']) && name.len() <= 200;
        if let Some(name) = self.env.keys().chain(&self.inherit_env).find(|name| !is_name(name)) {
            return Err(format!("{name:?} is no name of a variable"));
        }
        for value in self.values() {
            if let Some(name) = value.secret() {
                SecretName::new(name).map_err(|error| error.message.into_owned())?;
            }
        }
        match &self.auth {
            Some(Auth::Bearer(value) | Auth::ClientCredentials { client_secret: value, .. })
                if value.secret().is_none() =>
            {
                Err("auth: write secret:NAME in the place of the secret: the file is no place for one".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        let of_auth = match &self.auth {
            Some(Auth::Bearer(value)) => vec![value],
            Some(Auth::ClientCredentials { client_id, client_secret, .. }) => vec![client_id, client_secret],
            None => Vec::new(),
        };
        self.env.values().chain(of_auth)
    }

    /// The names of the secrets that it needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        self.values().filter_map(Value::secret).collect()
    }

    /// What a plugin has to be granted to come to the server: `process:start:PROGRAM`, or `http:POST:HOST[:PORT]`, and
    /// `http-plain:POST:HOST[:PORT]` where the way is not encrypted.
    #[must_use]
    pub fn action(&self) -> String {
        if let Some(url) = self.url.as_deref().and_then(|url| url::Url::parse(url).ok()) {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let scheme = if url.scheme() == "https" { "http" } else { "http-plain" };
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            return format!("{scheme}:POST:{host}{port}");
        }
        format!("process:start:{}", self.command.as_deref().unwrap_or_default())
    }

    /// The place with secrets in it, as `look_up` finds them by name.
    ///
    /// # Errors
    /// Those of `look_up`.
    pub fn place<E>(&self, look_up: impl Fn(&str) -> Result<String, E>) -> Result<Place, E> {
        let text = |value: &Value| value.secret().map_or_else(|| Ok(value.0.clone()), &look_up);
        if let Some(url) = &self.url {
            let auth = match &self.auth {
                None => None,
                Some(Auth::Bearer(token)) => Some(ReadyAuth::Bearer(Secret::new(text(token)?))),
                Some(Auth::ClientCredentials { client_id, client_secret, scopes }) => {
                    let client_secret = Secret::new(text(client_secret)?);
                    let (client_id, scopes) = (text(client_id)?, scopes.clone());
                    Some(ReadyAuth::ClientCredentials { client_id, client_secret, scopes })
                }
            };
            return Ok(Place::Http { url: url.clone(), auth });
        }
        let mut env = BTreeMap::new();
        for name in &self.inherit_env {
            if let Ok(value) = std::env::var(name) {
                env.insert(name.clone(), value);
            }
        }
        for (name, value) in &self.env {
            env.insert(name.clone(), text(value)?);
        }
        Ok(Place::Command { command: self.command.clone().unwrap_or_default(), args: self.args.clone(), env })
    }
}
