//! OpenRouter: OpenAI's usage and the cost it charged. With a customer's own provider key that cost is only its fee.

use tallygate_shared::tokens::Tally;

use super::count::{Cost, Count};
use super::openai_usage::{OpenAiUsage, Reasoning, state_cost};
use super::{Auth, Facts, Report, StreamOptions, UsageError, anthropic};
use crate::dialects::Endpoint;

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://openrouter.ai/api/v1"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::NotNeeded,
    price_book: Some("openrouter"),
    chat_max_output: "max_tokens",
};

/// Subsets throughout. The true cost of a request with the customer's own key is the fee and the upstream's cost.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage: OpenAiUsage<'_> =
        serde_json::from_str(report.usage).map_err(|_| UsageError::UnknownShape)?;
    let mut tally = if report.endpoint == Endpoint::Messages {
        anthropic::read_usage(report)?
    } else {
        OpenAiUsage::parse(report)?.tally(report, Reasoning::Subset, Count::Absent)?
    };
    let fee = match usage.cost {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| UsageError::UnknownShape)?,
        None => Cost::Absent,
    };
    let upstream = usage.cost_details.unwrap_or_default().upstream_inference_cost;
    let cost = match (fee, usage.is_byok, upstream) {
        (Cost::Is(fee), Some(true), Cost::Is(upstream)) => {
            fee.checked_add(upstream).map_or(Cost::Unusable, Cost::Is)
        }
        // A fee without the upstream's cost is not what the request cost: better no stated cost than a wrong one.
        (Cost::Is(_), Some(true), Cost::Absent | Cost::Unusable) => Cost::Unusable,
        (fee, _, _) => fee,
    };
    state_cost(&mut tally, cost);
    Ok(tally)
}
