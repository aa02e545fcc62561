//! What the books say about how to spend better: pure functions from sums of traffic to findings. All in integers.
//!
//! - [`decompose`]: why a cost changed, in parts that add up to the change
//! - [`unit`]: what a feature, a customer, ... costs, models and harness together
//! - [`review`]: a week on one page
//! - [`savings`]: what could cost less, with evidence
//! - [`commitments`]: what of throughput that is paid for by the hour stays idle
//! - [`archetype`]: how applications of a kind usually use tokens
//! - [`workload`], [`throughput`]: calculators

pub mod archetype;
pub mod commitments;
pub mod decompose;
pub mod market;
pub mod review;
mod review_text;
pub mod savings;
pub mod throughput;
pub mod traffic;
pub mod unit;
pub mod week;
pub mod workload;

use crate::money::{PICO_PER_USD, Usd, div_half_even};

/// `value * times / by`, rounded half to even. A product beyond 128 bits loses its smallest digits, never its size.
/// `None` where `by` is 0 or the result does not fit.
pub(crate) fn mul_div(value: i128, times: i128, by: i128) -> Option<i128> {
    if by == 0 {
        return None;
    }
    let (mut times, mut by) =
        if by < 0 { (times.checked_neg()?, by.checked_neg()?) } else { (times, by) };
    loop {
        if let Some(product) = value.checked_mul(times) {
            return Some(div_half_even(product, by));
        }
        if by < 2 {
            return None;
        }
        (times, by) = (times / 2, by / 2);
    }
}

/// Divides `total` in proportion to `weights`, by largest remainder: the parts add up to it. `None` when no weight is
/// above zero, or something does not fit.
pub fn apportion(total: i128, weights: &[i128]) -> Option<Vec<i128>> {
    let sum = weights.iter().try_fold(0_i128, |sum, weight| sum.checked_add((*weight).max(0)))?;
    if sum == 0 {
        return None;
    }
    let mut parts = Vec::with_capacity(weights.len());
    for (place, weight) in weights.iter().enumerate() {
        let product = total.checked_mul((*weight).max(0))?;
        parts.push((place, product.div_euclid(sum), product.rem_euclid(sum)));
    }
    let given = parts.iter().try_fold(0_i128, |given, (_, part, _)| given.checked_add(*part))?;
    // Less than one for each weight is left over.
    let left = usize::try_from(total.checked_sub(given)?).ok()?;
    parts.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
    parts.iter_mut().take(left).for_each(|(_, part, _)| *part += 1);
    parts.sort_by_key(|(place, _, _)| *place);
    Some(parts.into_iter().map(|(_, part, _)| part).collect())
}

/// An amount for each of a number of things, rounded half to even to the picodollar; `None` for none of them.
pub fn each(amount: Usd, count: u64) -> Option<Usd> {
    (count > 0).then(|| Usd::from_pico(div_half_even(amount.pico(), i128::from(count))))
}

/// An amount as it is read in a sentence: cents, or a hundredth of one below a dollar.
pub(crate) fn dollars(amount: Usd) -> String {
    let sign = if amount.is_negative() { "-" } else { "" };
    let pico = amount.pico().unsigned_abs();
    let usd = PICO_PER_USD.unsigned_abs();
    if pico >= usd || pico == 0 {
        let cents = pico.saturating_add(usd / 200) / (usd / 100);
        format!("{sign}${}.{:02}", cents / 100, cents % 100)
    } else {
        let parts = pico.saturating_add(usd / 20_000) / (usd / 10_000);
        if parts == 0 {
            format!("{sign}<$0.0001")
        } else {
            format!("{sign}${}.{:04}", parts / 10_000, parts % 10_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_read_well() {
        for (amount, shown) in [
            ("0", "$0.00"),
            ("1234.567", "$1234.57"),
            ("-2.5", "-$2.50"),
            ("0.01234", "$0.0123"),
            ("0.00001", "<$0.0001"),
        ] {
            assert_eq!(dollars(amount.parse().unwrap()), shown);
        }
    }

    #[test]
    fn a_product_beyond_128_bits_is_nearly_right() {
        let big = 10_i128.pow(30);
        let near = mul_div(big, big, big).unwrap();
        assert!((near - big).abs() < big / 1_000_000, "{near}");
        assert_eq!(mul_div(7, 1, 2), Some(4));
        assert_eq!(mul_div(-7, 1, -2), Some(4));
        assert_eq!(mul_div(1, 1, 0), None);
    }

    proptest! {
        #[test]
        fn parts_add_up_and_none_is_further_than_one_from_its_share(
            total in -1_000_000_000_000_i128..1_000_000_000_000,
            weights in prop::collection::vec(0_i128..1_000_000, 1..20),
        ) {
            let sum: i128 = weights.iter().sum();
            match apportion(total, &weights) {
                None => prop_assert_eq!(sum, 0),
                Some(parts) => {
                    prop_assert_eq!(parts.iter().sum::<i128>(), total);
                    for (part, weight) in parts.iter().zip(&weights) {
                        prop_assert!((part * sum - total * weight).abs() <= sum);
                    }
                }
            }
        }
    }
}
