//! Nights against an edge that is played and bills from the inbox: what a live gateway is too well-behaved for.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test, its helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tallygate_reconciler::bill::Quantity;
use tallygate_reconciler::config::{Config, from_value};
use tallygate_reconciler::connectors::http::Patience;
use tallygate_reconciler::edge::Signing;
use tallygate_reconciler::ledger::{Revision, UnitId, hex};
use tallygate_reconciler::night::run::{Again, Clock, Night, Progress, backfill, nightly, run};
use tallygate_reconciler::ports::{
    Appended, LedgerStore, ObjectMeta, ObjectStore, Put, StoreError,
};
use tallygate_reconciler::report::WorkspaceReport;
use tallygate_reconciler::stores::local;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};
use tokio::sync::Notify;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// The edge, as far as the reconciler sees it. What it is told counts as it does there: by revision.
#[derive(Clone, Default)]
struct Played(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    events: BTreeMap<String, Vec<Value>>,
    refused: BTreeSet<&'static str>,
    corrections: BTreeMap<String, (u64, String)>,
    true_ups: BTreeMap<String, (u64, Option<String>)>,
    alerts: BTreeMap<String, bool>,
    prices: Vec<Value>,
    /// The call that is taken and gets no answer, and who is told when it comes.
    silent: Option<(&'static str, Arc<Notify>)>,
}

impl Respond for Played {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut state = self.0.lock().unwrap();
        let what = request.url.path().rsplit('/').next().unwrap().to_owned();
        if state.refused.contains(what.as_str()) {
            return ResponseTemplate::new(400).set_body_json(json!({ "detail": "refused" }));
        }
        let items = || serde_json::from_slice::<Vec<Value>>(&request.body).unwrap();
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        match what.as_str() {
            "context" => {
                let all = json!({ "scope": { "dimension": "team", "value": "*" }, "owner": "o",
                    "limit_usd": "5" });
                return ResponseTemplate::new(200).set_body_json(json!({
                    "workspace": "ws_a", "config_version": 1, "budgets": { "teams": all },
                    "prices": [], "providers": { "gg": { "price_book": "google" } } }));
            }
            "events" => {
                let day = request.url.query_pairs().find(|(name, _)| name == "day").unwrap().1;
                let events = state.events.get(day.as_ref()).cloned().unwrap_or_default();
                let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
                let sha256 = hex(Sha256::digest(lines.as_bytes()).as_slice());
                let end = json!({ "end": true, "lines": events.len(), "sha256": sha256 });
                return ResponseTemplate::new(200).set_body_string(format!("{lines}{end}\n"));
            }
            "budget-corrections" => {
                for item in items() {
                    let name = [&item["budget"], &item["value"], &item["day"], &item["source"]];
                    let revision = item["revision"].as_u64().unwrap();
                    let said = state.corrections.entry(format!("{name:?}")).or_default();
                    if revision >= said.0 {
                        *said = (revision, text(&item, "amount"));
                    }
                }
            }
            "true-ups" => {
                for item in items() {
                    let revision = item["revision"].as_u64().unwrap();
                    let billed = item["billed"].as_str().map(str::to_owned);
                    let said = state.true_ups.entry(text(&item, "line")).or_default();
                    if revision >= said.0 {
                        *said = (revision, billed);
                    }
                }
            }
            "findings" => {
                for item in items() {
                    let name = format!("{} {}", text(&item, "kind"), text(&item, "subject"));
                    state.alerts.insert(name, item["present"] == true);
                }
            }
            "price-corrections" => state.prices.extend(items()),
            other => return ResponseTemplate::new(404).set_body_string(other.to_owned()),
        }
        let answer = ResponseTemplate::new(200).set_body_json(json!({}));
        match state.silent.as_ref().filter(|(silent, _)| what == *silent) {
            Some((_, called)) => {
                called.notify_one();
                answer.set_delay(Duration::from_secs(3600))
            }
            None => answer,
        }
    }
}

struct Watch {
    now_ms: AtomicI64,
    nonces: AtomicU64,
}

