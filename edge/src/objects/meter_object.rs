//! The Meter: the authority for one gateway key. It authenticates, decides, holds, settles, and keeps the key's usage
//! events until the Ledger has them.
//!
//! One admission: authenticate, decide, place the hold in memory. No write, as long as the durable ceiling has room.
//! One settlement: counters, event and state in one transaction. An alarm delivers events and settles what nobody did.
//!
//! What a restart forgets: holds younger than [`JOURNAL_AFTER_MS`] and the rate limits' newest state. The ceiling says
//! how much those holds can be; that much counts as held until the longest request is over, and an `interrupted`
//! event says so in the books.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tallygate_shared::budget::account::{Account, WINDOWS};
use tallygate_shared::budget::hold::{HOLD_LIFETIME_MS, Hold, charge};
use tallygate_shared::budget::loop_breaker::Watched;
use tallygate_shared::budget::rate_limit::Gcra;
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::identity::actor::{self, Actor, ActorError, ActorSecret};
use tallygate_shared::ids::{KeyId, RequestId};
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::{Admission, RequestFacts, decide};
use tallygate_shared::policy::key_plan::{KeyPlan, KeyStatus};
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::Usage;

use crate::objects::meter_events::{blank_event, event_of};
use crate::objects::meter_loops::Loops;
use crate::objects::meter_refusals::Refusals;
use crate::objects::meter_reports::{Simulated, State};
use crate::objects::meter_store::{MeterStore, StoredState};
use crate::objects::sql::{Sql, SqlError};
use crate::providers::catalog::Shelf;
use crate::request::calls::{
    AdmitAnswer, AdmitCall, Admitted, AdmittedTarget, LimitState, Limits, Settlement, Ticket,
};
use crate::request::status::status_of;
use crate::vault::KeyRing;

/// A hold older than this is written down with the next commit, so that a restart knows it one by one.
pub const JOURNAL_AFTER_MS: i64 = 1_000;
/// How long an event may wait for company before the outbox is delivered.
const DELIVERY_DELAY_MS: i64 = 250;
/// How long a Meter without requests in flight keeps its ceiling: the next request then needs no commit.
const IDLE_MS: i64 = 5_000;
/// Events delivered in one call to a Ledger: 200 x about 1.5 KB stays far below the 32 MiB limit of a call.
const DELIVERY_BATCH: usize = 200;

/// What can go wrong in a Meter. None of it is the caller's fault: the request is refused with `meter_unavailable`.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// Storage refused.
    #[error(transparent)]
    Storage(#[from] SqlError),
    /// A message between the parts of the gateway could not be read: a build talks to another.
    #[error("message: {0}")]
    Message(#[from] serde_json::Error),
    /// A settlement for a key that has no plan.
    #[error("this Meter has no plan")]
    NoPlan,
}

/// The Meter of one key.
pub struct MeterObject<S> {
    store: MeterStore<S>,
    plan: Option<KeyPlan>,
    actor_secrets: Vec<ActorSecret>,
    account: Account,
    tickets: BTreeMap<RequestId, Ticket>,
    journaled: BTreeSet<RequestId>,
    next_seq: u64,
    undelivered: bool,
    refusals: Refusals,
    loops: Loops,
}

/// Deliveries that an alarm must make, in order.
#[derive(Debug, Serialize)]
pub struct Wake {
    /// One call to a Ledger each.
    pub batches: Vec<Delivery>,
}

/// One call to a Ledger.
#[derive(Debug, Serialize)]
pub struct Delivery {
    /// The Ledger's name: `<workspace>:<YYYY-MM>`.
    pub ledger: String,
    /// The batch as JSON text.
    pub payload: String,
    /// The sequence number that is delivered when the call returns.
    pub up_to: u64,
}

#[derive(Serialize)]
struct Batch<'a> {
    meter: &'a KeyId,
    events: Vec<&'a RawValue>,
}

