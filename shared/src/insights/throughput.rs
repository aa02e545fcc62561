//! Provisioned throughput: from which use on a commitment is cheaper than paying by the token.

use serde::{Deserialize, Serialize};

use super::mul_div;
use crate::money::{Usd, div_half_even};

/// Hours of a month: a year's 8,760 by twelve.
pub const HOURS_PER_MONTH: u64 = 730;
const MINUTES_PER_HOUR: u64 = 60;
const TOKENS_PER_PRICE: i128 = 1_000_000;
const WHOLE: i128 = 10_000;

/// What is offered, and what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The price of a unit for an hour.
    pub price_per_unit_hour: Usd,
    /// Units.
    pub units: u64,
    /// What one unit takes, in tokens a minute.
    pub tokens_per_minute: u64,
    /// A million tokens without a commitment.
    pub on_demand_per_million: Usd,
    /// The tokens of a month.
    pub tokens_per_month: u64,
}

/// Which of the two is cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(schemars::JsonSchema),
    schemars(rename = "CommitmentVerdict")
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The commitment.
    Commit,
    /// Paying by the token.
    OnDemand,
    /// Neither.
    Equal,
    /// The units cannot take that many tokens.
    TooSmall,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "openapi",
    derive(schemars::JsonSchema),
    schemars(rename = "ThroughputAnswer")
)]
pub struct BreakEven {
    /// What the units can take in a month of 730 hours, in tokens.
    pub capacity_tokens: u64,
    /// What the commitment costs in a month, used or not.
    pub commitment_usd: Usd,
    /// What its whole capacity would cost on demand.
    pub capacity_on_demand_usd: Usd,
    /// The utilisation from which on the commitment is cheaper, in basis points, rounded up; above 10,000 it never is.
    /// `None` where the on-demand price is zero.
    pub break_even_basis_points: Option<u64>,
    /// The same in tokens a month, rounded up.
    pub break_even_tokens: Option<u64>,
    /// The real utilisation, in basis points.
    pub utilisation_basis_points: u64,
    /// What the month's tokens cost on demand.
    pub on_demand_usd: Usd,
    /// What a million of the month's tokens costs with the commitment; `None` without tokens.
    pub per_million_usd: Option<Usd>,
    /// What the commitment saves in a month; below zero: what it loses.
    pub saves_usd: Usd,
    /// Which is cheaper.
    pub verdict: Verdict,
}

/// Compares a commitment with paying by the token. `None` where nothing is offered or something does not fit.
pub fn break_even(offer: &Commitment) -> Option<BreakEven> {
    let hours = offer.units.checked_mul(HOURS_PER_MONTH)?;
    let capacity = hours.checked_mul(MINUTES_PER_HOUR)?.checked_mul(offer.tokens_per_minute)?;
    if capacity == 0 {
        return None;
    }
    let commitment = offer.price_per_unit_hour.pico().checked_mul(i128::from(hours))?;
    let price = offer.on_demand_per_million.pico();
    let on_demand = |tokens: u64| {
        let product = i128::from(tokens).checked_mul(price)?;
        Some(Usd::from_pico(div_half_even(product, TOKENS_PER_PRICE)))
    };
    let up = |value: i128, by: i128| {
        (by > 0).then(|| value.div_euclid(by) + i128::from(value.rem_euclid(by) > 0))
    };
    let tokens = commitment.checked_mul(TOKENS_PER_PRICE).and_then(|value| up(value, price));
    let part = |tokens: i128| tokens.checked_mul(WHOLE);
    let points = tokens.and_then(part).and_then(|value| up(value, i128::from(capacity)));
    let utilisation = part(i128::from(offer.tokens_per_month))? / i128::from(capacity);
    let paid = on_demand(offer.tokens_per_month)?;
    let commitment = Usd::from_pico(commitment);
    let saves = paid.checked_sub(commitment)?;
    let verdict = match saves.pico().signum() {
        _ if offer.tokens_per_month > capacity => Verdict::TooSmall,
        0 => Verdict::Equal,
        1 => Verdict::Commit,
        _ => Verdict::OnDemand,
    };
    Some(BreakEven {
        capacity_tokens: capacity,
        commitment_usd: commitment,
        capacity_on_demand_usd: on_demand(capacity)?,
        break_even_basis_points: points.and_then(|points| points.try_into().ok()),
        break_even_tokens: tokens.and_then(|tokens| tokens.try_into().ok()),
        utilisation_basis_points: utilisation.try_into().ok()?,
        on_demand_usd: paid,
        per_million_usd: mul_div(
            commitment.pico(),
            TOKENS_PER_PRICE,
            offer.tokens_per_month.into(),
        )
        .map(Usd::from_pico),
        saves_usd: saves,
        verdict,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(tokens_per_month: u64) -> Commitment {
        Commitment {
            price_per_unit_hour: "2".parse().unwrap(),
            units: 5,
            tokens_per_minute: 10_000,
            on_demand_per_million: "5".parse().unwrap(),
            tokens_per_month,
        }
    }

    #[test]
    fn a_commitment_pays_from_its_break_even_on() {
        let found = break_even(&offer(1_000_000_000)).unwrap();
        // 5 x 730 hours x 60 x 10,000 tokens; 5 x 730 x $2; at $5 a million these are 1.46 billion tokens.
        assert_eq!(found.capacity_tokens, 2_190_000_000);
        assert_eq!(found.commitment_usd.to_string(), "7300");
        assert_eq!(found.break_even_tokens, Some(1_460_000_000));
        assert_eq!(found.break_even_basis_points, Some(6_667));
        assert_eq!((found.utilisation_basis_points, found.verdict), (4_566, Verdict::OnDemand));
        assert_eq!(
            (found.on_demand_usd.to_string(), found.saves_usd.to_string()),
            ("5000".into(), "-2300".into())
        );
        assert_eq!(found.per_million_usd.unwrap().to_string(), "7.3");
        assert_eq!(break_even(&offer(1_460_000_000)).unwrap().verdict, Verdict::Equal);
        assert_eq!(break_even(&offer(2_000_000_000)).unwrap().verdict, Verdict::Commit);
        assert_eq!(break_even(&offer(3_000_000_000)).unwrap().verdict, Verdict::TooSmall);
        assert_eq!(break_even(&offer(0)).unwrap().per_million_usd, None);
    }

    #[test]
    fn nothing_offered_is_no_answer() {
        assert_eq!(break_even(&Commitment { units: 0, ..offer(1) }), None);
        assert_eq!(break_even(&Commitment { units: u64::MAX, ..offer(1) }), None);
        let free =
            break_even(&Commitment { on_demand_per_million: Usd::ZERO, ..offer(1) }).unwrap();
        assert_eq!((free.break_even_tokens, free.verdict), (None, Verdict::OnDemand));
    }

    proptest! {
        #[test]
        fn at_the_break_even_the_commitment_loses_nothing_and_a_token_below_it_does(
            price in 1_i64..100_000_000_000, units in 1_u64..1_000, tokens in 1_u64..10_000_000, each in 1_i64..100_000_000_000,
        ) {
            let offer = Commitment {
                price_per_unit_hour: Usd::from_nanos(price), units, tokens_per_minute: tokens,
                on_demand_per_million: Usd::from_nanos(each), tokens_per_month: 0,
            };
            let at = break_even(&offer).unwrap().break_even_tokens.unwrap();
            let saves = |tokens_per_month| break_even(&Commitment { tokens_per_month, ..offer }).unwrap().saves_usd;
            prop_assert!(!saves(at).is_negative());
            prop_assert!(at == 0 || saves(at - 1) <= Usd::ZERO);
        }
    }
}
