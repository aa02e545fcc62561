//! An outcome's whole way: from the caller by the Meter to the Ledgers, and back out through the admin API.

use serde_json::{Value, json};
use tallygate_shared::ids::RequestId;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::Acme;
use crate::objects::sql::SqlError;
use crate::objects::test_shell::OPERATOR;
use crate::request::exchange::{Exchange, Incoming};
use crate::request::headers::Headers;
use crate::request::isolate::Isolate;
use crate::request::outcomes::{LedgerCall, MAX_BYTES};
use crate::request::step::Step;
use crate::vault::KeyRing;

/// A key of the workspace, and what is said with it.
struct Holder<'a> {
    acme: &'a Acme,
    id: String,
    key: String,
}

impl Holder<'_> {
    fn say(&self, body: &Value) -> (u16, Value) {
        self.send(body.to_string().into_bytes(), &[])
    }

    /// Sends a call as the shell does.
    fn send(&self, body: Vec<u8>, more: &[(&str, &str)]) -> (u16, Value) {
        self.send_to(body, more, |exchange, answers| {
            let answers: Vec<String> = answers.into_iter().map(Result::unwrap).collect();
            exchange.recorded(&json!(answers).to_string())
        })
    }

    /// Sends a call; `end` says what the exchange hears of the Ledgers' answers.
    fn send_to(
        &self,
        body: Vec<u8>,
        more: &[(&str, &str)],
        end: impl Fn(&Exchange, Vec<Result<String, SqlError>>) -> Step,
    ) -> (u16, Value) {
        let shell = &self.acme.shell;
        let mut headers = vec![("authorization".to_owned(), format!("Bearer {}", self.key))];
        headers.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let now = shell.now();
        let mut exchange = Exchange::receive(Incoming {
            method: "POST",
            target: "/v1/outcomes?x=1",
            headers: Headers::new(headers),
            body,
            body_problem: None,
            random: &[7; 32],
            now,
        });
        let ring = KeyRing::default();
        let mut step = exchange.begin(&mut Isolate::default(), &ring, now);
        loop {
            step = match step {
                Step::Respond(answer) => {
                    return (
                        answer.status(),
                        serde_json::from_str(answer.body().unwrap()).unwrap(),
                    );
                }
                Step::AskMeter { meter, method, call } => {
                    let answer = shell.meter(&meter).ask(method, &call, now).unwrap();
                    exchange.answered(&answer, &ring, now)
                }
                Step::AskLedgers { calls } => {
                    let record =
                        |call: &LedgerCall| shell.ledger(&call.ledger).record_outcomes(&call.call);
                    end(&exchange, calls.iter().map(record).collect())
                }
                other => panic!("{other:?}"),
            };
        }
    }

    /// A request of this key that is in its Ledger, charged a dollar.
    fn request(&self, at: Timestamp, feature: &str) -> RequestId {
        let id = RequestId::mint(at, &[u8::try_from(feature.len()).unwrap(); 10]);
        let event = json!({
            "v": 1, "id": id, "seq": at.ms(), "workspace": "ws_acme", "key": self.id, "at": at, "settled_at": at,
            "key_name": "chat", "owner": "ada", "cost_centre": "r&d", "purpose": "tests", "environment": "test",
            "actor": { "feature": feature }, "endpoint": "/v1/chat/completions", "stream": false,
            "requested_model": "fast", "outcome": "completed", "status": 200, "usage": { "source": "absent" },
            "charged": "1", "hold": "1", "duration_ms": 50
        });
        let ledger = format!("ws_acme:{}", &at.date().to_string()[..7]);
        let batch = json!({ "meter": self.id, "events": [event] });
        self.acme.shell.ledger(&ledger).apply(&batch.to_string()).unwrap();
        id
    }
}

fn holder<'a>(acme: &'a Acme, name: &str) -> Holder<'a> {
    let (id, key) = acme.key(name, &json!({}));
    Holder { acme, id, key }
}

