//! Values in files: one folder for each tenant, one JSON file in it for each plugin. For the command line and small
//! set-ups; the SQL store takes its place where there is more to keep.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind as IoKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use dashmap::DashMap;
use serde::ser::{SerializeMap, Serializer as _};
use serde_json::Value;
use toolbay_api::{ErrorKind, ToolError, async_trait};

use super::{KvQuota, KvSpace, KvStore, KvValue, cells::Cells, check_key};

/// The key in a file under which the ends of values stand that have one. No plugin's key is empty, and a file without such
/// values is simply its keys and values.
const ENDS: &str = "";

/// Spaces whose values are held in memory. Beyond that those that nobody works at are forgotten, and read again where they
/// are needed.
const MAX_HELD: usize = 256;

/// Keeps values below one folder. Several processes may share it: every operation locks the plugin's file, and reads
/// it again where another process changed it.
#[derive(Debug, Clone)]
pub struct FileKv(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    // The spaces that this process has used of late; what each may hold is bounded by its quota.
    spaces: DashMap<KvSpace, Arc<Mutex<Cached>>>,
}

/// A file's content as this process last saw it, and what the file looked like then.
#[derive(Debug, Default)]
struct Cached {
    cells: Cells,
    stamp: Option<Stamp>,
}

type Stamp = (SystemTime, u64);

impl FileKv {
    /// Opens the store below `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// `Config` where the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, ToolError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|error| {
            ToolError::new(ErrorKind::Config, format!("the state folder {} cannot be made: {error}", folder.display()))
        })?;
        Ok(Self(Arc::new(Inner { folder, spaces: DashMap::new() })))
    }

    /// The spaces whose values are held in memory, beside the files.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.spaces.len()
    }

    /// Runs `work` on a thread that may block, with the space's file locked and its content at hand.
    async fn with<T: Send + 'static>(
        &self,
        space: &KvSpace,
        work: impl FnOnce(&mut Cells) -> Result<(T, Change), ToolError> + Send + 'static,
    ) -> Result<T, ToolError> {
        let (inner, space) = (Arc::clone(&self.0), space.clone());
        let done = tokio::task::spawn_blocking(move || inner.locked(&space, work)).await;
        done.map_err(|error| unavailable(io::Error::other(error)))?
    }
}

/// Whether the file must be written.
enum Change {
    None,
    Made,
}

impl Change {
    fn made_if(made: bool) -> Self {
        if made { Self::Made } else { Self::None }
    }
}

impl Inner {
    fn locked<T>(
        &self,
        space: &KvSpace,
        work: impl FnOnce(&mut Cells) -> Result<(T, Change), ToolError>,
    ) -> Result<T, ToolError> {
        if self.spaces.len() >= MAX_HELD && !self.spaces.contains_key(space) {
            // What somebody works at stays: two who hold the same space twice would not see each other's values. It is
            // handed out under the lock under which this looks, so nobody comes to hold it meanwhile.
            self.spaces.retain(|_, held| Arc::strong_count(held) > 1);
        }
        let cached = Arc::clone(&self.spaces.entry(space.clone()).or_default());
        let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
        // Names were checked when they were parsed: neither can hold a separator or begin with a dot.
        let folder = self.folder.join(space.tenant.as_str());
        fs::create_dir_all(&folder).map_err(unavailable)?;
        // No plugin name has a dot, so the two kinds of spaces never share a file.
        let stem = if space.own { format!("{}.own", space.plugin) } else { space.plugin.to_string() };
        let path = folder.join(format!("{stem}.json"));
        let lock = File::create(folder.join(format!("{stem}.lock"))).map_err(unavailable)?;
        // Given back when the file is closed at the end of this function.
        lock.lock().map_err(unavailable)?;

        let stamp = stamp_of(&path).map_err(unavailable)?;
        if stamp != cached.stamp || stamp.is_none() {
            cached.cells = read(&path)?;
            cached.stamp = stamp;
        }
        let (value, change) = work(&mut cached.cells)?;
        if let Change::Made = change {
            if let Err(error) = write(&path, &cached.cells) {
                // What could not be written must not be seen either.
                *cached = Cached::default();
                return Err(unavailable(error));
            }
            cached.stamp = stamp_of(&path).map_err(unavailable)?;
        }
        Ok(value)
    }
}

fn stamp_of(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.modified()?, file_number(&metadata)))),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Each write makes a new file, so its number tells two writes within one tick of the clock apart.
#[cfg(unix)]
fn file_number(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

fn read(path: &Path) -> Result<Cells, ToolError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == IoKind::NotFound => return Ok(Cells::default()),
        Err(error) => return Err(unavailable(error)),
    };
    let damaged = |error| unavailable(io::Error::other(format!("{} is no JSON of ours: {error}", path.display())));
    let mut values: BTreeMap<String, Value> = serde_json::from_slice(&bytes).map_err(damaged)?;
    let ends = values.remove(ENDS).map(serde_json::from_value).transpose().map_err(damaged)?;
    Ok(Cells::new(values, &ends.unwrap_or_default()))
}

/// Writes beside the file and renames, so that a reader or a crash sees the old content or the new.
fn write(path: &Path, cells: &Cells) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = io::BufWriter::new(File::create(&beside)?);
    let mut json = serde_json::Serializer::new(&mut file);
    let mut map = json.serialize_map(None)?;
    let ends: BTreeMap<_, _> = cells.ends().collect();
    if !ends.is_empty() {
        map.serialize_entry(ENDS, &ends)?;
    }
    for (key, value) in cells.values() {
        map.serialize_entry(key, value)?;
    }
    map.end()?;
    file.flush()?;
    fs::rename(&beside, path)
}

fn unavailable(error: io::Error) -> ToolError {
    // A script on the way may make another error of this one, and the operator would never learn the cause.
    tracing::warn!(target: "toolbay::kv", %error, "the store of plugins' values failed");
    ToolError::new(ErrorKind::Unavailable, "the plugin's store cannot be reached; try again later").with_source(error)
}

#[async_trait]
impl KvStore for FileKv {
    async fn get(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<Option<Value>, ToolError> {
        check_key(key)?;
        let key = key.to_owned();
        self.with(space, move |cells| Ok((cells.get(&key, now_ms).cloned(), Change::None))).await
    }

    async fn set(
        &self,
        space: &KvSpace,
        key: &str,
        value: KvValue,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<(), ToolError> {
        check_key(key)?;
        let key = key.to_owned();
        self.with(space, move |cells| cells.set(&key, value, quota, now_ms).map(|()| ((), Change::Made))).await
    }

    async fn compare_and_set(
        &self,
        space: &KvSpace,
        key: &str,
        expected: Option<Value>,
        new: Option<KvValue>,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<bool, ToolError> {
        check_key(key)?;
        let key = key.to_owned();
        self.with(space, move |cells| {
            let was_equal = cells.compare_and_set(&key, expected.as_ref(), new, quota, now_ms)?;
            Ok((was_equal, Change::made_if(was_equal)))
        })
        .await
    }

    async fn delete(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<bool, ToolError> {
        check_key(key)?;
        let key = key.to_owned();
        self.with(space, move |cells| {
            let was_there = cells.delete(&key, now_ms);
            Ok((was_there, Change::made_if(was_there)))
        })
        .await
    }

    async fn list(
        &self,
        space: &KvSpace,
        prefix: &str,
        after: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<String>, ToolError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.with(space, move |cells| Ok((cells.list(&prefix, &after, limit, now_ms), Change::None))).await
    }
}
