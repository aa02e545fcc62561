//! Why a cost changed between two times: more requests, other models, more tokens in a request, or other prices.
//!
//! A cost is a product: requests x each model's share of them x tokens per request, of each kind, x the price of such a
//! token. Which factor is changed first would decide what it is given, so each gets its Shapley value: the mean of what
//! its change does over all 24 orders in which the four can change. That is the one division that adds up and prefers no
//! order. Costs in between are rounded to the picodollar, and the quarters that remain go by largest remainder, so the
//! four parts add up to the change exactly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mul_div;
use super::traffic::Traffic;
use crate::money::Usd;

/// What a change of cost comes from. The four add up to it, to the last picodollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "CostEffects"))]
#[serde(deny_unknown_fields)]
pub struct Effects {
    /// More or fewer requests.
    pub volume_usd: Usd,
    /// Requests at other models, or at the same ones in other shares.
    pub mix_usd: Usd,
    /// More or fewer tokens in a request, or more or fewer of them from the cache.
    pub tokens_usd: Usd,
    /// Other prices of the same tokens.
    pub price_usd: Usd,
}

/// A cause of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The number of requests.
    Volume,
    /// The models.
    Mix,
    /// The tokens of a request.
    Tokens,
    /// The prices.
    Price,
}

impl Cause {
    /// As people say it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Volume => "requests",
            Self::Mix => "model mix",
            Self::Tokens => "tokens per request",
            Self::Price => "price",
        }
    }
}

impl Effects {
    /// Each with its cause.
    pub const fn named(&self) -> [(Cause, Usd); 4] {
        [
            (Cause::Volume, self.volume_usd),
            (Cause::Mix, self.mix_usd),
            (Cause::Tokens, self.tokens_usd),
            (Cause::Price, self.price_usd),
        ]
    }

    /// The largest one, whichever way it goes; the first of equals.
    pub fn dominant(&self) -> Cause {
        let mut found = (Cause::Volume, 0);
        for (cause, amount) in self.named() {
            let size = amount.pico().unsigned_abs();
            if size > found.1 {
                found = (cause, size);
            }
        }
        found.0
    }
}

/// A model's traffic by kind of token. What is not charged by the token counts by the request.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    requests: i128,
    tokens: [i128; 5],
    pico: [i128; 5],
}

impl Slice {
    fn of(traffic: &Traffic) -> Self {
        let requests = i128::from(traffic.requests);
        let counts = [traffic.input, traffic.cache_read, traffic.cache_write, traffic.output];
        let [input, read, write, output] = counts.map(i128::from);
        let amounts = [
            traffic.input_usd,
            traffic.cache_read_usd,
            traffic.cache_write_usd,
            traffic.output_usd,
        ];
        let [a, b, c, d] = amounts.map(Usd::pico);
        Self {
            requests,
            tokens: [input, read, write, output, requests],
            pico: [a, b, c, d, traffic.other_pico()],
        }
    }

    fn total(&self) -> Option<i128> {
        self.pico.iter().try_fold(0_i128, |sum, pico| sum.checked_add(*pico))
    }
}

/// The two times of one model; 0 is before, 1 is after.
type Pair = [Slice; 2];

fn at(pair: &Pair, time: usize) -> &Slice {
    if time == 0 { &pair[0] } else { &pair[1] }
}

/// What this model's tokens of time `tokens` cost at the prices of time `price`.
fn revalued(pair: &Pair, tokens: usize, price: usize) -> Option<i128> {
    let (have, rates) = (at(pair, tokens), at(pair, price));
    let fallback = at(pair, 1 - price);
    let mut sum = 0_i128;
    for (place, count) in have.tokens.iter().enumerate() {
        // A kind of token that had no price then has that of the other time.
        let rate = [rates, fallback].into_iter().find_map(|slice| {
            let tokens = *slice.tokens.get(place)?;
            (tokens > 0).then_some((*slice.pico.get(place)?, tokens))
        });
        let Some((pico, tokens)) = rate else {
            // Charged without a token or a request to put it to: it moves with the price.
            sum = sum.checked_add(*rates.pico.get(place)?)?;
            continue;
        };
        sum = sum.checked_add(mul_div(pico, *count, tokens)?)?;
    }
    Some(sum)
}

