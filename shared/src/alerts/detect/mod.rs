//! The detectors: pure functions from a signal and what is remembered to findings.

mod anomaly;
mod budgets;
mod keys;
mod models;
mod providers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alert::{AlertKind, Finding, Raised, Severity, dedupe_key};
use super::bounded::Bounded;
use super::rules::AlertRules;
use crate::budget::terms::Dimension;
use crate::events::usage_event::UsageEvent;
use crate::feedback::{FindingKind, ReconcilerFinding};
use crate::ids::{KeyId, WorkspaceId};
use crate::money::Usd;
use crate::time::Timestamp;

/// How often a finding that lasts is told again: often enough for "last seen", seldom enough to cost little.
const REPEAT_MS: i64 = 5 * 60_000;

/// Figures of a finding that comes from outside, at most.
const EVIDENCE_MAX: usize = 24;

/// How a budget stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetSnapshot {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The budget's name.
    pub budget: String,
    /// Whose spending it counts; what was stored before this was said has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<Dimension>,
    /// The value that it counts for, where it has one for each: a user, a team. Empty for one that has none.
    pub value: String,
    /// Who answers for it.
    pub owner: String,
    /// When its window began.
    pub window_starts_at: Timestamp,
    /// When its window ends.
    pub window_ends_at: Option<Timestamp>,
    /// What may be spent.
    pub limit: Usd,
    /// What is spent.
    pub spent: Usd,
    /// What is set aside.
    pub held: Usd,
    /// Percentages of the limit to be told at.
    pub thresholds: Vec<u8>,
    /// Requests are refused because the next one does not fit into what is left. A strict budget is seldom spent to
    /// the last cent, so this counts as having reached 100 %.
    #[serde(default)]
    pub refusing: bool,
    /// When it stood so.
    pub at: Timestamp,
}

impl BudgetSnapshot {
    /// How many percent of the limit are spent or set aside: 100 at least where requests are refused. `None` when the
    /// window is over, or where there is no limit to be near to.
    pub fn percent(&self, now: Timestamp) -> Option<i128> {
        if self.window_ends_at.is_some_and(|end| end <= now) {
            return None;
        }
        let used = self.spent.saturating_add(self.held).pico().checked_mul(100)?;
        let percent = used.checked_div(self.limit.pico());
        if self.refusing { Some(percent.unwrap_or_default().max(100)) } else { percent }
    }
}

