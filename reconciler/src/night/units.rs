//! The words of bills for tiers and units.

use crate::bill::{BillLine, Meter};

/// A service tier as the price book names it.
pub(super) fn tier_name(tier: &str) -> &str {
    match tier {
        "" | "default" | "standard" | "auto" | "on_demand" | "ON_DEMAND" => "standard",
        "fast" | "ON_DEMAND_PRIORITY" | "priority_on_demand" => "priority",
        "ON_DEMAND_FLEX" => "flex",
        other => other,
    }
}

/// How many of a meter's units one unit of a bill is. `None` when it is no unit of that meter.
fn unit_factor(unit: &str, meter: Meter) -> Option<i128> {
    let unit = unit.trim().to_ascii_lowercase();
    let (count, word) = match unit.split_once(' ') {
        Some((count, word)) if count.starts_with(|c: char| c.is_ascii_digit()) => (count, word),
        _ => ("1", unit.as_str()),
    };
    let digits = count.replace([',', '_'], "");
    let (digits, times) = match (digits.strip_suffix('k'), digits.strip_suffix('m')) {
        (Some(digits), _) => (digits.to_owned(), 1_000),
        (_, Some(digits)) => (digits.to_owned(), 1_000_000),
        _ => (digits, 1),
    };
    let factor = digits.parse::<u64>().ok().filter(|factor| *factor > 0)?;
    let calls = [
        "call",
        "calls",
        "count",
        "queries",
        "query",
        "request",
        "requests",
        "search",
        "search unit",
        "search units",
        "searches",
        "second",
        "seconds",
        "unit",
        "units",
    ];
    let fits = match meter {
        Meter::Whole => false,
        Meter::Calls => calls.contains(&word),
        Meter::Input | Meter::CacheRead | Meter::CacheWrite | Meter::Output => {
            matches!(word, "token" | "tokens")
        }
    };
    fits.then_some(i128::from(factor) * times)
}

/// What a line says was used, in units of its meter.
pub(super) fn line_quantity(line: &BillLine) -> Option<i128> {
    let factor = unit_factor(line.unit.as_deref()?, line.meter)?;
    line.quantity?.pico().checked_mul(factor).filter(|quantity| *quantity >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_or_not_but_never_guessed() {
        for (unit, meter, factor) in [
            ("Tokens", Meter::Input, Some(1)),
            ("1000 Tokens", Meter::Output, Some(1000)),
            ("1K tokens", Meter::CacheRead, Some(1000)),
            ("1,000,000 tokens", Meter::Input, Some(1_000_000)),
            ("1M Tokens", Meter::CacheWrite, Some(1_000_000)),
            ("100000 token", Meter::Input, Some(100_000)),
            ("Requests", Meter::Calls, Some(1)),
            ("1000 Searches", Meter::Calls, Some(1000)),
            ("Search Units", Meter::Calls, Some(1)),
            ("Requests", Meter::Input, None),
            ("Tokens", Meter::Calls, None),
            ("Tokens", Meter::Whole, None),
            ("0 Tokens", Meter::Input, None),
            ("1.5 Tokens", Meter::Input, None),
            ("1B Tokens", Meter::Input, None),
            ("GB-Month", Meter::Calls, None),
            ("", Meter::Input, None),
        ] {
            assert_eq!(unit_factor(unit, meter), factor, "{unit} {meter:?}");
        }
    }

    #[test]
    fn tiers_have_one_name() {
        for (tier, name) in [
            ("default", "standard"),
            ("", "standard"),
            ("on_demand", "standard"),
            ("batch", "batch"),
        ] {
            assert_eq!(tier_name(tier), name);
        }
    }
}
