//! One request whole: what was decided by which limit, tried, used, held, charged and billed.

use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};

use super::requests::outcome;
use super::{Rounds, Visit, number, prompts, text, usd};
use crate::dashboard::figures::share;
use crate::dashboard::view::{Block, Cell, Column, Facts, Link, Stat, Table, Tone, View, stat};
use crate::dashboard::web::{Ask, encoded};
use crate::providers::catalog::bill_name;

/// Parts of the event that have a place of their own on the page.
const SHOWN: [&str; 9] =
    ["usage", "cost", "actor", "attempts", "hold", "charged", "decided", "at", "settled_at"];
const AMOUNTS: [(&str, &str); 4] = [
    ("estimated_usd", "Estimated"),
    ("billed_usd", "Billed"),
    ("quantity_variance_usd", "By quantity"),
    ("price_variance_usd", "By price"),
];

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let id = visit.parameters.first().map_or("", String::as_str);
    match (rounds.done(), rounds.value(0, 0)) {
        (0, _) => {
            vec![Ask::get(format!("/requests/{}", encoded(id))), Ask::get("/providers")]
        }
        // A bill has days, not requests: what is known of this one is its day's.
        (1, Some(event)) if !text(&event, "provider").is_empty() => {
            let day = at(&event).date();
            let after = Date::from_days(day.days() + 1);
            let ask = Ask::get("/true-ups")
                .with("from", day.to_string())
                .with("to", after.to_string())
                .with("provider", billed_as(text(&event, "provider"), rounds.rows(0, 1)))
                .with("key", text(&event, "key"))
                .with("group_by", "model,meter,kind");
            vec![ask]
        }
        _ => Vec::new(),
    }
}

/// What bills call a provider: the workspace's own name for it is another. One that is gone had the usual name.
fn billed_as(name: &str, providers: Option<Vec<Value>>) -> String {
    let known = providers.unwrap_or_default().into_iter().find(|it| text(it, "name") == name);
    let kind = known.as_ref().map_or(name, |provider| text(provider, "kind"));
    bill_name(kind).to_owned()
}

fn at(event: &Value) -> Timestamp {
    Timestamp::from_ms(event.get("at").and_then(Value::as_i64).unwrap_or_default())
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let id = visit.parameters.first().cloned().unwrap_or_default();
    let title = format!("Request {id}");
    let Some(event) = rounds.value(0, 0) else { return View { title, ..View::default() } };
    let mut rest = event.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.retain(|name, _| !SHOWN.contains(&name.as_str()));
    }
    let facts = |title: &str, rows| Block::Facts(Facts { title: title.to_owned(), rows });
    let actor = event.get("actor").map(super::leaves).unwrap_or_default();
    let session = event.pointer("/actor/session").and_then(Value::as_str);
    let mut blocks: Vec<Block> =
        session.map(|name| session_link(&event, name)).into_iter().collect();
    blocks.extend([
        Block::Stats(stats(&event)),
        Block::Table(limits(&event)),
        facts("What it asked for", asked(&event)),
        Block::Table(attempts(&event)),
        Block::Table(tokens(&event)),
    ]);
    blocks.extend(event.pointer("/decided/asked/parts").map(parts).map(Block::Table));
    blocks.extend([
        Block::Table(components(&event)),
        facts("The price it was rated with", price(&event)),
        facts("Hold and settlement", settlement(&event)),
    ]);
    if rounds.done() > 1 {
        blocks.push(Block::Table(billed(rounds.rows(1, 0))));
    }
    blocks.extend([facts("For whom", actor), facts("The request", super::leaves(&rest))]);
    View {
        title,
        lead: "One request whole: what was decided, tried, used, held and charged.".to_owned(),
        blocks,
        ..View::default()
    }
}

fn session_link(event: &Value, name: &str) -> Block {
    let month = at(event).date().first_of_month();
    let href = format!("/dashboard/agent-sessions/{}?from={month}", encoded(name));
    let text = "Its session, request by request".to_owned();
    Block::Links(vec![Link { href, text, current: false }])
}

