//! Whose rows a developer sees: each operation, with a token whose owner has some and others have some too.

use serde_json::{Value, json};
use tallygate_shared::time::Timestamp;

use super::{Acme, new_key, without};
use crate::admin::operations::operations;
use crate::admin::roles::{Act, Role};
use crate::admin::rows::{Reach, reach};
use crate::objects::test_shell::NOW_MS;

/// What only Eve's things are called.
const HERS: &str = "eves";

struct World {
    acme: Acme,
    token: String,
    own: [String; 2],
    others: [String; 2],
}

fn event(key: &str, owner: &str, seq: u64) -> Value {
    let at = NOW_MS - 60_000;
    json!({ "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme", "key": key,
            "at": at, "settled_at": at, "key_name": format!("{owner}-key"), "owner": owner, "cost_centre": owner,
            "purpose": "p", "environment": "e", "actor": { "team": owner }, "endpoint": "/v1/chat/completions",
            "stream": false, "requested_model": "gpt-x", "provider": "openai", "model": "gpt-x", "attempts": [],
            "outcome": "completed", "status": 200,
            "usage": { "source": "reported", "tally": { "tokens": { "input": 10, "output": 5 } } }, "charged": "0.5", "hold": "0.5", "duration_ms": 700 })
}

fn world() -> World {
    let acme = Acme::new();
    let key = |owner: &str| {
        let mut body = new_key(&format!("{owner}-key"), &json!({}));
        (body["owner"], body["cost_centre"]) = (owner.into(), owner.into());
        acme.expect(201, "POST", "/keys", &body)["id"].as_str().unwrap().to_owned()
    };
    let keys = [key("ann"), key(HERS)];
    for (name, owner) in [("ann-budget", "ann"), ("eves-budget", HERS)] {
        let terms = json!({ "scope": { "dimension": "workspace" }, "owner": owner, "limit_usd": "5", "window": "month" });
        acme.expect(200, "PUT", &format!("/budgets/{name}"), &terms);
    }
    let ledger = acme.shell.ledger("ws_acme:2026-11");
    for (place, (key, owner)) in keys.iter().zip(["ann", HERS]).enumerate() {
        let batch = json!({ "meter": key, "events": [event(key, owner, place as u64 + 1)] });
        // One Meter numbers its own.
        ledger.apply(&batch.to_string()).unwrap();
    }
    // A budget's alert has its owner.
    let now = Timestamp::from_ms(NOW_MS);
    let mut alerts = acme.shell.alerts("ws_acme");
    for owner in ["ann", HERS] {
        let snapshot = json!({ "workspace": "ws_acme", "budget": format!("{owner}-budget"), "value": "",
            "owner": owner, "window_starts_at": NOW_MS - 86_400_000, "window_ends_at": NOW_MS + 86_400_000,
            "limit": "5", "spent": "5", "held": "0", "thresholds": [50], "at": NOW_MS });
        alerts.budget(&snapshot.to_string(), now).unwrap();
    }
    let body = json!({ "name": "dev", "role": "developer", "owner": "ann" });
    let token = acme.expect(201, "POST", "/tokens", &body)["token"].as_str().unwrap().to_owned();
    let id = |seq: u64| event("x", "x", seq)["id"].as_str().unwrap().to_owned();
    let [own, other] = keys;
    World { acme, token, own: [own, id(1)], others: [other, id(2)] }
}

