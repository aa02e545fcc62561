//! The gateway: the Rust core of the Worker. It decides; the JavaScript shell in `js/` does the input and output.
//!
//! Architecture invariant: no call into this crate awaits, reads a clock or draws a random number. Time, randomness,
//! storage and every message come in as arguments, so everything here runs natively in tests, and a panic takes down
//! one call and no future.

pub mod admin;
pub mod dashboard;
pub mod demo;
pub mod dialects;
pub mod dimensions;
pub mod objects;
pub mod providers;
pub mod request;
pub mod vault;

#[cfg(target_arch = "wasm32")]
pub mod wasm;
