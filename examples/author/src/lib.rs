//! A plugin author's own crate: `crm`, a native plugin that looks customers up over HTTP with a secret and remembers the
//! answers for a minute, and a hook that keeps test customers from being paid. Its tests are in `tests/`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolbay::{
    ErrorKind, Hook, HookContext, HookPoint, HookRegistration, PermissionSet, ToolContext, ToolError, async_trait,
    hook::{BeforeToolCall, BeforeToolCallOutcome, HookResult},
    plugin::NativePlugin,
    tool,
};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Arguments of [`customer`].
#[derive(Deserialize, JsonSchema)]
pub struct CustomerQuery {
    /// The customer's e-mail address.
    #[schemars(length(min = 3, max = 200))]
    pub email: String,
}

/// A customer.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub struct Customer {
    /// The number in the customer list.
    pub id: u64,
    /// The full name.
    pub name: String,
}

/// Finds a customer.
///
/// # Errors
/// `NotFound` where there is none, `Unavailable` where the list gives no answer that can be used; the host's own.
pub async fn customer(query: CustomerQuery, cx: ToolContext) -> Result<Customer, ToolError> {
    let host = cx.host();
    let key = format!("customer:{}", query.email);
    if let Some(known) = host.kv_get(&key).await? {
        return read(known);
    }
    let authorization = format!("Bearer {}", host.secret("CRM_KEY").await?);
    let request = json!({
        "url": "https://api.example.com/customers",
        "query": { "email": query.email },
        "headers": { "authorization": authorization },
    });
    let answer = host.http(request).await?;
    match answer.get("status").and_then(Value::as_u64) {
        Some(200) => {}
        Some(404) => {
            return Err(ToolError::new(ErrorKind::NotFound, "there is no customer with this address; ask for another"));
        }
        status => return Err(unusable(&format!("status {}", status.unwrap_or_default()))),
    }
    let body = answer.get("body").and_then(Value::as_str).unwrap_or_default();
    let found: Value = serde_json::from_str(body).map_err(|error| unusable(&error.to_string()))?;
    host.kv_set_for(&key, found.clone(), REMEMBERED).await?;
    read(found)
}

fn read(customer: Value) -> Result<Customer, ToolError> {
    serde_json::from_value(customer).map_err(|error| unusable(&error.to_string()))
}

/// The cause is the operator's; the model is told what to do.
fn unusable(cause: &str) -> ToolError {
    ToolError::new(ErrorKind::Unavailable, "the customer list gives no answer now; try again later")
        .with_source(cause.to_owned())
}

/// Denies payments to test customers, whose ids are below 100.
pub struct NoTestCustomers;

#[async_trait]
impl Hook for NoTestCustomers {
    async fn before_tool_call(&self, call: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        let to = call.arguments.get("customer").and_then(Value::as_u64);
        Ok(match to {
            Some(id) if id < 100 => BeforeToolCallOutcome::deny(format!("customer {id} is a test customer")),
            _ => BeforeToolCallOutcome::Continue,
        })
    }
}

/// The plugin `crm`, to be registered by a host.
///
/// # Errors
/// None in practice: names and permissions are fixed.
pub fn plugin() -> Result<NativePlugin, Box<dyn std::error::Error>> {
    let asked = PermissionSet::parse(["kv:*", "secret:read:CRM_KEY", "http:GET:api.example.com"])?;
    Ok(NativePlugin::new("crm", "1.0.0", "Knows the customers")?
        .with(|metadata| metadata.permissions = asked)
        .tool(tool("customer", "Finds a customer by e-mail address", customer))
        .hook(HookRegistration::new("no_test_customers", [HookPoint::BeforeToolCall], NoTestCustomers)))
}
