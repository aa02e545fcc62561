//! Prices of a charge, so that price times quantity is the cost to the last digit.
//!
//! Quantities are counted in millionths of the pricing unit (one token of `1000000 Tokens`), prices in millionths of a
//! dollar: their product is a whole number of picodollars, which twelve decimal places hold exactly. What the rounding
//! of a price leaves between the product and the amount billed is shown in `x_CostResidual`; the billed and the
//! effective cost themselves are never rounded.

use tallygate_shared::money::{Usd, div_half_even};
use tallygate_shared::pricing::{PriceBook, PriceRow, Prices};
use tallygate_shared::time::Timestamp;

use crate::bill::{Meter, Quantity};

/// Picos in a millionth.
const PICO_PER_MICRO: i128 = 1_000_000;

/// How a meter is counted and priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measure {
    /// The meter in words.
    pub name: &'static str,
    /// The end of a SKU's name.
    pub slug: &'static str,
    /// The unit of consumption.
    pub unit: &'static str,
    /// The unit of pricing.
    pub pricing_unit: &'static str,
    /// How many of the one are one of the other.
    pub per: i128,
}

/// A price per million tokens.
const fn tokens(name: &'static str, slug: &'static str) -> Measure {
    Measure { name, slug, unit: "Tokens", pricing_unit: "1000000 Tokens", per: 1_000_000 }
}

/// Seats of a tool.
pub(super) const SEATS: Measure =
    Measure { name: "Seats", slug: "seats", unit: "Seats", pricing_unit: "Seats", per: 1 };

/// What a cost is counted in when all that is known is the cost: dollars, at a dollar each.
pub(super) const DOLLARS: Measure =
    Measure { name: "Charges", slug: "charges", unit: "USD", pricing_unit: "USD", per: 1 };

/// How `meter` is counted; `None` for [`Meter::Whole`].
pub(super) const fn measure(meter: Meter) -> Option<Measure> {
    match meter {
        Meter::Input => Some(tokens("Input Tokens", "input-tokens")),
        Meter::CacheRead => Some(tokens("Cached Input Tokens", "cached-input-tokens")),
        Meter::CacheWrite => Some(tokens("Cache Write Tokens", "cache-write-tokens")),
        Meter::Output => Some(tokens("Output Tokens", "output-tokens")),
        Meter::Calls => Some(Measure {
            name: "Requests",
            slug: "requests",
            unit: "Requests",
            pricing_unit: "1000 Requests",
            per: 1000,
        }),
        Meter::Whole => None,
    }
}

/// The published price of one pricing unit, rounded half to even to the millionth of a dollar. `None` where the book
/// does not know it: then nobody guesses.
pub(super) fn list_price(
    book: &PriceBook,
    (provider, model): (&str, &str),
    meter: Meter,
    tier: &str,
    at: Timestamp,
) -> Option<Usd> {
    let row = book.find(provider, model, at)?;
    let price = match meter {
        Meter::Calls => fee(row)?,
        Meter::Whole => return None,
        _ => token_price(row.prices.get(tier)?, meter)?,
    };
    Some(Usd::from_pico(div_half_even(price.pico(), PICO_PER_MICRO) * PICO_PER_MICRO))
}

fn token_price(prices: &Prices, meter: Meter) -> Option<Usd> {
    match meter {
        Meter::Input => prices.input,
        Meter::Output => prices.output,
        Meter::CacheRead => prices.cache_read.or(prices.input),
        // The ledger's meter has writes of every lifetime; the list price is that of the shortest, the cheapest one.
        Meter::CacheWrite => prices.cache_write.values().copied().min().or(prices.input),
        Meter::Calls | Meter::Whole => None,
    }
}

/// The fee of a thousand calls, where the model has one kind of call at one price: the meter does not say which.
fn fee(row: &PriceRow) -> Option<Usd> {
    let [fee] = row.fees.as_slice() else { return None };
    let mut prices = fee.usd.values();
    let (price, None) = (prices.next()?, prices.next()) else { return None };
    let per_thousand = price.pico().checked_mul(1000)?;
    Some(Usd::from_pico(div_half_even(per_thousand, i128::from(fee.per).max(1))))
}