impl Signing for Watch {
    fn now_seconds(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst) / 1000
    }

    fn nonce(&self) -> String {
        format!("{:032}", self.nonces.fetch_add(1, Ordering::SeqCst))
    }
}

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms.load(Ordering::SeqCst))
    }

    fn left_ms(&self) -> Option<i64> {
        None
    }
}

struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: &str, _: &str, _: u64, _: u64) {}
}

/// An object store whose lists can be switched off: then the inbox cannot be had.
struct Switched {
    inner: local::LocalObjects,
    off: Arc<AtomicBool>,
}

#[async_trait]
impl ObjectStore for Switched {
    async fn put_once(&self, key: &str, body: Bytes) -> Result<Put, StoreError> {
        self.inner.put_once(key, body).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        if self.off.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable {
                store: "objects",
                reason: "switched off".into(),
            });
        }
        self.inner.list(prefix, after, limit).await
    }

    async fn put_file_once(&self, key: &str, path: &Path) -> Result<Put, StoreError> {
        self.inner.put_file_once(key, path).await
    }
}

/// A workspace, its books on disk, and time.
struct World {
    directory: tempfile::TempDir,
    off: Arc<AtomicBool>,
    objects: Arc<dyn ObjectStore>,
    ledger: Arc<dyn LedgerStore>,
    edge: Played,
    _server: MockServer,
    config: Config,
    watch: Watch,
}

const CSV: &str = "From,To,Model,Item,Tokens,Cost\n";

