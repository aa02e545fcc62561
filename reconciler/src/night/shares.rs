//! The second reading: who of many owners gets the odd picodollar. Each division is settled as soon as its last owner has
//! been seen.

use super::allocate::{Apportion, Shares, grain};
use super::explain::{CellPlan, Explained, Extra, Pool};
use super::match_up::Counted;
use super::read::Estimate;
use super::settle::EstimateSource;
use super::{NightError, fits};
use crate::bill::{ChargeKind, Quantity};
use crate::ledger::LineId;

/// What an estimate belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    Cell(usize),
    Pool(usize),
}

impl Plan {
    pub(super) fn of(self, explained: &Explained) -> (Option<&CellPlan>, Option<&Pool>) {
        match self {
            Self::Cell(at) => (explained.cells.get(at), None),
            Self::Pool(at) => (None, explained.pools.get(at)),
        }
    }
}

/// What the owners of a cell are weighed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Money,
    Quantity,
    Requests,
    Uncertain,
}

impl By {
    fn weight(self, estimate: &Estimate) -> u128 {
        let weight = match self {
            Self::Money => estimate.estimated.pico(),
            Self::Quantity => estimate.metered.pico() / Quantity::ONE,
            Self::Requests => i128::from(estimate.requests),
            Self::Uncertain => estimate.uncertain.pico(),
        };
        u128::try_from(weight).unwrap_or(0)
    }
}

/// One division: of what, by what.
struct Dividing {
    by: By,
    plan: Option<Apportion>,
    shares: Option<Shares>,
    grain: i128,
}

impl Dividing {
    fn new(total: i128, grain: i128, by: By, sum: u128) -> Self {
        Self { by, plan: Apportion::new(total / grain, sum), shares: None, grain }
    }

    fn see(&mut self, estimate: &Estimate) {
        if let Some(plan) = &mut self.plan {
            plan.see(self.by.weight(estimate));
        }
    }

    fn finish(&mut self) {
        self.shares = self.plan.take().map(Apportion::finish);
    }

    fn next(&mut self, estimate: &Estimate) -> i128 {
        let weight = self.by.weight(estimate);
        self.shares.as_mut().map_or(0, |shares| shares.next(weight).saturating_mul(self.grain))
    }
}

/// The divisions of one cell or pool.
struct Divided {
    last_key: usize,
    billed: Dividing,
    /// `None`: as billed.
    list: Option<Dividing>,
    quantity: Option<Dividing>,
    quantity_variance: Dividing,
}

/// What an estimate's row gets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub(super) billed: i128,
    pub(super) list: i128,
    pub(super) quantity: Option<i128>,
    pub(super) quantity_variance: i128,
}

/// All divisions of a unit, ready to be read out.
pub(super) struct Division {
    /// What each of the counted sums belongs to.
    pub(super) plans: Vec<Option<Plan>>,
    /// What cells without anything to weigh their owners by were billed.
    pub(super) unowned: Vec<Extra>,
    places: Vec<Option<usize>>,
    divided: Vec<Divided>,
}

impl Division {
    /// Reads all estimates once.
    pub(super) fn learn(
        counted: &[Counted],
        explained: &Explained,
        estimates: &dyn EstimateSource,
    ) -> Result<Self, NightError> {
        let mut division = Self {
            plans: vec![None; counted.len()],
            unowned: Vec::new(),
            places: vec![None; counted.len()],
            divided: Vec::new(),
        };
        for (at, cell) in explained.cells.iter().enumerate() {
            division.add_cell(at, cell, counted)?;
        }
        for (at, pool) in explained.pools.iter().enumerate() {
            division.add_pool(at, pool, counted);
        }
        let mut key = 0;
        let mut open: Vec<usize> = (0..division.divided.len()).collect();
        estimates.scan_sums(&mut |estimate| {
            let before = key;
            while counted.get(key).is_some_and(|sum| !sum.holds(&estimate.line)) {
                key += 1;
            }
            if key != before {
                open.retain(|at| division.finish(*at, key));
            }
            let place = division.places.get(key).copied().flatten();
            if let Some(divided) = place.and_then(|place| division.divided.get_mut(place)) {
                divided.billed.see(estimate);
                divided.quantity_variance.see(estimate);
                for more in [&mut divided.list, &mut divided.quantity].into_iter().flatten() {
                    more.see(estimate);
                }
            }
            Ok(())
        })?;
        open.retain(|at| division.finish(*at, usize::MAX));
        Ok(division)
    }

