//! Who may do what with the admin API: one table.

use serde::{Deserialize, Serialize};

/// What an API token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the installation: creates workspaces, and may do all an admin may. Never a token's role.
    Operator,
    /// Configures the workspace.
    Admin,
    /// Sees money, not prompts.
    Finance,
    /// Sees keys and requests.
    Developer,
    /// Sees what happened, and the audit log.
    Auditor,
    /// The reconciler, by its signature. Never a token's role.
    Reconciler,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// See or create workspaces.
    Operate,
    /// See configuration.
    ReadConfig,
    /// Change it.
    WriteConfig,
    /// See requests and usage.
    ReadUsage,
    /// See the audit log.
    ReadAudit,
    /// Take alerts on.
    HandleAlerts,
    /// Export events and bring true-ups.
    Reconcile,
}

impl Role {
    /// Whether the role may do this.
    pub const fn may(self, act: Act) -> bool {
        match (self, act) {
            // Only what is signed reconciles: a bearer token can be copied from a log.
            (Self::Reconciler, act) => matches!(act, Act::Reconcile),
            (_, Act::Reconcile) => false,
            (Self::Operator, _) => true,
            (_, Act::Operate) => false,
            (Self::Admin, _) => true,
            (Self::Finance | Self::Developer | Self::Auditor, Act::ReadUsage | Act::ReadConfig) => {
                true
            }
            (Self::Finance | Self::Developer, Act::HandleAlerts)
            | (Self::Auditor, Act::ReadAudit) => true,
            (Self::Auditor, Act::HandleAlerts) => false,
            (Self::Finance | Self::Developer, Act::ReadAudit) => false,
            (Self::Finance | Self::Developer | Self::Auditor, Act::WriteConfig) => false,
        }
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Finance => "finance",
            Self::Developer => "developer",
            Self::Auditor => "auditor",
            Self::Reconciler => "reconciler",
        }
    }
}
