//! CAN WE pay for it. In the order of a decision: the window that spending is counted in, then the rate.
//!
//! - [`window`]: days, weeks, months, lifetime
//! - [`rate_limit`]: so many units in a period

pub mod rate_limit;
pub mod window;
