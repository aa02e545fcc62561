//! A budget proposed from what was spent: 110 to 120 % of a usual month, with the figures that say why.
//!
//! A usual month must not be made by one bad day, and many scopes rest at weekends. So the measure is the median of
//! the days that have spending; a day far above it counts as that limit, and is named; and a usual month is the mean
//! of all days, those without spending too, times the days of a mean month.
//!
//! The headroom follows the spread: 110 % where days are alike, one point more for each 5 % that the median day
//! differs from the median, and 120 % at most.

use std::fmt::Write;

use serde::Serialize;

use crate::money::Usd;
use crate::time::Date;

/// History that is needed where the caller does not say, in days.
pub const DEFAULT_DAYS: u32 = 30;
/// The longest history that is looked at: ten years.
pub const MAX_DAYS: u32 = 3_660;
/// The least headroom, in percent of the baseline.
const LEAST_PERCENT: u32 = 110;
/// The most headroom above that, in percent.
const MORE_PERCENT: u32 = 10;
/// Spread, in basis points of the median day, that adds one percent.
const SPREAD_PER_PERCENT: i128 = 500;
/// A day above the median by so many spreads counts as that limit.
const OUTLIER_SPREADS: i128 = 5;
/// The spread is taken as a tenth of the median at least: days that are nearly alike make no outliers.
const LEAST_SPREAD_PART: i128 = 10;
/// Shares of the proposed limit at which to alert, in percent.
pub const ALERTS: [u32; 2] = [80, 100];
/// One cent in picodollars.
const CENT: i128 = 10_000_000_000;

/// What history says about a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Finding {
    /// A budget that fits.
    Proposed(Box<Proposal>),
    /// The first spending is too recent.
    NotEnoughHistory {
        /// Days since the first spending.
        days: u32,
        /// Days that are needed.
        needed: u32,
    },
    /// Nothing was spent in the days looked at.
    Idle,
}

/// A budget, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Proposal {
    /// The window: a calendar month.
    pub window: &'static str,
    /// The limit, rounded up to a cent.
    pub limit_usd: Usd,
    /// Where to alert, in percent of the limit.
    pub alert_percents: [u32; 2],
    /// A usual month.
    pub baseline_usd: Usd,
    /// The limit as a share of it, 110 to 120.
    pub percent: u32,
    /// What it was made of.
    pub figures: Figures,
    /// The same in words.
    pub reasoning: String,
}

/// The figures behind a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Figures {
    /// Days looked at, the last ones.
    pub days: u32,
    /// Those that have spending.
    pub days_with_spending: u32,
    /// The median of the days that have spending.
    pub median_day_usd: Usd,
    /// The median distance of such a day from it.
    pub spread_usd: Usd,
    /// What all days add up to, as they were.
    pub spent_usd: Usd,
    /// What a day counts for at most.
    pub day_limit_usd: Usd,
    /// Days that were above it.
    pub outliers: Vec<Outlier>,
    /// How much more the later half of the days has than the earlier, in percent. `None` when the earlier has nothing.
    pub trend_percent: Option<i64>,
}

/// A day that is not usual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Outlier {
    /// The day, `2026-11-20`.
    pub day: String,
    /// What was spent on it.
    pub spent_usd: Usd,
}

