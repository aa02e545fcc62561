//! What happened: requests and usage, asked of the Ledgers of the months in question, and the audit log.

use std::collections::BTreeMap;

use serde_json::json;
use tallygate_shared::budget::baseline::DEFAULT_DAYS;
use tallygate_shared::forecast::LOOK_BACK_DAYS;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, HOUR_MS, Timestamp};

use super::performance::unknown_sort;
use super::{Answer, Api, list};
use crate::admin::call::Step;
use crate::admin::merge_forecast::ForecastQuery;
use crate::admin::problem::Problem;
use crate::dimensions::{BUDGET_DIMENSIONS, DIMENSIONS};
use crate::objects::ledger_freshness::BooksQuery;
use crate::objects::ledger_object::{HistoryQuery, UsageQuery};
use crate::objects::ledger_performance::time_of_id;
use crate::objects::ledger_requests::{RequestQuery, RequestsQuery};
use crate::objects::sql::Sql;

/// A query asks at most this many months' Ledgers, the newest: each is another object to wake.
const MAX_MONTHS: usize = 36;
/// Requests or audit entries in one page.
const MAX_PAGE: u64 = 1_000;
const DEFAULT_PAGE: u64 = 50;
/// A forecast made four weeks ago looks back four weeks more.
const FORECAST_DAYS: i64 = 2 * LOOK_BACK_DAYS;
/// By what requests can be sorted, beside time.
const REQUEST_SORTS: [&str; 3] = ["charged", "duration", "tokens"];

impl<S: Sql> Api<'_, S> {
    pub(super) fn requests(&self) -> Answer {
        let mut query = RequestsQuery { limit: DEFAULT_PAGE, ..RequestsQuery::default() };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "cursor" => query.before = Some(value),
                "limit" => query.limit = page(&value)?,
                "status" => {
                    query.filters.insert(name, number("status", &value)?.to_string());
                }
                "session" => {
                    query.filters.insert(name, value);
                }
                "min_charged_usd" => query.charged_from_nanos = Some(nanos(&name, &value)?),
                "max_charged_usd" => query.charged_to_nanos = Some(nanos(&name, &value)?),
                "sort" if REQUEST_SORTS.contains(&value.as_str()) => query.sort = Some(value),
                "sort" if value == "newest" => {}
                "sort" => return Err(unknown_sort(&["newest", "charged", "duration", "tokens"])),
                _ => {
                    query.filters.insert(dimension(&name)?, value);
                }
            }
        }
        if query.sort.is_some() && query.before.is_some() {
            let remedy = "Leave one of them out: sorted requests are one page. Narrow from and to.";
            return Err(Problem::field("cursor", "goes with no sort", remedy).into());
        }
        // A cursor is a request's id: nothing after its month is asked.
        let before = query.before.as_deref().and_then(time_of_id);
        let to = [query.to_ms, before.map(|ms| ms.saturating_add(1))].into_iter().flatten().min();
        let names = self.ledgers(query.from_ms, to)?;
        Ok(Step::Ledgers { names, method: "requests", payload: json!(query).to_string() })
    }

    pub(super) fn request(&self, id: &str) -> Answer {
        let ms = time_of_id(id).ok_or_else(|| Problem::not_found("request", id))?;
        // The Meter's clock and the isolate's may differ: look on both sides of midnight.
        let (from, to) = (ms.saturating_sub(HOUR_MS), ms.saturating_add(HOUR_MS));
        let names = self.ledgers(Some(from), Some(to))?;
        let query = RequestQuery { id: id.to_owned(), owner: self.principal.owner.clone() };
        Ok(Step::Ledgers { names, method: "request", payload: json!(query).to_string() })
    }

    pub(super) fn usage(&self) -> Answer {
        let mut query = UsageQuery::default();
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "bucket" if matches!(value.as_str(), "hour" | "day") => query.bucket = Some(value),
                "bucket" => {
                    return Err(Problem::field("bucket", "is not known", "Use hour or day.").into());
                }
                "group_by" => {
                    for part in value.split(',').filter(|part| !part.is_empty()) {
                        let part = dimension(part)?;
                        if !query.group_by.contains(&part) {
                            query.group_by.push(part);
                        }
                    }
                }
                _ => {
                    query.filters.insert(dimension(&name)?, value);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "usage", payload: json!(query).to_string() })
    }

    pub(super) fn budget_proposals(&self) -> Answer {
        let (mut dimension_asked, mut days) = ("team".to_owned(), DEFAULT_DAYS);
        let mut filters = BTreeMap::new();
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "dimension" => dimension_asked = owning("dimension", &value)?,
                "days" => days = history_days(&value)?,
                _ => {
                    filters.insert(dimension(&name)?, value);
                }
            }
        }
        // Twice the days, so that it is seen whether spending began before them. Today is not over.
        let today = self.context.now.date().midnight();
        let from = today.plus_ms(-2 * i64::from(days) * DAY_MS);
        let names = self.ledgers(Some(from.ms()), Some(today.ms()))?;
        let (from_ms, to_ms) = (from.ms(), today.ms());
        let query = HistoryQuery { dimension: dimension_asked, from_ms, to_ms, days, filters };
        Ok(Step::Ledgers { names, method: "history", payload: json!(query).to_string() })
    }

    /// This month's forecast, from the days of two months before it on.
    pub(super) fn forecast(&self) -> Answer {
        let today = self.context.now.date();
        let before = Date::from_days(today.first_of_month().days() - FORECAST_DAYS);
        let mut usage = UsageQuery {
            from_ms: Some(before.midnight().ms()),
            bucket: Some("day".to_owned()),
            ..UsageQuery::default()
        };
        for (name, value) in self.context.call.parameters() {
            usage.filters.insert(dimension(&name)?, value);
        }
        let names = self.ledgers(usage.from_ms, None)?;
        let query = ForecastQuery { today: today.to_string(), usage };
        Ok(Step::Ledgers { names, method: "forecast", payload: json!(query).to_string() })
    }

    /// How fresh the books are: of this month and the one before, whose last days may be reconciled now.
    pub(super) fn books(&self) -> Answer {
        let month = self.context.now.date().first_of_month();
        let before = Date::from_days(month.days() - 1).first_of_month();
        let names = self.billed_ledgers(Some(before.midnight().ms()), None)?;
        let query = BooksQuery { month_ms: month.midnight().ms() };
        Ok(Step::Ledgers { names, method: "books", payload: json!(query).to_string() })
    }

    /// The Ledgers of a span of time: since the workspace was created, until now; the newest ones of a longer span.
    pub(super) fn ledgers(
        &self,
        from: Option<i64>,
        to: Option<i64>,
    ) -> Result<Vec<String>, Problem> {
        let created = self.workspace.created().unwrap_or_default();
        self.ledgers_from(from.map_or(created, Timestamp::from_ms).max(created), to)
    }

    /// The same for what bills are part of: they may be of months before the workspace was created, so a first day that
    /// is asked for holds.
    pub(super) fn billed_ledgers(
        &self,
        from: Option<i64>,
        to: Option<i64>,
    ) -> Result<Vec<String>, Problem> {
        let created = self.workspace.created().unwrap_or_default();
        self.ledgers_from(from.map_or(created, Timestamp::from_ms), to)
    }

    fn ledgers_from(&self, from: Timestamp, to: Option<i64>) -> Result<Vec<String>, Problem> {
        let end = self.context.now.plus_ms(DAY_MS);
        let end = to.map_or(end, Timestamp::from_ms).min(end);
        let id = self.workspace.id()?;
        let first = from.date().first_of_month();
        let mut month = end.plus_ms(-1).date().first_of_month();
        let mut names = Vec::new();
        while month >= first && names.len() < MAX_MONTHS {
            names.push(format!("{id}:{:04}-{:02}", month.year, month.month));
            month = Date::from_days(month.days() - 1).first_of_month();
        }
        names.reverse();
        Ok(names)
    }

    pub(super) fn audit(&self) -> Answer {
        let call = self.context.call;
        let before = call.parameter("before").map(|text| number("before", &text)).transpose()?;
        let limit = call.parameter("limit").map(|text| page(&text)).transpose()?;
        Ok(list(self.workspace.audit_log(before, limit.unwrap_or(DEFAULT_PAGE))?))
    }
}

