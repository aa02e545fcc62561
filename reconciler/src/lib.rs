//! The reconciler: what the gateway estimated, made to agree with what the providers billed, to the last digit.
//!
//! One night in order: `night` says the steps. The core is pure (`night::match_up`, `explain`, `allocate`); clocks,
//! files, networks and databases sit in `connectors`, `stores` and the binaries.

pub mod app;
pub mod bill;
pub mod config;
pub mod connectors;
pub mod deliver;
pub mod edge;
pub mod focus;
pub mod hand_over;
pub mod lambda;
pub mod ledger;
pub mod metrics;
pub mod night;
pub mod ports;
pub mod report;
pub mod stores;
