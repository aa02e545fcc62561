//! Requests: live, filtered by anything, and one of them whole.

use serde_json::Value;

use super::{Period, Rounds, Visit, number, text};
use crate::dashboard::view::{Block, Cell, Column, Facts, Field, Link, Table, Tone, View};
use crate::dashboard::web::{Ask, encoded};

const FILTERS: [&str; 18] = [
    "status",
    "key",
    "owner",
    "cost_centre",
    "purpose",
    "environment",
    "user",
    "team",
    "app",
    "feature",
    "agent",
    "customer",
    "actor_environment",
    "provider",
    "model",
    "outcome",
    "code",
    "cursor",
];
/// Filters that have a field of their own; the others come with links and stay.
const FIELDS: [(&str, &str); 6] = [
    ("key", "Key"),
    ("team", "Team"),
    ("feature", "Feature"),
    ("provider", "Provider"),
    ("model", "Model"),
    ("code", "Refused for"),
];
const OUTCOMES: [(&str, &str); 8] = [
    ("", "All"),
    ("completed", "Completed"),
    ("refused", "Refused"),
    ("provider_error", "Provider's error"),
    ("provider_unreachable", "Provider unreachable"),
    ("client_gone", "Caller gone"),
    ("stalled", "Stalled"),
    ("gateway_error", "Gateway's error"),
];

pub(super) fn list_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => {
            let ask = Period::of(visit).ask(Ask::get("/requests"));
            vec![ask.with_those(&visit.query, &FILTERS).with("limit", "100")]
        }
        _ => Vec::new(),
    }
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let live = visit.query.get("live") == Some("1");
    let cursor = rounds.value(0, 0).map(|answer| text(&answer, "next_cursor").to_owned());
    let next = cursor.filter(|cursor| !cursor.is_empty()).map(|cursor| {
        format!("/dashboard/requests{}", visit.query.with("cursor", Some(&cursor)).query())
    });
    let sort = visit.query.text("sort");
    let rows = rounds.rows(0, 0).map(|mut rows| {
        match sort {
            "charged" => {
                rows.sort_by_key(|row| std::cmp::Reverse(super::usd(row, "charged").pico()))
            }
            "duration" => rows.sort_by_key(|row| std::cmp::Reverse(number(row, "duration_ms"))),
            "tokens" => rows.sort_by_key(|row| std::cmp::Reverse(tokens(row))),
            _ => {}
        }
        rows.iter().map(row).collect()
    });
    let table = Table {
        id: "requests",
        caption: match sort {
            "" => "Requests, the newest first".to_owned(),
            _ => "Requests of this page, sorted".to_owned(),
        },
        columns: vec![
            Column::text("at", "At"),
            Column::text("id", "Request"),
            Column::text("key_name", "Key"),
            Column::text("team", "Team"),
            Column::text("feature", "Feature"),
            Column::text("provider", "Provider"),
            Column::text("model", "Model"),
            Column::text("outcome", "How it ended"),
            Column::number("status", "Status"),
            Column::number("tokens", "Tokens"),
            Column::number("duration_ms", "Milliseconds"),
            Column::number("charged", "Charged"),
        ],
        rows,
        empty: "No such request in these days.".to_owned(),
        next,
        ..Table::default()
    };
    let (value, text) = if live { (None, "Stop following") } else { (Some("1"), "Follow live") };
    let href = format!("/dashboard/requests{}", visit.query.with("live", value).query());
    let links = vec![Link { href, text: text.to_owned(), current: live }];
    let [from, until] = Period::of(visit).fields();
    let mut filters = vec![from, until];
    filters.push(Field::choice("outcome", "How it ended", visit.query.text("outcome"), &OUTCOMES));
    filters.extend(FIELDS.map(|(name, label)| Field::text(name, label, visit.query.text(name))));
    let sorts = [("", "Time"), ("charged", "Cost"), ("duration", "Latency"), ("tokens", "Tokens")];
    filters.push(Field::choice("sort", "Sort this page by", sort, &sorts));
    View {
        title: "Requests".to_owned(),
        lead: "Each request as it was decided, sent and charged. No prompt is kept.".to_owned(),
        filters,
        blocks: vec![Block::Links(links), Block::Table(table)],
        live,
    }
}

