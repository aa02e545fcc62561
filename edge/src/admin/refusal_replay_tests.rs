//! Refusals decided again: what would pass, what would not, and what cannot be told.

use serde_json::{Value, json};
use tallygate_shared::events::usage_event::UsageEvent;

use super::refusal_replay::{Replay, replay};

/// 2026-11-20T10:00:00Z
const AT: i64 = 1_795_168_800_000;

fn plan(policy: Value, budgets: Value) -> Value {
    json!({
        "version": 0, "workspace": "ws_a", "key": "0000000000000000", "status": "active", "secrets": [],
        "owner": { "name": "", "owner": "", "cost_centre": "", "purpose": "", "environment": "" },
        "policy": policy, "budgets": budgets,
        "providers": [{ "name": "openai", "kind": "openai", "base_url": "http://x" }],
        "price_overrides": [{ "provider": "openai", "model": "m",
                              "prices": { "standard": { "input": "0", "output": "10" } } }],
    })
}

/// A refusal of a request for `m` with 99,990 tokens of output: just under a dollar.
fn refused(seq: u64, code: &str, by: &str, decided: Value) -> UsageEvent {
    let load = json!({ "spent": [["day", "5"], ["month", "50"]], "held": "0.5", "in_flight": 3,
                       "requests": { "at": AT, "level": 600_000 } });
    let mut record = json!({ "asked": { "input_tokens": 10, "max_output_tokens": 99_990, "body_bytes": 4_000 },
                             "refused_by": by, "load": load });
    record.as_object_mut().unwrap().extend(decided.as_object().unwrap().clone());
    let at = AT + i64::try_from(seq).unwrap();
    serde_json::from_value(json!({
        "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_a", "key": "0000000000000001",
        "at": at, "settled_at": at, "key_name": "ci", "owner": "ada", "cost_centre": "c", "purpose": "p",
        "environment": "test", "actor": {}, "endpoint": "/v1/chat/completions", "stream": false,
        "requested_model": "m", "outcome": "refused", "code": code, "status": 429, "usage": { "source": "absent" },
        "charged": "0", "hold": "0", "duration_ms": 0, "decided": record,
    }))
    .unwrap()
}

fn simulate(policy: Value, budgets: Value, events: Vec<UsageEvent>) -> Value {
    let question: Replay =
        serde_json::from_value(json!({ "query": {}, "plan": plan(policy, budgets) })).unwrap();
    let all = events.iter().map(|event| event.sampled).sum();
    replay(&question, events, all)
}

/// `pass`, `refused <code>` or `untold <reason>` of one refusal.
fn met(policy: Value, code: &str, by: &str, decided: Value) -> String {
    let answer = simulate(policy, json!({}), vec![refused(1, code, by, decided)]);
    match (&answer["refused_for"][0]["code"], &answer["not_told_because"][0]["reason"]) {
        (Value::String(code), _) => format!("refused {code}"),
        (_, Value::String(reason)) => format!("untold {reason}"),
        _ => {
            assert_eq!(answer["would_pass"], 1, "{answer}");
            "pass".to_owned()
        }
    }
}

