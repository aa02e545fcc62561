//! Commitments from the configuration to the savings they leave idle.

use serde_json::{Value, json};
use tallygate_shared::time::{DAY_MS, HOUR_MS, Timestamp};

use super::Acme;
use crate::objects::test_shell::NOW_MS;

fn terms() -> Value {
    json!({ "provider": "openai", "model": "gpt-6-sol", "units": 10, "usd_per_unit_hour": "1.00",
            "tokens_per_minute": { "input": 10_000, "output": 1_000 } })
}

fn configure(acme: &Acme, status: u16, commitment: Value) -> Value {
    let mut config = acme.get("/config");
    config["providers"]["spare"] = json!({ "kind": "openai" });
    config["commitments"] = json!({ "ptu": commitment });
    acme.expect(status, "PUT", "/config", &config)
}

/// One request in each hour from the workspace's first on, at $2 a million.
fn spend(acme: &Acme, provider: &str, meter: &str, hours: std::ops::Range<i64>, input: u64) {
    for (place, hour) in hours.enumerate() {
        let (at, seq) = (NOW_MS + hour * HOUR_MS + 60_000, place + 1);
        let total = format!("{}.{:06}", input * 2 / 1_000_000, input * 2 % 1_000_000);
        let event = json!({
            "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme", "key": meter,
            "at": at, "settled_at": at, "key_name": "ci", "owner": "ada", "cost_centre": "r&d", "purpose": "p",
            "environment": "test", "actor": { "feature": "answers" }, "endpoint": "/v1/chat/completions",
            "stream": true, "requested_model": "gpt-6-sol", "provider": provider, "model": "gpt-6-sol", "attempts": [],
            "outcome": "completed", "status": 200,
            "usage": { "source": "reported", "tally": { "tokens": { "input": input, "output": 0 } } },
            "cost": { "total": total, "price": {}, "parts": { "input": total } },
            "charged": total, "hold": "50", "duration_ms": 700,
        });
        let month = Timestamp::from_ms(at).date();
        let ledger = acme.shell.ledger(&format!("ws_acme:{:04}-{:02}", month.year, month.month));
        ledger.apply(&json!({ "meter": meter, "events": [event] }).to_string()).unwrap();
    }
}

#[test]
fn idle_units_are_found_in_the_hours_since_the_workspace_was_there() {
    let acme = Acme::new();
    configure(&acme, 200, terms());
    // Into the next month, so that two Ledgers are asked.
    acme.shell.now.set(NOW_MS + 14 * DAY_MS);
    spend(&acme, "openai", "0000000000000001", 0..336, 3_000_000);
    spend(&acme, "spare", "0000000000000002", 0..20, 3_000_000);
    let report = acme.get("/savings?days=30");
    let find = |way: &str| {
        let id = format!("idle_commitment:ptu:{way}");
        let rows = report["data"].as_array().unwrap();
        rows.iter()
            .find(|it| it["id"] == id.as_str())
            .cloned()
            .unwrap_or_else(|| panic!("{report}"))
    };
    // 3 million tokens need 5 units, which cost $5. By the token they are of one long input, at twice $2: the other 5 go.
    let given = find("give_back");
    assert_eq!((&given["kind"], &given["saves_usd"]), (&json!("idle_commitment"), &json!("3600")));
    let evidence = &given["evidence"];
    assert_eq!(
        (&evidence["hours"], &evidence["utilisation_percent"], &evidence["units_to_keep"]),
        (&json!("336"), &json!("50.00"), &json!("5"))
    );
    assert_eq!(
        (&evidence["commitment_usd"], &evidence["on_demand_usd"], &evidence["then_usd"]),
        (&json!("3360"), &json!("4032"), &json!("1680"))
    );
    assert_eq!((&given["certainty"], &given["counted"]), (&json!("medium"), &json!(true)));
    let (from, to) = ("2026-11-04T10:00:00.000Z", "2026-12-04T10:00:00.000Z");
    let requests = json!({ "provider": "openai", "model": "gpt-6-sol", "from": from, "to": to });
    assert_eq!(given["requests"], requests);
    // 20 hours elsewhere for $6 each would have fitted.
    let moved = find("move");
    assert_eq!(moved["evidence"]["paid_by_the_token"], "spare/gpt-6-sol");
    assert_eq!(moved["saves_usd"], "257.142857142");
    assert_eq!(moved["counted"], false);
    // What tokens of the commitment would save elsewhere is saved once: they are paid for by the hour.
    let rows = report["data"].as_array().unwrap().iter();
    let same = rows.filter(|it| it["provider"] == "openai" && it["counted"] == true);
    assert_eq!(same.count(), 1, "{report}");
    // A shorter look back has fewer hours; one without a commitment finds none.
    assert_eq!(acme.get("/savings?days=7")["data"][0]["evidence"]["hours"], "168");
    let mut config = acme.get("/config");
    config["commitments"] = json!({});
    acme.expect(200, "PUT", "/config", &config);
    assert!(!acme.get("/savings").to_string().contains("idle_commitment"));
}

#[test]
fn a_commitment_that_cannot_be_is_refused_where_it_stands() {
    let acme = Acme::new();
    let mut bad = terms();
    bad["provider"] = "nobody".into();
    let answer = configure(&acme, 422, bad);
    assert_eq!(answer["errors"][0]["field"], "commitments.ptu.provider");
    let mut bad = terms();
    bad["usd_per_unit_hour"] = 1.into();
    assert_eq!(configure(&acme, 400, bad)["code"], "invalid_body");
    assert_eq!(acme.get("/config").get("commitments"), None);
    let changes = configure(&acme, 200, terms());
    assert!(changes.to_string().contains("commitments.ptu"), "{changes}");
    assert_eq!(acme.get("/config")["commitments"]["ptu"]["units"], 10);
}
