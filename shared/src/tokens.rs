//! Tokens and counted calls, in disjoint buckets. Owns the vocabulary of usage; never knows a provider's JSON or a price.

use serde::{Deserialize, Serialize};

use crate::money::Usd;

/// Billable tokens of one request, in buckets that never overlap: their sum is what the provider counted.
///
/// A provider that reports a subset (OpenAI's `cached_tokens` inside `prompt_tokens`) is taken apart where its
/// answer is parsed, so a price can be applied to each bucket without double counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Tokens {
    /// Uncached text input.
    #[serde(skip_serializing_if = "is_zero")]
    pub input: u64,
    /// Uncached audio input.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_audio: u64,
    /// Uncached image input.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_image: u64,
    /// Input read from the provider's prompt cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read: u64,
    /// Audio input read from the cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_audio: u64,
    /// Image input read from the cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_image: u64,
    /// Input written to a cache that lives 5 minutes.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_5m: u64,
    /// Input written to a cache that lives 30 minutes.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_30m: u64,
    /// Input written to a cache that lives 1 hour.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_1h: u64,
    /// Input written to a cache that lives 12 hours.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_12h: u64,
    /// Text output that is not reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub output: u64,
    /// Reasoning, billed as output unless the price book has a rate of its own.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning: u64,
    /// Audio output.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_audio: u64,
    /// Image output.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_image: u64,
    /// Citation tokens (Perplexity deep research), priced apart from input and output.
    #[serde(skip_serializing_if = "is_zero")]
    pub citation: u64,
}

impl Tokens {
    /// Adds other tokens, bucket by bucket.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (mine, theirs) in self.buckets_mut().into_iter().zip(other.buckets_mut()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    const fn buckets_mut(&mut self) -> [&mut u64; 15] {
        [
            &mut self.input,
            &mut self.input_audio,
            &mut self.input_image,
            &mut self.cache_read,
            &mut self.cache_read_audio,
            &mut self.cache_read_image,
            &mut self.cache_write_5m,
            &mut self.cache_write_30m,
            &mut self.cache_write_1h,
            &mut self.cache_write_12h,
            &mut self.output,
            &mut self.reasoning,
            &mut self.output_audio,
            &mut self.output_image,
            &mut self.citation,
        ]
    }

    /// All input: uncached, cache reads and cache writes. Long-context prices look at this total.
    pub fn input_total(&self) -> u64 {
        [
            self.input,
            self.input_audio,
            self.input_image,
            self.cache_read_total(),
            self.cache_write_total(),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// All input read from a cache.
    pub fn cache_read_total(&self) -> u64 {
        self.cache_read.saturating_add(self.cache_read_audio).saturating_add(self.cache_read_image)
    }

    /// All input written to a cache, whatever its lifetime.
    pub fn cache_write_total(&self) -> u64 {
        [self.cache_write_5m, self.cache_write_30m, self.cache_write_1h, self.cache_write_12h]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// All output, reasoning included.
    pub fn output_total(&self) -> u64 {
        [self.output, self.reasoning, self.output_audio, self.output_image]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Everything in all buckets.
    pub fn total(&self) -> u64 {
        self.input_total().saturating_add(self.output_total()).saturating_add(self.citation)
    }
}

/// Things billed by the call and not by the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Web searches that the model made on the provider's side.
    #[serde(skip_serializing_if = "is_zero")]
    pub web_search: u64,
    /// Search queries (Perplexity's `num_search_queries`).
    #[serde(skip_serializing_if = "is_zero")]
    pub search_query: u64,
    /// Search units (Cohere).
    #[serde(skip_serializing_if = "is_zero")]
    pub search_unit: u64,
    /// Seconds of audio, where a provider bills by time.
    #[serde(skip_serializing_if = "is_zero")]
    pub audio_second: u64,
}

/// Something about a usage report that does not add up. Recorded on the event, never guessed away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UsageFlag {
    /// The provider's stated total is not the sum of its parts.
    TotalMismatch,
    /// A part (cached, reasoning) is larger than the total it is part of.
    SubsetExceedsTotal,
    /// A count was negative, fractional, not a number, or beyond [`MAX_TOKENS`].
    CountUnusable,
    /// Cache writes were reported without a lifetime; the provider's default was taken.
    CacheWriteTtlAssumed,
    /// The stream ended without the provider's end marker.
    StreamIncomplete,
}

/// No request has more tokens than this (a billion): a larger count is a provider's mistake, not usage.
pub const MAX_TOKENS: u64 = 1_000_000_000;

/// Tokens of the same request that are billed at another model's price (an advisor or fallback model).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OtherModel {
    /// The provider's name of that model.
    pub model: String,
    /// Its tokens, not contained in the tally's own.
    pub tokens: Tokens,
}

/// What one answer consumed, and the facts that choose its price.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Tally {
    /// Tokens of the answering model.
    pub tokens: Tokens,
    /// Calls billed apart.
    pub calls: Calls,
    /// Tokens billed at other models' prices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_models: Vec<OtherModel>,
    /// The service tier that was used, as the provider reports it (`default`, `flex`, `priority`, `batch`, ...).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Where inference ran, as reported (`us`, `global`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<String>,
    /// Speed mode, as reported (`standard`, `fast`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Search context size that chooses a request fee (`low`, `medium`, `high`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_context_size: Option<String>,
    /// The cost that the provider itself states it charged for this request, where it does so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated_cost: Option<Usd>,
    /// What does not add up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<UsageFlag>,
}

/// Where a request's tally comes from. A reported 0 is a 0 and never replaced by an estimate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "source", content = "tally", rename_all = "snake_case")]
pub enum Usage {
    /// The provider's own figures.
    Reported(Tally),
    /// Ours, from what was seen: the provider's figures never came.
    Estimated(Tally),
    /// Nothing is known.
    #[default]
    Absent,
}

impl Usage {
    /// The figures, whoever made them.
    pub fn tally(&self) -> Option<&Tally> {
        match self {
            Self::Reported(tally) | Self::Estimated(tally) => Some(tally),
            Self::Absent => None,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
