//! How a run of the reconciler ended, as it tells the edge: what it settled and what it lacks.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::money::Usd;
use crate::time::Timestamp;

/// How long the edge remembers runs: a year and the month that closes it.
pub const RUNS_KEPT_DAYS: i64 = 400;
/// Most bytes of one run's account: far beyond what a run says, far below what storage takes.
pub const MAX_RUN_BYTES: usize = 262_144;

/// One run, for one workspace. Said again, it takes the place of what was said before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReconciliationRun {
    /// The run's name: `night-2026-11-20`, or a backfill's.
    pub run: String,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The first day.
    pub from: String,
    /// The day after the last.
    pub to: String,
    /// How it ended.
    pub status: RunStatus,
    /// What could not be had, and why.
    #[serde(default)]
    pub missing: BTreeMap<String, String>,
    /// Parts of answers that wait for a person.
    #[serde(default)]
    pub held: Vec<String>,
    /// What is doubtful, but not missing.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Days that were settled now.
    pub days_settled: u64,
    /// Days that are as they were.
    pub days_unchanged: u64,
    /// Revisions written to the books.
    pub rows_written: u64,
    /// Provider by provider, on all days of the run.
    #[serde(default)]
    pub providers: BTreeMap<String, RunProvider>,
    /// Where exports lie, as runs said before exports were committed by themselves: read, and said no more.
    #[serde(default, skip_serializing)]
    #[cfg_attr(feature = "openapi", schemars(skip))]
    pub exports: IgnoredAny,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Everything was there and is in the books.
    Complete,
    /// Something is missing; the next run takes it up.
    Partial,
}

/// One provider's part of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RunProvider {
    /// What the gateway had estimated.
    pub estimated_usd: Usd,
    /// What it had estimated where there is a bill.
    pub estimated_of_billed_usd: Usd,
    /// What the bills say.
    pub billed_usd: Usd,
    /// What the books add up to: the bills, or something is wrong.
    pub booked_usd: Usd,
    /// What other quantities explain.
    pub quantity_variance_usd: Usd,
    /// What other prices explain.
    pub price_variance_usd: Usd,
    /// Billed for use that the gateway never saw.
    pub unmetered_usd: Usd,
    /// Lines of the books without a bill yet.
    pub unbilled_lines: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconciliation_run_format_unchanged() {
        let text = r#"{"run":"night-2026-11-20","ended_at":1795168800000,"from":"2026-11-13","to":"2026-11-20","status":"partial","missing":{"openai":"no answer"},"held":[],"notes":["n"],"days_settled":2,"days_unchanged":5,"rows_written":7,"providers":{"openai":{"estimated_usd":"1","estimated_of_billed_usd":"0.5","billed_usd":"0.6","booked_usd":"0.6","quantity_variance_usd":"0.1","price_variance_usd":"0","unmetered_usd":"0.01","unbilled_lines":3}}}"#;
        let run: ReconciliationRun = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&run).unwrap(), text);
        let before =
            format!("{},\"exports\":{{\"2026-11\":\"s3://books\"}}}}", &text[..text.len() - 1]);
        assert_eq!(serde_json::from_str::<ReconciliationRun>(&before).unwrap(), run);
        assert!(
            serde_json::from_str::<ReconciliationRun>(&text.replace("\"held\"", "\"hold\""))
                .is_err()
        );
    }
}
