//! The digest of a package: whether what lies on disk is what is registered already.

use std::fmt;

use sha2::{Digest as _, Sha256};
use toolbay_api::Package;

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

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