/// All tokens of a request, as its record adds them up by bucket.
fn tokens(event: &Value) -> u64 {
    fn add(value: &Value) -> u64 {
        match value {
            Value::Number(number) => number.as_u64().unwrap_or_default(),
            Value::Object(fields) => fields.values().map(add).fold(0, u64::saturating_add),
            _ => 0,
        }
    }
    event.pointer("/usage/tally/tokens").map_or(0, add)
}

fn outcome(event: &Value) -> Cell {
    let (outcome, code) = (text(event, "outcome"), text(event, "code"));
    let tone = match outcome {
        "completed" => Tone::Good,
        "refused" | "client_gone" => Tone::Warn,
        _ => Tone::Bad,
    };
    let words = outcome.replace('_', " ");
    let text = if code.is_empty() { words } else { format!("{words}: {}", code.replace('_', " ")) };
    Cell::Badge { tone, text }
}

fn row(event: &Value) -> Vec<Cell> {
    let none = Value::Null;
    let actor = event.get("actor").unwrap_or(&none);
    let id = text(event, "id");
    vec![
        super::moment(event, "at"),
        Cell::link(format!("/dashboard/requests/{}", encoded(id)), id),
        Cell::text(text(event, "key_name")),
        Cell::text(text(actor, "team")),
        Cell::text(text(actor, "feature")),
        Cell::text(text(event, "provider")),
        Cell::text(text(event, "model")),
        outcome(event),
        Cell::count(number(event, "status")),
        Cell::count(tokens(event)),
        Cell::count(number(event, "duration_ms")),
        Cell::usd(text(event, "charged")),
    ]
}

pub(super) fn one_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let id = visit.parameters.first().map_or("", String::as_str);
    match rounds.done() {
        0 => vec![Ask::get(format!("/requests/{}", encoded(id)))],
        _ => Vec::new(),
    }
}

pub(super) fn one(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let id = visit.parameters.first().cloned().unwrap_or_default();
    let title = format!("Request {id}");
    let Some(event) = rounds.value(0, 0) else { return View { title, ..View::default() } };
    let part = |name: &str| event.get(name).map(super::leaves).unwrap_or_default();
    let mut rest = event.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.retain(|name, _| {
            !matches!(name.as_str(), "usage" | "cost" | "actor" | "attempts" | "hold" | "charged")
        });
    }
    let facts = |title: &str, rows| Block::Facts(Facts { title: title.to_owned(), rows });
    let money = vec![
        ("Held before it was sent".to_owned(), Cell::usd(text(&event, "hold"))),
        ("Charged".to_owned(), Cell::usd(text(&event, "charged"))),
    ];
    View {
        title,
        lead: "One request whole: what was decided, tried, used, held and charged.".to_owned(),
        blocks: vec![
            facts("Money", money),
            facts("Cost by component, and the price it was rated with", part("cost")),
            facts("Tokens by bucket", part("usage")),
            Block::Table(attempts(&event)),
            facts("For whom", part("actor")),
            facts("The request", super::leaves(&rest)),
        ],
        ..View::default()
    }
}

fn attempts(event: &Value) -> Table {
    let rows = event.get("attempts").and_then(Value::as_array).cloned().unwrap_or_default();
    let row = |attempt: &Value| {
        vec![
            Cell::text(text(attempt, "provider")),
            Cell::text(text(attempt, "model")),
            attempt.get("status").and_then(Value::as_u64).map_or(Cell::Nothing, Cell::count),
            Cell::text(text(attempt, "error")),
            Cell::count(number(attempt, "started_ms")),
            Cell::count(number(attempt, "took_ms")),
        ]
    };
    Table {
        id: "attempts",
        caption: "Attempts at providers".to_owned(),
        columns: vec![
            Column::text("provider", "Provider"),
            Column::text("model", "Model"),
            Column::number("status", "Status"),
            Column::text("error", "Error"),
            Column::number("started_ms", "Began after, ms"),
            Column::number("took_ms", "Took, ms"),
        ],
        rows: Some(rows.iter().map(row).collect()),
        empty: "No provider was asked.".to_owned(),
        ..Table::default()
    }
}
