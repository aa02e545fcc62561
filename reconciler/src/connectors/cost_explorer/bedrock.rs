//! What a Bedrock usage type measures. AWS writes them by two conventions at once:
//!
//! - under the service `Amazon Bedrock`, `USE1-Claude4.6Sonnet-input-tokens-cross-region-global`: region, model, meter;
//! - under a service for each model, `Claude Sonnet 4.6 (Amazon Bedrock Edition)`,
//!   `USE1-MP:USE1_CacheReadInputTokenCount_Global-Units`: region, meter, variant.
//!
//! The dollar amount of a line never depends on what is read here.

use crate::bill::Meter;

/// The suffix of the services of the second convention.
const EDITION: &str = " (Amazon Bedrock Edition)";

/// What a usage type says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageType {
    /// The model, in the bill's spelling.
    pub model: Option<String>,
    /// What is measured. [`Meter::Whole`] for all that is no token.
    pub meter: Meter,
    /// The service tier: `standard`, `batch`, `flex`, `priority`.
    pub tier: Option<&'static str>,
    /// True for the global cross-region profile, which has another price than a region's.
    pub global: bool,
    /// True for long-context prices.
    pub long_context: bool,
    /// The unit of the quantity, where it is certain.
    pub unit: Option<&'static str>,
}

/// Whether a service is Bedrock's, in either convention.
pub fn is_bedrock(service: &str) -> bool {
    service.to_ascii_lowercase().contains("bedrock")
}

/// Reads a usage type. `unit` is Cost Explorer's unit of the quantity, which is `N/A` more often than not.
pub fn usage_type(service: &str, usage_type: &str, unit: &str) -> UsageType {
    let bare = without_region(usage_type);
    let stated = stated_unit(unit);
    match bare.strip_prefix("MP:") {
        Some(rest) => {
            let rest = rest.strip_suffix("-Units").unwrap_or(rest);
            // The price list counts these in thousands and in millions: only a stated unit is certain.
            let model = service.strip_suffix(EDITION).unwrap_or(service);
            read(model, without_region(rest), stated)
        }
        None if service.ends_with(EDITION) => {
            let rest = bare.strip_suffix("-Units").unwrap_or(bare);
            read(service.strip_suffix(EDITION).unwrap_or(service), rest, stated)
        }
        None => split(bare, stated),
    }
}

/// The first convention: the model stands before the meter.
fn split(bare: &str, stated: Option<&'static str>) -> UsageType {
    const MARKS: [&str; 10] = [
        "-cache-read-input-token",
        "-cache-write-input-token",
        "-cache-read-token",
        "-cache-write-token",
        "-cache-read-",
        "-cache-write-",
        "-input-token",
        "-output-token",
        "-text-input-token",
        "-text-output-token",
    ];
    let lower = bare.to_ascii_lowercase();
    let Some(at) = MARKS.iter().filter_map(|mark| lower.find(mark)).min() else {
        return UsageType {
            model: None,
            meter: Meter::Whole,
            tier: None,
            global: false,
            long_context: false,
            unit: stated,
        };
    };
    let (model, words) = bare.split_at_checked(at).unwrap_or((bare, ""));
    let (model, mantle) = match model.strip_suffix("-mantle") {
        Some(model) => (model, true),
        None => (model, false),
    };
    // Documented as thousands of tokens for the names without `mantle`; for those nobody says.
    let unit = stated.or((!mantle).then_some("1000 Tokens"));
    let read = read(model, words, unit);
    if read.meter == Meter::Whole { UsageType { unit: stated, ..read } } else { read }
}

/// The meter and its variants from words in any case, joined by `-`, `_` or capitals.
fn read(model: &str, words: &str, unit: Option<&'static str>) -> UsageType {
    let joined: String = words
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | '.'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let has = |word: &str| joined.contains(word);
    let token = has("token");
    let meter = if token && has("cacheread") {
        Meter::CacheRead
    } else if token && has("cachewrite") {
        Meter::CacheWrite
    } else if token && has("input") {
        Meter::Input
    } else if token && has("output") {
        Meter::Output
    } else {
        Meter::Whole
    };
    let tier = ["batch", "flex", "priority", "standard"].into_iter().find(|tier| has(tier));
    UsageType {
        model: Some(model.to_owned()),
        meter,
        tier,
        global: has("global"),
        long_context: has("longctx") || has("longcontext"),
        unit,
    }
}

/// Without a region such as `USE1-`, `EU-` or, within the second convention, `USE1_`.
fn without_region(text: &str) -> &str {
    let Some((region, rest)) = text.split_once(['-', '_']) else { return text };
    let letters = region.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = region.len() - letters.len();
    let short = (2..=4).contains(&letters.len()) && digits <= 1;
    let region = short && letters.bytes().all(|b| b.is_ascii_uppercase());
    if region && !rest.is_empty() { rest } else { text }
}

