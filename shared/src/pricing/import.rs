//! The import of LiteLLM's public price map: a JSON object from model name to per-token prices as JSON numbers.
//!
//! Figures are read from their source text, never through a float. A row with a price that is not understood is left
//! out whole and reported: half a price would be a wrong one.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::price_book::{Call, Fee, LongContext, PriceRow, Prices};
use crate::money::{Usd, parse_decimal};

/// Per-token prices become prices per million tokens: 12 decimals of the one are 6 more than of the other.
const PER_TOKEN_DECIMALS: usize = 18;

/// What an import found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The rows, in the order of their names.
    pub rows: Vec<PriceRow>,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
}

/// A model that was left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Skipped {
    /// Its name in the map.
    pub model: String,
    /// Why.
    pub reason: String,
}

/// A text that is no price map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the price map is not a JSON object of models: line {line}, column {column}")]
pub struct ImportError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

type Entry = BTreeMap<String, Box<RawValue>>;

/// Reads a price map.
pub fn import_litellm(text: &str) -> Result<Imported, ImportError> {
    let broken = |e: serde_json::Error| ImportError { line: e.line(), column: e.column() };
    let map: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(broken)?;
    let mut imported = Imported::default();
    for (name, raw) in map.into_iter().filter(|(name, _)| name != "sample_spec") {
        let row = serde_json::from_str::<Entry>(raw.get())
            .map_err(|_| "it is not an object".to_owned())
            .and_then(|entry| row_of(&name, &entry));
        match row {
            Ok(row) => imported.rows.push(row),
            Err(reason) => imported.skipped.push(Skipped { model: name, reason }),
        }
    }
    Ok(imported)
}

fn row_of(name: &str, entry: &Entry) -> Result<PriceRow, String> {
    let provider = text(entry, "litellm_provider").ok_or("it names no provider")?;
    // A prefix that repeats the provider is the map's way to keep names apart, not part of the model's name.
    let model = name.strip_prefix(&format!("{provider}/")).unwrap_or(name).to_owned();
    let mut row = PriceRow {
        provider,
        model,
        mode: text(entry, "mode"),
        max_input_tokens: count(entry, "max_input_tokens"),
        max_output_tokens: count(entry, "max_output_tokens"),
        ..PriceRow::default()
    };
    for (key, raw) in entry {
        if raw.get() != "null" {
            apply(&mut row, key, raw.get())?;
        }
    }
    fill_long_context(&mut row);
    let free = |prices: &Prices| {
        [prices.input, prices.output].into_iter().flatten().all(|price| price == Usd::ZERO)
    };
    if row.fees.is_empty() && row.prices.values().all(free) {
        return Err("it has no price above 0".to_owned());
    }
    row.validate().map_err(|error| error.to_string())?;
    Ok(row)
}

/// One field of an entry. Fields that are no price are passed over; prices that are not understood are an error.
fn apply(row: &mut PriceRow, key: &str, raw: &str) -> Result<(), String> {
    if key == "search_context_cost_per_query" {
        return search_fee(row, raw);
    }
    if !(key.contains("cost") || key.contains("price")) {
        return Ok(());
    }
    let price = || {
        parse_decimal(raw, PER_TOKEN_DECIMALS)
            .map(Usd::from_pico)
            .map_err(|error| format!("`{key}` {error}"))
    };
    match key {
        "output_cost_per_reasoning_token" => {
            row.modalities.insert("output_reasoning".to_owned(), price()?);
            return Ok(());
        }
        "input_cost_per_audio_token" => {
            row.modalities.insert("input_audio".to_owned(), price()?);
            return Ok(());
        }
        "output_cost_per_audio_token" => {
            row.modalities.insert("output_audio".to_owned(), price()?);
            return Ok(());
        }
        _ => {}
    }
    let (key_left, tier) = ["batches", "priority", "flex"]
        .into_iter()
        .find_map(|suffix| Some((key.strip_suffix(&format!("_{suffix}"))?, suffix)))
        .map_or((key, "standard"), |(left, tier)| {
            (left, if tier == "batches" { "batch" } else { tier })
        });
    let (base, threshold) = split_threshold(key_left);
    let field: fn(&mut Prices, Usd) = match base {
        "input_cost_per_token" => |prices, price| prices.input = Some(price),
        "output_cost_per_token" => |prices, price| prices.output = Some(price),
        "cache_read_input_token_cost" => |prices, price| prices.cache_read = Some(price),
        "cache_creation_input_token_cost" => |prices, price| {
            prices.cache_write.insert("5m".to_owned(), price);
        },
        "cache_creation_input_token_cost_above_1hr" => |prices, price| {
            prices.cache_write.insert("1h".to_owned(), price);
        },
        // A zero says "not charged so"; any other price by a unit that is not known here would be lost.
        _ if raw.trim() == "0" || raw.trim() == "0.0" => return Ok(()),
        _ => return Err(format!("`{key}` is a price in a unit that is not understood")),
    };
    let price = price()?;
    match threshold {
        None => field(row.prices.entry(tier.to_owned()).or_default(), price),
        Some(threshold_tokens) => {
            let place =
                row.long_context.iter().position(|long| long.threshold_tokens == threshold_tokens);
            let place = place.unwrap_or_else(|| {
                let prices = BTreeMap::new();
                row.long_context.push(LongContext {
                    threshold_tokens,
                    at_threshold: false,
                    prices,
                });
                row.long_context.len() - 1
            });
            if let Some(long) = row.long_context.get_mut(place) {
                field(long.prices.entry(tier.to_owned()).or_default(), price);
            }
        }
    }
    Ok(())
}

