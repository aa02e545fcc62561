//! Insights from events in the Ledgers to answers of the API: sums that add up, and bad questions refused by name.

use serde_json::{Value, json};
use tallygate_shared::insights::review::EVENT;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, HOUR_MS, Timestamp};

use super::Acme;
use crate::objects::alerts_object::Sender;
use crate::objects::test_shell::NOW_MS;

const KEY: &str = "0000000000000001";

/// A request at gpt-6-sol: $2 in, $0.20 cached, $10 out for a million tokens, rated as the gateway rates.
struct Sent {
    at: i64,
    actor: Value,
    model: &'static str,
    tokens: [u64; 3],
    stream: bool,
}

fn sent(at: &str, actor: Value, tokens: [u64; 3]) -> Sent {
    let at = Timestamp::parse(at).unwrap().ms();
    Sent { at, actor, model: "gpt-6-sol", tokens, stream: true }
}

fn nanos(tokens: u64, cents_per_million: u64) -> Usd {
    Usd::from_nanos(i64::try_from(tokens * cents_per_million * 10).unwrap())
}

fn bring(acme: &Acme, all: &[Sent]) {
    for (place, one) in all.iter().enumerate() {
        let seq = place + 1;
        let [input, cached, output] = one.tokens;
        let parts = [nanos(input, 200), nanos(cached, 20), nanos(output, 1_000)];
        let total = parts.iter().fold(Usd::ZERO, |sum, part| sum.saturating_add(*part));
        let event = json!({
            "v": 1, "id": format!("req_{:012x}7{seq:019x}", one.at), "seq": seq, "workspace": "ws_acme", "key": KEY,
            "at": one.at, "settled_at": one.at, "key_name": "ci", "owner": "ada", "cost_centre": "r&d",
            "purpose": "nightly index", "environment": "test", "actor": one.actor,
            "endpoint": "/v1/chat/completions", "stream": one.stream, "requested_model": one.model,
            "provider": "openai", "model": one.model, "attempts": [], "outcome": "completed", "status": 200,
            "usage": { "source": "reported",
                       "tally": { "tokens": { "input": input, "cache_read": cached, "output": output } } },
            "cost": { "total": total, "price": {},
                      "parts": { "input": parts[0], "cache_read": parts[1], "output": parts[2] } },
            "charged": total, "hold": "5", "duration_ms": 700,
        });
        let month = Timestamp::from_ms(one.at).date();
        let ledger = acme.shell.ledger(&format!("ws_acme:{:04}-{:02}", month.year, month.month));
        let batch = json!({ "meter": KEY, "events": [event] });
        ledger.apply(&batch.to_string()).unwrap();
    }
}

