//! What tenants spend in a day: the ledger in both databases does what the one in memory does, over processes.

use std::{collections::BTreeMap, time::Duration};

use toolbay_api::message::Tokens;
use toolbay_runtime::{DayBudget, Ledger, MemoryLedger, Spending};

use crate::support::*;

fn call(tool: &str) -> Spending {
    Spending { tool: Some(tool.to_owned()), ..Spending::default() }
}

fn used(input: u64, output: u64, cost_micros: u64, millis: u64) -> Spending {
    let wall_time = Duration::from_millis(millis);
    Spending { tokens: Tokens { input, output }, cost_micros, wall_time, ..Spending::default() }
}

fn step() -> Spending {
    Spending { steps: 1, ..Spending::default() }
}

/// Budgets, what is spent, and how often it is allowed.
fn cases() -> Vec<(DayBudget, Spending, u64)> {
    let none = DayBudget::default;
    vec![
        (DayBudget { max_steps: Some(3), ..none() }, step(), 3),
        (DayBudget { max_tool_calls: Some(4), ..none() }, call("mail.send"), 4),
        (DayBudget { max_calls_per_tool: BTreeMap::from([("mail.*".into(), 2)]), ..none() }, call("mail.send"), 2),
        (DayBudget { max_input_tokens: Some(25), ..none() }, used(10, 1, 0, 0), 3),
        (DayBudget { max_output_tokens: Some(2), ..none() }, used(10, 1, 0, 0), 2),
        (DayBudget { max_cost_micros: Some(100), ..none() }, used(0, 0, 60, 0), 2),
        (DayBudget { max_wall_time: Some(Duration::from_millis(50)), ..none() }, used(0, 0, 0, 20), 3),
    ]
}

on_both! {
    async fn each_sum_of_a_day_binds_over_processes_as_it_does_in_memory(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let stores = [db.another().await, db.another().await];
        let memory = MemoryLedger::new();
        let acme = tenant("acme");
        for (day, (budget, spending, most)) in (20_000..).zip(cases()) {
            for n in 0..most + 2 {
                let store = &stores[(n % 2) as usize];
                let said = store.spend(&acme, day, &spending, Some(&budget)).await;
                assert_eq!(said.is_ok(), n < most, "{budget:?} {n}: {said:?}");
                assert_eq!(said, memory.spend(&acme, day, &spending, Some(&budget)).await, "{budget:?} {n}");
            }
            let other = stores[0].spend(&tenant("globex"), day, &spending, Some(&budget)).await;
            assert_eq!(other, Ok(()), "another tenant has its own day");
            assert_eq!(stores[0].spend(&acme, day + 100, &spending, Some(&budget)).await, Ok(()), "and tomorrow is new");
            db.sql("DELETE FROM spending").await.unwrap();
        }
    }

    async fn processes_beside_each_other_do_not_spend_the_same_twice(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let budget = DayBudget { max_tool_calls: Some(10), ..DayBudget::default() };
        let stores = [db.another().await, db.another().await, db.another().await];
        let (acme, spending) = (tenant("acme"), call("pay"));
        let all = stores.iter().cycle().take(30).map(|store| store.spend(&acme, 1, &spending, Some(&budget)));
        let allowed = futures::future::join_all(all).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(allowed, 10);
    }

    async fn old_days_are_forgotten(db: &Fixture) {
        db.tenants(&["acme"]).await;
        for day in 0..100 {
            db.store.spend(&tenant("acme"), day, &step(), None).await.unwrap();
        }
        assert_eq!(db.number("SELECT COUNT(*) FROM spending").await, 32);
    }

    async fn a_ledger_that_cannot_tell_says_that_nothing_is_left(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let nobody = db.store.spend(&tenant("nobody"), 1, &step(), Some(&DayBudget::default())).await.unwrap_err();
        assert!(nobody.is_not_known && nobody.to_string().contains("cannot be looked up for now"), "{nobody}");
        db.store.close().await;
        assert!(db.store.spend(&tenant("acme"), 1, &step(), None).await.unwrap_err().is_not_known);
    }
}
