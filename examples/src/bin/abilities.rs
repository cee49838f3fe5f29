//! Two abilities with two providers each, and two tenants that prefer different ones.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use std::path::Path;

use serde_json::json;
use toolbay::{PermissionSet, PluginName, Scope, TenantId};
use toolbay_examples::abilities::{chain, linear_model, model};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bay = toolbay::builder().grants(PermissionSet::parse(["kv:*"])?).ability(chain()?).ability(model()?).build()?;
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("abilities/plugins");
    let report = bay.load_folder(Scope::Global, plugins).await;
    if let Some(failed) = report.failed.first() {
        return Err(failed.error.to_string().into());
    }
    bay.register(Scope::Global, linear_model()?).await?;

    // Acme has what was registered first; globex would rather have the others.
    let globex_id = TenantId::new("globex")?;
    for preferred in ["recorded", "linear"] {
        bay.put_priority(&globex_id, &PluginName::new(preferred)?, Some(-1))?;
    }
    let (acme, globex) = (bay.session("acme")?, bay.session("globex")?);
    acme.call("ledger.pay", json!({ "from": "mint", "to": "ada", "amount": 900 })).await.result?;
    acme.call("ledger.pay", json!({ "from": "ada", "to": "bob", "amount": 300 })).await.result?;

    for (session, transaction) in [(&acme, "tx-2"), (&globex, "b1")] {
        for ability in bay.abilities() {
            let by = bay.providers(session.tenant(), &ability.name);
            println!("{:6} {} by {}", session.tenant().as_str(), ability.name, by.first().ok_or("nobody")?);
        }
        for (tool, arguments) in [
            ("chain.balance", json!({ "address": "ada" })),
            ("chain.transaction", json!({ "id": transaction })),
            ("chain.events", json!({ "from": 2, "limit": 2 })),
            ("model.predict", json!({ "features": [3, 70] })),
            ("model.info", json!({})),
        ] {
            let reply = session.call(tool, arguments).await;
            println!("{:6} {tool}  {}", session.tenant().as_str(), reply.model_text());
        }
    }
    Ok(())
}