impl World {
    async fn new(lookback: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, objects) = local::open(&directory.path().join("books")).await.unwrap();
        let off = Arc::new(AtomicBool::new(false));
        let (server, edge) = (MockServer::start().await, Played::default());
        Mock::given(any()).respond_with(edge.clone()).mount(&server).await;
        let rule = |name: &str| {
            json!({ "path": format!("{name}/*.csv"), "provider": name, "account": "acme",
                "format": { "csv": {
                    "period": { "range": { "start": "From", "end": "To", "format": "%Y-%m-%d",
                        "end_is_last_day": true } },
                    "amount": { "column": "Cost", "unit": "dollars", "currency": { "fixed": "USD" } },
                    "model": { "column": "Model" },
                    "meter": { "column": { "name": "Item", "values": { "in": "input" } } },
                    "quantity": { "column": "Tokens", "unit": { "fixed": "Tokens" } } } } })
        };
        let config = json!({
            "storage": { "local": { "directory": directory.path() } },
            "lookback_days": lookback, "reread_days": lookback, "scratch": directory.path(),
            "workspaces": [{ "id": "ws_a", "accounts": { "gg": "acme" },
                "edge": { "url": server.uri(), "key_id": "k", "secret": "0123456789abcdef0123456789abcdef" },
                "sources": [{ "connector": "inbox",
                    "mapping": { "files": [rule("google"), rule("groq")] } }] }] });
        let now = Timestamp::parse("2026-11-21T02:00:00Z").unwrap().ms();
        Self {
            objects: Arc::new(Switched { inner: objects, off: off.clone() }),
            off,
            ledger: Arc::new(ledger),
            edge,
            _server: server,
            config: from_value(config).unwrap(),
            watch: Watch { now_ms: AtomicI64::new(now), nonces: AtomicU64::new(0) },
            directory,
        }
    }

    /// A request of a team: tokens, and what they were rated at.
    fn event(&self, day: &str, number: u64, team: &str, tokens: u64, cost: &str) {
        let at = Date::parse(day).unwrap().midnight().plus_ms(DAY_MS / 2).ms();
        let event = json!({
            "v": 1, "id": format!("req_{number:032x}"), "seq": number, "workspace": "ws_a",
            "key": "0123456789abcdef", "at": at, "settled_at": at, "key_name": "ci", "owner": "ann",
            "cost_centre": "", "purpose": "", "environment": "prod", "endpoint": "/v1/chat/completions",
            "stream": false, "requested_model": "m", "provider": "gg", "model": "m", "response_model": "m",
            "outcome": "completed", "status": 200, "actor": { "team": team },
            "usage": { "source": "reported", "tally": { "tokens": { "input": tokens } } },
            "cost": { "total": cost, "parts": { "input": cost },
                "price": { "row": "google/m", "book": "b1", "tier": "standard" } },
            "charged": cost, "hold": cost, "duration_ms": 5 });
        self.edge.0.lock().unwrap().events.entry(day.to_owned()).or_default().push(event);
    }

    fn forget_events(&self, day: &str) {
        self.edge.0.lock().unwrap().events.remove(day);
    }

    /// Drops a bill: rows of `From,To,Model,Item,Tokens,Cost`.
    async fn drop(&self, name: &str, rows: &str) {
        let body = format!("{CSV}{rows}");
        self.objects.put_once(&format!("inbox/{name}.csv"), body.into()).await.unwrap();
    }

    async fn run(&self, backfilled: Option<(&str, &str)>) -> WorkspaceReport {
        let date = |text| Date::parse(text).unwrap();
        let (name, days) = match backfilled {
            Some((from, last)) => backfill(date(from), date(last)),
            None => nightly(self.watch.now(), self.config.lookback_days),
        };
        let night = Night {
            config: &self.config,
            objects: self.objects.clone(),
            ledger: self.ledger.clone(),
            clock: &self.watch,
            progress: &Quiet,
            patience: Patience { retries: 0, first_wait: Duration::from_millis(1) },
            holder: self.watch.nonce(),
        };
        let (_, report) = run(&night, name, days, Again::Always).await.unwrap();
        report.workspaces["ws_a"].clone()
    }

    async fn night(&self) -> WorkspaceReport {
        self.run(None).await
    }

    async fn rows(&self, day: &str, provider: &str) -> Vec<Revision> {
        let unit = UnitId { workspace: "ws_a".into(), day: day.into(), provider: provider.into() };
        self.ledger.newest(&unit).await.unwrap()
    }

    /// What the books say was billed, on all days of two months.
    async fn billed(&self, provider: &str) -> Usd {
        let mut sum = Usd::ZERO;
        for month in ["2026-10", "2026-11"] {
            for unit in self.ledger.units("ws_a", month).await.unwrap() {
                for row in self.ledger.newest(&unit).await.unwrap() {
                    let counts = row.unit.provider == provider;
                    let billed = row.content.billed.filter(|_| counts).unwrap_or_default();
                    sum = sum.checked_add(billed).unwrap();
                }
            }
        }
        sum
    }

    /// Corrections that are not nothing: the team, and how much.
    fn corrections(&self) -> Vec<String> {
        let state = self.edge.0.lock().unwrap();
        let said = state.corrections.iter().filter(|(_, (_, amount))| amount != "0");
        said.map(|(name, (_, amount))| format!("{name} {amount}")).collect()
    }

    /// Whether an alert is open.
    fn alert(&self, name: &str) -> bool {
        self.edge.0.lock().unwrap().alerts.get(name).copied().unwrap_or(false)
    }

    fn refuse(&self, what: &[&'static str]) {
        self.edge.0.lock().unwrap().refused = what.iter().copied().collect();
    }
}

const DAY: &str = "2026-11-20";

#[tokio::test]
async fn what_could_not_be_taken_back_at_once_is_taken_back_later() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,3\n").await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    let [correction] = &world.corrections()[..] else { panic!("{:?}", world.corrections()) };
    assert!(correction.contains("\"a\"") && correction.ends_with("2.99"), "{correction}");
    assert!(world.alert("bill_variance google:2026-11-20"));
    // The request was another team's and rated as it is billed, and the edge does not listen that night.
    world.forget_events(DAY);
    world.event(DAY, 1, "b", 100, "3");
    world.refuse(&["budget-corrections"]);
    let report = world.night().await;
    assert!(report.missing.keys().any(|what| what.starts_with("feedback of 2026-11-20")));
    assert!(world.alert("bill_variance google:2026-11-20"));
    world.refuse(&[]);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.corrections(), Vec::<String>::new());
    assert!(!world.alert("bill_variance google:2026-11-20"));
    assert_eq!(world.night().await.days_settled, 0);
}

