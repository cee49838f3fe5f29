//! Abilities as the host declared them, compiled, and the check that a plugin keeps what it says it provides. Which
//! provider a tenant gets is the [view](crate::view)'s to say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use toolbay_api::{Ability, AbilityName, Annotations, ErrorKind, LoadError, ToolDefinition, ToolName};

use crate::{
    catalog::{Owner, ToolEntry, ToolInfo, provider_name},
    evolution::{self, ChangeKind, ToolChange},
    schema::Schema,
};

/// Reasons why a tool does not fit that one error lists.
const MAX_REASONS: usize = 5;
/// Abilities that an error lists where it knows no better.
const MAX_LISTED: usize = 20;

/// All abilities of the host. They are what they are from its start to its end.
#[derive(Default)]
pub(crate) struct Abilities {
    declared: BTreeMap<AbilityName, Declared>,
    /// The names that their operations have where dots are not allowed.
    provider_names: HashMap<Arc<str>, ToolName>,
}

struct Declared {
    ability: Arc<Ability>,
    operations: Vec<Compiled>,
}

/// An operation, compiled and ready: each provider shares the schemas.
struct Compiled {
    local: ToolName,
    definition: ToolDefinition,
    provider_name: Arc<str>,
    parameters: Arc<Schema>,
    output: Option<Arc<Schema>>,
}

/// An ability that a plugin provides, with an entry for each operation.
pub(crate) struct Provided {
    pub(crate) ability: AbilityName,
    pub(crate) operations: Vec<Arc<ToolEntry>>,
}

impl Abilities {
    /// Compiles what the host declared.
    ///
    /// # Errors
    /// `Config` with ability, operation and place in the schema; `Conflict` where two have one name.
    pub(crate) fn new(all: Vec<Ability>) -> Result<Self, LoadError> {
        let mut abilities = Self::default();
        for ability in all {
            let name = ability.name.clone();
            let declared = Declared::new(ability)?;
            for operation in &declared.operations {
                let named = operation.definition.name.clone();
                let other = abilities.provider_names.insert(Arc::clone(&operation.provider_name), named.clone());
                if let Some(other) = other.filter(|other| *other != named) {
                    let message = format!(
                        "the operations {named} and {other} would both be called {} where dots are not allowed: rename one",
                        operation.provider_name
                    );
                    return Err(LoadError::new(ErrorKind::Conflict, message));
                }
            }
            if abilities.declared.insert(name.clone(), declared).is_some() {
                let message = format!("the ability {name} is declared twice: take one away");
                return Err(LoadError::new(ErrorKind::Conflict, message));
            }
        }
        Ok(abilities)
    }

    /// The abilities, in alphabetical order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Ability>> {
        self.declared.values().map(|declared| &declared.ability)
    }

    /// `Ok` where neither the plugin nor one of its tools is called like an ability or an operation. It is asked for every
    /// plugin, whether the ability has a provider yet or not: so no later provider can make two things of one name.
    ///
    /// # Errors
    /// `Conflict`, which names both.
    pub(crate) fn check_names(&self, owner: &Owner, tools: &[Arc<ToolEntry>]) -> Result<(), LoadError> {
        let conflict = |message: String| Err(LoadError::new(ErrorKind::Conflict, message));
        let plugin = &owner.name;
        if self.declared.contains_key(plugin.as_str()) {
            return conflict(format!(
                "the plugin {plugin} ({}) and the ability {plugin} of this host have one name, and their tools would too: \
                 rename the plugin",
                owner.scope
            ));
        }
        for info in tools.iter().map(|entry| &entry.info) {
            if let Some(operation) = self.provider_names.get(&info.provider_name) {
                return conflict(format!(
                    "the tool {} and the operation {operation} of an ability would both be called {} where dots are not \
                     allowed: rename the tool",
                    info.definition.name, info.provider_name
                ));
            }
        }
        Ok(())
    }

    /// What a plugin provides of what it says it does: an entry for each operation, served by its tool of that name.
    ///
    /// # Errors
    /// `Config`: there is no such ability; an operation has no tool, or one that takes less or gives more than the ability
    /// says, or that says worse of itself. The error names operation and reason.
    pub(crate) fn provided(
        &self,
        names: &[AbilityName],
        owner: &Arc<Owner>,
        tools: &[Arc<ToolEntry>],
    ) -> Result<Vec<Provided>, LoadError> {
        let config = |problem: String| LoadError::new(ErrorKind::Config, format!("provides.abilities: {problem}"));
        let one = |name: &AbilityName| {
            let declared = self.declared.get(name).ok_or_else(|| config(self.unknown(name)))?;
            let entry = |operation: &Compiled| operation.served(owner, tools).map(Arc::new).map_err(config);
            let operations = declared.operations.iter().map(entry).collect::<Result<_, _>>()?;
            Ok(Provided { ability: name.clone(), operations })
        };
        names.iter().map(one).collect()
    }

    fn unknown(&self, name: &AbilityName) -> String {
        let known = || self.declared.keys().map(AbilityName::as_str);
        let likeness = |known: &&str| strsim::jaro_winkler(name.as_str(), known);
        let near = known().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = match near {
            None => "it declares none; the host declares abilities, not a plugin".to_owned(),
            Some(near) if likeness(&near) > 0.8 => format!("did you mean {near}?"),
            Some(_) => format!("it has {}", known().take(MAX_LISTED).collect::<Vec<_>>().join(", ")),
        };
        format!("this host has no ability called {name}; {hint}")
    }
}

