//! FOCUS exports: uploaded and committed by the reconciler, listed and downloaded by people.

use serde_json::{Value, json};
use tallygate_shared::focus_export::MAX_FILE_BYTES;
use tallygate_shared::identity::signature::{SignedCall, body_sha256};

use super::Acme;
use crate::admin::call::{Call, Signed, route};
use crate::objects::test_shell::{NOW_MS, OPERATOR};

const CSV: &str = "focus_1_4-cost_and_usage-2026-11-02.csv";
const PARQUET: &str = "focus_1_4-cost_and_usage-2026-11-02.parquet";

/// A workspace with a bucket, and its reconciler.
struct Books {
    acme: Acme,
    secret: String,
    calls: std::cell::Cell<u64>,
}

impl Books {
    fn new() -> Self {
        let acme = Acme::new();
        acme.shell.bucket.replace(Some(std::collections::BTreeMap::new()));
        let made = acme.expect(201, "POST", "/reconciler-secrets", &json!({ "kid": "night" }));
        let secret = made["secret"].as_str().unwrap().to_owned();
        Self { acme, secret, calls: std::cell::Cell::new(0) }
    }

    /// A call that is signed for a body of this hash.
    fn signed(&self, method: &str, path: &str, body_sha256: &str) -> Call {
        let path = format!("/api/v1/workspaces/ws_acme/reconciler{path}");
        let (number, timestamp) = (self.calls.get() + 1, NOW_MS / 1_000);
        self.calls.set(number);
        let nonce = format!("nonce-0123456789-{number}");
        let call =
            SignedCall { method, path: &path, query: "", timestamp, nonce: &nonce, body_sha256 };
        let signature = call.sign(self.secret.as_bytes());
        let signed = Signed {
            key_id: "night".into(),
            timestamp: timestamp.to_string(),
            nonce: nonce.clone(),
            signature,
        };
        Call { method: method.into(), path, signed: Some(signed), ..Call::default() }
    }

