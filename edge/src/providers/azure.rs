//! Azure OpenAI and Microsoft Foundry: OpenAI's usage under a deployment's name.
//!
//! The price is OpenAI's for the model that the deployment is mapped to. Streams may begin with a chunk of
//! content filter results that has no choices: it is no usage chunk, as it has no usage.

use tallygate_shared::tokens::Tally;

use super::{Auth, Facts, Report, StreamOptions, UsageError, openai};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: None,
    auth: Auth::ApiKey,
    stream_options: StreamOptions::Needed,
    price_book: Some("openai"),
    chat_max_output: "max_completion_tokens",
};

/// As OpenAI.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    openai::read_usage(report)
}