fn stated_unit(unit: &str) -> Option<&'static str> {
    let unit = unit.trim().to_ascii_lowercase();
    match unit.as_str() {
        "tokens" | "token" => Some("Tokens"),
        "1k tokens" | "1k token" | "1000 tokens" => Some("1000 Tokens"),
        "1m tokens" | "1m token" | "million tokens" | "1000000 tokens" => Some("1000000 Tokens"),
        _ => None,
    }
}

/// The same for all spellings of a model: `Claude4.6Sonnet`, `Claude Sonnet 4.6` and
/// `us.anthropic.claude-sonnet-4-6-20260101-v1:0` are `4 6 claude sonnet`.
pub fn model_key(name: &str) -> String {
    // `-v1:0` is the version of the offer, not of the model.
    let name = match name.split_once(':') {
        Some((id, _)) => id.rsplit_once("-v").map_or(id, |(model, _)| model),
        None => name,
    };
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut last = ' ';
    for c in without_vendor(name).chars().chain([' ']) {
        if starts_word(last, c, word.len()) {
            words.push(std::mem::take(&mut word).to_ascii_lowercase());
        }
        if c.is_ascii_alphanumeric() {
            word.push(c);
        }
        last = c;
    }
    let date = |word: &str| word.len() == 8 && word.bytes().all(|b| b.is_ascii_digit());
    words.retain(|word| !word.is_empty() && !date(word) && word != "instruct");
    words.sort_unstable();
    words.join(" ")
}

/// Whether a new word begins with `c`, after `last` in a word of `len` characters: `Claude4.6Sonnet` has four words,
/// `R1` and `70B` one each.
fn starts_word(last: char, c: char, len: usize) -> bool {
    let size = matches!(c, 'B' | 'K');
    !c.is_ascii_alphanumeric()
        || (c.is_ascii_uppercase() && last.is_ascii_lowercase())
        || (c.is_ascii_uppercase() && last.is_ascii_digit() && !size)
        || (c.is_ascii_digit() && last.is_ascii_alphabetic() && len > 1)
}

/// `us.anthropic.claude-sonnet-4-6` without what stands before the model.
fn without_vendor(id: &str) -> &str {
    const BEFORE: [&str; 15] = [
        "global",
        "us",
        "us-gov",
        "eu",
        "jp",
        "apac",
        "au",
        "anthropic",
        "amazon",
        "meta",
        "mistral",
        "cohere",
        "openai",
        "deepseek",
        "qwen",
    ];
    let mut rest = id;
    while let Some((first, more)) = rest.split_once('.') {
        if !BEFORE.contains(&first) {
            break;
        }
        rest = more;
    }
    rest
}

