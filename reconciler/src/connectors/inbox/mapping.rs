//! What the files of the inbox are: for each pattern of paths, whose bill it is, how its rows are read, and what
//! becomes of the file when a row is bad. Written by people, so every mistake is answered with its field and a remedy.
//!
//! ```
//! use tallygate_reconciler::connectors::inbox::mapping::Mapping;
//! let mapping = Mapping::parse(r#"{"files": [
//!   {"path": "groq/*.csv", "provider": "groq", "account": "acme", "bad_rows": "take_others",
//!    "format": {"csv": {
//!      "period": {"day": {"column": "Date", "format": "%Y-%m-%d"}},
//!      "amount": {"column": "Cost", "unit": "dollars", "currency": {"column": "Currency"}},
//!      "model": {"column": "Model"},
//!      "meter": {"column": {"name": "Item", "values": {"Input": "input", "Output": "output"}}},
//!      "quantity": {"column": "Tokens", "unit": {"fixed": "Tokens"}},
//!      "skip_rows": [{"column": "Item", "equals": ["Total"]}]}}},
//!   {"path": "google/*.csv", "provider": "google", "finer": "round", "format": {"focus": {}}}
//! ]}"#);
//! assert!(mapping.is_ok_and(|mapping| mapping.rule("groq/2026-11.csv").is_some()));
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::bill::{ChargeKind, Meter};

/// Why a mapping document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("inbox mapping: `{field}` {reason}")]
pub struct MappingError {
    /// The path of the field in the document.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

/// The mapping document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The rules. The first whose path matches a file is the file's.
    pub files: Vec<FileRule>,
}

/// What the files under one pattern of paths are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Path below `inbox/`: `google/*.csv`. `*` stands for any characters, `/` included, `?` for one.
    pub path: String,
    /// The provider, as the price book names it.
    pub provider: String,
    /// The billed account. FOCUS files name it themselves (`BillingAccountId`): then it may be left out.
    #[serde(default)]
    pub account: Option<String>,
    /// What becomes of a file with a bad row.
    #[serde(default)]
    pub bad_rows: BadRows,
    /// What becomes of an amount or quantity finer than 12 decimal places (exports that print binary fractions).
    #[serde(default)]
    pub finer: Finer,
    /// True when the files are drafts: their lines may still change.
    #[serde(default)]
    pub provisional: bool,
    /// How rows are read.
    pub format: Format,
}

/// What becomes of a file with a bad row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// Nothing of the file is taken until a person has mended it.
    #[default]
    Hold,
    /// The good rows are taken; the bad ones are named in the bill's notes.
    TakeOthers,
}

/// What becomes of a number with more than 12 decimal places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finer {
    /// The row is bad.
    #[default]
    Refuse,
    /// It is rounded half to even to 12 places, once, and the bill's notes count it.
    Round,
}

/// How rows are read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Format {
    /// CSV with a header line, its columns named by the mapping.
    Csv(Box<CsvFormat>),
    /// FOCUS 1.0 to 1.4, as CSV or Parquet.
    Focus(FocusFormat),
}

/// A CSV whose columns the mapping names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsvFormat {
    /// What stands between cells.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Lines before the header line.
    #[serde(default)]
    pub skip_lines: usize,
    /// True when numbers are written `12,50`.
    #[serde(default)]
    pub decimal_comma: bool,
    /// What groups digits (`1,234.50`), where something does.
    #[serde(default)]
    pub thousands: Option<char>,
    /// When a row's charge was.
    pub period: Period,
    /// What is billed.
    pub amount: AmountColumn,
    /// The amount before discounts, in the unit and currency of `amount`.
    #[serde(default)]
    pub list_amount: Option<String>,
    /// How much was measured.
    #[serde(default)]
    pub quantity: Option<QuantityColumn>,
    /// What was measured.
    #[serde(default = "whole")]
    pub meter: Choice<Meter>,
    /// What kind of charge.
    #[serde(default = "usage")]
    pub kind: Choice<ChargeKind>,
    /// The service.
    #[serde(default)]
    pub service: Option<Source>,
    /// The line in the provider's words.
    #[serde(default)]
    pub description: Option<Source>,
    /// The model.
    #[serde(default)]
    pub model: Option<Source>,
    /// The project.
    #[serde(default)]
    pub project: Option<Source>,
    /// The service tier.
    #[serde(default)]
    pub tier: Option<Source>,
    /// The invoice.
    #[serde(default)]
    pub invoice_id: Option<Source>,
    /// The provider's id of the API key.
    #[serde(default)]
    pub credential: Option<Source>,
    /// Tags: name to column.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Rows that are no charges (totals, blanks): a row is left out when the column reads one of these.
    #[serde(default)]
    pub skip_rows: Vec<SkipRows>,
}

