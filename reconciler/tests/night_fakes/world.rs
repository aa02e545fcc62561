//! A workspace whose edge is played, its books on disk, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tallygate_reconciler::config::{Config, from_value};
use tallygate_reconciler::connectors::http::Patience;
use tallygate_reconciler::edge::Signing;
use tallygate_reconciler::ledger::{Revision, UnitId, hex};
use tallygate_reconciler::night::export::{Delivery, export};
use tallygate_reconciler::night::run::{
    Again, Clock, Ended, Night, Progress, Steps, backfill, month_mark, nightly, run,
};
use tallygate_reconciler::ports::{LedgerStore, ObjectMeta, ObjectStore, Put, StoreError};
use tallygate_reconciler::report::WorkspaceReport;
use tallygate_reconciler::stores::local;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};
use tokio::sync::Notify;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// The edge, as far as the reconciler sees it. What it is told counts as it does there: by revision.
#[derive(Clone, Default)]
pub(crate) struct Played(pub(crate) Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) events: BTreeMap<String, Vec<Value>>,
    refused: BTreeSet<&'static str>,
    pub(crate) corrections: BTreeMap<String, (u64, String)>,
    pub(crate) true_ups: BTreeMap<String, (u64, Option<String>)>,
    pub(crate) alerts: BTreeMap<String, bool>,
    pub(crate) prices: Vec<Value>,
    /// How runs ended, by their names.
    pub(crate) runs: BTreeMap<String, String>,
    /// The call that is taken and gets no answer, and who is told when it comes.
    pub(crate) silent: Option<(&'static str, Arc<Notify>)>,
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
                    "prices": [], "providers": {
                        "gg": { "price_book": "google" }, "gq": { "price_book": "groq" },
                        "oa": { "price_book": "openai" }, "ob": { "price_book": "openai" } } }));
            }
            "events" => {
                let day = request.url.query_pairs().find(|(name, _)| name == "day").unwrap().1;
                let after = request.url.query_pairs().find(|(name, _)| name == "after");
                let place = |event: &Value| format!("{}~{}", text(event, "id"), text(event, "key"));
                let mut events = state.events.get(day.as_ref()).cloned().unwrap_or_default();
                events.sort_by_key(&place);
                events.retain(|event| {
                    after.as_ref().is_none_or(|(_, after)| *place(event) > **after)
                });
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
            "runs" => {
                state.runs.extend(items().iter().map(|it| (text(it, "run"), text(it, "status"))));
            }
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

/// An organization of OpenAI: its costs by day, as text.
#[derive(Clone, Default)]
pub(crate) struct OpenAi(pub(crate) Arc<Mutex<Costs>>);

#[derive(Default)]
pub(crate) struct Costs {
    pub(crate) down: bool,
    pub(crate) by_day: BTreeMap<String, &'static str>,
    /// Requests for usage get these tokens of the model `m` on each day.
    pub(crate) tokens: u64,
}

impl OpenAi {
    pub(crate) fn bills(&self, day: &str, amount: &'static str) {
        self.0.lock().unwrap().by_day.insert(day.to_owned(), amount);
    }

    pub(crate) fn forgets(&self, day: &str) {
        self.0.lock().unwrap().by_day.remove(day);
    }

    pub(crate) fn is_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }
}

impl Respond for OpenAi {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let costs = self.0.lock().unwrap();
        if costs.down {
            return ResponseTemplate::new(503);
        }
        let is_usage = request.url.path().contains("/usage/");
        let query: BTreeMap<_, _> = request.url.query_pairs().collect();
        let seconds = |name: &str| query[name].parse::<i64>().unwrap();
        let (start, end) = (seconds("start_time"), seconds("end_time"));
        let buckets = (start / 86_400..end / 86_400).map(|day| {
            let amount = costs.by_day.get(&Date::from_days(day).to_string());
            let tokens = costs.tokens;
            let used = format!(
                r#"{{"input_tokens": {tokens}, "output_tokens": 0, "num_model_requests": 1, "model": "m"}}"#
            );
            let cost =
                |value: &&str| format!(r#"{{"amount": {{"value": {value}, "currency": "usd"}}}}"#);
            format!(
                r#"{{"start_time": {}, "end_time": {}, "results": [{}]}}"#,
                day * 86_400,
                (day + 1) * 86_400,
                if is_usage { used } else { amount.map(cost).unwrap_or_default() }
            )
        });
        let buckets = buckets.collect::<Vec<_>>().join(",");
        let page = format!(r#"{{"data": [{buckets}], "has_more": false, "next_page": null}}"#);
        ResponseTemplate::new(200).set_body_raw(page, "application/json")
    }
}

pub(crate) struct Watch {
    /// Questions for the time that are answered with enough of it; none: it never runs out.
    pub(crate) questions: Mutex<Option<u32>>,
    pub(crate) now_ms: AtomicI64,
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
        let mut questions = self.questions.lock().unwrap();
        let left = questions.as_mut()?;
        let enough = *left > 0;
        *left = left.saturating_sub(1);
        Some(if enough { 15 * 60_000 } else { 0 })
    }
}

