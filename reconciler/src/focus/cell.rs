//! The smallest vocabulary between a row and a file format: what a column is, and what stands in one field of it.

use std::borrow::Cow;

use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use crate::bill::Quantity;

/// One field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value. FOCUS knows no other way to say so: neither an empty text nor a zero.
    Null,
    /// A number, in units of 1e-12.
    Decimal(i128),
    /// A text; JSON is text too.
    Text(Cow<'a, str>),
    /// A moment, to the second.
    Time(Timestamp),
}

impl<'a> Cell<'a> {
    /// Money.
    pub const fn money(amount: Usd) -> Self {
        Self::Decimal(amount.pico())
    }

    /// A count.
    pub const fn count(quantity: Quantity) -> Self {
        Self::Decimal(quantity.pico())
    }

    /// A text.
    pub const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// This value's cell, or null.
    pub fn or_null<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, cell)
    }

    /// Whether a file can hold it: the files' numbers have 38 digits, 12 of them behind the point.
    pub const fn fits(&self) -> bool {
        match self {
            Self::Decimal(pico) => pico.unsigned_abs() < 10_u128.pow(38),
            Self::Null | Self::Text(_) | Self::Time(_) => true,
        }
    }

    /// As a text file writes it, `None` for null. A whole number keeps one decimal place: readers that guess a column's
    /// type from its text take a column of `1`s for integers, and then say that it must be decimal.
    pub fn written(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Null => None,
            Self::Decimal(pico) => Some(Cow::Owned(decimal(*pico))),
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Time(at) => Some(Cow::Owned(date_time(*at))),
        }
    }
}

/// Plain decimal text of a number in units of 1e-12, with at least one decimal place.
pub fn decimal(pico: i128) -> String {
    let text = Quantity::from_pico(pico).to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// `YYYY-MM-DDTHH:mm:ssZ`. FOCUS writes whole seconds.
pub fn date_time(at: Timestamp) -> String {
    let second_of_day = at.ms_of_day() / 1000;
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date())
}

/// What a column may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any decimal number.
    Decimal,
    /// A decimal number that is not negative.
    Price,
    /// A text.
    Text,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A unit of measure, in FOCUS's spelling.
    Unit,
    /// A national currency: this export writes dollars only.
    Currency,
    /// A moment in UTC.
    Time,
    /// A JSON object whose values are scalars.
    KeyValue,
    /// A JSON object.
    Object,
}

impl Kind {
    /// Whether its cells are numbers.
    pub const fn is_decimal(self) -> bool {
        matches!(self, Self::Decimal | Self::Price)
    }
}

/// One column of a table whose rows are `R`s.
#[derive(Debug)]
pub struct Column<R: 'static> {
    /// Its name in the file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// The field of a row.
    pub read: for<'a> fn(&'a R) -> Cell<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_moments_are_written_as_focus_wants_them() {
        assert_eq!(decimal(8_400_000 * Quantity::ONE), "8400000.0");
        assert_eq!(decimal(-1), "-0.000000000001");
        assert_eq!(decimal(0), "0.0");
        assert_eq!(date_time(Timestamp::from_ms(1_793_577_723_456)), "2026-11-02T00:02:03Z");
        assert_eq!(Cell::Null.written(), None);
    }
}
