//! The decision as tables: a plan, a request, and what comes of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::decide::*;
use super::key_plan::{KeyPlan, ProviderPlan};
use crate::budget::account::Load;
use crate::budget::rate_limit::State;
use crate::budget::window::Window;
use crate::identity::actor::{Actor, ActorError};
use crate::money::Usd;
use crate::pricing::{PriceBook, PriceRow};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_ms(1_795_000_000_000);

/// Providers serve what their kind's name says; prices are the book's.
struct Shelf;

impl Catalog for Shelf {
    fn serves(&self, provider: &ProviderPlan) -> bool {
        provider.kind != "anthropic"
    }

    fn price<'a>(
        &'a self,
        _: &'a KeyPlan,
        provider: &ProviderPlan,
        model: &str,
    ) -> Option<&'a PriceRow> {
        PriceBook::built_in().unwrap().find(&provider.kind, model, NOW)
    }
}

fn plan(policy: Value, routes: Value) -> KeyPlan {
    let provider =
        |name: &str, kind: &str| json!({ "name": name, "kind": kind, "base_url": "http://x" });
    let mut azure = provider("azure", "openai");
    azure["models"] = json!({ "prod1": "gpt-6-sol" });
    serde_json::from_value(json!({
        "version": 1, "workspace": "ws_a", "key": "0123456789abcdef", "status": "active", "secrets": [],
        "owner": { "name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e" },
        "policy": policy, "routes": routes,
        "providers": [provider("claude", "anthropic"), provider("groq", "groq"), provider("openai", "openai"), azure],
    }))
    .unwrap()
}

fn request(model: &str) -> RequestFacts {
    RequestFacts {
        endpoint: "/v1/chat/completions".to_owned(),
        model: model.to_owned(),
        has_output: true,
        input_tokens: 1_000,
        max_output_tokens: Some(1_000),
        choices: 1,
        ..RequestFacts::default()
    }
}

/// The targets in order, or the refusal's code.
fn check_with(plan: &KeyPlan, request: &RequestFacts, load: &Load, draw: u64) -> String {
    let actor = Err(ActorError::Missing);
    match decide(plan, request, &actor, load, &Shelf, draw, NOW).outcome {
        Ok(admission) => {
            let target = |c: &Chosen<'_>| format!("{}/{}", c.provider.name, c.model);
            admission.targets.iter().map(target).collect::<Vec<_>>().join(" ")
        }
        Err(refusal) => refusal.code().to_owned(),
    }
}

fn check(policy: Value, routes: Value, model: &str, expect: &str) {
    let found = check_with(&plan(policy, routes), &request(model), &Load::default(), 0);
    assert_eq!(found, expect, "{model}");
}

#[test]
fn a_model_finds_its_provider() {
    let none = || json!({});
    check(none(), none(), "gpt-6-luna", "openai/gpt-6-luna");
    check(none(), none(), "azure/gpt-6-luna", "azure/gpt-6-luna");
    check(none(), none(), "prod1", "azure/prod1");
    check(none(), none(), "openai/gpt-oss-20b", "openai/gpt-oss-20b");
    check(none(), none(), "groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-20b");
    // Nobody prices it: the first provider that speaks the dialect answers for itself.
    check(none(), none(), "unheard-of", "groq/unheard-of");
    check(
        json!({ "spend_caps": [{ "window": "day", "limit_usd": "1" }] }),
        none(),
        "unheard-of",
        "model_unpriced",
    );
    check(none(), none(), "claude/claude-haiku-4-5", "model_not_found");
}

#[test]
fn neither_an_alias_nor_a_deployment_leads_around_a_denial() {
    let deny = || json!({ "models": { "deny": ["gpt-6-sol"] } });
    let routes = json!({ "fast": { "targets": [
        { "provider": "openai", "model": "gpt-6-sol" }, { "provider": "openai", "model": "gpt-6-luna" }] } });
    check(deny(), routes.clone(), "fast", "openai/gpt-6-luna");
    check(deny(), json!({}), "prod1", "model_not_allowed");
    check(json!({ "models": { "deny": ["fast"] } }), routes.clone(), "fast", "model_not_allowed");
    check(
        json!({ "models": { "allow": ["fast"] } }),
        routes.clone(),
        "fast",
        "openai/gpt-6-sol openai/gpt-6-luna",
    );
    check(json!({ "models": { "allow": ["gpt-6-luna"] } }), routes, "fast", "openai/gpt-6-luna");
}

