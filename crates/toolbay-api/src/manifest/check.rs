//! What a manifest must keep to beyond its types. Every way into the host checks it: files of the three formats, the
//! `PLUGIN` constant, what a worker process answers, native plugins.

use std::collections::BTreeSet;

use semver::{Version, VersionReq};
use serde_json::Value;

use super::{
    EventDeclaration, HookDeclaration, MAX_ABILITIES, MAX_DESCRIPTION, MAX_GLOBS, MAX_KEYWORD, MAX_KEYWORDS, MAX_LINE,
    MAX_NAME, MAX_PERMISSIONS, MAX_REQUIREMENTS, MAX_TOOL_DESCRIPTION, MAX_TOOLS, MAX_URL, Manifest, Provides,
    Requirement, RuntimeKind, ToolDeclaration,
    shown::{MAX_PROMPTS, MAX_RESOURCES},
};
use crate::{
    names::{EventName, PluginName, ToolName},
    permission::PermissionSet,
};

/// A manifest that cannot be taken: which field and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ManifestError {
    /// The field as a dotted path, such as `tools.pay.description` or `requires[1].version`.
    pub field: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
    /// Whether it is the field's value that is wrong, or that it is there at all.
    pub part: FieldPart,
}

/// What of a field an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldPart {
    /// Its name: the field is unknown, or not there.
    Key,
    /// What it holds.
    Value,
}

impl ManifestError {
    /// A problem with what a field holds.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: cut(field.into(), MAX_FIELD), problem: cut(problem.into(), MAX_PROBLEM), part: FieldPart::Value }
    }

    /// A problem with a field's name, or with its absence.
    pub fn of_key(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { part: FieldPart::Key, ..Self::new(field, problem) }
    }

    /// The same problem of a field that lies within `outer`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// Characters of a field's path and of a problem, which quote what a stranger wrote.
const MAX_FIELD: usize = 400;
const MAX_PROBLEM: usize = 600;

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

pub(crate) type Checked = Result<(), ManifestError>;

impl Manifest {
    /// Checks what the types cannot say: no text empty or endless, addresses and licence of their forms, no limit of zero,
    /// no plugin required twice, `provides` in agreement, `entry` inside the folder, this Toolbay within `framework`.
    ///
    /// # Errors
    /// The first [`ManifestError`].
    pub fn validate(&self) -> Checked {
        at_most("version", self.version.to_string().len(), MAX_LINE, "characters")?;
        text("description", &self.description, MAX_DESCRIPTION)?;
        text("author", &self.author, MAX_LINE)?;
        if let Some(license) = &self.license {
            text("license", license, MAX_LINE)?;
            ensure(is_spdx(license), "license", || {
                format!("{license:?} is no SPDX expression: write one such as \"MIT\" or \"MIT OR Apache-2.0\"")
            })?;
        }
        for (field, address) in [("homepage", &self.homepage), ("repository", &self.repository)] {
            address.as_ref().map_or(Ok(()), |address| http_address(field, address))?;
        }
        keywords(&self.keywords)?;
        self.entry.as_ref().map_or(Ok(()), |entry| path_within("entry", entry))?;
        self.framework.as_ref().map_or(Ok(()), includes_this_toolbay)?;
        requirements(&self.name, &self.requires)?;
        permissions("permissions", &self.permissions)?;
        self.limits.validate().map_err(|error| error.within("limits"))?;
        object("config_schema", self.config_schema.as_ref())?;
        at_most("tools", self.tools.len(), MAX_TOOLS, "tools")?;
        for (name, tool) in &self.tools {
            tool.validate().map_err(|error| error.within(&format!("tools.{name}")))?;
        }
        at_most("events", self.events.len(), MAX_GLOBS, "entries")?;
        for (pattern, event) in &self.events {
            event.validate().map_err(|error| error.within(&format!("events.{pattern}")))?;
        }
        at_most("requires_services", self.requires_services.len(), MAX_REQUIREMENTS, "entries")?;
        ensure(self.runtime == RuntimeKind::Native || self.requires_services.is_empty(), "requires_services", || {
            format!("services are for native plugins, and this one's runtime is {}", self.runtime)
        })?;
        at_most("prompts", self.prompts.len(), MAX_PROMPTS, "prompts")?;
        for (name, prompt) in &self.prompts {
            prompt.validate().map_err(|error| error.within(&format!("prompts.{name}")))?;
        }
        at_most("resources", self.resources.len(), MAX_RESOURCES, "resources")?;
        for (name, resource) in &self.resources {
            resource.validate().map_err(|error| error.within(&format!("resources.{name}")))?;
        }
        for (point, hook) in &self.hooks {
            hook.validate().map_err(|error| error.within(&format!("hooks.{point}")))?;
        }
        if let Some(provides) = &self.provides {
            provides.validate()?;
            agree("provides.tools", &provides.tools, self.tools.keys().map(ToolName::as_str))?;
            agree("provides.hooks", &provides.hooks, self.hooks.keys().map(|point| point.name()))?;
        }
        Ok(())
    }
}

