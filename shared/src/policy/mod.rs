//! MAY IT. The plan of a key, the rules in it, the decision, and the reasons to refuse.
//!
//! - [`key_plan`]: all that decides about one key
//! - [`ip_ranges`]: from where
//! - [`globs`]: which models
//! - [`decide`]: every rule, in order
//! - [`record`]: what is kept of a decision
//! - [`refusal`]: why not
//! - [`shared_budget`]: why not, when a shared budget says so

pub mod decide;
#[cfg(test)]
mod decide_tests;
pub mod globs;
pub mod ip_ranges;
pub mod key_plan;
pub mod record;
#[cfg(test)]
mod record_tests;
pub mod refusal;
pub mod shared_budget;
