//! A workspace's configuration as one document: what can be exported, kept in git, validated, diffed and applied.
//! Secrets are not in it. Also the compiler from it to the key plans that Meters decide by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use tallygate_shared::budget::terms::BudgetTerms;
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::{KeyId, WorkspaceId};
use tallygate_shared::insights::archetype::Archetype;
use tallygate_shared::insights::commitments::Commitment;
use tallygate_shared::policy::key_plan::{
    KeyPlan, KeyPolicy, KeySecret, KeyStatus, Owner, ProviderPlan, Route, SealedActorSecret,
};
use tallygate_shared::pricing::PriceRow;
use tallygate_shared::time::Timestamp;

use tallygate_shared::feedback::ReconcilerSettings;

use super::config_alerts::{AlertSettings, ReceiverConfig};
use super::config_archive::ArchiveSettings;
use super::config_dashboard::DashboardSettings;
use super::config_telemetry::TelemetryConfig;
use crate::objects::alerts_plan::SealedSecret;
use crate::providers::ProviderKind;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Policies that keys refer to, by name.
    pub policies: BTreeMap<String, KeyPolicy>,
    /// Model aliases.
    pub routes: BTreeMap<String, Route>,
    /// The workspace's own prices, as `provider/model` or, with a start, `provider/model@YYYY-MM-DD`.
    pub prices: BTreeMap<String, PriceRow>,
    /// The price of a model that nothing else prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_price: Option<PriceRow>,
    /// Shared budgets by name.
    pub budgets: BTreeMap<String, BudgetTerms>,
    /// When to raise an alert, and where its links lead.
    #[serde(skip_serializing_if = "is_default")]
    pub alerts: AlertSettings,
    /// Receivers of messages about alerts, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub receivers: BTreeMap<String, ReceiverConfig>,
    /// Where metrics and log events go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryConfig>,
    /// What to do with differences between estimates and bills.
    #[serde(skip_serializing_if = "is_usual")]
    pub reconciler: ReconcilerSettings,
    /// For how long events are kept.
    #[serde(skip_serializing_if = "is_usual_archive")]
    pub archive: ArchiveSettings,
    /// What kind of application each feature is, by the feature's name: what its use of tokens is compared with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub archetypes: BTreeMap<String, Archetype>,
    /// Throughput that is paid for by the hour, used or not: what savings look for idle units in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub commitments: BTreeMap<String, Commitment>,
    /// Who may sign in to the dashboard without a token.
    #[serde(skip_serializing_if = "DashboardSettings::is_empty")]
    pub dashboard: DashboardSettings,
    /// Keys by public id.
    pub keys: BTreeMap<String, KeyConfig>,
}

fn is_usual_archive(settings: &ArchiveSettings) -> bool {
    *settings == ArchiveSettings::default()
}

fn is_usual(settings: &ReconcilerSettings) -> bool {
    *settings == ReconcilerSettings::default()
}

fn is_default(settings: &AlertSettings) -> bool {
    *settings == AlertSettings::default()
}

/// A provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What it speaks: `openai`, `anthropic`, `azure`, `gemini`, `mistral`, `groq`, `openrouter`, `perplexity`,
    /// `deepseek`, `xai`, `cohere` or `compatible`.
    pub kind: String,
    /// Its base URL; the kind's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The header for the credential, where it is not the kind's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_header: Option<String>,
    /// Azure's `api-version`, for URLs in the deployment style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The region, where it changes the price: `us` or `eu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What a deployment or local name is priced as.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
    /// Where a bare model name looks first: the lowest rank, then the first name.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rank: u32,
    /// How its bills are paid, for people: `card ending 4242`, `invoice, PO 7`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<String>,
}

fn is_zero(rank: &u32) -> bool {
    *rank == 0
}

/// A gateway key, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
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
    #[serde(default, skip_serializing_if = "is_nobody")]
    pub actor: Actor,
    /// Its rules.
    #[serde(default)]
    pub policy: PolicyRef,
    /// Where it stands in its life.
    #[serde(default = "active")]
    pub status: KeyStatus,
    /// When it stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

fn is_nobody(actor: &Actor) -> bool {
    *actor == Actor::default()
}

fn active() -> KeyStatus {
    KeyStatus::Active
}

/// A key's policy: a name, or the rules themselves.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PolicyRef {
    /// One of the workspace's policies.
    Named(String),
    /// Rules of this key alone.
    Inline(Box<KeyPolicy>),
}

impl Default for PolicyRef {
    fn default() -> Self {
        Self::Inline(Box::default())
    }
}

/// By hand, because the derived one would answer every mistake inside the rules with "did not match any variant".
impl<'de> Deserialize<'de> for PolicyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrRules;

        impl<'de> Visitor<'de> for NameOrRules {
            type Value = PolicyRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a policy, or an object with rules")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<PolicyRef, E> {
                Ok(PolicyRef::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PolicyRef, A::Error> {
                let policy = KeyPolicy::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PolicyRef::Inline(Box::new(policy)))
            }
        }

        deserializer.deserialize_any(NameOrRules)
    }
}

