//! Providers, rules, prices, reports: each with what it takes and what it does not.

use serde_json::{Value, json};

use super::{Acme, without};

fn price(provider: &str, model: &str) -> Value {
    json!({ "provider": provider, "model": model, "prices": { "standard": { "input": "1", "output": "2" } } })
}

#[test]
fn a_provider_s_fields_change_one_by_one_and_null_takes_one_away() {
    let acme = Acme::new();
    let shown = acme.get("/providers/openai");
    assert_eq!((&shown["kind"], &shown["credential_set"]), (&json!("openai"), &json!(true)));
    assert!(shown.get("credential").is_none());
    let changed =
        acme.expect(200, "PATCH", "/providers/openai", &json!({ "region": "eu", "rank": 2 }));
    assert_eq!((&changed["region"], &changed["rank"]), (&json!("eu"), &json!(2)));
    let changed = acme.expect(
        200,
        "PATCH",
        "/providers/openai",
        &json!({ "region": null, "credential": null }),
    );
    assert!(changed.get("region").is_none());
    assert_eq!((&changed["credential_set"], &changed["rank"]), (&json!(false), &json!(2)));
    acme.expect(200, "PATCH", "/providers/openai", &json!({ "credential": "sk-new" }));
    assert_eq!(acme.get("/providers")["data"][0]["credential_set"], true);
}

#[test]
fn a_provider_that_cannot_work_is_refused() {
    let acme = Acme::new();
    let base = json!({ "name": "p", "kind": "compatible", "base_url": "http://vllm:8000/v1" });
    let with = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body
    };
    for body in [
        with("kind", json!("openia")),
        with("base_url", json!("vllm:8000")),
        with("base_url", json!("https://user:pass@vllm")),
        with("base_url", json!("https://vllm/v1?key=x")),
        with("name", json!("a b")),
        with("name", json!("")),
        with("auth_header", json!("X-Key\r\nevil")),
        with("auth_header", json!("host")),
        with("region", json!("moon")),
        with("api_version", json!("../..")),
        with("credential", json!("")),
        with("credential", json!("sk-a\r\nx: y")),
        with("models", json!({ "a\u{1b}": "b" })),
        without(&base, &["base_url"]),
    ] {
        acme.refuse(422, "invalid_field", "POST", "/providers", &body);
    }
    acme.refuse(400, "invalid_body", "POST", "/providers", &with("url", json!("x")));
    assert_eq!(acme.get("/providers")["data"].as_array().unwrap().len(), 1);
    acme.expect(201, "POST", "/providers", &base);
    acme.refuse(409, "already_exists", "POST", "/providers", &base);
    for (method, body) in [("GET", Value::Null), ("PATCH", json!({})), ("DELETE", Value::Null)] {
        acme.refuse(404, "not_found", method, "/providers/none", &body);
    }
}

#[test]
fn what_is_in_use_cannot_be_removed() {
    let acme = Acme::new();
    acme.expect(
        200,
        "PUT",
        "/routes/fast",
        &json!({ "targets": [{ "provider": "openai", "model": "m" }] }),
    );
    acme.expect(201, "POST", "/prices", &price("openai", "m"));
    acme.expect(200, "PUT", "/policies/small", &json!({}));
    acme.key("chat", &json!("small"));
    let problem = acme.refuse(409, "in_use", "DELETE", "/providers/openai", &Value::Null);
    assert!(problem["detail"].as_str().unwrap().contains("fast"), "{problem}");
    acme.expect(200, "DELETE", "/routes/fast", &Value::Null);
    acme.refuse(409, "in_use", "DELETE", "/providers/openai", &Value::Null);
    acme.expect(200, "DELETE", "/prices/openai/m", &Value::Null);
    acme.expect(200, "DELETE", "/providers/openai", &Value::Null);
    acme.refuse(409, "in_use", "DELETE", "/policies/small", &Value::Null);
}

#[test]
fn a_route_leads_to_providers_that_are_there() {
    let acme = Acme::new();
    let target = |provider: &str| json!({ "provider": provider, "model": "gpt-6-luna" });
    acme.expect(200, "PUT", "/routes/fast%2Fone", &json!({ "targets": [target("openai")] }));
    let shown = acme.get("/routes/fast%2Fone");
    assert_eq!((&shown["attempts"], &shown["strategy"]), (&json!(2), &json!("ordered")));
    assert_eq!(acme.get("/routes")["fast/one"], shown);
    for body in [
        json!({ "targets": [target("none")] }),
        json!({ "targets": [] }),
        json!({ "targets": vec![target("openai"); 17] }),
        json!({ "targets": [target("openai")], "attempts": 0 }),
        json!({ "targets": [target("openai")], "attempts": 11 }),
        json!({ "targets": [target("openai")], "idle_timeout_ms": 1 }),
        json!({ "targets": [target("openai")], "first_byte_timeout_ms": 9_000_000 }),
        json!({ "targets": [{ "provider": "openai", "model": "" }] }),
        json!({ "strategy": "weighted", "targets": [{ "provider": "openai", "model": "m", "weight": 0 }] }),
    ] {
        acme.refuse(422, "invalid_field", "PUT", "/routes/fast", &body);
    }
    acme.refuse(
        422,
        "invalid_field",
        "PUT",
        "/routes/a%20b",
        &json!({ "targets": [target("openai")] }),
    );
    acme.refuse(400, "invalid_body", "PUT", "/routes/fast", &json!({ "target": [] }));
    acme.refuse(404, "not_found", "GET", "/routes/fast", &Value::Null);
    acme.refuse(404, "not_found", "DELETE", "/routes/fast", &Value::Null);
}

