//! The Durable Objects: their state machines over a storage port. The classes themselves are in `js/objects.mjs`.

pub mod alerts_budgets;
pub mod alerts_object;
#[cfg(test)]
mod alerts_object_tests;
pub mod alerts_plan;
pub mod alerts_review;
pub mod alerts_store;
pub mod archive_part;
pub mod budget_calls;
pub mod budget_object;
#[cfg(test)]
mod budget_object_tests;
pub mod directory_object;
pub mod ledger_archive;
mod ledger_archive_state;
pub(crate) mod ledger_commitments;
pub mod ledger_days;
pub mod ledger_freshness;
pub mod ledger_insights;
pub mod ledger_object;
mod ledger_outcome_days;
mod ledger_outcome_summary;
pub mod ledger_outcomes;
pub mod ledger_performance;
pub mod ledger_prompts;
mod ledger_released;
pub mod ledger_requests;
mod ledger_search;
mod ledger_shape;
pub mod ledger_standing;
pub mod ledger_statement;
pub mod ledger_true_ups;
pub mod meter_admit;
pub mod meter_ask;
pub mod meter_budgets;
mod meter_events;
mod meter_loops;
#[cfg(test)]
mod meter_loops_tests;
pub mod meter_object;
#[cfg(test)]
mod meter_object_tests;
pub mod meter_outbox;
mod meter_outcomes;
mod meter_refusals;
pub mod meter_reports;
pub mod meter_settle;
pub mod meter_store;
pub mod meter_sublets;
pub mod migrations;
pub mod sql;
pub mod telemetry_object;
#[cfg(test)]
mod telemetry_object_tests;
pub mod telemetry_plan;
pub mod telemetry_store;
pub(crate) mod workspace_api;
pub mod workspace_object;
mod workspace_sessions;
mod workspace_versions;

#[cfg(test)]
mod ledger_archive_tests;
#[cfg(test)]
mod ledger_days_tests;
#[cfg(test)]
mod ledger_object_tests;
#[cfg(test)]
mod ledger_outcome_days_tests;
#[cfg(test)]
mod ledger_outcomes_tests;
#[cfg(test)]
mod ledger_performance_tests;
#[cfg(test)]
mod ledger_released_tests;
#[cfg(test)]
mod ledger_statement_tests;
#[cfg(test)]
pub(crate) mod test_shell;
#[cfg(test)]
pub(crate) mod test_sql;
#[cfg(test)]
mod workspace_tests;
