//! The Telemetry object over SQLite: what is counted once, and exported until the collector takes it. Each step drops
//! the object and opens it again, so that nothing lives in memory alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::alerts_object::Sender;
use super::telemetry_object::{Ended, Followed, OUTBOX_MAX, Outgoing, TelemetryObject};
use super::telemetry_plan::{CollectorPlan, Signal, TelemetryPlan, seal_context};
use super::test_sql::TestSql;
use crate::admin::call::Step;
use crate::vault::KeyRing;

const RING: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const START: i64 = 1_790_000_000_000;

fn workspace() -> WorkspaceId {
    WorkspaceId::parse("ws_acme").unwrap()
}

fn collector(endpoint: &str) -> CollectorPlan {
    let ring = KeyRing::parse(RING).unwrap();
    let headers = json!({ "authorization": "Bearer collector-secret" }).to_string();
    CollectorPlan {
        endpoint: endpoint.to_owned(),
        headers: Some(ring.seal(&headers, &seal_context(&workspace()), [1; 12]).unwrap()),
        signals: Signal::ALL.into_iter().collect(),
        resource: BTreeMap::new(),
    }
}

fn plan(version: u64, collector: Option<CollectorPlan>) -> TelemetryPlan {
    TelemetryPlan {
        version,
        workspace: workspace(),
        collector,
        providers: BTreeMap::from([("main".to_owned(), "openai".to_owned())]),
        budgets: BTreeSet::from(["all".to_owned()]),
    }
}

fn event(seq: u64) -> Value {
    json!({
        "v": 1, "id": format!("req_{seq:032x}"), "seq": seq, "workspace": "ws_acme",
        "key": "0123456789abcdef", "at": START, "settled_at": START + 1_000 * i64::try_from(seq).unwrap(),
        "key_name": "n", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "test",
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "gpt-5",
        "provider": "main", "model": "gpt-5",
        "attempts": [{ "provider": "main", "model": "gpt-5", "status": 200, "started_ms": 0, "took_ms": 5 }],
        "outcome": "completed", "status": 200,
        "usage": { "source": "reported", "tally": { "tokens": { "input": 10, "output": 5 } } },
        "charged": "0.001", "hold": "0.01", "duration_ms": 400,
    })
}

/// An object in its storage, and a clock.
struct Fixture {
    sql: TestSql,
    now: Timestamp,
}

impl Fixture {
    fn new() -> Self {
        Self { sql: TestSql::new(), now: Timestamp::from_ms(START) }
    }

    fn with_collector() -> Self {
        let fixture = Self::new();
        fixture.configure(&plan(1, Some(collector("https://otlp.example.com"))));
        fixture
    }

    fn open(&self) -> TelemetryObject<TestSql> {
        TelemetryObject::open(self.sql.clone()).unwrap()
    }

    fn configure(&self, plan: &TelemetryPlan) {
        let plan = serde_json::to_string(plan).unwrap();
        self.open().apply_config(&plan, self.now).unwrap();
    }

    fn ingest(&self, meter: &str, events: impl IntoIterator<Item = u64>) {
        let events: Vec<Value> = events.into_iter().map(event).collect();
        let batch = json!({ "meter": meter, "events": events, "waiting": 3 }).to_string();
        self.open().ingest(&batch, self.now).unwrap();
    }

    fn take(&self, signal: &str) -> Option<Outgoing> {
        let ring = KeyRing::parse(RING).unwrap();
        let sender = Sender { ring: &ring, allow_private: false, random: 0 };
        self.open().take(signal, &sender, self.now).unwrap()
    }

    fn ended(&self, signal: &str, ended: &Ended) -> Followed {
        self.open().ended(signal, ended, 0, self.now).unwrap()
    }

    fn answered(&self, signal: &str, status: u16) -> Followed {
        self.ended(signal, &Ended { status: Some(status), ..Ended::default() })
    }

    fn pass(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
    }

    fn ask(&self, method: &str, question: &Value) -> (&'static str, String) {
        match self.open().query(method, &question.to_string(), self.now).unwrap() {
            Step::Respond { content_type, body, .. } => (content_type, body),
            other => panic!("{other:?}"),
        }
    }

    fn page(&self) -> String {
        self.ask("metrics", &json!({})).1
    }

    fn export(&self, signal: &str) -> Value {
        let (_, body) = self.ask("show", &json!({ "shown": {} }));
        serde_json::from_str::<Value>(&body).unwrap()["exports"][signal].clone()
    }
}

