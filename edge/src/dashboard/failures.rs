//! Failed sign-ins of late, by where they come from. An isolate knows its own: this slows a guesser down, and a token is
//! too long to be guessed at any speed.

use std::collections::BTreeMap;

use tallygate_shared::time::Timestamp;

const WINDOW_MS: i64 = 5 * 60_000;
const TRIES: u32 = 10;
/// Addresses remembered. Beyond them nobody is slowed down: that is better than to lock everybody out.
const ADDRESSES: usize = 4_096;

/// The failures.
#[derive(Debug, Default)]
pub struct Failures {
    since: BTreeMap<String, (Timestamp, u32)>,
}

impl Failures {
    /// Whether this address may try.
    pub fn may_try(&self, address: &str, now: Timestamp) -> bool {
        self.since
            .get(address)
            .is_none_or(|(since, count)| *count < TRIES || now.since_ms(*since) >= WINDOW_MS)
    }

    /// A try failed.
    pub fn note(&mut self, address: &str, now: Timestamp) {
        self.since.retain(|_, (since, _)| now.since_ms(*since) < WINDOW_MS);
        if self.since.len() < ADDRESSES || self.since.contains_key(address) {
            self.since.entry(address.to_owned()).or_insert((now, 0)).1 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_in_five_minutes_are_the_last() {
        let (mut failures, at) = (Failures::default(), Timestamp::from_ms);
        for _ in 0..TRIES {
            assert!(failures.may_try("a", at(0)));
            failures.note("a", at(0));
        }
        assert!(!failures.may_try("a", at(WINDOW_MS - 1)));
        assert!(failures.may_try("b", at(0)));
        assert!(failures.may_try("a", at(WINDOW_MS)));
        failures.note("a", at(WINDOW_MS));
        assert!(failures.may_try("a", at(WINDOW_MS)));
    }
}
