//! The collector in a workspace's configuration, and the endpoint for Prometheus.

use serde_json::{Value, json};

use super::{Acme, new_key, without};
use crate::objects::test_shell::ring_of;

fn collector() -> Value {
    json!({ "endpoint": "https://otlp.example.com", "headers": { "Authorization": "Bearer very-secret-token" } })
}

#[test]
fn a_collector_is_set_shown_and_removed() {
    let acme = Acme::new();
    acme.refuse(404, "not_found", "GET", "/telemetry", &Value::Null);
    let set = acme.expect(200, "PUT", "/telemetry", &collector());
    let expected = json!({
        "endpoint": "https://otlp.example.com", "signals": ["metrics", "logs"], "enabled": true,
        "has_headers": true,
    });
    assert_eq!(set, expected);
    let shown = acme.get("/telemetry");
    assert_eq!(without(&shown, &["exports"]), expected);
    assert_eq!(shown["exports"]["logs"]["waiting"], json!(0));
    acme.expect(200, "DELETE", "/telemetry", &Value::Null);
    acme.refuse(404, "not_found", "GET", "/telemetry", &Value::Null);
    acme.refuse(404, "not_found", "DELETE", "/telemetry", &Value::Null);
    let (answered, stored) = (acme.shell.answered.borrow(), acme.shell.dump());
    assert!(stored.contains("otlp.example.com"));
    for text in [answered.as_str(), stored.as_str()] {
        assert!(!text.contains("very-secret-token"));
    }
}

#[test]
fn headers_stay_with_their_collector() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/telemetry", &collector());
    let same = json!({ "endpoint": "https://otlp.example.com", "signals": ["logs"] });
    assert_eq!(acme.expect(200, "PUT", "/telemetry", &same)["has_headers"], json!(true));
    let moved = json!({ "endpoint": "https://elsewhere.example.com" });
    assert_eq!(acme.expect(200, "PUT", "/telemetry", &moved)["has_headers"], json!(false));
    acme.expect(200, "PUT", "/telemetry", &collector());
    let emptied = json!({ "endpoint": "https://otlp.example.com", "headers": {} });
    assert_eq!(acme.expect(200, "PUT", "/telemetry", &emptied)["has_headers"], json!(false));
    // A document cannot point them elsewhere either.
    acme.expect(200, "PUT", "/telemetry", &collector());
    let mut document = acme.get("/config");
    document["telemetry"]["signals"] = json!(["logs"]);
    acme.expect(200, "PUT", "/config", &document);
    assert_eq!(acme.get("/telemetry")["has_headers"], json!(true));
    document["telemetry"]["endpoint"] = json!("https://elsewhere.example.com");
    acme.expect(200, "PUT", "/config", &document);
    assert_eq!(acme.get("/telemetry")["has_headers"], json!(false));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_field() {
    let acme = Acme::new();
    let many: Value =
        (0..17).map(|n| (format!("h{n}"), "v".into())).collect::<serde_json::Map<_, _>>().into();
    let at = |endpoint: &str| json!({ "endpoint": endpoint });
    for (body, field) in [
        (at("http://otlp.example.com"), "telemetry.endpoint"),
        (at("https://localhost:4318"), "telemetry.endpoint"),
        (at("https://10.0.0.1"), "telemetry.endpoint"),
        (at("https://[::1]:4318"), "telemetry.endpoint"),
        (at("https://user:pass@otlp.example.com"), "telemetry.endpoint"),
        (at("https://otlp.example.com?token=x"), "telemetry.endpoint"),
        (at("https://otlp.example.com/v1/logs"), "telemetry.endpoint"),
        (json!({ "signals": [] }), "telemetry.signals"),
        (json!({ "resource": { "": "x" } }), "telemetry.resource"),
        (json!({ "resource": { "x": "two\nlines" } }), "telemetry.resource"),
        (json!({ "headers": { "host": "x" } }), "headers"),
        (json!({ "headers": { "Content-Type": "x" } }), "headers"),
        (json!({ "headers": { "bad name": "x" } }), "headers"),
        (json!({ "headers": { "x": "a\r\nb: c" } }), "headers"),
        (json!({ "headers": { "x": "" } }), "headers"),
        (json!({ "headers": { "a": "v".repeat(2_048), "b": "v".repeat(2_048) } }), "headers"),
        (json!({ "headers": many }), "headers"),
    ] {
        let (status, answer) = acme.ask("PUT", "/telemetry", &body);
        assert_eq!((status, &answer["code"]), (422, &json!("invalid_field")), "{body}: {answer}");
        assert_eq!(answer["errors"][0]["field"], json!(field), "{body}: {answer}");
    }
    acme.refuse(404, "not_found", "GET", "/telemetry", &Value::Null);
    let unknown = json!({ "signals": ["traces"] });
    assert_eq!(acme.ask("PUT", "/telemetry", &unknown).0, 400);
}

#[test]
fn every_role_may_scrape_and_admins_alone_configure() {
    let acme = Acme::new();
    let (id, _) = acme.key("chat", &json!({}));
    for role in ["finance", "developer", "auditor"] {
        let token = acme.token_of(role);
        let (status, page) = acme.ask_as(&token, "GET", "/metrics", &Value::Null);
        assert_eq!(status, 200);
        assert!(page.as_str().unwrap().contains("# TYPE tallygate_requests_total counter\n"));
        assert_eq!(acme.ask_as(&token, "PUT", "/telemetry", &collector()).0, 403, "{role}");
    }
    assert!(!acme.expect(200, "GET", "/metrics", &Value::Null).to_string().contains(&id));
}

#[test]
fn the_headers_move_to_a_new_key_of_the_ring() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/telemetry", &collector());
    *acme.shell.ring.borrow_mut() = ring_of(&[("k2", 2), ("k1", 1)]);
    // The provider's credential is the other one.
    let resealed = acme.expect(200, "POST", "/reseal", &Value::Null);
    assert_eq!(resealed, json!({ "resealed": 2 }));
    *acme.shell.ring.borrow_mut() = ring_of(&[("k2", 2)]);
    let again = acme.expect(200, "POST", "/reseal", &Value::Null);
    assert_eq!(again, json!({ "resealed": 0 }));
}

#[test]
fn whether_traces_are_started_reaches_every_key() {
    let acme = Acme::new();
    let issued = acme.expect(201, "POST", "/keys", &new_key("chat", &json!({})));
    let id = issued["id"].as_str().unwrap();
    let starts = || acme.shell.meter(id).plan.as_ref().is_some_and(|plan| plan.start_traces);
    assert!(!starts());
    acme.expect(200, "PUT", "/telemetry", &json!({ "start_traces": true }));
    assert!(starts());
    acme.expect(200, "DELETE", "/telemetry", &Value::Null);
    assert!(!starts());
}
