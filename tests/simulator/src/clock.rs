//! The simulator's clock: the real one, moved or stopped by a test, so that bills of other days can be made.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const DAY_SECONDS: i64 = 86_400;

/// A UTC day, counted from 1 January 1970. `2026-11-20` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Day(i64);

impl Day {
    /// The day of a moment.
    pub(crate) fn of(at: Timestamp) -> Self {
        Self(at.as_second().div_euclid(DAY_SECONDS))
    }

    /// The day of a moment in Unix seconds.
    pub(crate) fn of_unix(seconds: i64) -> Self {
        Self(seconds.div_euclid(DAY_SECONDS))
    }

    pub(crate) fn plus(self, days: i64) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// Days from another day to this one.
    pub(crate) fn since(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }

    /// Midnight before it, in Unix seconds.
    pub(crate) fn unix(self) -> i64 {
        self.0.saturating_mul(DAY_SECONDS)
    }

    /// Midnight before it, as RFC 3339.
    pub(crate) fn rfc3339(self) -> String {
        format!("{self}T00:00:00Z")
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let midnight: Result<Timestamp, _> = format!("{text}T00:00:00Z").parse();
        let fits = text.len() == 10;
        midnight
            .ok()
            .filter(|_| fits)
            .map(Self::of)
            .ok_or_else(|| format!("`{text}` is not a day: write it as 2026-11-20"))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midnight = Timestamp::from_second(self.unix()).unwrap_or(Timestamp::MAX).to_string();
        to.write_str(midnight.get(..10).unwrap_or_default())
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl TryFrom<String> for Day {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Days from the first to before the last. `2026-11-20`, or `2026-11-20/2026-11-23` for three of them, in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span {
    pub(crate) from: Day,
    pub(crate) to: Day,
}

impl Span {
    pub(crate) fn new(from: Day, to: Day) -> Result<Self, String> {
        match from < to {
            true => Ok(Self { from, to }),
            false => Err(format!("{from}/{to} holds no day: the end is not part of it")),
        }
    }

    pub(crate) fn has(self, day: Day) -> bool {
        self.from <= day && day < self.to
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    pub(crate) fn last(self) -> Day {
        self.to.plus(-1)
    }

    pub(crate) fn days(self) -> impl Iterator<Item = Day> {
        (0..self.to.since(self.from)).map(move |count| self.from.plus(count))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((from, to)) => Self::new(Day::parse(from)?, Day::parse(to)?),
            None => Day::parse(&text).map(|day| Self { from: day, to: day.plus(1) }),
        }
    }
}

/// How a test moves the clock. One of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Move {
    /// The moment that it is now.
    now: Option<String>,
    /// Seconds from where it stands; negative goes back.
    advance_seconds: Option<i64>,
    /// Whether it stands still from now on. Alone or beside one of the others.
    frozen: Option<bool>,
    /// Back to the real time.
    real: bool,
}

/// The clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    offset: i64,
    frozen: Option<i64>,
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        self.at(real())
    }

    fn at(&self, real: i64) -> Timestamp {
        let millis = self.frozen.unwrap_or(real.saturating_add(self.offset));
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn set(&mut self, asked: &Move) -> Result<(), String> {
        *self = self.moved(asked, real())?;
        Ok(())
    }

    fn moved(self, asked: &Move, real: i64) -> Result<Self, String> {
        let here = self.at(real).as_millisecond();
        let target = match (&asked.now, asked.advance_seconds, asked.real) {
            (Some(text), None, false) => text
                .parse::<Timestamp>()
                .map_err(|_| format!("now: `{text}` is not RFC 3339, as 2026-11-20T09:30:00Z is"))?
                .as_millisecond(),
            (None, Some(seconds), false) => here.saturating_add(seconds.saturating_mul(1_000)),
            (None, None, true) => real,
            (None, None, false) if asked.frozen.is_some() => here,
            _ => {
                return Err("give one of now, advance_seconds and real, or frozen alone".to_owned());
            }
        };
        let still = asked.frozen.unwrap_or(self.frozen.is_some() && !asked.real);
        Ok(Self { offset: target.saturating_sub(real), frozen: still.then_some(target) })
    }
}

fn real() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(document: &str) -> Move {
        serde_json::from_str(document).unwrap()
    }

    #[test]
    fn days_are_counted_and_written() {
        let day = Day::parse("2026-11-20").unwrap();
        assert_eq!(day.unix(), 1_795_132_800);
        assert_eq!(Day::of_unix(1_795_132_800 + 86_399), day);
        assert_eq!(day.plus(11).rfc3339(), "2026-12-01T00:00:00Z");
        for wrong in ["", "2026-13-01", "2026-11-20T00", "20261120", "tomorrow"] {
            assert!(Day::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_span_ends_before_its_end() {
        let span = Span::try_from("2026-11-20/2026-11-22".to_owned()).unwrap();
        let days: Vec<String> = span.days().map(String::from).collect();
        assert_eq!(days, ["2026-11-20", "2026-11-21"]);
        assert!(Span::try_from("2026-11-20/2026-11-20".to_owned()).is_err());
        assert_eq!(Span::try_from("2026-11-20".to_owned()).unwrap().days().count(), 1);
    }

    #[test]
    fn the_clock_is_set_moved_stopped_and_put_back() {
        let real = 1_795_000_000_000;
        let clock =
            Clock::default().moved(&asked(r#"{"now": "2026-11-01T23:59:59Z"}"#), real).unwrap();
        assert_eq!(clock.at(real + 1_000).to_string(), "2026-11-02T00:00:00Z");
        let clock =
            clock.moved(&asked(r#"{"advance_seconds": 86400, "frozen": true}"#), real).unwrap();
        assert_eq!(clock.at(real + 99_000).to_string(), "2026-11-02T23:59:59Z");
        let clock = clock.moved(&asked(r#"{"frozen": false}"#), real + 5_000).unwrap();
        assert_eq!(clock.at(real + 6_000).to_string(), "2026-11-03T00:00:00Z");
        let clock = clock.moved(&asked(r#"{"real": true}"#), real).unwrap();
        assert_eq!(clock.at(real).as_millisecond(), real);
        assert!(clock.moved(&asked("{}"), real).is_err());
        assert!(clock.moved(&asked(r#"{"now": "yesterday"}"#), real).is_err());
    }
}
