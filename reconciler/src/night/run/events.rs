//! A day's events: copied from the edge, and summed. Both go on where an earlier invocation stood.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::day::ALGORITHM;
use super::held::{Held, checkpoint, is_late, keep_lease};
use super::workspace::{Given, Workspace};
use super::{RunError, Stop};
use crate::ledger::hex;
use crate::night::events::{self, Copier, Copying, DayEvents, EventsFailed};
use crate::night::read::{Aggregated, Aggregator, ProviderFacts, ReadOptions};
use crate::night::shelf::{self, Piece};
use crate::night::{SpillOptions, fits};

/// How long a part takes to be copied or summed: 100,000 events at 30 us each, and its way to the store.
const PART_MS: i64 = 5_000;
/// How long a million lines take to be merged and kept.
const MILLION_LINES_MS: u64 = 20_000;

/// A day's events as they are in the object store: what they are called, and where they are.
pub(super) type Found = (String, DayEvents);

/// How far a day is summed, in the object store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summed {
    /// What is summed, and by what.
    input: String,
    parts: usize,
    events: u64,
    facts: BTreeMap<String, ProviderFacts>,
    pieces: Vec<Piece>,
}

/// A day's events, summed.
pub(super) struct Day {
    pub(super) read: Aggregated,
    input: String,
    parts: usize,
    noted: usize,
}

impl Day {
    /// How long its settling takes: three readings, and each line written.
    pub(super) fn settling_ms(&self) -> i64 {
        lines_ms(self.read.estimates.len()).saturating_mul(3)
    }
}

