//! Versions of the configuration: list them, look at one, compare two, go back to one.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tallygate_shared::policy::key_plan::KeyStatus;

use super::{Answer, Api};
use crate::admin::bodies::RollBack;
use crate::admin::call::Step;
use crate::admin::config::{Config, Secrets, flat};
use crate::admin::problem::Problem;
use crate::objects::alerts_plan::ReceiverKind;
use crate::objects::sql::Sql;
use crate::objects::workspace_object::Refused;

/// The version in a path, or the one that is in force.
const CURRENT: &str = "current";

impl<S: Sql> Api<'_, S> {
    pub(super) fn config_versions(&self) -> Answer {
        let data = self.workspace.versions()?;
        Ok(Step::json(200, &json!({ "data": data, "current": self.workspace.version() })))
    }

    /// A version that is kept, and the configuration as it was.
    fn version_named(&self, name: &str) -> Result<(Value, Config), Refused> {
        let unknown = || Problem::not_found("version", &crate::request::exchange::printable(name));
        if name == CURRENT {
            let known = self.workspace.version_record(self.workspace.version())?;
            let record = known.unwrap_or_else(
                || json!({ "version": self.workspace.version(), "at": null, "who": "", "note": "" }),
            );
            return Ok((record, self.workspace.config().clone()));
        }
        let version: u64 = name.parse().map_err(|_| unknown())?;
        let record = self.workspace.version_record(version)?.ok_or_else(unknown)?;
        Ok((record, self.workspace.config_at(version)?))
    }

    pub(super) fn config_version(&self, name: &str) -> Answer {
        let (mut record, config) = self.version_named(name)?;
        let (_, lost) = rolled_back(self.workspace.config(), self.workspace.secrets(), &config);
        if let Some(fields) = record.as_object_mut() {
            fields.insert("config".to_owned(), json!(config));
            fields.insert("not_undone".to_owned(), json!(lost));
        }
        Ok(Step::json(200, &record))
    }

    pub(super) fn compare_versions(&self, name: &str) -> Answer {
        let (_, to) = self.version_named(name)?;
        let from = self.context.call.parameter("from").unwrap_or_else(|| CURRENT.to_owned());
        let (_, from) = self.version_named(&from)?;
        Ok(Step::json(200, &json!({ "changes": from.diff(&to) })))
    }

    /// Makes a new version whose content is an old one's, as far as that can be had back.
    pub(super) fn roll_back(&mut self) -> Answer {
        let RollBack { version } = self.context.call.body()?;
        let (_, old) = self.version_named(&version.to_string())?;
        let (target, lost) = rolled_back(self.workspace.config(), self.workspace.secrets(), &old);
        target.validate()?;
        let changes = self.workspace.config().diff(&target);
        let ((), delivery) = self.applied(|config, secrets| {
            keep_secrets(config, &target, secrets);
            *config = target;
            Ok(())
        })?;
        if !changes.is_empty() {
            self.workspace.note_version(&format!("rolled back to version {version}"))?;
        }
        let now = self.workspace.version();
        let body = json!({ "version": now, "changes": changes, "not_undone": lost });
        Ok(self.answered(&body, delivery))
    }

    /// Refuses a document that was made from another version than the last one.
    pub(super) fn check_base(&self) -> Result<(), Refused> {
        let Some(text) = self.context.call.parameter("version") else { return Ok(()) };
        let base = text.parse().ok().filter(|base| *base <= self.workspace.version());
        let base: u64 = base.ok_or_else(|| {
            let remedy = "Give the version of GET .../config/versions/current, or leave it out.";
            Problem::field("version", "is none of this workspace", remedy)
        })?;
        let Some(newer) = self.workspace.newer_than(base)? else { return Ok(()) };
        let part = |name: &str| newer.get(name).map(ToString::to_string).unwrap_or_default();
        let detail = format!(
            "The document was made from version {base}; version {} was made since by {} at {}. Nothing was applied. \
             Compare the two, and apply it with version {} to replace what changed.",
            part("version"),
            part("who"),
            part("at"),
            part("version")
        );
        Err(Problem::new(409, "version_conflict", detail).into())
    }
}

/// Secrets stay with what they belong to, and go where it goes.
pub(super) fn keep_secrets(config: &Config, target: &Config, secrets: &mut Secrets) {
    secrets.credentials.retain(|name, _| target.providers.contains_key(name));
    secrets.receivers.retain(|name, _| target.receivers.contains_key(name));
    // Headers are for one collector: they stay where it stays.
    if config.collector_address() != target.collector_address() {
        secrets.collector = None;
    }
}

/// Something that going back does not bring back, and why.
fn lost(path: String, why: &str) -> Value {
    json!({ "path": path, "why": why })
}

/// What the configuration becomes by going back to `old`, and what of `old` cannot be had: keys keep their lives, and
/// secrets that were removed are gone.
fn rolled_back(now: &Config, secrets: &Secrets, old: &Config) -> (Config, Vec<Value>) {
    let (mut target, mut missing) = (old.clone(), Vec::new());
    for (id, key) in &now.keys {
        let path = format!("keys.{id}");
        match target.keys.get_mut(id) {
            None => {
                let why = "It was issued since, and its secret is out: it stays as it is. Revoke it if it must not work.";
                missing.push(lost(path, why));
                target.keys.insert(id.clone(), key.clone());
            }
            Some(back) if key.status == KeyStatus::Revoked && back.status != key.status => {
                missing.push(lost(path, "It was revoked since and stays so. Issue a new key."));
                back.status = KeyStatus::Revoked;
            }
            Some(_) => {}
        }
    }
    for name in target.providers.keys().filter(|name| !now.providers.contains_key(*name)) {
        let why = "Its credential was deleted with it. Set it again: until then its requests fail.";
        missing.push(lost(format!("providers.{name}"), why));
    }
    let slack: BTreeSet<String> = target
        .receivers
        .iter()
        .filter(|(name, it)| {
            it.kind == ReceiverKind::Slack && !secrets.receivers.contains_key(*name)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in target.receivers.keys().filter(|name| !now.receivers.contains_key(*name)) {
        let why = match slack.contains(name) {
            true => "Its address was deleted with it. Set it again: until then it hears nothing.",
            false => "Its secret was deleted with it. Set it again: until then it hears nothing.",
        };
        missing.push(lost(format!("receivers.{name}"), why));
    }
    if now.collector_address() != target.collector_address() && secrets.collector.is_some() {
        let why =
            "The collector's headers are for another address and are removed. Set them again.";
        missing.push(lost("telemetry".to_owned(), why));
    }
    // What is lost is said of what differs only.
    let (before, after) = (flat(now), flat(old));
    missing.retain(|it| {
        let path = it.get("path").and_then(Value::as_str).unwrap_or_default();
        before.get(path) != after.get(path)
    });
    (target, missing)
}
