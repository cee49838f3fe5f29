//! One Rhai script for one tenant: the other sees nothing of it.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use serde_json::json;
use toolbay::{PermissionSet, Scope};

const DISCOUNT: &str = r#"
    //! Acme's own way of giving discounts.
    const PLUGIN = #{ name: "discount", version: "1.0.0", author: "Acme", permissions: ["kv:read", "kv:write"],
        tools: #{ discount: #{ description: "What a customer pays", parameters: #{ type: "object",
            properties: #{ customer: #{ type: "string" }, price: #{ type: "number", minimum: 0 } },
            required: ["customer", "price"] } } } };

    fn discount(args) {
        let orders = (kv_get("orders:" + args.customer) ?? 0) + 1;
        kv_set("orders:" + args.customer, orders);
        #{ order: orders, pays: if orders > 1 { round_to(args.price * 0.9, 2) } else { args.price } }
    }
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bay = toolbay::builder().grants(PermissionSet::parse(["kv:*"])?).build()?;
    bay.load_source(Scope::tenant("acme")?, "discount.rhai", DISCOUNT).await?;

    let (acme, globex) = (bay.session("acme")?, bay.session("globex")?);
    let order = json!({ "customer": "Ada", "price": 19.99 });
    for session in [&acme, &acme, &globex] {
        let reply = session.call("discount", order.clone()).await;
        println!("{:6} {}", session.tenant().as_str(), reply.model_text());
    }
    Ok(())
}