impl Workspace<'_> {
    /// Step 2: where each day's events are. The day before the first is needed too: some of its requests end on it.
    pub(super) async fn events(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
    ) -> Result<Option<Found>, Stop> {
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
        match self.copy(held, given, day).await {
            Ok(copied) => {
                events::note(id, day, &copied, objects, ledger).await?;
                held.advance(key, String::new());
                self.report(held).missing.remove(&format!("events of {day}"));
                Ok(events::known(id, day, objects, ledger).await?)
            }
            Err(CopyFailed::Edge(error)) => {
                self.missing(held, &format!("events of {day}"), &error);
                Ok(known)
            }
            Err(CopyFailed::Stop(stop)) => Err(stop),
        }
    }

    async fn copy(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
    ) -> Result<DayEvents, CopyFailed> {
        let (night, id) = (self.night, &self.config.id);
        let objects = night.objects.as_ref();
        let key = format!("copying#{id}#{day}");
        let mut so_far = match held.state.done.get(&key) {
            Some(noted) => shelf::fetch_document(noted, objects).await?.unwrap_or_default(),
            None => Copying::default(),
        };
        let copier = Copier {
            edge: given.edge,
            workspace: id,
            day,
            objects,
            scratch: &given.scratch,
            part_events: night.steps.part_events,
        };
        loop {
            let before = so_far.copied.parts.len();
            let go_on = |so_far: &Copying| {
                let parts = so_far.copied.parts.len().saturating_sub(before);
                parts < night.steps.parts_noted && !is_late(night, PART_MS)
            };
            let copied = copier.copy(&mut so_far, &go_on).await;
            if !matches!(copied, Ok(false)) {
                held.state.done.remove(&key);
            }
            if copied? {
                return Ok(so_far.copied);
            }
            let noted = shelf::keep_document(&so_far, &format!("{id}/{day}"), objects).await?;
            held.advance(key.clone(), noted);
            checkpoint(night, held).await?;
            if is_late(night, PART_MS) {
                return Err(CopyFailed::Stop(Stop::Time));
            }
        }
    }

    /// Step 3: a day's events, summed.
    pub(super) async fn sum(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
        (list, found): &Found,
        before: Option<&Found>,
    ) -> Result<Day, Stop> {
        let (night, objects) = (self.night, self.night.objects.as_ref());
        let input = self.summed_from(given, list, before.map(|(list, _)| list.as_str()));
        let carried = before.map(|(_, found)| found.carried_over.as_slice()).unwrap_or_default();
        let parts: Vec<(&String, bool)> = (found.parts.iter().map(|key| (key, false)))
            .chain(carried.iter().map(|key| (key, true)))
            .collect();
        let (mut aggregator, mut at) = self.aggregator(held, given, day, &input).await?;
        let mut noted = at;
        for (key, is_carried) in parts.iter().skip(at) {
            events::each(key, objects, &mut |event| match is_carried {
                true => aggregator.add_carried_over(event),
                false => aggregator.add(event),
            })
            .await?;
            at += 1;
            keep_lease(night, held).await?;
            let is_late = is_late(night, PART_MS.saturating_add(lines_ms(aggregator.lines())));
            if is_late || at - noted >= night.steps.parts_noted {
                let (run, facts, events) = aggregator.so_far()?;
                let folder = format!("{}/{day}", self.config.id);
                let pieces = shelf::keep(run.lines()?, &folder, &given.scratch, objects).await?;
                let facts = facts.clone();
                let summed = Summed { input: input.clone(), parts: at, events, facts, pieces };
                self.note_sums(held, day, &summed).await?;
                noted = at;
            }
            if is_late {
                return Err(Stop::Time);
            }
        }
        Ok(Day { read: aggregator.finish()?, input, parts: at, noted })
    }

    /// Notes a day's sums, if they are not.
    pub(super) async fn note_day(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        date: Date,
        day: &mut Day,
    ) -> Result<(), RunError> {
        if day.noted == day.parts {
            return Ok(());
        }
        let lines = day.read.estimates.sorted.lines()?;
        let folder = format!("{}/{date}", self.config.id);
        let objects = self.night.objects.as_ref();
        let pieces = shelf::keep(lines, &folder, &given.scratch, objects).await?;
        let (input, facts) = (day.input.clone(), day.read.facts.clone());
        let (parts, events) = (day.parts, day.read.events);
        let summed = Summed { input, parts, events, facts, pieces };
        day.noted = day.parts;
        self.note_sums(held, date, &summed).await
    }

    async fn note_sums(&self, held: &mut Held, day: Date, summed: &Summed) -> Result<(), RunError> {
        let id = &self.config.id;
        let folder = format!("{id}/{day}");
        let noted = shelf::keep_document(summed, &folder, self.night.objects.as_ref()).await?;
        held.advance(sums_note(id, day), noted);
        checkpoint(self.night, held).await
    }

    /// An aggregator, and how many parts it has read in an earlier invocation.
    async fn aggregator(
        &self,
        held: &Held,
        given: &Given<'_>,
        day: Date,
        input: &str,
    ) -> Result<(Aggregator, usize), RunError> {
        let (objects, scratch) = (self.night.objects.as_ref(), &given.scratch);
        let max_lines = self.night.steps.lines_in_memory;
        let spill = SpillOptions { max_lines, directory: scratch.clone() };
        let options = ReadOptions::new(given.places.clone(), spill);
        let Some(noted) = held.state.done.get(&sums_note(&self.config.id, day)) else {
            return Ok((Aggregator::new(options), 0));
        };
        let summed: Option<Summed> = shelf::fetch_document(noted, objects).await?;
        let Some(summed) = summed.filter(|summed| summed.input == input) else {
            return Ok((Aggregator::new(options), 0));
        };
        let Some(run) = shelf::fetch(&summed.pieces, scratch, objects).await? else {
            return Ok((Aggregator::new(options), 0));
        };
        let aggregator = Aggregator::going_on(options, run, (summed.facts, summed.events));
        Ok((aggregator, summed.parts))
    }

    /// What a day's sums follow from.
    fn summed_from(&self, given: &Given<'_>, list: &str, before: Option<&str>) -> String {
        let text = format!("{:?}", (ALGORITHM, list, before, &given.places));
        hex(Sha256::digest(text.as_bytes()).as_slice())
    }

    /// What was estimated on each day that a long charge covers, by provider.
    pub(super) async fn daily_estimates(
        &self,
        held: &mut Held,
        given: &Given<'_>,
    ) -> Result<BTreeMap<String, BTreeMap<Timestamp, Usd>>, Stop> {
        let mut estimates: BTreeMap<String, BTreeMap<Timestamp, Usd>> = BTreeMap::new();
        for day in given.bills.long_days() {
            let Some(found) = self.events(held, given, day).await? else { continue };
            for (provider, sum) in self.estimates_of(held, given, day, &found).await? {
                estimates.entry(provider).or_default().insert(day.midnight(), sum);
            }
        }
        Ok(estimates)
    }

    /// What was estimated on a day, by provider. It is summed once in a run.
    async fn estimates_of(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
        found: &Found,
    ) -> Result<BTreeMap<String, Usd>, Stop> {
        let key = format!("estimates#{}#{day}", self.config.id);
        let input = self.summed_from(given, &found.0, None);
        let noted = held.state.done.get(&key);
        let noted: Option<(String, BTreeMap<String, Usd>)> =
            noted.and_then(|text| serde_json::from_str(text).ok());
        if let Some((_, sums)) = noted.filter(|(of, _)| *of == input) {
            return Ok(sums);
        }
        let summed = self.sum(held, given, day, found, None).await?;
        let mut sums: BTreeMap<String, Usd> = BTreeMap::new();
        summed.read.estimates.scan_sums(None, &mut |estimate| {
            if let Some(sum) = sums.get_mut(&estimate.provider) {
                *sum = fits(sum.checked_add(estimate.estimated), "a day's estimate")?;
            } else {
                sums.insert(estimate.provider.clone(), estimate.estimated);
            }
            Ok(())
        })?;
        held.state.done.remove(&sums_note(&self.config.id, day));
        let text = serde_json::to_string(&(input, &sums)).unwrap_or_default();
        held.advance(key, text);
        checkpoint(self.night, held).await?;
        if held.stops(self.night, PART_MS) { Err(Stop::Time) } else { Ok(sums) }
    }
}

/// The note that says how far a day is summed.
pub(super) fn sums_note(workspace: &str, day: Date) -> String {
    format!("sums#{workspace}#{day}")
}

/// How long lines take to be merged and kept.
fn lines_ms(lines: u64) -> i64 {
    let ms = lines.saturating_mul(MILLION_LINES_MS) / 1_000_000;
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Why a day was not copied.
enum CopyFailed {
    /// The edge did not give it.
    Edge(String),
    /// Anything else.
    Stop(Stop),
}

impl From<EventsFailed> for CopyFailed {
    fn from(failed: EventsFailed) -> Self {
        match failed {
            EventsFailed::Edge(error) => Self::Edge(error.to_string()),
            EventsFailed::Store(error) => Self::Stop(error.into()),
            EventsFailed::Night(error) => Self::Stop(error.into()),
        }
    }
}

impl<E> From<E> for CopyFailed
where
    RunError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Stop(error.into())
    }
}
