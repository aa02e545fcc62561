//! Money to the last digit: picodollars (1e-12 USD) and their decimal text.

use serde::Deserialize;

const PLACES: u32 = 12;

/// Picodollars. Decimal text in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Usd(pub(crate) i128);

impl TryFrom<String> for Usd {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an amount: decimal text in USD, at most 12 places");
        let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |rest| (-1, rest));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(part) || part.len() > 12 || whole.len() > 15 {
            return Err(wrong());
        }
        format!("{whole}{part:0<12}")
            .parse::<i128>()
            .map(|pico| Self(sign * pico))
            .map_err(|_| wrong())
    }
}

/// As dollars, without zeros at the end.
pub(crate) fn dollars(pico: i128) -> String {
    decimal(pico, PLACES)
}

/// As cents, without zeros at the end.
pub(crate) fn cents(pico: i128) -> String {
    decimal(pico, PLACES - 2)
}

fn decimal(count: i128, places: u32) -> String {
    let one = 10_u128.pow(places);
    let sign = if count < 0 { "-" } else { "" };
    let (whole, rest) = (count.unsigned_abs() / one, count.unsigned_abs() % one);
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{rest:0width$}", width = usize::try_from(places).unwrap_or(12));
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

/// Rounded half to even, to so many places of a dollar.
pub(crate) fn round(pico: i128, places: u32) -> i128 {
    let step = 10_i128.pow(PLACES.saturating_sub(places));
    divide(pico, step) * step
}

/// A quotient rounded half to even. The divisor is positive.
pub(crate) fn divide(count: i128, by: i128) -> i128 {
    let (quotient, rest) = (count.div_euclid(by), count.rem_euclid(by));
    let up = rest * 2 > by || (rest * 2 == by && quotient % 2 != 0);
    quotient + i128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_picodollars_are_the_same_money() {
        for (text, pico) in
            [("0", 0), ("0.06", 60_000_000_000), ("-12.000000000001", -12_000_000_000_001)]
        {
            assert_eq!(Usd::try_from(text.to_owned()), Ok(Usd(pico)));
            assert_eq!(dollars(pico), text);
        }
        assert_eq!(cents(1_237_891_200_000), "123.78912");
        for wrong in ["", ".5", "1.", "1e3", "+1", "0.0000000000001", "1,5"] {
            assert!(Usd::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn halves_go_to_the_even_side() {
        let cent = 10_000_000_000;
        for (count, rounded) in [(5, 0), (15, 2), (25, 2), (-5, 0), (-15, -2), (26, 3), (-26, -3)] {
            assert_eq!(round(count * cent / 10, 2), rounded * cent, "{count} tenths of a cent");
        }
        assert_eq!(round(123_456_000_000, 4), 123_500_000_000);
    }
}
