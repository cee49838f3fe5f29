//! Regular expressions in linear time.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use regex::{Regex, RegexBuilder};
use regex_automata::{
    Input,
    hybrid::{dfa, regex::Regex as LazyRegex},
    nfa::thompson,
    util::{iter::Searcher, syntax},
};
use regex_syntax::ast::{self, parse::ParserBuilder};
use rhai::{Dynamic, ImmutableString, Map, Module};

use super::{charge_bytes, fail, register::add, text::pieces};
use crate::{
    call::{self, HostResult},
    meter,
};

/// Compiled patterns that are kept; a pattern costs up to [`MAX_PROGRAM_BYTES`] of memory for each of its parts.
const KEPT: usize = 64;

/// Bytes of one compiled pattern.
const MAX_PROGRAM_BYTES: usize = 512 << 10;

/// Bytes of a pattern's text.
const MAX_PATTERN_BYTES: usize = 4 << 10;

/// Groups within groups.
const NESTED: u32 = 50;

/// Operations that compiling costs at least; it takes some hundred microseconds.
const COMPILING: usize = 1_000;

/// Bytes of what is said about a pattern that does not compile.
const MAX_PROBLEM_BYTES: usize = 1 << 10;

/// States of the pattern times bytes of the text up to which even the slowest engine ends within some 20 ms.
const QUICK_WORK: usize = 1 << 23;

/// Most that compiling a pattern may cost, in tables of Unicode that are gone through: some 10 µs each.
const MAX_EFFORT: usize = 400;

/// What it costs to make the tables of a class such as `\pL` blind to case.
const FOLDING_EFFORT: usize = 40;

/// A compiled pattern.
struct Pattern {
    regex: Regex,
    /// Steps that the slowest engine makes for each byte.
    states: usize,
    /// An engine that gives up where the quick way does not work out.
    lazy: LazyRegex,
}

