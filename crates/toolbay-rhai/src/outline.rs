//! The beginning of a script, up to the end of its `PLUGIN` constant: what the plugin says of itself, read without the rest
//! of it. It stands apart from `script` since nothing of it is ever called.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rhai::Token;
use toolbay_api::{Callback, Declared, ErrorKind, Limit, Limits, LoadError, Package};

use crate::{
    check,
    runner::{entry_file, scripts},
    script::DECLARATION,
};

/// Where in a script the parser is, by the tokens that it was given.
#[derive(Debug, Default)]
pub(crate) struct Reading(Mutex<Place>);

#[derive(Debug, Default)]
struct Place {
    /// Brackets of all kinds that are open.
    depth: u32,
    part: Part,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Before,
    /// Behind a `const` or `let` of the top level.
    Keyword,
    /// In the statement that declares the plugin.
    Declaration,
    Behind,
}

impl Reading {
    /// What the parser is to take for `token`: its end, once the declaration is over.
    pub(crate) fn next(&self, token: Token) -> Token {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_top = place.depth == 0;
        match &token {
            Token::LeftBrace | Token::LeftParen | Token::LeftBracket | Token::QuestionBracket | Token::MapStart => {
                place.depth += 1;
            }
            Token::RightBrace | Token::RightParen | Token::RightBracket => place.depth = place.depth.saturating_sub(1),
            _ => {}
        }
        place.part = match (place.part, &token) {
            (Part::Behind, _) => return Token::EOF,
            (Part::Before, Token::Const | Token::Let) if is_top => Part::Keyword,
            (Part::Keyword, Token::Identifier(name)) if name.as_str() == DECLARATION => Part::Declaration,
            (Part::Keyword, _) => Part::Before,
            (Part::Declaration, Token::SemiColon) if is_top => Part::Behind,
            (part, _) => part,
        };
        token
    }
}

/// What a folder plugin says of itself where its manifest says all of it; `None` where its code adds to that, which has to
/// be read in the sandbox then.
///
/// # Errors
/// As the runner's, for an entry file that is not there and for code that is too long.
pub fn declared_in_manifest(package: &Package, limits: &Limits) -> Result<Option<Declared>, LoadError> {
    let Some(manifest) = &package.manifest else { return Ok(None) };
    let files = scripts(package);
    let entry = entry_file(package, &files)?;
    let ceiling = limits.lowered_by(&manifest.limits);
    let source = checked_source(&entry, &files, &ceiling)?;
    // Wherever a script declares something, it does so under this name.
    if source.contains(DECLARATION) {
        return Ok(None);
    }
    check::declares_something(manifest).map_err(|message| LoadError::new(ErrorKind::Config, message).in_file(entry))?;
    Ok(Some(Declared { manifest: manifest.clone(), callbacks: callbacks_in(&source) }))
}

/// The entry file's text, where all files together are not too long.
///
/// # Errors
/// `LimitExceeded`.
pub(crate) fn checked_source(
    entry: &str,
    files: &BTreeMap<String, Arc<str>>,
    limits: &Limits,
) -> Result<Arc<str>, LoadError> {
    let bytes: usize = files.values().map(|source| source.len()).sum();
    let allowed = limits.max_source_bytes;
    if bytes > allowed {
        let kind = ErrorKind::LimitExceeded { limit: Limit::SourceSize, allowed: allowed as u64, used: bytes as u64 };
        let message = format!("the plugin has {bytes} bytes of source; {allowed} are allowed");
        return Err(LoadError::new(kind, message).in_file(entry));
    }
    Ok(files.get(entry).map(Arc::clone).unwrap_or_default())
}

/// The callbacks whose names stand anywhere in `source`. A function has to be written out under its name, so a callback
/// that is not among them is not there; one that is only spoken of makes no more than a needless look.
pub(crate) fn callbacks_in(source: &str) -> Vec<Callback> {
    Callback::ALL.into_iter().filter(|callback| source.contains(callback.name())).collect()
}
