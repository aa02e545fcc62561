//! One unit: its bill and its estimates settled, into the books and back to the edge.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;
use tempfile::TempDir;

use super::held::{Held, is_late, keep_lease, say, set_mark};
use super::workspace::{Given, Workspace};
use super::{RunError, month_mark};
use crate::focus::month::Month;
use crate::ledger::{Content, LineId, UnitId};
use crate::night::bills::{Lack, OfUnit};
use crate::night::day_mark::Told;
use crate::night::feed_back::{self, Corrections, Feedback};
use crate::night::in_force::is_in_force;
use crate::night::pages::{Pages, fingerprint};
use crate::night::read::ProviderFacts;
use crate::night::write::{self, Change, Finished, Merged, Rows, Stamp};
use crate::night::{
    EstimateSource, Finding, NightError, Options, ProviderEstimates, Tolerance, UnitBill, export,
    fits, settle_stream,
};
use crate::ports::{LedgerStore, StoreError};

/// How long a batch of lines takes: 2,000 at 16 at once and 20 ms each, or a call of the edge.
const BATCH_MS: i64 = 5_000;

/// How far a unit is. Each invocation settles it again, which writes nothing and gives the same, and goes on from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitAt {
    pub(super) provider: String,
    stage: Stage,
    /// The digest of the last line that is done in this stage.
    after: Option<String>,
    change: Change,
    /// What the books say, up to `after`.
    pub(super) books: String,
    /// Whether they say what this worker wanted: another one may have written too.
    pub(super) as_wanted: bool,
    /// Why the edge did not take a line.
    pub(super) refused: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// It is new.
    #[default]
    New,
    /// Its lines are being written.
    Writing,
    /// Its lines are being told to the edge.
    Telling,
}

impl UnitAt {
    pub(super) fn new(provider: &str) -> Self {
        Self { provider: provider.to_owned(), as_wanted: true, ..Self::default() }
    }
}

/// A settled unit: what its books are to be, and what the edge is to hear of it.
pub(super) struct Settled {
    pub(super) unit: UnitId,
    pub(super) feedback: Feedback,
    pub(super) told: Told,
    rows: Finished,
    /// Where the rows lie.
    _scratch: TempDir,
}