/// Proposes a monthly budget from daily spending before `until`. A day that is missing had none. The last `days` days
/// make the baseline; spending must have begun no later than on their first.
pub fn propose(spend: &[(Date, Usd)], until: Date, days: u32) -> Finding {
    let days = days.clamp(1, MAX_DAYS);
    let before = |&&(date, spent): &&(Date, Usd)| date < until && spent > Usd::ZERO;
    let Some(first) = spend.iter().filter(before).map(|(date, _)| *date).min() else {
        return Finding::Idle;
    };
    let seen = u32::try_from(until.days().saturating_sub(first.days())).unwrap_or(u32::MAX);
    if seen < days {
        return Finding::NotEnoughHistory { days: seen, needed: days };
    }
    let start = until.days().saturating_sub(i64::from(days));
    let mut by_day = vec![0_i128; usize::try_from(days).unwrap_or(usize::MAX)];
    for (date, spent) in spend.iter().filter(before) {
        let place = usize::try_from(date.days().saturating_sub(start)).ok();
        if let Some(day) = place.and_then(|place| by_day.get_mut(place)) {
            *day = day.saturating_add(spent.pico());
        }
    }
    let active: Vec<i128> = by_day.iter().copied().filter(|day| *day > 0).collect();
    let Some(median_day) = median(active.clone()) else { return Finding::Idle };
    let distances = active.iter().map(|day| (day - median_day).abs()).collect();
    let spread = median(distances).unwrap_or_default();
    let far = spread.max(median_day / LEAST_SPREAD_PART).saturating_mul(OUTLIER_SPREADS);
    let day_limit = median_day.saturating_add(far);
    let usual = by_day.iter().fold(0_i128, |sum, day| sum.saturating_add(*day.min(&day_limit)));
    // The mean month has 365 / 12 days.
    let baseline = usual.saturating_mul(365) / (12 * i128::from(days));
    let points = spread.saturating_mul(10_000) / median_day.max(1) / SPREAD_PER_PERCENT;
    let percent = LEAST_PERCENT + u32::try_from(points).unwrap_or(u32::MAX).min(MORE_PERCENT);
    let limit = baseline.saturating_mul(i128::from(percent)).div_euclid(100);
    let cents = limit.div_euclid(CENT) + i128::from(limit.rem_euclid(CENT) > 0);
    let outliers = (start..).zip(&by_day).filter(|(_, spent)| **spent > day_limit);
    let figures = Figures {
        days,
        days_with_spending: u32::try_from(active.len()).unwrap_or(u32::MAX),
        median_day_usd: Usd::from_pico(median_day),
        spread_usd: Usd::from_pico(spread),
        spent_usd: Usd::from_pico(active.iter().fold(0, |sum, day| sum.saturating_add(*day))),
        day_limit_usd: Usd::from_pico(day_limit),
        outliers: outliers
            .map(|(day, spent)| Outlier {
                day: Date::from_days(day).to_string(),
                spent_usd: Usd::from_pico(*spent),
            })
            .collect(),
        trend_percent: trend(&by_day, day_limit),
    };
    let baseline_usd = Usd::from_pico(baseline);
    let limit_usd = Usd::from_pico(cents.saturating_mul(CENT));
    Finding::Proposed(Box::new(Proposal {
        window: "month",
        limit_usd,
        alert_percents: ALERTS,
        baseline_usd,
        percent,
        reasoning: reasoning(&figures, baseline_usd, percent, limit_usd),
        figures,
    }))
}

/// The middle of the amounts, the lower of two.
fn median(mut amounts: Vec<i128>) -> Option<i128> {
    amounts.sort_unstable();
    amounts.get(amounts.len().saturating_sub(1) / 2).copied()
}

/// The later half of the days against the earlier, days capped as in the baseline. Of an odd number the middle day
/// belongs to neither.
fn trend(by_day: &[i128], day_limit: i128) -> Option<i64> {
    let half = by_day.len() / 2;
    let sum = |days: &mut dyn Iterator<Item = &i128>| {
        days.take(half).fold(0_i128, |sum, day| sum.saturating_add(*day.min(&day_limit)))
    };
    let (earlier, later) = (sum(&mut by_day.iter()), sum(&mut by_day.iter().rev()));
    let percent = later.saturating_sub(earlier).saturating_mul(100).checked_div(earlier)?;
    i64::try_from(percent).ok()
}

