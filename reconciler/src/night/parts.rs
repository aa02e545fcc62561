//! The parts of a group's bill: what was counted, what goes beyond it, what strangers used, and how much of the bill
//! each is.

use super::allocate::{divide, mul_div};
use super::match_up::{Counted, Group};
use super::{NightError, fits};

/// A cell in numbers.
pub(super) struct Tally {
    pub(super) estimated: i128,
    pub(super) metered: i128,
    pub(super) requests: u64,
    pub(super) keyed: bool,
    /// What was used of what the gateway counted. `None` when nobody says.
    pub(super) used: Option<i128>,
    pub(super) beyond: i128,
    pub(super) strangers: Vec<(String, i128)>,
}

/// Whose a part of the bill is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Counted,
    Beyond,
    Stranger(String),
}

pub(super) struct Part {
    pub(super) cell: usize,
    pub(super) whose: Whose,
    pub(super) quantity: Option<i128>,
    pub(super) amount: i128,
    /// Its part of the bill before discounts.
    pub(super) list: i128,
}

/// A group's cells in numbers.
pub(super) fn tallies(group: &Group, all: &[Counted]) -> Result<Vec<Tally>, NightError> {
    let mut tallies = Vec::new();
    for cell in &group.cells {
        let mut tally = Tally { keyed: !cell.keys.is_empty(), ..Tally::empty() };
        for counted in cell.keys.iter().filter_map(|key| all.get(*key)) {
            let estimated = tally.estimated.checked_add(counted.estimated);
            tally.estimated = fits(estimated, "estimated")?;
            let metered = tally.metered.checked_add(counted.metered);
            tally.metered = fits(metered, "metered quantity")?;
            let requests = tally.requests.checked_add(counted.requests);
            tally.requests = fits(requests, "requests")?;
        }
        if let Some(mut rest) = cell.quantity {
            for (id, quantity) in &cell.strangers {
                let quantity = (*quantity).min(rest);
                rest -= quantity;
                if quantity > 0 {
                    tally.strangers.push((id.clone(), quantity));
                }
            }
            tally.used = Some(rest);
        }
        tallies.push(tally);
    }
    let money = tallies.iter().any(|tally| tally.estimated > 0);
    let counted = tallies.iter().any(|tally| tally.metered > 0);
    for tally in &mut tallies {
        // Money without any counted quantity: then a quantity cannot be beyond it.
        if let Some(used) = tally.used.filter(|used| (counted || !money) && *used > tally.metered) {
            tally.beyond = used - tally.metered;
            tally.used = Some(tally.metered);
        }
    }
    Ok(tallies)
}

impl Tally {
    pub(super) fn empty() -> Self {
        Self {
            estimated: 0,
            metered: 0,
            requests: 0,
            keyed: false,
            used: None,
            beyond: 0,
            strangers: Vec::new(),
        }
    }

    /// Use that is not the owners'.
    fn foreign(&self) -> bool {
        self.beyond > 0 || !self.strangers.is_empty()
    }
}

/// The parts that a group's bill is divided into.
pub(super) fn parts_of(tallies: &[Tally]) -> Vec<Part> {
    let mut parts = Vec::new();
    for (cell, tally) in tallies.iter().enumerate() {
        let part = |whose, quantity| Part { cell, whose, quantity, amount: 0, list: 0 };
        if tally.keyed {
            parts.push(part(Whose::Counted, Some(tally.used.unwrap_or(tally.metered))));
        }
        if tally.beyond > 0 {
            parts.push(part(Whose::Beyond, Some(tally.beyond)));
        }
        for (id, quantity) in &tally.strangers {
            parts.push(part(Whose::Stranger(id.clone()), Some(*quantity)));
        }
    }
    if parts.is_empty() {
        let whose = Whose::Beyond;
        parts.push(Part { cell: 0, whose, quantity: None, amount: 0, list: 0 });
    }
    parts
}

/// Divides a group's bill among its parts.
pub(super) fn share_out(
    billed: i128,
    tallies: &[Tally],
    parts: &mut [Part],
) -> Result<(), NightError> {
    let priced = |tally: &Tally| tally.estimated > 0 && tally.metered > 0;
    let counts = tallies.iter().filter(|tally| tally.metered > 0 || tally.foreign()).count();
    let by_value = counts > 1 && tallies.iter().all(|tally| !tally.foreign() || priced(tally));
    let weight = |part: &Part| {
        let quantity = part.quantity.unwrap_or(0).unsigned_abs();
        match tallies.get(part.cell) {
            Some(tally) if by_value => value_of(tally, part),
            _ => quantity,
        }
    };
    let weights: Vec<u128> = parts.iter().map(weight).collect();
    // Nothing was used, as far as is known: the owners' money, else their number, says whose the bill is.
    let fallbacks: [&Weighing; 4] = [
        &|part, tally| counted(part, tally.estimated.unsigned_abs()),
        &|part, tally| counted(part, tally.metered.unsigned_abs()),
        &|part, tally| counted(part, u128::from(tally.requests)),
        &|_, _| 1,
    ];
    let shares = divide(billed, &weights).or_else(|| {
        fallbacks.iter().find_map(|fallback| {
            let of = |part: &Part| tallies.get(part.cell).map_or(1, |tally| fallback(part, tally));
            divide(billed, &parts.iter().map(of).collect::<Vec<_>>())
        })
    });
    for (part, share) in parts.iter_mut().zip(shares.unwrap_or_default()) {
        part.amount = share;
    }
    if by_value {
        return Ok(());
    }
    // Shared out by number: among the owners themselves, money is the better measure where there is any.
    let own = parts.iter().filter(|part| part.whose == Whose::Counted);
    let sum = fits(own.clone().try_fold(0_i128, |sum, p| sum.checked_add(p.amount)), "billed")?;
    let weights: Vec<u128> = own
        .map(|part| tallies.get(part.cell).map_or(0, |tally| tally.estimated.unsigned_abs()))
        .collect();
    if let Some(shares) = divide(sum, &weights) {
        let own = parts.iter_mut().filter(|part| part.whose == Whose::Counted);
        for (part, share) in own.zip(shares) {
            part.amount = share;
        }
    }
    Ok(())
}

/// What a part weighs.
type Weighing = dyn Fn(&Part, &Tally) -> u128;

fn counted(part: &Part, weight: u128) -> u128 {
    if part.whose == Whose::Counted { weight } else { 0 }
}

/// What a quantity comes to at its cell's estimated price, in units of 1e-18 dollars.
fn value_of(tally: &Tally, part: &Part) -> u128 {
    let money = tally.estimated.unsigned_abs().saturating_mul(1_000_000);
    match part.quantity {
        Some(quantity) if tally.metered > 0 => {
            mul_div(money, quantity.unsigned_abs(), tally.metered.unsigned_abs()).0
        }
        _ => counted(part, money),
    }
}
