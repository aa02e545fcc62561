//! The configuration as a document: edit it, see what would change, apply it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Rounds, Visit, number, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{Block, Cell, Column, Field, Form, Link, Table, View};
use crate::dashboard::web::{Answer, Ask};

/// The largest document that is edited on the page: percent-encoded it is about twice as large, and a form ends at
/// 2 MiB.
const MAX_DOCUMENT: usize = 700_000;
/// Rows of a difference. What is more is in the API's answer.
const MAX_CHANGES: usize = 1_000;

/// The pages of the settings.
pub(super) fn tabs(visit: &Visit<'_>) -> Block {
    let tab = |(path, name): (&str, &str)| Link {
        href: format!("{}{path}", crate::dashboard::ROOT),
        text: name.to_owned(),
        current: visit.path.strip_prefix(crate::dashboard::ROOT) == Some(path),
    };
    let tabs = [
        ("/settings", "Configuration"),
        ("/settings/versions", "Versions"),
        ("/settings/people", "Who may sign in"),
        ("/settings/simulator", "Policy simulator"),
        ("/settings/maturity", "Crawl, walk, run"),
    ];
    Block::Links(tabs.map(tab).into())
}

/// What changed, value by value.
pub(super) fn changes_table(id: &'static str, caption: &str, changes: Option<&Value>) -> Table {
    let rows = changes.and_then(|answer| answer.get("changes")).and_then(Value::as_array);
    let rows = rows.map(|changes| changes.iter().flat_map(rows_of).take(MAX_CHANGES).collect());
    Table {
        id,
        caption: caption.to_owned(),
        columns: vec![
            Column::text("path", "Setting"),
            Column::text("change", "Change"),
            Column::text("before", "Before"),
            Column::text("after", "After"),
        ],
        rows,
        empty: "Nothing differs.".to_owned(),
        ..Table::default()
    }
}

/// The values of one change that differ.
fn rows_of(change: &Value) -> Vec<Vec<Cell>> {
    let side = |name: &str| {
        let mut leaves = BTreeMap::new();
        if let Some(value) = change.get(name) {
            leaf(text(change, "path").to_owned(), value, &mut leaves);
        }
        leaves
    };
    let (before, after) = (side("before"), side("after"));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let row = |path: &String| {
        let (old, new) = (before.get(path), after.get(path));
        let word = match (old, new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let cell = |value: Option<&String>| value.map_or(Cell::Nothing, |it| Cell::text(it));
        (old != new).then(|| vec![Cell::text(path), Cell::text(word), cell(old), cell(new)])
    };
    paths.into_iter().filter_map(row).collect()
}

fn leaf(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaf(format!("{path}.{name}"), value, into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (place, value) in items.iter().enumerate() {
                leaf(format!("{path}[{place}]"), value, into);
            }
        }
        Value::String(text) => {
            into.insert(path, text.clone());
        }
        other => {
            into.insert(path, other.to_string());
        }
    }
}

/// What is wrong with what was written, by its place.
fn errors(answer: &Answer) -> Option<Table> {
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let errors = body.get("errors")?.as_array()?.clone();
    let row = |error: &Value| {
        ["field", "detail", "remedy"].map(|name| Cell::text(text(error, name))).into()
    };
    Some(Table {
        id: "errors",
        caption: "What is wrong with it".to_owned(),
        columns: vec![
            Column::text("field", "Where"),
            Column::text("detail", "What is wrong"),
            Column::text("remedy", "What to do"),
        ],
        rows: Some(errors.iter().map(row).collect()),
        ..Table::default()
    })
}

/// What was written, where something was.
fn written(visit: &Visit<'_>) -> Option<Value> {
    serde_json::from_str(visit.form.text("document")).ok()
}

/// The version that it was written on, when that is not the current one.
fn stale(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Option<u64> {
    let base: u64 = visit.form.get("version")?.parse().ok()?;
    let current = number(&rounds.value(0, 0)?, "version");
    (base < current).then_some(base)
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if visit.session.owner.is_some() {
        return Vec::new();
    }
    match rounds.done() {
        0 => vec![Ask::get("/config/versions/current")],
        1 => {
            let conflict = visit.answer.as_ref().filter(|answer| answer.status == 409);
            let both = stale(visit, rounds).zip(written(visit)).filter(|_| conflict.is_some());
            let both = both.map(|(base, document)| {
                let theirs = Ask::get("/config/versions/current/diff");
                let mine = Ask::send("POST", "/config/diff", Some(document));
                vec![theirs.with("from", base.to_string()), mine]
            });
            both.unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let mut view = View {
        title: "Settings".to_owned(),
        lead: "The whole configuration as one JSON document. No secret is in it.".to_owned(),
        blocks: vec![tabs(visit)],
        ..View::default()
    };
    if visit.session.owner.is_some() {
        view.lead = "The configuration names every owner's keys and budgets, so a token with an owner does not \
                     show it. The policy simulator works with your own keys."
            .to_owned();
        return view;
    }
    let Some(current) = rounds.value(0, 0) else { return view };
    let version = number(&current, "version").to_string();
    let config = current.get("config").cloned().unwrap_or_default();
    let document = match visit.form.text("document") {
        "" => serde_json::to_string_pretty(&config).unwrap_or_default(),
        written => written.to_owned(),
    };
    if document.len() > MAX_DOCUMENT {
        view.lead = format!(
            "The document has {} bytes, which is too much for this page. Edit it with GET and PUT \
             /api/v1/workspaces/{}/config.",
            document.len(),
            visit.session.workspace
        );
        return view;
    }
    let may = visit.session.role.may(Act::WriteConfig);
    let conflict = rounds.done() > 1;
    // Once both changes are shown, to apply it again means to replace the other one.
    let base = match visit.form.get("version").filter(|_| !conflict) {
        Some(base) => base.to_owned(),
        None => version.clone(),
    };
    if let Some(answer) = &visit.answer {
        let value = answer.value();
        match &value {
            Some(_) => {
                let caption = "What applying it would change";
                view.blocks.push(Block::Table(changes_table("changes", caption, value.as_ref())));
                if may {
                    view.blocks.push(Block::Form(Form {
                        id: "apply",
                        title: format!("Apply it to version {version}"),
                        path: "/dashboard/settings/apply".to_owned(),
                        fields: vec![
                            Field::hidden("version", &base),
                            Field::hidden("document", &document),
                        ],
                        submit: "Apply".to_owned(),
                    }));
                }
            }
            None => view.blocks.extend(errors(answer).map(Block::Table)),
        }
    }
    if conflict {
        let theirs = rounds.value(1, 0);
        let caption = "What changed since you began";
        view.blocks.push(Block::Table(changes_table("theirs", caption, theirs.as_ref())));
        let mine = rounds.value(1, 1);
        let caption = "What applying yours now would change";
        view.blocks.push(Block::Table(changes_table("yours", caption, mine.as_ref())));
    }
    view.blocks.push(Block::Form(Form {
        id: "config",
        title: format!("Version {version}"),
        path: "/dashboard/settings/check".to_owned(),
        fields: vec![
            Field::hidden("version", &base),
            Field::lines("document", "Configuration", &document)
                .required()
                .help("Keys are issued on their own page: one that is left out here is revoked."),
        ],
        submit: "Check it and see what changes".to_owned(),
    }));
    view
}
