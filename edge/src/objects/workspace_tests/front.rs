//! Who gets in, to what, and what they hear when they do not.

use serde_json::{Value, json};

use super::Acme;
use crate::admin::operations::{Operation, operations};
use crate::admin::roles::{Act, Role};
use crate::objects::sql::Sql;
use crate::objects::test_shell::{OPERATOR, Shell};

#[test]
fn a_workspace_is_created_once_and_listed() {
    let (shell, token) = Shell::with_workspace();
    let (status, list) = shell.call("GET", "/workspaces", OPERATOR, &Value::Null);
    assert_eq!((status, &list["data"][0]["id"]), (200, &json!("ws_acme")));
    let again = json!({ "id": "ws_acme", "name": "Mine now" });
    let (status, problem) = shell.call("POST", "/workspaces", OPERATOR, &again);
    assert_eq!((status, &problem["code"]), (409, &json!("already_exists")));
    let (_, seen) = shell.call("GET", "/workspaces/ws_acme", &token, &Value::Null);
    assert_eq!(seen["name"], "Acme");
    let (status, minted) =
        shell.call("POST", "/workspaces", OPERATOR, &json!({ "name": "Unnamed" }));
    assert_eq!(status, 201);
    assert!(minted["id"].as_str().unwrap().starts_with("ws_"));
}

#[test]
fn a_creation_that_broke_off_between_the_two_objects_can_be_repeated() {
    let shell = Shell::new();
    let body = json!({ "id": "ws_acme", "name": "Acme" });
    shell.workspace_sql("ws_acme").fail_after(Some(3));
    let (status, _) = shell.call("POST", "/workspaces", OPERATOR, &body);
    assert_eq!(status, 500);
    shell.workspace_sql("ws_acme").fail_after(None);
    let (status, created) = shell.call("POST", "/workspaces", OPERATOR, &body);
    assert_eq!(status, 201, "{created}");
    let token = created["admin_token"]["token"].as_str().unwrap();
    assert_eq!(shell.call("GET", "/workspaces/ws_acme", token, &Value::Null).0, 200);
}

#[test]
fn a_bad_workspace_is_refused_with_its_field() {
    let shell = Shell::new();
    for (body, code) in [
        (json!({ "id": "acme", "name": "A" }), "invalid_body"),
        (json!({ "id": "ws_a" }), "invalid_body"),
        (json!({ "id": "ws_a", "name": "" }), "invalid_field"),
        (json!({ "id": "ws_a", "name": "a\nb" }), "invalid_field"),
        (json!({ "id": "ws_a", "name": "A", "owner": "x" }), "invalid_body"),
    ] {
        let (status, problem) = shell.call("POST", "/workspaces", OPERATOR, &body);
        assert!((400..500).contains(&status), "{body}");
        assert_eq!(problem["code"], code, "{body}");
        assert!(!problem["errors"][0]["remedy"].as_str().unwrap().is_empty());
    }
}

#[test]
fn only_a_token_of_this_workspace_gets_in() {
    let acme = Acme::new();
    let shell = &acme.shell;
    let (_, other) =
        shell.call("POST", "/workspaces", OPERATOR, &json!({ "id": "ws_other", "name": "O" }));
    let stranger = other["admin_token"]["token"].as_str().unwrap();
    let path = "/workspaces/ws_acme/keys";
    assert_eq!(shell.call_text("GET", path, None, "").1["code"], "token_missing");
    let forged = acme.token.replace("ws_acme", "ws_acme2");
    let mut mistyped = acme.token.clone();
    mistyped.replace_range(mistyped.len() - 1.., "!");
    for token in [stranger, &forged, &mistyped, "nonsense", "tg_x", "tgo_guess"] {
        let (status, problem) = shell.call("GET", path, token, &Value::Null);
        assert_eq!((status, &problem["code"]), (401, &json!("token_invalid")), "{token}");
    }
    assert_eq!(shell.call("GET", path, &acme.token, &Value::Null).0, 200);
    assert_eq!(shell.call("GET", path, OPERATOR, &Value::Null).0, 200);
    let (status, problem) = shell.call("GET", "/workspaces", &acme.token, &Value::Null);
    assert_eq!((status, &problem["code"]), (403, &json!("role_insufficient")));
}

