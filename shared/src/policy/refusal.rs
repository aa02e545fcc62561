//! Why a request is refused: one variant per reason, in the order the checks run, with the facts of the case.
//! Knows nothing of HTTP: `edge` has the one table from code to status.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::loop_breaker::shape::Evidence;
use crate::money::Usd;
use crate::time::Timestamp;

/// A shared budget that refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetRef {
    /// Its name in the workspace.
    pub name: String,
    /// What it tells requests apart by: `team`, `user`, ...
    pub dimension: String,
    /// The value that this request has there.
    pub value: String,
}

/// A refusal. `code()` is stable: clients, metrics and logs branch on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refusal {
    /// No such key, or the secret is not its secret. Deliberately one reason for both.
    #[error("This gateway key is not known. Check that it was copied whole and was not rotated.")]
    KeyInvalid,
    /// The key was stopped for good.
    #[error("This gateway key was revoked. Ask its owner for a new one.")]
    KeyRevoked,
    /// The key is stopped for now.
    #[error("This gateway key is suspended. Ask a workspace admin to resume it.")]
    KeySuspended,
    /// The key has run out.
    #[error("This gateway key expired at {expired_at}. Ask its owner for a new one.")]
    KeyExpired {
        /// When it did.
        expired_at: Timestamp,
    },
    /// The client's address is outside the key's ranges.
    #[error("This gateway key may not be used from this network address ({address}).")]
    AddressNotAllowed {
        /// The address, or `unknown`.
        address: String,
    },
    /// The actor token is missing or no good.
    #[error("{detail}")]
    Actor {
        /// One of the `actor_*` codes.
        code: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// A claim that the policy requires is not there.
    #[error(
        "This key requires the actor claim `{claim}`. Add it to the token in x-tallygate-actor."
    )]
    ActorClaimMissing {
        /// The claim.
        claim: String,
    },
    /// The request itself could not be read.
    #[error("{detail}")]
    BadRequest {
        /// `invalid_json`, `unsupported_media_type`, ...
        code: String,
        /// What is wrong and what to do.
        detail: String,
        /// The field, where there is one.
        param: Option<String>,
    },
    /// The body is larger than the policy allows.
    #[error("The request body has {size_bytes} bytes; this key allows {limit_bytes}.")]
    RequestTooLarge {
        /// What it has.
        size_bytes: u64,
        /// What it may have.
        limit_bytes: u64,
    },
    /// The model is denied or not among the allowed.
    #[error("The model `{model}` is not allowed for this key{}.", because(.pattern))]
    ModelNotAllowed {
        /// The model that the policy refuses.
        model: String,
        /// The pattern that decided, where one did.
        pattern: Option<String>,
    },
    /// A name whose meaning moves, where the policy wants fixed ones.
    #[error(
        "The model `{model}` is a floating alias, which this key's policy refuses. Name a dated model."
    )]
    FloatingAlias {
        /// The alias.
        model: String,
    },
    /// No provider of the workspace can serve this.
    #[error("No provider of this workspace serves the model `{model}` on this endpoint.")]
    ModelNotFound {
        /// The model as named.
        model: String,
    },
    /// Nothing says what the model costs, and a budget depends on it.
    #[error(
        "The model `{model}` has no price, and this key has a budget. Add a price for it, or a default price."
    )]
    ModelUnpriced {
        /// The model.
        model: String,
        /// The rating error's code: `model_unpriced`, `tier_unpriced`, ...
        cause: String,
    },
    /// More output than the policy allows.
    #[error("The request asks for {asked} output tokens; this key allows {limit}.")]
    OutputLimitExceeded {
        /// What it asks for.
        asked: u64,
        /// What it may ask for.
        limit: u64,
    },
    /// The request could cost more than one request may.
    #[error(
        "The request could cost {worst_case} USD; this key allows {limit} USD a request. Lower the maximum output tokens."
    )]
    RequestCostExceeded {
        /// Its worst case.
        worst_case: Usd,
        /// The limit.
        limit: Usd,
    },
    /// Too many requests or tokens a minute, or too many at once.
    #[error(
        "Rate limit{} reached: {limit} {unit}. Try again in {retry_after_ms} ms.",
        named(.budget)
    )]
    RateLimited {
        /// The shared budget whose limit it is; `None` for the key's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<BudgetRef>,
        /// `requests_per_minute`, `tokens_per_minute` or `concurrent_requests`.
        unit: String,
        /// The limit.
        limit: u64,
        /// When waiting helps.
        retry_after_ms: u64,
    },
    /// Only money that is set aside for requests in flight stands in the way.
    #[error(
        "The {window} budget{} of {cap} USD is held by requests in flight ({held} USD held, {spent} USD spent). Try again shortly.",
        named(.budget)
    )]
    BudgetHeld {
        /// The shared budget whose limit it is; `None` for the key's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<BudgetRef>,
        /// `day`, `month`, ...
        window: String,
        /// The cap.
        cap: Usd,
        /// Settled.
        spent: Usd,
        /// Set aside.
        held: Usd,
        /// What this request would set aside.
        hold: Usd,
        /// When waiting is likely to help.
        retry_after_ms: u64,
    },
    /// The money is spent.
    #[error(
        "The {window} budget{} of {cap} USD is exhausted: {spent} USD spent, and this request could cost {hold} USD.",
        named(.budget)
    )]
    BudgetExceeded {
        /// The shared budget whose limit it is; `None` for the key's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<BudgetRef>,
        /// `day`, `month`, ...
        window: String,
        /// The cap.
        cap: Usd,
        /// Settled.
        spent: Usd,
        /// Set aside.
        held: Usd,
        /// What this request would set aside.
        hold: Usd,
        /// When the window ends, if it does.
        resets_at: Option<Timestamp>,
    },
    /// The agent goes round in circles.
    #[error(
        "This agent session was stopped as a loop: {evidence}. Mend the agent; it may go on at {until}, or when an admin clears the loop `{scope}`."
    )]
    LoopDetected {
        /// The id of the agent and session, to clear it by.
        scope: String,
        /// The agent.
        agent: Option<String>,
        /// The session.
        session: Option<String>,
        /// What was seen.
        evidence: Box<Evidence>,
        /// What it had spent when it was stopped.
        spent_usd: Usd,
        /// Its answered requests by then.
        requests: u64,
        /// The end of the cool-down.
        until: Timestamp,
        /// The time until then.
        retry_after_ms: u64,
    },
}

