//! The weekly review: what moved and why, what outcomes cost, what is new, what is near its cap, and whom to ask what.

use serde_json::Value;
use tallygate_shared::insights::week::Week;

use super::{Rounds, Visit, number, text, usd};
use crate::dashboard::view::{Block, Cell, Column, Field, Link, Stat, Table, Text, Tone, View};
use crate::dashboard::web::{Ask, Fields};

/// Weeks to choose from.
const WEEKS: i64 = 12;

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let review = || Ask::get("/weekly-review").with_those(&visit.query, &["week"]);
    vec![review(), review().with("format", "markdown")]
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let review = rounds.value(0, 0);
    let week = review.as_ref().map_or("", |review| text(review, "week"));
    let list = |name: &str| review.as_ref()?.get(name)?.as_array().cloned();
    let this = Week::of(visit.now.date());
    let mut names: Vec<String> = (0..WEEKS).map(|back| this.plus(-back).to_string()).collect();
    if !week.is_empty() && !names.iter().any(|name| name == week) {
        names.push(week.to_owned());
    }
    let options: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let mut blocks = vec![Block::Links(neighbours(week, this))];
    blocks.extend(review.as_ref().map(|review| Block::Stats(stats(review))));
    blocks.push(Block::Table(movers(list("movers"))));
    blocks.push(Block::Table(outcomes(list("outcomes"))));
    blocks.push(Block::Table(novelties(list("new"))));
    blocks.push(Block::Table(near_cap(list("near_cap"))));
    blocks.extend(rounds.body(0, 1).map(|text| {
        Block::Text(Text { title: "The review as Markdown".to_owned(), text: text.to_owned() })
    }));
    let lead = review.as_ref().map_or_else(String::new, |review| {
        let whole = review.get("complete").and_then(Value::as_bool).unwrap_or_default();
        let note =
            if whole { "" } else { " The week is not over: it is compared with a whole one." };
        let (from, to) = (text(review, "from"), text(review, "to"));
        let sent = "Alert settings say when it is sent to receivers each week (weekly_review).";
        format!("{from} until before {to}, UTC, compared with the week before.{note} {sent}")
    });
    View {
        title: "Weekly review".to_owned(),
        lead,
        filters: vec![Field::choice("week", "Week", week, &options)],
        blocks,
        ..View::default()
    }
}

fn neighbours(week: &str, this: Week) -> Vec<Link> {
    let Some(week) = Week::parse(week) else { return Vec::new() };
    let link = |week: Week, text: &str| Link {
        href: format!("/dashboard/review?week={week}"),
        text: format!("{text}: {week}"),
        current: false,
    };
    let mut links = vec![link(week.plus(-1), "The week before")];
    if week < this {
        links.push(link(week.plus(1), "The week after"));
    }
    links
}

const CHANGE: [(&str, &str); 7] = [
    ("before_usd", "Before"),
    ("after_usd", "Now"),
    ("change_usd", "Change"),
    ("volume_usd", "by requests"),
    ("mix_usd", "by model mix"),
    ("tokens_usd", "by tokens per request"),
    ("price_usd", "by price"),
];

/// A change's amounts, in the order of its columns.
fn changed(change: Option<&Value>) -> Vec<Cell> {
    let amount = |name: &str| {
        let change = change?;
        let place = change.get(name).or_else(|| change.get("effects")?.get(name))?;
        Some(Cell::usd(place.as_str()?))
    };
    CHANGE.iter().map(|(name, _)| amount(name).unwrap_or(Cell::Nothing)).collect()
}

fn change_columns() -> impl Iterator<Item = Column> {
    CHANGE.iter().map(|(name, title)| Column::number(name, title))
}

fn stats(review: &Value) -> Vec<Stat> {
    let total = review.get("total");
    let mut cells = changed(total).into_iter();
    let notes = [
        "Charged in the week before.",
        "Charged in this week.",
        "The four causes add up to it, to the last digit.",
        "More or fewer requests.",
        "Other models, or other shares of them.",
        "Longer or shorter prompts and answers, more or less from the cache.",
        "Other prices of the same tokens.",
    ];
    CHANGE
        .iter()
        .zip(notes)
        .map(|((_, title), note)| Stat {
            label: (*title).to_owned(),
            cell: cells.next().unwrap_or(Cell::Nothing),
            note: note.to_owned(),
        })
        .collect()
}

/// A name that leads to its charges.
fn named(dimension: &str, name: &str) -> Cell {
    let (by, filters) = match (dimension, name.split_once('/')) {
        (_, _) if name.is_empty() => return Cell::text("Unallocated"),
        ("model", Some((provider, model))) if !provider.is_empty() => {
            ("feature", vec![("provider", provider), ("model", model)])
        }
        ("model", _) => return Cell::text(name),
        ("feature", _) => ("model", vec![("feature", name)]),
        (dimension, _) => ("feature", vec![(dimension, name)]),
    };
    let fields = filters.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned()));
    let query = Fields(fields.collect()).with("by", Some(by));
    Cell::link(format!("/dashboard/usage{}", query.query()), name)
}

