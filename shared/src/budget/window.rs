//! Windows of time that spending is counted in: a pure function of the moment, so there is no job that resets them.
//!
//! All is done in whole days, between [`Timestamp::date`] and [`Date::midnight`], in UTC. A time zone replaces these
//! two; a fiscal month is another first day and another next.

use serde::{Deserialize, Serialize};

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
            Self::Lifetime => "lifetime",
        }
    }

    /// The first moment of the window that `at` is in.
    pub fn start(self, at: Timestamp) -> Timestamp {
        self.first_day(at).map_or(Timestamp::from_ms(0), Date::midnight)
    }

    /// The first moment after the window that `at` is in; `None` when there is no end.
    pub fn end(self, at: Timestamp) -> Option<Timestamp> {
        let first = self.first_day(at)?;
        let next = match self {
            Self::Day => Date::from_days(first.days() + 1),
            Self::Week => Date::from_days(first.days() + 7),
            Self::Month => first.first_of_next_month(),
            Self::Lifetime => return None,
        };
        Some(next.midnight())
    }

    /// A text that is the same for all moments of one window and for no other: `day:2026-11-20`, `week:2026-W47`,
    /// `month:2026-11`, `lifetime`. It is stored; it must not change.
    pub fn key(self, at: Timestamp) -> String {
        let (name, date) = (self.name(), at.date());
        match self {
            Self::Day => format!("{name}:{date}"),
            Self::Week => {
                let (year, week) = date.iso_week();
                format!("{name}:{year:04}-W{week:02}")
            }
            Self::Month => format!("{name}:{:04}-{:02}", date.year, date.month),
            Self::Lifetime => name.to_owned(),
        }
    }

    fn first_day(self, at: Timestamp) -> Option<Date> {
        let date = at.date();
        match self {
            Self::Day => Some(date),
            Self::Week => Some(Date::from_days(date.days() + 1 - i64::from(at.iso_weekday()))),
            Self::Month => Some(date.first_of_month()),
            Self::Lifetime => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Window; 4] = [Window::Day, Window::Week, Window::Month, Window::Lifetime];

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
