//! What tenants spent in a day, over all processes that share the database.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use toolbay_api::{Scope, TenantId, async_trait};
use toolbay_runtime::spending::{DayBudget, Exhausted, Ledger, Spending, Spent};

use crate::{
    db::transact,
    fault::{Fault, damaged},
    store::{SqlStore, known_scope_id},
    values::{Json, Row, int, params},
};

/// Days that are kept of a tenant, for whoever wants to see what was spent.
const DAYS_KEPT: i64 = 32;

#[async_trait]
impl Ledger for SqlStore {
    async fn spend(
        &self,
        tenant: &TenantId,
        day: u64,
        spending: &Spending,
        budget: Option<&DayBudget>,
    ) -> Result<(), Exhausted> {
        let db = &self.0.db;
        let (scope, day) = (Scope::Tenant(tenant.clone()), int(day));
        let spent = transact!(db, db.options.timeout, |link| {
            let id = known_scope_id(&mut link, &scope).await?;
            let is_new = link
                .execute(
                    "INSERT INTO spending (tenant_id, day, steps, tool_calls, per_tool, input_tokens, output_tokens,
                         cost_micros, wall_us)
                     VALUES ($1, $2, 0, 0, $3, 0, 0, 0, 0) ON CONFLICT (tenant_id, day) DO NOTHING",
                    params![id, day, Json::new(&json!({}), usize::MAX)?],
                )
                .await?;
            if is_new == 1 {
                let old = "DELETE FROM spending WHERE tenant_id = $1 AND day <= $2";
                link.execute(old, params![id, day - DAYS_KEPT]).await?;
            }
            // The update that changes nothing is what locks the row, on both databases.
            let row = link
                .row(
                    "UPDATE spending SET steps = steps WHERE tenant_id = $1 AND day = $2
                     RETURNING steps, tool_calls, per_tool, input_tokens, output_tokens, cost_micros, wall_us",
                    params![id, day],
                )
                .await?;
            let spent = read(&row.ok_or(Fault::Database(sqlx::Error::RowNotFound))?)?;
            let next = match spent.plus(spending, budget) {
                Ok(next) => next,
                Err(exhausted) => return Ok(Err(exhausted)),
            };
            link.execute(
                "UPDATE spending SET steps = $3, tool_calls = $4, per_tool = $5, input_tokens = $6, output_tokens = $7,
                     cost_micros = $8, wall_us = $9
                 WHERE tenant_id = $1 AND day = $2",
                params![
                    id,
                    day,
                    int(next.steps),
                    int(next.tool_calls),
                    Json::new(&json!(next.per_tool), db.options.bounds.document_bytes)?,
                    int(next.input),
                    int(next.output),
                    int(next.cost_micros),
                    int(next.wall_time.as_micros())
                ],
            )
            .await?;
            Ok(Ok(()))
        });
        spent.unwrap_or_else(|error| {
            tracing::warn!(target: "toolbay::store", %tenant, %error, "what a tenant spends could not be written down");
            Err(Exhausted::not_known())
        })
    }
}

fn read(row: &Row) -> Result<Spent, Fault> {
    let number = |index| Ok::<_, Fault>(row.get::<i64>(index)?.unsigned_abs());
    let per_tool: BTreeMap<String, u64> =
        serde_json::from_value(row.json(2)?).map_err(|_| damaged("a tenant's spending"))?;
    Ok(Spent {
        steps: number(0)?,
        tool_calls: number(1)?,
        per_tool,
        input: number(3)?,
        output: number(4)?,
        cost_micros: number(5)?,
        wall_time: Duration::from_micros(number(6)?),
    })
}
