//! Unit economics: what a feature, a customer, ... costs, models and harness together, and what came of it.

use std::collections::BTreeMap;

use serde_json::Value;
use tallygate_shared::money::Usd;

use super::{Period, Rounds, Visit, number, text, usd};
use crate::dashboard::figures::share;
use crate::dashboard::view::{Block, Cell, Column, Field, Stat, Table, View, stat};
use crate::dashboard::web::{Ask, Fields};

const BY: [(&str, &str); 9] = [
    ("feature", "Feature"),
    ("customer", "Customer"),
    ("team", "Team"),
    ("app", "App"),
    ("agent", "Agent"),
    ("user", "User"),
    ("owner", "Owner"),
    ("cost_centre", "Cost centre"),
    ("key", "Key"),
];
const BUCKETS: [(&str, &str); 3] = [("day", "Day"), ("week", "Week"), ("month", "Month")];
/// Names that have a column of their own over time.
const TOP: usize = 6;

fn by<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("by").unwrap_or("feature")
}

fn bucket<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("bucket").unwrap_or("day")
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let ask = Ask::get("/unit-economics").with("group_by", by(visit)).with("bucket", bucket(visit));
    vec![Period::of(visit).ask(ask)]
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let report = rounds.value(0, 0);
    let list = |name: &str| report.as_ref()?.get(name)?.as_array().cloned();
    let (from, until) = (Period::of(visit).from, Period::of(visit).until);
    let [first, last] = Period::of(visit).fields();
    let title = BY.iter().find(|(name, _)| *name == by(visit)).map_or("", |(_, title)| title);
    let overall = report.as_ref().and_then(|report| report.get("overall"));
    let totals = list("totals");
    View {
        title: "Unit economics".to_owned(),
        lead: format!(
            "What each {} cost from {from} to {until}: models as billed, and as estimated where no bill is there yet; \
             the harness (databases, functions, logs) as billed.",
            title.to_lowercase()
        ),
        filters: vec![
            Field::choice("by", "By", by(visit), &BY),
            Field::choice("bucket", "Over time by", bucket(visit), &BUCKETS),
            first,
            last,
        ],
        blocks: vec![
            Block::Stats(stats(overall)),
            Block::Table(units(visit, title, totals.as_deref())),
            Block::Table(over_time(totals.as_deref(), list("data").as_deref())),
            Block::Table(unit_cost(list("over_time").as_deref())),
        ],
        ..View::default()
    }
}

fn amount(row: &Value, name: &str) -> Cell {
    Cell::usd(text(row, name))
}

fn stats(overall: Option<&Value>) -> Vec<Stat> {
    let cell = |name: &str| overall.map_or(Cell::Nothing, |row| amount(row, name));
    let open = overall
        .and_then(|row| share(usd(row, "unbilled_usd").pico(), usd(row, "total_usd").pico()));
    vec![
        stat("Cost in all", cell("total_usd"), "Models and harness: the sum of the rows below."),
        stat("Models", cell("models_usd"), "What providers of models charge."),
        stat("Harness", cell("harness_usd"), "What runs around them, from cloud and SaaS bills."),
        stat("Still an estimate", open.map_or(Cell::Nothing, Cell::Share), "No bill says it yet."),
        stat("Per request", cell("per_request_usd"), "Of requests that used something."),
        stat(
            "Per accepted outcome",
            cell("per_accepted_usd"),
            "The whole cost, rejected work included, by what was accepted.",
        ),
        stat("Margin", cell("margin_usd"), "What accepted outcomes were worth, less the cost."),
    ]
}

