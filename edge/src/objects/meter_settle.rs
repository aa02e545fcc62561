//! Settlement at the Meter: event, counters and state in the one transaction that surrounds the call.

use tallygate_shared::budget::account::WINDOWS;
use tallygate_shared::budget::hold::{Hold, charge};
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::Usage;

use super::meter_events::event_of;
use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::request::calls::{Settlement, Ticket};

/// A hold older than this is written down with the next commit, so that a restart knows it one by one.
pub const JOURNAL_AFTER_MS: i64 = 1_000;

impl<S: Sql> MeterObject<S> {
    /// Settles a request: event, counters and state in the one transaction that surrounds this call. Settling it again
    /// changes nothing. Returns whether this call did it.
    pub fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Result<bool, MeterError> {
        let settled = self.settle_one(settlement, now)?;
        if settled {
            self.finish_settling(now)?;
        }
        Ok(settled)
    }

    pub(super) fn settle_one(
        &mut self,
        settlement: Settlement,
        now: Timestamp,
    ) -> Result<bool, MeterError> {
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
    pub(super) fn finish_settling(&mut self, now: Timestamp) -> Result<(), MeterError> {
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

    pub(super) fn abandon(&mut self, hold: &Hold, now: Timestamp) -> Result<(), MeterError> {
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

    pub(super) fn flush_refusals(&mut self) -> Result<(), MeterError> {
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
    pub(super) fn journal(&mut self, now: Timestamp) -> Result<(), MeterError> {
        let old = |ticket: &&Ticket| now.since_ms(ticket.hold.at) >= JOURNAL_AFTER_MS;
        for ticket in self.tickets.values().filter(old) {
            if self.journaled.insert(ticket.hold.id.clone()) {
                self.store.remember_ticket(ticket)?;
            }
        }
        Ok(())
    }
}
