//! Statements: what each cost centre owes for a month, to the cent of the ledger.

use serde_json::Value;
use tallygate_shared::time::Date;

use super::{Rounds, Visit, text, usd};
use crate::dashboard::view::{
    Block, Cell, Column, Facts, Field, Link, Stat, Table, Tone, View, stat,
};
use crate::dashboard::web::{Ask, Fields};

const BY: [(&str, &str); 10] = [
    ("cost_centre", "Cost centre"),
    ("team", "Team"),
    ("owner", "Owner"),
    ("feature", "Feature"),
    ("app", "App"),
    ("agent", "Agent"),
    ("customer", "Customer"),
    ("user", "User"),
    ("key", "Key"),
    ("environment", "Environment"),
];
/// The kinds of charge beside use, as they stand on bills.
const KINDS: [(&str, &str); 8] = [
    ("tax", "Tax"),
    ("credit", "Credits"),
    ("discount", "Discounts"),
    ("minimum_fee", "Minimum fees"),
    ("purchase", "Purchases"),
    ("seat", "Seats"),
    ("refund", "Refunds"),
    ("adjustment", "Adjustments"),
];

fn by<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("by").unwrap_or("cost_centre")
}

fn month(visit: &Visit<'_>) -> String {
    let this = visit.now.date().to_string();
    visit.query.get("month").map_or_else(|| this.get(..7).unwrap_or_default().into(), Into::into)
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![Ask::get("/statements").with("month", month(visit)).with("by", by(visit))],
        _ => Vec::new(),
    }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let (by, month) = (by(visit), month(visit));
    let found = rounds.value(0, 0);
    let title = BY.iter().find(|(name, _)| *name == by).map_or(by, |(_, title)| title);
    let lead = match &found {
        Some(it) => format!("{month} by {}. {}", title.to_lowercase(), state(it)),
        None => format!("{month} by {}.", title.to_lowercase()),
    };
    let mut blocks = vec![Block::Links(months(visit, &month))];
    if let Some(it) = &found {
        blocks.push(Block::Stats(stats(it)));
    }
    blocks.push(Block::Table(table(by, title, &month, found.as_ref())));
    if let Some(it) = &found {
        blocks.push(Block::Facts(control(it)));
    }
    // What is no month stands in the message, not in the field: a browser would complain of it.
    let known = Date::parse(&format!("{month}-01")).map_or("", |_| month.as_str());
    let month_field = Field { kind: "month", ..Field::text("month", "Month", known) };
    View {
        title: "Statements".to_owned(),
        lead,
        filters: vec![month_field, Field::choice("by", "By", by, &BY)],
        blocks,
        ..View::default()
    }
}

/// Whether the figures may still change, and why.
fn state(statement: &Value) -> String {
    let why = statement.get("provisional_because").and_then(Value::as_array);
    let why: Vec<&str> = why.into_iter().flatten().filter_map(Value::as_str).collect();
    match why.as_slice() {
        [] => "Final: all of it is billed.".to_owned(),
        why => format!("Provisional. {}", why.join(" ")),
    }
}

/// The months around, and this page to print.
fn months(visit: &Visit<'_>, month: &str) -> Vec<Link> {
    let Some(first) = Date::parse(&format!("{month}-01")) else { return Vec::new() };
    let this_month = visit.now.date().first_of_month();
    let before = Date::from_days(first.days() - 1).first_of_month();
    let after = first.first_of_next_month();
    let link = |day: Date| {
        let name = day.to_string().get(..7).unwrap_or_default().to_owned();
        let query = visit.query.with("month", Some(&name)).with("done", None);
        Link { href: format!("/dashboard/statements{}", query.query()), text: name, current: false }
    };
    let mut links = vec![link(before)];
    if after.days() <= this_month.days() {
        links.push(link(after));
    }
    links
}

