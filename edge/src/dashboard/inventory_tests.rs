//! Keys and providers, receivers, and budgets that were proposed, from outside.

use serde_json::{Value, json};
use tallygate_shared::time::DAY_MS;

use super::tests::{Browser, Page, token_of};
use crate::objects::test_shell::{NOW_MS, Shell};

fn api(shell: &Shell, token: &str, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = shell.call(method, &format!("/workspaces/ws_acme{path}"), token, body);
    assert!(status < 300, "{method} {path}: {answer}");
    answer
}

fn key(shell: &Shell, token: &str, name: &str, owner: &str) -> String {
    let body = json!({ "name": name, "owner": owner, "cost_centre": "rd", "purpose": "p", "environment": "e",
                       "policy": {}, "expires_at": "2027-05-05T12:30:00Z" });
    api(shell, token, "POST", "/keys", &body)["id"].as_str().unwrap().to_owned()
}

/// A table of a page, as it is downloaded.
fn csv(browser: &mut Browser<'_>, path: &str, table: &str) -> Vec<String> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let page = browser.get(&format!("{path}{joint}format=csv&table={table}"));
    assert_eq!(page.status, 200, "{path} {table}: {}", page.body);
    page.body.lines().skip(1).map(str::to_owned).collect()
}

fn post(browser: &mut Browser<'_>, from: &str, path: &str, fields: &[(&str, &str)]) -> Page {
    let csrf = browser.get(from).csrf();
    browser.post(path, &[&[("csrf", csrf.as_str())], fields].concat())
}

#[test]
fn keys_that_something_is_to_be_done_about_stand_in_lists_with_what_to_do() {
    let (shell, token) = Shell::with_workspace();
    let idle = key(&shell, &token, "idle", "ann");
    let nobodys = key(&shell, &token, "nobodys", "unassigned");
    let mut browser = Browser::signed_in(&shell, &token);
    assert_eq!(csv(&mut browser, "/dashboard/keys", "unused"), Vec::<String>::new());
    shell.now.set(NOW_MS + 100 * DAY_MS);
    let mut browser = Browser::signed_in(&shell, &token);
    let unused = csv(&mut browser, "/dashboard/keys", "unused");
    assert_eq!(unused.len(), 2);
    let line = "nobodys,unassigned,,100,2027-02-18T10:00:00.000Z";
    assert_eq!(csv(&mut browser, "/dashboard/keys", "unowned"), [line]);
    assert_eq!(csv(&mut browser, "/dashboard/keys", "rotation-due").len(), 2);
    let page = browser.get("/dashboard/keys");
    for action in ["suspend", "rotate"] {
        assert!(page.body.contains(&format!("/dashboard/keys/{idle}/{action}")), "{}", page.body);
    }
    assert!(
        page.body.contains(&format!("/dashboard/keys/{nobodys}#change-title")),
        "{}",
        page.body
    );
    let page = browser.get("/dashboard/keys?days=0");
    assert_eq!((page.status, page.body.contains("Give 1 to 365")), (422, true), "{}", page.body);
    // The owner is named where the key is.
    let path = format!("/dashboard/keys/{nobodys}");
    let was = "2027-05-05T12:30:00Z";
    let fields =
        [("owner", "bob"), ("purpose", ""), ("expires_at", "2027-05-05"), ("expires_was", was)];
    let page = post(&mut browser, &path, &format!("{path}/change"), &fields);
    assert_eq!(page.header("location"), format!("{path}?done=change-key"), "{}", page.body);
    let shown = api(&shell, &token, "GET", &format!("/keys/{nobodys}"), &Value::Null);
    assert_eq!(
        (&shown["owner"], &shown["purpose"], &shown["expires_at"]),
        (&json!("bob"), &json!("p"), &json!(was))
    );
    assert_eq!(csv(&mut browser, "/dashboard/keys", "unowned"), Vec::<String>::new());
    let fields = [("expires_at", "2027-06-01"), ("expires_was", was)];
    post(&mut browser, &path, &format!("{path}/change"), &fields);
    let shown = api(&shell, &token, "GET", &format!("/keys/{nobodys}"), &Value::Null);
    assert_eq!(shown["expires_at"], "2027-06-01T00:00:00Z");
    let page = post(
        &mut browser,
        &path,
        &format!("{path}/change"),
        &[("expires_at", "2027-06-01"), ("owner", "a\u{7}b")],
    );
    assert_eq!((page.status, page.body.contains("owner")), (422, true), "{}", page.body);
    let (finance, _) = token_of(&shell, &token, "finance");
    let page = Browser::signed_in(&shell, &finance).get("/dashboard/keys");
    assert!(page.body.contains("Unowned") && !page.body.contains("/suspend\""), "{}", page.body);
}

