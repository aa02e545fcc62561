//! Outcomes keep their costs when their events go, in whatever order things come.

use serde_json::{Value, json};
use tallygate_shared::time::Timestamp;

use super::ledger_archive::Job;
use super::ledger_object::{LedgerObject, MIGRATIONS};
use super::ledger_outcomes_tests::{Month, of};
use super::ledger_released::RELEASED;
use super::migrations::migrate;
use super::sql::Sql;
use super::test_sql::TestSql;

const OURS: &str = "0000000000000001";
const THEIRS: &str = "0000000000000002";

/// Lets the oldest events go but so many.
fn keep(month: &Month, events: u64) {
    month.sql.transact(|| month.ledger.prune(events)).unwrap();
}

fn session(name: &str) -> Value {
    json!({ "session": name })
}

/// What is known of costs as a whole, and by label.
fn costs(month: &Month) -> [Vec<Value>; 2] {
    [month.summary(&[]), month.summary(&["label"])]
}

fn models(month: &Month) -> Vec<Value> {
    let by = json!({ "group_by": ["provider", "model"] });
    let outcome =
        |row: &Value| [&row["group"], &row["accepted"], &row["outcome_cost"]].map(Value::clone);
    month.ask("model_performance", &by).iter().map(|row| json!(outcome(row))).collect()
}

/// Requests of 1, 2, 4, 8, 16 and 32 dollars: of two sessions, of none, and of another's session of the same name.
fn spend(month: &Month) {
    for (n, name) in [(1, "s"), (2, "s"), (4, "other"), (8, "s")] {
        month.spend(OURS, n, &session(name));
    }
    month.spend(OURS, 16, &json!({}));
    month.spend(THEIRS, 32, &session("s"));
}

fn say(month: &Month) {
    month.say(&session("s"), &json!({}));
    month.say(&session("s"), &json!({ "label": "merged", "outcome": "rejected" }));
    month.say(&of(2), &json!({ "label": "merged" }));
    month.say(&of(4), &json!({}));
    month.say(&of(16), &json!({ "outcome": "rejected" }));
}

#[test]
fn what_outcomes_cost_stays_when_their_events_go_one_after_another() {
    for said_first in [true, false] {
        let month = Month::new();
        if said_first {
            say(&month);
        }
        spend(&month);
        if !said_first {
            say(&month);
        }
        let (before, by_model) = (costs(&month), models(&month));
        assert_eq!(before[0][0]["cost_usd"], "31");
        assert_eq!(before[0][0]["requests"], 5);
        for left in (0..6).rev() {
            keep(&month, left);
            assert_eq!(costs(&month), before, "{left} left");
            assert_eq!(models(&month), by_model, "{left} left");
        }
        // What is said of them again changes what it changes, and no cost.
        month.say(&of(2), &json!({ "label": "again" }));
        let whole = &month.summary(&[])[0];
        assert_eq!((&whole["accepted"], &whole["cost_usd"]), (&json!(4), &json!("31")));
        assert_eq!(whole["cost_unknown"], 0);
    }
}

#[test]
fn an_outcome_that_comes_when_its_event_is_gone_has_no_known_cost() {
    let month = Month::new();
    spend(&month);
    keep(&month, 0);
    say(&month);
    let whole = &month.summary(&[])[0];
    assert_eq!((&whole["cost_unknown"], &whole["accepted_cost_unknown"]), (&json!(5), &json!(3)));
    assert_eq!((&whole["requests"], &whole["cost_usd"]), (&json!(0), &json!("0")));
    assert_eq!(month.ledger_says("accepted_cost_unknown"), 3);
}

#[test]
fn a_session_of_which_a_part_is_gone_has_no_known_cost_but_its_requests_outcomes_have() {
    let month = Month::new();
    spend(&month);
    // The first request of the session goes, before anybody says anything.
    keep(&month, 5);
    month.say(&session("s"), &json!({}));
    month.say(&of(2), &json!({}));
    let expect =
        [json!({ "accepted": 2, "rejected": 0, "value_usd": "0", "requests": 1, "cost_usd": "2",
                          "cost_unknown": 1, "accepted_cost_unknown": 1 })];
    assert_eq!(month.summary(&[]), expect);
    keep(&month, 0);
    assert_eq!(month.summary(&[]), expect);
    assert_eq!(month.ledger_says("accepted_cost_unknown"), 1);
    // Another key's session of that name is whole until it goes.
    let rows = month.sql.exec("SELECT session, key FROM cut_sessions ORDER BY key", &[]).unwrap();
    let cut: Vec<_> = rows.iter().map(|row| row[1].as_deref().unwrap()).collect();
    assert_eq!(cut, [OURS, OURS, THEIRS]);
}

