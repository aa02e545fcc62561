//! The loop breaker in a Meter and behind the admin API: refusals, books, restarts, and a person who clears.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::budget::loop_breaker::shape::RequestShape;
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::Usage;

use super::meter_budgets::Progress;
use super::meter_object::MeterObject;
use super::sql::Sql;
use super::test_shell::Shell;
use super::test_sql::TestSql;
use crate::request::calls::{AdmitAnswer, AdmitCall, Settlement, Ticket};
use crate::request::status::status_of;
use crate::vault::KeyRing;

const SECRET: &str = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";

/// A Meter whose key fixes the agent `writer`.
struct Run {
    sql: TestSql,
    meter: MeterObject<TestSql>,
    now: Timestamp,
    count: u64,
}

impl Run {
    fn new(loop_breaker: &Value) -> Self {
        let (sql, ring) = (TestSql::new(), KeyRing::default());
        let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let mut meter = MeterObject::open(sql.clone(), &ring, 1, now).unwrap();
        let plan = json!({
            "version": 1, "workspace": "ws_a", "key": "0123456789abcdef", "status": "active",
            "owner": { "name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e",
                       "actor": { "agent": "writer" } },
            "secrets": [{ "sha256": SECRET }],
            "policy": { "loop_breaker": loop_breaker },
            "providers": [{ "name": "openai", "kind": "openai", "base_url": "http://localhost" }],
        });
        meter.apply_plan(&plan.to_string(), &ring).unwrap();
        Self { sql, meter, now, count: 0 }
    }

    fn reopen(&mut self) {
        self.meter = MeterObject::open(self.sql.clone(), &KeyRing::default(), 2, self.now).unwrap();
    }

    fn admit(&mut self, fingerprint: u64) -> Result<Ticket, Refusal> {
        self.count += 1;
        let call = call(SECRET, fingerprint, self.count, self.now);
        match self.meter.admit(&call, Progress::default(), self.now).unwrap() {
            AdmitAnswer::Admit(admitted) => Ok(admitted.ticket),
            AdmitAnswer::Refuse { refusal, .. } => Err(*refusal),
            AdmitAnswer::Ask { .. } => panic!("this key has no shared budget"),
        }
    }

    fn ask(&mut self, fingerprint: u64, outcome: Outcome) -> Result<(), Refusal> {
        let ticket = self.admit(fingerprint)?;
        self.now = self.now.plus_ms(1_000);
        self.meter.settle(settlement(ticket, outcome), self.now).unwrap();
        Ok(())
    }

    fn events(&self) -> Vec<UsageEvent> {
        let rows = self.sql.exec("SELECT body FROM events ORDER BY seq", &[]).unwrap();
        rows.iter().map(|row| serde_json::from_str(row[0].as_deref().unwrap()).unwrap()).collect()
    }
}

fn call(secret: &str, fingerprint: u64, count: u64, now: Timestamp) -> AdmitCall {
    let mut seed = [0; 10];
    seed[..8].copy_from_slice(&count.to_be_bytes());
    AdmitCall {
        id: RequestId::mint(now, &seed),
        key_sha256: secret.to_owned(),
        facts: RequestFacts {
            endpoint: "/v1/chat/completions".to_owned(),
            model: "gpt-6-sol".to_owned(),
            has_output: true,
            input_tokens: 100,
            max_output_tokens: Some(100),
            choices: 1,
            shape: Some(RequestShape { fingerprint, ..RequestShape::default() }),
            ..RequestFacts::default()
        },
        stream: false,
        actor_token: None,
        labels: BTreeMap::new(),
        draw: "0".to_owned(),
        trace: None,
    }
}

fn settlement(ticket: Ticket, outcome: Outcome) -> Settlement {
    Settlement {
        ticket,
        outcome,
        code: None,
        status: 200,
        provider: None,
        model: None,
        response_model: None,
        provider_request_id: None,
        attempts: Vec::new(),
        usage: Usage::Absent,
        cost: None,
        duration_ms: 1,
        first_byte_ms: None,
    }
}

#[test]
fn a_loop_is_refused_with_its_evidence_and_the_books_say_so() {
    let mut run = Run::new(&json!({ "repeats": 3 }));
    for _ in 0..3 {
        run.ask(7, Outcome::Completed).unwrap();
    }
    let refusal = run.admit(7).unwrap_err();
    assert_eq!((refusal.code(), status_of(&refusal)), ("loop_detected", 429));
    assert_eq!(refusal.retry_after_ms(), Some(60_000));
    let facts = Value::from(refusal.facts());
    assert_eq!(facts["agent"], "writer");
    assert_eq!(facts["until"], "2026-11-20T12:01:03.000Z");
    let evidence = json!({ "kind": "repeated_request", "times": 3, "window_seconds": 300 });
    assert_eq!(facts["evidence"], evidence);
    let charged: Vec<_> = run.events().iter().map(|event| event.charged).collect();
    let total = charged.iter().fold(Usd::ZERO, |sum, one| sum.saturating_add(*one));
    assert_eq!((charged.len(), &facts["spent_usd"]), (3, &json!(total)));
    assert!(total > Usd::ZERO);
    // No hold is left behind, and the refusal is an event.
    assert_eq!(run.meter.state(run.now).unwrap().in_flight, 0);
    run.meter.wake(run.now).unwrap();
    let last = run.events().pop().unwrap();
    assert_eq!((last.outcome, last.code.as_deref()), (Outcome::Refused, Some("loop_detected")));
    let decided = last.decided.unwrap();
    assert_eq!(decided.refused_by.as_deref(), Some("loop_breaker"));
    assert!(decided.load.is_some(), "it can be decided again");
    assert_eq!(last.actor.agent.as_deref(), Some("writer"));
}

