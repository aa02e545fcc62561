//! Outcomes in the Ledger: said twice, changed, before and after their requests, and added up with their cost.

use serde_json::{Value, json};
use tallygate_shared::ids::RequestId;
use tallygate_shared::time::Timestamp;

use super::ledger_object::{LedgerObject, MIGRATIONS};
use super::migrations::migrate;
use super::sql::Sql;
use super::test_sql::TestSql;

/// 2026-11-20T00:00:00Z
pub(super) const DAY_START: i64 = 1_795_132_800_000;
pub(super) const OURS: &str = "0000000000000001";
pub(super) const THEIRS: &str = "0000000000000002";

/// A Ledger, and how many events it got of each key.
pub(super) struct Month {
    pub(super) sql: TestSql,
    pub(super) ledger: LedgerObject<TestSql>,
}

/// The id of the `n`th request.
pub(super) fn id(n: u8) -> String {
    RequestId::mint(Timestamp::from_ms(DAY_START + i64::from(n) * 1_000), &[n; 10]).to_string()
}

/// The `n`th request's event, charged `n` dollars.
fn event(key: &str, n: u8, actor: &Value) -> Value {
    let at = DAY_START + i64::from(n) * 1_000;
    json!({
        "v": 1, "id": id(n), "seq": n, "workspace": "ws_acme", "key": key, "at": at, "settled_at": at + 50,
        "key_name": "chat", "owner": "ada", "cost_centre": "r&d", "purpose": "test", "environment": "staging",
        "actor": actor, "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "fast",
        "outcome": "completed", "status": 200, "usage": { "source": "absent" }, "charged": n.to_string(),
        "hold": "1", "duration_ms": 50
    })
}

/// An outcome as the Meter sends it, decided a minute into the day.
fn sent(place: usize, subject: &Value, changes: &Value) -> Value {
    let mut event = json!({
        "v": 1, "workspace": "ws_acme", "key": OURS, "subject": subject, "outcome": "accepted",
        "at": DAY_START + 60_000, "recorded_at": DAY_START + 60_000, "owner": "ada", "cost_centre": "r&d",
        "environment": "staging", "actor": {}
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    json!({ "place": place, "dated": changes.get("at").is_some(), "event": event })
}

pub(super) fn of(n: u8) -> Value {
    json!({ "request": id(n) })
}

impl Month {
    pub(super) fn new() -> Self {
        let sql = TestSql::new();
        Self { ledger: LedgerObject::open(sql.clone()).unwrap(), sql }
    }

    pub(super) fn spend(&self, key: &str, n: u8, actor: &Value) {
        self.spend_served(key, n, actor, &json!({}));
    }

    /// The same, of a request that a provider and a model served. Each comes through a Meter of its own.
    pub(super) fn spend_served(&self, key: &str, n: u8, actor: &Value, served: &Value) {
        let mut event = event(key, n, actor);
        for (name, value) in served.as_object().unwrap() {
            event[name] = value.clone();
        }
        event["seq"] = json!(1);
        let batch = json!({ "meter": format!("{key}-{n}"), "events": [event] });
        self.sql.transact(|| self.ledger.apply(&batch.to_string())).unwrap();
    }

    fn record(&self, sent: &[Value]) -> Value {
        let call = json!(sent).to_string();
        let answer = self.sql.transact(|| self.ledger.record_outcomes(&call)).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Records one, and whether it replaced another.
    pub(super) fn say(&self, subject: &Value, changes: &Value) -> bool {
        self.record(&[sent(0, subject, changes)])["done"][0]["replaced"].as_bool().unwrap()
    }

    /// Records one, unless it is refused.
    pub(super) fn try_say(&self, subject: &Value, changes: &Value) {
        self.record(&[sent(0, subject, changes)]);
    }

    /// What an answer says beside its data.
    pub(super) fn rest(&self, method: &str, query: &Value) -> Value {
        let answer = self.ledger.query(method, &query.to_string()).unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        answer.as_object_mut().unwrap().remove("data");
        answer
    }

    pub(super) fn ask(&self, method: &str, query: &Value) -> Vec<Value> {
        let answer = self.ledger.query(method, &query.to_string()).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["data"].as_array().unwrap().clone()
    }

    fn list(&self) -> Vec<Value> {
        self.ask("outcomes", &json!({ "limit": 100 }))
    }

    pub(super) fn summary(&self, group_by: &[&str]) -> Vec<Value> {
        self.ask("outcome_summary", &json!({ "group_by": group_by }))
    }
}

#[test]
fn the_same_again_changes_nothing() {
    let month = Month::new();
    let first = json!({ "value_usd": "12.5", "label": "merged" });
    assert!(!month.say(&of(1), &first));
    let stored = month.sql.dump();
    let later =
        json!({ "value_usd": "12.50", "label": "merged", "recorded_at": DAY_START + 99_000 });
    assert!(!month.say(&of(1), &later));
    assert_eq!(month.sql.dump(), stored);
}

#[test]
fn of_different_outcomes_the_latest_counts_whichever_is_heard_first() {
    let month = Month::new();
    let at = |minute: i64| DAY_START + minute * 60_000;
    assert!(!month.say(&of(1), &json!({ "at": at(5) })));
    assert!(month.say(&of(1), &json!({ "at": at(7), "outcome": "rejected" })));
    assert!(!month.say(&of(1), &json!({ "at": at(6), "value_usd": "3" })), "an older one");
    assert!(month.say(&of(1), &json!({ "at": at(7), "value_usd": "4" })), "a tie: the later call");
    let list = month.list();
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0]["outcome"], &list[0]["value_usd"]), (&json!("accepted"), &json!("4")));
    assert_eq!(list[0]["at"], json!(at(7)));
}

