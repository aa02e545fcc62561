//! CAN WE pay for it. In the order of a decision: the window that spending is counted in, the rate, the money set
//! aside, and the account that keeps all three.
//!
//! - [`calendar`]: where days and fiscal months begin
//! - [`window`]: days, weeks, months, lifetime
//! - [`rate_limit`]: so many units in a period
//! - [`hold`]: money for one request in flight
//! - [`account`]: one key's spending, holds and rates
//! - [`terms`]: a shared budget as its workspace sets it
//! - [`lease`]: how many keys spend from one budget
//! - [`expectation`]: what requests of a model usually cost of their worst case
//! - [`pace`]: whether a budget lasts to the end of its window
//! - [`loop_breaker`]: agents that go round in circles
//! - [`baseline`]: a budget proposed from what was spent

pub mod account;
pub mod baseline;
pub mod calendar;
pub mod expectation;
pub mod hold;
pub mod lease;
pub mod loop_breaker;
pub mod pace;
pub mod rate_limit;
pub mod terms;
pub mod window;

#[cfg(test)]
mod simulation;