    /// Settles a division whose last owner has been seen. False when it has.
    fn finish(&mut self, at: usize, key: usize) -> bool {
        let Some(divided) = self.divided.get_mut(at).filter(|d| d.last_key < key) else {
            return true;
        };
        divided.billed.finish();
        divided.quantity_variance.finish();
        for more in [&mut divided.list, &mut divided.quantity].into_iter().flatten() {
            more.finish();
        }
        false
    }

    fn add_cell(
        &mut self,
        at: usize,
        cell: &CellPlan,
        counted: &[Counted],
    ) -> Result<(), NightError> {
        let sums: Vec<&Counted> = cell.keys.iter().filter_map(|key| counted.get(*key)).collect();
        let sum = |of: &dyn Fn(&Counted) -> i128| {
            let sum = sums.iter().try_fold(0_i128, |sum, counted| sum.checked_add(of(counted)));
            fits(sum.and_then(|sum| u128::try_from(sum).ok()), "weights")
        };
        let money = sum(&|counted| counted.estimated)?;
        let metered = sum(&|counted| counted.metered / Quantity::ONE)?;
        let requests = sum(&|counted| i128::from(counted.requests))?;
        let (by, weights) = match (money, metered) {
            (1.., _) => (By::Money, money),
            (0, 1..) => (By::Quantity, metered),
            (0, 0) => (By::Requests, requests),
        };
        if weights == 0 && (cell.billed != 0 || cell.list != 0) {
            self.unowned.extend(sums.first().map(|counted| Extra {
                line: LineId {
                    account: counted.account.clone(),
                    model: counted.model.clone(),
                    meter: counted.meter,
                    tier: counted.tier.clone(),
                    kind: ChargeKind::Usage,
                    owner: std::collections::BTreeMap::new(),
                },
                billed: cell.billed,
                list: cell.list,
                quantity: None,
                method: "unowned",
                provisional: cell.provisional,
            }));
        }
        let quantity = cell.quantity.map(|total| {
            let (by, weights) = if metered > 0 { (By::Quantity, metered) } else { (by, weights) };
            Dividing::new(total, grain(total), by, weights)
        });
        self.divided.push(Divided {
            last_key: cell.keys.iter().copied().max().unwrap_or(0),
            billed: Dividing::new(cell.billed, 1, by, weights),
            list: (cell.list != cell.billed).then(|| Dividing::new(cell.list, 1, by, weights)),
            quantity,
            quantity_variance: Dividing::new(cell.quantity_variance, 1, by, weights),
        });
        for key in &cell.keys {
            self.assign(*key, Plan::Cell(at));
        }
        Ok(())
    }

    fn add_pool(&mut self, at: usize, pool: &Pool, counted: &[Counted]) {
        let sum = counted.get(pool.key).map_or(0, |counted| counted.uncertain);
        let weights = u128::try_from(sum).unwrap_or(0);
        self.divided.push(Divided {
            last_key: pool.key,
            billed: Dividing::new(pool.taken, 1, By::Uncertain, weights),
            list: (pool.list != pool.taken)
                .then(|| Dividing::new(pool.list, 1, By::Uncertain, weights)),
            quantity: None,
            // A row of unknown use has no other variance.
            quantity_variance: Dividing::new(0, 1, By::Uncertain, weights),
        });
        self.assign(pool.key, Plan::Pool(at));
    }

    fn assign(&mut self, key: usize, plan: Plan) {
        let place = self.divided.len().checked_sub(1);
        if let (Some(to), Some(at)) = (self.plans.get_mut(key), self.places.get_mut(key)) {
            *to = Some(plan);
            *at = place;
        }
    }

    /// What the next estimate of a counted sum gets. To be asked in the order of the estimates.
    pub(super) fn part(&mut self, key: usize, estimate: &Estimate) -> Part {
        let place = self.places.get(key).copied().flatten();
        let Some(divided) = place.and_then(|place| self.divided.get_mut(place)) else {
            return Part::default();
        };
        let billed = divided.billed.next(estimate);
        Part {
            billed,
            list: divided.list.as_mut().map_or(billed, |list| list.next(estimate)),
            quantity: divided.quantity.as_mut().map(|quantity| quantity.next(estimate)),
            quantity_variance: divided.quantity_variance.next(estimate),
        }
    }
}
