//! Pages that list: corrections of budgets, alerts, keys. Their numbers are the API's.

use serde_json::{Value, json};
use tallygate_shared::time::Timestamp;

use super::{Browser, token_of};
use crate::objects::test_shell::{NOW_MS, Shell};
use crate::objects::workspace_object::WorkspaceObject;

fn api(shell: &Shell, token: &str, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = shell.call(method, &format!("/workspaces/ws_acme{path}"), token, body);
    assert!(status < 300, "{method} {path}: {answer}");
    answer
}

#[test]
fn corrections_stand_on_the_reconciliation_page_a_page_at_a_time_and_as_csv() {
    let (shell, token) = Shell::with_workspace();
    let terms = json!({ "scope": { "dimension": "team", "value": "*" }, "owner": "ann", "limit_usd": "50",
                        "window": "month" });
    api(&shell, &token, "PUT", "/budgets/teams", &terms);
    let kept = |team: u32| {
        json!({ "correction": { "budget": "teams", "value": format!("<b>{team}"), "day": "2026-11-19",
                    "source": "openai", "revision": 7, "amount": "1.25", "by_quantity": "0.25", "by_price": "1" },
                "windows": ["month:2026-11"] })
    };
    let record = json!({ "at": NOW_MS, "kept": (0..51).map(kept).collect::<Vec<_>>() });
    let workspace = WorkspaceObject::open(shell.workspace_sql("ws_acme")).unwrap();
    workspace.corrected(&record.to_string()).unwrap();
    let (finance, _) = token_of(&shell, &token, "finance");
    let mut browser = Browser::signed_in(&shell, &finance);
    let page = browser.get("/dashboard/reconciliation");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("/dashboard/budgets/teams") && page.body.contains("&#60;b&#62;50"));
    let next = page.body.split("corrections=").nth(1).expect("a next page");
    let next: String = next.chars().take_while(char::is_ascii_digit).collect();
    let csv = |browser: &mut Browser<'_>, query: &str| {
        let path = format!("/dashboard/reconciliation?format=csv&table=corrections{query}");
        let lines = browser.get(&path).body;
        lines.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = csv(&mut browser, "");
    assert_eq!(first.len(), 50);
    let line = "2026-11-20T10:00:00.000Z,2026-11-19,openai,teams,<b>50,ann,7,1.25,1.25,0.25,1,1.25,month:2026-11,counts";
    assert_eq!(first[0], line);
    let last = csv(&mut browser, &format!("&corrections={next}"));
    assert_eq!(last, [line.replace("<b>50", "<b>0")]);
    assert_eq!(csv(&mut browser, "&provider=anthropic"), Vec::<String>::new());
    assert_eq!(csv(&mut browser, "&from=2026-11-20"), Vec::<String>::new());
}

#[test]
fn an_idle_commitment_stands_among_the_savings_under_its_own_name() {
    let (shell, token) = Shell::with_workspace();
    let mut config = api(&shell, &token, "GET", "/config", &Value::Null);
    config["commitments"]["<b>ptu"] = json!({ "provider": "openai", "model": "gpt-6-sol", "units": 10,
        "usd_per_unit_hour": "1", "tokens_per_minute": { "input": 10_000, "output": 1_000 } });
    let (status, problem) = shell.call("PUT", "/workspaces/ws_acme/config", &token, &config);
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("commitments")));
    let terms = config["commitments"]["<b>ptu"].take();
    config["commitments"] = json!({ "ptu": terms });
    api(&shell, &token, "PUT", "/config", &config);
    shell.now.set(NOW_MS + 20 * 86_400_000);
    let mut browser = Browser::signed_in(&shell, &token);
    let csv = browser.get("/dashboard/savings?format=csv&table=opportunities").body;
    let row = csv.lines().nth(1).unwrap();
    let start = "An idle commitment,ptu,openai/gpt-6-sol,7200,high,yes,";
    assert!(row.starts_with(start) && row.contains("utilisation percent 0.00"), "{csv}");
    let page = browser.get("/dashboard/savings");
    let href = "/dashboard/requests?from=2026-11-10&#38;model=gpt-6-sol&#38;provider=openai&#38;until=2026-12-10";
    assert!(page.body.contains(href), "{}", page.body);
}

#[test]
fn a_key_says_how_the_providers_that_it_may_use_are_paid() {
    let (shell, token) = Shell::with_workspace();
    let provider = |name: &str, kind: &str, paid: Value| {
        let body = json!({ "name": name, "kind": kind, "payment_method": paid });
        api(&shell, &token, "POST", "/providers", &body);
    };
    provider("claude", "anthropic", json!("invoice, PO 7"));
    provider("spare", "mistral", Value::Null);
    let body = json!({ "payment_method": "card ending 4242" });
    api(&shell, &token, "PATCH", "/providers/openai", &body);
    api(
        &shell,
        &token,
        "PUT",
        "/policies/narrow",
        &json!({ "models": { "allow": ["claude-*", "gpt-*"] } }),
    );
    let key = |name: &str, policy: Value| {
        let body = json!({ "name": name, "owner": "ann", "cost_centre": "rd", "purpose": "p", "environment": "e",
                           "policy": policy });
        api(&shell, &token, "POST", "/keys", &body);
    };
    key("any", json!({}));
    key("narrow", json!("narrow"));
    let inventory = api(&shell, &token, "GET", "/key-inventory", &Value::Null);
    let of = |name: &str| {
        let keys = inventory["data"].as_array().unwrap();
        keys.iter().find(|key| key["name"] == name).unwrap()["payment_methods"].clone()
    };
    let (card, invoice) = ("card ending 4242", "invoice, PO 7");
    assert_eq!(of("any"), json!({ "openai": card, "claude": invoice, "spare": null }));
    assert_eq!(of("narrow"), json!({ "openai": card, "claude": invoice }));
    let (finance, _) = token_of(&shell, &token, "finance");
    let csv =
        Browser::signed_in(&shell, &finance).get("/dashboard/keys?format=csv&table=keys").body;
    let paid = "\"card ending 4242 (openai); invoice, PO 7 (claude); not said (spare)\"";
    assert!(csv.contains(paid), "{csv}");
}

