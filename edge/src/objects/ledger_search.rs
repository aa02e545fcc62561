//! Finding requests by what they were: the sums say in which hours there are any, and only those hours are read. A
//! month may have a million requests, and what is looked for may be one of them, or none.

use tallygate_shared::time::{DAY_MS, HOUR_MS};

use super::ledger_object::{Filter, LedgerObject};
use super::ledger_requests::RequestsQuery;
use super::ledger_true_ups::CLOCK_SKEW_MS;
use super::sql::{Row, Sql, SqlError, integer};

/// A part of a month that may hold what is looked for, as ids: from the first, before the second. The newest first, and
/// none overlaps another.
type Range = (String, String);

/// The smallest id that a request of this moment may have.
pub(super) fn first_id(ms: i64) -> String {
    format!("req_{:012x}", ms.clamp(0, 0xffff_ffff_ffff))
}

impl<S: Sql> LedgerObject<S> {
    /// The newest requests that pass `filter`, at most `limit`, wherever in the month they are. The query's filters are
    /// dimensions all.
    pub(super) fn search(
        &self,
        query: &RequestsQuery,
        filter: &Filter,
        limit: u64,
    ) -> Result<Vec<Row>, SqlError> {
        let (mut found, mut ceiling) = (Vec::new(), None);
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
        Ok(found)
    }

    /// The newest requests that pass a filter.
    pub(super) fn newest(&self, filter: &Filter, limit: u64) -> Result<Vec<Row>, SqlError> {
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
        filter.hours(query.from_ms.map(day), query.to_ms.map(|to| day(to - 1) + DAY_MS));
        filter.dimensions(&query.filters)?;
        let (from, params) = self.summed(&[], &filter)?;
        let select = format!(
            "SELECT DISTINCT CAST(hour_ms - hour_ms % {DAY_MS} AS TEXT) FROM {from}
             ORDER BY hour_ms - hour_ms % {DAY_MS} DESC"
        );
        self.exec_with(&select, &params)?.iter().map(|row| integer(row, 0)).collect()
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
        filter.hours(Some(day), Some(day + DAY_MS));
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
