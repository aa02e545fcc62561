//! One answer from the answers of several Ledgers: a workspace has one for each month.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tallygate_shared::budget::baseline::propose;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};

use super::call::Step;
use super::problem::Problem;
use super::{
    merge_forecast, merge_insights, merge_outcomes, merge_performance, merge_prompts,
    merge_requests, merge_standing,
};
use crate::objects::ledger_object::{HistoryQuery, MAX_HISTORY_ROWS};
use crate::objects::ledger_true_ups::TrueUpSums;

/// What is counted in a row of usage.
pub(crate) const COUNTS: [&str; 4] = ["requests", "input_tokens", "cached_tokens", "output_tokens"];
/// What is money in a row of usage.
pub(crate) const AMOUNTS: [&str; 2] = ["cost_usd", "charged_usd"];
/// The most rows of usage in one answer: 10,000 x about 300 bytes = 3 MB.
pub(crate) const MAX_USAGE_ROWS: usize = 10_000;

/// Merges what the Ledgers answered. An answer that cannot be read makes the whole unreadable: a sum with a month
/// missing would look like a sum.
pub fn merge(method: &str, payload: &str, answers: &str) -> Step {
    let whole = match method {
        "statement" => Some(only(answers)),
        "requests" => Some(merge_requests::page(payload, answers)),
        "refused" => Some(merge_requests::replayed(payload, answers)),
        "model_performance" => Some(merge_performance::models(payload, answers)),
        "prompt_shapes" => Some(merge_prompts::shapes(answers)),
        "agent_sessions" => Some(merge_prompts::sessions(payload, answers)),
        "agent_session" => Some(merge_prompts::session(payload, answers)),
        _ => None,
    };
    if let Some(merged) = whole {
        return merged.unwrap_or_else(unreadable);
    }
    let merged = match rows_of(answers) {
        None => None,
        Some(rows) => match method {
            "usage" => return usage(rows).unwrap_or_else(unreadable),
            "refusals" => return refusals(rows).unwrap_or_else(unreadable),
            "true_ups" => true_ups(&rows),
            "request" => return one(rows),
            "archive" => archive(payload, rows),
            "forecast" => merge_forecast::forecast_of(payload, &rows),
            "books" => merge_forecast::books(rows),
            "history" => proposals(payload, &rows),
            "outcomes" => merge_outcomes::page(payload, rows),
            "outcome_summary" => merge_outcomes::summary(rows),
            "unit_economics" | "weekly_review" | "savings" | "archetypes" => {
                merge_insights::insight(method, payload, rows)
            }
            "key_use" => merge_standing::inventory(payload, &rows),
            "standing" => merge_standing::maturity(payload, &rows),
            _ => None,
        },
    };
    merged.unwrap_or_else(unreadable)
}

fn unreadable() -> Step {
    Problem::new(500, "gateway_error", "A month's ledger gave no usable answer. Try again.").into()
}

/// The answer of a question that only one month has.
fn only(answers: &str) -> Option<Step> {
    let answers: Vec<String> = serde_json::from_str(answers).ok()?;
    let [answer] = answers.as_slice() else { return None };
    let body: Map<String, Value> = serde_json::from_str(answer).ok()?;
    Some(Step::json(200, &Value::Object(body)))
}

fn rows_of(answers: &str) -> Option<Vec<Value>> {
    let answers: Vec<String> = serde_json::from_str(answers).ok()?;
    let mut rows = Vec::new();
    for answer in answers {
        match serde_json::from_str::<Map<String, Value>>(&answer).ok()?.remove("data")? {
            Value::Array(data) => rows.extend(data),
            _ => return None,
        }
    }
    Some(rows)
}

fn one(mut rows: Vec<Value>) -> Step {
    match rows.pop() {
        Some(event) => Step::json(200, &event),
        None => {
            let detail =
                "There is no such request, or its record is not in the ledger yet or no longer.";
            Problem::new(404, "not_found", detail).into()
        }
    }
}

