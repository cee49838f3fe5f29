//! What one call may use.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::ManifestError;

/// What one call may use at most.
///
/// The host's [`Limits`] are the ceiling; a tenant's and a manifest's [`LimitsRequest`] can only lower them. Every
/// limit has its own error with what was allowed and what was used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Wall-clock time of a call, from its admission to its reply.
    pub timeout: Duration,
    /// Steps of the interpreter.
    pub max_operations: u64,
    /// Nested calls of script functions.
    pub max_call_depth: usize,
    /// Nested expressions, checked when a script is compiled.
    pub max_expr_depth: usize,
    /// Bytes that the script may hold at any instant.
    pub max_memory_bytes: u64,
    /// Bytes of one string.
    pub max_string_bytes: usize,
    /// Elements of one array.
    pub max_array_len: usize,
    /// Entries of one map.
    pub max_map_len: usize,
    /// Variables in scope at any instant.
    pub max_variables: usize,
    /// Bytes of a plugin's source.
    pub max_source_bytes: usize,
    /// Bytes of the arguments as compact JSON text.
    pub max_argument_bytes: usize,
    /// Bytes of the result as compact JSON text.
    pub max_output_bytes: usize,
    /// Nesting of any value that crosses the sandbox.
    pub max_nesting: usize,
    /// Bytes of log text a call.
    pub max_log_bytes: usize,
    /// Host functions called.
    pub max_host_calls: u64,
    /// Tool calls made from inside tool calls.
    pub max_call_chain: u32,
}

impl Default for Limits {
    /// Enough for a tool that looks things up and computes a little; a host that wants more says so.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            max_operations: 5_000_000,
            max_call_depth: 64,
            max_expr_depth: 64,
            max_memory_bytes: 64 << 20,
            max_string_bytes: 1 << 20,
            max_array_len: 100_000,
            max_map_len: 100_000,
            max_variables: 1_000,
            max_source_bytes: 256 << 10,
            max_argument_bytes: 1 << 20,
            max_output_bytes: 256 << 10,
            max_nesting: 64,
            max_log_bytes: 16 << 10,
            max_host_calls: 10_000,
            max_call_chain: 4,
        }
    }
}

/// Limits that a manifest or a tenant asks for: each present field can lower the host's, none can raise it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsRequest {
    /// Wall-clock milliseconds of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// Steps of the interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_operations: Option<u64>,
    /// Nested calls of script functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_call_depth: Option<usize>,
    /// Nested expressions, checked when a script is compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_expr_depth: Option<usize>,
    /// Bytes that the script may hold at any instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_memory_bytes: Option<u64>,
    /// Bytes of one string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_string_bytes: Option<usize>,
    /// Elements of one array.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_array_len: Option<usize>,
    /// Entries of one map.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_map_len: Option<usize>,
    /// Variables in scope at any instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_variables: Option<usize>,
    /// Bytes of a plugin's source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_source_bytes: Option<usize>,
    /// Bytes of the arguments as compact JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_argument_bytes: Option<usize>,
    /// Bytes of the result as compact JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_output_bytes: Option<usize>,
    /// Nesting of any value that crosses the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_nesting: Option<usize>,
    /// Bytes of log text a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_log_bytes: Option<usize>,
    /// Host functions called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_host_calls: Option<u64>,
    /// Tool calls made from inside tool calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_call_chain: Option<u32>,
}

impl LimitsRequest {
    /// Checks that no limit is zero with which nothing could be called at all.
    ///
    /// # Errors
    /// A [`ManifestError`] with the first such field.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let zero = |given: bool| if given { Err("must be 1 or more: with 0 no call could run") } else { Ok(()) };
        macro_rules! not_zero {
            ($($field:ident)*) => { $(zero(self.$field == Some(0)).map_err(|problem| ManifestError::new(stringify!($field), problem))?;)* };
        }
        not_zero!(timeout_ms max_operations max_call_depth max_expr_depth max_memory_bytes max_string_bytes max_array_len
            max_map_len max_variables max_source_bytes max_argument_bytes max_output_bytes max_nesting);
        Ok(())
    }
}

impl Limits {
    /// These limits, lowered wherever `request` asks for less.
    ///
    /// ```
    /// use toolbay_api::{Limits, LimitsRequest};
    /// let host = Limits::default();
    /// let asked = LimitsRequest { max_operations: Some(10), max_map_len: Some(usize::MAX), ..Default::default() };
    /// let effective = host.lowered_by(&asked);
    /// assert_eq!(effective.max_operations, 10);
    /// assert_eq!(effective.max_map_len, host.max_map_len);
    /// ```
    #[must_use]
    pub fn lowered_by(&self, request: &LimitsRequest) -> Self {
        fn lower<T: Ord + Copy>(host: T, asked: Option<T>) -> T {
            asked.map_or(host, |asked| asked.min(host))
        }
        Self {
            timeout: lower(self.timeout, request.timeout_ms.map(Duration::from_millis)),
            max_operations: lower(self.max_operations, request.max_operations),
            max_call_depth: lower(self.max_call_depth, request.max_call_depth),
            max_expr_depth: lower(self.max_expr_depth, request.max_expr_depth),
            max_memory_bytes: lower(self.max_memory_bytes, request.max_memory_bytes),
            max_string_bytes: lower(self.max_string_bytes, request.max_string_bytes),
            max_array_len: lower(self.max_array_len, request.max_array_len),
            max_map_len: lower(self.max_map_len, request.max_map_len),
            max_variables: lower(self.max_variables, request.max_variables),
            max_source_bytes: lower(self.max_source_bytes, request.max_source_bytes),
            max_argument_bytes: lower(self.max_argument_bytes, request.max_argument_bytes),
            max_output_bytes: lower(self.max_output_bytes, request.max_output_bytes),
            max_nesting: lower(self.max_nesting, request.max_nesting),
            max_log_bytes: lower(self.max_log_bytes, request.max_log_bytes),
            max_host_calls: lower(self.max_host_calls, request.max_host_calls),
            max_call_chain: lower(self.max_call_chain, request.max_call_chain),
        }
    }
}
