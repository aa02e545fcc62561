//! One unit: its bill and its estimates settled, into the books and back to the edge.

use std::collections::BTreeSet;

use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::held::{Held, say, set_mark};
use super::workspace::{Given, Workspace};
use super::{INBOX, RunError, month_mark};
use crate::focus::month::Month;
use crate::ledger::{Content, LineId, Revision, UnitId};
use crate::night::day_mark::{self, Told};
use crate::night::feed_back::{self, Corrections, Feedback};
use crate::night::in_force::is_in_force;
use crate::night::read::ProviderFacts;
use crate::night::write::{self, Rows, Stamp};
use crate::night::{
    Finding, NightError, Options, ProviderEstimates, Tolerance, UnitBill, export, fits,
    settle_stream,
};

/// A unit that is in the books, and what the edge is to hear of it.
pub(super) struct Settled {
    pub(super) feedback: Feedback,
    pub(super) told: Told,
    pub(super) books: String,
    /// Whether the books say what this worker wanted: another one may have written too.
    pub(super) as_wanted: bool,
}

impl Workspace<'_> {
    /// Whether a unit stays as it is, because a source that has a part of its bill could not be had.
    pub(super) async fn keeps_books(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
    ) -> Result<bool, RunError> {
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

    pub(super) fn unit_bill(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
        facts: ProviderFacts,
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

    pub(super) fn options(&self, given: &Given<'_>, provider: &str) -> Options {
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

    pub(super) async fn settle_unit(
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
        let noted = fits(export::invoiced(&bill.lines), "an invoice")?;
        let (ledger, name) = (self.night.ledger.as_ref(), export::invoice_mark(&unit));
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

    pub(super) fn feedback(
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
}