impl Pattern {
    fn compile(pattern: &str) -> Result<Self, String> {
        let effort = effort(pattern)?;
        if effort > MAX_EFFORT {
            return Err("it has too many large classes of characters: use fewer, or none with (?i)".into());
        }
        let regex = RegexBuilder::new(pattern)
            .size_limit(MAX_PROGRAM_BYTES)
            .dfa_size_limit(MAX_PROGRAM_BYTES)
            .nest_limit(NESTED)
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
            .syntax(syntax::Config::new().nest_limit(NESTED))
            .thompson(limits)
            .dfa(dfa)
            .build(pattern)
            .map_err(|error| error.to_string())?;
        let states = lazy.forward().get_nfa().states().len();
        Ok(Self { regex, states, lazy })
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
struct Patterns(Mutex<Vec<(String, Arc<Pattern>)>>);

/// A pattern in use by a call.
struct Found {
    // A clone with memory of its own for searching, which the call pays for; dropped before what is shared.
    regex: Regex,
    shared: meter::Outside<Arc<Pattern>>,
}

impl Patterns {
    /// The compiled pattern, for functions that need no groups.
    fn get(&self, pattern: &str, text: &str) -> HostResult<Found> {
        self.admitted(pattern, text, false)
    }

    /// The compiled pattern, for functions that need groups.
    fn get_for_groups(&self, pattern: &str, text: &str) -> HostResult<Found> {
        self.admitted(pattern, text, true)
    }

    fn admitted(&self, pattern: &str, text: &str, captures: bool) -> HostResult<Found> {
        charge_bytes(text.len())?;
        let shared = match self.known(pattern) {
            Some(known) => known,
            None => self.compile(pattern)?,
        };
        let shared = meter::Outside::of(shared);
        let found = Found { regex: shared.regex.clone(), shared };
        found.shared.admit(text, captures)?;
        Ok(found)
    }

    /// Compiles a pattern and keeps it. It stays when the call is over, so the call does not pay for its memory.
    fn compile(&self, pattern: &str) -> HostResult<Arc<Pattern>> {
        charge_bytes(pattern.len().saturating_mul(64))?;
        if pattern.len() > MAX_PATTERN_BYTES {
            return fail(format!("the regular expression is longer than {MAX_PATTERN_BYTES} bytes"));
        }
        let compiled = meter::outside(|| {
            let compiled = Arc::new(Pattern::compile(pattern)?);
            let mut patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if patterns.len() >= KEPT {
                patterns.remove(0);
            }
            patterns.push((pattern.to_owned(), Arc::clone(&compiled)));
            Ok(compiled)
        });
        call::with(|call| call.charge(COMPILING))?;
        compiled.or_else(|problem: String| {
            let problem = meter::Outside::of(problem);
            fail(format!("the regular expression does not compile: {}", call::cut(&problem, MAX_PROBLEM_BYTES)))
        })
    }

    fn known(&self, pattern: &str) -> Option<Arc<Pattern>> {
        let patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        patterns.iter().rev().find(|(known, _)| known == pattern).map(|(_, pattern)| Arc::clone(pattern))
    }
}

/// Counts the tables of Unicode that compiling `pattern` goes through, before any is.
fn effort(pattern: &str) -> Result<usize, String> {
    let tree = ParserBuilder::new().nest_limit(NESTED).build().parse(pattern).map_err(|error| error.to_string())?;
    let folds = pattern.contains("(?") && pattern.contains('i');
    ast::visit(&tree, Effort { sum: 0, each: if folds { FOLDING_EFFORT } else { 1 } })
        .map_err(|never: Infallible| match never {})
}

/// Goes through a pattern's tree.
struct Effort {
    sum: usize,
    each: usize,
}

impl ast::Visitor for Effort {
    type Output = usize;
    type Err = Infallible;

    fn finish(self) -> Result<usize, Infallible> {
        Ok(self.sum)
    }

    fn visit_pre(&mut self, tree: &ast::Ast) -> Result<(), Infallible> {
        match tree {
            ast::Ast::ClassUnicode(_) => self.sum += self.each,
            ast::Ast::ClassPerl(_) => self.sum += 1,
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), Infallible> {
        if matches!(item, ast::ClassSetItem::Unicode(_) | ast::ClassSetItem::Perl(_) | ast::ClassSetItem::Bracketed(_))
        {
            self.sum += self.each;
        }
        Ok(())
    }
}

pub(super) fn register(module: &mut Module) {
    type Text = ImmutableString;
    let patterns = Arc::new(Patterns::default());
    let with = |patterns: &Arc<Patterns>| Arc::clone(patterns);
    let p = with(&patterns);
    add(module, "regex_is_match", ["pattern", "text"], move |pattern: Text, text: Text| {
        Ok(p.get(&pattern, &text)?.regex.is_match(&text))
    });
    let p = with(&patterns);
    add(module, "regex_find", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        Ok(p.get(&pattern, &text)?.regex.find(&text).map_or(Dynamic::UNIT, |found| found.as_str().into()))
    });
    let p = with(&patterns);
    add(module, "regex_find_all", ["pattern", "text"], move |pattern: Text, text: Text| {
        pieces(&text, p.get(&pattern, &text)?.regex.find_iter(&text).map(|found| found.as_str().into()))
    });
    let p = with(&patterns);
    add(module, "regex_captures", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        let Some(captures) = p.get_for_groups(&pattern, &text)?.regex.captures(&text) else { return Ok(Dynamic::UNIT) };
        let groups = captures.iter().map(|group| group.map_or(Dynamic::UNIT, |group| group.as_str().into()));
        Ok(Dynamic::from_array(groups.collect()))
    });
    let p = with(&patterns);
    add(module, "regex_named", ["pattern", "text"], move |pattern: Text, text: Text| -> HostResult<Dynamic> {
        let Found { regex, .. } = &p.get_for_groups(&pattern, &text)?;
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
            let found =
                if replacement.contains('$') { p.get_for_groups(&pattern, &text) } else { p.get(&pattern, &text) }?;
            replace(&found.regex, &text, &replacement)
        },
    );
    let p = patterns;
    add(module, "regex_split", ["pattern", "text"], move |pattern: Text, text: Text| {
        pieces(&text, p.get(&pattern, &text)?.regex.split(&text).map(Into::into))
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
            let references = replacement.matches('$').count();
            for captures in regex.captures_iter(text) {
                let Some(whole) = captures.get(0) else { continue };
                // No group is longer than the whole.
                let most = references.saturating_mul(whole.len()).saturating_add(replacement.len());
                call.admit_string(most)?;
                call.charge(most / 64)?;
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
