//! What a workspace tells other systems about itself: counters for Prometheus, metrics and log events for OpenTelemetry,
//! and the trace that a request belongs to. Pure encoders: nothing here sends anything.
//!
//! Invariant: no text of a request or an answer, no secret and no unsigned label comes out of this module.

pub mod attributes;
pub mod counters;
pub mod histogram;
pub mod latency;
pub mod otlp;
pub mod otlp_logs;
pub mod otlp_metrics;
pub mod performance;
pub mod prometheus;
pub mod retry;
pub mod trace;
