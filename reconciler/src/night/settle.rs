//! One unit's books: reads the estimates three times (to sum, to learn who is rounded up, to state the rows), so that
//! any number of owners needs only a number each in memory.

use std::collections::BTreeSet;

use tallygate_shared::time::{DAY_MS, Date};

use super::adjustments::Owner;
use super::books::Books;
use super::explain::{Explained, Extra, Facts, explain};
use super::match_up::{Counted, Sides, line_quantity, match_up, tier_name};
use super::outcome::{
    Finding, Options, Summary, UnitBill, UnitInput, UnitOutcome, Unmetered, UnmeteredReason,
};
use super::price_findings::resolution_of;
use super::read::{Estimate, Estimates};
use super::shares::Division;
use super::{NightError, fits};
use crate::bill::{BillLine, ChargeKind, Quantity};
use crate::ledger::{Content, LineId, UNMETERED};

/// Estimates of one provider that can be read several times, in the order of their lines, each line once.
pub trait EstimateSource {
    /// Shows each estimate.
    fn scan(
        &self,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError>;
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
    if lines.is_empty() {
        estimates.scan(&mut |estimate| books.unbilled(estimate))?;
        books.summary.findings = early_warnings(bill, &counted, options)?;
        return books.close(&counted, None);
    }
    let (used, beside): (Vec<&BillLine>, Vec<&BillLine>) =
        lines.iter().partition(|line| line.kind == ChargeKind::Usage);
    let stranger = |line: &&&BillLine| {
        line.credential.as_ref().is_some_and(|credential| options.is_stranger(credential))
    };
    let strangers: Vec<&BillLine> = used.iter().filter(|line| stranger(line)).copied().collect();
    let used: Vec<&BillLine> = used.iter().filter(|line| !stranger(line)).copied().collect();
    let taken_out: BTreeSet<_> =
        strangers.iter().filter_map(|line| Some((line.credential.clone()?, line.meter))).collect();
    let matched = match_up(
        &Sides {
            counted: &counted,
            lines: &used,
            taken_out: &taken_out,
            usage: &bill.usage,
            facts: &bill.facts,
        },
        options,
    );
    let resolution = options.resolution.map_or_else(
        || {
            resolution_of(
                used.iter().copied().filter(|line| line.quantity.is_some() || line.model.is_some()),
            )
        },
        |unit| unit.pico().abs().max(1),
    );
    let mut explained = explain(&Facts {
        provider: &bill.unit.provider,
        counted: &counted,
        lines: &used,
        matched: &matched,
        options,
        resolution,
        provisional: bill.provisional,
    })?;
    take_strangers(&mut explained, &strangers, bill.provisional);
    let loose = matched.loose.iter().filter_map(|at| used.get(*at).copied());
    let beside: Vec<&BillLine> = beside.into_iter().chain(loose).collect();
    let division = Division::learn(&counted, &explained, estimates)?;
    books.state(&counted, &explained, division, estimates)?;
    books.beside(&beside, options)?;
    let billed = lines.iter().try_fold(0_i128, |sum, line| sum.checked_add(line.amount.pico()));
    books.summary.findings.append(&mut explained.findings);
    books.over_tolerance(options)?;
    books.close(&counted, Some(fits(billed, "billed")?))
}

/// What measured usage shows before there is a bill: use that the gateway never saw, not yet priced.
fn early_warnings(
    bill: &UnitBill,
    counted: &[Counted],
    options: &Options,
) -> Result<Vec<Finding>, NightError> {
    let sides = Sides {
        counted,
        lines: &[],
        taken_out: &BTreeSet::new(),
        usage: &bill.usage,
        facts: &bill.facts,
    };
    let explained = explain(&Facts {
        provider: &bill.unit.provider,
        counted,
        lines: &[],
        matched: &match_up(&sides, options),
        options,
        resolution: 1,
        provisional: true,
    })?;
    // Without money, nobody knows how much of it requests of unknown use explain.
    let unclear = counted.iter().any(Counted::floats);
    let certain = |finding: &Finding| match finding {
        Finding::Unmetered(found) => !unclear || found.reason == UnmeteredReason::UnknownCredential,
        _ => false,
    };
    Ok(explained.findings.into_iter().filter(certain).collect())
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
    let mut last: Option<LineId> = None;
    estimates.scan(&mut |estimate| {
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
        if last.as_ref().is_some_and(|last| last >= line) {
            let remedy = "give each line once, in order";
            return Err(input_error("estimates", "are not in order".to_owned(), remedy));
        }
        match counted.last_mut().filter(|sum| sum.holds(line)) {
            Some(sum) => sum.add(estimate)?,
            None => {
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
        last = Some(line.clone());
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

/// Lines of credentials that the gateway does not hold are nobody's use as a whole.
fn take_strangers(to: &mut Explained, lines: &[&BillLine], provisional: bool) {
    for line in lines {
        let label = line.credential.clone().unwrap_or_default();
        let id = LineId {
            account: line.account.clone(),
            model: line.model.clone().unwrap_or_else(|| line.service.clone()),
            meter: line.meter,
            tier: tier_name(line.tier.as_deref().unwrap_or("")).to_owned(),
            kind: ChargeKind::Usage,
            owner: Owner::from([(UNMETERED.to_owned(), label.clone())]),
        };
        to.findings.push(Finding::Unmetered(Unmetered {
            label,
            account: id.account.clone(),
            model: id.model.clone(),
            meter: id.meter,
            reason: UnmeteredReason::UnknownCredential,
            quantity: line_quantity(line).map(Quantity::from_pico),
            amount: line.amount,
        }));
        to.extras.push(Extra {
            line: id,
            billed: line.amount.pico(),
            quantity: line_quantity(line),
            method: "direct",
            provisional: provisional || line.provisional,
        });
    }
}
