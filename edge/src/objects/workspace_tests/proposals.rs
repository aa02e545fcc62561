//! Budgets proposed from history that lies in several months' Ledgers.

use serde_json::{Value, json};
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::Acme;

/// Delivers one event a day for a team, from `from` on, `cents[i]` on day i.
fn spend(acme: &Acme, meter: u8, team: Option<&str>, from: Timestamp, cents: &[u32]) {
    let key = format!("{meter:016}");
    let mut seqs = std::collections::BTreeMap::<String, u64>::new();
    for (day, cents) in (0..).zip(cents) {
        let at = from.plus_ms(day * DAY_MS);
        let ledger = format!("ws_acme:{}", &at.date().to_string()[..7]);
        let seq = seqs.entry(ledger.clone()).or_insert(0);
        *seq += 1;
        let id = format!("req_{:012x}7{:019x}", at.ms(), u64::from(meter));
        let event = json!({
            "v": 1, "id": id, "seq": seq, "workspace": "ws_acme", "key": key, "at": at, "settled_at": at,
            "key_name": "chat", "owner": "ada", "cost_centre": "r&d", "purpose": "test", "environment": "test",
            "actor": { "team": team }, "endpoint": "/v1/chat/completions", "stream": false,
            "requested_model": "fast", "provider": "openai", "model": "gpt-6-luna", "outcome": "completed",
            "status": 200, "usage": { "source": "absent" },
            "charged": format!("{}.{:02}", cents / 100, cents % 100), "hold": "1", "duration_ms": 50
        });
        let batch = json!({ "meter": key, "events": [event] });
        acme.shell.ledger(&ledger).apply(&batch.to_string()).unwrap();
    }
}

fn history() -> Acme {
    let acme = Acme::new();
    // The workspace is created on 20 November at ten; asked on 5 January.
    let created = acme.shell.now();
    acme.shell.now.set(created.ms() + 46 * DAY_MS);
    spend(&acme, 1, Some("steady"), created, &[1_000; 47]);
    let mut days = [1_000; 46];
    days[20] = 900_000;
    spend(&acme, 2, Some("mishap"), created, &days);
    spend(&acme, 3, Some("young"), created.plus_ms(20 * DAY_MS), &[1_000; 26]);
    spend(&acme, 4, None, created, &[1_000; 46]);
    acme
}

fn of<'a>(answer: &'a Value, value: &str) -> &'a Value {
    answer["data"].as_array().unwrap().iter().find(|found| found["value"] == value).unwrap()
}

#[test]
fn each_team_gets_a_proposal_or_the_reason_why_not() {
    let acme = history();
    let answer = acme.get("/budget-proposals?dimension=team&days=30");
    assert_eq!((&answer["dimension"], &answer["until"]), (&json!("team"), &json!("2027-01-05")));
    assert_eq!(answer["data"].as_array().unwrap().len(), 3, "{answer}");
    let steady = of(&answer, "steady");
    assert_eq!(steady["outcome"], "proposed");
    // 300 USD in 30 days; today, which is not over, does not count.
    assert!(steady["baseline_usd"].as_str().unwrap().starts_with("304.166"), "{steady}");
    assert_eq!((&steady["percent"], &steady["limit_usd"]), (&json!(110), &json!("334.59")));
    assert_eq!(steady["alert_percents"], json!([80, 100]));
    let mishap = of(&answer, "mishap");
    assert_eq!(
        mishap["figures"]["outliers"],
        json!([{ "day": "2026-12-10", "spent_usd": "9000" }])
    );
    assert!(mishap["reasoning"].as_str().unwrap().contains("2026-12-10 (9000 USD)"), "{mishap}");
    let young =
        json!({ "value": "young", "outcome": "not_enough_history", "days": 26, "needed": 30 });
    assert_eq!(of(&answer, "young"), &young);
    let shorter = acme.get("/budget-proposals?days=14");
    assert_eq!(of(&shorter, "young")["outcome"], "proposed");
    let filtered = acme.get("/budget-proposals?dimension=key&team=steady");
    assert_eq!(filtered["data"].as_array().unwrap().len(), 1);
}

#[test]
fn a_wrong_question_names_the_field() {
    let acme = Acme::new();
    for (query, field) in [
        ("dimension=outcome", "dimension"),
        ("dimension=nothing", "dimension"),
        ("days=6", "days"),
        ("days=366", "days"),
        ("days=x", "days"),
    ] {
        let path = format!("/budget-proposals?{query}");
        let problem = acme.refuse(422, "invalid_field", "GET", &path, &Value::Null);
        assert_eq!(problem["errors"][0]["field"], field);
    }
    acme.refuse(422, "invalid_field", "GET", "/budget-proposals?group_by=team", &Value::Null);
    assert_eq!(acme.get("/budget-proposals")["data"], json!([]));
}
