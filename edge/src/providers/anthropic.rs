//! Anthropic: the input excludes the cache, reads and writes are beside it, thinking is inside the output.
//!
//! With `iterations` the top level lacks what compaction and other models consumed: the iterations are what is billed.

use std::borrow::Cow;

use serde::Deserialize;
use tallygate_shared::tokens::{OtherModel, Tally, Tokens, UsageFlag};

use super::count::Count;
use super::openai_usage::{Parts, push};
use super::{Auth, Facts, Report, StreamOptions, UsageError};

/// The ways of this provider.
pub(super) const FACTS: Facts = Facts {
    base_url: Some("https://api.anthropic.com"),
    auth: Auth::XApiKey,
    stream_options: StreamOptions::NotNeeded,
    price_book: Some("anthropic"),
    chat_max_output: "max_tokens",
};

/// The usage object of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessageUsage<'a> {
    input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation: Option<CacheCreation>,
    output_tokens: Count,
    output_tokens_details: Option<OutputDetails>,
    server_tool_use: Option<ServerTools>,
    #[serde(borrow)]
    service_tier: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inference_geo: Option<Cow<'a, str>>,
    #[serde(borrow)]
    speed: Option<Cow<'a, str>>,
    #[serde(borrow)]
    iterations: Option<Vec<Iteration<'a>>>,
}

/// One model call of several that made a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Iteration<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation: Option<CacheCreation>,
    output_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct ServerTools {
    web_search_requests: Count,
}

/// Reads, writes and uncached input are disjoint as they come; only thinking is taken out of the output.
pub(super) fn read_usage(report: &Report<'_>) -> Result<Tally, UsageError> {
    let usage: MessageUsage<'_> =
        serde_json::from_str(report.usage).map_err(|_| UsageError::UnknownShape)?;
    let mut tally = Tally::default();
    let mut tokens = buckets(
        &[usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens],
        usage.cache_creation,
        usage.output_tokens,
        &mut tally.flags,
    )?;
    if let Some(iterations) = usage.iterations.as_deref().filter(|all| !all.is_empty()) {
        tokens = from_iterations(iterations, &tokens, &mut tally)?;
    }
    let thinking = usage.output_tokens_details.unwrap_or_default().thinking_tokens.or_zero()?;
    let mut part_of = Parts { left: tokens.output, flags: &mut tally.flags };
    tokens.reasoning = part_of.take(thinking);
    tokens.output = part_of.left;

    tally.tokens = tokens;
    tally.calls.web_search =
        usage.server_tool_use.unwrap_or_default().web_search_requests.or_zero()?;
    tally.service_tier = usage.service_tier.as_deref().or(report.service_tier).map(str::to_owned);
    tally.inference_geo = usage.inference_geo.map(Cow::into_owned);
    tally.speed = usage.speed.map(Cow::into_owned);
    Ok(tally)
}

fn buckets(
    [input, written, read]: &[Count; 3],
    split: Option<CacheCreation>,
    output: Count,
    flags: &mut Vec<UsageFlag>,
) -> Result<Tokens, UsageError> {
    let mut tokens = Tokens {
        input: input.required("input_tokens")?,
        cache_read: read.or_zero()?,
        output: output.required("output_tokens")?,
        ..Tokens::default()
    };
    let Some(split) = split else {
        tokens.cache_write_5m = written.or_zero()?;
        return Ok(tokens);
    };
    tokens.cache_write_1h = split.ephemeral_1h_input_tokens.or_zero()?;
    tokens.cache_write_5m = split.ephemeral_5m_input_tokens.or_zero()?;
    let split_total = tokens.cache_write_total();
    let Some(written) = written.optional()? else { return Ok(tokens) };
    if split_total > written {
        push(flags, UsageFlag::SubsetExceedsTotal);
    } else if split_total < written {
        // A stream's later reports are cumulative and have no split: what came on top has the default lifetime.
        tokens.cache_write_5m =
            tokens.cache_write_5m.saturating_add(written.saturating_sub(split_total));
        push(flags, UsageFlag::CacheWriteTtlAssumed);
    }
    Ok(tokens)
}

/// The answering model's own tokens; those of others go to the tally.
fn from_iterations(
    iterations: &[Iteration<'_>],
    top_level: &Tokens,
    tally: &mut Tally,
) -> Result<Tokens, UsageError> {
    let (mut own, mut messages) = (Tokens::default(), Tokens::default());
    let mut has_fallback = false;
    for iteration in iterations {
        let tokens = buckets(
            &[
                iteration.input_tokens,
                iteration.cache_creation_input_tokens,
                iteration.cache_read_input_tokens,
            ],
            iteration.cache_creation,
            iteration.output_tokens,
            &mut tally.flags,
        )?;
        match (iteration.kind.as_deref(), iteration.model.as_deref()) {
            (Some("message"), _) => {
                messages = add(&messages, &tokens);
                own = add(&own, &tokens);
            }
            (Some("compaction"), _) => own = add(&own, &tokens),
            (Some("advisor_message" | "fallback_message"), Some(model)) => {
                has_fallback |= iteration.kind.as_deref() == Some("fallback_message");
                tally.other_models.push(OtherModel { model: model.to_owned(), tokens });
            }
            // A price without a model is a guess.
            (Some("advisor_message" | "fallback_message"), None) => {
                return Err(UsageError::Missing("iterations[].model"));
            }
            (Some(_) | None, _) => return Err(UsageError::UnknownShape),
        }
    }
    // The top level of a fallback's answer may be the fallback's own; in all other cases it is the sum of the messages.
    if !has_fallback && messages.total() != top_level.total() {
        push(&mut tally.flags, UsageFlag::TotalMismatch);
    }
    Ok(own)
}

fn add(a: &Tokens, b: &Tokens) -> Tokens {
    Tokens {
        input: a.input.saturating_add(b.input),
        cache_read: a.cache_read.saturating_add(b.cache_read),
        cache_write_5m: a.cache_write_5m.saturating_add(b.cache_write_5m),
        cache_write_1h: a.cache_write_1h.saturating_add(b.cache_write_1h),
        output: a.output.saturating_add(b.output),
        ..Tokens::default()
    }
}
