//! What was decided about a request, compactly: what it asked for, and what each limit of its key said. Part of the
//! usage event; sizes and counts, never a word of the request.

use serde::{Deserialize, Serialize};

use crate::budget::account::Load;

/// The decision about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Decided {
    /// What the request asked for.
    pub asked: Asked,
    /// The limits that the key has, in the order in which they were evaluated. A limit that it does not have is not here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitCheck>,
    /// The check that refused: `model`, `spend_caps`, `budget teams`, `loop_breaker`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// The key's counters before the request, of a refusal: so that it can be decided again under another policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// It was admitted under a lease that the key's Meter had given out: its rate limits were taken with the lease.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
}

/// What a request asked for: sizes and settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Input tokens, as the gateway estimates them before sending: above the provider's count.
    pub input_tokens: u64,
    /// The caller's own limit of output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// How many answers, where it is not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<u64>,
    /// The body's size.
    pub body_bytes: u64,
    /// The service tier asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// It brought an actor token.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub actor_token: bool,
    /// What its input consists of, where the gateway could tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<PromptParts>,
}

/// The input of a request by what it is for, in the tokens of the gateway's estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PromptParts {
    /// Instructions: `system`, `instructions`, and messages of the system or the developer.
    #[serde(skip_serializing_if = "is_zero")]
    pub system: u64,
    /// Tools on offer.
    #[serde(skip_serializing_if = "is_zero")]
    pub tools: u64,
    /// Messages before the last one.
    #[serde(skip_serializing_if = "is_zero")]
    pub history: u64,
    /// The last message.
    #[serde(skip_serializing_if = "is_zero")]
    pub last: u64,
    /// All else: images, settings that are text, and what every request takes.
    #[serde(skip_serializing_if = "is_zero")]
    pub other: u64,
}

impl PromptParts {
    /// The parts with their names.
    pub const fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("system", self.system),
            ("tools", self.tools),
            ("history", self.history),
            ("last", self.last),
            ("other", self.other),
        ]
    }

    /// The name of the largest part, the first of equals.
    pub fn largest(&self) -> &'static str {
        let [first, rest @ ..] = self.named();
        rest.into_iter().fold(first, |best, part| if part.1 > best.1 { part } else { best }).0
    }

    /// Adds other parts.
    pub const fn add(&mut self, other: &Self) {
        self.system = self.system.saturating_add(other.system);
        self.tools = self.tools.saturating_add(other.tools);
        self.history = self.history.saturating_add(other.history);
        self.last = self.last.saturating_add(other.last);
        self.other = self.other.saturating_add(other.other);
    }
}

/// One limit, and what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LimitCheck {
    /// Its name: `max_request_usd`, `requests_per_minute`, `spend_cap day`, `budget teams`, ...
    pub name: String,
    /// What it allows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limit: String,
    /// What was taken of it before: spent and held, or used up.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// What the request asked of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub asked: String,
    /// It refused the request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}
