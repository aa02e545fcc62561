//! Rating: what a tally costs at a row. The one function for holds, settlements and the reconciler.
//!
//! Money is multiplied exactly and rounded once for each component, half to even, to the nanodollar. Whatever has no
//! price is an error: the caller then refuses, or charges the hold, but never 0.

use serde::{Deserialize, Serialize};

use super::price_book::{Call, Fee, Multiplier, PriceBook, PriceRow, Prices};
use crate::money::{Usd, div_half_even};
use crate::time::Timestamp;
use crate::tokens::{Calls, Tally, Tokens};

/// Prices are per this many tokens.
const TOKENS_PER_PRICE: i128 = 1_000_000;
const MS_PER_MINUTE: i64 = 60_000;

/// What something cost, in parts that add up to the total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The sum of the parts.
    pub total: Usd,
    /// The parts.
    pub parts: CostParts,
    /// The price that was applied.
    pub price: PriceRef,
}

/// The components of a cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CostParts {
    /// Uncached input.
    #[serde(skip_serializing_if = "is_zero")]
    pub input: Usd,
    /// Input read from the cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read: Usd,
    /// Input written to the cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write: Usd,
    /// Output without reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub output: Usd,
    /// Reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning: Usd,
    /// Fees by the call, and citations.
    #[serde(skip_serializing_if = "is_zero")]
    pub calls: Usd,
    /// Tokens at other models' prices.
    #[serde(skip_serializing_if = "is_zero")]
    pub other_models: Usd,
    /// The provider's own statement of the whole, where it makes one. Then it is the only part.
    #[serde(skip_serializing_if = "is_zero")]
    pub stated: Usd,
}

/// Which price was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PriceRef {
    /// `provider/model` of the row.
    pub row: String,
    /// The version of the built-in book.
    pub book: String,
    /// The service tier.
    pub tier: String,
    /// Whether the long-context prices applied.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub long_context: bool,
    /// The multipliers that applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub multipliers: Vec<String>,
}

/// Why something cannot be rated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// The row has no price for this service tier.
    #[error("no price for the service tier `{tier}`")]
    TierUnpriced {
        /// The tier.
        tier: String,
    },
    /// The row has no price for tokens of this kind.
    #[error("no price for `{bucket}` tokens in this tier")]
    BucketUnpriced {
        /// The kind.
        bucket: &'static str,
    },
    /// Something was called that has no fee in the row.
    #[error("no fee for `{call:?}`")]
    CallUnpriced {
        /// What.
        call: Call,
    },
    /// Tokens of another model that has no price.
    #[error("no price for the model `{model}`")]
    ModelUnpriced {
        /// The model.
        model: String,
    },
    /// The amount does not fit.
    #[error("the cost does not fit")]
    Overflow,
}

impl RateError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TierUnpriced { .. } => "tier_unpriced",
            Self::BucketUnpriced { .. } => "bucket_unpriced",
            Self::CallUnpriced { .. } => "call_unpriced",
            Self::ModelUnpriced { .. } => "model_unpriced",
            Self::Overflow => "cost_overflow",
        }
    }
}

fn is_zero(usd: &Usd) -> bool {
    *usd == Usd::ZERO
}

