//! Rate limits: so many units (requests, tokens) in a period, spread out evenly, with a burst of one period's worth.
//!
//! This is GCRA in its other form, the continuous-state leaky bucket (ITU-T I.371): a bucket that each unit raises and
//! time drains. The two admit the same requests. This one stays exact in integers: an arrival time would have to be
//! rounded whenever the limit does not divide the period. Concurrency is not limited here.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A limit: `limit` units in each `period_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Units in a period, and the most that pass at once.
    pub limit: u64,
    /// The period in milliseconds.
    pub period_ms: u64,
}

/// How much of a limit is used up. The default is unused. It outlives a change of the limit, not of the period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct State {
    /// When `level` was true.
    at: Timestamp,
    /// Units used and not yet drained, times the period's milliseconds. It drains by the limit each millisecond.
    level: u64,
}

/// Whether units may pass. Nothing is used up until the caller keeps the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may; this is the state after them.
    Ok(State),
    /// They may not.
    Limited {
        /// When the same cost will pass if nothing else does. Without meaning when it never will.
        retry_after_ms: u64,
        /// The cost is beyond what the limit ever lets pass at once.
        never: bool,
    },
}

impl Gcra {
    /// Whether `cost` units may pass now.
    pub fn check(&self, state: &State, cost: u64, now: Timestamp) -> Verdict {
        let drained = self.drained(state, now);
        let level = u128::from(drained.level) + self.weight(cost);
        let over = level.saturating_sub(self.capacity());
        if over == 0 {
            return Verdict::Ok(State { level: fit(level), ..drained });
        }
        if cost > self.limit || self.limit == 0 {
            return Verdict::Limited { retry_after_ms: self.period_ms, never: true };
        }
        let retry_after_ms = fit(over.div_ceil(u128::from(self.limit)));
        // After a step back of the clock, nothing drains until it has caught up.
        let behind = u64::try_from(drained.at.since_ms(now)).unwrap_or(0);
        Verdict::Limited { retry_after_ms: retry_after_ms.saturating_add(behind), never: false }
    }

    /// The state after giving back units that were reserved and not used.
    pub fn refund(&self, state: &State, unused: u64, now: Timestamp) -> State {
        let drained = self.drained(state, now);
        State { level: drained.level.saturating_sub(fit(self.weight(unused))), ..drained }
    }

    /// The state after units that were used beyond what was reserved: they are counted, even beyond the limit.
    pub fn charge(&self, state: &State, excess: u64, now: Timestamp) -> State {
        let drained = self.drained(state, now);
        State { level: drained.level.saturating_add(fit(self.weight(excess))), ..drained }
    }

    /// Units that may pass now.
    pub fn remaining(&self, state: &State, now: Timestamp) -> u64 {
        let free = self.capacity().saturating_sub(u128::from(self.drained(state, now).level));
        free.checked_div(u128::from(self.period_ms)).map_or(self.limit, fit)
    }

    /// Milliseconds until the whole limit is free again.
    pub fn reset_ms(&self, state: &State, now: Timestamp) -> u64 {
        let level = self.drained(state, now).level;
        if self.limit == 0 { self.period_ms } else { level.div_ceil(self.limit) }
    }

    /// A clock that steps back neither drains nor refills.
    fn drained(&self, state: &State, now: Timestamp) -> State {
        let elapsed_ms = u64::try_from(now.since_ms(state.at)).unwrap_or(0);
        let drain = u128::from(elapsed_ms) * u128::from(self.limit);
        State { at: state.at.max(now), level: state.level.saturating_sub(fit(drain)) }
    }

    fn weight(&self, units: u64) -> u128 {
        u128::from(units) * u128::from(self.period_ms)
    }

    /// Held at what a stored level can be, so that a limit without sense is lower and not endless.
    fn capacity(&self) -> u128 {
        self.weight(self.limit).min(u128::from(u64::MAX))
    }
}