#[test]
fn an_outcome_is_answered_as_it_counts_and_listed() {
    let acme = Acme::new();
    let (ours, now) = (holder(&acme, "chat"), acme.shell.now());
    let id = ours.request(now, "review");
    let body =
        json!({ "request": id, "outcome": "accepted", "value_usd": "12.50", "label": "merged" });
    let expect = json!({ "object": "outcome", "request": id, "label": "merged", "outcome": "accepted",
        "value_usd": "12.5", "at": now.to_string(), "replaced": false });
    assert_eq!(ours.say(&body), (200, expect.clone()));
    assert_eq!(ours.say(&body), (200, expect), "again");
    let list = acme.get("/outcomes?feature=review&limit=1");
    assert_eq!((list["data"].as_array().unwrap().len(), &list["next_cursor"]), (1, &Value::Null));
    let event = &list["data"][0];
    assert_eq!(event["subject"], json!({ "request": id }));
    assert_eq!((&event["key"], &event["owner"]), (&json!(ours.id), &json!("ada")));
    assert_eq!(event.get("position"), None);
    assert_eq!(acme.get("/outcomes?feature=other")["data"], json!([]));
}

#[test]
fn an_array_is_answered_in_order_across_months_and_summed() {
    let acme = Acme::new();
    let ours = holder(&acme, "chat");
    let first = acme.shell.now();
    acme.shell.now.set(first.ms() + 20 * DAY_MS);
    let (before, after) = (ours.request(first, "review"), ours.request(acme.shell.now(), "chat"));
    let body = json!([
        { "request": after, "outcome": "accepted" },
        { "request": before, "outcome": "rejected" },
        { "request": after, "outcome": "accepted", "label": "again" },
        { "session": "s", "outcome": "accepted", "at": first.to_string() },
    ]);
    let (status, answer) = ours.say(&body);
    assert_eq!((status, &answer["object"]), (200, &json!("list")));
    let of: Vec<_> = answer["data"].as_array().unwrap().iter().map(|o| &o["request"]).collect();
    assert_eq!(of, [&json!(after), &json!(before), &json!(after), &Value::Null]);
    assert_eq!(answer["data"][3]["session"], "s");

    let mut listed = Vec::new();
    let mut path = "/outcomes?limit=1".to_owned();
    loop {
        let page = acme.get(&path);
        listed.extend(page["data"].as_array().unwrap().iter().map(|o| o["subject"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/outcomes?limit=1&cursor={cursor}");
    }
    let (before, after) = (json!({ "request": before }), json!({ "request": after }));
    assert_eq!(listed, [after.clone(), after, json!({ "session": "s" }), before]);

    let summary = acme.get("/outcomes/summary");
    let expect = json!([{ "accepted": 3, "rejected": 1, "value_usd": "0", "requests": 2, "cost_usd": "2",
        "cost_unknown": 1, "accepted_cost_unknown": 1, "cost_per_accepted_usd": "1" }]);
    assert_eq!(summary["data"], expect);
    let grouped = acme.get("/outcomes/summary?group_by=feature,label&outcome=accepted");
    assert_eq!(grouped["data"].as_array().unwrap().len(), 3, "{grouped}");
    let month = acme.get(&format!("/outcomes/summary?to={}", first.plus_ms(DAY_MS)));
    assert_eq!(
        (&month["data"][0]["accepted"], &month["data"][0]["rejected"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn a_request_of_another_key_is_not_found_and_nothing_is_recorded() {
    let acme = Acme::new();
    let (ours, theirs) = (holder(&acme, "chat"), holder(&acme, "other"));
    let id = theirs.request(acme.shell.now(), "review");
    let (status, answer) = ours.say(&json!({ "request": id, "outcome": "accepted" }));
    let error = &answer["error"];
    assert_eq!((status, &error["code"]), (404, &json!("request_not_found")));
    assert_eq!(error["param"], "request");
    let unknown = RequestId::mint(acme.shell.now(), &[1; 10]);
    let body = json!([{ "request": unknown, "outcome": "accepted" }, { "request": id, "outcome": "accepted" }]);
    let (status, answer) = ours.say(&body);
    assert_eq!((status, &answer["error"]["param"]), (404, &json!("[1].request")));
    assert_eq!(acme.get("/outcomes")["data"], json!([]));
    assert_eq!(ours.say(&json!([body[0]])).0, 200, "its event is on its way");
}

#[test]
fn a_refusal_is_in_the_dialect_of_the_endpoint_and_names_the_field() {
    let acme = Acme::new();
    let ours = holder(&acme, "chat");
    let good = json!({ "session": "s", "outcome": "accepted" });
    let (status, answer) = ours.say(&json!({ "session": "s", "outcome": "good" }));
    let error = &answer["error"];
    assert_eq!((status, &error["code"]), (400, &json!("invalid_request_body")));
    assert_eq!(
        (&error["param"], &error["type"]),
        (&json!("outcome"), &json!("invalid_request_error"))
    );
    assert!(error["message"].as_str().unwrap().contains("Send `accepted` or `rejected`."));
    let large = vec![b' '; MAX_BYTES + 1];
    for (body, headers, status, code) in [
        (large, vec![], 413, "request_too_large"),
        (vec![0xff], vec![], 400, "invalid_request_body"),
        (
            good.to_string().into_bytes(),
            vec![("content-type", "text/plain")],
            415,
            "unsupported_media_type",
        ),
        (
            good.to_string().into_bytes(),
            vec![("x-tallygate-actor", "a.b.c")],
            401,
            "actor_malformed",
        ),
    ] {
        let (got, answer) = ours.send(body, &headers);
        assert_eq!((got, &answer["error"]["code"]), (status, &json!(code)));
    }
    // Who has no good key learns nothing of the body.
    let revoked = holder(&acme, "revoked");
    acme.expect(200, "POST", &format!("/keys/{}/revoke", revoked.id), &Value::Null);
    assert_eq!(revoked.say(&json!({})).1["error"]["code"], "key_revoked");
    let fenced = acme.key("fenced", &json!({ "ip_ranges": ["10.0.0.0/8"] }));
    let fenced = Holder { acme: &acme, id: fenced.0, key: fenced.1 };
    let from =
        |address| fenced.send(good.to_string().into_bytes(), &[("cf-connecting-ip", address)]).0;
    assert_eq!((from("11.0.0.1"), from("10.0.0.1")), (403, 200));
}

#[test]
fn a_ledger_that_fails_makes_the_caller_send_the_same_again() {
    let acme = Acme::new();
    let ours = holder(&acme, "chat");
    let body = json!({ "session": "s", "outcome": "accepted" }).to_string().into_bytes();
    let (status, answer) = ours.send_to(body.clone(), &[], |exchange, _| exchange.ledger_failed());
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("ledger_unavailable")));
    for garbled in ["", "[]", "[\"{}\"]", "[7]"] {
        let (status, answer) =
            ours.send_to(body.clone(), &[], |exchange, _| exchange.recorded(garbled));
        assert_eq!((status, &answer["error"]["code"]), (500, &json!("gateway_error")), "{garbled}");
    }
    // It was recorded each time; once is enough.
    assert_eq!(ours.send(body, &[]).1["replaced"], false);
    assert_eq!(acme.get("/outcomes")["data"].as_array().unwrap().len(), 1);
}

#[test]
fn readers_may_read_and_questions_are_checked() {
    let acme = Acme::new();
    for role in ["finance", "auditor", "developer"] {
        let token = &acme.token_of(role);
        for path in ["/outcomes", "/outcomes/summary?group_by=team"] {
            assert_eq!(acme.ask_as(token, "GET", path, &Value::Null).0, 200, "{role} {path}");
        }
    }
    assert_eq!(acme.ask_as(OPERATOR, "GET", "/outcomes", &Value::Null).0, 200);
    for path in [
        "/outcomes?cursor=x",
        "/outcomes?limit=0",
        "/outcomes?outcome=good",
        "/outcomes?model=x",
        "/outcomes?from=yesterday",
        "/outcomes/summary?group_by=model",
        "/outcomes/summary?limit=3",
    ] {
        let answer = acme.ask("GET", path, &Value::Null);
        assert_eq!(answer.0, 422, "{path} {}", answer.1);
        assert!(!answer.1["errors"][0]["remedy"].as_str().unwrap().is_empty(), "{path}");
    }
}
