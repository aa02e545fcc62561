//! What the Ledger keeps of models, prompts, sessions and refusals.

use serde_json::{Value, json};

use super::ledger_object::{LedgerObject, MIGRATIONS};
use super::ledger_requests::RequestsQuery;
use super::migrations::migrate;
use super::sql::Sql;
use super::test_sql::TestSql;
use crate::admin::call::Step;
use crate::admin::merge::merge;

const KEY: &str = "0000000000000001";
/// 2026-11-20T00:00:00Z
const DAY_START: i64 = 1_795_132_800_000;
const HOUR_MS: i64 = 3_600_000;

fn id(seq: u64, at: i64) -> String {
    format!("req_{at:012x}7{seq:019x}")
}

/// An event with what a test changes of it: 1,000 tokens in, 100 out, for a tenth of a dollar.
fn event(seq: u64, at: i64, changes: Value) -> Value {
    let mut event = json!({
        "v": 1, "id": id(seq, at), "seq": seq, "workspace": "ws_acme", "key": KEY, "at": at, "settled_at": at + 50,
        "key_name": "chat", "owner": "ada", "cost_centre": "r&d", "purpose": "test", "environment": "staging",
        "actor": { "feature": "answers" }, "endpoint": "/v1/chat/completions", "stream": true,
        "requested_model": "fast", "provider": "openai", "model": "m1", "outcome": "completed", "status": 200,
        "usage": { "source": "reported",
                   "tally": { "tokens": { "input": 600, "cache_read": 400, "output": 90, "reasoning": 10 } } },
        "attempts": [{ "provider": "openai", "model": "m1", "status": 200, "started_ms": 0, "took_ms": 40 }],
        "charged": "0.1", "hold": "0.2", "duration_ms": 100, "first_byte_ms": 10,
    });
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    event.as_object_mut().unwrap().extend(changes);
    event
}

fn refusal(seq: u64, at: i64, code: &str, sampled: u64) -> Value {
    event(
        seq,
        at,
        json!({ "outcome": "refused", "code": code, "status": 403, "provider": null, "model": null, "attempts": [],
                "usage": { "source": "absent" }, "charged": "0", "sampled": sampled }),
    )
}

fn ledger() -> LedgerObject<TestSql> {
    LedgerObject::open(TestSql::new()).unwrap()
}

fn apply(ledger: &LedgerObject<TestSql>, events: &[Value]) {
    ledger.apply(&json!({ "meter": KEY, "events": events }).to_string()).unwrap();
}

