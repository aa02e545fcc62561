//! What a shared budget must be like.

use tallygate_shared::budget::calendar::LAST_FISCAL_START;
use tallygate_shared::budget::terms::{BudgetTerms, CapAction, Dimension, EACH, Mode, Raise};
use tallygate_shared::budget::window::Window;
use tallygate_shared::money::Usd;

use super::problem::Problem;
use super::validate::{MAX_COUNT, check_text};

/// Thresholds of one budget.
const MAX_THRESHOLDS: usize = 10;

/// Checks one budget; `at` is its path in the configuration.
pub(super) fn validate_budget(at: &str, terms: &BudgetTerms) -> Result<(), Problem> {
    let field = |name: &str| format!("{at}.{name}");
    check_text(&field("owner"), &terms.owner)?;
    if terms.scope.dimension == Dimension::Workspace && terms.scope.value != EACH {
        let remedy = "Leave `value` out: a workspace has one.";
        return Err(Problem::field(&field("scope.value"), "cannot be chosen", remedy));
    }
    check_text(&field("scope.value"), &terms.scope.value)?;
    let limits = [
        ("requests_per_minute", terms.requests_per_minute),
        ("tokens_per_minute", terms.tokens_per_minute),
        ("max_concurrency", terms.max_concurrency),
    ];
    for (name, limit) in limits {
        if limit.is_some_and(|limit| !(1..=MAX_COUNT).contains(&limit)) {
            let remedy = "Leave it out for no limit.";
            return Err(Problem::field(
                &field(name),
                "must be from 1 to 1,000,000,000,000",
                remedy,
            ));
        }
    }
    let Some(limit) = terms.limit_usd else {
        return without_limit(at, terms, &limits);
    };
    check_amount(&field("limit_usd"), limit)?;
    if !(1..=LAST_FISCAL_START).contains(&terms.fiscal_month_start_day) {
        let remedy = "Choose a day that every month has.";
        return Err(Problem::field(
            &field("fiscal_month_start_day"),
            "must be from 1 to 28",
            remedy,
        ));
    }
    if terms.fiscal_month_start_day != 1 && terms.window != Window::FiscalMonth {
        let remedy = "Leave it out, or set `window` to fiscal_month.";
        return Err(Problem::field(&field("fiscal_month_start_day"), "has no effect here", remedy));
    }
    match (terms.mode, terms.max_overshoot_usd) {
        (Mode::Strict, Some(_)) => {
            let remedy = "Leave it out, or set `mode` to expected.";
            return Err(Problem::field(&field("max_overshoot_usd"), "has no effect here", remedy));
        }
        (Mode::Expected, Some(overshoot)) => check_amount(&field("max_overshoot_usd"), overshoot)?,
        (_, None) => {}
    }
    check_at_cap(at, terms)?;
    check_thresholds(&field("thresholds"), &terms.thresholds)?;
    terms.raise.as_ref().map_or(Ok(()), |raise| check_raise(&field("raise"), raise, limit))
}

/// A budget of rates only: what is said about money would have no effect.
fn without_limit(
    at: &str,
    terms: &BudgetTerms,
    limits: &[(&str, Option<u64>)],
) -> Result<(), Problem> {
    if limits.iter().all(|(_, limit)| limit.is_none()) {
        let remedy = "Give limit_usd, requests_per_minute, tokens_per_minute or max_concurrency.";
        return Err(Problem::field(at, "limits nothing", remedy));
    }
    let idle = [
        ("mode", terms.mode != Mode::Strict),
        ("max_overshoot_usd", terms.max_overshoot_usd.is_some()),
        ("at_cap", terms.at_cap.action != CapAction::Block),
        ("raise", terms.raise.is_some()),
    ];
    match idle.iter().find(|(_, is_there)| *is_there) {
        Some((name, _)) => {
            let remedy = "Leave it out, or give a limit_usd.";
            Err(Problem::field(&format!("{at}.{name}"), "has no effect without a limit", remedy))
        }
        None => Ok(()),
    }
}

fn check_at_cap(at: &str, terms: &BudgetTerms) -> Result<(), Problem> {
    let field = |name: &str| format!("{at}.at_cap.{name}");
    let at_cap = &terms.at_cap;
    match (at_cap.action, &at_cap.model) {
        (CapAction::Downgrade, None) => {
            let remedy = "Name the cheaper model, as a caller would.";
            return Err(Problem::field(&field("model"), "is missing", remedy));
        }
        (CapAction::Downgrade, Some(model)) => check_text(&field("model"), model)?,
        (CapAction::Block, Some(_)) => {
            let remedy = "Leave it out, or set `action` to downgrade.";
            return Err(Problem::field(&field("model"), "has no effect here", remedy));
        }
        (CapAction::Block, None) => {}
    }
    let percent = at_cap.from_percent;
    if !(1..=100).contains(&percent) || (at_cap.action == CapAction::Block && percent != 100) {
        let remedy = "Give 1 to 100 together with the action downgrade, or leave it out.";
        return Err(Problem::field(&field("from_percent"), "does not fit", remedy));
    }
    Ok(())
}