/// Rows that are left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipRows {
    /// The column.
    pub column: String,
    /// What it reads, exactly. An empty text stands for an empty cell.
    pub equals: Vec<String>,
}

/// When a row's charge was. Formats are `strptime`'s (`%Y-%m-%d`, `%d.%m.%Y`, `%m/%d/%Y %H:%M`), or `rfc3339`,
/// `unix_seconds`, `unix_ms`. Times without an offset are UTC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Period {
    /// A day.
    Day {
        /// The column.
        column: String,
        /// How it is written.
        format: String,
    },
    /// A calendar month (`%Y-%m`).
    Month {
        /// The column.
        column: String,
        /// How it is written.
        format: String,
    },
    /// From one moment to another.
    Range {
        /// The column of the first.
        start: String,
        /// The column of the second.
        end: String,
        /// How both are written.
        format: String,
        /// True when `end` names the last day, false when it names the moment after.
        end_is_last_day: bool,
    },
    /// The same for every row: an invoice that states it once.
    Fixed {
        /// The first day, `YYYY-MM-DD`.
        start: String,
        /// The day after the last.
        end: String,
    },
}

/// What is billed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmountColumn {
    /// The column.
    pub column: String,
    /// What a 1 in it is.
    pub unit: AmountUnit,
    /// The currency. Anything but USD is refused.
    pub currency: Source,
}

/// What a 1 in an amount column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountUnit {
    /// A dollar.
    Dollars,
    /// A cent.
    Cents,
}

/// How much was measured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityColumn {
    /// The column.
    pub column: String,
    /// Its unit, as FOCUS writes units: `Tokens`, `1000 Tokens`, `Requests`.
    pub unit: Choice<String>,
}

/// A text: the same for all rows, or a column's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// The same for all rows.
    Fixed(String),
    /// The column's.
    Column(String),
}

/// One of a few: the same for all rows, or what a column's labels stand for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Choice<T> {
    /// The same for all rows.
    Fixed(T),
    /// By a column's label.
    Column {
        /// The column.
        name: String,
        /// What each label stands for.
        values: BTreeMap<String, T>,
        /// What all other labels stand for. Without it they make a row bad.
        #[serde(default = "none")]
        otherwise: Option<T>,
    },
}

/// A FOCUS file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FocusFormat {
    /// Which of its costs is the bill.
    #[serde(default)]
    pub cost: FocusCost,
    /// The column of the model, where it is none of the usual (`x_ModelId`, `x_Model`, `x_ModelName`, or the same
    /// keys in `SkuPriceDetails`).
    #[serde(default)]
    pub model_column: Option<String>,
    /// Providers by `ServiceProviderName`, for files of several. When given, other names make a row bad.
    #[serde(default)]
    pub providers: BTreeMap<String, String>,
}

/// Which of FOCUS's costs is the bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FocusCost {
    /// `BilledCost`: what the invoice says.
    #[default]
    Billed,
    /// `EffectiveCost`: purchases spread over the use they cover. Never take both for one account.
    Effective,
}

fn comma() -> char {
    ','
}

fn whole() -> Choice<Meter> {
    Choice::Fixed(Meter::Whole)
}

fn usage() -> Choice<ChargeKind> {
    Choice::Fixed(ChargeKind::Usage)
}

// `serde(default)` on a generic field would ask for `T: Default`.
fn none<T>() -> Option<T> {
    None
}

impl Mapping {
    /// Reads and checks a mapping document.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let mut from = serde_json::Deserializer::from_str(text);
        let mapping: Self = serde_path_to_error::deserialize(&mut from).map_err(|error| {
            let (field, reason) = (error.path().to_string(), error.inner().to_string());
            if error.inner().is_data() {
                return MappingError { field, reason };
            }
            MappingError { field: "document".into(), reason: format!("is no JSON: {reason}") }
        })?;
        from.end().map_err(|error| MappingError {
            field: "document".into(),
            reason: format!("goes on after its end: {error}"),
        })?;
        for (index, rule) in mapping.files.iter().enumerate() {
            rule.check().map_err(|(field, reason)| MappingError {
                field: format!("files[{index}].{field}"),
                reason,
            })?;
        }
        Ok(mapping)
    }

    /// The rule of a file, by its path below `inbox/`.
    pub fn rule(&self, path: &str) -> Option<&FileRule> {
        self.files.iter().find(|rule| wildmatch::WildMatch::new(&rule.path).matches(path))
    }
}

