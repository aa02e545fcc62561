//! Leases: how many Meters spend from one cap without asking for each request, and without ever passing it.
//!
//! A budget has **lines**: its money in a window, its requests a minute, its slots. For each line the Budget keeps a
//! **share** per holder: how much that holder may have spent and held, ever ([`Grantor`]). The holder places holds under
//! it without a call ([`Lease`]). Both speak in absolute amounts, so that a message may be lost, repeated, reordered or
//! late, and either side may restart:
//!
//! - a [`Report`] says what the holder spent in all, what it keeps for requests in flight, what it lacks, and the limit
//!   that it will not pass until it hears again;
//! - a [`Grant`] says what the holder may have spent and held in all from now on.
//!
//! Why it is safe. Each report that is processed gives the share a new version, and a report names the version that its
//! sender last heard of. Only a report that names the present version may take money back: no other report was processed
//! in between, so the promise in it is the holder's last word. Any report may add money, which at worst waits there to be
//! given back. A holder believes only grants to its own incarnation, and only newer ones. No clock decides about money:
//! a lease that runs out stops its holder from placing more holds, and nothing else.
//!
//! One level further down a Worker isolate gets a [`sublease`]; it keeps no books, so there time does decide.

mod grantor;
mod holder;
#[cfg(test)]
pub(crate) mod mutants;
pub mod sublease;
#[cfg(test)]
mod tests;
pub mod wallet;

pub use grantor::{Grantor, Outcome, Pool, SILENT_MS, Share};
pub use holder::Lease;

use serde::{Deserialize, Serialize};

use crate::money::Usd;

/// An amount of what a line counts: nanodollars, requests, tokens or slots.
pub type Units = i64;

/// How long a lease lets its holder place holds without hearing from the Budget: 60 s. Longer saves calls that cost
/// little, shorter makes more of them; a change of the budget itself reaches the holder with its plan, not by this.
pub const LEASE_MS: i64 = 60_000;

/// Whole nanodollars for a line of money, rounded up: a hold never covers less than it should.
pub fn money_units(amount: Usd) -> Units {
    let nanos = amount.pico().saturating_add(crate::money::PICO_PER_NANO - 1);
    Units::try_from(nanos.div_euclid(crate::money::PICO_PER_NANO)).unwrap_or(Units::MAX)
}

/// What a holder tells the Budget about its share of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The holder's incarnation: drawn anew whenever its memory is.
    pub boot: u64,
    /// The version of the last grant that this incarnation heard of; 0 before the first.
    pub version: u64,
    /// What the holder spent of this line, ever.
    pub spent: Units,
    /// What it has set aside for requests in flight.
    pub keep: Units,
    /// What it lacks for requests that wait.
    pub demand: Units,
    /// What one request takes: the least of the waiting ones, else a typical one.
    pub unit: Units,
    /// It will not spend and hold more than this in all until it hears of a newer version.
    pub limit: Units,
}

/// What the Budget tells a holder about its share of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The incarnation that asked.
    pub boot: u64,
    /// The share's version.
    pub version: u64,
    /// What the holder may have spent and held in all.
    pub authorised: Units,
    /// What it may keep unused. Twice this, and it should give some back.
    pub quota: Units,
    /// The line as a whole, for answers to callers.
    pub standing: Standing,
}

/// A line as the Budget knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The cap, or the rate per minute.
    pub limit: Units,
    /// Spent, as far as it was reported.
    pub spent: Units,
    /// Set aside for requests in flight, as far as it was reported.
    pub held: Units,
    /// Granted and not spent: what is held, and what waits with holders.
    pub leased: Units,
    /// When a rate that refused may pass again.
    pub retry_after_ms: u64,
}

impl Standing {
    /// What is neither spent nor leased.
    pub fn remaining(&self) -> Units {
        self.limit.saturating_sub(self.spent).saturating_sub(self.leased).max(0)
    }
}
