//! The gateway.

pub mod dialects;
pub mod providers;
pub mod request;