/// How the archive stands, a row for each month that has or had events.
fn archive(payload: &str, rows: Vec<Value>) -> Option<Step> {
    #[derive(Deserialize)]
    struct Asked {
        ledgers: Vec<String>,
    }
    let asked: Asked = serde_json::from_str(payload).ok()?;
    let mut bound = false;
    let mut data = Vec::new();
    for (name, row) in asked.ledgers.iter().zip(rows) {
        let mut row = row.as_object()?.clone();
        bound |= row.remove("bound")?.as_bool()?;
        let (_, month) = name.split_once(':')?;
        row.insert("month".to_owned(), month.into());
        data.push(row);
    }
    let note = "No archive is bound: a month keeps its newest events one by one, and lets older ones go. The README \
                says how to bind one.";
    Some(Step::json(
        200,
        &json!({ "bound": bound, "note": (!bound).then_some(note), "data": data }),
    ))
}

/// Rows of the same group from several months become one; the order is that of the Ledgers.
fn usage(rows: Vec<Value>) -> Option<Step> {
    let sums = sums(rows)?;
    if sums.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    Some(Step::json(200, &json!({ "data": sums })))
}

/// Usage of refused requests, of which only the number means something.
fn refusals(rows: Vec<Value>) -> Option<Step> {
    let mut sums = sums(rows)?;
    for row in &mut sums {
        let fields = row.as_object_mut()?;
        let count = fields.remove("requests")?;
        fields.retain(|name, _| {
            !COUNTS.contains(&name.as_str()) && !AMOUNTS.contains(&name.as_str())
        });
        fields.insert("refusals".to_owned(), count);
    }
    if sums.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    Some(Step::json(200, &json!({ "data": sums })))
}

fn sums(rows: Vec<Value>) -> Option<Vec<Value>> {
    let mut sums: Vec<Value> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let mut group = row.as_object()?.clone();
        group.retain(|name, _| {
            !COUNTS.contains(&name.as_str()) && !AMOUNTS.contains(&name.as_str())
        });
        let place = *places.entry(Value::Object(group).to_string()).or_insert(sums.len());
        match sums.get_mut(place) {
            Some(sum) => add(sum, &row)?,
            None => sums.push(row),
        }
    }
    Some(sums)
}

/// The same group from several months becomes one.
fn true_ups(rows: &[Value]) -> Option<Step> {
    let mut groups: BTreeMap<String, (Value, TrueUpSums)> = BTreeMap::new();
    for row in rows {
        let group = row.get("group")?.clone();
        let sums: TrueUpSums = serde_json::from_value(row.get("sums")?.clone()).ok()?;
        let (_, sum) = groups.entry(group.to_string()).or_insert((group, TrueUpSums::default()));
        sum.add(&sums)?;
    }
    if groups.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    let rows = groups.into_values().map(|(group, sums)| json!({ "group": group, "sums": sums }));
    Some(Step::json(200, &json!({ "data": rows.collect::<Vec<_>>() })))
}

/// A finding for each value of the dimension, from its daily history in all months.
fn proposals(payload: &str, rows: &[Value]) -> Option<Step> {
    let query: HistoryQuery = serde_json::from_str(payload).ok()?;
    if rows.len() > MAX_HISTORY_ROWS {
        let remedy = "Name a filter, such as team=..., or ask for another dimension.";
        let detail = "has more than 100,000 days of history together";
        return Some(Problem::field("dimension", detail, remedy).into());
    }
    let mut histories: BTreeMap<&str, Vec<(Date, Usd)>> = BTreeMap::new();
    for row in rows {
        let (day, spent) = (row.get(1)?.as_i64()?, row.get(2)?.as_str()?.parse().ok()?);
        let history = histories.entry(row.get(0)?.as_str()?).or_default();
        history.push((Date::from_days(day), spent));
    }
    let until = Timestamp::from_ms(query.to_ms).date();
    let data = histories.into_iter().map(|(value, history)| {
        let mut found = serde_json::to_value(propose(&history, until, query.days)).ok()?;
        found.as_object_mut()?.insert("value".to_owned(), value.into());
        Some(found)
    });
    let data: Vec<Value> = data.collect::<Option<_>>()?;
    let (dimension, until) = (query.dimension, until.to_string());
    Some(Step::json(
        200,
        &json!({ "dimension": dimension, "days": query.days, "until": until, "data": data }),
    ))
}

