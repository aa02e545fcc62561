//! Isolate leases: a Meter sublets a part of its key's limits to a Worker isolate for two seconds, so that the isolate
//! admits a hot key's requests without a call and settles them in batches.
//!
//! A sublet is one large hold, written down when it is granted. Each settlement under it takes its part out; the isolate
//! gives the rest back when it is done, and an alarm takes back what an isolate that vanished left, when the longest
//! request is over. What such an isolate may have served without telling is stated by an `interrupted` event.
//!
//! Only far from every limit: a sublet takes at most 1/16 of what any limit leaves. Never for a key that asks for
//! `immediate` revocation, has slots to keep, or belongs to an agent, whose loops only the Meter sees.

use serde::{Deserialize, Serialize};
use tallygate_shared::budget::account::Load;
use tallygate_shared::budget::hold::Hold;
use tallygate_shared::budget::lease::sublease::{SUBLEASE_MS, Sublet};
use tallygate_shared::budget::lease::wallet::Need;
use tallygate_shared::budget::lease::{Units, money_units};
use tallygate_shared::budget::loop_breaker::rules::Watch;
use tallygate_shared::budget::rate_limit::{Gcra, State as RateState, Verdict};
use tallygate_shared::budget::window::Window;
use tallygate_shared::events::usage_event::Outcome;
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::time::Timestamp;

use super::meter_events::blank_event;
use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::request::calls::{Limits, Ticket};

/// Requests that one sublet pays for, at most.
const MOST_REQUESTS: i64 = 4_096;
/// Fewer are not worth a call.
const FEWEST_REQUESTS: i64 = 8;
/// A sublet takes this part of what a limit leaves, at most.
const SHARE: i64 = 16;
/// A key is hot from so many requests a second on.
const HOT: u32 = 10;

/// The line of the key's own money in a sublease.
pub const OWN_MONEY: &str = "usd";
/// The line of the key's own requests per minute.
pub const OWN_REQUESTS: &str = "requests";
/// The line of the key's own tokens per minute.
pub const OWN_TOKENS: &str = "tokens";

/// What an isolate gets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The sublet's name.
    pub id: RequestId,
    /// What may be taken. The key's own lines have an empty account.
    pub left: Vec<Need>,
    /// What the key has spent, for the decision.
    pub spent: Vec<(Window, Usd)>,
    /// What it holds.
    pub held: Usd,
    /// The rate limits, for the answers' headers.
    pub limits: Limits,
    /// The plan's version.
    pub version: u64,
    /// The plan, where the isolate has another one.
    pub plan: Option<KeyPlan>,
}

/// How busy a key is, and what its requests are like.
#[derive(Debug, Default)]
pub(super) struct Heat {
    second: i64,
    count: u32,
    before: u32,
    typical: Option<Typical>,
}

/// The last request that a sublet could have covered.
#[derive(Clone, Debug)]
struct Typical {
    amount: Usd,
    tokens: u64,
    charges: Vec<Need>,
}

impl Heat {
    /// Counts a request.
    pub(super) fn note(&mut self, now: Timestamp) {
        let second = now.seconds();
        if second != self.second {
            self.before = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
    }

    /// About as many requests as come while a sublease lasts.
    fn soon(&self) -> i64 {
        let seconds = SUBLEASE_MS / 1_000 + 1;
        i64::from(self.count.max(self.before)).saturating_mul(seconds)
    }

    fn is_hot(&self) -> bool {
        self.count.max(self.before) >= HOT
    }
}

/// Whether a key's plan lets isolates admit at all.
fn may_sublet(plan: &KeyPlan) -> bool {
    let policy = &plan.policy;
    let actor = &plan.owner.actor;
    !policy.immediate
        && policy.loop_breaker.watch == Watch::Session
        && policy.max_concurrency.is_none()
        && actor.agent.is_none()
        && actor.session.is_none()
        && plan.budgets.values().all(|terms| terms.max_concurrency.is_none())
}

impl<S: Sql> MeterObject<S> {
    /// Notes an admitted request; says whether its isolate should ask for a sublet.
    pub(super) fn warm_up(&mut self, plan: &KeyPlan, ticket: &Ticket, now: Timestamp) -> bool {
        self.heat.note(now);
        if !may_sublet(plan) || ticket.hold.amount == Usd::ZERO {
            return false;
        }
        self.heat.typical = Some(Typical {
            amount: ticket.hold.amount,
            tokens: ticket.hold.tokens,
            charges: ticket.charges.clone(),
        });
        !self.near && self.heat.is_hot()
    }

