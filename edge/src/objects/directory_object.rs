//! The Directory: the list of workspaces. One object; only the operator talks to it.

use serde_json::json;
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::Timestamp;

use super::migrations::migrate;
use super::sql::{Sql, SqlError, text};
use crate::admin::bodies::NewWorkspace;
use crate::admin::call::{CREATE, Call, Step};
use crate::admin::check_text;
use crate::admin::problem::Problem;
use crate::demo::is_demo;

/// The schema.
pub const MIGRATIONS: &[&str] = &[
    "CREATE TABLE workspaces (id TEXT PRIMARY KEY, name TEXT NOT NULL, created_at TEXT NOT NULL) WITHOUT ROWID",
];

/// The list of workspaces.
pub struct DirectoryObject<S> {
    sql: S,
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

    /// A demo is over. No other workspace is ever forgotten.
    pub fn forget(&self, id: &str) -> Result<(), SqlError> {
        if !is_demo(id) {
            return Err(SqlError("only a demo is forgotten".to_owned()));
        }
        self.sql.exec("DELETE FROM workspaces WHERE id = ?", &[Some(id)]).map(|_| ())
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
        if let Err(problem) = check_text("name", &new.name) {
            return Ok(problem.into());
        }
        let id = match (new.id, new.demo) {
            (Some(id), _) => id,
            (None, true) => match WorkspaceId::parse("ws_demo") {
                Ok(id) => id,
                Err(error) => return Err(SqlError(error.to_string())),
            },
            (None, false) => WorkspaceId::mint(random),
        };
        if is_demo(id.as_str()) != new.demo {
            let remedy = "Give `ws_demo` or an id that begins with `ws_demo-` together with `demo: true`, or neither.";
            return Ok(Problem::field(
                "id",
                "is a demo's where `demo` is not, or the other way round",
                remedy,
            )
            .into());
        }
        // A workspace that is listed already is created there again where an earlier attempt broke off between the two
        // objects; one that is whole refuses.
        let insert = "INSERT INTO workspaces (id, name, created_at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING";
        let created_at = now.to_string();
        self.sql.exec(insert, &[Some(id.as_str()), Some(&new.name), Some(&created_at)])?;
        let create = Call {
            path: format!("/api/v1/workspaces/{id}"),
            method: CREATE.to_owned(),
            body: json!({ "id": id, "name": new.name, "demo": new.demo }).to_string(),
            ..call.clone()
        };
        let call = serde_json::to_string(&create).unwrap_or_default();
        Ok(Step::Workspace { name: id.as_str().to_owned(), call })
    }
}
