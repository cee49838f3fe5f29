//! What plugins keep between calls. Does what `MemoryKv` does, with the space's row in place of its lock.

use serde_json::Value;
use toolbay_api::{Limit, ToolError, async_trait};
use toolbay_runtime::kv::{KvQuota, KvSpace, KvStore, KvValue, MAX_KEY_BYTES};
use uuid::Uuid;

use crate::{
    db::{Db, read, transact},
    fault::{Fault, invalid, not_found, within},
    link::Link,
    store::SqlStore,
    values::{Json, int, params},
};

/// Values that are over and that are taken away at once.
const SWEPT_AT_ONCE: i64 = 32;

/// A space whose row this transaction holds.
struct Held<'a> {
    tenant: Uuid,
    space: &'a KvSpace,
    keys: i64,
    bytes: i64,
}

impl<'a> Held<'a> {
    /// The space, if it has ever had a value.
    async fn find(link: &mut Link, space: &'a KvSpace) -> Result<Option<Self>, Fault> {
        // The update that changes nothing is what locks the row, on both databases; in PostgreSQL the tenant is held before
        // it, in the order of its removal, since a row that is updated twice has its foreign keys checked again.
        let sql = if link.is_postgres() {
            "WITH tenant AS MATERIALIZED (SELECT id FROM tenants WHERE name = $1 FOR KEY SHARE)
             UPDATE kv_spaces SET keys = keys FROM tenant
             WHERE tenant_id = tenant.id AND plugin_name = $2 AND own = $3 RETURNING keys, bytes, tenant_id"
        } else {
            "UPDATE kv_spaces SET keys = keys
             WHERE tenant_id = (SELECT id FROM tenants WHERE name = $1) AND plugin_name = $2 AND own = $3
             RETURNING keys, bytes, tenant_id"
        };
        let row = link.row(sql, params![space.tenant.as_str(), space.plugin.as_str(), space.own]).await?;
        row.map(|row| Ok(Self { tenant: row.get(2)?, space, keys: row.get(0)?, bytes: row.get(1)? })).transpose()
    }

    /// The space, made where it is not there.
    async fn make(link: &mut Link, db: &Db, space: &'a KvSpace) -> Result<Self, Fault> {
        if let Some(held) = Self::find(link, space).await? {
            return Ok(held);
        }
        let tenant = tenant_id(link, space).await?;
        let tenant = tenant.ok_or_else(|| not_found(format!("there is no tenant {}", space.tenant)))?;
        // Spaces are few and small beside what is in them, so those of writers at the same moment may be one too many.
        let spaces = link.number("SELECT COUNT(*) FROM kv_spaces WHERE tenant_id = $1", params![tenant]).await?;
        within(db.options.bounds.spaces.into(), spaces.unsigned_abs() + 1, "plugins' spaces of a tenant")?;
        let row = link
            .row(
                "INSERT INTO kv_spaces (tenant_id, plugin_name, own, keys, bytes) VALUES ($1, $2, $3, 0, 0)
                 ON CONFLICT (tenant_id, plugin_name, own) DO UPDATE SET keys = kv_spaces.keys RETURNING keys, bytes",
                params![tenant, space.plugin.as_str(), space.own],
            )
            .await?;
        let row = row.ok_or(Fault::Database(sqlx::Error::RowNotFound))?;
        Ok(Self { tenant, space, keys: row.get(0)?, bytes: row.get(1)? })
    }