    /// A sublet, where there is plenty. `known` is the version of the plan that the isolate has.
    pub fn offer(
        &mut self,
        known: u64,
        seed: [u8; 10],
        now: Timestamp,
    ) -> Result<Option<Offer>, MeterError> {
        let Some(plan) = self.plan.clone().filter(may_sublet) else { return Ok(None) };
        let Some(typical) = self.heat.typical.clone().filter(|_| self.heat.is_hot() && !self.near)
        else {
            return Ok(None);
        };
        let load = self.account.load(now);
        let requests = self.requests_to_sublet(&plan, &typical, &load, now);
        if requests < FEWEST_REQUESTS {
            return Ok(None);
        }
        let times = |units: Units| units.saturating_mul(requests);
        let count = u64::try_from(requests).unwrap_or(0);
        let amount = Usd::from_pico(typical.amount.pico().saturating_mul(i128::from(requests)));
        let tokens = typical.tokens.saturating_mul(count);
        let charges: Vec<Need> = typical
            .charges
            .iter()
            .map(|need| Need { units: times(need.units), ..need.clone() })
            .collect();
        // Durable before it is answered, and after this point it must succeed.
        let at = now;
        let sublet = Sublet::new(String::new(), Vec::new(), now);
        let hold = Hold {
            id: RequestId::mint(now, &seed),
            at,
            expires_at: sublet.ends_at,
            amount,
            tokens,
        };
        let ticket = Ticket::of_sublet(hold, charges.clone(), count);
        if let Some(ceiling) = self.account.raised_ceiling(amount, Some(Usd::ZERO), now) {
            self.account.set_ceiling(ceiling);
        }
        self.store.remember_ticket(&ticket)?;
        self.take_rates(&plan, count, tokens, now);
        self.account.place(ticket.hold.clone());
        self.budgets.wallet.place(&charges, now);
        self.remember_journaled(ticket.clone());
        self.save_state()?;
        let own = |line: &str, units: Units| Need {
            account: String::new(),
            line: line.to_owned(),
            units,
        };
        let mut left = vec![
            own(OWN_MONEY, money_units(amount)),
            own(OWN_REQUESTS, requests),
            own(OWN_TOKENS, Units::try_from(tokens).unwrap_or(Units::MAX)),
        ];
        left.extend(charges);
        Ok(Some(Offer {
            id: ticket.hold.id,
            left,
            spent: load.spent,
            held: load.held.saturating_add(amount),
            limits: self.limits(&plan, now),
            version: plan.version,
            plan: (plan.version != known).then_some(plan),
        }))
    }

    /// How many typical requests are at most 1/16 of what every limit leaves.
    fn requests_to_sublet(
        &self,
        plan: &KeyPlan,
        typical: &Typical,
        load: &Load,
        now: Timestamp,
    ) -> i64 {
        let part = |left: i128, unit: i128| {
            i64::try_from(left / i128::from(SHARE) / unit.max(1)).unwrap_or(i64::MAX)
        };
        let caps = plan.policy.spend_caps.iter().map(|cap| {
            let taken = load.spent_in(cap.window).saturating_add(load.held);
            part(cap.limit_usd.remaining_after(taken).pico(), typical.amount.pico())
        });
        let rate = |limit: Option<u64>, state, unit: u64| {
            let gcra = Gcra { limit: limit?, period_ms: 60_000 };
            Some(part(i128::from(gcra.remaining(state, now)), i128::from(unit)))
        };
        let rates = [
            rate(plan.policy.requests_per_minute, &load.requests, 1),
            rate(plan.policy.tokens_per_minute, &load.tokens, typical.tokens),
        ];
        // What is leased already may go down by half: the rest serves requests that come here.
        let leases = typical.charges.iter().map(|need| {
            let lease = self.budgets.wallet.get(&need.account, &need.line);
            let free = lease.map_or(0, |lease| lease.free(now));
            free / 2 / need.units.max(1)
        });
        let all = caps.chain(rates.into_iter().flatten()).chain(leases);
        all.chain([self.heat.soon(), MOST_REQUESTS]).min().unwrap_or(0)
    }

    fn take_rates(&mut self, plan: &KeyPlan, requests: u64, tokens: u64, now: Timestamp) {
        let take = |limit: Option<u64>, state: RateState, cost| {
            let gcra = Gcra { limit: limit?, period_ms: 60_000 };
            match gcra.check(&state, cost, now) {
                Verdict::Ok(state) => Some(state),
                Verdict::Limited { .. } => None,
            }
        };
        let policy = &plan.policy;
        if let Some(state) = take(policy.requests_per_minute, self.account.requests, requests) {
            self.account.requests = state;
        }
        if let Some(state) = take(policy.tokens_per_minute, self.account.tokens, tokens) {
            self.account.tokens = state;
        }
    }

