//! Requests: live, filtered by anything, sorted.

use serde_json::Value;
use tallygate_shared::time::Timestamp;

use super::{Period, Rounds, Visit, number, text};
use crate::dashboard::view::{Block, Cell, Column, Field, Link, Table, Tone, View};
use crate::dashboard::web::{Ask, encoded};
use crate::dimensions::{DIMENSIONS, join};
use crate::objects::ledger_performance::time_of_id;

const FILTERS: [&str; 22] = join(
    &["status", "session", "min_charged_usd", "max_charged_usd", "sort", "cursor"],
    &DIMENSIONS,
);
const FIELDS: [(&str, &str); 5] = [
    ("key", "Key"),
    ("team", "Team"),
    ("feature", "Feature"),
    ("model", "Model"),
    ("code", "Refused for"),
];
const MORE_FIELDS: [(&str, &str); 15] = [
    ("provider", "Provider"),
    ("status", "HTTP status"),
    ("user", "User"),
    ("agent", "Agent"),
    ("session", "Session"),
    ("customer", "Customer"),
    ("app", "App"),
    ("owner", "Owner of the key"),
    ("cost_centre", "Cost centre"),
    ("purpose", "Purpose"),
    ("environment", "Environment"),
    ("actor_environment", "Actor's environment"),
    ("min_charged_usd", "Charged at least, USD"),
    ("max_charged_usd", "Charged at most, USD"),
    ("none", "Without: team, feature, ..."),
];
const SORTS: [(&str, &str, &str); 4] = [
    ("", "Time", "the newest first"),
    ("charged", "Cost", "the dearest first"),
    ("duration", "Latency", "the slowest first"),
    ("tokens", "Tokens", "the largest first"),
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
            let ask = ask.with_those(&visit.query, &FILTERS).with_none_of(&visit.query);
            vec![ask.with("limit", "100")]
        }
        _ => Vec::new(),
    }
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let live = visit.query.get("live") == Some("1");
    let answer = rounds.value(0, 0);
    let field =
        |name: &str| answer.as_ref().map(|it| text(it, name).to_owned()).unwrap_or_default();
    let next = Some(field("next_cursor")).filter(|cursor| !cursor.is_empty()).map(|cursor| {
        format!("/dashboard/requests{}", visit.query.with("cursor", Some(&cursor)).query())
    });
    let sort = visit.query.text("sort");
    let order = SORTS.iter().find(|(name, ..)| *name == sort).map_or("", |(.., order)| order);
    let mut caption = format!("Requests, {order}");
    if let Some(ms) = time_of_id(&field("looked_to")) {
        let to = crate::dashboard::figures::minute(&Timestamp::from_ms(ms).to_string());
        caption.push_str(&format!(". Older ones than of {to} were not looked at"));
        if next.is_some() {
            caption.push_str(": go on with the next page");
        }
    }
    let table = Table {
        id: "requests",
        caption,
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
        rows: rounds.rows(0, 0).map(|rows| rows.iter().map(row).collect()),
        empty: "No such request in these days.".to_owned(),
        next,
        ..Table::default()
    };
    let (value, follow) = if live { (None, "Stop following") } else { (Some("1"), "Follow live") };
    let href = format!("/dashboard/requests{}", visit.query.with("live", value).query());
    let links = vec![
        Link { href, text: follow.to_owned(), current: live },
        Link {
            href: "/dashboard/prompts".to_owned(),
            text: "Prompts by shape".to_owned(),
            current: false,
        },
    ];
    let [from, until] = Period::of(visit).fields();
    let mut filters = vec![from, until];
    filters.push(Field::choice("outcome", "How it ended", visit.query.text("outcome"), &OUTCOMES));
    let written = |(name, label): (&str, &str)| Field::text(name, label, visit.query.text(name));
    filters.extend(FIELDS.map(written));
    let sorts = SORTS.map(|(name, text, _)| (name, text));
    filters.push(Field::choice("sort", "Sort by", sort, &sorts));
    View {
        title: "Requests".to_owned(),
        lead: "Each request as it was decided, sent and charged. No prompt is kept.".to_owned(),
        filters,
        more_filters: MORE_FIELDS.map(written).into(),
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

/// How a request ended, and the code where there is one.
pub(super) fn outcome(event: &Value) -> Cell {
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
