//! Prices as bills have them, where the workspace has them applied: each as a whole or not at all.

use serde_json::{Value, json};

use super::Acme;

fn correction(meter: &str, price: &str) -> Value {
    json!({ "provider": "openai", "model": "gpt-6-luna", "tier": "standard", "meter": meter, "day": "2026-11-19",
            "ours_per_million": "0.1", "billed_per_million": price, "tokens": 5, "effect": "1" })
}

/// A workspace that has billed prices applied, and the answer to these.
fn applied(acme: &Acme, corrections: &Value) -> Value {
    let secret = acme.reconciler_secret();
    let settings = json!({ "price_corrections": "apply" });
    acme.expect(200, "PUT", "/reconciler-settings", &settings);
    let (status, answer) =
        acme.signed(&secret, "nonce-0123456789-1", "price-corrections", corrections);
    assert_eq!(status, 200, "{answer}");
    json!([answer["applied"], answer["proposed"]])
}

fn own_prices(acme: &Acme) -> Vec<String> {
    acme.get("/prices")["overrides"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_price_that_is_planned_for_later_keeps_no_billed_one_out() {
    let acme = Acme::new();
    let planned = json!({ "provider": "openai", "model": "gpt-6-luna", "effective_from": "2026-12-01",
                          "prices": { "standard": { "input": "7", "output": "8" } } });
    acme.expect(201, "POST", "/prices", &planned);
    assert_eq!(applied(&acme, &json!([correction("input", "0.12")])), json!([1, 0]));
    let rows = &acme.get("/prices")["overrides"];
    let row = &rows["openai/gpt-6-luna@2026-11-21"];
    assert_eq!(
        (&row["prices"]["standard"]["input"], &row["effective_to"]),
        (&json!("0.12"), &json!("2026-12-01"))
    );
    let later = &rows["openai/gpt-6-luna@2026-12-01"];
    assert_eq!(later["prices"], planned["prices"]);
}

#[test]
fn a_price_that_one_of_its_providers_has_no_place_for_is_put_in_for_none() {
    let acme = Acme::new();
    let other = json!({ "name": "eu", "kind": "openai", "credential": "sk-also-very-secret" });
    acme.expect(201, "POST", "/providers", &other);
    // Written cache has one price here, and two in the price book's row, which `openai` has.
    let own = json!({ "provider": "eu", "model": "gpt-6-luna",
                      "prices": { "standard": { "input": "1", "output": "2", "cache_write": { "30m": "3" } } } });
    acme.expect(201, "POST", "/prices", &own);
    let brought = json!([correction("cache_write", "4"), correction("input", "0.12")]);
    assert_eq!(applied(&acme, &brought), json!([1, 1]));
    let rows = &acme.get("/prices")["overrides"];
    let changed = &rows["eu/gpt-6-luna@2026-11-21"]["prices"]["standard"];
    assert_eq!((&changed["cache_write"]["30m"], &changed["input"]), (&json!("3"), &json!("0.12")));
    let names = ["eu/gpt-6-luna", "eu/gpt-6-luna@2026-11-21", "openai/gpt-6-luna@2026-11-21"];
    assert_eq!(own_prices(&acme), names);
    let proposals = acme.get("/price-proposals")["data"].as_array().unwrap().clone();
    let state = |meter: &str| {
        let found = proposals.iter().find(|it| it["correction"]["meter"] == meter);
        found.unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!((state("cache_write"), state("input")), ("proposed".into(), "applied".into()));
}

#[test]
fn prices_that_do_not_fit_the_workspace_are_left_to_a_person() {
    let acme = Acme::new();
    let mut wrong = correction("input", "0.12");
    wrong["billed_per_million"] = json!("-1");
    assert_eq!(applied(&acme, &json!([wrong, correction("output", "0.6")])), json!([1, 1]));
    assert_eq!(own_prices(&acme), ["openai/gpt-6-luna@2026-11-21"]);
}
