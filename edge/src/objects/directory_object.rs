//! The Directory: the list of workspaces. One object; only the operator talks to it.

use serde::Deserialize;
use serde_json::json;
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::Timestamp;

use super::migrations::migrate;
use super::sql::{Sql, SqlError, text};
use crate::admin::call::{Call, Step};
use crate::admin::problem::Problem;

/// The schema.
pub const MIGRATIONS: &[&str] = &[
    "CREATE TABLE workspaces (id TEXT PRIMARY KEY, name TEXT NOT NULL, created_at TEXT NOT NULL) WITHOUT ROWID",
];

/// The list of workspaces.
pub struct DirectoryObject<S> {
    sql: S,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWorkspace {
    #[serde(default)]
    id: Option<WorkspaceId>,
    name: String,
}

impl<S: Sql> DirectoryObject<S> {
    /// Opens the list.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        migrate(&sql, MIGRATIONS)?;
        Ok(Self { sql })
    }

    /// Answers the operator: lists, or creates and sends on to the new workspace.
    pub fn handle(&self, call: &Call, random: &[u8; 10], now: Timestamp) -> Result<Step, SqlError> {
        match call.method.as_str() {
            "GET" => self.list(),
            "POST" => self.create(call, random, now),
            _ => Ok(Problem::new(405, "method_not_allowed", "Use GET or POST.").into()),
        }
    }

    fn list(&self) -> Result<Step, SqlError> {
        let rows = self.sql.exec("SELECT id, name, created_at FROM workspaces ORDER BY id", &[])?;
        let data = rows.iter().map(|row| {
            Ok(json!({ "id": text(row, 0)?, "name": text(row, 1)?, "created_at": text(row, 2)? }))
        });
        let data = data.collect::<Result<Vec<_>, SqlError>>()?;
        Ok(Step::json(200, &json!({ "data": data })))
    }

    fn create(&self, call: &Call, random: &[u8; 10], now: Timestamp) -> Result<Step, SqlError> {
        let new: NewWorkspace = match call.body() {
            Ok(new) => new,
            Err(problem) => return Ok(problem.into()),
        };
        if new.name.trim().is_empty() || new.name.len() > 128 {
            return Ok(Problem::field("name", "is missing", "Give 1 to 128 characters.").into());
        }
        let id = new.id.unwrap_or_else(|| WorkspaceId::mint(random));
        let found =
            self.sql.exec("SELECT '1' FROM workspaces WHERE id = ?", &[Some(id.as_str())])?;
        if !found.is_empty() {
            let detail = format!("The workspace `{id}` is there already.");
            return Ok(Problem::new(409, "already_exists", detail).into());
        }
        let insert = "INSERT INTO workspaces (id, name, created_at) VALUES (?, ?, ?)";
        let created_at = now.to_string();
        self.sql.exec(insert, &[Some(id.as_str()), Some(&new.name), Some(&created_at)])?;
        let create = Call {
            path: format!("/api/v1/workspaces/{id}"),
            method: "PUT".to_owned(),
            body: json!({ "name": new.name }).to_string(),
            ..call.clone()
        };
        let call = serde_json::to_string(&create).unwrap_or_default();
        Ok(Step::Workspace { name: id.as_str().to_owned(), call })
    }
}