#[test]
fn weights_choose_the_first_target_and_the_rest_follow() {
    let target = |model: &str, weight: u32| json!({ "provider": "openai", "model": model, "weight": weight });
    let targets = [target("gpt-6-luna", 1), target("gpt-6-sol", 3), target("gpt-5.5", 0)];
    let plan = plan(json!({}), json!({ "mix": { "strategy": "weighted", "targets": targets } }));
    let first = |draw| {
        let found = check_with(&plan, &request("mix"), &Load::default(), draw);
        found.split(' ').next().unwrap().to_owned()
    };
    let found: Vec<String> = (0..4).map(first).collect();
    assert_eq!(
        found,
        ["openai/gpt-6-luna", "openai/gpt-6-sol", "openai/gpt-6-sol", "openai/gpt-6-sol"]
    );
    let all = check_with(&plan, &request("mix"), &Load::default(), 0);
    assert_eq!(all, "openai/gpt-6-luna openai/gpt-6-sol openai/gpt-5.5");
}

fn spent(usd: &str, held: &str) -> Load {
    Load {
        spent: vec![(Window::Day, usd.parse().unwrap())],
        held: held.parse().unwrap(),
        ..Load::default()
    }
}

#[test]
fn spent_money_is_exceeded_and_held_money_is_only_held() {
    // gpt-6-luna with 1,000 tokens each way holds about 0.00063.
    let plan = plan(json!({ "spend_caps": [{ "window": "day", "limit_usd": "0.01" }] }), json!({}));
    for (load, expect) in [
        (spent("0", "0"), "openai/gpt-6-luna"),
        (spent("0.0095", "0"), "budget_exceeded"),
        (spent("0.005", "0.0049"), "budget_held"),
        (spent("0.01", "0"), "budget_exceeded"),
        (spent("0", "0.009"), "openai/gpt-6-luna"),
    ] {
        assert_eq!(check_with(&plan, &request("gpt-6-luna"), &load, 0), expect, "{load:?}");
    }
}

#[test]
fn a_refusal_takes_nothing_from_any_limit() {
    // Every limit is evaluated, and the caller's own state is never touched: only an admission carries a new one.
    let policy =
        json!({ "requests_per_minute": 10, "tokens_per_minute": 100_000, "max_concurrency": 1 });
    let plan = plan(policy, json!({}));
    let load = Load { in_flight: 1, ..Load::default() };
    let decision =
        decide(&plan, &request("gpt-6-luna"), &Ok(Actor::default()), &load, &Shelf, 0, NOW);
    assert_eq!(decision.outcome.unwrap_err().code(), "rate_limited");
    assert_eq!(load.requests, State::default());
    let checks: Vec<&str> = decision.checks.iter().map(|check| check.check).collect();
    assert_eq!(
        checks.len(),
        13,
        "every check is evaluated, also behind the first refusal: {checks:?}"
    );
}

proptest! {
    #[test]
    fn an_admission_never_passes_a_cap(
        cap in 0_i64..20_000_000, spent_nanos in 0_i64..20_000_000, held in 0_i64..20_000_000,
        input in 0_u64..10_000, output in 0_u64..10_000,
    ) {
        let limit = Usd::from_nanos(cap);
        let plan = plan(json!({ "spend_caps": [{ "window": "day", "limit_usd": limit }] }), json!({}));
        let load = Load {
            spent: vec![(Window::Day, Usd::from_nanos(spent_nanos))],
            held: Usd::from_nanos(held),
            ..Load::default()
        };
        let request = RequestFacts { input_tokens: input, max_output_tokens: Some(output), ..request("gpt-6-luna") };
        let decision = decide(&plan, &request, &Ok(Actor::default()), &load, &Shelf, 0, NOW);
        if let Ok(admission) = decision.outcome {
            let taken = Usd::from_nanos(spent_nanos + held).checked_add(admission.hold).unwrap();
            prop_assert!(taken <= limit);
            prop_assert_eq!(admission.budget_remaining, limit.checked_sub(taken));
        }
    }
}
