//! One request in order: what the client asked for (`body`, `headers`, `labels`), the exchange with the Meter and the
//! provider (`exchange`, `calls`, `retry`), what passes through (`sse`, `tap`, `weigh`), how it ends (`settle`,
//! `rescue`), what the caller is told (`answer`, `status`),
//! what an isolate decides without a call (`isolate`), and what the caller says became of it (`outcomes`).

pub mod answer;
pub mod body;
pub mod calls;
pub mod exchange;
pub mod headers;
pub mod isolate;
pub mod labels;
pub mod outcomes;
pub mod rescue;
pub mod retry;
pub mod settle;
pub mod sse;
pub mod status;
pub mod step;
pub mod tap;
pub mod weigh;
