//! YAML into the tree, by the core schema of YAML 1.2. Built from the parser's events rather than through serde, because
//! nesting must not cost stack, and because what aliases repeat is bounded here by what it takes up.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, options};
use serde_json::{Number, Value};

use super::{Entry, Fault, Kind, MAX_BYTES, MAX_DEPTH, Node, Place};

/// What all that aliases repeat may take up: a byte for each byte of text, and `NODE_WEIGHT` for each value.
const MAX_REPEATED: usize = MAX_BYTES;
const NODE_WEIGHT: usize = 64;

pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let options = options! {
        disallow_directives: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| of_parser(&error))?;
        builder.take(event, place(span.start))?;
    }
    builder.root.ok_or_else(|| Fault::new("the file is empty", Place::Line(1, 1)))
}

/// By the byte where it is known: to YAML a carriage return alone ends a line too, to editors and to the excerpt it does not.
fn place(marker: Marker) -> Place {
    marker.byte_offset().map_or(Place::Line(marker.line(), marker.col() + 1), Place::Offset)
}

fn of_parser(error: &ScanError) -> Fault {
    Fault::new(error.info(), place(*error.marker()))
}

/// The tree so far.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    /// The lists and tables that are not at their end, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    repeated: usize,
}

struct Open {
    at: Place,
    anchor: usize,
    size: Size,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    /// The entries, their keys, and a key that has no value yet.
    Table(Vec<Entry>, HashSet<String>, Option<(String, Place)>),
}

/// What a value takes up.
#[derive(Clone, Copy, Default)]
struct Size {
    weight: usize,
    depth: usize,
}

struct Anchored {
    node: Node,
    size: Size,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Place) -> Result<(), Fault> {
        let is_text = match event.tag() {
            None => false,
            Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
            Some(_) => return Err(Fault::new("tags are not taken: write the value without its !", at)),
        };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let size = Size { weight: NODE_WEIGHT + text.len(), depth: 0 };
                let value = if is_text || style != ScalarStyle::Plain {
                    Value::from(text.into_owned())
                } else if self.expects_key() {
                    // A key is its text: `on:` and `1:` too.
                    Value::from(text.into_owned())
                } else {
                    plain(&text).ok_or_else(|| Fault::new("this is no number that JSON has", at))?
                };
                self.add(Node { at, kind: Kind::Scalar(value) }, anchor, size)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(OpenKind::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => {
                self.begin(OpenKind::Table(Vec::new(), HashSet::new(), None), anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.repeat(anchor, at),
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Fault::new("a second document begins here, and a manifest is one", at))
            }
            _ => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Table(_, _, None), .. }))
    }

    fn begin(&mut self, kind: OpenKind, anchor: usize, at: Place) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault::too_deep(at));
        }
        if self.expects_key() {
            return Err(Fault::new("a key is a text, no list and no table", at));
        }
        self.open.push(Open { at, anchor, size: Size { weight: NODE_WEIGHT, depth: 1 }, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.kind {
            OpenKind::List(items) => Kind::List(items),
            OpenKind::Table(entries, ..) => Kind::Table(entries),
        };
        self.add(Node { at: open.at, kind }, open.anchor, open.size)
    }

    fn repeat(&mut self, anchor: usize, at: Place) -> Result<(), Fault> {
        // Within its own value, an anchor is not known yet.
        let Some(Anchored { node, size }) = self.anchors.get(&anchor) else {
            return Err(Fault::new("this repeats what is not at its end yet", at));
        };
        self.repeated += size.weight;
        if self.repeated > MAX_REPEATED {
            return Err(Fault::new(format!("what is repeated takes up more than {MAX_REPEATED} bytes"), at));
        }
        if self.open.len() + size.depth > MAX_DEPTH {
            return Err(Fault::too_deep(at));
        }
        let (node, size) = (Node { at, kind: node.kind.clone() }, *size);
        self.add(node, 0, size)
    }

    /// Puts a value where it belongs: into the list or table that is open, or at the top.
    fn add(&mut self, node: Node, anchor: usize, size: Size) -> Result<(), Fault> {
        if anchor != 0 {
            // The copy that is kept counts like one that is made.
            self.repeated += size.weight;
            if self.repeated > MAX_REPEATED {
                return Err(Fault::new(format!("what is anchored takes up more than {MAX_REPEATED} bytes"), node.at));
            }
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size.weight += size.weight;
        open.size.depth = open.size.depth.max(size.depth + 1);
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Table(entries, seen, key) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => {
                    let Kind::Scalar(Value::String(text)) = node.kind else {
                        return Err(Fault::new("a key is a text, no list and no table", node.at));
                    };
                    if text == "<<" {
                        return Err(Fault::new("merge keys are not taken: write the entries out", node.at));
                    }
                    if !seen.insert(text.clone()) {
                        return Err(Fault::new(format!("the key {text:?} stands there twice: keep one"), node.at));
                    }
                    *key = Some((text, node.at));
                }
            },
        }
        Ok(())
    }
}

/// A plain scalar by the core schema (YAML 1.2.2, 10.3.2); `None` for a number that JSON has not.
fn plain(text: &str) -> Option<Value> {
    let number = |text: &str, radix| i64::from_str_radix(text, radix).map(Value::from).ok();
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {
            if let Some(digits) = text.strip_prefix("0x").filter(|digits| is_made_of(digits, 16)) {
                return number(digits, 16);
            }
            if let Some(digits) = text.strip_prefix("0o").filter(|digits| is_made_of(digits, 8)) {
                return number(digits, 8);
            }
            let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
            if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
                return None;
            }
            if is_made_of(unsigned, 10) {
                let whole = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok();
                return whole.or_else(|| float(text));
            }
            if is_decimal(unsigned) { return float(text) } else { Value::from(text) }
        }
    })
}

fn float(text: &str) -> Option<Value> {
    text.parse().ok().and_then(Number::from_f64).map(Value::Number)
}

fn is_made_of(digits: &str, radix: u32) -> bool {
    !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(left, right)| (left, Some(right)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(left, right)| (left, Some(right)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match fraction {
        None => is_made_of(whole, 10),
        Some(fraction) => digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()),
    };
    let exponent_fits =
        exponent.is_none_or(|exponent| is_made_of(exponent.strip_prefix(['-', '+']).unwrap_or(exponent), 10));
    mantissa_fits && exponent_fits
}
