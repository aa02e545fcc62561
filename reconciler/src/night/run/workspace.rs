//! A workspace's steps, but for its days.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::StreamExt;
use tallygate_shared::feedback::{ReconcilerContext, ReconcilerFinding};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::held::{Held, checkpoint, keep_lease, say, set_mark};
use super::{Night, RunError, Stop};
use crate::config::{Source, WorkspaceConfig};
use crate::connectors::Days;
use crate::edge::Edge;
use crate::ledger::UnitId;
use crate::night::bills::{Bills, Filed, Lack};
use crate::night::day_mark::{DayMark, Place};
use crate::night::pull::{self, PullFailed, Pulled, Shared};
use crate::night::{day_mark, events, feed_back, fits, tell_run};
use crate::ports::StoreError;
use crate::report::WorkspaceReport;

/// More days than this are not read for charges that overlap: nobody drops ten years of them.
const DAYS_READ: usize = 4_000;
/// Marks that are read at a time.
const WIDTH: usize = 16;

/// A workspace's part of a run.
pub(super) struct Workspace<'a> {
    pub(super) night: &'a Night<'a>,
    pub(super) config: &'a WorkspaceConfig,
    pub(super) days: Days,
    pub(super) shared: &'a Shared,
}

/// What a day is settled with.
pub(super) struct Given<'a> {
    pub(super) edge: &'a Edge<'a>,
    pub(super) context: &'a ReconcilerContext,
    pub(super) bills: &'a Bills,
    pub(super) places: BTreeMap<String, (String, String)>,
    pub(super) seq: u64,
    pub(super) scratch: PathBuf,
}

