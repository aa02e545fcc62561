//! One key's money and rate limits, as its Meter keeps them in memory: what is spent, what is held, and the durable
//! ceiling that holds live under. A state machine without clock or storage; the Meter object persists what it says.
//!
//! Architecture invariant: `held <= ceiling` after every call, and the ceiling was made durable before the hold that
//! needs it is answered. So a crash loses holds from memory but never the knowledge of how much they can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::budget::hold::Hold;
use crate::budget::rate_limit::{Gcra, State};
use crate::budget::window::Window;
use crate::ids::RequestId;
use crate::money::Usd;
use crate::time::Timestamp;

/// Every window that spending is counted in, whether or not a cap looks at it: a cap set tomorrow knows today.
pub const WINDOWS: [Window; 4] = [Window::Day, Window::Week, Window::Month, Window::Lifetime];

/// How many holds of the present size the ceiling makes room for when it is raised.
const CEILING_HOLDS: i128 = 32;
/// The share of what a cap leaves that a raise may take beyond need: 1/8. A crash strands no more than that, and only
/// until the longest request is over.
const CEILING_SHARE: i128 = 8;

/// The counters that a decision looks at. A copy: the decision returns the new ones and commits nothing. A refusal's
/// event keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Requests per minute.
    pub requests: State,
    /// Tokens per minute.
    pub tokens: State,
    /// Requests in flight.
    pub in_flight: u64,
    /// Money set aside, including what a restart left unclear.
    pub held: Usd,
    /// Money spent in the present windows.
    pub spent: Vec<(Window, Usd)>,
}

impl Load {
    /// What is spent in the present window of this kind.
    pub fn spent_in(&self, window: Window) -> Usd {
        self.spent.iter().find(|(w, _)| *w == window).map_or(Usd::ZERO, |(_, usd)| *usd)
    }
}

/// Money that may be in flight since before a restart, and until when it counts as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear {
    /// At most this much.
    pub amount: Usd,
    /// Every request from before the restart has ended by then.
    pub until: Timestamp,
}

/// A key's account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    spent: BTreeMap<String, Usd>,
    holds: BTreeMap<RequestId, Hold>,
    held: Usd,
    ceiling: Usd,
    unclear: Option<Unclear>,
    /// Requests per minute.
    pub requests: State,
    /// Tokens per minute.
    pub tokens: State,
}

impl Account {
    /// An account as storage remembers it: the present windows' spending, the holds that were written down, and the
    /// ceiling. What the ceiling allowed beyond those holds counts as held until `unclear_until`.
    pub fn restore(
        spent: impl IntoIterator<Item = (String, Usd)>,
        holds: impl IntoIterator<Item = Hold>,
        ceiling: Usd,
        unclear_until: Timestamp,
    ) -> Self {
        let mut account = Self { spent: spent.into_iter().collect(), ceiling, ..Self::default() };
        for hold in holds {
            account.place(hold);
        }
        let amount = ceiling.remaining_after(account.held);
        if amount > Usd::ZERO {
            account.unclear = Some(Unclear { amount, until: unclear_until });
        }
        account
    }

    /// The counters for a decision at `now`.
    pub fn load(&self, now: Timestamp) -> Load {
        let spent = |window: &Window| {
            (*window, self.spent.get(&window.key(now)).copied().unwrap_or(Usd::ZERO))
        };
        Load {
            requests: self.requests,
            tokens: self.tokens,
            in_flight: u64::try_from(self.holds.len()).unwrap_or(u64::MAX),
            held: self.held_at(now),
            spent: WINDOWS.iter().map(spent).collect(),
        }
    }

    /// Money set aside at `now`: the holds, and what a restart left unclear.
    pub fn held_at(&self, now: Timestamp) -> Usd {
        let unclear = self.unclear.filter(|u| u.until > now).map_or(Usd::ZERO, |u| u.amount);
        self.held.saturating_add(unclear)
    }

    /// The ceiling that must be durable before a hold of `amount` is placed, if it is not high enough. `room` is the
    /// least that any cap leaves after the hold; without caps there is no such limit.
    pub fn raised_ceiling(&self, amount: Usd, room: Option<Usd>, now: Timestamp) -> Option<Usd> {
        let needed = self.held_at(now).saturating_add(amount);
        if needed <= self.ceiling {
            return None;
        }
        let beyond = Usd::from_pico(amount.pico().saturating_mul(CEILING_HOLDS));
        let share = room.map(|room| Usd::from_pico(room.pico() / CEILING_SHARE));
        let raised = needed.saturating_add(share.map_or(beyond, |share| share.min(beyond)));
        // Durable money is whole nanodollars; a raise rounds up, so that it still covers the need.
        Some(Usd::from_pico(raised.pico().saturating_add(999)).round_down_to_nanos())
    }

