//! Windows of time that spending is counted in: a pure function of the moment, so there is no job that resets them.
//!
//! All is done in whole days. A [`Calendar`] says where days begin (its time zone) and on which day of the month a
//! fiscal month does; a key's own caps are counted in UTC.

use serde::{Deserialize, Serialize};

use crate::budget::calendar::Calendar;
use crate::time::{Date, Timestamp};

/// A kind of window. Each moment is in exactly one window of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// A day, from midnight.
    Day,
    /// An ISO week, from Monday.
    Week,
    /// A calendar month.
    Month,
    /// A month that begins on the calendar's own day, for books that do not close with the month.
    FiscalMonth,
    /// All time, from 1970 on.
    Lifetime,
}

impl Window {
    /// The stable name of this kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::FiscalMonth => "fiscal_month",
            Self::Lifetime => "lifetime",
        }
    }

    /// The first moment of the UTC window that `at` is in.
    pub fn start(self, at: Timestamp) -> Timestamp {
        Calendar::UTC.start(self, at)
    }

    /// The first moment after the UTC window that `at` is in; `None` when there is no end.
    pub fn end(self, at: Timestamp) -> Option<Timestamp> {
        Calendar::UTC.end(self, at)
    }

    /// The key of the UTC window that `at` is in: see [`Calendar::key`].
    pub fn key(self, at: Timestamp) -> String {
        Calendar::UTC.key(self, at)
    }

    /// The stored text of the window that begins on `first`: `day:2026-11-20`, `week:2026-W47`, `month:2026-11`,
    /// `fiscal_month:2026-11-15`, `lifetime`. It must not change.
    pub(super) fn key_of(self, first: Option<Date>) -> String {
        let name = self.name();
        let Some(first) = first else { return name.to_owned() };
        match self {
            Self::Day | Self::FiscalMonth => format!("{name}:{first}"),
            Self::Week => {
                let (year, week) = first.iso_week();
                format!("{name}:{year:04}-W{week:02}")
            }
            Self::Month => format!("{name}:{:04}-{:02}", first.year, first.month),
            Self::Lifetime => name.to_owned(),
        }
    }

    /// The first day of the window that `date` is in; `None` for all time.
    pub(super) fn first_day(self, date: Date, fiscal_start: u8) -> Option<Date> {
        match self {
            Self::Day => Some(date),
            Self::Week => Some(Date::from_days(date.days() + 1 - i64::from(date.iso_weekday()))),
            Self::Month => Some(date.first_of_month()),
            Self::FiscalMonth if date.day >= fiscal_start => {
                Some(Date { day: fiscal_start, ..date })
            }
            Self::FiscalMonth => {
                let before = Date::from_days(date.first_of_month().days() - 1);
                Some(Date { day: fiscal_start, ..before })
            }
            Self::Lifetime => None,
        }
    }

    /// The first day of the window after the one that begins on `first`.
    pub(super) fn next_first_day(self, first: Date) -> Option<Date> {
        match self {
            Self::Day => Some(Date::from_days(first.days() + 1)),
            Self::Week => Some(Date::from_days(first.days() + 7)),
            Self::Month => Some(first.first_of_next_month()),
            // A fiscal month begins on a day that every month has.
            Self::FiscalMonth => Some(Date { day: first.day, ..first.first_of_next_month() }),
            Self::Lifetime => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Window; 5] =
        [Window::Day, Window::Week, Window::Month, Window::FiscalMonth, Window::Lifetime];

    fn check(window: Window, at: &str, key: &str, start: &str, end: &str) {
        let at = Timestamp::parse(at).unwrap();
        assert_eq!(window.key(at), key);
        assert_eq!(Some(window.start(at)), Timestamp::parse(start), "{key}");
        assert_eq!(window.end(at), Timestamp::parse(end), "{key}");
    }

    #[test]
    fn known_moments_are_in_known_windows() {
        let at = "2026-11-20T23:59:59.999Z";
        check(Window::Day, at, "day:2026-11-20", "2026-11-20", "2026-11-21");
        check(Window::Week, at, "week:2026-W47", "2026-11-16", "2026-11-23");
        check(Window::Month, at, "month:2026-11", "2026-11-01", "2026-12-01");
        check(Window::Lifetime, at, "lifetime", "1970-01-01", "");
    }

    #[test]
    fn weeks_at_new_year_belong_to_the_iso_year() {
        check(Window::Week, "2027-01-03", "week:2026-W53", "2026-12-28", "2027-01-04");
        check(Window::Week, "2024-12-30", "week:2025-W01", "2024-12-30", "2025-01-06");
        check(Window::Month, "2026-12-31", "month:2026-12", "2026-12-01", "2027-01-01");
    }

    #[test]
    fn names_are_the_same_in_json() {
        for window in ALL {
            assert_eq!(serde_json::to_value(window).unwrap(), window.name());
        }
    }

    /// From 1970 to the end of the year 9998.
    fn moments() -> impl Strategy<Value = Timestamp> {
        (0_i64..253_370_764_800_000).prop_map(Timestamp::from_ms)
    }

    proptest! {
        #[test]
        fn a_moment_is_in_its_window(at in moments()) {
            for window in ALL {
                prop_assert!(window.start(at) <= at);
                prop_assert!(window.end(at).is_none_or(|end| at < end));
            }
        }

        #[test]
        fn windows_follow_each_other_without_a_gap(at in moments()) {
            for window in ALL {
                let Some(end) = window.end(at) else { continue };
                prop_assert_eq!(window.start(end), end);
                prop_assert_ne!(window.key(end), window.key(at));
                prop_assert_eq!(window.key(end.plus_ms(-1)), window.key(at));
                prop_assert_eq!(window.key(window.start(at)), window.key(at));
            }
        }

        #[test]
        fn two_moments_share_a_key_exactly_when_they_share_a_start(
            one in moments(), apart in 0_i64..40 * 86_400_000,
        ) {
            let two = one.plus_ms(apart);
            for window in ALL {
                let same_start = window.start(one) == window.start(two);
                prop_assert_eq!(window.key(one) == window.key(two), same_start);
            }
        }

        #[test]
        fn no_moment_is_beyond_these_functions(ms in any::<i64>()) {
            for window in ALL {
                let at = Timestamp::from_ms(ms);
                let _ = (window.start(at), window.end(at), window.key(at));
            }
        }
    }
}
