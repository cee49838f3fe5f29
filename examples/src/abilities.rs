//! Two abilities, declared from Rust types, and a native plugin that provides one of them. The scripts that provide them
//! too are in `abilities/plugins`, and `abilities/toolbay.toml` declares the same for the command line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay::{
    Ability, AbilityName, Asset, Assets, NameError, Operation, ToolContext, ToolError, plugin::NativePlugin, tool,
};

/// Whose balance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalanceOf {
    /// The address.
    pub address: String,
}

/// What an address holds.
#[derive(Serialize, JsonSchema)]
pub struct Balance {
    /// The address.
    pub address: String,
    /// In whole cents.
    pub amount: i64,
}

/// Which transaction.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionOf {
    /// Its id.
    pub id: String,
}

/// A transaction.
#[derive(Serialize, JsonSchema)]
pub struct Transaction {
    /// Its id.
    pub id: String,
    /// Who pays.
    pub from: String,
    /// Who is paid.
    pub to: String,
    /// In whole cents.
    pub amount: i64,
    /// The block that it stands in.
    pub block: i64,
}

/// Which events.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsFrom {
    /// The first block, from 1.
    #[schemars(range(min = 1))]
    pub from: i64,
    /// How many at most.
    #[schemars(range(min = 1, max = 100))]
    pub limit: i64,
}

/// A transaction that happened.
#[derive(Serialize, JsonSchema)]
pub struct ChainEvent {
    /// The block.
    pub block: i64,
    /// The transaction's id.
    pub transaction: String,
}

/// A chain of transactions between addresses.
///
/// # Errors
/// Never: the names are good ones.
pub fn chain() -> Result<Ability, NameError> {
    let balance = Operation::typed::<BalanceOf, Balance>("What an address holds");
    let transaction = Operation::typed::<TransactionOf, Option<Transaction>>("One transaction by its id");
    let events = Operation::typed::<EventsFrom, Vec<ChainEvent>>("What happened from a block on, the oldest first");
    Ability::new("chain", "A chain of transactions between addresses, in whole cents")?
        .operation("balance", balance.read_only())?
        .operation("transaction", transaction.read_only())?
        .operation("events", events.read_only())
}

/// What is known of a flat.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Rooms and square metres.
    pub features: [f64; 2],
}

/// What a model says.
#[derive(Serialize, JsonSchema)]
pub struct Prediction {
    /// The number.
    pub value: f64,
}

/// Nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What a model is.
#[derive(Serialize, JsonSchema)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// What its features are, in their order.
    pub features: Vec<String>,
}

/// A model that gives a number for two others.
///
/// # Errors
/// Never: the names are good ones.
pub fn model() -> Result<Ability, NameError> {
    let predict = Operation::typed::<Features, Prediction>("What the model says of these features");
    let info = Operation::typed::<Nothing, ModelInfo>("What the model is");
    Ability::new("model", "A model that gives a number for some others")?
        .operation("predict", predict.read_only())?
        .operation("info", info.read_only())
}

/// The weights of the linear model, as they come with the plugin.
const WEIGHTS: &str =
    r#"{ "name": "linear rents", "features": ["rooms", "square metres"], "weights": [35.0, 12.5], "bias": 180.0 }"#;

/// A native plugin that provides the ability `model`: a linear model whose weights are an asset.
///
/// # Errors
/// Never: the names are good ones.
pub fn linear_model() -> Result<NativePlugin, Box<dyn std::error::Error>> {
    let predict = tool("predict", "The rent by a linear model, in euros", async |args: Features, cx: ToolContext| {
        let (weights, bias) = (field(&cx, "/weights")?, field(&cx, "/bias")?);
        let weights = weights.as_array().into_iter().flatten().filter_map(Value::as_f64);
        let sum: f64 = weights.zip(args.features).map(|(weight, feature)| weight * feature).sum();
        Ok(Prediction { value: sum + bias.as_f64().unwrap_or_default() })
    });
    let info = tool("info", "What the linear model is", async |_: Nothing, cx: ToolContext| {
        let names = field(&cx, "/features")?;
        let features = names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(ModelInfo { name: field(&cx, "/name")?.as_str().unwrap_or_default().to_owned(), features })
    });
    let plugin = NativePlugin::new("linear", "1.0.0", "Tells a flat's monthly rent by a linear model")?
        .provides(AbilityName::new("model")?)
        .assets(Assets::from_iter([("weights.json".to_owned(), Asset::new(WEIGHTS.as_bytes()))]));
    Ok(plugin.tool(predict).tool(info))
}

/// A value of the plugin's asset.
fn field(cx: &ToolContext, pointer: &str) -> Result<Value, ToolError> {
    let found = cx.host().assets().json_at("weights.json", pointer)?;
    found.cloned().ok_or_else(|| ToolError::failed(format!("weights.json has nothing at {pointer}")))
}
