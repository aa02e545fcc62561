//! Statements, forecasts, the state of the books, the reconciler's runs, and demos: asked as callers ask.

use serde_json::{Value, json};
use tallygate_shared::money::Usd;

use super::Acme;
use crate::objects::test_shell::{NOW_MS, OPERATOR, Shell};

/// A run as the reconciler tells of it.
fn run(name: &str, ended_ms: i64) -> Value {
    json!({ "run": name, "ended_at": ended_ms, "from": "2026-11-12", "to": "2026-11-20", "status": "partial",
            "missing": { "openai": "no answer" }, "days_settled": 1, "days_unchanged": 7, "rows_written": 3 })
}

#[test]
fn a_run_is_remembered_as_it_was_told_last_and_for_400_days() {
    let acme = Acme::new();
    let secret = &acme.reconciler_secret();
    let tell = |nonce: &str, runs: Value| acme.signed(secret, nonce, "runs", &runs);
    let day = 86_400_000;
    let old = run("night-old", NOW_MS - 401 * day);
    let all = json!([run("night-1", NOW_MS - day), run("night-2", NOW_MS), old]);
    assert_eq!(tell("nonce-0123456789-1", all), (200, json!({ "taken": 3 })));
    let mut better = run("night-1", NOW_MS - day + 5);
    better["status"] = "complete".into();
    better["missing"] = json!({});
    assert_eq!(tell("nonce-0123456789-2", json!([better])).0, 200);
    // An older word of the same run changes nothing.
    assert_eq!(tell("nonce-0123456789-3", json!([run("night-1", NOW_MS - day)])).0, 200);
    let found = acme.get("/reconciliation-runs");
    let names: Vec<&Value> =
        found["data"].as_array().unwrap().iter().map(|it| &it["run"]).collect();
    assert_eq!(names, ["night-2", "night-1"]);
    assert_eq!(found["data"][0]["missing"]["openai"], "no answer");
    assert_eq!(found["data"][0]["ended_at"], "2026-11-20T10:00:00.000Z");
    assert_eq!(found["data"][1]["status"], "complete");
    assert_eq!(acme.get("/reconciliation-runs?limit=1")["data"].as_array().unwrap().len(), 1);
}