fn stats(it: &Value) -> Vec<Stat> {
    let none = Value::Null;
    let total = it.get("total").unwrap_or(&none);
    let adjustments = total.get("adjustments").and_then(Value::as_object);
    let adjusted = adjustments.into_iter().flat_map(|kinds| kinds.values());
    let adjusted = adjusted
        .filter_map(|it| it.as_str()?.parse().ok())
        .fold(tallygate_shared::money::Usd::ZERO, tallygate_shared::money::Usd::saturating_add);
    vec![
        stat(
            "Total",
            Cell::money(usd(total, "total_usd")),
            "What the month costs as far as known.",
        ),
        stat(
            "Estimated",
            Cell::money(usd(total, "estimated_usd")),
            "Charged as requests were made.",
        ),
        stat("Billed", Cell::money(usd(total, "billed_usd")), "By providers, for metered use."),
        stat(
            "Not billed yet",
            Cell::money(usd(total, "still_estimated_usd")),
            "Still an estimate.",
        ),
        stat(
            "Unmetered",
            Cell::money(usd(total, "unmetered_usd")),
            "Billed, and not seen by the gateway.",
        ),
        stat("Adjustments", Cell::money(adjusted), "Taxes, credits, discounts and fees."),
    ]
}

fn table(by: &str, title: &str, month: &str, found: Option<&Value>) -> Table {
    let none = Value::Null;
    let total = found.and_then(|it| it.get("total")).unwrap_or(&none);
    let part = |row: &Value, kind: &str| {
        Cell::usd(row.get("adjustments").map_or("", |kinds| text(kinds, kind)))
    };
    let kinds: Vec<(&str, &str)> = KINDS
        .into_iter()
        .filter(|(kind, _)| total.get("adjustments").is_some_and(|it| it.get(kind).is_some()))
        .collect();
    let cells = |row: &Value, name: Cell| {
        let amount = |field: &str| Cell::usd(text(row, field));
        let mut cells = vec![name];
        let amounts = ["estimated_usd", "billed_usd", "still_estimated_usd", "unmetered_usd"];
        cells.extend(amounts.map(amount));
        cells.extend(kinds.iter().map(|(kind, _)| part(row, kind)));
        cells.push(amount("total_usd"));
        cells
    };
    let rows = found.and_then(|it| it.get("data")).and_then(Value::as_array).map(|rows| {
        let row = |row: &Value| cells(row, owner(by, month, text(row, "value")));
        let mut all: Vec<Vec<Cell>> = rows.iter().map(row).collect();
        if !all.is_empty() {
            all.push(cells(total, Cell::Text("All".to_owned())));
        }
        all
    });
    let mut columns = vec![
        Column::text(by, title),
        Column::number("estimated_usd", "Estimated"),
        Column::number("billed_usd", "Billed"),
        Column::number("still_estimated_usd", "Not billed yet"),
        Column::number("unmetered_usd", "Unmetered"),
    ];
    columns.extend(kinds.iter().map(|(kind, title)| Column::number(kind, title)));
    columns.push(Column::number("total_usd", "Total"));
    Table {
        id: "statement",
        caption: format!("Statement for {month}"),
        columns,
        rows,
        empty: "Nothing was charged or billed in this month.".to_owned(),
        ..Table::default()
    }
}

/// An owner's name, which leads to what its charges consist of.
fn owner(by: &str, month: &str, value: &str) -> Cell {
    let first = Date::parse(&format!("{month}-01"));
    match (value, first) {
        ("", _) => Cell::Text("Unallocated".to_owned()),
        (value, Some(first)) => {
            let last = Date::from_days(first.first_of_next_month().days() - 1);
            let query = Fields(vec![
                ("by".into(), "model".into()),
                (by.into(), value.into()),
                ("from".into(), first.to_string()),
                ("until".into(), last.to_string()),
            ]);
            Cell::link(format!("/dashboard/usage{}", query.query()), value)
        }
        (value, None) => Cell::text(value),
    }
}

/// That nothing is missing: the rows against the ledger's own sum.
fn control(it: &Value) -> Facts {
    let none = Value::Null;
    let control = it.get("control").unwrap_or(&none);
    let total = it.get("total").unwrap_or(&none);
    let agrees = control.get("agrees").and_then(Value::as_bool) == Some(true);
    let (tone, said) = match agrees {
        true => (Tone::Good, "they agree to the last digit"),
        false => (Tone::Bad, "they differ: tell whoever runs Tallygate"),
    };
    Facts {
        title: "How it adds up".to_owned(),
        rows: vec![
            ("Charged in the month".to_owned(), Cell::usd(text(control, "charged_usd"))),
            ("Changed by bills".to_owned(), Cell::usd(text(control, "corrected_usd"))),
            ("Trued-up ledger".to_owned(), Cell::usd(text(control, "ledger_usd"))),
            ("Sum of the rows above".to_owned(), Cell::usd(text(total, "total_usd"))),
            ("Control".to_owned(), Cell::Badge { tone, text: said.to_owned() }),
        ],
    }
}
