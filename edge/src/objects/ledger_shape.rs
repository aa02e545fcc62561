//! The shape of traffic, which rollups keep beside their sums: what its parts cost, who reads along, what sessions send again.

use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::ledger_object::LedgerObject;
use super::sql::{Sql, SqlError, text};

/// The step of the schema that brings the shape of traffic. Hours from before have none: there, all that was charged
/// counts as not taken apart.
pub(super) const SHAPE: &str = "
    ALTER TABLE rollups ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN streamed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN turns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN sessions INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN resent_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN longest_input INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN shortest_input INTEGER;
    ALTER TABLE rollups ADD COLUMN input_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN cache_read_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN cache_write_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollups ADD COLUMN output_nanos INTEGER NOT NULL DEFAULT 0;
";

/// The step of the schema that brings the shape to sums by day. `hours` has a bit for each hour of the day with use, of
/// which midnight's is the lowest.
pub(super) const SHAPE_OF_DAYS: &str = "
    ALTER TABLE days ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN streamed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN turns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN sessions INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN resent_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN longest_input INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN shortest_input INTEGER;
    ALTER TABLE days ADD COLUMN input_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN cache_read_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN cache_write_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN output_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE days ADD COLUMN hours INTEGER NOT NULL DEFAULT 0;
    UPDATE days SET cache_write_tokens = h.cache_write_tokens, streamed = h.streamed, turns = h.turns,
        sessions = h.sessions, resent_tokens = h.resent_tokens, longest_input = h.longest_input,
        shortest_input = h.shortest_input, input_nanos = h.input_nanos, cache_read_nanos = h.cache_read_nanos,
        cache_write_nanos = h.cache_write_nanos, output_nanos = h.output_nanos, hours = h.hours
    FROM (
        SELECT hour_ms - hour_ms % 86400000 AS day_ms, dimensions, SUM(cache_write_tokens) AS cache_write_tokens,
            SUM(streamed) AS streamed, SUM(turns) AS turns, SUM(sessions) AS sessions,
            SUM(resent_tokens) AS resent_tokens, MAX(longest_input) AS longest_input,
            MIN(shortest_input) AS shortest_input, SUM(input_nanos) AS input_nanos,
            SUM(cache_read_nanos) AS cache_read_nanos, SUM(cache_write_nanos) AS cache_write_nanos,
            SUM(output_nanos) AS output_nanos,
            SUM(IIF(charged_nanos <> 0 OR input_tokens + output_tokens > 0, 1 << (hour_ms % 86400000 / 3600000), 0))
                AS hours
        FROM rollups GROUP BY hour_ms - hour_ms % 86400000, dimensions
    ) AS h WHERE days.hour_ms = h.day_ms AND days.dimensions = h.dimensions
";

/// The hours of a day with use, of the sums by hour that make it: no two of a day's row are of the same hour.
pub(super) const HOURS: &str = "SUM(IIF(charged_nanos <> 0 OR input_tokens + output_tokens > 0, \
    1 << (hour_ms % 86400000 / 3600000), 0))";

/// What a row of sums has beside them.
pub(super) const COLUMNS: [&str; 11] = [
    "cache_write_tokens",
    "streamed",
    "turns",
    "sessions",
    "resent_tokens",
    "longest_input",
    "shortest_input",
    "input_nanos",
    "cache_read_nanos",
    "cache_write_nanos",
    "output_nanos",
];

/// What a row of several has in one of [`COLUMNS`].
pub(super) fn folded(name: &str) -> String {
    match name {
        "longest_input" => format!("MAX({name})"),
        "shortest_input" => format!("MIN({name})"),
        _ => format!("SUM({name})"),
    }
}

/// The columns that an event adds to a row of sums, and how they grow.
pub(super) struct Shape {
    columns: Vec<&'static str>,
    values: Vec<Option<String>>,
    used: bool,
}

impl Shape {
    /// The columns' names.
    pub(super) fn columns(&self) -> &[&'static str] {
        &self.columns
    }