/// `..._above_272k_tokens` names a threshold.
fn split_threshold(key: &str) -> (&str, Option<u64>) {
    let split = key.strip_suffix("k_tokens").and_then(|left| left.rsplit_once("_above_"));
    match split.and_then(|(base, thousands)| Some((base, thousands.parse::<u64>().ok()?))) {
        Some((base, thousands)) => (base, thousands.checked_mul(1000)),
        None => (key, None),
    }
}

/// The map names only what changes over a threshold; a row of the book names all of it.
fn fill_long_context(row: &mut PriceRow) {
    let PriceRow { prices: standard, long_context, .. } = row;
    for long in long_context {
        for (tier, prices) in &mut long.prices {
            if let Some(base) = standard.get(tier) {
                prices.input = prices.input.or(base.input);
                prices.output = prices.output.or(base.output);
                prices.cache_read = prices.cache_read.or(base.cache_read);
                for (ttl, price) in &base.cache_write {
                    prices.cache_write.entry(ttl.clone()).or_insert(*price);
                }
            }
        }
    }
}

fn search_fee(row: &mut PriceRow, raw: &str) -> Result<(), String> {
    let sizes: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw)
        .map_err(|_| "`search_context_cost_per_query` is no object".to_owned())?;
    let mut usd = BTreeMap::new();
    for (name, raw) in sizes {
        let size = name.strip_prefix("search_context_size_").unwrap_or(&name).to_owned();
        let price = raw.get().parse::<Usd>().map_err(|e| format!("`{name}` {e}"))?;
        usd.insert(size, price);
    }
    if !usd.is_empty() {
        row.fees.push(Fee { call: Call::WebSearch, per: 1, usd });
    }
    Ok(())
}

fn text(entry: &Entry, key: &str) -> Option<String> {
    serde_json::from_str(entry.get(key)?.get()).ok()
}

fn count(entry: &Entry, key: &str) -> Option<u64> {
    serde_json::from_str(entry.get(key)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(entry: &str) -> Imported {
        import_litellm(&format!(r#"{{"sample_spec": {{}}, "acme/m": {entry}}}"#)).unwrap()
    }

    #[test]
    fn prices_are_read_exactly_and_per_million() {
        let imported =
            one(r#"{"litellm_provider": "acme", "mode": "chat", "max_output_tokens": 4096,
                "input_cost_per_token": 3.75e-08, "output_cost_per_token": 1.1e-06,
                "cache_read_input_token_cost": 1e-09, "cache_creation_input_token_cost": 4e-08,
                "cache_creation_input_token_cost_above_1hr": 8e-08,
                "input_cost_per_token_above_200k_tokens": 7.5e-08,
                "input_cost_per_token_batches": 1.875e-08, "supports_vision": true}"#);
        assert_eq!(imported.skipped, vec![]);
        let row = imported.rows.first().unwrap();
        assert_eq!((row.provider.as_str(), row.model.as_str()), ("acme", "m"));
        let standard = row.prices.get("standard").unwrap();
        assert_eq!(standard.input.unwrap().to_string(), "0.0375");
        assert_eq!(standard.output.unwrap().to_string(), "1.1");
        assert_eq!(standard.cache_write.get("1h").unwrap().to_string(), "0.08");
        assert_eq!(row.prices.get("batch").unwrap().input.unwrap().to_string(), "0.01875");
        let long = row.long_context.first().unwrap();
        assert_eq!(long.threshold_tokens, 200_000);
        let long = long.prices.get("standard").unwrap();
        assert_eq!(long.input.unwrap().to_string(), "0.075");
        assert_eq!(long.output, standard.output, "what the map does not change stays");
    }

    #[test]
    fn a_row_that_is_not_understood_is_left_out_whole() {
        let check = |entry: &str, reason: &str| {
            let imported = one(entry);
            assert_eq!(imported.rows, vec![], "{entry}");
            assert!(
                imported.skipped.first().unwrap().reason.contains(reason),
                "{:?}",
                imported.skipped
            );
        };
        check(r#"{"input_cost_per_token": 1e-06}"#, "no provider");
        check(r#"{"litellm_provider": "acme", "input_cost_per_token": 0}"#, "no price above 0");
        check(
            r#"{"litellm_provider": "acme", "input_cost_per_token": 1e-06, "output_cost_per_pixel": 1e-08}"#,
            "output_cost_per_pixel",
        );
        check(r#"{"litellm_provider": "acme", "input_cost_per_token": 5}"#, "10000");
        check(r#"{"litellm_provider": "acme", "input_cost_per_token": "x"}"#, "not a decimal");
        check("7", "not an object");
    }

    proptest! {
        #[test]
        fn importing_never_panics(text in "\\PC{0,200}") {
            let _ = import_litellm(&text);
        }
    }
}
