//! The workspace's resources: one function each, from a request to a changed configuration and an answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::identity::gateway_key::GatewayKey;
use tallygate_shared::ids::KeyId;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::{
    KeyPolicy, KeySecret, KeyStatus, Route, SealedActorSecret,
};
use tallygate_shared::pricing::{PriceRow, import_litellm};
use tallygate_shared::time::Timestamp;

use super::ledger_object::{DIMENSIONS, RequestsQuery, UsageQuery};
use super::sql::Sql;
use super::workspace_object::{Context, Principal, Refused, WorkspaceObject};
use crate::admin::call::{Push, Step};
use crate::admin::config::{Config, KeyConfig, PolicyRef, ProviderConfig, Secrets};
use crate::admin::problem::Problem;
use crate::admin::roles::{Act, Role};

/// The longest that a rotated secret may go on working: 30 days.
const MAX_OVERLAP_SECONDS: u64 = 30 * 24 * 60 * 60;
/// A query reads at most this many months' Ledgers.
const MAX_MONTHS: usize = 36;

type Answer = Result<Step, Refused>;

struct Api<'a, S> {
    workspace: &'a mut WorkspaceObject<S>,
    context: &'a Context<'a>,
    principal: &'a Principal,
}

/// Answers a request to `/api/v1/workspaces/{id}/<path>`.
pub(super) fn answer<S: Sql>(
    workspace: &mut WorkspaceObject<S>,
    context: &Context<'_>,
    principal: &Principal,
    path: &[&str],
) -> Answer {
    let mut api = Api { workspace, context, principal };
    let method = context.call.method.as_str();
    let act = match (method, path) {
        (_, ["audit"]) => Act::ReadAudit,
        (_, ["requests" | "usage", ..]) => Act::ReadUsage,
        ("POST", ["keys", _, "simulate"] | ["config", "validate" | "diff"]) | ("GET", _) => {
            Act::ReadConfig
        }
        _ => Act::WriteConfig,
    };
    api.workspace.demand(principal, act)?;
    match (method, path) {
        ("GET", []) => Ok(Step::json(200, &api.workspace.describe())),
        ("GET", ["tokens"]) => Ok(list(api.workspace.tokens()?)),
        ("POST", ["tokens"]) => api.issue_token(),
        ("DELETE", ["tokens", id]) => api.delete_token(id),
        ("GET", ["providers"]) => Ok(list(api.providers())),
        ("POST", ["providers"]) => api.create_provider(),
        ("GET", ["providers", name]) => api.provider(name),
        ("PATCH", ["providers", name]) => api.change_provider(name),
        ("DELETE", ["providers", name]) => api.delete_provider(name),
        ("GET", ["keys"]) => Ok(list(api.keys())),
        ("POST", ["keys"]) => api.issue_key(),
        ("GET", ["keys", id]) => api.key(id),
        ("PATCH", ["keys", id]) => api.change_key(id),
        ("POST", ["keys", id, "rotate"]) => api.rotate_key(id),
        ("POST", ["keys", id, "suspend"]) => api.set_status(id, KeyStatus::Suspended),
        ("POST", ["keys", id, "resume"]) => api.set_status(id, KeyStatus::Active),
        ("POST", ["keys", id, "revoke"]) => api.set_status(id, KeyStatus::Revoked),
        ("POST", ["keys", id, "simulate"]) => api.simulate(id),
        ("GET", ["keys", id, "state"]) => api.key_state(id),
        ("GET", ["actor-secrets"]) => Ok(list(api.actor_secrets())),
        ("POST", ["actor-secrets"]) => api.add_actor_secret(),
        ("DELETE", ["actor-secrets", kid]) => api.delete_actor_secret(kid),
        ("GET", ["policies"]) => api.section(|config| json!(config.policies)),
        ("PUT", ["policies", name]) => api.put_policy(name),
        ("DELETE", ["policies", name]) => api.delete_policy(name),
        ("GET", ["routes"]) => api.section(|config| json!(config.routes)),
        ("PUT", ["routes", name]) => api.put_route(name),
        ("DELETE", ["routes", name]) => api.delete_route(name),
        ("GET", ["prices"]) => api.section(
            |config| json!({ "overrides": config.prices, "default": config.default_price }),
        ),
        ("PUT", ["prices", "default"]) => api.put_default_price(),
        ("DELETE", ["prices", "default"]) => api.edit(200, |config, _| {
            config.default_price = None;
            Ok(json!({}))
        }),
        ("POST", ["prices", "import"]) => api.import_prices(),
        ("POST", ["prices"]) => api.add_price(),
        ("DELETE", ["prices", name @ ..]) if !name.is_empty() => api.delete_price(&name.join("/")),
        ("GET", ["requests"]) => api.requests(),
        ("GET", ["requests", id]) => api.request(id),
        ("GET", ["usage"]) => api.usage(),
        ("GET", ["audit"]) => api.audit(),
        ("GET", ["config"]) => api.section(|config| json!(config)),
        ("POST", ["config", "validate"]) => api.validate_config(),
        ("POST", ["config", "diff"]) => api.diff_config(),
        ("PUT", ["config"]) => api.apply_config(),
        _ => {
            let detail = format!("There is no {method} on this path. See /api/v1/openapi.json.");
            Err(Problem::new(404, "not_found", detail).into())
        }
    }
}