/// What the API says, from this Ledger alone.
fn asked(ledger: &LedgerObject<TestSql>, method: &str, payload: &Value) -> Value {
    let answer = ledger.query(method, &payload.to_string()).unwrap();
    match merge(method, &payload.to_string(), &json!([answer]).to_string()) {
        Step::Respond { status: 200, body, .. } => serde_json::from_str(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn by_model() -> Value {
    json!({ "group_by": ["provider", "model"] })
}

#[test]
fn models_stand_side_by_side_with_exact_sums() {
    let ledger = ledger();
    let failed = json!({
        "provider": "azure", "model": "m2", "outcome": "provider_error", "status": 502, "charged": "0",
        "usage": { "source": "absent" }, "attempts": [
            { "provider": "openai", "model": "m1", "error": "connection_failed", "started_ms": 0, "took_ms": 5 },
            { "provider": "azure", "model": "m2", "status": 500, "started_ms": 6, "took_ms": 5 } ],
    });
    let events = [
        event(1, DAY_START, json!({ "duration_ms": 100 })),
        event(2, DAY_START + HOUR_MS, json!({ "duration_ms": 3_000 })),
        event(3, DAY_START, failed),
        refusal(4, DAY_START, "rate_limited", 7),
    ];
    apply(&ledger, &events);
    // Delivered again, whole and in part: nothing changes.
    apply(&ledger, &events);
    apply(&ledger, &events[2..]);
    let rows = asked(&ledger, "model_performance", &by_model());
    assert_eq!(
        (&rows["measured_after"], rows["data"].as_array().unwrap().len()),
        (&json!(null), 3)
    );
    let row = |model: Value| {
        rows["data"].as_array().unwrap().iter().find(|row| row["model"] == model).unwrap().clone()
    };
    let m1 = row(json!("m1"));
    assert_eq!(
        (&m1["requests"], &m1["completed"], &m1["errors"]),
        (&json!(2), &json!(2), &json!(0))
    );
    assert_eq!((&m1["attempts"], &m1["failed_attempts"]), (&json!(3), &json!(1)));
    let near = |value: &Value, exact: u64| {
        let read = value.as_u64().unwrap();
        assert!(read.abs_diff(exact) * 16 <= exact, "{exact} is read as {read}");
    };
    near(&m1["latency_ms"]["p50"], 100);
    near(&m1["latency_ms"]["p99"], 3_000);
    assert_eq!(
        (&m1["first_byte_ms"]["p95"], &m1["first_byte_ms"]["count"]),
        (&json!(10), &json!(2))
    );
    let tokens = json!({ "input": 1200, "cache_read": 800, "output": 180, "reasoning": 20 });
    assert_eq!(m1["tokens"], tokens);
    assert_eq!((&m1["total_tokens"], &m1["charged_usd"]), (&json!(2200), &json!("0.2")));
    assert_eq!(m1["cache_hit_rate_basis_points"], 4_000);
    // 0.2 dollars for 2,200 tokens, to the nanodollar.
    assert_eq!(m1["usd_per_million_tokens"], "90.909090909");
    let m2 = row(json!("m2"));
    assert_eq!((&m2["errors"], &m2["error_rate_basis_points"]), (&json!(1), &json!(10_000)));
    assert_eq!((&m2["retries"], &m2["latency_ms"]["p50"]), (&json!(1), &json!(null)));
    let nowhere = row(json!(null));
    assert_eq!(
        (&nowhere["refused"], &nowhere["error_rate_basis_points"]),
        (&json!(7), &json!(null))
    );
}

#[test]
fn hours_add_up_to_days_and_days_to_the_whole() {
    let ledger = ledger();
    let at = [0, 1, 23, 24, 49].map(|hour| DAY_START + hour * HOUR_MS);
    let events: Vec<Value> =
        at.iter().zip(1..).map(|(at, seq)| event(seq, *at, json!({}))).collect();
    apply(&ledger, &events);
    let requests = |payload: &Value| -> Vec<u64> {
        let rows = asked(&ledger, "model_performance", payload);
        rows["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["requests"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(requests(&json!({ "bucket": "hour" })), [1, 1, 1, 1, 1]);
    assert_eq!(requests(&json!({ "bucket": "day" })), [3, 1, 1]);
    assert_eq!(requests(&json!({})), [5]);
    // From the middle of a day on, hours are what adds up.
    assert_eq!(requests(&json!({ "from_ms": at[1], "bucket": "day" })), [2, 1, 1]);
    assert_eq!(requests(&json!({ "from_ms": at[1], "to_ms": at[3] })), [2]);
    assert_eq!(requests(&json!({ "filters": { "model": "m9" } })), [] as [u64; 0]);
}

#[test]
fn an_accepted_outcome_counts_for_the_models_that_served_it() {
    let ledger = ledger();
    let of = |session: &str, model: &str| json!({ "actor": { "session": session }, "model": model, "provider": "openai" });
    apply(
        &ledger,
        &[
            event(1, DAY_START, of("s", "m1")),
            event(2, DAY_START + 1, of("s", "m2")),
            event(3, DAY_START + 2, of("other", "m2")),
        ],
    );
    let outcome = |place: usize, subject: Value, verdict: &str| {
        json!({ "place": place, "dated": true, "event": {
            "v": 1, "workspace": "ws_acme", "key": KEY, "subject": subject, "outcome": verdict, "at": DAY_START + 9,
            "recorded_at": DAY_START + 9, "owner": "ada", "cost_centre": "r&d", "environment": "staging",
            "actor": {} } })
    };
    let sent = [
        outcome(0, json!({ "session": "s" }), "accepted"),
        outcome(1, json!({ "request": id(2, DAY_START + 1) }), "accepted"),
        outcome(2, json!({ "request": id(3, DAY_START + 2) }), "rejected"),
    ];
    ledger.record_outcomes(&json!(sent).to_string()).unwrap();
    let rows = asked(&ledger, "model_performance", &by_model());
    let found: Vec<_> = rows["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["accepted"].clone(),
                row["outcome_cost_usd"].clone(),
                row["usd_per_accepted"].clone(),
            )
        })
        .collect();
    // m2 served the session and a request of it, and one that was rejected: each of its requests is paid once.
    let expected = [(json!(1), json!("0.1"), json!("0.1")), (json!(2), json!("0.2"), json!("0.1"))];
    assert_eq!(found, expected);
    let whole = asked(&ledger, "model_performance", &json!({}));
    assert_eq!(whole["data"][0]["accepted"], 2);
    assert_eq!(whole["data"][0]["outcome_cost_usd"], "0.3");
}

#[test]
fn an_old_database_opens_goes_on_and_says_since_when_it_measures() {
    let sql = TestSql::new();
    migrate(&sql, &MIGRATIONS[..3]).unwrap();
    let insert = "INSERT INTO events (id, at_ms, status, charged_nanos, key, body)
        VALUES (?, CAST(? AS INTEGER), 200, 1, 'k', '{}')";
    sql.exec(insert, &[Some(&id(1, DAY_START)), Some(&DAY_START.to_string())]).unwrap();
    let ledger = LedgerObject::open(sql).unwrap();
    apply(&ledger, &[event(1, DAY_START + HOUR_MS, json!({}))]);
    let rows = asked(&ledger, "model_performance", &json!({}));
    assert_eq!(rows["measured_after"], "2026-11-20T00:00:00.000Z");
    assert_eq!(rows["data"][0]["requests"], 1);
}

#[test]
fn prompts_have_shapes_and_sessions_grow() {
    let ledger = ledger();
    let turn = |seq: u64, input: u64, parts: Value| {
        let tokens = json!({ "input": input, "output": 10 });
        let decided =
            json!({ "asked": { "input_tokens": input, "body_bytes": 1, "parts": parts } });
        event(
            seq,
            DAY_START + i64::try_from(seq).unwrap(),
            json!({ "actor": { "session": "a/b", "agent": "bot", "feature": "answers" }, "decided": decided,
                    "usage": { "source": "reported", "tally": { "tokens": tokens } } }),
        )
    };
    // The last comes before the second: a Meter's order is not that of time.
    apply(
        &ledger,
        &[
            turn(1, 500, json!({ "system": 300, "last": 200 })),
            turn(3, 5_000, json!({ "system": 300, "history": 4_000, "last": 700 })),
        ],
    );
    let mut second = turn(2, 900, json!({ "system": 300, "history": 200, "last": 400 }));
    second["seq"] = json!(4);
    apply(
        &ledger,
        &[second, refusal(5, DAY_START + 9, "rate_limited", 1), event(6, DAY_START, json!({}))],
    );

    let shapes = asked(&ledger, "prompt_shapes", &json!({}));
    let found: Vec<_> = shapes["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["shape"].as_str().unwrap(), row["requests"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("input 5 to 20 times output, under 1k", 1),
        ("mostly history, 4k to 16k", 1),
        ("mostly instructions, under 1k", 1),
        ("mostly the last message, under 1k", 1),
    ];
    assert_eq!(found, expected);
    assert_eq!(shapes["data"][1]["parts"]["history"], 4_000);

    let sessions = asked(&ledger, "agent_sessions", &json!({ "sort": "growth", "limit": 10 }));
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1);
    let session = &sessions["data"][0];
    assert_eq!((&session["session"], &session["agent"]), (&json!("a/b"), &json!("bot")));
    assert_eq!((&session["requests"], &session["growth_tokens"]), (&json!(3), &json!(4_500)));
    assert_eq!(session["charged_usd"], "0.3");

    let span = json!({ "from_ms": DAY_START + 2, "to_ms": DAY_START + 3, "filters": { "session": "a/b" } });
    let turns = asked(&ledger, "agent_session", &span);
    assert_eq!(turns["data"].as_array().unwrap().len(), 1);
    assert_eq!(turns["data"][0]["input_tokens"], 900);
    let turns = asked(&ledger, "agent_session", &json!({ "filters": { "session": "a/b" } }));
    let found: Vec<_> = turns["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| (turn["input_tokens"].clone(), turn["increase_tokens"].clone()))
        .collect();
    let expected =
        [(json!(500), json!(null)), (json!(900), json!(400)), (json!(5_000), json!(4_100))];
    assert_eq!(found, expected);
    assert_eq!(turns["charged_usd"], "0.3");
}

#[test]
fn requests_are_sorted_and_found_by_session_and_price() {
    let ledger = ledger();
    let tokens =
        |count: u64| json!({ "source": "reported", "tally": { "tokens": { "input": count } } });
    apply(
        &ledger,
        &[
            event(1, DAY_START, json!({ "charged": "0.3", "duration_ms": 5, "usage": tokens(90) })),
            event(
                2,
                DAY_START + 1,
                json!({ "charged": "0.1", "duration_ms": 900, "usage": tokens(1_000) }),
            ),
            event(
                3,
                DAY_START + 2,
                json!({ "charged": "0.2", "duration_ms": 40, "usage": tokens(9), "actor": { "session": "s" } }),
            ),
        ],
    );
    let found = |payload: Value| -> Vec<u64> {
        let rows = asked(&ledger, "requests", &payload);
        assert_eq!(rows["looked_to"], json!(null));
        rows["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(found(json!({ "limit": 9 })), [3, 2, 1]);
    assert_eq!(found(json!({ "limit": 9, "sort": "charged" })), [1, 3, 2]);
    assert_eq!(found(json!({ "limit": 9, "sort": "duration" })), [2, 3, 1]);
    assert_eq!(found(json!({ "limit": 2, "sort": "tokens" })), [2, 1]);
    assert_eq!(found(json!({ "limit": 9, "filters": { "session": "s" } })), [3]);
    assert_eq!(found(json!({ "limit": 9, "charged_from_nanos": 200_000_000 })), [3, 1]);
    assert_eq!(
        found(json!({ "limit": 9, "charged_to_nanos": 200_000_000, "sort": "charged" })),
        [3, 2]
    );
    assert_eq!(found(json!({ "limit": 9, "from_ms": DAY_START + 1, "to_ms": DAY_START + 2 })), [2]);
}

#[test]
fn a_look_that_stops_says_where_and_goes_on_from_there() {
    let ledger = ledger();
    let model = |seq: u64| json!({ "model": if seq % 5 == 1 { "rare" } else { "m1" } });
    let events: Vec<Value> = (1..=12_u64)
        .map(|seq| event(seq, DAY_START + i64::try_from(seq).unwrap(), model(seq)))
        .collect();
    apply(&ledger, &events);
    let mut query = RequestsQuery { limit: 10, ..RequestsQuery::default() };
    query.filters.insert("model".to_owned(), "rare".to_owned());
    let mut found = Vec::new();
    for _ in 0..9 {
        let answer = ledger.requests(&query, 4).unwrap().to_string();
        let payload = serde_json::to_string(&query).unwrap();
        let Step::Respond { body, .. } = merge("requests", &payload, &json!([answer]).to_string())
        else {
            panic!("no answer")
        };
        let page: Value = serde_json::from_str(&body).unwrap();
        found.extend(
            page["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()),
        );
        assert_eq!(page["looked_to"], page["next_cursor"]);
        match page["next_cursor"].as_str() {
            Some(cursor) => query.before = Some(cursor.to_owned()),
            None => break,
        }
    }
    assert_eq!(found, [11, 6, 1]);
}

#[test]
fn refusals_are_counted_also_those_that_one_record_stands_for() {
    let ledger = ledger();
    apply(
        &ledger,
        &[
            refusal(1, DAY_START, "rate_limited", 50),
            refusal(2, DAY_START + 1, "budget_exceeded", 1),
            event(3, DAY_START, json!({})),
        ],
    );
    let payload = json!({ "group_by": ["code"], "filters": { "outcome": "refused" } });
    let expected = json!({ "data": [{ "code": "budget_exceeded", "refusals": 1 },
                                    { "code": "rate_limited", "refusals": 50 }] });
    assert_eq!(asked(&ledger, "refusals", &payload), expected);
}

/// What the API says from several Ledgers.
fn merged(ledgers: &[&LedgerObject<TestSql>], method: &str, payload: &Value) -> Value {
    let answers: Vec<String> =
        ledgers.iter().map(|ledger| ledger.query(method, &payload.to_string()).unwrap()).collect();
    match merge(method, &payload.to_string(), &json!(answers).to_string()) {
        Step::Respond { status: 200, body, .. } => serde_json::from_str(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_months_say_together_what_one_would_say_alone() {
    let (whole, first, second) = (ledger(), ledger(), ledger());
    let events: Vec<Value> = (1..=9_u64)
        .map(|seq| {
            let at = DAY_START + i64::try_from(seq).unwrap() * HOUR_MS;
            if seq % 4 == 0 {
                return refusal(seq, at, "rate_limited", seq);
            }
            let tokens = json!({ "input": 700 * seq, "output": 10 });
            event(
                seq,
                at,
                json!({ "model": format!("m{}", seq % 2), "duration_ms": seq * 77,
                        "actor": { "session": format!("s{}", seq % 3) },
                        "usage": { "source": "reported", "tally": { "tokens": tokens } } }),
            )
        })
        .collect();
    apply(&whole, &events);
    apply(&first, &events[..5]);
    apply(&second, &events[5..]);
    let session = json!({ "filters": { "session": "s1" } });
    for (method, payload) in [
        ("model_performance", by_model()),
        ("model_performance", json!({ "bucket": "day" })),
        ("prompt_shapes", json!({})),
        ("agent_sessions", json!({ "sort": "growth", "limit": 9 })),
        ("agent_session", session),
        ("requests", json!({ "limit": 4, "sort": "duration" })),
        ("requests", json!({ "limit": 4 })),
        ("refusals", json!({ "group_by": ["code"], "filters": { "outcome": "refused" } })),
    ] {
        let alone = merged(&[&whole], method, &payload);
        assert_eq!(merged(&[&first, &second], method, &payload), alone, "{method} {payload}");
    }
}
