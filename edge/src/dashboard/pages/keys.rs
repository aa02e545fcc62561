//! Keys and providers: what there is, whose it is, and what can be done with it.

use std::collections::BTreeMap;

use serde_json::Value;
use tallygate_shared::time::DAY_MS;

use super::{Period, Rounds, Visit, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{
    Action, Block, Cell, Column, Facts, Field, Form, Link, Table, Tone, View,
};
use crate::dashboard::web::{Ask, encoded};

/// A key without a request for so many days is unused, where the page's address says nothing else.
const UNUSED_DAYS: &str = "30";

fn days<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("days").unwrap_or(UNUSED_DAYS)
}

pub(super) fn list_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let back = days(visit).parse::<u16>().ok().map(|days| i64::from(days) * DAY_MS);
    let from = visit.now.plus_ms(-back.unwrap_or_default()).date().to_string();
    match rounds.done() {
        0 => vec![
            Ask::get("/key-inventory").with("days", days(visit)),
            Ask::get("/providers"),
            Ask::get("/usage").with("group_by", "provider").with("from", from),
            Ask::get("/alerts").with("kind", "unknown_credential").with("limit", "100"),
        ],
        _ => Vec::new(),
    }
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

/// Whether something is to be done about a key.
fn asks_for(key: &Value, finding: &str) -> bool {
    let findings = key.get("findings").and_then(Value::as_array).into_iter().flatten();
    findings.filter_map(Value::as_str).any(|it| it == finding)
}

fn key_link(key: &Value) -> Cell {
    Cell::link(format!("/dashboard/keys/{}", encoded(text(key, "id"))), text(key, "name"))
}

/// How the providers that a key may use are paid: each method with its providers.
fn paid_by(key: &Value) -> Cell {
    let mut providers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let methods = key.get("payment_methods").and_then(Value::as_object).into_iter().flatten();
    for (provider, method) in methods {
        providers.entry(method.as_str().unwrap_or("not said")).or_default().push(provider);
    }
    let each = providers.iter().map(|(method, names)| format!("{method} ({})", names.join(", ")));
    Cell::text(&each.collect::<Vec<_>>().join("; "))
}

fn age(key: &Value) -> Cell {
    key.get("age_days").and_then(Value::as_u64).map_or(Cell::Nothing, Cell::count)
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let may = visit.session.role.may(Act::WriteConfig);
    let row = |key: &Value| {
        let mut cells = vec![key_link(key), Cell::text(text(key, "id")), status(key)];
        cells.extend(
            ["owner", "cost_centre", "purpose", "environment"]
                .map(|name| Cell::text(text(key, name))),
        );
        cells.push(paid_by(key));
        cells.push(super::moment(key, "last_used_at"));
        cells.push(Cell::count(super::number(key, "requests")));
        cells.push(Cell::usd(text(key, "charged_usd")));
        cells.push(age(key));
        cells.extend(["rotation_due_at", "expires_at"].map(|name| super::moment(key, name)));
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
        Column::text("payment_methods", "Paid by"),
        Column::text("last_used_at", "Last used"),
        Column::number("requests", "Requests"),
        Column::number("charged_usd", "Charged"),
        Column::number("age_days", "Age in days"),
        Column::text("rotation_due_at", "New secret due"),
        Column::text("expires_at", "Expires"),
    ];
    if may {
        columns.push(Column::text("actions", "Change"));
    }
    let all = rounds.rows(0, 0);
    let keys = Table {
        id: "keys",
        caption: "Gateway keys".to_owned(),
        columns,
        rows: all.as_ref().map(|keys| keys.iter().map(row).collect()),
        empty: "No key yet: issue the first one below.".to_owned(),
        ..Table::default()
    };
    let mut blocks = vec![Block::Table(keys)];
    blocks.extend(findings(visit, all.as_deref()).map(Block::Table));
    blocks.push(Block::Table(unknown_credentials(rounds)));
    blocks.push(Block::Table(providers(rounds)));
    if may {
        blocks.push(Block::Form(issue_form(visit)));
        blocks.extend(payment_form(visit, rounds).map(Block::Form));
    }
    View {
        title: "Keys and providers".to_owned(),
        lead: format!("Use and charges are of the last {} days.", days(visit)),
        filters: vec![Field {
            kind: "number",
            ..Field::text("days", "Days to look back, and to be unused for", days(visit))
        }],
        blocks,
        ..View::default()
    }
}

