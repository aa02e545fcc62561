//! Sums by day against sums by hour, and searches against reading everything, over deliveries in any order.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::ledger_days::DAYS;
use super::ledger_object::{LedgerObject, MIGRATIONS};
use super::ledger_shape::SHAPE_OF_DAYS;
use super::migrations::migrate;
use super::sql::Sql;
use super::test_sql::TestSql;

/// 2026-11-01T00:00:00Z
const MONTH: i64 = 1_793_491_200_000;
const HOUR: i64 = 3_600_000;

/// Its id says another minute than its time of admission, as two clocks do.
fn event(seq: u64, minutes: i64, skew: i64, team: &str) -> Value {
    let at = MONTH + minutes * 60_000;
    json!({
        "v": 1, "id": format!("req_{:012x}7{seq:019x}", at + skew * 60_000), "seq": seq, "workspace": "ws_acme",
        "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "k", "owner": "ada", "cost_centre": "c",
        "purpose": "p", "environment": "e", "endpoint": "/v1/messages", "stream": seq.is_multiple_of(4),
        "actor": { "team": team, "session": seq.is_multiple_of(5).then(|| format!("s{}", seq % 3)) },
        "requested_model": "m", "provider": "openai", "model": "m", "outcome": "completed",
        "status": if seq.is_multiple_of(3) { 429 } else { 200 },
        "usage": { "source": "reported", "tally": { "tokens": { "input": 3 + seq, "cache_read": 2, "output": 1 } } },
        "charged": format!("0.{seq:09}"), "hold": "1", "duration_ms": 1
    })
}

fn ask(ledger: &LedgerObject<TestSql>, method: &str, payload: &Value) -> Value {
    serde_json::from_str(&ledger.query(method, &payload.to_string()).unwrap()).unwrap()
}

/// What the hours of each day and team add up to.
fn by_hours(ledger: &LedgerObject<TestSql>) -> Vec<(String, String, u64, i128)> {
    let rows = ask(ledger, "usage", &json!({ "bucket": "hour", "group_by": ["team"] }));
    sums(&rows)
}

fn by_days(ledger: &LedgerObject<TestSql>) -> Vec<(String, String, u64, i128)> {
    sums(&ask(ledger, "usage", &json!({ "bucket": "day", "group_by": ["team"] })))
}

fn sums(rows: &Value) -> Vec<(String, String, u64, i128)> {
    let mut sums = std::collections::BTreeMap::new();
    for row in rows["data"].as_array().unwrap() {
        let day = row["bucket_start"].as_str().unwrap()[..10].to_owned();
        let sum: &mut (u64, i128) =
            sums.entry((day, row["team"].as_str().unwrap().to_owned())).or_default();
        sum.0 += row["input_tokens"].as_u64().unwrap();
        sum.1 += row["charged_usd"]
            .as_str()
            .unwrap()
            .parse::<tallygate_shared::money::Usd>()
            .unwrap()
            .pico();
    }
    sums.into_iter().map(|((day, team), (tokens, pico))| (day, team, tokens, pico)).collect()
}

#[test]
fn the_hours_of_an_older_schema_are_folded() {
    let sql = TestSql::new();
    let before = MIGRATIONS.iter().position(|step| *step == DAYS).unwrap();
    migrate(&sql, &MIGRATIONS[..before]).unwrap();
    for (hour, team, nanos) in [(1, "a", 5), (2, "a", 6), (30, "b", 7), (50, "a", 8), (51, "a", 9)]
    {
        let insert = "INSERT INTO rollups (hour_ms, dimensions, team, requests, input_tokens, cached_tokens,
            output_tokens, cost_nanos, charged_nanos) VALUES (CAST(? AS INTEGER), ?, ?, 1, 2, 0, 1, 0, CAST(? AS INTEGER))";
        let hour = (MONTH + hour * HOUR).to_string();
        sql.exec(insert, &[Some(&hour), Some(team), Some(team), Some(&nanos.to_string())]).unwrap();
    }
    let ledger = LedgerObject::open(sql.clone()).unwrap();
    let days = sql.exec("SELECT CAST(SUM(charged_nanos) AS TEXT) FROM days", &[]).unwrap();
    assert_eq!(days[0][0].as_deref(), Some("18"));
    assert_eq!(by_days(&ledger), by_hours(&ledger));
    assert_eq!(by_days(&ledger).iter().map(|row| row.3).sum::<i128>(), 35_000);
}

