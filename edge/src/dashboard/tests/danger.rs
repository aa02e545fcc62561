//! What is in danger stands on the pages however much else there is: the fullest accounts, the gravest alerts.

use serde_json::{Map, Value, json};

use super::Browser;
use crate::objects::test_shell::{NOW_MS, Shell};

const DAY_MS: i64 = 86_400_000;

fn told(shell: &Shell, budget: &str, value: &str, spent: &str, ends_at: i64) {
    told_of(shell, None, budget, value, spent, ends_at);
}

fn told_of(
    shell: &Shell,
    dimension: Option<&str>,
    budget: &str,
    value: &str,
    spent: &str,
    ends_at: i64,
) {
    let mut snapshot = json!({ "workspace": "ws_acme", "budget": budget, "value": value, "owner": "ann",
        "window_starts_at": NOW_MS - DAY_MS, "window_ends_at": ends_at, "limit": "5", "spent": spent, "held": "0",
        "thresholds": [], "at": NOW_MS });
    if let Some(dimension) = dimension {
        snapshot["dimension"] = dimension.into();
    }
    shell.alerts("ws_acme").budget(&snapshot.to_string(), shell.now()).unwrap();
}

/// A workspace with so many budgets, and one with an account for each user.
fn with_budgets(count: usize) -> (Shell, String) {
    let (shell, token) = Shell::with_workspace();
    let (_, mut config) = shell.call("GET", "/workspaces/ws_acme/config", &token, &Value::Null);
    let terms = |scope: Value| json!({ "scope": scope, "owner": "ann", "limit_usd": "5", "window": "month" });
    let mut budgets: Map<String, Value> = (0..count)
        .map(|number| (format!("b{number:03}"), terms(json!({ "dimension": "workspace" }))))
        .collect();
    budgets.insert("users".to_owned(), terms(json!({ "dimension": "user", "value": "*" })));
    config["budgets"] = budgets.into();
    let (status, answer) = shell.call("PUT", "/workspaces/ws_acme/config", &token, &config);
    assert_eq!(status, 200, "{answer}");
    (shell, token)
}

fn names(csv: &str) -> Vec<String> {
    let row = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(" ");
    csv.lines().skip(1).map(row).collect()
}

#[test]
fn the_fullest_accounts_are_shown_whatever_their_names_and_how_many_there_are() {
    let (shell, token) = with_budgets(150);
    told(&shell, "b149", "", "4.95", NOW_MS + DAY_MS);
    told(&shell, "users", "u7", "4.9", NOW_MS + DAY_MS);
    told(&shell, "b001", "", "0.1", NOW_MS + DAY_MS);
    told(&shell, "removed", "", "5", NOW_MS + DAY_MS);
    // What the budget was for before it was for users.
    told_of(&shell, Some("team"), "users", "search", "5", NOW_MS + DAY_MS);
    // Its window is over: nothing is spent in the next one.
    told(&shell, "users", "u8", "5", NOW_MS);
    let path = "/workspaces/ws_acme/budget-standings?limit=2";
    let (_, standings) = shell.call("GET", path, &token, &Value::Null);
    let percents: Vec<(&Value, &Value)> = standings["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (&it["budget"], &it["percent"]))
        .collect();
    assert_eq!(percents, [(&json!("b149"), &json!(99)), (&json!("users"), &json!(98))]);
    assert_eq!(standings["all"], 3);
    let mut browser = Browser::signed_in(&shell, &token);
    let shown = names(&browser.get("/dashboard?format=csv&table=budgets").body);
    assert_eq!(shown.len(), 10);
    let full = ["b149 workspace ws_acme", "users user u7", "b001 workspace ws_acme"];
    for account in full {
        assert!(shown.iter().any(|it| it == account), "{account} of {shown:?}");
    }
    let page = browser.get("/dashboard/budgets");
    assert!(page.body.contains("The fullest 100 of 151 accounts"), "{}", page.body);
    let shown = names(&browser.get("/dashboard/budgets?format=csv&table=budgets").body);
    assert_eq!(shown.len(), 100);
    assert!(full.iter().all(|account| shown.iter().any(|it| it == account)), "{shown:?}");
    let shown = names(&browser.get("/dashboard/budgets/users?format=csv&table=accounts").body);
    assert_eq!(shown, ["users user u7"]);
}

#[test]
fn the_gravest_alerts_come_first_however_many_newer_ones_there_are() {
    let (shell, token) = Shell::with_workspace();
    let raise = |subject: &str, severity: &str| {
        let finding = json!([{ "kind": "bill_variance", "subject": subject, "severity": severity,
            "title": format!("About {subject}"), "evidence": {}, "present": true }]);
        shell.alerts("ws_acme").findings(&finding.to_string(), shell.now()).unwrap();
    };
    raise("grave", "critical");
    raise("settled", "critical");
    for number in 0..120 {
        shell.now.set(NOW_MS + 1_000 + number);
        raise(&format!("less{number:03}"), "warning");
    }
    let ask = |query: &str| {
        let path = format!("/workspaces/ws_acme/alerts?{query}");
        let (status, answer) = shell.call("GET", &path, &token, &Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let all = ask("sort=severity&limit=2");
    let settled = all["data"].as_array().unwrap().iter().find(|it| it["title"] == "About settled");
    let path =
        format!("/workspaces/ws_acme/alerts/{}/resolve", settled.unwrap()["id"].as_str().unwrap());
    assert_eq!(shell.call("POST", &path, &token, &Value::Null).0, 200);
    // Page by page each alert is shown once, in this order.
    let (mut titles, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ask(&format!("sort=severity&limit=50{cursor}"));
        let rows = page["data"].as_array().unwrap().iter();
        titles.extend(rows.map(|it| it["title"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(titles.len(), 122);
    assert_eq!((titles[0].as_str(), titles[1].as_str()), ("About grave", "About less119"));
    assert_eq!((titles[120].as_str(), titles[121].as_str()), ("About less000", "About settled"));
    let newest = ask("limit=1");
    assert_eq!(newest["data"][0]["title"], "About less119");
    let mut browser = Browser::signed_in(&shell, &token);
    for path in ["/dashboard", "/dashboard/alerts"] {
        let csv = browser.get(&format!("{path}?format=csv&table=alerts")).body;
        assert!(csv.lines().nth(1).is_some_and(|line| line.starts_with("About grave")), "{csv}");
    }
}
