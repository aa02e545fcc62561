//! A hold: what is set aside for one request in flight, and what remains of it as money when the request ends.

use serde::{Deserialize, Serialize};

use crate::events::usage_event::Outcome;
use crate::ids::RequestId;
use crate::money::Usd;
use crate::time::Timestamp;

/// The longest that a request may take before its hold is settled without it: 15 minutes. Providers cut requests off
/// after 10; the rest is for retries and for a slow reader.
pub const HOLD_LIFETIME_MS: i64 = 15 * 60 * 1000;

/// Money, tokens and a concurrency slot set aside for one request. Settled, released or expired: one of them, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The request.
    pub id: RequestId,
    /// When it was admitted.
    pub at: Timestamp,
    /// When it is settled at its full amount, if nobody settled it before.
    pub expires_at: Timestamp,
    /// The money.
    pub amount: Usd,
    /// The tokens counted against tokens per minute.
    pub tokens: u64,
}

/// What a request is charged when it ends, by what is known of it.
///
/// A cost that is known is charged, even above the hold: the provider has spent it already. Where something was bought
/// and its cost is not known, the hold is charged, never nothing. Where the provider gave no answer, nothing was.
pub fn charge(outcome: Outcome, cost: Option<Usd>, hold: Usd) -> Usd {
    match outcome {
        Outcome::Refused | Outcome::ProviderUnreachable | Outcome::Interrupted => Usd::ZERO,
        Outcome::ProviderError | Outcome::GatewayError => cost.unwrap_or(Usd::ZERO),
        Outcome::Completed
        | Outcome::ProviderDied
        | Outcome::Stalled
        | Outcome::ClientGone
        | Outcome::Abandoned => cost.unwrap_or(hold),
    }
}
