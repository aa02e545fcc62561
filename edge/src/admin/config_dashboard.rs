//! Who may sign in to the dashboard without a token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::roles::Role;

/// A plan for more people than this wants another store.
const MAX_MEMBERS: usize = 5_000;
const MAX_MAIL_BYTES: usize = 254;

/// The dashboard's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DashboardSettings {
    /// Roles by mail address in lower case, of those who come through Cloudflare Access. `admin`, `finance`,
    /// `developer` or `auditor`. Who is taken away here is signed out at once.
    pub members: BTreeMap<String, Role>,
}

impl DashboardSettings {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Every address is one, and every role can be given.
    pub(super) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.members.len() > MAX_MEMBERS {
            let remedy = "Keep 5,000 at most.";
            problems.push(Problem::field("dashboard.members", "has too many entries", remedy));
        }
        for (mail, role) in &self.members {
            let field = format!("dashboard.members.{mail}");
            let (name, domain) = mail.split_once('@').unwrap_or_default();
            let plain =
                mail.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
            if name.is_empty()
                || domain.is_empty()
                || domain.contains('@')
                || !plain
                || mail.len() > MAX_MAIL_BYTES
            {
                let remedy = "Give an address in lower case, such as ann@example.com.";
                problems.push(Problem::field(&field, "is not a mail address", remedy));
            }
            if matches!(role, Role::Operator | Role::Reconciler) {
                let remedy = "Use admin, finance, developer or auditor.";
                problems.push(Problem::field(&field, "cannot have this role", remedy));
            }
        }
        problems
    }
}
