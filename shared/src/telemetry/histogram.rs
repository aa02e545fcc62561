//! Histograms with fixed bounds, in integers.

use serde::{Deserialize, Serialize};

/// The bounds of OpenTelemetry's `gen_ai.client.token.usage`: powers of 4.
pub const TOKEN_BOUNDS: [u64; 14] = [
    1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
    67_108_864,
];

/// The bounds of OpenTelemetry's `gen_ai.client.operation.duration`, here in milliseconds: 10 ms and its doubles.
pub const DURATION_BOUNDS_MS: [u64; 14] =
    [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 20_480, 40_960, 81_920];

/// How many observations fell where. A bound belongs to the bucket below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// One for each bound, and one for what is beyond the last.
    pub buckets: [u64; 15],
    /// The sum of all observations.
    pub sum: u64,
}

impl Histogram {
    /// Takes an observation in.
    pub fn observe(&mut self, value: u64, bounds: &[u64; 14]) {
        let place = bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket = bucket.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().copied().fold(0, u64::saturating_add)
    }

    /// Adds another of the same bounds.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.saturating_add(theirs);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// Thousandths as a decimal: milliseconds in seconds.
pub(super) fn seconds(ms: u64) -> String {
    let (whole, rest) = (ms / 1000, ms % 1000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut histogram = Histogram::default();
        for value in [0, 10, 11, 20, 81_920, 81_921] {
            histogram.observe(value, &DURATION_BOUNDS_MS);
        }
        assert_eq!(histogram.buckets, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((histogram.count(), histogram.sum), (6, 163_882));
        let mut twice = histogram;
        twice.add(&histogram);
        assert_eq!((twice.count(), twice.sum), (12, 327_764));
    }

    #[test]
    fn the_bounds_are_the_conventions_own() {
        assert!(TOKEN_BOUNDS.windows(2).all(|pair| pair[1] == pair[0] * 4));
        assert!(DURATION_BOUNDS_MS.windows(2).all(|pair| pair[1] == pair[0] * 2));
    }

    #[test]
    fn milliseconds_are_written_as_seconds() {
        for (ms, text) in [(0, "0"), (10, "0.01"), (1_280, "1.28"), (81_920, "81.92"), (5, "0.005")]
        {
            assert_eq!(seconds(ms), text);
        }
    }
}