fn reasoning(figures: &Figures, baseline: Usd, percent: u32, limit: Usd) -> String {
    let mut text = format!(
        "Of the last {} days, {} have spending, {} USD together. The median of these is {} USD a day, and half of \
         them are within {} USD of it.",
        figures.days,
        figures.days_with_spending,
        cents(figures.spent_usd),
        cents(figures.median_day_usd),
        cents(figures.spread_usd),
    );
    // Writing to a String cannot fail.
    let names: Vec<String> = figures
        .outliers
        .iter()
        .take(5)
        .map(|outlier| format!("{} ({} USD)", outlier.day, cents(outlier.spent_usd)))
        .collect();
    if !names.is_empty() {
        let more = figures.outliers.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let limit = cents(figures.day_limit_usd);
        let names = names.join(", ");
        let _ = write!(text, " Days above {limit} USD count as that: {names}{more}.");
    }
    if let Some(trend) = figures.trend_percent.filter(|trend| trend.abs() >= 20) {
        let direction = if trend > 0 { "more" } else { "less" };
        let by = trend.unsigned_abs();
        let _ =
            write!(text, " The later half of the days has {by} % {direction} than the earlier.");
    }
    let (baseline, limit) = (cents(baseline), cents(limit));
    let _ = write!(
        text,
        " A usual month is {baseline} USD; the spread asks for {percent} % of it: {limit} USD."
    );
    text
}

