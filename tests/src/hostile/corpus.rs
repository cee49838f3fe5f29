//! The programs: one file each, `CLASS/NAME.rhai`, with a header that says how it must end.
//!
//! Header lines, all before the program, which begins after the last of them:
//!
//! ```text
//! // expect: KIND|KIND...   `ok`, an error kind, or `LimitExceeded:LIMIT`
//! // args: --memory 8MiB    options for the command line
//! // timeout: 10000          a deadline of its own in milliseconds, for what needs longer to be hostile
//! // why: what it tries
//! ```
//!
//! A program may be written in short: `@@1000{text#i}@@` stands for the text a thousand times, with 0, 1, 2 ... for
//! `#i`, and `@@hex{ff fe}@@` for bytes.

use std::{fs, path::Path, time::Duration};

/// A program and how it must end.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it attacks: the folder.
    pub class: String,
    /// The file's name without its ending.
    pub name: String,
    /// The kinds that it may end with.
    pub expected: Vec<String>,
    /// Options for the command line.
    pub args: Vec<String>,
    /// A deadline of its own.
    pub timeout: Option<Duration>,
    /// The program itself, written out.
    pub source: Vec<u8>,
}

impl Program {
    /// Class and name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}", self.class, self.name)
    }

    fn read(class: &str, path: &Path) -> Self {
        let bytes = fs::read(path).expect("a file of the corpus");
        let text = String::from_utf8(bytes).expect("files of the corpus are UTF-8");
        let (mut expected, mut args, mut timeout, mut rest) = (Vec::new(), Vec::new(), None, text.as_str());
        while let Some((line, after)) = rest.split_once('\n') {
            if let Some(kinds) = line.strip_prefix("// expect: ") {
                expected = kinds.split('|').map(|kind| kind.trim().to_owned()).collect();
            } else if let Some(options) = line.strip_prefix("// args: ") {
                args = options.split_whitespace().map(str::to_owned).collect();
            } else if let Some(ms) = line.strip_prefix("// timeout: ") {
                timeout = Some(Duration::from_millis(ms.trim().parse().expect("milliseconds")));
            } else if !line.starts_with("// why: ") {
                break;
            }
            rest = after;
        }
        assert!(!expected.is_empty(), "{} does not say what to expect", path.display());
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        Self { class: class.to_owned(), name, expected, args, timeout, source: written_out(rest) }
    }
}

/// The whole corpus, in the order of the titles.
#[must_use]
pub fn corpus() -> Vec<Program> {
    corpus_of(&[])
}

/// The programs whose title contains one of `parts`, or all where there is none, in the order of the titles.
///
/// The others are not even read: written out, the corpus has many megabytes.
#[must_use]
pub(super) fn corpus_of(parts: &[String]) -> Vec<Program> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile");
    let mut programs = Vec::new();
    let classes = fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").path());
    for class in classes.filter(|class| class.is_dir()) {
        let title = class.file_name().expect("a name").to_string_lossy().into_owned();
        for file in fs::read_dir(&class).expect("a class").map(|entry| entry.expect("an entry").path()) {
            let name = format!("{title}/{}", file.file_stem().expect("a name").to_string_lossy());
            if parts.is_empty() || parts.iter().any(|part| name.contains(part)) {
                programs.push(Program::read(&title, &file));
            }
        }
    }
    programs.sort_by_key(Program::title);
    programs
}

/// The program in full.
fn written_out(short: &str) -> Vec<u8> {
    let mut full = Vec::new();
    let mut rest = short;
    while let Some((before, after)) = rest.split_once("@@") {
        full.extend_from_slice(before.as_bytes());
        let (what, after) = after.split_once('{').expect("a { after the number");
        let (text, after) = after.split_once("}@@").expect("a }@@ at the end");
        if what == "hex" {
            full.extend(text.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hexadecimal")));
        } else {
            for i in 0..what.parse::<usize>().expect("a number of times") {
                full.extend_from_slice(text.replace("#i", &i.to_string()).as_bytes());
            }
        }
        rest = after;
    }
    full.extend_from_slice(rest.as_bytes());
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_program_is_written_out() {
        assert_eq!(written_out("a@@3{x#i,}@@b@@hex{ff 0a}@@@@2{}}@@"), b"ax0,x1,x2,b\xff\x0a}}");
    }
}
