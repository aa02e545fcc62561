//! What requests usually cost of their worst case: learned per model, for budgets in mode `expected`.
//!
//! A histogram of actual / worst case in 64 steps. What is set aside is its 95 % quantile, rounded up to the step's end,
//! and the worst case as long as little is known. The counts are halved now and then, so that the past fades. A wrong
//! expectation costs no money: the budget's line of worst cases bounds what it can do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::money::Usd;

/// Steps of the histogram.
const STEPS: usize = 64;
/// As many requests must be known before anything is expected of the next one.
const ENOUGH: u32 = 20;
/// From here on the counts are halved: the last few thousand requests decide.
const FADES_AT: u32 = 4_096;
/// The part of the requests that costs no more than what is set aside: 95 of 100.
const QUANTILE: (u32, u32) = (95, 100);
/// Models that a key's expectations know; the least used one goes.
const MODELS: usize = 64;

/// The expectations of one key, by model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expectations {
    models: BTreeMap<String, Histogram>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Histogram {
    counts: Vec<u32>,
}

impl Histogram {
    fn total(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn learn(&mut self, step: usize) {
        self.counts.resize(STEPS, 0);
        if let Some(count) = self.counts.get_mut(step) {
            *count = count.saturating_add(1);
        }
        if self.total() >= FADES_AT {
            for count in &mut self.counts {
                *count /= 2;
            }
        }
    }

    /// The end of the step in which the quantile lies, in 64ths; `None` while too little is known.
    fn quantile(&self) -> Option<u32> {
        let total = self.total();
        if total < ENOUGH {
            return None;
        }
        let wanted = total.saturating_mul(QUANTILE.0).div_ceil(QUANTILE.1);
        let mut seen: u32 = 0;
        for (end, count) in (1..).zip(&self.counts) {
            seen = seen.saturating_add(*count);
            if seen >= wanted {
                return Some(end);
            }
        }
        None
    }
}

impl Expectations {
    /// What to set aside for a request of `model` whose worst case is `worst`.
    pub fn expected(&self, model: &str, worst: Usd) -> Usd {
        let Some(step) = self.models.get(model).and_then(Histogram::quantile) else { return worst };
        let steps = i128::from(u32::try_from(STEPS).unwrap_or(u32::MAX));
        let part = worst.pico().saturating_mul(i128::from(step)).div_euclid(steps);
        Usd::from_pico(part.saturating_add(1)).min(worst)
    }

    /// A request of `model` cost `actual`.
    pub fn learn(&mut self, model: &str, worst: Usd, actual: Usd) {
        if worst <= Usd::ZERO {
            return;
        }
        if !self.models.contains_key(model) && self.models.len() >= MODELS {
            let least = self.models.iter().min_by_key(|(_, known)| known.total());
            if let Some(name) = least.map(|(name, _)| name.clone()) {
                self.models.remove(&name);
            }
        }
        let steps = i128::try_from(STEPS).unwrap_or(i128::MAX);
        let step = actual.pico().max(0).saturating_mul(steps).div_euclid(worst.pico());
        let step = usize::try_from(step).unwrap_or(STEPS).min(STEPS - 1);
        self.models.entry(model.to_owned()).or_default().learn(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanos(amount: i64) -> Usd {
        Usd::from_nanos(amount)
    }

    #[test]
    fn little_knowledge_expects_the_worst() {
        let mut known = Expectations::default();
        for _ in 0..19 {
            known.learn("m", nanos(1_000), nanos(10));
        }
        assert_eq!(known.expected("m", nanos(1_000)), nanos(1_000));
        known.learn("m", nanos(1_000), nanos(10));
        // 10 of 1,000 is in the first of 64 steps.
        assert_eq!(known.expected("m", nanos(64_000)), Usd::from_pico(1_000_001));
        assert_eq!(known.expected("another", nanos(64_000)), nanos(64_000));
    }

    #[test]
    fn a_rare_dear_request_does_not_decide_and_a_frequent_one_does() {
        let mut known = Expectations::default();
        for i in 0..100 {
            known.learn("m", nanos(1_000), if i % 25 == 0 { nanos(990) } else { nanos(10) });
        }
        assert!(known.expected("m", nanos(1_000)) < nanos(20));
        for _ in 0..20 {
            known.learn("m", nanos(1_000), nanos(990));
        }
        assert_eq!(known.expected("m", nanos(1_000)), nanos(1_000));
    }

    proptest! {
        #[test]
        fn at_least_95_of_100_requests_cost_no_more_than_is_expected(
            costs in proptest::collection::vec(0_i64..=1_000_000, 20..400),
        ) {
            let mut known = Expectations::default();
            for cost in &costs {
                known.learn("m", nanos(1_000_000), nanos(*cost));
            }
            let expected = known.expected("m", nanos(1_000_000));
            prop_assert!(expected <= nanos(1_000_000));
            let covered = costs.iter().filter(|cost| nanos(**cost) <= expected).count();
            prop_assert!(covered * 100 >= costs.len() * 95, "{covered} of {}", costs.len());
        }

        #[test]
        fn memory_stays_bounded(models in proptest::collection::vec("[a-z]{1,3}", 0..300)) {
            let mut known = Expectations::default();
            for model in &models {
                known.learn(model, nanos(10), nanos(5));
            }
            prop_assert!(known.models.len() <= MODELS);
        }
    }
}
