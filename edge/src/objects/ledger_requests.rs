//! Requests one by one: listed, filtered and sorted, and those that were refused.
//!
//! A page by time goes on at its cursor, and requests of an owner or model are found through the sums. What has neither is
//! looked for among the newest [`LOOKED_AT`] only, and the answer says where it stopped, so that a page never waits for a
//! month of events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ledger_object::{Filter, LedgerObject, parsed};
use super::ledger_search::first_id;
use super::ledger_true_ups::CLOCK_SKEW_MS;
use super::sql::{Row, Sql, SqlError, integer, text};
use crate::dimensions::DIMENSIONS;

/// Requests of a month that one question looks at, the newest: about 20 MB.
pub(super) const LOOKED_AT: u64 = 10_000;
/// Refusals of a month that are decided again at once: 5,000 x about 1.5 KB.
const REPLAYED: u64 = 5_000;
const MAX_PAGE: u64 = 1_000;

/// A question about requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestsQuery {
    /// From this moment on.
    pub from_ms: Option<i64>,
    /// Before this moment.
    pub to_ms: Option<i64>,
    /// Older than this id.
    pub before: Option<String>,
    /// How many.
    pub limit: u64,
    /// The largest `charged`, `duration` or `tokens` first; absent: the newest.
    pub sort: Option<String>,
    /// Charged so many nanodollars or more.
    pub charged_from_nanos: Option<i64>,
    /// Charged so many nanodollars or less.
    pub charged_to_nanos: Option<i64>,
    /// Only with these values of the dimensions, `status` and `session`; an empty one: only without any.
    pub filters: BTreeMap<String, String>,
}

/// A question about one request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestQuery {
    /// Its id.
    pub id: String,
    /// Only when it is this owner's.
    pub owner: Option<String>,
}

/// What a Ledger reads of a question about refusals: the rest is for who decides them again.
#[derive(Deserialize)]
pub(super) struct RefusedQuery {
    pub(super) query: RequestsQuery,
}

/// By all tokens of a request, whoever counted them.
const TOKENS_ORDER: &str =
    "(SELECT COALESCE(SUM(value), 0) FROM json_each(body, '$.usage.tally.tokens')) DESC, id DESC";

impl<S: Sql> LedgerObject<S> {
    /// Requests, looked for among the newest `most`: `looked_to` is the oldest of these, where there may be older ones.
    pub(super) fn requests(&self, query: &RequestsQuery, most: u64) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        filter.ids(query.from_ms, query.to_ms);
        if let Some(before) = &query.before {
            filter.add("id < ?", before);
        }
        // What has an index of its own is found wherever it is.
        for name in ["session", "key"] {
            if let Some(value) = query.filters.get(name) {
                filter.equals(name, value);
            }
        }
        // One more than asked for tells whether there are more.
        let limit = query.limit.clamp(1, MAX_PAGE) + 1;
        if query.is_by_dimensions() {
            filter.span("at_ms", query.from_ms, query.to_ms);
            filter.dimensions(&query.filters)?;
            let refused = query.filters.get("outcome").is_some_and(|outcome| outcome == "refused");
            let rows = if refused {
                // As text in the statement: it selects the index of refusals.
                filter.literal("outcome = 'refused'");
                self.newest(&filter, limit)?
            } else {
                self.search(query, &filter, limit)?
            };
            return Ok(json!({ "data": bodies(&rows)?, "looked_to": null }));
        }
        let mut filters = query.filters.clone();
        filters.retain(|name, _| name != "session" && name != "key");
        let prices = query.charged_from_nanos.is_some() || query.charged_to_nanos.is_some();
        let mut looked_to = None;
        if query.sort.is_some() || prices || !filters.is_empty() {
            let select = format!(
                "SELECT id FROM events {} ORDER BY id DESC LIMIT 1 OFFSET {}",
                filter.clause(),
                most.saturating_sub(1)
            );
            let rows = self.exec(&select, &filter.params())?;
            looked_to = rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()?;
        }
        if let Some(oldest) = &looked_to {
            filter.add("id >= ?", oldest);
        }
        filter.span("at_ms", query.from_ms, query.to_ms);
        filter.span("charged_nanos", query.charged_from_nanos, None);
        if let Some(most) = query.charged_to_nanos {
            filter.add("charged_nanos <= CAST(? AS INTEGER)", &most.to_string());
        }
        filter.values(&filters)?;
        let order = match query.sort.as_deref() {
            Some("charged") => "charged_nanos DESC, id DESC",
            Some("duration") => {
                "CAST(json_extract(body, '$.duration_ms') AS INTEGER) DESC, id DESC"
            }
            Some("tokens") => TOKENS_ORDER,
            _ => "id DESC",
        };
        let select =
            format!("SELECT body FROM events {} ORDER BY {order} LIMIT {limit}", filter.clause());
        let rows = self.exec(&select, &filter.params())?;
        Ok(json!({ "data": bodies(&rows)?, "looked_to": looked_to }))
    }

    /// Refusals of a span of time, the newest [`REPLAYED`], and how many there are in all.
    pub(super) fn refused_requests(&self, query: &RequestsQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        // As text in the statement: it selects the index of refusals.
        filter.literal("outcome = 'refused'");
        filter.ids(query.from_ms, query.to_ms);
        filter.span("at_ms", query.from_ms, query.to_ms);
        filter.values(&query.filters)?;
        let select = format!(
            "SELECT body FROM events {} ORDER BY id DESC LIMIT {REPLAYED}",
            filter.clause()
        );
        let rows = self.exec(&select, &filter.params())?;
        let bodies = bodies(&rows)?;
        let mut sums = Filter::default();
        sums.literal("outcome = 'refused'");
        sums.hours(query.from_ms, query.to_ms);
        sums.values(&query.filters)?;
        let (from, params) = self.summed(&[], &sums)?;
        let select = format!("SELECT CAST(COALESCE(SUM(requests), 0) AS TEXT) FROM {from}");
        let rows = self.exec_with(&select, &params)?;
        let all: u64 = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
        Ok(json!({ "data": bodies, "all": all }))
    }
}

impl RequestsQuery {
    /// Whether the sums know where such requests are: they are asked for by time, and by dimensions only. Those of a key
    /// have an index.
    fn is_by_dimensions(&self) -> bool {
        let in_sums = |name: &String| DIMENSIONS.contains(&name.as_str());
        let sorted_or_priced = self.sort.is_some()
            || self.charged_from_nanos.is_some()
            || self.charged_to_nanos.is_some();
        !sorted_or_priced
            && self.filters.keys().all(in_sums)
            && self.filters.keys().any(|name| name != "key")
    }
}

fn bodies(rows: &[Row]) -> Result<Vec<Value>, SqlError> {
    rows.iter().map(|row| parsed(row, 0)).collect()
}

impl Filter {
    /// Ids begin with the time of the isolate that minted them, which may differ from the event's by less than an hour.
    pub(super) fn ids(&mut self, from_ms: Option<i64>, to_ms: Option<i64>) {
        if let Some(from) = from_ms {
            self.add("id >= ?", &first_id(from.saturating_sub(CLOCK_SKEW_MS)));
        }
        if let Some(to) = to_ms {
            self.add("id < ?", &first_id(to.saturating_add(CLOCK_SKEW_MS)));
        }
    }
}
