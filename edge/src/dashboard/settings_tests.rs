//! The settings from outside: the document, its versions, the simulator; and what a page says of rows.

use serde_json::{Value, json};

use super::tests::{Browser, Page, token_of};
use crate::objects::test_shell::Shell;

fn api(shell: &Shell, token: &str, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = shell.call(method, &format!("/workspaces/ws_acme{path}"), token, body);
    assert!(status < 300, "{method} {path}: {answer}");
    answer
}

/// What stands in the page's field of this name that is not shown.
fn hidden(page: &Page, name: &str) -> String {
    let (_, rest) = page.body.split_once(&format!("name=\"{name}\" value=\"")).expect(&page.body);
    rest.split_once('"').unwrap().0.to_owned()
}

fn send(browser: &mut Browser<'_>, path: &str, csrf: &str, version: &str, text: &str) -> Page {
    let fields = [("csrf", csrf), ("version", version), ("document", text)];
    browser.post(&format!("/dashboard/settings/{path}"), &fields)
}

#[test]
fn a_configuration_is_checked_shown_and_applied() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let page = browser.get("/dashboard/settings");
    assert!(
        page.body.contains("&#34;openai&#34;") && !page.body.contains("sk-very-secret"),
        "{}",
        page.body
    );
    let (csrf, version) = (page.csrf(), hidden(&page, "version"));
    let mut config = api(&shell, &token, "GET", "/config", &Value::Null);
    // What is wrong is said at its place, and what was written stays.
    for (text, said) in [
        ("{ \"providers\": ", "no JSON: EOF"),
        (r#"{"budgetz":{}}"#, "unknown field"),
        (r#"{"providers":{"mine":{"kind":"nothing"}}}"#, "providers.mine.kind"),
    ] {
        for path in ["check", "apply"] {
            let page = send(&mut browser, path, &csrf, &version, text);
            assert!(matches!(page.status, 400 | 422), "{text}: {}", page.status);
            let kept = text.replace('"', "&#34;");
            assert!(
                page.body.contains(said) && page.body.contains(kept.trim()),
                "{said}: {}",
                page.body
            );
        }
    }
    config["budgets"]["all"] = json!({ "scope": { "dimension": "workspace" }, "owner": "ann", "limit_usd": "5", "window": "month" });
    let text = config.to_string();
    let page = send(&mut browser, "check", &csrf, &version, &text);
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("budgets.all.limit_usd") && page.body.contains("Apply it to version 1"),
        "{}",
        page.body
    );
    assert!(!page.body.contains("class=\"note bad\""), "{}", page.body);
    assert_eq!(api(&shell, &token, "GET", "/budgets", &Value::Null), json!({}));
    let page = send(&mut browser, "apply", &csrf, &version, &text);
    assert_eq!(page.header("location"), "/dashboard/settings?done=apply-config", "{}", page.body);
    assert_eq!(api(&shell, &token, "GET", "/budgets", &Value::Null)["all"]["limit_usd"], "5");
}

#[test]
fn of_two_who_edit_at_once_the_second_sees_both_and_decides() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let page = browser.get("/dashboard/settings");
    let (csrf, version) = (page.csrf(), hidden(&page, "version"));
    let mut config = api(&shell, &token, "GET", "/config", &Value::Null);
    let terms = |owner: &str| json!({ "scope": { "dimension": "workspace" }, "owner": owner, "limit_usd": "5", "window": "month" });
    api(&shell, &token, "PUT", "/budgets/theirs", &terms("bob"));
    config["budgets"]["mine"] = terms("ann");
    let page = send(&mut browser, "apply", &csrf, &version, &config.to_string());
    assert_eq!(page.status, 409);
    for part in [
        "What changed since you began",
        "budgets.theirs.owner",
        "budgets.mine.owner",
        "id=\"yours\"",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert_eq!(api(&shell, &token, "GET", "/budgets", &Value::Null)["mine"], Value::Null);
    // Having seen both, one applies it to the new version.
    let page = send(&mut browser, "apply", &csrf, &hidden(&page, "version"), &config.to_string());
    assert_eq!(page.status, 303, "{}", page.body);
    let budgets = api(&shell, &token, "GET", "/budgets", &Value::Null);
    assert_eq!(budgets.as_object().unwrap().keys().collect::<Vec<_>>(), ["mine"]);
}

