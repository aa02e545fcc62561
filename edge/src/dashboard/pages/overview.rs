//! The overview: what was spent, where it goes, what needs a look.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::overview_books::Sources;
use super::{Rounds, Visit, number, sum, sum_usd, text, usd};
use crate::dashboard::figures::{each, each_million, share};
use crate::dashboard::view::{Block, Cell, Column, Stat, Table, View, stat};
use crate::dashboard::web::{Ask, Fields};

/// The places of the first round's answers.
const BY_DAY: usize = 0;
const BY_TEAM: usize = 1;
const BUDGETS: usize = 2;
const ALERTS: usize = 3;
const FORECAST: usize = 4;
const OUTCOMES: usize = 5;
const STANDINGS: usize = 6;
const BOOKS: usize = 7;
const TOKENS: usize = 8;
const TOP: usize = 10;

/// Whether the visitor sees all owners' rows: some figures are of all of them or not to be had.
fn sees_all(visit: &Visit<'_>) -> bool {
    visit.session.owner.is_none()
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let today = visit.now.date();
    let month = today.first_of_month().to_string();
    match rounds.done() {
        0 => {
            let usage = |from: &str| Ask::get("/usage").with("from", from);
            let mut asks = vec![
                usage(&month).with("bucket", "day").with("group_by", "provider,outcome"),
                usage(&month).with("group_by", "team"),
                Ask::get("/budgets"),
                Ask::get("/alerts")
                    .with("state", "open")
                    .with("sort", "severity")
                    .with("limit", TOP.to_string()),
                Ask::get("/forecast"),
                Ask::get("/outcomes/summary").with("from", month.as_str()),
                Ask::get("/budget-standings").with("limit", TOP.to_string()),
            ];
            if sees_all(visit) {
                let performance = Ask::get("/model-performance").with("from", month.as_str());
                asks.extend([Ask::get("/books"), performance.with("group_by", "")]);
            }
            asks
        }
        1 => {
            let (budgets, standings) = (rounds.value(0, BUDGETS), rounds.rows(0, STANDINGS));
            super::budgets::fullest(budgets.as_ref(), standings.as_deref(), TOP).0
        }
        _ => Vec::new(),
    }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let today = visit.now.date();
    let by_day = rounds.rows(0, BY_DAY);
    let books = Sources::of(rounds, FORECAST, BOOKS);
    let mut blocks = vec![
        books.stats(),
        Block::Stats(efficiency(by_day.as_deref(), rounds, today)),
        Block::Table(by_provider(by_day.as_deref(), today)),
        Block::Table(top_owners(rounds)),
    ];
    if sees_all(visit) {
        blocks.push(Block::Table(super::models::tokens(rounds.rows(0, TOKENS))));
    }
    blocks.push(Block::Table(super::budgets::table(
        "budgets",
        "Budgets, the fullest first",
        rounds.value(0, BUDGETS).is_some().then(|| super::budgets::statuses(rounds, 1)),
        TOP,
    )));
    blocks.push(Block::Table(super::alerts::table("Open alerts", rounds.rows(0, ALERTS))));
    if sees_all(visit) {
        blocks.extend([books.freshness(), books.allocation()]);
    }
    View {
        title: "Overview".to_owned(),
        lead: books
            .first_step()
            .unwrap_or_else(|| format!("{} until now, in UTC.", today.first_of_month())),
        blocks,
        ..View::default()
    }
}

fn day_of(row: &Value) -> Option<i64> {
    Some(Date::parse(text(row, "bucket_start").get(..10)?)?.days())
}

fn this_month(rows: &[Value], today: Date) -> Vec<Value> {
    let first = today.first_of_month().days();
    rows.iter().filter(|row| day_of(row).is_some_and(|day| day >= first)).cloned().collect()
}

