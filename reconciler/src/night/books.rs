//! States the rows of a unit, keeps their sums, and checks that these are the bill's.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::money::Usd;

use super::adjustments::{Owner, adjust};
use super::explain::{CellPlan, Explained, Extra, Pool};
use super::match_up::Counted;
use super::outcome::{Finding, Options, Summary, Totals, UnitBill};
use super::read::Estimate;
use super::settle::{EstimateSource, RowSink};
use super::shares::Division;
use super::{NightError, fits};
use crate::bill::{BillLine, ChargeKind, Quantity};
use crate::ledger::{Content, LineId, UNMETERED, UnitId};

/// A row in the making.
struct Row {
    line: LineId,
    estimated: i128,
    metered: Quantity,
    requests: u64,
    billed: Option<i128>,
    list: Option<i128>,
    quantity: Option<i128>,
    quantity_variance: i128,
    provisional: bool,
    method: &'static str,
}

/// States the rows and keeps their sums.
pub(super) struct Books<'a, 'b> {
    bill: &'a UnitBill,
    sink: &'a mut RowSink<'b>,
    previous: BTreeSet<&'a LineId>,
    price_version: String,
    owners: BTreeMap<Owner, u128>,
    share: bool,
    pub(super) summary: Summary,
}

impl<'a, 'b> Books<'a, 'b> {
    pub(super) fn new(bill: &'a UnitBill, sink: &'a mut RowSink<'b>) -> Self {
        let share = bill.lines.iter().any(|line| line.kind != ChargeKind::Usage);
        Self {
            bill,
            sink,
            previous: bill.previous.iter().collect(),
            price_version: bill.facts.price_version(),
            owners: BTreeMap::new(),
            share,
            summary: Summary::default(),
        }
    }

    pub(super) fn unbilled(&mut self, estimate: &Estimate) -> Result<(), NightError> {
        self.row(Row {
            line: estimate.line.clone(),
            estimated: estimate.estimated.pico(),
            metered: estimate.metered,
            requests: estimate.requests,
            billed: None,
            list: None,
            quantity: None,
            quantity_variance: 0,
            provisional: true,
            method: "unbilled",
        })
    }

    /// The rows with estimates, and those that matching made.
    pub(super) fn state(
        &mut self,
        counted: &[Counted],
        explained: &Explained,
        mut division: Division,
        estimates: &dyn EstimateSource,
    ) -> Result<(), NightError> {
        let mut extras = merged(explained.extras.iter().chain(&division.unowned))?;
        let plans = division.plans.clone();
        let mut key = 0;
        estimates.scan(&mut |estimate| {
            while counted.get(key).is_some_and(|sum| !sum.holds(&estimate.line)) {
                key += 1;
            }
            let plan = plans.get(key).copied().flatten();
            let (cell, pool) = plan.map_or((None, None), |plan| plan.of(explained));
            let part = division.part(key, estimate);
            let mut row = Row {
                line: estimate.line.clone(),
                estimated: estimate.estimated.pico(),
                metered: estimate.metered,
                requests: estimate.requests,
                billed: Some(part.billed),
                list: Some(part.list),
                quantity: part.quantity,
                quantity_variance: part.quantity_variance,
                provisional: provisional(cell, pool, self.bill),
                method: if pool.is_some() { "uncertain" } else { "proportional" },
            };
            if pool.is_some() {
                let difference = part.billed.checked_sub(row.estimated);
                row.quantity_variance = fits(difference, "variance")?;
            }
            let totals = &mut self.summary.totals;
            let sum = if pool.is_some() { &mut totals.uncertain } else { &mut totals.matched };
            *sum = fits(sum.checked_add(Usd::from_pico(part.billed)), "billed")?;
            if let Some(extra) = extras.remove(&row.line) {
                self.sort_in(&extra)?;
                row.take(&extra)?;
            }
            self.row(row)
        })?;
        extras.values().try_for_each(|extra| {
            self.sort_in(extra)?;
            self.row(Row::of(extra)?)
        })
    }

