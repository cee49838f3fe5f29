//! Events on their way to other processes: at least once, in order for each scope and key.
//!
//! Only the oldest event of a key is its *head*, and only heads are claimed. A claim sets the time at which an event is due
//! to the end of the lease, so that a lease needs nothing to end it. Whoever adds or takes away an event holds its
//! scope's row: numbers are then in the order of commits, and there is always one head.

use std::collections::BTreeMap;

use toolbay_api::{Scope, ToolError};
use toolbay_runtime::store::{DeadEvent, Listed, OutboxEvent, Page};
use uuid::Uuid;

use crate::{
    audit::cut,
    db::{Db, read, transact},
    fault::{Fault, damaged, not_found, within},
    link::Link,
    page::{after_moment, listed, moment, rows_of},
    store::{known_scope_id, scope_of},
    values::{Json, Row, params},
};

/// The longest reason that is kept of a failed delivery, in bytes.
const MAX_PROBLEM_BYTES: usize = 1_000;

/// Dead events too many that one more takes away.
const PRUNED_AT_ONCE: i64 = 100;

pub(crate) async fn post(db: &Db, events: &[OutboxEvent]) -> Result<(), ToolError> {
    if events.is_empty() {
        return Ok(());
    }
    transact!(db, db.options.timeout, |link| {
        let mut ids: BTreeMap<&Scope, Uuid> = BTreeMap::new();
        for event in events {
            if !ids.contains_key(&event.scope) {
                ids.insert(&event.scope, known_scope_id(&mut link, &event.scope).await?);
            }
        }
        // By number: two that post for several scopes lock them in the same order.
        let mut entries: BTreeMap<Uuid, i64> = ids.values().map(|id| (*id, 0)).collect();
        for (id, count) in &mut entries {
            *count = lock(&mut link, *id).await?.ok_or_else(|| not_found("the tenant was removed"))?;
        }
        for event in events {
            let Some(id) = ids.get(&event.scope) else { continue };
            if insert(&mut link, db, *id, event).await?
                && let Some(count) = entries.get_mut(id)
            {
                *count += 1;
            }
        }
        for (id, count) in entries {
            within(db.options.bounds.events.into(), count.unsigned_abs(), "events of a scope that wait")?;
            set_entries(&mut link, id, count).await?;
        }
        Ok(())
    })
}

/// Holds a scope's row. Gives the number of its events; `None` where its tenant was removed meanwhile.
async fn lock(link: &mut Link, scope: Uuid) -> Result<Option<i64>, Fault> {
    // The tenant first, as its removal does, and as the foreign keys of what is inserted later would: two that take the
    // same rows in another order wait for each other.
    let tenant = if link.is_postgres() {
        "SELECT 1 FROM tenants WHERE id = $1 FOR KEY SHARE"
    } else {
        "SELECT 1 FROM tenants WHERE id = $1"
    };
    if link.row(tenant, params![scope]).await?.is_none() {
        return Ok(None);
    }
    link.number(
        "INSERT INTO outbox_scopes (tenant_id, entries) VALUES ($1, 0)
         ON CONFLICT (tenant_id) DO UPDATE SET entries = outbox_scopes.entries RETURNING entries",
        params![scope],
    )
    .await
    .map(Some)
}

async fn set_entries(link: &mut Link, scope: Uuid, entries: i64) -> Result<(), Fault> {
    let sql = "UPDATE outbox_scopes SET entries = $1 WHERE tenant_id = $2";
    link.execute(sql, params![entries, scope]).await.map(drop)
}