#[test]
fn a_restart_keeps_a_loop_stopped_and_the_cool_down_ends_all_the_same() {
    let mut run = Run::new(&json!({ "repeats": 3 }));
    while run.ask(7, Outcome::Completed).is_ok() {}
    run.reopen();
    assert_eq!(run.admit(8).unwrap_err().code(), "loop_detected");
    run.now = run.now.plus_ms(60_000);
    run.reopen();
    run.ask(7, Outcome::Completed).unwrap();
    let again = run.admit(7).unwrap_err();
    assert_eq!(again.retry_after_ms(), Some(120_000), "twice as long, also across restarts");
    run.now = run.now.plus_ms(10 * 60_000);
    run.meter.wake(run.now).unwrap();
    let rows = run.sql.exec("SELECT scope FROM loop_trips", &[]).unwrap();
    assert!(rows.is_empty(), "what is forgotten is not kept");
}

#[test]
fn failures_never_trip_and_a_switched_off_breaker_watches_nothing() {
    let mut run = Run::new(&json!({ "repeats": 3 }));
    for outcome in [Outcome::ProviderError, Outcome::ProviderDied, Outcome::ClientGone] {
        for _ in 0..10 {
            run.ask(7, outcome).unwrap();
        }
    }
    let mut run = Run::new(&json!({ "repeats": 3, "enabled": false }));
    for _ in 0..20 {
        run.ask(7, Outcome::Completed).unwrap();
    }
}

#[test]
fn a_trip_that_could_not_be_stored_is_stored_with_the_next_request() {
    let mut run = Run::new(&json!({ "repeats": 3 }));
    for _ in 0..3 {
        run.ask(7, Outcome::Completed).unwrap();
    }
    run.sql.fail_after(Some(0));
    let failed = run.meter.admit(&call(SECRET, 7, 99, run.now), Progress::default(), run.now);
    assert!(failed.is_err(), "the request is refused as `meter_unavailable`");
    run.sql.fail_after(None);
    assert_eq!(run.admit(7).unwrap_err().code(), "loop_detected");
    run.reopen();
    assert_eq!(run.admit(7).unwrap_err().code(), "loop_detected");
}

#[test]
fn an_admin_lists_loops_and_clears_one() {
    let (shell, token) = Shell::with_workspace();
    let ask = |method: &str, path: &str, body: &Value| {
        shell.call(method, &format!("/workspaces/ws_acme{path}"), &token, body)
    };
    let key = json!({ "name": "k", "owner": "ada", "cost_centre": "r&d", "purpose": "tests", "environment": "test",
        "policy": { "loop_breaker": { "repeats": 2, "watch": "key" } } });
    let (status, issued) = ask("POST", "/keys", &key);
    assert_eq!(status, 201, "{issued}");
    let id = issued["id"].as_str().unwrap();
    let secret =
        tallygate_shared::identity::gateway_key::GatewayKey::parse(issued["key"].as_str().unwrap());
    let secret = secret.unwrap().secret_hash().as_str().to_owned();
    let mut meter = shell.meter(id);
    for count in 0..3 {
        let now = shell.now();
        let answer = meter.admit(&call(&secret, 7, count, now), Progress::default(), now).unwrap();
        let AdmitAnswer::Admit(admitted) = answer else {
            assert_eq!(count, 2);
            break;
        };
        shell.now.set(shell.now.get() + 1_000);
        meter.settle(settlement(admitted.ticket, Outcome::Completed), shell.now()).unwrap();
    }
    let (_, loops) = ask("GET", &format!("/keys/{id}/loops"), &Value::Null);
    let listed = &loops["data"][0];
    assert_eq!((&listed["scope"], &listed["state"]), (&json!("key"), &json!("open")));
    assert_eq!(listed["evidence"]["times"], 2);
    let one = format!("/keys/{id}/loops/key");
    let (status, cleared) = ask("DELETE", &one, &Value::Null);
    assert_eq!((status, &cleared["cleared"]), (200, &json!(true)));
    let (_, again) = ask("DELETE", &one, &Value::Null);
    assert_eq!(again["cleared"], false);
    let (_, loops) = ask("GET", &format!("/keys/{id}/loops"), &Value::Null);
    assert_eq!(loops["data"], json!([]));
    let (_, audit) = ask("GET", "/audit", &Value::Null);
    assert_eq!(audit["data"][0]["act"], "loop_cleared");
    assert_eq!(audit["data"][0]["path"], format!("keys.{id}.loops.key"));
    for missing in [format!("/keys/{id}/loops/nonsense"), "/keys/0123456789abcdef/loops/key".into()]
    {
        assert_eq!(ask("DELETE", &missing, &Value::Null).0, 404, "{missing}");
    }
    let bad = json!({ "loop_breaker": { "repeats": 1 } });
    let (status, problem) = ask("PUT", "/policies/p", &bad);
    assert_eq!(status, 422);
    assert_eq!(problem["errors"][0]["field"], "policies.p.loop_breaker.repeats", "{problem}");
}
