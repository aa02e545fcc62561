//! Providers: what they are is configuration, their credential is a secret that comes in and never goes out.

use serde_json::Value;
use tallygate_shared::policy::key_plan::Route;

use super::{Answer, Api, exists, in_use};
use crate::admin::bodies::{NewProvider, ProviderChange};
use crate::admin::call::Step;
use crate::admin::config::ProviderConfig;
use crate::admin::problem::Problem;
use crate::objects::sql::Sql;

impl<S: Sql> Api<'_, S> {
    pub(super) fn providers(&self) -> Vec<Value> {
        self.workspace
            .config()
            .providers
            .keys()
            .filter_map(|name| self.shown_provider(name))
            .collect()
    }

    fn shown_provider(&self, name: &str) -> Option<Value> {
        let mut shown = serde_json::to_value(self.workspace.config().providers.get(name)?).ok()?;
        let fields = shown.as_object_mut()?;
        fields.insert("name".to_owned(), name.into());
        let set = self.workspace.secrets().credentials.contains_key(name);
        fields.insert("credential_set".to_owned(), set.into());
        Some(shown)
    }

    pub(super) fn provider(&self, name: &str) -> Answer {
        let shown =
            self.shown_provider(name).ok_or_else(|| Problem::not_found("provider", name))?;
        Ok(Step::json(200, &shown))
    }

    pub(super) fn create_provider(&mut self) -> Answer {
        let new: NewProvider = self.context.call.body()?;
        let NewProvider {
            name,
            kind,
            credential,
            base_url,
            auth_header,
            api_version,
            region,
            models,
            rank,
            payment_method,
        } = new;
        let sealed =
            credential.map(|secret| self.sealed(&secret, "provider", &name)).transpose()?;
        let provider = ProviderConfig {
            kind,
            base_url,
            auth_header,
            api_version,
            region,
            models,
            rank,
            payment_method,
        };
        let at = name.clone();
        self.edit_and_show(
            |config, secrets| {
                if config.providers.contains_key(&name) {
                    return Err(exists("provider", &name));
                }
                config.providers.insert(name.clone(), provider);
                secrets.credentials.extend(sealed.map(|sealed| (name, sealed)));
                Ok(())
            },
            |api| api.shown_provider(&at),
        )
    }

    pub(super) fn change_provider(&mut self, name: &str) -> Answer {
        let change: ProviderChange = self.context.call.body()?;
        let credential = match change.credential {
            None => None,
            Some(None) => Some(None),
            Some(Some(secret)) => Some(Some(self.sealed(&secret, "provider", name)?)),
        };
        self.edit_and_show(
            |config, secrets| {
                let provider = config
                    .providers
                    .get_mut(name)
                    .ok_or_else(|| Problem::not_found("provider", name))?;
                for (field, new) in [
                    (&mut provider.base_url, change.base_url),
                    (&mut provider.auth_header, change.auth_header),
                    (&mut provider.api_version, change.api_version),
                    (&mut provider.region, change.region),
                    (&mut provider.payment_method, change.payment_method),
                ] {
                    if let Some(new) = new {
                        *field = new;
                    }
                }
                provider.rank = change.rank.unwrap_or(provider.rank);
                if let Some(models) = change.models {
                    provider.models = models;
                }
                match credential {
                    None => {}
                    Some(None) => {
                        secrets.credentials.remove(name);
                    }
                    Some(Some(sealed)) => {
                        secrets.credentials.insert(name.to_owned(), sealed);
                    }
                }
                Ok(())
            },
            |api| api.shown_provider(name),
        )
    }

    pub(super) fn delete_provider(&mut self, name: &str) -> Answer {
        self.edit(|config, secrets| {
            if !config.providers.contains_key(name) {
                return Err(Problem::not_found("provider", name));
            }
            let uses = |route: &Route| route.targets.iter().any(|target| target.provider == name);
            if let Some((route, _)) = config.routes.iter().find(|(_, route)| uses(route)) {
                return Err(in_use(format!(
                    "The route `{route}` uses the provider `{name}`. Change it first."
                )));
            }
            if let Some((price, _)) = config.prices.iter().find(|(_, row)| row.provider == name) {
                return Err(in_use(format!(
                    "The price `{price}` is one of the provider `{name}`. Remove it first."
                )));
            }
            config.providers.remove(name);
            secrets.credentials.remove(name);
            Ok(Value::Object(serde_json::Map::new()))
        })
    }
}