#[test]
fn labels_keys_and_kinds_of_subject_are_told_apart() {
    let month = Month::new();
    month.say(&of(1), &json!({}));
    month.say(&of(1), &json!({ "label": "merged", "outcome": "rejected" }));
    month.say(&of(1), &json!({ "key": THEIRS }));
    month.say(&json!({ "session": id(1) }), &json!({}));
    assert_eq!(month.list().len(), 4);
}

#[test]
fn a_request_of_another_key_refuses_the_whole_call() {
    let month = Month::new();
    month.spend(THEIRS, 1, &json!({}));
    let nothing = json!({});
    let call = [sent(4, &of(2), &nothing), sent(5, &of(1), &nothing)];
    let expect = json!({ "refused": { "place": 5, "why": "not_of_this_key" } });
    assert_eq!(month.record(&call), expect);
    assert!(month.list().is_empty(), "all or none");
    // The same id used with both keys is ours too.
    month.spend(OURS, 1, &json!({}));
    assert!(month.record(&call).get("done").is_some());
}

#[test]
fn what_the_report_leaves_open_is_taken_from_the_request_whichever_comes_first() {
    let actor = json!({ "user": "ada", "team": "blue", "feature": "review" });
    let bob = json!({ "actor": { "user": "bob" } });
    for early in [true, false] {
        let month = Month::new();
        if early {
            month.say(&of(1), &bob);
        }
        month.spend(OURS, 1, &actor);
        month.spend(THEIRS, 1, &json!({ "app": "theirs" }));
        if !early {
            month.say(&of(1), &bob);
        }
        let expect = json!({ "user": "bob", "team": "blue", "feature": "review" });
        assert_eq!(month.list()[0]["actor"], expect, "early: {early}");
    }
}

#[test]
fn the_summary_has_counts_value_and_cost_by_group() {
    let month = Month::new();
    for (n, team) in [(1, "blue"), (2, "blue"), (3, "red"), (4, "red")] {
        month.spend(OURS, n, &json!({ "team": team }));
    }
    month.say(&of(1), &json!({ "value_usd": "999999.999999999999" }));
    month.say(&of(2), &json!({ "value_usd": "0.000000000002", "outcome": "accepted" }));
    month.say(&of(3), &json!({ "value_usd": "7", "outcome": "rejected" }));
    month.say(&of(9), &json!({}));
    let expect = [
        json!({ "team": null, "accepted": 1, "rejected": 0, "value_usd": "0", "requests": 0,
                "cost_usd": "0", "cost_unknown": 1, "accepted_cost_unknown": 1 }),
        json!({ "team": "blue", "accepted": 2, "rejected": 0, "value_usd": "1000000.000000000001",
                "requests": 2, "cost_usd": "3", "cost_unknown": 0, "accepted_cost_unknown": 0 }),
        json!({ "team": "red", "accepted": 0, "rejected": 1, "value_usd": "0", "requests": 1,
                "cost_usd": "3", "cost_unknown": 0, "accepted_cost_unknown": 0 }),
    ];
    assert_eq!(month.summary(&["team"]), expect);
}

#[test]
fn in_a_group_each_request_costs_once_by_itself_or_by_its_session() {
    let month = Month::new();
    for n in [1, 2] {
        month.spend(OURS, n, &json!({ "session": "s1" }));
    }
    month.spend(OURS, 4, &json!({ "session": "s2" }));
    month.spend(THEIRS, 8, &json!({ "session": "s1" }));
    month.say(&json!({ "session": "s1" }), &json!({}));
    month.say(&json!({ "session": "s1" }), &json!({ "label": "merged" }));
    month.say(&of(2), &json!({}));
    let whole = month.summary(&[]);
    assert_eq!((&whole[0]["requests"], &whole[0]["cost_usd"]), (&json!(2), &json!("3")));
    let by_label = month.summary(&["label"]);
    assert_eq!((&by_label[0]["label"], &by_label[0]["cost_usd"]), (&json!(null), &json!("3")));
    assert_eq!((&by_label[1]["label"], &by_label[1]["cost_usd"]), (&json!("merged"), &json!("3")));
    month.say(&json!({ "session": "s3" }), &json!({}));
    assert_eq!(month.summary(&[])[0]["cost_unknown"], json!(1));
}

