//! Keys and providers: what there is, whose it is, and what can be done with it.

use serde_json::Value;
use std::collections::BTreeMap;

use super::{Period, Rounds, Visit, text, usd};
use crate::admin::roles::Act;
use crate::dashboard::view::{
    Action, Block, Cell, Column, Facts, Field, Form, Link, Table, Tone, View,
};
use crate::dashboard::web::{Ask, encoded};

pub(super) fn list_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![
            Ask::get("/keys"),
            Ask::get("/providers"),
            Period::of(visit).ask(Ask::get("/usage")).with("bucket", "day").with("group_by", "key"),
        ],
        _ => Vec::new(),
    }
}

/// What a key did in the period: its charges, and the last day with a request.
#[derive(Default)]
struct Use {
    charged: tallygate_shared::money::Usd,
    last_day: String,
}

fn uses(rows: &[Value]) -> BTreeMap<&str, Use> {
    let mut uses: BTreeMap<&str, Use> = BTreeMap::new();
    for row in rows {
        let it = uses.entry(text(row, "key")).or_default();
        it.charged = it.charged.saturating_add(usd(row, "charged_usd"));
        let day = text(row, "bucket_start").get(..10).unwrap_or_default();
        if day > it.last_day.as_str() {
            it.last_day = day.to_owned();
        }
    }
    uses
}

fn status(key: &Value) -> Cell {
    let (tone, text) = match text(key, "status") {
        "suspended" => (Tone::Warn, "suspended"),
        "revoked" => (Tone::Bad, "revoked"),
        _ => (Tone::Good, "active"),
    };
    Cell::Badge { tone, text: text.to_owned() }
}

fn actions(key: &Value) -> Cell {
    let id = encoded(text(key, "id"));
    let action = |act: &str, label: &str| Action {
        label: label.to_owned(),
        about: text(key, "name").to_owned(),
        path: format!("/dashboard/keys/{id}/{act}"),
    };
    match text(key, "status") {
        "revoked" => Cell::Nothing,
        "suspended" => Cell::Actions(vec![action("resume", "Resume")]),
        _ => Cell::Actions(vec![action("rotate", "Rotate"), action("suspend", "Suspend")]),
    }
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let may = visit.session.role.may(Act::WriteConfig);
    let usage = rounds.rows(0, 2);
    let uses = usage.as_deref().map(uses).unwrap_or_default();
    let row = |key: &Value| {
        let used = uses.get(text(key, "id"));
        let mut cells = vec![
            Cell::link(format!("/dashboard/keys/{}", encoded(text(key, "id"))), text(key, "name")),
            Cell::text(text(key, "id")),
            status(key),
        ];
        cells.extend(
            ["owner", "cost_centre", "purpose", "environment"]
                .map(|name| Cell::text(text(key, name))),
        );
        cells.push(used.map_or(Cell::Nothing, |it| Cell::text(&it.last_day)));
        cells.push(used.map_or(Cell::Nothing, |it| Cell::money(it.charged)));
        cells.push(super::moment(key, "expires_at"));
        if may {
            cells.push(actions(key));
        }
        cells
    };
    let mut columns = vec![
        Column::text("name", "Key"),
        Column::text("id", "Id"),
        Column::text("status", "State"),
        Column::text("owner", "Owner"),
        Column::text("cost_centre", "Cost centre"),
        Column::text("purpose", "Purpose"),
        Column::text("environment", "Environment"),
        Column::text("last_used", "Last used"),
        Column::number("charged_usd", "Charged"),
        Column::text("expires_at", "Expires"),
    ];
    if may {
        columns.push(Column::text("actions", "Change"));
    }
    let keys = Table {
        id: "keys",
        caption: "Gateway keys".to_owned(),
        columns,
        rows: rounds.rows(0, 0).map(|keys| keys.iter().map(row).collect()),
        empty: "No key yet: issue the first one below.".to_owned(),
        ..Table::default()
    };
    let mut blocks = vec![Block::Table(keys), Block::Table(providers(rounds))];
    if may {
        blocks.push(Block::Form(issue_form(visit)));
    }
    let period = Period::of(visit);
    View {
        title: "Keys and providers".to_owned(),
        lead: format!("Last use and charges are of {} to {}.", period.from, period.until),
        filters: period.fields().into(),
        blocks,
        ..View::default()
    }
}

