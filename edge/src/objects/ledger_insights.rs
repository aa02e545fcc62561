//! What the Ledger adds up for insights: the reports' raw material. What it means is said by `tallygate_shared::insights`.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::insights::archetype::Archetype;
use tallygate_shared::insights::commitments::Commitment;
use tallygate_shared::insights::market::Market;
use tallygate_shared::insights::review::{Findings, Judged, Movement, Seen, WEEKS_BACK};
use tallygate_shared::insights::savings::Row as SavingsRow;
use tallygate_shared::insights::traffic::Traffic;
use tallygate_shared::insights::unit::{
    Bill, Outcomes, Owner, Usage, bills_for_models, sharing_dimensions,
};
use tallygate_shared::insights::week::Week;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::ledger_days::Span;
use super::ledger_object::{Filter, LedgerObject};
use super::ledger_outcome_days::{NOT_EMPTY, Sources, counted};
use super::ledger_outcomes::OutcomesQuery;
use super::ledger_true_ups::PICO_PER_MILLI;
use super::sql::{Row, Sql, SqlError, integer, text};
use crate::dimensions::DIMENSIONS;

/// Rows that used something: refused requests did not.
const USED: &str = "(charged_nanos <> 0 OR input_tokens + output_tokens > 0)";

/// What of rows of sums and their shape adds up.
const ADDED: [&str; 14] = [
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "charged_nanos",
    "cache_write_tokens",
    "streamed",
    "turns",
    "sessions",
    "resent_tokens",
    "input_nanos",
    "cache_read_nanos",
    "cache_write_nanos",
    "output_nanos",
];

/// What tells the traffic apart that savings are looked for in.
const STREAM: &[&str] = &["feature", "purpose", "environment", "provider", "model"];

/// The dimensions that unit economics and archetypes are told by.
pub const UNIT_DIMENSIONS: [&str; 9] =
    ["feature", "customer", "team", "app", "agent", "user", "owner", "cost_centre", "key"];

/// A question about unit economics.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnitQuery {
    /// From this moment on: midnight.
    pub from_ms: i64,
    /// Before this moment: midnight.
    pub to_ms: i64,
    /// The dimension.
    pub group_by: String,
    /// `day`, `week` or `month`; absent: the whole span in one.
    pub bucket: Option<String>,
    /// What bills call the workspace's providers.
    pub providers: BTreeSet<String>,
}

/// A question for a weekly review.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewQuery {
    /// The tenant, whose Alerts object knows the budgets.
    pub workspace: String,
    /// The week.
    pub week: Week,
    /// The time.
    pub at: Timestamp,
    /// Whether as Markdown.
    #[serde(default)]
    pub markdown: bool,
}

/// A question about savings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavingsQuery {
    /// Before this moment.
    pub at: Timestamp,
    /// So many days back.
    pub days: u32,
    /// What is for sale.
    pub market: Market,
    /// The declared kinds of features.
    pub archetypes: BTreeMap<String, Archetype>,
    /// The declared commitments.
    pub commitments: BTreeMap<String, Commitment>,
    /// The first hour that commitments are looked at for.
    pub since: Timestamp,
}

/// A question about archetypes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchetypesQuery {
    /// From this moment on.
    pub from_ms: i64,
    /// Before this moment.
    pub to_ms: i64,
    /// The dimension: `feature` or `app`.
    pub group_by: String,
    /// The declared kinds.
    pub archetypes: BTreeMap<String, Archetype>,
}

/// What one month says about unit economics.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitRows {
    /// Use as charged.
    pub usage: Vec<Usage>,
    /// Bills.
    pub bills: Vec<Bill>,
    /// Outcomes.
    pub outcomes: Vec<Outcomes>,
}

/// What one month says about archetypes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedTraffic {
    /// The feature or app; empty for none.
    pub name: String,
    /// Its traffic.
    pub traffic: Traffic,
}

/// A bucket of time as its first day.
pub fn bucket_of(day: i64, bucket: Option<&str>) -> i64 {
    match bucket {
        None => 0,
        Some("week") => Week::of(Date::from_days(day)).monday().days(),
        Some("month") => Date::from_days(day).first_of_month().days(),
        Some(_) => day,
    }
}

