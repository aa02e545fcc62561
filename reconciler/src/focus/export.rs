//! Rows into files: a part for each billing month and day, named by its content, written once. Rows come sorted, one
//! at a time; one file is open at a time, under a name of its own until it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::focus_export::{FileFormat, FocusTable};
use tallygate_shared::time::Date;

use super::ExportError;
use super::cell::Column;
use super::columns::{self, Version};
use super::csv::CsvTable;
use super::invoices::{BillingPeriodRow, InvoiceDetailRow};
use super::month::Month;
#[cfg(feature = "parquet")]
use super::parquet::ParquetTable;
use super::row::FocusRow;
use crate::ledger::hex;

/// The file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Comma-separated text.
    Csv,
    /// Apache Parquet, zstd. Needs the feature `parquet`.
    Parquet,
}

impl Format {
    /// As the edge is told of it.
    pub const fn told(self) -> FileFormat {
        match self {
            Self::Csv => FileFormat::Csv,
            Self::Parquet => FileFormat::Parquet,
        }
    }

    /// The end of a file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// A row that knows its table and its place in it.
pub trait Record: Sized + 'static {
    /// The table's name in a path.
    const DATASET: &'static str;
    /// The table.
    const TABLE: FocusTable;

    /// The table's columns.
    fn columns(version: Version) -> Vec<&'static Column<Self>>;

    /// The month it is billed in, and the day of the charge where the table is cut by days.
    fn place(&self) -> (Month, Option<Date>);
}

impl Record for FocusRow {
    const DATASET: &'static str = "cost_and_usage";
    const TABLE: FocusTable = FocusTable::CostAndUsage;

    fn columns(version: Version) -> Vec<&'static Column<Self>> {
        columns::cost_and_usage(version)
    }

    fn place(&self) -> (Month, Option<Date>) {
        (self.billing, Some(self.start.date()))
    }
}

impl Record for InvoiceDetailRow {
    const DATASET: &'static str = "invoice_detail";
    const TABLE: FocusTable = FocusTable::InvoiceDetail;

    fn columns(_: Version) -> Vec<&'static Column<Self>> {
        columns::invoice_detail()
    }

    fn place(&self) -> (Month, Option<Date>) {
        (self.billing, None)
    }
}

impl Record for BillingPeriodRow {
    const DATASET: &'static str = "billing_period";
    const TABLE: FocusTable = FocusTable::BillingPeriod;

    fn columns(_: Version) -> Vec<&'static Column<Self>> {
        columns::billing_period()
    }

    fn place(&self) -> (Month, Option<Date>) {
        (self.billing, None)
    }
}

/// A finished file. As JSON, all of a delivery are its list of contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its key in the object store: `export/v1/<workspace>/focus_1_4/cost_and_usage/billing_period=…/…`.
    pub key: String,
    /// The key without the part's own name: what this export replaces as a whole.
    pub partition: String,
    /// Where it lies now. Empty when it was read from a list: then it lies in the object store alone.
    #[serde(skip)]
    pub path: PathBuf,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its name among those of the same export, for whoever downloads it.
    pub file: String,
    /// The FOCUS version.
    pub focus_version: String,
    /// The table it is of.
    pub table: FocusTable,
    /// How it is written.
    pub format: FileFormat,
    /// The day of its charges, where the table is cut by days.
    pub day: Option<String>,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Writes one table of one edition in one format.