/// What insights are made from, of a span that begins and ends within days, in the order of its groups.
fn traffic(ledger: &LedgerObject<TestSql>, (from, to): (i64, i64)) -> Vec<Value> {
    let market = json!({ "sellers": {}, "own": [] });
    let mut all = Vec::new();
    for days in [1, 2, 40] {
        let query = json!({ "at": to, "days": days, "market": market, "archetypes": {},
                            "commitments": {}, "since": from });
        all.push(ask(ledger, "savings", &query));
    }
    let query = json!({ "from_ms": from, "to_ms": to, "group_by": "app", "archetypes": {} });
    all.push(ask(ledger, "archetypes", &query));
    all.push(ask(ledger, "usage", &json!({ "from_ms": from, "to_ms": to, "group_by": ["team"] })));
    all
}

/// The same ledger as if no day was over: all is read from the sums by hour.
fn unfold(sql: &TestSql) {
    sql.exec("DELETE FROM days", &[]).unwrap();
    sql.exec("DELETE FROM marks WHERE name = 'folded_to'", &[]).unwrap();
}

/// Requests by the hour are known to the day only where days are read: taken out, and added up.
fn spread(answers: &mut [Value]) -> u64 {
    let mut all = 0;
    for row in answers.iter_mut().flat_map(|it| it["data"].as_array_mut().unwrap()) {
        if let Some(hours) = row.as_object_mut().unwrap().remove("by_hour") {
            all += hours.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
        }
    }
    all
}

#[test]
fn days_of_an_older_schema_get_the_shape_of_their_hours() {
    let sql = TestSql::new();
    let ledger = LedgerObject::open(sql.clone()).unwrap();
    let events: Vec<Value> = (1..40_i64)
        .map(|n| event(u64::try_from(n).unwrap(), n * 190, 0, if n % 3 == 0 { "a" } else { "b" }))
        .collect();
    ledger.apply(&json!({ "meter": "k", "events": events }).to_string()).unwrap();
    let span = (MONTH, MONTH + 100 * HOUR);
    let expected = traffic(&ledger, span);
    assert!(MIGRATIONS.contains(&SHAPE_OF_DAYS));
    // As the step before left it.
    let added = SHAPE_OF_DAYS.split("ALTER TABLE days ADD COLUMN ").skip(1);
    for column in added.map(|rest| rest.split(' ').next().unwrap()) {
        sql.exec(&format!("ALTER TABLE days DROP COLUMN {column}"), &[]).unwrap();
    }
    for statement in SHAPE_OF_DAYS.split(';').filter(|it| !it.trim().is_empty()) {
        sql.exec(statement, &[]).unwrap();
    }
    assert_eq!(traffic(&ledger, span), expected);
}

