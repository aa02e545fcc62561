//! Names of OpenTelemetry's semantic conventions for generative AI, and what they are called by here.

use crate::events::usage_event::{Outcome, UsageEvent};
use crate::tokens::Tokens;

/// `gen_ai.operation.name` of an endpoint's path. What the conventions have no name for goes by its path's end.
pub fn operation(endpoint: &str) -> &str {
    match endpoint.strip_prefix("/v1/").unwrap_or(endpoint) {
        "chat/completions" | "responses" | "messages" => "chat",
        "completions" => "text_completion",
        "embeddings" => "embeddings",
        "moderations" => "moderation",
        "messages/count_tokens" => "count_tokens",
        _ => "other",
    }
}

/// The name of an outcome, as events have it.
pub const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Refused => "refused",
        Outcome::ProviderError => "provider_error",
        Outcome::ProviderUnreachable => "provider_unreachable",
        Outcome::ProviderDied => "provider_died",
        Outcome::Stalled => "stalled",
        Outcome::ClientGone => "client_gone",
        Outcome::GatewayError => "gateway_error",
        Outcome::Abandoned => "abandoned",
        Outcome::Interrupted => "interrupted",
    }
}

/// `error.type` of a request: its code, or else how it ended. `None` for one that went well.
pub fn error_type(event: &UsageEvent) -> Option<&str> {
    if event.outcome == Outcome::Completed {
        return None;
    }
    Some(event.code.as_deref().unwrap_or(outcome_name(event.outcome)))
}

/// Whether an operation was carried out at a provider, and how long it took is known.
pub fn is_timed(event: &UsageEvent) -> bool {
    let is_known = !matches!(event.outcome, Outcome::Abandoned | Outcome::Interrupted);
    is_known && !event.attempts.is_empty()
}

/// All tokens of an event, those at other models' prices among them.
pub fn tokens_of(event: &UsageEvent) -> Vec<Tokens> {
    let Some(tally) = event.usage.tally() else { return Vec::new() };
    std::iter::once(tally.tokens).chain(tally.other_models.iter().map(|o| o.tokens)).collect()
}

/// The buckets of tokens, with their names. They do not overlap.
pub fn buckets(tokens: &Tokens) -> [(&'static str, u64); 15] {
    [
        ("input", tokens.input),
        ("input_audio", tokens.input_audio),
        ("input_image", tokens.input_image),
        ("cache_read", tokens.cache_read),
        ("cache_read_audio", tokens.cache_read_audio),
        ("cache_read_image", tokens.cache_read_image),
        ("cache_write_5m", tokens.cache_write_5m),
        ("cache_write_30m", tokens.cache_write_30m),
        ("cache_write_1h", tokens.cache_write_1h),
        ("cache_write_12h", tokens.cache_write_12h),
        ("output", tokens.output),
        ("reasoning", tokens.reasoning),
        ("output_audio", tokens.output_audio),
        ("output_image", tokens.output_image),
        ("citation", tokens.citation),
    ]
}

/// `gen_ai.provider.name` of a provider's kind. A kind that the conventions do not know goes by its own name.
pub fn provider_name(kind: &str) -> &str {
    match kind {
        "azure" | "azure_openai" => "azure.ai.openai",
        "gemini" => "gcp.gemini",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_an_operation() {
        for (path, name) in [
            ("/v1/chat/completions", "chat"),
            ("/v1/responses", "chat"),
            ("/v1/messages", "chat"),
            ("/v1/completions", "text_completion"),
            ("/v1/embeddings", "embeddings"),
            ("/v1/moderations", "moderation"),
            ("/v1/messages/count_tokens", "count_tokens"),
            ("/what/a/caller/makes/up", "other"),
        ] {
            assert_eq!(operation(path), name);
        }
    }

    #[test]
    fn outcomes_have_the_names_that_events_have() {
        for outcome in [
            Outcome::Completed,
            Outcome::Refused,
            Outcome::ProviderError,
            Outcome::ProviderUnreachable,
            Outcome::ProviderDied,
            Outcome::Stalled,
            Outcome::ClientGone,
            Outcome::GatewayError,
            Outcome::Abandoned,
            Outcome::Interrupted,
        ] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome_name(outcome));
        }
    }

    #[test]
    fn every_bucket_of_tokens_is_counted_once() {
        let names = buckets(&Tokens::default()).map(|(name, _)| name);
        for name in names {
            let tokens: Tokens = serde_json::from_value(serde_json::json!({ name: 7 }))
                .unwrap_or_else(|error| {
                    panic!("{name}: {error}");
                });
            let counted: Vec<_> =
                buckets(&tokens).into_iter().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(name, 7)]);
            assert_eq!(tokens.total(), 7);
        }
    }
}
