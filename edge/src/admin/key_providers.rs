//! Which providers a key may use, from the rules of its policy: whose bills it adds to.

use std::collections::BTreeMap;

use tallygate_shared::insights::market::Market;
use tallygate_shared::policy::key_plan::KeyPolicy;
use tallygate_shared::pricing::is_floating_alias;
use tallygate_shared::time::Timestamp;

use super::config::{Config, KeyConfig, PolicyRef};

/// A name that no provider has: what a rule says of it, it says of every model that nobody listed.
const UNLISTED: &str = "\u{1}";

/// A model as requests may name it, as its provider names it, and as it is priced.
struct Model<'a> {
    provider: &'a str,
    named: Vec<String>,
    model: &'a str,
    priced_as: &'a str,
}

/// The providers of a workspace with the models that are known of each.
pub(crate) struct KeyProviders<'a> {
    config: &'a Config,
    models: Vec<Model<'a>>,
    /// What was found for rules that many keys share.
    known: BTreeMap<String, Vec<&'a str>>,
}

impl<'a> KeyProviders<'a> {
    /// What is for sale at this moment, and what routes and deployments lead to.
    pub(crate) fn new(config: &'a Config, market: &'a Market, at: Timestamp) -> Self {
        let both =
            |provider: &str, model: &str| vec![model.to_owned(), format!("{provider}/{model}")];
        let mut models = Vec::new();
        for offer in market.offers(at) {
            let (provider, model) = (offer.provider, offer.row.model.as_str());
            models.push(Model { provider, named: both(provider, model), model, priced_as: model });
        }
        for (provider, settings) in &config.providers {
            for (model, priced_as) in &settings.models {
                models.push(Model { provider, named: both(provider, model), model, priced_as });
            }
        }
        for (alias, route) in &config.routes {
            for target in &route.targets {
                let settings = config.providers.get(&target.provider);
                let priced_as = settings.and_then(|it| it.models.get(&target.model));
                models.push(Model {
                    provider: &target.provider,
                    named: vec![alias.clone()],
                    model: &target.model,
                    priced_as: priced_as.unwrap_or(&target.model),
                });
            }
        }
        Self { config, models, known: BTreeMap::new() }
    }

    /// The providers that a key may use, by name.
    pub(crate) fn of(&mut self, key: &KeyConfig) -> Vec<&'a str> {
        let policy = match &key.policy {
            PolicyRef::Inline(policy) => Some(policy.as_ref()),
            PolicyRef::Named(name) => self.config.policies.get(name),
        };
        let Some(policy) = policy else { return Vec::new() };
        let rules = serde_json::to_string(&policy.models).unwrap_or_default();
        let rules = format!("{rules}{}", policy.refuse_floating_aliases);
        if let Some(known) = self.known.get(&rules) {
            return known.clone();
        }
        let names = self.config.providers.keys().map(String::as_str);
        let found: Vec<&str> = names.filter(|name| self.lets_use(policy, name)).collect();
        self.known.insert(rules, found.clone());
        found
    }

    fn lets_use(&self, policy: &KeyPolicy, provider: &str) -> bool {
        let rules = &policy.models;
        // Rules that list no model let any provider answer, and so do those that name it.
        let prefix = format!("{provider}/");
        let listed = || rules.allow.iter().any(|it| it.as_str().starts_with(&prefix));
        if rules.allows(UNLISTED) || rules.denied_by(UNLISTED).is_none() && listed() {
            return true;
        }
        let lets = |model: &&Model<'_>| {
            let behind = [model.model, model.priced_as];
            let denied = |name: &str| rules.denied_by(name).is_some();
            let floats = policy.refuse_floating_aliases && is_floating_alias(model.priced_as);
            let allowed = behind.iter().any(|name| rules.allows(name));
            let by = |name: &String| !denied(name) && (allowed || rules.allows(name));
            !floats && !behind.iter().any(|name| denied(name)) && model.named.iter().any(by)
        };
        self.models.iter().filter(|model| model.provider == provider).any(|model| lets(&model))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tallygate_shared::insights::market::Seller;

    use super::*;

    fn found(models: Value) -> Vec<String> {
        let config: Config = serde_json::from_value(json!({
            "providers": {
                "openai": { "kind": "openai" }, "anthropic": { "kind": "anthropic" },
                "east": { "kind": "azure", "base_url": "https://a.openai.azure.com", "models": { "mine": "gpt-6-sol" } },
                "local": { "kind": "compatible", "base_url": "https://llm.example.com" },
            },
            "routes": { "fast": { "targets": [{ "provider": "anthropic", "model": "claude-haiku-5-5" }] } },
        }))
        .unwrap();
        let seller = |book: &str, models: &[(&str, &str)]| Seller {
            price_book: book.into(),
            models: models.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        };
        let market = Market {
            sellers: [
                ("openai".to_owned(), seller("openai", &[])),
                ("anthropic".to_owned(), seller("anthropic", &[])),
                ("east".to_owned(), seller("azure", &[("mine", "gpt-6-sol")])),
                ("local".to_owned(), seller("compatible", &[])),
            ]
            .into(),
            own: Vec::new(),
        };
        let key: KeyConfig = serde_json::from_value(json!({
            "name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e",
            "policy": { "models": models } }))
        .unwrap();
        let at = Timestamp::parse("2026-11-20").unwrap();
        let mut providers = KeyProviders::new(&config, &market, at);
        let first = providers.of(&key);
        assert_eq!(providers.of(&key), first, "the same rules again");
        first.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_key_may_use_the_providers_that_have_a_model_of_its_rules() {
        let all = ["anthropic", "east", "local", "openai"];
        assert_eq!(found(json!({})), all);
        assert_eq!(found(json!({ "deny": ["gpt-*"] })), all);
        assert_eq!(found(json!({ "allow": ["claude-*"] })), ["anthropic"]);
        assert_eq!(found(json!({ "allow": ["openai/*"] })), ["openai"]);
        // An alias stands for its targets, and no alias leads around a denial.
        assert_eq!(found(json!({ "allow": ["fast"] })), ["anthropic"]);
        let denied = json!({ "allow": ["fast"], "deny": ["claude-haiku-*"] });
        assert_eq!(found(denied), Vec::<String>::new());
        assert_eq!(found(json!({ "allow": ["mine"] })), ["east"]);
        assert!(found(json!({ "allow": ["gpt-6-sol"] })).contains(&"east".to_owned()));
        assert_eq!(found(json!({ "allow": ["local/llama"] })), ["local"]);
        assert_eq!(found(json!({ "deny": ["*"] })), Vec::<String>::new());
    }
}
