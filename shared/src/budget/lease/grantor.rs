//! The Budget's side of a line: who may spend how much of it.
//!
//! Invariant: when a grant adds money, what all shares commit is at most the cap. They can commit more only where
//! requests cost more than was held for them, or where the cap was lowered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::mutants::{Mutant, is_active};
use super::{Grant, Report, Standing, Units};
use crate::budget::rate_limit::{Gcra, State as RateState, Verdict};
use crate::time::Timestamp;

/// The part of a line that may lie unused with holders: 1/16 of what is left. A holder gives back at twice its part, so
/// no more than 1/8 of what is left is stranded, and the less there is, the less of it.
const LOOSE_SHARE: Units = 16;
/// The most requests that one grant pays for in advance: beyond, fewer calls save nothing that can be measured.
const UNITS_AHEAD: Units = 64;
/// After this time a share of a line that drains by itself is forgotten: the longest request, and as much again.
const VOLATILE_SHARE_MS: i64 = 2 * crate::budget::hold::HOLD_LIFETIME_MS;

/// A holder that was silent for so long is asked: its lease has run out, and so has the time for which it keeps unused
/// money.
pub const SILENT_MS: i64 = 3 * super::LEASE_MS;

/// What a line may give, as the budget's terms say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// So much in all: money in a window, or slots.
    Cap {
        /// The cap.
        limit: Units,
    },
    /// So much a minute. What is granted is used up, whether or not a request uses it.
    Rate {
        /// Units a minute.
        per_minute: u64,
    },
}

/// One holder's part of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Grows with each report that is processed.
    pub version: u64,
    /// What the holder may have spent and held in all.
    pub authorised: Units,
    /// What it is known to have spent.
    pub spent: Units,
    /// What it last said it had set aside.
    pub keep: Units,
    /// What it may keep unused.
    pub quota: Units,
    /// What it may believe that to be: a smaller quota counts once the holder is known to have heard of it.
    pub quota_bound: Units,
    /// When it last reported.
    pub at: Timestamp,
}

impl Share {
    /// What this share takes of the line: all that its holder may spend, or has.
    fn committed(&self) -> i128 {
        i128::from(self.authorised.max(self.spent))
    }

    fn set_quota(&mut self, quota: Units) {
        self.quota = quota;
        self.quota_bound = self.quota_bound.max(quota);
    }

    /// What of it is set aside for requests in flight, as far as is known: what was spent since is not any more.
    fn held(&self) -> i128 {
        i128::from(self.keep.min(self.authorised.saturating_sub(self.spent)).max(0))
    }

    /// What the holder has and does not need, as far as is known.
    pub fn loose(&self) -> Units {
        self.authorised.saturating_sub(self.spent).saturating_sub(self.keep).max(0)
    }
}

/// A line of a budget.
#[derive(Clone, Debug, Default)]
pub struct Grantor {
    shares: BTreeMap<String, Share>,
    committed: i128,
    spent: i128,
    held: i128,
    quotas: i128,
    /// Corrections from outside: what the bill says beyond what holders reported.
    adjusted: i128,
    rate: RateState,
}

/// The answer to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For the holder.
    pub grant: Grant,
    /// It lacks something, and did not get what one request takes.
    pub short: bool,
}

impl Grantor {
    /// A line as storage remembers it.
    pub fn restore(
        shares: impl IntoIterator<Item = (String, Share)>,
        rate: RateState,
        adjusted: i128,
    ) -> Self {
        let mut line = Self { rate, adjusted, ..Self::default() };
        for (holder, share) in shares {
            line.put(&holder, share);
        }
        line
    }

    /// A holder's share, to be made durable before the grant is answered.
    pub fn share(&self, holder: &str) -> Share {
        self.shares.get(holder).copied().unwrap_or_default()
    }

    /// The state of a rate, to be made durable likewise.
    pub fn rate(&self) -> RateState {
        self.rate
    }

