//! One level further down: a Worker isolate that admits without a call, and settles in batches.
//!
//! An isolate has no storage and no name: it vanishes without a word. So its sublease is one large hold at the Meter
//! ([`Sublet`]), from which each request that it admits takes a part, and time bounds it: the isolate admits nothing after
//! [`SUBLEASE_MS`], and the Meter takes back what is left when that, the longest request and the greatest disagreement of
//! two clocks are over.

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::mutants::{Mutant, is_active};
use super::wallet::Need;
use crate::budget::hold::HOLD_LIFETIME_MS;
use crate::time::Timestamp;

/// How long an isolate admits on its own: 2 s. So late can a revocation be for a key that does not ask for `immediate`.
pub const SUBLEASE_MS: i64 = 2_000;
/// The greatest disagreement of two clocks that is allowed for, steps included.
pub const CLOCK_SKEW_MS: i64 = 60_000;

/// An isolate's sublease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sublease {
    /// Its name, unique for its Meter.
    pub id: String,
    /// What is left of it, line by line.
    pub left: Vec<Need>,
    /// When it was asked for, by the isolate's own clock.
    pub since: Timestamp,
    /// When the isolate's clock was last looked at.
    pub seen: Timestamp,
}

impl Sublease {
    /// Takes a part of each line, or of none.
    pub fn take(&mut self, needs: &[Need], now: Timestamp) -> bool {
        if !self.is_live(now) {
            return false;
        }
        self.seen = now;
        let covers = |need: &Need| {
            self.left
                .iter()
                .any(|l| l.account == need.account && l.line == need.line && l.units >= need.units)
        };
        if !needs.iter().all(covers) {
            return false;
        }
        for need in needs {
            if let Some(left) =
                self.left.iter_mut().find(|l| l.account == need.account && l.line == need.line)
            {
                left.units -= need.units;
            }
        }
        true
    }

    /// Whether it may still be used. A clock that stepped back ends it.
    pub fn is_live(&self, now: Timestamp) -> bool {
        #[cfg(test)]
        if is_active(Mutant::SubleaseOutlived) {
            return true;
        }
        now >= self.seen && now.since_ms(self.since) < SUBLEASE_MS
    }
}

/// A sublease as its Meter keeps it: what no settlement has taken out yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sublet {
    /// Its name.
    pub id: String,
    /// What may still be spent of each line.
    pub left: Vec<Need>,
    /// When every request under it is over.
    pub ends_at: Timestamp,
}

impl Sublet {
    /// A new one, granted at `now` by the Meter's clock.
    pub fn new(id: String, left: Vec<Need>, now: Timestamp) -> Self {
        Self { id, left, ends_at: now.plus_ms(SUBLEASE_MS + HOLD_LIFETIME_MS + 2 * CLOCK_SKEW_MS) }
    }

    /// A request under it was settled: its part leaves the sublet, and is returned for the wallet to settle.
    pub fn take_part(&mut self, charges: &[Need]) -> Vec<Need> {
        let mut parts = Vec::with_capacity(charges.len());
        for charge in charges {
            let left =
                self.left.iter_mut().find(|l| l.account == charge.account && l.line == charge.line);
            let Some(left) = left else { continue };
            let units = charge.units.min(left.units);
            left.units -= units;
            parts.push(Need { units, ..charge.clone() });
        }
        parts
    }
}
