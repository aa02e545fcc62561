//! The machines of the simulation: what each has in memory, and what it has on disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::budget::hold::HOLD_LIFETIME_MS;
use crate::budget::lease::mutants::{Mutant, is_active};
use crate::budget::lease::sublease::{Sublease, Sublet};
use crate::budget::lease::wallet::{Need, Remembered, Wallet};
use crate::budget::lease::{Grant, Grantor, Outcome, Pool, Report, Share, Units};
use crate::budget::rate_limit::State as RateState;
use crate::time::Timestamp;

/// How many holds of the present size the ceiling makes room for: as a Meter does it.
const CEILING_HOLDS: Units = 8;

/// One Budget.
#[derive(Default)]
pub(crate) struct BudgetNode {
    pub(crate) cap: Units,
    pub(crate) disk: BTreeMap<String, BTreeMap<String, Share>>,
    memory: BTreeMap<String, Grantor>,
}

impl BudgetNode {
    pub(crate) fn line(&mut self, line: &str) -> &mut Grantor {
        let disk = &self.disk;
        self.memory.entry(line.to_owned()).or_insert_with(|| {
            let shares = disk.get(line).cloned().unwrap_or_default();
            Grantor::restore(shares, RateState::default(), 0)
        })
    }

    pub(crate) fn report(
        &mut self,
        line: &str,
        holder: &str,
        report: &Report,
        now: Timestamp,
    ) -> Outcome {
        let pool = Pool::Cap { limit: self.cap };
        let outcome = self.line(line).report(holder, report, pool, now);
        let share = self.line(line).share(holder);
        if !is_active(Mutant::GrantNotDurable) {
            self.disk.entry(line.to_owned()).or_default().insert(holder.to_owned(), share);
        }
        outcome
    }

    pub(crate) fn restart(&mut self) {
        self.memory.clear();
    }
}

/// One Meter.
pub(crate) struct MeterNode {
    pub(crate) wallet: Wallet,
    /// Requests in flight, as far as memory knows: what each set aside, and when.
    pub(crate) holds: BTreeMap<u64, (Vec<Need>, Timestamp)>,
    held: Units,
    unclear: (Units, Timestamp),
    pub(crate) waiting: Vec<(u64, Vec<Need>)>,
    pub(crate) clock_ms: i64,
    // What is on disk.
    pub(crate) spent: BTreeMap<(String, String), Units>,
    pub(crate) settled: BTreeSet<u64>,
    pub(crate) sublets: BTreeMap<String, Sublet>,
    ceiling: Units,
}

impl MeterNode {
    pub(crate) fn new(boot: u64) -> Self {
        let zero = Timestamp::from_ms(0);
        Self {
            wallet: Wallet::restore(boot, [], [], (0, zero), zero),
            holds: BTreeMap::new(),
            held: 0,
            unclear: (0, zero),
            waiting: Vec::new(),
            clock_ms: 0,
            spent: BTreeMap::new(),
            settled: BTreeSet::new(),
            sublets: BTreeMap::new(),
            ceiling: 0,
        }
    }

    /// Loads leases that memory let go of, before they are used.
    pub(crate) fn load(&mut self, needs: &[Need], now: Timestamp) {
        for need in needs {
            if self.wallet.get(&need.account, &need.line).is_none() {
                let (account, line) = (need.account.clone(), need.line.clone());
                let spent = self.spent.get(&(account.clone(), line.clone())).copied().unwrap_or(0);
                self.wallet.remember(Remembered { account, line, spent }, now);
            }
        }
    }

    fn held_at(&self, now: Timestamp) -> Units {
        self.held + if now < self.unclear.1 { self.unclear.0 } else { 0 }
    }

    /// Sets aside, under a ceiling that is durable first.
    pub(crate) fn place(&mut self, id: u64, needs: Vec<Need>, now: Timestamp) {
        let units = needs.first().map_or(0, |need| need.units);
        if self.held_at(now) + units > self.ceiling {
            self.ceiling = self.held_at(now) + units + units * CEILING_HOLDS;
        }
        self.held += units;
        self.wallet.place(&needs, now);
        self.holds.insert(id, (needs, now));
    }

    /// Books a settlement once. False when it was booked before.
    pub(crate) fn settle(&mut self, id: u64, needs: &[Need], cost: Units, now: Timestamp) -> bool {
        if !is_active(Mutant::SettledTwice) && self.settled.contains(&id) {
            return false;
        }
        self.settled.insert(id);
        self.load(needs, now);
        let known = self.holds.remove(&id).is_some();
        let units = needs.first().map_or(0, |need| need.units);
        if known {
            self.held -= units;
        } else {
            self.unclear.0 = (self.unclear.0 - units).max(0);
        }
        self.wallet.settle(needs, known, now, |_| cost);
        self.book(needs, cost);
        true
    }

