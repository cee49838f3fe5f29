//! Packages that come as bytes: a one-file plugin's source, or a gzipped tar archive of a plugin's folder. Nothing of an
//! archive is ever written to disk, so no path in it can lead anywhere; paths that try are refused all the same.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType};
use toolbay_api::{Asset, ErrorKind, Limit, Limits, LoadError, Package};

use crate::{
    load::MAX_FILES,
    manifest_file::{self, MANIFEST_NAMES, ManifestFile},
};

/// Bytes of everything in an archive, unpacked.
const MAX_UNPACKED: u64 = 64 << 20;
/// Bytes of a path in an archive.
const MAX_PATH: usize = 512;

/// Files by their paths.
type Files = BTreeMap<String, Vec<u8>>;

/// Whether `content` is an archive rather than a source.
pub(crate) fn is_archive(content: &[u8]) -> bool {
    content.starts_with(&[0x1f, 0x8b])
}

/// Reads a package. `file_name` is what a one-file plugin's file is called.
///
/// # Errors
/// `Config` where it is neither, or an archive of something else than a plugin's folder; `LimitExceeded` where it is too
/// large unpacked; what manifests and sources are refused for.
pub(crate) fn unpack(
    file_name: &str,
    content: &[u8],
    limits: &Limits,
    extensions: &[&str],
) -> Result<Package, LoadError> {
    if is_archive(content) {
        return unpack_folder(file_name, content, limits, extensions);
    }
    let path = Path::new(file_name);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_plain = path.components().count() == 1 && path.file_name().is_some() && file_name.len() <= MAX_PATH;
    if !is_plain || file_name.chars().any(char::is_control) {
        return Err(config("the name of a one-file plugin's file is one name, such as todo.rhai"));
    }
    if !extensions.contains(&extension) {
        let message = format!(
            "not a plugin: give a gzipped tar archive of a plugin's folder, or a file ending in .{}",
            extensions.join(", .")
        );
        return Err(config(message));
    }
    let source = source(file_name, content.to_vec(), limits)?;
    Ok(Package::one_file(file_name, source))
}

fn unpack_folder(file_name: &str, content: &[u8], limits: &Limits, extensions: &[&str]) -> Result<Package, LoadError> {
    let (top, mut files) = read(content)?;
    let manifests: Vec<_> = MANIFEST_NAMES.into_iter().filter(|name| files.contains_key(*name)).collect();
    let name = match manifests[..] {
        [name] => name,
        [] => {
            return Err(config(
                "the archive has no plugin.toml (or .yaml, .json) at its top: pack the plugin's folder",
            ));
        }
        _ => return Err(config(format!("the archive has {}: keep one of them", manifests.join(" and ")))),
    };
    let text = files.remove(name).unwrap_or_default();
    if text.len() > manifest_file::MAX_BYTES {
        let message = format!("the manifest has {} bytes, and {} are allowed", text.len(), manifest_file::MAX_BYTES);
        return Err(config(message).in_file(name));
    }
    let text = String::from_utf8(text).map_err(|_| config("is not UTF-8 text").in_file(name))?;
    let file = ManifestFile::parse(name, &text)?;
    if let Some(top) = top.filter(|top| top != file.manifest.name.as_str()) {
        let problem =
            format!("is {:?}, but the folder is called {top:?}: make them equal", file.manifest.name.as_str());
        return Err(file.error(&toolbay_api::manifest::ManifestError::new("name", problem)));
    }
    let (mut code, mut assets) = (BTreeMap::new(), Vec::new());
    for (path, content) in files {
        let extension = Path::new(&path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match path.strip_prefix("assets/") {
            Some(asset) => assets.push((asset.to_owned(), Asset::new(content))),
            None if extensions.contains(&extension) => _ = code.insert(path.clone(), source(&path, content, limits)?),
            None => {}
        }
    }
    let origin = PathBuf::from(file_name);
    Ok(Package { origin, manifest: Some(file.manifest), files: code, assets: assets.into_iter().collect() })
}

/// The files of an archive by their paths, and the folder in which all of them lie, if they do.
fn read(content: &[u8]) -> Result<(Option<String>, Files), LoadError> {
    let broken = |error: std::io::Error| match error.get_ref().is_some_and(|error| error.is::<TooLarge>()) {
        true => too_large(),
        false => config(format!("the archive cannot be read: {error}")),
    };
    let unpacked = Bounded { inner: GzDecoder::new(content), left: MAX_UNPACKED };
    let mut archive = Archive::new(unpacked);
    let mut files = BTreeMap::new();
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if count >= MAX_FILES {
            return Err(config(format!("the archive has more than {MAX_FILES} entries")));
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let path = plain(&entry.path_bytes())?;
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink | EntryType::Link => {
                return Err(config("is a link: a plugin is made of plain files").in_file(path));
            }
            _ => return Err(config("is neither a file nor a folder: a plugin is made of plain files").in_file(path)),
        }
        let is_hidden = path.split('/').any(|step| step.starts_with('.'));
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        if !is_hidden && files.insert(path.clone(), bytes).is_some() {
            return Err(config("is in the archive twice").in_file(path));
        }
    }
    if MANIFEST_NAMES.into_iter().any(|name| files.contains_key(name)) {
        return Ok((None, files));
    }
    let top = files.keys().next().and_then(|path| path.split_once('/')).map(|(top, _)| top.to_owned());
    let Some(top) = top else { return Ok((None, files)) };
    let within =
        |(path, bytes): (String, Vec<u8>)| Some((path.strip_prefix(&top)?.strip_prefix('/')?.to_owned(), bytes));
    let count = files.len();
    let inner: Files = files.into_iter().filter_map(within).collect();
    if inner.len() != count {
        return Err(config("the archive has no plugin.toml (or .yaml, .json) at its top: pack the plugin's folder"));
    }
    Ok((Some(top), inner))
}

