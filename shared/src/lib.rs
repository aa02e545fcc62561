//! The domain of Tallygate: pure Rust, compiled into the gateway at the edge and into the reconciler.
//!
//! Architecture invariant: nothing here does I/O, reads a clock, draws random numbers, uses floats for money,
//! or knows HTTP statuses, SQL or a runtime. Time and randomness are arguments.

pub mod alerts;
pub mod budget;
pub mod events;
pub mod feedback;
pub mod focus_export;
pub mod forecast;
pub mod hex;
pub mod identity;
pub mod ids;
pub mod insights;
pub mod maturity;
pub mod money;
pub mod policy;
pub mod pricing;
pub mod reconciliation_run;
pub mod spreadsheet;
pub mod telemetry;
pub mod time;
pub mod tokens;