#[test]
fn a_provider_says_how_it_is_paid() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let fields = [("provider", "openai"), ("payment_method", "card ending 4242")];
    let page = post(&mut browser, "/dashboard/keys", "/dashboard/provider-payment", &fields);
    assert_eq!(page.header("location"), "/dashboard/keys?done=pay-provider", "{}", page.body);
    let provider = || api(&shell, &token, "GET", "/providers/openai", &Value::Null);
    assert_eq!(provider()["payment_method"], "card ending 4242");
    assert_eq!(
        csv(&mut browser, "/dashboard/keys", "providers"),
        ["openai,openai,,,set,card ending 4242,,"]
    );
    let bad = [("provider", "openai"), ("payment_method", "a\u{7}b")];
    let page = post(&mut browser, "/dashboard/keys", "/dashboard/provider-payment", &bad);
    assert_eq!((page.status, page.body.contains("providers.openai.payment_method")), (422, true));
    post(&mut browser, "/dashboard/keys", "/dashboard/provider-payment", &[("provider", "openai")]);
    assert_eq!(provider()["payment_method"], Value::Null);
}

#[test]
fn a_receiver_is_set_shown_its_secret_once_and_tested() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let set = "/dashboard/receivers/set";
    let from = "/dashboard/receivers";
    let url = ("url", "https://hooks.example.com/x");
    let base = [("name", "ops"), ("type", "standard_webhook"), ("enabled", "yes")];
    for (fields, said) in [
        (vec![("min_severity", "warning"), ("url", "http://plain.example.com")], "is not https"),
        (vec![("min_severity", "loud"), url], "min_severity"),
        (vec![("min_severity", "info"), url, ("kinds", "budget_threshold, nonsense")], "kinds"),
    ] {
        let page = post(&mut browser, from, set, &[&base[..], &fields].concat());
        assert!(
            matches!(page.status, 400 | 422) && page.body.contains(said),
            "{said}: {}",
            page.body
        );
        assert!(page.body.contains("value=\"ops\""), "{}", page.body);
    }
    let fields =
        [&base[..], &[("min_severity", "warning"), url, ("kinds", "budget_threshold anomaly")]]
            .concat();
    let page = post(&mut browser, from, set, &fields);
    assert_eq!((page.status, page.body.contains("whsec_")), (200, true), "{}", page.body);
    let receiver = api(&shell, &token, "GET", "/receivers/ops", &Value::Null);
    assert_eq!(
        (&receiver["min_severity"], &receiver["kinds"]),
        (&json!("warning"), &json!(["budget_threshold", "anomaly"]))
    );
    let line = "ops,standard webhook,https://hooks.example.com/x,warning,\"budget_threshold, anomaly\",on,0";
    assert_eq!(csv(&mut browser, from, "receivers"), [line]);
    assert!(!browser.get(from).body.contains("whsec_"));
    // The form of a receiver holds what it is, and to save it again keeps its secret.
    let page = browser.get("/dashboard/receivers?receiver=ops");
    assert!(
        page.body.contains("Change ops")
            && page.body.contains("value=\"budget_threshold, anomaly\""),
        "{}",
        page.body
    );
    let page = post(
        &mut browser,
        from,
        set,
        &[&base[..2], &[("enabled", "no"), ("min_severity", "info"), url]].concat(),
    );
    assert!(
        page.body.contains("keeps the secret") && !page.body.contains("whsec_"),
        "{}",
        page.body
    );
    assert_eq!(api(&shell, &token, "GET", "/receivers/ops", &Value::Null)["enabled"], false);
    let page = post(&mut browser, from, "/dashboard/receivers/ops/test", &[]);
    assert_eq!((page.status, page.body.contains("delivered")), (200, true), "{}", page.body);
    assert_eq!(post(&mut browser, from, "/dashboard/receivers/none/test", &[]).status, 404);
    let (finance, _) = token_of(&shell, &token, "finance");
    let mut finance = Browser::signed_in(&shell, &finance);
    assert!(!finance.get(from).body.contains("Add a receiver"));
    assert_eq!(post(&mut finance, from, set, &fields).status, 403);
}

