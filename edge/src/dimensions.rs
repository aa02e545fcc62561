//! The names by which requests are grouped and filtered, each list once.

/// Whom a request belongs to, as its key and its actor say: what usage, outcomes and true-ups have in common.
pub const OWNER_DIMENSIONS: [&str; 10] = [
    "key",
    "owner",
    "cost_centre",
    "environment",
    "user",
    "team",
    "app",
    "feature",
    "agent",
    "customer",
];

/// What usage can be grouped and requests filtered by. Each is a column of the Ledger, and a rollup is stored under
/// their values in this order: it is never changed.
pub const DIMENSIONS: [&str; 16] = [
    "key",
    "owner",
    "cost_centre",
    "purpose",
    "environment",
    "user",
    "team",
    "app",
    "feature",
    "agent",
    "customer",
    "actor_environment",
    "provider",
    "model",
    "outcome",
    "code",
];

/// What can have a budget: all of them but how a request ended.
pub const BUDGET_DIMENSIONS: &[&str] = DIMENSIONS.split_at(14).0;

/// What refusals can be grouped and filtered by: they reached no provider.
pub const REFUSAL_DIMENSIONS: [&str; 13] = join(DIMENSIONS.split_at(12).0, &["code"]);

/// What outcomes can be grouped and filtered by, with the column of each.
pub const OUTCOME_DIMENSIONS: [&str; 12] = join(&OWNER_DIMENSIONS, &["actor_environment", "label"]);

/// What the owner of a true-up's line has. `unmetered` is usage that the gateway never saw.
pub const TRUE_UP_OWNER_DIMENSIONS: [&str; 11] = join(&OWNER_DIMENSIONS, &["unmetered"]);

/// What true-ups can be grouped and filtered by, beside their owners.
pub const TRUE_UP_DIMENSIONS: [&str; 5] = ["day", "provider", "model", "meter", "kind"];

/// Two lists as one, at compile time.
pub const fn join<const N: usize>(
    first: &[&'static str],
    second: &[&'static str],
) -> [&'static str; N] {
    assert!(first.len() + second.len() == N, "the lists have another length");
    let mut all = [""; N];
    let (mut from, mut then) = (first, second);
    let mut left = all.as_mut_slice();
    while let Some((to, rest)) = left.split_first_mut() {
        if let Some((name, others)) = from.split_first() {
            *to = name;
            from = others;
        } else if let Some((name, others)) = then.split_first() {
            *to = name;
            then = others;
        }
        left = rest;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_joined_in_order() {
        assert_eq!(join::<3>(&["a"], &["b", "c"]), ["a", "b", "c"]);
        assert_eq!(OUTCOME_DIMENSIONS.last(), Some(&"label"));
    }

    #[test]
    fn usage_and_budgets_are_by_owners_too() {
        assert_eq!(DIMENSIONS.strip_prefix(BUDGET_DIMENSIONS), Some(&["outcome", "code"][..]));
        assert!(OWNER_DIMENSIONS.iter().all(|name| DIMENSIONS.contains(name)));
    }
}
