//! What a Meter says about itself: the outcome of a thought-out request, and its books.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tallygate_shared::identity::actor::{Actor, ActorError};
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::{Check, RequestFacts, decide};
use tallygate_shared::policy::key_plan::{KeyPlan, KeyPolicy};
use tallygate_shared::time::Timestamp;

use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::providers::catalog::Shelf;
use crate::request::status::status_of;

/// What `simulate` answers.
#[derive(Debug, Serialize)]
pub struct Simulated {
    /// `admit` or `refuse`.
    pub decision: &'static str,
    /// The status the caller would get, if the provider answers.
    pub status: u16,
    /// The refusal's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The refusal's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What would be set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_usd: Option<Usd>,
    /// Where the request would go, in order.
    pub targets: Vec<String>,
    /// The output limit that would be written into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_max_output_tokens: Option<u64>,
    /// What the tightest cap would leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_remaining_usd: Option<Usd>,
    /// Every check, in order.
    pub checks: Vec<Check>,
}

/// The Meter's books at a moment.
#[derive(Debug, Serialize)]
pub struct State {
    /// The plan in force.
    pub plan_version: Option<u64>,
    /// Requests in flight that the Meter knows one by one.
    pub in_flight: usize,
    /// Requests that this Meter admitted since it was opened. The others were admitted by Workers, under subleases.
    pub admitted_here: u64,
    /// Calls to Budgets since it was opened.
    pub budget_calls: u64,
    /// Money set aside.
    pub held_usd: Usd,
    /// The durable ceiling of what may be set aside.
    pub ceiling_usd: Usd,
    /// Spent in each present window.
    pub spent_usd: BTreeMap<String, Usd>,
    /// Events kept here.
    pub events: u64,
    /// The sum of what they charged.
    pub events_charged_usd: Usd,
    /// Whether the Ledger still lacks some.
    pub undelivered: bool,
}

impl<S: Sql> MeterObject<S> {
    /// What a request would get, and why, without sending it or changing anything; under another policy than the key's
    /// where one is given.
    pub fn simulate(
        &self,
        facts: &RequestFacts,
        actor: Option<Actor>,
        policy: Option<KeyPolicy>,
        now: Timestamp,
    ) -> Result<Simulated, MeterError> {
        let own = self.plan.as_ref().ok_or(MeterError::NoPlan)?;
        let thought = policy.map(|policy| KeyPlan { policy, ..own.clone() });
        let plan = thought.as_ref().unwrap_or(own);
        let claimed = actor.ok_or(ActorError::Missing);
        let actor = claimed.and_then(|claimed| Actor::overlay(&plan.owner.actor, claimed));
        let shelf = Shelf::of(&facts.endpoint, now);
        let decision = decide(plan, facts, &actor, &self.account.load(now), &shelf, 0, now);
        let simulated = match decision.outcome {
            Ok(admission) => Simulated {
                decision: "admit",
                status: 200,
                code: None,
                message: None,
                hold_usd: Some(admission.hold),
                targets: admission
                    .targets
                    .iter()
                    .map(|chosen| format!("{}/{}", chosen.provider.name, chosen.model))
                    .collect(),
                set_max_output_tokens: admission.set_max_output_tokens,
                budget_remaining_usd: admission.budget_remaining,
                checks: decision.checks,
            },
            Err(refusal) => Simulated {
                decision: "refuse",
                status: status_of(&refusal),
                code: Some(refusal.code().to_owned()),
                message: Some(refusal.to_string()),
                hold_usd: None,
                targets: Vec::new(),
                set_max_output_tokens: None,
                budget_remaining_usd: None,
                checks: decision.checks,
            },
        };
        Ok(simulated)
    }

    /// The record of one of this key's requests, or `None`. In flight, it is a short answer that says so.
    pub fn request(&self, id: &RequestId) -> Result<Option<String>, MeterError> {
        if self.account.holds(id) {
            return Ok(Some(serde_json::json!({ "id": id, "outcome": "in_flight" }).to_string()));
        }
        Ok(self.store.event(id)?)
    }

    /// The agents and sessions that were stopped as loops.
    pub fn loops(&self, now: Timestamp) -> Value {
        self.loops.list(now)
    }

    /// A person lets a stopped agent go on.
    pub fn clear_loop(&mut self, scope: &str, now: Timestamp) -> Result<Value, MeterError> {
        let plan = self.plan.as_ref().ok_or(MeterError::NoPlan)?;
        Ok(self.loops.clear(&self.store, plan, scope, now)?)
    }

    /// The Meter's books, for the admin API and for tests that compare them.
    pub fn state(&self, now: Timestamp) -> Result<State, MeterError> {
        let load = self.account.load(now);
        let (events, charged) = self.store.totals()?;
        Ok(State {
            plan_version: self.plan.as_ref().map(|plan| plan.version),
            in_flight: self.tickets.values().filter(|ticket| ticket.sublet.is_none()).count(),
            admitted_here: self.admitted,
            budget_calls: self.budgets.calls,
            held_usd: load.held,
            ceiling_usd: self.account.ceiling(),
            spent_usd: load
                .spent
                .iter()
                .map(|(window, usd)| (window.name().to_owned(), *usd))
                .collect(),
            events,
            events_charged_usd: charged,
            undelivered: self.undelivered,
        })
    }
}
