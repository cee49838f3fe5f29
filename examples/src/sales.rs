//! What the examples of code mode work with: the sales of twenty stores, hour by hour, and the question which store sold most.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay::{ToolContext, ToolError, plugin::NativePlugin};

/// What the model is asked.
pub const QUESTION: &str = "Which of the stores sold most yesterday, and for how much? Look at every one of them.";

/// What it answers when it is a scripted one.
pub const ANSWER: &str = "store-8 sold most: 6,272.";

/// The program that a model in code mode writes for that.
pub const PROGRAM: &str = r#"let best = #{ store: "", total: 0 };
let stores = sales::stores();
let days = parallel(stores.map(|store| #{ tool: "sales::day", args: #{ store: store } }));
for (answer, index) in days {
    let total = 0;
    for hour in answer.ok.hours { total += hour.sold; }
    if total > best.total { best = #{ store: stores[index], total: total }; }
}
best"#;

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct Day {
    /// The store, as `stores` lists it.
    store: String,
}

/// The names of the stores.
#[must_use]
pub fn stores() -> Vec<String> {
    (1..=20).map(|number| format!("store-{number}")).collect()
}

/// The plugin `sales` with the tools `sales.stores` and `sales.day`.
///
/// # Errors
/// None in practice: the names are fixed.
pub fn sales() -> Result<NativePlugin, ToolError> {
    let list = toolbay::tool("stores", "Lists the stores", async |_: Nothing, _: ToolContext| Ok(stores()));
    let about = "What a store sold yesterday, hour by hour";
    let day = toolbay::tool("day", about, async |day: Day, _: ToolContext| sold(&day.store));
    Ok(NativePlugin::new("sales", "1.0.0", "Sales of stores")?.tool(list).tool(day))
}

/// Figures that look like some and are always the same.
fn sold(store: &str) -> Result<Value, ToolError> {
    let number: u64 = store.strip_prefix("store-").and_then(|number| number.parse().ok()).unwrap_or_default();
    if !(1..=20).contains(&number) {
        return Err(ToolError::failed(format!("there is no store called {store:?}: `stores` lists them")));
    }
    let hours: Vec<_> = (0..24_u64)
        .map(|hour| {
            let sold = 100 + (number * 37 + hour * 13) % 310;
            json!({ "hour": hour, "sold": sold, "customers": 3 + sold / 40, "returns": sold % 7 })
        })
        .collect();
    Ok(json!({ "store": store, "currency": "EUR", "hours": hours }))
}
