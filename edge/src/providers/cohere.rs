//! Cohere: bills by `billed_units`, which its compatible endpoint calls by OpenAI's names. Its cached tokens are for information:
//! they have no price of their own. Counts are written as floats (`12.0`).

use tallygate_shared::tokens::Tally;

use super::count::Count;
use super::openai_usage::{OpenAiUsage, Reasoning};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.cohere.ai/compatibility/v1"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::Rejected,
    price_book: Some("cohere"),
    chat_max_output: "max_tokens",
};

/// `billed_units` where there are any, else OpenAI's names. `tokens` has Cohere's own wrapping and is not billed.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage: OpenAiUsage<'_> =
        serde_json::from_str(report.usage).map_err(|_| UsageError::UnknownShape)?;
    let Some(billed) = usage.billed_units else {
        return OpenAiUsage::parse(report)?.tally(report, Reasoning::Subset, Count::Absent);
    };
    let mut tally = Tally::default();
    tally.tokens.input = billed.input_tokens.required("input_tokens")?;
    tally.tokens.output = billed.output_tokens.or_zero()?;
    tally.calls.search_unit = billed.search_units.or_zero()?;
    Ok(tally)
}
