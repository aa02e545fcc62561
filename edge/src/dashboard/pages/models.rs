//! Models side by side: how many requests, how fast, how often wrong, and what they cost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::models_own as own;
use super::{Period, Rounds, Visit, number, text, usd};
use crate::dashboard::figures::{self, Figure};
use crate::dashboard::view::{Block, Cell, Column, Field, Stat, Table, View, stat};
use crate::dashboard::web::{Ask, Fields};

const FILTERS: [&str; 2] = ["provider", "model"];
/// Models with a line of their own in the chart: the dearest.
const LINES: usize = 8;

/// What can be drawn over time: its name in the address, what it is called, and where it stands in a row.
const MEASURES: [(&str, &str, Measure); 9] = [
    ("p95", "Latency p95", Measure::Ms("/latency_ms/p95")),
    ("p50", "Latency p50", Measure::Ms("/latency_ms/p50")),
    ("p99", "Latency p99", Measure::Ms("/latency_ms/p99")),
    ("first_byte", "Time to first token p95", Measure::Ms("/first_byte_ms/p95")),
    ("requests", "Requests", Measure::Count("/requests")),
    ("errors", "Errors", Measure::Count("/errors")),
    ("retries", "Retries", Measure::Count("/retries")),
    ("usd_per_million_tokens", "Per million tokens", Measure::Usd("/usd_per_million_tokens")),
    ("usd_per_accepted", "Per accepted outcome", Measure::Usd("/usd_per_accepted")),
];

