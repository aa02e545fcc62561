//! What a workspace tells its Telemetry object: where the collector is, with its sealed headers, and the names it needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tallygate_shared::ids::WorkspaceId;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A picture of all counters, once a minute while they change.
    Metrics,
    /// One event for each request.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Logs];

    /// Its name, which is also the end of its path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// The signal of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorPlan {
    /// Its address, to which `/v1/metrics` and `/v1/logs` are added.
    pub endpoint: String,
    /// Headers as a JSON object, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<String>,
    /// What it gets.
    pub signals: BTreeSet<Signal>,
    /// The workspace's own attributes of the resource.
    pub resource: BTreeMap<String, String>,
}

/// The whole message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryPlan {
    /// The configuration's version: an older plan never replaces a newer one.
    pub version: u64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The collector, where there is one that is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<CollectorPlan>,
    /// `gen_ai.provider.name` by the workspace's name for the provider.
    pub providers: BTreeMap<String, String>,
    /// Shared budgets that have one account, and not one for each user, team, ...
    pub budgets: BTreeSet<String>,
}

/// What a collector's headers are sealed for.
pub fn seal_context(workspace: &WorkspaceId) -> String {
    format!("{workspace}/telemetry/collector")
}