impl<S: Sql> MeterObject<S> {
    /// Opens the Meter from its storage. What was in flight before a restart is restored or counted as unclear.
    pub fn open(sql: S, ring: &KeyRing, now: Timestamp) -> Result<Self, MeterError> {
        let store = MeterStore::open(sql)?;
        let plan: Option<KeyPlan> =
            store.plan()?.map(|text| serde_json::from_str(&text)).transpose()?;
        let state = store.state()?;
        let tickets: BTreeMap<RequestId, Ticket> =
            store.tickets()?.into_iter().map(|ticket| (ticket.hold.id.clone(), ticket)).collect();
        let mut account = Account::restore(
            store.spent(now)?,
            tickets.values().map(|ticket| ticket.hold.clone()),
            state.ceiling,
            now.plus_ms(HOLD_LIFETIME_MS),
        );
        account.requests = state.requests;
        account.tokens = state.tokens;
        let mut meter = Self {
            actor_secrets: plan.as_ref().map(|plan| open_secrets(plan, ring)).unwrap_or_default(),
            plan,
            account,
            journaled: tickets.keys().cloned().collect(),
            tickets,
            next_seq: store.last_seq()? + 1,
            undelivered: store.has_undelivered()?,
            refusals: Refusals::default(),
            loops: Loops::open(&store, now)?,
            store,
        };
        meter.record_interruption(state.unclear, now)?;
        Ok(meter)
    }

    /// Says in the books that a restart came while requests were in flight that are no longer known one by one.
    fn record_interruption(&mut self, known: Usd, now: Timestamp) -> Result<(), MeterError> {
        let Some(unclear) = self.account.unclear() else { return Ok(()) };
        if unclear.amount > known
            && let Some(plan) = &self.plan
        {
            let id = RequestId::mint(now, &self.interruption_seed(&plan.key));
            let facts = RequestFacts::default();
            let mut event = blank_event(plan, id, &facts, now);
            event.outcome = Outcome::Interrupted;
            event.code = Some("meter_restarted".to_owned());
            event.hold = unclear.amount.remaining_after(known);
            self.write_event(event, Usd::ZERO)?;
        }
        self.save_state()
    }

    /// An interruption's id needs no randomness: the key and its sequence number make it the only one of its kind.
    fn interruption_seed(&self, key: &KeyId) -> [u8; 10] {
        let mut seed = [0_u8; 10];
        for (place, byte) in key.as_str().bytes().enumerate() {
            if let Some(to) = seed.get_mut(place % 10) {
                *to = to.rotate_left(3) ^ byte;
            }
        }
        for (to, from) in seed.iter_mut().rev().zip(self.next_seq.to_le_bytes()) {
            *to ^= from;
        }
        seed
    }

    /// Takes a plan, unless it is older than the one there. Holds from the next request on.
    pub fn apply_plan(&mut self, text: &str, ring: &KeyRing) -> Result<(), MeterError> {
        let plan: KeyPlan = serde_json::from_str(text)?;
        if self.plan.as_ref().is_some_and(|current| current.version > plan.version) {
            return Ok(());
        }
        self.store.save_plan(text)?;
        self.actor_secrets = open_secrets(&plan, ring);
        self.plan = Some(plan);
        Ok(())
    }

    /// Decides about a request and places its hold.
    pub fn admit(&mut self, call: AdmitCall, now: Timestamp) -> Result<AdmitAnswer, MeterError> {
        let Some(plan) = self.plan.take() else {
            // Nothing is stored for a key that nobody issued, so a stranger cannot fill storage with names.
            return Ok(refuse(Refusal::KeyInvalid));
        };
        let answer = self.admit_under(&plan, call, now);
        self.plan = Some(plan);
        answer
    }

    fn admit_under(
        &mut self,
        plan: &KeyPlan,
        call: AdmitCall,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        if !authentic(plan, &call.key_sha256, now) {
            self.note_refusal(plan, &call, &Actor::default(), &Refusal::KeyInvalid, now);
            return Ok(refuse(Refusal::KeyInvalid));
        }
        let actor = self.actor_of(plan, call.actor_token.as_deref(), now);
        let shelf = Shelf::of(&call.facts.endpoint, now);
        let load = self.account.load(now);
        let draw = call.draw.parse().unwrap_or(0);
        let decision = decide(plan, &call.facts, &actor, &load, &shelf, draw, now);
        let actor = actor.unwrap_or_else(|_| plan.owner.actor.clone());
        match decision.outcome {
            Err(refusal) => {
                self.note_refusal(plan, &call, &actor, &refusal, now);
                let limits = self.limits(plan, now);
                Ok(AdmitAnswer::Refuse { refusal, limits })
            }
            Ok(admission) => {
                match self.loops.check(&self.store, plan, &call.facts, &actor, now)? {
                    Ok(watched) => self.place(plan, call, actor, watched, admission, now),
                    Err(refusal) => {
                        self.note_refusal(plan, &call, &actor, &refusal, now);
                        let limits = self.limits(plan, now);
                        Ok(AdmitAnswer::Refuse { refusal: *refusal, limits })
                    }
                }
            }
        }
    }