impl<S: Sql> LedgerObject<S> {
    /// Traffic by groups, which are expressions of our own making over the dimensions. How many hours had use is not
    /// counted: it takes as long as all the rest.
    fn traffic(&self, groups: &[&str], filter: &Filter) -> Result<Vec<(Row, Traffic)>, SqlError> {
        let (rows, params) = self.summed_shape(filter)?;
        let names: Vec<String> = (0..groups.len()).map(|place| format!("g{place}")).collect();
        let named = groups.iter().zip(&names).map(|(group, name)| format!(", {group} AS {name}"));
        let from = format!(
            "(SELECT *{} FROM {rows} WHERE {USED}) GROUP BY {}",
            named.collect::<String>(),
            names.join(", ")
        );
        self.traffic_of(&names, "0", &from, &params)
    }

    /// The same with the hours of use, which are those of all days.
    fn traffic_and_hours(
        &self,
        groups: &[&str],
        filter: &Filter,
    ) -> Result<Vec<(Row, Traffic)>, SqlError> {
        let (rows, params) = self.summed_shape(filter)?;
        let names: Vec<String> = (0..groups.len()).map(|place| format!("g{place}")).collect();
        let named: Vec<String> =
            groups.iter().zip(&names).map(|(group, name)| format!("{group} AS {name}")).collect();
        let with_day = |groups: &[String]| [groups, &["day".to_owned()][..]].concat().join(", ");
        // First each day of a group, in whose rows an hour may come several times; then its days.
        let each = ADDED.map(|name| format!("SUM({name}) AS {name}")).join(", ");
        let hours: Vec<String> =
            (0..24).map(|hour| format!("MAX(hours & {})", 1_i64 << hour)).collect();
        let days = format!(
            "SELECT {}, {each}, MAX(longest_input) AS longest_input, MIN(shortest_input) AS shortest_input,
                {} AS hours FROM (SELECT *, hour_ms / {DAY_MS} AS day FROM {rows} WHERE {USED}) GROUP BY {}",
            with_day(&named),
            hours.join(" | "),
            with_day(&names),
        );
        let counted: Vec<String> = (0..24).map(|hour| format!("(hours >> {hour} & 1)")).collect();
        let hours = format!("SUM({})", counted.join(" + "));
        let from = format!("({days}) GROUP BY {}", names.join(", "));
        self.traffic_of(&names, &hours, &from, &params)
    }

    /// Traffic by the names of groups from rows that are grouped by them.
    fn traffic_of(
        &self,
        names: &[String],
        hours: &str,
        from: &str,
        params: &[String],
    ) -> Result<Vec<(Row, Traffic)>, SqlError> {
        let sums = ADDED.map(|name| format!("CAST(SUM({name}) AS TEXT)")).join(", ");
        let select = format!(
            "SELECT {sums}, CAST({hours} AS TEXT), CAST(MAX(longest_input) AS TEXT),
                CAST(MIN(shortest_input) AS TEXT){} FROM {from}",
            names.iter().map(|name| format!(", CAST({name} AS TEXT)")).collect::<String>(),
        );
        self.exec_with(&select, params)?
            .into_iter()
            .map(|mut row| {
                let group = row.split_off(ADDED.len() + 3);
                Ok((group, traffic_of(&row)?))
            })
            .collect()
    }

    /// Answers `unit_economics`, `weekly_review`, `savings` or `archetypes`; `None` for anything else.
    pub(super) fn insight(&self, method: &str, payload: &str) -> Result<Option<Value>, SqlError> {
        let data = match method {
            "unit_economics" => json!([self.unit_rows(&parsed(payload)?)?]),
            "weekly_review" => json!([self.findings(&parsed(payload)?)?]),
            "savings" => {
                let query = parsed(payload)?;
                let rows = self.savings(&query)?.into_iter().map(|row| json!(row));
                json!(self.with_commitments(rows.collect(), &query)?)
            }
            "archetypes" => json!(self.named_traffic(&parsed(payload)?)?),
            _ => return Ok(None),
        };
        Ok(Some(json!({ "data": data })))
    }

