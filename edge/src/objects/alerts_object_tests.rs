//! The Alerts object over SQLite: what is looked at once, told once, and sent until it arrives. Each step drops the
//! object and opens it again, so that nothing lives in memory alone.

use serde_json::{Value, json};
use tallygate_shared::alerts::alert::{AlertKind, Severity};
use tallygate_shared::alerts::rules::AlertRules;
use tallygate_shared::alerts::webhook::WebhookSecret;
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::{DAY_MS, HOUR_MS, Timestamp};

use super::alerts_object::{AlertsObject, Ended, Outgoing, Sender};
use super::alerts_plan::{AlertsPlan, ReceiverKind, ReceiverPlan, SealedSecret, seal_context};
use super::test_sql::TestSql;
use crate::admin::call::Step;
use crate::vault::KeyRing;

const RING: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const START: i64 = 1_763_632_800_000;

fn ring() -> KeyRing {
    KeyRing::parse(RING).unwrap()
}

fn workspace() -> WorkspaceId {
    WorkspaceId::parse("ws_acme").unwrap()
}

fn secret(receiver: &str, text: &str, nonce: u8) -> SealedSecret {
    let sealed = ring().seal(text, &seal_context(&workspace(), receiver), [nonce; 12]).unwrap();
    SealedSecret { sealed, expires_at: None }
}

fn hook(name: &str) -> ReceiverPlan {
    ReceiverPlan {
        kind: ReceiverKind::StandardWebhook,
        url: Some(format!("https://{name}.example.com/hook")),
        secrets: vec![secret(name, &WebhookSecret::mint(&[7; 32]).reveal(), 1)],
        min_severity: Severity::Info,
        kinds: Vec::new(),
        enabled: true,
    }
}

fn plan(version: u64, receivers: &[(&str, ReceiverPlan)]) -> AlertsPlan {
    AlertsPlan {
        version,
        workspace: workspace(),
        rules: AlertRules::default(),
        dashboard_url: None,
        weekly_review: None,
        receivers: receivers
            .iter()
            .map(|(name, plan)| ((*name).to_owned(), plan.clone()))
            .collect(),
        keys: Vec::new(),
    }
}

fn event(seq: u64, model: &str) -> Value {
    json!({
        "v": 1, "id": format!("req_{seq:032x}"), "seq": seq, "workspace": "ws_acme",
        "key": "0123456789abcdef", "at": START, "settled_at": START, "key_name": "ci",
        "owner": "ann", "cost_centre": "", "purpose": "", "environment": "",
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": model,
        "provider": "openai", "model": model, "outcome": "completed", "status": 200,
        "usage": {"source": "reported", "tally": {}},
        "cost": {"total": "0.01", "parts": {}, "price": {}},
        "charged": "0.01", "hold": "0.02", "duration_ms": 5,
    })
}

struct Bench {
    sql: TestSql,
    now: Timestamp,
    allow_private: bool,
}

impl Bench {
    fn new(receivers: &[(&str, ReceiverPlan)]) -> Self {
        let bench =
            Self { sql: TestSql::new(), now: Timestamp::from_ms(START), allow_private: false };
        bench.configure(&plan(1, receivers));
        bench
    }

    fn with<T>(&self, work: impl FnOnce(&mut AlertsObject<TestSql>) -> T) -> T {
        let opened = AlertsObject::open(self.sql.clone()).unwrap();
        let mut object = opened;
        work(&mut object)
    }

    fn configure(&self, plan: &AlertsPlan) {
        let text = serde_json::to_string(plan).unwrap();
        self.with(|alerts| alerts.apply_config(&text, self.now)).unwrap();
    }

    fn ingest(&self, events: &[Value]) -> u64 {
        let batch = json!({"meter": "0123456789abcdef", "events": events}).to_string();
        self.with(|alerts| alerts.ingest(&batch, self.now)).unwrap()
    }

