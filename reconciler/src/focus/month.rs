//! A billing period: a calendar month in UTC.

use std::fmt;

use tallygate_shared::time::{Date, Timestamp};

/// A month. Orders as time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i64,
    month: u8,
}

impl Month {
    /// The month of a day.
    pub const fn of(date: Date) -> Self {
        Self { year: date.year, month: date.month }
    }

    /// Parses `YYYY-MM`.
    pub fn parse(text: &str) -> Option<Self> {
        Date::parse(&format!("{text}-01")).map(Self::of)
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        self.first().midnight()
    }

    /// The first moment after it.
    pub fn end(self) -> Timestamp {
        self.first().first_of_next_month().midnight()
    }

    const fn first(self) -> Date {
        Date { year: self.year, month: self.month, day: 1 }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let december = Month::parse("2026-12").unwrap();
        assert_eq!(december.end(), Month::parse("2027-01").unwrap().start());
        assert_eq!(december.to_string(), "2026-12");
        for bad in ["2026-13", "2026-1", "2026", "2026-11-01", ""] {
            assert_eq!(Month::parse(bad), None, "{bad}");
        }
    }
}
