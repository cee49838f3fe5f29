//! Digests of packages: whether what lies on disk is what is registered already, and whether it is what an index says.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use sha2::{Digest as _, Sha256};
use toolbay_api::{Assets, Package};

use crate::load::WithManifest;

/// SHA-256 over a package's manifest, code and assets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// The digest of `package`; where it was found makes no difference.
    pub(crate) fn of(package: &Package) -> Self {
        let mut sum = Sha256::new();
        // Every part has its length before it, so that no two packages have the same bytes one after another.
        let mut part = |bytes: &[u8]| {
            sum.update((bytes.len() as u64).to_le_bytes());
            sum.update(bytes);
        };
        // A manifest is text, numbers and lists of those, so it can always be written.
        part(&package.manifest.as_ref().and_then(|manifest| serde_json::to_vec(manifest).ok()).unwrap_or_default());
        part(&(package.files.len() as u64).to_le_bytes());
        for (name, source) in &package.files {
            part(name.as_bytes());
            part(source.as_bytes());
        }
        for name in package.assets.names() {
            part(name.as_bytes());
            part(package.assets.get(name).map(|asset| asset.bytes()).unwrap_or_default());
        }
        Self(sum.finalize().into())
    }

    /// The digest of a package whose assets the operator replaced by these.
    pub(crate) fn with_assets(self, assets: &Assets) -> Self {
        let mut sum = Sha256::new();
        sum.update(self.0);
        for name in assets.names() {
            for part in [name.as_bytes(), assets.get(name).map(|asset| asset.bytes()).unwrap_or_default()] {
                sum.update((part.len() as u64).to_le_bytes());
                sum.update(part);
            }
        }
        Self(sum.finalize().into())
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The checksum of a package's content that registry indexes have: SHA-256, in hexadecimal digits, over its files in the
/// order of their paths' bytes, of each the length of its path in 8 bytes (the lowest first), its path, the length of its
/// content likewise, and its content. Its files are the manifest, the code and what lies under `assets/`; a one-file
/// plugin is one file. Nothing else of a folder is loaded.
pub(crate) fn checksum((package, manifest): &WithManifest) -> String {
    let mut files: BTreeMap<String, &[u8]> =
        package.files.iter().map(|(name, source)| (name.clone(), source.as_bytes())).collect();
    files.extend(manifest.iter().map(|(name, text)| (name.clone(), text.as_bytes())));
    for name in package.assets.names() {
        let bytes = package.assets.get(name).map(|asset| asset.bytes()).unwrap_or_default();
        files.insert(format!("assets/{name}"), bytes);
    }
    let mut sum = Sha256::new();
    for (path, content) in &files {
        for part in [path.as_bytes(), content] {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
    }
    let mut text = String::with_capacity(64);
    for byte in sum.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