    /// Commits an admission: the ceiling first, where it must rise, then the hold and the rate limits in memory.
    fn place(
        &mut self,
        plan: &KeyPlan,
        call: AdmitCall,
        actor: Actor,
        watched: Option<Watched>,
        admission: Admission<'_>,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        let room = admission.budget_remaining;
        if let Some(ceiling) = self.account.raised_ceiling(admission.hold, room, now) {
            let before = self.account.ceiling();
            self.account.set_ceiling(ceiling);
            if let Err(error) = self.save_state() {
                self.account.set_ceiling(before);
                return Err(error);
            }
        }
        // After this point the admission must succeed.
        let hold = Hold {
            id: call.id,
            at: now,
            expires_at: now.plus_ms(HOLD_LIFETIME_MS),
            amount: admission.hold,
            tokens: admission.hold_tokens,
        };
        self.account.requests = admission.load.requests;
        self.account.tokens = admission.load.tokens;
        self.account.place(hold.clone());
        let ticket = Ticket {
            hold,
            endpoint: call.facts.endpoint,
            stream: call.stream,
            requested_model: call.facts.model,
            actor,
            labels: call.labels,
            watched,
        };
        self.tickets.insert(ticket.hold.id.clone(), ticket.clone());
        let limits = self.limits(plan, now);
        let targets = admission.targets.into_iter().map(|chosen| AdmittedTarget {
            provider: chosen.provider.name.clone(),
            kind: chosen.provider.kind.clone(),
            base_url: chosen.provider.base_url.clone(),
            credential: chosen.provider.credential.clone(),
            auth_header: chosen.provider.auth_header.clone(),
            api_version: chosen.provider.api_version.clone(),
            region: chosen.provider.region.clone(),
            model: chosen.model,
            price: chosen.price.cloned(),
        });
        Ok(AdmitAnswer::Admit(Box::new(Admitted {
            ticket,
            workspace: plan.workspace.clone(),
            targets: targets.collect(),
            attempts: admission.route.attempts,
            first_byte_timeout_ms: admission.route.first_byte_timeout_ms,
            idle_timeout_ms: admission.route.idle_timeout_ms,
            set_max_output_tokens: admission.set_max_output_tokens,
            budget_remaining: admission.budget_remaining,
            limits,
        })))
    }

    /// Settles a request: event, counters and state in the one transaction that surrounds this call. Settling it again
    /// changes nothing. Returns whether this call did it.
    pub fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Result<bool, MeterError> {
        let id = &settlement.ticket.hold.id;
        // A hold in memory was not settled; for one that a restart forgot, storage knows.
        if !self.account.holds(id) && self.store.has_event(id)? {
            return Ok(false);
        }
        let plan = self.plan.as_ref().ok_or(MeterError::NoPlan)?;
        let hold = settlement.ticket.hold.clone();
        let charged = charge(
            settlement.outcome,
            settlement.cost.as_ref().map(|cost| cost.total),
            hold.amount,
        );
        let tokens_used = settlement.usage.tally().map(|tally| tally.tokens.total());
        let tokens_used =
            if charged == Usd::ZERO { Some(tokens_used.unwrap_or(0)) } else { tokens_used };
        let tokens_per_minute = plan.policy.tokens_per_minute;
        self.loops.settled(plan, &settlement, charged, now);
        let event = event_of(plan, settlement, charged, now);
        self.account.settle(&hold, charged, tokens_used, tokens_per_minute, now);
        self.tickets.remove(&hold.id);
        if self.journaled.remove(&hold.id) {
            self.store.forget_ticket(&hold.id)?;
        }
        self.write_event(event, charged)?;
        self.journal(now)?;
        self.save_state()?;
        Ok(true)
    }

