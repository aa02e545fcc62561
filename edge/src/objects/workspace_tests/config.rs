//! The configuration as one document.

use serde_json::{Value, json};

use super::Acme;

/// A workspace with something of everything.
fn furnished() -> (Acme, String) {
    let acme = Acme::new();
    acme.expect(200, "PUT", "/policies/small", &json!({ "max_output_tokens": 10 }));
    acme.expect(
        200,
        "PUT",
        "/routes/fast",
        &json!({ "targets": [{ "provider": "openai", "model": "gpt-6-luna" }] }),
    );
    let price = json!({ "provider": "openai", "model": "mine", "prices": { "standard": { "input": "1" } } });
    acme.expect(201, "POST", "/prices", &price);
    acme.expect(200, "PUT", "/prices/default", &price);
    let (id, _) = acme.key("chat", &json!("small"));
    acme.key("other", &json!({ "require_actor": true }));
    (acme, id)
}

#[test]
fn an_exported_configuration_applies_as_no_change() {
    let (acme, _) = furnished();
    let exported = acme.get("/config");
    let version = acme.get("")["config_version"].clone();
    let audit = acme.get("/audit");
    assert_eq!(acme.expect(200, "POST", "/config/validate", &exported), json!({ "valid": true }));
    assert_eq!(acme.expect(200, "POST", "/config/diff", &exported), json!({ "changes": [] }));
    assert_eq!(acme.expect(200, "PUT", "/config", &exported), json!({ "changes": [] }));
    assert_eq!(acme.get("/config"), exported);
    assert_eq!(acme.get("")["config_version"], version);
    assert_eq!(acme.get("/audit"), audit);
}

#[test]
fn a_document_is_applied_whole_and_keeps_the_secrets() {
    let (acme, id) = furnished();
    let mut document = acme.get("/config");
    document["policies"]["small"]["max_output_tokens"] = json!(99);
    document["keys"][&id]["owner"] = json!("bob");
    document["providers"]["second"] = json!({ "kind": "anthropic" });
    let changes = acme.expect(200, "POST", "/config/diff", &document);
    let paths: Vec<_> = changes["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, [&format!("keys.{id}"), "policies.small", "providers.second"]);
    // A diff changes nothing.
    assert_eq!(acme.get("/policies/small")["max_output_tokens"], 10);
    assert_eq!(acme.expect(200, "PUT", "/config", &document), changes);
    assert_eq!(acme.expect(200, "PUT", "/config", &document), json!({ "changes": [] }));
    assert_eq!(acme.get("/providers/openai")["credential_set"], true);
    assert_eq!(acme.get("/providers/second")["credential_set"], false);
    let key = acme.get(&format!("/keys/{id}"));
    assert_eq!((&key["owner"], &key["valid_secrets"]), (&json!("bob"), &json!(1)));
    let thought = json!({ "model": "gpt-6-luna", "max_output_tokens": 1000 });
    let simulated = acme.expect(200, "POST", &format!("/keys/{id}/simulate"), &thought);
    assert_eq!(simulated["set_max_output_tokens"], 99);
}

#[test]
fn a_key_that_a_document_leaves_out_is_revoked_once() {
    let (acme, id) = furnished();
    let mut document = acme.get("/config");
    document["keys"].as_object_mut().unwrap().remove(&id);
    let applied = acme.expect(200, "PUT", "/config", &document);
    assert_eq!(applied["changes"][0]["after"]["status"], "revoked");
    assert_eq!(acme.expect(200, "PUT", "/config", &document), json!({ "changes": [] }));
    assert_eq!(acme.get(&format!("/keys/{id}"))["status"], "revoked");
    let mut document = acme.get("/config");
    document["keys"][&id]["status"] = json!("active");
    acme.refuse(409, "key_revoked", "PUT", "/config", &document);
}

#[test]
fn a_document_with_errors_changes_nothing_and_names_them_all() {
    let (acme, id) = furnished();
    let exported = acme.get("/config");
    let mut document = exported.clone();
    document["policies"]["small"]["max_output_tokens"] = json!(5);
    document["providers"]["second"] = json!({ "kind": "nonsense" });
    document["routes"]["slow"] = json!({ "targets": [{ "provider": "third", "model": "m" }] });
    document["keys"][&id]["policy"] = json!("nowhere");
    for (method, path) in
        [("POST", "/config/validate"), ("POST", "/config/diff"), ("PUT", "/config")]
    {
        let problem = acme.refuse(422, "invalid_field", method, path, &document);
        let fields: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["field"].as_str().unwrap())
            .collect();
        assert_eq!(
            fields,
            ["providers.second.kind", "routes.slow.targets", &format!("keys.{id}.policy")]
        );
    }
    assert_eq!(acme.get("/config"), exported);
}

#[test]
fn a_document_cannot_break_a_reference_or_make_up_a_key() {
    let (acme, _) = furnished();
    let exported = acme.get("/config");
    let refused = |edit: &dyn Fn(&mut Value)| {
        let mut document = exported.clone();
        edit(&mut document);
        acme.refuse(422, "invalid_field", "PUT", "/config", &document);
    };
    refused(&|document| document["providers"] = json!({}));
    refused(&|document| document["policies"] = json!({}));
    refused(&|document| {
        let key = document["keys"].as_object().unwrap().values().next().unwrap().clone();
        document["keys"]["0000000000000000"] = key;
    });
    refused(&|document| {
        let row = document["prices"]["openai/mine"].clone();
        document["prices"]["openai/yours"] = row;
    });
    let mut document = exported.clone();
    document["bugdets"] = json!({});
    acme.refuse(400, "invalid_body", "PUT", "/config", &document);
    document = exported.clone();
    document["providers"]["openai"]["credential"] = json!("sk-x");
    let problem = acme.refuse(400, "invalid_body", "PUT", "/config", &document);
    assert_eq!(problem["errors"][0]["field"], "providers.openai.credential");
}

#[test]
fn a_workspace_is_bounded() {
    let acme = Acme::new();
    let mut document = acme.get("/config");
    let provider = |n: usize| (format!("p{n}"), json!({ "kind": "openai" }));
    document["providers"].as_object_mut().unwrap().extend((0..100).map(provider));
    let problem = acme.refuse(422, "invalid_field", "PUT", "/config", &document);
    assert!(problem["detail"].as_str().unwrap().contains("101"), "{problem}");

    let mut document = acme.get("/config");
    acme.key("chat", &json!({}));
    document["keys"] = acme.get("/config")["keys"].clone();
    let name = |n: usize| (format!("{n:0128}"), json!("m".repeat(128)));
    let models: serde_json::Map<String, Value> = (0..500).map(name).collect();
    let provider = |n: usize| (format!("p{n}"), json!({ "kind": "openai", "models": models }));
    document["providers"].as_object_mut().unwrap().extend((0..20).map(provider));
    let problem = acme.refuse(422, "invalid_field", "PUT", "/config", &document);
    assert!(problem["detail"].as_str().unwrap().contains("plans"), "{problem}");
}

#[test]
fn an_export_survives_a_restart_of_the_workspace() {
    // The test's shell opens the object anew for each request, so storage alone carries everything.
    let (acme, _) = furnished();
    assert_eq!(acme.get("/config"), acme.get("/config"));
    let exported = acme.get("/config");
    for section in ["providers", "policies", "routes", "prices", "default_price", "keys"] {
        assert!(
            exported[section].as_object().is_some_and(|entries| !entries.is_empty()),
            "{section}"
        );
    }
}