impl CostParts {
    /// The parts with their names, in a fixed order.
    pub fn named(&self) -> [(&'static str, Usd); 8] {
        [
            ("input", self.input),
            ("cache-read", self.cache_read),
            ("cache-write", self.cache_write),
            ("output", self.output),
            ("reasoning", self.reasoning),
            ("calls", self.calls),
            ("other-models", self.other_models),
            ("stated", self.stated),
        ]
    }

    fn total(&self) -> Result<Usd, RateError> {
        let mut parts = self.named().into_iter();
        parts.try_fold(Usd::ZERO, |sum, (_, part)| sum.checked_add(part)).ok_or(RateError::Overflow)
    }
}

/// What `tally` costs at `row`, for a request made at `at`. `region` is where inference ran, if the provider's
/// configuration says so (`us`, `eu`).
pub fn rate(
    row: &PriceRow,
    tally: &Tally,
    at: Timestamp,
    region: Option<&str>,
) -> Result<Cost, RateError> {
    rate_with(row, tally, at, region, |_| None)
}

/// The cost that a provider itself states it charged. It needs no price.
pub fn rate_stated(row: String, stated: Usd) -> Cost {
    let stated = stated.round_to_nanos();
    let book = PriceBook::built_in().map(|book| book.version().to_owned()).unwrap_or_default();
    let price = PriceRef { row, book, tier: "stated".to_owned(), ..PriceRef::default() };
    Cost { total: stated, parts: CostParts { stated, ..CostParts::default() }, price }
}

/// As [`rate`]; `other` finds the rows of other models that took part in the same request.
pub fn rate_with<'a>(
    row: &PriceRow,
    tally: &Tally,
    at: Timestamp,
    region: Option<&str>,
    other: impl Fn(&str) -> Option<&'a PriceRow>,
) -> Result<Cost, RateError> {
    let tier = tier_of(tally.service_tier.as_deref());
    let mut price = PriceRef {
        row: format!("{}/{}", row.provider, row.model),
        book: PriceBook::built_in().map(|book| book.version().to_owned()).unwrap_or_default(),
        tier: tier.to_owned(),
        ..PriceRef::default()
    };
    if let Some(stated) = tally.stated_cost {
        return Ok(rate_stated(price.row, stated));
    }
    let mut parts = CostParts::default();
    if tally.tokens.total() > 0 || row.fees.is_empty() {
        let (prices, long_context) = prices_of(row, tier, tally.tokens.input_total(), at)?;
        let factor = factor_of(row, tally, region, &mut price.multipliers)?;
        price.long_context = long_context;
        parts = token_parts(row, &prices, tier, &tally.tokens, &factor)?;
    }
    let size = tally.search_context_size.as_deref();
    let fees = fees(&row.fees, &tally.calls, size)?;
    parts.calls = parts.calls.checked_add(fees).ok_or(RateError::Overflow)?;
    for entry in &tally.other_models {
        let unpriced = || RateError::ModelUnpriced { model: entry.model.clone() };
        let row = other(&entry.model).ok_or_else(unpriced)?;
        let tokens = Tally { tokens: entry.tokens, ..without_tokens(tally) };
        let cost = rate(row, &tokens, at, region)?;
        parts.other_models =
            parts.other_models.checked_add(cost.total).ok_or(RateError::Overflow)?;
    }
    Ok(Cost { total: parts.total()?, parts, price })
}

/// The conditions of a tally without what it consumed.
fn without_tokens(tally: &Tally) -> Tally {
    Tally {
        service_tier: tally.service_tier.clone(),
        inference_geo: tally.inference_geo.clone(),
        speed: tally.speed.clone(),
        ..Tally::default()
    }
}

/// The price book's name of a service tier, from what providers call it. An unknown one stays as it is and has no price.
fn tier_of(stated: Option<&str>) -> &str {
    match stated {
        None | Some("" | "default" | "standard" | "auto" | "on_demand" | "ON_DEMAND") => "standard",
        Some("fast" | "ON_DEMAND_PRIORITY" | "priority_on_demand") => "priority",
        Some("ON_DEMAND_FLEX") => "flex",
        Some(other) => other,
    }
}