fn table(
    id: &'static str,
    caption: &str,
    columns: Vec<Column>,
    rows: Option<Vec<Vec<Cell>>>,
    empty: &str,
) -> Table {
    Table {
        id,
        caption: caption.to_owned(),
        columns,
        rows,
        empty: empty.to_owned(),
        ..Table::default()
    }
}

fn sentence(row: &Value, name: &str) -> Cell {
    Cell::Sentence(text(row, name).to_owned())
}

fn movers(rows: Option<Vec<Value>>) -> Table {
    let row = |row: &Value| {
        let mut cells = vec![
            named(text(row, "dimension"), text(row, "name")),
            Cell::text(text(row, "dimension")),
            Cell::text(text(row, "owner")),
        ];
        cells.extend(changed(row.get("change")));
        cells.push(sentence(row, "question"));
        cells
    };
    let mut columns = vec![
        Column::text("name", "What"),
        Column::text("dimension", "Kind"),
        Column::text("owner", "Ask"),
    ];
    columns.extend(change_columns());
    columns.push(Column::text("question", "Question"));
    let rows = rows.map(|rows| rows.iter().map(row).collect());
    table("movers", "Top movers", columns, rows, "Nothing moved.")
}

fn outcomes(rows: Option<Vec<Value>>) -> Table {
    let row = |row: &Value| {
        let mut cells = vec![
            named("feature", text(row, "feature")),
            Cell::text(text(row, "owner")),
            Cell::usd(text(row, "per_accepted_usd")),
            Cell::usd(text(row, "per_accepted_before_usd")),
            Cell::count(number(row, "accepted")),
            Cell::count(number(row, "rejected")),
            Cell::money(usd(row, "cost_usd")),
        ];
        cells.extend(changed(row.get("change")));
        cells.push(sentence(row, "question"));
        cells
    };
    let mut columns = vec![
        Column::text("feature", "Feature"),
        Column::text("owner", "Ask"),
        Column::number("per_accepted_usd", "Per accepted"),
        Column::number("per_accepted_before_usd", "the week before"),
        Column::number("accepted", "Accepted"),
        Column::number("rejected", "Rejected"),
        Column::number("cost_usd", "Cost of the requests behind them"),
    ];
    columns.extend(change_columns());
    columns.push(Column::text("question", "Question"));
    let rows = rows.map(|rows| rows.iter().map(row).collect());
    table(
        "outcomes",
        "Worst cost per outcome",
        columns,
        rows,
        "No outcome with a cost was reported.",
    )
}

fn novelties(rows: Option<Vec<Value>>) -> Table {
    let row = |row: &Value| {
        vec![
            named(text(row, "dimension"), text(row, "name")),
            Cell::text(text(row, "dimension")),
            Cell::moment(text(row, "first_seen")),
            Cell::money(usd(row, "charged_usd")),
            sentence(row, "question"),
        ]
    };
    let columns = vec![
        Column::text("name", "What"),
        Column::text("dimension", "Kind"),
        Column::text("first_seen", "First used"),
        Column::number("charged_usd", "Charged this week"),
        Column::text("question", "Question"),
    ];
    let rows = rows.map(|rows| rows.iter().map(row).collect());
    table("new", "New: not used in the eight weeks before", columns, rows, "Nothing new.")
}

fn near_cap(rows: Option<Vec<Value>>) -> Table {
    let row = |row: &Value| {
        let percent = number(row, "percent");
        let tone = if percent >= 100 { Tone::Bad } else { Tone::Warn };
        let name = text(row, "budget");
        let budget = format!("/dashboard/budgets/{}", crate::dashboard::web::encoded(name));
        let mut cells = vec![
            Cell::link(budget, name),
            Cell::text(text(row, "value")),
            Cell::text(text(row, "owner")),
            Cell::Badge { tone, text: format!("{percent} %") },
            Cell::money(usd(row, "spent_usd")),
            Cell::money(usd(row, "held_usd")),
            Cell::money(usd(row, "limit_usd")),
        ];
        cells.extend(changed(row.get("change")));
        cells.push(sentence(row, "question"));
        cells
    };
    let mut columns = vec![
        Column::text("budget", "Budget"),
        Column::text("value", "For"),
        Column::text("owner", "Ask"),
        Column::text("percent", "Used"),
        Column::number("spent_usd", "Spent"),
        Column::number("held_usd", "Held"),
        Column::number("limit_usd", "Limit"),
    ];
    columns.extend(change_columns());
    columns.push(Column::text("question", "Question"));
    let rows = rows.map(|rows| rows.iter().map(row).collect());
    table("near-cap", "Near the cap, as it is now", columns, rows, "No budget is at 80 % or more.")
}
