//! The Telemetry object of a workspace: it counts every event for ever, so that counters never fall (a Ledger is one
//! month), answers Prometheus, and owns what waits for the workspace's OpenTelemetry collector.
//!
//! It is fed as the Alerts object is: by Meters, with a mark of its own, at least once; the last number of each Meter
//! that was counted is kept. It is an object of its own, and not a part of Alerts, so that neither a scrape nor a
//! collector that hangs can hold up an alert.
//!
//! Metrics need no queue: each export is a picture of all counters, and the next one makes up for one that failed.
//! Log events wait in the outbox, at most [`OUTBOX_MAX`]; then the oldest go, and are counted as dropped. An attempt
//! begins with a lease, so what was under way when the object died is due again: a collector may get a batch twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tallygate_shared::alerts::detect::BudgetSnapshot;
use tallygate_shared::alerts::target::check_target;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::money::Usd;
use tallygate_shared::telemetry::counters::Counters;
use tallygate_shared::telemetry::otlp::{Speaker, partial_success};
use tallygate_shared::telemetry::prometheus::{
    self, ArchiveGauge, BudgetGauge, ExportGauge, Format, Gauges,
};
use tallygate_shared::telemetry::retry::{Verdict, next_attempt, verdict};
use tallygate_shared::telemetry::{otlp_logs, otlp_metrics};
use tallygate_shared::time::Timestamp;

use super::alerts_object::Sender;
use super::sql::{Sql, SqlError};
use super::telemetry_plan::{CollectorPlan, Signal, TelemetryPlan, seal_context};
use super::telemetry_store::{Export, Progress, Taken, TelemetryStore, stored};
use crate::admin::call::Step;

/// Events that wait for the collector: 100,000 x about 1.5 KB = 150 MB of an object's 10 GB. At 10 requests a second
/// that is nearly three hours.
pub const OUTBOX_MAX: u64 = if cfg!(test) { 20 } else { 100_000 };
/// Events in one call: 250 x about 2.2 KB as OTLP is 0.6 MB, far below what collectors take (20 MiB).
const BATCH: u64 = if cfg!(test) { 8 } else { 250 };
/// How long an event waits for company.
const LOGS_DELAY_MS: i64 = 2_000;
/// Between two pictures of the counters.
const METRICS_EVERY_MS: i64 = 60_000;
/// How long an attempt's end is waited for: more than its timeout of 15 seconds.
const LEASE_MS: i64 = 60_000;

/// Telemetry of one workspace.
pub struct TelemetryObject<S> {
    store: TelemetryStore<S>,
    counters: Counters,
    progress: Progress,
    plan: Option<TelemetryPlan>,
}

/// What a Meter delivers.
#[derive(Deserialize)]
struct Batch {
    meter: String,
    events: Vec<Box<RawValue>>,
    /// Events that wait for the Ledger there.
    #[serde(default)]
    waiting: u64,
}

/// An HTTP request for the shell to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outgoing {
    /// Where to.
    pub url: String,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ended {
    /// The status, when there was an answer.
    pub status: Option<u16>,
    /// What went wrong when there was none: `timeout` or `connection_failed`.
    pub error: Option<String>,
    /// The answer's `retry-after`.
    pub retry_after: Option<String>,
    /// The beginning of the answer's body.
    pub body: String,
}

/// What follows from an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Followed {
    /// Whether another may be made at once.
    pub again: bool,
    /// What the gateway's log says of it: nothing of one that went well. The collector's own words are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the control plane asks with.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Question {
    /// The scraper's `accept`.
    accept: String,
    /// Open alerts by severity, from the Alerts object.
    alerts: Option<BTreeMap<String, u64>>,
    /// The Ledgers whose archives are asked about.
    ledgers: Vec<String>,
    /// What they say; nothing of one that has no archive.
    archives: Option<Vec<Option<ArchiveGauge>>>,
    /// The configuration as it is shown.
    shown: Value,
}

