//! Sums by day: what the sums by hour of days that are over add up to, so that a question about a month reads a day's
//! rows once and not up to 24 times. The sums by hour stay, for questions by the hour.
//!
//! A day is folded when an event of a later one comes. What comes late for a folded day is added to both.

use super::ledger_object::{Filter, LedgerObject, SUMS};
use super::ledger_shape::{COLUMNS, HOURS, folded};
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

/// A span of time in milliseconds since 1970, open where it has no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// From this moment on.
    pub(super) from: Option<i64>,
    /// Before this moment.
    pub(super) to: Option<i64>,
}

impl Span {
    /// The days that lie in it whole, if any does.
    pub(super) fn whole_days(self) -> Option<Self> {
        let from = self.from.map(|ms| ms + (-ms).rem_euclid(DAY_MS));
        let to = self.to.map(|ms| ms - ms.rem_euclid(DAY_MS));
        let is_none = from.zip(to).is_some_and(|(from, to)| from >= to);
        (!is_none).then_some(Self { from, to })
    }

    /// The tables to read a span from, with the part of each: its whole days that are folded from the sums by day, what
    /// lies before and behind them from those by hour.
    fn parts(self, folded_to: i64) -> Vec<(&'static str, Self)> {
        let end = Some(self.to.map_or(folded_to, |ms| ms.min(folded_to)));
        let Some(Self { from: first, to: end }) = Self { to: end, ..self }.whole_days() else {
            // Of the days nothing is read.
            let none = Self { from: Some(0), to: Some(0) };
            return vec![("days", none), ("rollups", self)];
        };
        let mut parts = vec![
            ("days", Self { from: first, to: end }),
            ("rollups", Self { from: end, to: self.to }),
        ];
        if self.from != first {
            parts.push(("rollups", Self { from: self.from, to: first }));
        }
        parts
    }
}

/// The first moment of an hour's day.
const FIRST: &str = "hour_ms - hour_ms % 86400000";

impl<S: Sql> LedgerObject<S> {
    /// Up to when days are folded, in milliseconds.
    pub(super) fn folded_to(&self) -> Result<i64, SqlError> {
        let rows = self.exec("SELECT value FROM marks WHERE name = 'folded_to'", &[])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// Folds the days before the newest event's, where they are not.
    pub(super) fn fold(&self, folded_to: i64, newest: Timestamp) -> Result<(), SqlError> {
        let end = newest.date().midnight().ms();
        if end <= folded_to {
            return Ok(());
        }
        let (from, to) = (folded_to.to_string(), end.to_string());
        let dimensions = DIMENSIONS.join(", ");
        let insert = format!(
            "INSERT INTO days (hour_ms, dimensions, {dimensions}, {}, hours)
             SELECT {FIRST}, dimensions, {dimensions}, {}, {HOURS} FROM rollups
             WHERE hour_ms >= CAST(? AS INTEGER) AND hour_ms < CAST(? AS INTEGER) GROUP BY {FIRST}, dimensions",
            [&SUMS[..], &COLUMNS[..]].concat().join(", "),
            folded_columns(),
        );
        self.exec(&insert, &[Some(&from), Some(&to)])?;
        let mark = "INSERT INTO marks (name, value) VALUES ('folded_to', ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.exec(mark, &[Some(&to)]).map(|_| ())
    }

    /// What the columns of rows add up from, for a question that needs no hours: the FROM of a statement, and the
    /// parameters of its conditions. Days are read once each, and hours where a span begins or ends within a day.
    pub(super) fn summed(
        &self,
        columns: &[&str],
        filter: &Filter,
    ) -> Result<(String, Vec<String>), SqlError> {
        let columns = [&["hour_ms"], columns, &SUMS[..]].concat().join(", ");
        self.union(&columns, &columns, "", filter)
    }

    /// The same of every dimension with the shape of traffic beside the sums, and with the `hours` of a day: a bit for
    /// each with use, of which midnight's is the lowest. Days that are not folded yet are folded on the way, so that a row
    /// is that of a day whenever it is asked for.
    pub(super) fn summed_shape(&self, filter: &Filter) -> Result<(String, Vec<String>), SqlError> {
        let dimensions = DIMENSIONS.join(", ");
        let of_days = [&SUMS[..], &COLUMNS[..]].concat().join(", ");
        self.union(
            &format!("hour_ms, {dimensions}, {of_days}, hours"),
            &format!("{FIRST}, {dimensions}, {}, {HOURS}", folded_columns()),
            &format!("GROUP BY {FIRST}, dimensions"),
            filter,
        )
    }

    /// Rows of days, and of hours with what groups them.
    fn union(
        &self,
        of_days: &str,
        of_hours: &str,
        grouped: &str,
        filter: &Filter,
    ) -> Result<(String, Vec<String>), SqlError> {
        let (mut parts, mut params) = (Vec::new(), Vec::new());
        // Days come first: they name the columns.
        for (table, span) in filter.span_of_hours().parts(self.folded_to()?) {
            let filter = filter.within(span);
            let conditions = filter.clause();
            parts.push(match table {
                "days" => format!("SELECT {of_days} FROM days {conditions}"),
                _ => format!("SELECT {of_hours} FROM rollups {conditions} {grouped}"),
            });
            params.extend(filter.owned_params());
        }
        Ok((format!("({})", parts.join(" UNION ALL ")), params))
    }
}

/// What hours add up to, by the columns of [`SUMS`] and [`COLUMNS`].
fn folded_columns() -> String {
    let columns = SUMS.iter().chain(&COLUMNS).map(|name| folded(name));
    columns.collect::<Vec<String>>().join(", ")
}