fn usd(value: &Value) -> Usd {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

fn two_weeks() -> Vec<Sent> {
    let answers = || json!({ "team": "search", "feature": "answers", "customer": "acme" });
    let replies = || json!({ "team": "support", "feature": "replies" });
    vec![
        sent("2026-10-30T09:00:00Z", answers(), [10_000, 0, 100]),
        sent("2026-11-10T09:00:00Z", answers(), [100_000, 0, 1_000]),
        sent("2026-11-11T09:00:00Z", replies(), [50_000, 10_000, 5_000]),
        sent("2026-11-16T09:00:00Z", answers(), [100_000, 0, 1_000]),
        sent("2026-11-17T09:00:00Z", answers(), [100_000, 0, 1_000]),
        Sent {
            model: "gpt-6-luna",
            ..sent("2026-11-18T09:00:00Z", replies(), [20_000, 40_000, 9_000])
        },
        sent("2026-11-19T09:00:00Z", json!({}), [7, 0, 1]),
    ]
}

#[test]
fn a_bill_of_whom_the_gateway_uses_is_no_second_cost_beside_what_was_charged() {
    let acme = Acme::new();
    bring(&acme, &two_weeks());
    let foundry = json!({ "name": "foundry", "kind": "azure", "credential": "sk-also-very-secret",
                          "base_url": "https://acme.openai.azure.com" });
    acme.expect(201, "POST", "/providers", &foundry);
    let line = |provider: &str, estimated: &str, billed: &str| {
        json!({ "day": "2026-11-17", "provider": provider, "line": "a", "revision": 1, "model": "m", "meter": "input",
                "kind": "usage", "owner": {}, "estimated": estimated, "billed": billed,
                "quantity_variance": "0", "price_variance": "0", "provisional": false })
    };
    let charged = |report: &Value| usd(&report["overall"]["models_usd"]);
    let before = charged(&acme.get("/unit-economics?from=2026-11-01"));
    // OpenRouter is used, as its estimates say; Azure, as the configuration says; Vercel is what runs around them.
    let lines = json!([
        line("openrouter", "0.2", "0.3"),
        line("azure", "0", "7"),
        line("vercel", "0", "40"),
    ]);
    acme.shell.ledger("ws_acme:2026-11").true_up(&lines.to_string()).unwrap();
    let report = acme.get("/unit-economics?from=2026-11-01");
    assert_eq!(charged(&report), before.saturating_add(Usd::from_nanos(7_100_000_000)));
    assert_eq!(report["overall"]["harness_usd"], "40");
}

#[test]
fn unit_costs_add_up_to_what_was_charged_billed_and_run_around_the_models() {
    let acme = Acme::new();
    bring(&acme, &two_weeks());
    let line = |provider: &str, name: &str, owner: Value, estimated: &str, billed: &str| {
        json!({ "day": "2026-11-17", "provider": provider, "line": name, "revision": 1, "model": "m", "meter": "input",
                "kind": "usage", "owner": owner, "estimated": estimated, "billed": billed,
                "quantity_variance": "0", "price_variance": "0", "provisional": false })
    };
    let lines = json!([
        line("openai", "a", json!({ "team": "search", "feature": "answers" }), "0.21", "0.25"),
        line("aws", "b", json!({ "team": "search" }), "0", "3"),
        line("aws", "c", json!({}), "0", "0.5"),
    ]);
    acme.shell.ledger("ws_acme:2026-11").true_up(&lines.to_string()).unwrap();
    let report = acme.get("/unit-economics?from=2026-11-01&to=2026-12-01&bucket=week");
    let sum = |rows: &Value, name: &str| {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| usd(&row[name])).fold(Usd::ZERO, Usd::saturating_add)
    };
    let usage = acme.get("/usage?from=2026-10-01");
    let charged = usd(&usage["data"][0]["charged_usd"]);
    let expected: Usd = charged.saturating_add("3.54".parse().unwrap());
    assert_eq!(usd(&report["overall"]["total_usd"]), expected);
    for rows in ["totals", "data"] {
        assert_eq!(sum(&report[rows], "total_usd"), expected, "{rows}");
    }
    let totals = report["totals"].as_array().unwrap();
    let of = |name: &str| totals.iter().find(|row| row["name"] == name).unwrap();
    // The team's database goes to the only feature of the team; what names nobody stays a row.
    assert_eq!(
        (&of("answers")["harness_usd"], &of("")["harness_usd"]),
        (&json!("3"), &json!("0.5"))
    );
    assert_eq!(of("answers")["requests"], 3);
    assert!(
        report["data"].as_array().unwrap().iter().any(|row| row["bucket_start"] == "2026-11-16")
    );
    let customers = acme.get("/unit-economics?from=2026-11-01&to=2026-12-01&group_by=customer");
    assert_eq!(
        (usd(&customers["overall"]["total_usd"]), &customers["data"]),
        (expected, &json!([]))
    );
    for (query, field) in [
        ("bucket=hour", "bucket"),
        ("group_by=model", "group_by"),
        ("from=yesterday", "from"),
        ("from=2026-11-01T10:00:00Z", "from"),
        ("from=2026-11-02&to=2026-11-02", "to"),
        ("days=3", "days"),
    ] {
        let answer = acme.expect(422, "GET", &format!("/unit-economics?{query}"), &Value::Null);
        assert_eq!(answer["errors"][0]["field"], field, "{answer}");
    }
}