#[test]
fn a_policy_is_shown_as_it_was_put() {
    let acme = Acme::new();
    let policy = json!({ "models": { "allow": ["gpt-*"] }, "max_request_usd": "0.5" });
    let put = acme.expect(200, "PUT", "/policies/small", &policy);
    assert_eq!(acme.get("/policies/small"), put);
    assert_eq!(acme.get("/policies")["small"]["max_request_usd"], "0.5");
    acme.expect(200, "DELETE", "/policies/small", &Value::Null);
    acme.refuse(404, "not_found", "GET", "/policies/small", &Value::Null);
    acme.refuse(404, "not_found", "DELETE", "/policies/small", &Value::Null);
    acme.refuse(400, "invalid_body", "PUT", "/policies/small", &json!({ "max_tokens": 1 }));
}

#[test]
fn a_price_is_named_by_what_it_prices_and_never_overlaps_another() {
    let acme = Acme::new();
    assert_eq!(acme.expect(201, "POST", "/prices", &price("openai", "a/b"))["name"], "openai/a/b");
    let mut dated = price("openai", "a/b");
    dated["effective_from"] = json!("2027-01-01");
    let problem = acme.refuse(422, "invalid_field", "POST", "/prices", &dated);
    assert!(problem["detail"].as_str().unwrap().contains("in force together"), "{problem}");
    let mut closed = price("openai", "a/b");
    closed["effective_to"] = json!("2027-01-01");
    acme.expect(201, "POST", "/prices", &closed);
    assert_eq!(acme.expect(201, "POST", "/prices", &dated)["name"], "openai/a/b@2027-01-01");
    assert_eq!(acme.get("/prices")["overrides"].as_object().unwrap().len(), 2);
    for (field, value) in [
        ("provider", json!("none")),
        ("model", json!("")),
        ("prices", json!({})),
        ("prices", json!({ "standard": { "input": "-1" } })),
        ("effective_to", json!("2026-01-01")),
    ] {
        let mut body = dated.clone();
        body[field] = value;
        acme.refuse(422, "invalid_field", "POST", "/prices", &body);
    }
    acme.refuse(
        400,
        "invalid_body",
        "POST",
        "/prices",
        &json!({ "provider": "openai", "model": "m", "input": "1" }),
    );
    acme.expect(200, "DELETE", "/prices/openai/a/b%402027-01-01", &Value::Null);
    acme.refuse(404, "not_found", "DELETE", "/prices/openai/a/b@2027-01-01", &Value::Null);
}

#[test]
fn the_default_price_is_set_and_removed() {
    let acme = Acme::new();
    acme.refuse(404, "not_found", "DELETE", "/prices/default", &Value::Null);
    acme.expect(200, "PUT", "/prices/default", &price("*", "*"));
    assert_eq!(acme.get("/prices")["default"]["model"], "*");
    acme.expect(200, "DELETE", "/prices/default", &Value::Null);
    assert_eq!(acme.get("/prices")["default"], Value::Null);
    acme.refuse(
        422,
        "invalid_field",
        "PUT",
        "/prices/default",
        &json!({ "provider": "*", "model": "*" }),
    );
}

#[test]
fn a_price_map_is_imported_exactly_for_the_providers_that_are_named() {
    let acme = Acme::new();
    let body = r#"{ "providers": { "openai": "openai" }, "map": {
        "sample_spec": { "input_cost_per_token": 0.0 },
        "gpt-x": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 3.75e-08,
                   "output_cost_per_token": 1.5e-07 },
        "claude-x": { "litellm_provider": "anthropic", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06 },
        "free-x": { "litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 0 } } }"#;
    let path = "/workspaces/ws_acme/prices/import";
    let (status, report) = acme.shell.call_text("POST", path, Some(&acme.token), body);
    assert_eq!((status, &report["imported"]), (200, &json!(1)), "{report}");
    assert_eq!(report["skipped"][0]["model"], "free-x");
    let prices = acme.get("/prices");
    assert_eq!(prices["overrides"]["openai/gpt-x"]["prices"]["standard"]["input"], "0.0375");
    assert_eq!(prices["overrides"].as_object().unwrap().len(), 1);
    let unknown = json!({ "providers": { "anthropic": "nobody" }, "map": {
        "claude-x": { "litellm_provider": "anthropic", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06 } } });
    acme.refuse(422, "invalid_field", "POST", "/prices/import", &unknown);
    acme.refuse(
        422,
        "invalid_field",
        "POST",
        "/prices/import",
        &json!({ "providers": {}, "map": [] }),
    );
    acme.refuse(400, "invalid_body", "POST", "/prices/import", &json!({ "map": {} }));
}

