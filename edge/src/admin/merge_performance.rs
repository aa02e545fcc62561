//! How models did, from the answers of several months' Ledgers: sums added up, then what is read from them.

use std::collections::BTreeMap;

use serde::Deserialize;
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
    pub(super) measured_after: Option<i64>,
}

/// The answers of all Ledgers, and since when they are whole.
pub(super) fn measured<T: serde::de::DeserializeOwned>(
    answers: &str,
) -> Option<(Vec<T>, Option<String>)> {
    let answers: Vec<String> = serde_json::from_str(answers).ok()?;
    let (mut rows, mut after) = (Vec::new(), None);
    for answer in answers {
        let answer: Measured<T> = serde_json::from_str(&answer).ok()?;
        rows.extend(answer.data);
        after = after.max(answer.measured_after);
    }
    Some((rows, after.map(|ms| Timestamp::from_ms(ms).to_string())))
}

pub(super) fn models(payload: &str, answers: &str) -> Option<Step> {
    let query: PerformanceQuery = serde_json::from_str(payload).ok()?;
    let (rows, after) = measured::<ModelRow>(answers)?;
    let mut groups: BTreeMap<(Option<i64>, Vec<String>), ModelRow> = BTreeMap::new();
    for row in rows {
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
        "data": data, "measured_after": after, "percentile_error_basis_points": ERROR_BASIS_POINTS,
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
