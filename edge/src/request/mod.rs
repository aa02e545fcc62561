//! One request in order: what the client asked for (`body`), and what the provider answers while its bytes pass
//! through (`sse`, `tap`). `weigh` is the estimator of both directions.

pub mod body;
pub mod sse;
pub mod tap;
pub mod weigh;
