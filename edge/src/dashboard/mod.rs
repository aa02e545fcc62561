//! The dashboard.
pub mod session;
