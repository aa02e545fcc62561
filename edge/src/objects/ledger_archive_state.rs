//! How the archive of a Ledger stands, for people and for metrics.

use serde_json::{Value, json};
use tallygate_shared::telemetry::prometheus::ArchiveGauge;
use tallygate_shared::time::Timestamp;

use super::archive_part::{closes_at, open_hour};
use super::ledger_object::LedgerObject;
use super::sql::{Sql, SqlError, integer};

impl<S: Sql> LedgerObject<S> {
    /// How the archive of this month stands.
    pub(super) fn archive_state(&self) -> Result<Value, SqlError> {
        let sums = "SELECT CAST(COUNT(*) AS TEXT), CAST(COALESCE(SUM(events), 0) AS TEXT),
                CAST(COALESCE(SUM(bytes), 0) AS TEXT), CAST(COALESCE(SUM(size), 0) AS TEXT),
                CAST(COALESCE(SUM(events * (state = 'written')), 0) AS TEXT)
            FROM archive_parts WHERE state IN ('written', 'released')";
        let rows = self.exec(sums, &[])?;
        let row = rows.first().ok_or_else(|| SqlError("a sum has no row".to_owned()))?;
        let kept = self.exec("SELECT CAST(kept AS TEXT) FROM totals", &[])?;
        let kept: u64 = kept.first().map_or(Ok(0), |row| integer(row, 0))?;
        let progress = self.progress()?;
        let written: u64 = integer(row, 4)?;
        let next = self.archive_at()?;
        Ok(json!({ "data": [{
            "bound": self.limits.has_archive, "parts": integer::<u64>(row, 0)?,
            "events": integer::<u64>(row, 1)?, "bytes": integer::<u64>(row, 2)?,
            "compressed_bytes": integer::<u64>(row, 3)?, "kept_events": kept,
            "unarchived_events": kept.saturating_sub(written), "failures": progress.failed,
            "failures_in_a_row": progress.failures, "error": progress.error,
            "next_at": next.map(|at| at.to_string()),
            "written_at": progress.written_at.map(|at| at.to_string()),
        }] }))
    }

    /// The same for metrics; nothing where no archive is bound. `at` is a moment in milliseconds since 1970.
    pub(super) fn archive_gauge(&self, at: &str) -> Result<Option<ArchiveGauge>, SqlError> {
        if !self.limits.has_archive {
            return Ok(None);
        }
        let now = at.parse().map(Timestamp::from_ms);
        let now = now.map_err(|_| SqlError("the moment of a gauge is none".to_owned()))?;
        let (progress, open) = (self.progress()?, open_hour(now));
        let planned = "SELECT CAST(MIN(hour_ms) AS TEXT) FROM archive_parts
            WHERE state = 'planned' AND late = 0";
        let planned = self.exec(planned, &[])?;
        let planned = planned.first().filter(|row| row.first().is_some_and(Option::is_some));
        let planned = planned.map(|row| integer(row, 0).map(Timestamp::from_ms)).transpose()?;
        let behind = self.first_unplanned()?;
        let oldest = planned.into_iter().chain(behind).min().filter(|hour| *hour < open);
        let waiting_hours = oldest.map_or(Ok(0), |hour| self.hours_between(hour, open))?;
        Ok(Some(ArchiveGauge {
            waiting_hours,
            waiting_since: oldest.map(closes_at),
            written_at: progress.written_at,
            failed: progress.failed,
            failures_in_a_row: progress.failures,
        }))
    }

    /// Hours with requests; at least the one that is known to have one, whose sums may stand under the next.
    fn hours_between(&self, from: Timestamp, to: Timestamp) -> Result<u64, SqlError> {
        let count = "SELECT CAST(MAX(1, COUNT(DISTINCT hour_ms)) AS TEXT) FROM rollups
            WHERE hour_ms >= CAST(? AS INTEGER) AND hour_ms < CAST(? AS INTEGER)";
        let span = [from, to].map(|at| at.ms().to_string());
        let rows = self.exec(count, &span.each_ref().map(|text| Some(text.as_str())))?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }
}