/// The cost with each factor as it was at the time said for it.
fn corner(pairs: &[Pair], totals: [i128; 2], times: [usize; 4]) -> Option<i128> {
    let [volume, mix, tokens, price] = times;
    let of = |time: usize| if time == 0 { totals[0] } else { totals[1] };
    let mut sum = 0_i128;
    for pair in pairs {
        // A model that was not used then has the tokens per request of the other time.
        let shape = if at(pair, tokens).requests > 0 { tokens } else { 1 - tokens };
        let share = at(pair, mix).requests;
        let cost = revalued(pair, shape, price)?;
        let requests = at(pair, shape).requests;
        if requests == 0 {
            sum = sum.checked_add(cost)?;
            continue;
        }
        let scaled = mul_div(cost, share, requests)?;
        sum = sum.checked_add(mul_div(scaled, of(volume), of(mix))?)?;
    }
    Some(sum)
}

/// Takes a change apart. Traffic is given by model, before and after. `None` when a sum does not fit.
pub fn decompose<'a>(
    before: impl IntoIterator<Item = (&'a str, &'a Traffic)>,
    after: impl IntoIterator<Item = (&'a str, &'a Traffic)>,
) -> Option<Effects> {
    let mut pairs: BTreeMap<&str, Pair> = BTreeMap::new();
    for (model, traffic) in before {
        pairs.entry(model).or_default()[0] = Slice::of(traffic);
    }
    for (model, traffic) in after {
        pairs.entry(model).or_default()[1] = Slice::of(traffic);
    }
    let pairs: Vec<Pair> = pairs.into_values().collect();
    let (mut totals, mut costs) = ([0_i128; 2], [0_i128; 2]);
    for [before, after] in &pairs {
        totals = [totals[0] + before.requests, totals[1] + after.requests];
        costs = [costs[0].checked_add(before.total()?)?, costs[1].checked_add(after.total()?)?];
    }
    let change = costs[1].checked_sub(costs[0])?;
    if totals.contains(&0) {
        // What began or ended has nothing to be compared with: all of it is requests.
        return Some(Effects { volume_usd: Usd::from_pico(change), ..Effects::default() });
    }
    let mut values = [0_i128; 16];
    for (number, value) in values.iter_mut().enumerate() {
        let times = [number & 1, number >> 1 & 1, number >> 2 & 1, number >> 3 & 1];
        *value = match number {
            0 => costs[0],
            15 => costs[1],
            _ => corner(&pairs, totals, times)?,
        };
    }
    shapley(&values, change)
}

/// Of 24 orders, those in which so many factors changed before this one.
const ORDERS: [i128; 4] = [6, 2, 2, 6];

