//! The policy simulator: what a request would get, by which of all limits, and what it would get under another policy.

use serde_json::{Map, Value, json};

use super::settings::tabs;
use super::{Rounds, Visit, number, text};
use crate::dashboard::view::{Block, Cell, Column, Facts, Field, Table, Tone, View};
use crate::dashboard::web::{Ask, encoded};

/// What is said of a request as text.
const TEXTS: [(&str, &str); 4] = [
    ("endpoint", "Endpoint"),
    ("model", "Model"),
    ("ip", "Caller's address"),
    ("service_tier", "Service tier"),
];
/// What is said of it as a number.
const NUMBERS: [(&str, &str); 3] = [
    ("input_tokens", "Tokens of input"),
    ("max_output_tokens", "Limit of output"),
    ("body_bytes", "Size of the body in bytes"),
];
/// What an actor token would say, and what the page's address calls it.
const ACTOR: [(&str, &str, &str); 8] = [
    ("user", "user", "User"),
    ("team", "team", "Team"),
    ("app", "app", "App"),
    ("feature", "feature", "Feature"),
    ("agent", "agent", "Agent"),
    ("customer", "customer", "Customer"),
    ("environment", "actor_environment", "Actor's environment"),
    ("session", "session", "Session"),
];

/// The request that the page's address describes; `None` while it names no key and model.
fn thought(visit: &Visit<'_>) -> Option<(String, Value)> {
    let (key, _) = visit.query.get("key").zip(visit.query.get("model"))?;
    let mut body = Map::new();
    for (name, _) in TEXTS {
        if let Some(value) = visit.query.get(name) {
            body.insert(name.to_owned(), value.into());
        }
    }
    for (name, _) in NUMBERS {
        if let Some(value) = visit.query.get(name) {
            // What is no number goes to the API as it is, which says so.
            let number = value.parse::<u64>().map_or_else(|_| json!(value), |it| json!(it));
            body.insert(name.to_owned(), number);
        }
    }
    let actor = ACTOR.iter().filter_map(|(claim, name, _)| {
        Some(((*claim).to_owned(), Value::from(visit.query.get(name)?)))
    });
    let actor: Map<String, Value> = actor.collect();
    if !actor.is_empty() {
        body.insert("actor".to_owned(), Value::Object(actor));
    }
    if let Some(policy) = visit.query.get("policy") {
        body.insert("policy".to_owned(), policy.into());
    }
    Some((key.to_owned(), Value::Object(body)))
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let mut asks = vec![Ask::get("/keys"), Ask::get("/policies")];
    if let Some((key, body)) = thought(visit) {
        let path = format!("/keys/{}/simulate", encoded(&key));
        asks.push(Ask::send("POST", path.clone(), Some(body.clone())));
        if let (Some(_), Value::Object(mut fields)) = (visit.query.get("policy"), body) {
            fields.remove("policy");
            asks.push(Ask::send("POST", path, Some(Value::Object(fields))));
        }
    }
    asks
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let mut blocks = vec![tabs(visit)];
    if let Some(answer) = rounds.value(0, 2) {
        let named = visit.query.get("policy");
        let title = named.map_or("The decision".to_owned(), |it| format!("With the policy {it}"));
        blocks.push(Block::Facts(decision(title, &answer)));
        if let Some(own) = rounds.value(0, 3) {
            blocks.push(Block::Facts(decision("With the key's own policy".to_owned(), &own)));
        }
        blocks.push(Block::Table(checks(&answer, rounds.value(0, 3).as_ref())));
    }
    View {
        title: "Policy simulator".to_owned(),
        lead: "What would this request get, and by which limit? Nothing is sent and nothing is set aside.".to_owned(),
        filters: fields(visit, rounds),
        blocks,
        ..View::default()
    }
}

