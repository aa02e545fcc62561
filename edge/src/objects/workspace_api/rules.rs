//! Policies, model aliases and the workspace's own prices.

use serde_json::{Value, json};
use tallygate_shared::policy::key_plan::{KeyPolicy, Route};
use tallygate_shared::pricing::{PriceRow, import_litellm};

use super::{Answer, Api, in_use};
use crate::admin::bodies::PriceImport;
use crate::admin::call::Step;
use crate::admin::config::{KeyConfig, PolicyRef};
use crate::admin::price_name;
use crate::admin::problem::Problem;
use crate::objects::sql::Sql;

/// Skipped models that an import names; the rest is counted.
const MAX_SKIPPED: usize = 100;

impl<S: Sql> Api<'_, S> {
    pub(super) fn policy(&self, name: &str) -> Answer {
        let policy = self.workspace.config().policies.get(name);
        Ok(Step::json(200, &json!(policy.ok_or_else(|| Problem::not_found("policy", name))?)))
    }

    pub(super) fn put_policy(&mut self, name: &str) -> Answer {
        let policy: KeyPolicy = self.context.call.body()?;
        self.edit(|config, _| {
            let body = json!(policy);
            config.policies.insert(name.to_owned(), policy);
            Ok(body)
        })
    }

    pub(super) fn delete_policy(&mut self, name: &str) -> Answer {
        self.edit(|config, _| {
            let uses =
                |key: &KeyConfig| matches!(&key.policy, PolicyRef::Named(named) if named == name);
            if let Some((id, _)) = config.keys.iter().find(|(_, key)| uses(key)) {
                return Err(in_use(format!(
                    "The key `{id}` uses the policy `{name}`. Change it first."
                )));
            }
            config.policies.remove(name).ok_or_else(|| Problem::not_found("policy", name))?;
            Ok(json!({}))
        })
    }

    pub(super) fn route(&self, name: &str) -> Answer {
        let route = self.workspace.config().routes.get(name);
        Ok(Step::json(200, &json!(route.ok_or_else(|| Problem::not_found("route", name))?)))
    }

    pub(super) fn put_route(&mut self, name: &str) -> Answer {
        let route: Route = self.context.call.body()?;
        self.edit(|config, _| {
            let body = json!(route);
            config.routes.insert(name.to_owned(), route);
            Ok(body)
        })
    }

    pub(super) fn delete_route(&mut self, name: &str) -> Answer {
        self.edit(|config, _| {
            config.routes.remove(name).ok_or_else(|| Problem::not_found("route", name))?;
            Ok(json!({}))
        })
    }

    pub(super) fn add_price(&mut self) -> Answer {
        let row: PriceRow = self.context.call.body()?;
        self.edit(|config, _| {
            let body = json!({ "name": price_name(&row), "row": row });
            config.prices.insert(price_name(&row), row);
            Ok(body)
        })
    }

    pub(super) fn delete_price(&mut self, name: &str) -> Answer {
        self.edit(|config, _| {
            config.prices.remove(name).ok_or_else(|| Problem::not_found("price", name))?;
            Ok(json!({}))
        })
    }

    pub(super) fn put_default_price(&mut self) -> Answer {
        let row: PriceRow = self.context.call.body()?;
        self.edit(|config, _| {
            let body = json!(row);
            config.default_price = Some(row);
            Ok(body)
        })
    }

    pub(super) fn delete_default_price(&mut self) -> Answer {
        self.edit(|config, _| {
            let detail = "There is no default price in this workspace.";
            config.default_price.take().ok_or_else(|| Problem::new(404, "not_found", detail))?;
            Ok(json!({}))
        })
    }

    pub(super) fn import_prices(&mut self) -> Answer {
        let import: PriceImport = self.context.call.body()?;
        let imported = import_litellm(import.map.get()).map_err(|error| {
            Problem::field("map", error.to_string(), "Send LiteLLM's price map.")
        })?;
        self.edit(|config, _| {
            let mut taken = 0_u64;
            for mut row in imported.rows {
                let Some(name) = import.providers.get(&row.provider) else { continue };
                row.provider.clone_from(name);
                config.prices.insert(price_name(&row), row);
                taken += 1;
            }
            let count = imported.skipped.len();
            let skipped: Vec<Value> =
                imported.skipped.iter().take(MAX_SKIPPED).map(|skipped| json!(skipped)).collect();
            Ok(json!({ "imported": taken, "skipped_count": count, "skipped": skipped }))
        })
    }
}
