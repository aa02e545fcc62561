//! The inventory of keys and the scale crawl, walk, run, over a whole control plane.

use serde_json::{Value, json};
use tallygate_shared::time::DAY_MS;

use super::{Acme, new_key};
use crate::objects::test_shell::NOW_MS;

fn event(key: &str, at: i64, actor: &Value) -> Value {
    json!({ "v": 1, "id": format!("req_{at:012x}70000000000000000001"), "seq": 1, "workspace": "ws_acme", "key": key,
            "at": at, "settled_at": at, "key_name": "k", "owner": "ada", "cost_centre": "r&d", "purpose": "p",
            "environment": "e", "actor": actor, "endpoint": "/v1/chat/completions", "stream": false,
            "requested_model": "gpt-x", "provider": "openai", "model": "gpt-x", "attempts": [],
            "outcome": "completed", "status": 200, "charged": "0.5", "hold": "0.5", "duration_ms": 700,
            "usage": { "source": "reported", "tally": { "tokens": { "input": 90, "cache_read": 10, "output": 5 } } } })
}

#[test]
fn the_inventory_knows_age_use_and_rotation_across_months() {
    let acme = Acme::new();
    let (used, _) = acme.key("used", &json!({}));
    let (idle, _) = acme.key("idle", &json!({}));
    let mut nobodys = new_key("nobody's", &json!({}));
    nobodys["owner"] = "unassigned".into();
    let nobodys = acme.expect(201, "POST", "/keys", &nobodys)["id"].clone();
    let then = NOW_MS + 5 * DAY_MS;
    let batch = json!({ "meter": used, "events": [event(&used, then, &json!({}))] });
    acme.shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    acme.shell.now.set(NOW_MS + 30 * DAY_MS);
    let list = acme.get("/key-inventory");
    let find = |list: &Value, id: &Value| {
        list["data"].as_array().unwrap().iter().find(|it| it["id"] == *id).unwrap().clone()
    };
    let key = find(&list, &json!(used));
    assert_eq!(
        (&key["findings"], &key["age_days"], &key["requests"]),
        (&json!([]), &json!(30), &json!(1))
    );
    assert_eq!(
        (&key["charged_usd"], &key["last_used_at"]),
        (&json!("0.5"), &json!("2026-11-25T10:00:00.000Z"))
    );
    assert_eq!(key["created_at"], "2026-11-20T10:00:00.000Z");
    assert_eq!(key["rotation_due_at"], "2027-02-18T10:00:00.000Z");
    assert_eq!(find(&list, &json!(idle))["findings"], json!(["unused"]));
    assert_eq!(find(&list, &nobodys)["findings"], json!(["unused", "unowned"]));
    let few = acme.get("/key-inventory?days=7");
    let key = find(&few, &json!(used));
    assert_eq!((&key["findings"], &key["requests"]), (&json!(["unused"]), &json!(0)));
    assert_eq!(key["last_used_at"], "2026-11-25T10:00:00.000Z");
    assert_eq!(find(&few, &json!(idle))["last_used_at"], Value::Null);
    assert_eq!(acme.get("/key-inventory?owner=ada")["data"].as_array().unwrap().len(), 2);
    for bad in ["0", "366", "x"] {
        acme.refuse(
            422,
            "invalid_field",
            "GET",
            &format!("/key-inventory?days={bad}"),
            &Value::Null,
        );
    }
    // A new secret begins a new time; the workspace says how long one is.
    let mut config = acme.get("/config");
    config["dashboard"] = json!({ "rotate_keys_after_days": 30 });
    acme.expect(200, "PUT", "/config", &config);
    let due = |id: &str| {
        find(&acme.get("/key-inventory"), &json!(id))["findings"]
            .to_string()
            .contains("rotation_due")
    };
    assert!(due(&used));
    acme.expect(200, "POST", &format!("/keys/{used}/rotate"), &Value::Null);
    assert!(!due(&used) && due(&idle));
    for bad in [0, 3_651] {
        config["dashboard"]["rotate_keys_after_days"] = bad.into();
        let problem = acme.refuse(422, "invalid_field", "PUT", "/config", &config);
        assert_eq!(problem["errors"][0]["field"], "dashboard.rotate_keys_after_days");
    }
}

#[test]
fn the_last_use_of_a_key_is_known_for_a_year() {
    let acme = Acme::new();
    let (key, _) = acme.key("old", &json!({}));
    let use_at = |key: &str, at: i64| {
        let mut event = event(key, at, &json!({}));
        event["seq"] = (at / DAY_MS).into();
        let batch = json!({ "meter": key, "events": [event] });
        acme.shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    };
    use_at(&key, NOW_MS);
    use_at(&key, NOW_MS + DAY_MS);
    let last = |days: i64| {
        acme.shell.now.set(NOW_MS + days * DAY_MS);
        let list = acme.get("/key-inventory?days=30");
        let row = list["data"].as_array().unwrap().iter().find(|it| it["id"] == key).cloned();
        let row = row.unwrap();
        (row["requests"].clone(), row["last_used_at"].clone())
    };
    let hour = json!("2026-11-21T10:00:00.000Z");
    assert_eq!(last(30), (json!(2), hour.clone()));
    // Of the newest day the hours are there, of a day that is over itself.
    assert_eq!(last(60), (json!(0), hour));
    use_at("0000000000000009", NOW_MS + 3 * DAY_MS);
    assert_eq!(last(366), (json!(0), json!("2026-11-21T00:00:00.000Z")));
    assert_eq!(last(367), (json!(0), Value::Null));
}

#[test]
fn the_scale_counts_what_is_really_used() {
    let acme = Acme::new();
    let level = |answer: &Value, name: &str| {
        let all = answer["capabilities"].as_array().unwrap();
        all.iter().find(|it| it["capability"] == name).unwrap()["level"].clone()
    };
    let before = acme.get("/maturity");
    for name in ["visibility", "allocation", "optimisation", "governance", "tooling", "culture"] {
        assert_eq!(level(&before, name), "none", "{name}");
    }
    let (key, _) = acme.key("k", &json!({ "spend_caps": [{ "window": "day", "limit_usd": "5" }] }));
    let batch = json!({ "meter": key, "events": [event(&key, NOW_MS - 60_000, &json!({ "team": "search" }))] });
    acme.shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    let hook = json!({ "type": "standard_webhook", "url": "https://hooks.example.com/x" });
    acme.expect(200, "PUT", "/receivers/ops", &hook);
    for role in ["finance", "developer"] {
        let token = acme.token_of(role);
        assert_eq!(acme.ask_as(&token, "POST", "/sessions", &Value::Null).0, 201);
    }
    let after = acme.get("/maturity");
    let levels = ["visibility", "allocation", "optimisation", "governance", "tooling", "culture"]
        .map(|name| level(&after, name).as_str().unwrap().to_owned());
    assert_eq!(levels, ["crawl", "walk", "crawl", "run", "crawl", "crawl"], "{after}");
    assert_eq!(
        (&after["facts"]["charged_usd"], &after["facts"]["visitors"]),
        (&json!("0.5"), &json!(2))
    );
    let next = after["capabilities"][0]["next"].as_str().unwrap();
    assert!(next.contains("reconciler"), "{next}");
}