/// Puts an event at the end of its key; says whether it was not there yet, since a poster that did not hear of its success
/// posts again.
async fn insert(link: &mut Link, db: &Db, scope: Uuid, event: &OutboxEvent) -> Result<bool, Fault> {
    let added = link
        .execute(
            "INSERT INTO outbox (id, tenant_id, key, event, posted_at, attempts, due_at, head)
             VALUES ($1, $2, $3, $4, $5, $6, 0, NOT EXISTS (SELECT 1 FROM outbox WHERE tenant_id = $2 AND key = $3))
             ON CONFLICT (id) DO NOTHING",
            params![
                event.id,
                scope,
                &event.key,
                Json::new(&event.event, db.options.bounds.document_bytes)?,
                event.posted_at,
                event.attempts
            ],
        )
        .await?;
    Ok(added == 1)
}

pub(crate) async fn claim(db: &Db, limit: u32, lease_ms: i64, now_ms: i64) -> Result<Vec<OutboxEvent>, ToolError> {
    let mut claimed: Vec<(i64, OutboxEvent)> = transact!(db, db.options.timeout, |link| {
        // What another process is about to claim is passed over rather than waited for. An SQLite file has one writer.
        let sql = if link.is_postgres() {
            "WITH due AS MATERIALIZED (
                 SELECT sequence FROM outbox WHERE head AND due_at <= $1 ORDER BY due_at, sequence LIMIT $3
                 FOR UPDATE SKIP LOCKED)
             UPDATE outbox SET due_at = $2, attempts = attempts + 1 WHERE sequence IN (SELECT sequence FROM due)
             RETURNING (SELECT name FROM tenants t WHERE t.id = outbox.tenant_id), id, key, event, posted_at,
                 attempts - 1, sequence"
        } else {
            "WITH due AS MATERIALIZED (
                 SELECT sequence FROM outbox WHERE head AND due_at <= $1 ORDER BY due_at, sequence LIMIT $3)
             UPDATE outbox SET due_at = $2, attempts = attempts + 1 WHERE sequence IN (SELECT sequence FROM due)
             RETURNING (SELECT name FROM tenants t WHERE t.id = outbox.tenant_id), id, key, event, posted_at,
                 attempts - 1, sequence"
        };
        let until = now_ms.saturating_add(lease_ms.max(1));
        let rows = link.rows(sql, params![now_ms, until, limit]).await?;
        rows.iter().map(|found| Ok((found.get(6)?, row(found)?))).collect()
    })?;
    claimed.sort_by_key(|(sequence, _)| *sequence);
    Ok(claimed.into_iter().map(|(_, event)| event).collect())
}

/// A row of `tenants.name, id, key, event, posted_at, attempts`.
fn row(row: &Row) -> Result<OutboxEvent, Fault> {
    Ok(OutboxEvent {
        scope: scope_of(row.get(0)?)?,
        id: row.get(1)?,
        key: row.get(2)?,
        event: row.json(3)?,
        posted_at: row.get(4)?,
        attempts: u32::try_from(row.get::<i64>(5)?).map_err(|_| damaged("a number of attempts"))?,
    })
}

/// An event that was taken away.
struct Taken {
    scope: Uuid,
    key: String,
    event: Json,
    posted_at: i64,
}

/// Takes an event away, where the claim is still the last one, and makes the next of its key the head.
async fn take(link: &mut Link, id: Uuid, attempts: u32) -> Result<Option<Taken>, Fault> {
    let Some(found) = link.row("SELECT tenant_id FROM outbox WHERE id = $1", params![id]).await? else {
        return Ok(None);
    };
    let scope: Uuid = found.get(0)?;
    let Some(entries) = lock(link, scope).await? else { return Ok(None) };
    let gone = link
        .row(
            "DELETE FROM outbox WHERE id = $1 AND attempts = $2 RETURNING key, event, posted_at",
            params![id, i64::from(attempts) + 1],
        )
        .await?;
    let Some(gone) = gone else { return Ok(None) };
    let taken = Taken { scope, key: gone.get(0)?, event: gone.get(1)?, posted_at: gone.get(2)? };
    link.execute(
        "UPDATE outbox SET head = TRUE
         WHERE sequence = (SELECT MIN(sequence) FROM outbox WHERE tenant_id = $1 AND key = $2)",
        params![scope, &taken.key],
    )
    .await?;
    set_entries(link, scope, entries - 1).await?;
    Ok(Some(taken))
}

