//! One night in order, for one unit (workspace, UTC day, provider): what the gateway estimated is read ([`read`]), set
//! against what the provider billed ([`match_up`]), every difference explained ([`explain`]) and the bill allocated
//! ([`allocate`]) to the last digit. All of it is pure, but for the files that [`read`] spills to.
//!
//! 1. A [`read::Aggregator`] takes the day's events, and those of the day before that were settled on this day as
//!    carried over. What it gives is read by provider.
//! 2. Charges longer than a day are spread ([`match_up::spread_over_days`]); the bill's own rounding is asked for before
//!    that ([`price_findings::bill_resolution`]).
//! 3. Each unit is settled: [`settle_unit`] in memory, [`settle_stream`] in a memory that grows with 16 bytes a line.
//!    Who bills for the harness is settled the same way, without estimates.
//! 4. [`economics`] puts rows and outcomes together.
//!
//! What always holds, and is checked before a unit is given out: the rows' bills add up to the bill's lines and their
//! estimates to the usage; on every row and in sum, quantity and price variance add up to the difference; and neither
//! order nor repetition changes a byte.

pub mod adjustments;
pub mod allocate;
pub mod bills;
mod books;
pub mod day_mark;
pub mod economics;
mod estimates;
pub mod events;
pub mod explain;
pub mod export;
pub mod feed_back;
pub mod in_force;
mod line_key;
pub mod match_up;
pub mod names;
pub mod outcome;
mod pages;
mod parts;
pub mod price_findings;
pub mod pull;
pub mod read;
pub mod run;
mod settle;
mod shares;
mod shelf;
mod spill;
mod spread;
pub mod tell_run;
pub mod unit_costs;
mod units;
mod usage;
pub mod write;

pub use outcome::{
    Finding, Options, PriceFinding, Summary, Tolerance, Totals, UnitBill, UnitInput, UnitOutcome,
    Unmetered, UnmeteredReason,
};
pub use settle::{EstimateSource, ProviderEstimates, RowSink, settle_stream, settle_unit};
pub use spill::SpillOptions;

/// Why a unit cannot be settled. Nothing of it is written then.
#[derive(Debug, thiserror::Error)]
pub enum NightError {
    /// A sum is beyond what the books can hold.
    #[error("`{what}` overflows: a single amount or count must be wrong by orders of magnitude")]
    Overflow {
        /// What was summed.
        what: &'static str,
    },
    /// A field of the input cannot be used.
    #[error("`{field}` {problem}: {remedy}")]
    Input {
        /// Which.
        field: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A spill file cannot be written or read.
    #[error(
        "the spill directory {directory} cannot be used: {reason}; give it space, or another directory"
    )]
    Spill {
        /// Where.
        directory: String,
        /// What the system said.
        reason: String,
    },
    /// The outcome would not add up. A defect of the reconciler: nothing is written.
    #[error("the books of {unit} would not add up: {what}")]
    Unbalanced {
        /// The unit.
        unit: String,
        /// Which sum, and the two sides of it.
        what: String,
    },
}

/// A checked sum's result, or the error that names it.
pub(crate) fn fits<T>(sum: Option<T>, what: &'static str) -> Result<T, NightError> {
    sum.ok_or(NightError::Overflow { what })
}

#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod settle_tests;
