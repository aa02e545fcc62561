//! Where alerts go: the receivers, what each hears of, and how its queue stands.

use serde_json::Value;

use super::{Rounds, Visit, number, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{
    Action, Block, Cell, Column, Facts, Field, Form, Link, Table, Tone, View,
};
use crate::dashboard::web::{Ask, encoded};

pub(super) fn asks(_: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![Ask::get("/receivers"), Ask::get("/deliveries").with("limit", "20")],
        _ => Vec::new(),
    }
}

/// The kinds that a receiver hears of, as they are written.
fn kinds(receiver: &Value) -> String {
    let kinds = receiver.get("kinds").and_then(Value::as_array);
    let kinds: Vec<&str> = kinds.into_iter().flatten().filter_map(Value::as_str).collect();
    kinds.join(", ")
}

fn is_on(receiver: &Value) -> bool {
    receiver.get("enabled").and_then(Value::as_bool) == Some(true)
}

fn health(receiver: &Value) -> Cell {
    let gone = receiver.get("gone").and_then(Value::as_bool) == Some(true);
    let (tone, text) = match (is_on(receiver), gone) {
        (false, _) => (Tone::Plain, "off"),
        (true, true) => (Tone::Bad, "gone: it answered 410"),
        (true, false) => (Tone::Good, "on"),
    };
    Cell::Badge { tone, text: text.to_owned() }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let may = visit.session.role.may(Act::WriteConfig);
    let receivers = rounds.rows(0, 0);
    let row = |receiver: &Value| {
        let name = text(receiver, "name");
        let heard = kinds(receiver);
        let mut cells = vec![
            Cell::link(format!("/dashboard/receivers?receiver={}", encoded(name)), name),
            Cell::text(&text(receiver, "type").replace('_', " ")),
            Cell::text(text(receiver, "url")),
            Cell::text(text(receiver, "min_severity")),
            Cell::text(if heard.is_empty() { "all" } else { &heard }),
            health(receiver),
            Cell::count(number(receiver, "waiting")),
        ];
        if may {
            cells.push(Cell::Actions(vec![Action {
                label: "Send a test".to_owned(),
                about: format!("to {name}"),
                path: format!("/dashboard/receivers/{}/test", encoded(name)),
            }]));
        }
        cells
    };
    let mut columns = vec![
        Column::text("name", "Receiver"),
        Column::text("type", "Kind"),
        Column::text("url", "Address"),
        Column::text("min_severity", "From severity"),
        Column::text("kinds", "Kinds of alert"),
        Column::text("state", "State"),
        Column::number("waiting", "Waiting"),
    ];
    if may {
        columns.push(Column::text("actions", "Check"));
    }
    let table = Table {
        id: "receivers",
        caption: "Receivers".to_owned(),
        columns,
        rows: receivers.as_ref().map(|rows| rows.iter().map(row).collect()),
        empty: "No alert reaches anybody: add a receiver below.".to_owned(),
        ..Table::default()
    };
    let back = Link {
        href: format!("{}/alerts", crate::dashboard::ROOT),
        text: "Alerts".to_owned(),
        current: false,
    };
    let mut blocks =
        vec![Block::Links(vec![back]), Block::Table(table), Block::Table(deliveries(rounds))];
    if may {
        let named = visit.query.get("receiver");
        let known = receivers.iter().flatten().find(|it| Some(text(it, "name")) == named);
        blocks.push(Block::Form(form(visit, known)));
    }
    View {
        title: "Where alerts go".to_owned(),
        lead: "Each receiver hears of the alerts that its severity and kinds let through."
            .to_owned(),
        blocks,
        ..View::default()
    }
}

