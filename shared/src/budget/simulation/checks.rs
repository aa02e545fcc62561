//! The truth, and its comparison with what the machines believe.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::BudgetNode;
use super::world::{World, account};
use crate::budget::lease::sublease::Sublet;
use crate::budget::lease::wallet::Need;
use crate::budget::lease::{Pool, Report, Share, Units};

type LineKey = (String, String);

/// What really happened.
#[derive(Default)]
pub(crate) struct Truth {
    /// The highest cap that a budget ever had: money granted under it may still be spent after the cap was lowered.
    highest_cap: BTreeMap<String, Units>,
    spent: BTreeMap<LineKey, Units>,
    spent_at: BTreeMap<(usize, LineKey), Units>,
    held: BTreeMap<LineKey, Units>,
    /// By how much requests cost more than was held for them.
    excess: BTreeMap<LineKey, Units>,
    settled: BTreeSet<u64>,
    /// What was taken of a sublease and is lost with its isolate.
    lost: BTreeMap<String, Units>,
    sublets: BTreeMap<String, (Vec<Need>, Units)>,
}

fn key(need: &Need) -> LineKey {
    (need.account.clone(), need.line.clone())
}

impl Truth {
    pub(crate) fn cap_seen(&mut self, budget: usize, cap: Units) {
        let highest = self.highest_cap.entry(account(budget)).or_default();
        *highest = (*highest).max(cap);
    }

    /// A hold was placed: with it, all that is spent and in flight is within the cap, but for what cost more than its hold.
    pub(crate) fn placed(&mut self, needs: &[Need]) {
        for need in needs {
            let line = key(need);
            *self.held.entry(line.clone()).or_default() += need.units;
            self.check_line(&line);
        }
    }

    fn check_line(&self, line: &LineKey) {
        let of = |map: &BTreeMap<LineKey, Units>| map.get(line).copied().unwrap_or(0);
        let (spent, held, excess) = (of(&self.spent), of(&self.held), of(&self.excess));
        let cap = self.highest_cap[&line.0];
        assert!(
            spent + held <= cap + excess,
            "overspent {line:?}: spent {spent} + held {held} > cap {cap} + excess {excess}"
        );
    }

    pub(crate) fn settled(&mut self, id: u64, meter: usize, needs: &[Need], cost: Units) {
        assert!(self.settled.insert(id), "request {id} was settled twice");
        for need in needs {
            *self.held.entry(key(need)).or_default() -= need.units;
            self.book(meter, need, cost);
        }
    }

    fn book(&mut self, meter: usize, need: &Need, cost: Units) {
        let line = key(need);
        *self.spent.entry(line.clone()).or_default() += cost;
        *self.excess.entry(line.clone()).or_default() += (cost - need.units).max(0);
        *self.spent_at.entry((meter, line)).or_default() += cost;
    }

    /// A sublease is one large hold.
    pub(crate) fn sublet(&mut self, id: &str, needs: &[Need]) {
        self.placed(needs);
        self.sublets.insert(id.to_owned(), (needs.to_vec(), 0));
    }

    /// A request took a part of a sublease: the parts are never more than the whole, and the whole is still held.
    pub(crate) fn placed_under_sublease(&mut self, id: &str, needs: &[Need]) {
        let Some((whole, taken)) = self.sublets.get_mut(id) else {
            panic!("a request was admitted under sublease {id}, which its Meter has taken back");
        };
        *taken += needs[0].units;
        assert!(*taken <= whole[0].units, "more was taken of sublease {id} than it had");
    }

    pub(crate) fn settled_under_sublease(
        &mut self,
        id: u64,
        meter: usize,
        sublet: &str,
        needs: &[Need],
        cost: Units,
    ) {
        assert!(self.settled.insert(id), "request {id} was settled twice");
        assert!(
            self.sublets.contains_key(sublet),
            "sublease {sublet} was taken back with request {id} in flight"
        );
        for need in needs {
            *self.held.entry(key(need)).or_default() -= need.units;
            self.book(meter, need, cost);
        }
        if let Some((whole, _)) = self.sublets.get_mut(sublet) {
            for (left, need) in whole.iter_mut().zip(needs) {
                left.units -= need.units;
            }
        }
        if let Some((_, taken)) = self.sublets.get_mut(sublet) {
            *taken -= needs[0].units;
        }
    }

