//! The configuration's past: who changed what when, the difference between any two versions, and the way back.

use serde_json::Value;

use super::settings::{changes_table, tabs};
use super::{Rounds, Visit, number, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{Block, Cell, Column, Facts, Field, Form, Table, View};
use crate::dashboard::web::{Ask, encoded};

/// Paths that a row names; the rest is counted.
const NAMED: usize = 5;

pub(super) fn list_asks(_: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![Ask::get("/config/versions")],
        _ => Vec::new(),
    }
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let row = |version: &Value| {
        let name = number(version, "version").to_string();
        let changed = version.get("changed").and_then(Value::as_array).cloned().unwrap_or_default();
        let named: Vec<&str> = changed.iter().take(NAMED).filter_map(Value::as_str).collect();
        let all = usize::try_from(number(version, "changes")).unwrap_or(usize::MAX);
        let more = match all.saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        vec![
            Cell::link(format!("/dashboard/settings/versions/{name}"), &name),
            super::moment(version, "at"),
            Cell::text(text(version, "who")),
            Cell::Text(format!("{}{more}", named.join(", "))),
            Cell::text(text(version, "note")),
        ]
    };
    let table = Table {
        id: "versions",
        caption: "Versions, the newest first".to_owned(),
        columns: vec![
            Column::text("version", "Version"),
            Column::text("at", "Made"),
            Column::text("who", "By"),
            Column::text("changed", "Changed"),
            Column::text("note", "Note"),
        ],
        rows: rounds.rows(0, 0).map(|rows| rows.iter().map(row).collect()),
        empty: "Nothing was changed yet.".to_owned(),
        ..Table::default()
    };
    View {
        title: "Versions".to_owned(),
        lead: "The last 100 versions of the configuration. Open one to compare it or to go back to it.".to_owned(),
        blocks: vec![tabs(visit), Block::Table(table)],
        ..View::default()
    }
}

fn version_of<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.parameters.first().map_or("", String::as_str)
}

pub(super) fn one_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let path = format!("/config/versions/{}", encoded(version_of(visit)));
    match rounds.done() {
        0 => {
            let with = visit.query.get("with").unwrap_or("current");
            let diff = Ask::get(format!("{path}/diff")).with("from", with);
            vec![Ask::get(path), diff]
        }
        _ => Vec::new(),
    }
}

pub(super) fn one(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let name = version_of(visit);
    let title = format!("Version {name}");
    let Some(version) = rounds.value(0, 0) else {
        return View { title, blocks: vec![tabs(visit)], ..View::default() };
    };
    let with = visit.query.get("with").unwrap_or("current");
    let facts = vec![
        ("Made".to_owned(), super::moment(&version, "at")),
        ("By".to_owned(), Cell::text(text(&version, "who"))),
        ("Note".to_owned(), Cell::text(text(&version, "note"))),
    ];
    let caption = match with {
        "current" => format!("From the current version to version {name}"),
        with => format!("From version {with} to version {name}"),
    };
    let mut blocks = vec![
        tabs(visit),
        Block::Facts(Facts { title: "About it".to_owned(), rows: facts }),
        Block::Table(changes_table("changes", &caption, rounds.value(0, 1).as_ref())),
        Block::Table(not_undone("What going back to it does not bring back", &version)),
    ];
    if visit.session.role.may(Act::WriteConfig) {
        blocks.push(Block::Form(Form {
            id: "roll-back",
            title: format!("Go back to version {name}"),
            path: format!("/dashboard/settings/versions/{}/roll-back", encoded(name)),
            fields: Vec::new(),
            submit: "Go back to it".to_owned(),
        }));
    }
    View {
        title,
        lead: "Going back makes a new version, which can be gone back from too.".to_owned(),
        filters: vec![
            Field::text("with", "Compare with version", with)
                .help("A version's number, or current."),
        ],
        blocks,
        ..View::default()
    }
}

fn not_undone(caption: &str, answer: &Value) -> Table {
    let missing = answer.get("not_undone").and_then(Value::as_array);
    let row = |it: &Value| ["path", "why"].map(|name| Cell::text(text(it, name))).into();
    Table {
        id: "not-undone",
        caption: caption.to_owned(),
        columns: vec![Column::text("path", "Setting"), Column::text("why", "Why")],
        rows: missing.map(|rows| rows.iter().map(row).collect()),
        empty: "Nothing: all of it comes back.".to_owned(),
        ..Table::default()
    }
}

/// What going back did.
pub(in crate::dashboard) fn rolled_back(answer: &Value) -> View {
    View {
        title: "The configuration went back".to_owned(),
        lead: format!("It is version {} now.", number(answer, "version")),
        blocks: vec![
            Block::Table(changes_table("changes", "What changed", Some(answer))),
            Block::Table(not_undone("What did not come back", answer)),
        ],
        ..View::default()
    }
}
