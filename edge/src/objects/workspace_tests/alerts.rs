//! Alerts from outside: what rules and receivers are taken, what the Alerts object hears, and who may do what.

use serde_json::{Value, json};

use super::Acme;

fn hook() -> Value {
    json!({ "type": "standard_webhook", "url": "https://hooks.example.com/a" })
}

#[test]
fn a_webhook_gets_a_secret_that_is_shown_once() {
    let acme = Acme::new();
    let made = acme.expect(200, "PUT", "/receivers/ops", &hook());
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"), "{made}");
    let shown = acme.get("/receivers/ops");
    assert!(shown.get("secret").is_none(), "{shown}");
    assert_eq!(
        (&shown["secrets"], &shown["gone"], &shown["waiting"]),
        (&json!(1), &json!(false), &json!(0))
    );
    // Replacing keeps it; a rotation makes another, and both sign for a day.
    let kept = acme.expect(200, "PUT", "/receivers/ops", &hook());
    assert!(kept.get("secret").is_none());
    let rotated = acme.expect(200, "POST", "/receivers/ops/rotate", &Value::Null);
    assert_ne!(rotated["secret"], secret.as_str());
    assert_eq!(rotated["secrets"], 2);
    let at_once =
        acme.expect(200, "POST", "/receivers/ops/rotate", &json!({ "overlap_seconds": 0 }));
    assert_eq!(at_once["secrets"], 1);
    for shown in [rotated["secret"].as_str(), Some(secret.as_str())] {
        assert!(!acme.shell.dump().contains(shown.unwrap()));
    }
    let tested = acme.expect(200, "POST", "/receivers/ops/test", &Value::Null);
    assert_eq!(tested["delivered"], true);
    assert_eq!(acme.get("/receivers")["data"][0]["name"], "ops");
    acme.expect(200, "DELETE", "/receivers/ops", &Value::Null);
    assert_eq!(acme.ask("GET", "/receivers/ops", &Value::Null).0, 404);
    assert_eq!(acme.ask("POST", "/receivers/ops/test", &Value::Null).0, 404);
}

#[test]
fn slack_s_address_is_its_secret() {
    let acme = Acme::new();
    let url = "https://hooks.slack.com/services/T0/B0/very-secret";
    let made = acme.expect(200, "PUT", "/receivers/chat", &json!({ "type": "slack", "url": url }));
    assert!(made.get("url").is_none() && made.get("secret").is_none(), "{made}");
    assert_eq!(acme.expect(200, "POST", "/receivers/chat/test", &Value::Null)["delivered"], true);
    // What else changes, the address stays.
    let quiet = json!({ "type": "slack", "enabled": false });
    assert_eq!(acme.expect(200, "PUT", "/receivers/chat", &quiet)["secrets"], 1);
    acme.refuse(409, "no_secret", "POST", "/receivers/chat/rotate", &Value::Null);
    assert!(!acme.shell.dump().contains("very-secret"));
    assert!(!acme.get("/config").to_string().contains("very-secret"));
}