/// An amount in nanodollars, for a comparison with what was charged.
fn nanos(field: &str, text: &str) -> Result<i64, Problem> {
    let nanos = text.parse::<Usd>().ok().and_then(Usd::nanos);
    let remedy = "Give US dollars with at most nine decimals, such as 0.05.";
    nanos.ok_or_else(|| Problem::field(field, "is no amount", remedy))
}

pub(super) fn dimension(name: &str) -> Result<String, Problem> {
    if DIMENSIONS.contains(&name) {
        return Ok(name.to_owned());
    }
    let remedy = format!("Use one of {}.", DIMENSIONS.join(", "));
    Err(Problem::field("group_by", "has an unknown dimension", &remedy))
}

/// A dimension that can have a budget: not how a request ended.
fn owning(field: &str, name: &str) -> Result<String, Problem> {
    if BUDGET_DIMENSIONS.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Problem::field(
        field,
        "is not known",
        &format!("Use one of {}.", BUDGET_DIMENSIONS.join(", ")),
    ))
}

fn history_days(text: &str) -> Result<u32, Problem> {
    let days = text.parse().ok().filter(|days| (7..=365).contains(days));
    days.ok_or_else(|| Problem::field("days", "is out of range", "Give 7 to 365."))
}

pub(super) fn moment(field: &str, text: &str) -> Result<Timestamp, Problem> {
    let remedy = "Give a day (2026-11-20) or UTC in RFC 3339 (2026-11-20T10:00:00Z).";
    Timestamp::parse(text).ok_or_else(|| Problem::field(field, "is not a time", remedy))
}

pub(super) fn number(field: &str, text: &str) -> Result<u64, Problem> {
    let number = text.parse().ok().filter(|number| *number <= i64::MAX.unsigned_abs());
    number.ok_or_else(|| Problem::field(field, "is not a number", "Give a whole number."))
}

pub(super) fn page(text: &str) -> Result<u64, Problem> {
    let limit = number("limit", text)?;
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::field("limit", "is out of range", "Give 1 to 1000."))
}
