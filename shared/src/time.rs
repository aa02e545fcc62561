//! Instants and calendar arithmetic in UTC, without a clock: time is always an argument.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds in a day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 60 * 60 * 1000;

/// A moment: milliseconds since 1970-01-01T00:00:00Z, as an integer on the wire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// A day of the proleptic Gregorian calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// The year, for example 2026.
    pub year: i64,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, 1 to 31.
    pub day: u8,
}

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment moved by `ms`, held at the ends of the range.
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; negative when `earlier` is later.
    pub const fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The day this moment falls on.
    pub fn date(self) -> Date {
        Date::from_days(self.0.div_euclid(DAY_MS))
    }

    /// Milliseconds since midnight UTC.
    pub const fn ms_of_day(self) -> i64 {
        self.0.rem_euclid(DAY_MS)
    }

    /// The weekday, ISO numbering: 1 is Monday, 7 is Sunday.
    pub const fn iso_weekday(self) -> u8 {
        // 1970-01-01 was a Thursday (4).
        ((self.0.div_euclid(DAY_MS) + 3).rem_euclid(7) + 1) as u8
    }

    /// The start of this moment's hour.
    pub const fn start_of_hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(HOUR_MS))
    }

    /// Parses `YYYY-MM-DD`, or RFC 3339 in UTC with `Z` (`2026-11-20T10:00:00Z`, fraction allowed).
    pub fn parse(text: &str) -> Option<Self> {
        let (date, clock) = match text.split_once('T') {
            Some((date, clock)) => (date, Some(clock.strip_suffix('Z')?)),
            None => (text, None),
        };
        let midnight = Date::parse(date)?.days().checked_mul(DAY_MS)?;
        let Some(clock) = clock else { return Some(Self(midnight)) };
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let mut parts = whole.split(':').map(|p| if p.len() == 2 { digits(p) } else { None });
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let millis = digits(&format!("{fraction:0<3}").chars().take(3).collect::<String>())?;
        digits(fraction)?;
        Some(Self(midnight + ((hour * 60 + minute) * 60 + second) * 1000 + millis))
    }
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

impl Date {
    /// Days since 1970-01-01. Algorithm: Howard Hinnant, "days_from_civil".
    pub const fn days(self) -> i64 {
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = (self.month as i64 + 9) % 12;
        let day_of_year = (153 * shifted_month + 2) / 5 + self.day as i64 - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
            - 719_468
    }

    /// The day that is `days` after 1970-01-01. Algorithm: Howard Hinnant, "civil_from_days".
    pub const fn from_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u8;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u8;
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        Self { year, month, day }
    }

    /// Parses `YYYY-MM-DD`; `None` for a day that does not exist.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
            return None;
        }
        let date = Self {
            year: digits(year)?,
            month: u8::try_from(digits(month)?).ok()?,
            day: u8::try_from(digits(day)?).ok()?,
        };
        (date.month >= 1 && date.day >= 1 && Self::from_days(date.days()) == date).then_some(date)
    }

    /// Midnight UTC at the start of this day.
    pub const fn midnight(self) -> Timestamp {
        Timestamp::from_ms(self.days() * DAY_MS)
    }

    /// The first day of this month.
    pub const fn first_of_month(self) -> Self {
        Self { day: 1, ..self }
    }

    /// The first day of the month after this one.
    pub const fn first_of_next_month(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1, day: 1 }
        } else {
            Self { year: self.year, month: self.month + 1, day: 1 }
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-20T10:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.ms_of_day();
        let (hour, minute, second) = (ms / HOUR_MS, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}.{:03}Z", self.date(), ms % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days_are_numbered_right() {
        for (text, days) in [("1970-01-01", 0), ("2000-02-29", 11_016), ("2026-11-20", 20_777)] {
            assert_eq!(Date::parse(text).map(Date::days), Some(days), "{text}");
        }
        for bad in ["2026-02-29", "2026-13-01", "2026-1-01", "", "2026-11-20-1", "2026-00-10"] {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
        assert_eq!(Timestamp::parse("2026-11-20").map(Timestamp::iso_weekday), Some(5));
    }

    #[test]
    fn timestamps_print_and_parse() {
        let text = "2026-11-20T10:11:12.345Z";
        assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), Some(text));
        assert_eq!(
            Timestamp::parse("2026-11-20T10:11:12Z"),
            Timestamp::parse("2026-11-20T10:11:12.0Z")
        );
        for bad in ["2026-11-20T24:00:00Z", "2026-11-20T10:11:12", "2026-11-20T1:11:12Z", "T", "x"]
        {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn dates_always_round_trip(days in -1_000_000_i64..1_000_000) {
            prop_assert_eq!(Date::from_days(days).days(), days);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
