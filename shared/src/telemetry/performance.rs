//! How a model does: what its requests took, how they ended, and what they used. Sums that add up, from usage events.

use serde::{Deserialize, Serialize};

use crate::events::usage_event::{Attempt, Outcome, UsageEvent};
use crate::money::Usd;
use crate::telemetry::latency::Latencies;
use crate::tokens::Tokens;

/// The sums of a group of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Performance {
    /// Requests, refused ones included.
    pub requests: u64,
    /// Those answered to the last byte.
    pub completed: u64,
    /// Those that failed at the provider, on the way or in the gateway.
    pub errors: u64,
    /// Those whose caller went away.
    pub client_gone: u64,
    /// Those refused before any money was spent.
    pub refused: u64,
    /// Attempts, also of requests that another model answered in the end.
    pub attempts: u64,
    /// Those of them that failed.
    pub failed_attempts: u64,
    /// Those of them that followed another attempt of the same request.
    pub retries: u64,
    /// Tokens by bucket.
    pub tokens: Tokens,
    /// What they cost by the prices.
    pub cost: Usd,
    /// What was charged.
    pub charged: Usd,
    /// Milliseconds to the last byte, of completed requests.
    #[serde(skip_serializing_if = "Latencies::is_empty")]
    pub latency: Latencies,
    /// Milliseconds to the first byte, of completed streams.
    #[serde(skip_serializing_if = "Latencies::is_empty")]
    pub first_byte: Latencies,
}

impl Performance {
    /// Takes a request in; its attempts go to [`Performance::attempt`] of whom they were made at.
    pub fn observe(&mut self, event: &UsageEvent) {
        let many = event.sampled;
        let class = match event.outcome {
            // It stands for requests that are not known.
            Outcome::Interrupted => None,
            Outcome::Completed => Some(&mut self.completed),
            Outcome::Refused => Some(&mut self.refused),
            Outcome::ClientGone => Some(&mut self.client_gone),
            Outcome::ProviderError
            | Outcome::ProviderUnreachable
            | Outcome::ProviderDied
            | Outcome::Stalled
            | Outcome::GatewayError
            | Outcome::Abandoned => Some(&mut self.errors),
        };
        if let Some(class) = class {
            *class = class.saturating_add(many);
            self.requests = self.requests.saturating_add(many);
        }
        if let Some(tally) = event.usage.tally() {
            self.tokens.add(&tally.tokens);
        }
        let cost = event.cost.as_ref().map_or(Usd::ZERO, |cost| cost.total);
        self.cost = self.cost.saturating_add(cost);
        self.charged = self.charged.saturating_add(event.charged);
        if event.outcome == Outcome::Completed {
            self.latency.observe(event.duration_ms);
            if let (true, Some(ms)) = (event.stream, event.first_byte_ms) {
                self.first_byte.observe(ms);
            }
        }
    }

    /// Takes an attempt in, the `place`th of its request.
    pub fn attempt(&mut self, attempt: &Attempt, place: usize) {
        let failed = attempt.error.is_some() || attempt.status.is_some_and(|status| status >= 400);
        self.attempts = self.attempts.saturating_add(1);
        self.failed_attempts = self.failed_attempts.saturating_add(u64::from(failed));
        self.retries = self.retries.saturating_add(u64::from(place > 0));
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.requests, other.requests),
            (&mut self.completed, other.completed),
            (&mut self.errors, other.errors),
            (&mut self.client_gone, other.client_gone),
            (&mut self.refused, other.refused),
            (&mut self.attempts, other.attempts),
            (&mut self.failed_attempts, other.failed_attempts),
            (&mut self.retries, other.retries),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.tokens.add(&other.tokens);
        self.cost = self.cost.saturating_add(other.cost);
        self.charged = self.charged.saturating_add(other.charged);
        self.latency.add(&other.latency);
        self.first_byte.add(&other.first_byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::counters::tests::{event, refusal};
    use serde_json::json;

    #[test]
    fn a_request_counts_once_by_how_it_ended() {
        let mut sums = Performance::default();
        for outcome in [
            "completed",
            "provider_error",
            "provider_unreachable",
            "provider_died",
            "stalled",
            "gateway_error",
            "abandoned",
            "client_gone",
            "interrupted",
        ] {
            sums.observe(&event(json!({ "outcome": outcome })));
        }
        sums.observe(&refusal("rate_limited", 40));
        assert_eq!((sums.requests, sums.completed, sums.errors), (48, 1, 6));
        assert_eq!((sums.client_gone, sums.refused), (1, 40));
        assert_eq!((sums.latency.count(), sums.first_byte.count()), (1, 1));
    }

    #[test]
    fn the_first_byte_is_that_of_a_stream() {
        let mut sums = Performance::default();
        sums.observe(&event(json!({ "stream": true, "first_byte_ms": 12 })));
        sums.observe(&event(json!({ "stream": false, "first_byte_ms": 900 })));
        assert_eq!(sums.first_byte.percentile(5_000), Some(12));
    }

    #[test]
    fn halves_add_up_to_the_whole() {
        let events = [
            event(json!({ "duration_ms": 5 })),
            event(json!({ "outcome": "stalled" })),
            refusal("budget_exceeded", 3),
        ];
        let attempt: Attempt = serde_json::from_value(
            json!({ "provider": "p", "model": "m", "status": 503, "started_ms": 0, "took_ms": 1 }),
        )
        .unwrap();
        let (mut whole, mut half, mut other) = Default::default();
        for (at, event) in events.iter().enumerate() {
            Performance::observe(&mut whole, event);
            Performance::observe(if at == 0 { &mut half } else { &mut other }, event);
        }
        whole.attempt(&attempt, 0);
        whole.attempt(&attempt, 1);
        half.attempt(&attempt, 0);
        other.attempt(&attempt, 1);
        half.add(&other);
        assert_eq!(half, whole);
        assert_eq!((whole.attempts, whole.failed_attempts, whole.retries), (2, 2, 1));
        let back: Performance =
            serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(back, whole);
    }
}
