//! What a Workspace writes down: its configuration's entries, its secrets as hashes or sealed, tokens, and the audit log.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::identity::api_token::{ApiToken, TokenScope};
use tallygate_shared::time::Timestamp;

use super::{Context, Principal, Refused, WorkspaceObject, stored};
use crate::admin::bodies::NewToken;
use crate::admin::config::{Change, Secrets};
use crate::objects::sql::{Row, Sql, SqlError, integer, text};

impl<S: Sql> WorkspaceObject<S> {
    /// A new API token: its public record, and what is shown once.
    pub(in crate::objects) fn issue_token(
        &mut self,
        new: &NewToken,
        context: &Context<'_>,
    ) -> Result<(Value, Value), Refused> {
        let scope = TokenScope::Workspace(self.id()?.clone());
        let token = ApiToken::mint(scope, &context.bytes(64));
        let id = token.token_id().as_str().to_owned();
        let insert = "INSERT INTO tokens (id, sha256, role, name, created_at, owner) VALUES (?, ?, ?, ?, ?, ?)";
        let hash = token.secret_hash();
        let created_at = context.now.to_string();
        let NewToken { name, role, owner } = new;
        let mut params =
            [id.as_str(), hash.as_str(), role.name(), name, &created_at].map(Some).to_vec();
        params.push(owner.as_deref());
        self.sql.exec(insert, &params)?;
        let record = json!({ "id": id, "name": name, "role": role.name(), "created_at": created_at,
                             "owner": owner });
        let mut shown = record.clone();
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("token".to_owned(), token.expose().into());
        }
        Ok((record, shown))
    }

    pub(in crate::objects) fn tokens(&self) -> Result<Vec<Value>, SqlError> {
        let rows = self.sql.exec(
            "SELECT id, name, role, created_at, owner FROM tokens ORDER BY created_at, id",
            &[],
        )?;
        let token = |row: &Row| {
            Ok(json!({ "id": text(row, 0)?, "name": text(row, 1)?, "role": text(row, 2)?,
                       "created_at": text(row, 3)?, "owner": row.get(4).cloned().flatten() }))
        };
        rows.iter().map(token).collect()
    }

    /// Deletes a token; `None` when there is none, else its public record.
    pub(in crate::objects) fn delete_token(&self, id: &str) -> Result<Option<Value>, SqlError> {
        let known = self
            .tokens()?
            .into_iter()
            .find(|token| token.get("id").and_then(Value::as_str) == Some(id));
        if known.is_some() {
            self.sql.exec("DELETE FROM tokens WHERE id = ?", &[Some(id)])?;
            self.end_sessions_of(&format!("token:{id}"))?;
        }
        Ok(known)
    }

    pub(super) fn write_entry(&self, change: &Change) -> Result<(), SqlError> {
        match &change.after {
            None => self.sql.exec("DELETE FROM entries WHERE path = ?", &[Some(&change.path)])?,
            Some(body) => {
                let upsert = "INSERT INTO entries (path, body) VALUES (?, ?)
                    ON CONFLICT (path) DO UPDATE SET body = excluded.body";
                self.sql.exec(upsert, &[Some(&change.path), Some(&body.to_string())])?
            }
        };
        Ok(())
    }

    /// Writes the secrets that differ; returns their paths.
    pub(super) fn write_secrets(&self, secrets: &Secrets) -> Result<Vec<String>, SqlError> {
        let (before, after) = (secret_rows(&self.secrets), secret_rows(secrets));
        let mut changed = Vec::new();
        for ((kind, name), body) in &after {
            if before.get(&(*kind, name.clone())) != Some(body) {
                let upsert = "INSERT INTO secrets (kind, name, body) VALUES (?, ?, ?)
                    ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body";
                self.sql.exec(upsert, &[Some(kind), Some(name), Some(body)])?;
                changed.push(secret_path(kind, name));
            }
        }
        for (kind, name) in before.keys().filter(|key| !after.contains_key(*key)) {
            let delete = "DELETE FROM secrets WHERE kind = ? AND name = ?";
            self.sql.exec(delete, &[Some(kind), Some(name)])?;
            changed.push(secret_path(kind, name));
        }
        Ok(changed)
    }

    pub(super) fn set_meta(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let upsert = "INSERT INTO meta (name, value) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql.exec(upsert, &[Some(name), Some(value)]).map(|_| ())
    }

    pub(in crate::objects) fn audit(
        &self,
        principal: &Principal,
        act: &str,
        path: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        let insert = "INSERT INTO audit (at, who, act, path, body) VALUES (?, ?, ?, ?, ?)";
        let (at, body) = (now.to_string(), body.to_string());
        let params = [at.as_str(), &principal.who, act, path, &body].map(Some);
        self.sql.exec(insert, &params).map(|_| ())
    }

    /// The audit log, newest first, older than `before`.
    pub(in crate::objects) fn audit_log(
        &self,
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<Value>, SqlError> {
        let before = before.unwrap_or(i64::MAX.unsigned_abs()).to_string();
        let select = format!(
            "SELECT CAST(seq AS TEXT), at, who, act, path, body FROM audit WHERE seq < CAST(? AS INTEGER)
             ORDER BY seq DESC LIMIT {}",
            limit.clamp(1, 1_000)
        );
        let rows = self.sql.exec(&select, &[Some(&before)])?;
        let entry = |row: &Row| {
            Ok(json!({ "seq": integer::<u64>(row, 0)?, "at": text(row, 1)?, "who": text(row, 2)?,
                       "act": text(row, 3)?, "path": text(row, 4)?, "change": stored::<Value>(text(row, 5)?)? }))
        };
        rows.iter().map(entry).collect()
    }
}

fn secret_path(kind: &str, name: &str) -> String {
    match kind {
        "key" => format!("keys.{name}"),
        "credential" => format!("providers.{name}"),
        "receiver" => format!("receivers.{name}"),
        "reconciler" => format!("reconciler.{name}"),
        "telemetry" => format!("telemetry.{name}"),
        _ => format!("actor_secrets.{name}"),
    }
}

fn secret_rows(secrets: &Secrets) -> BTreeMap<(&'static str, String), String> {
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let credentials = secrets
        .credentials
        .iter()
        .map(|(name, sealed)| (("credential", name.clone()), sealed.clone()));
    let keys = secrets
        .keys
        .iter()
        .map(|(id, list)| (("key", id.clone()), json(serde_json::to_string(list))));
    let actors = secrets
        .actors
        .iter()
        .map(|secret| (("actor", secret.kid.clone()), json(serde_json::to_string(secret))));
    let reconcilers = secrets
        .reconcilers
        .iter()
        .map(|secret| (("reconciler", secret.kid.clone()), json(serde_json::to_string(secret))));
    let receivers = secrets
        .receivers
        .iter()
        .map(|(name, list)| (("receiver", name.clone()), json(serde_json::to_string(list))));
    let collector = secrets
        .collector
        .iter()
        .map(|sealed| (("telemetry", "collector".to_owned()), sealed.clone()));
    let shared = actors.chain(reconcilers).chain(receivers).chain(collector);
    credentials.chain(keys).chain(shared).collect()
}
