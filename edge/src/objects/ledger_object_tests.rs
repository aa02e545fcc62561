//! The Ledger under deliveries as they really come: repeated, cut, out of order, and with storage that fails.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::ledger_object::LedgerObject;
use super::test_sql::TestSql;

pub(super) const HOUR_MS: i64 = 3_600_000;
/// 2026-11-20T00:00:00Z
pub(super) const DAY_START: i64 = 1_795_132_800_000;

/// A usage event as a Meter writes it: completed, 10 tokens in (4 of them cached), 5 out, for 7 nanodollars.
pub(super) fn event(key: &str, seq: u64, at: i64) -> Value {
    json!({
        "v": 1, "id": request_id(key, seq, at), "seq": seq, "workspace": "ws_acme", "key": key, "at": at,
        "settled_at": at + 50, "key_name": "chat", "owner": "ada", "cost_centre": "r&d", "purpose": "test",
        "environment": "staging", "actor": { "team": "blue", "user": format!("u{}", seq % 3) },
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "fast",
        "provider": "openai", "model": "gpt-6-luna", "outcome": "completed", "status": 200,
        "usage": { "source": "reported", "tally": { "tokens": { "input": 6, "cache_read": 4, "output": 5 } } },
        "charged": "0.000000007", "hold": "0.001", "duration_ms": 50
    })
}

fn request_id(key: &str, seq: u64, at: i64) -> String {
    let salt: u64 = key.bytes().map(u64::from).sum();
    format!("req_{at:012x}7{:019x}", salt * 1_000_000 + seq)
}

pub(super) fn key(n: u8) -> String {
    format!("{n:016}")
}

pub(super) fn batch(key: &str, events: &[Value]) -> String {
    json!({ "meter": key, "events": events }).to_string()
}

fn open(sql: &TestSql) -> LedgerObject<TestSql> {
    LedgerObject::open(sql.clone()).unwrap()
}

fn ask(ledger: &LedgerObject<TestSql>, method: &str, payload: &Value) -> Value {
    serde_json::from_str(&ledger.query(method, &payload.to_string()).unwrap()).unwrap()
}

fn events(key: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    seqs.map(|seq| event(key, seq, DAY_START + seq as i64 * 1_000)).collect()
}

fn totals(ledger: &LedgerObject<TestSql>) -> (u64, String) {
    let totals = ask(ledger, "totals", &json!({}));
    (totals["events"].as_u64().unwrap(), totals["charged_usd"].as_str().unwrap().to_owned())
}

