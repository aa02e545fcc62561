//! The one table from a refusal to its HTTP status. Clients retry 429 and 5xx, and nothing else: so a limit that time
//! lifts is a 429 with `Retry-After`, and spent money is a 402 without.

use tallygate_shared::policy::refusal::Refusal;

/// The status of a refusal.
pub fn status_of(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::KeyInvalid => 401,
        Refusal::KeyRevoked | Refusal::KeySuspended | Refusal::KeyExpired { .. } => 401,
        Refusal::Actor { .. } => 401,
        Refusal::BadRequest { code, .. } => match code.as_str() {
            "request_too_large" => 413,
            "unsupported_media_type" => 415,
            "request_timeout" => 408,
            "not_found" | "request_not_found" => 404,
            "outcomes_full" => 409,
            _ => 400,
        },
        Refusal::AddressNotAllowed { .. }
        | Refusal::ActorClaimMissing { .. }
        | Refusal::ModelNotAllowed { .. }
        | Refusal::FloatingAlias { .. } => 403,
        Refusal::RequestTooLarge { .. } => 413,
        Refusal::ModelNotFound { .. } => 404,
        Refusal::ModelUnpriced { .. }
        | Refusal::OutputLimitExceeded { .. }
        | Refusal::RequestCostExceeded { .. } => 400,
        Refusal::RateLimited { .. } | Refusal::BudgetHeld { .. } | Refusal::LoopDetected { .. } => {
            429
        }
        Refusal::BudgetExceeded { .. } => 402,
    }
}