    /// Takes a report in and answers it.
    pub fn report(&mut self, holder: &str, report: &Report, pool: Pool, now: Timestamp) -> Outcome {
        let mut share = self.share(holder);
        let current = report.version == share.version;
        #[cfg(test)]
        let current = current || is_active(Mutant::StaleReportMayShrink);
        share.version += 1;
        share.spent = share.spent.max(report.spent);
        #[cfg(test)]
        if is_active(Mutant::ReportsAddUp) {
            share.spent = self.share(holder).spent.saturating_add(report.spent);
        }
        share.at = now;
        let in_use = share.spent.saturating_add(report.keep.max(0));
        if current {
            // It heard the last grant.
            share.quota_bound = share.quota;
            share.keep = report.keep.max(0);
            let given_back = share.authorised.saturating_sub(report.limit.max(in_use)).max(0);
            share.authorised = share.authorised.saturating_sub(given_back);
            if let Pool::Rate { per_minute } = pool {
                let unused = u64::try_from(given_back).unwrap_or(0);
                self.rate = minute(per_minute).refund(&self.rate, unused, now);
            }
            // Holds that were placed under an earlier limit stand, also where others cost more than was held for them.
            share.authorised = share.authorised.max(in_use);
        }
        self.put(holder, share);
        let (short, retry_after_ms) = self.grow(holder, report, current, pool, now);
        let share = self.share(holder);
        let grant = Grant {
            boot: report.boot,
            version: share.version,
            authorised: share.authorised,
            quota: share.quota,
            standing: Standing { retry_after_ms, ..self.standing(pool, now) },
        };
        Outcome { grant, short }
    }

    /// Adds what the holder lacks, and something ahead where there is plenty.
    fn grow(
        &mut self,
        holder: &str,
        report: &Report,
        current: bool,
        pool: Pool,
        now: Timestamp,
    ) -> (bool, u64) {
        let mut share = self.share(holder);
        let wanted = share.spent.saturating_add(report.keep.max(0)).saturating_add(report.demand);
        let lacking = wanted.saturating_sub(share.authorised);
        let available = self.available(pool, now);
        if report.demand <= 0 || lacking <= 0 {
            // No more than others may have: what is over is given back with a later report.
            share.set_quota(share.quota.min(self.loose_allowed(&share, pool, available)));
            self.put(holder, share);
            return (false, 0);
        }
        let unit = report.unit.max(1);
        let (mut added, mut ahead) = (lacking.min(available), 0);
        let has_loose = share.authorised.saturating_sub(share.spent).saturating_sub(report.keep);
        let short = has_loose.saturating_add(added) < unit.min(report.demand);
        if short {
            // Less than one request takes would only lie there.
            added = 0;
        } else if added == lacking && current {
            let most = unit.saturating_mul(UNITS_AHEAD);
            let rest = available.saturating_sub(lacking);
            ahead = most.min(rest / LOOSE_SHARE).min(self.loose_allowed(&share, pool, rest));
            if ahead < unit {
                ahead = 0;
            }
        }
        #[cfg(test)]
        if is_active(Mutant::CapForgotten) {
            added = lacking;
        }
        let mut retry_after_ms = 0;
        if let Pool::Rate { per_minute } = pool {
            let cost = if short { unit } else { added.saturating_add(ahead) };
            match minute(per_minute).check(&self.rate, u64::try_from(cost).unwrap_or(0), now) {
                Verdict::Ok(state) if !short => self.rate = state,
                Verdict::Ok(_) => {}
                Verdict::Limited { retry_after_ms: wait, .. } => retry_after_ms = wait,
            }
        }
        share.authorised = share.authorised.saturating_add(added).saturating_add(ahead);
        share.set_quota(ahead);
        self.put(holder, share);
        (short, retry_after_ms)
    }

