//! The run's own proof, and what it says about itself.

use std::collections::BTreeSet;

use tallygate_shared::feedback::{FindingKind, ReconcilerFinding};
use tallygate_shared::money::Usd;

use super::day::others_note;
use super::held::{Held, is_late, keep_lease};
use super::workspace::{Given, Workspace};
use super::{NIGHT, Stop};
use crate::focus::month::Month;
use crate::ledger::UnitId;
use crate::night::bills::{Bills, Lack};
use crate::night::pages::Pages;
use crate::night::{NightError, feed_back};

/// What is missing of a provider whose source answered without a charge.
pub(super) const LATE: &str = "the late bill of";
/// What is missing of a provider whose bill is in the books and nowhere else.
const GONE: &str = "the vanished bill of";

impl Workspace<'_> {
    /// Reads the books again and sets them against the bills: the run's own proof.
    pub(super) async fn sum_up(&self, held: &mut Held, bills: &Bills) -> Result<(), Stop> {
        let note = format!("summed#{}", self.config.id);
        let after: Option<UnitId> =
            held.state.done.get(&note).and_then(|text| serde_json::from_str(text).ok());
        if after.is_none() {
            let report = self.report(held);
            report.providers.clear();
            report.missing.retain(|what, _| !what.starts_with(LATE) && !what.starts_with(GONE));
        }
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
            if unit.day < from || unit.day >= to || after.as_ref().is_some_and(|a| unit <= *a) {
                continue;
            }
            keep_lease(self.night, held).await?;
            let known = self.report(held).providers.get(&unit.provider);
            let mut sums = known.cloned().unwrap_or_default();
            let provider = &mut sums;
            let mut of_unit = Usd::ZERO;
            let now = self.night.clock.now();
            let (lack, mut kept) = (bills.lack(&unit, now), false);
            let (mut has_bill, mut is_strange) = (false, false);
            let is_free = bills.is_free(&unit, now);
            let (mut unbilled, mut awaited) = (Usd::ZERO, false);
            let silent = bills.silent(&unit, now);
            let mut pages = Pages::of(&unit, self.night.ledger.as_ref());
            while let Some(row) = pages.next().await? {
                let content = &row.content;
                kept |= lack.keeps(content);
                has_bill |= Lack::All.keeps(content);
                let used = content.estimated != Usd::ZERO;
                awaited |= used && silent.has(&row.line.account);
                let account = row.line.account.as_str();
                is_strange |= used && is_free && bills.is_strange(&unit.provider, account);
                provider.rows += 1;
                sum(&mut provider.estimated, content.estimated)?;
                sum(&mut provider.quantity_variance, content.quantity_variance)?;
                sum(&mut provider.price_variance, content.price_variance)?;
                let Some(billed) = content.billed else {
                    provider.unbilled_rows += 1;
                    if bills.answers_for(&unit.provider, &row.line.account) {
                        sum(&mut unbilled, content.estimated)?;
                    }
                    continue;
                };
                sum(&mut provider.estimated_of_billed, content.estimated)?;
                sum(&mut of_unit, billed)?;
                if feed_back::is_unmetered(&row.line) {
                    sum(&mut provider.unmetered, billed)?;
                }
            }
            sum(&mut provider.ledger, of_unit)?;
            kept |= is_strange && has_bill;
            let others = held.state.done.contains_key(&others_note(&self.config.id, &unit.day));
            if kept || awaited || others || lack == Lack::All {
                // The books keep what was said last, or nothing yet; or they are another run's.
                sum(&mut provider.billed, of_unit)?;
            } else {
                for line in &bills.of(&unit).lines {
                    sum(&mut provider.billed, line.amount)?;
                }
            }
            self.report(held).providers.insert(unit.provider.clone(), sums);
            if others {
                // That run says what it lacks.
            } else if kept && bills.is_gone(&unit, now) {
                let why = "the books have a bill of days for which there is no line any more, and stay as they are \
                           (where nothing is billed, drop a file with a line of 0)";
                self.lacks_day(held, (GONE, why), &unit);
            } else if (awaited || (unbilled != Usd::ZERO && !bills.has_line(&unit)))
                && bills.is_late(&unit, now)
            {
                self.lacks_day(held, (LATE, "no charge yet on days of use"), &unit);
            }
            if is_late(self.night, 0) {
                held.advance(note, serde_json::to_string(&unit).unwrap_or_default());
                return Err(Stop::Time);
            }
        }
        Ok(())
    }

    /// Adds a day to those that a provider's bill lacks.
    fn lacks_day(&self, held: &mut Held, (what, why): (&str, &str), unit: &UnitId) {
        let missing = &mut self.report(held).missing;
        let days = missing.entry(format!("{what} {}", unit.provider));
        let day = &unit.day;
        days.and_modify(|days| days.push_str(&format!(", {day}")))
            .or_insert(format!("{why}: {day}"));
    }

    /// Tells whether the night lacks anything. A backfill does not: it would speak for days that it has not seen, and
    /// whoever runs it sees its report.
    pub(super) async fn tell_incomplete(&self, held: &mut Held, given: &Given<'_>) {
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