#[tokio::test]
async fn what_a_killed_worker_said_is_taken_back() {
    let world = World::new(3).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.03\n").await;
    // It is killed when budgets are corrected, and before it hears so.
    let called = Arc::new(Notify::new());
    world.edge.0.lock().unwrap().silent = Some(("budget-corrections", called.clone()));
    tokio::select! {
        report = world.night() => panic!("{report:?}"),
        () = called.notified() => {}
    }
    assert!(world.corrections()[0].contains("\"a\""), "{:?}", world.corrections());
    // Nobody takes this run up. On the next day the request turns out to be another team's.
    world.edge.0.lock().unwrap().silent = None;
    world.forget_events(DAY);
    world.event(DAY, 1, "b", 100, "0.01");
    world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let [correction] = &world.corrections()[..] else { panic!("{:?}", world.corrections()) };
    assert!(correction.contains("\"b\""), "{correction}");
}

#[tokio::test]
async fn books_stay_when_the_inbox_cannot_be_had_and_new_days_wait_for_their_bill() {
    let world = World::new(3).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world
        .drop(
            "google/1",
            "2026-11-20,2026-11-20,m,in,100,0.03\n2026-11-21,2026-11-21,m,in,50,0.02\n",
        )
        .await;
    world.night().await;
    let before = world.rows(DAY, "google").await;
    world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    world.event("2026-11-21", 2, "a", 50, "0.005");
    world.off.store(true, Ordering::SeqCst);
    let report = world.night().await;
    assert!(report.missing["inbox"].contains("switched off"), "{:?}", report.missing);
    assert_eq!(world.rows(DAY, "google").await, before);
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(report.providers["google"].unbilled_rows, 1, "the new day is estimated");
    world.off.store(false, Ordering::SeqCst);
    let report = world.night().await;
    assert_eq!((report.missing, report.providers["google"].unbilled_rows), (BTreeMap::new(), 0));
    assert_eq!(world.billed("google").await, "0.05".parse().unwrap());
    assert_eq!(world.night().await.rows_written, 0);
}

#[tokio::test]
async fn the_same_bill_in_another_pull_writes_nothing_and_a_cause_is_the_true_one() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.event(DAY, 2, "b", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,200,0.02\n").await;
    assert_eq!(world.night().await.rows_written, 2);
    // Another provider's file makes another pull, and late requests have the day settled anew.
    world.drop("groq/1", "2026-11-20,2026-11-20,x,in,5,0.001\n").await;
    world.event(DAY, 3, "c", 200, "0.02");
    world.night().await;
    let rows = world.rows(DAY, "google").await;
    assert_eq!(rows.iter().map(|row| row.cause.as_str()).collect::<BTreeSet<_>>().len(), 2);
    for row in rows {
        let first = row.line.owner["team"] == "c";
        assert_eq!(row.cause, if first { "first" } else { "usage_changed" }, "{:?}", row.line);
    }
    // A backfill of the day alone is yet another pull, and says the same.
    let report = world.run(Some((DAY, DAY))).await;
    assert_eq!(
        (report.rows_written, report.providers["google"].billed),
        (0, "0.02".parse().unwrap())
    );
}

#[tokio::test]
async fn what_an_overtaken_worker_wrote_later_is_found_and_withdrawn() {
    let world = World::new(1).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.night().await;
    assert_eq!(world.night().await.days_unchanged, 1);
    // A line that the newer pull does not have, from a pull before it.
    let mut stray = world.rows(DAY, "google").await[0].clone();
    stray.line.owner.insert("team".into(), "ghost".into());
    stray.seq = 0;
    assert_eq!(world.ledger.append(&stray).await.unwrap(), Appended::Written(1));
    let report = world.night().await;
    assert_eq!((report.days_settled, report.rows_written), (1, 1));
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(world.night().await.days_settled, 0);
}

