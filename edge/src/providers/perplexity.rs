//! Perplexity: searches are priced apart, and deep research has reasoning and citations beside input and output.

use serde::Deserialize;
use tallygate_shared::tokens::{Tally, UsageFlag};

use super::count::{Cost, Count};
use super::openai_usage::{OpenAiUsage, Reasoning, state_cost};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.perplexity.ai"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::NotNeeded,
    price_book: Some("perplexity"),
    chat_max_output: "max_tokens",
};

/// Reasoning and citations are additional whether the stated total contains them or not.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage = OpenAiUsage::parse(report)?;
    let mut tally = usage.tally(report, Reasoning::Subset, Count::Absent)?;
    let reasoning = usage.reasoning_tokens.or_zero()?;
    tally.tokens.citation = usage.citation_tokens.or_zero()?;
    tally.tokens.reasoning = tally.tokens.reasoning.saturating_add(reasoning);
    if usage.total()? == Some(tally.tokens.total()) {
        tally.flags.retain(|flag| *flag != UsageFlag::TotalMismatch);
    }
    tally.calls.search_query = usage.num_search_queries.or_zero()?;
    if let Some(size) = &usage.search_context_size {
        tally.search_context_size = Some(size.to_string());
    }
    if let Some(cost) = usage.cost {
        let cost: StatedCost =
            serde_json::from_str(cost.get()).map_err(|_| UsageError::UnknownShape)?;
        state_cost(&mut tally, cost.total_cost);
    }
    Ok(tally)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatedCost {
    total_cost: Cost,
}
