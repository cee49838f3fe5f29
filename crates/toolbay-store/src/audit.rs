//! The audit: a chain for each scope, whose head is locked by whoever adds to it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use toolbay_api::{Scope, ToolError};
use toolbay_runtime::store::{AuditEntry, AuditLine, AuditQuery, ChainHash, Listed};
use uuid::Uuid;

use crate::{
    db::{Db, read, transact},
    fault::{Fault, not_found},
    link::Link,
    page::{after_number, listed, rows_of},
    store::{SqlStore, scope_id, scope_name, scope_of},
    values::{Json, Row, params},
};

/// Lines that are read at once when a chain is checked.
const CHECKED_AT_ONCE: i64 = 500;

/// Problems that one check tells at most.
const MOST_PROBLEMS: usize = 100;

/// Where the audit is not as it was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChainProblem {
    /// The number of the chain's tenant; nil: the global scope.
    pub scope_id: Uuid,
    /// The name that it had.
    pub scope: Scope,
    /// The line.
    pub sequence: i64,
    /// What is wrong with it.
    pub problem: String,
}

impl SqlStore {
    /// Reads the whole audit, also that of tenants that were removed, and tells where it is not as it was written: at most a
    /// hundred places. A line that was taken away from a chain's end together with its head is not missed; compare the
    /// last hashes with what was noted elsewhere.
    ///
    /// # Errors
    /// `Unavailable` where the database cannot be reached or does not answer in time.
    pub async fn verify_audit(&self) -> Result<Vec<ChainProblem>, ToolError> {
        let db = &self.0.db;
        let chains: Vec<Chain> = read!(db, |link| {
            // In one statement, so that a head and its last line are of the same moment.
            let rows = link
                .rows(
                    "SELECT c.scope_id, c.name, c.sequence, c.hash,
                         (SELECT MAX(a.sequence) FROM audit a WHERE a.scope_id = c.scope_id)
                     FROM audit_chains c ORDER BY c.scope_id",
                    params![],
                )
                .await?;
            rows.iter().map(Chain::from_row).collect()
        })?;
        let mut problems = Vec::new();
        let headless: Vec<(Uuid, i64)> = read!(db, |link| {
            let rows = link
                .rows(
                    "SELECT scope_id, MIN(sequence) FROM audit
                     WHERE scope_id NOT IN (SELECT scope_id FROM audit_chains) GROUP BY scope_id LIMIT 100",
                    params![],
                )
                .await?;
            rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
        })?;
        for (scope_id, sequence) in headless {
            let problem = "the line belongs to no chain".to_owned();
            problems.push(ChainProblem { scope_id, scope: Scope::Global, sequence, problem });
        }
        for chain in chains {
            if problems.len() < MOST_PROBLEMS {
                chain.verify(db, &mut problems).await?;
            }
        }
        problems.truncate(MOST_PROBLEMS);
        Ok(problems)
    }
}

/// The head of a chain, and the number of its last line.
struct Chain {
    id: Uuid,
    name: String,
    sequence: i64,
    hash: ChainHash,
    last: i64,
}

