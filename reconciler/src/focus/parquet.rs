//! Rows as Parquet, zstd-compressed. Numbers are `DECIMAL(38,12)`, moments `TIMESTAMP` in UTC, all else text. Memory
//! holds one row group at most. The same rows give the same bytes: the file has no time of making.

use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::{Decimal128Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::ExportError;
use super::cell::{Cell, Column, Kind};

/// Rows of a row group. Readers skip groups by their statistics; the writer holds one in memory, compressed.
pub const ROW_GROUP: usize = 100_000;
/// Bytes at which a row group ends before it has [`ROW_GROUP`] rows: long tags must not fill the memory.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Rows that are turned into columns at a time: 80 columns of some 30 bytes are 2.5 MB.
const BATCH: usize = 1024;
const PRECISION: u8 = 38;
const SCALE: i8 = 12;

/// Writes rows with the given columns.
#[derive(Debug)]
pub struct ParquetTable<W: Write + Send, R: 'static> {
    columns: Vec<(&'static Column<R>, Builder)>,
    schema: SchemaRef,
    waiting: usize,
    out: ArrowWriter<W>,
}

#[derive(Debug)]
enum Builder {
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl<W: Write + Send, R> ParquetTable<W, R> {
    /// Begins a table.
    pub fn new(to: W, columns: Vec<&'static Column<R>>) -> Result<Self, ExportError> {
        Self::with_row_groups(to, columns, ROW_GROUP)
    }

    fn with_row_groups(
        to: W,
        columns: Vec<&'static Column<R>>,
        row_group: usize,
    ) -> Result<Self, ExportError> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new(column.name, data_type(column.kind), column.nullable))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let level = ZstdLevel::try_new(3).map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(row_group))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_created_by("tallygate".to_owned())
            .build();
        let out =
            ArrowWriter::try_new(to, Arc::clone(&schema), Some(properties)).map_err(failed)?;
        let columns =
            columns.into_iter().map(|column| (column, Builder::of(column.kind))).collect();
        Ok(Self { columns, schema, waiting: 0, out })
    }

    /// Writes a row.
    pub fn push(&mut self, row: &R) -> Result<(), ExportError> {
        // Looked at first: a row that is refused half way would shift its columns against each other.
        if let Some((column, _)) = self.columns.iter().find(|(c, _)| !(c.read)(row).fits()) {
            return Err(ExportError::Overflow { what: column.name });
        }
        for (column, builder) in &mut self.columns {
            builder.push(&(column.read)(row));
        }
        self.waiting += 1;
        if self.waiting >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Ends the table.
    pub fn finish(mut self) -> Result<W, ExportError> {
        self.flush()?;
        self.out.into_inner().map_err(failed)
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.waiting == 0 {
            return Ok(());
        }
        self.waiting = 0;
        let arrays = self.columns.iter_mut().map(|(_, builder)| builder.array());
        let arrays = arrays.collect::<Result<Vec<_>, _>>().map_err(not_taken)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(not_taken)?;
        self.out.write(&batch).map_err(failed)
    }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Decimal | Kind::Price => DataType::Decimal128(PRECISION, SCALE),
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Text
        | Kind::OneOf(_)
        | Kind::Unit
        | Kind::Currency
        | Kind::KeyValue
        | Kind::Object => DataType::Utf8,
    }
}

impl Builder {
    fn of(kind: Kind) -> Self {
        match data_type(kind) {
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::with_capacity(BATCH)),
            DataType::Timestamp(..) => {
                Self::Time(TimestampMicrosecondBuilder::with_capacity(BATCH).with_timezone("UTC"))
            }
            _ => Self::Text(StringBuilder::with_capacity(BATCH, BATCH * 16)),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        // A cell of another kind than its column's is null, and then the table refuses it where null may not stand.
        match self {
            Self::Decimal(to) => to.append_option(match cell {
                Cell::Decimal(pico) => Some(*pico),
                Cell::Null | Cell::Text(_) | Cell::Time(_) => None,
            }),
            Self::Text(to) => to.append_option(match cell {
                Cell::Text(text) => Some(text),
                Cell::Null | Cell::Decimal(_) | Cell::Time(_) => None,
            }),
            Self::Time(to) => to.append_option(match cell {
                Cell::Time(at) => Some(at.seconds().saturating_mul(1_000_000)),
                Cell::Null | Cell::Decimal(_) | Cell::Text(_) => None,
            }),
        }
    }

    fn array(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Decimal(from) => {
                Arc::new(from.finish().with_precision_and_scale(PRECISION, SCALE)?)
            }
            Self::Text(from) => Arc::new(from.finish()),
            Self::Time(from) => Arc::new(from.finish()),
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: ParquetError) -> ExportError {
    ExportError::Format { format: "Parquet", reason: error.to_string() }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_taken(error: ArrowError) -> ExportError {
    ExportError::Format { format: "Parquet", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Decimal128Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::focus::charges_tests::{World, revision};
    use crate::focus::columns::{Version, cost_and_usage};
    use crate::focus::row::FocusRow;

    fn rows(count: usize) -> Vec<FocusRow> {
        let one = World::new().rows(&[revision("a", Some("1.000000000001"), 7)], "2026-11");
        std::iter::repeat_n(one[0].clone(), count).collect()
    }

    fn written(rows: &[FocusRow]) -> Vec<u8> {
        let mut table = ParquetTable::new(Vec::new(), cost_and_usage(Version::V1_4)).unwrap();
        rows.iter().for_each(|row| table.push(row).unwrap());
        table.finish().unwrap()
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        assert_eq!(written(&rows(5000)), written(&rows(5000)));
    }

    #[test]
    fn money_comes_back_to_the_last_digit() {
        let bytes = bytes::Bytes::from(written(&rows(3)));
        let mut batches = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let batch = batches.next().unwrap().unwrap();
        let column = batch.column_by_name("BilledCost").unwrap();
        assert_eq!(column.data_type(), &DataType::Decimal128(38, 12));
        assert_eq!(column.as_primitive::<Decimal128Type>().value(2), 1_000_000_000_001);
        assert_eq!(batch.num_columns(), cost_and_usage(Version::V1_4).len());
        assert!(batch.column_by_name("ChargeClass").unwrap().is_null(0));
    }

    #[test]
    fn row_groups_are_bounded() {
        let columns = cost_and_usage(Version::V1_4);
        let mut table = ParquetTable::with_row_groups(Vec::new(), columns, 1000).unwrap();
        rows(2500).iter().for_each(|row| table.push(row).unwrap());
        let bytes = bytes::Bytes::from(table.finish().unwrap());
        let file = SerializedFileReader::new(bytes).unwrap();
        let counts: Vec<_> = file.metadata().row_groups().iter().map(|g| g.num_rows()).collect();
        assert_eq!(counts, [1000, 1000, 500]);
    }

    #[test]
    fn a_table_without_rows_is_a_whole_file() {
        let bytes = bytes::Bytes::from(written(&[]));
        assert_eq!(
            SerializedFileReader::new(bytes).unwrap().metadata().file_metadata().num_rows(),
            0
        );
    }
}
