//! How models do, what prompts look like and what was refused: asked of the months' Ledgers.

use serde_json::json;
use tallygate_shared::ids::{KeyId, WorkspaceId};
use tallygate_shared::policy::key_plan::{KeyPlan, KeyPolicy};
use tallygate_shared::time::Timestamp;

use super::reports::{dimension, moment, page};
use super::{Answer, Api};
use crate::admin::bodies::PolicyTrial;
use crate::admin::call::Step;
use crate::admin::config::{Config, KeyConfig, PolicyRef, Secrets};
use crate::admin::problem::Problem;
use crate::admin::refusal_replay::Replay;
use crate::objects::ledger_object::UsageQuery;
use crate::objects::ledger_performance::{MODEL_DIMENSIONS, PerformanceQuery};
use crate::objects::ledger_prompts::PromptsQuery;
use crate::objects::ledger_requests::RequestsQuery;
use crate::objects::sql::Sql;

const DEFAULT_SESSIONS: u64 = 100;
const SESSION_SORTS: [&str; 4] = ["charged", "growth", "requests", "last"];
/// What only what was sent has: no refusal has it.
const SENT_ONLY: [&str; 3] = ["provider", "model", "outcome"];
/// The name of a policy that is only tried, in what is said of it.
const TRIED: &str = "tried";

impl<S: Sql> Api<'_, S> {
    pub(super) fn model_performance(&self) -> Answer {
        let both = MODEL_DIMENSIONS.map(str::to_owned).to_vec();
        let mut query = PerformanceQuery { group_by: both, ..PerformanceQuery::default() };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "bucket" => query.bucket = Some(bucket(value)?),
                "group_by" => {
                    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                    query.group_by = parts.map(model_dimension).collect::<Result<_, _>>()?;
                    query.group_by.dedup();
                }
                _ => {
                    query.filters.insert(name, value);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "model_performance", payload: json!(query).to_string() })
    }

    pub(super) fn prompt_shapes(&self) -> Answer {
        let mut query = PromptsQuery::default();
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(day("from", &value)?),
                "to" => query.to_ms = Some(day("to", &value)?),
                _ => {
                    query.filters.insert(name, value);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "prompt_shapes", payload: json!(query).to_string() })
    }

    pub(super) fn agent_sessions(&self) -> Answer {
        let mut query = PromptsQuery {
            sort: "charged".to_owned(),
            limit: DEFAULT_SESSIONS,
            ..PromptsQuery::default()
        };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "limit" => query.limit = page(&value)?,
                "sort" if SESSION_SORTS.contains(&value.as_str()) => query.sort = value,
                "sort" => return Err(unknown_sort(&SESSION_SORTS)),
                _ => {
                    query.filters.insert(name, value);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "agent_sessions", payload: json!(query).to_string() })
    }

    pub(super) fn agent_session(&self, name: &str) -> Answer {
        let mut query = PromptsQuery::default();
        query.filters.insert("session".to_owned(), name.to_owned());
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                _ => {
                    query.filters.insert(name, value);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "agent_session", payload: json!(query).to_string() })
    }

    pub(super) fn refusals(&self) -> Answer {
        let mut query = UsageQuery { group_by: vec!["code".to_owned()], ..UsageQuery::default() };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from_ms = Some(moment("from", &value)?.ms()),
                "to" => query.to_ms = Some(moment("to", &value)?.ms()),
                "bucket" => query.bucket = Some(bucket(value)?),
                "group_by" => {
                    query.group_by.clear();
                    for part in value.split(',').filter(|part| !part.is_empty()) {
                        let part = of_refusals(part)?;
                        if !query.group_by.contains(&part) {
                            query.group_by.push(part);
                        }
                    }
                }
                _ => {
                    query.filters.insert(of_refusals(&name)?, value);
                }
            }
        }
        query.filters.insert("outcome".to_owned(), "refused".to_owned());
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "refusals", payload: json!(query).to_string() })
    }

    /// Reads only: neither the policy that is tried nor anything else is stored.
    pub(super) fn simulate_refusals(&self) -> Answer {
        let trial: PolicyTrial = self.context.call.body()?;
        let (config, policy) = tried(self.workspace.config(), trial.policy)?;
        let time = |name: &str, text: Option<String>| {
            text.map(|text| moment(name, &text).map(Timestamp::ms)).transpose()
        };
        let mut query = RequestsQuery {
            from_ms: time("from", trial.from)?,
            to_ms: time("to", trial.to)?,
            ..RequestsQuery::default()
        };
        for (name, value) in trial.filters {
            query.filters.insert(of_refusals(&name)?, value);
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        let plan = plan_under(&config, self.workspace.id()?, policy);
        let plan = plan.ok_or_else(|| Problem::new(500, "gateway_error", "No plan. Try again."))?;
        let payload = json!(Replay { query, plan }).to_string();
        Ok(Step::Ledgers { names, method: "refused", payload })
    }
}