    /// Books what an isolate settled under its sublease.
    pub(crate) fn settle_sublet(
        &mut self,
        sublet: &str,
        id: u64,
        needs: &[Need],
        cost: Units,
        now: Timestamp,
    ) -> bool {
        if !is_active(Mutant::SettledTwice) && self.settled.contains(&id) {
            return false;
        }
        self.settled.insert(id);
        self.load(needs, now);
        let mut parts = match self.sublets.get_mut(sublet) {
            Some(sublet) => sublet.take_part(needs),
            None => Vec::new(),
        };
        self.held -= parts.first().map_or(0, |part| part.units);
        if parts.is_empty() {
            // Its time is over: what it cost is spent all the same.
            parts = needs.iter().map(|need| Need { units: 0, ..need.clone() }).collect();
        }
        self.wallet.settle(&parts, true, now, |_| cost);
        self.book(needs, cost);
        true
    }

    fn book(&mut self, needs: &[Need], cost: Units) {
        if is_active(Mutant::SpentNotDurable) {
            return;
        }
        for need in needs {
            *self.spent.entry((need.account.clone(), need.line.clone())).or_default() += cost;
        }
    }

    /// Sublets `needs` of each line to an isolate.
    pub(crate) fn sublet(&mut self, id: &str, needs: Vec<Need>, now: Timestamp) {
        let units = needs.first().map_or(0, |need| need.units);
        if self.held_at(now) + units > self.ceiling {
            self.ceiling = self.held_at(now) + units + units * CEILING_HOLDS;
        }
        self.held += units;
        self.wallet.place(&needs, now);
        self.sublets.insert(id.to_owned(), Sublet::new(id.to_owned(), needs, now));
    }

    /// Takes back what is left of a sublet. A second time there is nothing.
    pub(crate) fn end_sublet(&mut self, id: &str, now: Timestamp) {
        let sublet = if is_active(Mutant::SubleaseReturnedTwice) {
            self.sublets.get(id).cloned()
        } else {
            self.sublets.remove(id)
        };
        if let Some(sublet) = sublet {
            self.held -= sublet.left.first().map_or(0, |left| left.units);
            self.wallet.settle(&sublet.left, true, now, |_| 0);
        }
    }

    /// Takes a Budget's grant in.
    pub(crate) fn granted(&mut self, account: &str, line: &str, grant: &Grant, now: Timestamp) {
        self.wallet.granted(account, line, grant, true, now);
    }

    /// The alarm: what expired, and a ceiling that nothing needs.
    pub(crate) fn expired(&self, now: Timestamp) -> Vec<u64> {
        let over = |at: &Timestamp| now.since_ms(*at) >= HOLD_LIFETIME_MS;
        self.holds.iter().filter(|(_, (_, at))| over(at)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn lower_ceiling(&mut self, now: Timestamp) {
        if self.held_at(now) == 0 {
            self.ceiling = 0;
            self.unclear.0 = 0;
        }
    }

    /// Memory is lost; what is on disk is not.
    pub(crate) fn restart(&mut self, boot: u64, now: Timestamp) {
        let sublet = self.sublets.values().flat_map(|sublet| sublet.left.clone());
        let held: Vec<Need> = sublet.collect();
        let known: Units =
            self.sublets.values().filter_map(|s| s.left.first()).map(|left| left.units).sum();
        self.unclear = ((self.ceiling - known).max(0), now.plus_ms(HOLD_LIFETIME_MS));
        let spent = self.spent.iter().map(|((account, line), spent)| Remembered {
            account: account.clone(),
            line: line.clone(),
            spent: *spent,
        });
        self.wallet = Wallet::restore(boot, spent, held, self.unclear, now);
        self.held = known;
        self.holds.clear();
        self.waiting.clear();
    }
}

/// One isolate of a Worker.
#[derive(Default)]
pub(crate) struct IsolateNode {
    pub(crate) meter: usize,
    pub(crate) sublease: Option<Sublease>,
    /// Settled and not yet told: request, what it took, what it cost.
    pub(crate) batch: Vec<(String, u64, Vec<Need>, Units)>,
    pub(crate) clock_ms: i64,
    /// The sublease that it waits for.
    pub(crate) asked: Option<String>,
    /// Which of the isolates that ever ran here this is.
    pub(crate) life: u64,
}