impl Chain {
    fn from_row(row: &Row) -> Result<Self, Fault> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            sequence: row.get(2)?,
            // A head that somebody made unreadable fits no line.
            hash: row.digest(3).unwrap_or([0xff; 32]),
            last: row.get::<Option<i64>>(4)?.unwrap_or_default(),
        })
    }

    async fn verify(&self, db: &Db, problems: &mut Vec<ChainProblem>) -> Result<(), ToolError> {
        let mut tell = |sequence: i64, problem: &str| {
            let scope = scope_of(self.name.clone()).unwrap_or(Scope::Global);
            problems.push(ChainProblem { scope_id: self.id, scope, sequence, problem: problem.to_owned() });
            problems.len() < MOST_PROBLEMS
        };
        let (mut next, mut previous) = (1, ChainHash::default());
        loop {
            let part: Vec<(i64, Option<AuditLine>)> = read!(db, |link| {
                let rows = link
                    .rows(
                        "SELECT sequence, at, actor, action, target, outcome, detail, previous, hash FROM audit
                         WHERE scope_id = $1 AND sequence >= $2 AND sequence <= $3 ORDER BY sequence LIMIT $4",
                        params![self.id, next, self.last, CHECKED_AT_ONCE],
                    )
                    .await?;
                rows.iter().map(|row| Ok((row.get(0)?, line(row, &self.name).ok()))).collect()
            })?;
            if part.is_empty() {
                break;
            }
            for (sequence, line) in part {
                if sequence != next && !tell(next, "the line is missing") {
                    return Ok(());
                }
                let follows = line.as_ref().is_some_and(|line| line.follows(sequence, &previous));
                // After a gap nothing can follow on what was before it.
                if !follows && sequence == next && !tell(sequence, "the line is not as it was written") {
                    return Ok(());
                }
                previous = line.map(|line| line.hash).unwrap_or_default();
                next = sequence + 1;
            }
        }
        if self.sequence >= next {
            tell(next, "the line is missing");
        } else if self.sequence != next - 1 || self.hash != previous {
            tell(next - 1, "the line is not the last one that was written");
        }
        Ok(())
    }
}

/// A row of `sequence, at, actor, action, target, outcome, detail, previous, hash`.
fn line(row: &Row, name: &str) -> Result<AuditLine, Fault> {
    Ok(AuditLine {
        sequence: row.get(0)?,
        entry: AuditEntry {
            scope: scope_of(name.to_owned())?,
            at_ms: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            target: row.get(4)?,
            outcome: row.get(5)?,
            detail: row.json(6)?,
        },
        previous: row.digest(7)?,
        hash: row.digest(8)?,
    })
}

pub(crate) async fn record(db: &Db, entries: &[AuditEntry]) -> Result<(), ToolError> {
    if entries.is_empty() {
        return Ok(());
    }
    transact!(db, db.options.timeout, |link| append(&mut link, db, entries).await)
}

/// Adds entries to their chains.
pub(crate) async fn append(link: &mut Link, db: &Db, entries: &[AuditEntry]) -> Result<(), Fault> {
    // By the numbers of the chains: two that add to several lock them in the same order.
    let mut chains: BTreeMap<Uuid, Vec<&AuditEntry>> = BTreeMap::new();
    let mut ids: BTreeMap<&Scope, Uuid> = BTreeMap::new();
    for entry in entries {
        let id = match ids.get(&entry.scope) {
            Some(id) => *id,
            None => {
                let id = chain_id(link, &entry.scope).await?;
                id.ok_or_else(|| not_found(format!("there is no {}", entry.scope)))?
            }
        };
        ids.insert(&entry.scope, id);
        chains.entry(id).or_default().push(entry);
    }
    for (id, entries) in chains {
        let Some(scope) = entries.first().map(|entry| &entry.scope) else { continue };
        let (mut sequence, mut previous) = lock(link, id, scope).await?;
        for entry in entries {
            sequence += 1;
            let line = AuditLine::new(sequence, bounded(entry, db.options.bounds.audit_bytes), previous);
            write(link, db, id, &line).await?;
            previous = line.hash;
        }
        link.execute(
            "UPDATE audit_chains SET sequence = $1, hash = $2 WHERE scope_id = $3",
            params![sequence, &previous, id],
        )
        .await?;
    }
    Ok(())
}

/// The chain of a scope: of a tenant that is there, or else of the last one that had this name, whose last deeds may
/// come to be known after its removal.
async fn chain_id(link: &mut Link, scope: &Scope) -> Result<Option<Uuid>, Fault> {
    if let Some(id) = scope_id(link, scope).await? {
        return Ok(Some(id));
    }
    let removed = "SELECT id FROM removed_tenants WHERE name = $1 ORDER BY changed DESC LIMIT 1";
    let row = link.row(removed, params![scope_name(scope)]).await?;
    row.map(|row| row.get(0)).transpose()
}