#[test]
fn each_limit_is_evaluated_again_under_the_policy_tried() {
    let rate = json!({ "limits": [{ "name": "requests_per_minute", "limit": "10", "before": "10", "asked": "1" }] });
    let none = || json!({});
    let table = [
        // The models.
        (json!({ "models": { "allow": ["m"] } }), "model_not_allowed", "model", none(), "pass"),
        (
            json!({ "models": { "allow": ["n"] } }),
            "model_not_allowed",
            "model",
            none(),
            "refused model_not_allowed",
        ),
        // Sizes.
        (
            json!({ "max_request_bytes": 4_000 }),
            "request_too_large",
            "request_size",
            none(),
            "pass",
        ),
        (
            json!({ "max_request_bytes": 3_999 }),
            "request_too_large",
            "request_size",
            none(),
            "refused request_too_large",
        ),
        (
            json!({ "max_output_tokens": 1_000, "on_output_excess": "refuse" }),
            "x",
            "max_output_tokens",
            none(),
            "refused max_output_tokens_exceeded",
        ),
        (
            json!({ "max_output_tokens": 1_000 }),
            "max_output_tokens_exceeded",
            "max_output_tokens",
            none(),
            "pass",
        ),
        // Money: just under a dollar for the request, five and a half are spent and held.
        (
            json!({ "max_request_usd": "1" }),
            "max_request_cost_exceeded",
            "max_request_usd",
            none(),
            "pass",
        ),
        (
            json!({ "max_request_usd": "0.99" }),
            "x",
            "max_request_usd",
            none(),
            "refused max_request_cost_exceeded",
        ),
        (
            json!({ "spend_caps": [{ "window": "day", "limit_usd": "6.5" }] }),
            "budget_exceeded",
            "spend_caps",
            none(),
            "pass",
        ),
        (
            json!({ "spend_caps": [{ "window": "day", "limit_usd": "6.4" }] }),
            "budget_exceeded",
            "spend_caps",
            none(),
            "refused budget_held",
        ),
        (
            json!({ "spend_caps": [{ "window": "month", "limit_usd": "50" }] }),
            "budget_exceeded",
            "spend_caps",
            none(),
            "refused budget_exceeded",
        ),
        // Rates: ten requests of the minute were used.
        (
            json!({ "requests_per_minute": 11 }),
            "rate_limited",
            "requests_per_minute",
            rate.clone(),
            "pass",
        ),
        (
            json!({ "requests_per_minute": 10 }),
            "rate_limited",
            "requests_per_minute",
            rate,
            "refused rate_limited",
        ),
        (
            json!({ "requests_per_minute": 11 }),
            "model_not_allowed",
            "model",
            none(),
            "untold its key's requests per minute were not counted then",
        ),
        (
            json!({ "tokens_per_minute": 900_000 }),
            "model_not_allowed",
            "model",
            none(),
            "untold its key's tokens per minute were not counted then",
        ),
        (
            json!({ "max_concurrency": 3 }),
            "rate_limited",
            "concurrency",
            none(),
            "refused rate_limited",
        ),
        (json!({ "max_concurrency": 4 }), "rate_limited", "concurrency", none(), "pass"),
        // Who asks, and from where.
        (json!({}), "actor_missing", "actor", none(), "pass"),
        (
            json!({ "require_actor": true }),
            "actor_missing",
            "actor",
            none(),
            "refused actor_missing",
        ),
        (json!({}), "actor_signature_invalid", "actor", none(), "refused actor_signature_invalid"),
        (json!({}), "address_not_allowed", "address", none(), "pass"),
        (
            json!({ "ip_ranges": ["10.0.0.0/8"] }),
            "address_not_allowed",
            "address",
            none(),
            "untold only its network is kept, not its address",
        ),
        // What no policy mends.
        (json!({}), "key_revoked", "key_status", none(), "refused key_revoked"),
        (json!({}), "invalid_json", "request", none(), "refused invalid_json"),
        // Loops.
        (
            json!({}),
            "loop_detected",
            "loop_breaker",
            none(),
            "untold what the agent did before is not kept",
        ),
        (
            json!({ "loop_breaker": { "enabled": false } }),
            "loop_detected",
            "loop_breaker",
            none(),
            "pass",
        ),
    ];
    for (policy, code, by, decided, expected) in table {
        let found = met(policy.clone(), code, by, decided);
        assert_eq!(found, expected, "{policy} for {code}");
    }
}

#[test]
fn a_record_from_before_is_not_guessed_at() {
    let mut old = refused(1, "rate_limited", "x", json!({}));
    old.decided = None;
    let answer = simulate(json!({}), json!({}), vec![old]);
    let reason = "its record is from before sizes and counters were kept";
    assert_eq!(answer["not_told_because"], json!([{ "reason": reason, "refusals": 1 }]));
}