    fn carry_out(&self, call: Call, streamed: &str) -> (u16, Value) {
        self.acme.shell.streamed.replace(streamed.as_bytes().to_vec());
        let (status, _, body) = self.acme.shell.carry_out(route(call, OPERATOR));
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The call that uploads this content.
    fn upload_of(&self, number: u64, file: &str, content: &str) -> Call {
        let hash = body_sha256(content.as_bytes());
        let path = format!("/focus-files/2026-11/{number}/{file}");
        Call {
            content_length: Some(content.len() as u64),
            content_sha256: Some(hash.clone()),
            ..self.signed("PUT", &path, &hash)
        }
    }

    fn upload(&self, number: u64, file: &str, content: &str) -> (u16, Value) {
        self.carry_out(self.upload_of(number, file, content), content)
    }

    fn commit(&self, export: &Value) -> (u16, Value) {
        let body = export.to_string();
        let call = self.signed("POST", "/focus-exports", &body_sha256(body.as_bytes()));
        self.carry_out(Call { body, ..call }, "")
    }

    fn names(&self) -> Vec<String> {
        let bucket = self.acme.shell.bucket.borrow();
        bucket.iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    fn download(&self, token: &str, file: &str) -> (u16, &'static str, String) {
        let call = Call {
            method: "GET".into(),
            path: format!("/api/v1/workspaces/ws_acme/focus-exports/2026-11/{file}"),
            authorization: Some(format!("Bearer {token}")),
            ..Call::default()
        };
        self.acme.shell.carry_out(route(call, OPERATOR))
    }
}

fn file(name: &str, content: &str, uploaded: bool) -> Value {
    let format = if name.ends_with("csv") { "csv" } else { "parquet" };
    json!({ "file": name, "focus_version": "1.4", "table": "cost_and_usage", "format": format, "day": "2026-11-02",
            "rows": 1, "bytes": content.len(), "sha256": body_sha256(content.as_bytes()),
            "place": format!("s3://books/export/{name}"), "uploaded": uploaded })
}

fn export(number: u64, files: &[Value]) -> Value {
    json!({ "month": "2026-11", "number": number, "made_at": NOW_MS, "files": files })
}

#[test]
fn what_was_uploaded_is_downloaded_once_it_is_committed() {
    let books = Books::new();
    let (text, bytes) = ("a,b\n1,2\n", "PAR1 and so on");
    for (name, content) in [(CSV, text), (PARQUET, bytes)] {
        assert_eq!(books.upload(1, name, content), (200, json!({ "stored": true })));
        // The same again is no mistake.
        assert_eq!(books.upload(1, name, content), (200, json!({ "stored": true })));
    }
    assert_eq!(books.download(&books.acme.token, CSV).0, 404);
    let committed = export(1, &[file(CSV, text, true), file(PARQUET, bytes, true)]);
    assert_eq!(books.commit(&committed), (200, json!({ "number": 1 })));
    assert_eq!(books.commit(&committed), (200, json!({ "number": 1 })));
    let csv = books.download(&books.acme.token, CSV);
    assert_eq!(csv, (200, "text/csv; charset=utf-8", text.to_owned()));
    let parquet = books.download(&books.acme.token, PARQUET);
    assert_eq!(parquet, (200, "application/vnd.apache.parquet", bytes.to_owned()));
    assert_eq!(books.download(&books.acme.token, "other.csv").0, 404);
    let listed = books.acme.get("/focus-exports");
    let mut shown = committed.clone();
    shown["made_at"] = "2026-11-20T10:00:00.000Z".into();
    assert_eq!(listed["data"], json!([shown]));
    // Only of the months that the days touch: `to` is the day after the last.
    for (query, months) in [
        ("from=2026-11-30", 1),
        ("from=2026-12-01", 0),
        ("to=2026-11-01", 0),
        ("to=2026-11-02", 1),
        ("from=2026-01-01&to=2027-01-01", 1),
    ] {
        let listed = books.acme.get(&format!("/focus-exports?{query}"));
        assert_eq!(listed["data"].as_array().unwrap().len(), months, "{query}");
    }
    books.acme.refuse(422, "invalid_field", "GET", "/focus-exports?from=soon", &Value::Null);
}

#[test]
fn the_newest_export_counts_and_files_of_older_ones_go() {
    let books = Books::new();
    for number in [9, 10, 11] {
        assert_eq!(books.upload(number, CSV, &format!("{number}")).0, 200);
    }
    let other_month = "focus/ws_acme/2026-10/00000000000000000001/a.csv".to_owned();
    let events = "events/v1/ws_acme/2026-11-01/00/x".to_owned();
    let mut bucket = books.acme.shell.bucket.borrow_mut();
    bucket.as_mut().unwrap().extend([(other_month.clone(), vec![]), (events.clone(), vec![])]);
    drop(bucket);
    let of = |number: u64| export(number, &[file(CSV, &number.to_string(), true)]);
    assert_eq!(books.commit(&of(10)), (200, json!({ "number": 10 })));
    let folder = |number: u64| format!("focus/ws_acme/2026-11/{number:020}/{CSV}");
    assert_eq!(books.names(), [events.clone(), other_month.clone(), folder(10), folder(11)]);
    // An older one that comes late changes nothing, and leaves nothing behind.
    assert_eq!(books.upload(9, CSV, "9").0, 200);
    assert_eq!(books.commit(&of(9)), (200, json!({ "number": 10 })));
    assert_eq!(books.download(&books.acme.token, CSV).2, "10");
    assert_eq!(books.names(), [events, other_month, folder(10), folder(11)]);
}

#[test]
fn a_body_that_is_not_what_was_signed_is_never_stored() {
    let books = Books::new();
    let call = books.upload_of(1, CSV, "signed");
    let (status, answer) = books.carry_out(call.clone(), "forged");
    assert_eq!((status, &answer["code"]), (422, &json!("content_differs")));
    // The call was made: even with the right body it is not made again.
    let (status, answer) = books.carry_out(call, "signed");
    assert_eq!((status, &answer["code"]), (401, &json!("signature_invalid")));
    // Another hash than the signed one.
    let mut call = books.upload_of(1, CSV, "signed");
    call.content_sha256 = Some(body_sha256(b"forged"));
    let (status, answer) = books.carry_out(call, "forged");
    assert_eq!((status, &answer["code"]), (401, &json!("signature_invalid")));
    assert!(books.names().is_empty());
    // What is there is never written over.
    assert_eq!(books.upload(1, CSV, "signed").0, 200);
    let (status, answer) = books.upload(1, CSV, "another");
    assert_eq!((status, &answer["code"]), (409, &json!("file_differs")));
}

#[test]
fn an_upload_that_cannot_be_taken_says_why() {
    let books = Books::new();
    let code = |call: Call| {
        let (status, answer) = books.carry_out(call, "x");
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    };
    let large = Call { content_length: Some(MAX_FILE_BYTES + 1), ..books.upload_of(1, CSV, "x") };
    let long = Call { content_length: None, ..books.upload_of(1, CSV, "x") };
    let unsigned = Call { signed: None, ..books.upload_of(1, CSV, "x") };
    let unsaid = Call {
        content_length: Some(1),
        ..books.signed("PUT", "/focus-files/2026-11/1/a.csv", &body_sha256(b""))
    };
    // The body of any other call is read: a hash beside it would stand for a body that nobody looked at.
    let other = Call {
        content_sha256: Some(body_sha256(b"x")),
        ..books.signed("POST", "/runs", &body_sha256(b"x"))
    };
    for (call, expected) in [
        (large, (413, "file_too_large")),
        (long, (411, "length_required")),
        (unsigned, (401, "signature_missing")),
        (unsaid, (400, "content_hash_missing")),
        (other, (400, "content_hash_unexpected")),
        (books.upload_of(0, CSV, "x"), (422, "invalid_field")),
        (books.upload_of(1, ".hidden", "x"), (422, "invalid_field")),
        (books.upload_of(1, "a%2Fb", "x"), (422, "invalid_field")),
    ] {
        let path = call.path.clone();
        assert_eq!(code(call), (expected.0, expected.1.to_owned()), "{path}");
    }
    assert!(books.names().is_empty());
}

#[test]
fn a_commit_that_is_none_is_refused_with_its_field() {
    let books = Books::new();
    let good = || file(CSV, "x", true);
    let with = |field: &str, value: Value| {
        let mut file = good();
        file[field] = value;
        export(1, &[good(), file])
    };
    let mut soon = export(1, &[]);
    soon["month"] = "soon".into();
    let many: Vec<Value> = (0..1_001).map(|n| file(&format!("{n}.csv"), "x", true)).collect();
    for (bad, field) in [
        (soon, "month"),
        (export(0, &[]), "number"),
        (export(1, &many), "files"),
        (export(1, &[good(), good()]), "files[1].file"),
        (with("file", "A".into()), "files[1].file"),
        (
            export(1, &[file("a.csv", "x", true), with("sha256", "00".into())["files"][1].clone()]),
            "files[1].sha256",
        ),
    ] {
        let (status, answer) = books.commit(&bad);
        assert_eq!((status, &answer["errors"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    for (name, value) in [("day", "soon"), ("focus_version", ""), ("place", "")] {
        let mut bad = good();
        bad[name] = value.into();
        let (status, answer) = books.commit(&export(1, &[bad]));
        let field = format!("files[0].{name}");
        assert_eq!((status, &answer["errors"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    assert_eq!(books.acme.get("/focus-exports")["data"], json!([]));
}

#[test]
fn what_the_gateway_has_not_is_named_with_its_place() {
    let books = Books::new();
    books.acme.shell.bucket.replace(None);
    assert_eq!(books.upload(1, CSV, "x"), (200, json!({ "stored": false })));
    let mut large = file(PARQUET, "x", false);
    large["bytes"] = (MAX_FILE_BYTES + 1).into();
    assert_eq!(books.commit(&export(1, &[file(CSV, "x", true), large])).0, 200);
    for (name, word) in [(CSV, "no bucket is bound"), (PARQUET, "larger than")] {
        let (status, _, body) = books.download(&books.acme.token, name);
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &problem["code"]), (404, &json!("not_uploaded")));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(word) && detail.contains("s3://books/export/focus"), "{detail}");
    }
}

#[test]
fn who_sees_all_money_downloads_and_a_developer_with_an_owner_does_not() {
    let books = Books::new();
    assert_eq!(books.upload(1, CSV, "x").0, 200);
    assert_eq!(books.commit(&export(1, &[file(CSV, "x", true)])).0, 200);
    for (role, owner, expected) in [
        ("finance", Value::Null, 200),
        ("auditor", Value::Null, 200),
        ("developer", json!("ann"), 403),
    ] {
        let mut body = json!({ "name": role, "role": role });
        if !owner.is_null() {
            body["owner"] = owner;
        }
        let token = books.acme.expect(201, "POST", "/tokens", &body)["token"].clone();
        let token = token.as_str().unwrap();
        assert_eq!(books.download(token, CSV).0, expected, "{role}");
        let (status, _) = books.acme.ask_as(token, "GET", "/focus-exports", &Value::Null);
        assert_eq!(status, expected, "{role}");
    }
    assert_eq!(books.download("tga_nobody", CSV).0, 401);
}
