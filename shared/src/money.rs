//! Money: exact integers of US dollars. Owns parsing, printing, rounding; never knows prices or tokens.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Picodollars in one US dollar.
pub const PICO_PER_USD: i128 = 1_000_000_000_000;
/// Picodollars in one nanodollar.
pub const PICO_PER_NANO: i128 = 1_000;
/// Decimal places that [`Usd`] can hold.
const DECIMALS: usize = 12;

/// An amount of US dollars, in picodollars (1 USD = `1_000_000_000_000`), in an `i128`: no sum of bills overflows it.
///
/// On the wire it is a decimal **string**: a JavaScript number is exact only to 2^53. Arithmetic is checked.
///
/// ```
/// use tallygate_shared::money::Usd;
/// let price: Usd = "0.0375".parse().unwrap();
/// assert_eq!(price.pico(), 37_500_000_000);
/// assert_eq!(price.to_string(), "0.0375");
/// assert_eq!(Usd::from_pico(i128::MAX).checked_add(Usd::from_pico(1)), None);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(
    feature = "openapi",
    derive(schemars::JsonSchema),
    schemars(description = "US dollars as decimal text: \"12.50\". Never a JSON number.")
)]
#[serde(try_from = "String", into = "String")]
pub struct Usd(i128);

/// Why a text is no amount of money. The text itself is not repeated: it comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a plain decimal number.
    #[error("is not a decimal number such as \"12.50\"")]
    NotDecimal,
    /// Finer than a picodollar.
    #[error("has more than 12 decimal places")]
    TooPrecise,
    /// Too large to be money.
    #[error("is too large")]
    TooLarge,
}

impl Usd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// An amount from picodollars.
    pub const fn from_pico(pico: i128) -> Self {
        Self(pico)
    }

    /// An amount from nanodollars (1e-9 USD), the unit of stored estimates.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos as i128 * PICO_PER_NANO)
    }

    /// The amount in picodollars.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// The amount in whole nanodollars, `None` when it is finer than that or does not fit 64 bits.
    pub fn nanos(self) -> Option<i64> {
        (self.0 % PICO_PER_NANO == 0).then(|| i64::try_from(self.0 / PICO_PER_NANO).ok()).flatten()
    }

    /// The sum, `None` on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, `None` on overflow.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// The sum, held at the largest amount when it does not fit: for displays and comparisons, never for books.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, never below zero: "what is left".
    pub fn remaining_after(self, taken: Self) -> Self {
        Self(self.0.saturating_sub(taken.0).max(0))
    }

    /// This amount rounded half to even to the nanodollar.
    pub const fn round_to_nanos(self) -> Self {
        Self(div_half_even(self.0, PICO_PER_NANO) * PICO_PER_NANO)
    }

    /// This amount rounded down to the nanodollar, towards minus infinity.
    pub const fn round_down_to_nanos(self) -> Self {
        Self(self.0.div_euclid(PICO_PER_NANO) * PICO_PER_NANO)
    }

    /// True for amounts below zero (credits, refunds).
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// `dividend / divisor` rounded half to even. `divisor` must be positive.
pub const fn div_half_even(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend.div_euclid(divisor);
    let rest = dividend.rem_euclid(divisor);
    // `rest` is in 0..divisor, so comparing against the other half cannot overflow.
    let other_half = divisor - rest;
    if rest > other_half || (rest == other_half && quotient % 2 != 0) {
        quotient + 1
    } else {
        quotient
    }
}

/// Parses a decimal text exactly into units of `10^-decimals`. Accepts a sign and an exponent, as JSON numbers have.
pub fn parse_decimal(text: &str, decimals: usize) -> Result<i128, MoneyError> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.parse::<i32>().map_err(|_| MoneyError::NotDecimal)?)
        }
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(MoneyError::NotDecimal);
    }
    if digits.ends_with('.') {
        return Err(MoneyError::NotDecimal);
    }
    let fraction = fraction.trim_end_matches('0');
    let joined = format!("{whole}{fraction}");
    let significant = joined.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    if significant.len() > 38 {
        return Err(MoneyError::TooLarge);
    }
    let value: i128 = significant.parse().map_err(|_| MoneyError::TooLarge)?;
    let fraction_len = i64::try_from(fraction.len()).map_err(|_| MoneyError::TooPrecise)?;
    let decimals = i64::try_from(decimals).map_err(|_| MoneyError::TooPrecise)?;
    let shift = decimals - fraction_len + i64::from(exponent);
    let scaled = if shift >= 0 {
        let power = u32::try_from(shift).ok().and_then(|s| 10_i128.checked_pow(s));
        power.and_then(|p| value.checked_mul(p)).ok_or(MoneyError::TooLarge)?
    } else {
        let power = u32::try_from(-shift).ok().and_then(|s| 10_i128.checked_pow(s));
        let power = power.ok_or(MoneyError::TooPrecise)?;
        if value % power != 0 {
            return Err(MoneyError::TooPrecise);
        }
        value / power
    };
    Ok(if negative { -scaled } else { scaled })
}

impl FromStr for Usd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse_decimal(text, DECIMALS).map(Self)
    }
}

impl TryFrom<String> for Usd {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Usd> for String {
    fn from(usd: Usd) -> Self {
        usd.to_string()
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let per_usd = PICO_PER_USD.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) = (magnitude / per_usd, magnitude % per_usd);
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:012}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: Result<i128, MoneyError>) {
        assert_eq!(text.parse::<Usd>().map(Usd::pico), expect, "{text}");
    }

    #[test]
    fn decimal_texts_are_read_exactly() {
        check("1", Ok(PICO_PER_USD));
        check("0.000000000001", Ok(1));
        check("1.10", Ok(1_100_000_000_000));
        check("-2.5", Ok(-2_500_000_000_000));
        check("1.5e-7", Ok(150_000));
        check("2E3", Ok(2_000 * PICO_PER_USD));
        check("0e400", Ok(0));
        check("0.0000000000001", Err(MoneyError::TooPrecise));
        check("1e-400", Err(MoneyError::TooPrecise));
        check("1e400", Err(MoneyError::TooLarge));
        for bad in ["", ".", "1.", ".5", "abc", "1,5", "0x1", "NaN", "1e", "--1", "1 ", "١"] {
            check(bad, Err(MoneyError::NotDecimal));
        }
    }

    #[test]
    fn halves_round_to_even() {
        for (pico, nanos) in
            [(500, 0), (1500, 2), (2500, 2), (501, 1), (-500, 0), (-1500, -2), (-501, -1)]
        {
            assert_eq!(Usd::from_pico(pico).round_to_nanos(), Usd::from_nanos(nanos), "{pico}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trip_never_changes_an_amount(pico in any::<i64>()) {
            let usd = Usd::from_pico(i128::from(pico));
            prop_assert_eq!(usd.to_string().parse::<Usd>(), Ok(usd));
        }

        #[test]
        fn rounding_never_moves_an_amount_by_more_than_half_a_nano(pico in any::<i64>()) {
            let usd = Usd::from_pico(i128::from(pico));
            prop_assert!((usd.round_to_nanos().pico() - usd.pico()).abs() <= PICO_PER_NANO / 2);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Usd>();
        }
    }
}