pub(crate) async fn delivered(db: &Db, id: Uuid, attempts: u32) -> Result<(), ToolError> {
    transact!(db, db.options.timeout, |link| take(&mut link, id, attempts).await.map(drop))
}

pub(crate) async fn undelivered(
    db: &Db,
    id: Uuid,
    attempts: u32,
    problem: &str,
    retry_ms: Option<i64>,
    now_ms: i64,
) -> Result<(), ToolError> {
    transact!(db, db.options.timeout, |link| {
        if let Some(retry_ms) = retry_ms {
            let again = "UPDATE outbox SET due_at = $1 WHERE id = $2 AND attempts = $3";
            return link.execute(again, params![retry_ms, id, i64::from(attempts) + 1]).await.map(drop);
        }
        let Some(taken) = take(&mut link, id, attempts).await? else { return Ok(()) };
        link.execute(
            "INSERT INTO dead_events (id, tenant_id, key, event, posted_at, attempts, problem, died_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING",
            params![
                id,
                taken.scope,
                taken.key,
                taken.event,
                taken.posted_at,
                i64::from(attempts) + 1,
                cut(problem, MAX_PROBLEM_BYTES),
                now_ms
            ],
        )
        .await?;
        link.execute(
            "DELETE FROM dead_events WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM dead_events WHERE tenant_id = $1 ORDER BY died_at DESC, id DESC LIMIT $2 OFFSET $3)",
            params![taken.scope, PRUNED_AT_ONCE, db.options.bounds.dead_events],
        )
        .await
        .map(drop)
    })
}

pub(crate) async fn dead(db: &Db, page: &Page) -> Result<Listed<DeadEvent>, ToolError> {
    let (at, id) = after_moment(page, (i64::MIN, Uuid::nil()))?;
    read!(db, |link| {
        let rows = link
            .rows(
                "SELECT t.name, d.id, d.key, d.event, d.posted_at, d.attempts, d.problem, d.died_at
                 FROM dead_events d JOIN tenants t ON t.id = d.tenant_id
                 WHERE d.died_at > $1 OR (d.died_at = $1 AND d.id > $2) ORDER BY d.died_at, d.id LIMIT $3",
                params![at, id, rows_of(page)],
            )
            .await?;
        let dead = rows
            .iter()
            .map(|found| Ok(DeadEvent { event: row(found)?, problem: found.get(6)?, died_at: found.get(7)? }))
            .collect::<Result<Vec<_>, Fault>>()?;
        Ok(listed(dead, page, |dead| moment(dead.died_at, dead.event.id)))
    })
}

pub(crate) async fn revive(db: &Db, id: Uuid, now_ms: i64) -> Result<bool, ToolError> {
    transact!(db, db.options.timeout, |link| {
        let found = link
            .row(
                "SELECT t.name, d.id, d.key, d.event, d.posted_at, d.attempts, d.tenant_id
                 FROM dead_events d JOIN tenants t ON t.id = d.tenant_id WHERE d.id = $1",
                params![id],
            )
            .await?;
        let Some(found) = found else { return Ok(false) };
        let (event, scope) = (OutboxEvent { attempts: 0, ..row(&found)? }, found.get::<Uuid>(6)?);
        let Some(entries) = lock(&mut link, scope).await? else { return Ok(false) };
        // Somebody else may have been first, while this waited for the scope.
        if link.execute("DELETE FROM dead_events WHERE id = $1", params![id]).await? == 0 {
            return Ok(false);
        }
        within(db.options.bounds.events.into(), entries.unsigned_abs() + 1, "events of a scope that wait")?;
        insert(&mut link, db, scope, &event).await?;
        set_entries(&mut link, scope, entries + 1).await?;
        tracing::info!(target: "toolbay::store", %id, now_ms, "a dead event is up for delivery again");
        Ok(true)
    })
}
