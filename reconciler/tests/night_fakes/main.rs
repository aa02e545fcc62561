//! Nights against an edge that is played and bills from the inbox: what a live gateway is too well-behaved for.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test, its helpers included")]

mod cut;
mod nights;
#[cfg(feature = "aws")]
mod paid_calls;
mod taken_up;
mod world;
