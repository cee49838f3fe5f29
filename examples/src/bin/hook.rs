//! A native hook that denies, and one that masks what the model gets to see.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use serde_json::json;
use toolbay::{
    Hook, HookContext, HookPoint, HookRegistration, ToolContext, ToolOutput, async_trait,
    hook::{AfterToolCall, AfterToolCallOutcome, BeforeToolCall, BeforeToolCallOutcome, HookResult},
    tool,
};

/// Denies payments over a sum.
struct Ceiling(f64);

#[async_trait]
impl Hook for Ceiling {
    async fn before_tool_call(&self, call: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        let amount = call.arguments.get("amount").and_then(serde_json::Value::as_f64).unwrap_or_default();
        Ok(if amount > self.0 {
            BeforeToolCallOutcome::deny(format!("at most {} without a signature", self.0))
        } else {
            BeforeToolCallOutcome::Continue
        })
    }
}

/// Takes account numbers out of results.
struct Mask;

#[async_trait]
impl Hook for Mask {
    async fn after_tool_call(&self, call: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        let Ok(output) = &call.result else { return Ok(AfterToolCallOutcome::Keep) };
        let mut data = output.data.clone();
        if let Some(account) = data.get_mut("account") {
            *account = json!("***");
        }
        Ok(AfterToolCallOutcome::Replace(Ok(ToolOutput::new(data))))
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Payment {
    amount: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pay = tool("pay", "Pays an amount", async |args: Payment, _: ToolContext| {
        Ok(json!({ "paid": args.amount, "account": "DE02 1203 0000 0000 2020 51" }))
    });
    let bay = toolbay::builder()
        .tool(pay)
        .hook(HookRegistration::new("ceiling", [HookPoint::BeforeToolCall], Ceiling(100.0)))
        .hook(HookRegistration::new("mask", [HookPoint::AfterToolCall], Mask))
        .build()?;
    let session = bay.session("acme")?;
    for amount in [5.0, 500.0] {
        println!("{}", session.call("pay", json!({ "amount": amount })).await.model_text());
    }
    Ok(())
}
