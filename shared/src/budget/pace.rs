//! Pace: whether a budget lasts to the end of its window, if spending goes on as it did so far.

use serde::Serialize;

use crate::money::Usd;
use crate::time::Timestamp;

/// How a budget is doing in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pace {
    /// How much of the window is over, in percent.
    pub elapsed_percent: u64,
    /// How much of the limit is spent, in percent.
    pub spent_percent: u64,
    /// What will be spent at its end. `None` for a window without an end, or when it has only begun.
    #[serde(rename = "projected_usd", skip_serializing_if = "Option::is_none")]
    pub projected: Option<Usd>,
    /// When the limit will be reached, if that is before the end.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "moment")]
    pub exhausted_at: Option<Timestamp>,
}

fn moment<S: serde::Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => to.collect_str(at),
        None => to.serialize_none(),
    }
}

/// A part of a window that says nothing about the rest: 1 %.
const TOO_EARLY: i128 = 100;

/// The pace of a window from `start` to `end` at `now`.
pub fn pace(
    limit: Usd,
    spent: Usd,
    start: Timestamp,
    end: Option<Timestamp>,
    now: Timestamp,
) -> Pace {
    let elapsed = i128::from(now.since_ms(start).max(0));
    let length = end.map(|end| i128::from(end.since_ms(start).max(1)));
    let percent = |part: i128, whole: i128| {
        u64::try_from(part.saturating_mul(100) / whole.max(1)).unwrap_or(0)
    };
    let rate_known = length.is_some_and(|length| elapsed.saturating_mul(TOO_EARLY) >= length);
    let (mut projected, mut exhausted_at) = (None, None);
    if let (Some(length), true) = (length, rate_known) {
        let at_end = spent.pico().saturating_mul(length) / elapsed.max(1);
        projected = Some(Usd::from_pico(at_end).round_to_nanos());
        if spent >= limit {
            exhausted_at = Some(now);
        } else if at_end > limit.pico() {
            let left = limit.pico().saturating_sub(spent.pico());
            let wait = left.saturating_mul(elapsed) / spent.pico().max(1);
            exhausted_at = Some(now.plus_ms(i64::try_from(wait).unwrap_or(i64::MAX)));
        }
    }
    Pace {
        elapsed_percent: length.map_or(0, |length| percent(elapsed, length)),
        spent_percent: percent(spent.pico(), limit.pico()),
        projected,
        exhausted_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn half_the_money_in_a_quarter_of_the_month_lasts_to_its_middle() {
        let (start, end) = (at("2026-11-01"), Some(at("2026-12-01")));
        let now = at("2026-11-08T12:00:00Z");
        let pace = pace(usd("100"), usd("50"), start, end, now);
        assert_eq!((pace.elapsed_percent, pace.spent_percent), (25, 50));
        assert_eq!(pace.projected, Some(usd("200")));
        assert_eq!(pace.exhausted_at, Some(at("2026-11-16")));
    }

    #[test]
    fn a_window_that_has_just_begun_or_never_ends_projects_nothing() {
        let start = at("2026-11-01");
        let early = pace(usd("1"), usd("0.5"), start, Some(at("2026-12-01")), start.plus_ms(1_000));
        assert_eq!((early.projected, early.exhausted_at), (None, None));
        let lifetime = pace(usd("1"), usd("0.5"), start, None, at("2026-12-01"));
        assert_eq!((lifetime.projected, lifetime.spent_percent), (None, 50));
    }

    proptest! {
        #[test]
        fn it_is_exhausted_before_the_end_exactly_when_more_than_the_limit_is_projected(
            limit in 1_i64..1_000_000_000_000, spent in 0_i64..1_000_000_000_000,
            elapsed in 1_i64..1_000_000, rest in 1_i64..1_000_000,
        ) {
            let start = Timestamp::from_ms(0);
            let now = start.plus_ms(elapsed);
            let end = now.plus_ms(rest);
            let (limit, spent) = (Usd::from_nanos(limit), Usd::from_nanos(spent));
            let pace = pace(limit, spent, start, Some(end), now);
            if let Some(at) = pace.exhausted_at {
                prop_assert!(at <= end && at >= now);
            }
            if pace.projected.is_some_and(|projected| projected <= limit) && spent < limit {
                // Rounded to the nanodollar, so the very edge may fall on either side.
                prop_assert!(pace.exhausted_at.is_none_or(|at| end.since_ms(at) <= 1));
            }
        }
    }
}
