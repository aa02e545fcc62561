//! Weeks by ISO 8601: Monday to Sunday, UTC, named `2026-W47`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{DAY_MS, Date, HOUR_MS, Timestamp};

/// Days in a week.
pub const DAYS: i64 = 7;

/// A week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(schemars::JsonSchema),
    schemars(with = "String", description = "A week by ISO 8601, UTC: \"2026-W47\".")
)]
#[serde(try_from = "String", into = "String")]
pub struct Week {
    monday: Date,
}

/// A text that names no week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a week such as 2026-W47")]
pub struct NotAWeek;

impl Week {
    /// The week of a day.
    pub fn of(day: Date) -> Self {
        let back = i64::from(day.iso_weekday()) - 1;
        Self { monday: Date::from_days(day.days() - back) }
    }

    /// Reads `2026-W47`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, number) = text.split_once("-W")?;
        let digits =
            |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(number, 2) {
            return None;
        }
        let (year, number): (i64, u8) = (year.parse().ok()?, number.parse().ok()?);
        // The fourth of January is in the first week of its year.
        let first = Self::of(Date { year, month: 1, day: 4 });
        let week = first.plus(i64::from(number) - 1);
        (week.monday.iso_week() == (year, number)).then_some(week)
    }

    /// Its first day, a Monday.
    pub const fn monday(self) -> Date {
        self.monday
    }

    /// When it begins.
    pub fn start(self) -> Timestamp {
        self.monday.midnight()
    }

    /// When it is over: the start of the next one.
    pub fn end(self) -> Timestamp {
        self.start().plus_ms(DAYS * DAY_MS)
    }

    /// The week so many later, or earlier.
    pub fn plus(self, weeks: i64) -> Self {
        Self { monday: Date::from_days(self.monday.days() + weeks * DAYS) }
    }
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, number) = self.monday.iso_week();
        write!(f, "{year:04}-W{number:02}")
    }
}

impl From<Week> for String {
    fn from(week: Week) -> Self {
        week.to_string()
    }
}

impl TryFrom<String> for Week {
    type Error = NotAWeek;

    fn try_from(text: String) -> Result<Self, NotAWeek> {
        Self::parse(&text).ok_or(NotAWeek)
    }
}

/// When something is done once a week: at the start of an hour, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeeklyAt {
    /// The day of the week: 1 is Monday, 7 is Sunday. Default: 1.
    pub weekday: u8,
    /// The hour of the day, 0 to 23, UTC. Default: 7.
    pub hour: u8,
}

impl Default for WeeklyAt {
    fn default() -> Self {
        Self { weekday: 1, hour: 7 }
    }
}

impl WeeklyAt {
    /// The first such moment after `now`.
    pub fn next_after(self, now: Timestamp) -> Timestamp {
        let days = i64::from(self.weekday.clamp(1, 7)) - 1;
        let offset = days * DAY_MS + i64::from(self.hour.min(23)) * HOUR_MS;
        let week = Week::of(now.date());
        let this = week.start().plus_ms(offset);
        if this > now { this } else { week.plus(1).start().plus_ms(offset) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weeks_begin_on_mondays_and_belong_to_their_thursdays_year() {
        for (name, monday) in [
            ("2026-W47", "2026-11-16"),
            ("2026-W01", "2025-12-29"),
            ("2026-W53", "2026-12-28"),
            ("2027-W01", "2027-01-04"),
        ] {
            let week = Week::parse(name).unwrap();
            assert_eq!(
                (week.to_string().as_str(), week.monday().to_string().as_str()),
                (name, monday)
            );
        }
        for wrong in
            ["2027-W53", "2026-W00", "2026-W54", "2026-47", "2026-W7", "W47", "", "2026-W+1"]
        {
            assert_eq!(Week::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_weekly_moment_comes_once_a_week() {
        let at = WeeklyAt::default();
        let next = |text: &str| at.next_after(Timestamp::parse(text).unwrap()).to_string();
        assert_eq!(next("2026-11-16T06:59:59Z"), "2026-11-16T07:00:00.000Z");
        assert_eq!(next("2026-11-16T07:00:00Z"), "2026-11-23T07:00:00.000Z");
        let sunday = WeeklyAt { weekday: 7, hour: 0 };
        let now = Timestamp::parse("2026-11-22T00:00:00Z").unwrap();
        assert_eq!(sunday.next_after(now).to_string(), "2026-11-29T00:00:00.000Z");
    }

    proptest! {
        #[test]
        fn a_week_s_name_is_read_back(days in 0_i64..40_000) {
            let week = Week::of(Date::from_days(days));
            prop_assert_eq!(Week::parse(&week.to_string()), Some(week));
            prop_assert!(week.monday().days() <= days && days < week.monday().days() + 7);
        }
    }
}
