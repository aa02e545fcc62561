//! Rows as CSV: one at a time, nothing held back. Null is an empty field; no text is empty.
//!
//! A text that a spreadsheet would take for a formula gets an apostrophe in front of it. Users of the gateway and the
//! providers choose some of the texts. Parquet has them as they are.

use std::borrow::Cow;
use std::io::Write;

use tallygate_shared::spreadsheet::is_formula;

use super::ExportError;
use super::cell::{Cell, Column};

/// Writes rows with the given columns.
#[derive(Debug)]
pub struct CsvTable<W: Write, R: 'static> {
    columns: Vec<&'static Column<R>>,
    out: csv::Writer<W>,
}

impl<W: Write, R> CsvTable<W, R> {
    /// Begins a table with its header.
    pub fn new(to: W, columns: Vec<&'static Column<R>>) -> Result<Self, ExportError> {
        let mut out =
            csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(to);
        out.write_record(columns.iter().map(|column| column.name)).map_err(failed)?;
        Ok(Self { columns, out })
    }

    /// Writes a row.
    pub fn push(&mut self, row: &R) -> Result<(), ExportError> {
        for column in &self.columns {
            let cell = (column.read)(row);
            if !cell.fits() {
                return Err(ExportError::Overflow { what: column.name });
            }
            let text = cell.written().unwrap_or_default();
            let text = if matches!(cell, Cell::Text(_)) { guarded(text) } else { text };
            self.out.write_field(text.as_bytes()).map_err(failed)?;
        }
        self.out.write_record(None::<&[u8]>).map_err(failed)
    }

    /// Ends the table.
    pub fn finish(self) -> Result<W, ExportError> {
        self.out.into_inner().map_err(|error| failed(csv::Error::from(error.into_error())))
    }
}

/// The text, no formula.
fn guarded(text: Cow<'_, str>) -> Cow<'_, str> {
    if is_formula(&text) { Cow::Owned(format!("'{text}")) } else { text }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: csv::Error) -> ExportError {
    ExportError::Format { format: "CSV", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use crate::focus::charges_tests::{World, revision};
    use crate::focus::columns::{Version, cost_and_usage};

    use super::*;

    pub(crate) fn golden_rows() -> Vec<crate::focus::row::FocusRow> {
        let mut split = [
            revision("search", Some("30.000000000001"), 6_000_000),
            revision("sup\"port, EU", Some("9.9"), 2_400_000),
        ];
        for part in &mut split {
            part.content.method = "proportional".into();
        }
        World::new().rows(&split, "2026-11")
    }

    #[test]
    fn rows_in_both_editions_format_unchanged() {
        for (version, golden) in [
            (Version::V1_4, include_str!("golden/rows_1_4.csv")),
            (Version::V1_2, include_str!("golden/rows_1_2.csv")),
        ] {
            let mut table = CsvTable::new(Vec::new(), cost_and_usage(version)).unwrap();
            for row in golden_rows() {
                table.push(&row).unwrap();
            }
            let text = String::from_utf8(table.finish().unwrap()).unwrap();
            assert_eq!(text, golden, "{version:?}:\n{text}");
        }
    }

    #[test]
    fn no_text_is_a_formula_and_every_number_stays_one() {
        let mut row = golden_rows().remove(0);
        row.custom.principal = Some("=HYPERLINK(\"https://x\")".into());
        row.custom.consumer = Some("@cmd".into());
        row.names.account = "-12".into();
        row.costs.billed = "-1".parse().unwrap();
        let columns = cost_and_usage(Version::V1_4);
        let at = |name: &str| columns.iter().position(|column| column.name == name).unwrap();
        let places = ["x_PrincipalId", "x_ConsumerId", "BillingAccountId", "BilledCost"].map(at);
        let mut table = CsvTable::new(Vec::new(), columns).unwrap();
        table.push(&row).unwrap();
        let file = table.finish().unwrap();
        let mut reader = csv::Reader::from_reader(file.as_slice());
        let written = reader.records().next().unwrap().unwrap();
        let expected = ["'=HYPERLINK(\"https://x\")", "'@cmd", "-12", "-1.0"];
        assert_eq!(places.map(|place| &written[place]), expected);
    }

    #[test]
    fn a_number_beyond_38_digits_is_refused_by_its_column() {
        let mut row = golden_rows().remove(0);
        row.costs.billed = tallygate_shared::money::Usd::from_pico(i128::MAX);
        let mut table = CsvTable::new(Vec::new(), cost_and_usage(Version::V1_4)).unwrap();
        assert!(table.push(&row).unwrap_err().to_string().starts_with("BilledCost"));
    }
}
