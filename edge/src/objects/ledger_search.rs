//! Finding requests by what they were: the sums say in which hours there are any, and only those hours are read. A
//! month may have two million requests, and what is looked for may be one of them, or none.

use serde_json::{Value, json};
use tallygate_shared::time::{DAY_MS, HOUR_MS};

use super::ledger_object::{Filter, LedgerObject, RequestsQuery, parsed};
use super::ledger_true_ups::CLOCK_SKEW_MS;
use super::sql::{Row, Sql, SqlError, integer};
use crate::dimensions::DIMENSIONS;

/// Most requests in one answer.
const MAX_PAGE: u64 = 1_000;

/// A part of a month that may hold what is looked for, as ids: from the first, before the second. The newest first, and
/// none overlaps another.
type Range = (String, String);

/// The smallest id that a request of this moment may have.
pub(super) fn first_id(ms: i64) -> String {
    format!("req_{:012x}", ms.max(0))
}

impl<S: Sql> LedgerObject<S> {
    /// Requests, newest first; one more than asked for when there are more.
    pub(super) fn requests(&self, query: &RequestsQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        filter.span("at_ms", query.from_ms, query.to_ms);
        filter.values(&query.filters)?;
        if let Some(before) = &query.before {
            filter.add("id < ?", before);
        }
        // One more than asked for tells whether there are more.
        let limit = query.limit.clamp(1, MAX_PAGE) + 1;
        let mut found = Vec::new();
        if query.filters.keys().all(|name| !DIMENSIONS.contains(&name.as_str())) {
            found = self.newest(&filter, limit)?;
        } else {
            let mut ceiling = None;
            for day in self.days_with(query)? {
                for (from, before) in self.hours_with(query, day, &mut ceiling)? {
                    let mut part = filter.clone();
                    part.add_two("id >= ? AND id < ?", [&from, &before]);
                    let left = limit.saturating_sub(u64::try_from(found.len()).unwrap_or(limit));
                    found.extend(self.newest(&part, left)?);
                }
                if u64::try_from(found.len()).is_ok_and(|count| count >= limit) {
                    break;
                }
            }
        }
        let bodies = found.iter().map(|row| parsed(row, 0));
        Ok(json!({ "data": bodies.collect::<Result<Vec<Value>, SqlError>>()? }))
    }

    fn newest(&self, filter: &Filter, limit: u64) -> Result<Vec<Row>, SqlError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let select =
            format!("SELECT body FROM events {} ORDER BY id DESC LIMIT {limit}", filter.clause());
        self.exec(&select, &filter.params())
    }

    /// The days that have such requests, the newest first.
    fn days_with(&self, query: &RequestsQuery) -> Result<Vec<i64>, SqlError> {
        let mut filter = Filter::default();
        let day = |ms: i64| ms - ms.rem_euclid(DAY_MS);
        filter.span("hour_ms", query.from_ms.map(day), query.to_ms.map(|to| day(to - 1) + DAY_MS));
        filter.dimensions(&query.filters)?;
        let (from, params) = self.summed(&[], &filter)?;
        let select = format!(
            "SELECT DISTINCT CAST(hour_ms - hour_ms % {DAY_MS} AS TEXT) FROM {from}
             ORDER BY hour_ms - hour_ms % {DAY_MS} DESC"
        );
        let params: Vec<Option<&str>> = params.iter().map(|it| Some(it.as_str())).collect();
        self.exec(&select, &params)?.iter().map(|row| integer(row, 0)).collect()
    }

    /// The hours of a day that have such requests. Ids are minted on another clock than the hours are read from, so each
    /// reaches into its neighbours, up to the `ceiling` of what was read before.
    fn hours_with(
        &self,
        query: &RequestsQuery,
        day: i64,
        ceiling: &mut Option<i64>,
    ) -> Result<Vec<Range>, SqlError> {
        let mut filter = Filter::default();
        filter.span("hour_ms", Some(day), Some(day + DAY_MS));
        filter.dimensions(&query.filters)?;
        let select = format!(
            "SELECT DISTINCT CAST(hour_ms AS TEXT) FROM rollups {} ORDER BY hour_ms DESC",
            filter.clause()
        );
        let mut ranges = Vec::new();
        for row in self.exec(&select, &filter.params())? {
            let hour: i64 = integer(&row, 0)?;
            let end = hour + HOUR_MS + CLOCK_SKEW_MS;
            let end = ceiling.map_or(end, |ceiling| end.min(ceiling));
            let start = hour - CLOCK_SKEW_MS;
            if start < end {
                ranges.push((first_id(start), first_id(end)));
                *ceiling = Some(start);
            }
        }
        Ok(ranges)
    }
}