fn decision(title: String, answer: &Value) -> Facts {
    let badge = match text(answer, "decision") {
        "admit" => Cell::Badge { tone: Tone::Good, text: "let through".to_owned() },
        _ => Cell::Badge { tone: Tone::Bad, text: "refused".to_owned() },
    };
    let targets = answer.get("targets").and_then(Value::as_array).cloned().unwrap_or_default();
    let targets: Vec<&str> = targets.iter().filter_map(Value::as_str).collect();
    let limit = answer.get("set_max_output_tokens").and_then(Value::as_u64);
    let rows = vec![
        ("Decision".to_owned(), badge),
        ("Status".to_owned(), Cell::Text(number(answer, "status").to_string())),
        ("Reason".to_owned(), Cell::text(text(answer, "message"))),
        ("Code".to_owned(), Cell::text(text(answer, "code"))),
        ("Set aside for it".to_owned(), Cell::usd(text(answer, "hold_usd"))),
        ("Left of the tightest cap".to_owned(), Cell::usd(text(answer, "budget_remaining_usd"))),
        ("Goes to".to_owned(), Cell::text(&targets.join(", then "))),
        ("Limit of output written into it".to_owned(), limit.map_or(Cell::Nothing, Cell::count)),
    ];
    Facts { title, rows }
}

fn checks(answer: &Value, own: Option<&Value>) -> Table {
    let of = |answer: &Value| {
        answer.get("checks").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let other = own.map(of);
    let badge = |check: &Value| match check.get("refusal") {
        None => Cell::Badge { tone: Tone::Good, text: "passes".to_owned() },
        Some(_) => Cell::Badge { tone: Tone::Bad, text: "refuses".to_owned() },
    };
    let row = |check: &Value| {
        let name = text(check, "check");
        let why = check.get("refusal").map(super::leaves).unwrap_or_default();
        let why: Vec<String> =
            why.iter().map(|(name, cell)| format!("{name}: {}", cell.exact())).collect();
        let mut row = vec![Cell::text(&name.replace('_', " ")), badge(check)];
        if let Some(other) = &other {
            let same = other.iter().find(|it| text(it, "check") == name);
            row.push(same.map_or(Cell::Nothing, badge));
        }
        row.push(Cell::text(&why.join("; ")));
        row
    };
    let mut columns = vec![Column::text("check", "Limit"), Column::text("verdict", "Verdict")];
    if other.is_some() {
        columns.push(Column::text("own_verdict", "With the key's own policy"));
    }
    columns.push(Column::text("why", "Why"));
    Table {
        id: "checks",
        caption: "Every limit, in the order in which they are looked at".to_owned(),
        columns,
        rows: Some(of(answer).iter().map(row).collect()),
        empty: "No limit was looked at.".to_owned(),
        ..Table::default()
    }
}

fn fields(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Field> {
    let value = |name: &str| visit.query.text(name);
    let keys = rounds.rows(0, 0).unwrap_or_default();
    let usable = keys.iter().filter(|key| text(key, "status") != "revoked");
    let mut keys: Vec<(&str, &str)> =
        usable.map(|key| (text(key, "id"), text(key, "name"))).collect();
    keys.insert(0, ("", "Choose a key"));
    let policies = rounds.value(0, 1).unwrap_or_default();
    let names = policies.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let mut policies: Vec<(&str, &str)> = names.map(|name| (name, name)).collect();
    policies.insert(0, ("", "The key's own"));
    let mut fields = vec![
        Field::choice("key", "Key", value("key"), &keys),
        Field::choice("policy", "Policy", value("policy"), &policies),
    ];
    let texts = TEXTS.iter().map(|(name, label)| match *name {
        "model" => Field::text(name, label, value(name)).required(),
        "endpoint" => {
            let endpoint = visit.query.get(name).unwrap_or("/v1/chat/completions");
            Field::text(name, label, endpoint)
        }
        _ => Field::text(name, label, value(name)),
    });
    fields.extend(texts);
    let numbers = NUMBERS.iter().map(|(name, label)| Field::text(name, label, value(name)));
    fields.extend(numbers);
    fields.extend(ACTOR.iter().map(|(_, name, label)| Field::text(name, label, value(name))));
    fields
}