/// The prices of a tier for an input of this length at this time, and whether they are the long-context ones.
fn prices_of(
    row: &PriceRow,
    tier: &str,
    input: u64,
    at: Timestamp,
) -> Result<(Prices, bool), RateError> {
    let unpriced = || RateError::TierUnpriced { tier: tier.to_owned() };
    let is_long =
        |threshold: u64, inclusive: bool| input > threshold || (inclusive && input == threshold);
    let long = row
        .long_context
        .iter()
        .filter(|long| is_long(long.threshold_tokens, long.at_threshold))
        .max_by_key(|long| long.threshold_tokens);
    let tiers = long.map_or(&row.prices, |long| &long.prices);
    let mut prices = tiers.get(tier).ok_or_else(unpriced)?.clone();
    if tier == "standard"
        && long.is_none()
        && let Some(off_peak) = &row.off_peak
        && off_peak.windows.iter().any(|window| window.contains(at))
    {
        let cheap = &off_peak.prices;
        prices.input = cheap.input.or(prices.input);
        prices.output = cheap.output.or(prices.output);
        prices.cache_read = cheap.cache_read.or(prices.cache_read);
    }
    Ok((prices, long.is_some()))
}

impl super::price_book::Window {
    fn contains(&self, at: Timestamp) -> bool {
        let minute = at.ms_of_day() / MS_PER_MINUTE;
        self.weekdays.contains(&at.iso_weekday())
            && (i64::from(self.from_minute)..i64::from(self.to_minute)).contains(&minute)
    }
}

/// A product of multipliers as a fraction: numerator and denominator.
#[derive(Clone, Copy)]
struct Factor {
    numerator: i128,
    denominator: i128,
}

impl Factor {
    const ONE: Self = Self { numerator: 1, denominator: 1 };

    fn times(self, multiplier: Multiplier) -> Result<Self, RateError> {
        let numerator = self.numerator.checked_mul(multiplier.millionths());
        let denominator = self.denominator.checked_mul(Multiplier::ONE);
        let (numerator, denominator) = numerator.zip(denominator).ok_or(RateError::Overflow)?;
        Ok(Self { numerator, denominator })
    }
}

/// The multipliers that hold for this request. They apply to tokens, not to fees.
fn factor_of(
    row: &PriceRow,
    tally: &Tally,
    region: Option<&str>,
    applied: &mut Vec<String>,
) -> Result<Factor, RateError> {
    let conditions = [
        ("inference_geo_us", tally.inference_geo.as_deref() == Some("us")),
        ("speed_fast", tally.speed.as_deref() == Some("fast")),
        ("regional_processing_us", region == Some("us")),
        ("regional_processing_eu", region == Some("eu")),
        ("us_regional_endpoint", region == Some("us")),
    ];
    let mut factor = Factor::ONE;
    for (name, holds) in conditions {
        if let Some(multiplier) = row.multipliers.get(name).filter(|_| holds) {
            factor = factor.times(*multiplier)?;
            applied.push(name.to_owned());
        }
    }
    Ok(factor)
}

/// An exact sum of tokens times prices, rounded when it is turned into money.
struct Sum<'a> {
    factor: &'a Factor,
    total: i128,
}

impl Sum<'_> {
    fn add(&mut self, tokens: u64, price: Usd) -> Result<(), RateError> {
        let product = i128::from(tokens).checked_mul(price.pico());
        let total = product.and_then(|product| self.total.checked_add(product));
        self.total = total.ok_or(RateError::Overflow)?;
        Ok(())
    }

    /// Rounds once: picodollars x multiplier / (tokens of a price x denominator x picodollars of a nanodollar).
    fn usd(&self) -> Result<Usd, RateError> {
        let numerator = self.total.checked_mul(self.factor.numerator).ok_or(RateError::Overflow)?;
        let denominator = TOKENS_PER_PRICE
            .checked_mul(self.factor.denominator)
            .and_then(|d| d.checked_mul(crate::money::PICO_PER_NANO))
            .ok_or(RateError::Overflow)?;
        let nanos = div_half_even(numerator, denominator);
        let pico = nanos.checked_mul(crate::money::PICO_PER_NANO).ok_or(RateError::Overflow)?;
        // What is charged must fit the ledger's 64-bit nanodollars: 9 billion dollars for one request do.
        if i64::try_from(nanos).is_err() {
            return Err(RateError::Overflow);
        }
        Ok(Usd::from_pico(pico))
    }
}

