//! The price book: what a model costs, since when and under which conditions. Data and look-up; `rate.rs` applies it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::money::{MoneyError, Usd, parse_decimal};
use crate::time::{Date, Timestamp};

const BUILT_IN: &str = include_str!("prices.json");

/// One model's prices for a span of time. The same type is the book's row and a workspace's override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    /// The provider as the price book names it; in an override, the workspace's own name for it.
    pub provider: String,
    /// The model as the provider names it.
    pub model: String,
    /// `chat`, `responses`, `embedding`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Input and output together, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    /// Longest input, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_input_tokens: Option<u64>,
    /// Longest output, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// First day, UTC. Absent: in force when the book was made, since an unknown day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from: Option<Day>,
    /// First day on which it is no longer in force, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_to: Option<Day>,
    /// The day the provider takes the model away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_on: Option<Day>,
    /// The day by which somebody should look whether the price still holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_by: Option<Day>,
    /// The day the figures were read at their source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Day>,
    /// Prices by service tier: `standard`, `batch`, `flex`, `priority`, `ultrafast`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, Prices>,
    /// Prices of the whole request when its input is long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub long_context: Vec<LongContext>,
    /// Factors on the token cost, by condition: `inference_geo_us`, `speed_fast`, `regional_processing_us`, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub multipliers: BTreeMap<String, Multiplier>,
    /// Standard-tier prices of tokens that are not text: `input_audio`, `output_image`, `output_reasoning`, `citation`, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modalities: BTreeMap<String, Usd>,
    /// Fees by the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fees: Vec<Fee>,
    /// Cheaper hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_peak: Option<OffPeak>,
}

/// Prices in US dollars per million tokens. An absent one is unknown, not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Uncached input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Usd>,
    /// Output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Usd>,
    /// Input read from the prompt cache. Absent: such input costs what other input costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<Usd>,
    /// Input written to the prompt cache, by lifetime (`5m`, `30m`, `1h`, `12h`). Empty: not billed apart from input.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cache_write: BTreeMap<String, Usd>,
}

/// Prices that replace all others of the request when its input is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LongContext {
    /// The number of input tokens, cache reads and writes included.
    pub threshold_tokens: u64,
    /// Whether the threshold itself is long already.
    #[serde(default)]
    pub at_threshold: bool,
    /// The prices, by service tier.
    pub prices: BTreeMap<String, Prices>,
}

/// A fee by the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Fee {
    /// What is counted.
    pub call: Call,
    /// How many of it the price is for, for example 1,000.
    pub per: u64,
    /// The price, by search context size, or under `any`.
    pub usd: BTreeMap<String, Usd>,
}

/// What a fee is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "FeeCall"))]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// A web search on the provider's side.
    WebSearch,
    /// A query to the provider's maps.
    Maps,
    /// The request itself.
    Request,
    /// A search query (Perplexity deep research).
    SearchQuery,
    /// A search unit (Cohere).
    SearchUnit,
    /// A second of audio.
    AudioSecond,
}

/// Cheaper hours, by the time of the request in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OffPeak {
    /// The prices in these hours; what is absent stays as it is.
    pub prices: Prices,
    /// The hours.
    pub windows: Vec<Window>,
}

/// A span of the day on some weekdays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "PriceHours"))]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// ISO weekdays: 1 is Monday.
    pub weekdays: Vec<u8>,
    /// First minute of the day, UTC.
    pub from_minute: u32,
    /// First minute that is outside, up to 1440.
    pub to_minute: u32,
}

/// A factor, in millionths: 1.1 is 1,100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(schemars::JsonSchema),
    schemars(description = "A factor as decimal text: \"1.1\".")
)]
#[serde(try_from = "String", into = "String")]
pub struct Multiplier(i128);

impl Multiplier {
    /// One, in this unit.
    pub const ONE: i128 = 1_000_000;

    /// The factor in millionths.
    pub const fn millionths(self) -> i128 {
        self.0
    }
}

impl TryFrom<String> for Multiplier {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        let millionths = parse_decimal(&text, 6)?;
        // A factor outside 0..=1000 is a typing error, and would overflow what it multiplies.
        if (0..=1000 * Self::ONE).contains(&millionths) {
            Ok(Self(millionths))
        } else {
            Err(MoneyError::TooLarge)
        }
    }
}

impl From<Multiplier> for String {
    fn from(factor: Multiplier) -> Self {
        // Millionths of a factor print like picodollars of an amount, six places further left.
        Usd::from_pico(factor.0 * 1_000_000).to_string()
    }
}

