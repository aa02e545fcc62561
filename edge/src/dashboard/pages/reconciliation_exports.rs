//! The FOCUS exports of the months that the page is about, to be downloaded.

use serde_json::Value;

use super::{number, text};
use crate::dashboard::ROOT;
use crate::dashboard::view::{Cell, Column, Table};
use crate::dashboard::web::encoded;

/// The files, the newest month first; of a month whole ones first, then the newest day.
pub(super) fn table(exports: Option<Vec<Value>>) -> Table {
    Table {
        id: "focus-exports",
        caption: "FOCUS exports".to_owned(),
        columns: vec![
            Column::text("month", "Month"),
            Column::text("day", "Day"),
            Column::text("focus_version", "FOCUS"),
            Column::text("table", "Table"),
            Column::text("format", "Format"),
            Column::number("rows", "Rows"),
            Column::number("bytes", "Size"),
            Column::text("file", "Download, or where it lies"),
        ],
        rows: exports.map(|exports| exports.iter().flat_map(rows_of).collect()),
        empty: "No export of these months is committed. The reconciler makes one each night that changes the books, as \
                CSV and Parquet."
            .to_owned(),
        ..Table::default()
    }
}

fn rows_of(export: &Value) -> Vec<Vec<Cell>> {
    let month = text(export, "month");
    let mut files: Vec<&Value> =
        export.get("files").and_then(Value::as_array).into_iter().flatten().collect();
    files.sort_by_key(|file| (file.get("day").is_some(), std::cmp::Reverse(text(file, "day"))));
    files.into_iter().map(|file| row(month, file)).collect()
}

fn row(month: &str, file: &Value) -> Vec<Cell> {
    let name = text(file, "file");
    let table = match text(file, "table") {
        "cost_and_usage" => "Cost and Usage",
        "invoice_detail" => "Invoice Detail",
        "billing_period" => "Billing Period",
        other => other,
    };
    let format = match text(file, "format") {
        "csv" => "CSV",
        "parquet" => "Parquet",
        other => other,
    };
    let uploaded = file.get("uploaded").and_then(Value::as_bool) == Some(true);
    vec![
        Cell::text(month),
        Cell::text(text(file, "day")),
        Cell::text(text(file, "focus_version")),
        Cell::text(table),
        Cell::text(format),
        Cell::count(number(file, "rows")),
        Cell::bytes(number(file, "bytes")),
        if uploaded {
            Cell::link(format!("{ROOT}/focus-exports/{}/{}", encoded(month), encoded(name)), name)
        } else {
            Cell::text(text(file, "place"))
        },
    ]
}
