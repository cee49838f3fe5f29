//! Regular expressions in linear time.

use std::sync::{Arc, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};
use rhai::{Dynamic, ImmutableString, Map, Module};

use super::{charge_bytes, fail, register::add, text::pieces};
use crate::call::{self, HostResult};

/// Compiled patterns that are kept; a pattern costs up to [`MAX_PROGRAM_BYTES`] of memory for each of its parts.
const KEPT: usize = 64;

/// Bytes of one compiled pattern, which also bounds what one step of a search costs.
const MAX_PROGRAM_BYTES: usize = 512 << 10;

/// Bytes of a pattern's text.
const MAX_PATTERN_BYTES: usize = 4 << 10;

/// Patterns compiled lately, the newest last. Shared by all calls: a pattern says nothing about who used it.
#[derive(Default)]
struct Patterns(Mutex<Vec<(ImmutableString, Regex)>>);

impl Patterns {
    fn get(&self, pattern: &ImmutableString, text: &str) -> HostResult<Regex> {
        charge_bytes(text.len())?;
        if let Some(regex) = self.known(pattern) {
            return Ok(regex);
        }
        charge_bytes(pattern.len().saturating_mul(64))?;
        if pattern.len() > MAX_PATTERN_BYTES {
            return fail(format!("the regular expression is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        let built = RegexBuilder::new(pattern)
            .size_limit(MAX_PROGRAM_BYTES)
            .dfa_size_limit(MAX_PROGRAM_BYTES)
            .nest_limit(50)
            .build();
        match built {
            Ok(regex) => {
                let mut patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if patterns.len() >= KEPT {
                    patterns.remove(0);
                }
                patterns.push((pattern.clone(), regex.clone()));
                Ok(regex)
            }
            Err(error) => fail(format!("the regular expression does not compile: {error}")),
        }
    }

    fn known(&self, pattern: &ImmutableString) -> Option<Regex> {
        let patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        patterns.iter().rev().find(|(known, _)| known == pattern).map(|(_, regex)| regex.clone())
    }
}

pub(super) fn register(module: &mut Module) {
    type Text = ImmutableString;
    let patterns = Arc::new(Patterns::default());
    let with = |patterns: &Arc<Patterns>| Arc::clone(patterns);
    let p = with(&patterns);
    add(module, "regex_is_match", ["pattern", "text"], move |pattern: Text, text: Text| {
        Ok(p.get(&pattern, &text)?.is_match(&text))
    });
    let p = with(&patterns);
    add(module, "regex_find", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        Ok(p.get(&pattern, &text)?.find(&text).map_or(Dynamic::UNIT, |found| found.as_str().into()))
    });
    let p = with(&patterns);
    add(module, "regex_find_all", ["pattern", "text"], move |pattern: Text, text: Text| {
        pieces(&text, p.get(&pattern, &text)?.find_iter(&text).map(|found| found.as_str().into()))
    });
    let p = with(&patterns);
    add(module, "regex_captures", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        let Some(captures) = p.get(&pattern, &text)?.captures(&text) else { return Ok(Dynamic::UNIT) };
        let groups = captures.iter().map(|group| group.map_or(Dynamic::UNIT, |group| group.as_str().into()));
        Ok(Dynamic::from_array(groups.collect()))
    });
    let p = with(&patterns);
    add(module, "regex_named", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        let regex = p.get(&pattern, &text)?;
        let Some(captures) = regex.captures(&text) else { return Ok(Dynamic::UNIT) };
        let group = |name: &str| captures.name(name).map_or(Dynamic::UNIT, |group| group.as_str().into());
        let named: Map = regex.capture_names().flatten().map(|name| (name.into(), group(name))).collect();
        Ok(Dynamic::from_map(named))
    });
    let p = with(&patterns);
    add(
        module,
        "regex_replace",
        ["pattern", "text", "replacement"],
        move |pattern: Text, text: Text, replacement: Text| replace(&p.get(&pattern, &text)?, &text, &replacement),
    );
    let p = patterns;
    add(module, "regex_split", ["pattern", "text"], move |pattern: Text, text: Text| {
        pieces(&text, p.get(&pattern, &text)?.split(&text).map(Into::into))
    });
}

/// Replaces every match; `$1` and `${name}` stand for groups. Built by hand so that the size is known while it grows.
fn replace(regex: &Regex, text: &str, replacement: &str) -> HostResult<ImmutableString> {
    call::with(|call| {
        let mut result = String::new();
        let mut rest = 0;
        for captures in regex.captures_iter(text) {
            let Some(whole) = captures.get(0) else { continue };
            call.charge(1 + replacement.len() / 64)?;
            result.push_str(text.get(rest..whole.start()).unwrap_or_default());
            captures.expand(replacement, &mut result);
            rest = whole.end();
            call.admit_string(result.len())?;
        }
        result.push_str(text.get(rest..).unwrap_or_default());
        call.admit_string(result.len())?;
        Ok(result.into())
    })
}