fn stats(event: &Value) -> Vec<Stat> {
    let first_byte = event.get("first_byte_ms").and_then(Value::as_u64);
    vec![
        stat("How it ended", outcome(event), ""),
        stat("Charged", Cell::usd(text(event, "charged")), ""),
        stat("Milliseconds", Cell::count(number(event, "duration_ms")), ""),
        stat("to the first byte", first_byte.map_or(Cell::Nothing, Cell::count), ""),
    ]
}

/// Each limit that the key had, and what it said.
fn limits(event: &Value) -> Table {
    let decided = event.get("decided");
    let rows = decided.and_then(|it| it.get("limits")).and_then(Value::as_array);
    let row = |limit: &Value| {
        let refused = limit.get("refused").and_then(Value::as_bool).unwrap_or_default();
        let (tone, verdict) = if refused { (Tone::Bad, "refused") } else { (Tone::Good, "passed") };
        let mut cells = vec![Cell::Text(text(limit, "name").replace('_', " "))];
        cells.extend(["limit", "before", "asked"].map(|name| Cell::text(text(limit, name))));
        cells.push(Cell::Badge { tone, text: verdict.to_owned() });
        cells
    };
    let empty = match decided {
        Some(_) => "The key had no limit.",
        None => "This request is from before its limits were kept.",
    };
    Table {
        id: "limits",
        caption: "The decision: every limit that the key had".to_owned(),
        columns: vec![
            Column::text("name", "Limit"),
            Column::number("limit", "Allows"),
            Column::number("before", "Taken before"),
            Column::number("asked", "Asked"),
            Column::text("verdict", "Verdict"),
        ],
        rows: Some(rows.into_iter().flatten().map(row).collect()),
        empty: empty.to_owned(),
        ..Table::default()
    }
}

fn asked(event: &Value) -> Vec<(String, Cell)> {
    let none = Value::Null;
    let decided = event.get("decided").unwrap_or(&none);
    let asked = decided.get("asked").unwrap_or(&none);
    let count =
        |name: &str| asked.get(name).and_then(Value::as_u64).map_or(Cell::Nothing, Cell::count);
    let mut rows = vec![
        ("Input tokens, estimated before sending".to_owned(), count("input_tokens")),
        ("Most output tokens".to_owned(), count("max_output_tokens")),
        ("Bytes".to_owned(), count("body_bytes")),
    ];
    if let by @ ("key_status" | "address" | "actor" | "request" | "model" | "price") =
        text(decided, "refused_by")
    {
        rows.push(("Refused by the check of".to_owned(), Cell::Text(by.replace('_', " "))));
    }
    if decided.get("leased").and_then(Value::as_bool).unwrap_or_default() {
        let text = "Under a lease given in advance: its rate limits were taken with the lease";
        rows.push(("Admitted".to_owned(), Cell::text(text)));
    }
    rows
}

fn attempts(event: &Value) -> Table {
    let rows = event.get("attempts").and_then(Value::as_array).cloned().unwrap_or_default();
    let row = |attempt: &Value| {
        vec![
            Cell::text(text(attempt, "provider")),
            Cell::text(text(attempt, "model")),
            attempt.get("status").and_then(Value::as_u64).map_or(Cell::Nothing, Cell::count),
            Cell::text(text(attempt, "error")),
            Cell::count(number(attempt, "started_ms")),
            Cell::count(number(attempt, "took_ms")),
        ]
    };
    Table {
        id: "attempts",
        caption: "Attempts at providers".to_owned(),
        columns: vec![
            Column::text("provider", "Provider"),
            Column::text("model", "Model"),
            Column::number("status", "Status"),
            Column::text("error", "Error"),
            Column::number("started_ms", "Began after, ms"),
            Column::number("took_ms", "Took, ms"),
        ],
        rows: Some(rows.iter().map(row).collect()),
        empty: "No provider was asked.".to_owned(),
        ..Table::default()
    }
}