#[derive(Debug)]
pub struct Exporter<R: Record> {
    directory: PathBuf,
    prefix: String,
    version: Version,
    format: Format,
    number: Option<u64>,
    open: Option<Open<R>>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Open<R: Record> {
    place: (Month, Option<(i64, u8, u8)>),
    partition: String,
    path: PathBuf,
    rows: u64,
    table: Table<R>,
}

#[derive(Debug)]
enum Table<R: Record> {
    Csv(Box<CsvTable<HashedFile, R>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetTable<HashedFile, R>>),
}

impl<R: Record> Exporter<R> {
    /// Writes below `directory`, which stands for the root of the object store.
    pub fn new(
        directory: &Path,
        workspace: &str,
        version: Version,
        format: Format,
    ) -> Result<Self, ExportError> {
        if format == Format::Parquet && cfg!(not(feature = "parquet")) {
            return Err(ExportError::NoParquet);
        }
        // Who reads a folder of Parquet reads every file in it: CSV has a folder of its own.
        let folder = match format {
            Format::Csv => "_csv",
            Format::Parquet => "",
        };
        let prefix = format!("export/v1/{workspace}/{}{folder}/{}", version.as_str(), R::DATASET);
        let directory = directory.to_path_buf();
        let (number, open) = (None, None);
        Ok(Self { directory, prefix, version, format, number, open, parts: Vec::new() })
    }

    /// Numbers the export: of several exports of a partition, the one with the greatest number counts.
    pub fn numbered(self, number: u64) -> Self {
        Self { number: Some(number), ..self }
    }

    /// Writes a row. Rows come by billing month, then by day.
    pub fn push(&mut self, row: &R) -> Result<(), ExportError> {
        let (month, day) = row.place();
        let place = (month, day.map(|day| (day.year, day.month, day.day)));
        if let Some(open) = self.open.take_if(|open| open.place != place) {
            let partition = self.partition(month, day);
            if open.place > place {
                return Err(ExportError::Unsorted { partition, after: open.partition });
            }
            self.close(open)?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(place, self.partition(month, day))?,
        };
        open.table.push(row)?;
        open.rows += 1;
        self.open = Some(open);
        Ok(())
    }

    /// Ends the last part and names all of them, in their order.
    pub fn finish(mut self) -> Result<Vec<Part>, ExportError> {
        if let Some(open) = self.open.take() {
            self.close(open)?;
        }
        Ok(self.parts)
    }

    fn partition(&self, month: Month, day: Option<Date>) -> String {
        let day = day.map_or_else(String::new, |day| format!("/charge_day={day}"));
        format!("{}/billing_period={month}{day}", self.prefix)
    }