#[test]
fn a_run_that_is_none_is_refused_with_its_field_and_nothing_is_kept() {
    let acme = Acme::new();
    let secret = &acme.reconciler_secret();
    let mut nameless = run("", NOW_MS);
    let mut dayless = run("night-1", NOW_MS);
    dayless["to"] = "soon".into();
    let mut long = run("night-2", NOW_MS);
    long["notes"] = json!(["x".repeat(300_000)]);
    nameless["held"] = json!([]);
    for (place, (bad, field)) in
        [(nameless, "[1].run"), (dayless, "[1].to"), (long, "[1]")].into_iter().enumerate()
    {
        let nonce = format!("nonce-0123456789-{place}");
        let (status, answer) =
            acme.signed(secret, &nonce, "runs", &json!([run("night-0", NOW_MS), bad]));
        assert_eq!((status, &answer["errors"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    assert_eq!(acme.get("/reconciliation-runs")["data"], json!([]));
    // Nobody tells a run with a token.
    acme.refuse(401, "signature_missing", "POST", "/reconciler/runs", &json!([]));
}

#[test]
fn months_and_dimensions_that_are_none_are_refused_with_a_remedy() {
    let acme = Acme::new();
    for (query, field) in [
        ("month=2026", "month"),
        ("month=2026-13", "month"),
        ("month=2026-12", "month"),
        ("by=colour", "by"),
        ("by=outcome", "by"),
    ] {
        let answer = acme.expect(422, "GET", &format!("/statements?{query}"), &Value::Null);
        assert_eq!(answer["errors"][0]["field"], field, "{answer}");
        assert!(answer["errors"][0]["remedy"].as_str().is_some_and(|it| it.len() > 5));
    }
    // A month before the workspace is a statement of nothing, which adds up.
    let before = acme.get("/statements?month=2020-01");
    assert_eq!((&before["data"], &before["control"]["agrees"]), (&json!([]), &json!(true)));
    let empty = acme.get("/forecast");
    assert_eq!(empty["forecast"], Value::Null);
    assert!(empty["no_forecast_because"].as_str().is_some_and(|it| it.contains("3 whole days")));
    assert_eq!(acme.get("/books")["newest_event_at"], Value::Null);
}

#[test]
fn bills_of_a_month_before_the_workspace_are_in_every_report_of_that_month() {
    let acme = Acme::new();
    let line = json!([{ "day": "2026-10-30", "provider": "openai", "line": "a", "revision": 1, "model": "gpt-x",
        "meter": "input", "kind": "usage", "owner": { "unmetered": "unknown_key" }, "estimated": "0",
        "billed": "12.5", "quantity_variance": "12.5", "price_variance": "0", "provisional": false }]);
    acme.shell.ledger("ws_acme:2026-10").true_up(&line.to_string()).unwrap();
    let statement = acme.get("/statements?month=2026-10&by=team");
    assert!(statement["data"].to_string().contains("\"12.5\""), "{statement}");
    let sums = |query: &str| acme.get(&format!("/true-ups?{query}"))["data"].clone();
    assert_eq!(sums("from=2026-10-01&to=2026-11-01")[0]["sums"]["billed_usd"], "12.5");
    assert_eq!(sums("from=0001-01-01")[0]["sums"]["billed_usd"], "12.5");
    assert_eq!(sums(""), json!([]));
    let units = acme.get("/unit-economics?from=2026-10-01&to=2026-11-01");
    assert_eq!(units["overall"]["total_usd"], "12.5");
    let books = acme.get("/books");
    assert_eq!(books["providers"]["openai"]["billed_until"], "2026-10-30");
}

/// A demo workspace with keys of two teams and of nobody: its token.
pub(super) fn demo(shell: &Shell) -> String {
    let (status, made) =
        shell.call("POST", "/workspaces", OPERATOR, &json!({ "name": "Demo", "demo": true }));
    assert_eq!((status, &made["id"]), (201, &json!("ws_demo")), "{made}");
    let token = made["admin_token"]["token"].as_str().unwrap().to_owned();
    let teams = [json!({ "team": "support" }), json!({ "team": "platform" }), json!({})];
    for (place, team) in teams.into_iter().enumerate() {
        let key = json!({ "name": format!("k{place}"), "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e",
            "actor": team, "policy": { "spend_caps": [{ "window": "day", "limit_usd": "100" }] } });
        let (status, answer) = shell.call("POST", "/workspaces/ws_demo/keys", &token, &key);
        assert_eq!(status, 201, "{answer}");
    }
    let budget = json!({ "scope": { "dimension": "team", "value": "support" }, "owner": "o", "limit_usd": "9999",
                         "window": "month" });
    let (status, answer) =
        shell.call("PUT", "/workspaces/ws_demo/budgets/support", &token, &budget);
    assert!(status < 300, "{answer}");
    token
}

#[test]
fn a_demo_comes_day_by_day_adds_up_and_goes_without_a_trace() {
    let shell = Shell::new();
    let token = demo(&shell);
    let ask = |method: &str, path: &str, body: &Value| {
        shell.call(method, &format!("/workspaces/ws_demo{path}"), &token, body)
    };
    for day in [0, 5, 28, 30, 30] {
        let (status, answer) = ask("POST", "/demo", &json!({ "day": day }));
        assert_eq!((status, &answer["of"]), (200, &json!(31)), "{answer}");
        assert_eq!(answer["done"], json!(day + 1));
    }
    let (_, statement) = ask("GET", "/statements?by=team", &Value::Null);
    assert_eq!(statement["control"]["agrees"], true);
    let (_, usage) = ask("GET", "/usage?from=2026-11-01&group_by=team", &Value::Null);
    let rows = usage["data"].as_array().unwrap();
    let charged: i128 = rows
        .iter()
        .map(|row| row["charged_usd"].as_str().unwrap().parse::<Usd>().unwrap().pico())
        .sum();
    let estimated: Usd = statement["total"]["estimated_usd"].as_str().unwrap().parse().unwrap();
    assert_eq!(estimated.pico(), charged);
    let (_, books) = ask("GET", "/books", &Value::Null);
    assert_eq!(books["providers"]["openai"]["billed_until"], "2026-10-26");
    let (_, runs) = ask("GET", "/reconciliation-runs", &Value::Null);
    assert_eq!(runs["data"].as_array().unwrap().len(), 2);
    // What support was charged this month counts against its budget.
    let (_, status) = ask("GET", "/budgets/support/status", &Value::Null);
    let support = rows.iter().find(|row| row["team"] == "support").unwrap();
    assert!(
        status.to_string().contains(support["charged_usd"].as_str().unwrap()),
        "{status} {support}"
    );
    let (status, answer) = ask("DELETE", "/demo", &Value::Null);
    assert_eq!((status, answer), (200, json!({ "removed": "ws_demo" })));
    assert_eq!(ask("GET", "/usage", &Value::Null).0, 401);
    let (_, left) = shell.call("GET", "/workspaces", OPERATOR, &Value::Null);
    assert_eq!(left["data"], json!([]));
    assert!(!shell.dump().contains("ws_demo"), "{}", shell.dump());
}

#[test]
fn demo_data_never_meets_a_real_book() {
    let acme = Acme::new();
    acme.refuse(409, "not_a_demo", "POST", "/demo", &json!({ "day": 0 }));
    acme.refuse(409, "not_a_demo", "DELETE", "/demo", &Value::Null);
    for body in [
        json!({ "name": "x", "id": "ws_demo" }),
        json!({ "name": "x", "id": "ws_x", "demo": true }),
    ] {
        let (status, answer) = acme.shell.call("POST", "/workspaces", OPERATOR, &body);
        assert_eq!((status, &answer["errors"][0]["field"]), (422, &json!("id")), "{answer}");
    }
    let (status, made) = acme.shell.call(
        "POST",
        "/workspaces",
        OPERATOR,
        &json!({ "name": "x", "id": "ws_demo-2", "demo": true }),
    );
    assert_eq!(status, 201, "{made}");
    let token = made["admin_token"]["token"].as_str().unwrap();
    let fill = |body: &Value| acme.shell.call("POST", "/workspaces/ws_demo-2/demo", token, body);
    assert_eq!(fill(&json!({ "day": 0 })).1["code"], "no_keys");
    assert_eq!(fill(&json!({ "day": 31 })).1["errors"][0]["field"], "day");
}
