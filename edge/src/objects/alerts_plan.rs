//! What a workspace tells its Alerts object: rules, receivers with their sealed secrets, and keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallygate_shared::alerts::alert::{Alert, AlertKind, Severity};
use tallygate_shared::alerts::detect::KeyFacts;
use tallygate_shared::alerts::rules::AlertRules;
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::insights::week::WeeklyAt;
use tallygate_shared::time::Timestamp;

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReceiverKind {
    /// Standard Webhooks 1.0.0: signed JSON.
    StandardWebhook,
    /// Slack's incoming webhooks.
    Slack,
}

/// A sealed secret, and until when it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSecret {
    /// The sealed text.
    pub sealed: String,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverPlan {
    /// What it speaks.
    pub kind: ReceiverKind,
    /// Where it is. Slack's address is its secret and is among the secrets.
    pub url: Option<String>,
    /// What signs, newest first; for Slack the sealed address.
    pub secrets: Vec<SealedSecret>,
    /// The lowest severity it hears of.
    pub min_severity: Severity,
    /// The kinds it hears of; empty for all.
    pub kinds: Vec<AlertKind>,
    /// Whether it hears anything.
    pub enabled: bool,
}

impl ReceiverPlan {
    /// Whether it hears of this alert.
    pub fn hears_of(&self, alert: &Alert) -> bool {
        self.enabled
            && alert.severity >= self.min_severity
            && (self.kinds.is_empty() || self.kinds.contains(&alert.kind))
    }
}

/// When a review of the week before is sent, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewPlan {
    /// When.
    pub at: WeeklyAt,
    /// To these receivers; empty: to all that are enabled.
    pub receivers: Vec<String>,
}

/// The whole message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsPlan {
    /// The configuration's version: an older plan never replaces a newer one.
    pub version: u64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// When to raise an alert.
    pub rules: AlertRules,
    /// Where the dashboard is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard_url: Option<String>,
    /// When a review of the week is sent, and to whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly_review: Option<ReviewPlan>,
    /// Receivers by name.
    pub receivers: BTreeMap<String, ReceiverPlan>,
    /// The keys that can be used.
    pub keys: Vec<KeyFacts>,
}

/// What a receiver's secret is sealed for.
pub fn seal_context(workspace: &WorkspaceId, receiver: &str) -> String {
    format!("{workspace}/receiver/{receiver}")
}