#[test]
fn what_cannot_work_is_refused_with_its_field() {
    let acme = Acme::new();
    let with = |field: &str, value: Value| {
        let mut body = hook();
        body[field] = value;
        body
    };
    for (field, body) in [
        ("receivers.ops.url", with("url", json!("http://hooks.example.com/"))),
        ("receivers.ops.url", with("url", json!("https://10.0.0.1/"))),
        ("receivers.ops.url", with("url", json!("https://2130706433/"))),
        ("receivers.ops.url", with("url", json!("https://[::ffff:169.254.169.254]/"))),
        ("receivers.ops.url", with("url", json!("https://metadata.google.internal/"))),
        ("receivers.ops.url", with("url", json!("https://a:b@hooks.example.com/"))),
        ("receivers.ops.url", with("url", Value::Null)),
        ("secret", with("secret", json!("whsec_short"))),
        ("url", json!({ "type": "slack", "url": "https://localhost/x" })),
        ("url", json!({ "type": "slack" })),
        ("secret", json!({ "type": "slack", "url": "https://hooks.slack.com/x", "secret": "x" })),
    ] {
        let (status, problem) = acme.ask("PUT", "/receivers/ops", &body);
        assert_eq!(status, 422, "{body} {problem}");
        let error = &problem["errors"][0];
        assert_eq!(error["field"], field, "{body} {problem}");
        assert!(error["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()));
    }
    for body in [with("kinds", json!(["nonsense"])), with("min_severity", json!("loud")), json!({})]
    {
        acme.refuse(400, "invalid_body", "PUT", "/receivers/ops", &body);
    }
    let rules = json!({ "rules": { "provider_error_percent": 0 }, "dashboard_url": "ftp://x" });
    let (status, problem) = acme.ask("PUT", "/alert-settings", &rules);
    assert_eq!(status, 422);
    let fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["alerts.rules.provider_error_percent", "alerts.dashboard_url"]);
    for number in 0..10 {
        acme.expect(200, "PUT", &format!("/receivers/r{number}"), &hook());
    }
    acme.refuse(422, "invalid_field", "PUT", "/receivers/r10", &hook());
}

#[test]
fn rules_and_receivers_are_configuration() {
    let acme = Acme::new();
    let settings = json!({ "rules": { "expensive_request_usd": "0.5" } });
    let set = acme.expect(200, "PUT", "/alert-settings", &settings);
    assert_eq!(set["rules"]["key_unused_days"], 30);
    acme.expect(200, "PUT", "/receivers/ops", &hook());
    let exported = acme.get("/config");
    assert_eq!(exported["receivers"]["ops"]["type"], "standard_webhook");
    assert_eq!(exported["alerts"]["rules"]["expensive_request_usd"], "0.5");
    let mut changed = exported.clone();
    changed["receivers"] = json!({});
    let diff = acme.expect(200, "POST", "/config/diff", &changed);
    assert_eq!(diff["changes"][0]["path"], "receivers.ops");
    acme.expect(200, "PUT", "/config", &changed);
    assert_eq!(acme.ask("GET", "/receivers/ops", &Value::Null).0, 404);
    // Its secret went with it.
    assert!(acme.expect(200, "PUT", "/receivers/ops", &hook())["secret"].is_string());
}

#[test]
fn the_alerts_object_hears_of_keys_and_tells_of_them() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/receivers/ops", &hook());
    let key = json!({ "name": "ci", "owner": "ann", "cost_centre": "c", "purpose": "p", "environment": "test",
                      "expires_at": "2026-11-22" });
    let issued = acme.expect(201, "POST", "/keys", &key);
    let alerts = acme.get("/alerts?state=open&severity=warning&kind=key_expiring");
    let alert = &alerts["data"][0];
    assert_eq!((&alert["owner"], &alert["evidence"]["key_name"]), (&json!("ann"), &json!("ci")));
    assert_eq!(alert["link"], format!("/keys/{}", issued["id"].as_str().unwrap()));
    let path = format!("/alerts/{}", alert["id"].as_str().unwrap());
    assert_eq!(acme.get(&path)["kind"], "key_expiring");
    let delivery = &acme.get("/deliveries?receiver=ops&state=pending")["data"][0];
    assert_eq!(delivery["type"], "alert.opened");
    let snooze = |until: &str, reason: &str| json!({ "until": until, "reason": reason });
    for (until, reason) in
        [("x", "y"), ("2020-01-01", "y"), ("2028-01-01", "y"), ("2026-11-21", " ")]
    {
        let body = snooze(until, reason);
        acme.refuse(422, "invalid_field", "POST", &format!("{path}/snooze"), &body);
    }
    let body = snooze("2026-11-21", "it is known");
    let snoozed = acme.expect(200, "POST", &format!("{path}/snooze"), &body);
    assert_eq!(snoozed["status"]["until"], "2026-11-21T00:00:00.000Z");
    let taken = acme.expect(200, "POST", &format!("{path}/acknowledge"), &Value::Null);
    assert!(taken["status"]["by"].as_str().unwrap().starts_with("token:"));
    // Renewed: it is over.
    let renewed = json!({ "expires_at": null });
    acme.expect(200, "PATCH", &format!("/keys/{}", issued["id"].as_str().unwrap()), &renewed);
    assert_eq!(acme.get(&path)["status"]["state"], "resolved");
    acme.refuse(409, "alert_resolved", "POST", &format!("{path}/acknowledge"), &Value::Null);
    acme.refuse(422, "invalid_field", "GET", "/alerts?state=loud", &Value::Null);
    acme.refuse(422, "invalid_field", "GET", "/deliveries?state=loud", &Value::Null);
}

#[test]
fn each_role_may_do_its_part() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/receivers/ops", &hook());
    for (role, may_handle) in [("finance", true), ("developer", true), ("auditor", false)] {
        let token = acme.token_of(role);
        let status =
            |method: &str, path: &str, body: &Value| acme.ask_as(&token, method, path, body).0;
        assert_eq!(status("GET", "/alerts", &Value::Null), 200, "{role}");
        assert_eq!(status("GET", "/receivers", &Value::Null), 200, "{role}");
        assert_eq!(status("GET", "/deliveries", &Value::Null), 200, "{role}");
        assert_eq!(status("PUT", "/receivers/ops", &hook()), 403, "{role}");
        assert_eq!(status("POST", "/receivers/ops/test", &Value::Null), 403, "{role}");
        let expected = if may_handle { 404 } else { 403 };
        assert_eq!(status("POST", "/alerts/al_x/resolve", &Value::Null), expected, "{role}");
    }
}