/// The price of one bucket of tokens that are not plain text input or output: its own, else the text's.
fn modality(
    row: &PriceRow,
    tier: &str,
    name: &'static str,
    text: Option<Usd>,
) -> Result<Usd, RateError> {
    match row.modalities.get(name) {
        // Such prices are known for the standard tier only.
        Some(_) if tier != "standard" => Err(RateError::BucketUnpriced { bucket: name }),
        Some(price) => Ok(*price),
        None => text.ok_or(RateError::BucketUnpriced { bucket: name }),
    }
}

fn token_parts(
    row: &PriceRow,
    prices: &Prices,
    tier: &str,
    tokens: &Tokens,
    factor: &Factor,
) -> Result<CostParts, RateError> {
    // One entry a bucket: how many, at what price. A bucket without tokens needs no price.
    type Bucket<'a> = (u64, &'a dyn Fn() -> Result<Usd, RateError>);
    let part = |buckets: &[Bucket<'_>]| -> Result<Usd, RateError> {
        let mut sum = Sum { factor, total: 0 };
        for (count, price) in buckets {
            if *count > 0 {
                sum.add(*count, price()?)?;
            }
        }
        sum.usd()
    };
    let need = |price: Option<Usd>, bucket| price.ok_or(RateError::BucketUnpriced { bucket });
    let input = || need(prices.input, "input");
    let output = || need(prices.output, "output");
    let cache_read = prices.cache_read.or(prices.input);
    let write = |ttl: &'static str, bucket: &'static str| match prices.cache_write.get(ttl) {
        Some(price) => Ok(*price),
        None if prices.cache_write.is_empty() => input(),
        None => Err(RateError::BucketUnpriced { bucket }),
    };
    Ok(CostParts {
        input: part(&[
            (tokens.input, &input),
            (tokens.input_audio, &|| modality(row, tier, "input_audio", prices.input)),
            (tokens.input_image, &|| modality(row, tier, "input_image", prices.input)),
        ])?,
        cache_read: part(&[
            (tokens.cache_read, &|| need(cache_read, "cache_read")),
            (tokens.cache_read_audio, &|| modality(row, tier, "cache_read_audio", cache_read)),
            (tokens.cache_read_image, &|| modality(row, tier, "cache_read_image", cache_read)),
        ])?,
        cache_write: part(&[
            (tokens.cache_write_5m, &|| write("5m", "cache_write_5m")),
            (tokens.cache_write_30m, &|| write("30m", "cache_write_30m")),
            (tokens.cache_write_1h, &|| write("1h", "cache_write_1h")),
            (tokens.cache_write_12h, &|| write("12h", "cache_write_12h")),
        ])?,
        output: part(&[
            (tokens.output, &output),
            (tokens.output_audio, &|| modality(row, tier, "output_audio", prices.output)),
            (tokens.output_image, &|| modality(row, tier, "output_image", prices.output)),
        ])?,
        reasoning: part(&[(tokens.reasoning, &|| {
            modality(row, tier, "output_reasoning", prices.output)
        })])?,
        // A citation without a price of its own would be counted as input by nobody: it must be named.
        calls: part(&[(tokens.citation, &|| modality(row, tier, "citation", None))])?,
        ..CostParts::default()
    })
}