fn shapley(values: &[i128; 16], change: i128) -> Option<Effects> {
    let mut parts: Vec<(usize, i128, i128)> = Vec::with_capacity(4);
    for factor in 0..4_usize {
        let bit = 1 << factor;
        let mut sum = 0_i128;
        for (number, without) in values.iter().enumerate().filter(|(number, _)| number & bit == 0) {
            let orders = ORDERS.get(usize::try_from(number.count_ones()).ok()?)?;
            let step = values.get(number | bit)?.checked_sub(*without)?;
            sum = sum.checked_add(step.checked_mul(*orders)?)?;
        }
        parts.push((factor, sum.div_euclid(24), sum.rem_euclid(24)));
    }
    let given: i128 = parts.iter().map(|(_, part, _)| part).sum();
    let left = usize::try_from(change.checked_sub(given)?).ok()?;
    parts.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
    parts.iter_mut().take(left).for_each(|(_, part, _)| *part += 1);
    parts.sort_by_key(|(factor, _, _)| *factor);
    let mut parts = parts.into_iter().map(|(_, part, _)| Usd::from_pico(part));
    Some(Effects {
        volume_usd: parts.next()?,
        mix_usd: parts.next()?,
        tokens_usd: parts.next()?,
        price_usd: parts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(nanos: i64) -> Usd {
        Usd::from_nanos(nanos)
    }

    fn traffic(requests: u64, input: u64, output: u64, nanos: [i64; 3]) -> Traffic {
        Traffic {
            requests,
            input,
            output,
            input_usd: usd(nanos[0]),
            output_usd: usd(nanos[1]),
            charged: usd(nanos[0] + nanos[1] + nanos[2]),
            ..Traffic::default()
        }
    }

    fn effects(before: &[(&str, Traffic)], after: &[(&str, Traffic)]) -> Effects {
        let before = before.iter().map(|(model, traffic)| (*model, traffic));
        decompose(before, after.iter().map(|(model, traffic)| (*model, traffic))).unwrap()
    }

    #[test]
    fn one_factor_that_changes_alone_gets_the_whole_change() {
        let base = [
            ("a", traffic(10, 1_000, 100, [5_000, 3_000, 0])),
            ("b", traffic(10, 500, 0, [800, 0, 200])),
        ];
        let twice = [
            ("a", traffic(20, 2_000, 200, [10_000, 6_000, 0])),
            ("b", traffic(20, 1_000, 0, [1_600, 0, 400])),
        ];
        let found = effects(&base, &twice);
        assert_eq!(found, Effects { volume_usd: usd(9_000), ..Effects::default() });
        let dearer = [("a", traffic(10, 1_000, 100, [5_500, 3_000, 0])), base[1].clone()];
        let found = effects(&base, &dearer);
        assert_eq!(found, Effects { price_usd: usd(500), ..Effects::default() });
        let longer = [("a", traffic(10, 1_000, 200, [5_000, 6_000, 0])), base[1].clone()];
        assert_eq!(
            effects(&base, &longer),
            Effects { tokens_usd: usd(3_000), ..Effects::default() }
        );
        // Half of a's requests go to b: 5 x 800 less, 5 x 100 more.
        let moved = [
            ("a", traffic(5, 500, 50, [2_500, 1_500, 0])),
            ("b", traffic(15, 750, 0, [1_200, 0, 300])),
        ];
        let found = effects(&base, &moved);
        assert_eq!(found, Effects { mix_usd: usd(-3_500), ..Effects::default() });
        assert_eq!(found.dominant(), Cause::Mix);
    }

    #[test]
    fn what_begins_or_ends_is_volume_and_nothing_is_nothing() {
        let some = [("a", traffic(10, 1_000, 100, [5_000, 3_000, 0]))];
        assert_eq!(effects(&[], &some).volume_usd, usd(8_000));
        assert_eq!(effects(&some, &[]).volume_usd, usd(-8_000));
        assert_eq!(effects(&[], &[]), Effects::default());
        assert_eq!(effects(&some, &some), Effects::default());
    }

    #[test]
    fn a_new_model_is_mix_and_an_amount_without_requests_is_lost_nowhere() {
        let before = [("a", traffic(10, 1_000, 0, [1_000, 0, 0]))];
        let after = [
            ("a", traffic(5, 500, 0, [500, 0, 0])),
            ("b", traffic(5, 500, 0, [5_000, 0, 0])),
            ("c", traffic(0, 0, 0, [0, 0, 77])),
        ];
        let found = effects(&before, &after);
        assert_eq!((found.mix_usd, found.price_usd), (usd(4_500), usd(77)));
        assert_eq!((found.volume_usd, found.tokens_usd), (Usd::ZERO, Usd::ZERO));
    }

    fn any_traffic() -> impl Strategy<Value = Traffic> {
        (
            0_u64..1_000_000,
            0_u64..2_000_000_000,
            0_u64..900_000_000,
            any::<[u32; 3]>(),
            0_u64..9_999,
        )
            .prop_map(|(requests, input, output, [a, b, c], read)| Traffic {
                cache_read: read,
                cache_read_usd: usd(i64::from(c) / 7),
                ..traffic(requests, input, output, [i64::from(a) * 999, i64::from(b), i64::from(c)])
            })
    }

    proptest! {
        #[test]
        fn the_parts_always_add_up_to_the_change(
            before in prop::collection::btree_map("[a-d]", any_traffic(), 0..4),
            after in prop::collection::btree_map("[a-d]", any_traffic(), 0..4),
        ) {
            let sum = |side: &BTreeMap<String, Traffic>| side.values().map(|t| t.charged.pico()).sum::<i128>();
            let list = |side: &BTreeMap<String, Traffic>| -> Vec<(String, Traffic)> {
                side.iter().map(|(model, traffic)| (model.clone(), traffic.clone())).collect()
            };
            let of = |before: &[(String, Traffic)], after: &[(String, Traffic)]| decompose(
                before.iter().map(|(model, traffic)| (model.as_str(), traffic)),
                after.iter().map(|(model, traffic)| (model.as_str(), traffic)),
            ).unwrap();
            let (first, second) = (list(&before), list(&after));
            let found = of(&first, &second);
            let parts: i128 = found.named().iter().map(|(_, part)| part.pico()).sum();
            prop_assert_eq!(parts, sum(&after) - sum(&before));
            // Seen from the other side, each part is the same with the other sign, but for the last digit.
            for ((_, there), (_, back)) in found.named().iter().zip(of(&second, &first).named()) {
                prop_assert!((there.pico() + back.pico()).abs() <= 1);
            }
        }
    }
}
