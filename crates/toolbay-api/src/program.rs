//! What a program has for tools: functions under names that its language can write. It stands apart since whoever makes
//! these names and the runner that gives them to a program are different crates.

use serde::{Deserialize, Serialize};

use crate::{error::ErrorKind, plugin::LoadError};

/// The file of a program's package in which its [`ToolFunction`]s are. A program without it calls tools by their names.
pub const FUNCTIONS_FILE: &str = "functions.json";

/// The name under which a program with functions asks its host to call several tools at once. No tool is called so.
///
/// The arguments are `{"calls": [{"tool": NAME, "args": {...}}, ...]}`, the data of the answer an array with
/// `{"ok": DATA}` or `{"error": {"kind": ..., "message": ..., "details": ..., "retryable": ...}}` for each, in order.
pub const CALL_SEVERAL: &str = "$parallel";

/// A tool as a function of a program: `space::name(#{...})`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolFunction {
    /// What stands before the `::`.
    pub space: String,
    /// The function's own name, unique within the space.
    pub name: String,
    /// The tool's qualified name.
    pub tool: String,
    /// The parameters that the tool requires, in the order in which they may be given without their names; empty where
    /// they cannot be given so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positional: Vec<String>,
    /// Whether it may be called without any argument.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_arguments: bool,
}

impl ToolFunction {
    /// The most parameters that may be given without their names.
    pub const MAX_POSITIONAL: usize = 4;

    /// The content of [`FUNCTIONS_FILE`].
    ///
    /// # Errors
    /// `Internal` where they have no JSON form, which none lacks.
    pub fn write_all(functions: &[Self]) -> Result<String, LoadError> {
        serde_json::to_string(functions)
            .map_err(|error| LoadError::new(ErrorKind::Internal, format!("{FUNCTIONS_FILE}: {error}")))
    }

    /// Reads what [`write_all`](Self::write_all) wrote.
    ///
    /// # Errors
    /// `Config`.
    pub fn read_all(text: &str) -> Result<Vec<Self>, LoadError> {
        serde_json::from_str(text)
            .map_err(|error| LoadError::new(ErrorKind::Config, error.to_string()).in_file(FUNCTIONS_FILE))
    }
}