fn because(pattern: &Option<String>) -> String {
    pattern.as_ref().map(|p| format!(" (denied by `{p}`)")).unwrap_or_default()
}

fn named(budget: &Option<BudgetRef>) -> String {
    let shown = |b: &BudgetRef| format!(" `{}` ({} {})", b.name, b.dimension, b.value);
    budget.as_ref().map(shown).unwrap_or_default()
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::KeyInvalid => "key_invalid",
            Self::KeyRevoked => "key_revoked",
            Self::KeySuspended => "key_suspended",
            Self::KeyExpired { .. } => "key_expired",
            Self::AddressNotAllowed { .. } => "address_not_allowed",
            Self::Actor { code, .. } | Self::BadRequest { code, .. } => code,
            Self::ActorClaimMissing { .. } => "actor_claim_missing",
            Self::RequestTooLarge { .. } => "request_too_large",
            Self::ModelNotAllowed { .. } => "model_not_allowed",
            Self::FloatingAlias { .. } => "floating_alias_refused",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ModelUnpriced { .. } => "model_unpriced",
            Self::OutputLimitExceeded { .. } => "max_output_tokens_exceeded",
            Self::RequestCostExceeded { .. } => "max_request_cost_exceeded",
            Self::RateLimited { .. } => "rate_limited",
            Self::BudgetHeld { .. } => "budget_held",
            Self::BudgetExceeded { .. } => "budget_exceeded",
            Self::LoopDetected { .. } => "loop_detected",
        }
    }

    /// Milliseconds after which trying again may help; `None` when waiting does not.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_ms, .. }
            | Self::BudgetHeld { retry_after_ms, .. }
            | Self::LoopDetected { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::KeyInvalid
            | Self::KeyRevoked
            | Self::KeySuspended
            | Self::KeyExpired { .. }
            | Self::AddressNotAllowed { .. }
            | Self::Actor { .. }
            | Self::ActorClaimMissing { .. }
            | Self::BadRequest { .. }
            | Self::RequestTooLarge { .. }
            | Self::ModelNotAllowed { .. }
            | Self::FloatingAlias { .. }
            | Self::ModelNotFound { .. }
            | Self::ModelUnpriced { .. }
            | Self::OutputLimitExceeded { .. }
            | Self::RequestCostExceeded { .. }
            | Self::BudgetExceeded { .. } => None,
        }
    }

    /// The request's field that is at fault, where there is one.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::BadRequest { param, .. } => param.as_deref(),
            Self::ModelNotAllowed { .. }
            | Self::FloatingAlias { .. }
            | Self::ModelNotFound { .. }
            | Self::ModelUnpriced { .. } => Some("model"),
            Self::OutputLimitExceeded { .. } => Some("max_tokens"),
            Self::KeyInvalid
            | Self::KeyRevoked
            | Self::KeySuspended
            | Self::KeyExpired { .. }
            | Self::AddressNotAllowed { .. }
            | Self::Actor { .. }
            | Self::ActorClaimMissing { .. }
            | Self::RequestTooLarge { .. }
            | Self::RequestCostExceeded { .. }
            | Self::RateLimited { .. }
            | Self::BudgetHeld { .. }
            | Self::BudgetExceeded { .. }
            | Self::LoopDetected { .. } => None,
        }
    }

    /// The facts as an object for the error's `metadata`: the variant's own fields, times in RFC 3339.
    pub fn facts(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut facts)) = serde_json::to_value(self) else { return Map::new() };
        for hidden in ["reason", "code", "detail", "param"] {
            facts.remove(hidden);
        }
        for time in ["expired_at", "resets_at", "until"] {
            if let Some(ms) = facts.get(time).and_then(Value::as_i64) {
                facts.insert(time.to_owned(), Timestamp::from_ms(ms).to_string().into());
            }
        }
        facts
    }
}