fn ids(outgoing: &Outgoing) -> Vec<String> {
    let body: Value = serde_json::from_str(&outgoing.body).unwrap();
    let records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
    let id = |record: &Value| {
        let list = record["attributes"].as_array().unwrap();
        let found = list.iter().find(|entry| entry["key"] == "tallygate.request.id").unwrap();
        found["value"]["stringValue"].as_str().unwrap().trim_start_matches("req_").to_owned()
    };
    records.iter().map(|record| u64::from_str_radix(&id(record), 16).unwrap().to_string()).collect()
}

fn names(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

const REQUESTS: &str = r#"tallygate_requests_total{provider="main",model="gpt-5",operation="chat",outcome="completed"}"#;

#[test]
fn an_event_is_counted_once_however_often_it_comes_and_for_ever() {
    let mut fixture = Fixture::new();
    fixture.ingest("m1", 1..=3);
    fixture.ingest("m1", 2..=4);
    fixture.ingest("m1", 1..=4);
    fixture.ingest("m2", 1..=1);
    assert!(fixture.page().contains(&format!("{REQUESTS} 5\n")), "{}", fixture.page());
    // A Ledger is one month; this is not.
    fixture.pass(400 * DAY_MS);
    fixture.ingest("m1", 5..=5);
    let page = fixture.page();
    assert!(page.contains(&format!("{REQUESTS} 6\n")));
    assert!(page.contains(
        "tallygate_charged_usd_total{provider=\"main\",model=\"gpt-5\",operation=\"chat\"} 0.006\n"
    ));
    assert!(page.contains("tallygate_ledger_outbox_events 6\n"), "3 for each of two Meters");
    assert!(page.contains("tallygate_last_event_timestamp_seconds 1790000005\n"));
}

#[test]
fn a_scrape_says_how_budgets_and_alerts_stand() {
    let mut fixture = Fixture::new();
    let snapshot = |budget: &str, value: &str| {
        json!({
            "workspace": "ws_acme", "budget": budget, "value": value, "owner": "o",
            "window_starts_at": START, "window_ends_at": START + DAY_MS, "limit": "100", "spent": "42.5",
            "held": "0.5", "thresholds": [50], "at": START,
        })
        .to_string()
    };
    fixture.open().budget(&snapshot("all", "")).unwrap();
    fixture.open().budget(&snapshot("each", "ada@example.com")).unwrap();
    let (kind, page) = fixture.ask("metrics", &json!({ "alerts": { "critical": 2, "info": 0 } }));
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(page.contains("tallygate_budget_spent_usd{budget=\"all\"} 42.5\n"));
    assert!(page.contains("tallygate_budget_held_usd{budget=\"all\"} 0.5\n"));
    assert!(page.contains("tallygate_alerts_open{severity=\"critical\"} 2\n"));
    assert!(!page.contains("ada"), "a user is no label");
    let open = fixture.ask("metrics", &json!({ "accept": "application/openmetrics-text" }));
    assert_eq!(open.0, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    // The archives of the Ledgers that were asked, by month; one that has none is no series.
    let archive = json!({ "waiting_hours": 2, "waiting_since": START - 90_000, "written_at": START, "failed": 3,
                          "failures_in_a_row": 1 });
    let ledgers = ["ws_acme:2026-10", "ws_acme:2026-11"];
    let asked = json!({ "ledgers": ledgers, "archives": [null, archive] });
    let (_, page) = fixture.ask("metrics", &asked);
    for line in [
        "tallygate_archive_waiting_hours{month=\"2026-11\"} 2\n",
        "tallygate_archive_consecutive_failures{month=\"2026-11\"} 1\n",
        "tallygate_archive_failures_total{month=\"2026-11\"} 3\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
    assert!(!page.contains("2026-10"), "{page}");
    let (_, page) = fixture.ask("metrics", &json!({ "ledgers": ledgers }));
    assert!(!page.contains("tallygate_archive"), "nobody said");
    // When its window is over and nothing was told of the new one, nothing is spent in that.
    fixture.pass(DAY_MS);
    let page = fixture.page();
    assert!(page.contains("tallygate_budget_spent_usd{budget=\"all\"} 0\n"));
    assert!(!page.contains("tallygate_alerts_open{"), "nobody said");
    // A budget that was removed is no series any more.
    fixture.configure(&TelemetryPlan { budgets: BTreeSet::new(), ..plan(2, None) });
    assert!(!fixture.page().contains("budget=\"all\""));
}

#[test]
fn log_events_are_sent_in_batches_in_order_with_the_secret_headers() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=10);
    assert_eq!(fixture.take("logs"), None, "an event waits a little for company");
    assert_eq!(fixture.open().due(fixture.now).unwrap(), ["metrics"]);
    fixture.pass(2_000);
    let first = fixture.take("logs").unwrap();
    assert_eq!(first.url, "https://otlp.example.com/v1/logs");
    assert_eq!(first.headers["authorization"], "Bearer collector-secret");
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(ids(&first), names(1..=8));
    assert_eq!(fixture.take("logs"), None, "one call at a time");
    assert!(fixture.answered("logs", 200).again);
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(9..=10));
    fixture.answered("logs", 200);
    assert_eq!(fixture.take("logs"), None);
    let export = fixture.export("logs");
    assert_eq!((&export["delivered"], &export["waiting"]), (&json!(10), &json!(0)));
    assert!(!fixture.sql.dump().contains("collector-secret"), "it is stored sealed");
}

