//! A Parquet file as rows of text, so that a FOCUS export reads the same in both formats.

use bytes::Bytes;
use csv::{ByteRecord, StringRecord};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Value};
use tallygate_shared::time::{Date, Timestamp};

use super::table::{BadCell, Header, Row, Rows, read_records, whole_file};
use crate::bill::BillLine;

/// As `table::read_rows`; rows are numbered from 1.
pub(super) fn read_rows(
    body: &[u8],
    check: impl FnOnce(&Header) -> Result<(), BadCell>,
    line: impl FnMut(Row<'_>) -> Result<Option<BillLine>, BadCell>,
) -> Rows {
    let broken = |error: parquet::errors::ParquetError| {
        let reason = format!("cannot be read as Parquet ({error}): drop it again whole");
        BadCell::new("file", reason)
    };
    let reader = match SerializedFileReader::new(Bytes::copy_from_slice(body)) {
        Ok(reader) => reader,
        Err(error) => return whole_file(broken(error)),
    };
    let columns = reader.metadata().file_metadata().schema().get_fields();
    let header: StringRecord = columns.iter().map(|column| column.name()).collect();
    let rows = match reader.get_row_iter(None) {
        Ok(rows) => rows,
        Err(error) => return whole_file(broken(error)),
    };
    let records = rows.zip(1..).map(|(row, number)| Ok((number, record(&row.map_err(broken)?))));
    read_records(&header, records, check, line)
}

fn record(row: &ParquetRow) -> ByteRecord {
    row.get_column_iter().map(|(_, field)| text(field)).collect()
}

/// A cell as FOCUS writes it in CSV. Empty for a null.
fn text(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::TimestampMillis(ms) => Timestamp::from_ms(*ms).to_string(),
        Field::TimestampMicros(us) => Timestamp::from_ms(us.div_euclid(1000)).to_string(),
        Field::Date(days) => Date::from_days(i64::from(*days)).to_string(),
        Field::MapInternal(_) | Field::Group(_) | Field::ListInternal(_) => json(field).to_string(),
        // The shortest text that means the same double, and a decimal's own digits.
        other => other.to_string(),
    }
}

/// Nested values: tags and price details.
fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Group(row) => {
            let fields = row.get_column_iter();
            Value::Object(fields.map(|(name, field)| (name.clone(), json(field))).collect())
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let read = entries.map(|(key, value)| (text(key), json(value)));
            Value::Object(read.collect::<Map<String, Value>>())
        }
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(json).collect()),
        other => Value::String(text(other)),
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
