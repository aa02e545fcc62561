//! One run: the steps of a night in order, for each workspace and day, under a lease, with a checkpoint after each day. A
//! run that is killed anywhere is taken up where it stood; a run that is repeated changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tallygate_shared::feedback::{FindingKind, ReconcilerContext, ReconcilerFinding};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::bills::Bills;
use super::day_mark::{self, DayMark, Place, Told};
use super::events::{self, DayEvents, EventsFailed};
use super::feed_back::{self, Corrections, Feedback};
use super::in_force::is_in_force;
use super::pull::{self, PullFailed, Shared};
use super::read::{Aggregator, ReadOptions};
use super::write::{self, Rows, Stamp, WriteFailed};
use super::{Finding, NightError, Options, ProviderEstimates, Tolerance, UnitBill, settle_stream};
use crate::config::{Config, WorkspaceConfig};
use crate::connectors::Days;
use crate::connectors::cost_explorer::PaidCalls;
use crate::connectors::http::Patience;
use crate::edge::{Edge, Signing};
use crate::focus::month::Month;
use crate::ledger::{Content, LineId, Revision, UnitId, hex};
use crate::ports::{Lease, LedgerStore, ObjectStore, RunId, RunState, StoreError};
use crate::report::{ProviderReport, Report, Status, WorkspaceReport};

/// How long a lease lasts. A step between checkpoints takes less.
const LEASE_MS: i64 = 15 * 60_000;
/// So much time must be left for another day; the Lambda's end comes without a word.
const RESERVE_MS: i64 = 60_000;
/// Lines of estimates in memory before they spill: about 250 bytes each.
const LINES_IN_MEMORY: usize = 250_000;
/// So often a day is looked at whose books another worker writes into.
const LOOKS: u32 = 3;
/// How the names of nights begin.
const NIGHT: &str = "night#";
/// Sentences of a kind in a report.
const MAX_SENTENCES: usize = 300;
/// How the content address of a bill from the inbox begins.
const INBOX: &str = "pull/v1/inbox/";
/// A change here has every unit settled anew.
const ALGORITHM: &str = "1";

/// Why a run could not go on. What is in the books stays right; the run is taken up later.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Somebody else runs.
    #[error("another run holds the lease of {run} until {until}: it ends by itself")]
    Held {
        /// The run.
        run: String,
        /// Until when.
        until: Timestamp,
    },
    /// Somebody else took the run over.
    #[error("another worker took {run} over: this one stops")]
    Superseded {
        /// The run.
        run: String,
    },
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The books.
    #[error(transparent)]
    Night(#[from] NightError),
    /// The run's notes cannot be read.
    #[error("the notes of {run} are damaged: {reason}")]
    Notes {
        /// The run.
        run: String,
        /// Why.
        reason: String,
    },
}

impl From<WriteFailed> for RunError {
    fn from(failed: WriteFailed) -> Self {
        match failed {
            WriteFailed::Store(error) => Self::Store(error),
            WriteFailed::Night(error) => Self::Night(error),
        }
    }
}

/// Time, as the run sees it.
pub trait Clock: Signing {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Milliseconds until the process is ended. `None`: it is not.
    fn left_ms(&self) -> Option<i64>;
}

/// Who hears how a run goes on.
pub trait Progress: Send + Sync {
    /// A step begins.
    fn step(&self, workspace: &str, what: &str, done: u64, of: u64);
}

/// How a call of [`run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run is over.
    Done,
    /// The run was over before: nothing was done.
    Before,
    /// There was no time left: call again.
    More,
}

/// What becomes of a run that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is made again.
    Always,
    /// It is made again when something was missing, with what it has: only what is missing is asked for.
    IfPartial,
}

/// All that a run needs.
pub struct Night<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerStore>,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Who hears of it.
    pub progress: &'a dyn Progress,
    /// How patient to be with sources and the edge.
    pub patience: Patience,
    /// This worker's name: no other has it.
    pub holder: String,
}

/// The lease of a run, and its notes.
struct Held {
    run: RunId,
    token: u64,
    state: RunState,
    report: Report,
}

/// Runs, or goes on with a run.
pub async fn run(
    night: &Night<'_>,
    run: RunId,
    days: Days,
    again: Again,
) -> Result<(Ended, Report), RunError> {
    let mut held = match take(night, &run, days, again).await? {
        Ok(held) => held,
        Err(report) => return Ok((Ended::Before, report)),
    };
    // What an earlier invocation of the same run has spent is spent.
    let left = night.config.max_paid_calls.saturating_sub(held.report.paid_calls);
    let shared = Shared {
        objects: night.objects.clone(),
        paid_calls: Arc::new(PaidCalls::new(left)),
        patience: night.patience,
    };
    for workspace in &night.config.workspaces {
        let key = format!("done#{}", workspace.id);
        if held.state.done.contains_key(&key) {
            continue;
        }
        let paid_before = held.report.paid_calls.saturating_sub(shared.paid_calls.taken());
        let others = BTreeSet::new();
        let mut one =
            Workspace { night, config: workspace, days, shared: &shared, others, paid_before };
        match one.run(&mut held).await? {
            Ended::More => {
                note(&mut held)?;
                let kept = night.ledger.release(&held.run, held.token, &held.state).await?;
                return if kept { Ok((Ended::More, held.report)) } else { Err(superseded(&held)) };
            }
            Ended::Done | Ended::Before => {
                held.state.done.insert(key, String::new());
                checkpoint(night, &mut held).await?;
            }
        }
    }
    held.report.status = if held.report.is_whole() { Status::Complete } else { Status::Partial };
    note(&mut held)?;
    keep_report(night, &held.report).await?;
    if !night.ledger.finish(&held.run, held.token, &held.state).await? {
        return Err(superseded(&held));
    }
    Ok((Ended::Done, held.report))
}