#[test]
fn a_collector_that_is_away_loses_nothing_and_is_asked_ever_more_slowly() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=3);
    fixture.pass(2_000);
    let mut waits = Vec::new();
    for status in [503, 502, 504, 429] {
        fixture.take("logs").unwrap();
        let followed = fixture.answered("logs", status);
        assert!(!followed.again);
        assert_eq!(followed.note.as_deref(), Some("not_taken"));
        let due = fixture.open().due(fixture.now).unwrap();
        assert_eq!(due, ["metrics"], "metrics do not wait for logs");
        let next = fixture.export("logs")["next_attempt_at"].as_str().unwrap().to_owned();
        let wait = Timestamp::parse(&next).unwrap().since_ms(fixture.now);
        waits.push(wait);
        fixture.pass(wait - 1);
        assert_eq!(fixture.take("logs"), None, "not before its time");
        fixture.pass(1);
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000]);
    fixture.take("logs").unwrap();
    let asked =
        Ended { status: Some(503), retry_after: Some("120".to_owned()), ..Ended::default() };
    fixture.ended("logs", &asked);
    fixture.pass(119_999);
    assert_eq!(fixture.take("logs"), None, "Retry-After is honoured");
    fixture.pass(1);
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(1..=3));
    fixture.answered("logs", 200);
    let export = fixture.export("logs");
    assert_eq!((&export["delivered"], &export["dropped"]), (&json!(3), &json!(0)));
    assert_eq!(export["failures"], json!(0));
}

#[test]
fn what_has_no_room_is_counted_as_dropped_oldest_first() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=OUTBOX_MAX + 5);
    let export = fixture.export("logs");
    assert_eq!((&export["waiting"], &export["dropped"]), (&json!(OUTBOX_MAX), &json!(5)));
    assert!(fixture.page().contains("tallygate_telemetry_dropped_total{signal=\"logs\"} 5\n"));
    fixture.pass(2_000);
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(6..=13));
    assert!(
        fixture.page().contains(&format!("{REQUESTS} {}\n", OUTBOX_MAX + 5)),
        "counted all the same"
    );
}

#[test]
fn what_a_collector_refuses_for_good_is_dropped_and_not_repeated() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=2);
    fixture.pass(2_000);
    fixture.take("logs").unwrap();
    let followed = fixture.answered("logs", 400);
    assert_eq!(followed.note.as_deref(), Some("refused, dropped 2"));
    assert_eq!(fixture.take("logs"), None);
    let export = fixture.export("logs");
    assert_eq!((&export["dropped"], &export["status"]), (&json!(2), &json!(400)));
}

#[test]
fn a_batch_that_is_too_large_is_cut_in_two() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=5);
    fixture.pass(2_000);
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(1..=5));
    assert!(fixture.answered("logs", 413).again);
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(1..=2));
    fixture.answered("logs", 413);
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(1..=1));
    fixture.answered("logs", 413);
    assert_eq!(fixture.export("logs")["dropped"], json!(1), "one alone that is too large");
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(2..=2));
}

#[test]
fn a_partial_success_is_told_and_not_repeated() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=3);
    fixture.pass(2_000);
    fixture.take("logs").unwrap();
    let body = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
    let ended = Ended { status: Some(200), body: body.to_owned(), ..Ended::default() };
    let followed = fixture.ended("logs", &ended);
    assert_eq!(followed.note.as_deref(), Some("partial_success, rejected 2"));
    assert_eq!(fixture.take("logs"), None);
    let export = fixture.export("logs");
    assert_eq!((&export["delivered"], &export["dropped"]), (&json!(1), &json!(2)));
    assert_eq!(export["error"], json!("rejected 2: too old"));
}

