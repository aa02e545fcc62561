//! The lease protocol under everything that a network, a clock and a power cut can do to it, by seed and without a clock
//! of its own.
//!
//! `make simulate` runs it with `STEPS=` and `SEED=`. The machines under test are the real ones; this module plays the
//! network, the storage, the providers and the clocks, and keeps the truth beside them: what each request cost, and
//! whether it was settled. After each step the truth is compared with what the machines believe (`checks.rs`).

mod checks;
mod nodes;
mod runs;
mod world;

/// Random numbers by seed: SplitMix64, which passes the usual tests and is three lines.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True once in `n`.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A place in a list of this length.
    pub(crate) fn pick(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}