#[test]
fn reports_are_asked_of_the_months_in_question() {
    let acme = Acme::new();
    let empty = acme.get("/requests");
    assert_eq!((&empty["data"], &empty["next_cursor"]), (&json!([]), &Value::Null));
    assert_eq!(
        acme.get("/usage?bucket=day&group_by=team,model&from=2026-11-01&to=2026-11-20T12:00:00Z")["data"],
        json!([])
    );
    // A span that ends before the workspace began.
    assert_eq!(acme.get("/usage?to=2020-01-01")["data"], json!([]));
    assert_eq!(acme.get("/requests?from=2030-01-01")["data"], json!([]));
    for query in [
        "/usage?bucket=week",
        "/usage?group_by=shoe",
        "/usage?from=yesterday",
        "/usage?limit=3",
        "/requests?limit=0",
        "/requests?limit=1001",
        "/requests?limit=x",
        "/requests?status=ok",
        "/requests?bucket=day",
        "/audit?limit=x",
        "/audit?before=-1",
    ] {
        acme.refuse(422, "invalid_field", "GET", query, &Value::Null);
    }
    for id in ["nonsense", "req_", "req_zzzzzzzzzzzz", "req_019aa0000000700080000000000000000"] {
        acme.refuse(404, "not_found", "GET", &format!("/requests/{id}"), &Value::Null);
    }
}

#[test]
fn a_month_that_ends_is_asked_and_a_year_that_passed_too() {
    let acme = Acme::new();
    // Three years on, the newest months are asked, and not the oldest.
    acme.shell.now.set(acme.shell.now.get() + 4 * 366 * 86_400_000);
    acme.get("/usage");
    let asked = acme.shell.ledger("ws_acme:2030-11").query("totals", "").unwrap();
    assert!(asked.contains("\"events\":0"));
}

#[test]
fn the_audit_log_says_who_changed_what_and_pages() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/policies/small", &json!({ "max_output_tokens": 1 }));
    acme.expect(200, "PUT", "/policies/small", &json!({ "max_output_tokens": 2 }));
    // A change that changes nothing leaves no trace and takes no version.
    let version = acme.get("")["config_version"].clone();
    acme.expect(200, "PUT", "/policies/small", &json!({ "max_output_tokens": 2 }));
    assert_eq!(acme.get("")["config_version"], version);
    let log = acme.get("/audit");
    let log = log["data"].as_array().unwrap();
    assert_eq!((&log[0]["act"], &log[0]["path"]), (&json!("changed"), &json!("policies.small")));
    assert_eq!(log[0]["change"]["before"]["max_output_tokens"], 1);
    assert_eq!(log[0]["change"]["after"]["max_output_tokens"], 2);
    assert!(log[0]["who"].as_str().unwrap().starts_with("token:"));
    assert_eq!(log.last().unwrap()["who"], "operator");
    let page = acme.get(&format!("/audit?limit=1&before={}", log[0]["seq"]));
    assert_eq!(page["data"], json!([log[1]]));
}

#[test]
fn actor_secrets_are_added_retired_and_bounded() {
    let acme = Acme::new();
    let (key, _) = acme.key("chat", &json!({}));
    let minted = acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "a" }));
    assert!(minted["secret"].as_str().unwrap().len() >= 32);
    acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "b", "secret": "s".repeat(32) }));
    acme.refuse(409, "already_exists", "POST", "/actor-secrets", &json!({ "kid": "b" }));
    for bad in
        [json!({ "kid": "c", "secret": "short" }), json!({ "kid": "" }), json!({ "kid": "a b" })]
    {
        acme.refuse(422, "invalid_field", "POST", "/actor-secrets", &bad);
    }
    acme.expect(200, "DELETE", "/actor-secrets/a?overlap_seconds=60", &Value::Null);
    let listed = acme.get("/actor-secrets");
    assert_eq!(
        (&listed["data"][0]["kid"], &listed["data"][0]["valid"]),
        (&json!("a"), &json!(true))
    );
    assert!(listed["data"][0]["expires_at"].is_string());
    acme.expect(200, "DELETE", "/actor-secrets/b", &Value::Null);
    acme.refuse(404, "not_found", "DELETE", "/actor-secrets/b", &Value::Null);
    acme.refuse(422, "invalid_field", "DELETE", "/actor-secrets/a?overlap_seconds=x", &Value::Null);
    for kid in ["c", "d", "e", "f", "g", "h", "i"] {
        acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": kid }));
    }
    acme.refuse(409, "too_many", "POST", "/actor-secrets", &json!({ "kid": "j" }));
    // What has expired makes room.
    acme.shell.now.set(acme.shell.now.get() + 60_000);
    acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "j" }));
    assert!(acme.shell.meter(&key).ask("state", "", acme.shell.now()).is_ok());
}
