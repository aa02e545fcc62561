//! The dashboard's sessions. The cookie names one; what it may do stands here, so that it ends the moment its row does.

use serde_json::{Value, json};
use tallygate_shared::time::Timestamp;

use super::sql::{Row, Sql, SqlError, integer, text};
use super::workspace_object::{Context, Principal, Refused, WorkspaceObject};
use crate::admin::problem::Problem;
use crate::dashboard::session::{SESSION_MS, SessionId};

/// Sessions open at one time: a script that signs in for every call must not fill storage.
const MAX_SESSIONS: usize = 1_000;

/// How the audit log names a person: `mail:ann@example.com`.
const MAIL: &str = "mail:";

impl<S: Sql> WorkspaceObject<S> {
    /// Who a session belongs to.
    pub(super) fn person(&self, id: &str, now: Timestamp) -> Result<Principal, Refused> {
        let ended = || Problem::new(401, "session_ended", "The session has ended. Sign in again.");
        self.id().map_err(|_| ended())?;
        let select = "SELECT who, role, owner FROM sessions WHERE id = ? AND expires_ms > CAST(? AS INTEGER)";
        let rows = self.exec(select, &[Some(id), Some(&now.ms().to_string())])?;
        let row = rows.first().ok_or_else(ended)?;
        // A member's role is what the configuration says now.
        if let Some(mail) = text(row, 0)?.strip_prefix(MAIL) {
            return self.member(mail).map_err(|_| ended().into());
        }
        let role = serde_json::from_value(json!(text(row, 1)?))
            .map_err(|error| SqlError(format!("stored role: {error}")))?;
        Ok(Principal { who: text(row, 0)?.to_owned(), role, owner: row.get(2).cloned().flatten() })
    }

    /// A person whom Cloudflare Access knows. Whether there is such a workspace, only its members hear.
    pub(super) fn member(&self, mail: &str) -> Result<Principal, Refused> {
        let unknown = || {
            let detail = format!(
                "{mail} is not a member of such a workspace. Ask its admin to add the address to dashboard.members."
            );
            Problem::new(403, "not_a_member", detail)
        };
        self.id().map_err(|_| unknown())?;
        let member = self.config().dashboard.members.get(mail).ok_or_else(unknown)?;
        Ok(Principal { who: format!("{MAIL}{mail}"), role: member.role, owner: member.owner(mail) })
    }

    /// Opens a session with the rights of the token that asks for it.
    pub(super) fn open_session(
        &mut self,
        principal: &Principal,
        context: &Context<'_>,
    ) -> Result<Value, Refused> {
        let now = context.now.ms().to_string();
        let expired = "DELETE FROM sessions WHERE expires_ms <= CAST(? AS INTEGER)";
        self.exec(expired, &[Some(&now)])?;
        let count = self.exec("SELECT CAST(COUNT(*) AS TEXT) FROM sessions", &[])?;
        if count.first().map(|row| integer::<usize>(row, 0)).transpose()? >= Some(MAX_SESSIONS) {
            let detail = "1,000 sessions are open. Revoke some, or wait until they end.";
            return Err(Problem::new(429, "too_many_sessions", detail).into());
        }
        let id = SessionId::new(&context.bytes(0));
        let (opened_at, expires) = (context.now.to_string(), context.now.plus_ms(SESSION_MS));
        let insert = "INSERT INTO sessions (id, who, role, opened_at, expires_ms, owner)
            VALUES (?, ?, ?, ?, CAST(? AS INTEGER), ?)";
        let role = principal.role.name();
        let expires_ms = expires.ms().to_string();
        let mut row =
            [id.as_str(), &principal.who, role, &opened_at, &expires_ms].map(Some).to_vec();
        row.push(principal.owner.as_deref());
        self.exec(insert, &row)?;
        Ok(json!({ "id": id.as_str(), "who": principal.who, "role": role, "opened_at": opened_at,
                   "expires_at": expires.to_string(), "owner": principal.owner }))
    }

    /// The sessions that have not ended.
    pub(super) fn sessions(&self, now: Timestamp) -> Result<Vec<Value>, SqlError> {
        let select =
            "SELECT id, who, role, opened_at, CAST(expires_ms AS TEXT), owner FROM sessions
            WHERE expires_ms > CAST(? AS INTEGER) ORDER BY opened_at DESC, id";
        let session = |row: &Row| {
            let expires = Timestamp::from_ms(integer(row, 4)?);
            Ok(json!({ "id": text(row, 0)?, "who": text(row, 1)?, "role": text(row, 2)?,
                       "opened_at": text(row, 3)?, "expires_at": expires.to_string(),
                       "owner": row.get(5).cloned().flatten() }))
        };
        self.exec(select, &[Some(&now.ms().to_string())])?.iter().map(session).collect()
    }

    /// Ends a session. Whether there was one, the caller has asked.
    pub(super) fn delete_session(&self, id: &str) -> Result<(), SqlError> {
        self.exec("DELETE FROM sessions WHERE id = ?", &[Some(id)])?;
        Ok(())
    }

    /// Ends every session that was opened with a token.
    pub(super) fn end_sessions_of(&self, who: &str) -> Result<(), SqlError> {
        self.exec("DELETE FROM sessions WHERE who = ?", &[Some(who)])?;
        Ok(())
    }
}
