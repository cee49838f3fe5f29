//! The secrets port: where hosts keep what plugins read by `secret()`, and the two places that come with Toolbay.
//!
//! In both the host says where secrets lie, and a plugin says no more than a name.

use std::{
    env, fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use toolbay_api::{
    ErrorKind, Secret, SecretName, SecretProvider, TenantId, ToolError, async_trait, reach::MAX_SECRET_BYTES,
};

/// Secrets in the host's environment, in variables that begin with a prefix of the host's.
///
/// With the prefix `TOOLBAY_SECRET_`, the secret `STRIPE_KEY` is the variable `TOOLBAY_SECRET_STRIPE_KEY`. No other
/// variable can be read.
#[derive(Debug, Clone)]
pub struct EnvSecrets {
    prefix: String,
}

impl EnvSecrets {
    /// Takes variables that begin with `prefix`.
    ///
    /// # Errors
    /// `Config` where the prefix is empty, which would give plugins the whole environment, or is no variable's name.
    pub fn new(prefix: impl Into<String>) -> Result<Self, ToolError> {
        let prefix = prefix.into();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if prefix.is_empty() || prefix.len() > 128 || !prefix.bytes().all(fits) {
            let message = "the prefix of secrets' variables has 1 to 128 of A-Z a-z 0-9 _, as in TOOLBAY_SECRET_";
            return Err(ToolError::new(ErrorKind::Config, message));
        }
        Ok(Self { prefix })
    }
}

#[async_trait]
impl SecretProvider for EnvSecrets {
    async fn secret(&self, _: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        let Some(value) = env::var_os(format!("{}{name}", self.prefix)) else { return Ok(None) };
        let value = value.into_string().map_err(|_| name.unreadable(io::Error::from(io::ErrorKind::InvalidData)))?;
        Secret::bounded(name, value).map(Some)
    }
}

/// Secrets in a folder of files, one for each, as container platforms mount them. One line break at a file's end is not
/// part of the secret.
///
/// A file may be a link, since such platforms link them; who can write into the folder is the host's to say.
#[derive(Debug, Clone)]
pub struct FileSecrets {
    folder: PathBuf,
}

impl FileSecrets {
    /// Takes the files in `folder`.
    ///
    /// # Errors
    /// `Config` where there is no such folder.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, ToolError> {
        let folder = folder.into();
        if !folder.is_dir() {
            let message = format!("{} is no folder: give the folder with the files of secrets", folder.display());
            return Err(ToolError::new(ErrorKind::Config, message));
        }
        Ok(Self { folder })
    }
}

#[async_trait]
impl SecretProvider for FileSecrets {
    async fn secret(&self, _: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        // The name has no separator and no dot, so the path is one step below the folder.
        let path = self.folder.join(name.as_str());
        let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(io::Error::other).flatten();
        match read {
            Ok(value) => Secret::bounded(name, value).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(name.unreadable(error)),
        }
    }
}

/// Asks one provider after the other, until one has the secret. A provider that fails ends the search: the next may have
/// another value under the same name.
#[derive(Clone, Default)]
pub struct SecretChain(Vec<Arc<dyn SecretProvider>>);

impl SecretChain {
    /// Adds a provider to ask last.
    #[must_use]
    pub fn then(mut self, provider: impl SecretProvider + 'static) -> Self {
        self.0.push(Arc::new(provider));
        self
    }
}

impl fmt::Debug for SecretChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretChain").field("providers", &self.0.len()).finish()
    }
}

#[async_trait]
impl SecretProvider for SecretChain {
    async fn secret(&self, tenant: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        for provider in &self.0 {
            if let Some(secret) = provider.secret(tenant, name).await? {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe or a device could keep the reader waiting for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is no plain file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_SECRET_BYTES as u64 + 3).read_to_string(&mut text)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
