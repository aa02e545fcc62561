//! How numbers are shown. What is shown is rounded; the exact value always goes with it.

use tallygate_shared::money::Usd;

const PICO_PER_CENT: i128 = 10_000_000_000;
const PICO_PER_USD: i128 = 100 * PICO_PER_CENT;

/// A number for people, and the number itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figure {
    /// Rounded, with separators.
    pub(super) shown: String,
    /// Exact, as in the API.
    pub(super) exact: String,
}

/// An amount: cents from a dollar on, four decimals below it.
pub(super) fn money(amount: Usd) -> Figure {
    let sign = if amount.is_negative() { "-" } else { "" };
    let pico = amount.pico().unsigned_abs().cast_signed();
    let shown = if pico == 0 {
        "$0.00".to_owned()
    } else if pico < PICO_PER_CENT / 100 {
        format!("{sign}<$0.0001")
    } else if pico < PICO_PER_USD {
        let parts = nearest(pico, PICO_PER_CENT / 100);
        format!("{sign}${}.{:04}", parts / 10_000, parts % 10_000)
    } else {
        let cents = nearest(pico, PICO_PER_CENT);
        format!("{sign}${}.{:02}", grouped(&(cents / 100).to_string()), cents % 100)
    };
    Figure { shown, exact: amount.to_string() }
}

/// A count, with separators.
pub(super) fn count(count: u64) -> Figure {
    let exact = count.to_string();
    Figure { shown: grouped(&exact), exact }
}

/// A size: `512 B`, `12.3 kB`, `90.0 MB`.
pub(super) fn bytes(bytes: u64) -> Figure {
    let size = i128::from(bytes);
    let in_units = |unit: i128, name: &str| {
        let tenths = nearest(size, unit / 10);
        format!("{}.{} {name}", grouped(&(tenths / 10).to_string()), tenths % 10)
    };
    let shown = match bytes {
        0..1_000 => format!("{bytes} B"),
        // What rounds to a thousand of a unit is one of the next.
        1_000..999_950 => in_units(1_000, "kB"),
        _ => in_units(1_000_000, "MB"),
    };
    Figure { shown, exact: bytes.to_string() }
}

/// A share of a whole in basis points; `None` of nothing.
pub(super) fn share(part: i128, whole: i128) -> Option<i64> {
    (whole > 0).then(|| nearest(part.checked_mul(10_000)?, whole).try_into().ok()).flatten()
}

/// Basis points as per cent: `12.5 %`.
pub(super) fn percent(basis_points: i64) -> String {
    let sign = if basis_points < 0 { "-" } else { "" };
    let tenths = nearest(i128::from(basis_points.unsigned_abs()), 10);
    format!("{sign}{}.{} %", grouped(&(tenths / 10).to_string()), tenths % 10)
}

/// An amount for each of a number of things; `None` for none of them.
pub(super) fn each(amount: Usd, count: u64) -> Option<Usd> {
    let count = i128::from(count);
    (count > 0).then(|| Usd::from_pico(nearest(amount.pico(), count)))
}

/// An amount for each million of tokens.
pub(super) fn each_million(amount: Usd, tokens: u64) -> Option<Usd> {
    let pico = amount.pico().checked_mul(1_000_000)?;
    each(Usd::from_pico(pico), tokens)
}

/// `2026-11-20T10:00:00.000Z` as `2026-11-20 10:00`; anything else as it is.
pub(super) fn minute(at: &str) -> String {
    match (at.get(..10), at.get(10..11), at.get(11..16)) {
        (Some(day), Some("T"), Some(time)) => format!("{day} {time}"),
        _ => at.to_owned(),
    }
}

/// Division rounded half up in magnitude, for what is shown.
fn nearest(value: i128, divisor: i128) -> i128 {
    let half = divisor / 2;
    if value < 0 { (value - half) / divisor } else { (value + half) / divisor }
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rounded_for_the_eye_and_exact_beside_it() {
        for (exact, shown) in [
            ("0", "$0.00"),
            ("0.000000001", "<$0.0001"),
            ("0.01234", "$0.0123"),
            ("0.99996", "$1.0000"),
            ("1", "$1.00"),
            ("1234567.895", "$1,234,567.90"),
            ("-12.344", "-$12.34"),
            ("-0.00001", "-<$0.0001"),
        ] {
            let figure = money(exact.parse().unwrap());
            assert_eq!((figure.shown.as_str(), figure.exact.as_str()), (shown, exact));
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        for (exact, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (12_349, "12.3 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (90_000_000, "90.0 MB"),
            (1_234_567_890, "1,234.6 MB"),
        ] {
            let figure = bytes(exact);
            assert_eq!((figure.shown.as_str(), figure.exact), (shown, exact.to_string()));
        }
    }

    #[test]
    fn shares_and_averages_of_nothing_are_not_numbers() {
        assert_eq!(share(1, 0), None);
        assert_eq!(share(1, 3), Some(3_333));
        assert_eq!(percent(3_333), "33.3 %");
        assert_eq!(percent(-5), "-0.1 %");
        assert_eq!(each(Usd::from_nanos(10), 0), None);
        let million = each_million("0.5".parse().unwrap(), 250_000);
        assert_eq!(million, "2".parse().ok());
    }
}