    /// The columns' values.
    pub(super) fn values(&self) -> impl Iterator<Item = Option<&str>> {
        self.values.iter().map(Option::as_deref)
    }

    /// The same with the hour that a row of a day has.
    pub(super) fn of_day(mut self, at: Timestamp) -> Self {
        let hour = if self.used { 1_i64 << (at.ms_of_day() / 3_600_000) } else { 0 };
        self.columns.push("hours");
        self.values.push(Some(hour.to_string()));
        self
    }

    /// How a row takes them in.
    pub(super) fn merged(&self) -> String {
        let merged = self.columns.iter().map(|name| match *name {
            "longest_input" => format!("{name} = MAX({name}, excluded.{name})"),
            // The least of a number and nothing is the number.
            "shortest_input" => {
                format!("{name} = COALESCE(MIN({name}, excluded.{name}), {name}, excluded.{name})")
            }
            "hours" => format!("{name} = {name} | excluded.{name}"),
            _ => format!("{name} = {name} + excluded.{name}"),
        });
        merged.collect::<Vec<String>>().join(", ")
    }
}

impl<S: Sql> LedgerObject<S> {
    /// The shape of an event.
    pub(super) fn shape(&self, event: &UsageEvent) -> Result<Shape, SqlError> {
        let tokens = event.usage.tally().map(|tally| tally.tokens).unwrap_or_default();
        let input = tokens.input_total();
        let used = input > 0 || tokens.output_total() > 0;
        let turn = event.actor.session.as_deref().filter(|_| used);
        let before = turn.map(|session| self.turn_before(event, session)).transpose()?;
        let resent = before.flatten().map_or(0, |before| before.min(input));
        let parts = event.cost.as_ref().map(|cost| cost.parts.clone()).unwrap_or_default();
        let output = parts.output.saturating_add(parts.reasoning);
        let nanos = |amount: Usd| amount.nanos().unwrap_or(0).to_string();
        let count = |count: u64| Some(count.to_string());
        Ok(Shape {
            columns: COLUMNS.to_vec(),
            used: used || event.charged != Usd::ZERO,
            values: vec![
                count(tokens.cache_write_total()),
                count(u64::from(event.stream && used)),
                count(u64::from(turn.is_some())),
                count(u64::from(before.is_some_and(|before| before.is_none()))),
                count(resent.saturating_sub(tokens.cache_read_total())),
                count(input),
                (input > 0).then(|| input.to_string()),
                Some(nanos(parts.input)),
                Some(nanos(parts.cache_read)),
                Some(nanos(parts.cache_write)),
                Some(nanos(output)),
            ],
        })
    }

