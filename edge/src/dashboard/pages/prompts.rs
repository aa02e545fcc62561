//! What prompts look like, never what they say: dear shapes, and sessions that grow.

use serde_json::Value;

use super::{Period, Rounds, Visit, number, text};
use crate::dashboard::figures::{self, Figure};
use crate::dashboard::view::{Block, Cell, Column, Field, Link, Stat, Table, View};
use crate::dashboard::web::{Ask, Fields, encoded};

const FILTERS: [&str; 3] = ["feature", "model", "shape"];
const PARTS: [(&str, &str); 5] = [
    ("system", "Instructions"),
    ("tools", "Tools"),
    ("history", "History"),
    ("last", "Last message"),
    ("other", "Images and other"),
];
const SORTS: [(&str, &str); 4] = [
    ("", "Cost"),
    ("growth", "Growth of the input"),
    ("requests", "Requests"),
    ("last", "Last request"),
];
const MOST_SESSIONS: &str = "50";

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let period = Period::of(visit);
    let shapes = period.ask(Ask::get("/prompt-shapes")).with_those(&visit.query, &FILTERS);
    let sessions = period.ask(Ask::get("/agent-sessions")).with_those(&visit.query, &["sort"]);
    vec![shapes, sessions.with("limit", MOST_SESSIONS)]
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let period = Period::of(visit);
    let [from, until] = period.fields();
    let mut filters = vec![from, until];
    filters.extend(
        [("feature", "Feature"), ("model", "Model")]
            .map(|(name, label)| Field::text(name, label, visit.query.text(name))),
    );
    filters.push(Field::choice("sort", "Sort sessions by", visit.query.text("sort"), &SORTS));
    let requests = Link {
        href: format!("/dashboard/requests{}", period_query(&period)),
        text: "The requests".to_owned(),
        current: false,
    };
    View {
        title: "Prompts".to_owned(),
        lead: "What prompts look like, never what they say. A shape is the largest part of the input and its size; \
               parts are the gateway's estimate, tokens the provider's count."
            .to_owned(),
        filters,
        blocks: vec![
            Block::Links(vec![requests]),
            Block::Table(shapes(rounds.rows(0, 0))),
            Block::Table(sessions(rounds.rows(0, 1), &period)),
        ],
        ..View::default()
    }
}

fn period_query(period: &Period) -> String {
    let fields = [("from", &period.from), ("until", &period.until)];
    Fields(fields.map(|(name, day)| (name.to_owned(), day.clone())).into()).query()
}

/// A row of parts, each with its share of all of them.
pub(super) fn parts(of: &Value) -> Vec<Cell> {
    PARTS.map(|(name, _)| Cell::count(number(of, name))).into()
}

/// The columns of parts.
pub(super) fn part_columns() -> Vec<Column> {
    PARTS.map(|(name, title)| Column::number(name, title)).into()
}

fn shapes(rows: Option<Vec<Value>>) -> Table {
    let none = Value::Null;
    let row = |row: &Value| {
        let mut cells = vec![
            Cell::text(text(row, "shape")),
            match text(row, "feature") {
                "" => Cell::text("Unallocated"),
                feature => Cell::text(feature),
            },
            Cell::text(text(row, "model")),
        ];
        cells.extend(
            [
                "requests",
                "input_tokens",
                "cached_tokens",
                "output_tokens",
                "input_tokens_per_request",
            ]
            .map(|name| Cell::count(number(row, name))),
        );
        cells.extend(parts(row.get("parts").unwrap_or(&none)));
        cells.extend(["charged_usd", "usd_per_request"].map(|name| Cell::usd(text(row, name))));
        cells
    };
    let mut columns = vec![
        Column::text("shape", "Shape"),
        Column::text("feature", "Feature"),
        Column::text("model", "Model"),
        Column::number("requests", "Requests"),
        Column::number("input_tokens", "Input tokens"),
        Column::number("cached_tokens", "of them cached"),
        Column::number("output_tokens", "Output tokens"),
        Column::number("input_tokens_per_request", "Input a request"),
    ];
    columns.extend(part_columns());
    columns.push(Column::number("charged_usd", "Charged"));
    columns.push(Column::number("usd_per_request", "Per request"));
    Table {
        id: "shapes",
        caption: "Prompts by shape, the dearest first".to_owned(),
        columns,
        rows: rows.map(|rows| rows.iter().map(row).collect()),
        empty: "No request with tokens in these days.".to_owned(),
        ..Table::default()
    }
}

