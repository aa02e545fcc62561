//! The two sides of a line, one exchange at a time. What many of them do together under faults, `simulation` shows.

use proptest::prelude::*;

use super::wallet::{Need, Remembered, Wallet};
use super::*;
use crate::time::Timestamp;

const CAP: Pool = Pool::Cap { limit: 1_000 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(1_800_000_000_000 + seconds * 1_000)
}

fn need(units: Units) -> Need {
    Need { account: "a".into(), line: "usd:x".into(), units }
}

/// A wallet and the Budget it talks to, without a network between them.
struct Pair {
    wallet: Wallet,
    grantor: Grantor,
    pool: Pool,
}

impl Pair {
    fn new(pool: Pool) -> Self {
        let zero = (0, at(0));
        Self { wallet: Wallet::restore(1, [], [], zero, at(0)), grantor: Grantor::default(), pool }
    }

    fn sync(&mut self, now: Timestamp) {
        for (line, report) in self.wallet.reports("a", now) {
            let outcome = self.grantor.report("k", &report, self.pool, now);
            self.wallet.granted("a", &line, &outcome.grant, true, now);
        }
    }

    /// Sets `units` aside, asking where that is necessary. The first answer that an incarnation hears may only tell it how
    /// much of its old money is unclear, so it asks twice.
    fn take(&mut self, units: Units, now: Timestamp) -> bool {
        let needs = [need(units)];
        for _ in 0..2 {
            let short = self.wallet.shortage(&needs, now);
            if !short.is_empty() {
                self.wallet.wait(&short, now);
                self.sync(now);
            }
        }
        let covered = self.wallet.shortage(&needs, now).is_empty();
        if covered {
            self.wallet.place(&needs, now);
        }
        covered
    }

    fn settle(&mut self, units: Units, cost: Units, now: Timestamp) {
        self.wallet.settle(&[need(units)], true, now, |_| cost);
    }
}

#[test]
fn what_fits_is_granted_and_what_does_not_is_short() {
    let mut pair = Pair::new(CAP);
    assert!(pair.take(1_000, at(0)));
    assert!(!pair.take(1, at(0)));
    let standing = pair.grantor.standing(CAP, at(0));
    assert_eq!((standing.leased, standing.held, standing.remaining()), (1_000, 1_000, 0));
    pair.settle(1_000, 400, at(1));
    assert!(pair.take(600, at(1)));
    assert!(!pair.take(1, at(1)));
    assert_eq!(pair.grantor.standing(CAP, at(1)).spent, 400);
}

#[test]
fn far_from_the_cap_one_call_pays_for_many_requests() {
    let mut pair = Pair::new(Pool::Cap { limit: 1_000_000 });
    assert!(pair.take(10, at(0)));
    let mut without_a_call = 0;
    while pair.wallet.shortage(&[need(10)], at(0)).is_empty() {
        pair.wallet.place(&[need(10)], at(0));
        without_a_call += 1;
    }
    assert_eq!(without_a_call, 64);
}

#[test]
fn an_old_grant_and_one_for_another_incarnation_are_not_believed() {
    let mut lease = Lease::new(7, 0, 0, at(0));
    let grant = |boot, version, authorised| Grant {
        boot,
        version,
        authorised,
        quota: 0,
        standing: Standing::default(),
    };
    let none = (0, at(0));
    assert!(!lease.granted(&grant(8, 1, 100), none, at(0)));
    assert!(lease.granted(&grant(7, 2, 100), none, at(0)));
    assert!(!lease.granted(&grant(7, 2, 500), none, at(0)));
    assert!(!lease.granted(&grant(7, 1, 500), none, at(0)));
    assert_eq!(lease.free(at(1)), 100);
    // It runs out, and a clock that steps back does not make it live longer.
    assert_eq!(lease.free(at(61)), 0);
    assert_eq!(lease.free(at(-1)), 0);
}

#[test]
fn a_late_report_adds_nothing_twice_and_takes_nothing_back() {
    let mut pair = Pair::new(CAP);
    assert!(pair.take(100, at(0)));
    pair.settle(100, 100, at(1));
    let late = pair.wallet.reports("a", at(1)).remove(0).1;
    pair.grantor.report("k", &late, CAP, at(2));
    let before = pair.grantor.share("k");
    pair.grantor.report("k", &late, CAP, at(3));
    let after = pair.grantor.share("k");
    assert_eq!((before.spent, before.authorised), (100, after.authorised));
    assert_eq!(after.spent, 100);
}

