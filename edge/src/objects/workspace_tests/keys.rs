//! A key's life, as its Meter sees it.

use serde_json::{Value, json};
use tallygate_shared::identity::gateway_key::GatewayKey;

use super::{Acme, new_key, without};

const HOUR_MS: i64 = 3_600_000;

/// What the key's Meter says to this key text: `None` when it would serve it.
fn refusal(acme: &Acme, text: &str) -> Option<String> {
    let key = GatewayKey::parse(text).unwrap();
    let meter = acme.shell.meter(key.public_id().as_str());
    let known = meter.authenticate(key.secret_hash().as_str(), acme.shell.now());
    known.err().map(|refusal| refusal.code().to_owned())
}

#[test]
fn a_key_works_from_its_issue_on_and_is_shown_once() {
    let acme = Acme::new();
    let (id, text) = acme.key("chat", &json!({}));
    assert_eq!(refusal(&acme, &text), None);
    let shown = acme.get(&format!("/keys/{id}"));
    assert_eq!(
        (&shown["name"], &shown["status"], &shown["valid_secrets"]),
        (&json!("chat"), &json!("active"), &json!(1))
    );
    assert_eq!(acme.get("/keys")["data"], json!([shown]));
    assert!(shown.get("key").is_none());
}

#[test]
fn a_key_needs_an_owner_a_cost_centre_a_purpose_and_an_environment() {
    let acme = Acme::new();
    for field in ["name", "owner", "cost_centre", "purpose", "environment"] {
        let body = without(&new_key("k", &json!({})), &[field]);
        let problem = acme.refuse(400, "invalid_body", "POST", "/keys", &body);
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(field), "{problem}");
        let mut body = new_key("k", &json!({}));
        body[field] = json!("  ");
        let problem = acme.refuse(422, "invalid_field", "POST", "/keys", &body);
        assert!(problem["errors"][0]["field"].as_str().unwrap().ends_with(field), "{problem}");
        body[field] = json!("x".repeat(129));
        acme.refuse(422, "invalid_field", "POST", "/keys", &body);
    }
    assert_eq!(acme.get("/keys")["data"], json!([]));
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    let acme = Acme::new();
    let cap = |window: &str, usd: &str| json!({ "window": window, "limit_usd": usd });
    for policy in [
        json!({ "max_output_tokens": 0 }),
        json!({ "max_concurrency": 0 }),
        json!({ "requests_per_minute": 0 }),
        json!({ "requests_per_minute": u64::MAX }),
        json!({ "max_request_usd": "-1" }),
        json!({ "max_request_usd": "0.0000000001" }),
        json!({ "spend_caps": [cap("day", "1"), cap("day", "2")] }),
        json!({ "spend_caps": [cap("month", "99999999999999")] }),
        json!({ "required_claims": ["shoe_size"] }),
    ] {
        let problem = acme.refuse(422, "invalid_field", "POST", "/keys", &new_key("k", &policy));
        assert!(problem["errors"][0]["field"].as_str().unwrap().contains("policy"), "{problem}");
    }
    for policy in [
        json!({ "budget": "1" }),
        json!({ "models": { "allow": ["gpt-[45]"] } }),
        json!({ "ip_ranges": ["10.0.0.300"] }),
        json!({ "spend_caps": [cap("year", "1")] }),
    ] {
        let problem = acme.refuse(400, "invalid_body", "POST", "/keys", &new_key("k", &policy));
        assert!(problem["errors"][0]["field"].as_str().unwrap().starts_with("policy"), "{problem}");
    }
    acme.refuse(422, "invalid_field", "POST", "/keys", &new_key("k", &json!("no-such-policy")));
}

#[test]
fn two_keys_in_use_have_two_names() {
    let acme = Acme::new();
    let (id, _) = acme.key("chat", &json!({}));
    acme.refuse(409, "already_exists", "POST", "/keys", &new_key("chat", &json!({})));
    acme.expect(200, "POST", &format!("/keys/{id}/revoke"), &Value::Null);
    acme.key("chat", &json!({}));
}