    /// Takes a request's part out of the sublet that it was admitted under. Returns the charges to settle, and whether
    /// the sublet was there.
    pub(super) fn take_part(&mut self, ticket: &Ticket, now: Timestamp) -> (Vec<Need>, bool) {
        self.heat.note(now);
        let found = ticket.under.as_ref().and_then(|id| self.tickets.get_mut(id));
        let Some(sublet) = found else {
            // Its time is over: what the request cost is spent all the same.
            let nothing = |need: &Need| Need { units: 0, ..need.clone() };
            return (ticket.charges.iter().map(nothing).collect(), false);
        };
        let amount = ticket.hold.amount.min(sublet.hold.amount);
        sublet.hold.amount = sublet.hold.amount.remaining_after(amount);
        sublet.hold.tokens = sublet.hold.tokens.saturating_sub(ticket.hold.tokens);
        sublet.sublet = sublet.sublet.map(|requests| requests.saturating_sub(1));
        let mut parts = Vec::with_capacity(ticket.charges.len());
        for charge in &ticket.charges {
            let same =
                |left: &&mut Need| left.account == charge.account && left.line == charge.line;
            let Some(left) = sublet.charges.iter_mut().find(same) else { continue };
            let units = charge.units.min(left.units);
            left.units -= units;
            parts.push(Need { units, ..charge.clone() });
        }
        let id = sublet.hold.id.clone();
        self.account.shrink(&id, amount);
        self.shrunk.insert(id);
        (parts, true)
    }

    /// Writes the sublets down that settlements took something out of, once for a batch.
    pub(super) fn save_shrunk(&mut self) -> Result<(), MeterError> {
        for id in std::mem::take(&mut self.shrunk) {
            if let Some(ticket) = self.tickets.get(&id) {
                self.store.remember_ticket(ticket)?;
            }
        }
        Ok(())
    }

    /// Takes back what is left of a sublet. A second time there is nothing.
    pub fn end_sublet(&mut self, id: &RequestId, now: Timestamp) -> Result<(), MeterError> {
        let Some(ticket) = self.tickets.get(id).filter(|ticket| ticket.sublet.is_some()).cloned()
        else {
            return Ok(());
        };
        self.close(&ticket, now)
    }

    /// A sublet whose isolate never said that it was done.
    pub(super) fn abandon_sublet(
        &mut self,
        ticket: &Ticket,
        now: Timestamp,
    ) -> Result<(), MeterError> {
        if let (Some(plan), true) = (self.plan.clone(), ticket.hold.amount > Usd::ZERO) {
            let mut event =
                blank_event(&plan, ticket.hold.id.clone(), &RequestFacts::default(), now);
            event.outcome = Outcome::Interrupted;
            event.code = Some("isolate_vanished".to_owned());
            event.hold = ticket.hold.amount;
            self.write_event(event, Usd::ZERO)?;
        }
        self.close(ticket, now)
    }

    fn close(&mut self, ticket: &Ticket, now: Timestamp) -> Result<(), MeterError> {
        let plan_limits = self
            .plan
            .as_ref()
            .map(|plan| (plan.policy.requests_per_minute, plan.policy.tokens_per_minute));
        let (requests_limit, tokens_limit) = plan_limits.unwrap_or_default();
        let refund = |limit: Option<u64>, state: RateState, unused| {
            limit.map(|limit| Gcra { limit, period_ms: 60_000 }.refund(&state, unused, now))
        };
        let unused = ticket.sublet.unwrap_or(0);
        if let Some(state) = refund(requests_limit, self.account.requests, unused) {
            self.account.requests = state;
        }
        if let Some(state) = refund(tokens_limit, self.account.tokens, ticket.hold.tokens) {
            self.account.tokens = state;
        }
        self.account.shrink(&ticket.hold.id, ticket.hold.amount);
        self.account.release(&ticket.hold.id);
        // What was taken ahead at a rate and not used lies with this Meter's lease again.
        self.load_leases(ticket.charges.iter().map(|c| (&*c.account, &*c.line)), now)?;
        self.budgets.wallet.settle(&ticket.charges, true, now, |_| 0);
        self.forget_ticket(&ticket.hold.id)
    }
}