#[test]
fn a_session_that_is_told_of_goes_on_after_its_first_events_are_gone() {
    let month = Month::new();
    month.spend(OURS, 1, &session("s"));
    month.say(&session("s"), &json!({}));
    keep(&month, 0);
    month.spend(OURS, 2, &session("s"));
    assert_eq!(month.summary(&[])[0]["cost_usd"], "3");
    keep(&month, 0);
    let whole = &month.summary(&[])[0];
    assert_eq!((&whole["requests"], &whole["cost_usd"]), (&json!(2), &json!("3")));
    assert_eq!(whole["cost_unknown"], 0);
    // One row holds a session's requests of one model, however many.
    let rows = month.sql.exec("SELECT id, CAST(requests AS TEXT) FROM released", &[]).unwrap();
    assert_eq!(rows, [[Some(String::new()), Some("2".to_owned())]]);
}

#[test]
fn a_request_that_went_with_its_session_has_no_known_cost_of_its_own() {
    let month = Month::new();
    month.spend(OURS, 1, &session("s"));
    month.say(&session("s"), &json!({}));
    keep(&month, 0);
    month.say(&of(1), &json!({}));
    let whole = &month.summary(&[])[0];
    assert_eq!((&whole["requests"], &whole["cost_usd"]), (&json!(1), &json!("1")));
    assert_eq!(whole["cost_unknown"], 1);
}

#[test]
fn what_outcomes_cost_stays_when_the_archive_has_their_events() {
    let sql = TestSql::new();
    let ledger = LedgerObject::open(sql.clone()).unwrap().with_limits(Some(0), true);
    let month = Month { sql, ledger };
    spend(&month);
    say(&month);
    let (before, by_model) = (costs(&month), models(&month));
    let now = Timestamp::parse("2026-11-20T03:00:00Z").unwrap();
    while let Some(Job::Write { part, .. }) = month.ledger.archive("ws_acme:2026-11", now).unwrap()
    {
        month.sql.transact(|| month.ledger.written(part.n, 1, now)).unwrap();
    }
    assert_eq!(month.sql.exec("SELECT id FROM events", &[]).unwrap().len(), 0);
    assert_eq!((costs(&month), models(&month)), (before, by_model));
}

#[test]
fn a_session_that_had_lost_requests_before_this_was_kept_has_no_known_cost() {
    let sql = TestSql::new();
    let step = MIGRATIONS.iter().position(|step| *step == RELEASED).unwrap();
    migrate(&sql, &MIGRATIONS[..step]).unwrap();
    for (name, requests) in [("cut", 2), ("whole", 1)] {
        let event = format!(
            "INSERT INTO events (id, at_ms, status, charged_nanos, key, body, session)
             VALUES ('{name}', 1, 200, 1, '{OURS}', '{{}}', '{name}')"
        );
        sql.exec(&event, &[]).unwrap();
        let sums = format!(
            "INSERT INTO conversations (session, key, last_ms, charged_nanos, growth, requests, body)
             VALUES ('{name}', '{OURS}', 1, 1, 0, {requests}, '{{}}')"
        );
        sql.exec(&sums, &[]).unwrap();
    }
    let month = Month { ledger: LedgerObject::open(sql.clone()).unwrap(), sql };
    month.say(&session("cut"), &json!({}));
    month.say(&session("whole"), &json!({}));
    let whole = &month.summary(&[])[0];
    assert_eq!((&whole["requests"], &whole["cost_unknown"]), (&json!(1), &json!(1)));
}

impl Month {
    /// A number of the answer about models.
    fn ledger_says(&self, name: &str) -> u64 {
        let answer = self.ledger.query("model_performance", "{}").unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()[name].as_u64().unwrap()
    }
}
