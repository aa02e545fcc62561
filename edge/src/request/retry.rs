//! When to try again, and where. Pure: the random draw is an argument.

/// The longest wait that is worth it at the same target: callers' own time-outs are near.
const MAX_WAIT_MS: u64 = 10_000;
/// The first wait; it doubles with each try.
const FIRST_WAIT_MS: u64 = 250;

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Wait, then ask the same target again.
    SameTarget {
        /// How long.
        wait_ms: u64,
    },
    /// Ask the next target at once.
    NextTarget,
    /// The caller gets what the provider answered.
    GiveUp,
}

/// Whether a status says "not now" and not "not so": too many requests, and failures of the server.
pub const fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 520..=524 | 529)
}

/// What to do after the `tries`-th attempt at a target failed, of `attempts` allowed. A provider that names a wait is
/// believed; one that names a long wait is left alone.
pub fn next_wait(
    tries: u32,
    attempts: u32,
    retry_after_ms: Option<u64>,
    more_targets: bool,
    draw: u64,
) -> Retry {
    let patient = retry_after_ms.is_none_or(|wait| wait <= MAX_WAIT_MS);
    if tries < attempts && patient {
        let ceiling =
            FIRST_WAIT_MS.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(MAX_WAIT_MS);
        // Half of the wait is fixed and half is drawn, so that callers who failed together do not return together.
        let jittered = ceiling / 2 + draw.rotate_left(tries) % (ceiling / 2 + 1);
        return Retry::SameTarget { wait_ms: retry_after_ms.map_or(jittered, |wait| wait.max(1)) };
    }
    if more_targets { Retry::NextTarget } else { Retry::GiveUp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_retry_after_moves_on_to_the_next_target_or_to_the_caller() {
        assert_eq!(next_wait(1, 3, Some(60_000), true, 0), Retry::NextTarget);
        assert_eq!(next_wait(1, 3, Some(60_000), false, 0), Retry::GiveUp);
        assert_eq!(next_wait(1, 3, Some(2_000), true, 0), Retry::SameTarget { wait_ms: 2_000 });
        assert_eq!(next_wait(3, 3, None, false, 0), Retry::GiveUp);
        assert_eq!(next_wait(3, 3, Some(1), true, 0), Retry::NextTarget);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [408, 429, 500, 502, 503, 504, 529] {
            assert!(is_retryable(status), "{status}");
        }
        for status in [200, 301, 400, 401, 402, 403, 404, 409, 413, 422, 501] {
            assert!(!is_retryable(status), "{status}");
        }
    }

    proptest! {
        #[test]
        fn waits_are_never_longer_than_the_ceiling(tries in 1_u32..50, attempts in 0_u32..50, draw in any::<u64>()) {
            if let Retry::SameTarget { wait_ms } = next_wait(tries, attempts, None, false, draw) {
                prop_assert!((FIRST_WAIT_MS / 2..=MAX_WAIT_MS).contains(&wait_ms));
                prop_assert!(tries < attempts);
            }
        }
    }
}
