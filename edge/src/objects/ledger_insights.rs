//! What the Ledger adds up for insights: the reports' raw material. What it means is said by `tallygate_shared::insights`.

use std::collections::BTreeMap;

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

use super::ledger_object::{Filter, LedgerObject};
use super::ledger_outcomes::OutcomesQuery;
use super::ledger_true_ups::PICO_PER_MILLI;
use super::sql::{Row, Sql, SqlError, integer, text};
use crate::dimensions::DIMENSIONS;

/// Rows that used something: refused requests did not.
const USED: &str = "(charged_nanos <> 0 OR input_tokens + output_tokens > 0)";

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
    /// Traffic by groups, which are expressions of our own making.
    fn traffic(&self, groups: &[&str], filter: &Filter) -> Result<Vec<(Row, Traffic)>, SqlError> {
        let named: Vec<String> =
            groups.iter().map(|group| format!("CAST({group} AS TEXT)")).collect();
        let sums = [
            "SUM(requests)",
            "SUM(streamed)",
            "SUM(turns)",
            "SUM(sessions)",
            "COUNT(DISTINCT hour_ms)",
            "SUM(input_tokens - cached_tokens - cache_write_tokens)",
            "SUM(cached_tokens)",
            "SUM(cache_write_tokens)",
            "SUM(output_tokens)",
            "SUM(resent_tokens)",
            "MAX(longest_input)",
            "SUM(input_nanos)",
            "SUM(cache_read_nanos)",
            "SUM(cache_write_nanos)",
            "SUM(output_nanos)",
            "SUM(charged_nanos)",
        ];
        let sums = sums.map(|sum| format!("CAST({sum} AS TEXT)"));
        let grouping = if groups.is_empty() {
            String::new()
        } else {
            format!("GROUP BY {}", groups.join(", "))
        };
        let select = format!(
            "SELECT {}, CAST(MIN(shortest_input) AS TEXT){} FROM rollups {} AND {USED} {grouping}",
            sums.join(", "),
            named.iter().map(|name| format!(", {name}")).collect::<String>(),
            filter.clause(),
        );
        let rows = self.sql.exec(&select, &filter.params())?;
        rows.into_iter()
            .map(|mut row| {
                let group = row.split_off(17);
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
        filter.span("hour_ms", Some(query.from_ms), Some(query.to_ms));
        let select = format!(
            "SELECT CAST(hour_ms / {DAY_MS} AS TEXT), CAST(SUM(requests) AS TEXT), CAST(SUM(charged_nanos) AS TEXT), {0}
             FROM rollups {1} AND {USED} GROUP BY hour_ms / {DAY_MS}, {0}",
            names.join(", "),
            filter.clause()
        );
        let mut usage: BTreeMap<(i64, Owner), (Usd, u64)> = BTreeMap::new();
        for row in &self.sql.exec(&select, &filter.params())? {
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
        let select = "SELECT day, provider, owner, estimated_pico, billed_pico FROM true_ups WHERE day >= ? AND day < ?";
        let day = |ms: i64| Timestamp::from_ms(ms).date().to_string();
        let (from, to) = (day(query.from_ms), day(query.to_ms));
        let mut bills: BTreeMap<(i64, String, Owner), Bill> = BTreeMap::new();
        for row in &self.sql.exec(select, &[Some(&from), Some(&to)])? {
            let provider = text(row, 1)?.to_owned();
            let mut owner: Owner = parsed(text(row, 2)?)?;
            if bills_for_models(&provider) || owner.contains_key(&query.group_by) {
                owner.retain(|name, _| *name == query.group_by);
            }
            let day = Date::parse(text(row, 0)?).map_or(0, Date::days);
            let bucket = bucket_of(day, query.bucket.as_deref());
            let fresh = || Bill {
                bucket,
                provider: provider.clone(),
                owner: owner.clone(),
                ..Bill::default()
            };
            let bill = bills.entry((bucket, provider.clone(), owner.clone())).or_insert_with(fresh);
            let estimated = Usd::from_pico(integer(row, 3)?);
            bill.estimated = bill.estimated.checked_add(estimated).ok_or_else(overflow)?;
            if row.get(4).is_some_and(Option::is_some) {
                let billed = Usd::from_pico(integer(row, 4)?);
                bill.billed = bill.billed.checked_add(billed).ok_or_else(overflow)?;
                let sum = bill.estimated_of_billed.checked_add(estimated);
                bill.estimated_of_billed = sum.ok_or_else(overflow)?;
            }
        }
        Ok(bills.into_values().collect())
    }

    fn outcomes_by(&self, query: &UnitQuery) -> Result<Vec<Outcomes>, SqlError> {
        let name = &query.group_by;
        let mut filter = Filter::default();
        filter.span("time_ms", Some(query.from_ms), Some(query.to_ms));
        // A value is summed in two parts, so that neither sum leaves 64 bits.
        let select = format!(
            "SELECT CAST(time_ms / {DAY_MS} AS TEXT), COALESCE({name}, ''), CAST(SUM(accepted) AS TEXT),
                CAST(SUM(1 - accepted) AS TEXT),
                CAST(COALESCE(SUM(accepted * (CAST(value_pico AS INTEGER) / {PICO_PER_MILLI})), 0) AS TEXT),
                CAST(COALESCE(SUM(accepted * (CAST(value_pico AS INTEGER) % {PICO_PER_MILLI})), 0) AS TEXT)
             FROM outcomes {} GROUP BY time_ms / {DAY_MS}, COALESCE({name}, '')",
            filter.clause()
        );
        let rows = self.sql.exec(&select, &filter.params())?;
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
        filter.span("hour_ms", Some(before), Some(end));
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
                rejected: count("rejected"),
                cost_usd: text("cost_usd").parse().map_err(|_| overflow())?,
            })
        };
        rows.iter().map(judged).collect()
    }

    fn seen(&self, week: Week) -> Result<Vec<Seen>, SqlError> {
        let mut filter = Filter::default();
        let from = week.plus(-WEEKS_BACK).start().ms();
        filter.span("hour_ms", Some(from), Some(week.end().ms()));
        let start = week.start().ms();
        // Weeks begin at midnight: days tell what hours would.
        let (rows, params) =
            self.summed(&["key", "provider", "model", "feature", "owner"], &filter)?;
        let params: Vec<Option<&str>> = params.iter().map(|it| Some(it.as_str())).collect();
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
            for row in &self.sql.exec(&select, &params)? {
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
        filter.span("hour_ms", Some(from.start_of_hour().ms()), Some(query.at.ms()));
        let hour = format!("hour_ms % {DAY_MS} / 3600000");
        let groups = ["feature", "purpose", "environment", "provider", "model", hour.as_str()];
        let rows = self.traffic(&groups, &filter)?.into_iter().filter_map(|(group, traffic)| {
            let mut values = group.into_iter();
            let mut next = || values.next().flatten();
            Some(SavingsRow {
                feature: next().unwrap_or_default(),
                purpose: next().unwrap_or_default(),
                environment: next().unwrap_or_default(),
                // What reached no provider cost none.
                provider: next()?,
                model: next()?,
                hour: next()?.parse().ok()?,
                traffic,
            })
        });
        Ok(rows.collect())
    }

    fn named_traffic(&self, query: &ArchetypesQuery) -> Result<Vec<NamedTraffic>, SqlError> {
        known(&query.group_by)?;
        let mut filter = Filter::default();
        filter.span("hour_ms", Some(query.from_ms), Some(query.to_ms));
        let rows = self.traffic(&[query.group_by.as_str()], &filter)?.into_iter();
        let named = rows.map(|(group, traffic)| {
            let name = group.into_iter().next().flatten().unwrap_or_default();
            NamedTraffic { name, traffic }
        });
        Ok(named.collect())
    }
}

fn traffic_of(row: &Row) -> Result<Traffic, SqlError> {
    let count = |column| integer::<i64>(row, column).map(|count| u64::try_from(count).unwrap_or(0));
    let money = |column| integer::<i64>(row, column).map(Usd::from_nanos);
    let shortest = row.get(16).and_then(Option::as_deref).and_then(|text| text.parse().ok());
    Ok(Traffic {
        requests: count(0)?,
        streamed: count(1)?,
        turns: count(2)?,
        sessions: count(3)?,
        hours: count(4)?,
        input: count(5)?,
        cache_read: count(6)?,
        cache_write: count(7)?,
        output: count(8)?,
        resent: count(9)?,
        longest_input: count(10)?,
        shortest_input: shortest,
        input_usd: money(11)?,
        cache_read_usd: money(12)?,
        cache_write_usd: money(13)?,
        output_usd: money(14)?,
        charged: money(15)?,
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
