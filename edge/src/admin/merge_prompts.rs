//! What prompts look like, from the answers of several months' Ledgers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::call::Step;
use super::merge::{MAX_USAGE_ROWS, too_many_rows};
use super::merge_outcomes::cost_of_each;
use super::merge_performance::Measured;
use super::problem::Problem;
use crate::objects::ledger_prompts::{
    Conversation, ConversationRow, MAX_TURNS, PromptSums, PromptsQuery, ShapeRow,
};

/// Shapes, the dearest first.
pub(super) fn shapes(answers: &str) -> Option<Step> {
    let measured = Measured::<ShapeRow>::merged(answers)?;
    let after = measured.after();
    let mut groups: BTreeMap<[String; 3], PromptSums> = BTreeMap::new();
    for ShapeRow { feature, model, shape, sums } in measured.data {
        groups.entry([feature, model, shape]).or_default().add(&sums);
    }
    if groups.len() > MAX_USAGE_ROWS {
        return Some(too_many_rows().into());
    }
    let mut rows: Vec<_> = groups.into_iter().collect();
    rows.sort_by_key(|(_, sums)| Reverse(sums.charged.pico()));
    let row = |([feature, model, shape], sums): ([String; 3], PromptSums)| {
        let feature = Some(feature).filter(|feature| !feature.is_empty());
        let input = sums.tokens.input_total();
        json!({
            "feature": feature, "model": model, "shape": shape, "requests": sums.requests,
            "input_tokens": input, "cached_tokens": sums.tokens.cache_read_total(),
            "output_tokens": sums.tokens.output_total(), "parts": parts(&sums.parts),
            "input_tokens_per_request": input.checked_div(sums.requests), "charged_usd": sums.charged,
            "usd_per_request": cost_of_each(sums.charged, sums.requests),
        })
    };
    let data: Vec<Value> = rows.into_iter().map(row).collect();
    Some(Step::json(200, &json!({ "data": data, "measured_after": after })))
}

/// All parts, also those that are zero.
fn parts(parts: &tallygate_shared::events::decision::PromptParts) -> Value {
    parts.named().into_iter().map(|(name, tokens)| (name.to_owned(), json!(tokens))).collect()
}

/// Sessions, the largest first. One that lasted over midnight of a month is one.
pub(super) fn sessions(payload: &str, answers: &str) -> Option<Step> {
    let query: PromptsQuery = serde_json::from_str(payload).ok()?;
    let measured = Measured::<ConversationRow>::merged(answers)?;
    let after = measured.after();
    let mut sessions: BTreeMap<(String, String), Conversation> = BTreeMap::new();
    for ConversationRow { session, key, sums } in measured.data {
        sessions.entry((session, key)).or_default().add(&sums);
    }
    let mut rows: Vec<_> = sessions.into_iter().collect();
    rows.sort_by_key(|(_, sums)| {
        Reverse(match query.sort.as_str() {
            "growth" => i128::from(sums.growth()),
            "requests" => i128::from(sums.requests),
            "last" => i128::from(sums.last_ms),
            _ => sums.charged.pico(),
        })
    });
    rows.truncate(usize::try_from(query.limit).ok()?);
    let row = |((session, key), sums): ((String, String), Conversation)| {
        let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        json!({
            "session": session, "key": key, "agent": named(&sums.agent), "feature": named(&sums.feature),
            "first_at": Timestamp::from_ms(sums.first_ms).to_string(),
            "last_at": Timestamp::from_ms(sums.last_ms).to_string(),
            "requests": sums.requests, "first_input_tokens": sums.first_input,
            "last_input_tokens": sums.last_input, "largest_input_tokens": sums.largest_input,
            "growth_tokens": sums.growth(), "input_tokens": sums.input_tokens,
            "cached_tokens": sums.cached_tokens, "output_tokens": sums.output_tokens,
            "charged_usd": sums.charged,
        })
    };
    let data: Vec<Value> = rows.into_iter().map(row).collect();
    Some(Step::json(200, &json!({ "data": data, "measured_after": after })))
}

/// One session's requests in order, each with what it has more than the one before.
pub(super) fn session(payload: &str, answers: &str) -> Option<Step> {
    let query: PromptsQuery = serde_json::from_str(payload).ok()?;
    let answers: Vec<String> = serde_json::from_str(answers).ok()?;
    let mut turns = Vec::new();
    for answer in answers {
        match serde_json::from_str::<Value>(&answer).ok()?.get_mut("data")?.take() {
            Value::Array(rows) => turns.extend(rows),
            _ => return None,
        }
    }
    let name = query.filters.get("session").cloned().unwrap_or_default();
    if turns.is_empty() {
        let detail = "No request of these months names this session, or they are no longer kept.";
        return Some(Problem::new(404, "not_found", detail).into());
    }
    turns.sort_by(|a, b| id(a).cmp(id(b)));
    let most = usize::try_from(MAX_TURNS).ok()?;
    let more = turns.len() > most;
    turns.truncate(most);
    let (mut before, mut charged) = (None, Usd::ZERO);
    for (place, turn) in turns.iter_mut().enumerate() {
        let input = turn.get("input_tokens")?.as_i64()?;
        charged = charged.checked_add(turn.get("charged_usd")?.as_str()?.parse().ok()?)?;
        let used = input > 0;
        let fields = turn.as_object_mut()?;
        fields.insert("turn".to_owned(), place.saturating_add(1).into());
        // What used nothing, such as a refusal, is no step of the growth.
        let increase = before.filter(|_| used).map(|before: i64| input.saturating_sub(before));
        fields.insert("increase_tokens".to_owned(), json!(increase));
        if used {
            before = Some(input);
        }
    }
    let answer =
        json!({ "session": name, "data": turns, "charged_usd": charged, "has_more": more });
    Some(Step::json(200, &answer))
}

fn id(turn: &Value) -> &str {
    turn.get("id").and_then(Value::as_str).unwrap_or_default()
}