type Wrong = (String, String);

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> Result<(), Wrong> {
    Err((field.into(), reason.into()))
}

impl FileRule {
    /// Whose bills its files may have.
    pub fn providers(&self) -> BTreeSet<String> {
        match &self.format {
            Format::Focus(format) if !format.providers.is_empty() => {
                format.providers.values().cloned().collect()
            }
            _ => BTreeSet::from([self.provider.clone()]),
        }
    }

    fn check(&self) -> Result<(), Wrong> {
        if self.path.is_empty() || self.path.starts_with('/') || self.path.starts_with("inbox/") {
            return wrong("path", "is empty or absolute: write it below `inbox/`, `google/*.csv`");
        }
        if self.provider.trim().is_empty() {
            return wrong("provider", "is empty: name it as the price book does");
        }
        if self.account.as_deref().is_some_and(|account| account.trim().is_empty()) {
            return wrong(
                "account",
                "is empty: name the billed account, or leave it out for FOCUS",
            );
        }
        match &self.format {
            Format::Csv(_) if self.account.is_none() => {
                wrong("account", "is missing: a CSV file needs it, only FOCUS names its own")
            }
            Format::Csv(csv) => {
                csv.check().map_err(|(field, reason)| (format!("format.csv.{field}"), reason))
            }
            Format::Focus(_) => Ok(()),
        }
    }
}

impl CsvFormat {
    fn check(&self) -> Result<(), Wrong> {
        if !self.delimiter.is_ascii() || matches!(self.delimiter, '"' | '\n' | '\r') {
            return wrong("delimiter", "must be one ASCII character such as `,` `;` or a tab");
        }
        let decimal = if self.decimal_comma { ',' } else { '.' };
        let no_separator = |c: char| c == decimal || c.is_ascii_alphanumeric() || "+-".contains(c);
        if self.thousands.is_some_and(no_separator) {
            return wrong("thousands", "cannot be told from a number's own characters");
        }
        if let Source::Fixed(currency) = &self.amount.currency
            && !currency.eq_ignore_ascii_case("USD")
        {
            return wrong("amount.currency.fixed", "is not USD: convert the file to dollars first");
        }
        self.period.check()?;
        if let Some(quantity) = &self.quantity {
            let (units, otherwise) = match &quantity.unit {
                Choice::Fixed(unit) => (vec![unit], None),
                Choice::Column { values, otherwise, .. } => {
                    (values.values().collect(), otherwise.as_ref())
                }
            };
            if units.into_iter().chain(otherwise).any(|unit| unit_parts(unit).is_none()) {
                let how =
                    "must read `Tokens`, `1000 Tokens`, `Requests`: a count or none, and a name";
                return wrong("quantity.unit", how);
            }
        }
        if self.skip_rows.iter().any(|rows| rows.equals.is_empty()) {
            return wrong(
                "skip_rows",
                "has no `equals`: name the texts that mark rows to leave out",
            );
        }
        Ok(())
    }
}

impl Period {
    fn check(&self) -> Result<(), Wrong> {
        let format = match self {
            Self::Day { format, .. } | Self::Month { format, .. } | Self::Range { format, .. } => {
                format
            }
            Self::Fixed { start, end } => {
                let day = tallygate_shared::time::Date::parse;
                return match (day(start), day(end)) {
                    (Some(start), Some(end)) if start.days() < end.days() => Ok(()),
                    _ => wrong("period.fixed", "needs `start` before `end`, as `2026-10-01`"),
                };
            }
        };
        let named = matches!(format.as_str(), "rfc3339" | "unix_seconds" | "unix_ms");
        if named || format.contains('%') {
            Ok(())
        } else {
            let how = "must be `rfc3339`, `unix_seconds`, `unix_ms` or like `%Y-%m-%d`";
            wrong("period.format", how)
        }
    }
}

/// A unit's count and name: `1000 Tokens` is 1000 and `Tokens`, `Requests` is 1 and `Requests`.
pub(super) fn unit_parts(unit: &str) -> Option<(u64, &str)> {
    let (count, name) = match unit.split_once(' ') {
        Some((count, name)) if count.bytes().all(|b| b.is_ascii_digit()) => {
            (count.parse().ok().filter(|count| *count > 0)?, name)
        }
        _ => (1, unit),
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || " -/()".contains(c);
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(letters);
    (named && name.trim() == name).then_some((count, name))
}