/// What is kept beside the configuration and never leaves: hashes and sealed texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Secrets {
    /// Sealed credentials by provider.
    pub credentials: BTreeMap<String, String>,
    /// Hashes of the keys' secrets.
    pub keys: BTreeMap<String, Vec<KeySecret>>,
    /// Sealed secrets of actor tokens.
    pub actors: Vec<SealedActorSecret>,
    /// Sealed secrets that the reconciler signs with.
    pub reconcilers: Vec<SealedActorSecret>,
    /// Sealed secrets of receivers, the newest first.
    pub receivers: BTreeMap<String, Vec<SealedSecret>>,
    /// The collector's headers, sealed.
    pub collector: Option<String>,
}

impl Config {
    /// Compiles one key's plan. `None` for a key that is not there.
    pub fn compile(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        id: &str,
        secrets: &Secrets,
    ) -> Option<KeyPlan> {
        let key = self.keys.get(id)?;
        let policy = match &key.policy {
            PolicyRef::Inline(policy) => (**policy).clone(),
            PolicyRef::Named(name) => self.policies.get(name)?.clone(),
        };
        let mut providers: Vec<(&String, &ProviderConfig)> = self.providers.iter().collect();
        providers.sort_by_key(|(name, provider)| (provider.rank, *name));
        let provider = |(name, provider): (&String, &ProviderConfig)| {
            let own = ProviderKind::parse(&provider.kind).and_then(|kind| kind.facts().base_url);
            ProviderPlan {
                name: name.clone(),
                kind: provider.kind.clone(),
                base_url: provider.base_url.as_deref().or(own).unwrap_or_default().to_owned(),
                credential: secrets.credentials.get(name).cloned(),
                auth_header: provider.auth_header.clone(),
                api_version: provider.api_version.clone(),
                region: provider.region.clone(),
                models: provider.models.clone(),
            }
        };
        Some(KeyPlan {
            version,
            workspace: workspace.clone(),
            key: KeyId::parse(id).ok()?,
            owner: Owner {
                name: key.name.clone(),
                owner: key.owner.clone(),
                cost_centre: key.cost_centre.clone(),
                purpose: key.purpose.clone(),
                environment: key.environment.clone(),
                actor: key.actor.clone(),
            },
            status: key.status,
            expires_at: key.expires_at.as_deref().and_then(Timestamp::parse),
            secrets: secrets.keys.get(id).cloned().unwrap_or_default(),
            policy,
            actor_secrets: secrets.actors.clone(),
            providers: providers.into_iter().map(provider).collect(),
            routes: self.routes.clone(),
            budgets: self
                .budgets
                .iter()
                .filter(|(_, terms)| terms.may_apply_to(id, &key.actor))
                .map(|(name, terms)| (name.clone(), terms.clone()))
                .collect(),
            price_overrides: self.prices.values().cloned().collect(),
            default_price: self.default_price.clone(),
            start_traces: self.starts_traces(),
        })
    }

    /// What changes from this configuration to `other`: paths of two levels, added, removed or changed.
    pub fn diff(&self, other: &Self) -> Vec<Change> {
        let (before, after) = (flat(self), flat(other));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        names
            .into_iter()
            .filter_map(|name| {
                let change = match (before.get(name), after.get(name)) {
                    (None, Some(_)) => "added",
                    (Some(_), None) => "removed",
                    (Some(a), Some(b)) if a != b => "changed",
                    _ => return None,
                };
                let (before, after) = (before.get(name).cloned(), after.get(name).cloned());
                Some(Change { path: name.clone(), change, before, after })
            })
            .collect()
    }
}

/// One difference between two configurations.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    /// `providers.openai`, `keys.0123...`
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// As it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// As it becomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// Sections that are one entry.
const WHOLE: [&str; 6] =
    ["default_price", "alerts", "reconciler", "telemetry", "dashboard", "archive"];

/// The configuration's entries by path: what is stored, compared and audited one by one.
pub fn flat(config: &Config) -> BTreeMap<String, serde_json::Value> {
    let mut entries = BTreeMap::new();
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(config) {
        for (section, value) in sections {
            match value {
                serde_json::Value::Object(items) if !WHOLE.contains(&section.as_str()) => {
                    for (name, item) in items {
                        entries.insert(format!("{section}.{name}"), item);
                    }
                }
                other => {
                    entries.insert(section, other);
                }
            }
        }
    }
    entries
}

/// The configuration of these entries: what `flat` takes apart.
pub fn whole(entries: BTreeMap<String, serde_json::Value>) -> Result<Config, serde_json::Error> {
    let mut sections = serde_json::Map::new();
    for (path, body) in entries {
        match path.split_once('.') {
            Some((section, name)) => {
                let items = sections.entry(section.to_owned()).or_insert_with(|| json!({}));
                if let Some(items) = items.as_object_mut() {
                    items.insert(name.to_owned(), body);
                }
            }
            None => {
                sections.insert(path, body);
            }
        }
    }
    serde_json::from_value(serde_json::Value::Object(sections))
}
