//! Requests from the answers of several months' Ledgers.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::{Value, json};
use tallygate_shared::money::Usd;

use super::call::Step;
use super::refusal_replay::{Replay, replay};
use crate::objects::ledger_requests::RequestsQuery;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    data: Vec<Value>,
    looked_to: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    data: Vec<Value>,
    all: u64,
}

fn id_of(row: &Value) -> &str {
    row.get("id").and_then(Value::as_str).unwrap_or_default()
}

fn answers_of<T: serde::de::DeserializeOwned>(answers: &str) -> Option<Vec<T>> {
    let answers: Vec<String> = serde_json::from_str(answers).ok()?;
    answers.iter().map(|answer| serde_json::from_str(answer).ok()).collect()
}

/// Each Ledger gave a page of its own, and one row more when it has more.
pub(super) fn page(payload: &str, answers: &str) -> Option<Step> {
    let query: RequestsQuery = serde_json::from_str(payload).ok()?;
    let limit = usize::try_from(query.limit).ok()?;
    let (mut rows, mut looked_to) = (Vec::new(), None);
    for answer in answers_of::<Listed>(answers)? {
        rows.extend(answer.data);
        // The newest month that was not looked through to its end.
        looked_to = looked_to.max(answer.looked_to);
    }
    if let Some(by) = query.sort.as_deref() {
        rows.sort_by(|a, b| (size(b, by), id_of(b)).cmp(&(size(a, by), id_of(a))));
        rows.truncate(limit);
        return Some(Step::json(
            200,
            &json!({ "data": rows, "next_cursor": null, "looked_to": looked_to }),
        ));
    }
    rows.sort_by(|a, b| Reverse(id_of(a)).cmp(&Reverse(id_of(b))));
    if let Some(oldest) = &looked_to {
        rows.retain(|row| id_of(row) >= oldest.as_str());
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map(id_of).filter(|_| more).map(str::to_owned);
    let (next, looked_to) = match last {
        Some(last) => (Some(last), None),
        None => (looked_to.clone(), looked_to),
    };
    Some(Step::json(200, &json!({ "data": rows, "next_cursor": next, "looked_to": looked_to })))
}

fn size(event: &Value, by: &str) -> i128 {
    fn sum(value: &Value) -> i128 {
        match value {
            Value::Object(fields) => fields.values().map(sum).fold(0, i128::saturating_add),
            other => other.as_u64().map_or(0, i128::from),
        }
    }
    match by {
        "charged" => event
            .get("charged")
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<Usd>().ok())
            .unwrap_or_default()
            .pico(),
        "duration" => event.get("duration_ms").map_or(0, sum),
        _ => event.pointer("/usage/tally/tokens").map_or(0, sum),
    }
}

/// Refusals decided again under another policy.
pub(super) fn replayed(payload: &str, answers: &str) -> Option<Step> {
    let question: Replay = serde_json::from_str(payload).ok()?;
    let (mut events, mut all) = (Vec::new(), 0_u64);
    for answer in answers_of::<Refused>(answers)? {
        for event in answer.data {
            events.push(serde_json::from_value(event).ok()?);
        }
        all = all.checked_add(answer.all)?;
    }
    Some(Step::json(200, &replay(&question, events, all)))
}
