//! The project's own checks of an export. The public validators take a file for good in which one row has a wrong enum
//! value, a list cost that is not price times quantity, a timestamp with a blank in it or ratios that sum to 0.99; these
//! checks do not. They read what stands in the file: a row before it is written goes through the same text.

mod across;
mod charge;
mod field;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use super::columns::Version;
use super::export::Record;
use super::invoices::InvoiceDetailRow;
use super::row::FocusRow;
use across::Across;
use field::Spec;

/// What a row or a file breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The columns are others, or in another order.
    Header,
    /// Null where a value must be.
    NotNull,
    /// No plain decimal number of at most 12 places.
    Decimal,
    /// A price below zero.
    NotNegative,
    /// A text that is none of the allowed ones.
    AllowedValue,
    /// Not `YYYY-MM-DDTHH:mm:ssZ`.
    DateTime,
    /// Not `USD`.
    Currency,
    /// Not a unit as FOCUS writes them.
    Unit,
    /// Not a JSON object, or one with a value that may not be in it.
    Json,
    /// A billing period that is no month, or a charge outside its period.
    Period,
    /// A cost that is not price times quantity.
    Identity,
    /// A cost that another cost or the category determines.
    Costs,
    /// Two columns that are null together, and are not.
    Pair,
    /// Prices, quantities and SKUs that do not belong together.
    Sku,
    /// A frequency that the category does not have.
    Frequency,
    /// A correction that is none, or half of one.
    Correction,
    /// A subcategory of another category, or a service with two categories.
    Service,
    /// Allocation columns that do not belong together.
    Allocation,
    /// Ratios of a split charge that do not sum to 1.
    RatioSum,
    /// The same charge or row twice.
    Unique,
    /// Charges that do not add up to their invoice.
    InvoiceSum,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The row, 1 for the first under the header; 0 for the file as a whole.
    pub row: u64,
    /// The column it shows in.
    pub column: &'static str,
    /// The rule.
    pub rule: Rule,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "row {}, {}: {} ({:?})", self.row, self.column, self.what, self.rule)
    }
}

/// What the checks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Rows looked at.
    pub rows: u64,
    /// The first problems, at most [`Findings::SHOWN`].
    pub problems: Vec<Problem>,
    /// How many there are in all.
    pub total: u64,
}

impl Findings {
    /// How many problems are named. A file in which all is wrong needs no longer list.
    pub const SHOWN: usize = 100;

    fn add(&mut self, problem: Problem) {
        self.total += 1;
        if self.problems.len() < Self::SHOWN {
            self.problems.push(problem);
        }
    }

    /// Whether all is well.
    pub const fn is_clean(&self) -> bool {
        self.total == 0
    }
}

/// The columns' values of one row.
struct Fields<'a> {
    specs: &'a [Spec],
    values: &'a [Option<&'a str>],
}

impl<'a> Fields<'a> {
    /// A column's value; `None` for null, and for a column that the edition does not have.
    fn get(&self, name: &str) -> Option<&'a str> {
        let place = self.specs.binary_search_by(|spec| order(spec.name).cmp(&order(name))).ok()?;
        self.values.get(place).copied().flatten()
    }
}

/// FOCUS's columns stand before ours.
fn order(name: &str) -> (bool, &str) {
    (name.starts_with("x_"), name)
}

/// Checks Cost and Usage, row by row.
#[derive(Debug)]
pub struct Checker {
    version: Version,
    specs: Vec<Spec>,
    across: Across,
    findings: Findings,
}

impl Checker {
    /// For an edition. With `details`, charges must add up to them.
    pub fn new(version: Version, details: Option<&[InvoiceDetailRow]>) -> Self {
        let specs = Spec::all::<FocusRow>(version);
        Self { version, specs, across: Across::new(details), findings: Findings::default() }
    }

