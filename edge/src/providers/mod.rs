//! What a provider speaks and reports: one file for each, with the same two things in it, `FACTS` and `read_usage`.
//!
//! Every provider counts differently: what one includes in the input another adds to it. Here each report is taken apart into
//! disjoint buckets, so that nothing behind this folder has to know whose report it was. What does not add up is
//! flagged; what cannot be read is an error, and never a zero.

mod anthropic;
mod azure;
pub mod catalog;
mod cohere;
mod compatible;
mod count;
mod deepseek;
mod gemini;
mod groq;
mod mistral;
mod openai;
mod openai_usage;
mod openrouter;
mod perplexity;
mod url;
mod xai;

#[cfg(test)]
mod usage_tests;

use serde::{Deserialize, Serialize};
use tallygate_shared::tokens::{Tally, UsageFlag};

pub use self::url::{Deployment, UrlError, upstream_url};
use crate::dialects::{Dialect, Endpoint};

/// A provider that the gateway knows the ways of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// OpenAI.
    Openai,
    /// Azure OpenAI, Microsoft Foundry.
    Azure,
    /// Anthropic.
    Anthropic,
    /// Google Gemini, through its OpenAI-compatible endpoint.
    Gemini,
    /// Mistral.
    Mistral,
    /// Groq.
    Groq,
    /// OpenRouter.
    Openrouter,
    /// Perplexity.
    Perplexity,
    /// DeepSeek.
    Deepseek,
    /// xAI.
    Xai,
    /// Cohere, through its OpenAI-compatible endpoint.
    Cohere,
    /// Anything else that speaks OpenAI's or Anthropic's dialect: vLLM, Ollama, a house gateway.
    Compatible,
}

/// How a provider wants its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `authorization: Bearer <key>`
    Bearer,
    /// `x-api-key: <key>`
    XApiKey,
    /// `api-key: <key>`
    ApiKey,
}

impl Auth {
    /// Name and value of the header.
    pub fn header(self, key: &str) -> (&'static str, String) {
        match self {
            Self::Bearer => ("authorization", format!("Bearer {key}")),
            Self::XApiKey => ("x-api-key", key.to_owned()),
            Self::ApiKey => ("api-key", key.to_owned()),
        }
    }
}

/// Whether `stream_options: {"include_usage": true}` may be added to a streamed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOptions {
    /// Needed: without it a stream has no usage.
    Needed,
    /// Usage comes unasked.
    NotNeeded,
    /// Refused with a 400; usage comes, or does not, regardless.
    Rejected,
}

/// What is true of a provider whatever the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where its API is, `None` where each customer has an address of its own.
    pub base_url: Option<&'static str>,
    /// How it wants its credential.
    pub auth: Auth,
    /// How its streams come to have usage.
    pub stream_options: StreamOptions,
    /// Its name in the price book, `None` where prices are the workspace's own.
    pub price_book: Option<&'static str>,
    /// The field that limits the output of chat completions.
    pub chat_max_output: &'static str,
}

/// The lifetime of a prompt cache, as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CacheTtl {
    /// Five minutes: Anthropic's default.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// Thirty minutes: OpenAI's default.
    #[serde(rename = "30m")]
    ThirtyMinutes,
    /// One hour.
    #[serde(rename = "1h")]
    OneHour,
    /// Twelve hours.
    #[serde(rename = "12h")]
    TwelveHours,
}

/// A usage report as it came, and what else about the request decides how it is read.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The endpoint that was called.
    pub endpoint: Endpoint,
    /// The usage object's own JSON text.
    pub usage: &'a str,
    /// The service tier that the answer names beside its usage.
    pub service_tier: Option<&'a str>,
    /// The cache lifetime that the request asked for.
    pub cache_ttl: Option<CacheTtl>,
    /// The search context size that the request asked for.
    pub search_context_size: Option<&'a str>,
    /// Web search calls seen in the answer's output.
    pub web_search_calls: u64,
}

