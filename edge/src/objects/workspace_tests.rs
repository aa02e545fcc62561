//! The control plane from outside: requests in, answers out, and what the Meters hear of it.

mod alerts;
mod books;
mod commitments;
mod config;
mod corrections;
mod focus;
mod front;
mod insights;
mod keys;
mod outcomes;
mod prices_billed;
mod proposals;
mod resources;
mod rows;
mod secrecy;
mod standing;
mod telemetry;
mod versions;

use serde_json::{Value, json};
use tallygate_shared::identity::signature::{SignedCall, body_sha256};

use super::test_shell::{OPERATOR, Shell};
use crate::admin::call::{Call, Signed, route};

/// One workspace, asked by its admin.
struct Acme {
    shell: Shell,
    token: String,
}

impl Acme {
    /// A new token of a role: a developer's is for the rows of all owners.
    fn token_of(&self, role: &str) -> String {
        let owner = (role == "developer").then_some("*");
        let body = json!({ "name": role, "role": role, "owner": owner });
        self.expect(201, "POST", "/tokens", &body)["token"].as_str().unwrap().to_owned()
    }

    fn new() -> Self {
        let (shell, token) = Shell::with_workspace();
        Self { shell, token }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask_as(&self.token, method, path, body)
    }

    fn ask_as(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.shell.call(method, &format!("/workspaces/ws_acme{path}"), token, body)
    }

    fn get(&self, path: &str) -> Value {
        self.expect(200, "GET", path, &Value::Null)
    }

    fn expect(&self, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let (got, answer) = self.ask(method, path, body);
        let cut = |value: &Value| value.to_string().chars().take(500).collect::<String>();
        assert_eq!(got, status, "{method} {path} {}: {}", cut(body), cut(&answer));
        answer
    }

    /// A problem with this code, at this field when there is one.
    fn refuse(&self, status: u16, code: &str, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.expect(status, method, path, body);
        assert_eq!(
            (&answer["code"], &answer["status"]),
            (&json!(code), &json!(status)),
            "{answer}"
        );
        for field in ["type", "title", "detail"] {
            assert!(
                answer[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field} in {answer}"
            );
        }
        answer
    }

    /// A key: its id and its text.
    fn key(&self, name: &str, policy: &Value) -> (String, String) {
        let answer = self.expect(201, "POST", "/keys", &new_key(name, policy));
        (answer["id"].as_str().unwrap().to_owned(), answer["key"].as_str().unwrap().to_owned())
    }

    /// A secret that the reconciler signs with, as `night`.
    fn reconciler_secret(&self) -> String {
        let made = self.expect(201, "POST", "/reconciler-secrets", &json!({ "kid": "night" }));
        made["secret"].as_str().unwrap().to_owned()
    }

    /// A call signed by the reconciler.
    fn signed(&self, secret: &str, nonce: &str, path: &str, body: &Value) -> (u16, Value) {
        let path = format!("/api/v1/workspaces/ws_acme/reconciler/{path}");
        let body = body.to_string();
        let (timestamp, body_sha256) =
            (self.shell.now().ms() / 1_000, body_sha256(body.as_bytes()));
        let call = SignedCall {
            method: "POST",
            path: &path,
            query: "",
            timestamp,
            nonce,
            body_sha256: &body_sha256,
        };
        let signature = call.sign(secret.as_bytes());
        let call = Call {
            method: "POST".into(),
            path: path.clone(),
            body: body.clone(),
            signed: Some(Signed {
                key_id: "night".into(),
                timestamp: timestamp.to_string(),
                nonce: nonce.into(),
                signature,
            }),
            ..Call::default()
        };
        let (status, _, body) = self.shell.carry_out(route(call, OPERATOR));
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn new_key(name: &str, policy: &Value) -> Value {
    json!({ "name": name, "owner": "ada", "cost_centre": "r&d", "purpose": "tests", "environment": "test",
            "policy": policy })
}

/// A document without the fields that every answer about a thing adds.
fn without(value: &Value, fields: &[&str]) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| !fields.contains(&name.as_str()));
    }
    value
}