/// A day, `YYYY-MM-DD`, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Day(Date);

/// A text that is no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a day of the form YYYY-MM-DD")]
pub struct DayError;

impl Day {
    /// Midnight UTC at its start.
    pub fn start(self) -> Timestamp {
        self.0.midnight()
    }
}

impl TryFrom<String> for Day {
    type Error = DayError;

    fn try_from(text: String) -> Result<Self, DayError> {
        Date::parse(&text).map(Self).ok_or(DayError)
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.0.to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a row cannot be used: the field and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct RowError {
    /// The field.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: &'static str,
}

impl PriceRow {
    /// Whether the row is in force at this moment.
    pub fn is_effective(&self, at: Timestamp) -> bool {
        self.effective_from.is_none_or(|day| day.start() <= at)
            && self.effective_to.is_none_or(|day| at < day.start())
    }

    /// Whether the row can price anything, and nothing below zero.
    pub fn validate(&self) -> Result<(), RowError> {
        let fail = |field: &str, problem| Err(RowError { field: field.to_owned(), problem });
        if self.provider.is_empty() || self.model.is_empty() {
            return fail("model", "and `provider` must be named");
        }
        if self.prices.is_empty() && self.fees.is_empty() {
            return fail("prices", "must have a tier such as `standard`, or there must be `fees`");
        }
        if self.effective_from.zip(self.effective_to).is_some_and(|(from, to)| from >= to) {
            return fail("effective_to", "must be a later day than `effective_from`");
        }
        let tiers =
            self.prices.values().chain(self.long_context.iter().flat_map(|l| l.prices.values()));
        let amounts = tiers
            .flat_map(|p| {
                [p.input, p.output, p.cache_read]
                    .into_iter()
                    .flatten()
                    .chain(p.cache_write.values().copied())
            })
            .chain(self.modalities.values().copied())
            .chain(self.fees.iter().flat_map(|fee| fee.usd.values().copied()));
        for amount in amounts {
            // $10,000 per million tokens: a hundred times the dearest model. Beyond, a unit was mixed up.
            if amount.is_negative() || amount > Usd::from_pico(10_000 * crate::money::PICO_PER_USD)
            {
                return fail("prices", "must be from 0 to 10000 USD per million tokens");
            }
        }
        if self.fees.iter().any(|fee| fee.per == 0 || fee.usd.is_empty()) {
            return fail("fees", "must say `per` how many (at least 1) and at which `usd`");
        }
        Ok(())
    }
}

/// The book that the gateway ships with.
#[derive(Debug)]
pub struct PriceBook {
    version: String,
    rows: Vec<PriceRow>,
    index: HashMap<String, Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookFile {
    version: String,
    #[serde(rename = "currency")]
    _currency: String,
    #[serde(rename = "unit")]
    _unit: String,
    rows: Vec<PriceRow>,
}

/// A price book that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("price book: {0}")]
pub struct PriceBookError(String);

impl PriceBook {
    /// The book of this build, read once.
    pub fn built_in() -> Result<&'static Self, PriceBookError> {
        static BOOK: OnceLock<Result<PriceBook, PriceBookError>> = OnceLock::new();
        BOOK.get_or_init(|| Self::parse(BUILT_IN)).as_ref().map_err(Clone::clone)
    }

    /// Reads a book from its JSON text.
    pub fn parse(text: &str) -> Result<Self, PriceBookError> {
        let file: BookFile =
            serde_json::from_str(text).map_err(|e| PriceBookError(e.to_string()))?;
        let mut index: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, row) in file.rows.iter().enumerate() {
            index.entry(index_key(&row.provider, &row.model)).or_default().push(place);
        }
        Ok(Self { version: file.version, rows: file.rows, index })
    }

    /// The book's version; usage events carry it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Every row.
    pub fn rows(&self) -> &[PriceRow] {
        &self.rows
    }

    /// The row of a model at a moment. A dated name (`gpt-4o-2024-08-06`) without a row of its own has the undated one's.
    pub fn find(&self, provider: &str, model: &str, at: Timestamp) -> Option<&PriceRow> {
        self.exact(provider, model, at).or_else(|| self.exact(provider, without_date(model)?, at))
    }

    fn exact(&self, provider: &str, model: &str, at: Timestamp) -> Option<&PriceRow> {
        let places = self.index.get(&index_key(provider, model))?;
        places.iter().filter_map(|place| self.rows.get(*place)).find(|row| row.is_effective(at))
    }

    /// A provider's models at a moment.
    pub fn of_provider<'a>(
        &'a self,
        provider: &'a str,
        at: Timestamp,
    ) -> impl Iterator<Item = &'a PriceRow> {
        self.rows.iter().filter(move |row| row.provider == provider && row.is_effective(at))
    }
}

