//! Models, requests, prompts, sessions and refusals: what the API answers, and what stands on the pages.

use serde_json::{Value, json};

use super::tests::{Browser, token_of};
use crate::objects::test_shell::{NOW_MS, Shell};

const KEY: &str = "0000000000000001";

/// A day of one key: two requests of a session, and a refusal.
fn traffic(shell: &Shell) -> [String; 3] {
    let id =
        |seq: u64| format!("req_{:012x}7{seq:019x}", NOW_MS - 60_000 + i64::try_from(seq).unwrap());
    let event = |seq: u64, changes: Value| {
        let at = NOW_MS - 60_000 + i64::try_from(seq).unwrap();
        let mut event = json!({
            "v": 1, "id": id(seq), "seq": seq, "workspace": "ws_acme", "key": KEY, "at": at, "settled_at": at + 900,
            "key_name": "ci", "owner": "ada", "cost_centre": "r&d", "purpose": "tests", "environment": "test",
            "actor": { "team": "search", "feature": "answers", "session": "<s>/1" },
            "endpoint": "/v1/chat/completions", "stream": true, "requested_model": "gpt-x", "provider": "openai",
            "model": "gpt-x", "outcome": "completed", "status": 200,
            "attempts": [{ "provider": "openai", "model": "gpt-x", "status": 200, "started_ms": 1, "took_ms": 300 }],
            "usage": { "source": "reported", "tally": { "tokens": { "input": 900 * seq, "cache_read": 100, "output": 50 } } },
            "cost": { "total": "0.5", "parts": { "input": "0.4", "output": "0.1" },
                      "price": { "row": "openai/gpt-x", "book": "2026-11-01", "tier": "standard" } },
            "charged": "0.5", "hold": "0.75", "duration_ms": 700, "first_byte_ms": 90,
            "decided": { "asked": { "input_tokens": 1200, "max_output_tokens": 64, "body_bytes": 4321,
                                    "parts": { "system": 200, "history": 1000 } },
                         "limits": [{ "name": "spend_cap day", "limit": "20", "before": "1.25", "asked": "0.75" }] },
        });
        event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        event
    };
    let refused = json!({
        "outcome": "refused", "code": "model_not_allowed", "status": 403, "provider": null, "model": null,
        "attempts": [], "usage": { "source": "absent" }, "cost": null, "charged": "0", "hold": "0",
        "requested_model": "gpt-6-sol",
        "decided": { "asked": { "input_tokens": 10, "max_output_tokens": 10, "body_bytes": 99 },
                     "limits": [{ "name": "models", "asked": "gpt-6-sol", "refused": true }], "refused_by": "model",
                     "load": { "spent": [["day", "1"]] } },
    });
    let events = [event(1, json!({})), event(2, json!({})), event(3, refused)];
    let batch = json!({ "meter": KEY, "events": events });
    shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    [id(1), id(2), id(3)]
}

fn has(page: &super::tests::Page, path: &str, texts: &[&str]) {
    assert_eq!(page.status, 200, "{path}: {}", page.body);
    for text in texts {
        assert!(page.body.contains(text), "{path} lacks {text}: {}", page.body);
    }
    assert!(!page.body.contains("<s>"), "{path} has text that is no text");
}

#[test]
fn the_pages_show_what_the_api_says_to_every_role() {
    let (shell, admin) = Shell::with_workspace();
    let [_, second, refusal] = traffic(&shell);
    for role in ["finance", "developer", "auditor"] {
        let (token, _) = token_of(&shell, &admin, role);
        let mut browser = Browser::signed_in(&shell, &token);
        let mut see = |path: &str, texts: &[&str]| has(&browser.get(path), path, texts);
        see("/dashboard/models", &["gpt-x", ">2</data>", "Latency p95", "value=\"333.333333333\""]);
        see(
            "/dashboard/models?over_time=usd_per_accepted",
            &["Per accepted outcome by day, in USD"],
        );
        see("/dashboard", &["Tokens by bucket", "<data value=\"2700\""]);
        see("/dashboard/requests?sort=tokens&session=%3Cs%3E%2F1", &["the largest first", &second]);
        see(
            &format!("/dashboard/requests/{second}"),
            &[
                "spend cap day",
                "1.25",
                "4,321",
                "gpt-x",
                "History",
                "2026-11-01",
                "Given back",
                "Not reconciled yet",
                "/dashboard/agent-sessions/%3Cs%3E%2F1",
            ],
        );
        see(&format!("/dashboard/requests/{refusal}"), &["refused", "models"]);
        see("/dashboard/prompts", &["mostly history", "answers", "&#60;s&#62;/1"]);
        see("/dashboard/agent-sessions/%3Cs%3E%2F1", &["+900", &second]);
        see("/dashboard/blocked", &["model not allowed", "ada"]);
        see("/dashboard/blocked?rules=%7B%7D", &["Would pass", "Why the others would not"]);
    }
}

