//! The reconciler's runs: what each says of itself when it ends, kept for a little more than a year.

use serde_json::{Value, json};
use tallygate_shared::reconciliation_run::{MAX_RUN_BYTES, RUNS_KEPT_DAYS, ReconciliationRun};
use tallygate_shared::time::{DAY_MS, Date};

use super::reports::page;
use super::{Answer, Api, list};
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::objects::sql::{Sql, SqlError, text};

/// The step of the Workspace's schema that brings runs.
pub(in crate::objects) const RUNS: &str = "
    CREATE TABLE reconciliation_runs (run TEXT PRIMARY KEY, ended_ms INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX reconciliation_runs_by_end ON reconciliation_runs (ended_ms)
";
/// Runs in an answer where no limit is asked for: a month of nights.
const DEFAULT_RUNS: u64 = 31;
/// Longest name of a run, in bytes.
const MAX_NAME: usize = 128;

impl<S: Sql> Api<'_, S> {
    pub(super) fn bring_runs(&self) -> Answer {
        let runs: Vec<ReconciliationRun> = self.items()?;
        for (place, run) in runs.iter().enumerate() {
            let wrong = |field: &str, detail: &str, remedy: &str| {
                Problem::field(&format!("[{place}]{field}"), detail, remedy)
            };
            if run.run.is_empty() || run.run.len() > MAX_NAME {
                return Err(wrong(".run", "is no name", "Give 1 to 128 bytes.").into());
            }
            for (field, day) in [(".from", &run.from), (".to", &run.to)] {
                if Date::parse(day).is_none() {
                    return Err(
                        wrong(field, "is not a day", "Give a day such as 2026-11-20.").into()
                    );
                }
            }
            if json!(run).to_string().len() > MAX_RUN_BYTES {
                let remedy = "Shorten what is missing, held and noted: at most 256 KiB.";
                return Err(wrong("", "is too long", remedy).into());
            }
        }
        runs.iter().try_for_each(|run| self.keep_run(run))?;
        let old = self.context.now.plus_ms(-RUNS_KEPT_DAYS * DAY_MS).ms().to_string();
        let forget = "DELETE FROM reconciliation_runs WHERE ended_ms < CAST(? AS INTEGER)";
        self.workspace.exec(forget, &[Some(&old)])?;
        Ok(Step::json(200, &json!({ "taken": runs.len() })))
    }

    /// Remembers a run; an older word of the same run changes nothing.
    pub(super) fn keep_run(&self, run: &ReconciliationRun) -> Result<(), SqlError> {
        let upsert = "INSERT INTO reconciliation_runs (run, ended_ms, body) VALUES (?, CAST(? AS INTEGER), ?)
            ON CONFLICT (run) DO UPDATE SET ended_ms = excluded.ended_ms, body = excluded.body
            WHERE excluded.ended_ms >= reconciliation_runs.ended_ms";
        let (ended, body) = (run.ended_at.ms().to_string(), json!(run).to_string());
        self.workspace.exec(upsert, &[Some(&run.run), Some(&ended), Some(&body)]).map(|_| ())
    }

    pub(super) fn runs(&self) -> Answer {
        let limit = self.context.call.parameter("limit").map(|text| page(&text)).transpose()?;
        let limit = limit.unwrap_or(DEFAULT_RUNS);
        let select = format!(
            "SELECT body FROM reconciliation_runs ORDER BY ended_ms DESC, run DESC LIMIT {limit}"
        );
        let rows = self.workspace.exec(&select, &[])?;
        let run = |row| -> Result<Value, SqlError> {
            let run: ReconciliationRun = serde_json::from_str(text(row, 0)?)
                .map_err(|e| SqlError(format!("stored run: {e}")))?;
            let mut shown = json!(run);
            // Moments are text in answers.
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("ended_at".to_owned(), run.ended_at.to_string().into());
            }
            Ok(shown)
        };
        Ok(list(rows.iter().map(run).collect::<Result<_, _>>()?))
    }
}
