//! The calculators: a workload across models, and provisioned throughput. Both begin with the last 30 days' own figures.

use serde_json::Value;
use tallygate_shared::time::Date;

use super::{Rounds, Visit, number, sum, sum_usd, text, usd};
use crate::dashboard::figures::each_million;
use crate::dashboard::view::{Block, Cell, Column, Field, Link, Stat, Table, Tone, View, stat};
use crate::dashboard::web::Ask;

const WORKLOAD: [&str; 5] =
    ["requests", "input_tokens", "cached_tokens", "output_tokens", "batch_percent"];
const THROUGHPUT: [&str; 5] = [
    "price_per_unit_hour_usd",
    "units",
    "tokens_per_minute",
    "on_demand_per_million_usd",
    "tokens_per_month",
];

/// The last 30 days' usage, which the form begins with; and the answer, once something is asked.
fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>, path: &str, names: &[&str]) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let month = Date::from_days(visit.now.date().days() - 30).to_string();
    let usage = Ask::get("/usage").with("from", month).with("group_by", "outcome");
    let asked = names.iter().any(|name| visit.query.get(name).is_some());
    let ask = Ask::get(path).with_those(&visit.query, names);
    // The first answer is what the page is about.
    if asked { vec![ask, usage] } else { vec![usage] }
}

/// Of what was sent: what was refused has no tokens.
fn usage(rounds: &Rounds<'_>) -> Vec<Value> {
    let last = rounds.0.first().map_or(0, |answers| answers.len().saturating_sub(1));
    let mut rows = rounds.rows(0, last).unwrap_or_default();
    rows.retain(|row| text(row, "outcome") != "refused");
    rows
}

fn answer(rounds: &Rounds<'_>) -> Option<Value> {
    rounds.0.first().filter(|answers| answers.len() > 1).and_then(|_| rounds.value(0, 0))
}

/// What a field holds: what was asked, or what it begins with.
fn filled(visit: &Visit<'_>, names: &[&str], name: &str, usual: &str) -> String {
    let asked = names.iter().any(|name| visit.query.get(name).is_some());
    if asked { visit.query.text(name).to_owned() } else { usual.to_owned() }
}

fn back() -> Block {
    let link = Link { href: "/dashboard/savings".into(), text: "Savings".into(), current: false };
    Block::Links(vec![link])
}

pub(super) fn workload_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    asks(visit, rounds, "/calculators/workload", &WORKLOAD)
}

pub(super) fn workload(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let past = usage(rounds);
    let requests = sum(&past, "requests");
    let mean = |name: &str| sum(&past, name).checked_div(requests).unwrap_or(0).to_string();
    let usual = [
        if requests > 0 { requests.to_string() } else { "100000".to_owned() },
        if requests > 0 { mean("input_tokens") } else { "2000".to_owned() },
        mean("cached_tokens"),
        if requests > 0 { mean("output_tokens") } else { "500".to_owned() },
        "0".to_owned(),
    ];
    let labels = [
        ("Requests a month", ""),
        ("Input tokens of a request", "Cached ones included."),
        ("of them cached", ""),
        ("Output tokens of a request", ""),
        ("Can wait for a batch, in percent", "0 to 100, of the requests."),
    ];
    let fields = WORKLOAD.iter().zip(labels).zip(usual).map(|((name, (label, help)), usual)| {
        let value = filled(visit, &WORKLOAD, name, &usual);
        Field { kind: "number", ..Field::text(name, label, &value) }.help(help)
    });
    let report = answer(rounds);
    let rows = report.as_ref().and_then(|report| report.get("data")?.as_array());
    let row = |row: &Value| {
        let long = row.get("long_context").and_then(Value::as_bool).unwrap_or_default();
        vec![
            Cell::text(text(row, "model")),
            Cell::text(text(row, "provider")),
            Cell::money(usd(row, "month_usd")),
            Cell::money(usd(row, "request_usd")),
            Cell::usd(text(row, "batch_request_usd")),
            Cell::text(if long { "yes" } else { "" }),
            Cell::text(text(row, "retires_on")),
        ]
    };
    let mut blocks = vec![back()];
    if let Some(rows) = rows {
        let unfit = report.as_ref().map_or(0, |report| number(report, "not_able"));
        blocks.push(Block::Table(Table {
            id: "workload",
            caption: format!("A month at each model, the cheapest first; {unfit} more cannot take it"),
            columns: vec![
                Column::text("model", "Model"),
                Column::text("provider", "Provider"),
                Column::number("month_usd", "A month"),
                Column::number("request_usd", "A request"),
                Column::number("batch_request_usd", "in a batch"),
                Column::text("long_context", "Long-input price"),
                Column::text("retires_on", "Retires on"),
            ],
            rows: Some(rows.iter().map(row).collect()),
            empty: "No model of the workspace's providers can take this. Add a provider, or ask for less.".into(),
            ..Table::default()
        }));
    }
    View {
        title: "A workload across models".to_owned(),
        lead: "What it would cost at every chat model of the workspace's providers, at list and own prices. The form \
            begins with the mean request of the last 30 days."
            .to_owned(),
        filters: fields.collect(),
        blocks,
        ..View::default()
    }
}

