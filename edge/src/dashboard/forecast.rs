//! What a month will have cost when it ends, from what its days cost so far.

use std::collections::BTreeMap;

use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

/// The days that a forecast looks back on: four weeks, so that each weekday counts as often.
const LOOK_BACK_DAYS: i64 = 28;
/// Fewer days say nothing.
const LEAST_DAYS: usize = 3;

/// A month's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forecast {
    /// If the days that come cost what the days before cost on average.
    pub(super) expected: Usd,
    /// If each costs what the cheaper quarter of them cost at most.
    pub(super) low: Usd,
    /// If each costs what the dearer quarter of them cost at least.
    pub(super) high: Usd,
}

/// The forecast made on `today`, whose own spending counts as its share of the day that it will be. Days that are not
/// in `days` cost nothing once one before them did.
pub(super) fn forecast(days: &BTreeMap<i64, Usd>, today: Date) -> Option<Forecast> {
    let (now, first) = (today.days(), today.first_of_month().days());
    let end = today.first_of_next_month().days();
    let began = days.iter().find(|(_, spent)| **spent != Usd::ZERO).map(|(day, _)| *day)?;
    let from = began.max(now - LOOK_BACK_DAYS);
    let spent = |day: i64| days.get(&day).copied().unwrap_or_default().pico();
    let mut before: Vec<i128> = (from..now).map(spent).collect();
    if before.len() < LEAST_DAYS {
        return None;
    }
    before.sort_unstable();
    let count = i128::try_from(before.len()).ok()?;
    let mean = before.iter().sum::<i128>() / count;
    let low = *before.get((before.len() - 1) / 4)?;
    let high = *before.get((before.len() * 3 / 4).min(before.len() - 1))?;
    let so_far: i128 = (first..now).map(spent).sum();
    let rest = i128::from(end - now - 1);
    // Today will cost at least what it has cost.
    let total = |day: i128| so_far + spent(now).max(day) + rest * day;
    let month = |day: i128| Usd::from_pico(total(day)).round_to_nanos();
    Some(Forecast { expected: month(mean), low: month(low.min(mean)), high: month(high.max(mean)) })
}

/// By how much the forecast made in the middle of the month before missed what that month cost, in basis points.
pub(super) fn past_error(days: &BTreeMap<i64, Usd>, today: Date) -> Option<i64> {
    let last = Date::from_days(today.first_of_month().days() - 1);
    let (first, end) = (last.first_of_month(), today.first_of_month().days());
    let made_on = Date { day: 15, ..first };
    let known: BTreeMap<i64, Usd> =
        days.range(..made_on.days()).map(|(day, spent)| (*day, *spent)).collect();
    let expected = forecast(&known, made_on)?.expected;
    let actual: i128 = days.range(first.days()..end).map(|(_, spent)| spent.pico()).sum();
    super::figures::share((expected.pico() - actual).abs(), actual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(from: &str, until: &str, usd: &str) -> BTreeMap<i64, Usd> {
        let day = |text| Date::parse(text).unwrap().days();
        (day(from)..=day(until)).map(|day| (day, usd.parse().unwrap())).collect()
    }

    #[test]
    fn steady_spending_goes_on() {
        let today = Date::parse("2026-11-20").unwrap();
        let month: Usd = "60".parse().unwrap();
        let all = Forecast { expected: month, low: month, high: month };
        assert_eq!(forecast(&steady("2026-10-01", "2026-11-19", "2"), today), Some(all));
        // Today has cost more than a day does: that is known.
        let mut days = steady("2026-10-01", "2026-11-19", "2");
        days.insert(today.days(), "5".parse().unwrap());
        assert_eq!(forecast(&days, today).unwrap().expected, "63".parse().unwrap());
        assert_eq!(past_error(&steady("2026-09-01", "2026-10-31", "2"), today), Some(0));
    }

    #[test]
    fn a_few_days_say_nothing_and_quiet_days_count() {
        let today = Date::parse("2026-11-20").unwrap();
        assert_eq!(forecast(&steady("2026-11-18", "2026-11-20", "2"), today), None);
        assert_eq!(forecast(&BTreeMap::new(), today), None);
        // One day of 4 USD, then nothing for three: 1 a day on average.
        let days = steady("2026-11-16", "2026-11-16", "4");
        let found = forecast(&days, today).unwrap();
        assert_eq!(found.expected, "15".parse().unwrap());
        assert_eq!(found.low, "4".parse().unwrap());
    }
}
