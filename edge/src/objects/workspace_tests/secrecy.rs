//! Secrets come in, and never come out: not in an answer, not in the audit log, not in storage.

use serde_json::{Value, json};

use super::Acme;
use crate::admin::operations::operations;
use crate::objects::test_shell::ring_of;

/// Everything that is a secret in this test, and may be shown in one answer at most.
fn secrets_of(acme: &Acme) -> Vec<(String, usize)> {
    let mut secrets = vec![("sk-very-secret".to_owned(), 0), ("sk-second-secret".to_owned(), 0)];
    acme.expect(200, "PATCH", "/providers/openai", &json!({ "credential": "sk-second-secret" }));
    let given = "g".repeat(40);
    acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "given", "secret": given }));
    secrets.push((given, 1));
    let minted = acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "minted" }));
    secrets.push((minted["secret"].as_str().unwrap().to_owned(), 1));
    let (id, text) = acme.key("chat", &json!({}));
    secrets.push((text, 1));
    let rotated =
        acme.expect(200, "POST", &format!("/keys/{id}/rotate"), &json!({ "overlap_seconds": 60 }));
    secrets.push((rotated["key"].as_str().unwrap().to_owned(), 1));
    let token = acme.expect(201, "POST", "/tokens", &json!({ "name": "ci", "role": "auditor" }));
    secrets.push((token["token"].as_str().unwrap().to_owned(), 1));
    secrets.push((acme.token.clone(), 1));
    secrets
}

#[test]
fn a_secret_is_answered_once_and_stored_never() {
    let acme = Acme::new();
    let secrets = secrets_of(&acme);
    let exported = acme.get("/config");
    acme.expect(200, "PUT", "/config", &exported);
    // Every operation, with every name that is there, with bodies that fit and bodies that do not.
    let key = exported["keys"].as_object().unwrap().keys().next().unwrap().clone();
    for spec in operations() {
        for (name, value) in
            [("{token}", "x"), ("{provider}", "openai"), ("{kid}", "given"), ("{key}", &*key)]
        {
            let path = spec.path.replace("{workspace}", "ws_acme").replace(name, value);
            for body in [Value::Null, json!({}), json!({ "credential": 7 }), exported.clone()] {
                // What issues new secrets has been looked at above.
                if spec.status != 201 && !path.ends_with("/rotate") {
                    acme.shell.call(spec.method, &path, &acme.token, &body);
                }
            }
        }
    }
    let (answered, stored) = (acme.shell.answered.borrow(), acme.shell.dump());
    assert!(stored.contains("ws_acme") && stored.contains("openai"));
    for (secret, times) in secrets {
        // The random part alone would be enough to use it.
        let part = secret.rsplit('_').next().unwrap();
        assert_eq!(answered.matches(part).count(), times, "{secret}");
        assert!(!stored.contains(part), "{secret}");
    }
}

#[test]
fn hashes_and_sealed_texts_stay_inside() {
    let acme = Acme::new();
    secrets_of(&acme);
    for path in
        ["", "/tokens", "/providers", "/keys", "/actor-secrets", "/config", "/audit?limit=1000"]
    {
        let answer = acme.get(path).to_string();
        for inside in ["sha256", "v1.k1.", "sealed"] {
            assert!(!answer.contains(inside), "{inside} in {path}: {answer}");
        }
    }
    let dump = acme.shell.dump();
    assert!(dump.contains("v1.k1.") && dump.contains("sha256"));
}

#[test]
fn a_secret_is_sealed_for_one_workspace_and_one_name() {
    let acme = Acme::new();
    let (key, text) = acme.key("chat", &json!({}));
    let hash =
        tallygate_shared::identity::gateway_key::GatewayKey::parse(&text).unwrap().secret_hash();
    let meter = acme.shell.meter(&key);
    let plan = meter.authenticate(hash.as_str(), acme.shell.now()).unwrap();
    let sealed = plan.providers[0].credential.clone().unwrap();
    let ring = ring_of(&[("k1", 1)]);
    assert_eq!(ring.open(&sealed, "ws_acme/provider/openai").unwrap(), "sk-very-secret");
    assert!(ring.open(&sealed, "ws_acme/provider/other").is_err());
    assert!(ring.open(&sealed, "ws_other/provider/openai").is_err());
}

#[test]
fn after_a_rotation_of_the_ring_everything_can_be_sealed_anew() {
    let acme = Acme::new();
    let (key, text) = acme.key("chat", &json!({}));
    acme.expect(201, "POST", "/actor-secrets", &json!({ "kid": "a" }));
    assert_eq!(acme.expect(200, "POST", "/reseal", &Value::Null), json!({ "resealed": 0 }));
    *acme.shell.ring.borrow_mut() = ring_of(&[("k2", 2), ("k1", 1)]);
    assert_eq!(acme.expect(200, "POST", "/reseal", &Value::Null), json!({ "resealed": 2 }));
    assert_eq!(acme.expect(200, "POST", "/reseal", &Value::Null), json!({ "resealed": 0 }));
    // The old key may go: plans and storage need it no more.
    *acme.shell.ring.borrow_mut() = ring_of(&[("k2", 2)]);
    assert!(!acme.shell.dump().contains("v1.k1."));
    let hash =
        tallygate_shared::identity::gateway_key::GatewayKey::parse(&text).unwrap().secret_hash();
    let meter = acme.shell.meter(&key);
    let plan = meter.authenticate(hash.as_str(), acme.shell.now()).unwrap();
    let sealed = plan.providers[0].credential.clone().unwrap();
    let opened = acme.shell.ring.borrow().open(&sealed, "ws_acme/provider/openai").unwrap();
    assert_eq!(opened, "sk-very-secret");
}

#[test]
fn a_secret_that_no_key_of_the_ring_opens_is_reported_and_nothing_is_changed() {
    let acme = Acme::new();
    let before = acme.shell.dump();
    *acme.shell.ring.borrow_mut() = ring_of(&[("k3", 3)]);
    let problem = acme.refuse(409, "secret_lost", "POST", "/reseal", &Value::Null);
    assert!(problem["detail"].as_str().unwrap().contains("openai"), "{problem}");
    assert_eq!(acme.shell.dump(), before);
}

#[test]
fn without_a_ring_no_secret_is_taken() {
    let acme = Acme::new();
    *acme.shell.ring.borrow_mut() = crate::vault::KeyRing::default();
    let body = json!({ "name": "second", "kind": "openai", "credential": "sk-x" });
    acme.refuse(503, "key_ring_missing", "POST", "/providers", &body);
    acme.refuse(404, "not_found", "GET", "/providers/second", &Value::Null);
}

#[test]
fn no_answer_has_a_place_for_what_was_asked_or_said() {
    fn names(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::Object(properties)) = fields.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                fields.values().for_each(|value| names(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(crate::admin::openapi::DOCUMENT).unwrap();
    let mut found = Vec::new();
    names(&document["components"]["schemas"], &mut found);
    assert!(found.iter().any(|name| name == "charged"));
    for name in
        ["prompt", "prompts", "messages", "content", "contents", "completion", "text", "body"]
    {
        assert!(!found.iter().any(|it| it == name), "{name}");
    }
}