    /// Takes away some of what is over; says whether there was any.
    async fn sweep(&mut self, link: &mut Link, now_ms: i64) -> Result<bool, Fault> {
        let gone = link
            .rows(
                "DELETE FROM kv WHERE tenant_id = $1 AND plugin_name = $2 AND own = $3 AND key IN (
                     SELECT key FROM kv WHERE tenant_id = $1 AND plugin_name = $2 AND own = $3 AND expires_at <= $4
                     ORDER BY expires_at, key LIMIT $5)
                 RETURNING bytes",
                params![self.tenant, self.space.plugin.as_str(), self.space.own, now_ms, SWEPT_AT_ONCE],
            )
            .await?;
        for row in &gone {
            self.keys -= 1;
            self.bytes -= row.get::<i64>(0)?;
        }
        Ok(!gone.is_empty())
    }

    async fn set(&mut self, link: &mut Link, key: &str, new: &New, quota: KvQuota, now_ms: i64) -> Result<(), Fault> {
        self.sweep(link, now_ms).await?;
        let (keys, bytes) = loop {
            let old = self.size_of(link, key).await?;
            let keys = self.keys + i64::from(old.is_none());
            let bytes = self.bytes - old.unwrap_or(0) + new.bytes;
            if bytes <= int(quota.max_bytes) && keys <= int(quota.max_keys) {
                break (keys, bytes);
            }
            // What is left of what is over must not be counted.
            if self.sweep(link, now_ms).await? {
                continue;
            }
            if bytes > int(quota.max_bytes) {
                return Err(ToolError::limit(Limit::Storage, quota.max_bytes as u64, bytes.unsigned_abs()).into());
            }
            let allowed = quota.max_keys as u64;
            let mut error = ToolError::limit(Limit::Storage, allowed, keys.unsigned_abs());
            error.message = format!("the plugin's store has its {allowed} keys; delete some first").into();
            return Err(error.into());
        };
        link.execute(
            "INSERT INTO kv (tenant_id, plugin_name, own, key, value, bytes, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, plugin_name, own, key) DO UPDATE
                 SET value = excluded.value, bytes = excluded.bytes, expires_at = excluded.expires_at",
            params![
                self.tenant,
                self.space.plugin.as_str(),
                self.space.own,
                key.as_bytes(),
                new.json.clone(),
                new.bytes,
                new.expires_ms
            ],
        )
        .await?;
        (self.keys, self.bytes) = (keys, bytes);
        Ok(())
    }

    async fn size_of(&self, link: &mut Link, key: &str) -> Result<Option<i64>, Fault> {
        let row = link
            .row(
                "SELECT bytes FROM kv WHERE tenant_id = $1 AND plugin_name = $2 AND own = $3 AND key = $4",
                params![self.tenant, self.space.plugin.as_str(), self.space.own, key.as_bytes()],
            )
            .await?;
        row.map(|row| row.get(0)).transpose()
    }

    /// Takes `key` away; says whether it was there and not over.
    async fn take(&mut self, link: &mut Link, key: &str, now_ms: i64) -> Result<bool, Fault> {
        let row = link
            .row(
                "DELETE FROM kv WHERE tenant_id = $1 AND plugin_name = $2 AND own = $3 AND key = $4
                 RETURNING bytes, expires_at",
                params![self.tenant, self.space.plugin.as_str(), self.space.own, key.as_bytes()],
            )
            .await?;
        let Some(row) = row else { return Ok(false) };
        self.keys -= 1;
        self.bytes -= row.get::<i64>(0)?;
        Ok(row.get::<Option<i64>>(1)?.is_none_or(|end| now_ms < end))
    }

    /// Writes down what the space holds now. One that is empty goes: plugins come and go.
    async fn close(self, link: &mut Link) -> Result<(), Fault> {
        let (plugin, own) = (self.space.plugin.as_str(), self.space.own);
        if self.keys == 0 {
            let sql = "DELETE FROM kv_spaces WHERE tenant_id = $1 AND plugin_name = $2 AND own = $3";
            return link.execute(sql, params![self.tenant, plugin, own]).await.map(drop);
        }
        link.execute(
            "UPDATE kv_spaces SET keys = $1, bytes = $2 WHERE tenant_id = $3 AND plugin_name = $4 AND own = $5",
            params![self.keys, self.bytes, self.tenant, plugin, own],
        )
        .await
        .map(drop)
    }
}

/// A value as it is written.
struct New {
    json: Json,
    bytes: i64,
    expires_ms: Option<i64>,
}

impl New {
    fn of(key: &str, new: &KvValue, quota: KvQuota) -> Result<Self, ToolError> {
        let json = Json::new(&new.value, usize::MAX)?;
        let bytes = json.len() + key.len();
        if bytes > quota.max_value_bytes {
            return Err(ToolError::limit(Limit::Storage, quota.max_value_bytes as u64, bytes as u64));
        }
        Ok(Self { json, bytes: int(bytes), expires_ms: new.expires_ms })
    }
}

async fn tenant_id(link: &mut Link, space: &KvSpace) -> Result<Option<Uuid>, Fault> {
    let row = link.row("SELECT id FROM tenants WHERE name = $1", params![space.tenant.as_str()]).await?;
    row.map(|row| row.get(0)).transpose()
}

