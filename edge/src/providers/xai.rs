//! xAI: reasoning is beside the output in chat, the cost is stated in ticks, searches are counted.

use tallygate_shared::tokens::Tally;

use super::count::Count;
use super::openai_usage::{OpenAiUsage, Reasoning, state_cost};
use super::{Auth, Facts, Report, StreamOptions, UsageError};
use crate::dialects::Endpoint;

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.x.ai/v1"),
    auth: Auth::Bearer,
    stream_options: StreamOptions::Needed,
    price_book: Some("xai"),
    chat_max_output: "max_tokens",
};

/// The total decides whether reasoning is inside the output; without one it is inside in Responses only.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage = OpenAiUsage::parse(report)?;
    let default = if report.endpoint == Endpoint::Responses {
        Reasoning::Subset
    } else {
        Reasoning::Additional
    };
    let mut tally = usage.tally(report, default, Count::Absent)?;
    let tools = usage.server_side_tool_usage_details.unwrap_or_default();
    if let Some(searches) = tools.web_search_calls.optional()? {
        tally.calls.web_search = searches;
    }
    state_cost(&mut tally, usage.cost_in_usd_ticks.0);
    Ok(tally)
}
