//! The configuration as one document: validate, diff, apply.

use serde_json::json;
use tallygate_shared::policy::key_plan::KeyStatus;

use super::keys::stays_revoked;
use super::versions::keep_secrets;
use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::config::{Config, KeyConfig};
use crate::admin::problem::Problem;
use crate::objects::sql::Sql;

impl<S: Sql> Api<'_, S> {
    /// What the workspace would be after the document in the body was applied.
    fn target(&self) -> Result<Config, Problem> {
        let mut target: Config = self.context.call.body()?;
        let current = self.workspace.config();
        // A key is issued, so that its secret can be shown: a document cannot make one up.
        if let Some(id) = target.keys.keys().find(|id| !current.keys.contains_key(*id)) {
            let remedy = "Issue it with POST .../keys, then export.";
            let detail =
                format!("has the unknown key `{}`", crate::request::exchange::printable(id));
            return Err(Problem::field("keys", detail, remedy));
        }
        for (id, key) in &current.keys {
            match target.keys.get(id).map(|key| key.status) {
                Some(KeyStatus::Active | KeyStatus::Suspended)
                    if key.status == KeyStatus::Revoked =>
                {
                    return Err(stays_revoked(id));
                }
                Some(_) => {}
                // A key that the document leaves out must stop at its Meter too, so it is revoked and not forgotten.
                None => {
                    let revoked = KeyConfig { status: KeyStatus::Revoked, ..key.clone() };
                    target.keys.insert(id.clone(), revoked);
                }
            }
        }
        target.validate()?;
        Ok(target)
    }

    pub(super) fn validate_config(&self) -> Answer {
        self.target()?;
        Ok(Step::json(200, &json!({ "valid": true })))
    }

    pub(super) fn diff_config(&self) -> Answer {
        let changes = self.workspace.config().diff(&self.target()?);
        Ok(Step::json(200, &json!({ "changes": changes })))
    }

    pub(super) fn apply_config(&mut self) -> Answer {
        self.check_base()?;
        let target = self.target()?;
        let changes = self.workspace.config().diff(&target);
        self.edit(|config, secrets| {
            keep_secrets(config, &target, secrets);
            *config = target;
            Ok(json!({ "changes": changes }))
        })
    }
}
