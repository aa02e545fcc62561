//! Statements over random ledgers: by whatever they are made, they are the trued-up ledger, to the last digit.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::money::Usd;

use super::ledger_object::LedgerObject;
use super::ledger_statement::{STATEMENT_DIMENSIONS, StatementQuery};
use super::test_sql::TestSql;

/// 2026-11-01T00:00:00Z
const MONTH: i64 = 1_793_491_200_000;
const DAY: i64 = 86_400_000;

fn event(seq: u64, day: i64, centre: &str, team: &str, nanos: i64) -> Value {
    let at = MONTH + day * DAY + 1_000;
    let mut actor = json!({ "environment": "live" });
    if !team.is_empty() {
        actor["team"] = team.into();
    }
    json!({
        "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme",
        "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "k", "owner": "ada",
        "cost_centre": centre, "purpose": "p", "environment": "e", "actor": actor, "endpoint": "/v1/messages",
        "stream": false, "requested_model": "m", "provider": "openai", "model": "m", "outcome": "completed",
        "status": 200, "usage": { "source": "reported", "tally": { "tokens": { "input": 1, "output": 1 } } },
        "charged": Usd::from_nanos(nanos), "hold": "1", "duration_ms": 1
    })
}

fn line(
    place: usize,
    day: i64,
    kind: &str,
    owner: &Value,
    (estimated, billed): (i64, Option<i64>),
) -> Value {
    let pico = |amount: i64| Usd::from_pico(i128::from(amount));
    json!({ "day": format!("2026-11-{:02}", day + 1), "provider": "openai", "line": place.to_string(), "revision": 1,
            "model": "m", "meter": "input", "kind": kind, "owner": owner, "estimated": pico(estimated),
            "billed": billed.map(pico), "quantity_variance": "0", "price_variance": "0",
            "provisional": place.is_multiple_of(7) })
}