    /// The durable ceiling.
    pub fn ceiling(&self) -> Usd {
        self.ceiling
    }

    /// Records a ceiling that is durable now.
    pub fn set_ceiling(&mut self, ceiling: Usd) {
        self.ceiling = ceiling;
    }

    /// What a restart left unclear, if it still counts.
    pub fn unclear(&self) -> Option<Unclear> {
        self.unclear
    }

    /// Lets go of what a restart left unclear, once its time is over.
    pub fn forget_unclear(&mut self, now: Timestamp) {
        self.unclear = self.unclear.filter(|u| u.until > now);
    }

    /// Places a hold. Placing the same id again changes nothing.
    pub fn place(&mut self, hold: Hold) {
        if !self.holds.contains_key(&hold.id) {
            self.held = self.held.saturating_add(hold.amount);
            self.holds.insert(hold.id.clone(), hold);
        }
    }

    /// Takes a part out of a hold that many requests share.
    pub fn shrink(&mut self, id: &RequestId, amount: Usd) {
        if let Some(hold) = self.holds.get_mut(id) {
            let part = amount.min(hold.amount);
            hold.amount = hold.amount.remaining_after(part);
            self.held = self.held.remaining_after(part);
        }
    }

    /// Lets go of a hold, whatever is left of it.
    pub fn release(&mut self, id: &RequestId) {
        if let Some(hold) = self.holds.remove(id) {
            self.held = self.held.remaining_after(hold.amount);
        }
    }

    /// Whether this request is in flight, as far as memory knows.
    pub fn holds(&self, id: &RequestId) -> bool {
        self.holds.contains_key(id)
    }

    /// Every hold in flight.
    pub fn open_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Holds whose time is over.
    pub fn expired(&self, now: Timestamp) -> Vec<Hold> {
        self.holds.values().filter(|hold| hold.expires_at <= now).cloned().collect()
    }

    /// When the next hold expires or the unclear money is let go.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let holds = self.holds.values().map(|hold| hold.expires_at).min();
        holds.into_iter().chain(self.unclear.map(|u| u.until)).min()
    }

    /// Nothing is set aside, in memory or from before a restart.
    pub fn is_idle(&self) -> bool {
        self.holds.is_empty() && self.unclear.is_none()
    }

    /// Settles `hold` at `charged`, counted in the windows of the time it was admitted, and trues up the
    /// tokens: what was reserved and not used is given back, what was used beyond is counted. The caller has made sure that it was not settled before; it may be a hold
    /// that a restart has forgotten, which then leaves the unclear money.
    pub fn settle(
        &mut self,
        hold: &Hold,
        charged: Usd,
        tokens_used: Option<u64>,
        tokens_per_minute: Option<u64>,
        now: Timestamp,
    ) {
        match self.holds.remove(&hold.id) {
            Some(stored) => self.held = self.held.remaining_after(stored.amount),
            None => {
                if let Some(unclear) = &mut self.unclear {
                    unclear.amount = unclear.amount.remaining_after(hold.amount);
                }
            }
        }
        self.book(hold, charged, tokens_used, tokens_per_minute, now);
    }

    /// Counts what a request cost whose hold is dealt with already: in the windows of the time it was admitted, and the
    /// tokens that it used against those that it had reserved.
    pub fn book(
        &mut self,
        hold: &Hold,
        charged: Usd,
        tokens_used: Option<u64>,
        tokens_per_minute: Option<u64>,
        now: Timestamp,
    ) {
        for window in WINDOWS {
            let spent = self.spent.entry(window.key(hold.at)).or_default();
            *spent = spent.saturating_add(charged);
        }
        self.drop_old_windows(now);
        if let (Some(limit), Some(used)) = (tokens_per_minute, tokens_used) {
            let gcra = Gcra { limit, period_ms: 60_000 };
            self.tokens = match hold.tokens.checked_sub(used) {
                Some(unused) => gcra.refund(&self.tokens, unused, now),
                None => gcra.charge(&self.tokens, used.saturating_sub(hold.tokens), now),
            };
        }
    }

    /// Storage keeps every window; memory needs the present ones and those that open holds fall into.
    fn drop_old_windows(&mut self, now: Timestamp) {
        const KEPT: usize = 32;
        if self.spent.len() > KEPT {
            let current: Vec<String> = WINDOWS.iter().map(|w| w.key(now)).collect();
            self.spent.retain(|key, _| current.contains(key));
        }
    }
}