async fn value(link: &mut Link, space: &KvSpace, key: &str, now_ms: i64) -> Result<Option<Value>, Fault> {
    let row = link
        .row(
            "SELECT k.value FROM kv k JOIN tenants t ON t.id = k.tenant_id
             WHERE t.name = $1 AND k.plugin_name = $2 AND k.own = $3 AND k.key = $4
                 AND (k.expires_at IS NULL OR k.expires_at > $5)",
            params![space.tenant.as_str(), space.plugin.as_str(), space.own, key.as_bytes(), now_ms],
        )
        .await?;
    row.map(|row| row.json(0)).transpose()
}

fn check_key(key: &str) -> Result<(), ToolError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(invalid(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len())));
    }
    Ok(())
}

/// The first bytes that are after all that begin with `prefix`; `None` where nothing is.
fn after_all(prefix: &str) -> Option<Vec<u8>> {
    let mut bytes = prefix.as_bytes().to_vec();
    // No byte of UTF-8 is the largest.
    let last = bytes.last_mut()?;
    *last += 1;
    Some(bytes)
}

#[async_trait]
impl KvStore for SqlStore {
    async fn get(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<Option<Value>, ToolError> {
        check_key(key)?;
        read!(&self.0.db, |link| value(&mut link, space, key, now_ms).await)
    }

    async fn set(
        &self,
        space: &KvSpace,
        key: &str,
        new: KvValue,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<(), ToolError> {
        check_key(key)?;
        let new = New::of(key, &new, quota)?;
        let db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            let mut held = Held::make(&mut link, db, space).await?;
            held.set(&mut link, key, &new, quota, now_ms).await?;
            held.close(&mut link).await
        })
    }

    async fn compare_and_set(
        &self,
        space: &KvSpace,
        key: &str,
        expected: Option<Value>,
        new: Option<KvValue>,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<bool, ToolError> {
        check_key(key)?;
        let something = |value: &Value| !value.is_null();
        let (expected, new) = (expected.filter(something), new.filter(|new| !new.value.is_null()));
        let db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            // Where something is to be written the space is held before anything is compared, also where it is not there.
            let held = match &new {
                Some(_) => Some(Held::make(&mut link, db, space).await?),
                None => Held::find(&mut link, space).await?,
            };
            let found = value(&mut link, space, key, now_ms).await?.filter(something);
            let is_equal = found == expected;
            if let Some(mut held) = held {
                if is_equal {
                    match &new {
                        Some(new) => {
                            held.set(&mut link, key, &New::of(key, new, quota)?, quota, now_ms).await?;
                        }
                        None => drop(held.take(&mut link, key, now_ms).await?),
                    }
                }
                held.close(&mut link).await?;
            }
            Ok(is_equal)
        })
    }

    async fn delete(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<bool, ToolError> {
        check_key(key)?;
        let db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            let Some(mut held) = Held::find(&mut link, space).await? else { return Ok(false) };
            held.sweep(&mut link, now_ms).await?;
            let was_there = held.take(&mut link, key, now_ms).await?;
            held.close(&mut link).await?;
            Ok(was_there)
        })
    }

    async fn list(
        &self,
        space: &KvSpace,
        prefix: &str,
        after: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<String>, ToolError> {
        read!(&self.0.db, |link| {
            let rows = link
                .rows(
                    "SELECT k.key FROM kv k JOIN tenants t ON t.id = k.tenant_id
                     WHERE t.name = $1 AND k.plugin_name = $2 AND k.own = $3 AND k.key >= $4 AND k.key > $5
                         AND ($6 IS NULL OR k.key < $6) AND (k.expires_at IS NULL OR k.expires_at > $7)
                     ORDER BY k.key LIMIT $8",
                    params![
                        space.tenant.as_str(),
                        space.plugin.as_str(),
                        space.own,
                        prefix.as_bytes(),
                        after.as_bytes(),
                        after_all(prefix),
                        now_ms,
                        int(limit)
                    ],
                )
                .await?;
            rows.iter()
                .map(|row| String::from_utf8(row.get(0)?).map_err(|_| crate::fault::damaged("a key").into()))
                .collect()
        })
    }
}
