//! The Ledger: a workspace's usage events of one month, and what they add up to by hour and owner.
//!
//! Exactly once: a Meter numbers its events without gaps, and the Ledger remembers the last number it applied of each
//! Meter, in the transaction that applies it. A batch that comes again, whole or in part, changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::ledger_archive::Limits;
use super::ledger_days::Span;
use super::ledger_outcome_days::Arrived;
use super::ledger_performance::BatchSums;
use super::ledger_requests::{LOOKED_AT, RefusedQuery};
use super::ledger_shape::Shape;
use super::ledger_true_ups::ExportQuery;
use super::migrations::migrate;
use super::sql::{Sql, SqlError, integer, nanos, text};
use crate::admin::merge_forecast::ForecastQuery;
use crate::dimensions::DIMENSIONS;

/// Events that stay one by one: 1,000,000 x 4.1 KB, measured with their indexes, = 4.1 GB of an object's 10 GB. Sums and totals
/// stay for good.
const KEPT_EVENTS: u64 = 1_000_000;
/// Events that go at once, when there are too many: more than a batch brings, so their number falls, and few enough
/// that no delivery waits for a long deletion.
const PRUNED_AT_ONCE: u64 = 5_000;

/// Outcomes in one page of an export.
const OUTCOMES_EXPORTED: u64 = 1_000;
/// Rows of daily history in one answer: 100,000 x about 50 bytes = 5 MB.
pub(crate) const MAX_HISTORY_ROWS: usize = 100_000;

/// What is added up in rows of sums.
pub(super) const SUMS: [&str; 6] =
    ["requests", "input_tokens", "cached_tokens", "output_tokens", "cost_nanos", "charged_nanos"];

/// The schema. The tables are strict, so that a sum beyond 64 bits is an error: SQLite would make a float of it.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE applied (meter TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE events (
        id TEXT NOT NULL, at_ms INTEGER NOT NULL, status INTEGER NOT NULL, charged_nanos INTEGER NOT NULL,
        key TEXT NOT NULL, owner TEXT, cost_centre TEXT, purpose TEXT, environment TEXT, user TEXT, team TEXT, app TEXT,
        feature TEXT, agent TEXT, customer TEXT, actor_environment TEXT, provider TEXT, model TEXT, outcome TEXT,
        code TEXT, body TEXT NOT NULL, PRIMARY KEY (id, key)
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX events_by_key ON events (key, id);
    CREATE TABLE rollups (
        hour_ms INTEGER NOT NULL, dimensions TEXT NOT NULL,
        key TEXT, owner TEXT, cost_centre TEXT, purpose TEXT, environment TEXT, user TEXT, team TEXT, app TEXT,
        feature TEXT, agent TEXT, customer TEXT, actor_environment TEXT, provider TEXT, model TEXT, outcome TEXT,
        code TEXT,
        requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, cost_nanos INTEGER NOT NULL, charged_nanos INTEGER NOT NULL,
        PRIMARY KEY (hour_ms, dimensions)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE totals (
        one INTEGER PRIMARY KEY CHECK (one = 1), events INTEGER NOT NULL, kept INTEGER NOT NULL,
        charged_nanos INTEGER NOT NULL, tokens INTEGER NOT NULL
    ) STRICT;
    INSERT INTO totals (one, events, kept, charged_nanos, tokens) VALUES (1, 0, 0, 0, 0);
", "
    CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE true_ups (
        day TEXT NOT NULL, provider TEXT NOT NULL, line TEXT NOT NULL, revision INTEGER NOT NULL, model TEXT NOT NULL,
        meter TEXT NOT NULL, kind TEXT NOT NULL, owner TEXT NOT NULL, estimated_pico TEXT NOT NULL, billed_pico TEXT,
        quantity_pico TEXT NOT NULL, price_pico TEXT NOT NULL, provisional INTEGER NOT NULL,
        PRIMARY KEY (day, provider, line)
    ) WITHOUT ROWID, STRICT;
", super::ledger_outcomes::OUTCOMES, super::ledger_archive::ARCHIVE, super::ledger_true_ups::COLUMNS,
    super::ledger_days::DAYS, super::ledger_performance::PERFORMANCE, super::ledger_shape::SHAPE,
    super::ledger_archive::WRITTEN_AT, super::ledger_shape::SHAPE_OF_DAYS, super::ledger_released::RELEASED,
    super::ledger_outcome_days::OUTCOME_DAYS];

