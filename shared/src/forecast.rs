//! What a span of days will cost, from what the days before it cost: the expected sum and its range.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::money::Usd;
use crate::time::Date;

/// The days that a forecast looks back on: four weeks, so that each weekday counts as often.
pub const LOOK_BACK_DAYS: i64 = 28;
/// Fewer days say nothing.
pub const LEAST_DAYS: usize = 3;
/// How it is made, for people.
pub const METHOD: &str = "What was spent so far, and for each day that comes the average of the four weeks before, \
    quiet days included. The range takes the cheaper and the dearer quarter of those days instead of their average.";
/// How long ago the forecasts are made that are held against what came.
const JUDGED_DAYS_AHEAD: [i64; 4] = [1, 7, 14, 28];

/// A forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// If the days that come cost what the days before cost on average.
    #[serde(rename = "expected_usd")]
    pub expected: Usd,
    /// If each costs what the cheaper quarter of them cost at most.
    #[serde(rename = "low_usd")]
    pub low: Usd,
    /// If each costs what the dearer quarter of them cost at least.
    #[serde(rename = "high_usd")]
    pub high: Usd,
}

/// A forecast of days that are over, made from what was known before them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The day that it is made on, before anything of that day is spent.
    pub made_on: String,
    /// The first day that it does not cover.
    pub until: String,
    /// How many days it covers.
    pub days: i64,
    /// What it says.
    #[serde(flatten)]
    pub forecast: Forecast,
    /// What came.
    #[serde(rename = "actual_usd")]
    pub actual: Usd,
    /// By how much it missed, in basis points of what came; absent where nothing came.
    pub missed_basis_points: Option<i64>,
    /// Whether what came lies within its range.
    pub within_range: bool,
}

/// What a day cost on average, at the cheaper and at the dearer quarter, of the days up to `today`. Days that are not in
/// `days` cost nothing once one before them did.
fn a_day(days: &BTreeMap<i64, Usd>, today: i64) -> Option<[i128; 3]> {
    let began = days.iter().find(|(_, spent)| **spent != Usd::ZERO).map(|(day, _)| *day)?;
    let from = began.max(today - LOOK_BACK_DAYS);
    let mut before: Vec<i128> = (from..today).map(|day| spent_on(days, day)).collect();
    if before.len() < LEAST_DAYS {
        return None;
    }
    before.sort_unstable();
    let count = i128::try_from(before.len()).ok()?;
    let mean = before.iter().sum::<i128>() / count;
    let low = *before.get((before.len() - 1) / 4)?;
    let high = *before.get((before.len() * 3 / 4).min(before.len() - 1))?;
    Some([mean, low.min(mean), high.max(mean)])
}

fn spent_on(days: &BTreeMap<i64, Usd>, day: i64) -> i128 {
    days.get(&day).copied().unwrap_or_default().pico()
}

/// The month's end as forecast on `today`, whose own spending counts as its share of the day that it will be.
pub fn forecast(days: &BTreeMap<i64, Usd>, today: Date) -> Option<Forecast> {
    let (now, first) = (today.days(), today.first_of_month().days());
    let end = today.first_of_next_month().days();
    let of_a_day = a_day(days, now)?;
    let so_far: i128 = (first..now).map(|day| spent_on(days, day)).sum();
    let rest = i128::from(end - now - 1);
    // Today will cost at least what it has cost.
    let [expected, low, high] = of_a_day.map(|day| {
        Usd::from_pico(so_far + spent_on(days, now).max(day) + rest * day).round_to_nanos()
    });
    Some(Forecast { expected, low, high })
}

/// The forecast of so many days up to yesterday, made on the first of them, against what came. `None` where there were
/// too few days before it.
pub fn judged(days: &BTreeMap<i64, Usd>, today: Date, ahead: i64) -> Option<Judged> {
    let (from, until) = (today.days() - ahead, today.days());
    let [expected, low, high] =
        a_day(days, from)?.map(|day| Usd::from_pico(day * i128::from(ahead)).round_to_nanos());
    let actual: i128 = (from..until).map(|day| spent_on(days, day)).sum();
    let missed = (expected.pico() - actual).abs().checked_mul(10_000)?;
    let missed = (actual > 0).then(|| crate::money::div_half_even(missed, actual));
    Some(Judged {
        made_on: Date::from_days(from).to_string(),
        until: today.to_string(),
        days: ahead,
        forecast: Forecast { expected, low, high },
        actual: Usd::from_pico(actual),
        missed_basis_points: missed.and_then(|points| i64::try_from(points).ok()),
        within_range: (low.pico()..=high.pico()).contains(&actual),
    })
}

/// All forecasts that are held against what came, the newest first.
pub fn record(days: &BTreeMap<i64, Usd>, today: Date) -> Vec<Judged> {
    JUDGED_DAYS_AHEAD.iter().filter_map(|ahead| judged(days, today, *ahead)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(from: &str, until: &str, usd: &str) -> BTreeMap<i64, Usd> {
        let day = |text| Date::parse(text).unwrap().days();
        (day(from)..=day(until)).map(|day| (day, usd.parse().unwrap())).collect()
    }

    fn today() -> Date {
        Date::parse("2026-11-20").unwrap()
    }

    #[test]
    fn steady_spending_goes_on() {
        let month: Usd = "60".parse().unwrap();
        let all = Forecast { expected: month, low: month, high: month };
        assert_eq!(forecast(&steady("2026-10-01", "2026-11-19", "2"), today()), Some(all));
        // Today has cost more than a day does: that is known.
        let mut days = steady("2026-10-01", "2026-11-19", "2");
        days.insert(today().days(), "5".parse().unwrap());
        assert_eq!(forecast(&days, today()).unwrap().expected, "63".parse().unwrap());
    }

    #[test]
    fn a_few_days_say_nothing_and_quiet_days_count() {
        assert_eq!(forecast(&steady("2026-11-18", "2026-11-20", "2"), today()), None);
        assert_eq!(forecast(&BTreeMap::new(), today()), None);
        // One day of 4 USD, then nothing for three: 1 a day on average.
        let days = steady("2026-11-16", "2026-11-16", "4");
        let found = forecast(&days, today()).unwrap();
        assert_eq!(found.expected, "15".parse().unwrap());
        assert_eq!(found.low, "4".parse().unwrap());
    }

    #[test]
    fn what_came_is_held_against_what_was_forecast_then() {
        // Two dollars a day, and four in the last week: the week's forecast of then said 14, and 28 came.
        let mut days = steady("2026-10-01", "2026-11-12", "2");
        days.extend(steady("2026-11-13", "2026-11-19", "4"));
        let week = judged(&days, today(), 7).unwrap();
        assert_eq!((week.made_on.as_str(), week.until.as_str()), ("2026-11-13", "2026-11-20"));
        assert_eq!(
            (week.forecast.expected, week.actual),
            ("14".parse().unwrap(), "28".parse().unwrap())
        );
        assert_eq!((week.missed_basis_points, week.within_range), (Some(5_000), false));
        let even = steady("2026-09-01", "2026-11-19", "2");
        let all = record(&even, today());
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|it| it.missed_basis_points == Some(0) && it.within_range));
        assert_eq!(record(&steady("2026-11-15", "2026-11-19", "2"), today()).len(), 1);
    }

    #[test]
    fn nothing_that_came_is_no_miss_in_percent() {
        let mut days = steady("2026-10-01", "2026-10-31", "2");
        days.insert(today().days(), "9".parse().unwrap());
        let week = judged(&days, today(), 7).unwrap();
        assert_eq!((week.missed_basis_points, week.actual), (None, Usd::ZERO));
    }
}