/// Takes the run's lease. `Err`: it is over, with this report.
async fn take(
    night: &Night<'_>,
    run: &RunId,
    days: Days,
    again: Again,
) -> Result<Result<Held, Report>, RunError> {
    let mut kept = BTreeMap::new();
    let mut reopened = false;
    loop {
        let now = night.clock.now();
        let until = now.plus_ms(LEASE_MS);
        match night.ledger.lease(run, &night.holder, now, until).await? {
            Lease::Held { until } => return Err(RunError::Held { run: run.0.clone(), until }),
            Lease::Done(state) => {
                let report = report_of(run, &state, days)?;
                let partial = report.status != Status::Complete;
                if reopened || (again == Again::IfPartial && !partial) {
                    return Ok(Err(report));
                }
                if again == Again::IfPartial {
                    kept = what_it_has(night.config, state);
                }
                night.ledger.reopen(run).await?;
                reopened = true;
            }
            Lease::Granted { token, state } => {
                let mut state = state.unwrap_or_default();
                if state.report.is_none() {
                    state.done.extend(kept);
                }
                let report = report_of(run, &state, days)?;
                return Ok(Ok(Held { run: run.clone(), token, state, report }));
            }
        }
    }
}

/// What a partial run need not ask for again: answers that it has. Dropped files are looked at again: a person may have
/// mended them.
fn what_it_has(config: &Config, state: RunState) -> BTreeMap<String, String> {
    let mut kept = state.done;
    let files: BTreeSet<String> = config
        .workspaces
        .iter()
        .flat_map(|workspace| {
            let sources = workspace.sources.iter().enumerate();
            let files = sources.filter(|(_, source)| source.name() == "inbox");
            files.map(|(place, _)| format!("pull#{}#{place}", workspace.id))
        })
        .collect();
    kept.retain(|key, _| {
        (key.starts_with("pull#") && !files.contains(key)) || key.starts_with("events#")
    });
    kept
}

fn report_of(run: &RunId, state: &RunState, days: Days) -> Result<Report, RunError> {
    let Some(text) = &state.report else {
        let (from, to) = (days.from.to_string(), days.to.to_string());
        return Ok(Report { run: run.0.clone(), from, to, ..Report::default() });
    };
    serde_json::from_str(text)
        .map_err(|e| RunError::Notes { run: run.0.clone(), reason: e.to_string() })
}

fn superseded(held: &Held) -> RunError {
    RunError::Superseded { run: held.run.0.clone() }
}

fn note(held: &mut Held) -> Result<(), RunError> {
    let text = serde_json::to_string(&held.report)
        .map_err(|e| RunError::Notes { run: held.run.0.clone(), reason: e.to_string() })?;
    held.state.report = Some(text);
    Ok(())
}

async fn checkpoint(night: &Night<'_>, held: &mut Held) -> Result<(), RunError> {
    note(held)?;
    let until = night.clock.now().plus_ms(LEASE_MS);
    if night.ledger.checkpoint(&held.run, held.token, until, &held.state).await? {
        Ok(())
    } else {
        Err(superseded(held))
    }
}

async fn keep_report(night: &Night<'_>, report: &Report) -> Result<(), RunError> {
    let body = serde_json::to_vec(report)
        .map_err(|e| RunError::Notes { run: report.run.clone(), reason: e.to_string() })?;
    let key = format!("report/v1/{}.json", hex(Sha256::digest(&body).as_slice()));
    night.objects.put_once(&key, body.into()).await?;
    set_mark(night.ledger.as_ref(), "report#latest", &key).await?;
    Ok(())
}

pub(crate) async fn set_mark(
    ledger: &dyn LedgerStore,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    loop {
        let before = ledger.mark(name).await?;
        if before.as_deref() == Some(value)
            || ledger.set_mark(name, before.as_deref(), value).await?
        {
            return Ok(());
        }
    }
}

/// The mark that closes a workspace's month.
pub fn month_mark(workspace: &str, month: &str) -> String {
    format!("closed#{workspace}#{month}")
}

/// A workspace's part of a run.
struct Workspace<'a> {
    night: &'a Night<'a>,
    config: &'a WorkspaceConfig,
    days: Days,
    shared: &'a Shared,
    /// Days that another run writes.
    others: BTreeSet<String>,
    /// Paid calls of earlier invocations of the run.
    paid_before: u32,
}

