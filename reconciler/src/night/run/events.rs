//! Where a day's events are, and what was estimated by them.

use std::collections::BTreeMap;

use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::RunError;
use super::held::Held;
use super::workspace::{Given, Workspace};
use crate::night::events::{self, DayEvents, EventsFailed};
use crate::night::read::{Aggregator, ReadOptions};
use crate::night::{SpillOptions, fits};

/// Lines of estimates in memory before they spill: about 250 bytes each.
const LINES_IN_MEMORY: usize = 250_000;

impl Workspace<'_> {
    /// Step 2: where each day's events are. The day before the first is needed too: some of its requests end on it.
    pub(super) async fn events(
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

    /// What was estimated on each day that a long charge covers, by provider.
    pub(super) async fn daily_estimates(
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
                *sum = fits(sum.checked_add(estimate.estimated), "a day's estimate")?;
                Ok(())
            })?;
        }
        Ok(estimates)
    }

    pub(super) fn aggregator(&self, given: &Given<'_>) -> Aggregator {
        let spill = SpillOptions { max_lines: LINES_IN_MEMORY, directory: given.scratch.clone() };
        Aggregator::new(ReadOptions::new(given.places.clone(), spill))
    }

    pub(super) async fn aggregate(
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
}