#[test]
fn a_rate_is_never_granted_twice_and_comes_back_with_time() {
    let pool = Pool::Rate { per_minute: 60 };
    let mut pairs: Vec<Pair> = (0..3).map(|_| Pair::new(pool)).collect();
    let mut shared = Grantor::default();
    let mut served = 0;
    for turn in 0..200 {
        let pair = &mut pairs[turn % 3];
        std::mem::swap(&mut pair.grantor, &mut shared);
        // Each holder by its own name.
        let needs = [need(1)];
        if !pair.wallet.shortage(&needs, at(0)).is_empty() {
            let short = pair.wallet.shortage(&needs, at(0));
            pair.wallet.wait(&short, at(0));
            for (line, report) in pair.wallet.reports("a", at(0)) {
                let holder = format!("k{}", turn % 3);
                let outcome = pair.grantor.report(&holder, &report, pool, at(0));
                pair.wallet.granted("a", &line, &outcome.grant, false, at(0));
            }
        }
        if pair.wallet.shortage(&needs, at(0)).is_empty() {
            pair.wallet.place(&needs, at(0));
            served += 1;
        }
        std::mem::swap(&mut pair.grantor, &mut shared);
    }
    // A few of a minute's requests may lie with holders, who use them with their next request.
    assert!((50..=60).contains(&served), "{served}");
    assert!(shared.standing(pool, at(60)).remaining() >= 50);
}

#[test]
fn slots_come_back_as_requests_end() {
    let pool = Pool::Cap { limit: 2 };
    let mut pair = Pair::new(pool);
    assert!(pair.take(1, at(0)) && pair.take(1, at(0)));
    assert!(!pair.take(1, at(0)));
    pair.settle(1, 0, at(1));
    assert!(pair.take(1, at(1)));
    assert!(!pair.take(1, at(1)));
}

#[test]
fn a_lease_that_ran_out_gives_back_what_it_kept_before_it_gets_more() {
    let mut pair = Pair::new(Pool::Cap { limit: 1_000_000 });
    assert!(pair.take(10, at(0)));
    pair.settle(10, 10, at(0));
    assert!(pair.grantor.share("k").loose() > 100);
    // The cap was lowered meanwhile: what was granted under the old one is not kept.
    pair.pool = Pool::Cap { limit: 15 };
    assert!(!pair.take(10, at(100)));
    assert_eq!(pair.grantor.standing(pair.pool, at(100)).leased, 0);
    assert!(pair.take(5, at(100)));
}

#[test]
fn what_a_restart_left_unclear_is_not_spent_again_before_its_time() {
    let mut pair = Pair::new(CAP);
    assert!(pair.take(900, at(0)));
    // Memory is lost while 900 are held; the durable ceiling says that much may be in flight.
    let unclear = (900, at(900));
    let spent = Remembered { account: "a".into(), line: "usd:x".into(), spent: 0 };
    pair.wallet = Wallet::restore(2, [spent], [], unclear, at(10));
    assert!(pair.take(100, at(10)));
    assert!(!pair.take(1, at(10)));
    assert!(pair.take(900, at(901)));
}

#[test]
fn a_thousand_holders_on_a_dollar_strand_no_more_than_an_eighth() {
    let pool = Pool::Cap { limit: 1_000_000_000 };
    let mut grantor = Grantor::default();
    let mut wallets: Vec<Wallet> =
        (0..1_000).map(|n| Wallet::restore(n, [], [], (0, at(0)), at(0))).collect();
    for (n, wallet) in wallets.iter_mut().enumerate() {
        let needs = [need(20_000)];
        let short = wallet.shortage(&needs, at(0));
        wallet.wait(&short, at(0));
        for (line, report) in wallet.reports("a", at(0)) {
            let outcome = grantor.report(&n.to_string(), &report, pool, at(0));
            assert!(!outcome.short);
            wallet.granted("a", &line, &outcome.grant, true, at(0));
        }
        wallet.place(&needs, at(0));
        wallet.settle(&needs, true, at(0), |_| 10_000);
        for (line, report) in wallet.reports("a", at(1)) {
            let outcome = grantor.report(&n.to_string(), &report, pool, at(1));
            wallet.granted("a", &line, &outcome.grant, true, at(1));
        }
    }
    let standing = grantor.standing(pool, at(1));
    assert_eq!(standing.spent, 10_000_000);
    let left = standing.limit - standing.spent;
    assert!(standing.leased <= left / 8, "{} of {left} stranded", standing.leased);
}

proptest! {
    /// Amounts at the ends of their range overflow nothing, and no report makes the line commit more than its cap.
    #[test]
    fn no_report_is_beyond_the_grantor(
        spent in 0_i64..=i64::MAX / 4, keep in 0_i64..=i64::MAX / 4, demand in 0_i64..=i64::MAX / 4,
        unit in 0_i64..=i64::MAX / 4, limit in 0_i64..=i64::MAX, cap in 0_i64..=i64::MAX / 2,
        version in 0_u64..3,
    ) {
        let mut grantor = Grantor::default();
        let pool = Pool::Cap { limit: cap };
        let report = Report { boot: 1, version, spent, keep, demand, unit, limit };
        let outcome = grantor.report("k", &report, pool, at(0));
        let share = grantor.share("k");
        let own = spent.saturating_add(keep);
        prop_assert!(share.authorised.max(share.spent) <= cap.max(own));
        prop_assert!(outcome.grant.authorised >= 0);
    }
}
