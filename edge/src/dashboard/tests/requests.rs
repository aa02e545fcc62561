//! The pages of requests: what was billed of one, and the ways that lead to them.

use serde_json::{Value, json};

use super::Browser;
use crate::objects::test_shell::{NOW_MS, Shell};

fn event(seq: u64, provider: &str, actor: Value) -> Value {
    let at = NOW_MS - 60_000;
    json!({
        "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme",
        "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "ci", "owner": "ada",
        "cost_centre": "r&d", "purpose": "tests", "environment": "test", "actor": actor,
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "gpt-x", "provider": provider,
        "model": "gpt-x", "attempts": [], "outcome": "completed", "status": 200, "usage": { "source": "absent" },
        "charged": "0.1", "hold": "0.5", "duration_ms": 700,
    })
}

#[test]
fn a_request_finds_its_bill_whatever_the_workspace_calls_the_provider() {
    let (shell, token) = Shell::with_workspace();
    let provider = json!({ "name": "eu", "kind": "openai", "region": "eu" });
    let (status, made) = shell.call("POST", "/workspaces/ws_acme/providers", &token, &provider);
    assert_eq!(status, 201, "{made}");
    // Azure's bill is its own, though the price book lists its models as OpenAI's.
    let azure =
        json!({ "name": "foundry", "kind": "azure", "base_url": "https://acme.openai.azure.com" });
    let (status, made) = shell.call("POST", "/workspaces/ws_acme/providers", &token, &azure);
    assert_eq!(status, 201, "{made}");
    let providers = ["eu", "openai", "removed", "foundry"];
    let events: Vec<Value> =
        (1..).zip(providers).map(|(number, name)| event(number, name, json!({}))).collect();
    let batch = json!({ "meter": "0000000000000001", "events": events });
    let ledger = shell.ledger("ws_acme:2026-11");
    ledger.apply(&batch.to_string()).unwrap();
    let line = json!([{ "day": "2026-11-20", "provider": "openai", "line": "a", "revision": 1, "model": "gpt-x",
        "meter": "input", "kind": "usage", "owner": { "key": "0000000000000001" }, "estimated": "0.1",
        "billed": "0.125", "quantity_variance": "0.025", "price_variance": "0", "provisional": false }]);
    ledger.true_up(&line.to_string()).unwrap();
    let mut browser = Browser::signed_in(&shell, &token);
    for (event, billed) in events.iter().zip([true, true, false, false]) {
        let id = event["id"].as_str().unwrap();
        let page = browser.get(&format!("/dashboard/requests/{id}"));
        assert_eq!(page.status, 200, "{}", page.body);
        assert_eq!(page.body.contains("value=\"0.125\""), billed, "{id}: {}", page.body);
        assert_eq!(page.body.contains("Not reconciled yet"), !billed, "{id}");
    }
    let (_, known) = shell.call("GET", "/workspaces/ws_acme/providers", &token, &Value::Null);
    assert_eq!(known["data"].as_array().unwrap().len(), 3);
}

#[test]
fn what_has_no_owner_leads_to_its_own_requests() {
    let (shell, token) = Shell::with_workspace();
    let events = [
        event(1, "openai", json!({ "team": "search", "feature": "answers" })),
        event(2, "openai", json!({ "team": "search" })),
        event(3, "openai", json!({ "session": "s1" })),
    ];
    let batch = json!({ "meter": "0000000000000001", "events": events });
    shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    let ask =
        |path: &str| shell.call("GET", &format!("/workspaces/ws_acme{path}"), &token, &Value::Null);
    let count = |path: &str| {
        let (status, answer) = ask(path);
        assert_eq!(status, 200, "{answer}");
        answer["data"].as_array().unwrap().len()
    };
    // By the sums, by the index of sessions, and among the newest.
    for (query, expected) in [
        ("feature=", 2),
        ("feature=&team=search", 1),
        ("feature=&team=", 1),
        ("session=", 2),
        ("feature=&sort=charged", 2),
        ("key=", 0),
    ] {
        assert_eq!(count(&format!("/requests?{query}")), expected, "{query}");
    }
    let (_, usage) = ask("/usage?team=");
    assert_eq!(usage["data"][0]["requests"], 1);
    let mut browser = Browser::signed_in(&shell, &token);
    let rows = |browser: &mut Browser<'_>, path: &str| {
        let page = browser.get(path);
        assert_eq!(page.status, 200, "{}", page.body);
        page.body.lines().count() - 1
    };
    let csv = |query: &str| format!("/dashboard/requests?format=csv&table=requests&{query}");
    assert_eq!(rows(&mut browser, &csv("none=feature")), 2);
    assert_eq!(rows(&mut browser, &csv("none=feature,%20team")), 1);
    // An empty field of the form is no filter.
    assert_eq!(rows(&mut browser, &csv("none=&feature=")), 3);
    let page = browser.get("/dashboard/usage?by=feature");
    let href = "/dashboard/usage?none=feature&#38;by=team";
    assert!(page.body.contains(href), "{}", page.body);
    let page = browser.get("/dashboard/usage?none=feature&by=team");
    assert!(page.body.contains("/dashboard/requests?none=feature\""), "{}", page.body);
    assert!(page.body.contains("Feature: Unallocated (take away)"), "{}", page.body);
    assert!(page.body.contains("/dashboard/usage?none=feature%2Cteam&#38;by=key"), "{}", page.body);
    assert_eq!(browser.get("/dashboard/requests?none=colour").status, 422);
}
