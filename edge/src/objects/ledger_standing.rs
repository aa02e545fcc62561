//! What a Ledger knows of keys and of how far a workspace is: when a key was last used, and what has an owner.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::ledger_object::{Filter, LedgerObject};
use super::sql::{Row, Sql, SqlError, integer, text};

/// A span of time, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// From this moment on.
    pub from_ms: i64,
    /// Before this moment.
    pub to_ms: i64,
}

/// The spans of a question about keys.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyUse {
    /// A key's last use is looked for from this moment on.
    since_ms: i64,
    /// Its requests are counted from this moment on.
    from_ms: i64,
    /// Both before this moment.
    to_ms: i64,
}

impl<S: Sql> LedgerObject<S> {
    /// Each key's last hour with a request in a span, its requests, and what they were charged; and the last day, or hour
    /// of a day that is not folded, before the span, as a row that counts nothing.
    pub(super) fn key_use(&self, asked: KeyUse) -> Result<Value, SqlError> {
        let select = "SELECT key, CAST(MAX(hour_ms) AS TEXT), CAST(SUM(requests) AS TEXT),
                CAST(SUM(charged_nanos) AS TEXT) FROM rollups
            WHERE hour_ms >= CAST(? AS INTEGER) AND hour_ms < CAST(? AS INTEGER) GROUP BY key";
        let row = |row: &Row| {
            let charged = Usd::from_nanos(integer(row, 3)?);
            Ok(json!({ "key": text(row, 0)?, "last_ms": integer::<i64>(row, 1)?,
                       "requests": integer::<u64>(row, 2)?, "charged_usd": charged }))
        };
        let (from, to) = (asked.from_ms.to_string(), asked.to_ms.to_string());
        let mut rows = self.exec(select, &[Some(&from), Some(&to)])?;
        let mut before = Filter::default();
        before.hours(Some(asked.since_ms), Some(asked.from_ms));
        let (days, params) = self.summed(&["key"], &before)?;
        let select =
            format!("SELECT key, CAST(MAX(hour_ms) AS TEXT), '0', '0' FROM {days} GROUP BY key");
        rows.extend(self.exec_with(&select, &params)?);
        Ok(json!({ "data": rows.iter().map(row).collect::<Result<Vec<Value>, SqlError>>()? }))
    }

    /// What of a span has an owner, came from a cache, was billed, and had an outcome.
    pub(super) fn standing(&self, span: Span) -> Result<Value, SqlError> {
        let (from, to) = (span.from_ms.to_string(), span.to_ms.to_string());
        let params = [Some(from.as_str()), Some(to.as_str())];
        let mut within = Filter::default();
        within.hours(Some(span.from_ms), Some(span.to_ms));
        let (rows, summed) = self.summed(&["team", "feature", "agent"], &within)?;
        let select = format!(
            "SELECT CAST(COALESCE(SUM(requests), 0) AS TEXT),
                CAST(COALESCE(SUM(input_tokens), 0) AS TEXT), CAST(COALESCE(SUM(cached_tokens), 0) AS TEXT),
                CAST(COALESCE(SUM(charged_nanos), 0) AS TEXT),
                CAST(COALESCE(SUM(CASE WHEN team IS NOT NULL THEN charged_nanos ELSE 0 END), 0) AS TEXT),
                CAST(COALESCE(SUM(CASE WHEN feature IS NOT NULL OR agent IS NOT NULL
                    THEN charged_nanos ELSE 0 END), 0) AS TEXT) FROM {rows}"
        );
        let rows = self.exec_with(&select, &summed)?;
        let sums = rows.first().ok_or_else(|| SqlError("sums have no row".to_owned()))?;
        let usd = |place: usize| integer(sums, place).map(Usd::from_nanos);
        let days = [span.from_ms, span.to_ms].map(|ms| Timestamp::from_ms(ms).date().to_string());
        let billed = "SELECT CAST(COUNT(DISTINCT day) AS TEXT) FROM true_ups
            WHERE day > ? AND day <= ? AND billed_pico IS NOT NULL";
        let billed = self.exec(billed, &days.each_ref().map(|day| Some(day.as_str())))?;
        let outcomes = "SELECT CAST(COUNT(*) AS TEXT) FROM outcomes
            WHERE time_ms >= CAST(? AS INTEGER) AND time_ms < CAST(? AS INTEGER)";
        let outcomes = self.exec(outcomes, &params)?;
        let count = |rows: &[Row]| rows.first().map_or(Ok(0), |row| integer::<u64>(row, 0));
        let row = json!({
            "requests": integer::<u64>(sums, 0)?, "input_tokens": integer::<u64>(sums, 1)?,
            "cached_tokens": integer::<u64>(sums, 2)?, "charged_usd": usd(3)?, "of_teams_usd": usd(4)?,
            "of_features_usd": usd(5)?, "billed_days": count(&billed)?, "outcomes": count(&outcomes)?,
        });
        Ok(json!({ "data": [row] }))
    }
}