#[test]
fn a_developer_with_an_owner_sees_own_models_and_no_others() {
    let (shell, token) = Shell::with_workspace();
    let event = |seq: u64, owner: &str, model: &str, outcome: &str, charged: &str| {
        let at = NOW_MS - 60_000;
        json!({
            "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme",
            "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "ci", "owner": owner,
            "cost_centre": "r&d", "purpose": "tests", "environment": "test", "actor": {},
            "endpoint": "/v1/chat/completions", "stream": false, "requested_model": model, "provider": "openai",
            "model": model, "attempts": [], "outcome": outcome, "status": 200,
            "usage": { "source": "reported",
                       "tally": { "tokens": { "input": 900, "cache_read": 100, "output": 1000 } } },
            "charged": charged, "hold": "0.5", "duration_ms": 700,
        })
    };
    let events = [
        event(1, "ann", "gpt-x", "completed", "0.5"),
        event(2, "ann", "gpt-x", "stalled", "0.25"),
        event(3, "eve", "gpt-secret", "completed", "7"),
    ];
    let batch = json!({ "meter": "0000000000000001", "events": events });
    shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    let body = json!({ "name": "dev", "role": "developer", "owner": "ann" });
    let own = api(&shell, &token, "POST", "/tokens", &body)["token"].as_str().unwrap().to_owned();
    let mut browser = Browser::signed_in(&shell, &own);
    let csv = browser.get("/dashboard/models?format=csv&table=models").body;
    let lines: Vec<&str> = csv.lines().collect();
    // No latency, no retry and no outcome: those sums are of everybody's requests.
    assert_eq!(lines[1..], ["gpt-x,openai,2,1,5000,,,,,,,,4000,1000,0.75,187.5,0.375,,"]);
    let page = browser.get("/dashboard/models?over_time=p95");
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.body.contains("Requests by day, in count") && page.body.contains("your own requests")
    );
    assert!(
        !page.body.contains("class=\"note bad\"") && !page.body.contains("gpt-secret"),
        "{}",
        page.body
    );
    let tokens = browser.get("/dashboard/models?format=csv&table=tokens").body;
    assert!(tokens.contains("\"Input, not cached\",input,1800"), "{tokens}");
    let asked = browser.get("/dashboard/models?model=gpt-secret&format=csv&table=models").body;
    assert_eq!(asked.lines().count(), 1, "{asked}");
    let days = browser.get("/dashboard/models?format=csv&table=over-time").body;
    assert!(days.contains("openai/gpt-x") && days.contains("2026-11-20,2"), "{days}");
}

#[test]
fn open_alerts_are_counted_by_severity_beyond_one_page_and_for_their_owner() {
    let (shell, token) = Shell::with_workspace();
    let mut alerts = shell.alerts("ws_acme");
    let now = Timestamp::from_ms(NOW_MS);
    for place in 0..130 {
        let owner = if place < 120 { "ann" } else { "eve" };
        let snapshot = json!({ "workspace": "ws_acme", "budget": format!("b{place}"), "value": "", "owner": owner,
            "window_starts_at": NOW_MS - 86_400_000, "window_ends_at": NOW_MS + 86_400_000, "limit": "5",
            "spent": "5", "held": "0", "thresholds": [50], "at": NOW_MS });
        alerts.budget(&snapshot.to_string(), now).unwrap();
    }
    let counts = || api(&shell, &token, "GET", "/alert-counts", &Value::Null);
    let severity =
        api(&shell, &token, "GET", "/alerts?limit=1", &Value::Null)["data"][0]["severity"].clone();
    let severity = severity.as_str().unwrap();
    assert_eq!(counts()[severity]["open"], 130);
    let sum = |counts: &Value| {
        let severities = counts.as_object().unwrap().values();
        let states = severities.flat_map(|of| of.as_object().unwrap().values());
        states.map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(sum(&counts()), 130);
    let first =
        api(&shell, &token, "GET", "/alerts?limit=1", &Value::Null)["data"][0]["id"].clone();
    let path = format!("/alerts/{}/acknowledge", first.as_str().unwrap());
    api(&shell, &token, "POST", &path, &Value::Null);
    assert_eq!(
        (&counts()[severity]["open"], &counts()[severity]["acknowledged"]),
        (&json!(129), &json!(1))
    );
    let link = |count: u32| {
        format!("<a href=\"/dashboard/alerts?state=open&#38;severity={severity}\">{count}</a>")
    };
    let mut browser = Browser::signed_in(&shell, &token);
    let page = browser.get("/dashboard/alerts");
    assert!(
        page.body.contains(&link(129)) && page.body.contains("1 acknowledged"),
        "{}",
        page.body
    );
    let filtered = browser.get(&format!("/dashboard/alerts?state=open&severity={severity}"));
    assert_eq!((filtered.status, filtered.body.contains("cursor=")), (200, true));
    // Whoever sees one owner's alerts counts these.
    let body = json!({ "name": "dev", "role": "developer", "owner": "eve" });
    let own = api(&shell, &token, "POST", "/tokens", &body)["token"].as_str().unwrap().to_owned();
    assert_eq!(sum(&api(&shell, &own, "GET", "/alert-counts", &Value::Null)), 10);
    let page = Browser::signed_in(&shell, &own).get("/dashboard/alerts");
    assert!(page.body.contains(&link(10)), "{}", page.body);
}
