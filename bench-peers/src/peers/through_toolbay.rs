//! Toolbay as an embedder uses it: a session's calls down the whole road, with the default limits.

use std::{any::Any, sync::Arc};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use toolbay::{
    KvQuota, KvSpace, KvStore, KvValue, PermissionSet, Quota, Scope, Session, TenantId, ToolError, Toolbay, async_trait,
};

use crate::{
    peer::{Fallible, Peer, Waiting},
    workload::{Tool, look_up},
};

/// A host with the tools as a global plugin, and a tenant's session.
pub struct ThroughToolbay {
    runtime: Runtime,
    bay: Toolbay,
    session: Session,
}

impl ThroughToolbay {
    /// Loads the tools.
    pub fn start() -> Fallible<Arc<dyn Peer>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let bay = toolbay::builder()
            .without_audit()
            .grants(PermissionSet::standard())
            .kv(Arc::new(Slow))
            .quota(Quota { max_concurrent_calls: 20_000, max_calls_per_minute: u32::MAX })
            .build()?;
        let source = [include_str!("../scripts/plugin.rhai"), include_str!("../scripts/tools.rhai")].concat();
        runtime.block_on(bay.load_source(Scope::Global, "bench.rhai", &source))?;
        let session = bay.session("acme")?;
        Ok(Arc::new(Self { runtime, bay, session }))
    }
}

async fn call(session: &Session, tool: Tool, arguments: Value) -> Fallible<Value> {
    let name = match tool {
        Tool::Echo => "bench.echo",
        Tool::Order => "bench.order",
        Tool::Fib => "bench.fib",
        Tool::Wait => "bench.wait",
    };
    let output = session.call(name, arguments).await.result?;
    Ok(output.data)
}

impl Peer for ThroughToolbay {
    fn batch(&self, tool: Tool, arguments: Vec<Value>) -> Fallible<Value> {
        self.runtime.block_on(async {
            let mut last = Value::Null;
            for arguments in arguments {
                last = call(&self.session, tool, arguments).await?;
            }
            Ok(last)
        })
    }

    fn wait(self: Arc<Self>, key: &'static str) -> Waiting {
        Box::pin(async move { call(&self.session, Tool::Wait, json!({ "key": key })).await.map(drop) })
    }

    fn load(&self, number: usize) -> Fallible<Box<dyn Any>> {
        let tenant = TenantId::new(format!("tenant-{}", number % 1_000))?;
        let source = format!(
            r#"
            const PLUGIN = #{{
                name: "p{number}", version: "1.0.0", description: "Number {number}", author: "Toolbay",
                tools: #{{ add: #{{
                    description: "Adds a surcharge to the price of everything that is heavy",
                    parameters: #{{
                        type: "object",
                        properties: #{{ price: #{{ type: "integer" }}, weight: #{{ type: "integer" }} }},
                        required: ["price", "weight"],
                    }},
                }} }},
            }};
            {}"#,
            crate::peers::bare_rhai::small_plugin(number),
        );
        let name = format!("p{number}.rhai");
        self.runtime.block_on(self.bay.load_source(Scope::Tenant(tenant), &name, &source))?;
        // Toolbay itself keeps it.
        Ok(Box::new(()))
    }
}

/// A store whose look-ups take their time.
struct Slow;

#[async_trait]
impl KvStore for Slow {
    async fn get(&self, _: &KvSpace, key: &str, _: i64) -> Result<Option<Value>, ToolError> {
        Ok(Some(look_up(key).await.into()))
    }
    async fn set(&self, _: &KvSpace, _: &str, _: KvValue, _: KvQuota, _: i64) -> Result<(), ToolError> {
        Ok(())
    }
    async fn compare_and_set(
        &self,
        _: &KvSpace,
        _: &str,
        _: Option<Value>,
        _: Option<KvValue>,
        _: KvQuota,
        _: i64,
    ) -> Result<bool, ToolError> {
        Ok(false)
    }
    async fn delete(&self, _: &KvSpace, _: &str, _: i64) -> Result<bool, ToolError> {
        Ok(false)
    }
    async fn list(&self, _: &KvSpace, _: &str, _: &str, _: usize, _: i64) -> Result<Vec<String>, ToolError> {
        Ok(Vec::new())
    }
}
