//! Google Gemini through its OpenAI-compatible endpoint.
//!
//! Where thoughts are counted is not documented there: the total decides. What the total has beyond input and output
//! without naming it can only be thoughts or tool prompts; it is booked as reasoning, the dearer, and flagged.

use tallygate_shared::tokens::Tally;

use super::count::Count;
use super::openai_usage::{OpenAiUsage, Reasoning};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://generativelanguage.googleapis.com/v1beta/openai"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::Needed,
    price_book: Some("google"),
    chat_max_output: "max_tokens",
};

/// The total decides where thoughts are.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage = OpenAiUsage::parse(report)?;
    let mut tally = usage.tally(report, Reasoning::Additional, Count::Absent)?;
    if let Some(total) = usage.total()? {
        let hidden = total.saturating_sub(tally.tokens.total());
        tally.tokens.reasoning = tally.tokens.reasoning.saturating_add(hidden);
    }
    Ok(tally)
}