impl Workspace<'_> {
    pub(super) async fn run(&mut self, held: &mut Held) -> Result<(), Stop> {
        let id = self.config.id.clone();
        held.report.workspaces.entry(id.clone()).or_default();
        let night = self.night;
        let edge = Edge::new(&id, &self.config.edge, night.clock, night.patience);
        let edge = match edge {
            Ok(edge) => edge,
            Err(error) => {
                self.missing(held, "edge", &error.to_string());
                return Ok(());
            }
        };
        let context = match edge.context().await {
            Ok(context) => context,
            Err(error) => {
                self.missing(held, "edge", &error.to_string());
                return Ok(());
            }
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
        self.settle_days(held, &given).await?;
        if let Err(error) = self.left_out(held, &bills).await {
            let RunError::Night(error) = error else { return Err(error.into()) };
            self.missing(held, "days before the look-back", &error.to_string());
        }
        self.credentials(held, &given).await?;
        self.sum_up(held, &bills).await?;
        self.tell_incomplete(held, &given).await;
        self.tell_end(held, &edge).await;
        Ok(())
    }

    /// Says how the run ended, for people who look at the edge.
    async fn tell_end(&self, held: &mut Held, edge: &Edge<'_>) {
        let (from, to) = (self.days.from.to_string(), self.days.to.to_string());
        let (run, now) = (held.run.0.clone(), self.night.clock.now());
        let of = (from.as_str(), to.as_str());
        let told = tell_run::run_of(&run, of, self.report(held), now);
        if let Err(error) = tell_run::tell(edge, told).await {
            self.missing(held, "word of the run's end", &error.to_string());
        }
    }

    /// Says which days before the look-back need a run of their own: dropped files charge for them, and no run has booked
    /// that, or not all.
    pub(super) async fn left_out(&self, held: &mut Held, bills: &Bills) -> Result<(), RunError> {
        let mut known: BTreeMap<Date, DayMark> = BTreeMap::new();
        let mut found: BTreeMap<String, Filed> = BTreeMap::new();
        let before = format!(" before {}", self.days.from);
        self.report(held).missing.retain(|what, _| !what.ends_with(&before));
        for mut filed in bills.filed_before(self.days)? {
            let mut is_whole = filed.days().count() <= DAYS_READ;
            let mut is_old = false;
            self.read_marks(held, filed.days().take(DAYS_READ), &mut known).await?;
            for day in filed.days().take(DAYS_READ) {
                let mark = known.get(&day);
                let noted = mark.and_then(|mark| mark.filed.as_ref());
                let booked = noted.and_then(|filed_by| filed_by.get(&filed.provider)).copied();
                if noted.is_none() && mark.is_some_and(|mark| mark.seq > 0) {
                    let (workspace, provider) = (self.config.id.clone(), filed.provider.clone());
                    let unit = UnitId { workspace, day: day.to_string(), provider };
                    keep_lease(self.night, held).await?;
                    // Nobody noted how much: what is there is taken for all of it.
                    let has_filed = self.books_have(&unit, Lack::Files).await?;
                    is_old |= has_filed;
                    is_whole &= has_filed;
                    continue;
                }
                is_whole &= booked.is_some();
                let left = filed.amount.checked_sub(booked.unwrap_or_default());
                filed.amount = fits(left, "dropped files")?;
            }
            if is_whole && (is_old || filed.amount == Usd::ZERO) {
                continue;
            }
            match found.get_mut(&filed.provider) {
                Some(all) => {
                    all.last = filed.last.max(all.last);
                    all.amount = fits(all.amount.checked_add(filed.amount), "dropped files")?;
                }
                None => drop(found.insert(filed.provider.clone(), filed)),
            }
        }
        for Filed { provider, first, last, amount } in found.into_values() {
            let what = format!("{provider}{before}");
            let why = format!(
                "${amount} of dropped files lie on days that no run has booked so: run backfill --from {first} --to {last}"
            );
            self.missing(held, &what, &why);
        }
        Ok(())
    }

    /// Reads days' marks, several at a time. What cannot be read says of nothing that it is booked.
    async fn read_marks(
        &self,
        held: &mut Held,
        days: impl Iterator<Item = Date>,
        known: &mut BTreeMap<Date, DayMark>,
    ) -> Result<(), RunError> {
        let (id, ledger) = (&self.config.id, self.night.ledger.as_ref());
        let new: Vec<Date> = days.filter(|day| !known.contains_key(day)).collect();
        let mut marks = futures::stream::iter(new)
            .map(|day| async move { (day, Place::read(id, day, ledger).await) })
            .buffered(WIDTH);
        while let Some((day, place)) = marks.next().await {
            keep_lease(self.night, held).await?;
            let mark = match place {
                Err(StoreError::Damaged { .. }) => DayMark::default(),
                read => read?.mark,
            };
            known.insert(day, mark);
        }
        Ok(())
    }

    pub(super) fn report<'h>(&self, held: &'h mut Held) -> &'h mut WorkspaceReport {
        held.report.workspaces.entry(self.config.id.clone()).or_default()
    }

    pub(super) fn missing(&self, held: &mut Held, what: &str, why: &str) {
        self.report(held).missing.insert(what.to_owned(), why.to_owned());
    }

    /// The number of this pull: drawn before anything is asked, so that who asked later has the greater one. A resumed run
    /// keeps its own. It is not below the time in ms: to the edge, books that begin anew are newer than those before.
    pub(super) async fn number(&self, held: &mut Held) -> Result<u64, RunError> {
        let key = format!("seq#{}", self.config.id);
        let known = held.state.done.get(&key).and_then(|text| text.parse().ok());
        let seq = match known {
            Some(seq) => seq,
            None => {
                let name = format!("pull#{}", self.config.id);
                let now_ms = u64::try_from(self.night.clock.now().ms()).unwrap_or(0);
                let seq = self.night.ledger.next_number(&name, now_ms).await?;
                held.state.done.insert(key, seq.to_string());
                checkpoint(self.night, held).await?;
                seq
            }
        };
        self.report(held).seq = seq;
        Ok(seq)
    }

    /// A source's name in the report; of several of a kind each has its own.
    pub(super) fn label(&self, place: usize, source: &Source) -> String {
        let name = source.name();
        if self.config.sources.iter().filter(|other| other.name() == name).count() == 1 {
            return name.to_owned();
        }
        let account = source.account().map_or("", |(_, account)| account);
        format!("{name} (source {}) {account}", place + 1).trim_end().to_owned()
    }

    /// Step 1, source by source. One that fails stops no other.
    pub(super) async fn pull(&self, held: &mut Held) -> Result<Bills, Stop> {
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
            let pulled = self.pull_one(held, source, &key).await?;
            match pulled {
                Ok(pulled) => {
                    let report = self.report(held);
                    report.missing.remove(&label);
                    pulled.held.iter().for_each(|held| say(&mut report.held, held.to_string()));
                    for note in &pulled.bill.notes {
                        say(&mut report.notes, format!("{label}: {note}"));
                    }
                    bills.add(source, pulled);
                    if held.stops(self.night, 0) {
                        return Err(Stop::Time);
                    }
                }
                Err(PullFailed::Store(error @ StoreError::Damaged { .. })) => {
                    // What was kept cannot be read: it is asked for again, now or when the run is taken up.
                    held.state.done.remove(&key);
                    bills.lacks(source);
                    self.missing(held, &label, &error.to_string());
                }
                Err(PullFailed::Store(error)) => return Err(error.into()),
                Err(PullFailed::Source(error)) => {
                    // What cannot be read is asked for again when the run is taken up, unless that is paid for.
                    if !source.is_paid() {
                        held.state.done.remove(&key);
                    }
                    bills.lacks(source);
                    self.missing(held, &label, &error.to_string());
                }
            }
        }
        Ok(bills)
    }

    /// One source: what an earlier invocation of the run has kept of it, or what it answers now, which is noted before it
    /// is read.
    async fn pull_one(
        &self,
        held: &mut Held,
        source: &Source,
        key: &str,
    ) -> Result<Result<Pulled, PullFailed>, RunError> {
        let objects = self.night.objects.as_ref();
        let connector = match pull::connector(source, self.shared).await {
            Ok(connector) => connector,
            Err(error) => return Ok(Err(error.into())),
        };
        // The configuration may have changed since.
        let known = held.state.done.get(key).filter(|known| pull::is_of(known, connector.name()));
        let kept = match known {
            Some(manifest) => pull::load(manifest, objects).await.map_err(PullFailed::Store),
            None => {
                let today = self.night.clock.now().date();
                let kept = pull::fetch(connector.as_ref(), self.days, today, objects).await;
                held.report.paid_calls = self.shared.paid_calls.taken();
                if let Ok(kept) = &kept {
                    held.advance(key.to_owned(), kept.manifest.clone());
                    checkpoint(self.night, held).await?;
                }
                kept
            }
        };
        Ok(kept.and_then(|kept| Ok(pull::read(connector.as_ref(), kept)?)))
    }

    /// Keys that providers list and the gateway does not hold.
    pub(super) async fn credentials(
        &self,
        held: &mut Held,
        given: &Given<'_>,
    ) -> Result<(), RunError> {
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
}
