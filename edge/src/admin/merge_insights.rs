//! Insights from what the months' Ledgers say.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tallygate_shared::insights::archetype::{BANDS, compare};
use tallygate_shared::insights::review::{Findings, draft};
use tallygate_shared::insights::savings::{Question, Row, savings};
use tallygate_shared::insights::traffic::Traffic;
use tallygate_shared::insights::unit::{Unit, together, units};
use tallygate_shared::time::{Date, Timestamp};

use super::call::Step;
use super::merge::{MAX_USAGE_ROWS, too_many_rows};
use crate::objects::ledger_commitments::hours_of;
use crate::objects::ledger_insights::{
    ArchetypesQuery, NamedTraffic, ReviewQuery, SavingsQuery, UnitQuery, UnitRows,
};

/// The answer to an insight; `None` when something cannot be read or does not fit.
pub(super) fn insight(method: &str, payload: &str, rows: Vec<Value>) -> Option<Step> {
    match method {
        "unit_economics" => unit_economics(payload, rows),
        "weekly_review" => weekly_review(payload, rows),
        "savings" => all_savings(payload, rows),
        _ => archetypes(payload, rows),
    }
}

fn read<T: DeserializeOwned>(rows: Vec<Value>) -> Option<Vec<T>> {
    rows.into_iter().map(|row| serde_json::from_value(row).ok()).collect()
}

fn unit_economics(payload: &str, rows: Vec<Value>) -> Option<Step> {
    let query: UnitQuery = serde_json::from_str(payload).ok()?;
    let mut all = UnitRows::default();
    for month in read::<UnitRows>(rows)? {
        all.usage.extend(month.usage);
        all.bills.extend(month.bills);
        all.outcomes.extend(month.outcomes);
    }
    let found = units(&query.group_by, &all.usage, &all.bills, &all.outcomes)?;
    if found.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    let totals = together(found.values(), |unit| unit.name.clone())?;
    let mut over_time = Vec::new();
    for bucket in found.keys().map(|(bucket, _)| *bucket).collect::<BTreeSet<i64>>() {
        let within = found.iter().filter(|((start, _), _)| *start == bucket).map(|(_, unit)| unit);
        let all = together(within, |_| ())?.remove(&()).unwrap_or_default();
        let bucket_start = Some(Date::from_days(bucket).to_string());
        over_time.push(Unit { name: String::new(), bucket_start, ..all });
    }
    let overall = together(found.values(), |_| ())?.remove(&()).unwrap_or_default();
    let mut totals: Vec<Unit> = totals.into_values().collect();
    totals.sort_by_key(|unit| std::cmp::Reverse(unit.total_usd));
    let dated = |((bucket, _), unit): ((i64, String), Unit)| {
        let bucket_start = Some(Date::from_days(bucket).to_string());
        Unit { bucket_start, ..unit }
    };
    // Without a bucket, the totals are all there is.
    let data: Vec<Unit> = match query.bucket {
        Some(_) => found.into_iter().map(dated).collect(),
        None => {
            over_time.clear();
            Vec::new()
        }
    };
    let day = |ms: i64| Timestamp::from_ms(ms).date().to_string();
    let overall = Unit { name: String::new(), ..overall };
    Some(Step::json(
        200,
        &json!({
            "group_by": query.group_by, "bucket": query.bucket, "from": day(query.from_ms),
            "to": day(query.to_ms), "overall": overall, "totals": totals, "over_time": over_time, "data": data,
        }),
    ))
}

/// The Alerts object knows how the budgets stand: it says the rest.
fn weekly_review(payload: &str, rows: Vec<Value>) -> Option<Step> {
    let query: ReviewQuery = serde_json::from_str(payload).ok()?;
    let mut all = Findings::default();
    for month in read::<Findings>(rows)? {
        all.movements.extend(month.movements);
        all.judged.extend(month.judged);
        all.seen.extend(month.seen);
    }
    let draft = draft(&query.workspace, query.week, &all, query.at)?;
    let method = if query.markdown { "review_markdown" } else { "review" };
    Some(Step::Alerts { name: query.workspace, method, payload: json!(draft).to_string() })
}

fn all_savings(payload: &str, mut rows: Vec<Value>) -> Option<Step> {
    let query: SavingsQuery = serde_json::from_str(payload).ok()?;
    let hours = hours_of(&mut rows)?;
    let rows: Vec<Row> = read(rows)?;
    let question = Question {
        rows: &rows,
        market: &query.market,
        archetypes: &query.archetypes,
        commitments: &query.commitments,
        hours: &hours,
        since: query.since,
        days: query.days,
        at: query.at,
    };
    Some(Step::json(200, &json!(savings(&question)?)))
}

fn archetypes(payload: &str, rows: Vec<Value>) -> Option<Step> {
    let query: ArchetypesQuery = serde_json::from_str(payload).ok()?;
    let mut sums: BTreeMap<String, Traffic> = BTreeMap::new();
    for row in read::<NamedTraffic>(rows)? {
        sums.entry(row.name).or_default().add(&row.traffic)?;
    }
    if sums.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    let declared =
        |name: &str| query.archetypes.get(name).copied().filter(|_| query.group_by == "feature");
    let mut data: Vec<_> =
        sums.iter().map(|(name, traffic)| compare(name, traffic, declared(name))).collect();
    data.sort_by_key(|row| std::cmp::Reverse(row.requests));
    Some(Step::json(200, &json!({ "group_by": query.group_by, "bands": BANDS, "data": data })))
}
