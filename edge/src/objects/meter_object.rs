//! The Meter: the authority for one gateway key. It authenticates, decides, holds, settles, and keeps the key's usage
//! events until the Ledger has them.
//!
//! One admission: authenticate, decide, place the hold in memory. No write, as long as the durable ceiling has room and
//! no cap is near.
//! One settlement: counters, event and state in one transaction. An alarm delivers events and settles what nobody did.
//!
//! What a restart forgets: holds younger than [`JOURNAL_AFTER_MS`] and the rate limits' newest state. The ceiling says
//! how much those holds can be; that much counts as held until the longest request is over, and an `interrupted`
//! event says so in the books.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tallygate_shared::budget::account::{Account, WINDOWS};
use tallygate_shared::budget::hold::{HOLD_LIFETIME_MS, Hold, charge};
use tallygate_shared::budget::lease::wallet::{Need, Wallet};
use tallygate_shared::budget::loop_breaker::Watched;
use tallygate_shared::budget::rate_limit::Gcra;
use tallygate_shared::budget::terms::{LineKind, account_parts};
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::identity::actor::{self, Actor, ActorError, ActorSecret};
use tallygate_shared::ids::{KeyId, RequestId};
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::{Admission, Chosen, RequestFacts, decide};
use tallygate_shared::policy::ip_ranges::network_of;
use tallygate_shared::policy::key_plan::{KeyPlan, KeyStatus};
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::Usage;

use crate::objects::meter_budgets::{Budgets, Progress, Verdict, charges_of, learns, needs_of};
use crate::objects::meter_events::{blank_event, event_of};
use crate::objects::meter_loops::Loops;
use crate::objects::meter_refusals::Refusals;
use crate::objects::meter_reports::{Simulated, State};
use crate::objects::meter_store::{MeterStore, StoredState};
use crate::objects::meter_sublets::Heat;
use crate::objects::sql::{Sql, SqlError};
use crate::providers::catalog::Shelf;
use crate::request::calls::{
    AdmitAnswer, AdmitCall, Admitted, AdmittedTarget, LimitState, Limits, Settlement, Ticket,
};
use crate::request::status::status_of;
use crate::vault::KeyRing;

/// A hold older than this is written down with the next commit, so that a restart knows it one by one.
pub const JOURNAL_AFTER_MS: i64 = 1_000;
/// A cap is near when it leaves less than so many holds of the present size. From there on each hold is written down
/// before it is answered: a commit a request, and a crash then leaves nothing unclear.
const NEAR_HOLDS: i128 = 256;
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
    pub(super) store: MeterStore<S>,
    pub(super) plan: Option<KeyPlan>,
    actor_secrets: Vec<ActorSecret>,
    pub(super) account: Account,
    pub(super) tickets: BTreeMap<RequestId, Ticket>,
    journaled: BTreeSet<RequestId>,
    pub(super) budgets: Budgets,
    /// The last request was admitted near a cap: every hold is written down before it is answered.
    pub(super) near: bool,
    pub(super) heat: Heat,
    admitted: u64,
    /// Sublets that settlements took something out of since they were last written down.
    pub(super) shrunk: BTreeSet<RequestId>,
    /// Spent by settlements of this very transaction, and not written yet.
    unsaved: BTreeMap<[String; 4], Usd>,
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
    /// Budgets that should hear of this Meter.
    pub accounts: Vec<String>,
    /// The call to the Alerts object, where it lacks events.
    pub alerts: Option<AlertsDelivery>,
}

/// One call to an Alerts object.
#[derive(Debug, Serialize)]
pub struct AlertsDelivery {
    /// Its name: the workspace.
    pub workspace: String,
    /// The batch as JSON text.
    pub payload: String,
    /// The sequence number that it has looked at when the call returns.
    pub up_to: u64,
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

/// What an admission carries beside the decision: what it sets aside in shared budgets, and what the loop breaker said.
#[derive(Default)]
struct Shares {
    watched: Option<Watched>,
    charges: Vec<Need>,
    remaining: Option<Usd>,
    downgraded_by: Option<String>,
}

#[derive(Serialize)]
struct Batch<'a> {
    meter: &'a KeyId,
    events: Vec<&'a RawValue>,
}