impl ToolDeclaration {
    fn validate(&self) -> Checked {
        text("description", &self.description, MAX_TOOL_DESCRIPTION)?;
        object("parameters", Some(&self.parameters))?;
        object("output", self.output.as_ref())?;
        permissions("required_permissions", &self.required_permissions)?;
        not_zero("timeout_ms", self.timeout_ms)
    }
}

impl HookDeclaration {
    fn validate(&self) -> Checked {
        if let Some(globs) = &self.tools {
            names("tools", globs, MAX_GLOBS, MAX_NAME)?;
        }
        not_zero("timeout_ms", self.timeout_ms)
    }
}

impl EventDeclaration {
    fn validate(&self) -> Checked {
        text("function", &self.function, MAX_LINE)?;
        ensure(self.queue != Some(0), "queue", || "must be 1 or more: 0 would let no event wait".to_owned())?;
        not_zero("timeout_ms", self.timeout_ms)
    }
}

impl Provides {
    fn validate(&self) -> Checked {
        let Self { tools, hooks, abilities, events } = self;
        for (field, list) in [("tools", tools), ("hooks", hooks), ("events", events)] {
            names(&format!("provides.{field}"), list, MAX_TOOLS, MAX_NAME)?;
        }
        at_most("provides.abilities", abilities.len(), MAX_ABILITIES, "entries")?;
        let mut seen = BTreeSet::new();
        if let Some((index, name)) = abilities.iter().enumerate().find(|(_, name)| !seen.insert(*name)) {
            return Err(ManifestError::new(
                format!("provides.abilities[{index}]"),
                format!("{name:?} stands there already"),
            ));
        }
        for name in events {
            let name =
                EventName::new(name).map_err(|error| ManifestError::new("provides.events", error.to_string()))?;
            ensure(!name.is_reserved(), "provides.events", || {
                format!("{name:?} is an event of the host: plugins use other first words")
            })?;
        }
        Ok(())
    }
}

pub(crate) fn ensure(holds: bool, field: &str, problem: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(ManifestError::new(field, problem())) }
}

pub(crate) fn at_most(field: &str, count: usize, most: usize, of_what: &str) -> Checked {
    ensure(count <= most, field, || format!("has {count} {of_what}, and {most} are allowed"))
}

/// Checks that `text` says something and has an end.
pub(crate) fn text(field: &str, text: &str, most: usize) -> Checked {
    ensure(!text.trim().is_empty(), field, || "must not be empty".to_owned())?;
    at_most(field, text.chars().count(), most, "characters")
}

fn names(field: &str, list: &[String], most: usize, longest: usize) -> Checked {
    at_most(field, list.len(), most, "entries")?;
    list.iter().enumerate().try_for_each(|(index, name)| text(&format!("{field}[{index}]"), name, longest))
}

fn keywords(list: &[String]) -> Checked {
    names("keywords", list, MAX_KEYWORDS, MAX_KEYWORD)?;
    let mut seen = BTreeSet::new();
    let twice = list.iter().enumerate().find(|(_, keyword)| !seen.insert(keyword.as_str()));
    twice.map_or(Ok(()), |(index, keyword)| {
        Err(ManifestError::new(format!("keywords[{index}]"), format!("{keyword:?} stands there already")))
    })
}