/// Quantities of consumption as quantities of pricing, in millionths: each is rounded, and together they are the
/// rounded sum. `None` on overflow.
pub(super) fn in_millionths(measure: &Measure, consumed: &[Quantity]) -> Option<Vec<i128>> {
    let unit = measure.per.checked_mul(PICO_PER_MICRO)?;
    let mut sum = 0_i128;
    for quantity in consumed {
        sum = sum.checked_add(quantity.pico())?;
    }
    let mut parts: Vec<i128> = consumed.iter().map(|q| q.pico().div_euclid(unit)).collect();
    let floor = parts.iter().sum::<i128>();
    let missing = usize::try_from(div_half_even(sum, unit) - floor).ok()?;
    for place in largest_first(consumed.iter().map(|q| q.pico().rem_euclid(unit))).take(missing) {
        if let Some(part) = parts.get_mut(place) {
            *part += 1;
        }
    }
    Some(parts)
}

/// The price of a pricing unit that a charge comes to, in millionths of a dollar: `None` where there is none, because
/// nothing was measured or the amount has the other sign.
pub(super) fn billed_price(amount: Usd, millionths: i128) -> Option<i128> {
    let (amount, quantity) = match millionths.signum() {
        0 => return None,
        1 => (amount.pico(), millionths),
        _ => (amount.pico().checked_neg()?, millionths.checked_neg()?),
    };
    let price = div_half_even(amount, quantity);
    (price >= 0).then_some(price)
}

/// Price times quantity, both in millionths. `None` on overflow.
pub(super) fn product(price: i128, quantity: i128) -> Option<Usd> {
    price.checked_mul(quantity).map(Usd::from_pico)
}

/// Millionths as a quantity.
pub(super) fn as_quantity(millionths: i128) -> Option<Quantity> {
    millionths.checked_mul(PICO_PER_MICRO).map(Quantity::from_pico)
}

/// A price in millionths as money.
pub(super) fn as_price(millionths: i128) -> Option<Usd> {
    millionths.checked_mul(PICO_PER_MICRO).map(Usd::from_pico)
}

/// Money as a price in millionths.
pub(super) const fn price_millionths(price: Usd) -> i128 {
    div_half_even(price.pico(), PICO_PER_MICRO)
}

/// Shares of 1 in units of 1e-12, in proportion to `weights`, by largest remainder: they add up to exactly 1. Weights of
/// one sign are taken by their size; without any, or with both signs, every share is the same. Empty for no weights;
/// `None` on overflow.
pub(super) fn ratios(weights: &[i128]) -> Option<Vec<i128>> {
    let mixed = weights.iter().any(|w| *w < 0) && weights.iter().any(|w| *w > 0);
    let mut sizes: Vec<i128> = Vec::with_capacity(weights.len());
    for weight in weights {
        sizes.push(if mixed { 1 } else { weight.checked_abs()? });
    }
    if sizes.iter().all(|size| *size == 0) {
        sizes.fill(1);
    }
    let mut whole = 0_i128;
    for size in &sizes {
        whole = whole.checked_add(*size)?;
    }
    let mut shares = Vec::with_capacity(sizes.len());
    let mut rests = Vec::with_capacity(sizes.len());
    for size in sizes {
        let scaled = size.checked_mul(Quantity::ONE)?;
        shares.push(scaled / whole);
        rests.push(scaled % whole);
    }
    let given: i128 = shares.iter().sum();
    let missing =
        if shares.is_empty() { 0 } else { usize::try_from(Quantity::ONE - given).ok()? };
    for place in largest_first(rests.into_iter()).take(missing) {
        if let Some(share) = shares.get_mut(place) {
            *share += 1;
        }
    }
    Some(shares)
}