#[test]
fn a_batch_is_applied_and_its_last_number_is_answered() {
    let ledger = open(&TestSql::new());
    let answer = ledger.apply(&batch(&key(1), &events(&key(1), 1..=3))).unwrap();
    assert_eq!(answer, r#"{"applied_up_to":3}"#);
    assert_eq!(totals(&ledger), (3, "0.000000021".to_owned()));
}

#[test]
fn a_batch_that_comes_again_changes_nothing() {
    let sql = TestSql::new();
    let text = batch(&key(1), &events(&key(1), 1..=3));
    open(&sql).apply(&text).unwrap();
    let before = sql.dump();
    // Another instance of the object: what it knows comes from storage.
    assert_eq!(open(&sql).apply(&text).unwrap(), r#"{"applied_up_to":3}"#);
    assert_eq!(sql.dump(), before);
}

#[test]
fn meters_are_counted_apart() {
    let ledger = open(&TestSql::new());
    for n in 1..=3 {
        ledger.apply(&batch(&key(n), &events(&key(n), 1..=2))).unwrap();
    }
    assert_eq!(totals(&ledger).0, 6);
}

#[test]
fn an_event_that_cannot_be_read_refuses_the_whole_batch() {
    let sql = TestSql::new();
    let ledger = open(&sql);
    let mut list = events(&key(1), 1..=2);
    list.push(json!({ "v": 1, "seq": 3 }));
    sql.transact(|| ledger.apply(&batch(&key(1), &list))).unwrap_err();
    assert_eq!(totals(&ledger).0, 0);
    // The Meter sends again; what is whole is applied then.
    sql.transact(|| ledger.apply(&batch(&key(1), &events(&key(1), 1..=3)))).unwrap();
    assert_eq!(totals(&ledger).0, 3);
}

#[test]
fn usage_adds_up_by_bucket_and_dimension() {
    let ledger = open(&TestSql::new());
    let at = |hour: i64| DAY_START + hour * HOUR_MS;
    let list: Vec<Value> = [(1, at(0)), (2, at(0) + 1), (3, at(1)), (4, at(25))]
        .map(|(seq, at)| event(&key(1), seq, at))
        .into();
    ledger.apply(&batch(&key(1), &list)).unwrap();

    let by_hour = ask(&ledger, "usage", &json!({ "bucket": "hour" }));
    let rows: Vec<_> = by_hour["data"].as_array().unwrap().iter().collect();
    let requests: Vec<u64> = rows.iter().map(|row| row["requests"].as_u64().unwrap()).collect();
    assert_eq!(requests, [2, 1, 1]);
    assert_eq!(rows[0]["bucket_start"], "2026-11-20T00:00:00.000Z");
    assert_eq!(rows[0]["input_tokens"], 20);
    assert_eq!(rows[0]["cached_tokens"], 8);
    assert_eq!(rows[0]["output_tokens"], 10);
    assert_eq!(rows[0]["charged_usd"], "0.000000014");

    let by_day = ask(&ledger, "usage", &json!({ "bucket": "day" }));
    let requests: Vec<u64> = by_day["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["requests"].as_u64().unwrap())
        .collect();
    assert_eq!(requests, [3, 1]);

    let by_user = ask(&ledger, "usage", &json!({ "group_by": ["team", "user"] }));
    let rows = by_user["data"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[1]["team"], &rows[1]["user"]), (&json!("blue"), &json!("u1")));
    assert_eq!(rows[1]["requests"], 2);

    let part = json!({ "from_ms": at(1), "to_ms": at(2), "filters": { "provider": "openai" } });
    assert_eq!(ask(&ledger, "usage", &part)["data"][0]["requests"], 1);
    let none = json!({ "filters": { "provider": "nobody" } });
    assert_eq!(ask(&ledger, "usage", &none)["data"][0]["requests"], 0);
}

#[test]
fn requests_are_filtered_and_come_newest_first() {
    let ledger = open(&TestSql::new());
    ledger.apply(&batch(&key(1), &events(&key(1), 1..=5))).unwrap();
    ledger.apply(&batch(&key(2), &events(&key(2), 1..=1))).unwrap();
    let ids = |query: Value| -> Vec<u64> {
        let answer = ask(&ledger, "requests", &query);
        answer["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(json!({ "limit": 10, "filters": { "key": key(1) } })), [5, 4, 3, 2, 1]);
    // One more than asked for: the sign that there are more.
    assert_eq!(ids(json!({ "limit": 2, "filters": { "key": key(1) } })), [5, 4, 3]);
    let before = request_id(&key(1), 3, DAY_START + 3_000);
    assert_eq!(ids(json!({ "limit": 9, "before": before, "filters": { "key": key(1) } })), [2, 1]);
    assert_eq!(ids(json!({ "limit": 9, "filters": { "user": "u1", "key": key(1) } })), [4, 1]);
    assert_eq!(ids(json!({ "limit": 9, "filters": { "status": "500" } })), [0_u64; 0]);
}

#[test]
fn a_dimension_that_is_not_known_never_reaches_the_statement() {
    let ledger = open(&TestSql::new());
    for bad in ["1; DROP TABLE events", "body", "at_ms", ""] {
        assert!(ledger.query("usage", &json!({ "group_by": [bad] }).to_string()).is_err(), "{bad}");
        let filter = json!({ "limit": 1, "filters": { bad: "x" } }).to_string();
        assert!(ledger.query("requests", &filter).is_err(), "{bad}");
    }
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_and_never_a_rounded_one() {
    let sql = TestSql::new();
    let ledger = open(&sql);
    let mut list = events(&key(1), 1..=2);
    for event in &mut list {
        // Two of these are more nanodollars than 64 bits hold.
        event["charged"] = json!("9000000000");
        event["actor"] = json!({});
    }
    ledger.apply(&batch(&key(1), &list[..1])).unwrap();
    sql.transact(|| ledger.apply(&batch(&key(1), &list))).unwrap_err();
    assert_eq!(totals(&ledger), (1, "9000000000".to_owned()));
}

#[test]
fn money_is_exact_beyond_what_a_javascript_number_holds() {
    let ledger = open(&TestSql::new());
    let mut one = event(&key(1), 1, DAY_START);
    one["charged"] = json!("9007199.254740993");
    ledger.apply(&batch(&key(1), &[one])).unwrap();
    assert_eq!(totals(&ledger).1, "9007199.254740993");
    let usage = ask(&ledger, "usage", &json!({}));
    assert_eq!(usage["data"][0]["charged_usd"], "9007199.254740993");
}

#[test]
fn a_restart_of_a_meter_is_recorded_and_counted_as_no_request() {
    let ledger = open(&TestSql::new());
    let mut one = event(&key(1), 1, DAY_START);
    one["outcome"] = json!("interrupted");
    one["charged"] = json!("0");
    ledger.apply(&batch(&key(1), &[one])).unwrap();
    let usage = ask(&ledger, "usage", &json!({ "group_by": ["outcome"] }));
    assert_eq!(usage["data"][0]["outcome"], "interrupted");
    assert_eq!(usage["data"][0]["requests"], 0);
}

#[test]
fn a_sampled_refusal_counts_for_all_it_stands_for() {
    let ledger = open(&TestSql::new());
    let mut one = event(&key(1), 1, DAY_START);
    one["outcome"] = json!("refused");
    one["charged"] = json!("0");
    one["sampled"] = json!(40);
    one["usage"] = json!({ "source": "absent" });
    ledger.apply(&batch(&key(1), &[one])).unwrap();
    let usage = ask(&ledger, "usage", &json!({ "group_by": ["outcome"] }));
    assert_eq!(
        (&usage["data"][0]["outcome"], &usage["data"][0]["requests"]),
        (&json!("refused"), &json!(40))
    );
}

#[test]
fn only_the_oldest_events_go_and_the_sums_stay() {
    let ledger = open(&TestSql::new());
    ledger.apply(&batch(&key(1), &events(&key(1), 1..=5))).unwrap();
    let before = ask(&ledger, "usage", &json!({}));
    ledger.prune(2).unwrap();
    let left = ask(&ledger, "requests", &json!({ "limit": 9 }));
    let left: Vec<u64> =
        left["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect();
    assert_eq!(left, [5, 4]);
    assert_eq!(ask(&ledger, "usage", &json!({})), before);
    assert_eq!(totals(&ledger), (5, "0.000000035".to_owned()));
}

/// What a delivery can meet.
#[derive(Clone, Debug)]
enum Fate {
    /// Applied and answered.
    Delivered,
    /// Applied; the answer was lost, so the Meter sends again.
    AnswerLost,
    /// Storage failed after this many statements; nothing of it may stay.
    StorageFailed(u32),
    /// An old batch comes once more.
    Replayed,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Delivered),
        Just(Fate::AnswerLost),
        (0_u32..12).prop_map(Fate::StorageFailed),
        Just(Fate::Replayed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_event_is_applied_exactly_once_whatever_becomes_of_its_batches(
        fates in prop::collection::vec((1_u8..4, 1_u64..5, fate()), 1..60),
    ) {
        let sql = TestSql::new();
        let mut delivered = [0_u64; 4];
        for (n, size, fate) in fates {
            let up_to = &mut delivered[usize::from(n)];
            let (first, last) = match fate {
                Fate::Replayed => (1, *up_to),
                _ => (*up_to + 1, *up_to + size),
            };
            let text = batch(&key(n), &events(&key(n), first..=last));
            let ledger = open(&sql);
            if let Fate::StorageFailed(after) = fate {
                sql.fail_after(Some(after));
            }
            let applied = sql.transact(|| ledger.apply(&text));
            sql.fail_after(None);
            // The Meter moves on only when it has the answer.
            if let (Ok(_), Fate::Delivered | Fate::StorageFailed(_)) = (applied, fate) {
                *up_to = last;
            }
        }
        for n in 1..4_u8 {
            let up_to = delivered[usize::from(n)] + 1;
            open(&sql).apply(&batch(&key(n), &events(&key(n), 1..=up_to))).unwrap();
        }
        let ledger = open(&sql);
        for n in 1..4_u8 {
            let query = json!({ "filters": { "key": key(n) } });
            let answer = ask(&ledger, "requests", &json!({ "limit": 999, "filters": { "key": key(n) } }));
            let mut seqs: Vec<u64> =
                answer["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect();
            seqs.sort_unstable();
            let last = seqs.last().copied().unwrap();
            prop_assert!(last > delivered[usize::from(n)]);
            prop_assert_eq!(&seqs, &(1..=last).collect::<Vec<_>>());
            prop_assert_eq!(&ask(&ledger, "usage", &query)["data"][0]["requests"], &json!(last));
        }
    }
}
