//! Abilities: interfaces that the host declares and plugins provide. They stand apart from tools since an ability is a
//! promise without code: which plugin keeps it is decided for each tenant.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    manifest::{
        MAX_DESCRIPTION, MAX_TOOL_DESCRIPTION, ManifestError,
        check::{at_most, ensure, text},
        is_default, no_parameters,
    },
    names::{AbilityName, NameError, ToolName},
    tool::{Annotations, ToolDefinition, parameters_of},
};

/// Operations of one ability.
pub const MAX_OPERATIONS: usize = 100;

/// An interface that the host declares, once, and plugins provide: callers use `name.operation` and get the tenant's
/// provider.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
/// use toolbay_api::{Ability, Operation};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Of { address: String }
/// #[derive(Serialize, JsonSchema)]
/// struct Balance { amount: i64 }
///
/// let chain = Ability::new("chain", "A block chain, read only")?
///     .operation("balance", Operation::typed::<Of, Balance>("What an address holds").read_only())?;
/// assert_eq!(chain.operations.len(), 1);
/// # Ok::<(), toolbay_api::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ability {
    /// Its name.
    pub name: AbilityName,
    /// What it is for, in a sentence.
    pub description: String,
    /// What can be asked of it.
    pub operations: BTreeMap<ToolName, Operation>,
}

/// One thing that can be asked of an ability: what callers know of it, whoever provides it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// What it does, for the model.
    pub description: String,
    /// The JSON Schema of its arguments, an object; without it the operation takes none.
    #[serde(default = "no_parameters")]
    pub parameters: Value,
    /// The JSON Schema of its result. Each provider's result is checked against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What it does to the world. A tool that says worse of itself cannot provide it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: Annotations,
}

impl Ability {
    /// An ability without operations yet.
    ///
    /// # Errors
    /// [`NameError`] where `name` is no ability name.
    pub fn new(name: impl AsRef<str>, description: impl Into<String>) -> Result<Self, NameError> {
        Ok(Self { name: AbilityName::new(name)?, description: description.into(), operations: BTreeMap::new() })
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// [`NameError`] where `name` is no tool name, or where it is too long together with the ability's.
    pub fn operation(mut self, name: impl AsRef<str>, operation: Operation) -> Result<Self, NameError> {
        let name = ToolName::new(name)?;
        self.name.tool(&name)?;
        self.operations.insert(name, operation);
        Ok(self)
    }

    /// Checks what can be told without compiling its schemas: it has operations, not too many, and all are described.
    ///
    /// # Errors
    /// The first [`ManifestError`], with the field's path from the ability on.
    pub fn validate(&self) -> Result<(), ManifestError> {
        text("description", &self.description, MAX_DESCRIPTION)?;
        ensure(!self.operations.is_empty(), "operations", || "an ability has one operation or more".to_owned())?;
        at_most("operations", self.operations.len(), MAX_OPERATIONS, "operations")?;
        for (name, operation) in &self.operations {
            let within = |error: ManifestError| error.within(&format!("operations.{name}"));
            text("description", &operation.description, MAX_TOOL_DESCRIPTION).map_err(within)?;
        }
        Ok(())
    }
}

impl Operation {
    /// An operation with these parameters and nothing else said.
    pub fn new(description: impl Into<String>, parameters: Value) -> Self {
        Self { description: description.into(), parameters, output: None, annotations: Annotations::default() }
    }

    /// An operation that takes no arguments.
    pub fn without_parameters(description: impl Into<String>) -> Self {
        Self::new(description, no_parameters())
    }

    /// An operation whose schemas are those of two Rust types: its arguments and its result.
    pub fn typed<P: JsonSchema, R: JsonSchema>(description: impl Into<String>) -> Self {
        let output = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<R>();
        Self { output: Some(output.to_value()), ..Self::new(description, parameters_of::<P>()) }
    }

    /// Sets the schema of its result.
    #[must_use]
    pub fn output(mut self, schema: Value) -> Self {
        self.output = Some(schema);
        self
    }

    /// Says that it changes nothing.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.annotations.read_only = Some(true);
        self
    }

    /// What callers know of it, as the tool `name`.
    #[must_use]
    pub fn definition(&self, name: ToolName) -> ToolDefinition {
        ToolDefinition {
            name,
            description: self.description.clone(),
            parameters: self.parameters.clone(),
            output: self.output.clone(),
            required_permissions: crate::PermissionSet::default(),
            allowed_callers: None,
            timeout: None,
            annotations: self.annotations,
        }
    }
}
