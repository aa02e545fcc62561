//! The key plan: all that a Meter must know to decide about its key's requests, compiled by the Workspace and pushed,
//! versioned, to the Meter. Owns the shape of policy; never asks anybody for more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::budget::loop_breaker::rules::LoopRules;
use crate::budget::terms::{BudgetTerms, Spender};
use crate::budget::window::Window;
use crate::identity::actor::Actor;
use crate::ids::{KeyId, WorkspaceId};
use crate::money::Usd;
use crate::policy::globs::ModelRules;
use crate::policy::ip_ranges::IpRanges;
use crate::pricing::PriceRow;
use crate::time::Timestamp;

/// Everything that decides about one gateway key. Immutable: a change is a plan with a higher `version`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPlan {
    /// Grows with every change in the workspace; a Meter ignores a plan older than the one it has.
    pub version: u64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The key's public id.
    pub key: KeyId,
    /// Who answers for the key, and what it is for.
    pub owner: Owner,
    /// Whether the key may be used.
    pub status: KeyStatus,
    /// When the key stops working, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The secrets that open it: one, or two during a rotation's overlap.
    pub secrets: Vec<KeySecret>,
    /// Limits and rules.
    pub policy: KeyPolicy,
    /// Secrets for actor tokens, sealed under the Worker's key ring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actor_secrets: Vec<SealedActorSecret>,
    /// The workspace's providers, in the order in which a bare model name looks for one.
    pub providers: Vec<ProviderPlan>,
    /// Model aliases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Route>,
    /// The shared budgets that can apply to the key's requests, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, BudgetTerms>,
    /// The workspace's own prices; they win over the price book.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub price_overrides: Vec<PriceRow>,
    /// The price of a model that nothing else prices. Without it such a model is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_price: Option<PriceRow>,
    /// Whether a request that belongs to no trace starts one towards its provider.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_traces: bool,
}

impl KeyPlan {
    /// A request's place among budgets: this key, and who is behind the request.
    pub fn spender<'a>(&'a self, actor: &'a Actor) -> Spender<'a> {
        Spender {
            workspace: &self.workspace,
            key: &self.key,
            environment: &self.owner.environment,
            actor,
        }
    }

    /// The shared budgets that apply to a request of `actor`: name, the value it counts under, terms.
    pub fn budgets_of<'a>(
        &'a self,
        actor: &'a Actor,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a BudgetTerms)> {
        let spender = self.spender(actor);
        self.budgets.iter().filter_map(move |(name, terms)| {
            terms.applies_to(&spender).map(|value| (name.as_str(), value, terms))
        })
    }
}

/// Who answers for a key. Each usage event carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The key's name, for people.
    pub name: String,
    /// A person or group that answers for the spending.
    pub owner: String,
    /// The cost centre that pays.
    pub cost_centre: String,
    /// What the key is for.
    pub purpose: String,
    /// Where it is used: `production`, `staging`, ...
    pub environment: String,
    /// What the key itself fixes of a request's actor; a token cannot override it.
    #[serde(default)]
    pub actor: Actor,
}

/// Where a key stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// In use.
    Active,
    /// Stopped for now; can be resumed.
    Suspended,
    /// Stopped for ever.
    Revoked,
}

