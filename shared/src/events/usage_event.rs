//! The usage event: the immutable record of one request. The one codec of events, versioned; the ledger, the export
//! and the reconciler read nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::decision::Decided;
use crate::identity::actor::Actor;
use crate::ids::{KeyId, RequestId, WorkspaceId};
use crate::money::Usd;
use crate::pricing::Cost;
use crate::time::Timestamp;
use crate::tokens::Usage;

/// The version of this format. A change of meaning takes a new number and a migration.
pub const USAGE_EVENT_VERSION: u32 = 1;

/// What happened to one request. Written once, in the transaction that moves the money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UsageEvent {
    /// [`USAGE_EVENT_VERSION`].
    pub v: u32,
    /// The request's id; also the idempotency key of its settlement.
    pub id: RequestId,
    /// Position in the key's own sequence of events, from 1, without gaps.
    pub seq: u64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The gateway key.
    pub key: KeyId,
    /// When the request was admitted (or refused): this moment chooses the price and the budget window.
    pub at: Timestamp,
    /// When it was settled.
    pub settled_at: Timestamp,
    /// The key's name.
    pub key_name: String,
    /// Who answers for the key.
    pub owner: String,
    /// Who pays.
    pub cost_centre: String,
    /// What the key is for.
    pub purpose: String,
    /// The key's environment.
    pub environment: String,
    /// Who was behind the request: what the key fixes and what a signed token said.
    #[serde(default)]
    pub actor: Actor,
    /// Unsigned labels the caller sent. They never select a budget.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The network that the caller asked from: the first 24 bits of an IPv4 address, 48 of an IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The endpoint's path, for example `/v1/chat/completions`.
    pub endpoint: String,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// The model that the caller named.
    pub requested_model: String,
    /// The shared budget that had it served by a cheaper model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downgraded_by: Option<String>,
    /// The provider that answered, by the workspace's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model that was asked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model that the answer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// The provider's own id of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_request_id: Option<String>,
    /// Every attempt at a provider, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable code of a refusal or failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The HTTP status that the caller got.
    pub status: u16,
    /// What was consumed, and who says so.
    pub usage: Usage,
    /// What it cost, in parts that add up. `None` when nothing was bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What was counted against the budgets: the cost, or the hold where the cost is not known.
    pub charged: Usd,
    /// What had been set aside.
    pub hold: Usd,
    /// Milliseconds from admission to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the provider's first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// The caller's trace, 32 hex digits, where it sent a `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The gateway's span in that trace, 16 hex digits: the parent of what the provider records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// What was asked for and what each limit said. Events from before this was recorded have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Box<Decided>>,
    /// How many requests this record stands for: more than 1 where a flood of refusals is sampled.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub sampled: u64,
}

/// One attempt at a provider. A retry may be a second bill, so each is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The provider, by the workspace's name for it.
    pub provider: String,
    /// The model asked for.
    pub model: String,
    /// The HTTP status, when there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong: `connection_failed`, `first_byte_timeout`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Milliseconds from the request's admission to the start of this attempt.
    pub started_ms: u64,
    /// Milliseconds this attempt took, to its headers or its failure.
    pub took_ms: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered to the last byte.
    Completed,
    /// Refused before any money was spent.
    Refused,
    /// The provider answered with an error.
    ProviderError,
    /// The provider could not be reached.
    ProviderUnreachable,
    /// The provider's answer broke off.
    ProviderDied,
    /// The provider fell silent in mid-answer.
    Stalled,
    /// The caller went away.
    ClientGone,
    /// The gateway itself failed.
    GatewayError,
    /// Nobody settled the hold: it was charged in full when it expired.
    Abandoned,
    /// The Meter restarted with requests in flight that it no longer knows one by one. `hold` is the most they can
    /// have cost, `charged` is 0: the provider's bill decides.
    Interrupted,
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}