    /// The alarm's work: record refusals, settle what expired, lower an idle ceiling; then say what to deliver.
    pub fn wake(&mut self, now: Timestamp) -> Result<Wake, MeterError> {
        self.flush_refusals()?;
        for hold in self.account.expired(now) {
            self.abandon(&hold, now)?;
        }
        self.account.forget_unclear(now);
        self.store.prune_loop_trips(now)?;
        self.journal(now)?;
        if self.account.is_idle() && self.account.ceiling() != Usd::ZERO {
            self.account.set_ceiling(Usd::ZERO);
        }
        self.save_state()?;
        self.deliveries()
    }

    fn abandon(&mut self, hold: &Hold, now: Timestamp) -> Result<(), MeterError> {
        let Some(ticket) = self.tickets.get(&hold.id).cloned() else { return Ok(()) };
        let settlement = Settlement {
            ticket,
            outcome: Outcome::Abandoned,
            code: Some("settlement_missing".to_owned()),
            status: 0,
            provider: None,
            model: None,
            response_model: None,
            provider_request_id: None,
            attempts: Vec::new(),
            usage: Usage::Absent,
            cost: None,
            duration_ms: u64::try_from(now.since_ms(hold.at)).unwrap_or(0),
            first_byte_ms: None,
        };
        self.settle(settlement, now).map(|_| ())
    }

    fn deliveries(&self) -> Result<Wake, MeterError> {
        let Some(plan) = &self.plan else { return Ok(Wake { batches: Vec::new() }) };
        let mut batches: Vec<(String, u64, Vec<String>)> = Vec::new();
        for (seq, at, body) in self.store.undelivered(DELIVERY_BATCH)? {
            let date = at.date();
            let ledger = format!("{}:{:04}-{:02}", plan.workspace, date.year, date.month);
            // Order within the key is kept, so a batch ends where the month changes.
            match batches.last_mut() {
                Some((name, up_to, events)) if *name == ledger => {
                    *up_to = seq;
                    events.push(body);
                }
                _ => batches.push((ledger, seq, vec![body])),
            }
        }
        let batches = batches
            .into_iter()
            .map(|(ledger, up_to, events)| {
                let events: Result<Vec<&RawValue>, _> =
                    events.iter().map(|body| serde_json::from_str(body)).collect();
                let payload = serde_json::to_string(&Batch { meter: &plan.key, events: events? })?;
                Ok(Delivery { ledger, payload, up_to })
            })
            .collect::<Result<_, serde_json::Error>>()?;
        Ok(Wake { batches })
    }

    /// The Ledger has everything up to this sequence number.
    pub fn delivered(&mut self, up_to: u64) -> Result<(), MeterError> {
        self.store.mark_delivered(up_to)?;
        self.undelivered = self.store.has_undelivered()?;
        Ok(())
    }

    /// When the alarm must ring next, in milliseconds since the epoch. A ceiling above zero always has one.
    pub fn alarm_at(&self, now: Timestamp) -> Option<Timestamp> {
        let outbox = self.undelivered || !self.refusals.is_empty();
        let delivery = outbox.then(|| now.plus_ms(DELIVERY_DELAY_MS));
        let idle = (self.account.ceiling() > Usd::ZERO).then(|| now.plus_ms(IDLE_MS));
        let deadline = self.account.next_deadline().map(|at| at.max(now));
        match (delivery, deadline) {
            (Some(delivery), _) => Some(delivery),
            (None, Some(deadline)) => Some(deadline.min(now.plus_ms(JOURNAL_AFTER_MS * 60))),
            (None, None) => idle,
        }
    }