    fn unit_rows(&self, query: &UnitQuery) -> Result<UnitRows, SqlError> {
        known(&query.group_by)?;
        let bucket = query.bucket.as_deref();
        let bills = self.bills(query)?;
        let mut names = vec![query.group_by.clone()];
        let extra = sharing_dimensions(&bills, &query.group_by);
        names.extend(extra.into_iter().filter(|name| DIMENSIONS.contains(&name.as_str())));
        let mut filter = Filter::default();
        filter.hours(Some(query.from_ms), Some(query.to_ms));
        let columns: Vec<&str> = names.iter().map(String::as_str).collect();
        let (rows, params) = self.summed(&columns, &filter)?;
        let select = format!(
            "SELECT CAST(hour_ms / {DAY_MS} AS TEXT), CAST(SUM(requests) AS TEXT), CAST(SUM(charged_nanos) AS TEXT), {0}
             FROM {rows} WHERE {USED} GROUP BY hour_ms / {DAY_MS}, {0}",
            names.join(", "),
        );
        let mut usage: BTreeMap<(i64, Owner), (Usd, u64)> = BTreeMap::new();
        for row in &self.exec_with(&select, &params)? {
            let values = names.iter().zip(row.iter().skip(3));
            let owner = values.filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
            let owner: Owner = owner.collect();
            let sum = usage.entry((bucket_of(integer(row, 0)?, bucket), owner)).or_default();
            let more = Usd::from_nanos(integer(row, 2)?);
            sum.0 = sum.0.checked_add(more).ok_or_else(overflow)?;
            sum.1 = sum.1.checked_add(integer(row, 1)?).ok_or_else(overflow)?;
        }
        let usage = usage.into_iter().map(|((bucket, owner), (charged, requests))| Usage {
            bucket,
            owner,
            charged,
            requests,
        });
        Ok(UnitRows { usage: usage.collect(), bills, outcomes: self.outcomes_by(query)? })
    }

    /// True-ups by bucket, provider and owner. A model's bill keeps of its owner only what is asked for.
    fn bills(&self, query: &UnitQuery) -> Result<Vec<Bill>, SqlError> {
        let day = |ms: i64| Timestamp::from_ms(ms).date().to_string();
        let mut days = Filter::default();
        days.add("day >= ?", &day(query.from_ms));
        days.add("day < ?", &day(query.to_ms));
        let value = format!("of_{}", query.group_by);
        let owner = format!("IIF({value} IS NULL, owner, NULL)");
        let groups = ["day".to_owned(), "provider".to_owned(), value, owner];
        let found = self.sums(&groups, &days)?;
        let estimated = found.iter().filter(|(_, sums)| sums.estimated_usd != Usd::ZERO);
        let estimated = estimated.filter_map(|(group, _)| group.get(1).cloned().flatten());
        let used: BTreeSet<String> = query.providers.iter().cloned().chain(estimated).collect();
        let mut bills: BTreeMap<(i64, String, Owner), Bill> = BTreeMap::new();
        for (group, sums) in found {
            let mut values = group.into_iter().map(Option::unwrap_or_default);
            let mut next = || values.next().unwrap_or_default();
            let (day, provider, value, rest) = (next(), next(), next(), next());
            let models = bills_for_models(&provider, &used);
            let owner = if rest.is_empty() {
                Owner::from([(query.group_by.clone(), value)])
            } else if models {
                Owner::new()
            } else {
                parsed(&rest)?
            };
            let bucket =
                bucket_of(Date::parse(&day).map_or(0, Date::days), query.bucket.as_deref());
            let fresh = || Bill {
                bucket,
                provider: provider.clone(),
                models,
                owner: owner.clone(),
                ..Bill::default()
            };
            let bill = bills.entry((bucket, provider.clone(), owner.clone())).or_insert_with(fresh);
            for (sum, more) in [
                (&mut bill.estimated, sums.estimated_usd),
                (&mut bill.billed, sums.billed_usd),
                (&mut bill.estimated_of_billed, sums.estimated_of_billed_usd),
            ] {
                *sum = sum.checked_add(more).ok_or_else(overflow)?;
            }
        }
        Ok(bills.into_values().collect())
    }

    fn outcomes_by(&self, query: &UnitQuery) -> Result<Vec<Outcomes>, SqlError> {
        let name = &query.group_by;
        let span = Span { from: Some(query.from_ms), to: Some(query.to_ms) };
        let sources = Sources::by_day(&Filter::default(), span);
        let (mut parts, mut params) = (Vec::new(), Vec::new());
        if let Some(days) = &sources.days {
            let sums = "accepted, rejected, value_milli, value_rest";
            parts.push(format!(
                "SELECT day_ms AS day, {name} AS name, {sums} FROM outcome_days {}",
                days.clause()
            ));
            params.extend(days.owned_params());
        }
        let [accepted, rejected, milli, rest] = counted();
        parts.push(format!(
            "SELECT time_ms - time_ms % {DAY_MS} AS day, {name} AS name, {accepted} AS accepted,
                {rejected} AS rejected, {milli} AS value_milli, {rest} AS value_rest FROM ({})",
            sources.apart
        ));
        params.extend(sources.params);
        let select = format!(
            "SELECT CAST(day / {DAY_MS} AS TEXT), COALESCE(name, ''), CAST(SUM(accepted) AS TEXT),
                CAST(SUM(rejected) AS TEXT), CAST(COALESCE(SUM(value_milli), 0) AS TEXT),
                CAST(COALESCE(SUM(value_rest), 0) AS TEXT)
             FROM ({}) GROUP BY day, COALESCE(name, '') HAVING {NOT_EMPTY}",
            parts.join(" UNION ALL ")
        );
        let rows = self.exec_with(&select, &params)?;
        let outcome = |row: &Row| {
            let value = integer::<i128>(row, 4)? * PICO_PER_MILLI + integer::<i128>(row, 5)?;
            Ok(Outcomes {
                bucket: bucket_of(integer(row, 0)?, query.bucket.as_deref()),
                name: text(row, 1)?.to_owned(),
                accepted: integer(row, 2)?,
                rejected: integer(row, 3)?,
                value: Usd::from_pico(value),
            })
        };
        rows.iter().map(outcome).collect()
    }