/// How a look at a day ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// Its books are what they should be, or the report says what is missing.
    Over,
    /// Another worker has it.
    Overtaken,
    /// Another worker wrote into it meanwhile: it needs another look.
    Disturbed,
}

/// A unit that is in the books, and what the edge is to hear of it.
struct Settled {
    feedback: Feedback,
    told: Told,
    books: String,
    /// Whether the books say what this worker wanted: another one may have written too.
    as_wanted: bool,
}

/// What a day is settled with.
struct Given<'a> {
    edge: &'a Edge<'a>,
    context: &'a ReconcilerContext,
    bills: &'a Bills,
    places: BTreeMap<String, (String, String)>,
    seq: u64,
    scratch: PathBuf,
}

impl Workspace<'_> {
    async fn run(&mut self, held: &mut Held) -> Result<Ended, RunError> {
        let id = self.config.id.clone();
        held.report.workspaces.entry(id.clone()).or_default();
        let night = self.night;
        let edge = Edge::new(&id, &self.config.edge, night.clock, night.patience);
        let edge = match edge {
            Ok(edge) => edge,
            Err(error) => return Ok(self.missing(held, "edge", &error.to_string())),
        };
        let context = match edge.context().await {
            Ok(context) => context,
            Err(error) => return Ok(self.missing(held, "edge", &error.to_string())),
        };
        self.report(held).missing.remove("edge");
        let seq = self.number(held).await?;
        let mut bills = self.pull(held).await?;
        let scratch = night.config.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let places = events::places(&context, &self.config.accounts, &self.config.sources);
        if bills.has_long_lines() {
            let (edge, context, bills_before) = (&edge, &context, &bills);
            let (places, scratch) = (places.clone(), scratch.clone());
            let given = Given { edge, context, bills: bills_before, places, seq, scratch };
            let estimates = self.daily_estimates(held, &given).await?;
            for (provider, error) in bills.spread(&estimates) {
                self.missing(held, &format!("long charges of {provider}"), &error.to_string());
            }
        }
        let given = Given { edge: &edge, context: &context, bills: &bills, places, seq, scratch };
        self.left_out(held, &bills).await?;
        if self.settle_days(held, &given).await? == Ended::More {
            return Ok(Ended::More);
        }
        self.credentials(held, &given).await?;
        self.sum_up(held, &bills).await?;
        self.tell_incomplete(held, &given).await;
        Ok(Ended::Done)
    }

    /// Says which days need a run of their own: parts of charges lie on them that no run has booked.
    async fn left_out(&self, held: &mut Held, bills: &Bills) -> Result<(), RunError> {
        for (provider, days) in bills.days_left_out(self.days) {
            let mut without: Vec<Date> = Vec::new();
            for day in days {
                let (workspace, name) = (self.config.id.clone(), day.to_string());
                let unit = UnitId { workspace, day: name, provider: provider.to_owned() };
                let rows = self.night.ledger.newest(&unit).await?;
                if rows.iter().all(|row| row.content.billed.is_none()) {
                    without.push(day);
                }
            }
            if let (Some(first), Some(last)) = (without.first(), without.last()) {
                let note = format!(
                    "{provider}: parts of its charges lie on {} days before the look-back and are not in the books: run backfill --from {first} --to {last}",
                    without.len()
                );
                say(&mut self.report(held).notes, note);
            }
        }
        Ok(())
    }

    fn report<'h>(&self, held: &'h mut Held) -> &'h mut WorkspaceReport {
        held.report.workspaces.entry(self.config.id.clone()).or_default()
    }

    fn missing(&self, held: &mut Held, what: &str, why: &str) -> Ended {
        self.report(held).missing.insert(what.to_owned(), why.to_owned());
        Ended::Done
    }

    /// The number of this pull: drawn before anything is asked, so that who asked later has the greater one. A resumed run
    /// keeps its own.
    async fn number(&self, held: &mut Held) -> Result<u64, RunError> {
        let key = format!("seq#{}", self.config.id);
        let known = held.state.done.get(&key).and_then(|text| text.parse().ok());
        let seq = match known {
            Some(seq) => seq,
            None => {
                let name = format!("pull#{}", self.config.id);
                let seq = self.night.ledger.next_number(&name).await?;
                held.state.done.insert(key, seq.to_string());
                checkpoint(self.night, held).await?;
                seq
            }
        };
        self.report(held).seq = seq;
        Ok(seq)
    }

    /// A source's name in the report; of several of a kind each has its own.
    fn label(&self, place: usize, source: &crate::config::Source) -> String {
        let name = source.name();
        if self.config.sources.iter().filter(|other| other.name() == name).count() == 1 {
            return name.to_owned();
        }
        let account = source.account().map_or("", |(_, account)| account);
        format!("{name} (source {}) {account}", place + 1).trim_end().to_owned()
    }

    /// Step 1, source by source. One that fails stops no other.
    async fn pull(&self, held: &mut Held) -> Result<Bills, RunError> {
        let id = &self.config.id;
        let count = u64::try_from(self.config.sources.len()).unwrap_or(0);
        let mut bills = Bills::default();
        // What an earlier invocation of the run said of its pulls, this one says again.
        let sources = self.config.sources.iter().enumerate();
        let names: Vec<String> = sources.map(|(place, source)| self.label(place, source)).collect();
        let report = self.report(held);
        report.held.clear();
        report.missing.retain(|what, _| !names.contains(what));
        report
            .notes
            .retain(|note| !names.iter().any(|name| note.starts_with(&format!("{name}: "))));
        for (place, source) in self.config.sources.iter().enumerate() {
            let done = u64::try_from(place).unwrap_or(0);
            let label = self.label(place, source);
            self.night.progress.step(id, &format!("pulling {label}"), done, count);
            let key = format!("pull#{id}#{place}");
            let objects = self.night.objects.as_ref();
            let pulled = match pull::connector(source, self.shared).await {
                Err(error) => Err(PullFailed::Source(error)),
                Ok(connector) => match held.state.done.get(&key).filter(|manifest| {
                    // The configuration may have changed since.
                    pull::is_of(manifest, connector.name())
                }) {
                    Some(manifest) => pull::pull_again(connector.as_ref(), manifest, objects).await,
                    None => {
                        let today = self.night.clock.now().date();
                        pull::pull(connector.as_ref(), self.days, today, objects).await
                    }
                },
            };
            let paid = self.shared.paid_calls.taken();
            held.report.paid_calls = self.paid_before.saturating_add(paid);
            match pulled {
                Ok(pulled) => {
                    held.state.done.insert(key, pulled.manifest.clone());
                    let report = self.report(held);
                    report.missing.remove(&label);
                    pulled.held.iter().for_each(|held| say(&mut report.held, held.to_string()));
                    for note in &pulled.bill.notes {
                        say(&mut report.notes, format!("{label}: {note}"));
                    }
                    bills.add(source, pulled);
                    checkpoint(self.night, held).await?;
                }
                Err(PullFailed::Store(error @ StoreError::Damaged { .. })) => {
                    // What was kept cannot be read: it is asked for again, now or when the run is taken up.
                    held.state.done.remove(&key);
                    bills.lacks(source);
                    self.missing(held, &label, &error.to_string());
                }
                Err(PullFailed::Store(error)) => return Err(error.into()),
                Err(PullFailed::Source(error)) => {
                    bills.lacks(source);
                    self.missing(held, &label, &error.to_string());
                }
            }
        }
        Ok(bills)
    }

    /// Step 2: where each day's events are. The day before the first is needed too: some of its requests end on it.
    async fn events(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
    ) -> Result<Option<(String, DayEvents)>, RunError> {
        let id = &self.config.id;
        let (objects, ledger) = (self.night.objects.as_ref(), self.night.ledger.as_ref());
        let key = format!("events#{id}#{day}");
        let age = self.night.clock.now().since_ms(day.midnight()) / DAY_MS;
        let known = events::known(id, day, objects, ledger).await?;
        let fresh = age <= i64::from(self.night.config.reread_days);
        if known.is_some() && (!fresh || held.state.done.contains_key(&key)) {
            return Ok(known);
        }
        self.night.progress.step(id, &format!("reading events of {day}"), 0, 0);
        match events::copy(given.edge, id, day, objects, ledger, &given.scratch).await {
            Ok(_) => {
                held.state.done.insert(key, String::new());
                self.report(held).missing.remove(&format!("events of {day}"));
                Ok(events::known(id, day, objects, ledger).await?)
            }
            Err(EventsFailed::Store(error)) => Err(error.into()),
            Err(EventsFailed::Night(error)) => Err(error.into()),
            Err(EventsFailed::Edge(error)) => {
                self.missing(held, &format!("events of {day}"), &error.to_string());
                Ok(known)
            }
        }
    }

    async fn settle_days(&mut self, held: &mut Held, given: &Given<'_>) -> Result<Ended, RunError> {
        let outside = given.bills.days_outside(self.days);
        let mut days: BTreeSet<Date> = self.days.each().collect();
        days.extend(outside.iter().copied());
        let count = u64::try_from(days.len()).unwrap_or(0);
        for (place, day) in days.into_iter().enumerate() {
            let key = format!("day#{}#{day}", self.config.id);
            if held.state.done.contains_key(&key) {
                continue;
            }
            if self.night.clock.left_ms().is_some_and(|left| left < RESERVE_MS) {
                return Ok(Ended::More);
            }
            let done = u64::try_from(place).unwrap_or(0);
            self.night.progress.step(&self.config.id, &format!("settling {day}"), done, count);
            let mut looks = 0;
            let looked = loop {
                looks += 1;
                match self.settle_day(held, given, day, outside.contains(&day)).await {
                    Ok(Looked::Disturbed) if looks < LOOKS => {}
                    other => break other,
                }
            };
            match looked {
                Ok(Looked::Over) => {}
                Ok(Looked::Overtaken | Looked::Disturbed) => self.overtaken(held, day),
                // One day that cannot be settled stops no other.
                Err(error) if is_of_the_day(&error) => {
                    self.missing(held, &day.to_string(), &error.to_string());
                }
                Err(error) => return Err(error),
            }
            held.state.done.insert(key, String::new());
            checkpoint(self.night, held).await?;
        }
        Ok(Ended::Done)
    }

    /// What was estimated on each day that a long charge covers, by provider.
    async fn daily_estimates(
        &self,
        held: &mut Held,
        given: &Given<'_>,
    ) -> Result<BTreeMap<String, BTreeMap<Timestamp, Usd>>, RunError> {
        let mut estimates: BTreeMap<String, BTreeMap<Timestamp, Usd>> = BTreeMap::new();
        for day in given.bills.long_days() {
            let Some((_, found)) = self.events(held, given, day).await? else { continue };
            let mut aggregator = self.aggregator(given);
            self.aggregate(&found, None, &mut aggregator).await?;
            let read = aggregator.finish()?;
            read.estimates.scan(None, &mut |estimate| {
                let days = estimates.entry(estimate.provider.clone()).or_default();
                let sum = days.entry(day.midnight()).or_default();
                *sum = super::fits(sum.checked_add(estimate.estimated), "a day's estimate")?;
                Ok(())
            })?;
        }
        Ok(estimates)
    }

    fn aggregator(&self, given: &Given<'_>) -> Aggregator {
        let spill =
            super::SpillOptions { max_lines: LINES_IN_MEMORY, directory: given.scratch.clone() };
        Aggregator::new(ReadOptions::new(given.places.clone(), spill))
    }

    async fn aggregate(
        &self,
        found: &DayEvents,
        before: Option<&DayEvents>,
        into: &mut Aggregator,
    ) -> Result<(), RunError> {
        let read = events::aggregate(found, before, self.night.objects.as_ref(), into).await;
        read.map_err(|failed| match failed {
            EventsFailed::Store(error) => RunError::Store(error),
            EventsFailed::Night(error) => RunError::Night(error),
            EventsFailed::Edge(error) => {
                RunError::Notes { run: self.config.id.clone(), reason: error.to_string() }
            }
        })
    }

    async fn settle_day(
        &mut self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
        outside: bool,
    ) -> Result<Looked, RunError> {
        let id = self.config.id.clone();
        let (ledger, objects) = (self.night.ledger.as_ref(), self.night.objects.as_ref());
        let Some((list, found)) = self.events(held, given, day).await? else {
            return Ok(Looked::Over);
        };
        let yesterday = day.midnight().plus_ms(-DAY_MS).date();
        let before = self.events(held, given, yesterday).await?;
        let mut place = Place::read(&id, day, ledger).await?;
        let mark = place.mark.clone();
        let before_list = before.as_ref().map(|(list, _)| list.as_str()).unwrap_or_default();
        let input = self.input(given, day, &list, before_list);
        if mark.seq > given.seq {
            return Ok(Looked::Overtaken);
        }
        if mark.input == input && mark.fed && self.books_are(&mark, day).await? {
            self.report(held).days_unchanged += 1;
            return Ok(Looked::Over);
        }
        let mut aggregator = self.aggregator(given);
        self.aggregate(&found, before.as_ref().map(|(_, found)| found), &mut aggregator).await?;
        let read = aggregator.finish()?;
        let providers = self.providers_of(given, &read, day, outside).await?;
        let mut told = Told::load(&mark.told, objects).await?;
        let opened = DayMark { input: String::new(), seq: given.seq, fed: false, ..mark.clone() };
        if !place.set(opened, ledger).await? {
            return Ok(Looked::Overtaken);
        }
        let mut books = mark.books.clone();
        let (mut fed, mut settled) = (true, true);
        for provider in providers {
            let unit =
                UnitId { workspace: id.clone(), day: day.to_string(), provider: provider.clone() };
            if self.keeps_books(given, &unit).await? {
                // What the books have is better than what would be written without the bill.
                fed = false;
                continue;
            }
            let facts = read.facts.get(&provider).cloned().unwrap_or_default();
            let estimates = ProviderEstimates { estimates: &read.estimates, provider: &provider };
            let bill = self.unit_bill(given, &unit, facts);
            let done = match self.settle_unit(held, given, bill, &estimates, &told).await {
                Ok(done) => done,
                Err(RunError::Night(error)) => {
                    // One unit that cannot be settled stops no other, and what the books have of it stays.
                    fed = false;
                    self.missing(held, &format!("{provider} on {day}"), &error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            settled &= done.as_wanted;
            books.insert(provider.clone(), done.books);
            // Noted before it is said: what a killed worker said can be taken back.
            told.widen(&provider, &done.told);
            let noted = DayMark { told: told.keep(&id, objects).await?, ..place.mark.clone() };
            if !place.set(noted, ledger).await? {
                return Ok(Looked::Overtaken);
            }
            match done.feedback.bring(given.edge).await {
                Ok(()) => told.replace(&provider, &done.told),
                Err(error) => {
                    fed = false;
                    let what = format!("feedback of {day} {provider}");
                    self.missing(held, &what, &error.to_string());
                }
            }
        }
        if !settled {
            return Ok(Looked::Disturbed);
        }
        let told = told.keep(&id, objects).await?;
        let mark = DayMark { input, seq: given.seq, fed, told, books };
        if !place.set(mark, ledger).await? {
            return Ok(Looked::Overtaken);
        }
        self.report(held).days_settled += 1;
        Ok(Looked::Over)
    }

    /// Notes that a day is another run's. Its books are set against that run's bills, not against ours.
    fn overtaken(&mut self, held: &mut Held, day: Date) {
        let note = format!("{day}: another run writes it, or a newer pull is in the books already");
        say(&mut self.report(held).notes, note);
        self.others.insert(day.to_string());
    }

    /// Whether the books of a settled day still say what was written then.
    async fn books_are(&self, mark: &DayMark, day: Date) -> Result<bool, RunError> {
        for (provider, books) in &mark.books {
            let (workspace, day) = (self.config.id.clone(), day.to_string());
            let unit = UnitId { workspace, day, provider: provider.clone() };
            if day_mark::books(&self.night.ledger.newest(&unit).await?) != *books {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Who has a part in a day: by use, by bill, or by what the books say already.
    async fn providers_of(
        &self,
        given: &Given<'_>,
        read: &super::read::Aggregated,
        day: Date,
        outside: bool,
    ) -> Result<BTreeSet<String>, RunError> {
        let mut providers: BTreeSet<String> = read.facts.keys().cloned().collect();
        read.estimates.scan(None, &mut |estimate| {
            if !providers.contains(&estimate.provider) {
                providers.insert(estimate.provider.clone());
            }
            Ok(())
        })?;
        providers.extend(given.bills.providers_on(day));
        let month = Month::of(day).to_string();
        for unit in self.night.ledger.units(&self.config.id, &month).await? {
            if unit.day == day.to_string() {
                providers.insert(unit.provider);
            }
        }
        if outside {
            providers.retain(|provider| given.bills.is_whole_outside(provider));
        }
        Ok(providers)
    }

    /// All that a day's books follow from.
    fn input(&self, given: &Given<'_>, day: Date, list: &str, before: &str) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        [ALGORITHM, list, before].into_iter().for_each(&mut part);
        given.bills.describe(day, &mut part);
        for (name, (provider, account)) in &given.places {
            [name, provider, account].into_iter().for_each(|text| part(text));
        }
        let settings = (
            &self.config.tags,
            &self.config.known_credentials,
            &self.config.resolution,
            &self.night.config.ledger_dimensions,
            &given.context.budgets,
            &given.context.settings,
        );
        part(&serde_json::to_string(&settings).unwrap_or_default());
        // What is derived from listings, and from the bill's other days.
        let mut providers: BTreeSet<String> = given.bills.providers_on(day).into_iter().collect();
        providers.extend(given.places.values().map(|(provider, _)| provider.clone()));
        for provider in &providers {
            let options = self.options(given, provider);
            part(&format!("{provider} {:?} {:?}", options.known_credentials, options.resolution));
        }
        hex(hash.finalize().as_slice())
    }

    /// Whether a unit stays as it is, because a source that has a part of its bill could not be had.
    async fn keeps_books(&self, given: &Given<'_>, unit: &UnitId) -> Result<bool, RunError> {
        let bills = given.bills;
        if !bills.is_missing(&unit.provider) && !bills.is_anybody_missing() {
            return Ok(false);
        }
        let rows = self.night.ledger.newest(unit).await?;
        let mut billed = rows.iter().map(|row| &row.content).filter(|row| row.billed.is_some());
        Ok(if bills.is_missing(&unit.provider) {
            billed.next().is_some()
        } else {
            billed.any(|content| content.source.contains(INBOX))
        })
    }

    fn unit_bill(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
        facts: super::read::ProviderFacts,
    ) -> UnitBill {
        let day = given.bills.of(unit);
        UnitBill {
            unit: unit.clone(),
            facts,
            lines: day.lines,
            usage: day.usage,
            source: day.source,
            provisional: day.provisional,
            // Lines that are gone are stated as nothing where the sums are written.
            previous: Vec::new(),
        }
    }

    fn options(&self, given: &Given<'_>, provider: &str) -> Options {
        let settings = &given.context.settings;
        Options {
            known_credentials: given.bills.known_credentials(
                provider,
                given.context,
                &self.config.known_credentials,
            ),
            tag_owners: self.config.tags.clone(),
            tolerance: Tolerance {
                amount: settings.variance_tolerance_usd,
                per_mille: settings.variance_tolerance_percent.saturating_mul(10),
            },
            resolution: self
                .config
                .resolution
                .get(provider)
                .copied()
                .or_else(|| given.bills.resolution(provider)),
            ..Options::default()
        }
    }

    async fn settle_unit(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        bill: UnitBill,
        estimates: &ProviderEstimates<'_>,
        told_before: &Told,
    ) -> Result<Settled, RunError> {
        let unit = bill.unit.clone();
        let scratch = tempfile::tempdir_in(&given.scratch).map_err(|e| {
            let directory = given.scratch.display().to_string();
            NightError::Spill { directory, reason: e.to_string() }
        })?;
        let mut rows = Rows::begin(scratch.path(), &self.night.config.ledger_dimensions)?;
        let mut corrections = Corrections::new(&unit, given.seq, given.context);
        let options = self.options(given, &unit.provider);
        let summary =
            settle_stream(&bill, estimates, &options, &mut |line: LineId, content: Content| {
                corrections.add(&line, &content)?;
                rows.push(line, content)
            })?;
        let rows = rows.finish()?;
        if rows.count > 0 {
            write::keep_rows(&unit, &rows, self.night.objects.as_ref()).await?;
        }
        let noted = super::fits(super::export::invoiced(&bill.lines), "an invoice")?;
        let (ledger, name) = (self.night.ledger.as_ref(), super::export::invoice_mark(&unit));
        if !noted.is_empty() || ledger.mark(&name).await?.is_some() {
            let text = serde_json::to_string(&noted).unwrap_or_default();
            set_mark(ledger, &name, &text).await?;
        }
        let month = unit.day.get(..7).unwrap_or_default();
        let closed = self.night.ledger.mark(&month_mark(&unit.workspace, month)).await?.is_some();
        let open = Month::of(self.night.clock.now().date()).to_string();
        let booked_in = closed.then_some(open.as_str());
        let stamp = Stamp { seq: given.seq, run: &held.run.0, booked_in };
        let written = write::write(&unit, &rows.folded, &stamp, self.night.ledger.as_ref()).await?;
        let report = self.report(held);
        report.rows_written += written;
        for finding in &summary.findings {
            say(&mut report.findings, feed_back::in_words(&unit, finding));
        }
        let newest = self.night.ledger.newest(&unit).await?;
        let mut told = Told::default();
        let feedback = self.feedback(
            given,
            &unit,
            (&summary.findings, &newest),
            corrections,
            told_before,
            &mut told,
        );
        let as_wanted = write::is_written(&rows.folded, &newest);
        Ok(Settled { feedback, told, books: day_mark::books(&newest), as_wanted })
    }

    fn feedback(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
        (findings, newest): (&[Finding], &[Revision]),
        corrections: Corrections<'_>,
        told_before: &Told,
        told: &mut Told,
    ) -> Feedback {
        let nothing = BTreeSet::new();
        let corrected = told_before.corrected.get(&unit.provider).unwrap_or(&nothing);
        let corrections = corrections.finish(corrected);
        let alerts = feed_back::alerts(unit, findings);
        let before = told_before.findings.get(&unit.provider).cloned().unwrap_or_default();
        let over = feed_back::over(before, &alerts);
        // What is nothing now need not be taken back.
        let told_now = corrections.iter().filter(|c| c.amount != Usd::ZERO);
        let names = told_now.map(|c| (c.budget.clone(), c.value.clone())).collect();
        told.corrected.insert(unit.provider.clone(), names);
        told.findings.insert(unit.provider.clone(), alerts.clone());
        let true_ups = newest
            .iter()
            .map(|row| feed_back::true_up(unit, &row.line, &row.content, given.seq))
            .collect();
        let now = self.night.clock.now();
        let prices = feed_back::prices(unit, findings, |price| {
            Date::parse(&unit.day).is_some_and(|day| is_in_force(price, given.context, day, now))
        });
        let findings = alerts.into_iter().chain(over).collect();
        Feedback { true_ups, corrections, prices, findings }
    }

    /// Keys that providers list and the gateway does not hold.
    async fn credentials(&self, held: &mut Held, given: &Given<'_>) -> Result<(), RunError> {
        let known = &self.config.known_credentials;
        let unknown = given.bills.unknown_credentials(given.context, known);
        let findings: Vec<ReconcilerFinding> =
            unknown.iter().map(|credential| feed_back::unknown_credential(credential)).collect();
        let (ledger, objects) = (self.night.ledger.as_ref(), self.night.objects.as_ref());
        let name = format!("credentials#{}", self.config.id);
        let mark = ledger.mark(&name).await?.unwrap_or_default();
        let before: Vec<ReconcilerFinding> = day_mark::load(&mark, objects).await?;
        let report = self.report(held);
        report.unknown_credentials.clear();
        for found in &findings {
            say(&mut report.unknown_credentials, found.title.clone());
        }
        // A provider that could not be asked has not said that a key is gone.
        let is_open = |found: &ReconcilerFinding| {
            found.evidence.get("provider").is_some_and(|name| given.bills.is_missing(name))
        };
        let (kept, before): (Vec<_>, Vec<_>) = before.into_iter().partition(is_open);
        let mut all = findings.clone();
        all.extend(feed_back::over(before, &findings));
        let mut open = findings;
        for found in kept {
            if !open.iter().any(|other| other.subject == found.subject) {
                open.push(found);
            }
        }
        match given.edge.bring("findings", &all).await {
            Ok(()) => {
                let key = day_mark::keep("credentials", &self.config.id, &open, objects).await?;
                set_mark(ledger, &name, &key).await?;
                self.report(held).missing.remove("feedback of credentials");
            }
            Err(error) => {
                self.missing(held, "feedback of credentials", &error.to_string());
            }
        }
        Ok(())
    }

    /// Reads the books again and sets them against the bills: the run's own proof.
    async fn sum_up(&self, held: &mut Held, bills: &Bills) -> Result<(), RunError> {
        let mut providers: BTreeMap<String, ProviderReport> = BTreeMap::new();
        let months: BTreeSet<Month> = self.days.each().map(Month::of).collect();
        let overflow = || NightError::Overflow { what: "a provider's sum" };
        let sum = |to: &mut Usd, amount: Usd| -> Result<(), NightError> {
            *to = to.checked_add(amount).ok_or_else(overflow)?;
            Ok(())
        };
        let (from, to) = (self.days.from.to_string(), self.days.to.to_string());
        let mut units: BTreeSet<UnitId> = BTreeSet::new();
        for month in months {
            units.extend(self.night.ledger.units(&self.config.id, &month.to_string()).await?);
        }
        for day in self.days.each() {
            // A bill without books is the worst difference of all.
            for provider in bills.providers_on(day) {
                let workspace = self.config.id.clone();
                units.insert(UnitId { workspace, day: day.to_string(), provider });
            }
        }
        for unit in units {
            if unit.day < from || unit.day >= to {
                continue;
            }
            let provider = providers.entry(unit.provider.clone()).or_default();
            let mut of_unit = Usd::ZERO;
            let mut of_inbox = false;
            for row in self.night.ledger.newest(&unit).await? {
                let content = &row.content;
                provider.rows += 1;
                sum(&mut provider.estimated, content.estimated)?;
                sum(&mut provider.quantity_variance, content.quantity_variance)?;
                sum(&mut provider.price_variance, content.price_variance)?;
                let Some(billed) = content.billed else {
                    provider.unbilled_rows += 1;
                    continue;
                };
                of_inbox |= content.source.contains(INBOX);
                sum(&mut provider.estimated_of_billed, content.estimated)?;
                sum(&mut of_unit, billed)?;
                if feed_back::is_unmetered(&row.line) {
                    sum(&mut provider.unmetered, billed)?;
                }
            }
            sum(&mut provider.ledger, of_unit)?;
            let kept = bills.is_missing(&unit.provider) || (bills.is_anybody_missing() && of_inbox);
            if kept || self.others.contains(&unit.day) {
                // A source is down, and the books keep what it said last; or they are another run's.
                sum(&mut provider.billed, of_unit)?;
                continue;
            }
            for line in &bills.of(&unit).lines {
                sum(&mut provider.billed, line.amount)?;
            }
        }
        self.report(held).providers = providers;
        Ok(())
    }

    /// Tells whether the night lacks anything. A backfill does not: it would speak for days that it has not seen, and
    /// whoever runs it sees its report.
    async fn tell_incomplete(&self, held: &mut Held, given: &Given<'_>) {
        if !held.run.0.starts_with(NIGHT) {
            return;
        }
        let run = held.run.0.clone();
        let report = self.report(held);
        let present = !report.missing.is_empty() || !report.held.is_empty();
        let evidence =
            report.missing.iter().take(20).map(|(n, w)| (n.clone(), w.clone())).collect();
        let finding = ReconcilerFinding {
            kind: FindingKind::ReconciliationIncomplete,
            subject: self.config.id.clone(),
            severity: tallygate_shared::alerts::alert::Severity::Warning,
            title: format!(
                "{run} lacks {}",
                report.missing.keys().cloned().collect::<Vec<_>>().join(", ")
            ),
            owner: String::new(),
            evidence,
            present,
        };
        if let Err(error) = given.edge.bring("findings", &[finding]).await {
            self.missing(held, "feedback of the run", &error.to_string());
        }
    }
}

/// Whether an error is about what one day's books are made of, and not about a store or the run.
const fn is_of_the_day(error: &RunError) -> bool {
    matches!(error, RunError::Night(_) | RunError::Store(StoreError::Damaged { .. }))
}

/// Adds a sentence to a report, once, and not without end: a run's notes are one item of the ledger.
fn say(to: &mut Vec<String>, sentence: String) {
    match to.len() {
        MAX_SENTENCES => {}
        length if length + 1 == MAX_SENTENCES => to.push("and more, in the logs".to_owned()),
        _ if to.contains(&sentence) => return,
        _ => {
            to.push(sentence);
            return;
        }
    }
    tracing::warn!(sentence, "the report is full");
}

/// What a run of the whole look-back is called, and its days.
pub fn nightly(now: Timestamp, lookback_days: u32) -> (RunId, Days) {
    let today = now.date();
    let from = today.midnight().plus_ms(-i64::from(lookback_days) * DAY_MS).date();
    (RunId(format!("{NIGHT}{today}")), Days { from, to: today })
}

/// What a run of chosen days is called. The last day is included.
pub fn backfill(from: Date, last: Date) -> (RunId, Days) {
    let to = last.midnight().plus_ms(DAY_MS).date();
    (RunId(format!("backfill#{from}..{last}")), Days { from, to })
}