#[test]
fn a_request_for_a_workspace_that_is_not_there_stores_nothing() {
    let acme = Acme::new();
    assert_eq!(acme.shell.call("GET", "/workspaces/ws_none/keys", OPERATOR, &Value::Null).0, 404);
    let sql = acme.shell.workspace_sql("ws_none");
    assert!(sql.exec("SELECT name FROM sqlite_master", &[]).unwrap().is_empty());
}

#[test]
fn an_installation_without_an_operator_token_has_no_operator() {
    let call = json!({ "method": "GET", "path": "/api/v1/workspaces", "authorization": "Bearer " });
    let step = crate::admin::call::route(serde_json::from_value(call).unwrap(), "");
    assert!(format!("{step:?}").contains("role_insufficient"), "{step:?}");
}

#[test]
fn a_caller_cannot_declare_itself_the_operator() {
    let call = json!({ "method": "GET", "path": "/api/v1/workspaces", "authorization": "Bearer x", "operator": true });
    let step = crate::admin::call::route(serde_json::from_value(call).unwrap(), OPERATOR);
    assert!(format!("{step:?}").contains("role_insufficient"), "{step:?}");
}

#[test]
fn paths_methods_and_parameters_that_are_not_there_are_named() {
    let acme = Acme::new();
    acme.refuse(404, "not_found", "GET", "/nothing", &Value::Null);
    let problem = acme.refuse(405, "method_not_allowed", "PUT", "/keys", &json!({}));
    assert!(problem["detail"].as_str().unwrap().contains("GET or POST"), "{problem}");
    // The Directory's own message is no caller's.
    acme.refuse(405, "method_not_allowed", "CREATE", "", &json!({ "name": "x" }));
    let problem = acme.refuse(422, "invalid_field", "GET", "/requests?modle=x", &Value::Null);
    assert_eq!(problem["errors"][0]["field"], "modle");
    acme.refuse(422, "invalid_field", "GET", "/keys?limit=3", &Value::Null);
}

#[test]
fn a_body_that_cannot_be_read_is_refused_at_its_place() {
    let acme = Acme::new();
    let path = "/workspaces/ws_acme/keys";
    let send = |body: &str| acme.shell.call_text("POST", path, Some(&acme.token), body);
    for body in ["", "{", "nonsense", "\u{0}"] {
        let (status, problem) = send(body);
        assert_eq!((status, &problem["code"]), (400, &json!("malformed_json")), "{body}");
    }
    let (status, problem) = send("[]");
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_body")));
    let mut body =
        super::new_key("k", &json!({ "spend_caps": [{ "window": "day", "limit": "1" }] }));
    let (_, problem) = send(&body.to_string());
    assert_eq!(problem["errors"][0]["field"], "policy.spend_caps[0].limit");
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("limit_usd"), "{problem}");
    body["policy"] = json!({ "max_request_usd": 5 });
    let (_, problem) = send(&body.to_string());
    assert_eq!(problem["errors"][0]["field"], "policy.max_request_usd");
    body["policy"] = json!(7);
    assert_eq!(send(&body.to_string()).1["errors"][0]["field"], "policy");
    let deep = "[".repeat(200_000);
    assert_eq!(send(&deep).0, 400);
}

#[test]
fn each_role_may_do_what_the_table_says_and_no_more() {
    let acme = Acme::new();
    let (key, _) = acme.key("k", &json!({}));
    for role in [Role::Admin, Role::Finance, Role::Developer, Role::Auditor] {
        let token = acme.token_of(role.name());
        for spec in operations() {
            // Open to all, or the operator's.
            if matches!(spec.operation, Operation::ShowOpenApi) || spec.act == Act::Operate {
                continue;
            }
            let path = spec.path.replace("{workspace}", "ws_acme").replace("{key}", &key);
            let (status, problem) = acme.shell.call(spec.method, &path, &token, &Value::Null);
            if spec.act == Act::Reconcile {
                // No token does: it takes a signature.
                assert_eq!((status, &problem["code"]), (401, &json!("signature_missing")));
                continue;
            }
            let refused = status == 403 && problem["code"] == "role_insufficient";
            assert_eq!(
                refused,
                !role.may(spec.act),
                "{role:?} {} {path}: {status} {problem}",
                spec.method
            );
            assert!(status < 500, "{} {path}: {problem}", spec.method);
            if matches!(spec.operation, Operation::RevokeKey) && !refused {
                break;
            }
        }
    }
}