fn ask(ledger: &LedgerObject<TestSql>, by: &str) -> Value {
    let query = StatementQuery { month: "2026-11-01".into(), by: by.into(), open: false };
    let answer = ledger.query("statement", &json!(query).to_string()).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn usd(value: &Value) -> Usd {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn each_owner_sees_estimate_bill_and_adjustments_and_the_rest_is_nobodys() {
    let ledger = LedgerObject::open(TestSql::new()).unwrap();
    let events = [
        event(1, 0, "r&d", "a", 2_000_000_000),
        event(2, 1, "r&d", "", 500_000_000),
        event(3, 1, "sales", "a", 1_000_000_000),
    ];
    let batch = json!({ "meter": "0000000000000001", "events": events }).to_string();
    ledger.apply(&batch).unwrap();
    let (rnd, nobody) = (json!({ "cost_centre": "r&d" }), json!({}));
    let usd_in_pico = 1_000_000_000_000;
    let lines = [
        line(1, 0, "usage", &rnd, (2 * usd_in_pico, Some(3 * usd_in_pico))),
        line(2, 0, "usage", &rnd, (usd_in_pico / 2, None)),
        line(3, 0, "tax", &rnd, (0, Some(usd_in_pico / 10))),
        line(4, 0, "credit", &nobody, (0, Some(-usd_in_pico))),
        line(5, 0, "usage", &json!({ "unmetered": "sk-...wxyz" }), (0, Some(usd_in_pico / 4))),
    ];
    ledger.true_up(&json!(lines).to_string()).unwrap();
    let found = ask(&ledger, "cost_centre");
    let row = |at: usize| found["data"][at].clone();
    assert_eq!(
        row(0),
        json!({
        "value": "r&d", "estimated_usd": "2.5", "billed_usd": "3", "still_estimated_usd": "0.5",
        "unmetered_usd": "0", "adjustments": { "tax": "0.1" }, "total_usd": "3.6" })
    );
    assert_eq!(
        (row(1)["value"].clone(), row(1)["total_usd"].clone()),
        (json!("sales"), json!("1"))
    );
    assert_eq!(
        row(2),
        json!({
        "value": null, "estimated_usd": "0", "billed_usd": "0", "still_estimated_usd": "0",
        "unmetered_usd": "0.25", "adjustments": { "credit": "-1" }, "total_usd": "-0.75" })
    );
    assert_eq!(found["total"]["total_usd"], "3.85");
    assert_eq!(
        found["control"],
        json!({ "charged_usd": "3.5", "corrected_usd": "0.35", "ledger_usd": "3.85",
                                         "agrees": true })
    );
    assert_eq!(found["provisional"], true);
}

#[test]
fn a_month_that_is_billed_in_full_is_final() {
    let ledger = LedgerObject::open(TestSql::new()).unwrap();
    let batch = json!({ "meter": "k", "events": [event(1, 0, "r", "a", 7)] });
    ledger.apply(&batch.to_string()).unwrap();
    let lines = [line(1, 0, "usage", &json!({ "cost_centre": "r" }), (7_000, Some(8_000)))];
    ledger.true_up(&json!(lines).to_string()).unwrap();
    let found = ask(&ledger, "cost_centre");
    assert_eq!((&found["provisional"], &found["provisional_because"]), (&json!(false), &json!([])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_statement_by_anything_is_the_trued_up_ledger(
        events in prop::collection::vec((0..30_i64, 0..3_usize, 0..3_usize, 0..5_000_000_000_i64), 0..40),
        lines in prop::collection::vec(
            (0..30_i64, 0..4_usize, 0..4_usize, 0..4_i64, -9_i64..9_000_000_000_000, any::<i64>(), any::<bool>()), 0..40),
    ) {
        let ledger = LedgerObject::open(TestSql::new()).unwrap();
        let names = ["", "a", "b"];
        let events: Vec<Value> = events.iter().zip(1..).map(|((day, centre, team, nanos), seq)| {
            event(seq, *day, names[*centre], names[*team], *nanos)
        }).collect();
        ledger.apply(&json!({ "meter": "k", "events": events }).to_string()).unwrap();
        let kinds = ["usage", "usage", "tax", "credit"];
        let lines: Vec<Value> = lines.iter().enumerate().map(|(place, (day, kind, centre, owner, estimated, billed, has))| {
            let mut of: BTreeMap<&str, &str> = BTreeMap::new();
            if let Some(name) = names.get(*centre).filter(|name| !name.is_empty()) {
                of.insert("cost_centre", name);
                of.insert("environment", name);
            }
            if *owner == 0 {
                of.insert("unmetered", "x");
            }
            line(place, *day, kinds[*kind], &json!(of), (*estimated, has.then_some(*billed)))
        }).collect();
        ledger.true_up(&json!(lines).to_string()).unwrap();
        // The ledger by hand: every charge, and for each bill what it differs by.
        let sum = |rows: &[Value], field: &str| rows.iter().map(|row| usd(&row[field]).pico()).sum::<i128>();
        let mut expected = sum(&events, "charged");
        for line in lines.iter().filter(|line| !line["billed"].is_null()) {
            expected += usd(&line["billed"]).pico() - usd(&line["estimated"]).pico();
        }
        for by in STATEMENT_DIMENSIONS {
            let found = ask(&ledger, by);
            let rows = found["data"].as_array().unwrap();
            prop_assert_eq!(sum(rows, "total_usd"), expected, "by {}", by);
            prop_assert_eq!(usd(&found["total"]["total_usd"]).pico(), expected);
            prop_assert_eq!(&found["control"]["agrees"], &json!(true));
            for row in rows {
                let adjusted = row["adjustments"].as_object().unwrap();
                let parts = ["billed_usd", "still_estimated_usd", "unmetered_usd"].map(|f| usd(&row[f]).pico());
                let all = parts.iter().sum::<i128>() + adjusted.values().map(|a| usd(a).pico()).sum::<i128>();
                prop_assert_eq!(usd(&row["total_usd"]).pico(), all);
            }
        }
    }
}
