//! The end of a run, told to the edge: people look there first whether the night went well.

use tallygate_shared::reconciliation_run::{ReconciliationRun, RunProvider, RunStatus};
use tallygate_shared::time::Timestamp;

use crate::connectors::PullError;
use crate::edge::Edge;
use crate::report::WorkspaceReport;

/// Most entries of each list: a report of a very bad night is longer than anybody reads.
const MOST: usize = 200;
/// Longest sentence, in characters.
const LONGEST: usize = 500;

/// What a run says of one workspace, from its report.
pub fn run_of(
    run: &str,
    (from, to): (&str, &str),
    report: &WorkspaceReport,
    now: Timestamp,
) -> ReconciliationRun {
    let whole = report.missing.is_empty() && report.held.is_empty();
    let short = |text: &String| text.chars().take(LONGEST).collect::<String>();
    let missing = report.missing.iter().take(MOST);
    let providers = report.providers.iter().map(|(name, it)| {
        let told = RunProvider {
            estimated_usd: it.estimated,
            estimated_of_billed_usd: it.estimated_of_billed,
            billed_usd: it.billed,
            booked_usd: it.ledger,
            quantity_variance_usd: it.quantity_variance,
            price_variance_usd: it.price_variance,
            unmetered_usd: it.unmetered,
            unbilled_lines: it.unbilled_rows,
        };
        (name.clone(), told)
    });
    ReconciliationRun {
        run: run.to_owned(),
        ended_at: now,
        from: from.to_owned(),
        to: to.to_owned(),
        status: if whole { RunStatus::Complete } else { RunStatus::Partial },
        missing: missing.map(|(what, why)| (short(what), short(why))).collect(),
        held: report.held.iter().take(MOST).map(short).collect(),
        notes: report.notes.iter().take(MOST).map(short).collect(),
        days_settled: report.days_settled,
        days_unchanged: report.days_unchanged,
        rows_written: report.rows_written,
        providers: providers.collect(),
        exports: Default::default(),
    }
}

/// Tells the edge. Said again, it takes the place of what was said before.
pub async fn tell(edge: &Edge<'_>, run: ReconciliationRun) -> Result<(), PullError> {
    edge.bring("runs", &[run]).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::ProviderReport;

    fn report() -> WorkspaceReport {
        let usd = |text: &str| text.parse().unwrap();
        let provider = ProviderReport {
            estimated: usd("3"),
            estimated_of_billed: usd("2"),
            billed: usd("2.5"),
            ledger: usd("2.5"),
            quantity_variance: usd("0.4"),
            price_variance: usd("0.1"),
            unmetered: usd("0.2"),
            rows: 9,
            unbilled_rows: 4,
        };
        WorkspaceReport {
            providers: BTreeMap::from([("openai".to_owned(), provider)]),
            days_settled: 2,
            rows_written: 9,
            ..WorkspaceReport::default()
        }
    }

    #[test]
    fn a_run_says_what_its_report_says() {
        let told = run_of(
            "night-2026-11-20",
            ("2026-11-13", "2026-11-20"),
            &report(),
            Timestamp::from_ms(5),
        );
        assert_eq!(told.status, RunStatus::Complete);
        let it = told.providers["openai"];
        let shown = [
            it.estimated_usd,
            it.estimated_of_billed_usd,
            it.billed_usd,
            it.booked_usd,
            it.quantity_variance_usd,
            it.price_variance_usd,
            it.unmetered_usd,
        ]
        .map(|usd| usd.to_string());
        assert_eq!(shown, ["3", "2", "2.5", "2.5", "0.4", "0.1", "0.2"]);
        assert_eq!((it.unbilled_lines, told.days_settled, told.rows_written), (4, 2, 9));
    }

    #[test]
    fn a_run_that_lacks_something_is_partial_and_never_too_long() {
        let mut report = report();
        report.missing = (0..900).map(|n| (format!("source {n:03}"), "x".repeat(9_000))).collect();
        let told = run_of("n", ("a", "b"), &report, Timestamp::from_ms(5));
        assert_eq!((told.status, told.missing.len()), (RunStatus::Partial, MOST));
        let bytes = serde_json::to_vec(&told).unwrap().len();
        assert!(bytes < tallygate_shared::reconciliation_run::MAX_RUN_BYTES, "{bytes}");
        let mut held = super::tests::report();
        held.held.push("a file".to_owned());
        let told = run_of("n", ("a", "b"), &held, Timestamp::from_ms(5));
        assert_eq!(told.status, RunStatus::Partial);
    }
}
