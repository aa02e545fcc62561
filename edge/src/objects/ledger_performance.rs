//! How models do, and what prompts look like, in the Ledger: sums that are kept beside the rollups.
//!
//! A batch is summed up in memory first, so that each group is read and written once however many events it has.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::money::Usd;
use tallygate_shared::telemetry::performance::Performance;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::ledger_days::Span;
use super::ledger_object::{Filter, LedgerObject};
use super::ledger_outcome_days::{NOT_EMPTY, Sources};
use super::ledger_prompts::{Conversation, PromptSums, ShapeKey};
use super::ledger_released::{RowBehind, cost_unknown, rows_behind};
use super::sql::{Row, Sql, SqlError, integer, text};

/// What models can be grouped and filtered by.
pub const MODEL_DIMENSIONS: [&str; 2] = ["provider", "model"];

/// The step of the schema that brings these sums. What was applied before is in none of them: `measured_after` is the
/// newest request of that time. A conversation's columns are what it is sorted by.
pub const PERFORMANCE: &str = "
    CREATE TABLE performance (
        span TEXT NOT NULL, start_ms INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY (span, start_ms, provider, model)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE prompt_shapes (
        day_ms INTEGER NOT NULL, feature TEXT NOT NULL, model TEXT NOT NULL, shape TEXT NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY (day_ms, feature, model, shape)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE conversations (
        session TEXT NOT NULL, key TEXT NOT NULL, last_ms INTEGER NOT NULL, charged_nanos INTEGER NOT NULL,
        growth INTEGER NOT NULL, requests INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (session, key)
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX events_refused ON events (id) WHERE outcome = 'refused';
    INSERT INTO marks (name, value) SELECT 'measured_after', MAX(id) FROM events HAVING MAX(id) IS NOT NULL;
";

/// A question about how models did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerformanceQuery {
    /// From this moment on.
    pub from_ms: Option<i64>,
    /// Before this moment.
    pub to_ms: Option<i64>,
    /// Whether by `hour` or `day`; absent: the whole span in one.
    pub bucket: Option<String>,
    /// Of [`MODEL_DIMENSIONS`].
    pub group_by: Vec<String>,
    /// Only with these values of them.
    pub filters: BTreeMap<String, String>,
}

/// A group's row as it crosses from the Ledgers to where their answers are merged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelRow {
    /// When its hour or day begins, where the question was by these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<i64>,
    /// The values of the dimensions, in the question's order; an empty one is none.
    pub group: Vec<String>,
    /// What is known of its requests.
    pub sums: Performance,
    /// Outcomes accepted of requests and sessions that it served.
    pub accepted: u64,
    /// What the requests behind its outcomes were charged.
    pub outcome_cost: Usd,
}

/// What a batch adds to the sums.
#[derive(Debug, Default)]
pub(super) struct BatchSums {
    models: BTreeMap<(&'static str, i64, String, String), Performance>,
    shapes: BTreeMap<(i64, ShapeKey), PromptSums>,
    conversations: BTreeMap<(String, String), Conversation>,
}

impl BatchSums {
    /// Takes an event in.
    pub(super) fn observe(&mut self, event: &UsageEvent) {
        let day = event.at.date().midnight().ms();
        for (span, start) in [("hour", event.at.start_of_hour().ms()), ("day", day)] {
            let mut group = |provider: &str, model: &str, change: &dyn Fn(&mut Performance)| {
                let key = (span, start, provider.to_owned(), model.to_owned());
                change(self.models.entry(key).or_default());
            };
            let named = |name: &Option<String>| name.clone().unwrap_or_default();
            group(&named(&event.provider), &named(&event.model), &|sums| sums.observe(event));
            for (place, attempt) in event.attempts.iter().enumerate() {
                group(&attempt.provider, &attempt.model, &|sums| sums.attempt(attempt, place));
            }
        }
        if event.outcome == Outcome::Refused || event.usage.tally().is_none() {
            return;
        }
        if let Some(key) = ShapeKey::of(event) {
            self.shapes.entry((day, key)).or_default().observe(event);
        }
        if let Some(session) = &event.actor.session {
            let key = (session.clone(), event.key.as_str().to_owned());
            self.conversations.entry(key).or_default().observe(event);
        }
    }
}

impl<S: Sql> LedgerObject<S> {
    /// Adds a batch's sums to what is stored.
    pub(super) fn add_sums(&self, batch: BatchSums) -> Result<(), SqlError> {
        for ((span, start, provider, model), sums) in batch.models {
            let start = start.to_string();
            let key = [Some(span), Some(&start), Some(&provider), Some(&model)];
            let mut stored: Performance = self.stored_sums(
                "SELECT body FROM performance
                 WHERE span = ? AND start_ms = CAST(? AS INTEGER) AND provider = ? AND model = ?",
                &key,
            )?;
            stored.add(&sums);
            let put = "INSERT OR REPLACE INTO performance (span, start_ms, provider, model, body)
                VALUES (?, CAST(? AS INTEGER), ?, ?, ?)";
            self.put(put, &key, &stored)?;
        }
        for ((day, shape), sums) in batch.shapes {
            let day = day.to_string();
            let key = [Some(&*day), Some(&shape.feature), Some(&shape.model), Some(&shape.shape)];
            let mut stored: PromptSums = self.stored_sums(
                "SELECT body FROM prompt_shapes
                 WHERE day_ms = CAST(? AS INTEGER) AND feature = ? AND model = ? AND shape = ?",
                &key,
            )?;
            stored.add(&sums);
            let put = "INSERT OR REPLACE INTO prompt_shapes (day_ms, feature, model, shape, body)
                VALUES (CAST(? AS INTEGER), ?, ?, ?, ?)";
            self.put(put, &key, &stored)?;
        }
        for ((session, key), sums) in batch.conversations {
            let key = [Some(&*session), Some(&*key)];
            let mut stored: Conversation = self.stored_sums(
                "SELECT body FROM conversations WHERE session = ? AND key = ?",
                &key,
            )?;
            stored.add(&sums);
            let columns = [
                stored.last_ms,
                stored.charged.nanos().unwrap_or(i64::MAX),
                stored.growth(),
                i64::try_from(stored.requests).unwrap_or(i64::MAX),
            ]
            .map(|number| number.to_string());
            let [session, key] = key;
            let mut params = vec![session, key];
            params.extend(columns.iter().map(|number| Some(number.as_str())));
            let put = "INSERT OR REPLACE INTO conversations
                    (session, key, last_ms, charged_nanos, growth, requests, body)
                VALUES (?, ?, CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER), ?)";
            self.put(put, &params, &stored)?;
        }
        Ok(())
    }

    fn stored_sums<T: DeserializeOwned + Default>(
        &self,
        select: &str,
        key: &[Option<&str>],
    ) -> Result<T, SqlError> {
        let rows = self.exec(select, key)?;
        rows.first().map_or_else(|| Ok(T::default()), |row| body(row, 0))
    }

    fn put<T: Serialize>(&self, put: &str, key: &[Option<&str>], sums: &T) -> Result<(), SqlError> {
        let body = serde_json::to_string(sums).map_err(|e| SqlError(e.to_string()))?;
        let mut params = key.to_vec();
        params.push(Some(&body));
        self.exec(put, &params).map(|_| ())
    }

    /// How models did: a [`ModelRow`] for each group, and since when it is measured.
    pub(super) fn performance(&self, query: &PerformanceQuery) -> Result<Value, SqlError> {
        let hourly = query.bucket.as_deref() == Some("hour");
        let whole_days =
            [query.from_ms, query.to_ms].into_iter().flatten().all(|ms| ms % DAY_MS == 0);
        let mut filter = Filter::default();
        filter.add("span = ?", if hourly || !whole_days { "hour" } else { "day" });
        filter.span("start_ms", query.from_ms, query.to_ms);
        for (name, value) in &query.filters {
            filter.add(&format!("{} = ?", known(name)?), value);
        }
        let select = format!(
            "SELECT CAST(start_ms AS TEXT), provider, model, body FROM performance {}",
            filter.clause()
        );
        let mut groups: BTreeMap<(Option<i64>, Vec<String>), ModelRow> = BTreeMap::new();
        for row in self.exec(&select, &filter.params())? {
            let bucket = query.bucket.as_deref();
            let start = bucket_start(bucket, integer(&row, 0)?);
            let group = query.group(text(&row, 1)?, text(&row, 2)?);
            let sums: Performance = body(&row, 3)?;
            groups.entry((start, group)).or_default().sums.add(&sums);
        }
        self.add_outcomes(query, &mut groups)?;
        let data = groups
            .into_iter()
            .map(|((start_ms, group), row)| ModelRow { start_ms, group, ..row })
            .collect::<Vec<_>>();
        let unknown = self.accepted_at_unknown_cost(query)?;
        Ok(
            json!({ "data": data, "measured_after": self.measured_after()?, "accepted_cost_unknown": unknown }),
        )
    }

    /// The time of the newest request that these sums lack, if they lack any.
    pub(super) fn measured_after(&self) -> Result<Option<i64>, SqlError> {
        let rows = self.exec("SELECT value FROM marks WHERE name = 'measured_after'", &[])?;
        let id = rows.first().map(|row| text(row, 0)).transpose()?;
        Ok(id.and_then(time_of_id))
    }

    /// Accepted outcomes that no model is known for.
    fn accepted_at_unknown_cost(&self, query: &PerformanceQuery) -> Result<u64, SqlError> {
        let sources = query.outcomes();
        let mut unknown = 0_u64;
        let mut add = |select: &str, params: &[String]| {
            let rows = self.exec_with(select, params)?;
            let more: u64 = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
            unknown = unknown.saturating_add(more);
            Ok::<_, SqlError>(())
        };
        if let Some(mut days) = sources.days {
            days.literal("provider IS NULL");
            let select = format!(
                "SELECT CAST(COALESCE(SUM(accepted), 0) AS TEXT) FROM outcome_days {}",
                days.clause()
            );
            add(&select, &days.owned_params())?;
        }
        let select = format!(
            "SELECT CAST(COALESCE(SUM({}), 0) AS TEXT) FROM ({}) AS o WHERE accepted = 1",
            cost_unknown(),
            sources.apart
        );
        add(&select, &sources.params)?;
        Ok(unknown)
    }

    /// Outcomes by the models that served their requests. One of a session counts for each model that took part.
    fn add_outcomes(
        &self,
        query: &PerformanceQuery,
        groups: &mut BTreeMap<(Option<i64>, Vec<String>), ModelRow>,
    ) -> Result<(), SqlError> {
        let sources = query.outcomes();
        self.add_outcome_days(query, sources.days, groups)?;
        let mut of_events = Filter::default();
        for (name, value) in &query.filters {
            of_events.add(&format!("{} = ?", known(name)?), value);
        }
        let [by_provider, by_model] =
            MODEL_DIMENSIONS.map(|name| query.group_by.iter().any(|by| by == name));
        let start = match query.bucket.as_deref() {
            Some("hour") => "o.time_ms - o.time_ms % 3600000",
            Some(_) => "o.time_ms - o.time_ms % 86400000",
            None => "0",
        };
        let picked = |row: RowBehind| {
            let RowBehind { id, session, provider, model, charged, .. } = row;
            format!(
                "o.row AS row, o.accepted AS accepted, {start} AS start, {id} AS id, o.key AS of_key,
                 {session} AS session, {provider} AS provider, {model} AS model, {charged} AS charged,
                 {} AS by_provider, {} AS by_model",
                if by_provider { provider } else { "''" },
                if by_model { model } else { "''" },
            )
        };
        let used = format!(
            "WITH o AS ({}), used AS (SELECT * FROM ({}) {})",
            sources.apart,
            rows_behind(picked).join(" UNION ALL "),
            of_events.clause()
        );
        let mut params = sources.params;
        params.extend(of_events.owned_params());
        let accepted = format!(
            "{used} SELECT CAST(start AS TEXT), by_provider, by_model, CAST(COUNT(DISTINCT row) AS TEXT)
             FROM used WHERE accepted = 1 GROUP BY start, by_provider, by_model"
        );
        let at = |row: &Row| {
            let start = bucket_start(query.bucket.as_deref(), integer(row, 0)?);
            let group = query.group(text(row, 1)?, text(row, 2)?);
            Ok::<_, SqlError>((start, group))
        };
        for row in self.exec_with(&accepted, &params)? {
            let sum = groups.entry(at(&row)?).or_default();
            sum.accepted = sum.accepted.saturating_add(integer(&row, 3)?);
        }
        let costs = format!(
            "{used} SELECT CAST(start AS TEXT), by_provider, by_model, CAST(SUM(charged) AS TEXT) FROM
             (SELECT DISTINCT start, by_provider, by_model, id, of_key, session, provider, model, charged FROM used)
             GROUP BY start, by_provider, by_model"
        );
        for row in self.exec_with(&costs, &params)? {
            groups.entry(at(&row)?).or_default().add_outcome_cost(integer(&row, 3)?)?;
        }
        Ok(())
    }

    fn add_outcome_days(
        &self,
        query: &PerformanceQuery,
        days: Option<Filter>,
        groups: &mut BTreeMap<(Option<i64>, Vec<String>), ModelRow>,
    ) -> Result<(), SqlError> {
        let Some(mut days) = days else { return Ok(()) };
        for (name, value) in &query.filters {
            days.add(&format!("NULLIF({}, '') = ?", known(name)?), value);
        }
        days.literal("provider IS NOT NULL");
        let start = if query.bucket.is_some() { "day_ms" } else { "0" };
        let [provider, model] = MODEL_DIMENSIONS
            .map(|name| if query.group_by.iter().any(|by| by == name) { name } else { "''" });
        let select = format!(
            "SELECT CAST({start} AS TEXT), {provider}, {model}, CAST(SUM(accepted) AS TEXT),
                CAST(SUM(charged_nanos) AS TEXT)
             FROM outcome_days {} GROUP BY 1, 2, 3 HAVING {NOT_EMPTY}",
            days.clause()
        );
        for row in self.exec_with(&select, &days.owned_params())? {
            let start = bucket_start(query.bucket.as_deref(), integer(&row, 0)?);
            let group = query.group(text(&row, 1)?, text(&row, 2)?);
            let sum = groups.entry((start, group)).or_default();
            sum.accepted = sum.accepted.saturating_add(integer(&row, 3)?);
            sum.add_outcome_cost(integer(&row, 4)?)?;
        }
        Ok(())
    }
}

impl ModelRow {
    fn add_outcome_cost(&mut self, nanos: i64) -> Result<(), SqlError> {
        let sum = self.outcome_cost.checked_add(Usd::from_nanos(nanos));
        self.outcome_cost = sum.ok_or_else(|| SqlError("a sum does not fit".to_owned()))?;
        Ok(())
    }
}

impl PerformanceQuery {
    /// Where the outcomes of the span are read.
    fn outcomes(&self) -> Sources {
        let (all, span) = (Filter::default(), Span { from: self.from_ms, to: self.to_ms });
        match self.bucket.as_deref() {
            Some("hour") => Sources::one_by_one(&all, span),
            _ => Sources::by_day(&all, span),
        }
    }

    fn group(&self, provider: &str, model: &str) -> Vec<String> {
        let value = |name: &String| if name == "provider" { provider } else { model }.to_owned();
        self.group_by.iter().map(value).collect()
    }
}

fn bucket_start(bucket: Option<&str>, ms: i64) -> Option<i64> {
    bucket.map(|bucket| match bucket {
        "hour" => ms,
        _ => Timestamp::from_ms(ms).date().midnight().ms(),
    })
}

fn known(name: &str) -> Result<&str, SqlError> {
    let known = MODEL_DIMENSIONS.into_iter().find(|known| *known == name);
    known.ok_or_else(|| SqlError(format!("models have no dimension `{name}`")))
}

/// A stored sum.
pub(super) fn body<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T, SqlError> {
    serde_json::from_str(text(row, column)?).map_err(|e| SqlError(format!("stored sums: {e}")))
}

/// A request's id begins with its time.
pub(crate) fn time_of_id(id: &str) -> Option<i64> {
    i64::from_str_radix(id.strip_prefix("req_")?.get(..12)?, 16).ok()
}
