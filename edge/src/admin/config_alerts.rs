//! Alerts in a workspace's configuration: rules, receivers, and what the Alerts object is told of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallygate_shared::alerts::alert::{AlertKind, Severity};
use tallygate_shared::alerts::detect::KeyFacts;
use tallygate_shared::alerts::rules::AlertRules;
use tallygate_shared::alerts::target::{TargetError, check_target};
use tallygate_shared::ids::{KeyId, WorkspaceId};
use tallygate_shared::insights::week::WeeklyAt;
use tallygate_shared::policy::key_plan::KeyStatus;
use tallygate_shared::time::Timestamp;

use super::config::{Config, Secrets};
use super::problem::Problem;
use super::validate::check_name;
use crate::objects::alerts_plan::{AlertsPlan, ReceiverKind, ReceiverPlan, ReviewPlan};
use crate::request::exchange::printable;

/// Receivers: each may have one call under way, and an isolate makes six at once.
pub(super) const MAX_RECEIVERS: usize = 10;
/// Keys that are watched for expiry and use: the plan is one value in storage, where the platform ends at 2 MB.
const MAX_WATCHED_KEYS: usize = 5_000;

/// When to raise an alert, and where its links lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlertSettings {
    /// When to raise an alert.
    pub rules: AlertRules,
    /// The address of the dashboard, for links in messages; without it they are paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard_url: Option<String>,
    /// When a review of the week before is sent; without it none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly_review: Option<WeeklyReview>,
}

/// When a review of the week before is sent, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WeeklyReviewSettings"))]
#[serde(default, deny_unknown_fields)]
pub struct WeeklyReview {
    /// The day of the week: 1 is Monday, 7 is Sunday. Default: 1.
    pub weekday: u8,
    /// The hour of the day, 0 to 23, UTC. Default: 7.
    pub hour: u8,
    /// To these receivers; empty: to all that are enabled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<String>,
}

impl Default for WeeklyReview {
    fn default() -> Self {
        let WeeklyAt { weekday, hour } = WeeklyAt::default();
        Self { weekday, hour, receivers: Vec::new() }
    }
}

impl WeeklyReview {
    fn validate(&self, known: &BTreeMap<String, ReceiverConfig>) -> Vec<Problem> {
        let field = |name: &str| format!("alerts.weekly_review.{name}");
        let mut problems = Vec::new();
        if !(1..=7).contains(&self.weekday) {
            let remedy = "Give 1 (Monday) to 7 (Sunday).";
            problems.push(Problem::field(&field("weekday"), "is no day of the week", remedy));
        }
        if self.hour > 23 {
            let remedy = "Give 0 to 23, UTC.";
            problems.push(Problem::field(&field("hour"), "is no hour of the day", remedy));
        }
        for name in self.receivers.iter().filter(|name| !known.contains_key(*name)) {
            let detail = format!("names the unknown receiver `{}`", printable(name));
            let remedy = "Use names of `receivers`, or leave it out for all of them.";
            problems.push(Problem::field(&field("receivers"), detail, remedy));
        }
        problems
    }

    fn plan(&self) -> ReviewPlan {
        let at = WeeklyAt { weekday: self.weekday, hour: self.hour };
        ReviewPlan { at, receivers: self.receivers.clone() }
    }
}

/// A receiver of messages about alerts, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// `standard_webhook` or `slack`.
    #[serde(rename = "type")]
    pub kind: ReceiverKind,
    /// Where it is. Not here for Slack, whose address is its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The lowest severity it hears of.
    #[serde(default)]
    pub min_severity: Severity,
    /// The kinds it hears of; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<AlertKind>,
    /// Whether it hears anything.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// A receiver's address that cannot be used, as a problem with its field.
pub fn target_problem(field: &str, error: TargetError) -> Problem {
    let (detail, remedy) = match error {
        TargetError::NotAUrl => (
            "is not an address this takes",
            "Give one such as https://hooks.example.com/path, in plain ASCII.",
        ),
        TargetError::NotHttps => ("is not https", "Give an address that begins with https://."),
        TargetError::HasCredentials => {
            ("has a user name or password", "Take them out; receivers check the signature instead.")
        }
        TargetError::Private => (
            "is a private address or name",
            "Give a public one, or have the operator set TALLYGATE_ALLOW_PRIVATE_DELIVERY=on.",
        ),
    };
    Problem::field(field, detail, remedy)
}

