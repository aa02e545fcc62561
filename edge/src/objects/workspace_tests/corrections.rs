//! Corrections of budgets: what is kept of them, who sees which, and what the page shows.

use serde_json::{Value, json};
use tallygate_shared::time::DAY_MS;

use super::Acme;
use crate::objects::test_shell::{NOW_MS, Shell};

fn correction(budget: &str, value: &str, revision: u64, amount: &str) -> Value {
    json!({ "budget": budget, "value": value, "day": "2026-11-21", "source": "openai", "revision": revision,
            "amount": amount, "by_quantity": "0.25", "by_price": "1" })
}

fn on(day: &str, budget: &str, value: &str, amount: &str) -> Value {
    let mut made = correction(budget, value, 5, amount);
    made["day"] = json!(day);
    made
}

fn again(revision: u64, mut correction: Value) -> Value {
    correction["revision"] = json!(revision);
    correction
}

struct Night {
    acme: Acme,
    secret: String,
    calls: std::cell::Cell<u32>,
}

impl Night {
    fn new() -> Self {
        let acme = Acme::new();
        for (name, owner, scope) in [
            ("teams", "ann", json!({ "dimension": "team", "value": "*" })),
            ("search", "eve", json!({ "dimension": "team", "value": "search" })),
        ] {
            let terms =
                json!({ "scope": scope, "owner": owner, "limit_usd": "50", "window": "month" });
            acme.expect(200, "PUT", &format!("/budgets/{name}"), &terms);
        }
        // Made on 20 November at ten: the 21st is the first day that they count whole.
        acme.shell.now.set(NOW_MS + 2 * DAY_MS);
        let secret = acme.reconciler_secret();
        Self { acme, secret, calls: std::cell::Cell::new(0) }
    }

    fn correct(&self, corrections: Value) {
        self.calls.set(self.calls.get() + 1);
        let nonce = format!("nonce-0123456789-{}", self.calls.get());
        let (status, answer) =
            self.acme.signed(&self.secret, &nonce, "budget-corrections", &corrections);
        assert_eq!(status, 200, "{answer}");
    }

    fn list(&self, query: &str) -> Vec<Value> {
        self.acme.get(&format!("/corrections{query}"))["data"].as_array().unwrap().clone()
    }

    fn states(&self) -> Vec<(String, String, String, String)> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let shown = |row: &Value| {
            (
                text(row, "amount_usd"),
                text(row, "change_usd"),
                text(row, "counted_usd"),
                text(row, "state"),
            )
        };
        self.list("").iter().map(shown).collect()
    }

    fn counted(&self) -> String {
        self.spent("teams", "search")
    }

    fn spent(&self, budget: &str, value: &str) -> String {
        let named = if value.is_empty() { String::new() } else { format!("?value={value}") };
        let status = self.acme.get(&format!("/budgets/{budget}/status{named}"));
        status["money"]["spent_usd"].as_str().unwrap().to_owned()
    }
}

fn row(amount: &str, change: &str, counted: &str, state: &str) -> (String, String, String, String) {
    (amount.into(), change.into(), counted.into(), state.into())
}

#[test]
fn the_list_says_what_each_correction_changed_and_what_its_budget_counts() {
    let night = Night::new();
    night.correct(json!([correction("teams", "search", 5, "1.25")]));
    let first = night.list("").remove(0);
    assert_eq!(first["windows"], json!(["month:2026-11"]));
    assert_eq!(
        (&first["came_at"], &first["day"], &first["provider"], &first["owner"]),
        (&json!("2026-11-22T10:00:00.000Z"), &json!("2026-11-21"), &json!("openai"), &json!("ann"))
    );
    assert_eq!((&first["by_quantity_usd"], &first["by_price_usd"]), (&json!("0.25"), &json!("1")));
    // The same again, with a newer number too, is the same correction.
    night.correct(json!([correction("teams", "search", 5, "1.25")]));
    night.correct(json!([correction("teams", "search", 6, "1.25")]));
    assert_eq!(night.states(), [row("1.25", "1.25", "1.25", "counts")]);
    assert_eq!(night.list("")[0]["revision"], 6);
    // An older word changes nothing.
    night.correct(json!([correction("teams", "search", 4, "7")]));
    // A newer one replaces; a budget counts nanodollars.
    night.correct(json!([correction("teams", "search", 7, "-0.0000000015")]));
    let replaced = row("1.25", "1.25", "0", "replaced");
    let newest = row("-0.0000000015", "-1.2500000015", "-0.000000002", "counts");
    assert_eq!(night.states(), [newest, replaced.clone()]);
    assert_eq!(night.counted(), "-0.000000002");
    // Another amount under the same number takes its place.
    night.correct(json!([correction("teams", "search", 7, "2")]));
    assert_eq!(night.states(), [row("2", "2.0000000015", "2", "counts"), replaced]);
    assert_eq!(night.counted(), "2");
}

