//! Owners: charges by any dimension, and from there further down, to the requests.

use serde_json::Value;
use std::cmp::Reverse;

use super::{Period, Rounds, Visit, number, sum_usd, text, usd};
use crate::dashboard::figures::share;
use crate::dashboard::flow::{Flow, Way};
use crate::dashboard::view::{Block, Cell, Column, Field, Link, Stat, Table, View};
use crate::dashboard::web::{Ask, Fields};
use crate::dimensions::DIMENSIONS;

const TITLES: [(&str, &str); 14] = [
    ("team", "Team"),
    ("owner", "Owner"),
    ("cost_centre", "Cost centre"),
    ("feature", "Feature"),
    ("customer", "Customer"),
    ("app", "App"),
    ("user", "User"),
    ("agent", "Agent"),
    ("key", "Key"),
    ("purpose", "Purpose"),
    ("environment", "Environment"),
    ("provider", "Provider"),
    ("model", "Model"),
    ("outcome", "How it ended"),
];

fn by<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("by").unwrap_or("team")
}

/// The question that is asked next: the first of these that is not fixed yet.
fn deeper(query: &Fields, by: &str) -> Option<&'static str> {
    let next = ["team", "feature", "key", "user", "agent", "model"];
    let is_open =
        |name: &str| query.get(name).is_none() && query.without().all(|other| other != name);
    next.into_iter().find(|name| *name != by && is_open(name))
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let query = &visit.query;
    let usage = || {
        let usage = Period::of(visit).ask(Ask::get("/usage"));
        usage.with_those(query, &DIMENSIONS).with_none_of(query)
    };
    vec![
        usage().with("group_by", by(visit)),
        usage().with("group_by", "provider,model,team,feature"),
    ]
}

fn title(name: &str) -> &str {
    TITLES.iter().find(|(known, _)| *known == name).map_or(name, |(_, title)| title)
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let by = by(visit);
    let period = Period::of(visit);
    let rows = rounds.rows(0, 0);
    let fixed: Vec<&(String, String)> =
        visit.query.0.iter().filter(|(name, _)| DIMENSIONS.contains(&name.as_str())).collect();
    let mut links = Vec::new();
    for (name, value) in fixed.iter().filter(|(_, value)| !value.is_empty()) {
        let href = format!("/dashboard/usage{}", visit.query.with(name, None).query());
        links.push(Link {
            href,
            text: format!("{}: {value} (take away)", title(name)),
            current: true,
        });
    }
    for name in visit.query.without() {
        let others: Vec<&str> = visit.query.without().filter(|other| *other != name).collect();
        let others = Some(others.join(",")).filter(|others| !others.is_empty());
        let href =
            format!("/dashboard/usage{}", visit.query.with("none", others.as_deref()).query());
        let text = format!("{}: {} (take away)", title(name), nobody(name));
        links.push(Link { href, text, current: true });
    }
    let requests = format!("/dashboard/requests{}", visit.query.with("by", None).query());
    links.push(Link { href: requests, text: "The requests".to_owned(), current: false });
    let [from, until] = period.fields();
    let mut filters = vec![Field::choice("by", "By", by, &TITLES), from, until];
    filters.extend(fixed.iter().map(|(name, value)| Field::text(name, title(name), value)));
    let none = visit.query.get("none");
    filters.extend(none.map(|names| Field::text("none", "Without", names)));
    let total = rows.as_deref().map(|rows| sum_usd(rows, "charged_usd"));
    let total = Stat {
        label: "Charged in all".to_owned(),
        cell: total.map_or(Cell::Nothing, Cell::money),
        note: "The sum of the rows below: what has no owner is one of them.".to_owned(),
    };
    let ways = rounds.rows(0, 1);
    let mut blocks =
        vec![Block::Links(links), Block::Stats(vec![total]), Block::Table(table(visit, by, rows))];
    blocks.extend(picture(ways.as_deref()).map(Block::Flow));
    blocks.push(Block::Table(flow(ways)));
    View {
        title: "Owners".to_owned(),
        lead: format!(
            "Charges from {} to {} by {}.",
            period.from,
            period.until,
            title(by).to_lowercase()
        ),
        filters,
        blocks,
        ..View::default()
    }
}

/// What stands where a dimension has no value.
fn nobody(dimension: &str) -> &'static str {
    match dimension {
        "provider" | "model" => "None reached",
        _ => "Unallocated",
    }
}

fn table(visit: &Visit<'_>, by: &str, rows: Option<Vec<Value>>) -> Table {
    let rows = rows.map(|mut rows| {
        rows.sort_by_key(|row| Reverse(usd(row, "charged_usd").pico()));
        let all = sum_usd(&rows, "charged_usd");
        let row = |row: &Value| {
            let amount = usd(row, "charged_usd");
            let (query, name) = match text(row, by) {
                "" => (visit.query.with_none(by), nobody(by)),
                value => (visit.query.with(by, Some(value)), value),
            };
            let query = query.with("by", deeper(&query, by));
            let name = Cell::link(format!("/dashboard/usage{}", query.query()), name);
            let mut cells = vec![name];
            let counts = ["requests", "input_tokens", "cached_tokens", "output_tokens"];
            cells.extend(counts.map(|name| Cell::count(number(row, name))));
            cells.push(Cell::money(amount));
            cells.push(share(amount.pico(), all.pico()).map_or(Cell::Nothing, Cell::Share));
            cells
        };
        rows.iter().map(row).collect()
    });
    Table {
        id: "usage",
        caption: format!("By {}, the dearest first", title(by).to_lowercase()),
        columns: vec![
            Column::text(by, title(by)),
            Column::number("requests", "Requests"),
            Column::number("input_tokens", "Input tokens"),
            Column::number("cached_tokens", "of them cached"),
            Column::number("output_tokens", "Output tokens"),
            Column::number("charged_usd", "Charged"),
            Column::text("share", "Share"),
        ],
        rows,
        empty: "No request in these days.".to_owned(),
        ..Table::default()
    }
}

const STATIONS: [&str; 4] = ["provider", "model", "team", "feature"];

fn picture(rows: Option<&[Value]>) -> Option<Flow> {
    let name = |row: &Value, at: &str| match text(row, at) {
        "" => nobody(at).to_owned(),
        name => name.to_owned(),
    };
    let way = |row: &Value| (STATIONS.map(|at| name(row, at)).into(), usd(row, "charged_usd"));
    let ways: Vec<Way> = rows?.iter().map(way).collect();
    crate::dashboard::flow::flow("Where the money flows", &ways)
}

/// Where the money goes: the dearest ways from provider to feature.
fn flow(rows: Option<Vec<Value>>) -> Table {
    let names = STATIONS;
    let rows = rows.map(|mut rows| {
        rows.sort_by_key(|row| Reverse(usd(row, "charged_usd").pico()));
        let row = |row: &Value| {
            let mut cells: Vec<Cell> = names.map(|name| Cell::text(text(row, name))).into();
            cells.push(Cell::money(usd(row, "charged_usd")));
            cells
        };
        rows.iter().map(row).collect()
    });
    let mut columns: Vec<Column> = names.map(|name| Column::text(name, title(name))).into();
    columns.push(Column::number("charged_usd", "Charged"));
    Table {
        id: "flow",
        caption: "From provider to model to team to feature".to_owned(),
        columns,
        rows,
        empty: "No request in these days.".to_owned(),
        ..Table::default()
    }
}
