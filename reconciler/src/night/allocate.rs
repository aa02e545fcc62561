//! Dividing an amount among weights so that the parts add up to it, to the last digit: largest remainder.
//!
//! Every part is its exact share rounded down, and what is left over goes, one smallest unit each, to the parts that
//! rounding down took most from; among equals to those that come first. No part is further than one smallest unit from
//! its exact share.

use crate::bill::Quantity;

/// Divides a quantity as money is divided, in whole units where the total is whole: tokens stay tokens.
pub fn allocate_quantity(total: Quantity, weights: &[u128]) -> Option<Vec<Quantity>> {
    let grain = grain(total.pico());
    let parts = divide(total.pico() / grain, weights)?;
    // A part is never larger than the total, so neither is its product with the grain.
    Some(parts.into_iter().map(|part| Quantity::from_pico(part.saturating_mul(grain))).collect())
}

/// The unit a quantity is divided in: 1 where it is whole, else 1e-12.
pub(super) fn grain(pico: i128) -> i128 {
    if pico % Quantity::ONE == 0 { Quantity::ONE } else { 1 }
}

/// Divides an integer in proportion to `weights`. `None` when no weight is above zero: then nobody can be given anything.
pub(super) fn divide(total: i128, weights: &[u128]) -> Option<Vec<i128>> {
    let scaled = fitting(weights);
    let weights = scaled.as_deref().unwrap_or(weights);
    let mut plan = Apportion::new(total, weights.iter().copied().fold(0, u128::saturating_add))?;
    for weight in weights {
        plan.see(*weight);
    }
    let mut shares = plan.finish();
    Some(weights.iter().map(|weight| shares.next(*weight)).collect())
}

/// Weights whose sum is beyond 128 bits, made smaller alike until it fits. `None` when they fit as they are.
fn fitting(weights: &[u128]) -> Option<Vec<u128>> {
    let sums = |by: u32| {
        weights.iter().try_fold(0_u128, |sum, weight| sum.checked_add(weight >> by)).is_some()
    };
    if sums(0) {
        return None;
    }
    let by = (1..64).find(|by| sums(*by)).unwrap_or(64);
    Some(weights.iter().map(|weight| weight >> by).collect())
}

/// A division in the making: shown every weight once, it learns which remainders are rounded up. It lets weights come
/// from a stream that is read twice; what it keeps is one number for each weight.
pub(super) struct Apportion {
    total: u128,
    negative: bool,
    sum: u128,
    given: u128,
    remainders: Vec<u128>,
}

impl Apportion {
    /// A division of `total` among weights that will add up to `sum`. `None` when `sum` is 0.
    pub(super) fn new(total: i128, sum: u128) -> Option<Self> {
        (sum > 0).then(|| Self {
            total: total.unsigned_abs(),
            negative: total < 0,
            sum,
            given: 0,
            remainders: Vec::new(),
        })
    }

    /// Takes note of the next weight.
    pub(super) fn see(&mut self, weight: u128) {
        // Nothing to round: every share is 0 or the weight itself.
        if self.total == 0 || self.total == self.sum {
            return;
        }
        let (share, rest) = mul_div(self.total, weight, self.sum);
        self.given = self.given.saturating_add(share);
        if rest > 0 {
            self.remainders.push(rest);
        }
    }

    /// Settles who is rounded up.
    pub(super) fn finish(mut self) -> Shares {
        let exact = self.total == 0 || self.total == self.sum;
        let left = if exact { 0 } else { self.total.saturating_sub(self.given) };
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.remainders.len());
        let (mut cut, mut ties) = (u128::MAX, 0);
        if count > 0 {
            let (above, at, _) = self.remainders.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
            cut = *at;
            ties = count - above.iter().filter(|rest| **rest > cut).count();
        }
        Shares { total: self.total, negative: self.negative, sum: self.sum, cut, ties }
    }
}

/// A settled division: shown the same weights in the same order, it says each one's part.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    total: u128,
    negative: bool,
    sum: u128,
    /// Remainders above this are rounded up, and the first `ties` that equal it.
    cut: u128,
    ties: usize,
}

impl Shares {
    /// The part of the next weight.
    pub(super) fn next(&mut self, weight: u128) -> i128 {
        let (mut share, rest) = if self.total == self.sum {
            (weight, 0)
        } else {
            mul_div(self.total, weight, self.sum)
        };
        if rest > 0 && rest > self.cut {
            share = share.saturating_add(1);
        } else if rest > 0 && rest == self.cut && self.ties > 0 {
            self.ties -= 1;
            share = share.saturating_add(1);
        }
        // A share is never larger than the total, which came from an i128; only i128::MIN itself has no positive twin.
        match (self.negative, i128::try_from(share)) {
            (false, share) => share.unwrap_or(i128::MAX),
            (true, Ok(share)) => -share,
            (true, Err(_)) => i128::MIN,
        }
    }
}

/// `a * b / c` and its remainder, through 256 bits. `c` is above 0 and the quotient must fit 128 bits, as it does for
/// `b <= c`; beyond that it is held at the largest number.
pub(super) fn mul_div(a: u128, b: u128, c: u128) -> (u128, u128) {
    if let Some(product) = a.checked_mul(b) {
        return (product / c, product % c);
    }
    let (high, low) = wide_mul(a, b);
    if high >= c {
        return (u128::MAX, 0);
    }
    // Long division, a bit at a time: `rest` stays below `c`, its 129th bit is `carry`.
    let (mut rest, mut quotient) = (high, 0_u128);
    for bit in (0..128).rev() {
        let carry = rest >> 127 == 1;
        rest = (rest << 1) | ((low >> bit) & 1);
        quotient <<= 1;
        if carry || rest >= c {
            rest = rest.wrapping_sub(c);
            quotient |= 1;
        }
    }
    (quotient, rest)
}

