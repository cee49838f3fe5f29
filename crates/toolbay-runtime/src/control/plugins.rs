//! Switches, configurations and priorities of plugins, for a tenant or for all of them.

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, PluginName, Scope, ToolError};

use super::{Actor, Control, Need, expected};
use crate::{
    activation::{Disabling, check_layer, may_configure, stays_on},
    catalog::Registered,
    store::{Registration, Revision, Role, Step},
};

/// What stands in the place of a value that is not to be shown.
const HIDDEN: &str = "***";
/// How deep a configuration is looked through for such values.
const MAX_DEPTH: usize = 32;

impl Control {
    /// Switches a plugin on for a tenant, or, in the global scope, for all tenants that decide nothing else.
    ///
    /// # Errors
    /// `NotFound` where the scope has no such plugin; `Config` where its configuration does not fit; `Conflict` where the
    /// registration is not as `seen`, or somebody switches it at the same time; what `on_tenant_enabled` says.
    pub async fn enable(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        seen: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "plugin.enable").await? {
            return Ok(done);
        }
        let row = self.draft(scope, plugin, seen).await?;
        let bay = &self.0.bay;
        let switch = match scope {
            Scope::Tenant(tenant) => bay.begin_enabling(tenant, plugin).await?,
            Scope::Global => None,
        };
        let written =
            self.write(by, Draft { row: Registration { enabled: true, ..row.row }, ..row }, "plugin.enable").await;
        if let (Err(_), Some(switch), Scope::Tenant(tenant)) = (&written, switch, scope) {
            // It was told that it is on, and is not.
            drop(switch);
            if let Ok(off) = bay.begin_disabling(tenant, plugin) {
                bay.end_disabling(tenant, Disabling { was_on: true, ..off }).await;
            }
        }
        written
    }

    /// Switches a plugin off for a tenant, or, in the global scope, for all tenants that decide nothing else. Its
    /// configuration stays.
    ///
    /// # Errors
    /// `NotFound` where the scope has no such plugin; `PermissionDenied` where it is protected; `Conflict` as for
    /// [`enable`](Self::enable).
    pub async fn disable(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        seen: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "plugin.disable").await? {
            return Ok(done);
        }
        let draft = self.draft(scope, plugin, seen).await?;
        let bay = &self.0.bay;
        let switch = match scope {
            Scope::Tenant(tenant) => Some((tenant, bay.begin_disabling(tenant, plugin)?)),
            Scope::Global if draft.registered.owner.protected => return Err(stays_on(plugin)),
            Scope::Global => None,
        };
        let draft = Draft { row: Registration { enabled: false, ..draft.row }, ..draft };
        let row = self.write(by, draft, "plugin.disable").await?;
        if let Some((tenant, switch)) = switch {
            bay.end_disabling(tenant, switch).await;
        }
        Ok(row)
    }

    /// Sets what is said of a plugin's configuration in a scope, which goes before what is said beneath it field by field;
    /// `None` takes it away. Fields that are `***`, as [`redacted_config`] shows them, stay as they are.
    ///
    /// # Errors
    /// `NotFound` where the scope has no such plugin; `Config` where it is no object or does not fit the plugin's
    /// `config_schema`; `LimitExceeded` where it is too large; `Conflict` where the registration is not as `seen`.
    pub async fn put_config(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        config: Option<Value>,
        seen: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "plugin.config").await? {
            return Ok(done);
        }
        let draft = self.draft(scope, plugin, seen).await?;
        if by.role == Role::Tenant && config.is_some() {
            may_configure(&draft.registered)?;
        }
        check_layer(config.as_ref())?;
        let schema = draft.registered.owner.config_schema.clone();
        let config = config.map(|config| kept(config, draft.row.config.as_ref(), schema.as_ref(), 0));
        match scope {
            Scope::Tenant(_) => self.0.bay.check_config(&draft.registered, config.as_ref())?,
            Scope::Global => {
                let layers: Vec<_> = config.iter().collect();
                let fits = draft.registered.owner.config_with(&layers);
                fits.map_err(|problem| ToolError::new(ErrorKind::Config, problem))?;
            }
        }
        self.write(by, Draft { row: Registration { config, ..draft.row }, ..draft }, "plugin.config").await
    }

    /// Sets a plugin's place where several could serve; `None` takes it away.
    ///
    /// # Errors
    /// `NotFound` where the scope has no such plugin; `Conflict` where the registration is not as `seen`.
    pub async fn put_priority(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        priority: Option<i32>,
        seen: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "plugin.priority").await? {
            return Ok(done);
        }
        let draft = self.draft(scope, plugin, seen).await?;
        self.write(by, Draft { row: Registration { priority, ..draft.row }, ..draft }, "plugin.priority").await
    }

    /// What is decided about a plugin in a scope, if anything is, as it was read from the store last.
    ///
    /// # Errors
    /// `NotFound` where the scope is another tenant's.
    pub async fn registration(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
    ) -> Result<Option<Registration>, ToolError> {
        self.allow(by, scope, Need::Scope, "plugin.get").await?;
        Ok(self.0.seen.rows.get(scope).and_then(|rows| rows.get(plugin).cloned()))
    }

    /// The registration of a plugin as it is to be changed: that in the store, or a new one as the plugin is now.
    async fn draft(&self, scope: &Scope, plugin: &PluginName, seen: Option<Revision>) -> Result<Draft, ToolError> {
        let bay = &self.0.bay;
        let registered = match scope {
            Scope::Tenant(tenant) => bay.visible(tenant, plugin)?,
            Scope::Global => {
                let global = bay.registry().catalog(scope);
                global.plugin(plugin).cloned().ok_or_else(|| {
                    ToolError::new(
                        ErrorKind::NotFound,
                        format!("no plugin called {plugin} is registered for everybody"),
                    )
                })?
            }
        };
        let before = self.0.store.registration(scope, plugin).await?;
        let seen = expected(before.as_ref().map(|row| row.revision), seen)?;
        let now = self.now_ms()?;
        let row = match before {
            Some(row) => Registration { revision: row.revision + 1, updated_at: now, ..row },
            None => {
                self.check_room(scope)?;
                let enabled = match scope {
                    Scope::Tenant(tenant) => bay.registry().view(tenant).is_said_on(&registered.owner),
                    Scope::Global => registered.owner.enabled_by_default,
                };
                Registration { enabled, ..Registration::new(scope, plugin, &registered.owner.version, now) }
            }
        };
        Ok(Draft { row, seen, registered })
    }

    async fn write(&self, by: &Actor, draft: Draft, action: &str) -> Result<Registration, ToolError> {
        let Draft { row, seen, registered } = draft;
        let config = row.config.as_ref().map(|config| redacted_config(registered.owner.config_schema.as_ref(), config));
        let detail = json!({
            "enabled": row.enabled, "config": config, "priority": row.priority, "version": row.version, "revision": row.revision,
        });
        let entry = self.entry(by, &row.scope, action, row.plugin.as_str(), detail)?;
        self.commit(by, vec![Step::PutRegistration { row: row.clone(), expected: seen }], entry, &row).await?;
        Ok(row)
    }
}

