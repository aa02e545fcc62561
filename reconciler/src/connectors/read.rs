//! How connectors read kept answers: amounts from their source text and only of the documented JSON type, times in UTC,
//! and errors that name the field. Pure. A missing, mistyped or unknown value is an error here and never a 0.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tallygate_shared::money::{MoneyError, Usd, div_half_even, parse_decimal};
use tallygate_shared::time::{Date, Timestamp};

use super::{Days, PullError};
use crate::bill::Quantity;

/// Decimal places of [`Usd`] and [`Quantity`].
const PLACES: usize = 12;
/// An error repeats no more than this of what came.
const LONGEST_REASON: usize = 240;

/// Money as a JSON **number of dollars**.
///
/// Such numbers are binary floats at the source, so some have more digits than money has. What is finer than a
/// picodollar is rounded half to even, and `rounded` says so: a bill with such amounts carries a note ([`Rounded`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dollars {
    /// The amount.
    pub usd: Usd,
    /// True when the source had more than 12 decimals.
    pub rounded: bool,
}

/// Money as a JSON **number of cents**, whole or not. Rounded as [`Dollars`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cents {
    /// The amount.
    pub usd: Usd,
    /// True when the source had more than 10 decimals.
    pub rounded: bool,
}

/// Money as **decimal text of dollars**. Finer than a picodollar is an error: text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DollarsText(pub Usd);

/// Money as **decimal text of cents**. Finer than a picodollar is an error: text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CentsText(pub Usd);

/// A count as a JSON **number**. Digits beyond 1e-12 are a float's noise and are rounded half to even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub Quantity);

/// A count as **decimal text**.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountText(pub Quantity);

/// A moment as RFC 3339 text in UTC (`Z` or `+00:00`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc(pub Timestamp);

/// A moment as a JSON integer of seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub Timestamp);

/// A day as text, `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub Date);

/// The day after `day`.
pub fn next_day(day: Date) -> Date {
    Date::from_days(day.days().saturating_add(1))
}

/// Reads a decimal text into units of `10^-places`, rounding half to even, once, what is finer. Says if it did.
pub fn parse_rounded(text: &str, places: usize) -> Result<(i128, bool), MoneyError> {
    let mut outcome = parse_decimal(text, places).map(|value| (value, false));
    // A double has 17 significant digits; residues of sums go down to some 1e-23, so 48 places hold all of them.
    for more in [12_u32, 24, 36] {
        if outcome != Err(MoneyError::TooPrecise) {
            break;
        }
        let finer = parse_decimal(text, places.saturating_add(more as usize));
        outcome = match (finer, 10_i128.checked_pow(more)) {
            (Ok(value), Some(power)) => Ok((div_half_even(value, power), true)),
            _ => Err(MoneyError::TooPrecise),
        };
    }
    outcome
}

/// The source text of a JSON number.
pub fn number_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Ok(text.to_owned()),
        Some(b'"') => Err(D::Error::custom("is text where a number is documented")),
        Some(b'n') => Err(D::Error::custom("is null where a number is documented")),
        _ => Err(D::Error::custom("is no number")),
    }
}

/// The content of a JSON string that holds a decimal number.
pub fn decimal_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_err(D::Error::custom),
        Some(b'-' | b'0'..=b'9') => {
            Err(D::Error::custom("is a number where decimal text is documented"))
        }
        Some(b'n') => Err(D::Error::custom("is null where decimal text is documented")),
        _ => Err(D::Error::custom("is no decimal text")),
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (pico, rounded) =
            parse_rounded(&number_text(from)?, PLACES).map_err(D::Error::custom)?;
        Ok(Self { usd: Usd::from_pico(pico), rounded })
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // A cent at ten places is a dollar at twelve.
        let (pico, rounded) =
            parse_rounded(&number_text(from)?, PLACES - 2).map_err(D::Error::custom)?;
        Ok(Self { usd: Usd::from_pico(pico), rounded })
    }
}

