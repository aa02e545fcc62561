//! Explains the difference between bill and estimate, group by group: use that the gateway never saw, requests whose
//! use was unknown, other quantities, other prices. The parts add up to the difference, to the picodollar.
//!
//! Of a group's bill, each quantity gets its share: what was counted, what goes beyond it, and what strangers'
//! credentials used. Where a line covers several meters or models, quantities are weighed by their estimated prices;
//! where these are not known, by their number. The counted part is its owners'. Of it, the quantity variance is
//! `estimated x (billed quantity - counted quantity) / counted quantity`, rounded half to even once, and the price
//! variance is the rest. What goes beyond is first put down to requests of unknown use, up to their bounds.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::money::Usd;

use super::allocate::{divide, grain, mul_div, scale_half_even};
use super::match_up::{Counted, Group, Matched, line_quantity, tier_name};
use super::outcome::{Finding, Options, Unmetered, UnmeteredReason};
use super::parts::{Part, Tally, Whose, parts_of, share_out, tallies};
use super::price_findings::{Observation, Priced, price_finding};
use super::{NightError, fits};
use crate::bill::{BillLine, ChargeKind, Meter, Quantity};
use crate::ledger::{LineId, UNMETERED};

/// What the estimates of a cell are given together.
#[derive(Clone, Debug)]
pub(super) struct CellPlan {
    pub(super) keys: Vec<usize>,
    pub(super) billed: i128,
    pub(super) list: i128,
    pub(super) quantity: Option<i128>,
    pub(super) quantity_variance: i128,
    pub(super) provisional: bool,
}

/// A row that no estimate is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) line: LineId,
    pub(super) billed: i128,
    /// The same before discounts.
    pub(super) list: i128,
    pub(super) quantity: Option<i128>,
    pub(super) method: &'static str,
    pub(super) provisional: bool,
}

/// Requests of unknown use, and what of the bill is put down to them.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) key: usize,
    class: Option<usize>,
    any_model: bool,
    account: String,
    left: i128,
    pub(super) taken: i128,
    /// The same before discounts.
    pub(super) list: i128,
    pub(super) provisional: bool,
}

/// A unit, explained.
#[derive(Debug, Default)]
pub(super) struct Explained {
    pub(super) cells: Vec<CellPlan>,
    pub(super) pools: Vec<Pool>,
    pub(super) extras: Vec<Extra>,
    pub(super) findings: Vec<Finding>,
}

/// What explaining looks at.
pub(super) struct Facts<'a> {
    pub(super) provider: &'a str,
    pub(super) counted: &'a [Counted],
    pub(super) lines: &'a [&'a BillLine],
    pub(super) matched: &'a Matched,
    pub(super) options: &'a Options,
    /// How far the bill's rounding moves an amount.
    pub(super) resolution: i128,
    /// Whether the whole unit may still change.
    pub(super) provisional: bool,
}

/// Explains every group.
pub(super) fn explain(facts: &Facts<'_>) -> Result<Explained, NightError> {
    let floating = facts.counted.iter().enumerate().filter(|(_, counted)| counted.floats());
    let pools = floating.map(|(key, counted)| Pool {
        key,
        class: facts.matched.classes.get(key).copied().flatten(),
        any_model: counted.model.is_empty(),
        account: counted.account.clone(),
        left: counted.uncertain,
        taken: 0,
        list: 0,
        provisional: facts.provisional,
    });
    let mut explained = Explained { pools: pools.collect(), ..Explained::default() };
    // Requests whose model is known come before those that may have been of any.
    explained.pools.sort_by_key(|pool| (pool.any_model, pool.key));
    for group in &facts.matched.groups {
        Explaining { facts, group, to: &mut explained }.run()?;
    }
    Ok(explained)
}

struct Explaining<'a> {
    facts: &'a Facts<'a>,
    group: &'a Group,
    to: &'a mut Explained,
}

