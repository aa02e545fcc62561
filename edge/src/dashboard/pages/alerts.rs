//! Alerts: by severity, with their evidence; acknowledge, snooze, resolve.

use serde_json::Value;

use super::{Rounds, Visit, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{
    Block, Cell, Column, Facts, Field, Form, Link, Stat, Table, Tone, View,
};
use crate::dashboard::web::{Ask, encoded};

const FILTERS: [&str; 4] = ["state", "severity", "kind", "cursor"];

/// A table of alerts.
pub(super) fn table(caption: &str, alerts: Option<Vec<Value>>) -> Table {
    let rows = alerts.map(|alerts| alerts.iter().map(row).collect());
    Table {
        id: "alerts",
        caption: caption.to_owned(),
        columns: vec![
            Column::text("title", "Alert"),
            Column::text("severity", "Severity"),
            Column::text("kind", "Kind"),
            Column::text("owner", "Owner"),
            Column::text("state", "State"),
            Column::text("opened_at", "Opened"),
            Column::text("last_seen", "Last seen"),
            Column::number("count", "Times"),
        ],
        rows,
        empty: "No alert.".to_owned(),
        ..Table::default()
    }
}

fn severity(alert: &Value) -> Cell {
    let text = text(alert, "severity").to_owned();
    let tone = match text.as_str() {
        "critical" => Tone::Bad,
        "warning" => Tone::Warn,
        _ => Tone::Plain,
    };
    Cell::Badge { tone, text }
}

fn state(alert: &Value) -> &str {
    alert.get("status").map_or("", |status| text(status, "state"))
}

fn row(alert: &Value) -> Vec<Cell> {
    vec![
        Cell::link(
            format!("/dashboard/alerts/{}", encoded(text(alert, "id"))),
            text(alert, "title"),
        ),
        severity(alert),
        Cell::text(&text(alert, "kind").replace('_', " ")),
        Cell::text(text(alert, "owner")),
        Cell::text(state(alert)),
        super::moment(alert, "opened_at"),
        super::moment(alert, "last_seen"),
        Cell::count(super::number(alert, "count")),
    ]
}

pub(super) fn list_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![
            Ask::get("/alerts")
                .with_those(&visit.query, &FILTERS)
                .with("sort", "severity")
                .with("limit", "100"),
            Ask::get("/alert-counts"),
        ],
        _ => Vec::new(),
    }
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let mut table = table("Alerts, the gravest first", rounds.rows(0, 0));
    let cursor = rounds.value(0, 0).map(|answer| text(&answer, "next_cursor").to_owned());
    table.next = cursor.filter(|cursor| !cursor.is_empty()).map(|cursor| {
        format!("/dashboard/alerts{}", visit.query.with("cursor", Some(&cursor)).query())
    });
    let states = [
        ("", "All"),
        ("open", "Open"),
        ("acknowledged", "Acknowledged"),
        ("snoozed", "Snoozed"),
        ("resolved", "Resolved"),
    ];
    let severities =
        [("", "All"), ("critical", "Critical"), ("warning", "Warning"), ("info", "Info")];
    View {
        title: "Alerts".to_owned(),
        lead: "What changed for the worse, with the numbers that say so.".to_owned(),
        filters: vec![
            Field::choice("state", "State", visit.query.text("state"), &states),
            Field::choice("severity", "Severity", visit.query.text("severity"), &severities),
        ],
        blocks: vec![
            Block::Stats(open_by_severity(rounds.value(0, 1).as_ref())),
            receivers_link(visit),
            Block::Table(table),
        ],
        ..View::default()
    }
}

/// How many alerts are open, the gravest first, each a way to them.
fn open_by_severity(counts: Option<&Value>) -> Vec<Stat> {
    let severities = [("critical", "Critical"), ("warning", "Warning"), ("info", "Info")];
    let stat = |(severity, label): (&str, &str)| {
        let count = |state| counts.and_then(|all| all.get(severity)?.get(state)?.as_u64());
        let href = format!("{}/alerts?state=open&severity={severity}", crate::dashboard::ROOT);
        let taken = [("acknowledged", "acknowledged"), ("snoozed", "snoozed")];
        let taken = taken.map(|(state, word)| (count(state).unwrap_or_default(), word));
        let taken = taken.iter().filter(|(many, _)| *many > 0);
        let taken: Vec<String> = taken.map(|(many, word)| format!("{many} {word}")).collect();
        Stat {
            label: format!("{label}, open"),
            cell: count("open").map_or(Cell::Nothing, |many| Cell::link(href, &many.to_string())),
            note: taken.join(", "),
        }
    };
    severities.map(stat).into()
}