#[test]
fn a_version_is_compared_and_gone_back_to() {
    let (shell, token) = Shell::with_workspace();
    let terms = json!({ "scope": { "dimension": "workspace" }, "owner": "ann", "limit_usd": "5", "window": "month" });
    api(&shell, &token, "PUT", "/budgets/all", &terms);
    let mut browser = Browser::signed_in(&shell, &token);
    let page = browser.get("/dashboard/settings/versions");
    assert!(
        page.body.contains("budgets.all") && page.body.contains("/dashboard/settings/versions/1"),
        "{}",
        page.body
    );
    let page = browser.get("/dashboard/settings/versions/1");
    assert!(
        page.body.contains("budgets.all.limit_usd") && page.body.contains("removed"),
        "{}",
        page.body
    );
    let same = browser.get("/dashboard/settings/versions/1?with=1");
    assert!(same.body.contains("Nothing differs."), "{}", same.body);
    let back = browser.post("/dashboard/settings/versions/1/roll-back", &[("csrf", &page.csrf())]);
    assert_eq!(
        (back.status, back.body.contains("It is version 3 now.")),
        (200, true),
        "{}",
        back.body
    );
    assert_eq!(api(&shell, &token, "GET", "/budgets", &Value::Null), json!({}));
    for bad in ["/dashboard/settings/versions/99", "/dashboard/settings/versions/1?with=99"] {
        let page = browser.get(bad);
        assert!(page.body.contains("There is no version"), "{bad}: {}", page.body);
    }
    let (finance, _) = token_of(&shell, &token, "finance");
    let mut browser = Browser::signed_in(&shell, &finance);
    let page = browser.get("/dashboard/settings/versions/1");
    assert!(!page.body.contains("Go back to it"), "{}", page.body);
    let refused =
        browser.post("/dashboard/settings/versions/1/roll-back", &[("csrf", &page.csrf())]);
    assert_eq!(refused.status, 403);
}

