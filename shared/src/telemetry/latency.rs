//! Latencies as a histogram whose buckets grow with the value, in integers.
//!
//! Up to 15 ms each millisecond has its bucket. Beyond, each power of two is cut into eight, so a bucket is at most an
//! eighth of its own lower bound wide, and its middle is within 1/16 (6.25 %) of every value in it. So is a percentile
//! that is read from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest deviation of a percentile, in basis points of the true value.
pub const ERROR_BASIS_POINTS: u64 = 625;
/// Eight parts of each power of two.
const PART_BITS: u32 = 3;
const PARTS: u64 = 1 << PART_BITS;
/// Longer is counted as so long: 2^24 ms are four and a half hours.
const LONGEST_MS: u64 = (1 << 24) - 1;

/// How many observations fell where; only buckets that have some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies(BTreeMap<u8, u64>);

impl Latencies {
    /// Takes an observation in.
    pub fn observe(&mut self, ms: u64) {
        let bucket = self.0.entry(place(ms)).or_default();
        *bucket = bucket.saturating_add(1);
    }

    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        for (place, count) in &other.0 {
            let bucket = self.0.entry(*place).or_default();
            *bucket = bucket.saturating_add(*count);
        }
    }

    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.0.values().copied().fold(0, u64::saturating_add)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that so many basis points of the observations do not exceed, within [`ERROR_BASIS_POINTS`]; `None` of
    /// nothing.
    pub fn percentile(&self, basis_points: u64) -> Option<u64> {
        let rank = u128::from(self.count()).saturating_mul(u128::from(basis_points));
        let rank = rank.div_ceil(10_000).max(1);
        let mut seen = 0_u128;
        self.0.iter().find_map(|(place, count)| {
            seen = seen.saturating_add(u128::from(*count));
            (seen >= rank).then(|| middle(*place))
        })
    }
}

fn place(ms: u64) -> u8 {
    let ms = ms.min(LONGEST_MS);
    let octave = ms.checked_ilog2().unwrap_or_default();
    let shift = octave.saturating_sub(PART_BITS);
    // The leading bit and the three behind it are 8 to 15; below 16 they are the value itself.
    let place = u64::from(shift).saturating_mul(PARTS).saturating_add(ms >> shift);
    u8::try_from(place).unwrap_or(u8::MAX)
}

fn middle(place: u8) -> u64 {
    let place = u64::from(place);
    let shift = (place / PARTS).saturating_sub(1);
    let lower = place.saturating_sub(shift.saturating_mul(PARTS)) << shift;
    lower.saturating_add((1_u64 << shift) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_values_are_exact_and_places_grow_with_values() {
        for ms in 0..16 {
            assert_eq!(middle(place(ms)), ms);
        }
        let places: Vec<u8> = (0..5_000).map(place).collect();
        assert!(places.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 1));
        assert_eq!(place(u64::MAX), place(LONGEST_MS));
        assert!(place(LONGEST_MS) < u8::MAX);
    }

    #[test]
    fn of_nothing_there_is_no_percentile() {
        assert_eq!(Latencies::default().percentile(5_000), None);
    }

    #[test]
    fn what_is_stored_is_short_and_stays_so() {
        let mut latencies = Latencies::default();
        [3, 3, 100, 1_000].into_iter().for_each(|ms| latencies.observe(ms));
        let text = serde_json::to_string(&latencies).unwrap();
        assert_eq!(text, r#"{"3":2,"36":1,"63":1}"#);
        assert_eq!(serde_json::from_str::<Latencies>(&text).unwrap(), latencies);
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_its_error(
            mut values in proptest::collection::vec(0_u64..2_000_000, 1..60),
            cut in 0_usize..60,
            points in 1_u64..=10_000,
        ) {
            let (mut all, mut rest) = (Latencies::default(), Latencies::default());
            for (at, ms) in values.iter().enumerate() {
                if at < cut { all.observe(*ms) } else { rest.observe(*ms) }
            }
            all.add(&rest);
            values.sort_unstable();
            let rank = (values.len() as u64 * points).div_ceil(10_000).max(1);
            let exact = values[rank as usize - 1];
            let read = all.percentile(points).unwrap();
            prop_assert!(read.abs_diff(exact) * 10_000 <= exact * ERROR_BASIS_POINTS, "{exact} read as {read}");
        }
    }
}