fn deliveries(rounds: &Rounds<'_>) -> Table {
    let row = |it: &Value| {
        let (tone, state) = match text(it, "state") {
            "delivered" => (Tone::Good, "delivered"),
            "failed" => (Tone::Bad, "given up"),
            _ => (Tone::Plain, "waiting"),
        };
        let alert = text(it, "alert");
        vec![
            super::moment(it, "created_at"),
            Cell::text(text(it, "receiver")),
            Cell::link(format!("/dashboard/alerts/{}", encoded(alert)), alert),
            Cell::Badge { tone, text: state.to_owned() },
            Cell::count(number(it, "attempts")),
            Cell::text(&text(it, "error").replace('_', " ")),
        ]
    };
    Table {
        id: "deliveries",
        caption: "The last messages".to_owned(),
        columns: vec![
            Column::text("created_at", "Made"),
            Column::text("receiver", "Receiver"),
            Column::text("alert", "Alert"),
            Column::text("state", "State"),
            Column::number("attempts", "Attempts"),
            Column::text("error", "What went wrong"),
        ],
        rows: rounds.rows(0, 1).map(|rows| rows.iter().map(row).collect()),
        empty: "No message was sent yet.".to_owned(),
        ..Table::default()
    }
}

/// The form of a receiver: what was written, else what it is, else an empty one.
fn form(visit: &Visit<'_>, known: Option<&Value>) -> Form {
    let value = |name: &str| {
        let written = visit.form.get(name).map(str::to_owned);
        written.or_else(|| known.map(|it| text(it, name).to_owned())).unwrap_or_default()
    };
    let written = visit.form.get("kinds").map(str::to_owned);
    let heard = written.or_else(|| known.map(kinds)).unwrap_or_default();
    let off = known.is_some_and(|it| !is_on(it));
    let enabled = visit.form.get("enabled").unwrap_or(if off { "no" } else { "yes" });
    let types = [("standard_webhook", "Webhook"), ("slack", "Slack")];
    let severities = [("info", "Info"), ("warning", "Warning"), ("critical", "Critical")];
    let title =
        known.map_or("Add a receiver".to_owned(), |it| format!("Change {}", text(it, "name")));
    Form {
        id: "receiver",
        title,
        path: "/dashboard/receivers/set".to_owned(),
        fields: vec![
            Field::text("name", "Name", &value("name")).required(),
            Field::choice("type", "Kind", &value("type"), &types),
            Field::text("url", "Address", &value("url"))
                .help("Slack's is its secret: leave it empty to keep it."),
            Field::choice("min_severity", "From severity", &value("min_severity"), &severities),
            Field::text("kinds", "Kinds of alert", &heard)
                .help("Such as budget_threshold, anomaly; empty for all."),
            Field::choice("enabled", "On", enabled, &[("yes", "Yes"), ("no", "No")]),
        ],
        submit: "Save".to_owned(),
    }
}

/// What is said of a receiver that was saved: its secret, once.
pub(in crate::dashboard) fn saved(answer: &Value) -> View {
    let mut rows = vec![("Name".to_owned(), Cell::text(text(answer, "name")))];
    let secret = text(answer, "secret");
    let lead = match secret {
        "" => "The receiver is saved. It keeps the secret that it has.",
        _ => "Copy the secret now: it is shown this once. Messages are signed with it.",
    };
    if !secret.is_empty() {
        rows.push(("Secret".to_owned(), Cell::text(secret)));
    }
    View {
        title: "The receiver is saved".to_owned(),
        lead: lead.to_owned(),
        blocks: vec![Block::Facts(Facts { title: "The receiver".to_owned(), rows })],
        ..View::default()
    }
}

/// How a test message went.
pub(in crate::dashboard) fn tested(answer: &Value) -> View {
    let delivered = answer.get("delivered").and_then(Value::as_bool) == Some(true);
    let (tone, word) = match delivered {
        true => (Tone::Good, "delivered"),
        false => (Tone::Bad, "not delivered"),
    };
    let status = answer.get("status").and_then(Value::as_u64);
    let rows = vec![
        ("Message".to_owned(), Cell::Badge { tone, text: word.to_owned() }),
        ("Status".to_owned(), status.map_or(Cell::Nothing, |it| Cell::Text(it.to_string()))),
        ("What went wrong".to_owned(), Cell::text(&text(answer, "error").replace('_', " "))),
    ];
    View {
        title: "A test message".to_owned(),
        lead: "It was sent now, and its receiver answered so.".to_owned(),
        blocks: vec![Block::Facts(Facts { title: "How it went".to_owned(), rows })],
        ..View::default()
    }
}
