//! What became of calls. Does what `MemoryOutcomes` does, for all processes that share the database.

use toolbay_api::{RunId, Scope, TenantId, ToolError, async_trait};
use toolbay_runtime::outcomes::{Begun, KeptReply, KnownCall, LedgerCall, Outcome, OutcomeLedger};
use uuid::Uuid;

use crate::{
    db::{Db, transact},
    fault::{Fault, damaged, within},
    link::Link,
    store::{SqlStore, known_scope_id},
    values::{Json, Row, int, params},
};

/// Calls that are over and that one that begins takes away.
const SWEPT_AT_ONCE: i64 = 32;

#[async_trait]
impl OutcomeLedger for SqlStore {
    async fn begin(&self, call: &LedgerCall, now_ms: i64) -> Result<Begun, ToolError> {
        let db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            let tenant = known_scope_id(&mut link, &Scope::Tenant(call.tenant.clone())).await?;
            if let Some(known) = known(&mut link, tenant, call, now_ms).await? {
                return Ok(Begun::Known(known));
            }
            make_room(&mut link, db, tenant, call, now_ms).await?;
            let added = link
                .execute(
                    "INSERT INTO outcomes (tenant_id, key, run_id, tool, arguments, attempts, state, started_at, expires_at)
                     VALUES ($1, $2, $3, $4, $5, 1, 'started', $6, $7) ON CONFLICT (tenant_id, key) DO NOTHING",
                    params![
                        tenant,
                        call.key.as_bytes(),
                        run_id(call.run),
                        &call.tool,
                        &call.arguments,
                        now_ms,
                        call.expires_ms
                    ],
                )
                .await?;
            if added == 1 {
                return Ok(Begun::First);
            }
            // Another process was first, and has said so by now.
            let known = known(&mut link, tenant, call, now_ms).await?;
            Ok(Begun::Known(known.ok_or(Fault::Database(sqlx::Error::RowNotFound))?))
        })
    }

    async fn again(&self, call: &LedgerCall, attempts: u32, now_ms: i64) -> Result<bool, ToolError> {
        let db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            let tenant = known_scope_id(&mut link, &Scope::Tenant(call.tenant.clone())).await?;
            let started = link
                .execute(
                    "UPDATE outcomes SET attempts = attempts + 1, state = 'started', reply = NULL, started_at = $4,
                         settled_at = NULL, expires_at = $5
                     WHERE tenant_id = $1 AND key = $2 AND attempts = $3 AND state <> 'committed' AND expires_at > $4",
                    params![tenant, call.key.as_bytes(), attempts, now_ms, call.expires_ms],
                )
                .await?;
            Ok(started == 1)
        })
    }

    async fn settle(&self, call: &LedgerCall, attempts: u32, outcome: &Outcome, now_ms: i64) -> Result<(), ToolError> {
        let db = &self.0.db;
        let (state, reply, digest, bytes) = match outcome {
            Outcome::Started => return Ok(()),
            Outcome::Committed(KeptReply::Whole(reply)) => ("committed", Some(reply), None, None),
            Outcome::Committed(KeptReply::Digest { sha256, bytes }) => {
                ("committed", None, Some(sha256.to_vec()), Some(int(*bytes)))
            }
            Outcome::Failed(error) => ("failed", Some(error), None, None),
            Outcome::Unknown => ("unknown", None, None, None),
        };
        let reply = reply.map(|reply| Json::new(reply, db.options.bounds.document_bytes)).transpose()?;
        transact!(db, db.options.timeout, |link| {
            let tenant = known_scope_id(&mut link, &Scope::Tenant(call.tenant.clone())).await?;
            link.execute(
                "UPDATE outcomes SET state = $4, reply = $5, reply_digest = $6, reply_bytes = $7, settled_at = $8
                 WHERE tenant_id = $1 AND key = $2 AND attempts = $3 AND state = 'started'",
                params![tenant, call.key.as_bytes(), attempts, state, reply.clone(), digest.clone(), bytes, now_ms],
            )
            .await
            .map(drop)
        })
    }

    async fn forget(&self, tenant: &TenantId, run: RunId) -> Result<(), ToolError> {
        let db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            let tenant = known_scope_id(&mut link, &Scope::Tenant(tenant.clone())).await?;
            let sql = "DELETE FROM outcomes WHERE tenant_id = $1 AND run_id = $2";
            link.execute(sql, params![tenant, run_id(run)]).await.map(drop)
        })
    }
}

/// The number of a run in the database.
fn run_id(run: RunId) -> Uuid {
    Uuid::from_bytes(*run.as_bytes())
}

async fn known(link: &mut Link, tenant: Uuid, call: &LedgerCall, now_ms: i64) -> Result<Option<KnownCall>, Fault> {
    let row = link
        .row(
            "SELECT attempts, arguments, state, reply, reply_digest, reply_bytes FROM outcomes
             WHERE tenant_id = $1 AND key = $2 AND expires_at > $3",
            params![tenant, call.key.as_bytes(), now_ms],
        )
        .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<KnownCall, Fault> {
    let state: String = row.get(2)?;
    let outcome = match state.as_str() {
        "started" => Outcome::Started,
        "unknown" => Outcome::Unknown,
        "failed" => Outcome::Failed(row.json(3)?),
        "committed" => Outcome::Committed(match row.json_option(3)? {
            Some(reply) => KeptReply::Whole(reply),
            None => KeptReply::Digest { sha256: row.digest(4)?, bytes: row.get::<i64>(5)?.unsigned_abs() },
        }),
        _ => return Err(damaged("a call's outcome").into()),
    };
    let attempts = u32::try_from(row.get::<i64>(0)?).map_err(|_| damaged("a call's attempts"))?;
    Ok(KnownCall { attempts, arguments: row.digest(1)?, outcome })
}

/// Takes away what is over, and refuses the call where the tenant's others are as many as they may be. Calls that begin at
/// the same moment in several processes may be a few too many together.
async fn make_room(link: &mut Link, db: &Db, tenant: Uuid, call: &LedgerCall, now_ms: i64) -> Result<(), Fault> {
    let most = i64::from(db.options.bounds.outcomes);
    loop {
        let gone = link
            .execute(
                "DELETE FROM outcomes WHERE tenant_id = $1 AND key IN (
                     SELECT key FROM outcomes WHERE tenant_id = $1 AND expires_at <= $2 ORDER BY expires_at, key LIMIT $3)",
                params![tenant, now_ms, SWEPT_AT_ONCE],
            )
            .await?;
        link.execute(
            "DELETE FROM outcomes WHERE tenant_id = $1 AND key = $2 AND expires_at <= $3",
            params![tenant, call.key.as_bytes(), now_ms],
        )
        .await?;
        // Counted no further than it matters: a run that ends takes its calls away, so there are few.
        let there = "SELECT COUNT(*) FROM (SELECT 1 FROM outcomes WHERE tenant_id = $1 LIMIT $2) AS there";
        let there = link.number(there, params![tenant, most]).await?;
        if there < most {
            return Ok(());
        }
        if gone == 0 {
            within(most.unsigned_abs(), there.unsigned_abs() + 1, "calls of a tenant's runs")?;
            return Ok(());
        }
    }
}
