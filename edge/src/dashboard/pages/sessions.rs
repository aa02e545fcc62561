//! The open sessions of the workspace, to end one from afar.

use serde_json::Value;

use super::{Rounds, Visit, text};
use crate::admin::roles::Act;
use crate::dashboard::view::{Action, Block, Cell, Column, Table, View};
use crate::dashboard::web::{Ask, encoded};

pub(super) fn asks(_: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => vec![Ask::get("/sessions")],
        _ => Vec::new(),
    }
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let may = visit.session.role.may(Act::WriteConfig);
    let row = |session: &Value| {
        let id = text(session, "id");
        let mine = id == visit.session.id;
        let mut cells = vec![
            Cell::text(&if mine { format!("{id} (this one)") } else { id.to_owned() }),
            Cell::text(text(session, "who")),
            Cell::text(text(session, "role")),
            Cell::text(text(session, "owner")),
            super::moment(session, "opened_at"),
            super::moment(session, "expires_at"),
        ];
        if may {
            cells.push(Cell::Actions(vec![Action {
                label: "End".to_owned(),
                about: id.to_owned(),
                path: format!("/dashboard/sessions/{}/revoke", encoded(id)),
            }]));
        }
        cells
    };
    let mut columns = vec![
        Column::text("id", "Session"),
        Column::text("who", "Signed in with"),
        Column::text("role", "Role"),
        Column::text("owner", "Only rows of"),
        Column::text("opened_at", "Opened"),
        Column::text("expires_at", "Ends"),
    ];
    if may {
        columns.push(Column::text("actions", "Change"));
    }
    let table = Table {
        id: "sessions",
        caption: "Open sessions".to_owned(),
        columns,
        rows: rounds.rows(0, 0).map(|rows| rows.iter().map(row).collect()),
        empty: "No session is open.".to_owned(),
        ..Table::default()
    };
    let lead = "A session lasts 12 hours, and ends with the token that opened it.".to_owned();
    View {
        title: "Sessions".to_owned(),
        lead,
        blocks: vec![Block::Table(table)],
        ..View::default()
    }
}