    /// What a request would get, and why, without sending it or changing anything.
    pub fn simulate(
        &self,
        facts: &RequestFacts,
        actor: Option<Actor>,
        now: Timestamp,
    ) -> Result<Simulated, MeterError> {
        let plan = self.plan.as_ref().ok_or(MeterError::NoPlan)?;
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

    /// Whether a presented key opens this Meter, and if so under which plan.
    pub fn authenticate(&self, sha256: &str, now: Timestamp) -> Result<&KeyPlan, Refusal> {
        let plan = self.plan.as_ref().filter(|plan| authentic(plan, sha256, now));
        let plan = plan.ok_or(Refusal::KeyInvalid)?;
        match plan.status {
            KeyStatus::Revoked => return Err(Refusal::KeyRevoked),
            KeyStatus::Suspended => return Err(Refusal::KeySuspended),
            KeyStatus::Active => {}
        }
        match plan.expires_at {
            Some(expired_at) if expired_at <= now => Err(Refusal::KeyExpired { expired_at }),
            _ => Ok(plan),
        }
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
            in_flight: load.in_flight,
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

    fn actor_of(
        &self,
        plan: &KeyPlan,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Actor, ActorError> {
        let token = token.ok_or(ActorError::Missing)?;
        let claimed = actor::verify(token, &self.actor_secrets, now)?;
        Actor::overlay(&plan.owner.actor, claimed)
    }

    fn limits(&self, plan: &KeyPlan, now: Timestamp) -> Limits {
        let state = |limit: Option<u64>, state| {
            limit.map(|limit| {
                let gcra = Gcra { limit, period_ms: 60_000 };
                let remaining = gcra.remaining(state, now);
                LimitState { limit, remaining, reset_ms: gcra.reset_ms(state, now) }
            })
        };
        Limits {
            requests: state(plan.policy.requests_per_minute, &self.account.requests),
            tokens: state(plan.policy.tokens_per_minute, &self.account.tokens),
        }
    }

    fn note_refusal(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: &Actor,
        refusal: &Refusal,
        now: Timestamp,
    ) {
        let mut event = blank_event(plan, call.id.clone(), &call.facts, now);
        event.actor = actor.clone();
        event.labels = call.labels.clone();
        event.stream = call.stream;
        event.code = Some(refusal.code().to_owned());
        event.status = status_of(refusal);
        self.refusals.note(event, now);
    }

    fn flush_refusals(&mut self) -> Result<(), MeterError> {
        for event in self.refusals.take() {
            self.write_event(event, Usd::ZERO)?;
        }
        Ok(())
    }

    fn write_event(&mut self, mut event: UsageEvent, charged: Usd) -> Result<(), MeterError> {
        event.seq = self.next_seq;
        self.store.insert_event(&event)?;
        if charged != Usd::ZERO {
            let keys = WINDOWS.map(|window| window.key(event.at));
            self.store.add_spent(&keys, charged)?;
        }
        self.next_seq += 1;
        self.undelivered = true;
        Ok(())
    }

    /// Writes down holds that have been open for a while, with a commit that happens anyway.
    fn journal(&mut self, now: Timestamp) -> Result<(), MeterError> {
        let old = |ticket: &&Ticket| now.since_ms(ticket.hold.at) >= JOURNAL_AFTER_MS;
        for ticket in self.tickets.values().filter(old) {
            if self.journaled.insert(ticket.hold.id.clone()) {
                self.store.remember_ticket(ticket)?;
            }
        }
        Ok(())
    }

    fn save_state(&self) -> Result<(), MeterError> {
        let state = StoredState {
            ceiling: self.account.ceiling(),
            unclear: self.account.unclear().map_or(Usd::ZERO, |unclear| unclear.amount),
            requests: self.account.requests,
            tokens: self.account.tokens,
        };
        Ok(self.store.save_state(&state)?)
    }
}

fn refuse(refusal: Refusal) -> AdmitAnswer {
    AdmitAnswer::Refuse { refusal, limits: Limits::default() }
}

fn authentic(plan: &KeyPlan, sha256: &str, now: Timestamp) -> bool {
    use subtle::ConstantTimeEq;
    plan.secrets.iter().any(|secret| {
        secret.expires_at.is_none_or(|end| end > now)
            && bool::from(secret.sha256.as_bytes().ct_eq(sha256.as_bytes()))
    })
}

fn open_secrets(plan: &KeyPlan, ring: &KeyRing) -> Vec<ActorSecret> {
    let open = |sealed: &tallygate_shared::policy::key_plan::SealedActorSecret| {
        let context = format!("{}/actor/{}", plan.workspace, sealed.kid);
        // A secret that the ring cannot open verifies nothing: its tokens are refused, which is the safe side.
        let secret = ring.open(&sealed.sealed, &context).ok()?;
        Some(ActorSecret::new(&sealed.kid, secret, sealed.expires_at))
    };
    plan.actor_secrets.iter().filter_map(open).collect()
}
