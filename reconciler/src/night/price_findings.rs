//! Prices that the bill shows and the estimates do not: where the two differ by more than rounding can explain.

use tallygate_shared::money::Usd;

use super::allocate::{mul_div, scale_half_even};
use super::outcome::PriceFinding;
use crate::bill::{BillLine, Meter, Quantity};

/// Quantities are in units of 1e-12, and prices are for a million.
const PER_MILLION: u128 = Quantity::ONE.unsigned_abs() * 1_000_000;

/// One amount for one quantity, in picodollars and units of 1e-12.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) amount: i128,
    pub(super) quantity: i128,
}

/// What one model and meter was estimated and billed at.
#[derive(Clone, Debug)]
pub(super) struct Priced<'a> {
    pub(super) provider: &'a str,
    pub(super) model: &'a str,
    pub(super) tier: &'a str,
    pub(super) meter: Meter,
    pub(super) estimated: i128,
    pub(super) metered: i128,
    /// Requests that were rounded on their own: each may be off by a nanodollar.
    pub(super) requests: u64,
    pub(super) observations: &'a [Observation],
    /// How far rounding may have moved a billed amount.
    pub(super) resolution: i128,
    pub(super) effect: i128,
}

/// The smallest unit that the amounts of a bill show, for [`super::Options::resolution`]. To be asked before charges are
/// spread over their days: the parts of a rounded amount have digits that mean nothing.
pub fn bill_resolution(lines: &[BillLine]) -> Usd {
    Usd::from_pico(resolution_of(lines.iter()))
}

/// The smallest unit that a bill's amounts show, from cents down to a nanodollar: the most that rounding, up, down or to
/// the nearest, can have moved each of them.
pub(super) fn resolution_of<'a>(lines: impl Iterator<Item = &'a BillLine>) -> i128 {
    let mut unit = 10_i128.pow(10);
    for line in lines {
        while unit > 1000 && line.amount.pico() % unit != 0 {
            unit /= 10;
        }
    }
    unit
}

/// The finding, when the two prices cannot be the same.
pub(super) fn price_finding(priced: &Priced<'_>) -> Option<PriceFinding> {
    let seen: Vec<Observation> =
        priced.observations.iter().copied().filter(|o| o.quantity > 0 && o.amount >= 0).collect();
    if priced.metered <= 0 || seen.is_empty() {
        return None;
    }
    let ours = Observation { amount: priced.estimated, quantity: priced.metered };
    let ours_bounds = bounds(ours, i128::from(priced.requests).checked_mul(1000)?, 0)?;
    let total = seen.iter().try_fold(Observation { amount: 0, quantity: 0 }, |sum, o| {
        let amount = sum.amount.checked_add(o.amount)?;
        Some(Observation { amount, quantity: sum.quantity.checked_add(o.quantity)? })
    })?;
    let each = seen.iter().map(|o| bounds(*o, priced.resolution, Quantity::ONE));
    let common = each.collect::<Option<Vec<_>>>()?.into_iter().reduce(|a, b| a.and(b))?;
    let consistent = common.low <= common.high;
    let moved = priced.resolution.checked_mul(i128::try_from(seen.len()).ok()?)?;
    let billed_bounds = if consistent { common } else { bounds(total, moved, Quantity::ONE)? };
    if billed_bounds.and(ours_bounds).low <= billed_bounds.and(ours_bounds).high {
        return None;
    }
    let quotient = |o: Observation| {
        scale_half_even(o.amount, i128::try_from(PER_MILLION).ok()?, o.quantity.unsigned_abs())
    };
    let billed = if consistent { shortest(common, total.amount > 0) } else { None };
    let billed = billed.or_else(|| quotient(total))?;
    let ours = shortest(ours_bounds, ours.amount > 0).or_else(|| quotient(ours))?;
    Some(PriceFinding {
        provider: priced.provider.to_owned(),
        model: priced.model.to_owned(),
        tier: priced.tier.to_owned(),
        meter: priced.meter,
        ours_per_million: Usd::from_pico(ours),
        billed_per_million: Usd::from_pico(billed),
        consistent,
        observations: u64::try_from(seen.len()).unwrap_or(u64::MAX),
        tokens: Quantity::from_pico(total.quantity),
        effect: Usd::from_pico(priced.effect),
    })
}

/// Prices for a million that explain an observation, both ends included. Empty when `low > high`.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: i128,
    high: i128,
}

impl Bounds {
    fn and(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }
}

/// A billed quantity may be off by one unit: it is a part of a longer charge's, or was rounded.
fn bounds(seen: Observation, moved: i128, unit: i128) -> Option<Bounds> {
    let most = seen.quantity.checked_add(unit)?.unsigned_abs();
    let least = seen.quantity.checked_sub(unit)?.max(1).unsigned_abs();
    let low = seen.amount.checked_sub(moved)?.max(0).unsigned_abs();
    let high = seen.amount.checked_add(moved)?.unsigned_abs();
    let (floor, rest) = mul_div(low, PER_MILLION, most);
    let low = i128::try_from(floor).ok()?.checked_add(i128::from(rest > 0))?;
    let high = i128::try_from(mul_div(high, PER_MILLION, least).0).unwrap_or(i128::MAX);
    Some(Bounds { low, high })
}