/// The way to where alerts go. Receivers are the whole workspace's.
fn receivers_link(visit: &Visit<'_>) -> Block {
    let href = format!("{}/receivers", crate::dashboard::ROOT);
    let link = Link { href, text: "Where alerts go".to_owned(), current: false };
    let whole = visit.session.owner.is_none();
    Block::Links(whole.then_some(link).into_iter().collect())
}

/// Whether a receiver hears of an alert of this kind and severity.
fn hears(receiver: &Value, alert: &Value) -> bool {
    let rank = |name: &str| ["info", "warning", "critical"].iter().position(|it| *it == name);
    let kinds = receiver.get("kinds").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    receiver.get("enabled").and_then(Value::as_bool) == Some(true)
        && rank(text(receiver, "min_severity")) <= rank(text(alert, "severity"))
        && (kinds.is_empty() || kinds.iter().any(|kind| kind.as_str() == Some(text(alert, "kind"))))
}

fn routes(alert: &Value, receivers: &[Value]) -> Table {
    let heard = receivers.iter().filter(|receiver| hears(receiver, alert));
    let row = |receiver: &Value| {
        let name = text(receiver, "name");
        let href = format!("{}/receivers?receiver={}", crate::dashboard::ROOT, encoded(name));
        vec![Cell::link(href, name), Cell::text(&text(receiver, "type").replace('_', " "))]
    };
    Table {
        id: "routes",
        caption: "Who hears of it".to_owned(),
        columns: vec![Column::text("receiver", "Receiver"), Column::text("type", "Kind")],
        rows: Some(heard.map(row).collect()),
        empty: "Nobody: no receiver hears of this kind and severity.".to_owned(),
        ..Table::default()
    }
}

pub(super) fn one_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let id = visit.parameters.first().map_or("", String::as_str);
    match rounds.done() {
        0 => {
            let whole = visit.session.owner.is_none();
            let mut asks = vec![Ask::get(format!("/alerts/{}", encoded(id)))];
            asks.extend(whole.then(|| Ask::get("/receivers")));
            asks
        }
        _ => Vec::new(),
    }
}

pub(super) fn one(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let Some(alert) = rounds.value(0, 0) else {
        return View { title: "Alert".to_owned(), ..View::default() };
    };
    let about = vec![
        ("Severity".to_owned(), severity(&alert)),
        ("Kind".to_owned(), Cell::text(&text(&alert, "kind").replace('_', " "))),
        ("Owner".to_owned(), Cell::text(text(&alert, "owner"))),
        ("State".to_owned(), Cell::text(state(&alert))),
        ("First seen".to_owned(), super::moment(&alert, "first_seen")),
        ("Last seen".to_owned(), super::moment(&alert, "last_seen")),
        ("Times".to_owned(), Cell::count(super::number(&alert, "count"))),
    ];
    let evidence = alert.get("evidence").map(super::leaves).unwrap_or_default();
    let mut blocks = vec![
        Block::Facts(Facts { title: "About it".to_owned(), rows: about }),
        Block::Facts(Facts { title: "Evidence".to_owned(), rows: evidence }),
    ];
    let link = text(&alert, "link");
    if link.starts_with('/') {
        let href = format!("{}{link}", crate::dashboard::ROOT);
        let text = "What it is about".to_owned();
        blocks.push(Block::Links(vec![Link { href, text, current: false }]));
    }
    if let Some(receivers) = rounds.rows(0, 1) {
        blocks.push(Block::Table(routes(&alert, &receivers)));
        blocks.push(receivers_link(visit));
    }
    if visit.session.role.may(Act::HandleAlerts) {
        blocks.extend(forms(visit, text(&alert, "id")).map(Block::Form));
    }
    View { title: text(&alert, "title").to_owned(), blocks, ..View::default() }
}

fn forms(visit: &Visit<'_>, id: &str) -> [Form; 3] {
    let path = |act: &str| format!("/dashboard/alerts/{}/{act}", encoded(id));
    let plain = |id: &'static str, title: &str| Form {
        id,
        title: title.to_owned(),
        path: path(id),
        fields: Vec::new(),
        submit: title.to_owned(),
    };
    let snooze = Form {
        fields: vec![
            Field::day("until", "Until the start of", visit.form.text("until")).required(),
            Field::text("reason", "Reason", visit.form.text("reason")).required(),
        ],
        ..plain("snooze", "Snooze")
    };
    [plain("acknowledge", "Acknowledge"), snooze, plain("resolve", "Resolve")]
}
