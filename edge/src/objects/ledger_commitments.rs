//! The hours of models that the workspace has commitments for: what `tallygate_shared::insights::commitments` looks for
//! idle units in.

use serde_json::{Value, json};
use tallygate_shared::insights::commitments::{Hour, models_of};
use tallygate_shared::money::Usd;

use super::ledger_insights::SavingsQuery;
use super::ledger_object::{Filter, LedgerObject};
use super::sql::{Row, Sql, SqlError, integer, text};

/// What tells an hour of a commitment from the other rows of the answer.
const HOUR: &str = "commitment_hour";

impl<S: Sql> LedgerObject<S> {
    /// The rows of savings, with the hours of commitments behind them.
    pub(super) fn with_commitments(
        &self,
        rows: Vec<Value>,
        query: &SavingsQuery,
    ) -> Result<Vec<Value>, SqlError> {
        let hours = self.commitment_hours(query)?.into_iter().map(|hour| json!({ HOUR: hour }));
        Ok(rows.into_iter().chain(hours).collect())
    }

    fn commitment_hours(&self, query: &SavingsQuery) -> Result<Vec<Hour>, SqlError> {
        if query.commitments.is_empty() {
            return Ok(Vec::new());
        }
        let names = models_of(&query.commitments, &query.market, query.at);
        let mut filter = Filter::default();
        filter.hours(Some(query.since.ms()), Some(query.at.start_of_hour().ms()));
        filter.add("model IN (SELECT value FROM json_each(?))", &json!(names).to_string());
        filter.literal("provider IS NOT NULL");
        let select = format!(
            "SELECT CAST(hour_ms AS TEXT), provider, model,
                CAST(SUM(input_tokens - cached_tokens - cache_write_tokens) AS TEXT), CAST(SUM(cached_tokens) AS TEXT),
                CAST(SUM(cache_write_tokens) AS TEXT), CAST(SUM(output_tokens) AS TEXT),
                CAST(MAX(longest_input) AS TEXT), CAST(SUM(charged_nanos) AS TEXT)
             FROM rollups {} GROUP BY hour_ms, provider, model",
            filter.clause()
        );
        let hour = |row: &Row| {
            let tokens = |at| integer::<i64>(row, at).map(|it| u64::try_from(it).unwrap_or(0));
            Ok(Hour {
                at_ms: integer(row, 0)?,
                provider: text(row, 1)?.to_owned(),
                model: text(row, 2)?.to_owned(),
                input: tokens(3)?,
                cache_read: tokens(4)?,
                cache_write: tokens(5)?,
                output: tokens(6)?,
                longest_input: tokens(7)?,
                charged: Usd::from_nanos(integer(row, 8)?),
            })
        };
        self.sql.exec(&select, &filter.params())?.iter().map(hour).collect()
    }
}

/// The hours of commitments among rows of savings, taken out of them. `None` when one cannot be read.
pub(crate) fn hours_of(rows: &mut Vec<Value>) -> Option<Vec<Hour>> {
    let hours = rows.extract_if(.., |row| row.get(HOUR).is_some());
    let mut taken = Vec::new();
    for mut row in hours {
        taken.push(serde_json::from_value(row.get_mut(HOUR)?.take()).ok()?);
    }
    Some(taken)
}
