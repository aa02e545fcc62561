//! The FOCUS export: the books as Cost and Usage, Invoice Detail and Billing Period of FOCUS 1.4, and as Cost and
//! Usage of FOCUS 1.2 for tools that stop there.
//!
//! What the specification leaves to whoever exports, and what is done here:
//!
//! - **Rows.** One for each ledger line: model, meter, tier, kind of charge, owner. The owner is in `Tags`.
//! - **Costs.** `BilledCost` and `EffectiveCost` are the ledger's, never rounded. Prices have six decimal places a pricing
//!   unit, quantities six: `ListCost` and `ContractedCost` are their products exactly. What that leaves to the effective
//!   cost is in `x_CostResidual`. List prices are the price book's (`x_ListPriceSource` `PriceBook`), or else those of
//!   the bill: what it states before discounts, or the billed ones (`Bill`).
//! - **Costs without a quantity** are a SKU of their own, counted in dollars at a dollar each; where the bill states the cost
//!   before discounts too, in dollars of that, to six places.
//! - **Days without a bill** are left out, or exported as `x_CostBasis` `Estimated` with nothing billed.
//! - **Split charges.** Lines that the ledger allocated in proportion to use, more than one of a charge: they share the
//!   charge's price, and their ratios, quantities and costs add up to it. `AllocatedTags` equal `Tags`: the provider's
//!   charge is not in this export, and has no tags that it would lose.
//! - **Prepaid.** The purchase has an effective cost of 0. Where the provider draws use from a balance without invoicing
//!   it, the use has a billed cost of 0 and names the balance; where the bill states the use and takes it off again, the
//!   draw is an `Adjustment` that is billed and costs nothing.
//! - **Discounts, refunds, minimum fees, rounding** are `Adjustment`s; `x_ChargeKind` tells them apart.
//! - **Corrections.** An open month is delivered anew as a whole, with `ChargeClass` null. A closed month stays as it is:
//!   the open month gets reversal and restatement, `ChargeClass` `Correction`, on no invoice: a bill that is stated anew does
//!   not say which one the difference is on.
//! - **Invoices.** A charge has one where all of its account, month and category is on a single one. Where several, or
//!   none, could be meant, nobody guesses.
//! - **Parts** are named by their content and cut by billing month and charge day. A new delivery of an open month may
//!   name other parts: readers take those of the newest delivery, not all that lie there.
//! - **Formulas.** In CSV a text that a spreadsheet would run begins with an apostrophe; Parquet has it as it is.

pub mod cell;
pub mod charges;
#[cfg(test)]
pub(crate) mod charges_tests;
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