#[test]
fn a_week_s_change_is_the_sum_of_its_causes_over_two_months_of_ledgers() {
    let acme = Acme::new();
    bring(&acme, &two_weeks());
    let outcome = json!([{ "place": 0, "dated": false, "event": {
        "v": 1, "workspace": "ws_acme", "subject": { "request": format!("req_{:012x}7{:019x}",
            Timestamp::parse("2026-11-16T09:00:00Z").unwrap().ms(), 4) },
        "key": KEY, "at": NOW_MS, "recorded_at": NOW_MS, "outcome": "accepted", "value_usd": "2", "owner": "ada",
        "cost_centre": "r&d", "environment": "test", "actor": { "feature": "answers" } } }]);
    let recorded = acme.shell.ledger("ws_acme:2026-11").record_outcomes(&outcome.to_string());
    assert!(recorded.as_ref().is_ok_and(|text| text.contains("done")), "{recorded:?}");
    let review = acme.get("/weekly-review?week=2026-W47");
    assert_eq!((&review["from"], &review["complete"]), (&json!("2026-11-16"), &json!(false)));
    let week = acme.get("/usage?from=2026-11-16");
    let before = acme.get("/usage?from=2026-11-09&to=2026-11-16");
    assert_eq!(review["total"]["after_usd"], week["data"][0]["charged_usd"]);
    assert_eq!(review["total"]["before_usd"], before["data"][0]["charged_usd"]);
    let movers = review["movers"].as_array().unwrap();
    assert_eq!(movers.len(), 8, "{review}");
    for mover in movers {
        let effects = mover["change"]["effects"].as_object().unwrap().values();
        let sum = effects.map(usd).fold(0, |sum, part| sum + part.pico());
        assert_eq!(sum, usd(&mover["change"]["change_usd"]).pico(), "{mover}");
        assert!(mover["question"].as_str().unwrap().ends_with('?'), "{mover}");
    }
    let answers = movers.iter().find(|it| it["name"] == "answers").unwrap();
    assert_eq!(answers["change"]["effects"]["volume_usd"], answers["change"]["change_usd"]);
    assert_eq!(review["outcomes"][0]["per_accepted_usd"], "0.21");
    let new: Vec<&Value> = review["new"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(new, ["openai/gpt-6-luna"]);
    // The week before last is compared with what was before it; this is the default.
    let last = acme.get("/weekly-review");
    assert_eq!((&last["week"], &last["complete"]), (&json!("2026-W46"), &json!(true)));
    let text = acme.get("/weekly-review?format=markdown&week=2026-W47");
    assert!(text.as_str().unwrap().starts_with("# ws\\_acme in 2026-W47"), "{text}");
    for query in ["week=2026-W60", "week=2026-W48", "format=html", "from=2026-11-01"] {
        let answer = acme.expect(422, "GET", &format!("/weekly-review?{query}"), &Value::Null);
        assert_eq!(answer["errors"][0]["field"], query.split_once('=').unwrap().0);
    }
}

#[test]
fn a_review_is_sent_once_a_week_to_the_receivers_that_are_named() {
    let acme = Acme::new();
    bring(&acme, &two_weeks());
    for name in ["ops", "other"] {
        let body = json!({ "type": "standard_webhook", "url": format!("https://{name}.example.com/hook") });
        acme.expect(200, "PUT", &format!("/receivers/{name}"), &body);
    }
    for (review, field) in [
        (json!({ "weekday": 0 }), "alerts.weekly_review.weekday"),
        (json!({ "hour": 24 }), "alerts.weekly_review.hour"),
        (json!({ "receivers": ["nobody"] }), "alerts.weekly_review.receivers"),
    ] {
        let settings = json!({ "weekly_review": review });
        let answer = acme.expect(422, "PUT", "/alert-settings", &settings);
        assert_eq!(answer["errors"][0]["field"], field, "{answer}");
    }
    let settings = json!({ "weekly_review": { "receivers": ["ops"] } });
    acme.expect(200, "PUT", "/alert-settings", &settings);
    // Who is named cannot be removed unnoticed.
    acme.expect(422, "DELETE", "/receivers/ops", &Value::Null);
    let shell = &acme.shell;
    let ring = || {
        let mut alerts = shell.alerts("ws_acme");
        let due = alerts.review_due(shell.now()).unwrap();
        let Some(crate::admin::call::Step::Ledgers { names, method, payload }) = due else {
            return false;
        };
        let answers: Vec<String> =
            names.iter().map(|name| shell.ledger(name).query(method, &payload).unwrap()).collect();
        let next = crate::admin::merge::merge(method, &payload, &json!(answers).to_string());
        let crate::admin::call::Step::Alerts { payload, .. } = next else { panic!("{next:?}") };
        // The same answer twice is one review.
        alerts.deliver_review(&payload, shell.now()).unwrap();
        alerts.deliver_review(&payload, shell.now()).unwrap();
        true
    };
    let sent = || {
        let list = acme.get("/deliveries?limit=100");
        let reviews = list["data"].as_array().unwrap().iter().filter(|it| it["type"] == EVENT);
        reviews.map(|it| (it["receiver"].clone(), it["alert"].clone())).collect::<Vec<_>>()
    };
    // It is Friday: nothing is due before Monday at 7.
    assert!(!ring());
    let monday = Timestamp::parse("2026-11-23T07:00:00Z").unwrap();
    assert_eq!(shell.alerts("ws_acme").alarm_at().unwrap(), Some(monday));
    shell.now.set(monday.ms() - 1);
    assert!(!ring());
    shell.now.set(monday.ms());
    // An attempt that is never heard of again is made again.
    assert!(shell.alerts("ws_acme").review_due(shell.now()).unwrap().is_some());
    assert!(!ring());
    shell.now.set(monday.ms() + HOUR_MS);
    assert!(ring() && !ring());
    assert_eq!(sent(), [(json!("ops"), json!("review:2026-W47"))]);
    let key_ring = shell.ring.borrow();
    let sender = Sender { ring: &key_ring, allow_private: false, random: 0 };
    let message = shell.alerts("ws_acme").take("ops", &sender, shell.now()).unwrap().unwrap();
    let body: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(body["type"], EVENT);
    assert_eq!(body["data"]["review"]["week"], "2026-W47");
    assert!(body["data"]["markdown"].as_str().unwrap().contains("## Top movers"));
    assert!(message.headers.iter().any(|(name, _)| *name == "webhook-signature"));
    // Settings that are set again change nothing; who slept two weeks sends the last one only.
    acme.expect(200, "PUT", "/alert-settings", &settings);
    assert!(!ring());
    shell.now.set(monday.ms() + 16 * DAY_MS);
    assert!(ring() && !ring());
    assert_eq!(sent()[0].1, "review:2026-W49");
    assert_eq!(sent().len(), 2);
    acme.expect(200, "PUT", "/alert-settings", &json!({}));
    shell.now.set(monday.ms() + 60 * DAY_MS);
    assert!(!ring());
}

#[test]
fn savings_are_found_in_sessions_batches_and_prices() {
    let acme = Acme::new();
    let mut all = Vec::new();
    for turn in 0..20_u64 {
        let actor = json!({ "feature": "chat", "session": format!("s{}", turn / 10) });
        let at = format!("2026-11-12T0{}:{:02}:00Z", turn / 10, turn % 10);
        all.push(sent(&at, actor, [100_000 * (turn % 10 + 1), 0, 1_000]));
        let quiet = sent(&at, json!({ "feature": "index" }), [200_000, 0, 50_000]);
        all.push(Sent { stream: false, ..quiet });
    }
    bring(&acme, &all);
    let report = acme.get("/savings?days=30");
    let of = |kind: &str, feature: &str| {
        let data = report["data"].as_array().unwrap().iter();
        let mut found = data.filter(|it| it["kind"] == kind && it["feature"] == feature);
        found.next().cloned()
    };
    let resending = of("resending", "chat").unwrap_or_else(|| panic!("{report}"));
    // Each of nine turns sends the turn before it again: 100,000 x (1 + ... + 9), in two sessions.
    assert_eq!(resending["evidence"]["resent_tokens"], "9000000");
    assert_eq!(
        (&resending["evidence"]["sessions"], &resending["evidence"]["turns"]),
        (&json!("2"), &json!("20"))
    );
    let batch = of("batch", "index").unwrap();
    assert_eq!((&batch["certainty"], &batch["saves_usd"]), (&json!("high"), &json!("9")));
    assert_eq!(batch["requests"]["feature"], "index");
    assert_eq!(of("batch", "chat"), None);
    let counted = report["data"].as_array().unwrap().iter().filter(|it| it["counted"] == true);
    let total = counted.map(|it| usd(&it["saves_usd"])).fold(Usd::ZERO, Usd::saturating_add);
    assert_eq!(usd(&report["total_usd"]), total);
    acme.refuse(422, "invalid_field", "GET", "/savings?days=0", &Value::Null);
}

#[test]
fn features_are_compared_with_the_kind_they_are_said_to_be() {
    let acme = Acme::new();
    bring(&acme, &two_weeks());
    let mut config = acme.get("/config");
    config["archetypes"] = json!({ "answers": "document_analysis", " ": "chat" });
    acme.expect(422, "PUT", "/config", &config);
    config["archetypes"] = json!({ "answers": "novel" });
    acme.expect(400, "PUT", "/config", &config);
    config["archetypes"] = json!({ "answers": "document_analysis" });
    acme.expect(200, "PUT", "/config", &config);
    let report = acme.get("/archetypes?days=30");
    assert_eq!(report["bands"].as_array().unwrap().len(), 6);
    let rows = report["data"].as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    let answers = of("answers");
    assert_eq!(
        (&answers["archetype"], &answers["guessed"]),
        (&json!("document_analysis"), &json!(false))
    );
    assert_eq!(
        (&answers["ratio"], &answers["outside"][0]),
        (&json!(10_000), &json!("ratio_above"))
    );
    assert_eq!(of("replies")["guessed"], true);
    assert_eq!(acme.get("/archetypes?group_by=app")["data"][0]["name"], "");
    acme.refuse(422, "invalid_field", "GET", "/archetypes?group_by=team", &Value::Null);
}

#[test]
fn calculators_answer_and_name_what_is_wrong() {
    let acme = Acme::new();
    let query =
        "requests=1000&input_tokens=2000&cached_tokens=1000&output_tokens=500&batch_percent=50";
    let report = acme.get(&format!("/calculators/workload?{query}"));
    let sol =
        report["data"].as_array().unwrap().iter().find(|row| row["model"] == "gpt-6-sol").unwrap();
    assert_eq!((&sol["request_usd"], &sol["month_usd"]), (&json!("0.0072"), &json!("5.4")));
    for (query, field) in [
        ("requests=0&input_tokens=1&output_tokens=1", "requests"),
        ("requests=1&output_tokens=1", "input_tokens"),
        ("requests=1&input_tokens=1&output_tokens=1&cached_tokens=2", "cached_tokens"),
        ("requests=1&input_tokens=1&output_tokens=1&batch_percent=101", "batch_percent"),
        ("requests=1e9&input_tokens=1&output_tokens=1", "requests"),
    ] {
        let answer =
            acme.expect(422, "GET", &format!("/calculators/workload?{query}"), &Value::Null);
        assert_eq!(answer["errors"][0]["field"], field, "{answer}");
    }
    let path = "/calculators/provisioned-throughput";
    let query = "price_per_unit_hour_usd=2&units=5&tokens_per_minute=10000&on_demand_per_million_usd=5&tokens_per_month=1000000000";
    let answer = acme.get(&format!("{path}?{query}"));
    assert_eq!(
        (&answer["break_even_basis_points"], &answer["verdict"]),
        (&json!(6_667), &json!("on_demand"))
    );
    for (query, field) in [
        (query.replace("hour_usd=2", "hour_usd=-2"), "price_per_unit_hour_usd"),
        (query.replace("on_demand_per_million_usd=5", "x=1"), "x"),
        (query.replace("units=5", "units=0"), "units"),
        (query.replace("tokens_per_minute=10000", "tokens_per_minute=999999999999999"), "units"),
    ] {
        let answer = acme.expect(422, "GET", &format!("{path}?{query}"), &Value::Null);
        assert_eq!(answer["errors"][0]["field"], field, "{answer}");
    }
}

#[test]
fn every_role_reads_insights() {
    let acme = Acme::new();
    for role in ["finance", "developer", "auditor"] {
        let token = acme.token_of(role);
        for path in ["/unit-economics", "/weekly-review", "/savings", "/archetypes"] {
            assert_eq!(acme.ask_as(&token, "GET", path, &Value::Null).0, 200, "{role} {path}");
        }
    }
}