impl Declared {
    fn new(ability: Ability) -> Result<Self, LoadError> {
        let config =
            |place: String, problem: String| LoadError::new(ErrorKind::Config, format!("abilities.{place}: {problem}"));
        let name = &ability.name;
        ability.validate().map_err(|error| config(format!("{name}.{}", error.field), error.problem))?;
        let mut operations = Vec::new();
        for (local, operation) in &ability.operations {
            let place = |part: &str| format!("{name}.operations.{local}{part}");
            let tool = name.tool(local).map_err(|error| config(place(""), error.to_string()))?;
            let parameters = Schema::compile_parameters(&operation.parameters)
                .map_err(|problem| config(place(".parameters"), problem))?;
            let output = operation.output.as_ref().map(Schema::compile).transpose();
            let output = output.map_err(|problem| config(place(".output"), problem))?;
            operations.push(Compiled {
                local: local.clone(),
                provider_name: provider_name(tool.as_str()).into(),
                definition: operation.definition(tool),
                parameters: Arc::new(parameters),
                output: output.map(Arc::new),
            });
        }
        Ok(Self { ability: Arc::new(ability), operations })
    }
}

impl Compiled {
    /// The operation as the plugin's tool serves it. Whom the tool lets call it, which rights it wants and how long it may
    /// take are the tool's; all else that callers know is the ability's.
    fn served(&self, owner: &Arc<Owner>, tools: &[Arc<ToolEntry>]) -> Result<ToolEntry, String> {
        let (operation, local) = (&self.definition.name, &self.local);
        let tool = tools.iter().find(|entry| entry.tool.definition().name == *local);
        let tool = tool.ok_or_else(|| {
            format!("{operation} has no tool: declare one called {local}, or take the ability out of the list")
        })?;
        let own = &*tool.info.definition;
        let mut reasons: Vec<_> = evolution::misfits(&self.definition, own).iter().map(in_words).collect();
        reasons.extend(worse(self.definition.annotations, own.annotations));
        if !reasons.is_empty() {
            let more = reasons.len().saturating_sub(MAX_REASONS);
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            reasons.truncate(MAX_REASONS);
            return Err(format!("the tool {local} does not fit {operation}: {}{more}", reasons.join("; ")));
        }
        let definition = ToolDefinition {
            required_permissions: own.required_permissions.clone(),
            allowed_callers: own.allowed_callers.clone(),
            timeout: own.timeout,
            ..self.definition.clone()
        };
        let info = ToolInfo {
            definition: Arc::new(definition),
            provider_name: Arc::clone(&self.provider_name),
            served_by: Some(own.name.clone()),
            ..tool.info.clone()
        };
        Ok(ToolEntry {
            info,
            tool: Arc::clone(&tool.tool),
            parameters: Arc::clone(&self.parameters),
            output: self.output.clone(),
            owner: Arc::clone(owner),
            serving: Some(Arc::clone(tool)),
        })
    }
}

/// Why a tool whose schema differs from the ability's in this way does not fit.
fn in_words(change: &ToolChange) -> String {
    let at = if change.at.is_empty() { "/" } else { &change.at };
    match (&change.kind, change.of_result) {
        (ChangeKind::TypeChanged(ability, tool), of_result) => {
            format!("{at} of the {} is {ability} in the ability and {tool} in the tool", side(of_result))
        }
        (ChangeKind::FieldRemoved, false) => format!("{at} of the arguments is not among the tool's parameters"),
        (ChangeKind::FieldRemoved, true) => {
            format!("{at} of the result is required by the ability and not in the tool's output")
        }
        (ChangeKind::FieldAdded, true) => {
            format!("{at} of the result is not in the ability, which allows no other fields there")
        }
        (ChangeKind::RequirednessChanged, false) => {
            format!("{at} of the arguments is required by the tool and not by the ability")
        }
        (ChangeKind::RequirednessChanged, true) => {
            format!("{at} of the result is required by the ability and may be missing from the tool's")
        }
        (ChangeKind::OtherFieldsChanged, false) => {
            format!("the tool does not take all other fields in {at} of the arguments that the ability allows")
        }
        (ChangeKind::OtherFieldsChanged, true) => {
            format!("the tool's output may have other fields in {at} than the ability allows")
        }
        (ChangeKind::ValuesChanged, false) => {
            format!("the tool does not take all values of {at} of the arguments that the ability allows")
        }
        (ChangeKind::ValuesChanged, true) => {
            format!("the tool's output allows values of {at} that the ability does not")
        }
        (ChangeKind::WordChanged(word), of_result) => {
            format!("`{word}` of {at} of the {} does not fit the ability's", side(of_result))
        }
        _ => format!("{at} of the {} cannot be compared with the ability's", side(change.of_result)),
    }
}

fn side(of_result: bool) -> &'static str {
    if of_result { "result" } else { "arguments" }
}

/// What a tool says of itself that is worse than what the ability promises. What it does not say is taken on trust.
fn worse(promised: Annotations, own: Annotations) -> Option<String> {
    [
        ("read_only", promised.read_only, own.read_only, true),
        ("destructive", promised.destructive, own.destructive, false),
        ("idempotent", promised.idempotent, own.idempotent, true),
        ("open_world", promised.open_world, own.open_world, false),
    ]
    .into_iter()
    .find(|(_, promised, own, good)| *promised == Some(*good) && *own == Some(!good))
    .map(|(name, ..)| format!("its annotation `{name}` is not what the ability promises"))
}
