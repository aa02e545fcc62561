//! The Meter: the authority for one gateway key. It authenticates, decides, holds, settles, and keeps the key's usage
//! events until the Ledger has them.
//!
//! In order: `meter_admit`, `meter_settle`, `meter_outbox`; shared budgets are in `meter_budgets` and `meter_sublets`.
//!
//! One admission: authenticate, decide, place the hold in memory. No write, as long as the durable ceiling has room and
//! no cap is near.
//! One settlement: counters, event and state in one transaction. An alarm delivers events and settles what nobody did.
//!
//! What a restart forgets: holds younger than a second and the rate limits' newest state. The ceiling says
//! how much those holds can be; that much counts as held until the longest request is over, and an `interrupted`
//! event says so in the books.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::budget::account::Account;
use tallygate_shared::budget::hold::HOLD_LIFETIME_MS;
use tallygate_shared::budget::lease::wallet::{Need, Wallet};
use tallygate_shared::budget::rate_limit::Gcra;
use tallygate_shared::budget::terms::{LineKind, account_parts};
use tallygate_shared::events::usage_event::Outcome;
use tallygate_shared::identity::actor::{self, Actor, ActorError, ActorSecret};
use tallygate_shared::ids::{KeyId, RequestId};
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::{KeyPlan, KeyStatus};
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;

use crate::objects::meter_admit::authentic;
use crate::objects::meter_budgets::Budgets;
use crate::objects::meter_events::blank_event;
use crate::objects::meter_loops::Loops;
use crate::objects::meter_refusals::Refusals;
use crate::objects::meter_store::{MeterStore, StoredState};
use crate::objects::meter_sublets::Heat;
use crate::objects::sql::{Sql, SqlError};
use crate::request::calls::{LimitState, Limits, Ticket};
use crate::vault::KeyRing;

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
    pub(super) actor_secrets: Vec<ActorSecret>,
    pub(super) account: Account,
    pub(super) tickets: BTreeMap<RequestId, Ticket>,
    pub(super) journaled: BTreeSet<RequestId>,
    pub(super) budgets: Budgets,
    /// The last request was admitted near a cap: every hold is written down before it is answered.
    pub(super) near: bool,
    pub(super) heat: Heat,
    pub(super) admitted: u64,
    /// Sublets that settlements took something out of since they were last written down.
    pub(super) shrunk: BTreeSet<RequestId>,
    /// Spent by settlements of this very transaction, and not written yet.
    pub(super) unsaved: BTreeMap<[String; 4], Usd>,
    pub(super) next_seq: u64,
    pub(super) undelivered: bool,
    /// How many events wait for the Ledger, as the Telemetry object was told last.
    pub(super) told_waiting: u64,
    pub(super) refusals: Refusals,
    pub(super) loops: Loops,
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
            told_waiting: 0,
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
