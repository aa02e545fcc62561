//! Sums by day: what the sums by hour of days that are over add up to, so that a question about a month reads a day's
//! rows once and not up to 24 times. The sums by hour stay, for questions by the hour.
//!
//! A day is folded when an event of a later one comes. What comes late for a folded day is added to both.

use super::ledger_object::{Filter, LedgerObject, SUMS};
use super::sql::{Sql, SqlError, integer};
use crate::dimensions::DIMENSIONS;
use tallygate_shared::time::{DAY_MS, Timestamp};

/// The step of the schema that brings sums by day, with the sums by hour that are there folded. `hour_ms` is the day's
/// first: so the same conditions fit both tables.
pub const DAYS: &str = "
    CREATE TABLE days (
        hour_ms INTEGER NOT NULL, dimensions TEXT NOT NULL,
        key TEXT, owner TEXT, cost_centre TEXT, purpose TEXT, environment TEXT, user TEXT, team TEXT, app TEXT,
        feature TEXT, agent TEXT, customer TEXT, actor_environment TEXT, provider TEXT, model TEXT, outcome TEXT,
        code TEXT,
        requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, cost_nanos INTEGER NOT NULL, charged_nanos INTEGER NOT NULL,
        PRIMARY KEY (hour_ms, dimensions)
    ) WITHOUT ROWID, STRICT;
    INSERT INTO days
        SELECT hour_ms - hour_ms % 86400000, dimensions, key, owner, cost_centre, purpose, environment, user, team, app,
            feature, agent, customer, actor_environment, provider, model, outcome, code, SUM(requests),
            SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens), SUM(cost_nanos), SUM(charged_nanos)
        FROM rollups WHERE hour_ms < (SELECT MAX(hour_ms) - MAX(hour_ms) % 86400000 FROM rollups)
        GROUP BY hour_ms - hour_ms % 86400000, dimensions;
    INSERT INTO marks (name, value)
        SELECT 'folded_to', CAST(MAX(hour_ms) - MAX(hour_ms) % 86400000 AS TEXT) FROM rollups
        HAVING MAX(hour_ms) IS NOT NULL
";

impl<S: Sql> LedgerObject<S> {
    /// Up to when days are folded, in milliseconds.
    pub(super) fn folded_to(&self) -> Result<i64, SqlError> {
        let rows = self.exec("SELECT value FROM marks WHERE name = 'folded_to'", &[])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// Folds the days before the newest event's, where they are not.
    pub(super) fn fold(&self, folded: i64, newest: Timestamp) -> Result<(), SqlError> {
        let end = newest.date().midnight().ms();
        if end <= folded {
            return Ok(());
        }
        let (from, to) = (folded.to_string(), end.to_string());
        let (columns, sums) = (DIMENSIONS.join(", "), SUMS.join(", "));
        let summed = SUMS.map(|name| format!("SUM({name})")).join(", ");
        let insert = format!(
            "INSERT INTO days (hour_ms, dimensions, {columns}, {sums})
             SELECT hour_ms - hour_ms % {DAY_MS}, dimensions, {columns}, {summed} FROM rollups
             WHERE hour_ms >= CAST(? AS INTEGER) AND hour_ms < CAST(? AS INTEGER)
             GROUP BY hour_ms - hour_ms % {DAY_MS}, dimensions"
        );
        self.exec(&insert, &[Some(&from), Some(&to)])?;
        let mark = "INSERT INTO marks (name, value) VALUES ('folded_to', ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.exec(mark, &[Some(&to)]).map(|_| ())
    }

    /// What the columns of rows add up from, for a question that needs no hours: the FROM of a statement, and the
    /// parameters of its conditions.
    pub(super) fn summed(
        &self,
        columns: &[&str],
        filter: &Filter,
    ) -> Result<(String, Vec<String>), SqlError> {
        let folded = self.folded_to()?.to_string();
        let mut rest = filter.clone();
        rest.add("hour_ms >= CAST(? AS INTEGER)", &folded);
        let columns = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
        let from = format!(
            "(SELECT hour_ms, {columns}, {sums} FROM days {} UNION ALL SELECT hour_ms, {columns}, {sums} FROM rollups {})",
            filter.clause(),
            rest.clause(),
            sums = SUMS.join(", ")
        );
        Ok((from, [filter.owned_params(), rest.owned_params()].concat()))
    }
}

/// Whether a span of time consists of whole days.
pub(super) fn is_whole_days(from_ms: Option<i64>, to_ms: Option<i64>) -> bool {
    [from_ms, to_ms].into_iter().flatten().all(|ms| ms % DAY_MS == 0)
}
