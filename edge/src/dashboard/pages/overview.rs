//! The overview: what was spent, where it goes, what needs a look.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::{Rounds, Visit, number, sum, sum_usd, text, usd};
use crate::dashboard::figures::{each, each_million, percent, share};
use crate::dashboard::forecast::{forecast, past_error};
use crate::dashboard::view::{Block, Cell, Column, Stat, Table, View};
use crate::dashboard::web::{Ask, Fields};

/// The places of the first round's answers.
const BY_DAY: usize = 0;
const BY_TEAM: usize = 1;
const BUDGETS: usize = 2;
const ALERTS: usize = 3;
const TRUE_UPS: usize = 4;
const OUTCOMES: usize = 5;
const NEWEST: usize = 6;
const TOKENS: usize = 7;
/// Budgets asked about their spending: each is an object of its own.
const MOST_BUDGETS: usize = 40;
const TOP: usize = 10;

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let today = visit.now.date();
    let month = today.first_of_month().to_string();
    match rounds.done() {
        0 => {
            let usage = |from: &str| Ask::get("/usage").with("from", from);
            vec![
                usage(&before_last_month(today)).with("bucket", "day").with("group_by", "provider"),
                usage(&month).with("group_by", "team"),
                Ask::get("/budgets"),
                Ask::get("/alerts").with("state", "open").with("limit", "100"),
                Ask::get("/true-ups").with("from", month.as_str()),
                Ask::get("/outcomes/summary").with("from", month.as_str()),
                Ask::get("/requests").with("limit", "1"),
                Ask::get("/model-performance").with("from", month.as_str()).with("group_by", ""),
            ]
        }
        1 => super::budgets::status_asks(rounds.value(0, BUDGETS).as_ref(), MOST_BUDGETS),
        _ => Vec::new(),
    }
}

/// The month before last: the forecast looks back four weeks, also the one that is judged by last month.
fn before_last_month(today: Date) -> String {
    let last = Date::from_days(today.first_of_month().days() - 1).first_of_month();
    Date::from_days(last.days() - 1).first_of_month().to_string()
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let today = visit.now.date();
    let by_day = rounds.rows(0, BY_DAY);
    let mut blocks = vec![
        Block::Stats(spending(by_day.as_deref(), rounds, today)),
        Block::Stats(efficiency(by_day.as_deref(), rounds, today)),
        Block::Table(by_provider(by_day.as_deref(), today)),
        Block::Table(top_owners(rounds)),
        Block::Table(super::models::tokens(rounds.rows(0, TOKENS))),
    ];
    blocks.push(Block::Table(super::budgets::table(
        "budgets",
        "Budgets, the fullest first",
        rounds.value(0, BUDGETS).is_some().then(|| super::budgets::statuses(rounds, 1)),
        TOP,
    )));
    blocks.push(Block::Table(super::alerts::table("Open alerts", rounds.rows(0, ALERTS), TOP)));
    View {
        title: "Overview".to_owned(),
        lead: format!("{} until now, in UTC.", today.first_of_month()),
        blocks,
        ..View::default()
    }
}

fn day_of(row: &Value) -> Option<i64> {
    Some(Date::parse(text(row, "bucket_start").get(..10)?)?.days())
}

/// What each day was charged.
fn days(rows: &[Value]) -> BTreeMap<i64, Usd> {
    let mut days: BTreeMap<i64, Usd> = BTreeMap::new();
    for row in rows {
        if let Some(day) = day_of(row) {
            let sum = days.entry(day).or_default();
            *sum = sum.saturating_add(usd(row, "charged_usd"));
        }
    }
    days
}

fn this_month(rows: &[Value], today: Date) -> Vec<Value> {
    let first = today.first_of_month().days();
    rows.iter().filter(|row| day_of(row).is_some_and(|day| day >= first)).cloned().collect()
}

fn stat(label: &str, cell: Cell, note: impl Into<String>) -> Stat {
    Stat { label: label.to_owned(), cell, note: note.into() }
}

