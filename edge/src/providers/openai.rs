//! OpenAI: cached, written and reasoning tokens are all subsets.

use tallygate_shared::tokens::Tally;

use super::count::Count;
use super::openai_usage::{OpenAiUsage, Reasoning};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.openai.com/v1"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::Needed,
    price_book: Some("openai"),
    chat_max_output: "max_completion_tokens",
};

/// Subsets throughout. Cache writes without a split have the requested lifetime.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    OpenAiUsage::parse(report)?.tally(report, Reasoning::Subset, Count::Absent)
}