/// The keys that something is to be done about, one list for each reason.
fn findings(visit: &Visit<'_>, keys: Option<&[Value]>) -> [Table; 3] {
    let may = visit.session.role.may(Act::WriteConfig);
    let list =
        |id: &'static str, finding: &str, caption: String, act: (&str, &str), empty: &str| {
            let row = |key: &Value| {
                let mut cells = vec![
                    key_link(key),
                    Cell::text(text(key, "owner")),
                    super::moment(key, "last_used_at"),
                    age(key),
                    super::moment(key, "rotation_due_at"),
                ];
                let id = encoded(text(key, "id"));
                if may {
                    cells.push(match act {
                        ("", label) => {
                            Cell::link(format!("/dashboard/keys/{id}#change-title"), label)
                        }
                        // One that is suspended stands still already.
                        ("suspend", _) if text(key, "status") != "active" => Cell::Nothing,
                        (act, label) => Cell::Actions(vec![Action {
                            label: label.to_owned(),
                            about: text(key, "name").to_owned(),
                            path: format!("/dashboard/keys/{id}/{act}"),
                        }]),
                    });
                }
                cells
            };
            let mut columns = vec![
                Column::text("name", "Key"),
                Column::text("owner", "Owner"),
                Column::text("last_used_at", "Last used"),
                Column::number("age_days", "Age in days"),
                Column::text("rotation_due_at", "New secret due"),
            ];
            if may {
                columns.push(Column::text("actions", "What to do"));
            }
            let found = keys.map(|keys| keys.iter().filter(|key| asks_for(key, finding)));
            Table {
                id,
                caption,
                columns,
                rows: found.map(|keys| keys.map(row).collect()),
                empty: empty.to_owned(),
                ..Table::default()
            }
        };
    let unused = format!("Unused: no request in {} days", days(visit));
    let unowned = "Unowned: nobody answers for them".to_owned();
    let due = "Due for a new secret".to_owned();
    [
        list("unused", "unused", unused, ("suspend", "Suspend"), "Every key is used."),
        list("unowned", "unowned", unowned, ("", "Name an owner"), "Every key has an owner."),
        list("rotation-due", "rotation_due", due, ("rotate", "Rotate"), "No key is due."),
    ]
}

/// Keys of a provider that no gateway knows, as the reconciler found them in bills.
fn unknown_credentials(rounds: &Rounds<'_>) -> Table {
    let open = |alert: &&Value| {
        alert.get("status").map_or("", |status| text(status, "state")) != "resolved"
    };
    let row = |alert: &Value| {
        let href = format!("/dashboard/alerts/{}", encoded(text(alert, "id")));
        let evidence = alert.get("evidence").map(super::leaves).unwrap_or_default();
        let evidence: Vec<String> =
            evidence.iter().map(|(name, cell)| format!("{name}: {}", cell.exact())).collect();
        vec![
            Cell::link(href, text(alert, "title")),
            Cell::text(&evidence.join("; ")),
            super::moment(alert, "opened_at"),
        ]
    };
    Table {
        id: "unknown",
        caption: "Provider keys that no gateway knows".to_owned(),
        columns: vec![
            Column::text("title", "What the bills show"),
            Column::text("evidence", "Evidence"),
            Column::text("opened_at", "Found"),
        ],
        rows: rounds.rows(0, 3).map(|rows| rows.iter().filter(open).map(row).collect()),
        empty: "None was found. The reconciler looks for them every night.".to_owned(),
        ..Table::default()
    }
}

fn providers(rounds: &Rounds<'_>) -> Table {
    let usage = rounds.rows(0, 2).unwrap_or_default();
    let row = |provider: &Value| {
        let set = provider.get("credential_set").and_then(Value::as_bool) == Some(true);
        let (tone, word) = if set { (Tone::Good, "set") } else { (Tone::Warn, "missing") };
        let used = usage.iter().find(|row| text(row, "provider") == text(provider, "name"));
        vec![
            Cell::text(text(provider, "name")),
            Cell::text(text(provider, "kind")),
            Cell::text(text(provider, "base_url")),
            Cell::text(text(provider, "region")),
            Cell::Badge { tone, text: word.to_owned() },
            Cell::text(text(provider, "payment_method")),
            used.map_or(Cell::Nothing, |row| Cell::count(super::number(row, "requests"))),
            used.map_or(Cell::Nothing, |row| Cell::usd(text(row, "charged_usd"))),
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
            Column::text("payment_method", "Paid by"),
            Column::number("requests", "Requests"),
            Column::number("charged_usd", "Charged"),
        ],
        rows: rounds.rows(0, 1).map(|rows| rows.iter().map(row).collect()),
        empty: "No provider is registered.".to_owned(),
        ..Table::default()
    }
}

fn payment_form(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Option<Form> {
    let providers = rounds.rows(0, 1)?;
    let names: Vec<(&str, &str)> =
        providers.iter().map(|it| (text(it, "name"), text(it, "name"))).collect();
    let form = Form {
        id: "payment",
        title: "How a provider is paid".to_owned(),
        path: "/dashboard/provider-payment".to_owned(),
        fields: vec![
            Field::choice("provider", "Provider", visit.form.text("provider"), &names),
            Field::text("payment_method", "Paid by", visit.form.text("payment_method"))
                .help("Such as: card ending 4242. Leave it empty to take it away."),
        ],
        submit: "Save".to_owned(),
    };
    (!names.is_empty()).then_some(form)
}

/// What can be said anew of a key.
fn change_form(visit: &Visit<'_>, key: &Value) -> Form {
    let field = |name: &str, label: &str| {
        let value = visit.form.get(name).unwrap_or_else(|| text(key, name));
        Field::text(name, label, value).required()
    };
    let was = text(key, "expires_at");
    let end = was.get(..10).unwrap_or_default();
    Form {
        id: "change",
        title: "Change it".to_owned(),
        path: format!("/dashboard/keys/{}/change", encoded(text(key, "id"))),
        fields: vec![
            Field::hidden("expires_was", was),
            field("name", "Name"),
            field("owner", "Owner"),
            field("cost_centre", "Cost centre"),
            field("purpose", "Purpose"),
            field("environment", "Environment"),
            Field::day(
                "expires_at",
                "Expires at the start of",
                visit.form.get("expires_at").unwrap_or(end),
            )
            .help("Empty: never."),
        ],
        submit: "Save".to_owned(),
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
        blocks.push(Block::Form(change_form(visit, &key)));
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