/// An amount for a sentence: to the cent where that says something.
fn cents(amount: Usd) -> String {
    let whole = crate::money::div_half_even(amount.pico(), CENT);
    if whole.abs() < 100 {
        return amount.to_string();
    }
    Usd::from_pico(whole.saturating_mul(CENT)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn until() -> Date {
        Date::parse("2026-11-20").unwrap()
    }

    /// The days before `until`, oldest first.
    fn history(cents: &[i64]) -> Vec<(Date, Usd)> {
        let count = i64::try_from(cents.len()).unwrap();
        let first = until().days() - count;
        let days = (first..).zip(cents).filter(|(_, cents)| **cents > 0);
        days.map(|(day, cents)| (Date::from_days(day), Usd::from_nanos(cents * 10_000_000)))
            .collect()
    }

    fn proposed(cents: &[i64], days: u32) -> Proposal {
        match propose(&history(cents), until(), days) {
            Finding::Proposed(proposal) => *proposal,
            other => panic!("{other:?}"),
        }
    }

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn days_that_are_alike_make_110_percent_of_a_month() {
        let proposal = proposed(&[1_200; 30], 30);
        assert_eq!((proposal.baseline_usd, proposal.percent), (usd("365"), 110));
        assert_eq!((proposal.limit_usd, proposal.alert_percents), (usd("401.5"), [80, 100]));
        assert_eq!(proposal.figures.outliers, []);
        assert_eq!(
            proposal.reasoning,
            "Of the last 30 days, 30 have spending, 360 USD together. The median of these is 12 USD a day, and half \
             of them are within 0 USD of it. A usual month is 365 USD; the spread asks for 110 % of it: 401.5 USD."
        );
    }

    #[test]
    fn one_bad_day_is_capped_and_named() {
        let mut days = [1_200; 30];
        days[10] = 500_000;
        let proposal = proposed(&days, 30);
        let usual = proposed(&[1_200; 30], 30);
        assert!(proposal.limit_usd < usual.limit_usd.saturating_add(usd("10")));
        let named = Outlier { day: "2026-10-31".into(), spent_usd: usd("5000") };
        assert_eq!(proposal.figures.outliers, [named]);
        assert!(proposal.reasoning.contains("2026-10-31 (5000 USD)"), "{}", proposal.reasoning);
    }

    #[test]
    fn weekends_without_spending_lower_the_month_and_are_no_spread() {
        let week = [1_000, 1_000, 1_000, 1_000, 1_000, 0, 0];
        let days: Vec<i64> = week.into_iter().cycle().take(35).collect();
        let proposal = proposed(&days, 35);
        assert_eq!(proposal.percent, 110);
        // 250 USD in 35 days.
        assert!((usd("217")..usd("218")).contains(&proposal.baseline_usd), "{proposal:?}");
    }

    #[test]
    fn the_headroom_follows_the_spread() {
        let alternate = |low: i64, high: i64| proposed(&[low, high].repeat(15), 30).percent;
        let spread = |step: i64| {
            let days: Vec<i64> = (0..30).map(|day| 1_000 + (day % 3 - 1) * step).collect();
            proposed(&days, 30).percent
        };
        assert_eq!([spread(0), spread(49), spread(50), spread(250)], [110, 110, 111, 115]);
        assert_eq!([spread(500), spread(900)], [120, 120]);
        assert!(alternate(100, 900) <= 120);
    }

    #[test]
    fn too_short_a_history_says_how_long_it_is() {
        assert_eq!(
            propose(&history(&[5; 29]), until(), 30),
            Finding::NotEnoughHistory { days: 29, needed: 30 }
        );
        assert_eq!(propose(&[], until(), 30), Finding::Idle);
        // Long ago something, lately nothing; and today is not over.
        let mut long_ago = vec![0; 90];
        long_ago[0] = 100;
        assert_eq!(propose(&history(&long_ago), until(), 30), Finding::Idle);
        assert_eq!(propose(&[(until(), usd("5"))], until(), 30), Finding::Idle);
    }

    #[test]
    fn growth_is_told() {
        let days: Vec<i64> = (0..30).map(|day| if day < 15 { 1_000 } else { 1_500 }).collect();
        let proposal = proposed(&days, 30);
        assert_eq!(proposal.figures.trend_percent, Some(50));
        assert!(proposal.reasoning.contains("50 % more"), "{}", proposal.reasoning);
    }

    proptest! {
        #[test]
        fn a_limit_is_110_to_120_percent_and_the_baseline_no_more_than_was_spent(
            mut days in proptest::collection::vec(0_i64..1_000_000, 30..120),
        ) {
            days[0] = 1;
            let last_has_spending = days.iter().rev().take(30).any(|day| *day > 0);
            prop_assume!(last_has_spending);
            let proposal = proposed(&days, 30);
            prop_assert!((110..=120).contains(&proposal.percent));
            let share = |percent: i128| proposal.baseline_usd.pico() * percent / 100;
            prop_assert!(proposal.limit_usd.pico() >= share(110));
            prop_assert!(proposal.limit_usd.pico() <= share(120) + CENT);
            let spent = proposal.figures.spent_usd.pico();
            prop_assert!(proposal.baseline_usd.pico() <= spent * 365 / 360);
        }

        #[test]
        fn the_order_of_the_input_does_not_matter_and_ten_times_as_much_is_ten_times_the_baseline(
            mut days in proptest::collection::vec(1_i64..1_000_000, 30..60), turn in 0_usize..60,
        ) {
            let proposal = proposed(&days, 30);
            let mut shuffled = history(&days);
            shuffled.rotate_left(turn % days.len());
            prop_assert_eq!(propose(&shuffled, until(), 30), Finding::Proposed(Box::new(proposal.clone())));
            days.iter_mut().for_each(|day| *day *= 10);
            let tenfold = proposed(&days, 30);
            prop_assert_eq!(tenfold.percent, proposal.percent);
            let difference = tenfold.baseline_usd.pico() - proposal.baseline_usd.pico() * 10;
            prop_assert!(difference.abs() <= 10_000);
        }

        #[test]
        fn one_day_however_dear_moves_the_limit_by_less_than_a_fifth(
            day in 0_usize..30, cents in 0_i64..100_000_000_000,
        ) {
            let mut days = [1_000; 30];
            let usual = proposed(&days, 30).limit_usd.pico();
            days[day] = cents;
            prop_assume!(days[0] > 0);
            let moved = proposed(&days, 30).limit_usd.pico();
            prop_assert!((moved - usual).abs() < usual / 5, "{usual} to {moved}");
        }
    }
}
