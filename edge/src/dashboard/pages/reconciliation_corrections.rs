//! What bills changed of what budgets count as spent.

use serde_json::Value;

use super::{Period, Rounds, Visit, number, text};
use crate::dashboard::view::{Cell, Column, Table, Tone};
use crate::dashboard::web::{Ask, encoded};

/// The page's own name of the cursor: its other tables have none.
const CURSOR: &str = "corrections";
const AMOUNTS: [(&str, &str); 5] = [
    ("amount_usd", "Billed beyond the estimate"),
    ("change_usd", "Change to the last one"),
    ("by_quantity_usd", "By quantity"),
    ("by_price_usd", "By price"),
    ("counted_usd", "Counted by the budget"),
];

/// The question for the page's days.
pub(super) fn ask(visit: &Visit<'_>) -> Ask {
    let ask = Period::of(visit).ask(Ask::get("/corrections"));
    let ask = ask.with_those(&visit.query, &["provider"]);
    match visit.query.get(CURSOR) {
        Some(cursor) => ask.with("cursor", cursor),
        None => ask,
    }
}

/// The corrections, the newest first.
pub(super) fn table(visit: &Visit<'_>, rounds: &Rounds<'_>, place: usize) -> Table {
    let root = crate::dashboard::ROOT;
    let here = |query: &str| format!("{root}/reconciliation{query}");
    let row = |it: &Value| {
        let (day, provider, budget) = (text(it, "day"), text(it, "provider"), text(it, "budget"));
        let why = visit.query.with("from", Some(day)).with("until", Some(day));
        let why = why.with("provider", Some(provider)).with(CURSOR, None);
        let (tone, said) = match text(it, "state") {
            "counts" => (Tone::Good, "counts"),
            "replaced" => (Tone::Plain, "replaced by a newer one"),
            _ => (Tone::Warn, "no such budget any more"),
        };
        let windows = it.get("windows").and_then(Value::as_array).into_iter().flatten();
        let windows: Vec<&str> = windows.filter_map(Value::as_str).collect();
        let mut cells = vec![
            super::moment(it, "came_at"),
            Cell::link(here(&why.query()), day),
            Cell::text(provider),
            Cell::link(format!("{root}/budgets/{}", encoded(budget)), budget),
            Cell::text(text(it, "value")),
            Cell::text(text(it, "owner")),
            Cell::count(number(it, "revision")),
        ];
        cells.extend(AMOUNTS.map(|(name, _)| Cell::usd(text(it, name))));
        cells.push(Cell::text(&windows.join(", ")));
        cells.push(Cell::Badge { tone, text: said.to_owned() });
        cells
    };
    let mut columns = vec![
        Column::text("came_at", "Came"),
        Column::text("day", "Day"),
        Column::text("provider", "Provider"),
        Column::text("budget", "Budget"),
        Column::text("value", "Whose"),
        Column::text("owner", "Owner"),
        Column::number("revision", "Revision"),
    ];
    columns.extend(AMOUNTS.map(|(name, title)| Column::number(name, title)));
    columns.push(Column::text("windows", "Counted in"));
    columns.push(Column::text("state", "State"));
    let cursor = rounds.value(0, place).map(|answer| text(&answer, "next_cursor").to_owned());
    let next = cursor.filter(|cursor| !cursor.is_empty());
    Table {
        id: "corrections",
        caption: "Corrections of budgets, the newest first".to_owned(),
        columns,
        rows: rounds.rows(0, place).map(|rows| rows.iter().map(row).collect()),
        empty: "No bill of these days has changed what a budget counts.".to_owned(),
        next: next.map(|cursor| here(&visit.query.with(CURSOR, Some(&cursor)).query())),
        ..Table::default()
    }
}