#[test]
fn a_rotated_key_s_old_secret_works_until_the_overlap_ends() {
    let acme = Acme::new();
    let (id, old) = acme.key("chat", &json!({}));
    let rotate = format!("/keys/{id}/rotate");
    let rotated = acme.expect(200, "POST", &rotate, &json!({ "overlap_seconds": 3600 }));
    let new = rotated["key"].as_str().unwrap();
    assert_ne!(old, new);
    assert_eq!(rotated["valid_secrets"], 2);
    assert_eq!((refusal(&acme, &old), refusal(&acme, new)), (None, None));
    acme.shell.now.set(acme.shell.now.get() + HOUR_MS - 1);
    assert_eq!(refusal(&acme, &old), None);
    acme.shell.now.set(acme.shell.now.get() + 1);
    assert_eq!(refusal(&acme, &old).as_deref(), Some("key_invalid"));
    assert_eq!(refusal(&acme, new), None);
    assert_eq!(acme.get(&format!("/keys/{id}"))["valid_secrets"], 1);
    // Without an overlap, and without a body, the old one ends at once.
    let rotated = acme.expect(200, "POST", &rotate, &Value::Null);
    assert_eq!(refusal(&acme, new).as_deref(), Some("key_invalid"));
    assert_eq!(refusal(&acme, rotated["key"].as_str().unwrap()), None);
    acme.refuse(422, "invalid_field", "POST", &rotate, &json!({ "overlap_seconds": 2_592_001 }));
    acme.refuse(400, "invalid_body", "POST", &rotate, &json!({ "overlap": 1 }));
    acme.refuse(404, "not_found", "POST", "/keys/0000000000000000/rotate", &Value::Null);
}

#[test]
fn only_the_newest_secret_overlaps() {
    let acme = Acme::new();
    let (id, first) = acme.key("chat", &json!({}));
    let rotate = |_| {
        acme.expect(200, "POST", &format!("/keys/{id}/rotate"), &json!({ "overlap_seconds": 3600 }))
    };
    let [second, third] =
        [(), ()].map(rotate).map(|answer| answer["key"].as_str().unwrap().to_owned());
    assert_eq!(refusal(&acme, &first).as_deref(), Some("key_invalid"));
    assert_eq!((refusal(&acme, &second), refusal(&acme, &third)), (None, None));
}

#[test]
fn suspension_can_be_undone_and_revocation_cannot() {
    let acme = Acme::new();
    let (id, text) = acme.key("chat", &json!({}));
    let act =
        |act: &str, status| acme.expect(status, "POST", &format!("/keys/{id}/{act}"), &Value::Null);
    act("suspend", 200);
    assert_eq!(refusal(&acme, &text).as_deref(), Some("key_suspended"));
    act("resume", 200);
    assert_eq!(refusal(&acme, &text), None);
    act("revoke", 200);
    assert_eq!(refusal(&acme, &text).as_deref(), Some("key_revoked"));
    act("revoke", 200);
    for undo in ["resume", "suspend", "rotate"] {
        assert_eq!(act(undo, 409)["code"], "key_revoked");
    }
    assert_eq!(refusal(&acme, &text).as_deref(), Some("key_revoked"));
    acme.refuse(404, "not_found", "POST", "/keys/nonsense/revoke", &Value::Null);
}

#[test]
fn a_key_stops_at_its_expiry_and_null_takes_the_expiry_away() {
    let acme = Acme::new();
    let (id, text) = acme.key("chat", &json!({}));
    let path = format!("/keys/{id}");
    acme.expect(200, "PATCH", &path, &json!({ "expires_at": "2026-11-20T11:00:00Z" }));
    let plan = |acme: &Acme| {
        let key = GatewayKey::parse(&text).unwrap();
        let meter = acme.shell.meter(&id);
        meter.authenticate(key.secret_hash().as_str(), acme.shell.now()).map(|plan| plan.expires_at)
    };
    assert_eq!(plan(&acme).unwrap().unwrap().ms(), acme.shell.now.get() + HOUR_MS);
    // Another change leaves it as it is.
    acme.expect(200, "PATCH", &path, &json!({ "owner": "bob" }));
    assert!(plan(&acme).unwrap().is_some());
    acme.expect(200, "PATCH", &path, &json!({ "expires_at": null }));
    assert_eq!(plan(&acme).unwrap(), None);
    acme.refuse(422, "invalid_field", "PATCH", &path, &json!({ "expires_at": "tomorrow" }));
    acme.refuse(400, "invalid_body", "PATCH", &path, &json!({ "status": "active" }));
    acme.refuse(422, "invalid_field", "PATCH", &path, &json!({ "actor": { "team": "a\u{7}b" } }));
}

