//! What runs may use and tenants may spend: each setting with a value that binds and one that does not, and what the caller
//! and the model are told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use serde_json::json;
use toolbay_agent::{
    Agent, AgentConfig, AgentError, AgentReply, Bounds, DayBudget, DayLimits, Exhausted, MemoryLedger, Price, Prices,
    RunOutcome, ScriptedModel, StepperConfig,
};
use toolbay_api::Message;
use toolbay_runtime::{Clock, Toolbay};

use crate::support::{bay, session};

/// Calls `add` and `fails` by turns, six times, each reply for 5 tokens in and 7 out; then it answers.
fn busy() -> ScriptedModel {
    let turn = |model: ScriptedModel, n: usize| {
        let (name, arguments) =
            if n.is_multiple_of(2) { ("add", json!({"a": 1, "b": n})) } else { ("fails", json!({})) };
        model.calls(name, arguments).using(5, 7)
    };
    (0..6).fold(ScriptedModel::new(), turn).says("done").using(5, 7)
}

/// The scripted model's name at 1 for a million tokens in and 2 for a million out: 19 millionths for each reply of `busy`.
fn prices() -> Prices {
    Prices(BTreeMap::from([("script*".to_owned(), Price { input: 1_000_000, output: 2_000_000 })]))
}

fn config(bounds: Bounds) -> AgentConfig {
    let stepper = StepperConfig { bounds, ..StepperConfig::default() };
    AgentConfig { stepper, prices: prices(), ..AgentConfig::default() }
}