/// One month of one workspace.
pub struct LedgerObject<S> {
    pub(super) sql: S,
    pub(super) limits: Limits,
}

/// What a Meter delivers.
#[derive(Deserialize)]
struct Batch {
    meter: String,
    events: Vec<Box<RawValue>>,
}

/// A question about usage.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageQuery {
    /// From this moment on.
    pub from_ms: Option<i64>,
    /// Before this moment.
    pub to_ms: Option<i64>,
    /// Whether by `hour` or `day`; absent: the whole span in one.
    pub bucket: Option<String>,
    /// Dimensions to group by.
    pub group_by: Vec<String>,
    /// Only with these values; an empty one: only without any.
    pub filters: BTreeMap<String, String>,
}

/// A question about the history behind budgets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// The dimension that budgets are proposed for.
    pub dimension: String,
    /// From this moment on: midnight.
    pub from_ms: i64,
    /// Before this moment: midnight.
    pub to_ms: i64,
    /// How many days a proposal needs.
    pub days: u32,
    /// Only with these values.
    pub filters: BTreeMap<String, String>,
}

impl<S: Sql> LedgerObject<S> {
    pub(super) fn exec(
        &self,
        statement: &str,
        params: &[Option<&str>],
    ) -> Result<Vec<super::sql::Row>, SqlError> {
        self.sql.exec(statement, params)
    }

    /// The same with parameters of which none is NULL.
    pub(super) fn exec_with(
        &self,
        statement: &str,
        params: &[String],
    ) -> Result<Vec<super::sql::Row>, SqlError> {
        let params: Vec<Option<&str>> = params.iter().map(|it| Some(it.as_str())).collect();
        self.sql.exec(statement, &params)
    }

