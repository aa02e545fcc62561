//! MAY IT. The rules that a request is held against, in the order of a decision.
//!
//! - [`ip_ranges`]: from where
//! - [`globs`]: which models

pub mod globs;
pub mod ip_ranges;
