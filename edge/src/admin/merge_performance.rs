//! How models did, from the answers of several months' Ledgers: sums added up, then what is read from them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::telemetry::latency::{ERROR_BASIS_POINTS, Latencies};
use tallygate_shared::time::Timestamp;

use super::call::Step;
use super::merge::{MAX_USAGE_ROWS, too_many_rows};
use super::merge_outcomes::cost_of_each;
use crate::objects::ledger_performance::{ModelRow, PerformanceQuery};

/// What is a percentile: its name, in basis points.
const PERCENTILES: [(&str, u64); 3] = [("p50", 5_000), ("p95", 9_500), ("p99", 9_900)];

/// What every Ledger answers with sums.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measured<T> {
    pub(super) data: Vec<T>,
    measured_after: Option<i64>,
    /// Accepted outcomes that no model is known for, where outcomes are asked about.
    #[serde(default)]
    accepted_cost_unknown: u64,
}

impl<T: DeserializeOwned> Measured<T> {
    /// The answers of all Ledgers as one.
    pub(super) fn merged(answers: &str) -> Option<Self> {
        let answers: Vec<String> = serde_json::from_str(answers).ok()?;
        let mut whole = Self { data: Vec::new(), measured_after: None, accepted_cost_unknown: 0 };
        for answer in answers {
            let answer: Self = serde_json::from_str(&answer).ok()?;
            whole.data.extend(answer.data);
            whole.measured_after = whole.measured_after.max(answer.measured_after);
            whole.accepted_cost_unknown =
                whole.accepted_cost_unknown.checked_add(answer.accepted_cost_unknown)?;
        }
        Some(whole)
    }

    /// Since when it is whole.
    pub(super) fn after(&self) -> Option<String> {
        self.measured_after.map(|ms| Timestamp::from_ms(ms).to_string())
    }
}

pub(super) fn models(payload: &str, answers: &str) -> Option<Step> {
    let query: PerformanceQuery = serde_json::from_str(payload).ok()?;
    let measured = Measured::<ModelRow>::merged(answers)?;
    let (after, unknown) = (measured.after(), measured.accepted_cost_unknown);
    let mut groups: BTreeMap<(Option<i64>, Vec<String>), ModelRow> = BTreeMap::new();
    for row in measured.data {
        let sum = groups.entry((row.start_ms, row.group.clone())).or_default();
        sum.sums.add(&row.sums);
        sum.accepted = sum.accepted.checked_add(row.accepted)?;
        sum.outcome_cost = sum.outcome_cost.checked_add(row.outcome_cost)?;
    }
    if groups.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    let data: Vec<Value> = groups
        .into_iter()
        .map(|((start, group), row)| shown(&query.group_by, start, &group, &row))
        .collect::<Option<_>>()?;
    let answer = json!({
        "data": data, "measured_after": after, "accepted_cost_unknown": unknown,
        "percentile_error_basis_points": ERROR_BASIS_POINTS,
    });
    Some(Step::json(200, &answer))
}

fn shown(names: &[String], start: Option<i64>, group: &[String], row: &ModelRow) -> Option<Value> {
    let mut item = Map::new();
    if let Some(start) = start {
        item.insert("bucket_start".to_owned(), Timestamp::from_ms(start).to_string().into());
    }
    for (name, value) in names.iter().zip(group) {
        let value = Some(value).filter(|value| !value.is_empty());
        item.insert(name.clone(), json!(value));
    }
    let sums = &row.sums;
    let sent = sums.requests.saturating_sub(sums.refused);
    let rate = |part: u64, whole: u64| {
        let share = u128::from(part).saturating_mul(10_000).checked_div(u128::from(whole))?;
        u64::try_from(share).ok()
    };
    let input = sums.tokens.input_total();
    let each_million = Usd::from_pico(sums.charged.pico().checked_mul(1_000_000)?);
    let fields = json!({
        "requests": sums.requests,
        "completed": sums.completed,
        "errors": sums.errors,
        "client_gone": sums.client_gone,
        "refused": sums.refused,
        "error_rate_basis_points": rate(sums.errors, sent),
        "attempts": sums.attempts,
        "failed_attempts": sums.failed_attempts,
        "retries": sums.retries,
        "latency_ms": percentiles(&sums.latency),
        "first_byte_ms": percentiles(&sums.first_byte),
        "tokens": sums.tokens,
        "input_tokens": input,
        "cached_tokens": sums.tokens.cache_read_total(),
        "output_tokens": sums.tokens.output_total(),
        "total_tokens": sums.tokens.total(),
        "cache_hit_rate_basis_points": rate(sums.tokens.cache_read_total(), input),
        "cost_usd": sums.cost,
        "charged_usd": sums.charged,
        "usd_per_million_tokens": cost_of_each(each_million, sums.tokens.total()),
        "usd_per_request": cost_of_each(sums.charged, sent),
        "accepted": row.accepted,
        "outcome_cost_usd": row.outcome_cost,
        "usd_per_accepted": cost_of_each(row.outcome_cost, row.accepted),
    });
    let Value::Object(fields) = fields else { return None };
    item.extend(fields);
    Some(Value::Object(item))
}

/// `null` where nothing was measured.
fn percentiles(latencies: &Latencies) -> Value {
    let read = |(name, points): (&str, u64)| (name.to_owned(), json!(latencies.percentile(points)));
    let mut fields: Map<String, Value> = PERCENTILES.into_iter().map(read).collect();
    fields.insert("count".to_owned(), latencies.count().into());
    Value::Object(fields)
}