fn tokens(event: &Value) -> Table {
    let tokens = event.pointer("/usage/tally/tokens").cloned().unwrap_or(json!({}));
    let source = match event.pointer("/usage/source").and_then(Value::as_str) {
        Some("reported") => "as the provider counted them",
        Some("estimated") => "estimated by the gateway",
        _ => "none were used",
    };
    let table = super::models::tokens(Some(vec![json!({ "tokens": tokens })]));
    Table { caption: format!("Tokens by bucket, {source}"), ..table }
}

fn parts(parts: &Value) -> Table {
    Table {
        id: "parts",
        caption: "What its input consisted of, by the gateway's estimate".to_owned(),
        columns: prompts::part_columns(),
        rows: Some(vec![prompts::parts(parts)]),
        ..Table::default()
    }
}

fn components(event: &Value) -> Table {
    let parts = event.pointer("/cost/parts").and_then(Value::as_object);
    let total: Usd = event
        .pointer("/cost/total")
        .and_then(Value::as_str)
        .map_or(Usd::ZERO, |text| text.parse().unwrap_or_default());
    let row = |(name, amount): (&String, &Value)| {
        let amount: Usd = amount.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        vec![
            Cell::Text(name.replace('_', " ")),
            Cell::money(amount),
            share(amount.pico(), total.pico()).map_or(Cell::Nothing, Cell::Share),
        ]
    };
    Table {
        id: "components",
        caption: "Cost by component".to_owned(),
        columns: vec![
            Column::text("component", "Component"),
            Column::number("usd", "Cost"),
            Column::text("share", "Share"),
        ],
        rows: Some(parts.into_iter().flatten().map(row).collect()),
        empty: "Nothing was bought, or nothing prices it.".to_owned(),
        ..Table::default()
    }
}

fn price(event: &Value) -> Vec<(String, Cell)> {
    match event.pointer("/cost/price") {
        Some(price) => super::leaves(price),
        None => vec![("Price".to_owned(), Cell::Nothing)],
    }
}

fn settlement(event: &Value) -> Vec<(String, Cell)> {
    let (hold, charged) = (usd(event, "hold"), usd(event, "charged"));
    let back = if hold < charged { Usd::ZERO } else { hold.remaining_after(charged) };
    let beyond = charged.remaining_after(hold);
    let mut rows = vec![
        ("Admitted or refused".to_owned(), super::moment(event, "at")),
        ("Held before it was sent".to_owned(), Cell::money(hold)),
        ("Settled".to_owned(), super::moment(event, "settled_at")),
        ("Charged".to_owned(), Cell::money(charged)),
        ("Given back".to_owned(), Cell::money(back)),
    ];
    if beyond > Usd::ZERO {
        rows.push(("Beyond the hold".to_owned(), Cell::money(beyond)));
    }
    rows
}

/// The lines of bills that this request is part of.
fn billed(rows: Option<Vec<Value>>) -> Table {
    let none = Value::Null;
    let row = |row: &Value| {
        let (group, sums) = (row.get("group").unwrap_or(&none), row.get("sums").unwrap_or(&none));
        let mut cells: Vec<Cell> =
            ["model", "meter", "kind"].map(|name| Cell::text(text(group, name))).into();
        cells.extend(AMOUNTS.map(|(name, _)| Cell::usd(text(sums, name))));
        cells
    };
    let mut columns = vec![
        Column::text("model", "Model"),
        Column::text("meter", "Meter"),
        Column::text("kind", "Kind"),
    ];
    columns.extend(AMOUNTS.map(|(name, title)| Column::number(name, title)));
    Table {
        id: "billed",
        caption: "Trued up: the bill of its day, provider and key".to_owned(),
        columns,
        rows: rows.map(|rows| rows.iter().map(row).collect()),
        empty: "Not reconciled yet: its charge is an estimate until the night's run.".to_owned(),
        ..Table::default()
    }
}