    /// Taxes, fees, credits and costs without a model.
    pub(super) fn beside(
        &mut self,
        lines: &[&BillLine],
        options: &Options,
    ) -> Result<(), NightError> {
        let owners = std::mem::take(&mut self.owners);
        let rows = adjust(lines, &owners, options)?;
        let rows = merged(rows.iter())?;
        rows.values().try_for_each(|extra| {
            self.sort_in(extra)?;
            let mut row = Row::of(extra)?;
            row.provisional |= self.bill.provisional;
            self.row(row)
        })
    }

    /// Adds a row without an estimate to the sum it belongs to.
    fn sort_in(&mut self, extra: &Extra) -> Result<(), NightError> {
        let totals = &mut self.summary.totals;
        let sum = if extra.line.kind != ChargeKind::Usage {
            &mut totals.adjustments
        } else if extra.line.owner.contains_key(UNMETERED) {
            &mut totals.unmetered
        } else if extra.method == "tag" {
            &mut totals.tagged
        } else {
            &mut totals.unowned
        };
        *sum = fits(sum.checked_add(Usd::from_pico(extra.billed)), "billed")?;
        Ok(())
    }

    fn row(&mut self, row: Row) -> Result<(), NightError> {
        let difference = row.billed.map_or(Some(0), |billed| billed.checked_sub(row.estimated));
        let price_variance = fits(difference, "variance")?.checked_sub(row.quantity_variance);
        let content = Content {
            estimated: Usd::from_pico(row.estimated),
            metered: row.metered,
            requests: row.requests,
            billed: row.billed.map(Usd::from_pico),
            billed_quantity: row.quantity.map(Quantity::from_pico),
            list: row.list.filter(|list| Some(*list) != row.billed).map(Usd::from_pico),
            quantity_variance: Usd::from_pico(row.quantity_variance),
            price_variance: Usd::from_pico(fits(price_variance, "price variance")?),
            provisional: row.provisional,
            price_version: self.price_version.clone(),
            source: if row.billed.is_some() { self.bill.source.clone() } else { String::new() },
            method: row.method.to_owned(),
        };
        let totals = &mut self.summary.totals;
        let sum = |to: &mut Usd, more: Usd| -> Result<(), NightError> {
            *to = fits(to.checked_add(more), "totals")?;
            Ok(())
        };
        sum(&mut totals.estimated, content.estimated)?;
        sum(&mut totals.quantity_variance, content.quantity_variance)?;
        sum(&mut totals.price_variance, content.price_variance)?;
        if let Some(billed) = content.billed {
            sum(totals.billed.get_or_insert(Usd::ZERO), billed)?;
            let weight = u128::try_from(billed.pico()).unwrap_or(0);
            if self.share && row.line.kind == ChargeKind::Usage && weight > 0 {
                // Looked up before it is cloned: most rows belong to an owner that is known.
                if let Some(known) = self.owners.get_mut(&row.line.owner) {
                    *known = fits(known.checked_add(weight), "billed")?;
                } else {
                    self.owners.insert(row.line.owner.clone(), weight);
                }
            }
        }
        totals.rows += 1;
        self.previous.remove(&row.line);
        (self.sink)(row.line, content)
    }

    pub(super) fn over_tolerance(&mut self, options: &Options) -> Result<(), NightError> {
        let totals = &self.summary.totals;
        let sums = [totals.matched, totals.uncertain, totals.unmetered];
        let billed = sums.into_iter().try_fold(Usd::ZERO, Usd::checked_add);
        let (billed, estimated) = (fits(billed, "billed")?, totals.estimated);
        if options.tolerance.exceeded(billed.pico(), estimated.pico()) {
            self.summary.findings.push(Finding::Variance { estimated, billed });
        }
        Ok(())
    }

