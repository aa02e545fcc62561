//! Versions of the configuration: kept, compared, gone back to; and two people who edit at once.

use serde_json::{Value, json};

use super::Acme;

fn budget(limit: &str) -> Value {
    json!({ "scope": { "dimension": "workspace" }, "owner": "ann", "limit_usd": limit, "window": "month" })
}

#[test]
fn every_change_of_the_configuration_is_a_version_with_who_and_what() {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/budgets/all", &budget("5"));
    acme.expect(200, "PUT", "/budgets/all", &budget("7"));
    // What changes nothing is none, nor is what changes a secret alone.
    acme.expect(200, "PUT", "/budgets/all", &budget("7"));
    acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "a" }));
    let list = acme.get("/config/versions");
    let versions: Vec<u64> =
        list["data"].as_array().unwrap().iter().map(|it| it["version"].as_u64().unwrap()).collect();
    // Nothing, the provider of this test's workspace, and two budgets.
    assert_eq!(versions, [3, 2, 1, 0]);
    assert_eq!(
        (&list["current"], &list["data"][0]["changed"]),
        (&json!(4), &json!(["budgets.all"]))
    );
    assert!(list["data"][0]["who"].as_str().unwrap().starts_with("token:"));
    let first = acme.get("/config/versions/2");
    assert_eq!(first["config"]["budgets"]["all"]["limit_usd"], "5");
    assert_eq!(acme.get("/config/versions/0")["config"]["providers"], json!({}));
    assert_eq!(acme.get("/config/versions/current")["config"], acme.get("/config"));
    let changes = acme.get("/config/versions/3/diff?from=2");
    assert_eq!(changes["changes"][0]["before"]["limit_usd"], "5");
    assert_eq!(changes["changes"][0]["after"]["limit_usd"], "7");
    assert_eq!(acme.get("/config/versions/2/diff")["changes"][0]["after"]["limit_usd"], "5");
    for unknown in ["/config/versions/9", "/config/versions/x", "/config/versions/2/diff?from=9"] {
        acme.refuse(404, "not_found", "GET", unknown, &Value::Null);
    }
}

#[test]
fn old_versions_go_and_those_that_stay_are_whole() {
    let acme = Acme::new();
    for limit in 1..=110 {
        acme.expect(200, "PUT", "/budgets/all", &budget(&limit.to_string()));
    }
    let list = acme.get("/config/versions");
    let list = list["data"].as_array().unwrap();
    assert_eq!(list.len(), 100);
    let oldest = list.last().unwrap()["version"].as_u64().unwrap();
    // The first version is the provider's.
    let config = acme.get(&format!("/config/versions/{oldest}"))["config"].clone();
    assert_eq!(config["budgets"]["all"]["limit_usd"], (oldest - 1).to_string());
    acme.refuse(404, "not_found", "GET", &format!("/config/versions/{}", oldest - 1), &Value::Null);
}

#[test]
fn a_document_made_from_an_older_version_is_refused_and_changes_nothing() {
    let acme = Acme::new();
    let current = acme.get("/config/versions/current");
    let mut mine = current["config"].clone();
    mine["budgets"] = json!({ "mine": budget("1") });
    let path = format!("/config?version={}", current["version"]);
    acme.expect(200, "PUT", "/budgets/all", &budget("5"));
    let problem = acme.refuse(409, "version_conflict", "PUT", &path, &mine);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("version 2 was made since by \"token:"), "{detail}");
    assert_eq!(acme.get("/budgets")["mine"], Value::Null);
    // A secret that changes is none of the document's business.
    let current = acme.get("/config/versions/current");
    acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "a" }));
    let path = format!("/config?version={}", current["version"]);
    acme.expect(200, "PUT", &path, &mine);
    for bad in ["99", "-1", "x"] {
        acme.refuse(422, "invalid_field", "PUT", &format!("/config?version={bad}"), &mine);
    }
}

#[test]
fn going_back_brings_no_revoked_key_back_and_says_so() {
    let acme = Acme::new();
    let (old, _) = acme.key("old", &json!({}));
    let slack = json!({ "type": "slack", "url": "https://hooks.slack.com/services/x" });
    acme.expect(200, "PUT", "/receivers/chat", &slack);
    let base = acme.get("/config/versions/current")["version"].as_u64().unwrap();
    let (new, text) = acme.key("new", &json!({}));
    acme.expect(200, "POST", &format!("/keys/{old}/revoke"), &Value::Null);
    acme.expect(200, "DELETE", "/receivers/chat", &Value::Null);
    acme.expect(200, "DELETE", "/providers/openai", &Value::Null);
    acme.expect(200, "PUT", "/budgets/all", &budget("5"));
    let shown = acme.get(&format!("/config/versions/{base}"));
    let back = acme.expect(200, "POST", "/config/rollback", &json!({ "version": base }));
    assert_eq!(shown["not_undone"], back["not_undone"]);
    let lost: Vec<&str> = back["not_undone"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    let mut expected = vec![format!("keys.{new}"), format!("keys.{old}")];
    expected.sort();
    expected.extend(["providers.openai".to_owned(), "receivers.chat".to_owned()]);
    assert_eq!(lost, expected);
    assert_eq!(acme.get(&format!("/keys/{old}"))["status"], "revoked");
    assert_eq!(acme.get(&format!("/keys/{new}"))["status"], "active");
    assert_eq!(acme.get("/budgets"), json!({}));
    let provider = acme.get("/providers/openai");
    assert_eq!((&provider["kind"], &provider["credential_set"]), (&json!("openai"), &json!(false)));
    let list = acme.get("/config/versions");
    assert_eq!(list["data"][0]["note"], format!("rolled back to version {base}"));
    assert!(!list.to_string().contains(&text) && !shown.to_string().contains(&text));
    acme.refuse(404, "not_found", "POST", "/config/rollback", &json!({ "version": 999 }));
    acme.refuse(400, "invalid_body", "POST", "/config/rollback", &json!({ "version": "1" }));
}