impl<S: Sql> TelemetryObject<S> {
    /// Opens it from its storage.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        let store = TelemetryStore::open(sql)?;
        let plan = store.meta("plan")?;
        let progress: Progress = store.meta("progress")?.unwrap_or_default();
        let counters = Counters::restore(store.groups()?, progress.last_event_at);
        Ok(Self { store, counters, progress, plan })
    }

    /// Takes a workspace's plan. An older one than is known changes nothing.
    pub fn apply_config(&mut self, text: &str, now: Timestamp) -> Result<(), SqlError> {
        let plan: TelemetryPlan = stored(text)?;
        let known = self.plan.take();
        if known.as_ref().is_some_and(|known| known.version > plan.version) {
            self.plan = known;
            return Ok(());
        }
        for budget in self.store.budgets()? {
            if !plan.budgets.contains(&budget.budget) {
                self.store.forget_budget(&budget.budget)?;
            }
        }
        let collector = |plan: &TelemetryPlan| plan.collector.clone();
        if known.as_ref().and_then(collector) != collector(&plan) {
            // What is configured anew is asked anew, whatever it said before.
            for signal in Signal::ALL {
                let export = self.export_mut(signal);
                let (delivered, dropped) = (export.delivered, export.dropped);
                *export = Export { delivered, dropped, not_before: now, ..Export::default() };
            }
            self.progress.pictured = 0;
        }
        self.store.set_meta("plan", &plan)?;
        self.plan = Some(plan);
        if !self.wants(Signal::Logs) {
            self.store.keep_newest(0)?;
        }
        self.save_progress()
    }

    /// Counts a Meter's events.
    pub fn ingest(&mut self, batch: &str, now: Timestamp) -> Result<(), SqlError> {
        let batch: Batch = stored(batch)?;
        let known = self.store.counted(&batch.meter)?;
        let mut last = known;
        let was_empty = self.store.waiting()?.count == 0;
        let wants_logs = self.wants(Signal::Logs);
        for raw in &batch.events {
            let event: UsageEvent = stored(raw.get())?;
            if event.seq <= last {
                continue;
            }
            last = event.seq;
            self.counters.observe(&event);
            self.progress.seen = self.progress.seen.saturating_add(1);
            if wants_logs {
                self.store.queue(event.settled_at, raw.get())?;
            }
        }
        self.store.set_counted(&batch.meter, last, batch.waiting)?;
        if last == known {
            return Ok(());
        }
        for (group, totals) in self.counters.take_changed() {
            self.store.save_group(&group, &totals)?;
        }
        if self.progress.since == Timestamp::default() {
            self.progress.since = now;
        }
        self.progress.last_event_at = self.counters.last_event_at;
        if wants_logs {
            let logs = &mut self.progress.logs;
            if was_empty && logs.failures == 0 && logs.taken.is_none() {
                logs.not_before = now.plus_ms(LOGS_DELAY_MS);
            }
            self.drop_overflow()?;
        }
        self.save_progress()
    }

    fn drop_overflow(&mut self) -> Result<(), SqlError> {
        let overflow = self.store.waiting()?.count.saturating_sub(OUTBOX_MAX);
        if overflow > 0 {
            self.store.keep_newest(OUTBOX_MAX)?;
            let logs = &mut self.progress.logs;
            logs.dropped = logs.dropped.saturating_add(overflow);
        }
        Ok(())
    }

    /// Takes a budget's figures. One that has an account for each user or team is not kept: its values are no labels.
    /// Before the first plan, only a workspace's budget is surely none of those.
    pub fn budget(&mut self, snapshot: &str) -> Result<(), SqlError> {
        let snapshot: BudgetSnapshot = stored(snapshot)?;
        let has_one_account = match &self.plan {
            Some(plan) => plan.budgets.contains(&snapshot.budget),
            None => snapshot.value.is_empty(),
        };
        if has_one_account {
            self.store.save_budget(&snapshot)?;
        }
        Ok(())
    }

    /// Signals that an attempt is due for.
    pub fn due(&self, now: Timestamp) -> Result<Vec<&'static str>, SqlError> {
        let mut due = Vec::new();
        for signal in Signal::ALL {
            if self.due_at(signal)?.is_some_and(|at| at <= now) {
                due.push(signal.name());
            }
        }
        Ok(due)
    }

    /// When the alarm must ring next.
    pub fn alarm_at(&self) -> Result<Option<Timestamp>, SqlError> {
        let mut next = None;
        for signal in Signal::ALL {
            next = next.into_iter().chain(self.due_at(signal)?).min();
        }
        Ok(next)
    }

    fn due_at(&self, signal: Signal) -> Result<Option<Timestamp>, SqlError> {
        if !self.wants(signal) {
            return Ok(None);
        }
        let has_something = match signal {
            Signal::Metrics => self.progress.seen != self.progress.pictured,
            Signal::Logs => self.store.waiting()?.count > 0,
        };
        Ok(has_something.then(|| self.export(signal).not_before))
    }

    /// Begins an attempt. What cannot be sent as things are configured counts as one that failed.
    pub fn take(
        &mut self,
        signal: &str,
        sender: &Sender<'_>,
        now: Timestamp,
    ) -> Result<Option<Outgoing>, SqlError> {
        let Some(signal) = Signal::parse(signal) else { return Ok(None) };
        if self.due_at(signal)?.is_none_or(|at| at > now) {
            return Ok(None);
        }
        let Some(plan) = self.plan.clone() else { return Ok(None) };
        let Some(collector) = &plan.collector else { return Ok(None) };
        let prepared = prepare(&plan, collector, signal, sender);
        let (url, headers) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let ended = Ended { error: Some(error.to_owned()), ..Ended::default() };
                self.failed(signal, Verdict::Misconfigured, &ended, sender.random, now);
                self.save_progress()?;
                return Ok(None);
            }
        };
        let speaker = Speaker {
            workspace: &plan.workspace,
            resource: &collector.resource,
            providers: &plan.providers,
        };
        let (body, taken) = match signal {
            Signal::Metrics => {
                let since = self.progress.since;
                let body = otlp_metrics::encode(&self.counters, &speaker, since, now);
                (body, Taken { up_to: self.progress.seen, count: 1 })
            }
            Signal::Logs => {
                let rows = self.store.oldest(self.progress.logs.at_most.unwrap_or(BATCH))?;
                let Some((up_to, _)) = rows.last() else { return Ok(None) };
                let taken = Taken { up_to: *up_to, count: u64::try_from(rows.len()).unwrap_or(0) };
                let events: Result<Vec<UsageEvent>, SqlError> =
                    rows.iter().map(|(_, body)| stored(body)).collect();
                (otlp_logs::encode(&events?, &speaker, now), taken)
            }
        };
        let export = self.export_mut(signal);
        export.taken = Some(taken);
        export.not_before = now.plus_ms(LEASE_MS);
        self.save_progress()?;
        Ok(Some(Outgoing { url, headers, body: body.to_string() }))
    }

    /// An attempt ended.
    pub fn ended(
        &mut self,
        signal: &str,
        ended: &Ended,
        random: u32,
        now: Timestamp,
    ) -> Result<Followed, SqlError> {
        let Some(signal) = Signal::parse(signal) else { return Ok(Followed::default()) };
        // The configuration may have changed meanwhile: then it is not this attempt that counts.
        let Some(taken) = self.export(signal).taken else { return Ok(Followed::default()) };
        let mut note = None;
        let found = verdict(ended.status);
        match found {
            Verdict::Taken => {
                let partial = partial_success(&ended.body);
                let rejected = partial.as_ref().map_or(0, |(rejected, _)| *rejected);
                note = partial.as_ref().map(|_| format!("partial_success, rejected {rejected}"));
                let export = self.export_mut(signal);
                // Of a picture of metrics, points are rejected and not the picture.
                let lost = if signal == Signal::Logs { rejected.min(taken.count) } else { 0 };
                export.delivered = export.delivered.saturating_add(taken.count - lost);
                export.dropped = export.dropped.saturating_add(lost);
                export.delivered_at = Some(now);
                export.failures = 0;
                export.status = ended.status;
                export.error = partial.map(|(count, said)| format!("rejected {count}: {said}"));
                self.done_with(signal, taken, now)?;
            }
            Verdict::Never if ended.status == Some(413) && taken.count > 1 => {
                let export = self.export_mut(signal);
                export.at_most = Some(taken.count / 2);
                export.status = ended.status;
                export.taken = None;
                export.not_before = now;
            }
            Verdict::Never => {
                let export = self.export_mut(signal);
                export.dropped = export.dropped.saturating_add(taken.count);
                note = Some(format!("refused, dropped {}", taken.count));
                export.status = ended.status;
                export.error = Some("refused".to_owned());
                self.done_with(signal, taken, now)?;
            }
            Verdict::Later | Verdict::Misconfigured => {
                note = Some("not_taken".to_owned());
                self.failed(signal, found, ended, random, now);
            }
        }
        self.save_progress()?;
        Ok(Followed { again: matches!(found, Verdict::Taken | Verdict::Never), note })
    }

    fn done_with(&mut self, signal: Signal, taken: Taken, now: Timestamp) -> Result<(), SqlError> {
        let wait = match signal {
            Signal::Metrics => {
                self.progress.pictured = taken.up_to;
                METRICS_EVERY_MS
            }
            Signal::Logs => {
                self.store.let_go(taken.up_to)?;
                0
            }
        };
        let export = self.export_mut(signal);
        export.taken = None;
        export.not_before = now.plus_ms(wait);
        Ok(())
    }

    fn failed(
        &mut self,
        signal: Signal,
        verdict: Verdict,
        ended: &Ended,
        random: u32,
        now: Timestamp,
    ) {
        let export = self.export_mut(signal);
        export.taken = None;
        export.failures = export.failures.saturating_add(1);
        export.status = ended.status;
        export.error = Some(ended.error.clone().unwrap_or_else(|| "not_taken".to_owned()));
        let asked = ended.retry_after.as_deref();
        export.not_before = next_attempt(verdict, export.failures, asked, random, now);
    }

    /// Answers the control plane.
    pub fn query(&self, method: &str, payload: &str, now: Timestamp) -> Result<Step, SqlError> {
        let question: Question = stored(payload)?;
        match method {
            "metrics" => {
                let format = Format::of_accept(&question.accept);
                let archives = question.archives.unwrap_or_default();
                let month = |name: &String| name.rsplit(':').next().unwrap_or_default().to_owned();
                let archives = question.ledgers.iter().map(month).zip(archives);
                let archives = archives.filter_map(|(month, gauge)| Some((month, gauge?)));
                let gauges =
                    Gauges { archives: archives.collect(), ..self.gauges(question.alerts, now)? };
                let page = prometheus::render(&self.counters, &gauges, now, format);
                Ok(Step::respond(200, format.content_type(), page))
            }
            "show" => {
                let mut shown = question.shown;
                let exports: BTreeMap<&str, Value> = Signal::ALL
                    .into_iter()
                    .map(|signal| Ok((signal.name(), self.shown_export(signal)?)))
                    .collect::<Result<_, SqlError>>()?;
                if let Some(fields) = shown.as_object_mut() {
                    fields.insert("exports".to_owned(), json!(exports));
                }
                Ok(Step::json(200, &shown))
            }
            _ => Err(SqlError(format!("no question is called {method:?}"))),
        }
    }

    fn shown_export(&self, signal: Signal) -> Result<Value, SqlError> {
        let export = self.export(signal);
        let waiting = match signal {
            Signal::Logs => self.store.waiting()?.count,
            Signal::Metrics => 0,
        };
        let moment = |at: Option<Timestamp>| at.map(|at| at.to_string());
        Ok(json!({
            "waiting": waiting,
            "delivered": export.delivered,
            "dropped": export.dropped,
            "failures": export.failures,
            "delivered_at": moment(export.delivered_at),
            "next_attempt_at": moment(self.due_at(signal)?),
            "status": export.status,
            "error": export.error,
        }))
    }

    fn gauges(
        &self,
        alerts: Option<BTreeMap<String, u64>>,
        now: Timestamp,
    ) -> Result<Gauges, SqlError> {
        let budget = |snapshot: BudgetSnapshot| {
            // A window that is over says nothing of the one that is now: nothing was told of that, so nothing is spent.
            let is_over = snapshot.window_ends_at.is_some_and(|end| end <= now);
            let (spent, held) =
                if is_over { (Usd::ZERO, Usd::ZERO) } else { (snapshot.spent, snapshot.held) };
            let (budget, limit, at) = (snapshot.budget, snapshot.limit, snapshot.at);
            BudgetGauge { budget, limit, spent, held, at }
        };
        let mut exports = Vec::new();
        for signal in Signal::ALL.into_iter().filter(|signal| self.wants(*signal)) {
            let waiting = match signal {
                Signal::Logs => self.store.waiting()?,
                Signal::Metrics => super::telemetry_store::Waiting::default(),
            };
            let export = self.export(signal);
            exports.push(ExportGauge {
                signal: signal.name(),
                waiting: waiting.count,
                oldest_at: waiting.oldest_at,
                delivered: export.delivered,
                dropped: export.dropped,
            });
        }
        Ok(Gauges {
            budgets: self.store.budgets()?.into_iter().map(budget).collect(),
            alerts,
            ledger_waiting: self.store.ledger_waiting()?,
            exports,
            ..Gauges::default()
        })
    }

    fn wants(&self, signal: Signal) -> bool {
        let collector = self.plan.as_ref().and_then(|plan| plan.collector.as_ref());
        collector.is_some_and(|collector| collector.signals.contains(&signal))
    }

    fn export(&self, signal: Signal) -> &Export {
        match signal {
            Signal::Metrics => &self.progress.metrics,
            Signal::Logs => &self.progress.logs,
        }
    }

    fn export_mut(&mut self, signal: Signal) -> &mut Export {
        match signal {
            Signal::Metrics => &mut self.progress.metrics,
            Signal::Logs => &mut self.progress.logs,
        }
    }

    fn save_progress(&self) -> Result<(), SqlError> {
        self.store.set_meta("progress", &self.progress)
    }
}

type Prepared = (String, BTreeMap<String, String>);

/// Where an export goes, and with which headers.
fn prepare(
    plan: &TelemetryPlan,
    collector: &CollectorPlan,
    signal: Signal,
    sender: &Sender<'_>,
) -> Result<Prepared, &'static str> {
    let mut headers: BTreeMap<String, String> = match &collector.headers {
        None => BTreeMap::new(),
        Some(sealed) => {
            let plain = sender.ring.open(sealed, &seal_context(&plan.workspace));
            let plain = plain.map_err(|_| "secret_lost")?;
            serde_json::from_str(&plain).map_err(|_| "secret_lost")?
        }
    };
    headers.insert("content-type".to_owned(), "application/json".to_owned());
    let agent = concat!("tallygate/", env!("CARGO_PKG_VERSION"));
    headers.insert("user-agent".to_owned(), agent.to_owned());
    let url = format!("{}/v1/{}", collector.endpoint.trim_end_matches('/'), signal.name());
    check_target(&url, sender.allow_private).map_err(|_| "address_not_allowed")?;
    Ok((url, headers))
}