    /// Withdraws what is no longer there, and checks that everything adds up.
    pub(super) fn close(
        mut self,
        counted: &[Counted],
        billed: Option<i128>,
    ) -> Result<Summary, NightError> {
        let withdrawn = std::mem::take(&mut self.previous);
        for line in withdrawn {
            self.row(Row {
                line: line.clone(),
                estimated: 0,
                metered: Quantity::default(),
                requests: 0,
                billed: billed.map(|_| 0),
                list: None,
                quantity: None,
                quantity_variance: 0,
                provisional: self.bill.provisional || billed.is_none(),
                method: "withdrawn",
            })?;
        }
        let estimated = counted.iter().try_fold(0_i128, |sum, c| sum.checked_add(c.estimated));
        let mut summary = self.summary;
        summary.findings.sort();
        check(&self.bill.unit, &mut summary.totals, fits(estimated, "estimated")?, billed)?;
        Ok(summary)
    }
}

/// The invariants of a unit, from the sums of the rows that were given out.
fn check(
    unit: &UnitId,
    totals: &mut Totals,
    estimated: i128,
    billed: Option<i128>,
) -> Result<(), NightError> {
    let unbalanced = |what: String| NightError::Unbalanced { unit: unit.to_string(), what };
    if totals.estimated.pico() != estimated {
        let what =
            format!("rows estimate {}, the usage {}", totals.estimated, Usd::from_pico(estimated));
        return Err(unbalanced(what));
    }
    let Some(billed) = billed.map(Usd::from_pico) else { return Ok(()) };
    let stated = *totals.billed.get_or_insert(Usd::ZERO);
    let parts = [
        totals.matched,
        totals.uncertain,
        totals.unmetered,
        totals.adjustments,
        totals.tagged,
        totals.unowned,
    ];
    let parts = parts.into_iter().try_fold(Usd::ZERO, Usd::checked_add);
    if stated != billed || parts != Some(billed) {
        return Err(unbalanced(format!("rows hold {stated} of the bill's {billed}")));
    }
    let variance = totals.quantity_variance.checked_add(totals.price_variance);
    if variance.is_none() || variance != billed.checked_sub(totals.estimated) {
        return Err(unbalanced(format!("variances are not {billed} - {}", totals.estimated)));
    }
    Ok(())
}

fn provisional(cell: Option<&CellPlan>, pool: Option<&Pool>, bill: &UnitBill) -> bool {
    bill.provisional
        || cell.is_some_and(|cell| cell.provisional)
        || pool.is_some_and(|pool| pool.provisional)
}

/// Rows without estimates by line, equal lines added up.
fn merged<'e>(
    extras: impl Iterator<Item = &'e Extra>,
) -> Result<BTreeMap<LineId, Extra>, NightError> {
    let mut sums: BTreeMap<LineId, Extra> = BTreeMap::new();
    for extra in extras {
        let Some(sum) = sums.get_mut(&extra.line) else {
            sums.insert(extra.line.clone(), extra.clone());
            continue;
        };
        sum.billed = fits(sum.billed.checked_add(extra.billed), "billed")?;
        sum.list = fits(sum.list.checked_add(extra.list), "list amounts")?;
        let both = sum.quantity.zip(extra.quantity);
        sum.quantity = both.and_then(|(one, other)| one.checked_add(other));
        sum.provisional |= extra.provisional;
    }
    Ok(sums)
}

impl Row {
    /// Nothing was estimated: all that is billed is other quantity.
    fn of(extra: &Extra) -> Result<Self, NightError> {
        Ok(Self {
            line: extra.line.clone(),
            estimated: 0,
            metered: Quantity::default(),
            requests: 0,
            billed: Some(extra.billed),
            list: Some(extra.list),
            quantity: extra.quantity,
            quantity_variance: extra.billed,
            provisional: extra.provisional,
            method: extra.method,
        })
    }

    fn take(&mut self, extra: &Extra) -> Result<(), NightError> {
        let billed = self.billed.unwrap_or(0).checked_add(extra.billed);
        self.billed = Some(fits(billed, "billed")?);
        let list = self.list.unwrap_or(0).checked_add(extra.list);
        self.list = Some(fits(list, "list amounts")?);
        let variance = self.quantity_variance.checked_add(extra.billed);
        self.quantity_variance = fits(variance, "variance")?;
        self.provisional |= extra.provisional;
        Ok(())
    }
}