/// Why a usage report cannot be used. Then usage is an estimate, and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Not the JSON that this provider documents.
    #[error("usage report is not of the documented shape")]
    UnknownShape,
    /// A count without which nothing can be said.
    #[error("usage report lacks `{0}`")]
    Missing(&'static str),
    /// Negative, fractional, not a number, or absurdly large.
    #[error("usage report has an unusable count")]
    CountUnusable,
}

impl UsageError {
    /// The flag that an estimate gets which stands in for this report.
    pub const fn flag(&self) -> UsageFlag {
        match self {
            Self::UnknownShape | Self::Missing(_) | Self::CountUnusable => UsageFlag::CountUnusable,
        }
    }
}

impl ProviderKind {
    /// All providers, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::Openai,
        Self::Azure,
        Self::Anthropic,
        Self::Gemini,
        Self::Mistral,
        Self::Groq,
        Self::Openrouter,
        Self::Perplexity,
        Self::Deepseek,
        Self::Xai,
        Self::Cohere,
        Self::Compatible,
    ];

    /// The provider's name as configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Mistral => "mistral",
            Self::Groq => "groq",
            Self::Openrouter => "openrouter",
            Self::Perplexity => "perplexity",
            Self::Deepseek => "deepseek",
            Self::Xai => "xai",
            Self::Cohere => "cohere",
            Self::Compatible => "compatible",
        }
    }

    /// What is true of the provider whatever the request.
    pub const fn facts(self) -> Facts {
        match self {
            Self::Openai => openai::FACTS,
            Self::Azure => azure::FACTS,
            Self::Anthropic => anthropic::FACTS,
            Self::Gemini => gemini::FACTS,
            Self::Mistral => mistral::FACTS,
            Self::Groq => groq::FACTS,
            Self::Openrouter => openrouter::FACTS,
            Self::Perplexity => perplexity::FACTS,
            Self::Deepseek => deepseek::FACTS,
            Self::Xai => xai::FACTS,
            Self::Cohere => cohere::FACTS,
            Self::Compatible => compatible::FACTS,
        }
    }

    /// Whether a stream of `endpoint` has usage only if the request asks for it. Only the older two streams have the option.
    pub fn needs_include_usage(self, endpoint: Endpoint) -> bool {
        self.facts().stream_options == StreamOptions::Needed
            && matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions)
    }

    /// The field of the request that limits output, `None` where there is no output to limit.
    pub const fn max_output_field(self, endpoint: Endpoint) -> Option<&'static str> {
        match endpoint {
            Endpoint::ChatCompletions => Some(self.facts().chat_max_output),
            Endpoint::Responses => Some("max_output_tokens"),
            Endpoint::Completions | Endpoint::Messages => Some("max_tokens"),
            Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::Models
            | Endpoint::CountTokens => None,
        }
    }

    /// Headers that a request must have and that are added when the client sent none of that name.
    pub const fn default_headers(
        self,
        endpoint: Endpoint,
    ) -> &'static [(&'static str, &'static str)] {
        match (self, endpoint.dialect()) {
            (Self::Anthropic, _) | (_, Dialect::Anthropic) => {
                &[("anthropic-version", "2023-06-01")]
            }
            (_, Dialect::OpenAi) => &[],
        }
    }

    /// Reads a usage report into disjoint buckets.
    pub fn read_usage(self, report: &Report<'_>) -> Result<Tally, UsageError> {
        // Who answers Anthropic's endpoint answers in Anthropic's way.
        if report.endpoint.dialect() == Dialect::Anthropic && self != Self::Openrouter {
            return anthropic::read_usage(report);
        }
        match self {
            Self::Openai => openai::read_usage(report),
            Self::Azure => azure::read_usage(report),
            Self::Anthropic => anthropic::read_usage(report),
            Self::Gemini => gemini::read_usage(report),
            Self::Mistral => mistral::read_usage(report),
            Self::Groq => groq::read_usage(report),
            Self::Openrouter => openrouter::read_usage(report),
            Self::Perplexity => perplexity::read_usage(report),
            Self::Deepseek => deepseek::read_usage(report),
            Self::Xai => xai::read_usage(report),
            Self::Cohere => cohere::read_usage(report),
            Self::Compatible => compatible::read_usage(report),
        }
    }
}
