//! DeepSeek: OpenAI's usage, with the input split into cache hits and misses; Anthropic's under `/anthropic`.

use tallygate_shared::tokens::{Tally, UsageFlag};

use super::openai_usage::{OpenAiUsage, Reasoning, push};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.deepseek.com"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::Needed,
    price_book: Some("deepseek"),
    chat_max_output: "max_tokens",
};

/// The input is hits and misses; where they do not add up to it the report is flagged.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage = OpenAiUsage::parse(report)?;
    let hit = usage.prompt_cache_hit_tokens;
    let mut tally = usage.tally(report, Reasoning::Subset, hit)?;
    if let (Some(hit), Some(miss)) = (hit.optional()?, usage.prompt_cache_miss_tokens.optional()?)
        && hit.saturating_add(miss) != tally.tokens.input_total()
    {
        push(&mut tally.flags, UsageFlag::TotalMismatch);
    }
    Ok(tally)
}