fn permissions(field: &str, permissions: &PermissionSet) -> Checked {
    at_most(field, permissions.iter().count(), MAX_PERMISSIONS, "permissions")
}

fn object(field: &str, schema: Option<&Value>) -> Checked {
    ensure(schema.is_none_or(Value::is_object), field, || {
        "must be a JSON Schema, written as a table: { type = \"object\", ... }".to_owned()
    })
}

fn not_zero(field: &str, milliseconds: Option<u64>) -> Checked {
    ensure(milliseconds != Some(0), field, || "must be 1 or more: 0 would leave no time at all".to_owned())
}

pub(crate) fn path_within(field: &str, path: &str) -> Checked {
    let inside =
        !path.contains('\\') && path.split('/').all(|step| !matches!(step, "" | "." | "..")) && !path.contains('\0');
    ensure(inside, field, || {
        let path: String = path.chars().take(MAX_LINE).collect();
        format!("{path:?} must be a file within the plugin's folder, such as \"main.rhai\"")
    })?;
    at_most(field, path.chars().count(), MAX_LINE, "characters")
}

fn includes_this_toolbay(range: &VersionReq) -> Checked {
    let version = env!("CARGO_PKG_VERSION");
    let fits = Version::parse(version).is_ok_and(|version| range.matches(&version));
    ensure(fits, "framework", || format!("asks for {range}, and this is Toolbay {version}"))
}

fn requirements(own: &PluginName, requires: &[Requirement]) -> Checked {
    at_most("requires", requires.len(), MAX_REQUIREMENTS, "entries")?;
    let mut seen = BTreeSet::new();
    for (index, Requirement { name, .. }) in requires.iter().enumerate() {
        let field = format!("requires[{index}].name");
        ensure(name != own, &field, || format!("a plugin cannot require itself: take {name} out"))?;
        ensure(seen.insert(name), &field, || {
            format!("requires {name} again: write one range of versions, such as \">=1.2, <1.9\"")
        })?;
    }
    Ok(())
}

/// Whether `text` could be an SPDX expression: names with AND, OR or WITH between them, and brackets in pairs. Names are
/// not looked up, since the list of licences grows.
fn is_spdx(text: &str) -> bool {
    let is_name = |word: &str| {
        let word = word.trim_start_matches('(').trim_end_matches(')');
        let word = word.strip_suffix('+').unwrap_or(word);
        word.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-'))
    };
    let words: Vec<_> = text.split(' ').collect();
    let in_order = words.iter().enumerate().all(|(index, word)| match index % 2 {
        0 => is_name(word),
        _ => matches!(*word, "AND" | "OR" | "WITH"),
    });
    let mut open = 0_i32;
    let in_pairs = text.chars().all(|character| {
        open += i32::from(character == '(') - i32::from(character == ')');
        open >= 0
    });
    in_order && words.len() % 2 == 1 && in_pairs && open == 0
}

/// Checks that `address` could be opened in a browser. What lies there is nobody's business here.
fn http_address(field: &str, address: &str) -> Checked {
    at_most(field, address.chars().count(), MAX_URL, "characters")?;
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let is_url_byte = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    let holds = rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // What stands before an @ is a user and a password, and these are no one's to publish.
        host.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'[')
            && !host.contains('@')
            && rest.bytes().all(is_url_byte)
    });
    ensure(holds, field, || {
        let shown: String = address.chars().take(80).collect();
        format!("{shown:?} must be an http or https address, such as \"https://example.com/fx\"")
    })
}

/// Checks that the list `provided` has just the names `declared`. An empty list says nothing of its kind.
fn agree<'a>(field: &str, provided: &[String], declared: impl Iterator<Item = &'a str> + Clone) -> Checked {
    if let Some(name) = provided.iter().find(|name| !declared.clone().any(|declared| declared == name.as_str())) {
        return Err(ManifestError::new(field, format!("names {name:?}, which is not declared")));
    }
    if provided.is_empty() {
        return Ok(());
    }
    if let Some(name) = declared.clone().find(|name| !provided.iter().any(|provided| provided == name)) {
        let problem = format!("lacks {name:?}, which is declared: add it or leave the list out");
        return Err(ManifestError::new(field, problem));
    }
    Ok(())
}