#[test]
fn a_changed_policy_reaches_every_key_that_names_it() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/policies/small", &json!({ "max_output_tokens": 10 }));
    let (first, _) = acme.key("one", &json!("small"));
    let (second, _) = acme.key("two", &json!("small"));
    acme.expect(200, "PUT", "/policies/small", &json!({ "max_output_tokens": 20 }));
    for id in [first, second] {
        let thought = json!({ "model": "gpt-6-luna", "input_tokens": 1, "max_output_tokens": 100 });
        let simulated = acme.expect(200, "POST", &format!("/keys/{id}/simulate"), &thought);
        assert_eq!(simulated["set_max_output_tokens"], 20, "{simulated}");
    }
}

#[test]
fn a_change_that_a_meter_did_not_hear_is_saved_and_delivered_later() {
    let acme = Acme::new();
    let (id, text) = acme.key("chat", &json!({}));
    acme.shell.unreachable.borrow_mut().insert(id.clone());
    acme.refuse(503, "push_pending", "POST", &format!("/keys/{id}/revoke"), &Value::Null);
    assert_eq!(acme.get(&format!("/keys/{id}"))["status"], "revoked");
    assert_eq!(refusal(&acme, &text), None);
    assert!(!acme.shell.alarm("ws_acme"));
    acme.shell.unreachable.borrow_mut().clear();
    assert!(acme.shell.alarm("ws_acme"));
    assert_eq!(refusal(&acme, &text).as_deref(), Some("key_revoked"));
    assert!(acme.shell.alarm("ws_acme"));
}

#[test]
fn a_change_reaches_more_keys_than_cross_at_once() {
    let acme = Acme::new();
    let keys: Vec<_> = (0..205).map(|n| acme.key(&format!("key {n}"), &json!({}))).collect();
    acme.expect(200, "PATCH", "/providers/openai", &json!({ "region": "eu" }));
    for (id, text) in keys.iter().rev().take(10) {
        let hash = GatewayKey::parse(text).unwrap().secret_hash();
        let meter = acme.shell.meter(id);
        let plan = meter.authenticate(hash.as_str(), acme.shell.now()).unwrap();
        assert_eq!(plan.providers[0].region.as_deref(), Some("eu"));
    }
}

#[test]
fn a_simulation_says_what_a_request_would_get() {
    let acme = Acme::new();
    let (id, _) = acme.key("chat", &json!({ "models": { "deny": ["gpt-6-astra"] } }));
    let path = format!("/keys/{id}/simulate");
    let admitted =
        acme.expect(200, "POST", &path, &json!({ "model": "gpt-6-luna", "input_tokens": 10 }));
    assert_eq!(admitted["decision"], "admit", "{admitted}");
    let refused = acme.expect(200, "POST", &path, &json!({ "model": "gpt-6-astra" }));
    assert_eq!(refused["decision"], "refuse", "{refused}");
    assert!(refused["code"].is_string() && refused["checks"].is_array());
    for bad in [
        json!({}),
        json!({ "model": "x", "tokens": 1 }),
        json!({ "model": "x", "input_tokens": -1 }),
    ] {
        acme.refuse(400, "invalid_body", "POST", &path, &bad);
    }
    acme.refuse(
        422,
        "invalid_field",
        "POST",
        &path,
        &json!({ "model": "x", "endpoint": "/v1/audio" }),
    );
    acme.refuse(
        404,
        "not_found",
        "POST",
        "/keys/0000000000000000/simulate",
        &json!({ "model": "x" }),
    );
    assert!(acme.get(&format!("/keys/{id}/state")).is_object());
}
