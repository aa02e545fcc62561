//! One unit's books: reads the estimates three times (to sum, to learn who is rounded up, to state the rows), so that
//! any number of owners needs only a number each in memory.

use tallygate_shared::time::{DAY_MS, Date};

use super::books::Books;

use super::match_up::Counted;
use super::outcome::{Options, Summary, UnitBill, UnitInput, UnitOutcome};
use super::read::{Estimate, Estimates};
use super::shares::Division;
use super::usage::{early_warnings, explain_use};
use super::{NightError, fits};
use crate::bill::{BillLine, ChargeKind};
use crate::ledger::{Content, LineId};

/// Estimates of one provider that can be read several times, in the order of their lines, each line once: a line that
/// comes twice would be two rows of one name.
pub trait EstimateSource {
    /// Shows each estimate.
    fn scan(
        &self,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError>;

    /// The same, where nobody looks at the owners: they may be left out.
    fn scan_sums(
        &self,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        self.scan(each)
    }
}

/// One provider's part of what was read.
#[derive(Debug)]
pub struct ProviderEstimates<'a> {
    /// What was read.
    pub estimates: &'a Estimates,
    /// The provider.
    pub provider: &'a str,
}

impl EstimateSource for ProviderEstimates<'_> {
    fn scan(
        &self,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        self.estimates.scan(Some(self.provider), each)
    }

    fn scan_sums(
        &self,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        self.estimates.scan_sums(Some(self.provider), each)
    }
}

struct InMemory(Vec<Estimate>);

impl EstimateSource for InMemory {
    fn scan(
        &self,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        self.0.iter().try_for_each(each)
    }
}

/// Takes each row of a unit.
pub type RowSink<'a> = dyn FnMut(LineId, Content) -> Result<(), NightError> + 'a;

/// Settles one unit: every row of its books, what to tell, and the sums. The order of the input changes nothing, and
/// the same input gives the same rows to the last byte.
pub fn settle_unit(input: UnitInput, options: &Options) -> Result<UnitOutcome, NightError> {
    let UnitInput { bill, mut estimates } = input;
    estimates.sort_by(|a, b| a.line.cmp(&b.line));
    let mut merged: Vec<Estimate> = Vec::with_capacity(estimates.len());
    for estimate in estimates {
        match merged.last_mut() {
            Some(same) if same.line == estimate.line && same.provider == estimate.provider => {
                add(same, &estimate)?;
            }
            _ => merged.push(estimate),
        }
    }
    let mut rows = Vec::new();
    let summary = settle_stream(&bill, &InMemory(merged), options, &mut |line, content| {
        rows.push((line, content));
        Ok(())
    })?;
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(UnitOutcome { rows, findings: summary.findings, totals: summary.totals })
}

fn add(to: &mut Estimate, other: &Estimate) -> Result<(), NightError> {
    to.estimated = fits(to.estimated.checked_add(other.estimated), "estimated")?;
    to.metered = fits(to.metered.checked_add(other.metered), "metered quantity")?;
    to.requests = fits(to.requests.checked_add(other.requests), "requests")?;
    to.uncertain = fits(to.uncertain.checked_add(other.uncertain), "uncertain")?;
    Ok(())
}

/// Settles one unit without holding its rows: those with estimates come first, in the order of their lines, then the
/// others in theirs. When it fails, rows that were given out must be dropped.
pub fn settle_stream(
    bill: &UnitBill,
    estimates: &dyn EstimateSource,
    options: &Options,
    sink: &mut RowSink<'_>,
) -> Result<Summary, NightError> {
    check_lines(bill)?;
    let counted = count(bill, estimates)?;
    let mut lines: Vec<(String, &BillLine)> = bill
        .lines
        .iter()
        .map(|line| (serde_json::to_string(line).unwrap_or_default(), line))
        .collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let lines: Vec<&BillLine> = lines.into_iter().map(|(_, line)| line).collect();
    let mut books = Books::new(bill, sink);
    if lines.is_empty() && !bill.is_stated {
        estimates.scan(&mut |estimate| books.unbilled(estimate))?;
        books.summary.findings = early_warnings(bill, &counted, options)?;
        return books.close(&counted, None);
    }
    let (used, beside): (Vec<&BillLine>, Vec<&BillLine>) =
        lines.iter().partition(|line| line.kind == ChargeKind::Usage);
    let mut explained = explain_use(bill, &counted, &used, options)?;
    let division = Division::learn(&counted, &explained, estimates)?;
    books.state(&counted, &explained, division, estimates)?;
    books.beside(&beside, options)?;
    let billed = lines.iter().try_fold(0_i128, |sum, line| sum.checked_add(line.amount.pico()));
    books.summary.findings.append(&mut explained.findings);
    books.over_tolerance(options)?;
    books.close(&counted, Some(fits(billed, "billed")?))
}