impl<S: Sql> MeterObject<S> {
    /// Opens the Meter from its storage. What was in flight before a restart is restored or counted as unclear.
    /// `boot` is drawn anew for each opening: it tells this incarnation from the ones before.
    pub fn open(sql: S, ring: &KeyRing, boot: u64, now: Timestamp) -> Result<Self, MeterError> {
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
            budgets: Budgets::default(),
            near: false,
            heat: Heat::default(),
            admitted: 0,
            shrunk: BTreeSet::new(),
            unsaved: BTreeMap::new(),
            next_seq: store.last_seq()? + 1,
            undelivered: store.has_undelivered()?,
            refusals: Refusals::default(),
            loops: Loops::open(&store, now)?,
            store,
        };
        meter.restore_budgets(boot, now)?;
        meter.record_interruption(state.unclear, now)?;
        Ok(meter)
    }

    /// The leases of this incarnation: what it spent is in storage, what it may spend it must hear.
    fn restore_budgets(&mut self, boot: u64, now: Timestamp) -> Result<(), MeterError> {
        self.budgets.wallet = Wallet::restore(boot, [], [], (0, now), now);
        self.tell_unclear(now);
        self.store.forget_old_budget_windows(now)?;
        let is_money = |charge: &&Need| LineKind::of(&charge.line).is_some_and(LineKind::is_money);
        let held: Vec<Need> = self
            .tickets
            .values()
            .flat_map(|t| t.charges.iter().filter(is_money).cloned())
            .collect();
        self.load_leases(held.iter().map(|n| (n.account.as_str(), n.line.as_str())), now)?;
        self.budgets.wallet.place(&held, now);
        if let Some(known) = self.store.expectations()? {
            self.budgets.expectations = serde_json::from_str(&known)?;
        }
        Ok(())
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
        let before = self.plan.as_ref().map(|plan| &plan.budgets);
        let accounts: Vec<String> = self.budgets.wallet.accounts().cloned().collect();
        for account in accounts {
            let name = account_parts(&account).map_or("", |(_, name, _)| name);
            if before.and_then(|budgets| budgets.get(name)) != plan.budgets.get(name) {
                self.budgets.wallet.terms_changed(&account);
            }
        }
        self.plan = Some(plan);
        Ok(())
    }

    /// Decides about a request and places its hold. Where its shared budgets must be asked first, the answer says so;
    /// the request then comes again, with its progress.
    pub fn admit(
        &mut self,
        call: &AdmitCall,
        progress: Progress,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        let Some(plan) = self.plan.take() else {
            // Nothing is stored for a key that nobody issued, so a stranger cannot fill storage with names.
            return Ok(refuse(Refusal::KeyInvalid));
        };
        let answer = self.admit_under(&plan, call, progress, now);
        self.plan = Some(plan);
        answer
    }

    fn admit_under(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        progress: Progress,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        if !authentic(plan, &call.key_sha256, now) {
            self.note_refusal(plan, call, &Actor::default(), &Refusal::KeyInvalid, now);
            return Ok(refuse(Refusal::KeyInvalid));
        }
        let actor = self.actor_of(plan, call.actor_token.as_deref(), now);
        let shelf = Shelf::of(&call.facts.endpoint, now);
        let load = self.account.load(now);
        let draw = call.draw.parse().unwrap_or(0);
        let mut facts = Cow::Borrowed(&call.facts);
        if let Some(downgrade) = &progress.downgrade {
            facts.to_mut().model.clone_from(&downgrade.model);
        }
        let decision = decide(plan, &facts, &actor, &load, &shelf, draw, now);
        let actor = actor.unwrap_or_else(|_| plan.owner.actor.clone());
        let admission = match decision.outcome {
            Ok(admission) => admission,
            Err(refusal) => {
                // A cheaper model that is not to be had is the budget's refusal, not the caller's mistake.
                let first = progress.downgrade.and_then(|downgrade| downgrade.refusal);
                return Ok(self.refused(plan, call, &actor, first.unwrap_or(refusal), now));
            }
        };
        if plan.budgets.is_empty() {
            return self.watch(plan, call, actor, admission, Shares::default(), now);
        }
        let charges = charges_of(plan, &actor, &admission, &self.budgets.expectations, now);
        let needs = needs_of(&charges);
        self.load_leases(needs.iter().map(|n| (n.account.as_str(), n.line.as_str())), now)?;
        let early = match progress.downgrade {
            None => self.budgets.early_downgrade(&charges, now),
            Some(_) => None,
        };
        if let Some(downgrade) = early.filter(|downgrade| downgrade.model != call.facts.model) {
            let progress = Progress { downgrade: Some(downgrade), ..progress };
            return self.admit_under(plan, call, progress, now);
        }
        match self.budgets.verdict(&charges, progress.round, now) {
            Verdict::Covered => {
                let remaining = self.budgets.remaining(&charges, now);
                let downgraded_by = progress.downgrade.map(|downgrade| downgrade.budget);
                let shares = Shares { charges: needs, remaining, downgraded_by, watched: None };
                self.watch(plan, call, actor, admission, shares, now)
            }
            Verdict::Ask(accounts) => {
                let progress = Progress { round: progress.round.saturating_add(1), ..progress };
                Ok(AdmitAnswer::Ask { accounts, progress: serde_json::to_string(&progress)? })
            }
            Verdict::Refused(refused) => match (progress.downgrade, refused.downgrade) {
                (None, Some(downgrade)) if downgrade.model != call.facts.model => {
                    let progress = Progress { round: 0, downgrade: Some(downgrade) };
                    self.admit_under(plan, call, progress, now)
                }
                (first, _) => {
                    let first = first.and_then(|downgrade| downgrade.refusal);
                    let refusal = first.unwrap_or(refused.refusal);
                    Ok(self.refused(plan, call, &actor, refusal, now))
                }
            },
        }
    }

    /// The last word is the loop breaker's: it counts requests that would pass, each once.
    fn watch(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: Actor,
        admission: Admission<'_>,
        shares: Shares,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        match self.loops.check(&self.store, plan, &call.facts, &actor, now)? {
            Ok(watched) => {
                self.place(plan, call, actor, admission, Shares { watched, ..shares }, now)
            }
            Err(refusal) => Ok(self.refused(plan, call, &actor, *refusal, now)),
        }
    }

    fn refused(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: &Actor,
        refusal: Refusal,
        now: Timestamp,
    ) -> AdmitAnswer {
        self.note_refusal(plan, call, actor, &refusal, now);
        AdmitAnswer::Refuse { refusal: Box::new(refusal), limits: self.limits(plan, now) }
    }

    /// Commits an admission: the ceiling first, where it must rise, then the hold and the rate limits in memory.
    fn place(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: Actor,
        admission: Admission<'_>,
        shares: Shares,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        let room = admission.budget_remaining.into_iter().chain(shares.remaining).min();
        let near = room.is_some_and(|room| is_near(room, admission.hold));
        let slack = if near { Some(Usd::ZERO) } else { room };
        if let Some(ceiling) = self.account.raised_ceiling(admission.hold, slack, now) {
            let before = self.account.ceiling();
            self.account.set_ceiling(ceiling);
            if let Err(error) = self.save_state() {
                self.account.set_ceiling(before);
                return Err(error);
            }
        }
        let hold = Hold {
            id: call.id.clone(),
            at: now,
            expires_at: now.plus_ms(HOLD_LIFETIME_MS),
            amount: admission.hold,
            tokens: admission.hold_tokens,
        };
        let learns = admission.targets.first().filter(|_| learns(plan));
        let ticket = Ticket {
            hold,
            endpoint: call.facts.endpoint.clone(),
            stream: call.stream,
            requested_model: call.facts.model.clone(),
            actor,
            labels: call.labels.clone(),
            charges: shares.charges,
            learns: learns.map(|target| target.priced_as.clone()),
            downgraded_by: shares.downgraded_by,
            under: None,
            sublet: None,
            network: call.facts.ip.map(network_of),
            watched: shares.watched,
        };
        if near {
            self.store.remember_ticket(&ticket)?;
            self.journaled.insert(ticket.hold.id.clone());
        }
        self.near = near;
        // After this point the admission must succeed.
        self.account.requests = admission.load.requests;
        self.account.tokens = admission.load.tokens;
        self.account.place(ticket.hold.clone());
        self.budgets.wallet.place(&ticket.charges, now);
        self.tickets.insert(ticket.hold.id.clone(), ticket.clone());
        let hot = self.warm_up(plan, &ticket, now);
        self.admitted += 1;
        let limits = self.limits(plan, now);
        Ok(AdmitAnswer::Admit(Box::new(Admitted {
            hot,
            ticket,
            workspace: plan.workspace.clone(),
            targets: targets_of(admission.targets),
            attempts: admission.route.attempts,
            first_byte_timeout_ms: admission.route.first_byte_timeout_ms,
            idle_timeout_ms: admission.route.idle_timeout_ms,
            set_max_output_tokens: admission.set_max_output_tokens,
            budget_remaining: room,
            limits,
        })))
    }

    /// Settles a request: event, counters and state in the one transaction that surrounds this call. Settling it again
    /// changes nothing. Returns whether this call did it.
    pub fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Result<bool, MeterError> {
        let settled = self.settle_one(settlement, now)?;
        if settled {
            self.finish_settling(now)?;
        }
        Ok(settled)
    }

    fn settle_one(&mut self, settlement: Settlement, now: Timestamp) -> Result<bool, MeterError> {
        let id = &settlement.ticket.hold.id;
        // A hold in memory was not settled; for one that a restart forgot, storage knows.
        if !self.account.holds(id) && self.store.has_event(id)? {
            return Ok(false);
        }
        let under = settlement.ticket.under.is_some().then(|| settlement.ticket.clone());
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
        let mut known = self.account.holds(&hold.id);
        let mut charges = settlement.ticket.charges.clone();
        if let (Some(model), Outcome::Completed) = (&settlement.ticket.learns, settlement.outcome) {
            self.budgets.expectations.learn(model, hold.amount, charged);
            self.budgets.learned = true;
        }
        self.loops.settled(plan, &settlement, charged, now);
        let event = event_of(plan, settlement, charged, now);
        if let Some(ticket) = under {
            (charges, _) = self.take_part(&ticket, now);
            known = true;
            self.account.book(&hold, charged, tokens_used, tokens_per_minute, now);
        } else {
            self.account.settle(&hold, charged, tokens_used, tokens_per_minute, now);
        }
        self.settle_charges(&charges, known, charged, tokens_used, now)?;
        self.tickets.remove(&hold.id);
        if self.journaled.remove(&hold.id) {
            self.store.forget_ticket(&hold.id)?;
        }
        self.write_event(event, charged)?;
        Ok(true)
    }

    /// What settlements write once, however many came together.
    fn finish_settling(&mut self, now: Timestamp) -> Result<(), MeterError> {
        for (windows, charged) in std::mem::take(&mut self.unsaved) {
            self.store.add_spent(&windows, charged)?;
        }
        self.save_charges(now)?;
        self.journal(now)?;
        self.save_shrunk()?;
        if self.near {
            self.account.set_ceiling(self.account.held_at(now));
        }
        self.save_state()
    }

    /// Settles what an isolate admitted by itself, many at a time, and takes back the sublets that it is done with.
    pub fn settle_all(
        &mut self,
        settlements: Vec<Settlement>,
        ended: &[RequestId],
        now: Timestamp,
    ) -> Result<(), MeterError> {
        for settlement in settlements {
            self.settle_one(settlement, now)?;
        }
        for id in ended {
            self.end_sublet(id, now)?;
        }
        self.finish_settling(now)
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
        if std::mem::take(&mut self.budgets.learned) {
            let known = serde_json::to_string(&self.budgets.expectations)?;
            self.store.save_expectations(&known)?;
        }
        let mut wake = self.deliveries()?;
        wake.accounts = self.due_accounts(now);
        wake.alerts = self.alerts_delivery()?;
        Ok(wake)
    }

    fn abandon(&mut self, hold: &Hold, now: Timestamp) -> Result<(), MeterError> {
        let Some(ticket) = self.tickets.get(&hold.id).cloned() else { return Ok(()) };
        if ticket.sublet.is_some() {
            return self.abandon_sublet(&ticket, now);
        }
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
        let Some(plan) = &self.plan else {
            return Ok(Wake { batches: Vec::new(), accounts: Vec::new(), alerts: None });
        };
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
        Ok(Wake { batches, accounts: Vec::new(), alerts: None })
    }

    /// What the Alerts object lacks. Its mark is its own, so that it can be down while the Ledger is not. What it misses
    /// of the kept events is gone for it: alerts are about now.
    fn alerts_delivery(&self) -> Result<Option<AlertsDelivery>, MeterError> {
        let Some(plan) = &self.plan else { return Ok(None) };
        let events = self.store.unalerted(DELIVERY_BATCH)?;
        let Some((up_to, _)) = events.last() else { return Ok(None) };
        let bodies: Result<Vec<&RawValue>, _> =
            events.iter().map(|(_, body)| serde_json::from_str(body)).collect();
        let payload = serde_json::to_string(&Batch { meter: &plan.key, events: bodies? })?;
        Ok(Some(AlertsDelivery { workspace: plan.workspace.to_string(), payload, up_to: *up_to }))
    }

    /// The Alerts object has looked at everything up to this sequence number.
    pub fn alerted(&mut self, up_to: u64) -> Result<(), MeterError> {
        Ok(self.store.set_alerted(up_to)?)
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
        let own = match (delivery, deadline) {
            (Some(delivery), _) => Some(delivery),
            (None, Some(deadline)) => Some(deadline.min(now.plus_ms(JOURNAL_AFTER_MS * 60))),
            (None, None) => idle,
        };
        let report = self.budgets.wallet.next_due(now).map(|at| at.max(now));
        own.into_iter().chain(report).min()
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

    pub(super) fn actor_of(
        &self,
        plan: &KeyPlan,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Actor, ActorError> {
        let token = token.ok_or(ActorError::Missing)?;
        let claimed = actor::verify(token, &self.actor_secrets, now)?;
        Actor::overlay(&plan.owner.actor, claimed)
    }

    /// Keeps a ticket that is written down already.
    pub(super) fn remember_journaled(&mut self, ticket: Ticket) {
        self.journaled.insert(ticket.hold.id.clone());
        self.tickets.insert(ticket.hold.id.clone(), ticket);
    }

    /// Strikes a ticket out, in memory and in storage.
    pub(super) fn forget_ticket(&mut self, id: &RequestId) -> Result<(), MeterError> {
        self.tickets.remove(id);
        if self.journaled.remove(id) {
            self.store.forget_ticket(id)?;
        }
        Ok(())
    }

    pub(super) fn limits(&self, plan: &KeyPlan, now: Timestamp) -> Limits {
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

    pub(super) fn write_event(
        &mut self,
        mut event: UsageEvent,
        charged: Usd,
    ) -> Result<(), MeterError> {
        event.seq = self.next_seq;
        self.store.insert_event(&event)?;
        if charged != Usd::ZERO {
            let keys = WINDOWS.map(|window| window.key(event.at));
            let unsaved = self.unsaved.entry(keys).or_default();
            *unsaved = unsaved.saturating_add(charged);
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

    pub(super) fn save_state(&self) -> Result<(), MeterError> {
        let state = StoredState {
            ceiling: self.account.ceiling(),
            unclear: self.account.unclear().map_or(Usd::ZERO, |unclear| unclear.amount),
            requests: self.account.requests,
            tokens: self.account.tokens,
        };
        Ok(self.store.save_state(&state)?)
    }
}

/// Whether a cap is so near that what a crash leaves unclear could pass it.
fn is_near(room: Usd, hold: Usd) -> bool {
    room.pico() < hold.pico().saturating_mul(NEAR_HOLDS)
}

fn refuse(refusal: Refusal) -> AdmitAnswer {
    AdmitAnswer::Refuse { refusal: Box::new(refusal), limits: Limits::default() }
}

/// Where an admitted request goes, with all that asking there takes.
pub fn targets_of(targets: Vec<Chosen<'_>>) -> Vec<AdmittedTarget> {
    let target = |chosen: Chosen<'_>| AdmittedTarget {
        provider: chosen.provider.name.clone(),
        kind: chosen.provider.kind.clone(),
        base_url: chosen.provider.base_url.clone(),
        credential: chosen.provider.credential.clone(),
        auth_header: chosen.provider.auth_header.clone(),
        api_version: chosen.provider.api_version.clone(),
        region: chosen.provider.region.clone(),
        model: chosen.model,
        price: chosen.price.cloned(),
    };
    targets.into_iter().map(target).collect()
}

/// Whether a hash is that of one of the key's secrets.
pub fn authentic(plan: &KeyPlan, sha256: &str, now: Timestamp) -> bool {
    use subtle::ConstantTimeEq;
    plan.secrets.iter().any(|secret| {
        secret.expires_at.is_none_or(|end| end > now)
            && bool::from(secret.sha256.as_bytes().ct_eq(sha256.as_bytes()))
    })
}

/// The secrets for actor tokens, as far as the ring opens them.
pub fn open_secrets(plan: &KeyPlan, ring: &KeyRing) -> Vec<ActorSecret> {
    let open = |sealed: &tallygate_shared::policy::key_plan::SealedActorSecret| {
        let context = format!("{}/actor/{}", plan.workspace, sealed.kid);
        // A secret that the ring cannot open verifies nothing: its tokens are refused, which is the safe side.
        let secret = ring.open(&sealed.sealed, &context).ok()?;
        Some(ActorSecret::new(&sealed.kid, secret, sealed.expires_at))
    };
    plan.actor_secrets.iter().filter_map(open).collect()
}
