//! The configuration's past: what each change of it changed, who made it and when. A version is had by undoing the
//! changes after it, so that a small change of a large configuration takes little room.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::time::Timestamp;

use super::sql::{Row, Sql, SqlError, integer, text};
use super::workspace_object::{Principal, Refused, WorkspaceObject, stored};
use crate::admin::config::{Change, Config, flat, whole};
use crate::admin::problem::Problem;

/// Versions that are kept. A change is audited for good; what is kept here can be gone back to.
const KEPT_VERSIONS: u64 = 100;
/// Paths that the list names of each version; the rest is counted.
const NAMED_PATHS: u64 = 20;

impl<S: Sql> WorkspaceObject<S> {
    /// Remembers what a change of the configuration changed. `before` is the version that it was made on.
    pub(super) fn keep_version(
        &self,
        before: u64,
        changes: &[Change],
        principal: &Principal,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        if self.exec("SELECT '1' FROM versions LIMIT 1", &[])?.is_empty() {
            let at = self.created().unwrap_or_default().to_string();
            self.insert_version(before, &at, "", "the configuration until then")?;
        }
        self.insert_version(self.version(), &now.to_string(), &principal.who, "")?;
        let version = self.version().to_string();
        for change in changes {
            let insert = "INSERT INTO version_changes (version, path, before, after)
                VALUES (CAST(? AS INTEGER), ?, ?, ?)";
            let [before, after] =
                [&change.before, &change.after].map(|body| body.as_ref().map(Value::to_string));
            let row =
                [Some(version.as_str()), Some(&change.path), before.as_deref(), after.as_deref()];
            self.exec(insert, &row)?;
        }
        let old = format!(
            "DELETE FROM versions WHERE version NOT IN
             (SELECT version FROM versions ORDER BY version DESC LIMIT {KEPT_VERSIONS})"
        );
        self.exec(&old, &[])?;
        // What led to the oldest one is not gone back over.
        let old =
            "DELETE FROM version_changes WHERE version <= (SELECT MIN(version) FROM versions)";
        self.exec(old, &[]).map(|_| ())
    }

    fn insert_version(
        &self,
        version: u64,
        at: &str,
        who: &str,
        note: &str,
    ) -> Result<(), SqlError> {
        let insert =
            "INSERT INTO versions (version, at, who, note) VALUES (CAST(? AS INTEGER), ?, ?, ?)";
        let version = version.to_string();
        self.exec(insert, &[&version, at, who, note].map(Some)).map(|_| ())
    }

    /// Says of the last version why it was made.
    pub(super) fn note_version(&self, note: &str) -> Result<(), SqlError> {
        let update = "UPDATE versions SET note = ? WHERE version = CAST(? AS INTEGER)";
        self.exec(update, &[Some(note), Some(&self.version().to_string())]).map(|_| ())
    }

    /// The versions that are kept, the newest first, with what each changed.
    pub(super) fn versions(&self) -> Result<Vec<Value>, SqlError> {
        let mut paths: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
        let select = format!(
            "SELECT CAST(version AS TEXT), CAST(every AS TEXT), path FROM (SELECT version, path,
                COUNT(*) OVER (PARTITION BY version) AS every,
                ROW_NUMBER() OVER (PARTITION BY version ORDER BY path) AS place FROM version_changes)
             WHERE place <= {NAMED_PATHS} ORDER BY version, path"
        );
        for row in &self.exec(&select, &[])? {
            let (count, named) = paths.entry(integer(row, 0)?).or_default();
            *count = integer(row, 1)?;
            named.push(text(row, 2)?.to_owned());
        }
        let select =
            "SELECT CAST(version AS TEXT), at, who, note FROM versions ORDER BY version DESC";
        let shown = |row: &Row| {
            let version: u64 = integer(row, 0)?;
            let (count, named) = paths.remove(&version).unwrap_or_default();
            Ok(json!({ "version": version, "at": text(row, 1)?, "who": text(row, 2)?,
                       "note": text(row, 3)?, "changes": count, "changed": named }))
        };
        self.exec(select, &[])?.iter().map(shown).collect()
    }

    /// The last version of the configuration that is not older than `base`, when there is a newer one than `base`.
    pub(super) fn newer_than(&self, base: u64) -> Result<Option<Value>, SqlError> {
        let select = "SELECT CAST(version AS TEXT), at, who FROM versions
            WHERE version > CAST(? AS INTEGER) ORDER BY version DESC LIMIT 1";
        let rows = self.exec(select, &[Some(&base.to_string())])?;
        let shown = |row: &Row| {
            Ok(
                json!({ "version": integer::<u64>(row, 0)?, "at": text(row, 1)?, "who": text(row, 2)? }),
            )
        };
        rows.first().map(shown).transpose()
    }

    /// The record of a version that is kept.
    pub(super) fn version_record(&self, version: u64) -> Result<Option<Value>, SqlError> {
        let select = "SELECT CAST(version AS TEXT), at, who, note FROM versions
            WHERE version = CAST(? AS INTEGER)";
        let rows = self.exec(select, &[Some(&version.to_string())])?;
        let shown = |row: &Row| {
            Ok(
                json!({ "version": integer::<u64>(row, 0)?, "at": text(row, 1)?, "who": text(row, 2)?,
                       "note": text(row, 3)? }),
            )
        };
        rows.first().map(shown).transpose()
    }

    /// The configuration as it was at a version that is kept.
    pub(super) fn config_at(&self, version: u64) -> Result<Config, Refused> {
        let mut entries = flat(self.config());
        let select = "SELECT path, before FROM version_changes WHERE version > CAST(? AS INTEGER)
            ORDER BY version DESC, path";
        for row in &self.exec(select, &[Some(&version.to_string())])? {
            let path = text(row, 0)?.to_owned();
            match row.get(1).cloned().flatten() {
                Some(body) => entries.insert(path, stored(&body)?),
                None => entries.remove(&path),
            };
        }
        whole(entries).map_err(|_| {
            let detail = "This version was made by an older build and cannot be read any more.";
            Problem::new(409, "version_unreadable", detail).into()
        })
    }
}
