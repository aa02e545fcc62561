//! The shape of traffic, which rollups keep beside their sums: what its parts cost, who reads along, what sessions send again.

use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::money::Usd;

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

/// What a rollup has beside its sums.
const COLUMNS: [&str; 11] = [
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

/// The columns that an event adds to its rollup, and how they grow.
pub(super) struct Shape {
    values: [Option<String>; 11],
}

impl Shape {
    /// The columns' names.
    pub(super) const fn columns() -> [&'static str; 11] {
        COLUMNS
    }

    /// The columns' values.
    pub(super) fn values(&self) -> impl Iterator<Item = Option<&str>> {
        self.values.iter().map(Option::as_deref)
    }

    /// How a row takes them in.
    pub(super) fn merged() -> String {
        let merged = COLUMNS.map(|name| match name {
            "longest_input" => format!("{name} = MAX({name}, excluded.{name})"),
            // The least of a number and nothing is the number.
            "shortest_input" => {
                format!("{name} = COALESCE(MIN({name}, excluded.{name}), {name}, excluded.{name})")
            }
            _ => format!("{name} = {name} + excluded.{name}"),
        });
        merged.join(", ")
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
            values: [
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
