//! The pages of insights: their numbers are the API's, their forms say what is wrong, and every role sees them.

use serde_json::{Value, json};

use super::{Browser, Page, token_of};
use crate::objects::test_shell::{NOW_MS, Shell};

const DAY_MS: i64 = 24 * 3_600_000;

/// Two weeks of two features, one of them without a name, at gpt-6-sol's list price.
fn spend(shell: &Shell) {
    let event = |seq: u64, at: i64, actor: Value, input: u64, output: u64| {
        let (input_usd, output_usd) =
            (format!("0.{:06}", input * 2), format!("0.{:06}", output * 10));
        let total = format!("0.{:06}", input * 2 + output * 10);
        json!({
            "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme",
            "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "ci", "owner": "ada",
            "cost_centre": "r&d", "purpose": "tests", "environment": "test", "actor": actor,
            "endpoint": "/v1/chat/completions", "stream": true, "requested_model": "gpt-6-sol", "provider": "openai",
            "model": "gpt-6-sol", "attempts": [], "outcome": "completed", "status": 200,
            "usage": { "source": "reported", "tally": { "tokens": { "input": input, "output": output } } },
            "cost": { "total": total, "price": {}, "parts": { "input": input_usd, "output": output_usd } },
            "charged": total, "hold": "0.5", "duration_ms": 700,
        })
    };
    let mut events = Vec::new();
    for day in 0..10_i64 {
        let at = NOW_MS - (10 - day) * DAY_MS;
        let seq = u64::try_from(day).unwrap() * 2 + 1;
        let wide = json!({ "feature": "<b>answers", "team": "search", "customer": "acme" });
        events.push(event(seq, at, wide, 20_000 + seq * 1_000, 5_000));
        events.push(event(seq + 1, at + 1, json!({}), 1_000, 100));
    }
    let batch = json!({ "meter": "0000000000000001", "events": events });
    shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
}

const PATHS: [&str; 5] = [
    "/dashboard/unit-economics",
    "/dashboard/review",
    "/dashboard/savings",
    "/dashboard/calculators/workload",
    "/dashboard/calculators/provisioned-throughput",
];

fn exact(page: &Page, value: &Value) -> bool {
    page.body.contains(&format!("value=\"{}\"", value.as_str().unwrap()))
}

#[test]
fn every_role_sees_them_and_names_are_text() {
    let (shell, token) = Shell::with_workspace();
    spend(&shell);
    for role in ["admin", "finance", "developer", "auditor"] {
        let (own, _) = token_of(&shell, &token, role);
        let mut browser = Browser::signed_in(&shell, &own);
        for path in PATHS {
            let page = browser.get(path);
            assert_eq!(page.status, 200, "{role} {path}: {}", page.body);
            assert!(!page.body.contains("<b>answers"), "{path}");
            assert!(!page.body.contains("class=\"note bad\""), "{path}: {}", page.body);
        }
    }
}

#[test]
fn unit_economics_are_the_api_s_with_what_nobody_owns_as_a_row() {
    let (shell, token) = Shell::with_workspace();
    spend(&shell);
    let mut browser = Browser::signed_in(&shell, &token);
    let path = "/workspaces/ws_acme/unit-economics?from=2026-11-01&to=2026-11-21&bucket=day";
    let (_, report) = shell.call("GET", path, &token, &Value::Null);
    let page = browser.get("/dashboard/unit-economics");
    assert!(exact(&page, &report["overall"]["total_usd"]), "{}", page.body);
    assert!(page.body.contains(">Unallocated<"));
    let csv = browser.get("/dashboard/unit-economics?format=csv&table=units").body;
    let lines: Vec<&str> = csv.lines().collect();
    let answers = &report["totals"][0];
    assert_eq!(answers["name"], "<b>answers");
    let total = answers["total_usd"].as_str().unwrap();
    assert!(lines[1].starts_with(&format!("<b>answers,10,{total},0,{total},")), "{csv}");
    assert!(lines[2].starts_with("Unallocated,10,"), "{csv}");
    let csv =
        browser.get("/dashboard/unit-economics?format=csv&table=cost-over-time&bucket=week").body;
    assert!(
        csv.starts_with("bucket_start,<b>answers,unallocated,others,total_usd\r\n2026-11-16,"),
        "{csv}"
    );
    let page = browser.get("/dashboard/unit-economics?by=model");
    assert_eq!((page.status, page.body.contains("group_by")), (422, true), "{}", page.body);
}