fn index_key(provider: &str, model: &str) -> String {
    format!("{provider}/{model}")
}

/// The name without `-YYYY-MM-DD` or `-YYYYMMDD` at its end.
fn without_date(model: &str) -> Option<&str> {
    let dashed = model.len().checked_sub(11).and_then(|at| model.split_at_checked(at));
    if let Some((name, date)) = dashed
        && let Some(date) = date.strip_prefix('-')
        && Date::parse(date).is_some()
    {
        return Some(name);
    }
    let (name, date) = model.split_at_checked(model.len().checked_sub(9)?)?;
    let digits = date.strip_prefix('-').filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    (digits.starts_with("20") && !name.is_empty()).then_some(name)
}

/// Whether a name's meaning moves: what it costs tomorrow is not what it costs today.
pub fn is_floating_alias(model: &str) -> bool {
    model.ends_with("-latest") || matches!(model, "auto" | "openrouter/auto" | "latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> Timestamp {
        Timestamp::parse(day).unwrap()
    }

    #[test]
    fn the_built_in_book_is_whole_and_valid() {
        let book = PriceBook::built_in().unwrap();
        assert_eq!(book.rows().len(), 123);
        for row in book.rows() {
            row.validate().unwrap_or_else(|e| panic!("{}/{}: {e}", row.provider, row.model));
        }
    }

    #[test]
    fn no_two_rows_of_a_model_are_in_force_at_once() {
        let book = PriceBook::built_in().unwrap();
        for day in ["2026-10-06", "2026-10-07", "2026-11-20", "2027-01-01"] {
            let mut seen = std::collections::HashSet::new();
            for row in book.rows().iter().filter(|row| row.is_effective(at(day))) {
                assert!(seen.insert((&row.provider, &row.model)), "{} on {day}", row.model);
            }
        }
    }

    #[test]
    fn a_row_is_found_by_name_date_and_provider() {
        let book = PriceBook::built_in().unwrap();
        let cache_read = |day: &str| {
            let row = book.find("anthropic", "claude-sonnet-5-5", at(day)).unwrap();
            row.prices.get("standard").unwrap().cache_read.unwrap().to_string()
        };
        assert_eq!(cache_read("2026-10-06"), "0.2");
        assert_eq!(cache_read("2026-10-07"), "0.1");
        let now = at("2026-11-20");
        assert!(book.find("openai", "gpt-4o-2024-08-06", now).is_some());
        assert!(book.find("anthropic", "claude-haiku-4-5-20251001", now).is_some());
        for unknown in ["gpt-99", "GPT-6-LUNA", "gpt-6-luna-2024", "", "-20240101"] {
            assert!(book.find("openai", unknown, now).is_none(), "{unknown}");
        }
        assert!(book.find("groq", "gpt-6-luna", now).is_none());
    }

    #[test]
    fn a_moving_name_is_known_as_one() {
        for moving in ["mistral-large-latest", "chatgpt-4o-latest", "auto"] {
            assert!(is_floating_alias(moving), "{moving}");
        }
        for fixed in ["gpt-6-luna", "claude-haiku-4-5-20251001"] {
            assert!(!is_floating_alias(fixed), "{fixed}");
        }
    }

    #[test]
    fn a_row_with_a_bad_field_names_it() {
        let check = |json: &str, field: &str| {
            let row: PriceRow = serde_json::from_str(json).unwrap();
            assert_eq!(row.validate().unwrap_err().field, field, "{json}");
        };
        check(r#"{"provider":"a","model":""}"#, "model");
        check(r#"{"provider":"a","model":"b"}"#, "prices");
        check(r#"{"provider":"a","model":"b","prices":{"standard":{"input":"-1"}}}"#, "prices");
        check(r#"{"provider":"a","model":"b","prices":{"standard":{"input":"10001"}}}"#, "prices");
        check(
            r#"{"provider":"a","model":"b","prices":{"standard":{}},
                "effective_from":"2026-01-02","effective_to":"2026-01-02"}"#,
            "effective_to",
        );
        assert!(
            serde_json::from_str::<PriceRow>(r#"{"provider":"a","model":"b","price":1}"#).is_err()
        );
    }
}