/// A configuration with the policy in it, which is checked as if it were applied; and the policy itself.
fn tried(config: &Config, policy: PolicyRef) -> Result<(Config, KeyPolicy), Problem> {
    let mut config = config.clone();
    match policy {
        PolicyRef::Named(name) => {
            let known = config.policies.get(&name).cloned();
            let remedy = "Name one of the workspace's policies, or give the rules themselves.";
            let policy = known.ok_or_else(|| {
                Problem::field("policy", "is no policy of this workspace", remedy)
            })?;
            Ok((config, policy))
        }
        PolicyRef::Inline(policy) => {
            config.policies.insert(TRIED.to_owned(), (*policy).clone());
            config.validate()?;
            Ok((config, *policy))
        }
    }
}

/// What decides about any key under this policy. It has no secrets, and all budgets.
fn plan_under(config: &Config, workspace: &WorkspaceId, policy: KeyPolicy) -> Option<KeyPlan> {
    const NOBODY: &str = "0000000000000000";
    let mut config = config.clone();
    let key = KeyConfig {
        name: TRIED.to_owned(),
        owner: String::new(),
        cost_centre: String::new(),
        purpose: String::new(),
        environment: String::new(),
        actor: Default::default(),
        policy: PolicyRef::Inline(Box::new(policy)),
        status: tallygate_shared::policy::key_plan::KeyStatus::Active,
        expires_at: None,
    };
    KeyId::parse(NOBODY).ok()?;
    config.keys.insert(NOBODY.to_owned(), key);
    let mut plan = config.compile(workspace, 0, NOBODY, &Secrets::default())?;
    plan.budgets.clone_from(&config.budgets);
    Some(plan)
}

fn bucket(value: String) -> Result<String, Problem> {
    if matches!(value.as_str(), "hour" | "day") {
        return Ok(value);
    }
    Err(Problem::field("bucket", "is not known", "Use hour or day."))
}

fn model_dimension(name: &str) -> Result<String, Problem> {
    let known = MODEL_DIMENSIONS.into_iter().find(|known| *known == name);
    let remedy = "Use provider, model or provider,model.";
    known
        .map(str::to_owned)
        .ok_or_else(|| Problem::field("group_by", "has an unknown dimension of models", remedy))
}

fn of_refusals(name: &str) -> Result<String, Problem> {
    if SENT_ONLY.contains(&name) {
        let remedy = "Leave it out: what is refused reaches no provider.";
        return Err(Problem::field(
            "group_by",
            format!("has `{name}`, which no refusal has"),
            remedy,
        ));
    }
    dimension(name)
}

/// Shapes are kept by day.
fn day(field: &str, text: &str) -> Result<i64, Problem> {
    let at = moment(field, text)?;
    if at == at.date().midnight() {
        return Ok(at.ms());
    }
    Err(Problem::field(
        field,
        "is not midnight",
        "Shapes are kept by day: give a day (2026-11-20).",
    ))
}

pub(super) fn unknown_sort(known: &[&str]) -> crate::objects::workspace_object::Refused {
    Problem::field("sort", "is not known", &format!("Use one of {}.", known.join(", "))).into()
}