fn units(visit: &Visit<'_>, title: &str, totals: Option<&[Value]>) -> Table {
    let dimension = by(visit);
    let all = totals.map(|rows| {
        rows.iter().map(|row| usd(row, "total_usd")).fold(Usd::ZERO, Usd::saturating_add)
    });
    let row = |row: &Value| {
        let name = match text(row, "name") {
            "" => Cell::text("Unallocated"),
            name => {
                let fields = [("by", "model"), (dimension, name)];
                let mut query = Fields(fields.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
                for name in ["from", "until"] {
                    query = query.with(name, visit.query.get(name));
                }
                Cell::link(format!("/dashboard/usage{}", query.query()), name)
            }
        };
        let part = share(usd(row, "total_usd").pico(), all.unwrap_or_default().pico());
        vec![
            name,
            Cell::count(number(row, "requests")),
            amount(row, "models_usd"),
            amount(row, "harness_usd"),
            amount(row, "total_usd"),
            part.map_or(Cell::Nothing, Cell::Share),
            amount(row, "per_request_usd"),
            Cell::count(number(row, "accepted")),
            Cell::count(number(row, "rejected")),
            amount(row, "per_accepted_usd"),
            amount(row, "value_usd"),
            amount(row, "margin_usd"),
        ]
    };
    Table {
        id: "units",
        caption: format!("By {}, the dearest first", title.to_lowercase()),
        columns: vec![
            Column::text(dimension, title),
            Column::number("requests", "Requests"),
            Column::number("models_usd", "Models"),
            Column::number("harness_usd", "Harness"),
            Column::number("total_usd", "Cost"),
            Column::text("share", "Share"),
            Column::number("per_request_usd", "Per request"),
            Column::number("accepted", "Accepted"),
            Column::number("rejected", "Rejected"),
            Column::number("per_accepted_usd", "Per accepted"),
            Column::number("value_usd", "Worth"),
            Column::number("margin_usd", "Margin"),
        ],
        rows: totals.map(|rows| rows.iter().map(row).collect()),
        empty: "Nothing was used or billed in these days.".to_owned(),
        ..Table::default()
    }
}

/// A row for each bucket, a column for each of the dearest names, one for the others.
fn over_time(totals: Option<&[Value]>, data: Option<&[Value]>) -> Table {
    let names: Vec<&str> =
        totals.unwrap_or_default().iter().take(TOP).map(|row| text(row, "name")).collect();
    let mut columns = vec![Column::text("bucket_start", "From")];
    columns.extend(names.iter().map(|name| match *name {
        "" => Column::number("unallocated", "Unallocated"),
        name => Column::number(name, name),
    }));
    columns.push(Column::number("others", "Others"));
    columns.push(Column::number("total_usd", "All"));
    let mut buckets: BTreeMap<&str, Vec<Usd>> = BTreeMap::new();
    for row in data.unwrap_or_default() {
        let sums = buckets
            .entry(text(row, "bucket_start"))
            .or_insert_with(|| vec![Usd::ZERO; names.len() + 1]);
        let place = names.iter().position(|name| *name == text(row, "name")).unwrap_or(names.len());
        if let Some(sum) = sums.get_mut(place) {
            *sum = sum.saturating_add(usd(row, "total_usd"));
        }
    }
    let row = |(start, sums): (&str, Vec<Usd>)| {
        let all = sums.iter().copied().fold(Usd::ZERO, Usd::saturating_add);
        let amounts = sums.into_iter().chain([all]).map(Cell::money);
        std::iter::once(Cell::text(start)).chain(amounts).collect()
    };
    Table {
        id: "cost-over-time",
        caption: "Cost over time".to_owned(),
        columns,
        rows: data.map(|_| buckets.into_iter().rev().map(row).collect()),
        empty: "Nothing was used or billed in these days.".to_owned(),
        charted: true,
        ..Table::default()
    }
}

fn unit_cost(over_time: Option<&[Value]>) -> Table {
    let row = |row: &Value| {
        vec![
            Cell::text(text(row, "bucket_start")),
            amount(row, "per_request_usd"),
            amount(row, "per_accepted_usd"),
            Cell::count(number(row, "requests")),
            Cell::count(number(row, "accepted")),
        ]
    };
    Table {
        id: "unit-cost-over-time",
        caption: "Cost of each request and accepted outcome over time".to_owned(),
        columns: vec![
            Column::text("bucket_start", "From"),
            Column::number("per_request_usd", "Per request"),
            Column::number("per_accepted_usd", "Per accepted outcome"),
            // No amounts, so they are not drawn with them.
            Column::text("requests", "Requests"),
            Column::text("accepted", "Accepted"),
        ],
        charted: true,
        rows: over_time.map(|rows| rows.iter().rev().map(row).collect()),
        empty: "Nothing was used or billed in these days.".to_owned(),
        ..Table::default()
    }
}
