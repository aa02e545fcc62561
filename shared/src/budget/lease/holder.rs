//! A holder's side of a line: what it may spend, what it holds, and what it must say about it.

#[cfg(test)]
use super::mutants::{Mutant, is_active};
use super::{Grant, LEASE_MS, Report, Standing, Units};
use crate::time::Timestamp;

/// How long spending may go unreported. Thresholds and dashboards are behind by that much at most.
const REPORT_AFTER_MS: i64 = 30_000;
/// Spending that is reported within a second: 1/128 of the limit, so that a fast burn is seen as it happens.
const REPORT_SHARE: Units = 128;
/// Unused money goes back after this time without a request.
const IDLE_MS: i64 = 60_000;

/// A holder's lease on one line.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    boot: u64,
    version: u64,
    authorised: Units,
    spent: Units,
    held: Units,
    unclear: Units,
    unclear_until: Timestamp,
    quota: Units,
    expires_at: Timestamp,
    standing: Standing,
    unit: Units,
    demand: Units,
    least: Units,
    reported_spent: Units,
    reported_at: Timestamp,
    used_at: Timestamp,
}

impl Lease {
    /// A lease of a new incarnation: it knows what it spent and what it holds, and must hear what it may.
    pub fn new(boot: u64, spent: Units, held: Units, now: Timestamp) -> Self {
        Self { boot, spent, held, reported_at: now, used_at: now, ..Self::default() }
    }

    /// What may be set aside now without a call.
    pub fn free(&self, now: Timestamp) -> Units {
        if self.is_open(now) { self.loose(now) } else { 0 }
    }

    /// Whether the lease is live: heard of, and not run out.
    pub fn is_open(&self, now: Timestamp) -> bool {
        // A clock that steps back must not make a lease live longer than it was granted for.
        self.version > 0 && now < self.expires_at && self.expires_at.since_ms(now) <= LEASE_MS
    }

    fn loose(&self, now: Timestamp) -> Units {
        self.authorised.saturating_sub(self.spent).saturating_sub(self.keep(now)).max(0)
    }

    /// What requests in flight have set aside, and what a restart left unclear.
    pub fn keep(&self, now: Timestamp) -> Units {
        let unclear = if now < self.unclear_until { self.unclear } else { 0 };
        self.held.saturating_add(unclear)
    }

    /// What this holder spent of the line.
    pub fn spent(&self) -> Units {
        self.spent
    }

    /// The line as the Budget last described it.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The version last heard of.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Sets `units` aside. The caller has looked at [`Lease::free`].
    pub fn place(&mut self, units: Units, now: Timestamp) {
        self.held = self.held.saturating_add(units);
        self.unit = units;
        self.used_at = now;
    }

    /// A request is over: what was set aside is free again, and what it cost is spent. `known`: this incarnation placed
    /// or restored the hold; otherwise it is one of those that a restart left unclear.
    pub fn settle(&mut self, units: Units, cost: Units, known: bool) {
        if known {
            self.held = self.held.saturating_sub(units).max(0);
        } else {
            self.unclear = self.unclear.saturating_sub(units).max(0);
        }
        self.spent = self.spent.saturating_add(cost);
    }

    /// A request waits for `units` of this line.
    pub fn wait(&mut self, units: Units) {
        self.demand = self.demand.saturating_add(units);
        self.least = if self.least > 0 { self.least.min(units) } else { units };
    }

    /// Nobody waits any more; who still does says so again.
    pub fn forget_waiting(&mut self) {
        (self.demand, self.least) = (0, 0);
    }

    /// The holder's word to the Budget. It binds: afterwards no more is set aside than it says.
    pub fn report(&mut self, now: Timestamp) -> Report {
        let in_use = self.spent.saturating_add(self.keep(now));
        let is_idle = now.since_ms(self.used_at) >= IDLE_MS || self.used_at > now;
        let may_keep = if is_idle { 0 } else { self.quota };
        let over = self.loose(now) > may_keep.saturating_mul(2) || is_idle;
        let promised = if !self.is_open(now) {
            // Nothing can be set aside before the next grant, which may be under other terms: all of it is asked for anew.
            in_use.min(self.authorised)
        } else if over && self.demand == 0 {
            in_use.saturating_add(may_keep).min(self.authorised)
        } else {
            self.authorised
        };
        self.bind(promised, in_use, now)
    }