#[test]
fn what_was_refused_makes_no_request_cheaper() {
    let (shell, admin) = Shell::with_workspace();
    traffic(&shell);
    let mut browser = Browser::signed_in(&shell, &admin);
    let page = browser.get("/dashboard");
    let (_, stat) = page.body.split_once("Per request").unwrap();
    assert!(stat.split("</data>").next().unwrap().contains("value=\"0.5\""), "{stat}");
    let path = "/dashboard/calculators/workload";
    let inputs = ["name=\"requests\" type=\"number\" value=\"2\"", "value=\"1450\""];
    has(&browser.get(path), path, &inputs);
}

#[test]
fn tables_download_with_exact_values() {
    let (shell, admin) = Shell::with_workspace();
    traffic(&shell);
    let mut browser = Browser::signed_in(&shell, &admin);
    let page = browser.get("/dashboard/models?format=csv&table=models");
    assert_eq!(page.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<&str> = page.body.lines().collect();
    assert!(
        lines[0].starts_with("model,provider,requests,errors,error_rate_basis_points"),
        "{}",
        lines[0]
    );
    assert!(lines[1].starts_with("gpt-x,openai,2,0,0,0,"), "{}", lines[1]);
    let page = browser.get("/dashboard/blocked?format=csv&table=by-reason");
    assert_eq!(page.body, "reason,code,refusals\r\nmodel not allowed,model_not_allowed,1\r\n");
}

#[test]
fn bad_questions_are_answered_with_field_and_remedy() {
    let (shell, admin) = Shell::with_workspace();
    let bad = [
        ("model-performance?bucket=week", "bucket"),
        ("model-performance?group_by=team", "group_by"),
        ("model-performance?from=now", "from"),
        ("prompt-shapes?from=2026-11-20T10:00:00Z", "from"),
        ("agent-sessions?sort=name", "sort"),
        ("agent-sessions?limit=0", "limit"),
        ("refusals?group_by=model", "group_by"),
        ("refusals?bucket=x", "bucket"),
        ("requests?sort=price", "sort"),
        ("requests?sort=charged&cursor=req_1", "cursor"),
        ("requests?min_charged_usd=cheap", "min_charged_usd"),
        ("requests?max_charged_usd=0.0000000001", "max_charged_usd"),
    ];
    for (path, field) in bad {
        let path = format!("/workspaces/ws_acme/{path}");
        let (status, body) = shell.call("GET", &path, &admin, &Value::Null);
        assert_eq!((status, &body["errors"][0]["field"]), (422, &json!(field)), "{path}: {body}");
        assert!(body["errors"][0]["remedy"].as_str().is_some_and(|it| !it.is_empty()), "{body}");
    }
    let path = "/workspaces/ws_acme/agent-sessions/nobody";
    assert_eq!(shell.call("GET", path, &admin, &Value::Null).0, 404);
    let path = "/workspaces/ws_acme/refusals/simulate";
    for body in [
        json!({ "policy": "none" }),
        json!({ "policy": { "max_request_usd": "-1" } }),
        json!({ "policy": { "max_request_used": "1" } }),
        json!({ "policy": {}, "from": "x" }),
        json!({ "policy": {}, "filters": { "model": "m" } }),
        json!({}),
    ] {
        let (status, answer) = shell.call("POST", path, &admin, &body);
        assert!(matches!(status, 400 | 422), "{body}: {status} {answer}");
    }
}

#[test]
fn a_policy_is_tried_by_name_and_by_its_rules_and_nothing_is_stored() {
    let (shell, admin) = Shell::with_workspace();
    traffic(&shell);
    let strict = json!({ "models": { "allow": ["gpt-6-luna"] } });
    let path = "/workspaces/ws_acme/policies/strict";
    assert_eq!(shell.call("PUT", path, &admin, &strict).0, 200);
    let (developer, _) = token_of(&shell, &admin, "developer");
    let path = "/workspaces/ws_acme/refusals/simulate";
    let before = shell.dump();
    let tried = |policy: Value| {
        let body =
            json!({ "policy": policy, "from": "2026-11-01", "filters": { "team": "search" } });
        let (status, answer) = shell.call("POST", path, &developer, &body);
        assert_eq!(status, 200, "{answer}");
        (answer["would_pass"].clone(), answer["refused_for"].clone())
    };
    let refused = json!([{ "code": "model_not_allowed", "refusals": 1 }]);
    assert_eq!(tried(json!("strict")), (json!(0), refused));
    assert_eq!(tried(json!({})), (json!(1), json!([])));
    assert_eq!(shell.dump(), before);
    let mut browser = Browser::signed_in(&shell, &developer);
    let page = browser.get("/dashboard/blocked?rules=%7B");
    has(&page, "rules", &["are no JSON"]);
    let page = browser.get("/dashboard/blocked?rules=%7B%22max_request_used%22%3A1%7D");
    assert!(page.body.contains("class=\"note bad\"") && page.body.contains("max_request_used"));
}