    fn findings(&self, query: &ReviewQuery) -> Result<Findings, SqlError> {
        let (start, end) = (query.week.start().ms(), query.week.end().ms());
        let before = query.week.plus(-1).start().ms();
        let mut filter = Filter::default();
        filter.hours(Some(before), Some(end));
        let after = format!("hour_ms >= {start}");
        let groups = [after.as_str(), "team", "feature", "owner", "provider", "model"];
        let movements = self.traffic(&groups, &filter)?.into_iter().map(|(group, traffic)| {
            let mut names = group.into_iter().map(Option::unwrap_or_default);
            let mut next = || names.next().unwrap_or_default();
            Movement {
                after: next() == "1",
                team: next(),
                feature: next(),
                owner: next(),
                model: format!("{}/{}", next(), next()),
                traffic,
            }
        });
        let movements = movements.collect();
        let mut judged = self.judged(false, before, start)?;
        judged.extend(self.judged(true, start, end)?);
        Ok(Findings { movements, judged, seen: self.seen(query.week)? })
    }

    fn judged(&self, after: bool, from: i64, to: i64) -> Result<Vec<Judged>, SqlError> {
        let query = OutcomesQuery {
            from_ms: Some(from),
            to_ms: Some(to),
            group_by: vec!["feature".to_owned()],
            ..OutcomesQuery::default()
        };
        let summary = self.outcome_summary(&query)?;
        let rows = summary.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        let judged = |row: &Value| {
            let count = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            Ok(Judged {
                after,
                feature: text("feature").to_owned(),
                accepted: count("accepted"),
                accepted_cost_unknown: count("accepted_cost_unknown"),
                rejected: count("rejected"),
                cost_usd: text("cost_usd").parse().map_err(|_| overflow())?,
            })
        };
        rows.iter().map(judged).collect()
    }

    fn seen(&self, week: Week) -> Result<Vec<Seen>, SqlError> {
        let mut filter = Filter::default();
        let from = week.plus(-WEEKS_BACK).start().ms();
        filter.hours(Some(from), Some(week.end().ms()));
        let start = week.start().ms();
        // Weeks begin at midnight: days tell what hours would.
        let (rows, params) =
            self.summed(&["key", "provider", "model", "feature", "owner"], &filter)?;
        let mut seen = Vec::new();
        let model = "provider || '/' || model";
        for (dimension, name) in
            [("key", "key"), ("model", model), ("feature", "feature"), ("owner", "owner")]
        {
            let select = format!(
                "SELECT {name}, CAST(MIN(hour_ms) AS TEXT),
                    CAST(SUM(CASE WHEN hour_ms >= {start} THEN charged_nanos ELSE 0 END) AS TEXT)
                 FROM {rows} WHERE {USED} AND {name} IS NOT NULL GROUP BY {name}"
            );
            for row in &self.exec_with(&select, &params)? {
                seen.push(Seen {
                    dimension: dimension.to_owned(),
                    name: text(row, 0)?.to_owned(),
                    first: Timestamp::from_ms(integer(row, 1)?),
                    charged_usd: Usd::from_nanos(integer(row, 2)?),
                });
            }
        }
        Ok(seen)
    }

