//! Who may sign in, as what, and whose rows they see: tokens and members.

use serde_json::Value;

use super::settings::tabs;
use super::{Rounds, Visit, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{Action, Block, Cell, Column, Facts, Field, Form, Table, View};
use crate::dashboard::web::{Ask, encoded};

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 if visit.session.owner.is_none() => vec![Ask::get("/tokens"), Ask::get("/config")],
        _ => Vec::new(),
    }
}

/// Whose rows somebody sees.
fn rows_of(role: &str, owner: &str) -> Cell {
    match (role, owner) {
        ("developer", "") => Cell::text("all owners"),
        ("developer", owner) => Cell::text(owner),
        _ => Cell::text("all"),
    }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let title = "Who may sign in".to_owned();
    if visit.session.owner.is_some() {
        let lead = "A token with an owner does not show who else there is.".to_owned();
        return View { title, lead, blocks: vec![tabs(visit)], ..View::default() };
    }
    let may = visit.session.role.may(Act::WriteConfig);
    let mut blocks =
        vec![tabs(visit), Block::Table(tokens(rounds, may)), Block::Table(members(rounds))];
    if may {
        blocks.push(Block::Form(form(visit)));
    }
    View {
        title,
        lead: "A token signs in by itself; a member comes through Cloudflare Access or the OpenID provider. Members \
               stand in the configuration, as dashboard.members."
            .to_owned(),
        blocks,
        ..View::default()
    }
}

fn tokens(rounds: &Rounds<'_>, may: bool) -> Table {
    let row = |token: &Value| {
        let (role, id) = (text(token, "role"), text(token, "id"));
        let mut cells = vec![
            Cell::text(text(token, "name")),
            Cell::text(id),
            Cell::text(role),
            rows_of(role, text(token, "owner")),
            super::moment(token, "created_at"),
        ];
        if may {
            cells.push(Cell::Actions(vec![Action {
                label: "Delete".to_owned(),
                about: text(token, "name").to_owned(),
                path: format!("/dashboard/tokens/{}/delete", encoded(id)),
            }]));
        }
        cells
    };
    let mut columns = vec![
        Column::text("name", "Token"),
        Column::text("id", "Id"),
        Column::text("role", "Role"),
        Column::text("owner", "Sees the rows of"),
        Column::text("created_at", "Issued"),
    ];
    if may {
        columns.push(Column::text("actions", "Change"));
    }
    Table {
        id: "tokens",
        caption: "API tokens".to_owned(),
        columns,
        rows: rounds.rows(0, 0).map(|rows| rows.iter().map(row).collect()),
        empty: "There is no token.".to_owned(),
        ..Table::default()
    }
}

fn members(rounds: &Rounds<'_>) -> Table {
    let config = rounds.value(0, 1);
    let members =
        config.as_ref().map(|it| it.pointer("/dashboard/members").and_then(Value::as_object));
    let row = |(mail, member): (&String, &Value)| {
        let role = member.as_str().unwrap_or_else(|| text(member, "role"));
        // A developer without an owner of another name is their own.
        let owner = if role == "developer" { mail.as_str() } else { "" };
        let owner = Some(text(member, "owner")).filter(|it| !it.is_empty()).unwrap_or(owner);
        vec![Cell::text(mail), Cell::text(role), rows_of(role, owner)]
    };
    Table {
        id: "members",
        caption: "Members".to_owned(),
        columns: vec![
            Column::text("mail", "Mail address"),
            Column::text("role", "Role"),
            Column::text("owner", "Sees the rows of"),
        ],
        rows: members.map(|members| members.into_iter().flatten().map(row).collect()),
        empty: "There is no member.".to_owned(),
        ..Table::default()
    }
}

fn form(visit: &Visit<'_>) -> Form {
    let value = |name: &str| visit.form.text(name);
    let roles = [
        ("developer", "Developer"),
        ("finance", "Finance"),
        ("auditor", "Auditor"),
        ("admin", "Admin"),
    ];
    Form {
        id: "token",
        title: "Issue a token".to_owned(),
        path: "/dashboard/tokens/issue".to_owned(),
        fields: vec![
            Field::text("name", "Name", value("name")).required(),
            Field::choice("role", "Role", value("role"), &roles),
            Field::text("owner", "Sees the rows of", value("owner")).help(
                "For a developer: an owner, as keys and budgets name it, or * for all owners.",
            ),
        ],
        submit: "Issue".to_owned(),
    }
}

/// What is said of a new token: itself, once.
pub(in crate::dashboard) fn issued(answer: &Value) -> View {
    let cell = |name: &str| Cell::text(text(answer, name));
    let rows = vec![
        ("Name".to_owned(), cell("name")),
        ("Role".to_owned(), cell("role")),
        ("Token".to_owned(), cell("token")),
    ];
    View {
        title: "A new token".to_owned(),
        lead: "Copy the token now: it is shown this once, and Tallygate keeps only its hash."
            .to_owned(),
        blocks: vec![Block::Facts(Facts { title: "The token".to_owned(), rows })],
        ..View::default()
    }
}