impl Explaining<'_> {
    fn run(&mut self) -> Result<(), NightError> {
        let sum = |amount: fn(&BillLine) -> Usd| {
            let mut amounts = self.lines().map(amount);
            amounts.try_fold(0_i128, |sum, amount| sum.checked_add(amount.pico()))
        };
        let billed = fits(sum(|line| line.amount), "billed")?;
        let list = fits(sum(BillLine::before_discounts), "list amounts")?;
        let provisional = self.facts.provisional || self.lines().any(|line| line.provisional);
        let mut tallies = tallies(self.group, self.facts.counted)?;
        if tallies.is_empty() {
            tallies.push(Tally::empty());
        }
        let mut parts = parts_of(&tallies);
        // By the same weights: of a bill that discounts make nothing, the billed parts tell nothing.
        share_out(list, &tallies, &mut parts)?;
        parts.iter_mut().for_each(|part| part.list = part.amount);
        share_out(billed, &tallies, &mut parts)?;
        self.give_to_owners(billed, &tallies, &parts, provisional)?;
        for part in &parts {
            if let Whose::Stranger(id) = &part.whose {
                let reason = UnmeteredReason::UnknownCredential;
                self.unmetered(part, id.clone(), reason, provisional);
            }
        }
        self.explain_beyond(&tallies, &parts, provisional)
    }

    fn lines(&self) -> impl Iterator<Item = &BillLine> {
        self.group.lines.iter().filter_map(|at| self.facts.lines.get(*at).copied())
    }

    /// The counted part of the bill, cell by cell.
    fn give_to_owners(
        &mut self,
        billed: i128,
        tallies: &[Tally],
        parts: &[Part],
        provisional: bool,
    ) -> Result<(), NightError> {
        let mut given: Vec<(i128, i128)> = tallies.iter().map(|_| (0, 0)).collect();
        for part in parts.iter().filter(|part| part.whose == Whose::Counted) {
            if let Some((sum, list)) = given.get_mut(part.cell) {
                *sum = fits(sum.checked_add(part.amount), "billed")?;
                *list = fits(list.checked_add(part.list), "list amounts")?;
            }
        }
        let known = tallies.iter().filter(|tally| tally.metered > 0);
        let sums = known.filter_map(|tally| Some((tally.used?, tally.metered)));
        let (used, metered) = sums.fold((0_i128, 0_i128), |sum, of| {
            (sum.0.saturating_add(of.0), sum.1.saturating_add(of.1))
        });
        for ((cell, tally), (given, list)) in self.group.cells.iter().zip(tallies).zip(given) {
            if cell.keys.is_empty() {
                continue;
            }
            let quantity = match tally.used {
                _ if tally.estimated == 0 && tally.metered == 0 => None,
                Some(used) if tally.metered > 0 => Some((used, tally.metered)),
                // Money that is not told by meter follows the group's quantities.
                _ if tally.metered == 0 && metered > 0 => Some((used, metered)),
                _ => None,
            };
            let difference = fits(given.checked_sub(tally.estimated), "variance")?;
            let variance = match quantity {
                Some((used, counted)) => {
                    let moved = fits(used.checked_sub(counted), "quantity")?;
                    let by = counted.unsigned_abs();
                    fits(scale_half_even(tally.estimated, moved, by), "quantity variance")?
                }
                None if tally.estimated == 0 && tally.metered == 0 => given,
                // A bill without it says that none was used.
                None if self.group.lines.is_empty() => difference,
                None => 0,
            };
            let model = self.model_of(cell.class);
            let meter = cell.meter.unwrap_or(Meter::Whole);
            let empty = tally.estimated == 0 && tally.metered == 0;
            if quantity.is_none() && !empty && difference != 0 && !self.group.lines.is_empty() {
                self.to.findings.push(Finding::QuantityUnknown {
                    model: model.clone(),
                    meter,
                    difference: Usd::from_pico(difference),
                    units: self.group.units.clone(),
                });
            }
            let tolerance = &self.facts.options.tolerance;
            if self.group.lines.is_empty() && tolerance.exceeded(0, tally.estimated) {
                self.to.findings.push(Finding::NotBilled {
                    account: self.account(),
                    model,
                    meter,
                    estimated: Usd::from_pico(tally.estimated),
                });
            }
            self.to.cells.push(CellPlan {
                keys: cell.keys.clone(),
                billed: given,
                list,
                quantity: tally.used.filter(|_| meter != Meter::Whole),
                quantity_variance: variance,
                provisional,
            });
        }
        self.show_price(billed, tallies);
        Ok(())
    }

    /// A group of one model and meter shows a price.
    fn show_price(&mut self, billed: i128, tallies: &[Tally]) {
        let ([cell], [tally]) = (self.group.cells.as_slice(), tallies) else { return };
        let (Some(meter), Some(_)) = (cell.meter, tally.used) else { return };
        let counted: Vec<&Counted> =
            cell.keys.iter().filter_map(|key| self.facts.counted.get(*key)).collect();
        let Some(first) = counted.first() else { return };
        if counted.iter().any(|c| c.model != first.model || c.tier != first.tier) {
            return;
        }
        let of_line = |line: &BillLine| {
            Some(Observation { amount: line.amount.pico(), quantity: line_quantity(line)? })
        };
        let observations: Option<Vec<Observation>> = self.lines().map(of_line).collect();
        let strangers: i128 = tally.strangers.iter().map(|(_, quantity)| *quantity).sum();
        let quantity = tally.used.unwrap_or(0) + tally.beyond + strangers;
        let observations =
            observations.unwrap_or_else(|| vec![Observation { amount: billed, quantity }]);
        let same = |c: &&Counted| c.model == first.model;
        let requests = self.facts.counted.iter().filter(same).map(|c| c.requests);
        let plan = self.to.cells.last();
        let effect = plan.map_or(0, |plan| {
            plan.billed.saturating_sub(tally.estimated).saturating_sub(plan.quantity_variance)
        });
        let finding = price_finding(&Priced {
            provider: self.facts.provider,
            model: &first.model,
            tier: &first.tier,
            meter,
            estimated: tally.estimated,
            metered: tally.metered,
            requests: requests.fold(0, u64::saturating_add),
            observations: &observations,
            resolution: self.facts.resolution,
            effect,
        });
        self.to.findings.extend(finding.map(Finding::Price));
    }

    /// What goes beyond the counted use: requests of unknown use first, then nobody's.
    fn explain_beyond(
        &mut self,
        tallies: &[Tally],
        parts: &[Part],
        provisional: bool,
    ) -> Result<(), NightError> {
        let beyond: Vec<&Part> = parts.iter().filter(|part| part.whose == Whose::Beyond).collect();
        let amounts = beyond.iter().map(|part| part.amount);
        let whole = fits(amounts.clone().try_fold(0_i128, i128::checked_add), "beyond")?;
        let mut taken = 0_i128;
        let mut takers: Vec<(usize, u128)> = Vec::new();
        for at in 0..self.to.pools.len() {
            let fits = self.to.pools.get(at).is_some_and(|pool| self.pool_fits(pool));
            if let Some(pool) = self.to.pools.get_mut(at).filter(|_| fits) {
                let take = (whole - taken).min(pool.left).max(0);
                pool.left -= take;
                pool.taken += take;
                pool.provisional |= provisional && take > 0;
                taken += take;
                takers.push((at, take.unsigned_abs()));
            }
        }
        let weights: Vec<u128> =
            amounts.map(|amount| u128::try_from(amount).unwrap_or(0)).collect();
        let takes = divide(taken, &weights).unwrap_or_else(|| weights.iter().map(|_| 0).collect());
        let mut listed = 0_i128;
        for (part, take) in beyond.into_iter().zip(takes) {
            let list = share_of(part.list, take, part.amount);
            listed = fits(listed.checked_add(list), "list amounts")?;
            let explained = part.quantity.map(|quantity| {
                let grain = grain(quantity);
                let units = (quantity / grain).unsigned_abs();
                let of = part.amount.unsigned_abs().max(1);
                let (units, _) = mul_div(units, take.unsigned_abs(), of);
                i128::try_from(units).unwrap_or(0) * grain
            });
            if take > 0 {
                let cell = self.group.cells.get(part.cell);
                self.to.findings.push(Finding::Uncertain {
                    model: self.model_of(cell.and_then(|cell| cell.class)),
                    meter: cell.and_then(|cell| cell.meter).unwrap_or(Meter::Whole),
                    quantity: explained.map(Quantity::from_pico),
                    amount: Usd::from_pico(take),
                });
            }
            let quantity = part.quantity.map(|quantity| quantity - explained.unwrap_or(0));
            let (amount, list) = (part.amount - take, part.list - list);
            if amount == 0 && list == 0 && quantity.unwrap_or(0) == 0 {
                continue;
            }
            let keyed = tallies.get(part.cell).is_some_and(|tally| tally.keyed);
            let reason =
                if keyed { UnmeteredReason::BeyondMetered } else { UnmeteredReason::NeverSeen };
            let left = Part { cell: part.cell, whose: Whose::Beyond, quantity, amount, list };
            self.unmetered(&left, self.label(), reason, provisional);
        }
        let weights: Vec<u128> = takers.iter().map(|(_, take)| *take).collect();
        for ((at, _), list) in takers.iter().zip(divide(listed, &weights).unwrap_or_default()) {
            if let Some(pool) = self.to.pools.get_mut(*at) {
                pool.list = fits(pool.list.checked_add(list), "list amounts")?;
            }
        }
        Ok(())
    }

    fn pool_fits(&self, pool: &Pool) -> bool {
        let model = self.group.any_model
            || pool.any_model
            || pool.class.is_some_and(|class| self.group.classes.contains(&class));
        let known = |account: &String| account.is_empty() || *account == pool.account;
        model && (pool.account.is_empty() || self.group.accounts.iter().any(known))
    }

    fn unmetered(
        &mut self,
        part: &Part,
        label: String,
        reason: UnmeteredReason,
        provisional: bool,
    ) {
        let cell = self.group.cells.get(part.cell);
        let model = self.model_of(cell.and_then(|cell| cell.class));
        let meters: BTreeSet<Meter> = self.lines().map(|line| line.meter).collect();
        let only = meters.first().copied().filter(|_| meters.len() == 1);
        let meter = cell.and_then(|cell| cell.meter).or(only).unwrap_or(Meter::Whole);
        let tiers: BTreeSet<&str> =
            self.lines().map(|line| tier_name(line.tier.as_deref().unwrap_or(""))).collect();
        let tier = tiers.first().filter(|_| tiers.len() == 1).map_or("standard", |tier| tier);
        let line = LineId {
            account: self.account(),
            model: model.clone(),
            meter,
            tier: tier.to_owned(),
            kind: ChargeKind::Usage,
            owner: BTreeMap::from([(UNMETERED.to_owned(), label.clone())]),
        };
        self.to.findings.push(Finding::Unmetered(Unmetered {
            label,
            account: line.account.clone(),
            model,
            meter,
            reason,
            quantity: part.quantity.map(Quantity::from_pico),
            amount: Usd::from_pico(part.amount),
        }));
        let Part { amount: billed, list, quantity, .. } = *part;
        let method = "direct";
        self.to.extras.push(Extra { line, billed, list, quantity, method, provisional });
    }

    /// The account, where there is a single one.
    fn account(&self) -> String {
        single(&self.group.accounts).unwrap_or_else(|| {
            let billed: BTreeSet<String> = self.lines().map(|line| line.account.clone()).collect();
            single(&billed).unwrap_or_default()
        })
    }

    /// What use beyond the counted is known by: its credential, project or account.
    fn label(&self) -> String {
        let whole = |names: &BTreeSet<String>| single(names).filter(|_| !names.contains(""));
        whole(&self.group.credentials)
            .or_else(|| whole(&self.group.projects))
            .or_else(|| Some(self.account()).filter(|account| !account.is_empty()))
            .unwrap_or_else(|| self.facts.provider.to_owned())
    }

    fn model_of(&self, class: Option<usize>) -> String {
        let only = self.group.classes.first().filter(|_| self.group.classes.len() == 1).copied();
        let name = class.or(only).and_then(|class| self.facts.matched.names.get(&class));
        let service = || self.lines().map(|line| line.service.as_str()).min().unwrap_or_default();
        name.map_or_else(service, String::as_str).to_owned()
    }
}

/// The part of `list` that goes with `take` of `amount`.
fn share_of(list: i128, take: i128, amount: i128) -> i128 {
    let (share, _) =
        mul_div(list.unsigned_abs(), take.unsigned_abs(), amount.unsigned_abs().max(1));
    i128::try_from(share).unwrap_or(0) * list.signum()
}

/// The only name that is not empty.
fn single(names: &BTreeSet<String>) -> Option<String> {
    let mut named = names.iter().filter(|name| !name.is_empty());
    named.next().filter(|_| named.next().is_none()).cloned()
}
