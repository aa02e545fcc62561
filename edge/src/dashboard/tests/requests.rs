//! The pages of requests: what was billed of one, and the ways that lead to them.

use serde_json::{Value, json};

use super::Browser;
use crate::objects::test_shell::{NOW_MS, Shell};

#[test]
fn a_request_finds_its_bill_whatever_the_workspace_calls_the_provider() {
    let (shell, token) = Shell::with_workspace();
    let provider = json!({ "name": "eu", "kind": "openai", "region": "eu" });
    let (status, made) = shell.call("POST", "/workspaces/ws_acme/providers", &token, &provider);
    assert_eq!(status, 201, "{made}");
    let at = NOW_MS - 60_000;
    let event = |seq: u64, provider: &str| {
        json!({
            "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme",
            "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "ci", "owner": "ada",
            "cost_centre": "r&d", "purpose": "tests", "environment": "test", "actor": {},
            "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "gpt-x", "provider": provider,
            "model": "gpt-x", "attempts": [], "outcome": "completed", "status": 200, "usage": { "source": "absent" },
            "charged": "0.1", "hold": "0.5", "duration_ms": 700,
        })
    };
    let events = [event(1, "eu"), event(2, "openai"), event(3, "removed")];
    let batch = json!({ "meter": "0000000000000001", "events": events });
    let ledger = shell.ledger("ws_acme:2026-11");
    ledger.apply(&batch.to_string()).unwrap();
    let line = json!([{ "day": "2026-11-20", "provider": "openai", "line": "a", "revision": 1, "model": "gpt-x",
        "meter": "input", "kind": "usage", "owner": { "key": "0000000000000001" }, "estimated": "0.1",
        "billed": "0.125", "quantity_variance": "0.025", "price_variance": "0", "provisional": false }]);
    ledger.true_up(&line.to_string()).unwrap();
    let mut browser = Browser::signed_in(&shell, &token);
    for (event, billed) in events.iter().zip([true, true, false]) {
        let id = event["id"].as_str().unwrap();
        let page = browser.get(&format!("/dashboard/requests/{id}"));
        assert_eq!(page.status, 200, "{}", page.body);
        assert_eq!(page.body.contains("value=\"0.125\""), billed, "{id}: {}", page.body);
        assert_eq!(page.body.contains("Not reconciled yet"), !billed, "{id}");
    }
    let (_, known) = shell.call("GET", "/workspaces/ws_acme/providers", &token, &Value::Null);
    assert_eq!(known["data"].as_array().unwrap().len(), 2);
}