async fn lock(link: &mut Link, id: Uuid, scope: &Scope) -> Result<(i64, ChainHash), Fault> {
    let head = link
        .row(
            "INSERT INTO audit_chains (scope_id, name, sequence, hash) VALUES ($1, $2, 0, $3)
             ON CONFLICT (scope_id) DO UPDATE SET sequence = audit_chains.sequence RETURNING sequence, hash",
            params![id, scope_name(scope), &ChainHash::default()],
        )
        .await?;
    let head = head.ok_or(Fault::Database(sqlx::Error::RowNotFound))?;
    Ok((head.get(0)?, head.digest(1)?))
}

async fn write(link: &mut Link, db: &Db, id: Uuid, line: &AuditLine) -> Result<(), Fault> {
    let entry = &line.entry;
    link.execute(
        "INSERT INTO audit (scope_id, sequence, at, actor, action, target, outcome, detail, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            id,
            line.sequence,
            entry.at_ms,
            &entry.actor,
            &entry.action,
            &entry.target,
            &entry.outcome,
            Json::new(&entry.detail, db.options.bounds.audit_bytes.max(64))?,
            &line.previous,
            &line.hash
        ],
    )
    .await
    .map(drop)
}

/// `entry` as it can be kept. It is cut rather than refused: what an audit refuses it does not see.
fn bounded(entry: &AuditEntry, max_bytes: usize) -> AuditEntry {
    let text = |text: &str| cut(text, max_bytes / 16);
    let detail = match Json::new(&entry.detail, max_bytes) {
        Ok(_) => entry.detail.clone(),
        Err(_) => too_long(&entry.detail),
    };
    AuditEntry {
        scope: entry.scope.clone(),
        at_ms: entry.at_ms,
        actor: text(&entry.actor),
        action: text(&entry.action),
        target: text(&entry.target),
        outcome: text(&entry.outcome),
        detail,
    }
}

fn too_long(detail: &Value) -> Value {
    json!({ "omitted_bytes": detail.to_string().len() })
}

/// The beginning of `text`, with nothing in it that a database cannot keep.
pub(crate) fn cut(text: &str, max_bytes: usize) -> String {
    let text = text.replace('\0', "\u{fffd}");
    if text.len() <= max_bytes {
        return text;
    }
    let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let mut kept = text;
    kept.truncate(end);
    kept.push('…');
    kept
}

pub(crate) async fn lines(db: &Db, scope: &Scope, query: &AuditQuery) -> Result<Listed<AuditLine>, ToolError> {
    let page = &query.page;
    let after = after_number(page, if query.newest_first { i64::MAX } else { 0 })?;
    // `plugin.` stands for all from there up to `plugin/`, the character that comes after the dot.
    let (action, from, to) = match &query.action {
        None => (None, None, None),
        Some(action) => match action.strip_suffix('.') {
            Some(stem) => (None, Some(action.clone()), Some(format!("{stem}/"))),
            None => (Some(action.clone()), None, None),
        },
    };
    let sql = if query.newest_first {
        "SELECT sequence, at, actor, action, target, outcome, detail, previous, hash FROM audit
         WHERE scope_id = $1 AND sequence < $2 AND ($3 IS NULL OR action = $3)
             AND ($4 IS NULL OR (action >= $4 AND action < $5)) AND ($6 IS NULL OR at >= $6)
         ORDER BY sequence DESC LIMIT $7"
    } else {
        "SELECT sequence, at, actor, action, target, outcome, detail, previous, hash FROM audit
         WHERE scope_id = $1 AND sequence > $2 AND ($3 IS NULL OR action = $3)
             AND ($4 IS NULL OR (action >= $4 AND action < $5)) AND ($6 IS NULL OR at >= $6)
         ORDER BY sequence LIMIT $7"
    };
    read!(db, |link| {
        let Some(id) = chain_id(&mut link, scope).await? else {
            return Ok(Listed { items: Vec::new(), next: None });
        };
        let params = params![id, after, action.clone(), from.clone(), to.clone(), query.since_ms, rows_of(page)];
        let rows = link.rows(sql, params).await?;
        let lines = rows.iter().map(|row| line(row, scope_name(scope))).collect::<Result<Vec<_>, _>>()?;
        Ok(listed(lines, page, |line| line.sequence.to_string()))
    })
}