pub(super) fn throughput_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    asks(visit, rounds, "/calculators/provisioned-throughput", &THROUGHPUT)
}

pub(super) fn throughput(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let past = usage(rounds);
    let tokens = sum(&past, "input_tokens").saturating_add(sum(&past, "output_tokens"));
    let price = each_million(sum_usd(&past, "charged_usd"), tokens);
    let usual = [
        String::new(),
        "1".to_owned(),
        String::new(),
        price.map_or_else(String::new, |price| price.round_to_nanos().to_string()),
        tokens.to_string(),
    ];
    let labels = [
        ("Price of a unit for an hour, in US dollars", "", "text"),
        ("Units", "", "number"),
        ("Tokens a minute that a unit takes", "", "number"),
        (
            "On demand, US dollars a million tokens",
            "Begins with what the last 30 days cost.",
            "text",
        ),
        ("Tokens a month", "Begins with those of the last 30 days.", "number"),
    ];
    let fields =
        THROUGHPUT.iter().zip(labels).zip(usual).map(|((name, (label, help, kind)), usual)| {
            let value = filled(visit, &THROUGHPUT, name, &usual);
            Field { kind, ..Field::text(name, label, &value) }.help(help)
        });
    let mut blocks = vec![back()];
    blocks.extend(answer(rounds).map(|found| Block::Stats(verdict(&found))));
    View {
        title: "Provisioned throughput".to_owned(),
        lead: "From which utilisation on a commitment is cheaper than paying by the token; below it, it lies idle. A \
            month has 730 hours."
            .to_owned(),
        filters: fields.collect(),
        blocks,
        ..View::default()
    }
}

fn verdict(found: &Value) -> Vec<Stat> {
    let points = |name: &str| {
        let points = found.get(name).and_then(Value::as_i64);
        points.map_or(Cell::Nothing, Cell::Share)
    };
    let (tone, words) = match text(found, "verdict") {
        "commit" => (Tone::Good, "The commitment is cheaper"),
        "equal" => (Tone::Plain, "Both cost the same"),
        "too_small" => (Tone::Bad, "The units cannot take these tokens"),
        _ => (Tone::Warn, "Paying by the token is cheaper"),
    };
    let count =
        |name: &str| found.get(name).and_then(Value::as_u64).map_or(Cell::Nothing, Cell::count);
    vec![
        stat("Verdict", Cell::Badge { tone, text: words.to_owned() }, ""),
        stat(
            "Break-even utilisation",
            points("break_even_basis_points"),
            "Above 100 % it never pays.",
        ),
        stat(
            "Utilisation",
            points("utilisation_basis_points"),
            "Of the capacity, by the month's tokens.",
        ),
        stat(
            "Saved a month",
            Cell::usd(text(found, "saves_usd")),
            "Below zero: what the commitment loses.",
        ),
        stat("The commitment", Cell::usd(text(found, "commitment_usd")), "A month, used or not."),
        stat(
            "On demand",
            Cell::usd(text(found, "on_demand_usd")),
            "The month's tokens, paid one by one.",
        ),
        stat("A million tokens", Cell::usd(text(found, "per_million_usd")), "With the commitment."),
        stat("Capacity", count("capacity_tokens"), "Tokens a month."),
        stat("Break-even", count("break_even_tokens"), "Tokens a month."),
    ]
}
