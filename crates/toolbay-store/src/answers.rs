//! Answers that were given to requests with a key of their own, so that a request that comes again gets the same.

use serde_json::Value;
use toolbay_api::ToolError;
use toolbay_runtime::store::{ChainHash, Once};
use uuid::Uuid;

use crate::{
    db::{Db, read},
    fault::{Fault, conflict},
    link::Link,
    values::{Json, params},
};

/// Answers that are over and that one change takes away.
const SWEPT_AT_ONCE: i64 = 64;

pub(crate) async fn answered(
    db: &Db,
    owner: Uuid,
    key: &str,
    now_ms: i64,
) -> Result<Option<(ChainHash, Value)>, ToolError> {
    read!(db, |link| {
        let found = link
            .row(
                "SELECT request, answer FROM answers WHERE owner = $1 AND key = $2 AND expires_at > $3",
                params![owner, key, now_ms],
            )
            .await?;
        found.map(|row| Ok((row.digest(0)?, row.json(1)?))).transpose()
    })
}

/// Keeps an answer. `Conflict` where the same request was answered meanwhile: the change must not happen twice.
pub(crate) async fn put(link: &mut Link, db: &Db, once: &Once, now_ms: i64) -> Result<(), Fault> {
    let bounds = &db.options.bounds;
    link.execute(
        "DELETE FROM answers WHERE (owner, key) IN (
             SELECT owner, key FROM answers WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        params![now_ms, SWEPT_AT_ONCE],
    )
    .await?;
    link.execute(
        "DELETE FROM answers WHERE owner = $1 AND key = $2 AND expires_at <= $3",
        params![once.owner, &once.key, now_ms],
    )
    .await?;
    // Refusing would let an eager client lock itself out; what ends first is the least likely to be asked for again.
    link.execute(
        "DELETE FROM answers WHERE owner = $1 AND key IN (
             SELECT key FROM answers WHERE owner = $1 ORDER BY expires_at DESC, key LIMIT 1000 OFFSET $2)",
        params![once.owner, i64::from(bounds.answers.max(1)) - 1],
    )
    .await?;
    let added = link
        .execute(
            "INSERT INTO answers (owner, key, request, answer, expires_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (owner, key) DO NOTHING",
            params![
                once.owner,
                &once.key,
                &once.request,
                Json::new(&once.answer, bounds.document_bytes)?,
                once.expires_ms
            ],
        )
        .await?;
    if added == 1 { Ok(()) } else { Err(conflict("this request was answered already; ask for its answer").into()) }
}