    /// What may lie unused with one holder, given what lies with the others.
    fn loose_allowed(&self, share: &Share, pool: Pool, available: Units) -> Units {
        let left = match pool {
            Pool::Cap { limit } => i128::from(limit) - self.spent - self.adjusted,
            Pool::Rate { per_minute } => i128::from(per_minute).min(i128::from(available)),
        };
        #[cfg(test)]
        if is_active(Mutant::LooseWithoutBound) {
            return units(left);
        }
        let others = self.quotas - i128::from(share.quota_bound);
        units(left / i128::from(LOOSE_SHARE) - others).max(0)
    }

    /// What may be granted now.
    fn available(&self, pool: Pool, now: Timestamp) -> Units {
        match pool {
            Pool::Cap { limit } => units(i128::from(limit) - self.committed - self.adjusted).max(0),
            Pool::Rate { per_minute } => {
                let free = minute(per_minute).remaining(&self.rate, now);
                Units::try_from(free).unwrap_or(Units::MAX)
            }
        }
    }

    /// The line as a whole.
    pub fn standing(&self, pool: Pool, now: Timestamp) -> Standing {
        let leased = units(self.committed - self.spent).max(0);
        match pool {
            Pool::Cap { limit } => Standing {
                limit,
                spent: units(self.spent + self.adjusted),
                held: units(self.held),
                leased,
                retry_after_ms: 0,
            },
            Pool::Rate { per_minute } => {
                let limit = Units::try_from(per_minute).unwrap_or(Units::MAX);
                let used = limit.saturating_sub(self.available(pool, now));
                Standing { limit, spent: used, held: 0, leased: 0, retry_after_ms: 0 }
            }
        }
    }

    /// Holders that could give something back, those with most first. The asking one need not be asked.
    pub fn recallable(&self, except: &str) -> Vec<String> {
        let mut holders: Vec<(&String, &Share)> = self
            .shares
            .iter()
            .filter(|(holder, share)| *holder != except && share.authorised > share.spent)
            .collect();
        // What is held may have been settled for less since.
        holders.sort_by_key(|(_, share)| std::cmp::Reverse((share.loose(), share.keep)));
        holders.into_iter().map(|(holder, _)| holder.clone()).collect()
    }

    /// Holders that have something and were silent for longer than a lease lives: they are asked for it. Who lost its
    /// memory does not know that it has something to give back.
    pub fn silent(&self, now: Timestamp) -> Vec<String> {
        let silent =
            |share: &Share| share.authorised > share.spent && now.since_ms(share.at) > SILENT_MS;
        self.shares.iter().filter(|(_, s)| silent(s)).map(|(holder, _)| holder.clone()).collect()
    }

    /// Whether anybody may still spend here.
    pub fn is_leased(&self) -> bool {
        self.committed > self.spent
    }

    /// Takes a correction from outside in: what the bill says beyond the reports. It replaces an earlier one.
    pub fn adjust(&mut self, adjusted: i128) {
        self.adjusted = adjusted;
    }

    /// Forgets the shares of holders that are gone, of a line that drains by itself or holds slots. Money is never
    /// forgotten.
    pub fn forget_old(&mut self, now: Timestamp) -> Vec<String> {
        let is_old = |share: &Share| now.since_ms(share.at) > VOLATILE_SHARE_MS;
        let old: Vec<String> =
            self.shares.iter().filter(|(_, s)| is_old(s)).map(|(h, _)| h.clone()).collect();
        for holder in &old {
            self.put(holder, Share::default());
            self.shares.remove(holder);
        }
        old
    }

    fn put(&mut self, holder: &str, share: Share) {
        let before = self.shares.insert(holder.to_owned(), share).unwrap_or_default();
        self.committed += share.committed() - before.committed();
        self.spent += i128::from(share.spent) - i128::from(before.spent);
        self.held += share.held() - before.held();
        self.quotas += i128::from(share.quota_bound) - i128::from(before.quota_bound);
    }
}

fn minute(limit: u64) -> Gcra {
    Gcra { limit, period_ms: 60_000 }
}

fn units(amount: i128) -> Units {
    Units::try_from(amount).unwrap_or(if amount < 0 { Units::MIN } else { Units::MAX })
}
