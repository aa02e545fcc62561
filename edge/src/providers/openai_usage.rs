//! The usage object that OpenAI defined and that many providers send, each with fields and sums of its own.
//!
//! Owns the fields and the arithmetic of "subset or additional"; each provider's file says which holds for it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tallygate_shared::tokens::{Calls, Tally, Tokens, UsageFlag};

use super::count::{Cost, Count, Ticks};
use super::{CacheTtl, Report, UsageError};
use crate::dialects::Endpoint;

/// All fields of OpenAI's shape that mean tokens or money, and those that its copies add.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OpenAiUsage<'a> {
    prompt_tokens: Count,
    completion_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Option<InputDetails>,
    input_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    output_tokens_details: Option<OutputDetails>,
    #[serde(borrow)]
    service_tier: Option<Cow<'a, str>>,
    // Mistral.
    pub(super) num_cached_tokens: Count,
    pub(super) prompt_audio_seconds: Count,
    // DeepSeek.
    pub(super) prompt_cache_hit_tokens: Count,
    pub(super) prompt_cache_miss_tokens: Count,
    // Perplexity.
    pub(super) citation_tokens: Count,
    pub(super) reasoning_tokens: Count,
    pub(super) num_search_queries: Count,
    #[serde(borrow)]
    pub(super) search_context_size: Option<Cow<'a, str>>,
    // xAI.
    pub(super) cost_in_usd_ticks: Ticks,
    pub(super) server_side_tool_usage_details: Option<ServerTools>,
    // A number at OpenRouter, an object at Perplexity.
    #[serde(borrow)]
    pub(super) cost: Option<&'a RawValue>,
    pub(super) is_byok: Option<bool>,
    pub(super) cost_details: Option<CostDetails>,
    // Cohere.
    pub(super) billed_units: Option<BilledUnits>,
}

/// What is inside the input.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_write_tokens_details: Option<CacheWriteDetails>,
    audio_tokens: Count,
    image_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct CacheWriteDetails {
    ttl_30m_tokens: Count,
    ttl_12h_tokens: Count,
}

/// What is inside the output. `rejected_prediction_tokens` are too, and stay in the text output, as they are billed so.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
}

/// xAI's counts of tools that ran on its side.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerTools {
    pub(super) web_search_calls: Count,
}

/// OpenRouter's parts of a cost.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CostDetails {
    pub(super) upstream_inference_cost: Cost,
}

/// What Cohere bills.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BilledUnits {
    pub(super) input_tokens: Count,
    pub(super) output_tokens: Count,
    pub(super) search_units: Count,
}

/// Where a provider counts reasoning when its total does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// Inside the output.
    Subset,
    /// Beside the output.
    Additional,
}

impl<'a> OpenAiUsage<'a> {
    /// Parses a report's text.
    pub(super) fn parse(report: &Report<'a>) -> Result<Self, UsageError> {
        let usage: Self =
            serde_json::from_str(report.usage).map_err(|_| UsageError::UnknownShape)?;
        // `{}` and anything else without a single known count.
        if usage.input() == Count::Absent && usage.output() == Count::Absent {
            return Err(UsageError::Missing("prompt_tokens"));
        }
        Ok(usage)
    }

    /// The input, under either name.
    pub(super) fn input(&self) -> Count {
        if self.prompt_tokens == Count::Absent { self.input_tokens } else { self.prompt_tokens }
    }

    fn output(&self) -> Count {
        if self.completion_tokens == Count::Absent {
            self.output_tokens
        } else {
            self.completion_tokens
        }
    }

    /// Takes the report apart. `cached` is the provider's own count of cache reads where it does not use OpenAI's field.
    pub(super) fn tally(
        &self,
        report: &Report<'_>,
        default: Reasoning,
        cached: Count,
    ) -> Result<Tally, UsageError> {
        let mut flags = Vec::new();
        let input = self.input().required("prompt_tokens")?;
        let output = if report.endpoint == Endpoint::Embeddings {
            self.output().or_zero()?
        } else {
            self.output().required("completion_tokens")?
        };
        let mut tokens = Tokens::default();
        self.split_input(input, cached, report.cache_ttl, &mut tokens, &mut flags)?;
        self.split_output(input, output, default, &mut tokens, &mut flags)?;
        let tier = self.service_tier.as_deref().or(report.service_tier);
        Ok(Tally {
            tokens,
            calls: Calls { web_search: report.web_search_calls, ..Calls::default() },
            service_tier: tier.map(str::to_owned),
            search_context_size: report.search_context_size.map(str::to_owned),
            flags,
            ..Tally::default()
        })
    }

    /// The provider's total, if it states one.
    pub(super) fn total(&self) -> Result<Option<u64>, UsageError> {
        self.total_tokens.optional()
    }

