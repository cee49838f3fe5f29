//! The recording of a run in a file, written as the run goes on.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
};

use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::JoinHandle,
};
use toolbay::{RecordBounds, RecordedLine, Recorder, Session};

use crate::exit::CliError;

/// A recording that is being written, if one was asked for.
pub(super) struct Recording(Option<(oneshot::Sender<()>, Written)>);

/// What became of writing it.
type Written = JoinHandle<Result<(), CliError>>;

/// Has the session's runs recorded in `file`. It must be new: a recording is not made twice.
pub(super) fn into(session: Session, file: Option<&Path>) -> Result<(Session, Recording), CliError> {
    let Some(path) = file else { return Ok((session, Recording(None))) };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // It holds what the user said and the tools gave.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let shown = path.display().to_string();
    let failed = move |error: std::io::Error| CliError::usage(format!("--record: {shown}: {error}"));
    let file = options.open(path).map_err(&failed)?;
    let (recorder, lines) = Recorder::new(RecordBounds::default());
    let (end, ended) = oneshot::channel();
    let written = tokio::spawn(async move { write(file, lines, ended).await.map_err(failed) });
    Ok((session.also_observed_by(recorder), Recording(Some((end, written)))))
}

impl Recording {
    /// Waits until all lines are written that there are.
    pub(super) async fn finish(self) -> Result<(), CliError> {
        let Some((end, written)) = self.0 else { return Ok(()) };
        // The writer has ended by itself where this finds nobody.
        let _ = end.send(());
        written.await.unwrap_or_else(|error| Err(CliError::usage(format!("--record: {error}"))))
    }
}

/// Writes lines until there are no more, or nobody makes any more. Each is written at once, so that the recording of a run
/// that is killed is there as far as it went.
async fn write(
    mut file: File,
    mut lines: UnboundedReceiver<RecordedLine>,
    mut ended: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let mut is_over = false;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = &mut ended, if !is_over => {
                // A call that never comes back may hold the recorder for ever.
                is_over = true;
                lines.close();
                continue;
            }
        };
        let Some(line) = line else { return file.sync_all() };
        file.write_all(line.text.as_bytes())?;
    }
}
