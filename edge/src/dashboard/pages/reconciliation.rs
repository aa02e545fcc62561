//! Reconciliation: estimates against bills, prices on bills that are not ours, and exports.

use serde_json::Value;

use super::{Period, Rounds, Visit, number, sum_usd, text};
use super::{
    reconciliation_corrections as corrections, reconciliation_exports as exports,
    reconciliation_runs as runs,
};
use crate::admin::roles::Act;
use crate::dashboard::view::{Action, Block, Cell, Column, Field, Link, Stat, Table, View};
use crate::dashboard::web::{Ask, encoded};

const AMOUNTS: [(&str, &str); 5] = [
    ("estimated_usd", "Estimated"),
    ("billed_usd", "Billed"),
    ("estimated_of_billed_usd", "Estimated for what is billed"),
    ("quantity_variance_usd", "By quantity"),
    ("price_variance_usd", "By price"),
];
/// What the page can be narrowed to.
const FIXED: [&str; 3] = ["provider", "model", "kind"];
const GROUPS: [(&str, &str); 9] = [
    ("day,provider,model", "Day, provider, model"),
    ("provider,model", "Provider, model"),
    ("day", "Day"),
    ("provider", "Provider"),
    ("unmetered", "Unmetered usage"),
    ("cost_centre", "Cost centre"),
    ("day,meter", "Day, what is measured"),
    ("kind", "Kind of charge"),
    ("team", "Team"),
];

fn group<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("by").unwrap_or("day,provider,model")
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![
            Period::of(visit)
                .ask(Ask::get("/true-ups"))
                .with("group_by", group(visit))
                .with_those(&visit.query, &FIXED),
            Ask::get("/price-proposals"),
            Ask::get("/reconciliation-runs"),
            Period::of(visit)
                .ask(Ask::get("/true-ups"))
                .with("group_by", "unmetered,provider,model")
                .with_those(&visit.query, &FIXED),
            Period::of(visit).ask(Ask::get("/focus-exports")),
            corrections::ask(visit),
        ],
        _ => Vec::new(),
    }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let rows = rounds.rows(0, 0);
    let names: Vec<&str> = group(visit).split(',').collect();
    let sums: Option<Vec<Value>> =
        rows.as_ref().map(|rows| rows.iter().filter_map(|row| row.get("sums").cloned()).collect());
    let stats = AMOUNTS.map(|(name, label)| Stat {
        label: label.to_owned(),
        cell: sums.as_deref().map_or(Cell::Nothing, |sums| Cell::money(sum_usd(sums, name))),
        note: String::new(),
    });
    let row = |row: &Value| {
        let none = Value::Null;
        let (group, sums) = (row.get("group").unwrap_or(&none), row.get("sums").unwrap_or(&none));
        let mut cells: Vec<Cell> =
            names.iter().map(|name| deeper(visit, name, text(group, name))).collect();
        cells.extend(AMOUNTS.map(|(name, _)| Cell::usd(text(sums, name))));
        cells.push(Cell::count(number(sums, "unbilled_lines")));
        cells.push(Cell::count(number(sums, "provisional_lines")));
        cells
    };
    let mut columns: Vec<Column> =
        names.iter().map(|name| Column::text(name, &name.replace('_', " "))).collect();
    columns.extend(AMOUNTS.map(|(name, title)| Column::number(name, title)));
    columns.push(Column::number("unbilled_lines", "Not billed yet"));
    columns.push(Column::number("provisional_lines", "Provisional"));
    let table = Table {
        id: "true-ups",
        caption: "Estimates against bills".to_owned(),
        columns,
        rows: rows.as_ref().map(|rows| rows.iter().map(row).collect()),
        empty: "Nothing of these days is reconciled yet.".to_owned(),
        ..Table::default()
    };
    let period = Period::of(visit);
    let [from, until] = period.fields();
    View {
        title: "Reconciliation".to_owned(),
        lead: format!(
            "What was estimated and what was billed, {} to {}.",
            period.from, period.until
        ),
        filters: vec![from, until, Field::choice("by", "By", group(visit), &GROUPS)],
        blocks: vec![
            Block::Links(narrowed(visit)),
            Block::Stats(stats.into()),
            Block::Table(table),
            Block::Table(runs::unmetered(rounds.rows(0, 3))),
            Block::Table(corrections::table(visit, rounds, 5)),
            Block::Table(runs::table(rounds.rows(0, 2))),
            Block::Table(proposals(visit, rounds)),
            Block::Table(exports::table(rounds.rows(0, 4))),
        ],
        ..View::default()
    }
}

/// A name that leads to the same page, narrowed to it: a day to its providers, a provider to its models.
fn deeper(visit: &Visit<'_>, name: &str, value: &str) -> Cell {
    let query = match (name, value) {
        (_, "") => return Cell::Nothing,
        ("day", day) => {
            let query = visit.query.with("from", Some(day)).with("until", Some(day));
            query.with("by", Some("provider,model"))
        }
        ("provider", _) => {
            visit.query.with("provider", Some(value)).with("by", Some("day,provider,model"))
        }
        ("model", _) => visit.query.with("model", Some(value)).with("by", Some("day,meter")),
        _ => return Cell::text(value),
    };
    Cell::link(format!("/dashboard/reconciliation{}", query.query()), value)
}

/// What the page is narrowed to, to be taken away.
fn narrowed(visit: &Visit<'_>) -> Vec<Link> {
    let fixed = FIXED.iter().filter_map(|name| Some((*name, visit.query.get(name)?)));
    let link = |(name, value): (&str, &str)| Link {
        href: format!("/dashboard/reconciliation{}", visit.query.with(name, None).query()),
        text: format!("{name}: {value} (take away)"),
        current: true,
    };
    fixed.map(link).collect()
}

fn proposals(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Table {
    let may = visit.session.role.may(Act::WriteConfig);
    let row = |proposal: &Value| {
        let none = Value::Null;
        let it = proposal.get("correction").unwrap_or(&none);
        let id = encoded(text(proposal, "id"));
        let action = |act: &str, label: &str| Action {
            label: label.to_owned(),
            about: format!("{} {}", text(it, "model"), text(it, "meter")),
            path: format!("/dashboard/price-proposals/{id}/{act}"),
        };
        let mut cells: Vec<Cell> =
            ["provider", "model", "meter"].map(|name| Cell::text(text(it, name))).into();
        let amounts = ["ours_per_million", "billed_per_million", "effect"];
        cells.extend(amounts.map(|name| Cell::usd(text(it, name))));
        cells.push(Cell::text(text(it, "day")));
        cells.push(Cell::text(text(proposal, "state")));
        if may {
            cells.push(match text(proposal, "state") {
                "proposed" => {
                    Cell::Actions(vec![action("apply", "Apply"), action("dismiss", "Dismiss")])
                }
                _ => Cell::Nothing,
            });
        }
        cells
    };
    let mut columns = vec![
        Column::text("provider", "Provider"),
        Column::text("model", "Model"),
        Column::text("meter", "Meter"),
        Column::number("ours_per_million", "Ours per million"),
        Column::number("billed_per_million", "Billed per million"),
        Column::number("effect", "Effect"),
        Column::text("day", "From"),
        Column::text("state", "State"),
    ];
    if may {
        columns.push(Column::text("actions", "Decide"));
    }
    Table {
        id: "price-proposals",
        caption: "Prices on bills that are not the ones requests are rated with".to_owned(),
        columns,
        rows: rounds.rows(0, 1).map(|rows| rows.iter().map(row).collect()),
        empty: "All prices on bills are the ones we rate with.".to_owned(),
        ..Table::default()
    }
}