fn providers(rounds: &Rounds<'_>) -> Table {
    let row = |provider: &Value| {
        let set = provider.get("credential_set").and_then(Value::as_bool) == Some(true);
        let (tone, word) = if set { (Tone::Good, "set") } else { (Tone::Warn, "missing") };
        vec![
            Cell::text(text(provider, "name")),
            Cell::text(text(provider, "kind")),
            Cell::text(text(provider, "base_url")),
            Cell::text(text(provider, "region")),
            Cell::Badge { tone, text: word.to_owned() },
        ]
    };
    Table {
        id: "providers",
        caption: "Providers".to_owned(),
        columns: vec![
            Column::text("name", "Provider"),
            Column::text("kind", "Kind"),
            Column::text("base_url", "Address"),
            Column::text("region", "Region"),
            Column::text("credential", "Credential"),
        ],
        rows: rounds.rows(0, 1).map(|rows| rows.iter().map(row).collect()),
        empty: "No provider is registered.".to_owned(),
        ..Table::default()
    }
}

fn issue_form(visit: &Visit<'_>) -> Form {
    let field = |name: &str, label: &str| Field::text(name, label, visit.form.text(name));
    Form {
        id: "issue",
        title: "Issue a key".to_owned(),
        path: "/dashboard/keys/issue".to_owned(),
        fields: vec![
            field("name", "Name").required(),
            field("owner", "Owner").required(),
            field("cost_centre", "Cost centre").required(),
            field("purpose", "Purpose").required(),
            field("environment", "Environment").required(),
            field("policy", "Policy").help("The name of a policy; or give a limit instead."),
            field("day_limit_usd", "Limit for each day in US dollars"),
            Field::day("expires_at", "Expires at the start of", visit.form.text("expires_at")),
        ],
        submit: "Issue".to_owned(),
    }
}

pub(super) fn one_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let id = visit.parameters.first().map_or("", String::as_str);
    match rounds.done() {
        0 => vec![
            Ask::get(format!("/keys/{}", encoded(id))),
            Period::of(visit).ask(Ask::get("/usage")).with("group_by", "model").with("key", id),
        ],
        _ => Vec::new(),
    }
}

pub(super) fn one(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let id = visit.parameters.first().cloned().unwrap_or_default();
    let Some(key) = rounds.value(0, 0) else {
        return View { title: format!("Key {id}"), ..View::default() };
    };
    let row = |row: &Value| {
        let model = Cell::text(text(row, "model"));
        let requests = Cell::count(super::number(row, "requests"));
        vec![model, requests, Cell::usd(text(row, "charged_usd"))]
    };
    let models = Table {
        id: "models",
        caption: "Its models".to_owned(),
        columns: vec![
            Column::text("model", "Model"),
            Column::number("requests", "Requests"),
            Column::number("charged_usd", "Charged"),
        ],
        rows: rounds.rows(0, 1).map(|rows| rows.iter().map(row).collect()),
        empty: "No request in these days.".to_owned(),
        ..Table::default()
    };
    let href = format!("/dashboard/requests?key={}", encoded(&id));
    let mut blocks = vec![
        Block::Links(vec![Link { href, text: "Its requests".to_owned(), current: false }]),
        Block::Facts(Facts { title: "About it".to_owned(), rows: super::leaves(&key) }),
        Block::Table(models),
    ];
    if visit.session.role.may(Act::WriteConfig) && text(&key, "status") != "revoked" {
        let sure = [("", "No"), ("yes", "Yes, for ever")];
        blocks.push(Block::Form(Form {
            id: "revoke",
            title: "Revoke it".to_owned(),
            path: format!("/dashboard/keys/{}/revoke", encoded(&id)),
            fields: vec![Field::choice("sure", "Stop this key for ever", "", &sure)],
            submit: "Revoke".to_owned(),
        }));
    }
    View {
        title: format!("Key {}", text(&key, "name")),
        filters: Period::of(visit).fields().into(),
        blocks,
        ..View::default()
    }
}