impl<'de> Deserialize<'de> for DollarsText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        decimal_text(from)?.parse().map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for CentsText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let pico = parse_decimal(&decimal_text(from)?, PLACES - 2).map_err(D::Error::custom)?;
        Ok(Self(Usd::from_pico(pico)))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (pico, _) = parse_rounded(&number_text(from)?, PLACES).map_err(D::Error::custom)?;
        Ok(Self(Quantity::from_pico(pico)))
    }
}

impl<'de> Deserialize<'de> for AmountText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Quantity::parse(&decimal_text(from)?).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let zulu = text.strip_suffix("+00:00").map(|local| format!("{local}Z"));
        let zulu = zulu.as_deref().unwrap_or(&text);
        zulu.contains('T').then(|| Timestamp::parse(zulu)).flatten().map(Self).ok_or_else(|| {
            D::Error::custom("is no time in UTC by RFC 3339, such as \"2026-11-20T00:00:00Z\"")
        })
    }
}

impl<'de> Deserialize<'de> for UnixSeconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = i64::deserialize(from)?;
        let ms = seconds.checked_mul(1000);
        ms.map(|ms| Self(Timestamp::from_ms(ms)))
            .ok_or_else(|| D::Error::custom("is no time in seconds since 1970"))
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Date::parse(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("is no day, such as \"2026-11-20\""))
    }
}

/// Reads one answer and says where in it something is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    source: &'static str,
    what: &'a str,
}

impl<'a> Reader<'a> {
    /// For the answer called `what` of a source.
    pub const fn new(source: &'static str, what: &'a str) -> Self {
        Self { source, what }
    }

    /// Reads a whole JSON body.
    pub fn json<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, PullError> {
        self.json_at("", body)
    }

    /// Reads JSON that is a part of the answer, such as one line of many: `at` names the part.
    pub fn json_at<T: DeserializeOwned>(&self, at: &str, body: &[u8]) -> Result<T, PullError> {
        // Some servers put a byte order mark before it.
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        if body.starts_with(b"\x1F\x8B") {
            let reason = "is packed, which was not asked for: look for a proxy in between";
            return Err(self.wrong(at, reason));
        }
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            None => return Err(self.wrong(at, "is empty")),
            Some(b'<') => {
                return Err(self.wrong(
                    at,
                    "is HTML or XML and no JSON: a login page or a proxy has answered; check the address",
                ));
            }
            Some(_) => {}
        }
        let mut from = serde_json::Deserializer::from_slice(body);
        let value = serde_path_to_error::deserialize(&mut from).map_err(|error| {
            let path = match (at, error.path().to_string().as_str()) {
                (at, ".") => at.to_owned(),
                ("", path) => path.to_owned(),
                (at, path) => format!("{at}.{path}"),
            };
            self.json_error(&path, error.inner())
        })?;
        from.end().map_err(|error| self.json_error(at, &error))?;
        Ok(value)
    }

    fn json_error(&self, path: &str, error: &serde_json::Error) -> PullError {
        if error.is_eof() {
            return self.wrong(path, "ends in the middle: a part of the answer is missing");
        }
        let reason = error.to_string();
        let reason = match reason.char_indices().nth(LONGEST_REASON) {
            Some((end, _)) => format!("{}...", reason.get(..end).unwrap_or_default()),
            None => reason,
        };
        self.wrong(path, reason)
    }

    /// The error for a field that says something else than documented. An empty path is the answer as a whole.
    pub fn wrong(&self, field: &str, reason: impl Into<String>) -> PullError {
        PullError::Unreadable {
            source_name: self.source.into(),
            what: self.what.into(),
            field: if field.is_empty() { "the answer".into() } else { field.into() },
            reason: reason.into(),
        }
    }

    /// Refuses a period that is not within the asked days, or that ends before it begins.
    pub fn within(
        &self,
        days: Days,
        start: Timestamp,
        end: Timestamp,
        field: &str,
    ) -> Result<(), PullError> {
        if start < days.start() || end > days.end() || start >= end {
            let asked = format!("{}..{}", days.from, days.to);
            return Err(
                self.wrong(field, format!("has the period {start}..{end}, and {asked} was asked"))
            );
        }
        Ok(())
    }

    /// As [`Reader::within`], and refuses a period that is not within one day too: what is billed belongs to a day.
    pub fn within_a_day(
        &self,
        days: Days,
        start: Timestamp,
        end: Timestamp,
        field: &str,
    ) -> Result<(), PullError> {
        self.within(days, start, end, field)?;
        if end > next_day(start.date()).midnight() {
            return Err(self.wrong(
                field,
                format!("has the period {start}..{end}, which is longer than its day"),
            ));
        }
        Ok(())
    }

    /// Refuses an answer in buckets that lacks one of the days. A day on which nothing was used has an empty bucket, so an
    /// answer without it is cut short: read as "no charges", it would take back what was billed before.
    pub fn each_day(
        &self,
        days: Days,
        has: impl Fn(Date) -> bool,
        field: &str,
    ) -> Result<(), PullError> {
        match days.each().find(|day| !has(*day)) {
            Some(day) => Err(self.wrong(field, format!("does not have {day}"))),
            None => Ok(()),
        }
    }

    /// Refuses any currency but US dollars, in whatever case.
    pub fn us_dollars(&self, currency: &str, field: &str) -> Result<(), PullError> {
        if currency.eq_ignore_ascii_case("usd") {
            return Ok(());
        }
        let name: String = currency.chars().take(8).collect();
        Err(self.wrong(
            field,
            format!(
                "is `{name}`, and only USD is kept in these books: convert it in an inbox file"
            ),
        ))
    }
}