fn sessions(rows: Option<Vec<Value>>, period: &Period) -> Table {
    let row = |row: &Value| {
        let name = text(row, "session");
        let href = format!("/dashboard/agent-sessions/{}{}", encoded(name), period_query(period));
        let mut cells = vec![
            Cell::link(href, name),
            Cell::text(text(row, "agent")),
            Cell::text(text(row, "feature")),
            super::moment(row, "last_at"),
        ];
        cells.extend(
            ["requests", "first_input_tokens", "last_input_tokens"]
                .map(|name| Cell::count(number(row, name))),
        );
        cells.push(signed(row.get("growth_tokens")));
        cells.extend(["input_tokens", "cached_tokens"].map(|name| Cell::count(number(row, name))));
        cells.push(Cell::usd(text(row, "charged_usd")));
        cells
    };
    Table {
        id: "sessions",
        caption: "Sessions of agents".to_owned(),
        columns: vec![
            Column::text("session", "Session"),
            Column::text("agent", "Agent"),
            Column::text("feature", "Feature"),
            Column::text("last_at", "Last request"),
            Column::number("requests", "Requests"),
            Column::number("first_input_tokens", "Input of the first"),
            Column::number("last_input_tokens", "of the last"),
            Column::number("growth_tokens", "Growth"),
            Column::number("input_tokens", "Input in all"),
            Column::number("cached_tokens", "of them cached"),
            Column::number("charged_usd", "Charged"),
        ],
        rows: rows.map(|rows| rows.iter().map(row).collect()),
        empty:
            "No request of these days names a session. Actor tokens do it with the claim `session`."
                .to_owned(),
        ..Table::default()
    }
}

/// A difference: it may be below zero.
fn signed(value: Option<&Value>) -> Cell {
    let Some(difference) = value.and_then(Value::as_i64) else { return Cell::Nothing };
    let figure = figures::count(difference.unsigned_abs());
    let sign = if difference < 0 { "-" } else { "+" };
    let shown = format!("{sign}{}", figure.shown);
    Cell::Number(Figure { shown, exact: difference.to_string() })
}

pub(super) fn session_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let name = visit.parameters.first().map_or("", String::as_str);
    match rounds.done() {
        0 => {
            let ask = Ask::get(format!("/agent-sessions/{}", encoded(name)));
            vec![Period::of(visit).ask(ask).with_those(&visit.query, &["key"])]
        }
        _ => Vec::new(),
    }
}

pub(super) fn session(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let name = visit.parameters.first().cloned().unwrap_or_default();
    let answer = rounds.value(0, 0).unwrap_or_default();
    let rows = rounds.rows(0, 0);
    let count = rows.as_ref().map_or(0, Vec::len);
    let more = answer.get("has_more").and_then(Value::as_bool).unwrap_or_default();
    let note = if more { "The first 5,000 of them." } else { "" };
    let stats = vec![
        Stat {
            label: "Requests".to_owned(),
            cell: Cell::count(u64::try_from(count).unwrap_or(u64::MAX)),
            note: note.to_owned(),
        },
        Stat {
            label: "Charged".to_owned(),
            cell: Cell::usd(text(&answer, "charged_usd")),
            note: "The sum of the rows below.".to_owned(),
        },
    ];
    let fields = vec![("session".to_owned(), name.clone())];
    let href = format!("/dashboard/requests{}", Fields(fields).query());
    View {
        title: format!("Session {name}"),
        lead: "Its requests in order. A conversation that sends everything again grows with each of them.".to_owned(),
        filters: Period::of(visit).fields().into(),
        blocks: vec![
            Block::Links(vec![Link { href, text: "The requests".to_owned(), current: false }]),
            Block::Stats(stats),
            Block::Table(turns(rows)),
        ],
        ..View::default()
    }
}

fn turns(rows: Option<Vec<Value>>) -> Table {
    let none = Value::Null;
    let row = |row: &Value| {
        let id = text(row, "id");
        let mut cells = vec![
            Cell::count(number(row, "turn")),
            super::moment(row, "at"),
            Cell::link(format!("/dashboard/requests/{}", encoded(id)), id),
            Cell::text(text(row, "model")),
            Cell::count(number(row, "input_tokens")),
            signed(row.get("increase_tokens")),
            Cell::count(number(row, "cached_tokens")),
            Cell::count(number(row, "output_tokens")),
        ];
        cells.extend(parts(row.get("parts").unwrap_or(&none)));
        cells.push(Cell::usd(text(row, "charged_usd")));
        cells
    };
    let mut columns = vec![
        Column::number("turn", "Turn"),
        Column::text("at", "At"),
        Column::text("id", "Request"),
        Column::text("model", "Model"),
        Column::number("input_tokens", "Input tokens"),
        Column::number("increase_tokens", "More than before"),
        Column::number("cached_tokens", "of them cached"),
        Column::number("output_tokens", "Output tokens"),
    ];
    columns.extend(part_columns());
    columns.push(Column::number("charged_usd", "Charged"));
    Table {
        id: "turns",
        caption: "Request by request".to_owned(),
        columns,
        rows: rows.map(|rows| rows.iter().map(row).collect()),
        empty: "No request of these days.".to_owned(),
        ..Table::default()
    }
}
