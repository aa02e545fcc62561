//! Sessions of the dashboard: opened with a token, listed, ended.

use serde_json::{Value, json};

use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::admin::roles::Role;
use crate::objects::sql::Sql;
use crate::objects::workspace_object::Principal;

impl<S: Sql> Api<'_, S> {
    pub(super) fn open_session(&mut self) -> Answer {
        // A session that could open another would never end. The operator is not one of the workspace.
        if self.context.call.session.is_some() || self.principal.role == Role::Operator {
            let detail = "Open a session with an API token of this workspace.";
            return Err(Problem::new(403, "role_insufficient", detail).into());
        }
        let session = self.workspace.open_session(self.principal, self.context)?;
        let change = json!({ "after": session });
        self.workspace.audit(self.principal, "added", "sessions", &change, self.context.now)?;
        Ok(Step::json(self.spec.status, &session))
    }

    /// Who asks.
    pub(super) fn caller(&self) -> Step {
        let Principal { who, role, owner } = self.principal;
        Step::json(200, &json!({ "who": who, "role": role, "owner": owner }))
    }

    /// Ends the session that asks. A call without one has none to end.
    pub(super) fn end_session(&mut self) -> Answer {
        match self.context.call.session.clone() {
            Some(id) => self.revoke_session(&id),
            None => {
                let detail = "This call was made with a token: there is no session to end.";
                Err(Problem::new(409, "no_session", detail).into())
            }
        }
    }

    pub(super) fn revoke_session(&mut self, id: &str) -> Answer {
        let known = self.workspace.sessions(self.context.now)?;
        let session = known.into_iter().find(|it| it.get("id").and_then(Value::as_str) == Some(id));
        let session = session.ok_or_else(|| Problem::not_found("session", id))?;
        self.workspace.delete_session(id)?;
        let change = json!({ "before": session });
        self.workspace.audit(self.principal, "removed", "sessions", &change, self.context.now)?;
        Ok(Step::json(200, &json!({})))
    }
}
