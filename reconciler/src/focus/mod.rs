//! The FOCUS export: the books as Cost and Usage, Invoice Detail and Billing Period of FOCUS 1.4, and as Cost and
//! Usage of FOCUS 1.2 for tools that stop there.

pub mod cell;
pub mod charges;
#[cfg(test)]
mod charges_tests;
pub mod check;
pub mod columns;
mod corrections;
pub mod csv;
pub mod export;
pub mod invoices;
pub mod month;
#[cfg(feature = "parquet")]
pub mod parquet;
mod prices;
pub mod providers;
pub mod row;
mod sku;

/// Why the export cannot go on. Nothing of it is written then: parts get their name when they are whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An amount does not fit.
    #[error("{what} does not fit 38 digits: check the bill for a wrong unit")]
    Overflow {
        /// What.
        what: &'static str,
    },
    /// Revisions of two units in one call.
    #[error("revisions of `{first}` and `{second}` in one call: export each unit apart")]
    TwoUnits {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A unit whose day is none.
    #[error("`day` of unit `{unit}` is not of the form YYYY-MM-DD: the ledger row is damaged")]
    Day {
        /// The unit.
        unit: String,
    },
    /// A correction without a month.
    #[error(
        "`booked_in` of unit `{unit}` is `{text}`, not of the form YYYY-MM: the ledger row is damaged"
    )]
    BookedIn {
        /// The unit.
        unit: String,
        /// What stands there.
        text: String,
    },
    /// Rows that go back to a partition that is closed.
    #[error(
        "rows are not sorted: `{partition}` comes after `{after}`; sort by billing month, then day"
    )]
    Unsorted {
        /// Where the row belongs.
        partition: String,
        /// Where the row before it belongs.
        after: String,
    },
    /// The disk.
    #[error("cannot write the export to `{path}`: {reason}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A row that a file cannot hold.
    #[error("the {format} file does not take a row: {reason}")]
    Format {
        /// The format.
        format: &'static str,
        /// Why.
        reason: String,
    },
    /// Parquet where the program was built without it.
    #[error("this build writes no Parquet: build it with the feature `parquet`, or export CSV")]
    NoParquet,
    /// Prepaid use that is taken off the bill and never on it.
    #[error(
        "unit `{unit}`: account `{account}` is set up as prepaid, and its bill draws prepaid credit too: \
         remove `prepaid` from the account, the bill states it already"
    )]
    DrawnTwice {
        /// The unit.
        unit: String,
        /// The account.
        account: String,
    },
}