/// One secret of a key: its hash, and until when it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySecret {
    /// SHA-256 of the whole key text, lowercase hex.
    pub sha256: String,
    /// End of the overlap after a rotation; `None` for the current secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A secret that actor tokens are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedActorSecret {
    /// The token header's `kid`.
    pub kid: String,
    /// The secret, sealed under the Worker's key ring.
    pub sealed: String,
    /// Until when tokens under this secret are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What a key may do. An absent field is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KeyPolicy {
    /// Allowed and denied models; deny wins.
    pub models: ModelRules,
    /// Refuse floating aliases such as `*-latest`, whose meaning and price move.
    pub refuse_floating_aliases: bool,
    /// Client addresses that may use the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_ranges: Option<IpRanges>,
    /// Whether a request needs a signed actor token.
    pub require_actor: bool,
    /// Claims that the actor must carry (`user`, `team`, `app`, ...).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_claims: Vec<String>,
    /// Limit of a request's output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// What happens to a request that asks for more output.
    pub on_output_excess: OutputExcess,
    /// Largest cost that one request may reach, at its worst case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_usd: Option<Usd>,
    /// Requests per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute, input and output together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Requests in flight at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u64>,
    /// Spending caps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spend_caps: Vec<SpendCap>,
    /// Whether each request asks the key's Meter, so that a revocation acts on the very next one. Otherwise a busy key's
    /// requests may be admitted by a Worker on its own, for up to 2 seconds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub immediate: bool,
    /// Largest request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
    /// When an agent's requests count as a loop.
    #[serde(skip_serializing_if = "LoopRules::is_default")]
    pub loop_breaker: LoopRules,
}

/// What to do with a request that asks for more output than the policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutputExcess {
    /// Lower the request's limit to the policy's.
    #[default]
    Clamp,
    /// Refuse it.
    Refuse,
}

/// A hard cap on spending in a window of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SpendCap {
    /// The window.
    pub window: Window,
    /// The most that may be spent in it.
    pub limit_usd: Usd,
}

/// A provider as a Meter knows it: where it is, and its sealed credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderPlan {
    /// The name the workspace gave it; `name/model` addresses it explicitly.
    pub name: String,
    /// What it speaks: `openai`, `anthropic`, `azure`, `gemini`, ... as `edge`'s providers name themselves.
    pub kind: String,
    /// Its base URL, without the endpoint's path.
    pub base_url: String,
    /// The credential, sealed under the Worker's key ring. `None` for a server that asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The header that carries the credential, where it is not the kind's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_header: Option<String>,
    /// Azure's `api-version`; with it, URLs are built in the deployment style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The region that inference runs in, where it changes the price (`us`, `eu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What a deployment or local name is priced as (Azure deployment name -> model).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
}

/// A model alias: where requests for it go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// How the first target is chosen; the others are fallbacks, in order.
    #[serde(default)]
    pub strategy: Strategy,
    /// At least one target.
    pub targets: Vec<Target>,
    /// Attempts at each target before the next is tried.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// Longest wait for the first byte of the answer's headers, in milliseconds.
    #[serde(default = "default_first_byte_timeout_ms")]
    pub first_byte_timeout_ms: u64,
    /// Longest silence in the middle of an answer, in milliseconds.
    #[serde(default = "default_idle_timeout_ms")]
    pub idle_timeout_ms: u64,
}

/// How a route chooses its first target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first, then the next when it fails.
    #[default]
    Ordered,
    /// At random by weight, then the others by weight.
    Weighted,
}

/// One place that can answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A provider's name.
    pub provider: String,
    /// The model to ask it for.
    pub model: String,
    /// Its share under `weighted`; 0 makes it a fallback only.
    #[serde(default = "default_weight")]
    pub weight: u32,
}

fn default_attempts() -> u32 {
    2
}

fn default_first_byte_timeout_ms() -> u64 {
    // Reasoning models think for minutes before the first byte when they do not stream.
    600_000
}

fn default_idle_timeout_ms() -> u64 {
    120_000
}

fn default_weight() -> u32 {
    1
}

impl Route {
    /// The route of a bare model name: one target, the defaults for everything else.
    pub fn direct(provider: &str, model: &str) -> Self {
        Self {
            strategy: Strategy::Ordered,
            targets: vec![Target {
                provider: provider.to_owned(),
                model: model.to_owned(),
                weight: default_weight(),
            }],
            attempts: default_attempts(),
            first_byte_timeout_ms: default_first_byte_timeout_ms(),
            idle_timeout_ms: default_idle_timeout_ms(),
        }
    }
}