impl World {
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.acme.ask_as(&self.token, method, path, body)
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

#[test]
fn a_developer_with_an_owner_sees_the_owners_rows_alone() {
    let world = world();
    assert_eq!(world.get("/keys")["data"].as_array().unwrap().len(), 1);
    assert_eq!(world.get("/keys")["data"][0]["owner"], "ann");
    let requests = world.get("/requests");
    assert_eq!(
        (requests["data"].as_array().unwrap().len(), &requests["data"][0]["owner"]),
        (1, &json!("ann"))
    );
    let usage = world.get("/usage?group_by=owner");
    assert_eq!(
        (usage["data"].as_array().unwrap().len(), &usage["data"][0]["charged_usd"]),
        (1, &json!("0.5"))
    );
    let budgets = world.get("/budgets");
    assert_eq!(budgets.as_object().unwrap().keys().collect::<Vec<_>>(), ["ann-budget"]);
    // To ask for what is one's own is no mistake; to ask for another's is one, and the same for one who is not there.
    assert_eq!(world.get("/usage?owner=ann")["data"][0]["charged_usd"], "0.5");
    for path in [
        "/usage?owner=eves",
        "/usage?owner=nobody",
        "/requests?owner=eves&owner=ann",
        "/requests?owner=ann&owner=eves",
        "/usage?%6Fwner=eves",
        "/usage?owner=ann&%6fwner=eves",
        "/usage?owner=",
    ] {
        let (status, problem) = world.ask("GET", path, &Value::Null);
        assert_eq!((status, &problem["code"]), (403, &json!("owner_insufficient")), "{path}");
    }
    assert_eq!(world.get(&format!("/requests?key={}", world.others[0]))["data"], json!([]));
    // Another's thing is not told from one that is not there.
    for (path, other, none) in [
        ("/keys/{}", world.others[0].as_str(), "00000000000000ff"),
        ("/keys/{}/state", &world.others[0], "00000000000000ff"),
        ("/keys/{}/loops", &world.others[0], "00000000000000ff"),
        ("/budgets/{}", "eves-budget", "no-budget"),
        ("/budgets/{}/status", "eves-budget", "no-budget"),
        ("/requests/{}", &world.others[1], "req_000000000000700000000000000000000"),
    ] {
        let (status, hers) = world.ask("GET", &path.replace("{}", other), &Value::Null);
        let (_, nobodys) = world.ask("GET", &path.replace("{}", none), &Value::Null);
        assert_eq!(status, 404, "{path}");
        assert_eq!(hers.to_string().replace(other, none), nobodys.to_string(), "{path}");
    }
    assert_eq!(world.get(&format!("/keys/{}", world.own[0]))["owner"], "ann");
    assert_eq!(world.get(&format!("/requests/{}", world.own[1]))["owner"], "ann");
    let thought = json!({ "model": "gpt-5", "input_tokens": 10 });
    let simulate = |key: &str| world.ask("POST", &format!("/keys/{key}/simulate"), &thought).0;
    assert_eq!((simulate(&world.own[0]), simulate(&world.others[0])), (200, 404));
}

#[test]
fn no_operation_shows_a_developer_with_an_owner_what_is_anothers() {
    let world = world();
    for spec in operations().filter(|spec| spec.act != Act::Operate && spec.act != Act::Reconcile) {
        let fill =
            |name: &str, value: &str, path: String| path.replace(&format!("{{{name}}}"), value);
        let mut path =
            fill("key", &world.others[0], spec.path.replace("/workspaces/{workspace}", ""));
        path = fill("request", &world.others[1], fill("budget", "eves-budget", path));
        let (status, answer) = world.ask(spec.method, &path, &Value::Null);
        // What the caller said is said back.
        let asked = [world.others[0].as_str(), &world.others[1], "eves-budget"];
        let said = asked.iter().fold(answer.to_string(), |text, part| text.replace(part, ""));
        assert!(!said.contains(HERS), "{} {path}: {answer}", spec.method);
        if Role::Developer.may(spec.act) && reach(spec) == Reach::Closed {
            assert_eq!((status, &answer["code"]), (403, &json!("owner_insufficient")), "{path}");
        }
        assert!(status < 500, "{path}: {answer}");
    }
    // The test would see it: an admin is shown it.
    assert!(world.acme.get("/config").to_string().contains(HERS));
}

#[test]
fn no_row_of_others_is_reached_by_an_alert() {
    let world = world();
    let all = world.acme.get("/alerts");
    let own = world.get("/alerts");
    let of = |list: &Value, owner: &str| {
        list["data"].as_array().unwrap().iter().filter(|it| it["owner"] == owner).count()
    };
    assert_eq!((of(&all, "ann"), of(&all, HERS)), (1, 1), "{all}");
    assert_eq!((own["data"].as_array().unwrap().len(), of(&own, "ann")), (1, 1));
    let hers = all["data"].as_array().unwrap().iter().find(|it| it["owner"] == HERS).unwrap();
    let path = format!("/alerts/{}", hers["id"].as_str().unwrap());
    assert_eq!(world.ask("GET", &path, &Value::Null).0, 404);
    for act in ["acknowledge", "resolve"] {
        assert_eq!(world.ask("POST", &format!("{path}/{act}"), &Value::Null).0, 404);
    }
    let snooze = json!({ "until": "2026-11-25T00:00:00Z", "reason": "x" });
    assert_eq!(world.ask("POST", &format!("{path}/snooze"), &snooze).0, 404);
    assert_eq!(world.acme.get(&path)["status"]["state"], "open");
    let mine = format!("/alerts/{}", own["data"][0]["id"].as_str().unwrap());
    assert_eq!(world.ask("POST", &format!("{mine}/acknowledge"), &Value::Null).0, 200);
}

#[test]
fn an_owner_is_for_developers_and_is_said_in_lists() {
    let acme = Acme::new();
    for role in ["admin", "finance", "auditor"] {
        let body = json!({ "name": "x", "role": role, "owner": "ann" });
        let problem = acme.refuse(422, "invalid_field", "POST", "/tokens", &body);
        assert_eq!(problem["errors"][0]["field"], "owner");
    }
    for owner in [json!("a\nb"), json!(""), Value::Null] {
        let body = json!({ "name": "x", "role": "developer", "owner": owner });
        let problem = acme.refuse(422, "invalid_field", "POST", "/tokens", &body);
        assert_eq!(problem["errors"][0]["field"], "owner");
        assert!(problem["errors"][0]["remedy"].as_str().is_some_and(|it| it.len() > 5));
    }
    let issued = acme.expect(
        201,
        "POST",
        "/tokens",
        &json!({ "name": "x", "role": "developer", "owner": "ann" }),
    );
    assert_eq!(acme.get("/tokens")["data"][1], without(&issued, &["token"]));
    // A session has the rows of its token.
    let token = issued["token"].as_str().unwrap();
    let (status, session) = acme.ask_as(token, "POST", "/sessions", &Value::Null);
    assert_eq!((status, &session["owner"]), (201, &json!("ann")));
    let mut config = acme.get("/config");
    config["dashboard"] = json!({ "members": {
        "ann@x.test": "developer", "bob@x.test": { "role": "developer", "owner": "bobs" }, "fin@x.test": "finance" } });
    acme.expect(200, "PUT", "/config", &config);
    assert_eq!(acme.get("/config")["dashboard"], config["dashboard"]);
    let open = |mail: &str| {
        let workspace = tallygate_shared::ids::WorkspaceId::parse("ws_acme").unwrap();
        let step = crate::admin::call::route_person(&workspace, mail, "r1");
        serde_json::from_str::<Value>(&acme.shell.carry_out(step).2).unwrap()["owner"].clone()
    };
    assert_eq!(
        [open("ann@x.test"), open("bob@x.test"), open("fin@x.test")],
        [json!("ann@x.test"), json!("bobs"), Value::Null]
    );
    for bad in
        [json!({ "role": "finance", "owner": "x" }), json!({ "role": "developer", "owner": "" })]
    {
        config["dashboard"]["members"]["bob@x.test"] = bad;
        let problem = acme.refuse(422, "invalid_field", "PUT", "/config", &config);
        assert_eq!(problem["errors"][0]["field"], "dashboard.members.bob@x.test.owner");
    }
    config["dashboard"]["members"]["bob@x.test"] = json!({ "role": "developer", "ownr": "x" });
    let problem = acme.refuse(400, "invalid_body", "PUT", "/config", &config);
    assert!(problem["detail"].as_str().unwrap().contains("ownr"), "{problem}");
}