/// The one of `known` ids that the bill's spelling means; the bill's own spelling when there is none, or more than one.
pub fn known_model(spelled: &str, global: bool, known: &[String]) -> String {
    let key = model_key(spelled);
    let mut same = known.iter().filter(|id| {
        // A profile's price is another one than the region's own.
        (id.starts_with("global.") == global || !id.contains(".anthropic.")) && model_key(id) == key
    });
    match (same.next(), same.next()) {
        (Some(id), None) => id.clone(),
        _ => spelled.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_conventions_are_read() {
        const BEDROCK: &str = "Amazon Bedrock";
        const SONNET: &str = "Claude Sonnet 4.6 (Amazon Bedrock Edition)";
        use Meter::{CacheRead, CacheWrite, Input, Output, Whole};
        let thousand = Some("1000 Tokens");
        // service, usage type, unit, then model, meter, tier, global, unit
        type Case = (&'static str, &'static str, &'static str);
        type Expect =
            (Option<&'static str>, Meter, Option<&'static str>, bool, Option<&'static str>);
        let sonnet = Some("Claude4.6Sonnet");
        let named = Some("Claude Sonnet 4.6");
        let gpt = Some("openai.gpt-oss-20b");
        let cases: [(Case, Expect); 18] = [
            (
                (BEDROCK, "USE1-Claude4.6Sonnet-input-tokens", "N/A"),
                (sonnet, Input, None, false, thousand),
            ),
            (
                (BEDROCK, "USE1-Claude4.6Sonnet-output-tokens", "1K tokens"),
                (sonnet, Output, None, false, thousand),
            ),
            (
                (BEDROCK, "EU-Claude4.6Sonnet-cache-read-input-token-count", "N/A"),
                (sonnet, CacheRead, None, false, thousand),
            ),
            (
                (
                    BEDROCK,
                    "APN1-Claude4.6Sonnet-cache-write-input-token-count-cross-region-global",
                    "",
                ),
                (sonnet, CacheWrite, None, true, thousand),
            ),
            (
                (BEDROCK, "USW2-Claude4.6Sonnet-input-tokens-batch", "N/A"),
                (sonnet, Input, Some("batch"), false, thousand),
            ),
            (
                (BEDROCK, "USE1-NovaPro-output-tokens", "N/A"),
                (Some("NovaPro"), Output, None, false, thousand),
            ),
            (
                (BEDROCK, "USE1-openai.gpt-oss-20b-mantle-input-tokens-standard", "N/A"),
                (gpt, Input, Some("standard"), false, None),
            ),
            (
                (BEDROCK, "USE1-openai.gpt-oss-20b-mantle-output-tokens-flex", "1M tokens"),
                (gpt, Output, Some("flex"), false, Some("1000000 Tokens")),
            ),
            (
                (BEDROCK, "USE1-openai.gpt-oss-20b-mantle-cache-write-tokens-priority", "N/A"),
                (gpt, CacheWrite, Some("priority"), false, None),
            ),
            (
                (BEDROCK, "USE1-Guardrail-ContentPolicyUnitsConsumed", "N/A"),
                (None, Whole, None, false, None),
            ),
            (
                (BEDROCK, "USE1-ProvisionedThroughput-Claude-1Month", "Hrs"),
                (None, Whole, None, false, None),
            ),
            (
                (SONNET, "USE1-MP:USE1_InputTokenCount-Units", "Units"),
                (named, Input, None, false, None),
            ),
            (
                (SONNET, "USE1-MP:USE1_InputTokenCount_Global-Units", "Units"),
                (named, Input, None, true, None),
            ),
            (
                (SONNET, "USE1-MP:USE1_OutputTokenCount_Batch-Units", "Units"),
                (named, Output, Some("batch"), false, None),
            ),
            (
                (SONNET, "EUC1-MP:EUC1_CacheReadInputTokenCount-Units", "Units"),
                (named, CacheRead, None, false, None),
            ),
            (
                (SONNET, "USE1-MP:USE1_CacheWrite1hInputTokenCount_Global-Units", "Units"),
                (named, CacheWrite, None, true, None),
            ),
            (
                (SONNET, "USE1-MP:USE1_cache_write_tokens_1h_global_standard-Units", "Units"),
                (named, CacheWrite, Some("standard"), true, None),
            ),
            (
                (SONNET, "MP:USE1_ReservedCapacity_1_month-Units", "Units"),
                (named, Whole, None, false, None),
            ),
        ];
        for ((service, text, unit), (model, meter, tier, global, expected)) in cases {
            let read = usage_type(service, text, unit);
            let got = (read.model.as_deref(), read.meter, read.tier, read.global, read.unit);
            assert_eq!(got, (model, meter, tier, global, expected), "{text}");
            assert!(!read.long_context && is_bedrock(service));
        }
        let long = usage_type(SONNET, "USE1-MP:USE1_input_tokens_long_ctx_standard-Units", "Units");
        assert!(long.long_context && long.meter == Input);
        assert!(!is_bedrock("Amazon OpenSearch Service"));
    }

    #[test]
    fn spellings_of_a_model_have_one_key() {
        for (bill, id) in [
            ("Claude4.6Sonnet", "us.anthropic.claude-sonnet-4-6"),
            ("Claude Sonnet 4.6", "global.anthropic.claude-sonnet-4-6"),
            ("Claude Haiku 4.5", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
            ("NovaPro", "amazon.nova-pro-v1:0"),
            ("openai.gpt-oss-20b", "openai.gpt-oss-20b-v1:0"),
            ("Llama4-Maverick-17B", "meta.llama4-maverick-17b-instruct-v1:0"),
        ] {
            assert_eq!(model_key(bill), model_key(id), "{bill}");
        }
        assert_ne!(model_key("NovaLite"), model_key("NovaPro"));
        assert_ne!(model_key("Claude Sonnet 4.5"), model_key("Claude Sonnet 4.6"));
    }

    #[test]
    fn a_known_id_is_taken_when_there_is_no_doubt() {
        let known = ["global.anthropic.claude-sonnet-4-6", "us.anthropic.claude-sonnet-4-6"];
        let mut known: Vec<String> = known.map(String::from).into();
        known.push("amazon.nova-pro-v1:0".into());
        assert_eq!(known_model("Claude4.6Sonnet", true, &known), known[0]);
        assert_eq!(known_model("Claude Sonnet 4.6", false, &known), known[1]);
        assert_eq!(known_model("NovaPro", false, &known), "amazon.nova-pro-v1:0");
        known.push("eu.anthropic.claude-sonnet-4-6".into());
        assert_eq!(known_model("Claude Sonnet 4.6", false, &known), "Claude Sonnet 4.6");
        assert_eq!(known_model("Titan", false, &known), "Titan");
    }
}