#[test]
fn a_shared_budget_is_no_part_of_a_policy_but_a_smaller_request_may_fit() {
    let limit = |before: &str| json!({ "limits": [{ "name": "budget teams", "limit": "10", "before": before, "asked": "1", "refused": true }] });
    let by = "budget teams";
    assert_eq!(met(json!({}), "budget_exceeded", by, limit("9.5")), "refused budget_exceeded");
    let smaller = json!({ "max_output_tokens": 50_000 });
    assert_eq!(met(smaller.clone(), "budget_exceeded", by, limit("9.499")), "pass");
    assert_eq!(met(smaller, "budget_exceeded", by, limit("9.501")), "refused budget_exceeded");
}

#[test]
fn what_passes_counts_against_what_comes_after_it() {
    // Three dollars are left of the day, behind five that are spent and a half that is held.
    let policy = json!({ "spend_caps": [{ "window": "day", "limit_usd": "8.5" }] });
    let events =
        (1..=5).rev().map(|seq| refused(seq, "budget_exceeded", "spend_caps", json!({}))).collect();
    let answer = simulate(policy, json!({}), events);
    assert_eq!((&answer["would_pass"], &answer["still_refused"]), (&json!(3), &json!(2)));
    assert_eq!(
        (&answer["worst_case_usd"], &answer["refusals"]),
        (&json!("2.999700012"), &json!(5))
    );
    assert_eq!(answer["by_key"][0]["key_name"], "ci");
}

#[test]
fn one_record_may_stand_for_many_and_budgets_that_were_not_asked_are_said() {
    let mut flood = refused(1, "model_not_allowed", "model", json!({}));
    flood.sampled = 40;
    let budgets = json!({ "all": { "scope": { "dimension": "workspace" }, "owner": "ann", "limit_usd": "1",
                                   "window": "month" } });
    let answer = simulate(json!({}), budgets, vec![flood]);
    assert_eq!(
        (&answer["would_pass"], &answer["worst_case_usd"]),
        (&json!(40), &json!("39.99600016"))
    );
    assert_eq!(answer["shared_budgets_not_asked"], 40);
    let expected = json!([{ "code": "model_not_allowed", "refusals": 40, "would_pass": 40, "still_refused": 0,
                            "cannot_be_told": 0 }]);
    assert_eq!(answer["by_code"], expected);
}

#[test]
fn of_many_in_one_record_only_those_pass_that_fit() {
    let flood = |seq, many| {
        let rate =
            json!({ "name": "requests_per_minute", "limit": "10", "before": "10", "asked": "1" });
        let decided = json!({ "limits": [rate] });
        let mut flood = refused(seq, "rate_limited", "spend_caps", decided);
        flood.sampled = many;
        flood
    };
    // Three dollars are left of the day, and ten requests of twenty in the minute.
    let capped = json!({ "spend_caps": [{ "window": "day", "limit_usd": "8.5" }] });
    let limited = json!({ "requests_per_minute": 20 });
    for (policy, fit, code) in [(capped, 3, "budget_exceeded"), (limited, 10, "rate_limited")] {
        for many in [1, 2, fit - 1, fit, fit + 1, 500] {
            let answer = simulate(policy.clone(), json!({}), vec![flood(1, many), flood(2, 500)]);
            assert_eq!(answer["would_pass"], fit, "{many}: {answer}");
            assert_eq!(answer["still_refused"], many + 500 - fit);
            let expected = json!([{ "code": code, "refusals": many + 500 - fit }]);
            assert_eq!(answer["refused_for"], expected);
            assert_eq!(answer["by_key"][0]["would_pass"], fit);
        }
    }
    // A smaller request fits into a shared budget twice.
    let limit = json!({ "name": "budget teams", "limit": "10", "before": "8.99", "asked": "1", "refused": true });
    let mut shared = refused(1, "budget_exceeded", "budget teams", json!({ "limits": [limit] }));
    shared.sampled = 9;
    let answer = simulate(json!({ "max_output_tokens": 50_000 }), json!({}), vec![shared]);
    assert_eq!((&answer["would_pass"], &answer["still_refused"]), (&json!(2), &json!(7)));
}
