//! A CSV file row by row: a header that is looked up by name, cells that say where they are when they are wrong.

use std::collections::BTreeMap;

use csv::{ByteRecord, ReaderBuilder, StringRecord};
use tallygate_shared::money::Usd;

use super::mapping::Finer;
use crate::bill::{BillLine, Quantity};
use crate::connectors::read::parse_rounded;

/// What is wrong in one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadCell {
    /// The column; `row` when it is the whole row.
    pub(super) column: String,
    /// What is wrong with it, and what to do.
    pub(super) reason: String,
}

impl BadCell {
    pub(super) fn new(column: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { column: column.into(), reason: reason.into() }
    }
}

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadRow {
    /// The line of the file, from 1, as editors count. 0 when it is the file as a whole.
    pub(super) line: u64,
    /// The cell.
    pub(super) cell: BadCell,
}

/// A file's rows, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Charges.
    pub(super) lines: Vec<BillLine>,
    /// Rows that could not be read.
    pub(super) bad: Vec<BadRow>,
    /// Rows that are no charges.
    pub(super) skipped: u64,
    /// Numbers that were rounded to 12 places.
    pub(super) rounded: u64,
}

/// How a file is cut into cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// What stands between cells.
    pub(super) delimiter: u8,
    /// Lines before the header.
    pub(super) skip_lines: usize,
}

/// The columns by name.
#[derive(Debug)]
pub(super) struct Header {
    at: BTreeMap<String, usize>,
    by_bare_name: BTreeMap<String, String>,
    twice: Option<String>,
}

/// A name without `_` and case: tools agree on no more than that in columns of their own.
pub(super) fn bare(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

impl Header {
    fn of(record: &StringRecord) -> Self {
        let (mut at, mut twice) = (BTreeMap::new(), None);
        for (index, name) in record.iter().enumerate() {
            let name = name.trim();
            if !name.is_empty() && at.insert(name.to_owned(), index).is_some() {
                twice = Some(name.to_owned());
            }
        }
        let by_bare_name = at.keys().map(|name| (bare(name), name.clone())).collect();
        Self { at, by_bare_name, twice }
    }

    /// Whether there is a column of that name.
    pub(super) fn has(&self, column: &str) -> bool {
        self.at.contains_key(column)
    }

    /// Fails with the columns that there are when one is missing.
    pub(super) fn need<'a>(
        &self,
        columns: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), BadCell> {
        if let Some(twice) = &self.twice {
            let reason = "is there twice: which one counts cannot be known, rename one";
            return Err(BadCell::new(twice, reason));
        }
        let Some(missing) = columns.into_iter().find(|column| !self.has(column)) else {
            return Ok(());
        };
        let there: Vec<String> = self.at.keys().take(40).map(|name| shown(name)).collect();
        let reason = format!("is not in the header, which has {}", there.join(", "));
        Err(BadCell::new(missing, reason))
    }

    /// The column of that [`bare`] name.
    pub(super) fn by_bare_name(&self, name: &str) -> Option<&str> {
        self.by_bare_name.get(name).map(String::as_str)
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// The columns.
    pub(super) header: &'a Header,
    record: &'a StringRecord,
}

impl<'a> Row<'a> {
    /// A cell without the blanks around it; `None` when it is empty or there is no such column.
    pub(super) fn text(&self, column: &str) -> Option<&'a str> {
        let at = self.header.at.get(column)?;
        self.record.get(*at).map(str::trim).filter(|text| !text.is_empty())
    }

    /// A cell that must not be empty.
    pub(super) fn need(&self, column: &str) -> Result<&'a str, BadCell> {
        self.text(column).ok_or_else(|| BadCell::new(column, "is empty"))
    }
}

/// Reads numbers exactly, and counts those it was told to round.
#[derive(Debug)]
pub(super) struct Numbers {
    finer: Finer,
    decimal_comma: bool,
    thousands: Option<char>,
    /// How many were rounded.
    pub(super) rounded: u64,
}

impl Numbers {
    pub(super) fn new(finer: Finer, decimal_comma: bool, thousands: Option<char>) -> Self {
        Self { finer, decimal_comma, thousands, rounded: 0 }
    }

    /// Dollars, from a text in units of `10^-places` dollars (2 for cents).
    pub(super) fn usd(&mut self, column: &str, text: &str, places: usize) -> Result<Usd, BadCell> {
        self.pico(column, text, places).map(Usd::from_pico)
    }

    /// A quantity.
    pub(super) fn quantity(&mut self, column: &str, text: &str) -> Result<Quantity, BadCell> {
        self.pico(column, text, 0).map(Quantity::from_pico)
    }

    fn pico(&mut self, column: &str, text: &str, places: usize) -> Result<i128, BadCell> {
        let plain = self.plain(text).ok_or_else(|| {
            let comma = if self.decimal_comma { "12,50" } else { "12.50" };
            let how = "or say `decimal_comma` or `thousands` in the mapping";
            BadCell::new(column, format!("is not a number such as {comma}: mend it, {how}"))
        })?;
        let (pico, rounded) = parse_rounded(&plain, 12_usize.saturating_sub(places))
            .map_err(|error| BadCell::new(column, error.to_string()))?;
        if rounded && self.finer == Finer::Refuse {
            let reason = "has more than 12 decimal places of a dollar or unit: \
                          allow rounding with `\"finer\": \"round\"`";
            return Err(BadCell::new(column, reason));
        }
        self.rounded = self.rounded.saturating_add(u64::from(rounded));
        Ok(pico)
    }