/// Places of the largest values first; equal ones in their order.
fn largest_first(values: impl Iterator<Item = i128>) -> impl Iterator<Item = usize> {
    let mut places: Vec<(i128, usize)> =
        values.enumerate().map(|(place, value)| (value, place)).collect();
    places.sort_by_key(|(value, place)| (std::cmp::Reverse(*value), *place));
    places.into_iter().map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKENS: Measure = tokens("Input Tokens", "input-tokens");

    #[test]
    fn price_times_quantity_is_exact_where_the_bill_is() {
        // 8.4 million tokens at $5 are $42.
        let quantity = in_millionths(&TOKENS, &[Quantity::whole(8_400_000)]).unwrap()[0];
        let price = billed_price("42".parse().unwrap(), quantity).unwrap();
        assert_eq!(as_price(price).unwrap().to_string(), "5");
        assert_eq!(as_quantity(quantity).unwrap().to_string(), "8.4");
        assert_eq!(product(price, quantity).unwrap().to_string(), "42");
    }

    #[test]
    fn a_price_never_is_below_zero() {
        assert_eq!(billed_price("-1".parse().unwrap(), 5), None);
        assert_eq!(billed_price("1".parse().unwrap(), -5), None);
        assert_eq!(billed_price("-1".parse().unwrap(), -1_000_000), Some(1_000_000));
        assert_eq!(billed_price("1".parse().unwrap(), 0), None);
    }

    #[test]
    fn list_prices_come_from_the_book_by_meter_and_tier() {
        let book = PriceBook::parse(
            r#"{"version":"1","currency":"USD","unit":"USD per 1,000,000 tokens","rows":[
            {"provider":"p","model":"m","prices":{"standard":{"input":"2.5","output":"10",
             "cache_write":{"12h":"6","30m":"3.125"}}},
             "fees":[{"call":"web_search","per":1000,"usd":{"any":"10"}}]}]}"#,
        )
        .unwrap();
        let price = |model, meter, tier| {
            list_price(&book, ("p", model), meter, tier, Timestamp::from_ms(0))
                .map(|price| price.to_string())
        };
        assert_eq!(price("m", Meter::Input, "standard").as_deref(), Some("2.5"));
        assert_eq!(price("m", Meter::CacheRead, "standard").as_deref(), Some("2.5"));
        assert_eq!(price("m", Meter::CacheWrite, "standard").as_deref(), Some("3.125"));
        assert_eq!(price("m", Meter::Calls, "standard").as_deref(), Some("10"));
        assert_eq!(price("m", Meter::Input, "batch"), None);
        assert_eq!(price("m", Meter::Whole, "standard"), None);
        assert_eq!(price("other", Meter::Input, "standard"), None);
    }

    proptest! {
        #[test]
        fn ratios_always_sum_to_one(weights in prop::collection::vec(-10_i128.pow(20)..10_i128.pow(20), 1..40)) {
            let shares = ratios(&weights).unwrap();
            prop_assert_eq!(shares.iter().sum::<i128>(), Quantity::ONE);
            prop_assert!(shares.iter().all(|share| *share >= 0));
        }

        #[test]
        fn rounded_quantities_always_sum_to_the_rounded_sum(
            picos in prop::collection::vec(-10_i128.pow(24)..10_i128.pow(24), 1..40),
        ) {
            let quantities: Vec<_> = picos.iter().map(|p| Quantity::from_pico(*p)).collect();
            let parts = in_millionths(&TOKENS, &quantities).unwrap();
            let unit = TOKENS.per * PICO_PER_MICRO;
            prop_assert_eq!(parts.iter().sum::<i128>(), div_half_even(picos.iter().sum(), unit));
            for (part, pico) in parts.iter().zip(&picos) {
                prop_assert!((part * unit - pico).abs() < unit);
            }
        }

        #[test]
        fn the_residual_is_at_most_half_a_millionth_of_a_dollar_a_pricing_unit(
            amount in 0_i128..10_i128.pow(18),
            tokens in 1_u64..1_000_000_000_000,
        ) {
            let quantity = in_millionths(&TOKENS, &[Quantity::whole(tokens)]).unwrap()[0];
            let amount = Usd::from_pico(amount);
            let cost = product(billed_price(amount, quantity).unwrap(), quantity).unwrap();
            prop_assert!((cost.pico() - amount.pico()).abs() * 2 <= quantity);
        }
    }
}
