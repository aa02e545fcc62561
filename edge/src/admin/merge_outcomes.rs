//! Outcomes of several months as one answer.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::money::{PICO_PER_NANO, Usd, div_half_even};

use super::call::Step;
use super::merge::{MAX_USAGE_ROWS, too_many_rows};
use crate::objects::ledger_outcomes::Position;

/// What is counted in a row of the summary.
pub(crate) const OUTCOME_COUNTS: [&str; 5] =
    ["accepted", "rejected", "requests", "cost_unknown", "accepted_cost_unknown"];
/// What is money in it.
pub(crate) const OUTCOME_AMOUNTS: [&str; 2] = ["value_usd", "cost_usd"];

/// Each Ledger gave a page of its own, and one row more when it has more.
pub(super) fn page(payload: &str, rows: Vec<Value>) -> Option<Step> {
    let query: Value = serde_json::from_str(payload).ok()?;
    let limit = usize::try_from(query.get("limit")?.as_u64()?).ok()?;
    let mut placed = Vec::with_capacity(rows.len());
    for mut row in rows {
        // A cursor's own; the outcome has no such field.
        let position = row.as_object_mut()?.remove("position")?;
        placed.push((Position::parse(position.as_str()?)?, row));
    }
    placed.sort_by_key(|(position, _)| Reverse(*position));
    let more = placed.len() > limit;
    placed.truncate(limit);
    let next = placed.last().map(|(position, _)| position.to_string()).filter(|_| more);
    let data: Vec<Value> = placed.into_iter().map(|(_, row)| row).collect();
    Some(Step::json(200, &json!({ "data": data, "next_cursor": next })))
}

/// Rows of the same group from several months become one, with the cost of each accepted outcome.
pub(super) fn summary(rows: Vec<Value>) -> Option<Step> {
    let mut sums: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows {
        let mut group = row.as_object()?.clone();
        group.retain(|name, _| {
            !OUTCOME_COUNTS.contains(&name.as_str()) && !OUTCOME_AMOUNTS.contains(&name.as_str())
        });
        let group = Value::Object(group).to_string();
        match sums.get_mut(&group) {
            Some(sum) => add(sum, &row)?,
            None => {
                sums.insert(group, row);
            }
        }
    }
    if sums.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    let mut data: Vec<Value> = sums.into_values().collect();
    for row in &mut data {
        let count = |name: &str| row.get(name)?.as_u64();
        // The cost is of those whose cost is known: only they share it.
        let costed = count("accepted")?.checked_sub(count("accepted_cost_unknown")?)?;
        let each = cost_of_each(amount(row, "cost_usd")?, costed);
        row.as_object_mut()?.insert("cost_per_accepted_usd".to_owned(), json!(each));
    }
    Some(Step::json(200, &json!({ "data": data })))
}

/// To the nanodollar; `None` where nothing was accepted.
pub(super) fn cost_of_each(cost: Usd, accepted: u64) -> Option<Usd> {
    let pieces = i128::from(accepted).checked_mul(PICO_PER_NANO).filter(|pieces| *pieces > 0)?;
    let nanos = i64::try_from(div_half_even(cost.pico(), pieces)).ok()?;
    Some(Usd::from_nanos(nanos))
}

fn amount(row: &Value, name: &str) -> Option<Usd> {
    row.get(name)?.as_str()?.parse().ok()
}

fn add(sum: &mut Value, row: &Value) -> Option<()> {
    for name in OUTCOME_COUNTS {
        let total = sum.get(name)?.as_u64()?.checked_add(row.get(name)?.as_u64()?)?;
        *sum.get_mut(name)? = total.into();
    }
    for name in OUTCOME_AMOUNTS {
        let total = amount(sum, name)?.checked_add(amount(row, name)?)?;
        *sum.get_mut(name)? = total.to_string().into();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::merge::merge;

    fn merged(method: &str, payload: &Value, answers: &[Value]) -> (u16, Value) {
        let answers: Vec<String> = answers.iter().map(Value::to_string).collect();
        match merge(method, &payload.to_string(), &json!(answers).to_string()) {
            Step::Respond { status, body, .. } => (status, serde_json::from_str(&body).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn row(team: &str, accepted: u64, cost: &str) -> Value {
        json!({ "team": team, "accepted": accepted, "rejected": 1, "requests": 2, "cost_unknown": 0,
                "accepted_cost_unknown": 0, "value_usd": "0.5", "cost_usd": cost })
    }

    #[test]
    fn an_accepted_outcome_of_unknown_cost_does_not_make_the_others_cheaper() {
        let mut half_known = row("a", 3, "6");
        half_known["cost_unknown"] = json!(2);
        half_known["accepted_cost_unknown"] = json!(1);
        let answers = [json!({ "data": [half_known] }), json!({ "data": [row("a", 1, "3")] })];
        let (_, body) = merged("outcome_summary", &json!({}), &answers);
        let row = &body["data"][0];
        assert_eq!((&row["accepted"], &row["accepted_cost_unknown"]), (&json!(4), &json!(1)));
        assert_eq!(row["cost_per_accepted_usd"], "3");
    }

    #[test]
    fn months_add_up_and_the_cost_of_each_accepted_one_is_of_the_whole() {
        let answers = [
            json!({ "data": [row("a", 1, "1"), row("b", 0, "5")] }),
            json!({ "data": [row("a", 2, "9007199.000000001")] }),
        ];
        let (status, body) = merged("outcome_summary", &json!({}), &answers);
        assert_eq!(status, 200);
        let expect = json!({ "data": [
            { "team": "a", "accepted": 3, "rejected": 2, "requests": 4, "cost_unknown": 0,
              "accepted_cost_unknown": 0, "value_usd": "1",
              "cost_usd": "9007200.000000001", "cost_per_accepted_usd": "3002400" },
            { "team": "b", "accepted": 0, "rejected": 1, "requests": 2, "cost_unknown": 0,
              "accepted_cost_unknown": 0, "value_usd": "0.5", "cost_usd": "5", "cost_per_accepted_usd": null },
        ]});
        assert_eq!(body, expect);
    }

    #[test]
    fn a_page_of_several_months_is_in_order_and_its_cursor_is_the_last_row_s() {
        let months = [
            json!({ "data": [{ "n": 4, "position": "9.1" }, { "n": 5, "position": "7.30" }] }),
            json!({ "data": [{ "n": 1, "position": "100.2" }, { "n": 2, "position": "10.10" },
                             { "n": 3, "position": "10.9" }] }),
        ];
        let (_, body) = merged("outcomes", &json!({ "limit": 4 }), &months);
        let expect = json!({ "data": [{ "n": 1 }, { "n": 2 }, { "n": 3 }, { "n": 4 }], "next_cursor": "9.1" });
        assert_eq!(body, expect);
        let (_, body) = merged("outcomes", &json!({ "limit": 5 }), &months);
        assert_eq!(body["next_cursor"], Value::Null);
    }

    #[test]
    fn a_month_that_cannot_be_read_makes_no_sum() {
        let bad = [json!({ "data": [row("a", 1, "1"), json!({ "team": "a", "accepted": 1 })] })];
        assert_eq!(merged("outcome_summary", &json!({}), &bad).0, 500);
        let bad = [json!({ "data": [{ "n": 1, "position": "x" }] })];
        assert_eq!(merged("outcomes", &json!({ "limit": 4 }), &bad).0, 500);
    }
}