    /// Gives back all that no request in flight needs.
    pub fn give_back(&mut self, now: Timestamp) -> Report {
        let in_use = self.spent.saturating_add(self.keep(now));
        let promised = in_use.min(self.authorised);
        // Who waits here asks for itself.
        Report { demand: 0, ..self.bind(promised, in_use, now) }
    }

    fn bind(&mut self, promised: Units, in_use: Units, now: Timestamp) -> Report {
        // A holder that has not heard yet knows of no limit that it could promise to keep.
        let limit = if self.version == 0 { Units::MAX } else { promised };
        #[cfg(not(test))]
        let binds = true;
        #[cfg(test)]
        let binds = !is_active(Mutant::PromiseNotKept);
        if binds {
            self.authorised = promised;
        }
        (self.reported_spent, self.reported_at) = (self.spent, now);
        Report {
            boot: self.boot,
            version: self.version,
            spent: self.spent,
            keep: in_use.saturating_sub(self.spent),
            demand: self.demand,
            unit: if self.least > 0 { self.least } else { self.unit },
            limit,
        }
    }

    /// Takes a grant in; false when it says nothing new. `unclear` is what holds from before a restart may amount to, and
    /// until when: it counts with the first grant that an incarnation hears.
    pub fn granted(&mut self, grant: &Grant, unclear: (Units, Timestamp), now: Timestamp) -> bool {
        let own = grant.boot == self.boot;
        #[cfg(test)]
        let own = own || is_active(Mutant::OldGrantBelieved);
        let newer = grant.version > self.version;
        #[cfg(test)]
        let newer = newer || is_active(Mutant::OldGrantBelieved);
        if !own || !newer {
            return false;
        }
        if self.version == 0 {
            let unknown = grant.authorised.saturating_sub(self.spent).saturating_sub(self.held);
            (self.unclear, self.unclear_until) = (unclear.0.min(unknown.max(0)), unclear.1);
            #[cfg(test)]
            if is_active(Mutant::CeilingForgotten) {
                self.unclear = 0;
            }
        }
        self.version = grant.version;
        self.authorised = grant.authorised;
        self.quota = grant.quota;
        self.standing = grant.standing;
        self.expires_at = now.plus_ms(LEASE_MS);
        true
    }

    /// The budget's terms have changed: nothing more is set aside under the old ones.
    pub fn terms_changed(&mut self) {
        self.expires_at = Timestamp::from_ms(i64::MIN);
    }

    /// When the holder should report next, if it should. The Budget must hear of spending, and of money that is not used.
    pub fn report_at(&self, now: Timestamp) -> Option<Timestamp> {
        let unreported = self.spent.saturating_sub(self.reported_spent);
        let fast = unreported > 0 && unreported >= self.standing.limit / REPORT_SHARE;
        let over = self.loose(now) > self.quota.saturating_mul(2);
        // A clock that stepped back behind the last report cannot tell how long ago that was: report.
        let past = |at: Timestamp| if at > now { Timestamp::from_ms(0) } else { at };
        let (reported_at, used_at) = (past(self.reported_at), past(self.used_at));
        let at = if fast || over {
            reported_at.plus_ms(1_000)
        } else if unreported > 0 {
            reported_at.plus_ms(REPORT_AFTER_MS)
        } else if self.loose(now) > 0 {
            used_at.plus_ms(IDLE_MS)
        } else if self.unclear > 0 && self.unclear_until > now {
            self.unclear_until
        } else {
            return None;
        };
        Some(at)
    }

    /// Nothing is held, nobody waits, nothing is left to be said, nothing is leased, and that for a while: the lease may be
    /// forgotten.
    pub fn is_done(&self, now: Timestamp) -> bool {
        now.since_ms(self.used_at.max(self.reported_at)) >= IDLE_MS
            && self.held == 0
            && self.unclear == 0
            && self.demand == 0
            && self.spent == self.reported_spent
            && self.authorised <= self.spent
    }

    /// What was spent since the Budget last heard of it.
    pub fn unreported(&self) -> Units {
        self.spent.saturating_sub(self.reported_spent)
    }

    /// Money that the Budget does not know to be spent yet.
    pub fn is_unreported(&self) -> bool {
        self.spent != self.reported_spent
    }
}
