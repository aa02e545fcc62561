//! A workspace's configuration as one document: what can be exported, kept in git, validated, diffed and applied.
//! Secrets are not in it. Also the compiler from it to the key plans that Meters decide by.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::{KeyId, WorkspaceId};
use tallygate_shared::money::Usd;
use tallygate_shared::policy::key_plan::{
    KeyPlan, KeyPolicy, KeySecret, KeyStatus, Owner, ProviderPlan, Route, SealedActorSecret,
};
use tallygate_shared::pricing::PriceRow;
use tallygate_shared::time::Timestamp;

use super::problem::Problem;
use crate::providers::ProviderKind;

/// Longest name of anything.
const MAX_NAME: usize = 128;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Keys by public id.
    pub keys: BTreeMap<String, KeyConfig>,
}

/// A provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

fn is_zero(rank: &u32) -> bool {
    *rank == 0
}

/// A gateway key, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

impl Config {
    /// Checks everything that does not depend on secrets, references included.
    pub fn validate(&self) -> Result<(), Problem> {
        for (name, provider) in &self.providers {
            provider.validate(name)?;
        }
        for (name, route) in &self.routes {
            check_name("routes", name)?;
            self.validate_route(name, route)?;
        }
        for name in self.policies.keys() {
            check_name("policies", name)?;
        }
        for (name, policy) in &self.policies {
            validate_policy(&format!("policies.{name}"), policy)?;
        }
        for (name, row) in &self.prices {
            let field = format!("prices.{name}");
            row.validate()
                .map_err(|e| Problem::field(&field, e.to_string(), "Correct the row."))?;
            if !self.providers.contains_key(&row.provider) {
                let detail = format!("names the unknown provider `{}`", row.provider);
                return Err(Problem::field(&field, detail, "Use the name of one of `providers`."));
            }
        }
        if let Some(row) = &self.default_price {
            let wrong = |e: tallygate_shared::pricing::RowError| e.to_string();
            row.validate()
                .map_err(|e| Problem::field("default_price", wrong(e), "Correct the row."))?;
        }
        self.keys.iter().try_for_each(|(id, key)| self.validate_key(id, key))
    }

    fn validate_route(&self, name: &str, route: &Route) -> Result<(), Problem> {
        let field = format!("routes.{name}.targets");
        if route.targets.is_empty() || route.targets.len() > 16 {
            return Err(Problem::field(&field, "must have 1 to 16 targets", "Name at least one."));
        }
        for target in &route.targets {
            if !self.providers.contains_key(&target.provider) {
                let detail = format!("names the unknown provider `{}`", target.provider);
                return Err(Problem::field(&field, detail, "Use the name of one of `providers`."));
            }
            check_text(&field, &target.model)?;
        }
        if !(1..=10).contains(&route.attempts) {
            let field = format!("routes.{name}.attempts");
            return Err(Problem::field(&field, "must be 1 to 10", "Set it to 2, the default."));
        }
        for (field, ms) in [
            ("first_byte_timeout_ms", route.first_byte_timeout_ms),
            ("idle_timeout_ms", route.idle_timeout_ms),
        ] {
            if !(100..=800_000).contains(&ms) {
                let field = format!("routes.{name}.{field}");
                return Err(Problem::field(&field, "must be 100 to 800000", "Give milliseconds."));
            }
        }
        Ok(())
    }