fn efficiency(by_day: Option<&[Value]>, rounds: &Rounds<'_>, today: Date) -> Vec<Stat> {
    let month = by_day.map(|rows| this_month(rows, today));
    let month = month.as_deref().unwrap_or_default();
    let [requests, input, cached, output] =
        ["requests", "input_tokens", "cached_tokens", "output_tokens"].map(|name| sum(month, name));
    let charged = sum_usd(month, "charged_usd");
    let refused = month.iter().filter(|row| text(row, "outcome") == "refused");
    let refused = refused.map(|row| number(row, "requests")).fold(0, u64::saturating_add);
    let part = |part: u64, whole: u64| share(i128::from(part), i128::from(whole));
    let outcomes = rounds.rows(0, OUTCOMES).unwrap_or_default();
    let accepted = sum(&outcomes, "accepted");
    let unknown = sum(&outcomes, "accepted_cost_unknown");
    let per_outcome = each(sum_usd(&outcomes, "cost_usd"), accepted.saturating_sub(unknown));
    let left_out = match unknown {
        0 => String::new(),
        unknown => format!(" Left out, as their cost is not known: {unknown}."),
    };
    let amount = |amount: Option<Usd>| amount.map_or(Cell::Nothing, Cell::money);
    vec![
        stat("Requests", Cell::count(requests), "Refused ones included."),
        stat("Input tokens", Cell::count(input), ""),
        stat("of them cached", Cell::count(cached), ""),
        stat("Output tokens", Cell::count(output), ""),
        stat(
            "Cache hit rate",
            part(cached, input).map_or(Cell::Nothing, Cell::Share),
            "Of input tokens.",
        ),
        stat("Per million tokens", amount(each_million(charged, input.saturating_add(output))), ""),
        stat(
            "Per request",
            amount(each(charged, requests.saturating_sub(refused))),
            "Without refused ones.",
        ),
        stat(
            "Per accepted outcome",
            amount(per_outcome),
            format!("{accepted} accepted this month.{left_out}"),
        ),
    ]
}

/// A row for each day, a column for each provider.
fn by_provider(rows: Option<&[Value]>, today: Date) -> Table {
    let month = rows.map(|rows| this_month(rows, today));
    // What reached no provider mostly cost nothing.
    let has_column =
        |row: &&Value| !text(row, "provider").is_empty() || usd(row, "charged_usd") != Usd::ZERO;
    let names: BTreeSet<&str> =
        month.iter().flatten().filter(has_column).map(|row| text(row, "provider")).collect();
    let mut columns = vec![Column::text("day", "Day")];
    columns.extend(names.iter().map(|name| match *name {
        "" => Column::number("no_provider", "No provider reached"),
        name => Column::number(name, name),
    }));
    columns.push(Column::number("charged_usd", "All"));
    let mut days: BTreeMap<i64, BTreeMap<&str, Usd>> = BTreeMap::new();
    for row in month.iter().flatten() {
        if let Some(day) = day_of(row) {
            let amounts = days.entry(day).or_default();
            let amount = amounts.entry(text(row, "provider")).or_default();
            *amount = amount.saturating_add(usd(row, "charged_usd"));
        }
    }
    let table_row = |(day, amounts): (&i64, &BTreeMap<&str, Usd>)| {
        let all = amounts.values().copied().fold(Usd::ZERO, Usd::saturating_add);
        let mut cells = vec![Cell::Text(Date::from_days(*day).to_string())];
        let amount = |name: &&str| Cell::money(amounts.get(name).copied().unwrap_or_default());
        cells.extend(names.iter().map(amount));
        cells.push(Cell::money(all));
        cells
    };
    Table {
        id: "by-provider",
        caption: "Charged by day and provider".to_owned(),
        columns,
        rows: month.as_ref().map(|_| days.iter().rev().map(table_row).collect()),
        empty: "No request this month yet.".to_owned(),
        charted: true,
        ..Table::default()
    }
}

fn top_owners(rounds: &Rounds<'_>) -> Table {
    let rows = rounds.rows(0, BY_TEAM).map(|mut rows| {
        rows.sort_by_key(|row| std::cmp::Reverse(usd(row, "charged_usd").pico()));
        let all = sum_usd(&rows, "charged_usd");
        let row = |row: &Value| {
            let amount = usd(row, "charged_usd");
            let team = match text(row, "team") {
                "" => Cell::link("/dashboard/usage?by=owner&none=team", "Unallocated"),
                team => {
                    let query =
                        Fields(vec![("by".into(), "feature".into()), ("team".into(), team.into())]);
                    Cell::link(format!("/dashboard/usage{}", query.query()), team)
                }
            };
            vec![
                team,
                Cell::count(number(row, "requests")),
                Cell::money(amount),
                share(amount.pico(), all.pico()).map_or(Cell::Nothing, Cell::Share),
            ]
        };
        rows.iter().map(row).collect()
    });
    Table {
        id: "top-owners",
        caption: "Teams this month".to_owned(),
        columns: vec![
            Column::text("team", "Team"),
            Column::number("requests", "Requests"),
            Column::number("charged_usd", "Charged"),
            Column::text("share", "Share"),
        ],
        rows,
        empty: "No request this month yet.".to_owned(),
        ..Table::default()
    }
}