/// What the caller hears when an answer would be too large.
pub(crate) fn too_many_rows() -> Problem {
    let detail = "makes more than 10,000 rows";
    Problem::field(
        "group_by",
        detail,
        "Ask for fewer dimensions, a shorter time, or day instead of hour.",
    )
}

/// Adds a row to a sum; `None` when something is no number or the sum does not fit.
fn add(sum: &mut Value, row: &Value) -> Option<()> {
    for name in COUNTS {
        let count = |row: &Value| row.get(name)?.as_u64();
        *sum.get_mut(name)? = count(sum)?.checked_add(count(row)?)?.into();
    }
    for name in AMOUNTS {
        let amount = |row: &Value| row.get(name)?.as_str()?.parse::<Usd>().ok();
        *sum.get_mut(name)? = amount(sum)?.checked_add(amount(row)?)?.to_string().into();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(method: &str, payload: &Value, answers: &[Value]) -> (u16, Value) {
        let answers: Vec<String> = answers.iter().map(Value::to_string).collect();
        match merge(method, &payload.to_string(), &json!(answers).to_string()) {
            Step::Respond { status, body, .. } => (status, serde_json::from_str(&body).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn row(team: &str, requests: u64, usd: &str) -> Value {
        json!({ "team": team, "requests": requests, "input_tokens": 1, "cached_tokens": 0, "output_tokens": 2,
                "cost_usd": usd, "charged_usd": usd })
    }

    #[test]
    fn the_same_group_of_two_months_is_one_row_with_exact_sums() {
        let answers = [
            json!({ "data": [row("a", 1, "9007199.254740993"), row("b", 2, "1")] }),
            json!({ "data": [row("a", 3, "0.000000001")] }),
        ];
        let (status, body) = merged("usage", &json!({}), &answers);
        assert_eq!(status, 200);
        assert_eq!(body["data"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&body["data"][0]["requests"], &body["data"][0]["input_tokens"]),
            (&json!(4), &json!(2))
        );
        assert_eq!(body["data"][0]["charged_usd"], "9007199.254740994");
    }

    #[test]
    fn a_page_over_two_months_is_in_order_and_says_where_it_goes_on() {
        let id_of = |row: &Value| row["id"].as_str().unwrap().to_owned();
        let list = |ids: &[&str]| {
            let rows: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
            json!({ "data": rows, "looked_to": null })
        };
        let (_, body) =
            merged("requests", &json!({ "limit": 3 }), &[list(&["b", "a"]), list(&["d", "c"])]);
        let ids: Vec<_> = body["data"].as_array().unwrap().iter().map(id_of).collect();
        assert_eq!(
            (ids.as_slice(), &body["next_cursor"]),
            (["d", "c", "b"].map(str::to_owned).as_slice(), &json!("b"))
        );
        let (_, body) =
            merged("requests", &json!({ "limit": 4 }), &[list(&["b", "a"]), list(&["d", "c"])]);
        assert_eq!(body["next_cursor"], Value::Null);
    }

    #[test]
    fn a_request_is_itself_and_a_missing_one_is_not_found() {
        let found = [json!({ "data": [] }), json!({ "data": [{ "id": "x" }] })];
        assert_eq!(merged("request", &json!("x"), &found), (200, json!({ "id": "x" })));
        assert_eq!(merged("request", &json!("x"), &found[..1]).0, 404);
    }

    #[test]
    fn a_month_that_cannot_be_read_is_never_left_out() {
        let bad = [json!({ "data": [row("a", 1, "1")] }), json!({ "error": "down" })];
        assert_eq!(merged("usage", &json!({}), &bad).0, 500);
        assert_eq!(merged("requests", &json!({ "limit": 5 }), &bad).0, 500);
        let bad =
            [json!({ "data": [row("a", 1, "1")] }), json!({ "data": [row("a", u64::MAX, "1")] })];
        assert_eq!(merged("usage", &json!({}), &bad).0, 500);
    }
}