fn tools_said(reply: &AgentReply) -> String {
    let said = reply.messages.iter().filter_map(|message| match message {
        Message::Tool { text, .. } => Some(text.as_str()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn each_bound_of_a_run_binds_and_is_told_to_caller_and_model() {
    let none = Bounds::default;
    let per_tool = |glob: &str, most| BTreeMap::from([(glob.to_owned(), most)]);
    for (bounds, what, outcome, calls) in [
        (Bounds { max_steps: 2, ..none() }, Exhausted::of_run("steps", 2, 2), RunOutcome::StepLimit, 2),
        (Bounds { max_tool_calls: 2, ..none() }, Exhausted::of_run("tool calls", 2, 3), RunOutcome::ToolCallLimit, 2),
        (Bounds { max_tokens: Some(30), ..none() }, Exhausted::of_run("tokens", 30, 36), RunOutcome::TokenLimit, 2),
        (
            Bounds { max_input_tokens: Some(14), ..none() },
            Exhausted::of_run("input tokens", 14, 15),
            RunOutcome::InputTokenLimit,
            2,
        ),
        (
            Bounds { max_output_tokens: Some(15), ..none() },
            Exhausted::of_run("output tokens", 15, 21),
            RunOutcome::OutputTokenLimit,
            2,
        ),
        (
            Bounds { max_cost_micros: Some(50), ..none() },
            Exhausted::of_run("millionths of the currency", 50, 57),
            RunOutcome::CostLimit,
            2,
        ),
        (
            Bounds { max_calls_per_tool: per_tool("ad*", 1), ..none() },
            Exhausted::of_run("calls of ad*", 1, 2),
            RunOutcome::Completed,
            4,
        ),
        (
            Bounds { max_calls_per_tool: per_tool("*", 4), ..none() },
            Exhausted::of_run("calls of *", 4, 5),
            RunOutcome::Completed,
            4,
        ),
    ] {
        let agent = Agent::new(busy(), session(bay())).config(config(bounds));
        let reply = agent.run("go").await.unwrap();
        assert_eq!((&reply.outcome, reply.tool_calls), (&outcome, calls), "{what}");
        assert_eq!(reply.exhausted.as_ref(), Some(&what));
        assert!(tools_said(&reply).contains(&what.to_string()), "{}", tools_said(&reply));
    }
    let reply = Agent::new(busy(), session(bay())).config(config(none())).run("go").await.unwrap();
    assert_eq!((reply.outcome, reply.tool_calls, reply.exhausted), (RunOutcome::Completed, 6, None));
    assert_eq!(reply.cost_micros, Some(7 * 19));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_run_is_bounded_and_told() {
    let bounds = Bounds { max_wall_time: Duration::from_millis(20), ..Bounds::default() };
    let model = ScriptedModel::new().calls("hangs", json!({})).says("done");
    let reply = Agent::new(model, session(bay())).config(config(bounds)).run("go").await.unwrap();
    assert_eq!(reply.outcome, RunOutcome::TimeLimit);
    assert!(tools_said(&reply).ends_with("(the run's limit of 20 milliseconds is used up)"), "{}", tools_said(&reply));
}

#[tokio::test]
async fn a_model_without_a_price_does_not_run_where_cost_is_bounded() {
    let bounds = Bounds { max_cost_micros: Some(50), ..Bounds::default() };
    let config = AgentConfig { prices: Prices::default(), ..config(bounds) };
    let end = Agent::new(busy(), session(bay())).config(config.clone()).run("go").await;
    assert!(matches!(end, Err(AgentError::NoPrice { .. })), "{end:?}");
    let unbounded = AgentConfig { stepper: StepperConfig::default(), ..config };
    assert!(Agent::new(busy(), session(bay())).config(unbounded).run("go").await.is_ok());
}

#[test]
fn the_nearest_name_in_the_price_table_counts() {
    let price = |input| Price { input, output: 0 };
    let table = [("gpt-*", price(1)), ("gpt-4o*", price(2)), ("gpt-4o-mini", price(3))];
    let prices = Prices(table.map(|(name, price)| (name.to_owned(), price)).into());
    for (model, expected) in [("gpt-4o-mini", Some(3)), ("gpt-4o-2026", Some(2)), ("gpt-5", Some(1)), ("other", None)] {
        assert_eq!(prices.of(model).map(|price| price.input), expected, "{model}");
    }
}

#[derive(Clone)]
struct Hands(Arc<Mutex<SystemTime>>);

impl Clock for Hands {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// An agent of `tenant` at tools that take ten seconds, with this budget of the day.
fn of_the_day(bay: &Toolbay, tenant: &str, budget: DayBudget, ledger: &Arc<MemoryLedger>) -> Agent {
    let day = Some(DayLimits { budget, ledger: Arc::<MemoryLedger>::clone(ledger) });
    Agent::new(busy(), bay.session(tenant).unwrap()).config(AgentConfig { day, ..config(Bounds::default()) })
}

#[tokio::test]
async fn each_bound_of_a_day_binds_over_runs_and_is_there_again_tomorrow() {
    let none = DayBudget::default;
    let per_tool = BTreeMap::from([("add".to_owned(), 4)]);
    for (budget, what, ends) in [
        (DayBudget { max_steps: Some(9), ..none() }, "9 steps of the day", RunOutcome::DayLimit),
        (DayBudget { max_tool_calls: Some(8), ..none() }, "8 tool calls of the day", RunOutcome::Completed),
        (DayBudget { max_calls_per_tool: per_tool, ..none() }, "4 calls of add of the day", RunOutcome::Completed),
        (DayBudget { max_input_tokens: Some(50), ..none() }, "50 input tokens of the day", RunOutcome::DayLimit),
        (DayBudget { max_output_tokens: Some(70), ..none() }, "70 output tokens of the day", RunOutcome::DayLimit),
        (
            DayBudget { max_cost_micros: Some(190), ..none() },
            "190 millionths of the currency of the day",
            RunOutcome::DayLimit,
        ),
    ] {
        let now = Hands(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 20_000))));
        let bay = bay().clock(now.clone()).build().unwrap();
        let ledger = MemoryLedger::new();
        let run = async |tenant: &str| of_the_day(&bay, tenant, budget.clone(), &ledger).run("go").await.unwrap();
        assert_eq!(run("acme").await.outcome, RunOutcome::Completed, "{what}: the first run is within");
        let second = run("acme").await;
        assert_eq!(second.outcome, ends, "{what}");
        assert!(tools_said(&second).contains(what), "{what}: {}", tools_said(&second));
        if ends == RunOutcome::DayLimit {
            assert!(second.exhausted.as_ref().unwrap().to_string().contains(what));
        }
        let other = run("globex").await;
        assert!(other.outcome.is_completed() && !tools_said(&other).contains("of the day"), "{what}: another tenant's");
        *now.0.lock().unwrap() += Duration::from_secs(86_400);
        let tomorrow = run("acme").await;
        assert!(tomorrow.outcome.is_completed() && !tools_said(&tomorrow).contains("of the day"), "{what}: tomorrow");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_day_binds_over_runs() {
    let bay = bay().build().unwrap();
    let ledger = MemoryLedger::new();
    let budget = |millis| DayBudget { max_wall_time: Some(Duration::from_millis(millis)), ..DayBudget::default() };
    let run = async |millis| {
        let model = ScriptedModel::new().calls("hangs", json!({})).calls("hangs", json!({})).says("done");
        let day = Some(DayLimits { budget: budget(millis), ledger: Arc::<MemoryLedger>::clone(&ledger) });
        let config = AgentConfig { day, ..config(Bounds::default()) };
        Agent::new(model, bay.session("acme").unwrap()).config(config).run("go").await.unwrap().outcome
    };
    // Each call of `hangs` takes 30 ms.
    assert_eq!(run(100).await, RunOutcome::Completed);
    assert_eq!(run(100).await, RunOutcome::DayLimit);
    assert_eq!(run(1_000).await, RunOutcome::Completed);
}

#[tokio::test]
async fn runs_beside_each_other_do_not_spend_the_same_twice() {
    let bay = bay().build().unwrap();
    let ledger = MemoryLedger::new();
    let budget = DayBudget { max_tool_calls: Some(10), ..DayBudget::default() };
    let runs = (0..8).map(|_| {
        let agent = of_the_day(&bay, "acme", budget.clone(), &ledger);
        tokio::spawn(async move { agent.run("go").await.unwrap() })
    });
    let mut made = 0;
    for run in runs.collect::<Vec<_>>() {
        let reply = run.await.unwrap();
        made += reply.messages.len() / 2 - tools_said(&reply).matches("of the day").count() - 1;
    }
    assert_eq!(made, 10);
}
