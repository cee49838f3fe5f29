//! `toolbay index`: a registry index of what lies in a folder, for hosts that load from it.

use std::{fs, path::PathBuf};

use clap::Args;
use toolbay::{Index, index::MAX_BYTES};

use crate::{
    exit::{CliError, Status},
    host,
    options::HostOptions,
    output,
};

/// Options of `toolbay index`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder, with plugins anywhere below it
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Write to this file, in FOLDER or around it, rather than to index.json in FOLDER.
    ///
    /// What is yanked in the file that is there stays so.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    host: HostOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let out = options.out.unwrap_or_else(|| options.folder.join("index.json"));
    let base = out.parent().filter(|base| !base.as_os_str().is_empty()).map_or_else(|| ".".into(), PathBuf::from);
    let before = match fs::metadata(&out) {
        Ok(metadata) if metadata.len() <= MAX_BYTES => Some(existing(&out)?),
        Ok(_) => return Err(CliError::usage(format!("{} has more than {MAX_BYTES} bytes", out.display()))),
        Err(_) => None,
    };
    let toolbay = host::empty(&options.host)?;
    let (index, mut report) =
        toolbay.index_of(&options.folder, &base, before.as_ref()).await.map_err(CliError::usage)?;
    report.failed.iter_mut().for_each(host::show_whole_path);
    if !report.failed.is_empty() {
        // Whoever loads from an index must not find there what never loads.
        output::load_failures(&report);
        return Err(CliError::usage(format!("{} was not written: mend these plugins first", out.display())));
    }
    // Written beside and renamed, so that a host which looks at the same time sees the old one or the new one.
    let beside = out.with_extension("json.new");
    let written = fs::write(&beside, index.to_text()).and_then(|()| fs::rename(&beside, &out));
    written.map_err(|error| CliError::usage(format!("{} cannot be written: {error}", out.display())))?;
    let yanked = index.plugins.iter().filter(|entry| entry.yanked).count();
    let yanked = if yanked > 0 { format!(", {yanked} of them yanked") } else { String::new() };
    output::line(&format!("{}: {} packages{yanked}", out.display(), index.plugins.len()))?;
    Ok(Status::Success)
}

/// The index that is to be replaced.
fn existing(path: &std::path::Path) -> Result<Index, CliError> {
    let problem = |problem: String| {
        CliError::usage(format!("{} is there and is no registry index, so it is left alone: {problem}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| problem(error.to_string()))
}
