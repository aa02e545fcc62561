//! The control plane: what an operator and a workspace's people may see and change. Pure; the objects store it.
//!
//! - [`call`]: a request comes in, and which object it goes to
//! - [`operations`]: every operation, once
//! - [`roles`]: who may do it
//! - [`rows`]: whose rows they see
//! - [`bodies`], [`config`]: what it may say
//! - [`merge`]: one answer from several Ledgers
//! - [`problem`]: why not
//! - [`openapi`]: the description of all that

pub mod bodies;
pub mod call;
pub mod config;
pub mod config_alerts;
pub mod config_archive;
pub mod config_commitments;
pub mod config_dashboard;
pub mod config_telemetry;
pub mod export;
pub(crate) mod key_providers;
pub mod merge;
pub(crate) mod merge_forecast;
mod merge_insights;
mod merge_outcomes;
mod merge_performance;
mod merge_prompts;
mod merge_requests;
pub mod merge_standing;
pub mod openapi;
pub mod operations;
pub mod problem;
pub mod refusal_replay;
pub mod roles;
pub mod rows;
mod validate;
mod validate_budget;

#[cfg(test)]
mod openapi_tests;
#[cfg(test)]
mod refusal_replay_tests;

pub use validate::{check_text, price_name, validate_policy};
