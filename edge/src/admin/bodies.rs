//! What the admin API takes in. Unknown fields are refused: a limit that is misspelt would be no limit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use tallygate_shared::alerts::alert::{AlertKind, Severity};
use tallygate_shared::budget::terms::Dimension;
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::money::Usd;

use super::config::PolicyRef;
use super::config_telemetry::all_signals;
use super::roles::Role;
use crate::objects::alerts_plan::ReceiverKind;
use crate::objects::telemetry_plan::Signal;

/// A workspace to create.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewWorkspace {
    /// Its id, `ws_` and 1 to 40 characters of a-z, 0-9 and -; one is made up where it is absent.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub id: Option<WorkspaceId>,
    /// Its name, for people.
    pub name: String,
    /// It is for demo data, and for nothing else. Its id is then `ws_demo`, or begins with `ws_demo-`.
    #[serde(default)]
    pub demo: bool,
}

/// An API token to issue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// What it may do: `admin`, `finance`, `developer` or `auditor`.
    pub role: Role,
    /// Whose keys, requests, budgets and alerts a developer sees, as `owner` of keys and budgets has it: a developer's
    /// token names one, or `*` for everybody's. Other roles have none.
    #[serde(default)]
    pub owner: Option<String>,
}

/// A provider as it is created: the configuration, and the credential that is never shown again.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewProvider {
    /// The workspace's name for it; `name/model` addresses it.
    pub name: String,
    /// What it speaks: `openai`, `anthropic`, `azure`, `gemini`, `mistral`, `groq`, `openrouter`, `perplexity`,
    /// `deepseek`, `xai`, `cohere` or `compatible`.
    pub kind: String,
    /// Its API key. Sealed at once and never shown.
    #[serde(default)]
    pub credential: Option<String>,
    /// Its base URL; the kind's own where absent.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The header for the credential, where it is not the kind's own.
    #[serde(default)]
    pub auth_header: Option<String>,
    /// Azure's `api-version`, for URLs in the deployment style.
    #[serde(default)]
    pub api_version: Option<String>,
    /// The region, where it changes the price: `us` or `eu`.
    #[serde(default)]
    pub region: Option<String>,
    /// What a deployment or local name is priced as.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// Where a bare model name looks first: the lowest rank, then the first name.
    #[serde(default)]
    pub rank: u32,
    /// How its bills are paid, for people.
    #[serde(default)]
    pub payment_method: Option<String>,
}

/// What changes of a provider. What is absent stays; `null` takes a field away.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct ProviderChange {
    /// A new API key.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub credential: Option<Option<String>>,
    /// Another base URL.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub base_url: Option<Option<String>>,
    /// Another header for the credential.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub auth_header: Option<Option<String>>,
    /// Another `api-version`.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub api_version: Option<Option<String>>,
    /// Another region.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub region: Option<Option<String>>,
    /// All of its deployments anew.
    pub models: Option<BTreeMap<String, String>>,
    /// Another rank.
    pub rank: Option<u32>,
    /// Another way in which its bills are paid.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub payment_method: Option<Option<String>>,
}

/// A gateway key to issue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name, for people.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// Who pays.
    pub cost_centre: String,
    /// What it is for.
    pub purpose: String,
    /// Where it is used.
    pub environment: String,
    /// What it fixes of a request's actor.
    #[serde(default)]
    pub actor: Actor,
    /// Its rules, or the name of a policy.
    #[serde(default)]
    pub policy: PolicyRef,
    /// When it stops working: a day, or UTC in RFC 3339.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// What changes of a key. What is absent stays.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KeyChange {
    /// Another name.
    pub name: Option<String>,
    /// Another owner.
    pub owner: Option<String>,
    /// Another cost centre.
    pub cost_centre: Option<String>,
    /// Another purpose.
    pub purpose: Option<String>,
    /// Another environment.
    pub environment: Option<String>,
    /// All that it fixes of an actor, anew.
    pub actor: Option<Actor>,
    /// All of its rules anew, or the name of a policy.
    pub policy: Option<PolicyRef>,
    /// Another expiry; `null` for none.
    #[serde(deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub expires_at: Option<Option<String>>,
}

/// How a key is rotated.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// How long the old secret goes on working; 0 ends it at once.
    #[cfg_attr(test, schemars(range(max = 2_592_000)))]
    pub overlap_seconds: u64,
}

/// A secret that actor tokens are signed with.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewActorSecret {
    /// The token header's `kid`.
    pub kid: String,
    /// The secret, at least 32 bytes; one is made up where it is absent.
    #[serde(default)]
    pub secret: Option<String>,
}

