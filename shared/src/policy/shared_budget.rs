//! What a caller hears when a shared budget has no room for a request: spent (402), only set aside (429), or too fast
//! (429).

use crate::budget::lease::wallet::Need;
use crate::budget::lease::{Standing, Units};
use crate::budget::terms::{BudgetTerms, LineKind};
use crate::money::Usd;
use crate::policy::refusal::{BudgetRef, Refusal};
use crate::time::Timestamp;

/// How soon a caller may try again when only holds, leases or slots stand in the way: about one answer's length.
const HELD_RETRY_AFTER_MS: u64 = 1_000;

/// Whether the Budget, as it last described this line, could give what a request lacks. If not, asking it again at once
/// is of no use: it has recalled what it could.
pub fn is_denied(line: &str, units: Units, standing: &Standing) -> bool {
    match LineKind::of(line) {
        Some(LineKind::Requests | LineKind::Tokens) => standing.retry_after_ms > 0,
        _ => standing.remaining() < units,
    }
}

/// The refusal of a request that lacks `need`. `value` is what it counts under in the budget called `name`.
pub fn refusal_of(
    name: &str,
    value: &str,
    terms: &BudgetTerms,
    need: &Need,
    standing: &Standing,
    now: Timestamp,
) -> Refusal {
    let budget = Some(BudgetRef {
        name: name.to_owned(),
        dimension: terms.scope.dimension.name().to_owned(),
        value: value.to_owned(),
    });
    let limited = |unit: &str, limit: Option<u64>, retry_after_ms: u64| Refusal::RateLimited {
        budget: budget.clone(),
        unit: unit.to_owned(),
        limit: limit.unwrap_or(0),
        retry_after_ms: retry_after_ms.max(1),
    };
    match LineKind::of(&need.line) {
        Some(LineKind::Requests) => {
            limited("requests_per_minute", terms.requests_per_minute, standing.retry_after_ms)
        }
        Some(LineKind::Tokens) => {
            limited("tokens_per_minute", terms.tokens_per_minute, standing.retry_after_ms)
        }
        Some(LineKind::Slots) => {
            limited("concurrent_requests", terms.max_concurrency, HELD_RETRY_AFTER_MS)
        }
        Some(LineKind::Money | LineKind::Worst) | None => {
            let window = terms.window.name().to_owned();
            let (cap, spent) = (Usd::from_nanos(standing.limit), Usd::from_nanos(standing.spent));
            // What lies with others as a lease is in the way as much as what they hold.
            let (held, hold) = (Usd::from_nanos(standing.leased), Usd::from_nanos(need.units));
            if standing.spent.saturating_add(need.units) > standing.limit {
                let resets_at = terms.calendar().end(terms.window, now);
                Refusal::BudgetExceeded { budget, window, cap, spent, held, hold, resets_at }
            } else {
                let retry_after_ms = HELD_RETRY_AFTER_MS;
                Refusal::BudgetHeld { budget, window, cap, spent, held, hold, retry_after_ms }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> BudgetTerms {
        serde_json::from_value(serde_json::json!({
            "scope": { "dimension": "team", "value": "*" }, "owner": "o", "limit_usd": "1", "window": "day",
            "requests_per_minute": 60, "max_concurrency": 2
        }))
        .unwrap()
    }

    fn refusal(line: &str, units: Units, standing: Standing) -> Refusal {
        let need = Need { account: "ws_a/b/search".into(), line: line.into(), units };
        let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        refusal_of("b", "search", &terms(), &need, &standing, now)
    }

    #[test]
    fn spent_money_is_402_and_money_that_is_only_set_aside_429() {
        let standing =
            Standing { limit: 1_000, spent: 600, held: 100, leased: 350, retry_after_ms: 0 };
        let held = refusal("usd:day:2026-11-20", 400, standing);
        assert_eq!((held.code(), held.retry_after_ms()), ("budget_held", Some(1_000)));
        let spent = refusal("usd:day:2026-11-20", 401, standing);
        assert_eq!((spent.code(), spent.retry_after_ms()), ("budget_exceeded", None));
        assert_eq!(spent.facts()["resets_at"], "2026-11-21T00:00:00.000Z");
        assert_eq!(
            spent.facts()["budget"],
            serde_json::json!({ "name": "b", "dimension": "team", "value": "search" })
        );
        assert!(spent.to_string().contains("`b` (team search)"), "{spent}");
    }

    #[test]
    fn a_rate_says_when_it_passes_again() {
        let standing =
            Standing { limit: 60, spent: 60, retry_after_ms: 750, ..Standing::default() };
        let limited = refusal("requests", 1, standing);
        assert_eq!((limited.code(), limited.retry_after_ms()), ("rate_limited", Some(750)));
        assert!(is_denied("requests", 1, &standing));
        assert!(!is_denied("requests", 1, &Standing { retry_after_ms: 0, ..standing }));
        let slots = refusal("slots", 1, Standing { limit: 2, leased: 2, ..Standing::default() });
        assert_eq!((slots.code(), slots.retry_after_ms()), ("rate_limited", Some(1_000)));
    }

    #[test]
    fn what_fits_into_what_remains_is_not_denied() {
        let standing =
            Standing { limit: 1_000, spent: 600, held: 0, leased: 100, retry_after_ms: 0 };
        assert!(!is_denied("usd:day:x", 300, &standing));
        assert!(is_denied("usd:day:x", 301, &standing));
    }
}