#[test]
fn what_changes_nothing_is_no_row_and_a_budget_that_is_gone_says_so() {
    let night = Night::new();
    night.correct(json!([
        correction("teams", "ads", 5, "0"),
        correction("gone", "x", 5, "3"),
        correction("search", "ads", 5, "4"),
    ]));
    assert_eq!(night.states(), [row("4", "4", "0", "no_budget"), row("3", "3", "0", "no_budget")]);
    // The budget comes back, and counts from then on: what was spent before is nothing to it.
    let terms =
        json!({ "scope": { "dimension": "team", "value": "*" }, "owner": "ann", "limit_usd": "5" });
    night.acme.expect(200, "PUT", "/budgets/gone", &terms);
    night.correct(json!([correction("gone", "x", 6, "3"), on("2026-11-22", "gone", "x", "3")]));
    assert_eq!(night.states().len(), 2);
    night.correct(json!([on("2026-11-23", "gone", "x", "3")]));
    assert_eq!(night.states()[0], row("3", "3", "3", "counts"));
    assert_eq!(night.spent("gone", "x"), "3");
}

#[test]
fn a_budget_is_not_corrected_for_what_was_spent_before_it_counted() {
    let night = Night::new();
    // Made on the 22nd, when estimates of 10,000 are billed with 8,000.
    let put = |terms: Value| night.acme.expect(200, "PUT", "/budgets/cap", &terms);
    let scope = json!({ "dimension": "workspace" });
    let terms = json!({ "scope": scope, "owner": "ann", "limit_usd": "500", "window": "month" });
    put(terms.clone());
    let days = ["2026-11-01", "2026-11-19", "2026-11-21", "2026-11-22"];
    night.correct(days.map(|day| on(day, "cap", "", "-500")).into_iter().collect());
    night.correct(json!([on("2026-11-05", "cap", "", "700")]));
    assert_eq!((night.spent("cap", ""), night.list("")), ("0".to_owned(), vec![]));
    night.correct(json!([on("2026-11-23", "cap", "", "-7")]));
    assert_eq!(night.spent("cap", ""), "-7");
    // What leaves the count as it is leaves the day's correction too; a higher limit does.
    night.acme.shell.now.set(NOW_MS + 5 * DAY_MS);
    let mut higher = terms.clone();
    higher["limit_usd"] = json!("600");
    put(higher.clone());
    night.correct(json!([on("2026-11-24", "cap", "", "3")]));
    assert_eq!(night.spent("cap", ""), "-4");
    // Another window is a new count: of what came before, it is corrected by nothing.
    higher["window"] = json!("week");
    put(higher);
    night.correct(json!([
        on("2026-11-23", "cap", "", "-50"),
        on("2026-11-24", "cap", "", "-50"),
        on("2026-11-25", "cap", "", "-50"),
        on("2026-11-26", "cap", "", "-1"),
    ]));
    assert_eq!(night.spent("cap", ""), "-1");
    // Back in the month: its line has what was spent before the week, and nothing of the week.
    put(terms);
    night.correct(json!([
        again(6, on("2026-11-23", "cap", "", "-2")),
        on("2026-11-20", "cap", "", "-50"),
    ]));
    assert_eq!(night.spent("cap", ""), "1");
    night.correct(json!([again(7, on("2026-11-23", "cap", "", "-30"))]));
    assert_eq!(night.spent("cap", ""), "-27");
}