impl AlertSettings {
    pub(super) fn validate(&self, known: &BTreeMap<String, ReceiverConfig>) -> Vec<Problem> {
        let review = self.weekly_review.iter().flat_map(|review| review.validate(known));
        let problems = self.rules.problems().into_iter().map(|problem| {
            let field = format!("alerts.rules.{}", problem.field);
            Problem::field(&field, "is out of range", &format!("It {}.", problem.remedy))
        });
        let url = self.dashboard_url.as_deref().map(|url| check_target(url, true));
        let url = url.and_then(Result::err);
        let url = url.map(|error| target_problem("alerts.dashboard_url", error));
        problems.chain(url).chain(review).collect()
    }
}

impl ReceiverConfig {
    pub(super) fn validate(&self, name: &str) -> Result<(), Problem> {
        check_name("receivers", name)?;
        let field = format!("receivers.{name}.url");
        match (self.kind, &self.url) {
            (ReceiverKind::StandardWebhook, None) => {
                let remedy = "Give the address that messages are sent to.";
                Err(Problem::field(&field, "is missing", remedy))
            }
            (ReceiverKind::Slack, Some(_)) => {
                let remedy = "Leave it out here; set it with PUT .../receivers/{receiver}.";
                Err(Problem::field(&field, "is Slack's secret, which is not configuration", remedy))
            }
            (ReceiverKind::Slack, None) => Ok(()),
            // Whether private addresses are allowed is the operator's, and checked where a receiver changes.
            (ReceiverKind::StandardWebhook, Some(url)) => {
                check_target(url, true).map_err(|error| target_problem(&field, error))
            }
        }
    }
}

impl Config {
    /// Checks the addresses of receivers that differ from `before`.
    pub fn check_receivers(&self, before: &Self, allow_private: bool) -> Result<(), Problem> {
        for (name, receiver) in &self.receivers {
            let known = before.receivers.get(name).and_then(|receiver| receiver.url.as_ref());
            let Some(url) = receiver.url.as_ref().filter(|url| Some(*url) != known) else {
                continue;
            };
            let field = format!("receivers.{name}.url");
            check_target(url, allow_private).map_err(|error| target_problem(&field, error))?;
        }
        Ok(())
    }

    /// What the Alerts object is told. `created` says when each key was issued.
    pub fn compile_alerts(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        secrets: &Secrets,
        created: &BTreeMap<String, Timestamp>,
    ) -> AlertsPlan {
        let receiver = |(name, receiver): (&String, &ReceiverConfig)| {
            let plan = ReceiverPlan {
                kind: receiver.kind,
                url: receiver.url.clone(),
                secrets: secrets.receivers.get(name).cloned().unwrap_or_default(),
                min_severity: receiver.min_severity,
                kinds: receiver.kinds.clone(),
                enabled: receiver.enabled,
            };
            (name.clone(), plan)
        };
        let usable = self.keys.iter().filter(|(_, key)| key.status != KeyStatus::Revoked);
        let keys = usable.filter_map(|(id, key)| {
            Some(KeyFacts {
                key: KeyId::parse(id).ok()?,
                name: key.name.clone(),
                owner: key.owner.clone(),
                created_at: *created.get(id)?,
                expires_at: key.expires_at.as_deref().and_then(Timestamp::parse),
                last_used_at: None,
            })
        });
        AlertsPlan {
            version,
            workspace: workspace.clone(),
            rules: self.alerts.rules.clone(),
            dashboard_url: self.alerts.dashboard_url.clone(),
            weekly_review: self.alerts.weekly_review.as_ref().map(WeeklyReview::plan),
            receivers: self.receivers.iter().map(receiver).collect(),
            keys: keys.take(MAX_WATCHED_KEYS).collect(),
        }
    }
}