    fn begin(
        &self,
        place: (Month, Option<(i64, u8, u8)>),
        partition: String,
    ) -> Result<Open<R>, ExportError> {
        let folder = self.directory.join(&partition);
        let path = folder.join(format!("unfinished.{}", self.format.extension()));
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
        let file = File::create(&path).map_err(|error| failed(&path, &error))?;
        let file = HashedFile { file: BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
        let columns = R::columns(self.version);
        let table = match self.format {
            Format::Csv => Table::Csv(Box::new(CsvTable::new(file, columns)?)),
            #[cfg(feature = "parquet")]
            Format::Parquet => Table::Parquet(Box::new(ParquetTable::new(file, columns)?)),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => return Err(ExportError::NoParquet),
        };
        Ok(Open { place, partition, path, rows: 0, table })
    }

    fn close(&mut self, open: Open<R>) -> Result<(), ExportError> {
        let Open { place: (month, day), partition, path, rows, table } = open;
        let mut file = match table {
            Table::Csv(table) => table.finish()?,
            #[cfg(feature = "parquet")]
            Table::Parquet(table) => table.finish()?,
        };
        file.flush().map_err(|error| failed(&path, &error))?;
        let bytes = file.bytes;
        let sha256 = hex(file.hash.finalize().as_slice());
        let name = sha256.get(..32).unwrap_or_default();
        let day = day.map(|(year, month, day)| Date { year, month, day }.to_string());
        let number = self.number.map(|number| format!("r{number:05}-")).unwrap_or_default();
        let key = format!("{partition}/part-{number}{name}.{}", self.format.extension());
        let whole = self.directory.join(&key);
        fs::rename(&path, &whole).map_err(|error| failed(&whole, &error))?;
        let cut = day.clone().unwrap_or_else(|| month.to_string());
        let (version, ending) = (self.version.as_str(), self.format.extension());
        self.parts.push(Part {
            key,
            partition,
            path: whole,
            rows,
            bytes,
            file: format!("{version}-{}-{cut}.{ending}", R::DATASET),
            focus_version: self.version.number().to_owned(),
            table: R::TABLE,
            format: self.format.told(),
            day,
            sha256,
        });
        Ok(())
    }
}

impl<R: Record> Table<R> {
    fn push(&mut self, row: &R) -> Result<(), ExportError> {
        match self {
            Self::Csv(table) => table.push(row),
            #[cfg(feature = "parquet")]
            Self::Parquet(table) => table.push(row),
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> ExportError {
    ExportError::Io { path: path.display().to_string(), reason: error.to_string() }
}

/// A file that knows the hash of what was written to it.
#[derive(Debug)]
struct HashedFile {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use tallygate_shared::focus_export::is_file_name;

    use super::*;
    use crate::focus::charges_tests::{World, revision};

    fn rows() -> Vec<FocusRow> {
        let mut rows = Vec::new();
        for day in ["2026-11-19", "2026-11-20"] {
            let mut line = revision("a", Some("1"), 1_000_000);
            line.unit.day = day.into();
            rows.extend(World::new().rows(&[line], "2026-11"));
        }
        rows
    }

    fn export(directory: &Path, format: Format, rows: &[FocusRow]) -> Vec<Part> {
        let mut exporter = Exporter::new(directory, "acme", Version::V1_4, format).unwrap();
        rows.iter().for_each(|row| exporter.push(row).unwrap());
        exporter.finish().unwrap()
    }

    #[test]
    fn parts_are_cut_by_month_and_day_and_named_by_content() {
        let formats =
            [Format::Csv].into_iter().chain(cfg!(feature = "parquet").then_some(Format::Parquet));
        for format in formats {
            let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let parts = export(one.path(), format, &rows());
            let keys: Vec<_> = parts.iter().map(|part| part.key.as_str()).collect();
            let folder = if format == Format::Csv { "focus_1_4_csv" } else { "focus_1_4" };
            let day = "billing_period=2026-11/charge_day=2026-11-19";
            let expected = format!("export/v1/acme/{folder}/cost_and_usage/{day}/part-");
            assert!(keys[0].starts_with(&expected), "{}", keys[0]);
            assert_eq!(keys.len(), 2);
            let named = format!("focus_1_4-cost_and_usage-2026-11-19.{}", format.extension());
            assert_eq!((&parts[0].file, parts[0].day.as_deref()), (&named, Some("2026-11-19")));
            for part in &parts {
                let bytes = fs::read(&part.path).unwrap();
                let name = hex(&Sha256::digest(&bytes)[..16]);
                assert!(part.key.contains(&name), "{}", part.key);
                assert_eq!((part.rows, part.bytes), (1, bytes.len() as u64));
                assert_eq!(part.sha256, hex(Sha256::digest(&bytes).as_slice()));
                assert!(is_file_name(&part.file), "{}", part.file);
                assert_eq!(fs::read_dir(part.path.parent().unwrap()).unwrap().count(), 1);
            }
            let again = export(two.path(), format, &rows());
            assert_eq!(keys, again.iter().map(|part| part.key.as_str()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn unsorted_rows_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut exporter =
            Exporter::new(directory.path(), "acme", Version::V1_4, Format::Csv).unwrap();
        let rows = rows();
        exporter.push(&rows[1]).unwrap();
        assert!(exporter.push(&rows[0]).unwrap_err().to_string().contains("charge_day=2026-11-19"));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("export"), "in the way").unwrap();
        let mut exporter =
            Exporter::new(directory.path(), "acme", Version::V1_4, Format::Csv).unwrap();
        assert!(exporter.push(&rows()[0]).unwrap_err().to_string().contains("export/v1/acme"));
    }
}