/// What detectors need to know of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFacts {
    /// Its id.
    pub key: KeyId,
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as the sender knows; events say it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Signal<'a> {
    /// A request ended.
    Event(&'a UsageEvent),
    /// A budget's figures.
    Budget(&'a BudgetSnapshot),
    /// Every key that can be used.
    Keys(&'a [KeyFacts]),
    /// The reconciler found something.
    Reconciler(&'a ReconcilerFinding),
    /// Time went by.
    Tick,
}

/// What is raised now, so that an end is told only of what was raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Raisings(BTreeMap<String, (Severity, Timestamp)>);

impl Raisings {
    fn raise(&mut self, raised: Raised, now: Timestamp) -> Option<Finding> {
        let known = self.0.entry(dedupe_key(raised.kind, &raised.subject));
        match known {
            std::collections::btree_map::Entry::Occupied(mut known) => {
                let (severity, told_at) = *known.get();
                if severity == raised.severity && now.since_ms(told_at) < REPEAT_MS {
                    return None;
                }
                known.insert((raised.severity, now));
            }
            std::collections::btree_map::Entry::Vacant(unknown) => {
                unknown.insert((raised.severity, now));
            }
        }
        Some(raised.found())
    }

    fn clear(&mut self, kind: AlertKind, subject: &str) -> Option<Finding> {
        self.0.remove(&dedupe_key(kind, subject))?;
        Some(Finding::Cleared { kind, subject: subject.to_owned() })
    }

    fn set(
        &mut self,
        kind: AlertKind,
        subject: &str,
        raised: Option<Raised>,
        now: Timestamp,
    ) -> Option<Finding> {
        match raised {
            Some(raised) => self.raise(raised, now),
            None => self.clear(kind, subject),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, kind: AlertKind, subject: &str) -> bool {
        self.0.contains_key(&dedupe_key(kind, subject))
    }

    /// The subjects of a kind that are raised.
    fn subjects(&self, kind: AlertKind) -> Vec<String> {
        let prefix = dedupe_key(kind, "");
        self.0.keys().filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)).collect()
    }
}

/// Everything the detectors remember.
#[derive(Clone, Debug)]
pub struct DetectorState {
    budgets: Bounded<budgets::BudgetHistory>,
    spending: Bounded<anomaly::SpendHistory>,
    providers: Bounded<providers::ProviderHealth>,
    models: Bounded<models::ModelSeen>,
    keys: Bounded<keys::KeySeen>,
}

/// One part of the state that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The detector.
    pub detector: &'static str,
    /// What it is about.
    pub scope: String,
    /// The new text; `None` when it is gone.
    pub body: Option<String>,
}

/// Why a stored part of the state was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No detector has this name.
    #[error("no detector is called {0:?}")]
    UnknownDetector(String),
    /// It is not what the detector writes.
    #[error("state of detector {detector:?}: {source}")]
    Unreadable {
        /// The detector.
        detector: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Default for DetectorState {
    fn default() -> Self {
        Self {
            budgets: Bounded::new(500),
            spending: Bounded::new(300),
            providers: Bounded::new(64),
            models: Bounded::new(1_000),
            keys: Bounded::new(2_000),
        }
    }
}

impl DetectorState {
    /// How the budgets stood when they were last heard of.
    pub fn budgets(&self) -> impl Iterator<Item = &BudgetSnapshot> {
        self.budgets.iter().filter_map(|(_, history)| history.latest())
    }

    /// Takes a part as [`Self::take_changes`] gave it.
    pub fn load(&mut self, detector: &str, scope: &str, body: &str) -> Result<(), StateError> {
        match detector {
            "budgets" => self.budgets.load(scope, body),
            "spending" => self.spending.load(scope, body),
            "providers" => self.providers.load(scope, body),
            "models" => self.models.load(scope, body),
            "keys" => self.keys.load(scope, body),
            _ => return Err(StateError::UnknownDetector(detector.to_owned())),
        }
        .map_err(|source| StateError::Unreadable { detector: detector.to_owned(), source })
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Result<Vec<StateChange>, serde_json::Error> {
        let parts = [
            ("budgets", self.budgets.take_changes()?),
            ("spending", self.spending.take_changes()?),
            ("providers", self.providers.take_changes()?),
            ("models", self.models.take_changes()?),
            ("keys", self.keys.take_changes()?),
        ];
        let changes = parts.into_iter().flat_map(|(detector, changes)| {
            changes.into_iter().map(move |(scope, body)| StateChange { detector, scope, body })
        });
        Ok(changes.collect())
    }
}

/// What a signal tells, under the rules.
pub fn observe(
    state: &mut DetectorState,
    signal: Signal<'_>,
    rules: &AlertRules,
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match signal {
        Signal::Event(event) => {
            models::on_event(&mut state.models, event, rules, now, &mut findings);
            anomaly::on_event(&mut state.spending, event, rules, now, &mut findings);
            providers::on_event(&mut state.providers, event, rules, now, &mut findings);
            keys::on_event(&mut state.keys, event, now, &mut findings);
        }
        Signal::Budget(snapshot) => {
            budgets::on_snapshot(&mut state.budgets, snapshot, now, &mut findings);
        }
        Signal::Keys(keys) => keys::on_keys(&mut state.keys, keys, rules, now, &mut findings),
        Signal::Reconciler(finding) => findings.push(reconciled(finding)),
        Signal::Tick => {
            budgets::on_tick(&mut state.budgets, now, &mut findings);
            anomaly::on_tick(&mut state.spending, now, &mut findings);
            providers::on_tick(&mut state.providers, rules, now, &mut findings);
        }
    }
    findings.retain(|finding| match finding {
        Finding::Raised(raised) => rules.looks_for(raised.kind),
        Finding::Cleared { .. } => true,
    });
    findings
}

/// A finding of the reconciler's as one of ours. It says itself when it is so no longer.
fn reconciled(finding: &ReconcilerFinding) -> Finding {
    let kind = match finding.kind {
        FindingKind::UnmeteredUsage => AlertKind::UnmeteredUsage,
        FindingKind::BillVariance => AlertKind::BillVariance,
        FindingKind::UnknownCredential => AlertKind::UnknownCredential,
        FindingKind::ReconciliationIncomplete => AlertKind::ReconciliationIncomplete,
    };
    let mut raised = Raised::new(kind, &finding.subject, finding.severity, &finding.title)
        .owner(&finding.owner)
        .link("/reconciliation".to_owned());
    if !finding.present {
        return Finding::Cleared { kind, subject: raised.subject };
    }
    for (name, figure) in finding.evidence.iter().take(EVIDENCE_MAX) {
        raised = raised.with(name, figure.as_str());
    }
    raised.found()
}

#[cfg(test)]
mod tests;
