//! The OpenAPI document: written by a test from the table of operations and the types themselves, and served as it is.

/// The document. `UPDATE_OPENAPI=1 cargo test -p tallygate-edge openapi` writes it anew.
pub const DOCUMENT: &str = include_str!("openapi.json");
