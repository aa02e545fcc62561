//! Groq: OpenAI's usage, with times beside it. Streams have it in `x_groq.usage` too, asked or not.

use tallygate_shared::tokens::Tally;

use super::count::Count;
use super::openai_usage::{OpenAiUsage, Reasoning};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.groq.com/openai/v1"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::Needed,
    price_book: Some("groq"),
    chat_max_output: "max_completion_tokens",
};

/// Subsets throughout.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    OpenAiUsage::parse(report)?.tally(report, Reasoning::Subset, Count::Absent)
}
