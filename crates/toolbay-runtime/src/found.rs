//! Where plugins are found: a folder of them, one plugin, or a registry index. Loading and reloading both ask here, so that
//! they agree on what is there.

use std::path::{Path, PathBuf};

use toolbay_api::{LoadError, PluginName};

use crate::{
    index::{self, Picked},
    load::{self, Skipped},
};

/// A plugin that is there, not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// What the index says of it that named it, and which that is.
    pub(crate) picked: Option<Picked>,
    pub(crate) index: Option<PathBuf>,
}

impl Found {
    fn at(path: PathBuf) -> Self {
        Self { path, picked: None, index: None }
    }
}

/// All that is at a path.
#[derive(Debug, Default)]
pub(crate) struct Finds {
    pub(crate) found: Vec<Found>,
    /// What is there and cannot be taken, with the name that it claims where it claims one.
    pub(crate) failed: Vec<(PathBuf, Option<PluginName>, LoadError)>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Looks at one plugin, a folder of plugins or a registry index.
///
/// # Errors
/// `NotFound` and `Config` where the whole of it cannot be read.
pub(crate) fn look_at(path: &Path, extensions: &[&str]) -> Result<Finds, LoadError> {
    if index::is_index(path) {
        let picks = index::read(path)?;
        let found =
            |picked: Picked| Found { path: picked.path.clone(), picked: Some(picked), index: Some(path.to_owned()) };
        let found = picks.picked.into_iter().map(found).collect();
        return Ok(Finds { found, failed: picks.failed, skipped: picks.skipped });
    }
    if load::is_plugin(path) {
        return Ok(Finds { found: vec![Found::at(path.to_owned())], ..Finds::default() });
    }
    look_into(path, extensions)
}

/// Looks into a folder of plugins.
///
/// # Errors
/// `NotFound` where it cannot be read.
pub(crate) fn look_into(folder: &Path, extensions: &[&str]) -> Result<Finds, LoadError> {
    let (found, skipped) = load::discover(folder, extensions)?;
    Ok(Finds { found: found.into_iter().map(Found::at).collect(), skipped, ..Finds::default() })
}