#[test]
fn a_month_without_requests_has_nothing_to_fold() {
    let ledger = LedgerObject::open(TestSql::new()).unwrap();
    assert_eq!(ledger.folded_to().unwrap(), 0);
    assert_eq!(by_days(&ledger), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn days_are_the_hours_and_a_search_finds_what_reading_all_finds(
        events in prop::collection::vec((0..7_200_i64, -59..60_i64, 0..4_usize), 1..60),
        cut in 1..20_usize,
        limit in 1..12_u64,
    ) {
        let ledger = LedgerObject::open(TestSql::new()).unwrap();
        let teams = ["a", "b", "c", "rare"];
        let events: Vec<Value> = events.iter().zip(1..).map(|((minutes, skew, team), seq)| {
            event(seq, *minutes, *skew, teams[*team])
        }).collect();
        for part in events.chunks(cut) {
            ledger.apply(&json!({ "meter": "k", "events": part }).to_string()).unwrap();
        }
        prop_assert_eq!(by_days(&ledger), by_hours(&ledger));
        let (from, to) = (MONTH + 26 * HOUR + 7, MONTH + 90 * HOUR + 11);
        for (filters, span) in [
            (json!({ "team": "rare" }), (None, None)),
            (json!({ "team": "a", "status": "200" }), (None, None)),
            (json!({ "team": "nobody" }), (None, None)),
            (json!({ "team": "b" }), (Some(from), Some(to))),
            (json!({ "status": "429" }), (None, Some(to))),
        ] {
            let mut expected: Vec<&str> = events.iter().filter(|event| {
                let at = event["at"].as_i64().unwrap();
                let fits = |name: &str, value: String| filters.get(name).is_none_or(|it| it == &value);
                fits("team", event["actor"]["team"].as_str().unwrap().to_owned())
                    && fits("status", event["status"].to_string())
                    && span.0.is_none_or(|from| at >= from) && span.1.is_none_or(|to| at < to)
            }).map(|event| event["id"].as_str().unwrap()).collect();
            expected.sort_unstable();
            expected.reverse();
            // Page by page, as a caller reads.
            let (mut found, mut before) = (Vec::new(), Value::Null);
            loop {
                let query = json!({ "from_ms": span.0, "to_ms": span.1, "before": before, "limit": limit,
                                    "filters": filters });
                let page = ask(&ledger, "requests", &query);
                let page = page["data"].as_array().unwrap();
                let kept = page.len().min(usize::try_from(limit).unwrap());
                found.extend(page[..kept].iter().map(|it| it["id"].as_str().unwrap().to_owned()));
                if page.len() == kept {
                    break;
                }
                before = page[kept - 1]["id"].clone();
            }
            prop_assert_eq!(&found, &expected, "{}", filters);
        }
    }

    #[test]
    fn insights_are_the_same_whether_days_are_folded_or_not(
        events in prop::collection::vec((0..7_200_i64, 0..3_usize), 1..60),
        cut in 1..20_usize,
        from in 0..100_i64,
        hours in 1..120_i64,
    ) {
        let sql = TestSql::new();
        let ledger = LedgerObject::open(sql.clone()).unwrap();
        let events: Vec<Value> = events.iter().zip(1..).map(|((minutes, team), seq)| {
            event(seq, *minutes, 0, ["a", "b", "c"][*team])
        }).collect();
        for part in events.chunks(cut) {
            ledger.apply(&json!({ "meter": "k", "events": part }).to_string()).unwrap();
        }
        let span = (MONTH + from * HOUR, MONTH + (from + hours) * HOUR);
        let mut by_days = traffic(&ledger, span);
        unfold(&sql);
        let mut by_hours = traffic(&ledger, span);
        prop_assert_eq!(spread(&mut by_days), spread(&mut by_hours));
        prop_assert_eq!(&by_days, &by_hours);
        let distinct = format!(
            "SELECT CAST(COUNT(DISTINCT hour_ms) AS TEXT), CAST(SUM(requests) AS TEXT) FROM rollups
             WHERE hour_ms >= {} AND hour_ms < {}", span.0, span.1
        );
        let known = &sql.exec(&distinct, &[]).unwrap()[0];
        let whole = by_days[3]["data"].get(0).map(|it| it["traffic"].clone()).unwrap_or_default();
        let count = |name: &str| whole.get(name).and_then(Value::as_u64).unwrap_or_default();
        prop_assert_eq!(count("hours").to_string(), known[0].clone().unwrap());
        prop_assert_eq!(count("requests").to_string(), known[1].clone().unwrap_or("0".to_owned()));
    }
}