#[test]
fn a_proposed_budget_is_taken_with_one_click() {
    let (shell, token) = Shell::with_workspace();
    let ledger = |month: &str| shell.ledger(&format!("ws_acme:{month}"));
    for day in 1..=40_i64 {
        let at = NOW_MS + day * DAY_MS;
        let month = if day < 11 {
            "2026-11"
        } else if day < 42 {
            "2026-12"
        } else {
            "2027-01"
        };
        let event = json!({ "v": 1, "id": format!("req_{at:012x}70000000000000000001"), "seq": day,
            "workspace": "ws_acme", "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "k",
            "owner": "ann", "cost_centre": "rd", "purpose": "p", "environment": "e", "actor": { "team": "search & co" },
            "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "m", "provider": "openai",
            "model": "m", "attempts": [], "outcome": "completed", "status": 200, "charged": "2", "hold": "2",
            "duration_ms": 700, "usage": { "source": "reported", "tally": { "tokens": { "input": 1 } } } });
        let batch = json!({ "meter": "0000000000000001", "events": [event] });
        ledger(month).apply(&batch.to_string()).unwrap();
    }
    shell.now.set(NOW_MS + 41 * DAY_MS);
    let mut browser = Browser::signed_in(&shell, &token);
    let proposal = api(&shell, &token, "GET", "/budget-proposals", &Value::Null)["data"][0].clone();
    let limit = proposal["limit_usd"].as_str().unwrap();
    let line = csv(&mut browser, "/dashboard/budgets", "proposals").remove(0);
    assert!(line.starts_with(&format!("search & co,{limit},")), "{line}");
    let page = browser.get("/dashboard/budgets");
    let take = format!("/dashboard/budget-proposals/team/search%20%26%20co/{limit}/take");
    assert!(page.body.contains(&take), "{}", page.body);
    let page = browser.post(&take, &[("csrf", &page.csrf())]);
    assert_eq!(page.header("location"), "/dashboard/budgets?done=take-proposal", "{}", page.body);
    let made = api(&shell, &token, "GET", "/budgets/team-search---co", &Value::Null);
    assert_eq!(
        (&made["limit_usd"], &made["scope"]["value"]),
        (&json!(limit), &json!("search & co"))
    );
    assert_eq!((&made["window"], &made["owner"]), (&json!("month"), &json!("search & co")));
    // To take one again changes the budget that is there, and nothing else of it.
    let body = json!({ "dimension": "team", "value": "search & co", "limit_usd": "99" });
    let again = api(&shell, &token, "POST", "/budget-proposals", &body);
    assert_eq!((&again["created"], &again["terms"]["limit_usd"]), (&json!(false), &json!("99")));
    assert_eq!(api(&shell, &token, "GET", "/budgets", &Value::Null).as_object().unwrap().len(), 1);
    for (bad, status) in [
        (json!({ "dimension": "workspace", "value": "x", "limit_usd": "1" }), 422),
        (json!({ "dimension": "team", "value": "", "limit_usd": "1" }), 422),
        (json!({ "dimension": "team", "value": "*", "limit_usd": "1" }), 422),
        (json!({ "dimension": "team", "value": "x", "limit_usd": "-1" }), 422),
        (json!({ "dimension": "colour", "value": "x", "limit_usd": "1" }), 400),
    ] {
        let (got, answer) =
            shell.call("POST", "/workspaces/ws_acme/budget-proposals", &token, &bad);
        assert_eq!(got, status, "{bad}: {answer}");
    }
}