#[test]
fn a_review_shows_its_causes_and_its_markdown_and_leads_to_other_weeks() {
    let (shell, token) = Shell::with_workspace();
    spend(&shell);
    let mut browser = Browser::signed_in(&shell, &token);
    let path = "/workspaces/ws_acme/weekly-review?week=2026-W47";
    let (_, review) = shell.call("GET", path, &token, &Value::Null);
    let page = browser.get("/dashboard/review?week=2026-W47");
    let total = &review["total"];
    for value in
        [&total["change_usd"], &total["effects"]["volume_usd"], &total["effects"]["tokens_usd"]]
    {
        assert!(exact(&page, value), "{value}: {}", page.body);
    }
    assert!(page.body.contains("# ws\\_acme in 2026-W47") && page.body.contains("week=2026-W46"));
    assert!(!page.body.contains("week=2026-W48"));
    let csv = browser.get("/dashboard/review?week=2026-W47&format=csv&table=movers").body;
    let mover = &review["movers"][0];
    let sums = ["before_usd", "after_usd", "change_usd"]
        .map(|name| mover["change"][name].as_str().unwrap());
    assert!(csv.contains(&format!("search,team,ada,{}", sums.join(","))), "{csv}");
    let page = browser.get("/dashboard/review?week=2026-W99");
    assert_eq!((page.status, page.body.contains("2026-W47.")), (422, true), "{}", page.body);
}

#[test]
fn savings_name_what_to_do_and_where_its_requests_are() {
    let (shell, token) = Shell::with_workspace();
    spend(&shell);
    let mut browser = Browser::signed_in(&shell, &token);
    let (_, report) = shell.call("GET", "/workspaces/ws_acme/savings", &token, &Value::Null);
    let first = &report["data"][0];
    assert_eq!(first["feature"], "<b>answers", "{report}");
    let page = browser.get("/dashboard/savings");
    assert!(
        exact(&page, &report["total_usd"]) && exact(&page, &first["saves_usd"]),
        "{}",
        page.body
    );
    // The days that were looked at, whatever month it is.
    let href = "/dashboard/requests?feature=%3Cb%3Eanswers&#38;from=2026-10-21&#38;model=gpt-6-sol\
        &#38;provider=openai&#38;until=2026-11-20\"";
    assert!(page.body.contains(href), "{}", page.body);
    let span = (&first["requests"]["from"], &first["requests"]["to"]);
    let days = (&json!("2026-10-21T10:00:00.000Z"), &json!("2026-11-20T10:00:00.000Z"));
    assert_eq!(span, days);
    assert!(page.body.contains("(a guess)") && page.body.contains("Document analysis"));
    assert_eq!(browser.get("/dashboard/savings?days=0").status, 422);
    let csv = browser.get("/dashboard/savings?format=csv&table=archetypes").body;
    assert!(csv.starts_with("name,archetype,ratio,usual_ratio,session_tokens,"), "{csv}");
}

#[test]
fn calculators_begin_with_own_figures_and_keep_what_was_written() {
    let (shell, token) = Shell::with_workspace();
    spend(&shell);
    let mut browser = Browser::signed_in(&shell, &token);
    let page = browser.get("/dashboard/calculators/workload");
    // The mean request: (10 x 20,000 + 100,000 + 10 x 1,000) / 20.
    assert!(page.body.contains("name=\"requests\" type=\"number\" value=\"20\""), "{}", page.body);
    assert!(
        page.body.contains("name=\"input_tokens\" type=\"number\" value=\"15500\""),
        "{}",
        page.body
    );
    assert!(!page.body.contains("id=\"workload\""));
    let query =
        "requests=1000&input_tokens=2000&cached_tokens=1000&output_tokens=500&batch_percent=50";
    let page = browser.get(&format!("/dashboard/calculators/workload?{query}"));
    assert!(
        page.body.contains("gpt-6-sol") && page.body.contains("value=\"5.4\""),
        "{}",
        page.body
    );
    let bad =
        browser.get(&format!("/dashboard/calculators/workload?{}", query.replace("=50", "=500")));
    assert_eq!((bad.status, bad.body.contains("value=\"500\"")), (422, true), "{}", bad.body);
    assert!(bad.body.contains("batch_percent"));
    let throughput = "/dashboard/calculators/provisioned-throughput";
    let page = browser.get(throughput);
    assert!(
        page.body.contains("name=\"tokens_per_month\" type=\"number\" value=\"361000\""),
        "{}",
        page.body
    );
    let query = "price_per_unit_hour_usd=2&units=5&tokens_per_minute=10000&on_demand_per_million_usd=5&tokens_per_month=1000000000";
    let page = browser.get(&format!("{throughput}?{query}"));
    assert!(
        page.body.contains("66.7 %") && page.body.contains("Paying by the token is cheaper"),
        "{}",
        page.body
    );
    let bad = browser.get(&format!("{throughput}?{}", query.replace("hour_usd=2", "hour_usd=two")));
    assert_eq!(
        (bad.status, bad.body.contains("price_per_unit_hour_usd")),
        (422, true),
        "{}",
        bad.body
    );
}