    /// Checks a row.
    pub fn row(&mut self, row: &FocusRow) {
        let cells: Vec<_> =
            FocusRow::columns(self.version).iter().map(|column| (column.read)(row)).collect();
        let texts: Vec<_> = cells.iter().map(super::cell::Cell::written).collect();
        let values: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        self.values(&values);
    }

    /// Checks a row's values, in the order of the columns.
    pub fn values(&mut self, values: &[Option<&str>]) {
        self.findings.rows += 1;
        let row = self.findings.rows;
        let fields = Fields { specs: &self.specs, values };
        let found = field::check(&self.specs, values);
        let readable = found.is_empty();
        let mut all = found;
        // A value that cannot be read would only be reported again by every rule that needs it.
        if readable {
            all.extend(charge::check(&fields));
            all.extend(self.across.add(row, &fields));
        }
        for (column, rule, what) in all {
            self.findings.add(Problem { row, column, rule, what });
        }
    }

    /// Checks what only all rows together tell.
    pub fn finish(mut self) -> Findings {
        for (row, column, rule, what) in self.across.finish() {
            self.findings.add(Problem { row, column, rule, what });
        }
        self.findings
    }
}

/// One finding in a row: column, rule, what.
type Found = (&'static str, Rule, String);

/// Checks rows before they are written.
pub fn check_rows<'a>(
    rows: impl IntoIterator<Item = &'a FocusRow>,
    version: Version,
    details: Option<&[InvoiceDetailRow]>,
) -> Findings {
    let mut checker = Checker::new(version, details);
    for row in rows {
        checker.row(row);
    }
    checker.finish()
}

/// Checks a finished CSV file of Cost and Usage.
pub fn check_csv(
    from: impl Read,
    version: Version,
    details: Option<&[InvoiceDetailRow]>,
) -> Findings {
    let mut checker = Checker::new(version, details);
    let read = read_csv(from, &checker.specs.clone(), |values| checker.values(values));
    if let Err(problem) = read {
        checker.findings.add(problem);
    }
    checker.finish()
}

/// Checks a finished CSV file of any table, each column for itself, and that no row is there twice.
pub fn check_table<R: Record>(from: impl Read, version: Version) -> Findings {
    let specs = Spec::all::<R>(version);
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    let read = read_csv(from, &specs, |values| {
        findings.rows += 1;
        let row = findings.rows;
        let texts: Vec<&str> = values.iter().map(|value| value.unwrap_or_default()).collect();
        if !seen.insert(across::digest(&texts)) {
            let what = "the row is there twice".to_owned();
            findings.add(Problem { row, column: "", rule: Rule::Unique, what });
        }
        for (column, rule, what) in field::check(&specs, values) {
            findings.add(Problem { row, column, rule, what });
        }
    });
    if let Err(problem) = read {
        findings.add(problem);
    }
    findings
}

/// Gives each row's values to `each`. An empty field is null.
fn read_csv(
    from: impl Read,
    specs: &[Spec],
    mut each: impl FnMut(&[Option<&str>]),
) -> Result<(), Problem> {
    let header = |row, what: String| Problem { row, column: "", rule: Rule::Header, what };
    let mut reader = csv::Reader::from_reader(from);
    let names = reader.headers().map_err(|error| header(0, error.to_string()))?.clone();
    let wanted: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    if !names.iter().eq(wanted.iter().copied()) {
        let missing = wanted.iter().find(|name| !names.iter().any(|there| there == **name));
        let what = missing.map_or_else(
            || "columns are in another order, or there are too many".to_owned(),
            |name| format!("the column `{name}` is missing"),
        );
        return Err(header(0, what));
    }
    for (row, record) in (1_u64..).zip(reader.records()) {
        let record = record.map_err(|error| header(row, error.to_string()))?;
        let values: Vec<Option<&str>> =
            record.iter().map(|text| (!text.is_empty()).then_some(text)).collect();
        each(&values);
    }
    Ok(())
}
