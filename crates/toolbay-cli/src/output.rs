//! Everything that goes to the terminal. It stands apart so that a closed pipe is met in one place, and so that what a
//! plugin wrote cannot steer the operator's terminal.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;
use toolbay::{ControlStatus, LoadReport, SyncReport};

use crate::exit::CliError;

/// The width of text where no terminal says another.
const DEFAULT_WIDTH: usize = 100;

/// Writes a result line to standard output at once.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    let stdout = io::stdout();
    let text = if stdout.is_terminal() { printable(text) } else { Cow::Borrowed(text) };
    let mut stdout = stdout.lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n"));
    written.and_then(|()| stdout.flush()).map_err(|error| CliError::output(&error))
}

/// Writes a piece of a text to standard output at once.
pub(crate) fn piece(text: &str) -> Result<(), CliError> {
    let stdout = io::stdout();
    let text = if stdout.is_terminal() { printable(text) } else { Cow::Borrowed(text) };
    let mut stdout = stdout.lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| CliError::output(&error))
}

/// Writes `value` as one line of JSON to standard output at once.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string(value).map_err(no_json)?)
}

/// Writes `value` as JSON for readers to standard output.
pub(crate) fn json_pretty(value: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string_pretty(value).map_err(no_json)?)
}

/// Writes raw text, such as a generated file, to standard output.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| CliError::output(&error))
}

/// Lets a closed standard output pass, where the command's status tells something else than that.
pub(crate) fn unless_closed(error: CliError) -> Result<(), CliError> {
    if matches!(error, CliError::Closed) { Ok(()) } else { Err(error) }
}

/// Writes progress or an error to standard error. Where that is closed there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let text = format!("{}\n", printable(text));
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Says on standard error what became of the plugins: the whole report.
pub(crate) fn load_report(report: &LoadReport) {
    let text = report.to_string();
    if !text.is_empty() {
        note(text.trim_end());
    }
}

/// Says on standard error what became of plugins whose files changed.
pub(crate) fn sync_report(report: &SyncReport) {
    note(report.to_string().trim_end());
}

/// Says on standard error which plugins did not load.
pub(crate) fn load_failures(report: &LoadReport) {
    for failed in &report.failed {
        note(&format!(
            "warning: a plugin was left out: {} ({}): {}",
            failed.origin.display(),
            failed.scope,
            failed.error
        ));
    }
}

/// Says what of a store could not be taken over, and why.
pub(crate) fn store_failures(status: &ControlStatus) {
    for (scope, plugin, error) in &status.failed {
        note(&format!("warning: the installed plugin {plugin} ({scope}) is left out: {error}"));
    }
}

/// `rows` as columns, each as wide as its widest cell; the last one is cut to what is left of a terminal's line.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    use unicode_width::UnicodeWidthStr;

    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let widths: Vec<_> = (0..N).map(|column| widest(column).unwrap_or_default()).collect();
    let before: usize = widths.iter().take(N.saturating_sub(1)).map(|width| width + 2).sum();
    // Into a pipe goes the whole text; a terminal too narrow for any shows a little of it all the same.
    let left = terminal_width().map_or(usize::MAX, |width| width.saturating_sub(before).max(20));
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at + 1 == N {
                line.push_str(&one_line(cell, left));
            } else {
                line.push_str(cell);
                line.push_str(&" ".repeat((width + 2).saturating_sub(cell.width())));
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// The columns of the terminal that shows standard output; `None` where that is no terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    Some(terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0)))
}

/// `text` with control characters spelled out but for line ends and tabs: an escape sequence in a plugin's text could
/// otherwise rewrite what the operator sees.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmless(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// `text` on one line, cut to `width` columns.
pub(crate) fn one_line(text: &str, width: usize) -> String {
    use unicode_width::UnicodeWidthChar;

    let mut shown = String::new();
    let (mut columns, mut kept) = (0, 0);
    let words = text.split_whitespace().enumerate();
    for c in words.flat_map(|(index, word)| (index > 0).then_some(' ').into_iter().chain(word.chars())) {
        columns += c.width().unwrap_or(1);
        if columns > width {
            shown.truncate(kept);
            shown.push('…');
            return shown;
        }
        shown.push(c);
        if columns < width {
            kept = shown.len();
        }
    }
    shown
}

fn no_json(error: serde_json::Error) -> CliError {
    CliError::usage(format!("the result has no JSON form: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_spelled_out() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\nc");
    }

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        assert_eq!(one_line("one  two\nthree", 20), "one two three");
        assert_eq!(one_line("one two three", 13), "one two three");
        assert_eq!(one_line("one two three", 8), "one two…");
        assert_eq!(one_line("日本語", 4), "日…");
        assert_eq!(one_line("abc", 0), "…");
    }
}