    /// Opens the month.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        migrate(&sql, MIGRATIONS)?;
        Ok(Self { sql, limits: Limits { kept_events: KEPT_EVENTS, has_archive: false } })
    }

    /// The same month, with the archive's bucket or without, and another number of events where one is given.
    pub fn with_limits(self, kept_events: Option<u64>, has_archive: bool) -> Self {
        let kept_events = kept_events.unwrap_or(KEPT_EVENTS);
        Self { limits: Limits { kept_events, has_archive }, ..self }
    }

    /// Applies a batch, and says up to which number of that Meter everything is applied.
    pub fn apply(&self, batch: &str) -> Result<String, SqlError> {
        let batch: Batch = serde_json::from_str(batch).map_err(|e| SqlError(e.to_string()))?;
        let meter = Some(batch.meter.as_str());
        let rows =
            self.sql.exec("SELECT CAST(seq AS TEXT) FROM applied WHERE meter = ?", &[meter])?;
        let mut last: u64 = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
        let before = last;
        let folded = self.folded_to()?;
        let mut newest = Timestamp::from_ms(folded);
        let mut sums = BatchSums::default();
        for raw in &batch.events {
            let event: UsageEvent =
                serde_json::from_str(raw.get()).map_err(|e| SqlError(format!("event: {e}")))?;
            if event.seq <= last {
                continue;
            }
            last = event.seq;
            self.insert(&event, raw.get(), folded)?;
            newest = newest.max(event.at);
            sums.observe(&event);
        }
        if last > before {
            self.add_sums(sums)?;
            let upsert = "INSERT INTO applied (meter, seq) VALUES (?, CAST(? AS INTEGER))
                ON CONFLICT (meter) DO UPDATE SET seq = excluded.seq";
            self.sql.exec(upsert, &[meter, Some(&last.to_string())])?;
            self.fold(folded, newest)?;
            self.prune(self.limits.kept_events)?;
        }
        Ok(json!({ "applied_up_to": last }).to_string())
    }

    fn insert(&self, event: &UsageEvent, body: &str, folded: i64) -> Result<(), SqlError> {
        let values = dimensions_of(event);
        let charged = nanos(event.charged)?;
        let (at, status) = (event.at.ms().to_string(), event.status.to_string());
        let columns = DIMENSIONS.join(", ");
        let insert = format!(
            "INSERT INTO events (id, at_ms, status, charged_nanos, {columns}, body, session)
             VALUES (?, CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER){}, ?, ?)",
            ", ?".repeat(DIMENSIONS.len())
        );
        let mut params = vec![Some(event.id.as_str()), Some(&at), Some(&status), Some(&charged)];
        params.extend(values.iter().map(Option::as_deref));
        params.extend([Some(body), event.actor.session.as_deref()]);
        self.sql.exec(&insert, &params)?;
        self.note_late(event.id.as_str(), event.key.as_str())?;
        self.request_arrived(Arrived {
            id: event.id.as_str(),
            key: event.key.as_str(),
            session: event.actor.session.as_deref(),
            provider: event.provider.as_deref().unwrap_or_default(),
            model: event.model.as_deref().unwrap_or_default(),
            charged: charged.parse().map_err(|_| SqlError("a charge is no number".to_owned()))?,
        })?;
        let tokens = event.usage.tally().map_or(0, |tally| tally.tokens.total()).to_string();
        let add = "UPDATE totals SET events = events + 1, kept = kept + 1,
            charged_nanos = charged_nanos + CAST(? AS INTEGER), tokens = tokens + CAST(? AS INTEGER)";
        self.sql.exec(add, &[Some(&charged), Some(&tokens)])?;
        let hour = event.at.start_of_hour().ms();
        let shape = self.shape(event)?;
        self.add_to_sums("rollups", hour, event, &values, &shape)?;
        if hour < folded {
            let day = event.at.date().midnight().ms();
            self.add_to_sums("days", day, event, &values, &shape.of_day(event.at))?;
        }
        Ok(())
    }

    fn add_to_sums(
        &self,
        table: &str,
        start_ms: i64,
        event: &UsageEvent,
        values: &[Option<String>],
        shape: &Shape,
    ) -> Result<(), SqlError> {
        let tokens = event.usage.tally().map(|tally| tally.tokens).unwrap_or_default();
        let start = start_ms.to_string();
        let dimensions = serde_json::to_string(values).map_err(|e| SqlError(e.to_string()))?;
        let cost = nanos(event.cost.as_ref().map_or(Usd::ZERO, |cost| cost.total))?;
        // An interruption is no request: it stands for requests that are not known.
        let requests = if event.outcome == Outcome::Interrupted { 0 } else { event.sampled };
        let sums = [
            requests.to_string(),
            tokens.input_total().to_string(),
            tokens.cache_read_total().to_string(),
            tokens.output_total().to_string(),
            cost,
            nanos(event.charged)?,
        ];
        let columns = DIMENSIONS.join(", ");
        let upsert = format!(
            "INSERT INTO {table} (hour_ms, dimensions, {columns}, {}, {})
             VALUES (CAST(? AS INTEGER), ?{}{}) ON CONFLICT (hour_ms, dimensions) DO UPDATE SET {}, {}",
            SUMS.join(", "),
            shape.columns().join(", "),
            ", ?".repeat(DIMENSIONS.len()),
            ", CAST(? AS INTEGER)".repeat(sums.len() + shape.columns().len()),
            SUMS.map(|name| format!("{name} = {table}.{name} + excluded.{name}")).join(", "),
            shape.merged()
        );
        let mut params = vec![Some(start.as_str()), Some(dimensions.as_str())];
        params.extend(values.iter().map(Option::as_deref));
        params.extend(sums.iter().map(|sum| Some(sum.as_str())));
        params.extend(shape.values());
        self.sql.exec(&upsert, &params).map(|_| ())
    }

    /// Answers a question: the arms below are the methods.
    pub fn query(&self, method: &str, payload: &str) -> Result<String, SqlError> {
        let unreadable = |e: serde_json::Error| SqlError(format!("query: {e}"));
        let answer = match method {
            "requests" => {
                self.requests(&serde_json::from_str(payload).map_err(unreadable)?, LOOKED_AT)?
            }
            "model_performance" => {
                self.performance(&serde_json::from_str(payload).map_err(unreadable)?)?
            }
            "prompt_shapes" => self.shapes(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "agent_sessions" => {
                self.conversations(&serde_json::from_str(payload).map_err(unreadable)?)?
            }
            "agent_session" => self.turns(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "refused" => {
                let asked: RefusedQuery = serde_json::from_str(payload).map_err(unreadable)?;
                self.refused_requests(&asked.query)?
            }
            "usage" | "refusals" => {
                self.usage(&serde_json::from_str(payload).map_err(unreadable)?)?
            }
            "history" => self.history(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "true_ups" => self.true_ups(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "forecast" => {
                let query: ForecastQuery = serde_json::from_str(payload).map_err(unreadable)?;
                self.usage(&query.usage)?
            }
            "books" => self.books(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "statement" => self.statement(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "export_outcomes" => {
                let query: ExportQuery = serde_json::from_str(payload).map_err(unreadable)?;
                let after = query.after.as_deref();
                let page =
                    self.export_outcomes(query.from_ms, query.to_ms, after, OUTCOMES_EXPORTED)?;
                json!({ "lines": page.lines, "after": page.next })
            }
            "export" => self.export(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "request" => self.request(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "archive" => self.archive_state()?,
            "archive_gauge" => json!(self.archive_gauge(payload)?),
            "outcomes" => self.outcomes(&serde_json::from_str(payload).map_err(unreadable)?)?,
            "outcome_summary" => {
                self.outcome_summary(&serde_json::from_str(payload).map_err(unreadable)?)?
            }
            "key_use" => self.key_use(serde_json::from_str(payload).map_err(unreadable)?)?,
            "standing" => self.standing(serde_json::from_str(payload).map_err(unreadable)?)?,
            _ => match self.insight(method, payload)? {
                Some(answer) => answer,
                None => self.totals()?,
            },
        };
        Ok(answer.to_string())
    }

    fn usage(&self, query: &UsageQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        filter.hours(query.from_ms, query.to_ms);
        filter.values(&query.filters)?;
        for name in &query.group_by {
            known(name)?;
        }
        let bucket = match query.bucket.as_deref() {
            Some("hour") => Some("hour_ms"),
            Some(_) => Some("hour_ms - hour_ms % 86400000"),
            None => None,
        };
        let mut groups: Vec<String> = bucket.iter().map(|b| (*b).to_owned()).collect();
        groups.extend(query.group_by.iter().cloned());
        let mut columns: Vec<String> =
            groups.iter().map(|group| format!("CAST({group} AS TEXT)")).collect();
        columns.extend(SUMS.iter().map(|sum| format!("CAST(COALESCE(SUM({sum}), 0) AS TEXT)")));
        let grouping = if groups.is_empty() {
            String::new()
        } else {
            format!("GROUP BY {0} ORDER BY {0}", groups.join(", "))
        };
        let by_hour = query.bucket.as_deref() == Some("hour");
        let (from, params) = if by_hour {
            (format!("rollups {}", filter.clause()), filter.owned_params())
        } else {
            let names: Vec<&str> = query.group_by.iter().map(String::as_str).collect();
            self.summed(&names, &filter)?
        };
        let select = format!("SELECT {} FROM {from} {grouping}", columns.join(", "));
        let rows = self.exec_with(&select, &params)?;
        let data = rows.iter().map(|row| {
            let mut item = serde_json::Map::new();
            let mut at = 0;
            if bucket.is_some() {
                let start = Timestamp::from_ms(integer(row, 0)?);
                item.insert("bucket_start".to_owned(), start.to_string().into());
                at = 1;
            }
            for name in &query.group_by {
                item.insert(name.clone(), row.get(at).cloned().flatten().into());
                at += 1;
            }
            for sum in SUMS {
                let value: i64 = integer(row, at)?;
                at += 1;
                match sum.strip_suffix("_nanos") {
                    Some(name) => item
                        .insert(format!("{name}_usd"), Usd::from_nanos(value).to_string().into()),
                    None => item.insert(sum.to_owned(), value.into()),
                };
            }
            Ok(Value::Object(item))
        });
        Ok(json!({ "data": data.collect::<Result<Vec<_>, SqlError>>()? }))
    }

    /// What each value of a dimension was charged on each day: `[value, days since 1970, amount]`.
    fn history(&self, query: &HistoryQuery) -> Result<Value, SqlError> {
        known(&query.dimension)?;
        let mut filter = Filter::default();
        filter.hours(Some(query.from_ms), Some(query.to_ms));
        filter.values(&query.filters)?;
        let name = query.dimension.as_str();
        let (from, params) = self.summed(&[name], &filter)?;
        // What has no value cannot have a budget by it. One row more than is allowed shows that there are too many.
        let select = format!(
            "SELECT {name}, CAST(hour_ms / 86400000 AS TEXT), CAST(SUM(charged_nanos) AS TEXT) FROM {from}
            WHERE {name} IS NOT NULL GROUP BY {name}, hour_ms / 86400000 HAVING SUM(charged_nanos) > 0
            LIMIT {}",
            MAX_HISTORY_ROWS + 1
        );
        let rows = self.exec_with(&select, &params)?;
        let data = rows.iter().map(|row| {
            let (day, nanos) = (integer::<i64>(row, 1)?, integer(row, 2)?);
            Ok(json!([text(row, 0)?, day, Usd::from_nanos(nanos)]))
        });
        Ok(json!({ "data": data.collect::<Result<Vec<_>, SqlError>>()? }))
    }

    /// What was ever applied here: for the reconciliation of Meters, Ledger and bill.
    fn totals(&self) -> Result<Value, SqlError> {
        let select = "SELECT CAST(events AS TEXT), CAST(kept AS TEXT), CAST(charged_nanos AS TEXT),
            CAST(tokens AS TEXT) FROM totals";
        let rows = self.sql.exec(select, &[])?;
        let row = rows.first().ok_or_else(|| SqlError("totals have no row".to_owned()))?;
        let charged = Usd::from_nanos(integer(row, 2)?);
        Ok(json!({ "events": integer::<u64>(row, 0)?, "kept": integer::<u64>(row, 1)?,
                   "charged_usd": charged, "tokens": integer::<u64>(row, 3)? }))
    }

    /// Lets the oldest events go, once there are more than the object may hold. Rollups and totals keep their sums,
    /// outcomes their costs. With
    /// an archive only events that are in it go.
    pub(super) fn prune(&self, kept: u64) -> Result<(), SqlError> {
        let rows = self.sql.exec("SELECT CAST(kept AS TEXT) FROM totals", &[])?;
        let present: u64 = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
        let excess = present.saturating_sub(kept).min(PRUNED_AT_ONCE);
        let left = excess.saturating_sub(self.release_oldest(excess)?);
        if left == 0 || self.limits.has_archive {
            return Ok(());
        }
        let left = left.to_string();
        // A request's id begins with its time. An export must know what is no longer there.
        let mark = "INSERT INTO marks (name, value) SELECT 'pruned_to', MAX(id) FROM
                (SELECT id FROM events ORDER BY id, key LIMIT CAST(? AS INTEGER)) WHERE true
            ON CONFLICT (name) DO UPDATE SET value = MAX(value, excluded.value)";
        self.sql.exec(mark, &[Some(&left)])?;
        let oldest =
            "(id, key) IN (SELECT id, key FROM events ORDER BY id, key LIMIT CAST(? AS INTEGER))";
        self.let_go(oldest, &[Some(&left)])?;
        self.forget_late()?;
        self.sql
            .exec("UPDATE totals SET kept = kept - CAST(? AS INTEGER)", &[Some(&left)])
            .map(|_| ())
    }
}

/// The conditions of a query, and their parameters in order.
#[derive(Clone, Default)]
pub(super) struct Filter {
    conditions: Vec<String>,
    values: Vec<String>,
    hours: Span,
}

impl Filter {
    pub(super) fn add(&mut self, condition: &str, value: &str) {
        self.conditions.push(condition.to_owned());
        self.values.push(value.to_owned());
    }

    /// A condition without a value.
    pub(super) fn literal(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
    }

    pub(super) fn add_two(&mut self, condition: &str, values: [&str; 2]) {
        self.conditions.push(condition.to_owned());
        self.values.extend(values.map(str::to_owned));
    }

    pub(super) fn span(&mut self, column: &str, from: Option<i64>, to: Option<i64>) {
        if let Some(from) = from {
            self.add(&format!("{column} >= CAST(? AS INTEGER)"), &from.to_string());
        }
        if let Some(to) = to {
            self.add(&format!("{column} < CAST(? AS INTEGER)"), &to.to_string());
        }
    }

    /// Rows of sums of this span of time.
    pub(super) const fn hours(&mut self, from: Option<i64>, to: Option<i64>) {
        self.hours = Span { from, to };
    }

    /// The span of time, and the same conditions in another one.
    pub(super) const fn span_of_hours(&self) -> Span {
        self.hours
    }

    pub(super) fn within(&self, hours: Span) -> Self {
        Self { hours, ..self.clone() }
    }

    pub(super) fn values(&mut self, filters: &BTreeMap<String, String>) -> Result<(), SqlError> {
        if let Some(status) = filters.get("status") {
            self.add("status = CAST(? AS INTEGER)", status);
        }
        self.dimensions(filters)
    }

    /// The conditions that rows of sums know too: they have no status.
    pub(super) fn dimensions(
        &mut self,
        filters: &BTreeMap<String, String>,
    ) -> Result<(), SqlError> {
        for (name, value) in filters.iter().filter(|(name, _)| *name != "status") {
            known(name)?;
            self.equals(name, value);
        }
        Ok(())
    }

    /// A column that has this value. The empty text, which is no value of any, asks for rows without one.
    pub(super) fn equals(&mut self, column: &str, value: &str) {
        if value.is_empty() {
            self.literal(&format!("COALESCE({column}, '') = ''"));
        } else {
            self.add(&format!("{column} = ?"), value);
        }
    }

    pub(super) fn clause(&self) -> String {
        let Span { from, to } = self.hours;
        let from = from.map(|ms| format!("hour_ms >= {ms}"));
        let to = to.map(|ms| format!("hour_ms < {ms}"));
        let conditions: Vec<String> =
            self.conditions.iter().cloned().chain(from).chain(to).collect();
        if conditions.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", conditions.join(" AND "))
        }
    }

    pub(super) fn owned_params(&self) -> Vec<String> {
        self.values.clone()
    }

    pub(super) fn params(&self) -> Vec<Option<&str>> {
        self.values.iter().map(|value| Some(value.as_str())).collect()
    }
}

/// A name becomes part of a statement only when it is one of ours.
fn known(name: &str) -> Result<(), SqlError> {
    if DIMENSIONS.contains(&name) {
        Ok(())
    } else {
        Err(SqlError(format!("no dimension `{name}`")))
    }
}

pub(super) fn parsed(row: &super::sql::Row, column: usize) -> Result<Value, SqlError> {
    serde_json::from_str(text(row, column)?).map_err(|e| SqlError(format!("stored event: {e}")))
}

fn dimensions_of(event: &UsageEvent) -> Vec<Option<String>> {
    let actor = &event.actor;
    let outcome = serde_json::to_value(event.outcome).ok();
    vec![
        Some(event.key.as_str().to_owned()),
        Some(event.owner.clone()),
        Some(event.cost_centre.clone()),
        Some(event.purpose.clone()),
        Some(event.environment.clone()),
        actor.user.clone(),
        actor.team.clone(),
        actor.app.clone(),
        actor.feature.clone(),
        actor.agent.clone(),
        actor.customer.clone(),
        actor.environment.clone(),
        event.provider.clone(),
        event.model.clone(),
        outcome.and_then(|outcome| outcome.as_str().map(str::to_owned)),
        event.code.clone(),
    ]
}
