//! Anything that speaks OpenAI's dialect. Nothing is assumed beyond it: prices are the workspace's own.

use tallygate_shared::tokens::Tally;

use super::count::Count;
use super::openai_usage::{OpenAiUsage, Reasoning};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: None,
    auth: Auth::Bearer,
    stream_options: StreamOptions::Needed,
    price_book: None,
    chat_max_output: "max_tokens",
};

/// Subsets throughout, unless the total says that reasoning is additional.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    OpenAiUsage::parse(report)?.tally(report, Reasoning::Subset, Count::Absent)
}