/// A path within the plugin's folder, with `/` between the steps.
fn plain(bytes: &[u8]) -> Result<String, LoadError> {
    let shown = || String::from_utf8_lossy(bytes).chars().take(80).collect::<String>();
    let leads_out = || config(format!("the path {:?} does not stay within the archive", shown()));
    let text = std::str::from_utf8(bytes).map_err(|_| config(format!("the path {:?} is not UTF-8", shown())))?;
    if bytes.len() > MAX_PATH || text.contains('\\') || text.chars().any(char::is_control) {
        return Err(config(format!(
            "the path {:?} is too long, or has characters that paths of plugins do not have",
            shown()
        )));
    }
    let mut steps = Vec::new();
    for step in Path::new(text).components() {
        match step {
            Component::Normal(step) => steps.push(step.to_str().ok_or_else(leads_out)?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(leads_out()),
        }
    }
    Ok(steps.join("/"))
}

fn source(name: &str, content: Vec<u8>, limits: &Limits) -> Result<Arc<str>, LoadError> {
    let (used, allowed) = (content.len() as u64, limits.max_source_bytes as u64);
    if used > allowed {
        let message = format!("the file has {used} bytes, and {allowed} are allowed: split or shorten it");
        let kind = ErrorKind::LimitExceeded { limit: Limit::SourceSize, allowed, used };
        return Err(LoadError::new(kind, message).in_file(name));
    }
    let text = String::from_utf8(content);
    text.map(Arc::from).map_err(|_| LoadError::new(ErrorKind::Compile, "is not UTF-8 text").in_file(name))
}

fn config(message: impl Into<String>) -> LoadError {
    LoadError::new(ErrorKind::Config, message)
}

fn too_large() -> LoadError {
    let kind = ErrorKind::LimitExceeded { limit: Limit::SourceSize, allowed: MAX_UNPACKED, used: MAX_UNPACKED + 1 };
    LoadError::new(kind, format!("the archive is over {MAX_UNPACKED} bytes unpacked: leave some out"))
}

/// Reads no more than it may: a few bytes of an archive can unpack to as many as one likes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("too large")]
struct TooLarge;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| std::io::Error::other(TooLarge))?;
        Ok(read)
    }
}