/// A registration that is to be written, and the plugin that it is about.
struct Draft {
    row: Registration,
    seen: crate::store::Expected,
    registered: std::sync::Arc<Registered>,
}

/// A configuration as it may be shown: `***` in the place of fields that its schema calls `writeOnly`, or of the format
/// `password`.
#[must_use]
pub fn redacted_config(schema: Option<&Value>, config: &Value) -> Value {
    hide(schema, config, 0)
}

fn is_hidden(schema: &Value) -> bool {
    schema.get("writeOnly") == Some(&Value::Bool(true))
        || schema.get("format").is_some_and(|format| format == "password")
}

fn field<'a>(schema: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    let schema = schema?;
    schema.get("properties").and_then(|fields| fields.get(name)).or_else(|| schema.get("additionalProperties"))
}

fn hide(schema: Option<&Value>, value: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH || schema.is_some_and(is_hidden) {
        return HIDDEN.into();
    }
    match value {
        Value::Object(fields) => {
            let shown = |(name, value): (&String, &Value)| (name.clone(), hide(field(schema, name), value, depth + 1));
            Value::Object(fields.iter().map(shown).collect())
        }
        Value::Array(items) => {
            let of_items = schema.and_then(|schema| schema.get("items"));
            items.iter().map(|item| hide(of_items, item, depth + 1)).collect()
        }
        _ => value.clone(),
    }
}

/// `new` with what is hidden in it as it was before.
fn kept(new: Value, old: Option<&Value>, schema: Option<&Value>, depth: usize) -> Value {
    match new {
        Value::String(text) if text == HIDDEN && schema.is_some_and(is_hidden) => {
            old.cloned().unwrap_or(Value::String(text))
        }
        Value::Object(fields) if depth <= MAX_DEPTH => {
            let one = |(name, value): (String, Value)| {
                let before = old.and_then(|old| old.get(&name));
                let value = kept(value, before, field(schema, &name), depth + 1);
                (name, value)
            };
            Value::Object(fields.into_iter().map(one).collect())
        }
        other => other,
    }
}
