//! The loop breaker in a Meter: its state is memory, its trips are stored, so that a restart lets no loop go.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tallygate_shared::budget::loop_breaker::shape::ScopeKey;
use tallygate_shared::budget::loop_breaker::{Ended, LoopBreaker, Trip, Verdict, Watched};
use tallygate_shared::events::usage_event::Outcome;
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;

use super::meter_store::MeterStore;
use super::sql::{Sql, SqlError};
use crate::request::calls::Settlement;

/// What the breaker says about an admitted request: what to tell it later, or why the request is refused after all.
pub(super) type Watch = Result<Option<Watched>, Box<Refusal>>;

/// One key's loop breaker and its trips.
pub(super) struct Loops {
    breaker: LoopBreaker,
    /// Trips that storage did not take.
    unsaved: BTreeSet<String>,
}

impl Loops {
    /// From storage.
    pub(super) fn open<S: Sql>(store: &MeterStore<S>, now: Timestamp) -> Result<Self, SqlError> {
        let breaker = LoopBreaker::restore(store.loop_trips()?, now);
        Ok(Self { breaker, unsaved: BTreeSet::new() })
    }

    /// Checks a request that is otherwise admitted. Only a new trip is a write, and that one statement.
    pub(super) fn check<S: Sql>(
        &mut self,
        store: &MeterStore<S>,
        plan: &KeyPlan,
        facts: &RequestFacts,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Watch, SqlError> {
        let rules = &plan.policy.loop_breaker;
        let Some((scope, shape)) = ScopeKey::of(actor, rules).zip(facts.shape.as_ref()) else {
            return Ok(Ok(None));
        };
        match self.breaker.check(&scope, shape, facts.input_tokens, rules, now) {
            Verdict::Pass => Ok(Ok(Some(Watched { scope, fingerprint: shape.fingerprint }))),
            Verdict::Tripped { trip, fresh } => {
                let id = &trip.scope.id;
                if fresh || self.unsaved.contains(id) {
                    self.unsaved.insert(id.clone());
                    store.save_loop_trip(&trip)?;
                    self.unsaved.remove(id);
                }
                Ok(Err(Box::new(refusal(*trip, now))))
            }
        }
    }

    /// Takes in how a request ended.
    pub(super) fn settled(
        &mut self,
        plan: &KeyPlan,
        settlement: &Settlement,
        charged: Usd,
        now: Timestamp,
    ) {
        let Some(watched) = &settlement.ticket.watched else { return };
        let from = settlement.ticket.hold.at;
        let duration = i64::try_from(settlement.duration_ms).unwrap_or(i64::MAX);
        let answered = settlement.outcome == Outcome::Completed;
        let ended = Ended { cost: charged, answered, from, to: from.plus_ms(duration) };
        self.breaker.settled(watched, ended, &plan.policy.loop_breaker, now);
    }

    /// A person lets a scope go on.
    pub(super) fn clear<S: Sql>(
        &mut self,
        store: &MeterStore<S>,
        plan: &KeyPlan,
        scope: &str,
        now: Timestamp,
    ) -> Result<Value, SqlError> {
        // Storage first: if it fails, the scope stays stopped in both.
        store.delete_loop_trip(scope)?;
        let cleared = self.breaker.clear(scope, &plan.policy.loop_breaker, now);
        Ok(json!({ "scope": scope, "cleared": cleared }))
    }

    /// The scopes that are stopped or on probation.
    pub(super) fn list(&self, now: Timestamp) -> Value {
        let trips = self.breaker.trips(now).map(|trip| shown(trip, now));
        json!({ "data": trips.collect::<Vec<_>>() })
    }
}

fn shown(trip: &Trip, now: Timestamp) -> Value {
    json!({
        "scope": trip.scope.id,
        "agent": trip.scope.agent,
        "session": trip.scope.session,
        "state": if now < trip.until { "open" } else { "half_open" },
        "evidence": trip.evidence,
        "message": trip.evidence.to_string(),
        "spent_usd": trip.spent_usd,
        "requests": trip.requests,
        "tripped_at": trip.tripped_at.to_string(),
        "until": trip.until.to_string(),
        "forgotten_at": trip.forget_at.to_string(),
        "trips_before": trip.level,
    })
}

fn refusal(trip: Trip, now: Timestamp) -> Refusal {
    Refusal::LoopDetected {
        scope: trip.scope.id,
        agent: trip.scope.agent,
        session: trip.scope.session,
        evidence: Box::new(trip.evidence),
        spent_usd: trip.spent_usd,
        requests: trip.requests,
        until: trip.until,
        retry_after_ms: u64::try_from(trip.until.since_ms(now)).unwrap_or(0),
    }
}
