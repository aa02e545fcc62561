//! The messages between a Meter and the Budgets that its requests spend from. Both ends are this build.

use serde::{Deserialize, Serialize};
use tallygate_shared::budget::lease::{Grant, Report, Units};
use tallygate_shared::budget::terms::BudgetTerms;

/// A Meter's word on all its leases in one account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncCall {
    /// The account: the Budget's own name.
    pub account: String,
    /// The Meter: the key's public id.
    pub meter: String,
    /// The version of the plan that the terms are from.
    pub plan_version: u64,
    /// The terms, as far as this Meter knows. `None` when its plan has this budget no more.
    pub terms: Option<BudgetTerms>,
    /// Line by line.
    pub reports: Vec<(String, Report)>,
}

/// The Budget's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncAnswer {
    /// Line by line.
    pub grants: Vec<(String, Grant)>,
}

/// What a Budget asks a Meter for: all that no request needs of these lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recall {
    /// The Meter.
    pub meter: String,
    /// The lines.
    pub lines: Vec<String>,
}

/// A Meter's answer to a recall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// The Meter.
    pub meter: String,
    /// Line by line.
    pub reports: Vec<(String, Report)>,
}

/// What a Budget had spent in an earlier window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastWindow {
    /// `day:2026-11-20`, ...
    pub window: String,
    /// Nanodollars.
    pub spent: Units,
}

/// What the reconciler has a Budget correct, as the workspace passes it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectCall {
    /// The account and its terms, as a call without reports.
    pub terms: SyncCall,
    /// The corrections.
    pub corrections: Vec<LineCorrection>,
}

/// A correction to one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineCorrection {
    /// The line.
    pub line: String,
    /// What it comes from: day and provider.
    pub source: String,
    /// The number of the pull behind it.
    pub revision: u64,
    /// The whole correction from this source, in nanodollars.
    pub units: i64,
}