#[test]
fn a_request_is_thought_of_under_two_policies() {
    let (shell, token) = Shell::with_workspace();
    let key = json!({ "name": "k", "owner": "ann", "cost_centre": "rd", "purpose": "p", "environment": "e",
                      "policy": {} });
    let id = api(&shell, &token, "POST", "/keys", &key)["id"].as_str().unwrap().to_owned();
    api(&shell, &token, "PUT", "/policies/strict", &json!({ "models": { "allow": ["nothing"] } }));
    let mut browser = Browser::signed_in(&shell, &token);
    let target =
        format!("/dashboard/settings/simulator?key={id}&model=gpt-5&input_tokens=100&team=search");
    let page = browser.get(&target);
    assert_eq!((page.status, page.body.contains("let through")), (200, true), "{}", page.body);
    let page = browser.get(&format!("{target}&policy=strict"));
    for part in [
        "With the policy strict",
        "model_not_allowed",
        "With the key&#39;s own policy",
        "let through",
        "refused",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    for bad in ["policy=none", "input_tokens=many", "ip=here", "endpoint=/v1/nothing"] {
        let page =
            browser.get(&format!("/dashboard/settings/simulator?key={id}&model=gpt-5&{bad}"));
        assert!(page.body.contains("class=\"note bad\""), "{bad}: {}", page.body);
    }
    let page = browser.get("/dashboard/settings/simulator?key=00000000000000ff&model=x");
    assert!(page.body.contains("There is no key"), "{}", page.body);
}

#[test]
fn a_page_says_whose_rows_it_shows() {
    let (shell, token) = Shell::with_workspace();
    let body = json!({ "name": "dev", "role": "developer", "owner": "<ann>" });
    let own = api(&shell, &token, "POST", "/tokens", &body)["token"].as_str().unwrap().to_owned();
    let mut browser = Browser::signed_in(&shell, &own);
    for page in [
        "",
        "/usage",
        "/requests",
        "/budgets",
        "/alerts",
        "/keys",
        "/settings",
        "/settings/simulator",
    ] {
        let page = browser.get(&format!("/dashboard{page}"));
        assert!(page.body.contains("You see what belongs to &#60;ann&#62;"), "{}", page.body);
        assert!(!page.body.contains("class=\"note bad\""), "{}", page.body);
    }
    assert_eq!(browser.get("/dashboard/settings/versions").status, 403);
    assert_eq!(browser.get("/dashboard/usage?owner=bob").status, 403);
    let (all, _) = token_of(&shell, &token, "developer");
    let page = Browser::signed_in(&shell, &all).get("/dashboard/keys");
    assert!(page.body.contains("for the rows of all owners"), "{}", page.body);
    let page = Browser::signed_in(&shell, &token).get("/dashboard/keys");
    assert!(!page.body.contains("rows of all owners"), "{}", page.body);
}

#[test]
fn every_page_is_for_the_roles_of_its_row_and_no_other() {
    let (shell, token) = Shell::with_workspace();
    for role in ["admin", "finance", "developer", "auditor"] {
        let (own, _) = token_of(&shell, &token, role);
        let mut browser = Browser::signed_in(&shell, &own);
        let role: crate::admin::roles::Role = serde_json::from_value(json!(role)).unwrap();
        for page in super::pages::PAGES.iter().filter(|page| !page.path.contains('{')) {
            let status = browser.get(&format!("/dashboard{}", page.path)).status;
            assert_eq!(status == 403, !role.may(page.act), "{role:?} {}: {status}", page.path);
            assert!(matches!(status, 200 | 403), "{role:?} {}: {status}", page.path);
        }
    }
}

#[test]
fn a_token_is_issued_with_its_owner_shown_once_and_deleted() {
    let (shell, token) = Shell::with_workspace();
    let mut config = api(&shell, &token, "GET", "/config", &Value::Null);
    config["dashboard"] = json!({ "members": { "ann@x.test": "developer",
        "bob@x.test": { "role": "developer", "owner": "search" }, "fin@x.test": "finance" } });
    api(&shell, &token, "PUT", "/config", &config);
    let mut browser = Browser::signed_in(&shell, &token);
    let people = "/dashboard/settings/people";
    let csrf = browser.get(people).csrf();
    let csrf = ("csrf", csrf.as_str());
    let bad = [csrf, ("name", "dev"), ("role", "finance"), ("owner", "ann")];
    let page = browser.post("/dashboard/tokens/issue", &bad);
    assert_eq!(
        (page.status, page.body.contains("is for developers")),
        (422, true),
        "{}",
        page.body
    );
    let good = [csrf, ("name", "dev"), ("role", "developer"), ("owner", "ann")];
    let page = browser.post("/dashboard/tokens/issue", &good);
    assert!(page.body.contains("Copy the token now"), "{}", page.body);
    let listed = api(&shell, &token, "GET", "/tokens", &Value::Null)["data"][1].clone();
    let id = listed["id"].as_str().unwrap();
    assert_eq!((&listed["name"], &listed["owner"]), (&json!("dev"), &json!("ann")));
    let csv = browser.get(&format!("{people}?format=csv&table=tokens")).body;
    assert!(csv.contains(&format!("dev,{id},developer,ann,")) && !csv.contains("tga_"), "{csv}");
    let csv = browser.get(&format!("{people}?format=csv&table=members")).body;
    let expected = "mail,role,owner\r\nann@x.test,developer,ann@x.test\r\nbob@x.test,developer,search\r\n\
        fin@x.test,finance,all\r\n";
    assert_eq!(csv, expected);
    let page = browser.post(&format!("/dashboard/tokens/{id}/delete"), &[csrf]);
    assert_eq!(page.header("location"), "/dashboard/settings/people?done=delete-token");
    assert_eq!(
        api(&shell, &token, "GET", "/tokens", &Value::Null)["data"].as_array().unwrap().len(),
        1
    );
}