fn list(data: Vec<Value>) -> Step {
    Step::json(200, &json!({ "data": data }))
}

fn with(status: u16, body: &Value, plans: Vec<Push>) -> Step {
    match Step::json(status, body) {
        Step::Respond { status, content_type, body, .. } => {
            Step::Respond { status, content_type, body, effects: plans }
        }
        other => other,
    }
}

/// A provider as it is created: the configuration, and the credential that is never shown again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProvider {
    name: String,
    kind: String,
    #[serde(default)]
    credential: Option<String>,
    #[serde(default)]
    base_url: Option<String>,
    #[serde(default)]
    auth_header: Option<String>,
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    models: BTreeMap<String, String>,
    #[serde(default)]
    rank: u32,
}

/// What may change of a provider; what is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderChange {
    credential: Option<String>,
    base_url: Option<String>,
    auth_header: Option<String>,
    api_version: Option<String>,
    region: Option<String>,
    models: Option<BTreeMap<String, String>>,
    rank: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    owner: String,
    cost_centre: String,
    purpose: String,
    environment: String,
    #[serde(default)]
    actor: Actor,
    #[serde(default)]
    policy: PolicyRef,
    #[serde(default)]
    expires_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyChange {
    name: Option<String>,
    owner: Option<String>,
    cost_centre: Option<String>,
    purpose: Option<String>,
    environment: Option<String>,
    actor: Option<Actor>,
    policy: Option<PolicyRef>,
    expires_at: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rotation {
    overlap_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewActorSecret {
    kid: String,
    #[serde(default)]
    secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceImport {
    /// The price map.
    map: Box<serde_json::value::RawValue>,
    /// Which of its providers to take, and what the workspace calls them.
    providers: BTreeMap<String, String>,
}

/// A request that is only thought of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thought {
    #[serde(default = "chat")]
    endpoint: String,
    model: String,
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    max_output_tokens: Option<u64>,
    #[serde(default)]
    body_bytes: u64,
    #[serde(default)]
    ip: Option<std::net::IpAddr>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    actor: Option<Actor>,
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

impl<S: Sql> Api<'_, S> {
    /// Edits a copy of configuration and secrets; the workspace takes it whole or not at all.
    fn edit(
        &mut self,
        status: u16,
        work: impl FnOnce(&mut Config, &mut Secrets) -> Result<Value, Problem>,
    ) -> Answer {
        let mut config = self.workspace.config().clone();
        let mut secrets = self.workspace.secrets().clone();
        let body = work(&mut config, &mut secrets)?;
        let plans = self.workspace.change(config, secrets, self.principal, self.context)?;
        Ok(with(status, &body, plans))
    }

    fn section(&self, pick: impl FnOnce(&Config) -> Value) -> Answer {
        Ok(Step::json(200, &pick(self.workspace.config())))
    }

    fn issue_token(&mut self) -> Answer {
        let new: NewToken = self.context.call.body()?;
        if new.role == Role::Operator {
            let remedy = "Use admin, finance, developer or auditor.";
            return Err(Problem::field("role", "cannot be given to a token", remedy).into());
        }
        let (record, shown) = self.workspace.issue_token(&new.name, new.role, self.context)?;
        self.workspace.audit(self.principal, "added", "tokens", &record, self.context.now)?;
        Ok(Step::json(201, &shown))
    }

    fn delete_token(&mut self, id: &str) -> Answer {
        if !self.workspace.delete_token(id)? {
            return Err(Problem::not_found("token", id).into());
        }
        self.workspace.audit(
            self.principal,
            "removed",
            "tokens",
            &json!({ "id": id }),
            self.context.now,
        )?;
        Ok(Step::json(200, &json!({})))
    }

    fn providers(&self) -> Vec<Value> {
        self.workspace
            .config()
            .providers
            .keys()
            .filter_map(|name| self.shown_provider(name))
            .collect()
    }

    fn shown_provider(&self, name: &str) -> Option<Value> {
        let config = self.workspace.config();
        let mut shown = serde_json::to_value(config.providers.get(name)?).ok()?;
        let fields = shown.as_object_mut()?;
        fields.insert("name".to_owned(), name.into());
        let set = self.workspace.secrets().credentials.contains_key(name);
        fields.insert("credential_set".to_owned(), set.into());
        Some(shown)
    }

    fn provider(&self, name: &str) -> Answer {
        let shown =
            self.shown_provider(name).ok_or_else(|| Problem::not_found("provider", name))?;
        Ok(Step::json(200, &shown))
    }

    fn sealed(&self, secret: &str, kind: &str, name: &str) -> Result<String, Problem> {
        let field = if kind == "provider" { "credential" } else { "secret" };
        // What goes into a header must not be able to end it.
        if secret.is_empty() || secret.len() > 4_096 || secret.chars().any(|c| c.is_control()) {
            return Err(Problem::field(
                field,
                "is empty or not plain text",
                "Give it as one line.",
            ));
        }
        let context = format!("{}/{kind}/{name}", self.workspace.id()?);
        self.context.ring.seal(secret, &context, self.context.bytes(0)).map_err(|error| {
            Problem::new(503, "key_ring_missing", format!("Secrets cannot be sealed: {error}."))
        })
    }

    fn create_provider(&mut self) -> Answer {
        let new: NewProvider = self.context.call.body()?;
        let NewProvider {
            name,
            kind,
            base_url,
            auth_header,
            api_version,
            region,
            models,
            rank,
            ..
        } = new;
        let sealed =
            new.credential.map(|secret| self.sealed(&secret, "provider", &name)).transpose()?;
        let provider =
            ProviderConfig { kind, base_url, auth_header, api_version, region, models, rank };
        let at = name.clone();
        let step = self.edit(201, |config, secrets| {
            if config.providers.contains_key(&name) {
                return Err(exists("provider", &name));
            }
            config.providers.insert(name.clone(), provider);
            secrets.credentials.extend(sealed.map(|sealed| (name, sealed)));
            Ok(Value::Null)
        })?;
        self.show(step, 201, |api| api.shown_provider(&at))
    }

    /// The step with the resource as it is now for its body.
    fn show(&self, step: Step, status: u16, shown: impl FnOnce(&Self) -> Option<Value>) -> Answer {
        let effects = match step {
            Step::Respond { effects, .. } => effects,
            other => return Ok(other),
        };
        Ok(with(status, &shown(self).unwrap_or(Value::Null), effects))
    }

    fn change_provider(&mut self, name: &str) -> Answer {
        let change: ProviderChange = self.context.call.body()?;
        let sealed =
            change.credential.map(|secret| self.sealed(&secret, "provider", name)).transpose()?;
        let step = self.edit(200, |config, secrets| {
            let provider = config
                .providers
                .get_mut(name)
                .ok_or_else(|| Problem::not_found("provider", name))?;
            provider.base_url = change.base_url.or(provider.base_url.take());
            provider.auth_header = change.auth_header.or(provider.auth_header.take());
            provider.api_version = change.api_version.or(provider.api_version.take());
            provider.region = change.region.or(provider.region.take());
            provider.rank = change.rank.unwrap_or(provider.rank);
            if let Some(models) = change.models {
                provider.models = models;
            }
            secrets.credentials.extend(sealed.map(|sealed| (name.to_owned(), sealed)));
            Ok(Value::Null)
        })?;
        self.show(step, 200, |api| api.shown_provider(name))
    }

    fn delete_provider(&mut self, name: &str) -> Answer {
        self.edit(200, |config, secrets| {
            let routes = config.routes.iter();
            let used = |route: &Route| route.targets.iter().any(|target| target.provider == name);
            let mut users = routes.filter(|(_, route)| used(route)).map(|(route, _)| route);
            if let Some(route) = users.next() {
                let detail =
                    format!("The route `{route}` uses the provider `{name}`. Change it first.");
                return Err(Problem::new(409, "in_use", detail));
            }
            config.providers.remove(name).ok_or_else(|| Problem::not_found("provider", name))?;
            config.prices.retain(|_, row| row.provider != name);
            secrets.credentials.remove(name);
            Ok(json!({}))
        })
    }

    fn keys(&self) -> Vec<Value> {
        self.workspace.config().keys.keys().filter_map(|id| self.shown_key(id)).collect()
    }

    fn shown_key(&self, id: &str) -> Option<Value> {
        let mut shown = serde_json::to_value(self.workspace.config().keys.get(id)?).ok()?;
        let fields = shown.as_object_mut()?;
        fields.insert("id".to_owned(), id.into());
        let now = self.context.now;
        let secrets = self.workspace.secrets().keys.get(id);
        let valid = |secret: &&KeySecret| secret.expires_at.is_none_or(|end| end > now);
        let count = secrets.map_or(0, |list| list.iter().filter(valid).count());
        fields.insert("valid_secrets".to_owned(), count.into());
        Some(shown)
    }

    fn key(&self, id: &str) -> Answer {
        let shown = self.shown_key(id).ok_or_else(|| Problem::not_found("key", id))?;
        Ok(Step::json(200, &shown))
    }

    fn issue_key(&mut self) -> Answer {
        let new: NewKey = self.context.call.body()?;
        let NewKey { name, owner, cost_centre, purpose, environment, actor, policy, expires_at } =
            new;
        let key = GatewayKey::mint(&self.context.bytes(0));
        let id = key.public_id().as_str().to_owned();
        let status = KeyStatus::Active;
        let config_key = KeyConfig {
            name,
            owner,
            cost_centre,
            purpose,
            environment,
            actor,
            policy,
            status,
            expires_at,
        };
        let secret = KeySecret { sha256: key.secret_hash().as_str().to_owned(), expires_at: None };
        let at = id.clone();
        let step = self.edit(201, |config, secrets| {
            config.keys.insert(id.clone(), config_key);
            secrets.keys.insert(id, vec![secret]);
            Ok(Value::Null)
        })?;
        self.show(step, 201, |api| with_key(api.shown_key(&at)?, &key))
    }

    fn change_key(&mut self, id: &str) -> Answer {
        let change: KeyChange = self.context.call.body()?;
        let step = self.edit(200, |config, _| {
            let key = config.keys.get_mut(id).ok_or_else(|| Problem::not_found("key", id))?;
            for (field, new) in [
                (&mut key.name, change.name),
                (&mut key.owner, change.owner),
                (&mut key.cost_centre, change.cost_centre),
                (&mut key.purpose, change.purpose),
                (&mut key.environment, change.environment),
            ] {
                if let Some(new) = new {
                    *field = new;
                }
            }
            if let Some(actor) = change.actor {
                key.actor = actor;
            }
            if let Some(policy) = change.policy {
                key.policy = policy;
            }
            if change.expires_at.is_some() {
                key.expires_at = change.expires_at;
            }
            Ok(Value::Null)
        })?;
        self.show(step, 200, |api| api.shown_key(id))
    }

    fn rotate_key(&mut self, id: &str) -> Answer {
        let body = &self.context.call.body;
        let rotation: Rotation =
            if body.trim().is_empty() { Rotation::default() } else { self.context.call.body()? };
        if rotation.overlap_seconds > MAX_OVERLAP_SECONDS {
            let remedy = "Give at most 2592000, which is 30 days.";
            return Err(Problem::field("overlap_seconds", "is too long", remedy).into());
        }
        let public = KeyId::parse(id).map_err(|_| Problem::not_found("key", id))?;
        let key = GatewayKey::mint_secret(public, &self.context.bytes(0));
        let now = self.context.now;
        let overlap_ms = i64::try_from(rotation.overlap_seconds).unwrap_or(0).saturating_mul(1000);
        let end = now.plus_ms(overlap_ms);
        let fresh = KeySecret { sha256: key.secret_hash().as_str().to_owned(), expires_at: None };
        let step = self.edit(200, |config, secrets| {
            let entry = config.keys.get(id).ok_or_else(|| Problem::not_found("key", id))?;
            if entry.status == KeyStatus::Revoked {
                return Err(Problem::new(
                    409,
                    "key_revoked",
                    "A revoked key stays revoked. Issue a new one.",
                ));
            }
            let old = secrets.keys.remove(id).unwrap_or_default();
            // One secret overlaps: the newest. An earlier one ends here.
            let kept =
                old.into_iter().filter(|secret| secret.expires_at.is_none() && overlap_ms > 0);
            let kept = kept.map(|secret| KeySecret { expires_at: Some(end), ..secret });
            secrets.keys.insert(id.to_owned(), kept.chain([fresh]).collect());
            Ok(Value::Null)
        })?;
        self.show(step, 200, |api| with_key(api.shown_key(id)?, &key))
    }

    fn set_status(&mut self, id: &str, status: KeyStatus) -> Answer {
        let step = self.edit(200, |config, _| {
            let key = config.keys.get_mut(id).ok_or_else(|| Problem::not_found("key", id))?;
            if key.status == KeyStatus::Revoked && status != KeyStatus::Revoked {
                return Err(Problem::new(
                    409,
                    "key_revoked",
                    "A revoked key stays revoked. Issue a new one.",
                ));
            }
            key.status = status;
            Ok(Value::Null)
        })?;
        self.show(step, 200, |api| api.shown_key(id))
    }

    fn simulate(&mut self, id: &str) -> Answer {
        let thought: Thought = self.context.call.body()?;
        self.key(id)?;
        let outputs = !matches!(
            thought.endpoint.as_str(),
            "/v1/embeddings" | "/v1/moderations" | "/v1/messages/count_tokens"
        );
        let facts = RequestFacts {
            free: matches!(
                thought.endpoint.as_str(),
                "/v1/moderations" | "/v1/messages/count_tokens"
            ),
            has_output: outputs,
            endpoint: thought.endpoint,
            model: thought.model,
            input_tokens: thought.input_tokens,
            max_output_tokens: thought.max_output_tokens,
            choices: 1,
            service_tier: thought.service_tier,
            body_bytes: thought.body_bytes,
            ip: thought.ip,
            problem: None,
        };
        let payload = json!({ "facts": facts, "actor": thought.actor }).to_string();
        Ok(Step::Meter { name: id.to_owned(), method: "simulate", payload })
    }

    fn key_state(&mut self, id: &str) -> Answer {
        self.key(id)?;
        Ok(Step::Meter { name: id.to_owned(), method: "state", payload: String::new() })
    }

    fn actor_secrets(&self) -> Vec<Value> {
        let shown = |secret: &SealedActorSecret| json!({ "kid": secret.kid, "expires_at": secret.expires_at.map(|at| at.to_string()) });
        self.workspace.secrets().actors.iter().map(shown).collect()
    }

    fn add_actor_secret(&mut self) -> Answer {
        let new: NewActorSecret = self.context.call.body()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if new.kid.is_empty() || new.kid.len() > 64 || !new.kid.bytes().all(plain) {
            return Err(Problem::field(
                "kid",
                "is not plain",
                "Use 1 to 64 of A-Z, a-z, 0-9 and -_.",
            )
            .into());
        }
        let secret = match new.secret {
            Some(secret) if secret.len() < 32 => {
                let remedy = "Give at least 32 bytes (RFC 7518 section 3.2), or leave it out.";
                return Err(Problem::field("secret", "is too short for HS256", remedy).into());
            }
            Some(secret) => secret,
            None => hex(&self.context.bytes::<32>(32)),
        };
        let sealed = self.sealed(&secret, "actor", &new.kid)?;
        let kid = new.kid.clone();
        self.edit(201, |_, secrets| {
            if secrets.actors.iter().any(|known| known.kid == kid) {
                return Err(exists("actor secret", &kid));
            }
            if secrets.actors.len() >= 8 {
                return Err(Problem::new(
                    409,
                    "too_many",
                    "There are 8 actor secrets. Delete old ones first.",
                ));
            }
            secrets.actors.push(SealedActorSecret { kid, sealed, expires_at: None });
            Ok(json!({ "kid": new.kid, "secret": secret }))
        })
    }

    fn delete_actor_secret(&mut self, kid: &str) -> Answer {
        let overlap = self.context.call.parameter("overlap_seconds");
        let overlap = overlap.and_then(|s| s.parse::<i64>().ok()).unwrap_or(0).clamp(0, 2_592_000);
        let end = self.context.now.plus_ms(overlap * 1000);
        self.edit(200, |_, secrets| {
            let known = secrets.actors.iter_mut().find(|secret| secret.kid == kid);
            let secret = known.ok_or_else(|| Problem::not_found("actor secret", kid))?;
            if overlap > 0 {
                secret.expires_at = Some(end);
            } else {
                secrets.actors.retain(|secret| secret.kid != kid);
            }
            Ok(json!({}))
        })
    }

    fn put_policy(&mut self, name: &str) -> Answer {
        let policy: KeyPolicy = self.context.call.body()?;
        self.edit(200, |config, _| {
            let body = json!(policy);
            config.policies.insert(name.to_owned(), policy);
            Ok(body)
        })
    }

    fn delete_policy(&mut self, name: &str) -> Answer {
        self.edit(200, |config, _| {
            let uses =
                |key: &KeyConfig| matches!(&key.policy, PolicyRef::Named(named) if named == name);
            if let Some((id, _)) = config.keys.iter().find(|(_, key)| uses(key)) {
                let detail = format!("The key `{id}` uses the policy `{name}`. Change it first.");
                return Err(Problem::new(409, "in_use", detail));
            }
            config.policies.remove(name).ok_or_else(|| Problem::not_found("policy", name))?;
            Ok(json!({}))
        })
    }

    fn put_route(&mut self, name: &str) -> Answer {
        let route: Route = self.context.call.body()?;
        self.edit(200, |config, _| {
            let body = json!(route);
            config.routes.insert(name.to_owned(), route);
            Ok(body)
        })
    }

    fn delete_route(&mut self, name: &str) -> Answer {
        self.edit(200, |config, _| {
            config.routes.remove(name).ok_or_else(|| Problem::not_found("route", name))?;
            Ok(json!({}))
        })
    }

    fn add_price(&mut self) -> Answer {
        let row: PriceRow = self.context.call.body()?;
        self.edit(201, |config, _| {
            let body = json!({ "name": price_name(&row), "row": row });
            config.prices.insert(price_name(&row), row);
            Ok(body)
        })
    }

    fn delete_price(&mut self, name: &str) -> Answer {
        self.edit(200, |config, _| {
            config.prices.remove(name).ok_or_else(|| Problem::not_found("price", name))?;
            Ok(json!({}))
        })
    }

    fn put_default_price(&mut self) -> Answer {
        let row: PriceRow = self.context.call.body()?;
        self.edit(200, |config, _| {
            let body = json!(row);
            config.default_price = Some(row);
            Ok(body)
        })
    }

    fn import_prices(&mut self) -> Answer {
        let import: PriceImport = self.context.call.body()?;
        let imported = import_litellm(import.map.get()).map_err(|error| {
            Problem::field("map", error.to_string(), "Send LiteLLM's price map.")
        })?;
        self.edit(200, |config, _| {
            let mut taken = 0_u64;
            for mut row in imported.rows {
                let Some(name) = import.providers.get(&row.provider) else { continue };
                row.provider.clone_from(name);
                config.prices.insert(price_name(&row), row);
                taken += 1;
            }
            Ok(json!({ "imported": taken, "skipped": imported.skipped }))
        })
    }

    fn requests(&self) -> Answer {
        let call = self.context.call;
        let (mut query, mut filters) =
            (RequestsQuery { limit: 50, ..RequestsQuery::default() }, BTreeMap::new());
        for (name, value) in call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "cursor" => query.before = Some(value),
                "limit" => query.limit = number("limit", &value)?.clamp(1, 1_000),
                "status" => {
                    filters.insert(name, number("status", &value)?.to_string());
                }
                _ => {
                    filters.insert(dimension(&name)?, value);
                }
            }
        }
        query.filters = filters;
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "requests", payload: json!(query).to_string() })
    }

    fn request(&self, id: &str) -> Answer {
        // A request's id begins with its time, so it names its month.
        let ms =
            id.strip_prefix("req_").and_then(|hex| i64::from_str_radix(hex.get(..12)?, 16).ok());
        let ms = ms.ok_or_else(|| Problem::not_found("request", id))?;
        let names = self.ledgers(Some(ms - 3_600_000), Some(ms + 3_600_000))?;
        Ok(Step::Ledgers { names, method: "request", payload: id.to_owned() })
    }

    fn usage(&self) -> Answer {
        let mut query = UsageQuery::default();
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "bucket" if matches!(value.as_str(), "hour" | "day") => query.bucket = Some(value),
                "bucket" => {
                    return Err(Problem::field("bucket", "is not known", "Use hour or day.").into());
                }
                "group_by" => {
                    for part in value.split(',').filter(|part| !part.is_empty()) {
                        query.group_by.push(dimension(part)?);
                    }
                }
                _ => {
                    query.filters.insert(dimension(&name)?, value);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "usage", payload: json!(query).to_string() })
    }

    /// The Ledgers of a span of time: since the workspace was created, until now.
    fn ledgers(&self, from: Option<i64>, to: Option<i64>) -> Result<Vec<String>, Problem> {
        let created = self.workspace.created().unwrap_or_default();
        let from = from.map_or(created, Timestamp::from_ms).max(created).date().first_of_month();
        let to = to
            .map_or(self.context.now, Timestamp::from_ms)
            .min(self.context.now.plus_ms(86_400_000));
        let id = self.workspace.id()?;
        let mut month = from;
        let mut names = Vec::new();
        while month.midnight() <= to && names.len() < MAX_MONTHS {
            names.push(format!("{id}:{:04}-{:02}", month.year, month.month));
            month = month.first_of_next_month();
        }
        Ok(names)
    }

    fn audit(&self) -> Answer {
        let call = self.context.call;
        let before = call.parameter("before").and_then(|text| text.parse().ok());
        let limit = call.parameter("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
        Ok(list(self.workspace.audit_log(before, limit)?))
    }

    fn new_config(&self) -> Result<Config, Problem> {
        let config: Config = self.context.call.body()?;
        config.validate()?;
        // A key is issued, so that its secret can be shown: a document cannot make one up.
        if let Some(id) =
            config.keys.keys().find(|id| !self.workspace.config().keys.contains_key(*id))
        {
            let remedy = "Issue it with POST .../keys, then export.";
            return Err(Problem::field("keys", format!("has the unknown key `{id}`"), remedy));
        }
        Ok(config)
    }

    fn validate_config(&self) -> Answer {
        self.new_config()?;
        Ok(Step::json(200, &json!({ "valid": true })))
    }

    fn diff_config(&self) -> Answer {
        let changes = self.workspace.config().diff(&self.new_config()?);
        Ok(Step::json(200, &json!({ "changes": changes })))
    }

    fn apply_config(&mut self) -> Answer {
        let new = self.new_config()?;
        let changes = self.workspace.config().diff(&new);
        self.edit(200, |config, secrets| {
            secrets.credentials.retain(|name, _| new.providers.contains_key(name));
            secrets.keys.retain(|id, _| new.keys.contains_key(id));
            for (id, key) in &new.keys {
                let was = config.keys.get(id).map(|key| key.status);
                if was == Some(KeyStatus::Revoked) && key.status != KeyStatus::Revoked {
                    let detail = format!("The key `{id}` is revoked and stays so.");
                    return Err(Problem::new(409, "key_revoked", detail));
                }
            }
            // A key that the document leaves out must stop at its Meter too, so it is revoked and not forgotten.
            let mut next = new;
            for (id, key) in &config.keys {
                if !next.keys.contains_key(id) {
                    next.keys.insert(
                        id.clone(),
                        KeyConfig { status: KeyStatus::Revoked, ..key.clone() },
                    );
                }
            }
            *config = next;
            Ok(json!({ "changes": changes }))
        })
    }
}

fn exists(what: &str, name: &str) -> Problem {
    Problem::new(409, "already_exists", format!("The {what} `{name}` is there already."))
}

fn with_key(mut shown: Value, key: &GatewayKey) -> Option<Value> {
    shown.as_object_mut()?.insert("key".to_owned(), key.expose().into());
    Some(shown)
}

fn price_name(row: &PriceRow) -> String {
    let since = row.effective_from.map(|day| format!("@{day}")).unwrap_or_default();
    format!("{}/{}{since}", row.provider, row.model)
}

fn dimension(name: &str) -> Result<String, Problem> {
    if DIMENSIONS.contains(&name) {
        return Ok(name.to_owned());
    }
    let remedy = format!("Use one of {}.", DIMENSIONS.join(", "));
    Err(Problem::field(name, "is not known here", &remedy))
}

fn moment(field: &str, text: &str) -> Result<Timestamp, Problem> {
    let remedy = "Give a day (2026-11-20) or UTC in RFC 3339 (2026-11-20T10:00:00Z).";
    Timestamp::parse(text).ok_or_else(|| Problem::field(field, "is not a time", remedy))
}

fn number(field: &str, text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::field(field, "is not a number", "Give a whole number."))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