/// The price with the fewest digits within the bounds; of several, the one nearest their middle. `None` without any.
fn shortest(bounds: Bounds, positive: bool) -> Option<i128> {
    // Something that cost money has a price, however small it was.
    let low = if positive { bounds.low.max(1) } else { bounds.low };
    if low > bounds.high {
        return None;
    }
    let middle = low + (bounds.high - low) / 2;
    let mut unit = 10_i128.pow(30);
    while unit > 0 {
        // The multiples nearest the middle on either side.
        let below = middle / unit * unit;
        let candidates = [below, below + unit];
        let inside = candidates.into_iter().filter(|price| (low..=bounds.high).contains(price));
        if let Some(price) = inside.min_by_key(|price| (middle.abs_diff(*price), *price)) {
            return Some(price);
        }
        unit /= 10;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usd(text: &str) -> i128 {
        text.parse::<Usd>().unwrap().pico()
    }

    fn found(estimated: &str, tokens: u64, billed: &[(&str, u64)], unit: &str) -> Option<String> {
        let observations: Vec<Observation> = billed
            .iter()
            .map(|(amount, tokens)| Observation {
                amount: usd(amount),
                quantity: Quantity::whole(*tokens).pico(),
            })
            .collect();
        let finding = price_finding(&Priced {
            provider: "openai",
            model: "m",
            tier: "standard",
            meter: Meter::Input,
            estimated: usd(estimated),
            metered: Quantity::whole(tokens).pico(),
            requests: 10,
            observations: &observations,
            resolution: usd(unit),
            effect: 0,
        });
        finding.map(|f| format!("{} {} {}", f.ours_per_million, f.billed_per_million, f.consistent))
    }

    #[test]
    fn what_rounding_explains_is_no_price() {
        // 2.50 for a million, 1,234,567 tokens: 3.0864175, billed as 3.09 or, rounded down, as 3.08.
        assert_eq!(found("3.0864175", 1_234_567, &[("3.09", 1_234_567)], "0.01"), None);
        assert_eq!(found("3.0864175", 1_234_567, &[("3.08", 1_234_567)], "0.01"), None);
        assert_eq!(found("3.0864175", 1_234_567, &[("3.0864175", 1_234_567)], "0.000000001"), None);
    }

    #[test]
    fn the_shortest_price_that_explains_every_line_is_named() {
        let story = found("3.0864175", 1_234_567, &[("3.70", 1_234_567)], "0.01");
        assert_eq!(story.unwrap(), "2.5 3 true");
        // One line alone allows 3 as well; the second does not.
        let lines = [("3.70", 1_234_567), ("29.90", 10_000_000)];
        assert_eq!(found("2.5", 1_000_000, &lines, "0.01").unwrap(), "2.5 2.99 true");
        // Two prices on one bill: the quotient of the sums.
        let lines = [("2", 1_000_000), ("4", 1_000_000)];
        assert_eq!(found("2.5", 1_000_000, &lines, "0.01").unwrap(), "2.5 3 false");
    }

    #[test]
    fn what_cost_something_has_a_price() {
        assert_eq!(found("5", 1_000_000, &[("0.01", 1_000_000)], "0.01").unwrap(), "5 0.01 true");
        assert_eq!(found("5", 1_000_000, &[("0", 1_000_000)], "0.01").unwrap(), "5 0 true");
    }

    #[test]
    fn nothing_counted_or_billed_shows_no_price() {
        assert_eq!(found("1", 0, &[("1", 5)], "0.01"), None);
        assert_eq!(found("1", 5, &[("1", 0)], "0.01"), None);
        assert_eq!(found("1", 5, &[], "0.01"), None);
    }

    #[test]
    fn a_bill_shows_its_smallest_unit() {
        let line = |amount: &str| {
            let text = serde_json::json!({"provider": "p", "account": "a", "start": 0, "end": 1,
                "kind": "usage", "service": "s", "description": "", "meter": "whole", "amount": amount});
            serde_json::from_value::<BillLine>(text).unwrap()
        };
        let unit = |amounts: &[&str]| {
            let lines: Vec<BillLine> = amounts.iter().map(|a| line(a)).collect();
            Usd::from_pico(resolution_of(lines.iter())).to_string()
        };
        assert_eq!(unit(&["10", "3"]), "0.01");
        assert_eq!(unit(&["10", "3.1234"]), "0.0001");
        assert_eq!(unit(&["0.000000000001"]), "0.000000001");
    }

    proptest! {
        /// Whatever the price of a few digits and the use, the bill's cents never hide nor invent a difference of price.
        #[test]
        fn a_price_of_ours_is_never_doubted_and_another_is_found(
            cents in 1..10_000_i128, other in 1..10_000_i128, uses in prop::collection::vec(1..3_000_000_000_u64, 1..6),
        ) {
            let bill = |cents: i128, tokens: u64| {
                let pico = cents * 10_000 * i128::from(tokens);
                // To the nearest cent.
                Observation { amount: (pico + usd("0.005")) / usd("0.01") * usd("0.01"), quantity: Quantity::whole(tokens).pico() }
            };
            let total: u64 = uses.iter().sum();
            let ask = |billed: i128| {
                let observations: Vec<Observation> = uses.iter().map(|tokens| bill(billed, *tokens)).collect();
                price_finding(&Priced {
                    provider: "p", model: "m", tier: "t", meter: Meter::Input,
                    estimated: cents * 10_000 * i128::from(total), metered: Quantity::whole(total).pico(),
                    requests: 0, observations: &observations, resolution: usd("0.01"), effect: 0,
                })
            };
            prop_assert_eq!(ask(cents), None);
            if let Some(found) = ask(other) {
                prop_assert!(found.consistent);
                prop_assert_eq!(found.ours_per_million.pico(), cents * 10_000_000_000);
            } else {
                // Only where the money is too little to show it.
                let largest = *uses.iter().max().unwrap();
                let shown = (cents - other).abs() * 10_000 * i128::from(largest);
                prop_assert!(shown <= usd("0.02") + (cents + other) * 10_000);
            }
        }
    }
}
