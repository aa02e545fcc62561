//! What the reconciler's nights say of themselves, and what of bills nobody asked for.

use serde_json::Value;
use tallygate_shared::money::Usd;

use super::{number, text, usd};
use crate::dashboard::view::{Cell, Column, Table, Tone};

/// The runs, the newest first.
pub(super) fn table(runs: Option<Vec<Value>>) -> Table {
    let row = |run: &Value| {
        let providers = run.get("providers").and_then(Value::as_object);
        let sum = |name: &str| {
            let amounts = providers.into_iter().flat_map(|all| all.values());
            let sum = amounts.map(|it| usd(it, name)).fold(Usd::ZERO, Usd::saturating_add);
            Cell::money(sum)
        };
        let complete = text(run, "status") == "complete";
        let (tone, said) =
            if complete { (Tone::Good, "complete") } else { (Tone::Warn, "partial") };
        vec![
            Cell::text(text(run, "run")),
            Cell::Badge { tone, text: said.to_owned() },
            Cell::moment(text(run, "ended_at")),
            Cell::text(&format!("{} to {}", text(run, "from"), text(run, "to"))),
            Cell::text(&lacking(run)),
            Cell::count(number(run, "days_settled")),
            sum("estimated_of_billed_usd"),
            sum("billed_usd"),
            sum("booked_usd"),
            sum("unmetered_usd"),
        ]
    };
    Table {
        id: "runs",
        caption: "The reconciler's runs".to_owned(),
        columns: vec![
            Column::text("run", "Run"),
            Column::text("status", "Ended"),
            Column::text("ended_at", "At"),
            Column::text("days", "Days, the last not included"),
            Column::text("missing", "What it lacks"),
            Column::number("days_settled", "Days settled"),
            Column::number("estimated_of_billed_usd", "Estimated"),
            Column::number("billed_usd", "Billed"),
            Column::number("booked_usd", "In the books"),
            Column::number("unmetered_usd", "Unmetered"),
        ],
        rows: runs.map(|runs| runs.iter().map(row).collect()),
        empty: "No run has said how it ended. The reconciler runs each night: see its README for how to start it."
            .to_owned(),
        ..Table::default()
    }
}

/// What a run could not have, and what waits for a person.
fn lacking(run: &Value) -> String {
    let missing = run.get("missing").and_then(Value::as_object).into_iter().flatten();
    let missing =
        missing.map(|(what, why)| format!("{what}: {}", why.as_str().unwrap_or_default()));
    let held = run.get("held").and_then(Value::as_array).into_iter().flatten();
    let held = held.filter_map(Value::as_str).map(|it| format!("waits for a person: {it}"));
    missing.chain(held).collect::<Vec<_>>().join("; ")
}

/// Use on bills that the gateway never saw. Only rows that name a credential are of that kind.
pub(super) fn unmetered(rows: Option<Vec<Value>>) -> Table {
    let none = Value::Null;
    let row = |row: &Value| {
        let (group, sums) = (row.get("group").unwrap_or(&none), row.get("sums").unwrap_or(&none));
        let mut cells: Vec<Cell> =
            ["unmetered", "provider", "model"].map(|name| Cell::text(text(group, name))).into();
        cells.push(Cell::usd(text(sums, "billed_usd")));
        cells.push(Cell::count(number(sums, "provisional_lines")));
        cells
    };
    let named = |row: &&Value| row.get("group").is_some_and(|it| !text(it, "unmetered").is_empty());
    Table {
        id: "unmetered",
        caption: "Billed for use that the gateway never saw".to_owned(),
        columns: vec![
            Column::text("unmetered", "Credential or account"),
            Column::text("provider", "Provider"),
            Column::text("model", "Model"),
            Column::number("billed_usd", "Billed"),
            Column::number("provisional_lines", "Provisional lines"),
        ],
        rows: rows.map(|rows| rows.iter().filter(named).map(row).collect()),
        empty: "All use on bills of these days went through the gateway.".to_owned(),
        ..Table::default()
    }
}
