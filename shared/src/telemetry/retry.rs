//! What a collector's answer means for an export, and when the next attempt is made.

use crate::time::Timestamp;

/// The first wait; each further one is twice as long.
const FIRST_WAIT_MS: i64 = 1_000;
/// The longest wait of the gateway's own choosing.
const LONGEST_WAIT_MS: i64 = 5 * 60_000;
/// The longest wait that a collector may ask for: beyond it, it is looked after anyway.
const LONGEST_ASKED_WAIT_MS: i64 = 60 * 60_000;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took the export, or a part of it: no repetition.
    Taken,
    /// It may take the same later: 429, 502, 503, 504, or no answer.
    Later,
    /// It takes nothing from this sender as things are configured: 401, 403, 404, 405, or a redirect. The export is not
    /// the reason, so it waits for the configuration; the attempts go on at the slowest pace.
    Misconfigured,
    /// It will never take this: every other status. OTLP forbids to repeat it.
    Never,
}

/// What a status says; `None` when there was no answer.
pub const fn verdict(status: Option<u16>) -> Verdict {
    match status {
        Some(200..=299) => Verdict::Taken,
        None | Some(429 | 502 | 503 | 504) => Verdict::Later,
        Some(300..=399 | 401 | 403 | 404 | 405) => Verdict::Misconfigured,
        Some(_) => Verdict::Never,
    }
}

/// When to try again after `failures` attempts in a row, the last at `now`. The wait is between half and all of an
/// exponential one, so that gateways that failed together do not come back together; never before what the collector
/// asked for in `Retry-After` (seconds).
pub fn next_attempt(
    verdict: Verdict,
    failures: u32,
    retry_after: Option<&str>,
    random: u32,
    now: Timestamp,
) -> Timestamp {
    let doubled = FIRST_WAIT_MS.saturating_mul(1_i64 << failures.saturating_sub(1).min(20));
    let ceiling = match verdict {
        Verdict::Misconfigured => LONGEST_WAIT_MS,
        _ => doubled.min(LONGEST_WAIT_MS),
    };
    let half = ceiling / 2;
    let own = half + i64::from(random) % (half + 1);
    let asked = retry_after
        .and_then(|text| text.trim().parse::<i64>().ok())
        .map_or(0, |seconds| seconds.saturating_mul(1_000).clamp(0, LONGEST_ASKED_WAIT_MS));
    now.plus_ms(own.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_otlp_calls_retryable_is_repeated() {
        for (status, expected) in [
            (Some(200), Verdict::Taken),
            (Some(202), Verdict::Taken),
            (Some(429), Verdict::Later),
            (Some(502), Verdict::Later),
            (Some(503), Verdict::Later),
            (Some(504), Verdict::Later),
            (None, Verdict::Later),
            (Some(301), Verdict::Misconfigured),
            (Some(401), Verdict::Misconfigured),
            (Some(404), Verdict::Misconfigured),
            (Some(400), Verdict::Never),
            (Some(413), Verdict::Never),
            (Some(500), Verdict::Never),
            (Some(501), Verdict::Never),
        ] {
            assert_eq!(verdict(status), expected, "{status:?}");
        }
    }

    #[test]
    fn waits_double_up_to_five_minutes_with_jitter() {
        let now = Timestamp::from_ms(1_000_000);
        let wait = |failures, random| {
            next_attempt(Verdict::Later, failures, None, random, now).since_ms(now)
        };
        assert_eq!((wait(1, 0), wait(1, 500)), (500, 1_000));
        assert_eq!((wait(2, 0), wait(2, 1_000)), (1_000, 2_000));
        assert_eq!((wait(9, 0), wait(9, 128_000)), (128_000, 256_000));
        assert_eq!((wait(40, 0), wait(u32::MAX, 150_000)), (150_000, 300_000));
        for random in [0, 1, 77, u32::MAX] {
            assert!((500..=1_000).contains(&wait(1, random)));
        }
        let slow = next_attempt(Verdict::Misconfigured, 1, None, 0, now);
        assert_eq!(slow.since_ms(now), 150_000);
    }

    #[test]
    fn what_a_collector_asks_for_is_the_least() {
        let now = Timestamp::from_ms(0);
        for (asked, waited) in [
            ("120", 120_000),
            ("0", 500),
            ("-5", 500),
            ("soon", 500),
            ("999999999999", 3_600_000),
            ("9223372036854775807", 3_600_000),
        ] {
            let at = next_attempt(Verdict::Later, 1, Some(asked), 0, now);
            assert_eq!(at.ms(), waited, "{asked}");
        }
    }
}
