//! Telemetry in a workspace's configuration: the collector, and whether traces are started.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tallygate_shared::alerts::target::check_target;
use tallygate_shared::budget::terms::{BudgetTerms, Dimension, EACH};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::telemetry::attributes::provider_name;

use super::config::{Config, Secrets};
use super::config_alerts::target_problem;
use super::problem::Problem;
use crate::objects::telemetry_plan::{CollectorPlan, Signal, TelemetryPlan};

/// Attributes of the resource: each is on every export.
const MAX_RESOURCE: usize = 32;
const MAX_ATTRIBUTE_CHARS: usize = 256;
/// Headers for the collector: an authorization, a tenant, and a few that a proxy may want.
const MAX_HEADERS: usize = 16;
const MAX_HEADER_NAME: usize = 64;
const MAX_HEADER_VALUE: usize = 2_048;
/// Headers that the gateway or the platform sets.
const RESERVED_HEADERS: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// Where metrics and log events go, and whether traces are started. The headers are secret and not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The OpenTelemetry collector's address, to which `/v1/metrics` and `/v1/logs` are added (OTLP/HTTP, JSON).
    /// Without it nothing is exported; the Prometheus endpoint is there all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What it gets.
    #[serde(default = "all_signals")]
    pub signals: BTreeSet<Signal>,
    /// Attributes of the resource beside `service.name`, `service.version` and `tallygate.workspace.id`, or instead of
    /// them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
    /// Whether anything is exported.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether a request without a `traceparent` that can be read starts a trace towards its provider.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_traces: bool,
}

fn yes() -> bool {
    true
}

/// Everything there is.
pub fn all_signals() -> BTreeSet<Signal> {
    Signal::ALL.into_iter().collect()
}

/// Whether a budget has one account, and not one for each user, team, ...: only then it is a series of its own.
fn has_one_account((_, terms): &(&String, &BudgetTerms)) -> bool {
    terms.scope.dimension == Dimension::Workspace || terms.scope.value != EACH
}

impl TelemetryConfig {
    pub(super) fn validate(&self) -> Result<(), Problem> {
        if let Some(endpoint) = &self.endpoint {
            let field = "telemetry.endpoint";
            check_target(endpoint, true).map_err(|error| target_problem(field, error))?;
            if endpoint.contains(['?', '#']) {
                let remedy = "Leave it out: /v1/metrics and /v1/logs are added to the address.";
                return Err(Problem::field(field, "has a query or fragment", remedy));
            }
            if endpoint.trim_end_matches('/').ends_with("/v1/metrics")
                || endpoint.trim_end_matches('/').ends_with("/v1/logs")
            {
                let remedy = "Give the address without the signal's path.";
                return Err(Problem::field(field, "has the path of one signal", remedy));
            }
        }
        if self.signals.is_empty() {
            let remedy = "Name metrics, logs or both; set enabled to false to export nothing.";
            return Err(Problem::field("telemetry.signals", "is empty", remedy));
        }
        if self.resource.len() > MAX_RESOURCE {
            let detail = format!("has more than {MAX_RESOURCE} attributes");
            return Err(Problem::field("telemetry.resource", detail, "Leave some out."));
        }
        for (name, value) in &self.resource {
            let is_ok = |text: &str| {
                !text.is_empty()
                    && text.chars().count() <= MAX_ATTRIBUTE_CHARS
                    && !text.chars().any(char::is_control)
            };
            if !is_ok(name) || !is_ok(value) {
                let remedy = "Give names and values of 1 to 256 characters on one line.";
                let detail = "has an attribute that is empty, too long or not one line";
                return Err(Problem::field("telemetry.resource", detail, remedy));
            }
        }
        Ok(())
    }
}

/// Checks the collector's headers, and puts their names into lower case.
pub fn checked_headers(
    headers: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Problem> {
    let problem = |detail: &str, remedy: &str| Problem::field("headers", detail, remedy);
    if headers.len() > MAX_HEADERS {
        return Err(problem("has more than 16 headers", "Leave some out."));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > MAX_HEADER_NAME || !name.bytes().all(is_token) {
            let remedy = "Use 1 to 64 letters, digits and hyphens.";
            return Err(problem("has a bad name", remedy));
        }
        if RESERVED_HEADERS.contains(&name.as_str()) {
            return Err(problem("has one that the gateway sets", "Leave it out."));
        }
        let is_plain = value.bytes().all(|b| matches!(b, 0x20..=0x7e));
        if value.trim().is_empty() || value.len() > MAX_HEADER_VALUE || !is_plain {
            let remedy = "Give values of 1 to 2048 printable ASCII characters.";
            return Err(problem("has a bad value", remedy));
        }
        checked.insert(name, value);
    }
    Ok(checked)
}

impl Config {
    /// Checks the collector's address where it differs from `before`.
    pub fn check_collector(&self, before: &Self, allow_private: bool) -> Result<(), Problem> {
        match self.collector_address() {
            Some(address) if before.collector_address() != Some(address) => {
                check_target(address, allow_private)
                    .map_err(|error| target_problem("telemetry.endpoint", error))
            }
            _ => Ok(()),
        }
    }

    /// Where the collector is.
    pub fn collector_address(&self) -> Option<&str> {
        self.telemetry.as_ref()?.endpoint.as_deref()
    }

    /// Whether requests without a trace start one.
    pub fn starts_traces(&self) -> bool {
        self.telemetry.as_ref().is_some_and(|telemetry| telemetry.start_traces)
    }

    /// What the Telemetry object is told.
    pub fn compile_telemetry(
        &self,
        workspace: &WorkspaceId,
        version: u64,
        secrets: &Secrets,
    ) -> TelemetryPlan {
        let collector = self.telemetry.as_ref().filter(|telemetry| telemetry.enabled);
        let collector = collector.and_then(|telemetry| {
            Some(CollectorPlan {
                endpoint: telemetry.endpoint.clone()?,
                headers: secrets.collector.clone(),
                signals: telemetry.signals.clone(),
                resource: telemetry.resource.clone(),
            })
        });
        let name_of = |kind: &str| provider_name(kind).to_owned();
        TelemetryPlan {
            version,
            workspace: workspace.clone(),
            collector,
            providers: self
                .providers
                .iter()
                .map(|(name, provider)| (name.clone(), name_of(&provider.kind)))
                .collect(),
            budgets: self
                .budgets
                .iter()
                .filter(has_one_account)
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}
