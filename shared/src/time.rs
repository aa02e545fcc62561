//! Instants and days in UTC, without a clock: time is always an argument. The calendar itself is `jiff`'s.

use jiff::{SignedDuration, civil};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds in a day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 60 * 60 * 1000;
/// Day 0 of [`Date::days`].
const EPOCH: civil::Date = civil::date(1970, 1, 1);
/// More days than the calendar has on either side of the epoch, and few enough for `jiff`'s durations.
const BEYOND_THE_CALENDAR: i64 = 5_000_000;

/// A moment: milliseconds since 1970-01-01T00:00:00Z, as an integer on the wire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Timestamp(i64);

/// A day of the Gregorian calendar, UTC, in the years -9999 to 9999.
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

    /// The day this moment falls on; outside the calendar's years, its first or last day.
    pub fn date(self) -> Date {
        Date::from_days(self.0.div_euclid(DAY_MS))
    }

    /// Milliseconds since midnight UTC.
    pub const fn ms_of_day(self) -> i64 {
        self.0.rem_euclid(DAY_MS)
    }

    /// The weekday, ISO numbering: 1 is Monday, 7 is Sunday.
    pub fn iso_weekday(self) -> u8 {
        self.date().iso_weekday()
    }

    /// The start of this moment's hour.
    pub const fn start_of_hour(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(HOUR_MS)))
    }

    /// Parses `YYYY-MM-DD`, or RFC 3339 in UTC with `Z` (`2026-11-20T10:00:00Z`, fraction allowed).
    ///
    /// The form is read here and only its values by `jiff`, whose own parser takes far more than the two forms.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((date, clock)) = text.split_once('T') else {
            return Date::parse(text).map(Date::midnight);
        };
        let clock = clock.strip_suffix('Z')?;
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let [hour, minute, second] = numbers(whole, ':', [2, 2, 2])?;
        let [_fraction] = numbers(fraction, '.', [fraction.len()])?;
        let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        let time = civil::Time::new(
            i8::try_from(hour).ok()?,
            i8::try_from(minute).ok()?,
            i8::try_from(second).ok()?,
            0,
        );
        let of_day = time.ok()?.duration_since(civil::Time::midnight()).as_secs();
        Some(Date::parse(date)?.midnight().plus_ms(of_day * 1000 + millis))
    }
}

/// For `#[serde(with)]`: a moment as RFC 3339 text, as people write it in a configuration.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Timestamp;

    /// As text, in UTC.
    pub fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    /// From text; a day is its midnight in UTC.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(&text).ok_or_else(|| {
            de::Error::custom("is no time in UTC by RFC 3339, such as \"2027-01-01T00:00:00Z\"")
        })
    }
}

/// Exactly `N` runs of digits of the given lengths between separators.
fn numbers<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[i64; N]> {
    let mut out = [0; N];
    let mut parts = text.split(separator);
    for (number, length) in out.iter_mut().zip(lengths) {
        let part = parts.next()?;
        // Not `parse` alone: it takes a sign.
        if part.len() != length || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

impl Date {
    /// Days since 1970-01-01.
    pub fn days(self) -> i64 {
        self.civil().duration_since(EPOCH).as_hours() / 24
    }

    /// The day that is `days` after 1970-01-01, held at the calendar's ends.
    pub fn from_days(days: i64) -> Self {
        let days = days.clamp(-BEYOND_THE_CALENDAR, BEYOND_THE_CALENDAR);
        Self::of(EPOCH.saturating_add(SignedDuration::from_hours(days * 24)))
    }

    /// Parses `YYYY-MM-DD`; `None` for a day that does not exist.
    pub fn parse(text: &str) -> Option<Self> {
        let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
        let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
        civil::Date::new(i16::try_from(year).ok()?, month, day).ok().map(Self::of)
    }

    /// The ISO week that this day is in: its year, which around New Year is not the day's own, and its number.
    pub fn iso_week(self) -> (i64, u8) {
        let week = self.civil().iso_week_date();
        (i64::from(week.year()), week.week().unsigned_abs())
    }

    /// The weekday, ISO numbering: 1 is Monday, 7 is Sunday.
    pub fn iso_weekday(self) -> u8 {
        self.civil().weekday().to_monday_one_offset().unsigned_abs()
    }

    /// Midnight UTC at the start of this day.
    pub fn midnight(self) -> Timestamp {
        Timestamp::from_ms(self.days() * DAY_MS)
    }

    pub(crate) fn of(date: civil::Date) -> Self {
        Self {
            year: i64::from(date.year()),
            month: date.month().unsigned_abs(),
            day: date.day().unsigned_abs(),
        }
    }

    /// The calendar's own form. The fields are public, so a day that does not exist can be written: one past the
    /// month's end counts on into the next month, all else is held at the calendar's ends.
    pub(crate) fn civil(self) -> civil::Date {
        let end = if self.year < 0 { civil::Date::MIN } else { civil::Date::MAX };
        let Ok(year) = i16::try_from(self.year) else { return end };
        let month = i8::try_from(self.month.clamp(1, 12)).unwrap_or(1);
        let Ok(first) = civil::Date::new(year, month, 1) else { return end };
        first.saturating_add(SignedDuration::from_hours((i64::from(self.day) - 1) * 24))
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
        for bad in ["2026-11-20T10:11:60Z", "2026-11-20T10:11:12.Z", "2026-11-20T+1:11:12Z"] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
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
        fn no_moment_is_beyond_the_functions_of_the_calendar(ms in any::<i64>()) {
            let at = Timestamp::from_ms(ms);
            let _ = (at.date(), at.start_of_hour(), at.to_string(), at.date().iso_week());
            prop_assert!((1..=7).contains(&at.iso_weekday()));
        }

        #[test]
        fn what_is_printed_is_parsed(ms in -62_135_596_800_000_i64..253_402_300_800_000) {
            let at = Timestamp::from_ms(ms);
            prop_assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