fn fit(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    fn per_minute(limit: u64) -> Gcra {
        Gcra { limit, period_ms: 60_000 }
    }

    /// How many of `attempts` single units pass, one each `every_ms`.
    fn check(gcra: Gcra, attempts: i64, every_ms: i64) -> u64 {
        let mut state = State::default();
        let mut passed = 0;
        for n in 0..attempts {
            if let Verdict::Ok(next) = gcra.check(&state, 1, START.plus_ms(n * every_ms)) {
                (state, passed) = (next, passed + 1);
            }
        }
        passed
    }

    #[test]
    fn a_burst_passes_exactly_up_to_the_limit() {
        for limit in [0, 1, 7, 60, 999] {
            assert_eq!(check(per_minute(limit), 1_500, 0), limit);
        }
    }

    #[test]
    fn a_steady_rate_at_the_limit_always_passes() {
        assert_eq!(check(per_minute(60), 600, 1_000), 600);
        // Ten minutes of twice the rate: the burst, and then the rate.
        assert_eq!(check(per_minute(60), 1_200, 500), 60 + 599);
    }

    #[test]
    fn a_cost_beyond_the_limit_never_passes() {
        let never = Verdict::Limited { retry_after_ms: 60_000, never: true };
        assert_eq!(per_minute(10).check(&State::default(), 11, START), never);
        assert_eq!(per_minute(0).check(&State::default(), 1, START), never);
    }

    #[test]
    fn remaining_and_reset_tell_what_headers_tell() {
        let gcra = per_minute(10);
        let Verdict::Ok(state) = gcra.check(&State::default(), 4, START) else { panic!() };
        let at = |ms| {
            let now = START.plus_ms(ms);
            (gcra.remaining(&state, now), gcra.reset_ms(&state, now))
        };
        assert_eq!(
            [at(0), at(5_999), at(6_000), at(24_000)],
            [(6, 24_000), (6, 18_001), (7, 18_000), (10, 0)]
        );
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let gcra = per_minute(1);
        let Verdict::Ok(state) = gcra.check(&State::default(), 1, START) else { panic!() };
        let earlier = START.plus_ms(-3_600_000);
        let retry_after_ms = 3_600_000 + 60_000;
        assert_eq!(
            gcra.check(&state, 1, earlier),
            Verdict::Limited { retry_after_ms, never: false }
        );
        assert_eq!(gcra.refund(&state, 0, earlier), state);
    }

    #[test]
    fn a_state_survives_storage() {
        let Verdict::Ok(state) = per_minute(7).check(&State::default(), 3, START) else { panic!() };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }

    proptest! {
        #[test]
        fn no_period_ever_passes_more_than_a_burst_and_the_rate(
            limit in 1_u64..50, steps in proptest::collection::vec((0_i64..20_000, 1_u64..10), 1..80),
        ) {
            let gcra = per_minute(limit);
            let (mut state, mut now, mut passed) = (State::default(), START, 0);
            for (wait, cost) in steps {
                now = now.plus_ms(wait);
                if let Verdict::Ok(next) = gcra.check(&state, cost, now) {
                    (state, passed) = (next, passed + cost);
                }
            }
            let elapsed = u64::try_from(now.since_ms(START)).unwrap();
            prop_assert!(passed <= limit + limit * elapsed / 60_000);
        }

        #[test]
        fn what_is_limited_passes_after_the_time_it_was_told_and_not_before(
            limit in 1_u64..1_000, used in 0_u64..1_000, cost in 1_u64..1_000, wait in 0_i64..90_000,
        ) {
            let gcra = per_minute(limit);
            prop_assume!(used <= limit && cost <= limit);
            let Verdict::Ok(state) = gcra.check(&State::default(), used, START) else {
                return Err(TestCaseError::fail("a free limit must pass"));
            };
            let now = START.plus_ms(wait);
            if let Verdict::Limited { retry_after_ms, .. } = gcra.check(&state, cost, now) {
                let passes = |ms: u64| {
                    let later = now.plus_ms(i64::try_from(ms).unwrap());
                    matches!(gcra.check(&state, cost, later), Verdict::Ok(_))
                };
                prop_assert!(passes(retry_after_ms) && !passes(retry_after_ms - 1));
            }
        }

        #[test]
        fn a_refund_makes_the_reservation_as_if_it_had_been_exact(
            reserved in 0_u64..500, used in 0_u64..500, before in 0_u64..500,
        ) {
            prop_assume!(used <= reserved);
            let gcra = per_minute(1_000);
            let take = |state: &State, cost| match gcra.check(state, cost, START) {
                Verdict::Ok(state) => state,
                Verdict::Limited { .. } => *state,
            };
            let state = take(&State::default(), before);
            let refunded = gcra.refund(&take(&state, reserved), reserved - used, START);
            prop_assert_eq!(refunded, take(&state, used));
        }

        #[test]
        fn nothing_overflows(
            limit in any::<u64>(), period_ms in any::<u64>(), cost in any::<u64>(),
            at in any::<i64>(), level in any::<u64>(), now in any::<i64>(),
        ) {
            let (gcra, now) = (Gcra { limit, period_ms }, Timestamp::from_ms(now));
            let state = State { at: Timestamp::from_ms(at), level };
            let _ = gcra.check(&state, cost, now);
            let _ = gcra.refund(&state, cost, now);
            prop_assert!(gcra.remaining(&state, now) <= limit);
            let _ = gcra.reset_ms(&state, now);
        }
    }
}