impl Workspace<'_> {
    /// What cannot be told of a unit's bill now: all of it, too, where an account was used that has no charge yet.
    pub(super) fn lack(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
        estimates: &ProviderEstimates<'_>,
    ) -> Result<Lack, NightError> {
        let now = self.night.clock.now();
        let silent = given.bills.silent(unit, now);
        let mut lack = given.bills.lack(unit, now);
        let is_free = given.bills.is_free(unit, now);
        if lack != Lack::All && (!silent.is_empty() || is_free) {
            estimates.scan_sums(&mut |estimate| {
                let (used, account) = (estimate.estimated != Usd::ZERO, &estimate.line.account);
                if used
                    && (silent.has(account)
                        || is_free && given.bills.is_strange(&unit.provider, account))
                {
                    lack = Lack::All;
                }
                Ok(())
            })?;
        }
        Ok(lack)
    }

    /// Whether a unit's books say what a bill with such a lack cannot tell.
    pub(super) async fn books_have(&self, unit: &UnitId, lack: Lack) -> Result<bool, StoreError> {
        if lack == Lack::Nothing {
            return Ok(false);
        }
        let mut pages = Pages::of(unit, self.night.ledger.as_ref());
        Ok(pages.find(|row| lack.keeps(&row.content)).await?.is_some())
    }

    pub(super) fn unit_bill(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
        facts: ProviderFacts,
        lack: Lack,
    ) -> UnitBill {
        let of = given.bills.of(unit);
        // A part of a bill would be taken for all of it. What was measured warns of leaked keys before there is a bill.
        let day = match lack {
            Lack::All => OfUnit { usage: of.usage, ..OfUnit::default() },
            Lack::Nothing | Lack::Files | Lack::Own => of,
        };
        let now = self.night.clock.now();
        UnitBill {
            unit: unit.clone(),
            facts,
            lines: day.lines,
            is_stated: lack != Lack::All && given.bills.is_stated(unit, now),
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

    /// Settles a unit. Its full rows are kept; nothing is in the books yet.
    pub(super) async fn settle_unit(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        bill: &UnitBill,
        estimates: &ProviderEstimates<'_>,
        (told_before, at): (&Told, &UnitAt),
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
            settle_stream(bill, estimates, &options, &mut |line: LineId, content: Content| {
                corrections.add(&line, &content)?;
                rows.push(line, content)
            })?;
        let rows = rows.finish()?;
        if at.stage == Stage::New {
            if rows.count > 0 {
                write::keep_rows(&unit, &rows, self.night.objects.as_ref()).await?;
            }
            let noted = fits(export::invoiced(&bill.lines), "an invoice")?;
            let (ledger, name) = (self.night.ledger.as_ref(), export::invoice_mark(&unit));
            let closed = is_closed(&unit, ledger).await?;
            // The invoices of a closed month are those that were exported with it.
            if !closed && (!noted.is_empty() || ledger.mark(&name).await?.is_some()) {
                let text = serde_json::to_string(&noted).unwrap_or_default();
                set_mark(ledger, &name, &text).await?;
            }
        }
        let report = self.report(held);
        for finding in &summary.findings {
            say(&mut report.findings, feed_back::in_words(&unit, finding));
        }
        let mut told = Told::default();
        let feedback =
            self.feedback(given, &unit, &summary.findings, corrections, told_before, &mut told);
        Ok(Settled { unit, feedback, told, rows, _scratch: scratch })
    }

    /// Writes a unit's lines. False when the time is up before the last.
    pub(super) async fn write_unit(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        settled: &Settled,
        at: &mut UnitAt,
    ) -> Result<bool, RunError> {
        let (unit, ledger) = (&settled.unit, self.night.ledger.as_ref());
        if at.stage == Stage::New {
            at.change = Change::read(&settled.rows.folded, unit, ledger).await?;
            at.stage = Stage::Writing;
        }
        if at.stage == Stage::Telling {
            return Ok(true);
        }
        let closed = is_closed(unit, ledger).await?;
        let open = if closed { Some(self.open_month(&unit.workspace).await?) } else { None };
        let booked_in = open.as_deref();
        let run = held.run.0.clone();
        let stamp = Stamp { seq: given.seq, run: &run, booked_in };
        let mut lines = Merged::behind(at.after.as_ref(), &settled.rows.folded, unit, ledger)?;
        let batch = self.night.steps.batch;
        loop {
            let (written, last) =
                write::write_batch(&mut lines, batch, &at.change, (unit, &stamp), ledger).await?;
            self.report(held).rows_written += written;
            let Some(last) = last else { break };
            at.after = Some(last);
            keep_lease(self.night, held).await?;
            if is_late(self.night, BATCH_MS) {
                return Ok(false);
            }
        }
        (at.stage, at.after) = (Stage::Telling, None);
        Ok(true)
    }

    /// The first month from now on that is not closed: what is booked into a closed one is in no export.
    async fn open_month(&self, workspace: &str) -> Result<String, RunError> {
        let mut month = Month::of(self.night.clock.now().date());
        loop {
            let name = month.to_string();
            if self.night.ledger.mark(&month_mark(workspace, &name)).await?.is_none() {
                return Ok(name);
            }
            month = Month::of(month.end().date());
        }
    }

    /// Tells a unit to the edge, as the books have it, and notes what they say. False when the time is up before the last
    /// line.
    pub(super) async fn tell_unit(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        settled: &Settled,
        at: &mut UnitAt,
    ) -> Result<bool, RunError> {
        let (unit, ledger) = (&settled.unit, self.night.ledger.as_ref());
        let mut lines = Merged::behind(at.after.as_ref(), &settled.rows.folded, unit, ledger)?;
        loop {
            let (mut true_ups, mut last) = (Vec::new(), None);
            for _ in 0..self.night.steps.batch.max(1) {
                let Some(pair) = lines.next().await? else {
                    last = None;
                    break;
                };
                at.as_wanted &= write::is_written(&pair);
                if let Some(row) = &pair.known {
                    at.books = fingerprint(&at.books, row);
                    true_ups.push(feed_back::true_up(unit, &row.line, &row.content, given.seq));
                }
                last = Some(pair.digest);
            }
            if at.refused.is_none()
                && let Err(error) = given.edge.bring("true-ups", &true_ups).await
            {
                at.refused = Some(error.to_string());
            }
            let Some(last) = last else { break };
            at.after = Some(last);
            keep_lease(self.night, held).await?;
            if is_late(self.night, BATCH_MS) {
                return Ok(false);
            }
        }
        if at.refused.is_none()
            && let Err(error) = settled.feedback.bring(given.edge).await
        {
            at.refused = Some(error.to_string());
        }
        Ok(true)
    }

    pub(super) fn feedback(
        &self,
        given: &Given<'_>,
        unit: &UnitId,
        findings: &[Finding],
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
        let now = self.night.clock.now();
        let prices = feed_back::prices(unit, findings, |price| {
            Date::parse(&unit.day).is_some_and(|day| is_in_force(price, given.context, day, now))
        });
        let findings = alerts.into_iter().chain(over).collect();
        Feedback { corrections, prices, findings }
    }
}

/// Whether the unit's month is closed.
async fn is_closed(unit: &UnitId, ledger: &dyn LedgerStore) -> Result<bool, StoreError> {
    let month = unit.day.get(..7).unwrap_or_default();
    Ok(ledger.mark(&month_mark(&unit.workspace, month)).await?.is_some())
}