    /// The text as `-1234.50`. `None` when its separators are not where the mapping says.
    fn plain(&self, text: &str) -> Option<String> {
        let decimal = if self.decimal_comma { ',' } else { '.' };
        let (whole, fraction) = match text.split_once(decimal) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let whole = match self.thousands {
            Some(separator) if whole.contains(separator) => ungrouped(whole, separator)?,
            _ => whole.to_owned(),
        };
        let foreign = |part: &str| part.contains(['.', ',']);
        if foreign(&whole) || fraction.is_some_and(foreign) {
            return None;
        }
        Some(match fraction {
            Some(fraction) => format!("{whole}.{fraction}"),
            None => whole,
        })
    }
}

/// `1,234,567` as `1234567`: groups of three, so that `1,5` is not taken for 15.
fn ungrouped(whole: &str, separator: char) -> Option<String> {
    let mut groups = whole.split(separator);
    let first = groups.next()?;
    let digits = first.trim_start_matches(['+', '-']);
    let fits = (1..=3).contains(&digits.len())
        && groups.all(|group| group.len() == 3 && group.bytes().all(|b| b.is_ascii_digit()));
    fits.then(|| whole.replace(separator, ""))
}

/// A text from outside, short and without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}")
}

/// Cuts `body` into rows and reads each with `line` (`None` for rows that are no charges). `check` looks at the header
/// first.
pub(super) fn read_rows(
    body: &[u8],
    cut: Cut,
    check: impl FnOnce(&Header) -> Result<(), BadCell>,
    line: impl FnMut(Row<'_>) -> Result<Option<BillLine>, BadCell>,
) -> Rows {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if body.iter().filter(|byte| **byte == b'"').count() % 2 != 0 {
        // An open quote would swallow all that follows into one cell.
        let reason = "has an odd number of quotes: it is cut short or not CSV, drop it again whole";
        return whole_file(BadCell::new("file", reason));
    }
    let Some(body) = after_lines(body, cut.skip_lines) else {
        return whole_file(BadCell::new("file", "ends before its header"));
    };
    let reader = ReaderBuilder::new()
        .delimiter(cut.delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(body);
    let mut records = reader.into_byte_records();
    let header = match records.next().map(|record| record.map(StringRecord::from_byte_record)) {
        Some(Ok(Ok(header))) => header,
        Some(Ok(Err(_))) => return whole_file(not_utf8()),
        Some(Err(error)) => return whole_file(BadCell::new("file", error.to_string())),
        None => return whole_file(BadCell::new("file", "is empty")),
    };
    let records = records.map(|record| {
        let record = record.map_err(|error| BadCell::new("file", error.to_string()))?;
        let in_body = record.position().map_or(0, csv::Position::line);
        let at = in_body.saturating_add(u64::try_from(cut.skip_lines).unwrap_or(u64::MAX));
        Ok((at, record))
    });
    read_records(&header, records, check, line)
}

/// The same for records that are cut already, each with its number. A record that cannot be had spoils the file.
pub(super) fn read_records(
    header: &StringRecord,
    records: impl Iterator<Item = Result<(u64, ByteRecord), BadCell>>,
    check: impl FnOnce(&Header) -> Result<(), BadCell>,
    mut line: impl FnMut(Row<'_>) -> Result<Option<BillLine>, BadCell>,
) -> Rows {
    let width = header.len();
    let header = Header::of(header);
    if let Err(cell) = check(&header) {
        return whole_file(cell);
    }
    let mut rows = Rows::default();
    for record in records {
        let (at, record) = match record {
            Ok(record) => record,
            Err(cell) => return whole_file(cell),
        };
        match read_row(&header, width, record, &mut line) {
            Ok(Some(charge)) => rows.lines.push(charge),
            Ok(None) => rows.skipped += 1,
            Err(cell) => rows.bad.push(BadRow { line: at, cell }),
        }
    }
    rows
}

/// Nothing of the file can be read.
pub(super) fn whole_file(cell: BadCell) -> Rows {
    Rows { bad: vec![BadRow { line: 0, cell }], ..Rows::default() }
}

/// Reads one row. Rows that are no charges are left out whatever their width: totals are often short.
fn read_row(
    header: &Header,
    width: usize,
    record: ByteRecord,
    line: &mut impl FnMut(Row<'_>) -> Result<Option<BillLine>, BadCell>,
) -> Result<Option<BillLine>, BadCell> {
    let record = StringRecord::from_byte_record(record).map_err(|_| not_utf8())?;
    if record.iter().all(|cell| cell.trim().is_empty()) {
        return Ok(None);
    }
    let row = Row { header, record: &record };
    match line(row) {
        Ok(Some(_)) | Err(_) if record.len() != width => {
            let reason = format!("has {} cells, the header has {width}", record.len());
            Err(BadCell::new("row", reason))
        }
        read => read,
    }
}

fn not_utf8() -> BadCell {
    BadCell::new("row", "is not UTF-8: save the file as UTF-8")
}

/// What follows the first `lines` lines. `None` when nothing does.
fn after_lines(body: &[u8], lines: usize) -> Option<&[u8]> {
    let mut rest = body;
    for _ in 0..lines {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        rest = rest.get(end + 1..)?;
    }
    Some(rest)
}