/// The 256-bit product, as its high and low halves.
fn wide_mul(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let bottom = a0 * b0;
    let cross = a1 * b0 + (bottom >> 64);
    let middle = a0 * b1 + (cross & LOW);
    let high = a1 * b1 + (cross >> 64) + (middle >> 64);
    (high, (middle << 64) | (bottom & LOW))
}

/// `a * b / c` rounded half to even, `None` when it does not fit. `c` is above 0.
pub(super) fn scale_half_even(a: i128, b: i128, c: u128) -> Option<i128> {
    let (high, _) = wide_mul(a.unsigned_abs(), b.unsigned_abs());
    if high >= c {
        return None;
    }
    let (quotient, rest) = mul_div(a.unsigned_abs(), b.unsigned_abs(), c);
    let other_half = c - rest;
    let up = rest > other_half || (rest == other_half && quotient % 2 == 1);
    let size = i128::try_from(quotient.checked_add(u128::from(up))?).ok()?;
    Some(if (a < 0) == (b < 0) { size } else { -size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(total: i128, weights: &[u128]) -> Vec<i128> {
        divide(total, weights).unwrap()
    }

    #[test]
    fn the_largest_remainders_are_rounded_up_and_ties_go_by_position() {
        assert_eq!(parts(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(parts(-10, &[1, 1, 1]), [-4, -3, -3]);
        assert_eq!(parts(11, &[1, 1, 1]), [4, 4, 3]);
        assert_eq!(parts(100, &[41, 34, 25]), [41, 34, 25]);
        // 0.5, 3.3, 1.2: 3 + 1 are given, and the one left goes to the half.
        assert_eq!(parts(5, &[10, 66, 24]), [1, 3, 1]);
        assert_eq!(parts(7, &[0, 3, 0]), [0, 7, 0]);
        assert_eq!(parts(0, &[2, 3]), [0, 0]);
    }

    #[test]
    fn nobody_to_give_to_is_said() {
        assert_eq!(divide(5, &[]), None);
        assert_eq!(divide(5, &[0, 0]), None);
    }

    #[test]
    fn the_largest_numbers_divide() {
        for total in [i128::MAX, i128::MIN, i128::MIN + 1] {
            for weights in [&[u128::MAX, u128::MAX, 1][..], &[u128::MAX - 1, 1], &[1, 1, 1]] {
                assert_eq!(
                    parts(total, weights).iter().sum::<i128>(),
                    total,
                    "{total} {weights:?}"
                );
            }
        }
    }

    #[test]
    fn whole_quantities_stay_whole() {
        let tokens = allocate_quantity(Quantity::whole(10), &[1, 1, 1]).unwrap();
        assert_eq!(tokens, [4, 3, 3].map(Quantity::whole));
        let half = allocate_quantity(Quantity::parse("0.5").unwrap(), &[1, 1]).unwrap();
        assert_eq!(half, [Quantity::parse("0.25").unwrap(); 2]);
    }

    #[test]
    fn scaling_rounds_half_to_even_once() {
        assert_eq!(scale_half_even(1, 1, 2), Some(0));
        assert_eq!(scale_half_even(3, 1, 2), Some(2));
        assert_eq!(scale_half_even(-3, 1, 2), Some(-2));
        assert_eq!(scale_half_even(5, -1, 3), Some(-2));
        assert_eq!(scale_half_even(i128::MAX, 10, 10), Some(i128::MAX));
        assert_eq!(scale_half_even(i128::MAX, 10, 9), None);
    }

    proptest! {
        #[test]
        fn wide_products_divide_as_narrow_ones_do(a in any::<u64>(), b in any::<u64>(), c in 1..u128::MAX) {
            let product = u128::from(a) * u128::from(b);
            let (high, low) = wide_mul(u128::from(a), u128::from(b));
            prop_assert_eq!((high, low), (0, product));
            prop_assert_eq!(mul_div(u128::from(a), u128::from(b), c), (product / c, product % c));
        }

        #[test]
        fn a_wide_quotient_times_its_divisor_and_the_rest_is_the_product(
            a in any::<u128>(), b in any::<u128>(), c in 1..u128::MAX,
        ) {
            let b = b % c;
            let (quotient, rest) = mul_div(a, b, c);
            prop_assert!(rest < c);
            let (high, low) = wide_mul(quotient, c);
            let (low, carry) = low.overflowing_add(rest);
            prop_assert_eq!((high + u128::from(carry), low), wide_mul(a, b));
        }

        #[test]
        fn parts_add_up_and_are_within_one_of_their_share(
            total in any::<i64>(), weights in prop::collection::vec(0..u64::MAX, 1..40),
        ) {
            let wide: Vec<u128> = weights.iter().map(|w| u128::from(*w)).collect();
            let sum: u128 = wide.iter().sum();
            prop_assume!(sum > 0);
            let got = parts(i128::from(total), &wide);
            prop_assert_eq!(got.iter().sum::<i128>(), i128::from(total));
            for (part, weight) in got.iter().zip(&wide) {
                let share = u128::from(total.unsigned_abs()) * weight;
                let size = part.unsigned_abs();
                prop_assert!(size == share / sum || size == share / sum + 1, "{part} of {weight}");
                prop_assert!(*weight > 0 || size == 0);
            }
        }

        #[test]
        fn totals_of_any_size_add_up(
            total in any::<i128>(), weights in prop::collection::vec(any::<u128>(), 1..20),
        ) {
            prop_assume!(weights.iter().any(|w| *w > u128::from(u64::MAX)));
            prop_assert_eq!(parts(total, &weights).iter().sum::<i128>(), total);
        }
    }
}