#[test]
fn pages_list_newest_first_and_export_oldest_first_without_gaps() {
    let month = Month::new();
    for n in [3, 1, 2] {
        month.say(&of(n), &json!({}));
        month.say(&of(n), &json!({ "label": "merged" }));
    }
    let subject = |row: &Value| (row["subject"]["request"].clone(), row["label"].clone());
    let newest: Vec<_> = month.list().iter().map(subject).collect();
    let (mut listed, mut before) = (Vec::new(), Value::Null);
    loop {
        let page = month.ask("outcomes", &json!({ "limit": 4, "before": before }));
        listed.extend(page.iter().take(4).map(subject));
        if page.len() <= 4 {
            break;
        }
        before = page[3]["position"].clone();
    }
    assert_eq!(listed, newest);
    assert_eq!(listed.len(), 6);
    assert_eq!(listed[0], (json!(id(3)), json!("merged")));

    let (mut exported, mut after) = (Vec::new(), None);
    loop {
        let to = DAY_START + 3_000;
        let page = month.ledger.export_outcomes(DAY_START, to, after.as_deref(), 3).unwrap();
        exported.extend(page.lines.lines().map(|line| {
            let read: tallygate_shared::events::outcome::OutcomeEvent =
                serde_json::from_str(line).unwrap();
            subject(&serde_json::to_value(read).unwrap())
        }));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expect: Vec<_> = newest.into_iter().rev().take(4).collect();
    assert_eq!(exported, expect, "the third request is not before the end of the span");
    month.ledger.export_outcomes(0, 1, Some("nonsense"), 1).unwrap_err();
}

#[test]
fn a_listing_is_filtered_by_dimension_subject_and_outcome() {
    let month = Month::new();
    month.spend(OURS, 1, &json!({ "team": "blue" }));
    month.say(&of(1), &json!({ "label": "merged" }));
    month.say(&of(2), &json!({ "outcome": "rejected" }));
    month.say(&json!({ "session": "s" }), &json!({}));
    for (filter, count) in [
        (json!({ "team": "blue" }), 1),
        (json!({ "label": "merged" }), 1),
        (json!({ "request": id(2) }), 1),
        (json!({ "session": "s" }), 1),
        (json!({ "session": id(2) }), 0),
        (json!({ "outcome": "accepted" }), 2),
        (json!({ "outcome": "rejected" }), 1),
    ] {
        let found = month.ask("outcomes", &json!({ "limit": 9, "filters": filter }));
        assert_eq!(found.len(), count, "{filter}");
    }
    let span = json!({ "limit": 9, "from_ms": DAY_START + 1_000, "to_ms": DAY_START + 2_000 });
    assert_eq!(month.ask("outcomes", &span).len(), 1);
    for query in [json!({ "filters": { "1=1 --": "x" } }), json!({ "group_by": ["model"] })] {
        assert!(month.ledger.query("outcome_summary", &query.to_string()).is_err(), "{query}");
    }
}

#[test]
fn a_month_takes_two_million_outcomes_and_no_more() {
    let month = Month::new();
    month.say(&of(1), &json!({}));
    month.sql.exec("UPDATE outcomes SET row = 1999999", &[]).unwrap();
    assert!(!month.say(&of(2), &json!({})));
    let expect = json!({ "refused": { "place": 0, "why": "full" } });
    assert_eq!(month.record(&[sent(0, &of(3), &json!({}))]), expect);
    assert_eq!(month.list().len(), 2);
}

#[test]
fn a_failed_write_leaves_nothing_of_its_call() {
    let month = Month::new();
    let call = [sent(0, &of(1), &json!({})), sent(1, &of(2), &json!({}))];
    let text = json!(call).to_string();
    let mut statements = 0;
    loop {
        month.sql.fail_after(Some(statements));
        let done = month.sql.transact(|| month.ledger.record_outcomes(&text)).is_ok();
        month.sql.fail_after(None);
        if done {
            break;
        }
        assert!(month.list().is_empty(), "after {statements} statements");
        statements += 1;
    }
    assert!(statements > 2);
    assert_eq!(month.list().len(), 2);
}

#[test]
fn a_ledger_of_the_first_schema_opens_with_its_events_and_takes_outcomes_of_them() {
    let sql = TestSql::new();
    migrate(&sql, &MIGRATIONS[..1]).unwrap();
    let body = event(OURS, 5, &json!({ "team": "blue", "session": "s" })).to_string();
    let insert = "INSERT INTO events (id, at_ms, status, charged_nanos, key, team, body)
        VALUES (?, 1, 200, 5000000000, ?, 'blue', ?)";
    sql.exec(insert, &[Some(&id(5)), Some(OURS), Some(&body)]).unwrap();
    let month = Month { ledger: LedgerObject::open(sql.clone()).unwrap(), sql };
    month.say(&of(5), &json!({}));
    let summary = month.summary(&["team"]);
    assert_eq!((&summary[0]["team"], &summary[0]["cost_usd"]), (&json!("blue"), &json!("5")));
    // The session of an event from before is not known; of one from now on it is.
    month.say(&json!({ "session": "s" }), &json!({}));
    assert_eq!(month.summary(&[])[0]["cost_unknown"], json!(1));
    month.spend(OURS, 6, &json!({ "session": "s" }));
    assert_eq!(month.summary(&[])[0]["cost_usd"], json!("11"));
    LedgerObject::open(month.sql.clone()).unwrap();
}