#[test]
fn metrics_are_a_picture_of_everything_once_a_minute_while_they_change() {
    let mut fixture = Fixture::with_collector();
    assert_eq!(fixture.take("metrics"), None, "nothing was counted");
    fixture.ingest("m1", 1..=2);
    let first = fixture.take("metrics").unwrap();
    assert_eq!(first.url, "https://otlp.example.com/v1/metrics");
    assert!(first.body.contains("gen_ai.client.token.usage"));
    // One that is lost costs nothing: the next one has it all.
    assert!(!fixture.answered("metrics", 503).again);
    fixture.ingest("m1", 3..=3);
    fixture.pass(500);
    let second = fixture.take("metrics").unwrap();
    assert!(second.body.contains(r#""asInt":"3""#), "{}", second.body);
    fixture.answered("metrics", 200);
    fixture.ingest("m1", 4..=4);
    fixture.pass(59_999);
    assert_eq!(fixture.take("metrics"), None);
    fixture.pass(1);
    assert!(fixture.take("metrics").unwrap().body.contains(r#""asInt":"4""#));
    fixture.answered("metrics", 200);
    fixture.pass(DAY_MS);
    assert_eq!(fixture.take("metrics"), None, "nothing changed");
    assert_eq!(fixture.export("metrics")["delivered"], json!(2));
}

#[test]
fn an_attempt_whose_end_was_never_heard_is_made_again() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=2);
    fixture.pass(2_000);
    let first = fixture.take("logs").unwrap();
    fixture.pass(59_999);
    assert_eq!(fixture.take("logs"), None);
    fixture.pass(1);
    assert_eq!(ids(&fixture.take("logs").unwrap()), ids(&first));
}

#[test]
fn a_wrong_token_keeps_the_events_until_it_is_corrected() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=2);
    fixture.pass(2_000);
    fixture.take("logs").unwrap();
    fixture.answered("logs", 401);
    fixture.pass(60_000);
    assert_eq!(fixture.take("logs"), None, "asked at the slowest pace");
    fixture.configure(&plan(2, Some(collector("https://other.example.com"))));
    let again = fixture.take("logs").unwrap();
    assert_eq!(again.url, "https://other.example.com/v1/logs");
    assert_eq!(ids(&again), names(1..=2));
    // An older plan that comes late changes nothing.
    fixture.configure(&plan(1, None));
    assert!(fixture.answered("logs", 200).again);
    assert_eq!(fixture.export("logs")["delivered"], json!(2));
}

#[test]
fn an_answer_to_what_the_old_configuration_sent_counts_for_nothing() {
    let mut fixture = Fixture::with_collector();
    fixture.ingest("m1", 1..=2);
    fixture.pass(2_000);
    fixture.take("logs").unwrap();
    fixture.configure(&plan(2, Some(collector("https://other.example.com"))));
    assert_eq!(fixture.answered("logs", 200), Followed::default());
    assert_eq!(ids(&fixture.take("logs").unwrap()), names(1..=2), "the new one gets them");
}

#[test]
fn without_a_collector_nothing_waits() {
    let fixture = Fixture::new();
    fixture.ingest("m1", 1..=3);
    assert_eq!(fixture.open().alarm_at().unwrap(), None);
    assert!(!fixture.page().contains("signal="));
    fixture.configure(&plan(1, Some(collector("https://otlp.example.com"))));
    assert_eq!(fixture.export("logs")["waiting"], json!(0), "events from then on");
    fixture.ingest("m1", 4..=6);
    fixture.configure(&plan(2, None));
    assert_eq!(fixture.open().alarm_at().unwrap(), None);
    fixture.configure(&plan(3, Some(collector("https://otlp.example.com"))));
    assert_eq!(fixture.export("logs")["waiting"], json!(0), "what waited was let go");
}

#[test]
fn a_private_address_is_refused_at_the_last_moment_too() {
    let mut fixture = Fixture::new();
    fixture.configure(&plan(1, Some(collector("https://169.254.169.254"))));
    fixture.ingest("m1", 1..=1);
    fixture.pass(2_000);
    assert_eq!(fixture.take("logs"), None);
    assert_eq!(fixture.export("logs")["error"], json!("address_not_allowed"));
}