    /// The input of the session's turn before this one; `None` for its first.
    fn turn_before(&self, event: &UsageEvent, session: &str) -> Result<Option<u64>, SqlError> {
        let select = "SELECT body FROM events WHERE session = ? AND key = ? AND id < ? ORDER BY id DESC LIMIT 1";
        let params = [Some(session), Some(event.key.as_str()), Some(event.id.as_str())];
        let rows = self.sql.exec(select, &params)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let before: UsageEvent = serde_json::from_str(text(row, 0)?)
            .map_err(|e| SqlError(format!("stored event: {e}")))?;
        Ok(Some(before.usage.tally().map_or(0, |tally| tally.tokens.input_total())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ledger_object::{LedgerObject, MIGRATIONS};
    use super::super::migrations::migrate;
    use super::super::sql::Sql;
    use super::super::test_sql::TestSql;
    use crate::dimensions::DIMENSIONS;

    /// 2026-11-20T00:00:00Z
    const DAY_START: i64 = 1_795_132_800_000;
    const KEY: &str = "0000000000000001";

    fn event(seq: u64, session: Option<&str>, tokens: &Value) -> Value {
        json!({
            "v": 1, "id": format!("req_{:012x}7{seq:019x}", DAY_START + 1_000), "seq": seq, "workspace": "ws_acme",
            "key": KEY, "at": DAY_START + 1_000, "settled_at": DAY_START + 2_000, "key_name": "k", "owner": "ada",
            "cost_centre": "rd", "purpose": "p", "environment": "e", "actor": { "session": session },
            "endpoint": "/v1/chat/completions", "stream": seq % 2 == 1, "requested_model": "m", "provider": "openai",
            "model": "m", "outcome": "completed", "status": 200,
            "usage": { "source": "reported", "tally": { "tokens": tokens } },
            "cost": { "total": "0.01", "price": {},
                      "parts": { "input": "0.003", "cache_read": "0.001", "output": "0.002", "reasoning": "0.001" } },
            "charged": "0.01", "hold": "0.02", "duration_ms": 5,
        })
    }

    fn shape(sql: &TestSql) -> String {
        let sums = super::COLUMNS.map(|name| {
            let by = match name {
                "longest_input" => "MAX",
                "shortest_input" => "MIN",
                _ => "SUM",
            };
            format!("COALESCE(CAST({by}({name}) AS TEXT), '-')")
        });
        let rows = sql.exec(&format!("SELECT {} FROM rollups", sums.join(" || ' ' || ")), &[]);
        rows.unwrap()[0][0].clone().unwrap()
    }

    fn applied(sql: &TestSql, events: &[Value]) {
        let batch = json!({ "meter": KEY, "events": events }).to_string();
        let ledger = LedgerObject::open(sql.clone()).unwrap();
        for _ in 0..2 {
            // What comes again changes nothing.
            ledger.apply(&batch).unwrap();
        }
    }

    #[test]
    fn turns_are_compared_with_the_one_before_and_parts_are_kept_apart() {
        let sql = TestSql::new();
        applied(
            &sql,
            &[
                event(1, Some("s"), &json!({ "input": 100, "output": 5 })),
                event(
                    2,
                    Some("s"),
                    &json!({ "input": 140, "cache_read": 30, "cache_write_5m": 20, "output": 5 }),
                ),
                event(3, Some("t"), &json!({ "input": 70 })),
                event(4, None, &json!({ "input": 9_000, "output": 1 })),
                // A request that used nothing has no shape.
                event(5, Some("s"), &json!({})),
            ],
        );
        // Of the second turn's 190 tokens 100 were sent before, 30 of them come from the cache.
        let expected = "20 2 3 2 70 9000 70 15000000 5000000 0 15000000";
        assert_eq!(shape(&sql), expected);
    }

    #[test]
    fn a_month_of_an_older_schema_goes_on() {
        let sql = TestSql::new();
        migrate(&sql, &MIGRATIONS[..3]).unwrap();
        let names = DIMENSIONS.join(", ");
        let insert = format!(
            "INSERT INTO rollups (hour_ms, dimensions, {names}, requests, input_tokens, cached_tokens, output_tokens,
                cost_nanos, charged_nanos) VALUES ({DAY_START}, ?{}, 3, 90, 0, 9, 7, 7)",
            ", NULL".repeat(DIMENSIONS.len())
        );
        let dimensions = json!([
            KEY,
            "ada",
            "rd",
            "p",
            "e",
            null,
            null,
            null,
            null,
            null,
            null,
            null,
            "openai",
            "m",
            "completed",
            null
        ]);
        sql.exec(&insert, &[Some(&dimensions.to_string())]).unwrap();
        assert_eq!(sql.exec("SELECT '1' FROM rollups", &[]).unwrap().len(), 1);
        LedgerObject::open(sql.clone()).unwrap();
        assert_eq!(shape(&sql), "0 0 0 0 0 0 - 0 0 0 0");
        applied(&sql, &[event(1, None, &json!({ "input": 50, "output": 5 }))]);
        assert_eq!(sql.exec("SELECT '1' FROM rollups", &[]).unwrap().len(), 1);
        assert_eq!(shape(&sql), "0 1 0 0 0 50 50 3000000 1000000 0 3000000");
    }
}