#[test]
fn a_token_is_shown_once_and_stops_when_it_is_deleted() {
    let acme = Acme::new();
    let issued = acme.expect(201, "POST", "/tokens", &json!({ "name": "ci", "role": "finance" }));
    let token = issued["token"].as_str().unwrap();
    let id = issued["id"].as_str().unwrap();
    let tokens = acme.get("/tokens");
    assert_eq!(tokens["data"].as_array().unwrap().len(), 2);
    assert!(!tokens.to_string().contains(token));
    assert_eq!(acme.ask_as(token, "GET", "/keys", &Value::Null).0, 200);
    acme.expect(200, "DELETE", &format!("/tokens/{id}"), &Value::Null);
    assert_eq!(acme.ask_as(token, "GET", "/keys", &Value::Null).0, 401);
    acme.refuse(404, "not_found", "DELETE", &format!("/tokens/{id}"), &Value::Null);
    acme.refuse(
        422,
        "invalid_field",
        "POST",
        "/tokens",
        &json!({ "name": "x", "role": "operator" }),
    );
    acme.refuse(400, "invalid_body", "POST", "/tokens", &json!({ "name": "x", "role": "root" }));
    acme.refuse(422, "invalid_field", "POST", "/tokens", &json!({ "name": " ", "role": "admin" }));
}

#[test]
fn the_openapi_document_needs_no_token() {
    let (status, document) = Shell::new().call_text("GET", "/openapi.json", None, "");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
}

#[test]
fn a_storage_failure_leaves_nothing_of_a_change_and_says_nothing_of_storage() {
    let acme = Acme::new();
    let sql = acme.shell.workspace_sql("ws_acme");
    let before = sql.dump();
    for statements in 0..40 {
        sql.fail_after(Some(statements));
        let (status, problem) = acme.ask("POST", "/keys", &super::new_key("k", &json!({})));
        sql.fail_after(None);
        if problem["code"] == "push_pending" {
            // The change was saved before storage failed, and that is what is said of it.
            assert_eq!(acme.get("/keys")["data"].as_array().map(Vec::len), Some(1));
            return;
        }
        assert_eq!((status, &problem["code"]), (500, &json!("gateway_error")));
        assert!(!problem.to_string().contains("fuse"), "{problem}");
        assert_eq!(sql.dump(), before);
    }
    panic!("40 statements were not enough for a key");
}

#[test]
fn a_workspace_of_the_first_schema_opens_and_goes_on() {
    let acme = Acme::new();
    let sql = acme.shell.workspace_sql("ws_acme");
    // What later steps made is taken away again: the database is as the first build left it.
    let later = [
        "nonces",
        "price_proposals",
        "sessions",
        "reconciliation_runs",
        "versions",
        "version_changes",
        "budget_corrections",
        "focus_exports",
    ];
    for table in later {
        sql.exec(&format!("DROP TABLE {table}"), &[]).unwrap();
    }
    sql.exec("ALTER TABLE tokens DROP COLUMN owner", &[]).unwrap();
    sql.exec("DROP INDEX audit_by_path", &[]).unwrap();
    sql.exec("DELETE FROM schema_version WHERE version > 1", &[]).unwrap();
    let (key, _) = acme.key("k", &json!({}));
    assert_eq!(acme.expect(200, "GET", &format!("/keys/{key}"), &Value::Null)["name"], "k");
    acme.expect(201, "POST", "/reconciler-secrets", &json!({ "kid": "night" }));
    assert_eq!(acme.expect(200, "GET", "/price-proposals", &Value::Null)["data"], json!([]));
}
