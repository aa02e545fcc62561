//! The charges for use of a unit: the gateway's own, and those of credentials that it does not hold.

use std::collections::BTreeSet;

use super::NightError;
use super::adjustments::{Owner, adjust};
use super::explain::{Explained, Extra, Facts, explain};
use super::match_up::{Counted, Matched, Sides, line_quantity, match_up, tier_name};
use super::outcome::{Finding, Options, UnitBill, Unmetered, UnmeteredReason};
use super::price_findings::resolution_of;
use crate::bill::{BillLine, ChargeKind, MeasuredUsage, Meter, Quantity};
use crate::ledger::{LineId, UNMETERED};

/// One side of the use: which lines, and which measured usage is theirs.
struct Side<'a> {
    bill: &'a UnitBill,
    counted: &'a [Counted],
    lines: &'a [&'a BillLine],
    counts: &'a dyn Fn(&MeasuredUsage, Meter) -> bool,
    resolution: i128,
    provisional: bool,
}

impl Side<'_> {
    fn explain(&self, options: &Options) -> Result<(Matched, Explained), NightError> {
        let matched = match_up(
            &Sides {
                counted: self.counted,
                lines: self.lines,
                usage: &self.bill.usage,
                counts: self.counts,
                facts: &self.bill.facts,
            },
            options,
        );
        let explained = explain(&Facts {
            provider: &self.bill.unit.provider,
            counted: self.counted,
            lines: self.lines,
            matched: &matched,
            options,
            resolution: self.resolution,
            provisional: self.provisional,
        })?;
        Ok((matched, explained))
    }
}

/// Explains all lines for use.
pub(super) fn explain_use(
    bill: &UnitBill,
    counted: &[Counted],
    lines: &[&BillLine],
    options: &Options,
) -> Result<Explained, NightError> {
    let is_stranger = |id: &Option<String>| id.as_ref().is_some_and(|id| options.is_stranger(id));
    let (theirs, ours): (Vec<&BillLine>, Vec<&BillLine>) =
        lines.iter().partition(|line| is_stranger(&line.credential));
    let priced = lines.iter().copied().filter(|l| l.quantity.is_some() || l.model.is_some());
    let resolution =
        options.resolution.map_or_else(|| resolution_of(priced), |unit| unit.pico().abs().max(1));
    // A stranger's use is on the stranger's own lines where there are any for its meter.
    let on_own_line = |usage: &MeasuredUsage, meter: Meter| {
        theirs.iter().any(|line| {
            line.credential == usage.credential
                && (line.meter == meter || line.meter == Meter::Whole)
        })
    };
    let provisional = bill.provisional;
    let counts = |usage: &MeasuredUsage, meter: Meter| !on_own_line(usage, meter);
    let side = Side { bill, counted, lines: &ours, counts: &counts, resolution, provisional };
    let (matched, mut explained) = side.explain(options)?;
    let loose: Vec<&BillLine> =
        matched.loose.iter().filter_map(|at| ours.get(*at).copied()).collect();
    let mut rows = adjust(&loose, &std::collections::BTreeMap::new(), options)?;
    rows.iter_mut().for_each(|row| row.provisional |= provisional);
    explained.extras.append(&mut rows);
    let credentials: BTreeSet<&String> =
        theirs.iter().filter_map(|line| line.credential.as_ref()).collect();
    // Told apart by line already: within one stranger's lines nobody is another stranger.
    let by_line = Options { known_credentials: BTreeSet::new(), ..options.clone() };
    for id in credentials {
        let is_its = |credential: &Option<String>| credential.as_ref() == Some(id);
        let its: Vec<&BillLine> =
            theirs.iter().filter(|line| is_its(&line.credential)).copied().collect();
        let counts = |usage: &MeasuredUsage, meter: Meter| {
            is_its(&usage.credential) && on_own_line(usage, meter)
        };
        let side =
            Side { bill, counted: &[], lines: &its, counts: &counts, resolution, provisional };
        let (matched, mut found) = side.explain(&by_line)?;
        for finding in &mut found.findings {
            if let Finding::Unmetered(unmetered) = finding {
                unmetered.reason = UnmeteredReason::UnknownCredential;
            }
        }
        explained.extras.append(&mut found.extras);
        explained.findings.append(&mut found.findings);
        let loose = matched.loose.iter().filter_map(|at| its.get(*at).copied());
        loose.for_each(|line| take(&mut explained, line, id, provisional));
    }
    Ok(explained)
}

/// A stranger's line that says nothing of a model is nobody's as a whole.
fn take(to: &mut Explained, line: &BillLine, label: &str, provisional: bool) {
    let id = LineId {
        account: line.account.clone(),
        model: line.service.clone(),
        meter: line.meter,
        tier: tier_name(line.tier.as_deref().unwrap_or("")).to_owned(),
        kind: ChargeKind::Usage,
        owner: Owner::from([(UNMETERED.to_owned(), label.to_owned())]),
    };
    let quantity = line_quantity(line);
    to.findings.push(Finding::Unmetered(Unmetered {
        label: label.to_owned(),
        account: id.account.clone(),
        model: id.model.clone(),
        meter: id.meter,
        reason: UnmeteredReason::UnknownCredential,
        quantity: quantity.map(Quantity::from_pico),
        amount: line.amount,
    }));
    let provisional = provisional || line.provisional;
    let (billed, list) = (line.amount.pico(), line.before_discounts().pico());
    let method = "direct";
    to.extras.push(Extra { line: id, billed, list, quantity, method, provisional });
}

/// What measured usage shows before there is a bill: use that the gateway never saw, not yet priced.
pub(super) fn early_warnings(
    bill: &UnitBill,
    counted: &[Counted],
    options: &Options,
) -> Result<Vec<Finding>, NightError> {
    let (lines, counts) = (&[], &|_: &MeasuredUsage, _| true);
    let side = Side { bill, counted, lines, counts, resolution: 1, provisional: true };
    let (_, explained) = side.explain(options)?;
    // Without money, nobody knows how much of it requests of unknown use explain.
    let unclear = counted.iter().any(Counted::floats);
    let certain = |finding: &Finding| match finding {
        Finding::Unmetered(found) => !unclear || found.reason == UnmeteredReason::UnknownCredential,
        _ => false,
    };
    Ok(explained.findings.into_iter().filter(certain).collect())
}