fn check_thresholds(field: &str, thresholds: &[u8]) -> Result<(), Problem> {
    let ordered = thresholds.is_sorted_by(|a, b| a < b);
    let in_range = thresholds.iter().all(|percent| (1..=200).contains(percent));
    if thresholds.len() > MAX_THRESHOLDS || !ordered || !in_range {
        let remedy = "Give at most 10 percentages from 1 to 200 in ascending order, for example [50, 80, 100].";
        return Err(Problem::field(field, "is not a list of thresholds", remedy));
    }
    Ok(())
}

fn check_raise(field: &str, raise: &Raise, limit: Usd) -> Result<(), Problem> {
    check_amount(&format!("{field}.limit_usd"), raise.limit_usd)?;
    check_text(&format!("{field}.reason"), &raise.reason)?;
    if raise.limit_usd <= limit {
        let remedy = "Give more than the budget's limit_usd, or change that.";
        return Err(Problem::field(&format!("{field}.limit_usd"), "raises nothing", remedy));
    }
    Ok(())
}

fn check_amount(field: &str, amount: Usd) -> Result<(), Problem> {
    if amount < Usd::ZERO {
        let remedy = "Give dollars as text, for example \"250.00\".";
        return Err(Problem::field(field, "is negative", remedy));
    }
    // Durable money is whole nanodollars in 64 bits, and a cap and its overshoot must fit together.
    if amount.saturating_add(amount).nanos().is_none() {
        let remedy = "Give at most 9 decimal places, and at most 4 billion dollars.";
        return Err(Problem::field(field, "is too fine or too large", remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn checked(changes: Value) -> Result<(), String> {
        let mut terms = json!({ "scope": { "dimension": "team", "value": "*" }, "owner": "o", "limit_usd": "10" });
        for (name, value) in changes.as_object().unwrap() {
            terms[name] = value.clone();
        }
        let terms: BudgetTerms = serde_json::from_value(terms).map_err(|e| e.to_string())?;
        validate_budget("budgets.b", &terms).map_err(|problem| problem.to_json())
    }

    #[test]
    fn what_makes_sense_passes() {
        for good in [
            json!({}),
            json!({ "mode": "expected", "max_overshoot_usd": "2" }),
            json!({ "at_cap": { "action": "downgrade", "model": "gpt-5-nano", "from_percent": 90 } }),
            json!({ "window": "fiscal_month", "fiscal_month_start_day": 15, "time_zone": "Europe/Berlin" }),
            json!({ "raise": { "limit_usd": "20", "until": "2027-01-01", "reason": "launch" } }),
            json!({ "limit_usd": null, "requests_per_minute": 10 }),
        ] {
            assert_eq!(checked(good.clone()), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_does_not_names_the_field_and_the_remedy() {
        for (bad, field) in [
            (json!({ "owner": "" }), "budgets.b.owner"),
            (json!({ "scope": { "dimension": "workspace", "value": "x" } }), "scope.value"),
            (json!({ "limit_usd": "-1" }), "limit_usd"),
            (json!({ "limit_usd": "0.0000000001" }), "limit_usd"),
            (json!({ "limit_usd": "9000000000" }), "limit_usd"),
            (json!({ "limit_usd": 10 }), "string"),
            (json!({ "limit_usd": null }), "limits nothing"),
            (
                json!({ "limit_usd": null, "max_concurrency": 1, "mode": "expected" }),
                "budgets.b.mode",
            ),
            (json!({ "requests_per_minute": 0 }), "requests_per_minute"),
            (json!({ "time_zone": "Mars/Olympus" }), "time zone"),
            (json!({ "window": "fortnight" }), "fortnight"),
            (json!({ "window": "fiscal_month", "fiscal_month_start_day": 31 }), "1 to 28"),
            (json!({ "fiscal_month_start_day": 5 }), "fiscal_month"),
            (json!({ "max_overshoot_usd": "1" }), "max_overshoot_usd"),
            (json!({ "at_cap": { "action": "downgrade" } }), "at_cap.model"),
            (json!({ "at_cap": { "action": "block", "model": "x" } }), "at_cap.model"),
            (
                json!({ "at_cap": { "action": "downgrade", "model": "x", "from_percent": 0 } }),
                "from_percent",
            ),
            (json!({ "thresholds": [80, 50] }), "thresholds"),
            (json!({ "thresholds": [0] }), "thresholds"),
            (
                json!({ "raise": { "limit_usd": "10", "until": "2027-01-01", "reason": "x" } }),
                "raise.limit_usd",
            ),
            (json!({ "raise": { "limit_usd": "20", "until": "soon", "reason": "x" } }), "RFC 3339"),
            (
                json!({ "raise": { "limit_usd": "20", "until": "2027-01-01", "reason": "" } }),
                "raise.reason",
            ),
            (json!({ "colour": "red" }), "colour"),
        ] {
            let problem = checked(bad.clone()).unwrap_err();
            assert!(problem.contains(field), "{bad}: {problem}");
        }
    }
}