    fn split_input(
        &self,
        total: u64,
        cached: Count,
        requested: Option<CacheTtl>,
        tokens: &mut Tokens,
        flags: &mut Vec<UsageFlag>,
    ) -> Result<(), UsageError> {
        let details = self.prompt_tokens_details.or(self.input_tokens_details).unwrap_or_default();
        let cached = match details.cached_tokens {
            Count::Absent => cached.or_zero()?,
            stated => stated.or_zero()?,
        };
        let written = details.cache_write_tokens.or_zero()?;
        let (audio, image) = (details.audio_tokens.or_zero()?, details.image_tokens.or_zero()?);

        let mut part_of = Parts { left: total, flags };
        let cached = part_of.take(cached);
        let written = part_of.take(written);
        // Audio and images may be cached too, and providers do not say how much of them: what is left for text pays first.
        let uncached = part_of.left;
        if audio.saturating_add(image) > total {
            part_of.flag();
        }
        let audio = audio.min(total);
        let image = image.min(total.saturating_sub(audio));
        let audio_uncached = audio.min(uncached);
        let image_uncached = image.min(uncached.saturating_sub(audio_uncached));
        let text_uncached = uncached.saturating_sub(audio_uncached).saturating_sub(image_uncached);
        let audio_cached = audio.saturating_sub(audio_uncached).min(cached);
        let image_cached =
            image.saturating_sub(image_uncached).min(cached.saturating_sub(audio_cached));

        tokens.input = text_uncached;
        tokens.input_audio = audio_uncached;
        tokens.input_image = image_uncached;
        tokens.cache_read_audio = audio_cached;
        tokens.cache_read_image = image_cached;
        tokens.cache_read = cached.saturating_sub(audio_cached).saturating_sub(image_cached);
        split_cache_write(written, details.cache_write_tokens_details, requested, tokens, flags)
    }

    fn split_output(
        &self,
        input: u64,
        output: u64,
        default: Reasoning,
        tokens: &mut Tokens,
        flags: &mut Vec<UsageFlag>,
    ) -> Result<(), UsageError> {
        let details =
            self.completion_tokens_details.or(self.output_tokens_details).unwrap_or_default();
        let reasoning = details.reasoning_tokens.or_zero()?;
        let sum = input.saturating_add(output);
        let placement = match self.total()? {
            Some(total) if total == sum => Reasoning::Subset,
            Some(total) if total == sum.saturating_add(reasoning) => Reasoning::Additional,
            Some(_) => {
                push(flags, UsageFlag::TotalMismatch);
                default
            }
            None => default,
        };
        let mut part_of = Parts { left: output, flags };
        tokens.reasoning = match placement {
            Reasoning::Subset => part_of.take(reasoning),
            Reasoning::Additional => reasoning,
        };
        tokens.output_audio = part_of.take(details.audio_tokens.or_zero()?);
        tokens.output_image = part_of.take(details.image_tokens.or_zero()?);
        tokens.output = part_of.left;
        Ok(())
    }
}

/// Writes go to the bucket of their lifetime: as split by the provider, else as requested, else 30 minutes, the default.
fn split_cache_write(
    written: u64,
    split: Option<CacheWriteDetails>,
    requested: Option<CacheTtl>,
    tokens: &mut Tokens,
    flags: &mut Vec<UsageFlag>,
) -> Result<(), UsageError> {
    let split = split.unwrap_or_default();
    let mut part_of = Parts { left: written, flags };
    tokens.cache_write_12h = part_of.take(split.ttl_12h_tokens.or_zero()?);
    tokens.cache_write_30m = part_of.take(split.ttl_30m_tokens.or_zero()?);
    let unsplit = part_of.left;
    if unsplit == 0 {
        return Ok(());
    }
    let bucket = match requested {
        Some(CacheTtl::FiveMinutes) => &mut tokens.cache_write_5m,
        Some(CacheTtl::ThirtyMinutes) => &mut tokens.cache_write_30m,
        Some(CacheTtl::OneHour) => &mut tokens.cache_write_1h,
        Some(CacheTtl::TwelveHours) => &mut tokens.cache_write_12h,
        None => {
            push(flags, UsageFlag::CacheWriteTtlAssumed);
            &mut tokens.cache_write_30m
        }
    };
    *bucket = bucket.saturating_add(unsplit);
    Ok(())
}

/// Takes parts out of a total, never more than there is.
pub(super) struct Parts<'f> {
    pub(super) left: u64,
    pub(super) flags: &'f mut Vec<UsageFlag>,
}

impl Parts<'_> {
    /// Takes `part`, or what is left of the total, flagged.
    pub(super) fn take(&mut self, part: u64) -> u64 {
        let taken = part.min(self.left);
        if taken < part {
            self.flag();
        }
        self.left = self.left.saturating_sub(taken);
        taken
    }

    fn flag(&mut self) {
        push(self.flags, UsageFlag::SubsetExceedsTotal);
    }
}

/// Sets a flag once.
pub(super) fn push(flags: &mut Vec<UsageFlag>, flag: UsageFlag) {
    if !flags.contains(&flag) {
        flags.push(flag);
    }
}

/// Puts a stated cost on a tally; one that cannot be read is flagged and left out.
pub(super) fn state_cost(tally: &mut Tally, cost: Cost) {
    match cost {
        Cost::Absent => {}
        Cost::Is(usd) => tally.stated_cost = Some(usd),
        Cost::Unusable => push(&mut tally.flags, UsageFlag::CountUnusable),
    }
}