    pub(crate) fn lost_under_sublease(&mut self, sublet: &str, needs: &[Need]) {
        *self.lost.entry(sublet.to_owned()).or_default() += needs[0].units;
    }

    /// What an isolate lost is within what its Meter records as unclear.
    pub(crate) fn check_interrupted(&self, sublet: &Sublet) {
        let lost = self.lost.get(&sublet.id).copied().unwrap_or(0);
        assert!(lost <= sublet.left[0].units, "sublease {} lost more than is recorded", sublet.id);
    }

    pub(crate) fn sublet_ended(&mut self, id: &str) {
        if let Some((whole, _)) = self.sublets.remove(id) {
            for need in whole {
                *self.held.entry(key(&need)).or_default() -= need.units;
            }
        }
    }

    /// A grant adds money only while all that is spent and leased is within the cap, and knows no more spending than there is.
    pub(crate) fn check_grant(
        &self,
        node: &mut BudgetNode,
        budget: usize,
        line: &str,
        holder: &str,
        before: Share,
        report: &Report,
    ) {
        let cap = node.cap;
        let grantor = node.line(line);
        let after = grantor.share(holder);
        let standing =
            grantor.standing(Pool::Cap { limit: cap }, crate::time::Timestamp::from_ms(0));
        let in_use = after.spent + report.keep;
        if after.authorised > before.authorised.max(in_use) {
            assert!(
                standing.spent + standing.leased <= cap,
                "budget {budget} {line} granted beyond its cap {cap}: {standing:?}"
            );
        }
        let spent = self.spent.get(&(account(budget), line.to_owned())).copied().unwrap_or(0);
        assert!(
            standing.spent <= spent,
            "budget {budget} {line} counts {} of {spent} spent",
            standing.spent
        );
    }

    /// Nobody in flight, nothing under way: what each side believes is what happened.
    pub(crate) fn check_at_rest(world: &mut World) {
        let lines: Vec<LineKey> = world.truth.spent.keys().cloned().collect();
        for (place, meter) in world.meters.iter().enumerate() {
            for line in &lines {
                let truly = world.truth.spent_at.get(&(place, line.clone())).copied().unwrap_or(0);
                let booked = meter.spent.get(line).copied().unwrap_or(0);
                assert_eq!(
                    booked, truly,
                    "meter {place} {line:?}: its books against the settled requests"
                );
            }
        }
        for place in 0..world.budgets.len() {
            let mut names: BTreeSet<String> = world.budgets[place].disk.keys().cloned().collect();
            let own = account(place);
            names.extend(lines.iter().filter(|(a, _)| *a == own).map(|(_, line)| line.clone()));
            for line in names {
                let cap = world.budgets[place].cap;
                let pool = Pool::Cap { limit: cap };
                let now = crate::time::Timestamp::from_ms(world.time_ms);
                let standing = world.budgets[place].line(&line).standing(pool, now);
                let spent =
                    world.truth.spent.get(&(account(place), line.clone())).copied().unwrap_or(0);
                assert_eq!(
                    standing.spent, spent,
                    "budget {place} {line}: spent against the settled requests"
                );
                assert_eq!(standing.leased, 0, "budget {place} {line}: money leaked: {standing:?}");
                assert_eq!(standing.held, 0, "budget {place} {line}: a hold leaked");
            }
        }
        let held: Vec<_> = world.truth.held.iter().filter(|(_, units)| **units != 0).collect();
        assert!(held.is_empty(), "the simulation itself leaked {held:?}");
    }

    /// Everything that was due was said: what lies unused with holders is within its bound.
    pub(crate) fn check_stranded(world: &mut World) {
        for place in 0..world.budgets.len() {
            let names: Vec<String> = world.budgets[place].disk.keys().cloned().collect();
            let bound = world.truth.highest_cap[&account(place)] / 8;
            for line in names {
                let loose: Units = (0..world.meters.len())
                    .filter_map(|meter| {
                        let now = world.meter_now(meter);
                        world.meters[meter]
                            .wallet
                            .get(&account(place), &line)
                            .map(|lease| lease.free(now))
                    })
                    .sum();
                assert!(
                    loose <= bound,
                    "budget {place} {line}: {loose} stranded, the bound is {bound}: {:#?}",
                    world
                        .meters
                        .iter()
                        .map(|meter| meter.wallet.get(&account(place), &line))
                        .collect::<Vec<_>>()
                );
            }
        }
    }
}