/// What kind of number it is.
#[derive(Clone, Copy)]
enum Measure {
    Ms(&'static str),
    Count(&'static str),
    Usd(&'static str),
}

impl Measure {
    const fn unit(self) -> &'static str {
        match self {
            Self::Ms(_) => "ms",
            Self::Count(_) => "count",
            Self::Usd(_) => "USD",
        }
    }

    fn of(self, row: &Value) -> Cell {
        match self {
            Self::Ms(at) | Self::Count(at) => {
                row.pointer(at).and_then(Value::as_u64).map_or(Cell::Nothing, Cell::count)
            }
            Self::Usd(at) => {
                row.pointer(at).and_then(Value::as_str).map_or(Cell::Nothing, Cell::usd)
            }
        }
    }
}

/// What can be drawn from one owner's rows.
const OWN_MEASURES: [&str; 3] = ["requests", "errors", "usd_per_million_tokens"];

/// Whether the visitor sees all owners' rows.
fn is_whole(visit: &Visit<'_>) -> bool {
    visit.session.owner.is_none()
}

fn measures(visit: &Visit<'_>) -> Vec<(&'static str, &'static str, Measure)> {
    let whole = is_whole(visit);
    let shown = |it: &(&str, &str, Measure)| whole || OWN_MEASURES.contains(&it.0);
    MEASURES.into_iter().filter(shown).collect()
}

fn measure(visit: &Visit<'_>) -> (&'static str, &'static str, Measure) {
    let asked = visit.query.text("over_time");
    let all = measures(visit);
    let found = all.iter().find(|(name, ..)| *name == asked).or(all.first());
    let [usual, ..] = MEASURES;
    found.copied().unwrap_or(usual)
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    if !is_whole(visit) {
        return own::asks(visit, &FILTERS);
    }
    let ask = || {
        let ask = Period::of(visit).ask(Ask::get("/model-performance"));
        ask.with_those(&visit.query, &FILTERS)
    };
    vec![ask(), ask().with("group_by", ""), ask().with("bucket", "day")]
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let period = Period::of(visit);
    let [by_model, whole, by_day] = if is_whole(visit) {
        [0, 1, 2].map(|place| rounds.rows(0, place))
    } else {
        let (rows, days) = (rounds.rows(0, 0), rounds.rows(0, 1));
        let models = |rows: &Option<Vec<Value>>| rows.as_deref().map(own::models);
        [models(&rows), rows.as_deref().map(own::all), models(&days)]
    };
    let all = whole.as_ref().and_then(|rows| rows.last().cloned());
    let (_, called, measure) = measure(visit);
    let measures = measures(visit);
    let measures: Vec<(&str, &str)> =
        measures.iter().map(|(name, text, _)| (*name, *text)).collect();
    let [from, until] = period.fields();
    let mut filters = vec![from, until];
    filters.extend(
        [("provider", "Provider"), ("model", "Model")]
            .map(|(name, label)| Field::text(name, label, visit.query.text(name))),
    );
    let over_time = visit.query.text("over_time");
    filters.push(Field::choice("over_time", "Over time", over_time, &measures));
    let answer = rounds.value(0, 0);
    let after = answer.as_ref().map(|answer| text(answer, "measured_after").to_owned());
    let mut lead = format!("Models from {} to {}. ", period.from, period.until);
    lead.push_str(match &visit.session.owner {
        None => "Latencies are of completed requests; a percentile is within 6.25 % of the true one.",
        Some(_) => {
            "What you see is of your own requests. Latencies, retries and outcomes are known of everybody's alone."
        }
    });
    if let Some(after) = after.filter(|after| !after.is_empty()) {
        lead.push_str(&format!(" Measured since {}.", figures::minute(&after)));
    }
    let unknown = answer.as_ref().map_or(0, |answer| number(answer, "accepted_cost_unknown"));
    if unknown > 0 {
        lead.push_str(&format!(
            " Accepted outcomes left out, as their cost and model are not known: {unknown}."
        ));
    }
    View {
        title: "Models".to_owned(),
        lead,
        filters,
        blocks: vec![
            Block::Stats(stats(all.as_ref())),
            Block::Table(models(by_model)),
            Block::Table(over_days(by_day, called, measure)),
            Block::Table(tokens(whole)),
        ],
        ..View::default()
    }
}

fn stats(all: Option<&Value>) -> Vec<Stat> {
    let none = Value::Null;
    let all = all.unwrap_or(&none);
    let money = |name: &str| Cell::usd(text(all, name));
    vec![
        stat("Requests", Cell::count(number(all, "requests")), "Refused ones included."),
        stat("Error rate", rate(all, "error_rate_basis_points"), "Of what was sent to a provider."),
        stat("Latency p95, ms", Measure::Ms("/latency_ms/p95").of(all), "To the last byte."),
        stat(
            "Time to first token p95, ms",
            Measure::Ms("/first_byte_ms/p95").of(all),
            "Of completed streams.",
        ),
        stat("Cache hit rate", rate(all, "cache_hit_rate_basis_points"), "Of input tokens."),
        stat("Per million tokens", money("usd_per_million_tokens"), ""),
        stat(
            "Per accepted outcome",
            money("usd_per_accepted"),
            "The requests behind outcomes, for each accepted one.",
        ),
    ]
}

/// A share in basis points, which is also its exact value.
fn rate(row: &Value, name: &str) -> Cell {
    let shown = |points: i64| {
        Cell::Number(Figure { shown: figures::percent(points), exact: points.to_string() })
    };
    row.get(name).and_then(Value::as_i64).map_or(Cell::Nothing, shown)
}

fn name(row: &Value) -> String {
    match text(row, "model") {
        "" => "None reached".to_owned(),
        model => model.to_owned(),
    }
}

fn models(rows: Option<Vec<Value>>) -> Table {
    let row = |row: &Value| {
        let fields = ["provider", "model"].map(|it| (it.to_owned(), text(row, it).to_owned()));
        let query = Fields(fields.into());
        let mut cells = vec![
            match text(row, "model") {
                "" => Cell::link("/dashboard/blocked", "None reached"),
                model => Cell::link(format!("/dashboard/requests{}", query.query()), model),
            },
            Cell::text(text(row, "provider")),
        ];
        cells.extend(["requests", "errors"].map(|name| Cell::count(number(row, name))));
        cells.push(rate(row, "error_rate_basis_points"));
        cells.push(Measure::Count("/retries").of(row));
        cells.extend(
            [
                "/latency_ms/p50",
                "/latency_ms/p95",
                "/latency_ms/p99",
                "/first_byte_ms/p50",
                "/first_byte_ms/p95",
                "/first_byte_ms/p99",
            ]
            .map(|at| Measure::Ms(at).of(row)),
        );
        cells.push(Cell::count(number(row, "total_tokens")));
        cells.push(rate(row, "cache_hit_rate_basis_points"));
        cells.extend(
            ["charged_usd", "usd_per_million_tokens", "usd_per_request"]
                .map(|name| Cell::usd(text(row, name))),
        );
        cells.push(Measure::Count("/accepted").of(row));
        cells.push(Cell::usd(text(row, "usd_per_accepted")));
        cells
    };
    let rows = rows.map(|mut rows| {
        rows.sort_by_key(|row| Reverse(usd(row, "charged_usd").pico()));
        rows.iter().map(row).collect()
    });
    let mut columns = vec![Column::text("model", "Model"), Column::text("provider", "Provider")];
    columns.extend(
        [
            ("requests", "Requests"),
            ("errors", "Errors"),
            ("error_rate_basis_points", "Error rate"),
            ("retries", "Retries"),
            ("latency_ms_p50", "Latency p50, ms"),
            ("latency_ms_p95", "p95, ms"),
            ("latency_ms_p99", "p99, ms"),
            ("first_byte_ms_p50", "First token p50, ms"),
            ("first_byte_ms_p95", "p95, ms"),
            ("first_byte_ms_p99", "p99, ms"),
            ("total_tokens", "Tokens"),
            ("cache_hit_rate_basis_points", "Cache hits"),
            ("charged_usd", "Charged"),
            ("usd_per_million_tokens", "Per million tokens"),
            ("usd_per_request", "Per request"),
            ("accepted", "Accepted"),
            ("usd_per_accepted", "Per accepted"),
        ]
        .map(|(name, title)| Column::number(name, title)),
    );
    Table {
        id: "models",
        caption: "Models side by side, the dearest first".to_owned(),
        columns,
        rows,
        empty: "No request in these days.".to_owned(),
        ..Table::default()
    }
}

/// A row for each day, a column for each of the dearest models.
fn over_days(rows: Option<Vec<Value>>, called: &str, measure: Measure) -> Table {
    let mut dearest: BTreeMap<(String, String), i128> = BTreeMap::new();
    for row in rows.iter().flatten().filter(|row| !text(row, "model").is_empty()) {
        let key = (name(row), text(row, "provider").to_owned());
        let sum = dearest.entry(key).or_default();
        *sum = sum.saturating_add(usd(row, "charged_usd").pico());
    }
    let mut dearest: Vec<_> = dearest.into_iter().collect();
    dearest.sort_by_key(|(_, charged)| Reverse(*charged));
    dearest.truncate(LINES);
    let day = |row: &Value| text(row, "bucket_start").get(..10).unwrap_or_default().to_owned();
    let days: BTreeSet<String> = rows.iter().flatten().map(day).collect();
    let cell = |on: &str, model: &str, provider: &str| {
        let same = |row: &&Value| {
            text(row, "bucket_start").starts_with(on)
                && text(row, "model") == model
                && text(row, "provider") == provider
        };
        rows.iter().flatten().find(same).map_or(Cell::Nothing, |row| measure.of(row))
    };
    let table_row = |day: &String| {
        let mut cells = vec![Cell::text(day)];
        cells.extend(dearest.iter().map(|((model, provider), _)| cell(day, model, provider)));
        cells
    };
    let mut columns = vec![Column::text("day", "Day")];
    columns.extend(dearest.iter().map(|((model, provider), _)| {
        let whole = format!("{provider}/{model}");
        Column::number(&whole, &whole)
    }));
    Table {
        id: "over-time",
        caption: format!("{called} by day, in {}", measure.unit()),
        columns,
        rows: rows.as_ref().map(|_| days.iter().rev().map(table_row).collect()),
        empty: "No request in these days.".to_owned(),
        charted: true,
        unit: measure.unit(),
        next: None,
    }
}

/// Buckets of tokens by their names, and what each is part of.
const BUCKETS: [(&str, &str); 15] = [
    ("input", "Input, not cached"),
    ("input_audio", "Audio input"),
    ("input_image", "Image input"),
    ("cache_read", "Read from a cache"),
    ("cache_read_audio", "Audio read from a cache"),
    ("cache_read_image", "Images read from a cache"),
    ("cache_write_5m", "Written to a cache for 5 minutes"),
    ("cache_write_30m", "Written to a cache for 30 minutes"),
    ("cache_write_1h", "Written to a cache for an hour"),
    ("cache_write_12h", "Written to a cache for 12 hours"),
    ("output", "Output"),
    ("reasoning", "Reasoning"),
    ("output_audio", "Audio output"),
    ("output_image", "Image output"),
    ("citation", "Citations"),
];

/// Tokens by bucket, from rows that have them, or of one request.
pub(super) fn tokens(rows: Option<Vec<Value>>) -> Table {
    let count = |row: &Value, bucket: &str| row.get("tokens").map_or(0, |it| number(it, bucket));
    let sums = rows.map(|rows| {
        BUCKETS.map(|(bucket, title)| {
            let sum = rows.iter().map(|row| count(row, bucket)).fold(0, u64::saturating_add);
            (bucket, title, sum)
        })
    });
    let rows = sums.map(|sums| {
        let all = sums.iter().map(|(.., sum)| *sum).fold(0, u64::saturating_add);
        let used = sums.into_iter().filter(|(.., sum)| *sum > 0);
        used.map(|(bucket, title, sum)| {
            let share = figures::share(i128::from(sum), i128::from(all));
            let share = share.map_or(Cell::Nothing, Cell::Share);
            vec![Cell::text(title), Cell::text(bucket), Cell::count(sum), share]
        })
        .collect()
    });
    Table {
        id: "tokens",
        caption: "Tokens by bucket".to_owned(),
        columns: vec![
            Column::text("title", "Tokens"),
            Column::text("bucket", "Bucket"),
            Column::number("tokens", "Count"),
            Column::text("share", "Share"),
        ],
        rows,
        empty: "No tokens.".to_owned(),
        ..Table::default()
    }
}