fn input_error(field: &str, problem: String, remedy: &'static str) -> NightError {
    NightError::Input { field: field.to_owned(), problem, remedy }
}

/// Every line must be of this provider and day: a line booked twice, or on another day, would be money made up.
fn check_lines(bill: &UnitBill) -> Result<(), NightError> {
    let day = Date::parse(&bill.unit.day).ok_or_else(|| {
        input_error("unit.day", format!("is `{}`", bill.unit.day), "give a day as YYYY-MM-DD")
    })?;
    let (start, end) = (day.midnight(), day.midnight().plus_ms(DAY_MS));
    let providers = bill.lines.iter().map(|line| &line.provider);
    let providers = providers.chain(bill.usage.iter().map(|usage| &usage.provider));
    if let Some(other) = providers.into_iter().find(|name| **name != bill.unit.provider) {
        return Err(input_error(
            "provider of a bill line",
            format!("is `{other}` in the unit {}", bill.unit),
            "settle each provider's lines in its own unit",
        ));
    }
    let periods = bill.lines.iter().map(|line| (line.start, line.end));
    let periods = periods.chain(bill.usage.iter().map(|usage| (usage.start, usage.end)));
    for (from, to) in periods {
        if from < start || to > end || to < from {
            return Err(input_error(
                "period of a bill line",
                format!("is {from} to {to} in the unit {}", bill.unit),
                "spread longer charges over their days first (spread_over_days)",
            ));
        }
    }
    Ok(())
}

/// The first reading: sums without owners.
fn count(bill: &UnitBill, estimates: &dyn EstimateSource) -> Result<Vec<Counted>, NightError> {
    let mut counted: Vec<Counted> = Vec::new();
    estimates.scan_sums(&mut |estimate| {
        let Estimate { line, estimated, metered, uncertain, .. } = estimate;
        if estimate.provider != bill.unit.provider || line.kind != ChargeKind::Usage {
            return Err(input_error(
                "provider or kind of an estimate",
                format!("is `{}`, {:?} in the unit {}", estimate.provider, line.kind, bill.unit),
                "settle each provider's estimates of use in its own unit",
            ));
        }
        if estimated.is_negative() || metered.pico() < 0 || uncertain.is_negative() {
            let remedy = "an estimate cannot be below 0: read the usage again";
            return Err(input_error("estimate", "is negative".to_owned(), remedy));
        }
        match counted.last_mut().filter(|sum| sum.holds(line)) {
            Some(sum) => sum.add(estimate)?,
            None => {
                if counted.last().is_some_and(|last| !last.before(line)) {
                    let remedy = "give each line once, in order";
                    return Err(input_error("estimates", "are not in order".to_owned(), remedy));
                }
                let mut sum = Counted {
                    account: line.account.clone(),
                    model: line.model.clone(),
                    meter: line.meter,
                    tier: line.tier.clone(),
                    estimated: 0,
                    metered: 0,
                    requests: 0,
                    uncertain: 0,
                };
                sum.add(estimate)?;
                counted.push(sum);
            }
        }
        Ok(())
    })?;
    Ok(counted)
}

impl Counted {
    /// Whether a line differs from it in its owner only.
    pub(super) fn holds(&self, line: &LineId) -> bool {
        self.account == line.account
            && self.model == line.model
            && self.meter == line.meter
            && self.tier == line.tier
    }

    fn before(&self, line: &LineId) -> bool {
        let ours = (&self.account, &self.model, self.meter, &self.tier);
        ours < (&line.account, &line.model, line.meter, &line.tier)
    }

    fn add(&mut self, estimate: &Estimate) -> Result<(), NightError> {
        let estimated = self.estimated.checked_add(estimate.estimated.pico());
        self.estimated = fits(estimated, "estimated")?;
        let metered = self.metered.checked_add(estimate.metered.pico());
        self.metered = fits(metered, "metered quantity")?;
        self.requests = fits(self.requests.checked_add(estimate.requests), "requests")?;
        let uncertain = self.uncertain.checked_add(estimate.uncertain.pico());
        self.uncertain = fits(uncertain, "uncertain")?;
        Ok(())
    }
}
