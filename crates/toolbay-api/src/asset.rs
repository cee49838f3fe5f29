//! Read-only files that a plugin brings along.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::error::{ErrorKind, ToolError};

/// One packaged file. JSON is parsed once, at the first look into it, and then shared by all calls of all tenants.
pub struct Asset {
    bytes: Arc<[u8]>,
    json: OnceLock<Option<Arc<Value>>>,
}

impl Asset {
    /// Takes over the file's content.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: bytes.into(), json: OnceLock::new() }
    }

    /// The file as it is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file as JSON, or `None` where it is none.
    pub fn json(&self) -> Option<&Arc<Value>> {
        self.json.get_or_init(|| serde_json::from_slice(&self.bytes).ok().map(Arc::new)).as_ref()
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asset({} bytes)", self.bytes.len())
    }
}

/// A plugin's packaged files by their path within the plugin's `assets` folder, with `/` between the steps.
#[derive(Debug, Clone, Default)]
pub struct Assets(Arc<BTreeMap<String, Asset>>);

impl Assets {
    /// The asset called `name`.
    ///
    /// # Errors
    /// `NotFound`, which lists what there is.
    pub fn get(&self, name: &str) -> Result<&Asset, ToolError> {
        self.0.get(name).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().take(20).map(String::as_str).collect();
            ToolError::new(
                ErrorKind::NotFound,
                format!("the plugin has no asset {name:?}; it has: {}", known.join(", ")),
            )
        })
    }

    /// The JSON value at `pointer` (RFC 6901) of the asset called `name`; `None` where the pointer leads nowhere.
    ///
    /// # Errors
    /// `NotFound` where there is no such asset, `Script` where it is not JSON.
    pub fn json_at(&self, name: &str, pointer: &str) -> Result<Option<&Value>, ToolError> {
        let json =
            self.get(name)?.json().ok_or_else(|| ToolError::failed(format!("the asset {name:?} is not JSON")))?;
        Ok(json.pointer(pointer))
    }

    /// The names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Asset)> for Assets {
    fn from_iter<I: IntoIterator<Item = (String, Asset)>>(assets: I) -> Self {
        Self(Arc::new(assets.into_iter().collect()))
    }
}