pub(crate) struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: &str, _: &str, _: u64, _: u64) {}
}

/// An object store whose lists can be switched off: then the inbox cannot be had.
pub(crate) struct Switched {
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
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) off: Arc<AtomicBool>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) ledger: Arc<dyn LedgerStore>,
    pub(crate) edge: Played,
    servers: Vec<MockServer>,
    pub(crate) config: Config,
    pub(crate) watch: Watch,
    pub(crate) steps: Steps,
    pub(crate) again: Again,
}

const CSV: &str = "From,To,Model,Item,Tokens,Cost\n";

/// Providers whose files say all that a bill can say.
const FULL: [&str; 5] = ["openai", "aws", "bedrock", "github_copilot", "vertex"];

impl World {
    pub(crate) async fn new(lookback: u32) -> Self {
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
        let full = |name: &str| {
            let column = |name: &str| json!({ "column": name });
            let kinds = json!({ "use": "usage", "bought": "purchase", "seat": "seat",
                "tax": "tax", "credit": "credit", "discount": "discount" });
            json!({ "path": format!("full/{name}/*.csv"), "provider": name, "account": "acme",
                "format": { "csv": {
                    "period": { "range": { "start": "From", "end": "To", "format": "%Y-%m-%d",
                        "end_is_last_day": true } },
                    "amount": { "column": "Cost", "unit": "dollars", "currency": { "fixed": "USD" } },
                    "list_amount": "List", "model": column("Model"), "tier": column("Tier"),
                    "invoice_id": column("Invoice"), "service": column("Service"),
                    "kind": { "column": { "name": "Kind", "values": kinds } },
                    "meter": { "column": { "name": "Item", "values": { "in": "input" },
                        "otherwise": "whole" } },
                    "quantity": { "column": "Count", "unit": { "column": { "name": "Kind",
                        "values": { "seat": "Seats" }, "otherwise": "Tokens" } } } } } })
        };
        let mut rules = vec![rule("google"), rule("groq"), rule("openai")];
        rules.extend(FULL.map(full));
        let named = |provider: &str| {
            let mut known = json!({ "provider": provider, "account": "acme", "name": "Acme" });
            if provider == "vertex" {
                known["prepaid"] = json!({ "id": "balance-1", "name": "Acme's balance" });
            }
            known
        };
        let known: Vec<Value> = ["google", "groq"].into_iter().chain(FULL).map(named).collect();
        let config = json!({
            "storage": { "local": { "directory": directory.path() } },
            "lookback_days": lookback, "reread_days": lookback, "scratch": directory.path(),
            "workspaces": [{ "id": "ws_a", "billed_accounts": known,
                "accounts": { "gg": "acme", "gq": "acme", "oa": "org-a", "ob": "org-b" },
                "edge": { "url": server.uri(), "key_id": "k", "secret": "0123456789abcdef0123456789abcdef" },
                "sources": [{ "connector": "inbox",
                    "mapping": { "files": rules } }] }] });
        let now = Timestamp::parse("2026-11-21T02:00:00Z").unwrap().ms();
        Self {
            objects: Arc::new(Switched { inner: objects, off: off.clone() }),
            off,
            ledger: Arc::new(ledger),
            edge,
            servers: vec![server],
            config: from_value(config).unwrap(),
            watch: Watch {
                now_ms: AtomicI64::new(now),
                nonces: AtomicU64::new(0),
                questions: Mutex::new(None),
            },
            directory,
            steps: Steps::default(),
            again: Again::Always,
        }
    }

    /// Adds an organization of OpenAI to the sources.
    pub(crate) async fn openai(&mut self, account: &str) -> OpenAi {
        let (server, openai) = (MockServer::start().await, OpenAi::default());
        Mock::given(any()).respond_with(openai.clone()).mount(&server).await;
        let source = json!({ "connector": "openai", "base_url": server.uri(), "account": account,
            "admin_key": "sk-admin", "usage": [], "costs_by_key": false, "list_keys": false });
        self.servers.push(server);
        self.config.workspaces[0].sources.push(serde_json::from_value(source).unwrap());
        openai
    }

    /// A request of a team at Google: tokens, and what they were rated at.
    pub(crate) fn event(&self, day: &str, number: u64, team: &str, tokens: u64, cost: &str) {
        self.event_at("gg", day, number, team, tokens, cost);
    }