    fn take(&self, receiver: &str) -> Option<Outgoing> {
        let ring = ring();
        let sender = Sender { ring: &ring, allow_private: self.allow_private, random: 0 };
        self.with(|alerts| alerts.take(receiver, &sender, self.now)).unwrap()
    }

    fn answer(&self, id: &str, status: Option<u16>) -> bool {
        let error = status.is_none().then(|| "timeout".to_owned());
        let ended = Ended { status, error };
        self.with(|alerts| alerts.delivered(id, &ended, 0, self.now)).unwrap()
    }

    fn advance(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
        self.with(|alerts| alerts.wake(self.now)).unwrap();
    }

    fn ask(&self, method: &str, payload: &Value) -> (u16, Value) {
        let payload = payload.as_str().map_or_else(|| payload.to_string(), str::to_owned);
        match self.with(|alerts| alerts.query(method, &payload, self.now)).unwrap() {
            Step::Respond { status, body, .. } => (status, serde_json::from_str(&body).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn deliveries(&self) -> Vec<(String, String)> {
        let (_, page) = self.ask("deliveries", &json!({"limit": 100}));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let deliveries = page["data"].as_array().unwrap();
        deliveries.iter().map(|it| (text(&it["receiver"]), text(&it["state"]))).collect()
    }
}

#[test]
fn an_event_is_looked_at_once() {
    let bench = Bench::new(&[("ops", hook("ops"))]);
    assert_eq!(bench.ingest(&[event(1, "gpt"), event(2, "gpt")]), 2);
    assert_eq!(bench.ingest(&[event(1, "gpt"), event(2, "gpt"), event(3, "other")]), 3);
    let (_, page) = bench.ask("list", &json!({"limit": 10}));
    let mut titles: Vec<_> =
        page["data"].as_array().unwrap().iter().map(|it| it["title"].as_str().unwrap()).collect();
    titles.sort_unstable();
    let expected =
        ["gpt", "other"].map(|m| format!("Model openai/{m} was used for the first time"));
    assert_eq!(titles, expected);
    assert_eq!(bench.deliveries().len(), 2);
}

#[test]
fn a_failed_look_leaves_nothing_behind() {
    let bench = Bench::new(&[("ops", hook("ops"))]);
    let batch = json!({"meter": "0123456789abcdef", "events": [event(1, "gpt")]}).to_string();
    for statements in 0..40 {
        let before = bench.sql.dump();
        let mut alerts = AlertsObject::open(bench.sql.clone()).unwrap();
        bench.sql.fail_after(Some(statements));
        let looked = bench.sql.transact(|| alerts.ingest(&batch, bench.now));
        bench.sql.fail_after(None);
        match looked {
            Err(_) => assert_eq!(bench.sql.dump(), before),
            Ok(_) => {
                assert_eq!(bench.deliveries().len(), 1);
                return;
            }
        }
    }
    panic!("it never got through");
}

#[test]
fn a_message_is_signed_and_says_what_was_found() {
    let bench = Bench::new(&[("ops", hook("ops"))]);
    bench.ingest(&[event(1, "gpt")]);
    let sent = bench.take("ops").unwrap();
    assert_eq!(sent.url, "https://ops.example.com/hook");
    let header = |name: &str| sent.headers.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    let signature = WebhookSecret::mint(&[7; 32]).sign(&sent.id, bench.now, &sent.body);
    assert_eq!(header("webhook-signature"), signature);
    assert_eq!(header("webhook-id"), sent.id);
    let body: Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(body["type"], "alert.opened");
    assert_eq!(body["data"]["alert"]["kind"], "new_model");
    // While it is on its way it is not due; once it arrived it never is.
    assert_eq!(bench.take("ops"), None);
    assert!(bench.answer(&sent.id, Some(204)));
    assert_eq!(bench.deliveries(), [("ops".to_owned(), "delivered".to_owned())]);
    assert!(!bench.sql.dump().contains("whsec_"));
}

#[test]
fn an_attempt_without_an_end_is_repeated_with_the_same_id() {
    let mut bench = Bench::new(&[("ops", hook("ops"))]);
    bench.ingest(&[event(1, "gpt")]);
    let first = bench.take("ops").unwrap();
    bench.advance(59_999);
    assert_eq!(bench.take("ops"), None);
    bench.advance(1);
    let again = bench.take("ops").unwrap();
    assert_eq!((again.id, again.body), (first.id, first.body));
}

#[test]
fn retries_follow_the_schedule_and_end_parked_and_by_hand() {
    let mut bench = Bench::new(&[("ops", hook("ops"))]);
    bench.ingest(&[event(1, "gpt")]);
    let waits = [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
    let mut id = String::new();
    for (attempt, wait) in waits.into_iter().enumerate() {
        if wait > 0 {
            bench.advance(wait * 1000 - 1);
            assert_eq!(bench.take("ops"), None, "attempt {attempt} is too early");
            bench.advance(1);
        }
        id = bench.take("ops").unwrap().id;
        assert!(!bench.answer(&id, if attempt % 2 == 0 { None } else { Some(500) }));
    }
    assert_eq!(bench.deliveries(), [("ops".to_owned(), "failed".to_owned())]);
    bench.advance(DAY_MS);
    assert_eq!(bench.take("ops"), None);
    let (status, shown) = bench.ask("redeliver", &json!({"id": id}));
    assert_eq!((status, shown["state"].as_str()), (200, Some("pending")));
    assert_eq!(bench.take("ops").unwrap().id, id);
    assert!(bench.answer(&id, Some(200)));
    assert_eq!(bench.ask("redeliver", &json!({"id": "msg_unknown"})).0, 404);
}

#[test]
fn a_dead_receiver_delays_no_other() {
    let bench = Bench::new(&[("dead", hook("dead")), ("live", hook("live"))]);
    for seq in 1..=3 {
        bench.ingest(&[event(seq, &format!("model-{seq}"))]);
        let dead = bench.take("dead").unwrap();
        bench.answer(&dead.id, None);
        let live = bench.take("live").unwrap();
        assert!(bench.answer(&live.id, Some(200)));
    }
    let pending = bench.deliveries().into_iter().filter(|(_, state)| state == "pending");
    assert!(pending.clone().all(|(receiver, _)| receiver == "dead"));
    assert_eq!(pending.count(), 3);
}

#[test]
fn a_receiver_that_is_gone_is_left_alone_until_it_is_changed_or_tested() {
    let bench = Bench::new(&[("ops", hook("ops"))]);
    bench.ingest(&[event(1, "a"), event(2, "b")]);
    let first = bench.take("ops").unwrap();
    assert!(!bench.answer(&first.id, Some(410)));
    bench.ingest(&[event(3, "c")]);
    let failed = ("ops".to_owned(), "failed".to_owned());
    assert_eq!(bench.deliveries(), [failed.clone(), failed]);
    let (_, shown) = bench.ask("receivers", &json!([{"name": "ops"}]));
    assert_eq!(shown["data"][0], json!({"name": "ops", "gone": true, "waiting": 0}));
    assert_eq!(bench.ask("redeliver", &json!({"id": first.id})).0, 409);
    let arrived = Ended { status: Some(200), error: None };
    bench.with(|alerts| alerts.tested("ops", &arrived)).unwrap();
    assert_eq!(bench.ask("redeliver", &json!({"id": first.id})).0, 200);
    assert!(!bench.answer(&bench.take("ops").unwrap().id, Some(410)));
    let moved = ReceiverPlan { url: Some("https://new.example.com/".to_owned()), ..hook("ops") };
    bench.configure(&plan(2, &[("ops", moved)]));
    bench.ingest(&[event(4, "d")]);
    assert_eq!(bench.take("ops").unwrap().url, "https://new.example.com/");
}

#[test]
fn while_a_secret_is_replaced_both_sign_and_later_one() {
    let mut bench = Bench::new(&[]);
    let (old, new) = (WebhookSecret::mint(&[1; 32]), WebhookSecret::mint(&[2; 32]));
    let mut receiver = hook("ops");
    let until = Some(bench.now.plus_ms(HOUR_MS));
    let old_sealed = SealedSecret { expires_at: until, ..secret("ops", &old.reveal(), 2) };
    receiver.secrets = vec![secret("ops", &new.reveal(), 3), old_sealed];
    bench.configure(&plan(2, &[("ops", receiver)]));
    let signatures = |bench: &Bench, seq: u64, model: &str| {
        bench.ingest(&[event(seq, model)]);
        let sent = bench.take("ops").unwrap();
        bench.answer(&sent.id, Some(200));
        let expected = [&new, &old].map(|key| key.sign(&sent.id, bench.now, &sent.body));
        let (_, found) = sent.headers.iter().find(|(n, _)| *n == "webhook-signature").unwrap();
        let found: Vec<String> = found.split(' ').map(str::to_owned).collect();
        (found.clone(), expected.into_iter().take(found.len()).collect::<Vec<_>>())
    };
    let (found, expected) = signatures(&bench, 1, "a");
    assert_eq!((found.len(), &found), (2, &expected));
    bench.advance(HOUR_MS);
    let (found, expected) = signatures(&bench, 2, "b");
    assert_eq!((found.len(), &found), (1, &expected));
}

#[test]
fn nothing_is_sent_to_a_private_address_unless_the_operator_allows_it() {
    let metadata = "http://169.254.169.254/latest";
    let receiver = ReceiverPlan { url: Some(metadata.to_owned()), ..hook("ops") };
    let slack = ReceiverPlan {
        kind: ReceiverKind::Slack,
        url: None,
        secrets: vec![secret("slack", "https://127.0.0.1/services/x", 5)],
        ..hook("slack")
    };
    let mut bench = Bench::new(&[("ops", receiver), ("slack", slack)]);
    bench.ingest(&[event(1, "gpt")]);
    assert_eq!((bench.take("ops"), bench.take("slack")), (None, None));
    let (_, page) = bench.ask("deliveries", &json!({"limit": 5}));
    assert_eq!(page["data"][0]["error"], "address_not_allowed");
    assert_eq!(page["data"][0]["attempts"], 1);
    bench.allow_private = true;
    bench.advance(5_000);
    assert_eq!(bench.take("ops").unwrap().url, metadata);
    let sent = bench.take("slack").unwrap();
    assert_eq!(sent.url, "https://127.0.0.1/services/x");
    let body: Value = serde_json::from_str(&sent.body).unwrap();
    assert!(body["text"].is_string() && body["blocks"].is_array());
}

#[test]
fn a_receiver_hears_only_of_what_it_asked_for() {
    let severe = ReceiverPlan { min_severity: Severity::Critical, ..hook("severe") };
    let chosen = ReceiverPlan { kinds: vec![AlertKind::Pace], ..hook("chosen") };
    let off = ReceiverPlan { enabled: false, ..hook("off") };
    let bench =
        Bench::new(&[("all", hook("all")), ("severe", severe), ("chosen", chosen), ("off", off)]);
    bench.ingest(&[event(1, "gpt")]);
    assert_eq!(bench.deliveries(), [("all".to_owned(), "pending".to_owned())]);
}

#[test]
fn what_waits_for_a_removed_receiver_is_parked() {
    let bench = Bench::new(&[("ops", hook("ops"))]);
    bench.ingest(&[event(1, "gpt")]);
    bench.configure(&plan(0, &[]));
    assert_eq!(bench.deliveries(), [("ops".to_owned(), "pending".to_owned())]);
    bench.configure(&plan(2, &[]));
    assert_eq!(bench.deliveries(), [("ops".to_owned(), "failed".to_owned())]);
}

#[test]
fn a_flood_of_one_kind_is_kept_and_not_sent() {
    let mut bench = Bench::new(&[("ops", hook("ops"))]);
    let events: Vec<Value> = (1..=70).map(|seq| event(seq, &format!("model-{seq}"))).collect();
    bench.ingest(&events);
    assert_eq!(bench.deliveries().len(), 60);
    let (_, page) = bench.ask("list", &json!({"limit": 100}));
    assert_eq!(page["data"].as_array().unwrap().len(), 70);
    bench.advance(HOUR_MS);
    bench.ingest(&[event(71, "later")]);
    assert_eq!(bench.deliveries().len(), 61);
}

#[test]
fn people_take_snooze_and_resolve_alerts() {
    let mut bench = Bench::new(&[("ops", hook("ops"))]);
    let mut unpriced = event(1, "gpt");
    unpriced["cost"] = Value::Null;
    bench.ingest(&[unpriced]);
    let (_, page) = bench.ask("list", &json!({"kind": "unpriced_model", "limit": 5}));
    let id = page["data"][0]["id"].as_str().unwrap().to_owned();
    let (status, shown) = bench.ask("acknowledge", &json!({"id": id, "by": "token:a"}));
    assert_eq!((status, &shown["status"]["by"]), (200, &json!("token:a")));
    let until = bench.now.plus_ms(HOUR_MS).ms();
    let wish = json!({"id": id, "by": "token:a", "until_ms": until, "reason": "known"});
    assert_eq!(bench.ask("snooze", &wish).1["status"]["state"], "snoozed");
    let past = json!({"id": id, "until_ms": 1});
    let (status, problem) = bench.ask("snooze", &past);
    assert_eq!(status, 422, "{problem}");
    assert!(problem.to_string().contains("until"), "{problem}");
    bench.advance(HOUR_MS);
    assert_eq!(bench.ask("show", &json!({ "id": id })).1["status"]["state"], "open");
    assert_eq!(bench.ask("resolve", &json!({"id": id, "by": "token:a"})).0, 200);
    assert_eq!(bench.ask("acknowledge", &json!({"id": id})).0, 409);
    assert_eq!(bench.ask("show", &json!({ "id": "al_unknown" })).0, 404);
    let (_, page) = bench.ask("deliveries", &json!({"limit": 10}));
    let types: Vec<_> = page["data"].as_array().unwrap().iter().map(|d| &d["type"]).collect();
    assert_eq!(types, ["alert.resolved", "alert.reopened", "alert.opened", "alert.opened"]);
}

#[test]
fn lists_are_pages() {
    let bench = Bench::new(&[("ops", hook("ops"))]);
    let events: Vec<Value> = (1..=5).map(|seq| event(seq, &format!("model-{seq}"))).collect();
    bench.ingest(&events);
    for method in ["list", "deliveries"] {
        let (mut seen, mut cursor) = (std::collections::BTreeSet::new(), Value::Null);
        for expected in [2, 2, 1] {
            let (_, page) = bench.ask(method, &json!({"limit": 2, "cursor": cursor}));
            let data = page["data"].as_array().unwrap();
            assert_eq!(data.len(), expected, "{method}");
            seen.extend(data.iter().map(|it| it["id"].to_string()));
            cursor = page["next_cursor"].clone();
        }
        assert!(cursor.is_null());
        assert_eq!(seen.len(), 5);
    }
}

#[test]
fn the_alarm_rings_for_what_is_due_and_not_for_nothing() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.with(|alerts| alerts.alarm_at()).unwrap(), None);
    bench.configure(&plan(2, &[("ops", hook("ops"))]));
    bench.ingest(&[event(1, "gpt")]);
    assert_eq!(bench.with(|alerts| alerts.due_receivers(bench.now)).unwrap(), ["ops"]);
    let id = bench.take("ops").unwrap().id;
    bench.answer(&id, Some(200));
    bench.advance(0);
    let tick = bench.now.plus_ms(5 * 60_000);
    assert_eq!(bench.with(|alerts| alerts.alarm_at()).unwrap(), Some(tick));
    bench.advance(7 * DAY_MS);
    let id = bench.take("ops").unwrap().id;
    bench.answer(&id, Some(200));
    // The alert is over and told: nothing is left to ring for.
    assert_eq!(bench.with(|alerts| alerts.alarm_at()).unwrap(), None);
}
