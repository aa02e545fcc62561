//! Where the workspace stands on the scale crawl, walk, run.

use serde_json::Value;

use super::settings::tabs;
use super::{Rounds, Visit, text};
use crate::dashboard::view::{Block, Cell, Column, Stat, Table, Tone, View};
use crate::dashboard::web::Ask;

pub(super) fn asks(_: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![Ask::get("/maturity")],
        _ => Vec::new(),
    }
}

fn level(name: &str) -> Cell {
    let tone = match name {
        "run" => Tone::Good,
        "walk" | "crawl" => Tone::Plain,
        _ => Tone::Warn,
    };
    let text = if name == "none" { "not begun" } else { name };
    Cell::Badge { tone, text: text.to_owned() }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let answer = rounds.value(0, 0);
    let list = answer.as_ref().and_then(|it| it.get("capabilities")).and_then(Value::as_array);
    let stats = list.into_iter().flatten().map(|it| Stat {
        label: capitalised(text(it, "capability")),
        cell: level(text(it, "level")),
        note: match text(it, "next") {
            "" => "All that is counted is met.".to_owned(),
            next => format!("Next: {next}"),
        },
    });
    let row = |capability: &Value, it: &Value| {
        let met = it.get("met").and_then(Value::as_bool) == Some(true);
        let (tone, word) = if met { (Tone::Good, "met") } else { (Tone::Warn, "not met") };
        let page = format!("{}{}", crate::dashboard::ROOT, text(it, "page"));
        vec![
            Cell::text(text(capability, "capability")),
            level(text(it, "level")),
            Cell::text(text(it, "what")),
            Cell::Badge { tone, text: word.to_owned() },
            Cell::text(text(it, "evidence")),
            if met { Cell::Nothing } else { Cell::link(page, text(it, "next")) },
        ]
    };
    let rows = list.map(|list| {
        let criteria = list.iter().flat_map(|capability| {
            let rows = capability.get("criteria").and_then(Value::as_array).into_iter().flatten();
            rows.map(move |it| row(capability, it))
        });
        criteria.collect()
    });
    let table = Table {
        id: "criteria",
        caption: "What is counted, and the next steps".to_owned(),
        columns: vec![
            Column::text("capability", "Capability"),
            Column::text("level", "Level"),
            Column::text("what", "What must be so"),
            Column::text("met", "Is it"),
            Column::text("evidence", "What was counted"),
            Column::text("next", "Next step"),
        ],
        rows,
        ..Table::default()
    };
    View {
        title: "Crawl, walk, run".to_owned(),
        lead: "Where this workspace stands, by what it really used in the last 30 days. A level counts when all below \
               it are met."
            .to_owned(),
        blocks: vec![tabs(visit), Block::Stats(stats.collect()), Block::Table(table)],
        ..View::default()
    }
}