    /// The same at one of the workspace's providers.
    pub(crate) fn event_at(
        &self,
        provider: &str,
        day: &str,
        number: u64,
        team: &str,
        tokens: u64,
        cost: &str,
    ) {
        let at = Date::parse(day).unwrap().midnight().plus_ms(DAY_MS / 2).ms();
        let row = match provider {
            "gg" => "google/m",
            "gq" => "groq/m",
            _ => "openai/m",
        };
        let event = json!({
            "v": 1, "id": format!("req_{number:032x}"), "seq": number, "workspace": "ws_a",
            "key": "0123456789abcdef", "at": at, "settled_at": at, "key_name": "ci", "owner": "ann",
            "cost_centre": "", "purpose": "", "environment": "prod", "endpoint": "/v1/chat/completions",
            "stream": false, "requested_model": "m", "provider": provider, "model": "m", "response_model": "m",
            "outcome": "completed", "status": 200, "actor": { "team": team },
            "usage": { "source": "reported", "tally": { "tokens": { "input": tokens } } },
            "cost": { "total": cost, "parts": { "input": cost },
                "price": { "row": row, "book": "b1", "tier": "standard" } },
            "charged": cost, "hold": cost, "duration_ms": 5 });
        self.edge.0.lock().unwrap().events.entry(day.to_owned()).or_default().push(event);
    }

    pub(crate) fn forget_events(&self, day: &str) {
        self.edge.0.lock().unwrap().events.remove(day);
    }

    /// Drops a bill: rows of `From,To,Model,Item,Tokens,Cost`.
    pub(crate) async fn drop(&self, name: &str, rows: &str) {
        let body = format!("{CSV}{rows}");
        self.objects.put_once(&format!("inbox/{name}.csv"), body.into()).await.unwrap();
    }

    /// Drops a bill of one of [`FULL`]: rows of `From,To,Kind,Service,Model,Item,Count,Cost,List,Tier,Invoice`.
    pub(crate) async fn drop_full(&self, name: &str, rows: &str) {
        let body = format!("From,To,Kind,Service,Model,Item,Count,Cost,List,Tier,Invoice\n{rows}");
        self.objects.put_once(&format!("inbox/full/{name}.csv"), body.into()).await.unwrap();
    }

    /// Puts another bill in a bill's place.
    pub(crate) fn overwrite(&self, name: &str, rows: &str) {
        let path = self.directory.path().join(format!("books/objects/inbox/{name}.csv"));
        assert!(path.exists());
        std::fs::write(path, format!("{CSV}{rows}")).unwrap();
    }

    pub(crate) async fn run(&self, backfilled: Option<(&str, &str)>) -> WorkspaceReport {
        let (ended, report) = self.invoke(backfilled).await;
        assert_eq!(ended, Ended::Done);
        report
    }

    /// One invocation.
    pub(crate) async fn invoke(
        &self,
        backfilled: Option<(&str, &str)>,
    ) -> (Ended, WorkspaceReport) {
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
            steps: self.steps,
        };
        let (ended, report) = run(&night, name, days, self.again).await.unwrap();
        (ended, report.workspaces["ws_a"].clone())
    }

    pub(crate) async fn night(&self) -> WorkspaceReport {
        self.run(None).await
    }

    pub(crate) async fn rows(&self, day: &str, provider: &str) -> Vec<Revision> {
        let unit = UnitId { workspace: "ws_a".into(), day: day.into(), provider: provider.into() };
        self.ledger.newest(&unit).await.unwrap()
    }

    /// Exports a month as it stands.
    pub(crate) async fn export(&self, month: &str) -> Delivery {
        let directory = self.directory.path().join("export").join(self.watch.nonce());
        let (ledger, objects) = (self.ledger.as_ref(), self.objects.as_ref());
        let accounts = self.config.workspaces[0].accounts_by_id();
        let now = self.watch.now();
        export("ws_a", month, now, &directory, &accounts, ledger, objects).await.unwrap()
    }

    /// Closes a month.
    pub(crate) async fn close(&self, month: &str) {
        assert!(self.ledger.set_mark(&month_mark("ws_a", month), None, "closed").await.unwrap());
    }

    /// What the books say was billed, on all days of two months.
    pub(crate) async fn billed(&self, provider: &str) -> Usd {
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
    pub(crate) fn corrections(&self) -> Vec<String> {
        let state = self.edge.0.lock().unwrap();
        let said = state.corrections.iter().filter(|(_, (_, amount))| amount != "0");
        said.map(|(name, (_, amount))| format!("{name} {amount}")).collect()
    }

    /// Whether an alert is open.
    pub(crate) fn alert(&self, name: &str) -> bool {
        self.edge.0.lock().unwrap().alerts.get(name).copied().unwrap_or(false)
    }

    pub(crate) fn refuse(&self, what: &[&'static str]) {
        self.edge.0.lock().unwrap().refused = what.iter().copied().collect();
    }
}

/// A day of the look-back.
pub(crate) const DAY: &str = "2026-11-20";