/// The fees of a request: exact thousandths, rounded once.
fn fees(fees: &[Fee], calls: &Calls, size: Option<&str>) -> Result<Usd, RateError> {
    let counted = [
        (Call::WebSearch, calls.web_search),
        (Call::SearchQuery, calls.search_query),
        (Call::SearchUnit, calls.search_unit),
        (Call::AudioSecond, calls.audio_second),
        // Only where the row has a fee for the request itself.
        (Call::Request, u64::from(fees.iter().any(|fee| fee.call == Call::Request))),
    ];
    let mut total = Usd::ZERO;
    for (call, count) in counted.into_iter().filter(|(_, count)| *count > 0) {
        let fee =
            fees.iter().find(|fee| fee.call == call).ok_or(RateError::CallUnpriced { call })?;
        // Where the size decides and nobody stated it, the dearest is taken.
        let stated = size.and_then(|size| fee.usd.get(size)).or_else(|| fee.usd.get("any"));
        let usd =
            stated.or_else(|| fee.usd.values().max()).ok_or(RateError::CallUnpriced { call })?;
        let amount = i128::from(count).checked_mul(usd.pico()).ok_or(RateError::Overflow)?;
        let unit = i128::from(fee.per).checked_mul(crate::money::PICO_PER_NANO);
        let nanos = div_half_even(amount, unit.filter(|u| *u > 0).ok_or(RateError::Overflow)?);
        let amount = nanos.checked_mul(crate::money::PICO_PER_NANO).ok_or(RateError::Overflow)?;
        total = total.checked_add(Usd::from_pico(amount)).ok_or(RateError::Overflow)?;
    }
    Ok(total)
}

/// The most that a request with this input and at most this output can cost in tokens: what its hold sets aside.
///
/// It takes the dearest of what the request may turn out to be: the input as plain input or as a cache write of any
/// lifetime, the tier asked for or the standard one (a provider may fall back), peak hours, every multiplier that the
/// provider alone decides about, reasoning at its own price. Fees for searches the model makes by itself have no bound
/// and are not in it; the fee for the request itself is.
pub fn worst_case(
    row: &PriceRow,
    input_tokens: u64,
    max_output_tokens: u64,
    requested_tier: Option<&str>,
    region: Option<&str>,
) -> Result<Usd, RateError> {
    let asked = tier_of(requested_tier);
    let free_choice = requested_tier == Some("auto");
    if !row.prices.is_empty() && !row.prices.contains_key(asked) {
        return Err(RateError::TierUnpriced { tier: asked.to_owned() });
    }
    let mut factor = factor_of(row, &Tally::default(), region, &mut Vec::new())?;
    for name in ["inference_geo_us", "speed_fast"] {
        if let Some(multiplier) =
            row.multipliers.get(name).filter(|m| m.millionths() > Multiplier::ONE)
        {
            factor = factor.times(*multiplier)?;
        }
    }
    // Thresholds look at the provider's own count, which may be lower than ours: every row of prices is possible.
    let long = row.long_context.iter().filter(|long| long.threshold_tokens <= input_tokens);
    let tables = std::iter::once(&row.prices).chain(long.map(|long| &long.prices));
    let mut dearest = Usd::ZERO;
    for (tier, prices) in tables.flatten() {
        if !(free_choice || tier == asked || tier == "standard") {
            continue;
        }
        let inputs = [prices.input, prices.cache_read].into_iter().flatten();
        let inputs = inputs.chain(prices.cache_write.values().copied());
        let inputs = inputs.chain(modal(
            row,
            &["input_audio", "input_image", "cache_read_audio", "cache_read_image"],
        ));
        let outputs = prices.output.into_iter();
        let outputs =
            outputs.chain(modal(row, &["output_audio", "output_image", "output_reasoning"]));
        let mut sum = Sum { factor: &factor, total: 0 };
        sum.add(input_tokens, inputs.max().unwrap_or(Usd::ZERO))?;
        sum.add(max_output_tokens, outputs.max().unwrap_or(Usd::ZERO))?;
        dearest = dearest.max(sum.usd()?);
    }
    // Each of four components may be rounded up by half a nanodollar.
    let rounding = Usd::from_nanos(4);
    let fee = fees(&row.fees, &Calls::default(), None)?;
    dearest.checked_add(rounding).and_then(|sum| sum.checked_add(fee)).ok_or(RateError::Overflow)
}

fn modal(row: &PriceRow, names: &'static [&'static str]) -> impl Iterator<Item = Usd> {
    names.iter().filter_map(|name| row.modalities.get(*name).copied())
}