#[test]
fn a_budget_that_counts_on_is_corrected_on() {
    let night = Night::new();
    let put = |scope: Value, zone: &str| {
        let terms =
            json!({ "scope": scope, "owner": "ann", "limit_usd": "500", "time_zone": zone });
        night.acme.expect(200, "PUT", "/budgets/cap", &terms);
    };
    let each = json!({ "dimension": "team", "value": "*" });
    put(each.clone(), "UTC");
    let wait = |days: i64| night.acme.shell.now.set(NOW_MS + days * DAY_MS);
    wait(4);
    // Another time zone, and one team of all: what was counted stays in the count.
    put(each.clone(), "Europe/Berlin");
    put(json!({ "dimension": "team", "value": "ads" }), "Europe/Berlin");
    night.correct(json!([
        on("2026-11-23", "cap", "ads", "3"),
        on("2026-11-23", "cap", "search", "5")
    ]));
    assert_eq!((night.spent("cap", "ads"), night.states().len()), ("3".to_owned(), 2));
    // It is gone for two days: what was counted before is still there, and what was spent meanwhile is not.
    night.acme.expect(200, "DELETE", "/budgets/cap", &Value::Null);
    wait(6);
    put(each, "UTC");
    let days = ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26"];
    night.correct(days.map(|day| again(6, on(day, "cap", "ads", "10"))).into_iter().collect());
    assert_eq!(night.spent("cap", "ads"), "10");
    night.correct(json!([on("2026-11-27", "cap", "ads", "1")]));
    assert_eq!(night.spent("cap", "ads"), "11");
}

#[test]
fn corrections_come_in_pages_by_day_provider_and_budget() {
    let night = Night::new();
    for team in 0..5 {
        night.correct(json!([correction("teams", &format!("t{team}"), 1, "1")]));
    }
    night.correct(json!([correction("search", "search", 1, "2")]));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = night.acme.get(&format!("/corrections?limit=2{cursor}"));
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= 2);
        seen.extend(rows.iter().map(|row| row["value"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["search", "t4", "t3", "t2", "t1", "t0"]);
    let count = |query: &str| night.list(query).len();
    assert_eq!([count("?budget=search"), count("?provider=openai")], [1, 6]);
    assert_eq!([count("?provider=other"), count("?from=2026-11-22")], [0, 0]);
    assert_eq!([count("?from=2026-11-21&to=2026-11-22"), count("?to=2026-11-21")], [6, 0]);
    for (query, field) in
        [("from=soon", "from"), ("to=x", "to"), ("limit=0", "limit"), ("cursor=x", "cursor")]
    {
        let path = format!("/corrections?{query}");
        let answer = night.acme.refuse(422, "invalid_field", "GET", &path, &Value::Null);
        assert_eq!(answer["errors"][0]["field"], field);
    }
}

#[test]
fn a_developer_with_an_owner_sees_corrections_of_own_budgets() {
    let night = Night::new();
    night.correct(json!([
        correction("teams", "search", 1, "1"),
        correction("search", "search", 1, "1"),
        correction("gone", "x", 1, "1"),
    ]));
    let seen = |owner: &str| {
        let body = json!({ "name": "dev", "role": "developer", "owner": owner });
        let token = night.acme.expect(201, "POST", "/tokens", &body)["token"].clone();
        let token = token.as_str().unwrap();
        let (status, answer) = night.acme.ask_as(token, "GET", "/corrections", &Value::Null);
        assert_eq!(status, 200, "{answer}");
        let rows = answer["data"].as_array().unwrap().clone();
        rows.iter().map(|row| row["budget"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen("ann"), ["teams"]);
    assert_eq!(seen("eve"), ["search"]);
    assert_eq!(seen("bob"), Vec::<String>::new());
}

#[test]
fn corrections_of_more_than_400_days_ago_are_forgotten() {
    let night = Night::new();
    night.correct(json!([correction("teams", "search", 1, "1")]));
    let sql = night.acme.shell.workspace_sql("ws_acme");
    let workspace = crate::objects::workspace_object::WorkspaceObject::open(sql).unwrap();
    let came = night.acme.shell.now().ms();
    let at = |days: i64| json!({ "at": came + days * DAY_MS, "kept": [] });
    workspace.corrected(&at(399).to_string()).unwrap();
    assert_eq!(night.list("").len(), 1);
    workspace.corrected(&at(401).to_string()).unwrap();
    assert_eq!(night.list("").len(), 0);
}

#[test]
fn a_demo_shows_what_its_bills_changed() {
    let shell = Shell::new();
    let token = super::books::demo(&shell);
    let ask = |method: &str, path: &str, body: &Value| {
        shell.call(method, &format!("/workspaces/ws_demo{path}"), &token, body)
    };
    for day in 0..4 {
        assert_eq!(ask("POST", "/demo", &json!({ "day": day })).0, 200);
    }
    let (_, answer) = ask("GET", "/corrections", &Value::Null);
    let rows = answer["data"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["budget"] == "support"), "{answer}");
    assert!(rows.iter().all(|row| row["provider"] != "demo"), "{answer}");
}