#[tokio::test]
async fn a_long_charge_adds_up_over_days_outside_of_the_look_back_and_over_two_months() {
    let world = World::new(3).await;
    for (number, day) in ["2026-10-30", "2026-11-02", "2026-11-19"].into_iter().enumerate() {
        world.event(day, number as u64, "a", 100, "0.01");
    }
    // It reaches from October into the look-back; a fee lies on one of its days outside.
    world.drop("google/1", "2026-10-25,2026-11-20,m,in,1000,0.1000000001\n").await;
    world.drop("google/2", "2026-11-02,2026-11-02,m,in,10,0.5\n").await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    let whole: Usd = "0.6000000001".parse().unwrap();
    assert_eq!(world.billed("google").await, whole);
    // Late use moves shares between days, and not a digit is lost or counted twice.
    world.event("2026-11-20", 9, "b", 700, "0.07");
    let report = world.night().await;
    assert!(report.rows_written > 0, "{report:?}");
    assert_eq!(world.billed("google").await, whole);
    assert_eq!(world.night().await.rows_written, 0);
}

#[tokio::test]
async fn one_bill_that_cannot_be_settled_stops_no_other() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    // Longer than any invoice.
    world.drop("groq/1", "2024-01-01,2026-11-20,x,in,5,0.001\n").await;
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    let report = world.night().await;
    let (what, why) = report.missing.first_key_value().unwrap();
    assert!(what.contains("groq") && why.contains("400 days"), "{what}: {why}");
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(world.billed("google").await, "0.01".parse().unwrap());
    assert_eq!(world.billed("groq").await, Usd::ZERO);
}

#[tokio::test]
async fn an_edge_that_does_not_export_a_day_is_said_and_the_day_taken_up() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.refuse(&["events"]);
    let report = world.night().await;
    assert!(report.missing.contains_key("events of 2026-11-20"), "{:?}", report.missing);
    // A bill without books is no agreement.
    assert_eq!(report.providers["google"].difference(), Some("-0.01".parse().unwrap()));
    assert!(world.alert("reconciliation_incomplete ws_a"));
    world.refuse(&[]);
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert!(!world.alert("reconciliation_incomplete ws_a"));
    assert!(world.directory.path().exists());
    let row = &world.rows(DAY, "google").await[0];
    assert_eq!(row.content.billed_quantity, Some(Quantity::whole(100)));
}

/// What an export says was billed, by file of charges.
async fn exported(world: &World, month: &str) -> Usd {
    let directory = world.directory.path().join("export").join(month);
    let (ledger, objects) = (world.ledger.as_ref(), world.objects.as_ref());
    let made = tallygate_reconciler::night::export::export(
        "ws_a",
        month,
        world.watch.now(),
        &directory,
        ledger,
        objects,
    )
    .await
    .unwrap();
    let mut sum = Usd::ZERO;
    for part in made.parts.iter().filter(|part| part.key.contains("focus_1_4_csv/cost_and_usage")) {
        let mut rows = csv::Reader::from_path(&part.path).unwrap();
        let at = rows.headers().unwrap().iter().position(|name| name == "BilledCost").unwrap();
        for row in rows.records() {
            sum = sum.checked_add(row.unwrap()[at].parse().unwrap()).unwrap();
        }
    }
    sum
}

#[tokio::test]
async fn a_closed_month_changes_by_correction_in_the_open_one_only() {
    let world = World::new(20).await;
    let usd = |text: &str| text.parse::<Usd>().unwrap();
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.night().await;
    assert_eq!(exported(&world, "2026-11").await, usd("0.01"));
    let name = tallygate_reconciler::night::run::month_mark("ws_a", "2026-11");
    assert!(world.ledger.set_mark(&name, None, "closed").await.unwrap());
    // In December the bill of November grows, by more for what there was and by a model that was not there.
    world.watch.now_ms.fetch_add(12 * DAY_MS, Ordering::SeqCst);
    world
        .drop(
            "google/2",
            "2026-11-20,2026-11-20,m,in,0,0.002\n2026-11-20,2026-11-20,n,in,7,0.0005\n",
        )
        .await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(world.billed("google").await, usd("0.0125"));
    let corrected: Vec<_> = world.rows(DAY, "google").await;
    assert!(
        corrected.iter().all(|row| {
            row.cause == "correction" && row.booked_in.as_deref() == Some("2026-12")
        })
    );
    assert_eq!(exported(&world, "2026-11").await, usd("0.01"), "it is closed");
    assert_eq!(
        exported(&world, "2026-12").await,
        usd("0.0025"),
        "what was taken back and stated anew"
    );
    assert_eq!(world.night().await.rows_written, 0);
}
