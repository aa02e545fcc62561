//! What an event keeps of a decision.

use serde_json::{Value, json};

use super::decide::{Catalog, RequestFacts, decide};
use super::key_plan::{KeyPlan, ProviderPlan};
use super::record::record;
use super::refusal::{BudgetRef, Refusal};
use crate::budget::account::Load;
use crate::budget::rate_limit::{Gcra, Verdict};
use crate::budget::window::Window;
use crate::events::decision::{Decided, LimitCheck};
use crate::identity::actor::{Actor, ActorError};
use crate::money::Usd;
use crate::pricing::PriceRow;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_ms(1_795_000_000_000);

/// One provider, and a price of 1 USD per million tokens of input and 10 of output.
struct Shelf(PriceRow);

impl Catalog for Shelf {
    fn serves(&self, _: &ProviderPlan) -> bool {
        true
    }

    fn price<'a>(&'a self, _: &'a KeyPlan, _: &ProviderPlan, _: &str) -> Option<&'a PriceRow> {
        Some(&self.0)
    }
}

fn recorded(policy: Value, load: &Load, actor: &Result<Actor, ActorError>) -> Decided {
    let plan: KeyPlan = serde_json::from_value(json!({
        "version": 1, "workspace": "ws_a", "key": "0123456789abcdef", "status": "active", "secrets": [],
        "owner": { "name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e" },
        "policy": policy, "providers": [{ "name": "openai", "kind": "openai", "base_url": "http://x" }],
    }))
    .unwrap();
    let prices = json!({ "standard": { "input": "1", "output": "10" } });
    let row = json!({ "provider": "openai", "model": "m", "mode": "chat", "prices": prices });
    let shelf = Shelf(serde_json::from_value(row).unwrap());
    let request = RequestFacts {
        endpoint: "/v1/chat/completions".to_owned(),
        model: "m".to_owned(),
        has_output: true,
        input_tokens: 1_000,
        max_output_tokens: Some(100),
        choices: 1,
        body_bytes: 4_000,
        ..RequestFacts::default()
    };
    let decision = decide(&plan, &request, actor, load, &shelf, 0, NOW);
    record(&plan, &request, actor.is_ok(), &decision, load, NOW)
}

fn load() -> Load {
    let full = Gcra { limit: 10, period_ms: 60_000 };
    let requests = match full.check(&Default::default(), 4, NOW) {
        Verdict::Ok(state) => state,
        Verdict::Limited { .. } => panic!("four of ten"),
    };
    let spent = vec![(Window::Day, "1.5".parse().unwrap()), (Window::Month, "9".parse().unwrap())];
    Load { requests, in_flight: 2, held: "0.25".parse().unwrap(), spent, ..Load::default() }
}

fn row(check: &LimitCheck) -> (&str, &str, &str, &str, bool) {
    (&check.name, &check.limit, &check.before, &check.asked, check.refused)
}

#[test]
fn a_key_without_limits_keeps_the_sizes_and_nothing_else() {
    let decided = recorded(json!({}), &load(), &Err(ActorError::Missing));
    let text = serde_json::to_string(&decided).unwrap();
    assert_eq!(
        text,
        r#"{"asked":{"input_tokens":1000,"max_output_tokens":100,"body_bytes":4000}}"#
    );
}

#[test]
fn every_limit_that_the_key_has_is_there_with_what_it_said() {
    let policy = json!({
        "max_request_bytes": 5000, "models": { "allow": ["m"] }, "max_output_tokens": 200,
        "max_request_usd": "0.5", "requests_per_minute": 10, "tokens_per_minute": 100000, "max_concurrency": 3,
        "spend_caps": [{ "window": "day", "limit_usd": "2" }, { "window": "month", "limit_usd": "100" }],
    });
    let decided = recorded(policy, &load(), &Err(ActorError::Missing));
    let rows: Vec<_> = decided.limits.iter().map(row).collect();
    assert_eq!(
        rows,
        [
            ("max_request_bytes", "5000", "", "4000", false),
            ("models", "", "", "m", false),
            ("max_output_tokens", "200", "", "100", false),
            ("max_request_usd", "0.5", "", "0.002000004", false),
            ("requests_per_minute", "10", "4", "1", false),
            ("tokens_per_minute", "100000", "0", "1100", false),
            ("max_concurrency", "3", "2", "1", false),
            ("spend_cap day", "2", "1.75", "0.002000004", false),
            ("spend_cap month", "100", "9.25", "0.002000004", false),
        ]
    );
    assert_eq!((decided.refused_by, decided.load), (None, None));
}

#[test]
fn the_limit_that_refuses_is_named_and_the_counters_are_kept() {
    let caps = json!({ "spend_caps": [
        { "window": "month", "limit_usd": "9.1" }, { "window": "day", "limit_usd": "1.5" } ] });
    let decided = recorded(caps, &load(), &Ok(Actor::default()));
    let refused: Vec<&str> =
        decided.limits.iter().filter(|it| it.refused).map(|it| it.name.as_str()).collect();
    assert_eq!(refused, ["spend_cap month"], "the first cap in order refuses");
    assert_eq!(decided.refused_by.as_deref(), Some("spend_caps"));
    assert_eq!(decided.load, Some(load()));
    assert!(decided.asked.actor_token);
    let back: Decided = serde_json::from_str(&serde_json::to_string(&decided).unwrap()).unwrap();
    assert_eq!(back, decided);
}

#[test]
fn a_shared_budget_is_a_limit_too_and_refuses_by_its_name() {
    let mut decided = recorded(json!({}), &load(), &Err(ActorError::Missing));
    let usd = |text: &str| text.parse::<Usd>().unwrap();
    decided.add_budget("teams", Some(usd("5")), usd("0.002"));
    let refusal = Refusal::BudgetExceeded {
        budget: Some(BudgetRef {
            name: "teams".into(),
            dimension: "team".into(),
            value: "a".into(),
        }),
        window: "month".into(),
        cap: usd("5"),
        spent: usd("4.9"),
        held: usd("0.099"),
        hold: usd("0.002"),
        resets_at: None,
    };
    decided.refuse(&refusal, &load());
    let rows: Vec<_> = decided.limits.iter().map(row).collect();
    assert_eq!(rows, [("budget teams", "5", "4.999", "0.002", true)]);
    assert_eq!(decided.refused_by.as_deref(), Some("budget teams"));
}
