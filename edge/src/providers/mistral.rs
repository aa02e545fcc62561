//! Mistral: OpenAI's usage; cached tokens under two names, audio input by the second, usage in streams unasked.

use tallygate_shared::tokens::Tally;

use super::openai_usage::{OpenAiUsage, Reasoning};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.mistral.ai/v1"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::NotNeeded,
    price_book: Some("mistral"),
    chat_max_output: "max_tokens",
};

/// Subsets throughout.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage = OpenAiUsage::parse(report)?;
    let mut tally = usage.tally(report, Reasoning::Subset, usage.num_cached_tokens)?;
    tally.calls.audio_second = usage.prompt_audio_seconds.or_zero()?;
    Ok(tally)
}