/// A price map to import.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PriceImport {
    /// LiteLLM's price map, as it is published.
    #[cfg_attr(test, schemars(with = "BTreeMap<String, serde_json::Value>"))]
    pub map: Box<serde_json::value::RawValue>,
    /// Which of its providers to take, and what the workspace calls them.
    pub providers: BTreeMap<String, String>,
}

/// A request that is only thought of.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Thought {
    /// The endpoint's path.
    #[serde(default = "chat")]
    pub endpoint: String,
    /// The model, as a caller would name it.
    pub model: String,
    /// Tokens of input.
    #[serde(default)]
    pub input_tokens: u64,
    /// The caller's own limit of output.
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
    /// The body's size.
    #[serde(default)]
    pub body_bytes: u64,
    /// The caller's address.
    #[serde(default)]
    pub ip: Option<std::net::IpAddr>,
    /// The service tier asked for.
    #[serde(default)]
    pub service_tier: Option<String>,
    /// Who a signed actor token would say is behind the request.
    #[serde(default)]
    pub actor: Option<Actor>,
    /// Rules, or the name of a policy, that the key is thought to have instead of its own.
    #[serde(default)]
    pub policy: Option<PolicyRef>,
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

/// Tells a field that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A receiver of messages about alerts.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReceiverBody {
    /// `standard_webhook` or `slack`.
    #[serde(rename = "type")]
    pub kind: ReceiverKind,
    /// Where it is: https, and public unless the operator allows private addresses. Slack's is write-only, and stays
    /// where it is absent.
    #[serde(default)]
    pub url: Option<String>,
    /// A webhook's secret: `whsec_` and base64. Where it is absent the old one stays, and a new receiver gets one.
    #[serde(default)]
    pub secret: Option<String>,
    /// The lowest severity it hears of.
    #[serde(default)]
    pub min_severity: Severity,
    /// The kinds it hears of; empty for all.
    #[serde(default)]
    pub kinds: Vec<AlertKind>,
    /// Whether it hears anything.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// Where metrics and log events go.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TelemetryBody {
    /// The OpenTelemetry collector's address, to which `/v1/metrics` and `/v1/logs` are added: https, and public unless
    /// the operator allows private addresses. Without it nothing is exported.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Headers for the collector, such as its authorization: write-only. Where they are absent the old ones stay, unless
    /// the address changes; `{}` removes them.
    #[serde(default)]
    pub headers: Option<BTreeMap<String, String>>,
    /// What it gets; both where it is absent.
    #[serde(default = "all_signals")]
    pub signals: BTreeSet<Signal>,
    /// Attributes of the resource.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// Whether anything is exported.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether a request without a `traceparent` that can be read starts a trace towards its provider.
    #[serde(default)]
    pub start_traces: bool,
}

fn yes() -> bool {
    true
}

/// How a receiver's secret is rotated.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ReceiverRotation {
    /// The new secret; one is made up where it is absent.
    pub secret: Option<String>,
    /// How long messages carry the old secret's signature too. Default: a day.
    #[cfg_attr(test, schemars(range(max = 2_592_000)))]
    pub overlap_seconds: u64,
}

impl Default for ReceiverRotation {
    fn default() -> Self {
        Self { secret: None, overlap_seconds: 24 * 60 * 60 }
    }
}

/// How long an alert is to be quiet.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Snooze {
    /// Until when: UTC in RFC 3339, in the next 90 days.
    pub until: String,
    /// Why it may wait.
    pub reason: String,
}

/// A policy that is tried on requests that were refused.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyTrial {
    /// One of the workspace's policies by its name, or the rules themselves.
    pub policy: PolicyRef,
    /// Refusals from this time on: a day, or UTC in RFC 3339.
    #[serde(default)]
    pub from: Option<String>,
    /// Refusals before this time.
    #[serde(default)]
    pub to: Option<String>,
    /// Only refusals with these values of their dimensions, such as `key`, `team` or `code`.
    #[serde(default)]
    pub filters: BTreeMap<String, String>,
}

/// Which version of the configuration to go back to.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The version: one of `GET .../config/versions`.
    pub version: u64,
}

/// A proposed budget that is taken.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TakenProposal {
    /// What the budget tells requests apart by: `team`, `feature`, `key`, ...
    pub dimension: Dimension,
    /// The team, feature, key, ...
    pub value: String,
    /// The limit for a month, as it was proposed or as you would have it.
    pub limit_usd: Usd,
    /// Who answers for the budget, where it is new; what the budget is for where it is absent.
    #[serde(default)]
    pub owner: Option<String>,
}
