//! Regular expressions in linear time.

use std::sync::{Arc, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};
use regex_automata::{
    Input,
    hybrid::{dfa, regex::Regex as LazyRegex},
    nfa::thompson,
    util::{iter::Searcher, syntax},
};
use rhai::{Dynamic, ImmutableString, Map, Module};

use super::{charge_bytes, fail, register::add, text::pieces};
use crate::call::{self, HostResult};

/// Compiled patterns that are kept; a pattern costs up to [`MAX_PROGRAM_BYTES`] of memory for each of its parts.
const KEPT: usize = 64;

/// Bytes of one compiled pattern.
const MAX_PROGRAM_BYTES: usize = 512 << 10;

/// Bytes of a pattern's text.
const MAX_PATTERN_BYTES: usize = 4 << 10;

/// States of the pattern times bytes of the text up to which even the slowest engine ends within some 50 ms.
const QUICK_WORK: usize = 1 << 24;

/// A compiled pattern.
#[derive(Clone)]
struct Pattern {
    regex: Regex,
    /// Steps that the slowest engine makes for each byte.
    states: usize,
    /// An engine that gives up where the quick way does not work out.
    lazy: Arc<LazyRegex>,
}

impl Pattern {
    fn compile(pattern: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern)
            .size_limit(MAX_PROGRAM_BYTES)
            .dfa_size_limit(MAX_PROGRAM_BYTES)
            .nest_limit(50)
            .build()
            .map_err(|error| error.to_string())?;
        let limits = thompson::Config::new().nfa_size_limit(Some(MAX_PROGRAM_BYTES));
        let dfa = dfa::Config::new()
            .cache_capacity(MAX_PROGRAM_BYTES)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(3))
            .minimum_bytes_per_state(Some(10))
            // A word border of Unicode is beyond it: on ASCII text it counts as one of ASCII, elsewhere it gives up.
            .unicode_word_boundary(true);
        let lazy = LazyRegex::builder()
            .syntax(syntax::Config::new().nest_limit(50))
            .thompson(limits)
            .dfa(dfa)
            .build(pattern)
            .map_err(|error| error.to_string())?;
        let states = lazy.forward().get_nfa().states().len();
        Ok(Self { regex, states, lazy: Arc::new(lazy) })
    }

    /// Refuses a search that could take far longer than its text is long: a tenth of a second for a megabyte, no
    /// progress callback within. Where the work could be much, the text is searched once by the engine that gives up.
    fn admit(&self, text: &str, captures: bool) -> HostResult<()> {
        if self.states.saturating_mul(text.len()) <= QUICK_WORK {
            return Ok(());
        }
        if captures {
            return fail(
                "the regular expression has too many states to find groups in so long a text: use a shorter one",
            );
        }
        let mut cache = self.lazy.create_cache();
        let mut searcher = Searcher::new(Input::new(text));
        loop {
            match searcher.try_advance(|input| self.lazy.try_search(&mut cache, input)) {
                Ok(Some(_)) => call::with(|call| call.charge(1))?,
                Ok(None) => return Ok(()),
                Err(_) => {
                    return fail("the regular expression has too many states for so long a text: use a shorter one");
                }
            }
        }
    }
}

/// Patterns compiled lately, the newest last. Shared by all calls: a pattern says nothing about who used it.
#[derive(Default)]
struct Patterns(Mutex<Vec<(ImmutableString, Pattern)>>);

impl Patterns {
    /// The compiled pattern, for functions that need no groups.
    fn get(&self, pattern: &ImmutableString, text: &str) -> HostResult<Regex> {
        self.admitted(pattern, text, false)
    }

    /// The compiled pattern, for functions that need groups.
    fn get_for_groups(&self, pattern: &ImmutableString, text: &str) -> HostResult<Regex> {
        self.admitted(pattern, text, true)
    }

    fn admitted(&self, pattern: &ImmutableString, text: &str, captures: bool) -> HostResult<Regex> {
        charge_bytes(text.len())?;
        let found = match self.known(pattern) {
            Some(found) => found,
            None => self.compile(pattern)?,
        };
        found.admit(text, captures)?;
        Ok(found.regex)
    }

    fn compile(&self, pattern: &ImmutableString) -> HostResult<Pattern> {
        charge_bytes(pattern.len().saturating_mul(64))?;
        if pattern.len() > MAX_PATTERN_BYTES {
            return fail(format!("the regular expression is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        let compiled = match Pattern::compile(pattern) {
            Ok(compiled) => compiled,
            Err(problem) => return fail(format!("the regular expression does not compile: {problem}")),
        };
        let mut patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if patterns.len() >= KEPT {
            patterns.remove(0);
        }
        patterns.push((pattern.clone(), compiled.clone()));
        Ok(compiled)
    }

    fn known(&self, pattern: &ImmutableString) -> Option<Pattern> {
        let patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        patterns.iter().rev().find(|(known, _)| known == pattern).map(|(_, pattern)| pattern.clone())
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
        let Some(captures) = p.get_for_groups(&pattern, &text)?.captures(&text) else { return Ok(Dynamic::UNIT) };
        let groups = captures.iter().map(|group| group.map_or(Dynamic::UNIT, |group| group.as_str().into()));
        Ok(Dynamic::from_array(groups.collect()))
    });
    let p = with(&patterns);
    add(module, "regex_named", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        let regex = p.get_for_groups(&pattern, &text)?;
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
        move |pattern: Text, text: Text, replacement: Text| {
            // Without a reference to a group no group need be found.
            let regex =
                if replacement.contains('$') { p.get_for_groups(&pattern, &text) } else { p.get(&pattern, &text) }?;
            replace(&regex, &text, &replacement)
        },
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
        let mut put = |place: std::ops::Range<usize>, write: &dyn Fn(&mut String)| {
            call.charge(1 + replacement.len() / 64)?;
            result.push_str(text.get(rest..place.start).unwrap_or_default());
            write(&mut result);
            rest = place.end;
            call.admit_string(result.len())
        };
        if replacement.contains('$') {
            for captures in regex.captures_iter(text) {
                let Some(whole) = captures.get(0) else { continue };
                put(whole.range(), &|result| captures.expand(replacement, result))?;
            }
        } else {
            for found in regex.find_iter(text) {
                put(found.range(), &|result| result.push_str(replacement))?;
            }
        }
        result.push_str(text.get(rest..).unwrap_or_default());
        call.admit_string(result.len())?;
        Ok(result.into())
    })
}