    fn savings(&self, query: &SavingsQuery) -> Result<Vec<SavingsRow>, SqlError> {
        let mut filter = Filter::default();
        let from = query.at.plus_ms(-i64::from(query.days) * DAY_MS);
        filter.hours(Some(from.start_of_hour().ms()), Some(query.at.ms()));
        let groups = [STREAM, &["streamed = 0 AND turns = 0"]].concat();
        let mut rows: BTreeMap<Row, SavingsRow> = BTreeMap::new();
        for (group, traffic) in self.traffic_and_hours(&groups, &filter)? {
            let mut values = group.iter().map(Option::as_deref);
            let mut next = || values.next().flatten();
            let owned = |value: Option<&str>| value.unwrap_or_default().to_owned();
            let (feature, purpose, environment) = (owned(next()), owned(next()), owned(next()));
            // What reached no provider cost none.
            let (Some(provider), Some(model)) = (next(), next()) else { continue };
            let (provider, model) = (provider.to_owned(), model.to_owned());
            let by_hour = BTreeMap::new();
            let row =
                SavingsRow { feature, purpose, environment, provider, model, by_hour, traffic };
            rows.insert(group, row);
        }
        self.by_hour(&filter, &mut rows)?;
        Ok(rows.into_values().collect())
    }

    /// Spreads the requests that nobody reads along over the hours of the day: those of a day's row evenly over its hours.
    fn by_hour(
        &self,
        filter: &Filter,
        found: &mut BTreeMap<Row, SavingsRow>,
    ) -> Result<(), SqlError> {
        let (rows, params) = self.summed_shape(filter)?;
        let stream = STREAM.join(", ");
        let select = format!(
            "SELECT {stream}, '1', CAST(hours AS TEXT), CAST(SUM(requests) AS TEXT) FROM {rows}
             WHERE {USED} AND streamed = 0 AND turns = 0 GROUP BY {stream}, hours"
        );
        for mut group in self.exec_with(&select, &params)? {
            let sums = group.split_off(STREAM.len() + 1);
            let Some(row) = found.get_mut(&group) else { continue };
            let (hours, requests): (u32, u64) = (integer(&sums, 0)?, integer(&sums, 1)?);
            let used = (0..24_u8).filter(|hour| hours >> hour & 1 == 1);
            let each = requests / u64::from(hours.count_ones().max(1));
            let mut rest = requests % u64::from(hours.count_ones().max(1));
            for hour in used {
                let more = u64::from(rest > 0);
                rest = rest.saturating_sub(more);
                let sum = row.by_hour.entry(hour).or_default();
                *sum = sum.saturating_add(each).saturating_add(more);
            }
        }
        Ok(())
    }

    fn named_traffic(&self, query: &ArchetypesQuery) -> Result<Vec<NamedTraffic>, SqlError> {
        known(&query.group_by)?;
        let mut filter = Filter::default();
        filter.hours(Some(query.from_ms), Some(query.to_ms));
        let rows = self.traffic_and_hours(&[query.group_by.as_str()], &filter)?.into_iter();
        let named = rows.map(|(group, traffic)| {
            let name = group.into_iter().next().flatten().unwrap_or_default();
            NamedTraffic { name, traffic }
        });
        Ok(named.collect())
    }
}

/// A row of [`ADDED`], hours, the longest and the shortest input.
fn traffic_of(row: &Row) -> Result<Traffic, SqlError> {
    let place = |name| ADDED.iter().position(|it| *it == name).unwrap_or(usize::MAX);
    let count = |name| integer::<i64>(row, place(name)).map(|it| u64::try_from(it).unwrap_or(0));
    let money = |name| integer::<i64>(row, place(name)).map(Usd::from_nanos);
    let (cache_read, cache_write) = (count("cached_tokens")?, count("cache_write_tokens")?);
    let shortest = row.get(ADDED.len() + 2).and_then(Option::as_deref);
    Ok(Traffic {
        requests: count("requests")?,
        streamed: count("streamed")?,
        turns: count("turns")?,
        sessions: count("sessions")?,
        hours: integer(row, ADDED.len())?,
        input: count("input_tokens")?.saturating_sub(cache_read).saturating_sub(cache_write),
        cache_read,
        cache_write,
        output: count("output_tokens")?,
        resent: count("resent_tokens")?,
        longest_input: integer(row, ADDED.len() + 1)?,
        shortest_input: shortest.and_then(|text| text.parse().ok()),
        input_usd: money("input_nanos")?,
        cache_read_usd: money("cache_read_nanos")?,
        cache_write_usd: money("cache_write_nanos")?,
        output_usd: money("output_nanos")?,
        charged: money("charged_nanos")?,
    })
}

/// A name becomes part of a statement only when it is one of ours.
fn known(name: &str) -> Result<(), SqlError> {
    if UNIT_DIMENSIONS.contains(&name) {
        Ok(())
    } else {
        Err(SqlError(format!("no dimension `{name}` of insights")))
    }
}

fn overflow() -> SqlError {
    SqlError("a sum of insights does not fit".to_owned())
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, SqlError> {
    serde_json::from_str(text).map_err(|e| SqlError(format!("insights: {e}")))
}