fn spending(by_day: Option<&[Value]>, rounds: &Rounds<'_>, today: Date) -> Vec<Stat> {
    let known = by_day.map(days);
    let spent = |from: i64| {
        let sum = |days: &BTreeMap<i64, Usd>| {
            days.range(from..).map(|(_, spent)| *spent).fold(Usd::ZERO, Usd::saturating_add)
        };
        known.as_ref().map(sum).map_or(Cell::Nothing, Cell::money)
    };
    let ahead = known.as_ref().and_then(|days| forecast(days, today));
    let error = known.as_ref().and_then(|days| past_error(days, today));
    let shown = |amount| crate::dashboard::figures::money(amount).shown;
    let range = ahead.map_or_else(
        || "Three whole days are needed for one.".to_owned(),
        |it| format!("Between {} and {}.", shown(it.low), shown(it.high)),
    );
    let accuracy = match error {
        Some(missed) => {
            format!("{range} The one of last month's middle missed by {}.", percent(missed))
        }
        None => range,
    };
    let sums = rounds.rows(0, TRUE_UPS).map(|rows| {
        let sums: Vec<Value> = rows.iter().filter_map(|row| row.get("sums").cloned()).collect();
        (sum_usd(&sums, "billed_usd"), sum_usd(&sums, "estimated_of_billed_usd"))
    });
    let month_sum = by_day.map(|rows| sum_usd(&this_month(rows, today), "charged_usd"));
    let trued_up = sums.zip(month_sum).and_then(|((_, estimated), all)| {
        let part = share(estimated.pico(), all.pico())?;
        Some(format!("{} of this month's charges is checked against bills.", percent(part)))
    });
    let newest = rounds.rows(0, NEWEST);
    let newest = newest.as_ref().and_then(|rows| rows.first()).map(|row| super::moment(row, "at"));
    vec![
        stat("Spent today", spent(today.days()), ""),
        stat("Spent this month", spent(today.first_of_month().days()), ""),
        stat(
            "Forecast for the month",
            ahead.map_or(Cell::Nothing, |it| Cell::money(it.expected)),
            accuracy,
        ),
        stat(
            "Billed so far",
            sums.map_or(Cell::Nothing, |(billed, _)| Cell::money(billed)),
            trued_up.unwrap_or_else(|| {
                "Nothing of this month is billed yet: all is estimate.".to_owned()
            }),
        ),
        stat("Newest request", newest.unwrap_or(Cell::Nothing), "How fresh these numbers are."),
    ]
}

fn efficiency(by_day: Option<&[Value]>, rounds: &Rounds<'_>, today: Date) -> Vec<Stat> {
    let month = by_day.map(|rows| this_month(rows, today));
    let month = month.as_deref().unwrap_or_default();
    let [requests, input, cached, output] =
        ["requests", "input_tokens", "cached_tokens", "output_tokens"].map(|name| sum(month, name));
    let charged = sum_usd(month, "charged_usd");
    let part = |part: u64, whole: u64| share(i128::from(part), i128::from(whole));
    let teams = rounds.rows(0, BY_TEAM).unwrap_or_default();
    let allocated: Vec<Value> =
        teams.iter().filter(|row| !text(row, "team").is_empty()).cloned().collect();
    let coverage =
        share(sum_usd(&allocated, "charged_usd").pico(), sum_usd(&teams, "charged_usd").pico());
    let outcomes = rounds.rows(0, OUTCOMES).unwrap_or_default();
    let accepted = sum(&outcomes, "accepted");
    let per_outcome = each(sum_usd(&outcomes, "cost_usd"), accepted);
    let amount = |amount: Option<Usd>| amount.map_or(Cell::Nothing, Cell::money);
    vec![
        stat("Requests", Cell::count(requests), ""),
        stat("Input tokens", Cell::count(input), ""),
        stat("of them cached", Cell::count(cached), ""),
        stat("Output tokens", Cell::count(output), ""),
        stat(
            "Cache hit rate",
            part(cached, input).map_or(Cell::Nothing, Cell::Share),
            "Of input tokens.",
        ),
        stat(
            "Allocated",
            coverage.map_or(Cell::Nothing, Cell::Share),
            "Of the charges: those that name a team.",
        ),
        stat("Per million tokens", amount(each_million(charged, input.saturating_add(output))), ""),
        stat("Per request", amount(each(charged, requests)), ""),
        stat(
            "Per accepted outcome",
            amount(per_outcome),
            format!("{accepted} accepted this month."),
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
            days.entry(day).or_default().insert(text(row, "provider"), usd(row, "charged_usd"));
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
                "" => Cell::link("/dashboard/usage?by=owner", "Unallocated"),
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