    fn validate_key(&self, id: &str, key: &KeyConfig) -> Result<(), Problem> {
        let at = |field: &str| format!("keys.{id}.{field}");
        if KeyId::parse(id).is_err() {
            return Err(Problem::field(
                "keys",
                format!("has the bad key id `{id}`"),
                "Export first.",
            ));
        }
        for (field, text) in [
            ("name", &key.name),
            ("owner", &key.owner),
            ("cost_centre", &key.cost_centre),
            ("purpose", &key.purpose),
            ("environment", &key.environment),
        ] {
            check_text(&at(field), text)?;
        }
        if let Err(error) = key.actor.validate() {
            return Err(Problem::field(&at("actor"), error.to_string(), "Correct the claim."));
        }
        if let Some(text) = &key.expires_at
            && Timestamp::parse(text).is_none()
        {
            let remedy = "Give UTC in RFC 3339, for example 2027-01-01T00:00:00Z.";
            return Err(Problem::field(&at("expires_at"), "is not a time", remedy));
        }
        match &key.policy {
            PolicyRef::Inline(policy) => validate_policy(&at("policy"), policy),
            PolicyRef::Named(name) if self.policies.contains_key(name) => Ok(()),
            PolicyRef::Named(name) => {
                let detail = format!("names the unknown policy `{name}`");
                Err(Problem::field(
                    &at("policy"),
                    detail,
                    "Use a name of `policies`, or an object.",
                ))
            }
        }
    }

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
            price_overrides: self.prices.values().cloned().collect(),
            default_price: self.default_price.clone(),
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

/// The configuration's entries by path: what is stored, compared and audited one by one.
pub fn flat(config: &Config) -> BTreeMap<String, serde_json::Value> {
    let mut entries = BTreeMap::new();
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(config) {
        for (section, value) in sections {
            match value {
                serde_json::Value::Object(items) if section != "default_price" => {
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

impl ProviderConfig {
    fn validate(&self, name: &str) -> Result<(), Problem> {
        check_name("providers", name)?;
        let at = |field: &str| format!("providers.{name}.{field}");
        let Some(kind) = ProviderKind::parse(&self.kind) else {
            let kinds = ProviderKind::ALL.map(ProviderKind::name).join(", ");
            return Err(Problem::field(
                &at("kind"),
                "is not known",
                &format!("Use one of {kinds}."),
            ));
        };
        match &self.base_url {
            None if kind.facts().base_url.is_none() => {
                return Err(Problem::field(
                    &at("base_url"),
                    "is missing",
                    "This kind has none of its own.",
                ));
            }
            Some(url) if !is_base_url(url) => {
                let remedy =
                    "Give http(s)://host[:port][/path], without credentials, query or fragment.";
                return Err(Problem::field(&at("base_url"), "is not a base URL", remedy));
            }
            _ => {}
        }
        if let Some(header) = &self.auth_header
            && !(is_plain(header) && header.len() <= 64 && *header == header.to_ascii_lowercase())
        {
            return Err(Problem::field(
                &at("auth_header"),
                "is not a header name",
                "Use lower case.",
            ));
        }
        if let Some(region) = &self.region
            && !matches!(region.as_str(), "us" | "eu")
        {
            return Err(Problem::field(
                &at("region"),
                "is not known",
                "Use us or eu, or leave it out.",
            ));
        }
        if let Some(version) = &self.api_version
            && !is_plain(version)
        {
            return Err(Problem::field(
                &at("api_version"),
                "is not a version",
                "For example 2025-04-01.",
            ));
        }
        self.models.iter().try_for_each(|(name, model)| {
            check_text(&at("models"), name)?;
            check_text(&at("models"), model)
        })
    }
}

fn validate_policy(at: &str, policy: &KeyPolicy) -> Result<(), Problem> {
    let zero = |field: &str, value: Option<u64>| match value {
        Some(0) => {
            let field = format!("{at}.{field}");
            Err(Problem::field(&field, "must be at least 1", "To stop a key, suspend it."))
        }
        _ => Ok(()),
    };
    zero("max_output_tokens", policy.max_output_tokens)?;
    zero("requests_per_minute", policy.requests_per_minute)?;
    zero("tokens_per_minute", policy.tokens_per_minute)?;
    zero("max_concurrency", policy.max_concurrency)?;
    zero("max_request_bytes", policy.max_request_bytes)?;
    let claims = ["user", "team", "app", "feature", "agent", "customer", "environment", "session"];
    if let Some(claim) =
        policy.required_claims.iter().find(|claim| !claims.contains(&claim.as_str()))
    {
        let remedy = format!("Use one of {}.", claims.join(", "));
        let field = format!("{at}.required_claims");
        return Err(Problem::field(&field, format!("has the unknown claim `{claim}`"), &remedy));
    }
    let money = policy.spend_caps.iter().map(|cap| cap.limit_usd).chain(policy.max_request_usd);
    for amount in money {
        if amount < Usd::ZERO {
            let remedy = "Give dollars as text, for example \"12.50\".";
            return Err(Problem::field(at, "has a negative amount", remedy));
        }
        // Durable money is whole nanodollars in 64 bits.
        if amount.nanos().is_none() {
            let remedy = "Give at most 9 decimal places, and at most 9 billion dollars.";
            return Err(Problem::field(at, "has an amount that is too fine or too large", remedy));
        }
    }
    let windows: Vec<&str> = policy.spend_caps.iter().map(|cap| cap.window.name()).collect();
    let distinct: BTreeSet<&&str> = windows.iter().collect();
    if distinct.len() != windows.len() {
        let field = format!("{at}.spend_caps");
        return Err(Problem::field(&field, "has two caps for one window", "Keep the smaller."));
    }
    Ok(())
}

fn check_name(section: &str, name: &str) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        let remedy = "Use 1 to 128 of A-Z, a-z, 0-9 and -_.:@";
        return Err(Problem::field(section, format!("has the bad name `{name}`"), remedy));
    }
    Ok(())
}

fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(Problem::field(
            field,
            "is missing or not plain text",
            "Give 1 to 128 characters.",
        ));
    }
    Ok(())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_graphic() && !b"?#@\\\"<>^`{|}".contains(&b);
        !host.is_empty() && rest.bytes().all(plain) && url.len() <= 500 && !rest.contains("..")
    })
}
