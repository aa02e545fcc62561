//! Gateway keys: issue, change, rotate, suspend, resume, revoke; and questions to the key's Meter.

use serde_json::{Value, json};
use tallygate_shared::identity::gateway_key::GatewayKey;
use tallygate_shared::ids::KeyId;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::{KeyPolicy, KeySecret, KeyStatus};

use super::secrets::overlap_ms;
use super::{Answer, Api, exists};
use crate::admin::bodies::{KeyChange, NewKey, Rotation, Thought};
use crate::admin::call::Step;
use crate::admin::config::{KeyConfig, PolicyRef};
use crate::admin::problem::Problem;
use crate::admin::validate_policy;
use crate::dialects::Endpoint;
use crate::objects::sql::Sql;

impl<S: Sql> Api<'_, S> {
    pub(super) fn keys(&self) -> Vec<Value> {
        self.workspace.config().keys.keys().filter_map(|id| self.shown_key(id)).collect()
    }

    fn shown_key(&self, id: &str) -> Option<Value> {
        let key = self.workspace.config().keys.get(id).filter(|key| self.sees(&key.owner))?;
        let mut shown = serde_json::to_value(key).ok()?;
        let fields = shown.as_object_mut()?;
        fields.insert("id".to_owned(), id.into());
        let now = self.context.now;
        let secrets = self.workspace.secrets().keys.get(id);
        let valid = |secret: &&KeySecret| secret.expires_at.is_none_or(|end| end > now);
        let count = secrets.map_or(0, |list| list.iter().filter(valid).count());
        fields.insert("valid_secrets".to_owned(), count.into());
        Some(shown)
    }

    pub(super) fn key(&self, id: &str) -> Answer {
        let shown = self.shown_key(id).ok_or_else(|| Problem::not_found("key", id))?;
        Ok(Step::json(200, &shown))
    }

    pub(super) fn issue_key(&mut self) -> Answer {
        let new: NewKey = self.context.call.body()?;
        let NewKey { name, owner, cost_centre, purpose, environment, actor, policy, expires_at } =
            new;
        let key = GatewayKey::mint(&self.context.bytes(0));
        let id = key.public_id().as_str().to_owned();
        let status = KeyStatus::Active;
        let fresh = KeyConfig {
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
        self.edit_and_show(
            |config, secrets| {
                let same = |known: &KeyConfig| {
                    known.name == fresh.name && known.status != KeyStatus::Revoked
                };
                if config.keys.values().any(same) {
                    return Err(exists("key", &fresh.name));
                }
                config.keys.insert(id.clone(), fresh);
                secrets.keys.insert(id, vec![secret]);
                Ok(())
            },
            |api| with_key(api.shown_key(&at)?, &key),
        )
    }

    pub(super) fn change_key(&mut self, id: &str) -> Answer {
        let change: KeyChange = self.context.call.body()?;
        self.edit_and_show(
            |config, _| {
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
                if let Some(expires_at) = change.expires_at {
                    key.expires_at = expires_at;
                }
                Ok(())
            },
            |api| api.shown_key(id),
        )
    }

    pub(super) fn rotate_key(&mut self, id: &str) -> Answer {
        let rotation: Rotation = self.context.call.optional_body()?;
        let overlap_ms = overlap_ms(rotation.overlap_seconds)?;
        let public = KeyId::parse(id).map_err(|_| Problem::not_found("key", id))?;
        let key = GatewayKey::mint_secret(public, &self.context.bytes(0));
        let end = self.context.now.plus_ms(overlap_ms);
        let fresh = KeySecret { sha256: key.secret_hash().as_str().to_owned(), expires_at: None };
        self.edit_and_show(
            |config, secrets| {
                let entry = config.keys.get(id).ok_or_else(|| Problem::not_found("key", id))?;
                if entry.status == KeyStatus::Revoked {
                    return Err(stays_revoked(id));
                }
                let old = secrets.keys.remove(id).unwrap_or_default();
                // One secret overlaps: the newest. An earlier one ends here.
                let kept =
                    old.into_iter().filter(|secret| secret.expires_at.is_none() && overlap_ms > 0);
                let kept = kept.map(|secret| KeySecret { expires_at: Some(end), ..secret });
                secrets.keys.insert(id.to_owned(), kept.chain([fresh]).collect());
                Ok(())
            },
            |api| with_key(api.shown_key(id)?, &key),
        )
    }

    pub(super) fn set_status(&mut self, id: &str, status: KeyStatus) -> Answer {
        self.edit_and_show(
            |config, _| {
                let key = config.keys.get_mut(id).ok_or_else(|| Problem::not_found("key", id))?;
                if key.status == KeyStatus::Revoked && status != KeyStatus::Revoked {
                    return Err(stays_revoked(id));
                }
                key.status = status;
                Ok(())
            },
            |api| api.shown_key(id),
        )
    }

    pub(super) fn simulate(&mut self, id: &str) -> Answer {
        let thought: Thought = self.context.call.body()?;
        self.key(id)?;
        let endpoint = Endpoint::from_path("POST", &thought.endpoint).ok_or_else(|| {
            let remedy = "Give a path such as /v1/chat/completions.";
            Problem::field("endpoint", "is none that is forwarded to providers", remedy)
        })?;
        let facts = RequestFacts {
            free: matches!(endpoint, Endpoint::Moderations | Endpoint::CountTokens),
            has_output: !matches!(
                endpoint,
                Endpoint::Embeddings | Endpoint::Moderations | Endpoint::CountTokens
            ),
            endpoint: endpoint.path().to_owned(),
            model: thought.model,
            input_tokens: thought.input_tokens,
            max_output_tokens: thought.max_output_tokens,
            choices: 1,
            service_tier: thought.service_tier,
            body_bytes: thought.body_bytes,
            ip: thought.ip,
            parts: None,
            shape: None,
            problem: None,
        };
        let policy = thought.policy.map(|policy| self.thought_policy(policy)).transpose()?;
        let payload = json!({ "facts": facts, "actor": thought.actor, "policy": policy });
        let payload = payload.to_string();
        Ok(Step::Meter { name: id.to_owned(), method: "simulate", payload })
    }

    /// The rules that a key is thought to have.
    fn thought_policy(&self, policy: PolicyRef) -> Result<KeyPolicy, Problem> {
        match policy {
            PolicyRef::Inline(policy) => {
                validate_policy("policy", &policy)?;
                Ok(*policy)
            }
            PolicyRef::Named(name) => {
                let known = self.workspace.config().policies.get(&name);
                known.cloned().ok_or_else(|| {
                    let remedy = "Use a name of `policies`, or an object with rules.";
                    Problem::field("policy", "names an unknown policy", remedy)
                })
            }
        }
    }

    pub(super) fn key_state(&mut self, id: &str) -> Answer {
        self.key(id)?;
        Ok(Step::Meter { name: id.to_owned(), method: "state", payload: String::new() })
    }

    pub(super) fn loops(&mut self, id: &str) -> Answer {
        self.key(id)?;
        Ok(Step::Meter { name: id.to_owned(), method: "loops", payload: String::new() })
    }

    pub(super) fn clear_loop(&mut self, id: &str, scope: &str) -> Answer {
        self.key(id)?;
        // Only the Meter knows its loops, so a name that can be none is all that is refused here.
        if scope != "key" && !(scope.len() == 16 && scope.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(Problem::not_found("loop", scope).into());
        }
        let (principal, now) = (self.principal, self.context.now);
        let path = format!("keys.{id}.loops.{scope}");
        self.workspace.audit(principal, "loop_cleared", &path, &json!({}), now)?;
        Ok(Step::Meter { name: id.to_owned(), method: "clear_loop", payload: scope.to_owned() })
    }
}

/// The public record with the whole key: the only answer that has it.
fn with_key(mut shown: Value, key: &GatewayKey) -> Option<Value> {
    shown.as_object_mut()?.insert("key".to_owned(), key.expose().into());
    Some(shown)
}

pub(super) fn stays_revoked(id: &str) -> Problem {
    Problem::new(
        409,
        "key_revoked",
        format!("The key `{id}` is revoked and stays so. Issue a new one."),
    )
}