/// How OpenAI and Anthropic say where the next page is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Paged {
    has_more: bool,
    next_page: Option<String>,
}

impl Paged {
    /// The next page's cursor, `None` on the last page. An error when there are more pages and no cursor.
    pub fn next(&self, reader: &Reader<'_>) -> Result<Option<&str>, PullError> {
        match (self.has_more, self.next_page.as_deref()) {
            (true, None | Some("")) => {
                Err(reader.wrong("next_page", "is missing, and `has_more` is true"))
            }
            (true, cursor) => Ok(cursor),
            (false, _) => Ok(None),
        }
    }
}

/// Checks that each list of pages is whole: the last page says that it is the last, and none comes after it.
#[derive(Debug)]
pub struct Lists<'a> {
    source: &'static str,
    more: BTreeMap<&'a str, bool>,
}

impl<'a> Lists<'a> {
    /// For the pages of one pull.
    pub const fn new(source: &'static str) -> Self {
        Self { source, more: BTreeMap::new() }
    }

    /// Takes note of a page of the list `label`, and whether it says that more follow.
    pub fn page(&mut self, label: &'a str, more: bool) -> Result<(), PullError> {
        match self.more.insert(label, more) {
            Some(false) => {
                Err(Reader::new(self.source, label).wrong("", "has a page after its last page"))
            }
            Some(true) | None => Ok(()),
        }
    }

    /// Refuses lists that go on, and expected ones that did not come at all.
    pub fn finish<'e>(self, expected: impl IntoIterator<Item = &'e str>) -> Result<(), PullError> {
        for label in expected {
            if !self.more.contains_key(label) {
                return Err(Reader::new(self.source, label).wrong("", "is missing in the pull"));
            }
        }
        match self.more.iter().find(|(_, more)| **more) {
            Some((label, _)) => Err(Reader::new(self.source, label)
                .wrong("", "says that more pages follow, and they are missing in the pull")),
            None => Ok(()),
        }
    }
}

/// Counts amounts that had more digits than money has, for a note on the bill.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounded(u64);

impl Rounded {
    /// Takes an amount, noting whether it was rounded.
    pub fn dollars(&mut self, amount: Dollars) -> Usd {
        self.0 = self.0.saturating_add(u64::from(amount.rounded));
        amount.usd
    }

    /// Takes an amount, noting whether it was rounded.
    pub fn cents(&mut self, amount: Cents) -> Usd {
        self.0 = self.0.saturating_add(u64::from(amount.rounded));
        amount.usd
    }

    /// What to say about it, if anything.
    pub fn note(self, source: &str) -> Option<String> {
        (self.0 > 0).then(|| {
            format!(
                "{source}: {} amounts came as floats with more than 12 decimals of a dollar and were rounded half to \
                 even to the picodollar",
                self.0
            )
        })
    }
}

#[cfg(test)]
mod tests;
