//! All leases of one holder. A request takes from several lines at once: from all of them, or from none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Grant, Lease, Report, Units};
use crate::time::Timestamp;

/// What a request takes of one line. Its ticket keeps it, so that its settlement finds the line again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The budget's account: one Budget object.
    pub account: String,
    /// The line in it.
    pub line: String,
    /// How much.
    pub units: Units,
}

/// What storage remembers of a lease: the rest is asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The budget's account.
    pub account: String,
    /// The line in it.
    pub line: String,
    /// What this holder spent of it.
    pub spent: Units,
}

/// One holder's leases.
#[derive(Clone, Debug, Default)]
pub struct Wallet {
    boot: u64,
    leases: BTreeMap<String, BTreeMap<String, Lease>>,
    unclear: (Units, Timestamp),
}

impl Wallet {
    /// The leases of a new incarnation. `boot` is drawn anew; `held` are the holds that were written down; `unclear` is
    /// how much those may amount to that were not, and until when.
    pub fn restore(
        boot: u64,
        spent: impl IntoIterator<Item = Remembered>,
        held: impl IntoIterator<Item = Need>,
        unclear: (Units, Timestamp),
        now: Timestamp,
    ) -> Self {
        let mut wallet = Self { boot, leases: BTreeMap::new(), unclear };
        for Remembered { account, line, spent } in spent {
            let lease = Lease::new(boot, spent, 0, now);
            wallet.leases.entry(account).or_default().insert(line, lease);
        }
        for need in held {
            wallet.lease(&need.account, &need.line, now).place(need.units, now);
        }
        wallet
    }

    /// This incarnation.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    fn lease(&mut self, account: &str, line: &str, now: Timestamp) -> &mut Lease {
        let boot = self.boot;
        let lines = self.leases.entry(account.to_owned()).or_default();
        lines.entry(line.to_owned()).or_insert_with(|| Lease::new(boot, 0, 0, now))
    }

    /// A lease that this holder has, or had.
    pub fn get(&self, account: &str, line: &str) -> Option<&Lease> {
        self.leases.get(account)?.get(line)
    }

    /// What a restart left unclear, as it is now: settlements make it less.
    pub fn set_unclear(&mut self, unclear: (Units, Timestamp)) {
        self.unclear = unclear;
    }

    /// Takes in what storage remembers of a lease that memory does not have.
    pub fn remember(&mut self, remembered: Remembered, now: Timestamp) {
        let Remembered { account, line, spent } = remembered;
        let boot = self.boot;
        let lines = self.leases.entry(account).or_default();
        lines.entry(line).or_insert_with(|| Lease::new(boot, spent, 0, now));
    }

    /// The needs that no lease covers now. Without any, [`Wallet::place`] succeeds, and no call was made.
    pub fn shortage<'n>(&self, needs: &'n [Need], now: Timestamp) -> Vec<&'n Need> {
        let short = |need: &&Need| {
            let lease = self.get(&need.account, &need.line);
            // Even nothing is set aside under a live lease only: a free request still needs a budget that is open.
            lease.is_none_or(|lease| lease.free(now) < need.units || !lease.is_open(now))
        };
        needs.iter().filter(short).collect()
    }

    /// Sets all of it aside. The caller has seen that nothing is short.
    pub fn place(&mut self, needs: &[Need], now: Timestamp) {
        for need in needs {
            self.lease(&need.account, &need.line, now).place(need.units, now);
        }
    }

    /// A request is over. `cost` says what it took of a line in the end.
    pub fn settle(
        &mut self,
        charges: &[Need],
        known: bool,
        now: Timestamp,
        cost: impl Fn(&Need) -> Units,
    ) {
        for charge in charges {
            let cost = cost(charge);
            self.lease(&charge.account, &charge.line, now).settle(charge.units, cost, known);
        }
    }

    /// A request waits for these.
    pub fn wait(&mut self, needs: &[&Need], now: Timestamp) {
        for need in needs {
            self.lease(&need.account, &need.line, now).wait(need.units);
        }
    }

    /// What to tell one account's Budget, line by line.
    pub fn reports(&mut self, account: &str, now: Timestamp) -> Vec<(String, Report)> {
        let Some(lines) = self.leases.get_mut(account) else { return Vec::new() };
        let report = |(line, lease): (&String, &mut Lease)| {
            let report = lease.report(now);
            lease.forget_waiting();
            (line.clone(), report)
        };
        lines.iter_mut().map(report).collect()
    }

    /// What to tell a Budget that asks for all that no request needs. It names the lines: of a lease that was never used,
    /// an incarnation after the one that got it knows nothing.
    pub fn give_back(
        &mut self,
        account: &str,
        lines: &[String],
        now: Timestamp,
    ) -> Vec<(String, Report)> {
        lines
            .iter()
            .map(|line| (line.clone(), self.lease(account, line, now).give_back(now)))
            .collect()
    }

    /// Takes the Budget's answer in. What a restart left unclear may sit in lines of money only: the others are counted
    /// anew by each incarnation.
    pub fn granted(
        &mut self,
        account: &str,
        line: &str,
        grant: &Grant,
        is_money: bool,
        now: Timestamp,
    ) -> bool {
        let unclear = if is_money { self.unclear } else { (0, now) };
        let Some(lease) = self.leases.get_mut(account).and_then(|lines| lines.get_mut(line)) else {
            return false;
        };
        lease.granted(grant, unclear, now)
    }

    /// An account's terms have changed.
    pub fn terms_changed(&mut self, account: &str) {
        for lease in self.leases.get_mut(account).into_iter().flat_map(BTreeMap::values_mut) {
            lease.terms_changed();
        }
    }

    /// Every account with a lease.
    pub fn accounts(&self) -> impl Iterator<Item = &String> {
        self.leases.keys()
    }

    /// The lines of an account.
    pub fn lines(&self, account: &str) -> impl Iterator<Item = (&String, &Lease)> {
        self.leases.get(account).into_iter().flatten()
    }

    /// Accounts whose Budget should hear of this holder by now.
    pub fn due(&self, now: Timestamp) -> Vec<String> {
        let due = |lines: &BTreeMap<String, Lease>| {
            lines.values().any(|lease| lease.report_at(now).is_some_and(|at| at <= now))
        };
        self.leases.iter().filter(|(_, lines)| due(lines)).map(|(name, _)| name.clone()).collect()
    }

    /// When the next of them will be due.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.leases
            .values()
            .flat_map(BTreeMap::values)
            .filter_map(|lease| lease.report_at(now))
            .min()
    }

    /// Lets go of leases that are done with. Storage remembers what they spent: the caller tells it
    /// ([`Wallet::remember`]) before the line is used again. `boot` is drawn anew, so that a grant on its way to a lease
    /// that is no more is not taken for one to its successor.
    pub fn forget_done(&mut self, boot: u64, now: Timestamp) {
        let before = self.len();
        for lines in self.leases.values_mut() {
            lines.retain(|_, lease| !lease.is_done(now));
        }
        self.leases.retain(|_, lines| !lines.is_empty());
        if self.len() < before {
            self.boot = boot;
        }
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Lets go of an account whose budget is no more.
    pub fn forget(&mut self, account: &str) {
        self.leases.remove(account);
    }
}
