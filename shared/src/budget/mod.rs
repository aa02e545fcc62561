//! Can we afford it: windows, rate limits, holds, and a key's account.

pub mod account;
pub mod hold;
pub mod rate_limit;
pub mod window;
