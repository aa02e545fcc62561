//! Commitments of a workspace: what they must be like.

use std::collections::BTreeMap;

use tallygate_shared::insights::commitments::Commitment;
use tallygate_shared::money::Usd;

use super::config::Config;
use super::problem::Problem;
use super::validate::{MAX_COUNT, check_name, check_text};

/// Commitments of one workspace.
pub(super) const MAX_COMMITMENTS: usize = 100;
/// Units of one commitment.
const MAX_UNITS: u64 = 1_000_000;
/// The highest price of a unit for an hour.
const MAX_PRICE: Usd = Usd::from_nanos(1_000_000 * 1_000_000_000);

/// Everything that is wrong with a configuration's commitments.
pub(super) fn validate_commitments(config: &Config) -> Vec<Problem> {
    let each = config.commitments.iter().map(|(id, terms)| validate(config, id, terms));
    each.chain([are_apart(&config.commitments)]).filter_map(Result::err).collect()
}

fn validate(config: &Config, id: &str, terms: &Commitment) -> Result<(), Problem> {
    check_name("commitments", id)?;
    let field = |name: &str| format!("commitments.{id}.{name}");
    if !config.providers.contains_key(&terms.provider) {
        let provider = crate::request::exchange::printable(&terms.provider);
        let detail = format!("is the unknown provider `{provider}`");
        let remedy = "Use the name of one of `providers`.";
        return Err(Problem::field(&field("provider"), detail, remedy));
    }
    check_text(&field("model"), &terms.model)?;
    if !(1..=MAX_UNITS).contains(&terms.units) {
        let remedy = "Give what is paid for, or remove the commitment.";
        return Err(Problem::field(&field("units"), "must be from 1 to 1,000,000", remedy));
    }
    let price = terms.usd_per_unit_hour;
    if price.is_negative() || price == Usd::ZERO || price > MAX_PRICE {
        let remedy = "Give what a unit costs for an hour, such as \"1.00\".";
        let detail = "must be more than 0 and at most 1,000,000";
        return Err(Problem::field(&field("usd_per_unit_hour"), detail, remedy));
    }
    let tokens = terms.tokens_per_minute;
    for (name, count) in [("input", tokens.input), ("output", tokens.output)] {
        if !(1..=MAX_COUNT).contains(&count) {
            let field = field(&format!("tokens_per_minute.{name}"));
            let remedy = "Give what the provider says that one unit takes.";
            let detail = "must be from 1 to 1,000,000,000,000";
            return Err(Problem::field(&field, detail, remedy));
        }
    }
    if terms.from.zip(terms.to).is_some_and(|(from, to)| from >= to) {
        let remedy = "Give the first day that it does not cover, or leave it out.";
        return Err(Problem::field(&field("to"), "must be a later day than `from`", remedy));
    }
    Ok(())
}

/// Of two for the same tokens on the same day, nobody could say which one they used.
fn are_apart(commitments: &BTreeMap<String, Commitment>) -> Result<(), Problem> {
    for (id, terms) in commitments {
        let before = commitments.iter().take_while(|(other, _)| *other != id);
        let same = |other: &Commitment| {
            (&other.provider, &other.model) == (&terms.provider, &terms.model)
                && other.to.zip(terms.from).is_none_or(|(to, from)| from < to)
                && terms.to.zip(other.from).is_none_or(|(to, from)| from < to)
        };
        if let Some((other, _)) = before.into_iter().find(|(_, other)| same(other)) {
            let detail = format!("is for the same model and days as `{other}`");
            let remedy = "Declare one with the units of both, at what a unit costs on average.";
            return Err(Problem::field(&format!("commitments.{id}"), detail, remedy));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn errors(commitments: Value) -> Vec<(String, String)> {
        let config = json!({
            "providers": { "azure": { "kind": "azure", "base_url": "https://a.openai.azure.com" } },
            "commitments": commitments });
        let config: Config = serde_json::from_value(config).unwrap();
        let problems = validate_commitments(&config);
        let error = |problem: &Problem| {
            let body: Value = serde_json::from_str(&problem.to_json()).unwrap();
            let text = |name: &str| body["errors"][0][name].as_str().unwrap().to_owned();
            (text("field"), text("remedy"))
        };
        problems.iter().map(error).collect()
    }

    fn terms() -> Value {
        json!({ "provider": "azure", "model": "sol", "units": 15, "usd_per_unit_hour": "1.00",
                "tokens_per_minute": { "input": 2500, "output": 833 } })
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        assert_eq!(errors(json!({ "ptu": terms() })), []);
        for (name, bad, field) in [
            ("provider", json!("aws"), "provider"),
            ("model", json!(""), "model"),
            ("units", json!(0), "units"),
            ("units", json!(1_000_001), "units"),
            ("usd_per_unit_hour", json!("0"), "usd_per_unit_hour"),
            ("usd_per_unit_hour", json!("-1"), "usd_per_unit_hour"),
            ("usd_per_unit_hour", json!("1000000.01"), "usd_per_unit_hour"),
            ("tokens_per_minute", json!({ "input": 0, "output": 1 }), "tokens_per_minute.input"),
            ("tokens_per_minute", json!({ "input": 1, "output": 0 }), "tokens_per_minute.output"),
        ] {
            let mut terms = terms();
            terms[name] = bad;
            let found = errors(json!({ "ptu": terms }));
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].0, format!("commitments.ptu.{field}"));
            assert!(found[0].1.len() > 5);
        }
        assert_eq!(errors(json!({ "a b": terms() }))[0].0, "commitments");
    }

    #[test]
    fn days_are_in_order_and_no_two_commitments_are_for_the_same_tokens() {
        let dated = |from: Value, to: Value| {
            let mut terms = terms();
            (terms["from"], terms["to"]) = (from, to);
            terms
        };
        let (one, two) = (json!("2026-01-01"), json!("2026-07-01"));
        assert_eq!(
            errors(json!({ "a": dated(two.clone(), one.clone()) }))[0].0,
            "commitments.a.to"
        );
        let follows =
            json!({ "a": dated(Value::Null, two.clone()), "b": dated(two.clone(), Value::Null) });
        assert_eq!(errors(follows), []);
        for (a, b) in [
            (dated(Value::Null, Value::Null), dated(one.clone(), two.clone())),
            (dated(one.clone(), two.clone()), dated(json!("2026-06-30"), Value::Null)),
        ] {
            assert_eq!(errors(json!({ "a": a, "b": b }))[0].0, "commitments.b");
        }
        let mut other = terms();
        other["model"] = "luna".into();
        assert_eq!(errors(json!({ "a": terms(), "b": other })), []);
    }

    #[test]
    fn an_entry_that_is_misspelt_is_refused() {
        for (name, value) in [("unit", json!(1)), ("from", json!("soon"))] {
            let mut terms = terms();
            terms[name] = value;
            assert!(serde_json::from_value::<Commitment>(terms).is_err(), "{name}");
        }
    }
}
