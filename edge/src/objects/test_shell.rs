//! The shell in Rust, for tests: what `js/admin.mjs` and `js/objects.mjs` do, over objects on SQLite in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tallygate_shared::identity::signature::body_sha256;
use tallygate_shared::time::Timestamp;

use super::alerts_object::{AlertsObject, Ended, Sender};
use super::budget_object::BudgetObject;
use super::directory_object::DirectoryObject;
use super::ledger_object::LedgerObject;
use super::meter_object::MeterObject;
use super::telemetry_object::TelemetryObject;
use super::test_sql::TestSql;
use super::workspace_object::{Context, WorkspaceObject};
use crate::admin::call::{Call, Delivery, Push, Step, failed, push_pending, route};
use crate::admin::merge::merge;
use crate::vault::KeyRing;

pub(crate) const OPERATOR: &str = "tgo_the-operator-of-this-test";
/// 2026-11-20T10:00:00Z
pub(crate) const NOW_MS: i64 = 1_795_168_800_000;

/// A gateway's control plane.
pub(crate) struct Shell {
    pub(crate) ring: RefCell<KeyRing>,
    pub(crate) now: Cell<i64>,
    directory: TestSql,
    workspaces: RefCell<BTreeMap<String, TestSql>>,
    meters: RefCell<BTreeMap<String, TestSql>>,
    ledgers: RefCell<BTreeMap<String, TestSql>>,
    budgets: RefCell<BTreeMap<String, TestSql>>,
    alerts: RefCell<BTreeMap<String, TestSql>>,
    telemetry: RefCell<BTreeMap<String, TestSql>>,
    /// Meters that cannot be reached.
    pub(crate) unreachable: RefCell<BTreeSet<String>>,
    /// The bucket, where one is bound: objects by name.
    pub(crate) bucket: RefCell<Option<BTreeMap<String, Vec<u8>>>>,
    /// The body of a call that is not read but stored.
    pub(crate) streamed: RefCell<Vec<u8>>,
    draws: Cell<u64>,
    /// Everything that was answered, to look for what must not be there.
    pub(crate) answered: RefCell<String>,
}

/// A ring of one key, made of this byte.
pub(crate) fn ring_of(keys: &[(&str, u8)]) -> KeyRing {
    let key = |(id, byte): &(&str, u8)| format!("{id}:{}", STANDARD.encode([*byte; 32]));
    KeyRing::parse(&keys.iter().map(key).collect::<Vec<_>>().join(",")).unwrap()
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            ring: RefCell::new(ring_of(&[("k1", 1)])),
            now: Cell::new(NOW_MS),
            directory: TestSql::new(),
            workspaces: RefCell::default(),
            meters: RefCell::default(),
            ledgers: RefCell::default(),
            budgets: RefCell::default(),
            alerts: RefCell::default(),
            telemetry: RefCell::default(),
            unreachable: RefCell::default(),
            bucket: RefCell::default(),
            streamed: RefCell::default(),
            draws: Cell::new(0),
            answered: RefCell::default(),
        }
    }

    /// A shell with the workspace `ws_acme` and a provider `openai`, and the workspace's admin token.
    pub(crate) fn with_workspace() -> (Self, String) {
        let shell = Self::new();
        let (status, created) = shell.call(
            "POST",
            "/workspaces",
            OPERATOR,
            &json!({ "id": "ws_acme", "name": "Acme" }),
        );
        assert_eq!(status, 201, "{created}");
        let token = created["admin_token"]["token"].as_str().unwrap().to_owned();
        let provider =
            json!({ "name": "openai", "kind": "openai", "credential": "sk-very-secret" });
        let (status, answer) =
            shell.call("POST", "/workspaces/ws_acme/providers", &token, &provider);
        assert_eq!(status, 201, "{answer}");
        (shell, token)
    }

    /// Bytes that never repeat, as from a good source.
    fn random(&self) -> Vec<u8> {
        let draw = self.draws.get() + 1;
        self.draws.set(draw);
        let mut state = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..128).map(next).collect()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now.get())
    }

    fn stored(map: &RefCell<BTreeMap<String, TestSql>>, name: &str) -> TestSql {
        map.borrow_mut().entry(name.to_owned()).or_insert_with(TestSql::new).clone()
    }

    pub(crate) fn workspace_sql(&self, name: &str) -> TestSql {
        Self::stored(&self.workspaces, name)
    }

    /// A key's Meter, opened from its storage.
    pub(crate) fn meter(&self, key: &str) -> MeterObject<TestSql> {
        let sql = Self::stored(&self.meters, key);
        MeterObject::open(sql, &self.ring.borrow(), 1, self.now()).unwrap()
    }

    pub(crate) fn ledger(&self, name: &str) -> LedgerObject<TestSql> {
        LedgerObject::open(Self::stored(&self.ledgers, name)).unwrap()
    }

    /// A workspace's Telemetry object, opened from its storage.
    pub(crate) fn telemetry(&self, name: &str) -> TelemetryObject<TestSql> {
        TelemetryObject::open(Self::stored(&self.telemetry, name)).unwrap()
    }

    /// A workspace's Alerts object, opened from its storage.
    pub(crate) fn alerts(&self, name: &str) -> AlertsObject<TestSql> {
        AlertsObject::open(Self::stored(&self.alerts, name)).unwrap()
    }

    /// A receiver is tested: every address answers 200 here.
    fn test_receiver(&self, name: &str, receiver: &str) -> Step {
        let (ring, alerts) = (self.ring.borrow(), self.alerts(name));
        let sender = Sender { ring: &ring, allow_private: false, random: 0 };
        let ended = match alerts.test_message(receiver, &sender, self.now()) {
            Ok(_) => Ended { status: Some(200), error: None },
            Err(error) => Ended { status: None, error: Some(error.to_owned()) },
        };
        alerts.tested(receiver, &ended).unwrap()
    }

    /// Everything that any object has stored, as text.
    pub(crate) fn dump(&self) -> String {
        let maps = [
            &self.workspaces,
            &self.meters,
            &self.ledgers,
            &self.budgets,
            &self.alerts,
            &self.telemetry,
        ];
        let dumps = maps
            .iter()
            .flat_map(|map| map.borrow().values().map(TestSql::dump).collect::<Vec<_>>());
        dumps.chain([self.directory.dump()]).collect()
    }

    /// One admin request under `/api/v1`.
    pub(crate) fn call(
        &self,
        method: &str,
        target: &str,
        token: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call_text(method, target, Some(token), &body)
    }

    pub(crate) fn call_text(
        &self,
        method: &str,
        target: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let call = json!({
            "method": method, "path": format!("/api/v1{path}"), "query": query, "body": body,
            "authorization": token.map(|token| format!("Bearer {token}")), "request_id": "r1",
        });
        let first = route(serde_json::from_value(call).unwrap(), OPERATOR);
        let (status, content_type, body) = self.carry_out(first);
        self.answered.borrow_mut().push_str(&format!("{method} {target} {status} {body}\n"));
        if content_type.starts_with("text/") {
            return (status, Value::String(body));
        }
        let expected = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(content_type, expected);
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Follows the steps of an admin request until there is an answer: its status, type and body.
    pub(crate) fn carry_out(&self, first: Step) -> (u16, &'static str, String) {
        let mut step = first;
        loop {
            step = match step {
                Step::Respond { status, content_type, body, .. } => {
                    return (status, content_type, body);
                }
                Step::Directory { call } => {
                    let call: Call = serde_json::from_str(&call).unwrap();
                    let directory = DirectoryObject::open(self.directory.clone()).unwrap();
                    let mut seed = [0; 10];
                    seed.copy_from_slice(&self.random()[..10]);
                    let answer =
                        self.directory.transact(|| directory.handle(&call, &seed, self.now()));
                    answer.unwrap()
                }
                Step::Workspace { name, call } => self.workspace_step(&name, &call),
                Step::Meter { name, method, payload } => {
                    Step::text(200, self.meter(&name).ask(method, &payload, self.now()).unwrap())
                }
                Step::Budget { name, call } => {
                    let sql = Self::stored(&self.budgets, &name);
                    let mut budget = BudgetObject::open(sql).unwrap();
                    let call = serde_json::from_str(&call).unwrap();
                    let status = budget.status(Some(&call), self.now()).unwrap();
                    Step::text(200, serde_json::to_string(&status).unwrap())
                }
                Step::Telemetry { name, method, payload } => {
                    self.telemetry(&name).query(method, &payload, self.now()).unwrap()
                }
                Step::Alerts { name, method: "test", payload } => {
                    self.test_receiver(&name, &payload)
                }
                Step::Alerts { name, method, payload } => {
                    self.alerts(&name).query(method, &payload, self.now()).unwrap()
                }
                Step::TrueUp { ledger, payload } => {
                    Step::text(200, self.ledger(&ledger).true_up(&payload).unwrap())
                }
                Step::Correct { calls, name, record } => {
                    for call in &calls {
                        let sql = Self::stored(&self.budgets, &call.account);
                        let mut budget = BudgetObject::open(sql).unwrap();
                        let call = serde_json::from_str(&call.payload).unwrap();
                        budget.correct(&call, self.now()).unwrap();
                    }
                    self.corrected(&name, &record);
                    Step::json(200, &json!({ "taken": calls.len() }))
                }
                Step::Findings { name, payload } => {
                    self.alerts(&name).findings(&payload, self.now()).unwrap();
                    Step::json(200, &json!({}))
                }
                Step::Export { ledger, method, payload } => {
                    Step::text(200, self.ledger(&ledger).query(method, &payload).unwrap())
                }
                Step::Store { name, sha256, stored, unbound, differs, taken } => {
                    let (mut bucket, body) = (self.bucket.borrow_mut(), self.streamed.take());
                    *match bucket.as_mut() {
                        None => unbound,
                        Some(objects) if objects.get(&name).is_some_and(|it| *it != body) => taken,
                        Some(_) if body_sha256(&body) != sha256 => differs,
                        Some(objects) => {
                            objects.insert(name, body);
                            stored
                        }
                    }
                }
                Step::Sweep { prefix, before, next } => {
                    if let Some(objects) = self.bucket.borrow_mut().as_mut() {
                        objects.retain(|name, _| !name.starts_with(&prefix) || *name >= before);
                    }
                    *next
                }
                Step::Fetch { name, content_type, missing, .. } => {
                    let found =
                        self.bucket.borrow().as_ref().and_then(|all| all.get(&name).cloned());
                    match found {
                        Some(bytes) => {
                            let body = String::from_utf8(bytes).unwrap();
                            Step::respond(200, content_type, body)
                        }
                        None => *missing,
                    }
                }
                Step::Deliver { calls, body } => {
                    calls.iter().for_each(|call| self.deliver(call));
                    Step::text(200, body)
                }
                Step::Ledgers { names, method, payload } => {
                    let ask = |name: &String| self.ledger(name).query(method, &payload);
                    match names.iter().map(ask).collect::<Result<Vec<String>, _>>() {
                        Ok(answers) => merge(method, &payload, &json!(answers).to_string()),
                        Err(_) => failed("r1"),
                    }
                }
            };
        }
    }

    fn deliver(&self, call: &Delivery) {
        let Delivery { object, name, method, payload } = call;
        let maps = [
            ("LEDGER", &self.ledgers),
            ("METER", &self.meters),
            ("BUDGET", &self.budgets),
            ("ALERTS", &self.alerts),
            ("TELEMETRY", &self.telemetry),
            ("WORKSPACE", &self.workspaces),
        ];
        match (*object, *method) {
            ("LEDGER", "apply") => drop(self.ledger(name).apply(payload).unwrap()),
            ("LEDGER", "trueUp") => drop(self.ledger(name).true_up(payload).unwrap()),
            ("LEDGER", "recordOutcomes") => {
                drop(self.ledger(name).record_outcomes(payload).unwrap());
            }
            ("ALERTS", "findings") => self.alerts(name).findings(payload, self.now()).unwrap(),
            ("BUDGET", "correct") => {
                let mut budget = BudgetObject::open(Self::stored(&self.budgets, name)).unwrap();
                budget.correct(&serde_json::from_str(payload).unwrap(), self.now()).unwrap();
            }
            ("WORKSPACE", "corrected") => self.corrected(name, payload),
            ("DIRECTORY", "forget") => {
                DirectoryObject::open(self.directory.clone()).unwrap().forget(payload).unwrap();
            }
            (object, "remove") => {
                let map = maps.iter().find(|(known, _)| *known == object).expect("an object").1;
                map.borrow_mut().remove(name);
            }
            other => panic!("{other:?}"),
        }
    }

    fn corrected(&self, name: &str, record: &str) {
        let sql = self.workspace_sql(name);
        let workspace = WorkspaceObject::open(sql.clone()).unwrap();
        sql.transact(|| workspace.corrected(record)).unwrap();
    }

    fn workspace_step(&self, name: &str, call: &str) -> Step {
        let sql = self.workspace_sql(name);
        let Ok(mut workspace) = sql.transact(|| WorkspaceObject::open(sql.clone())) else {
            return failed("r1");
        };
        let call: Call = serde_json::from_str(call).unwrap();
        let (ring, random) = (self.ring.borrow(), self.random());
        let context = Context {
            call: &call,
            ring: &ring,
            random: &random,
            now: self.now(),
            allow_private: false,
        };
        let step = match sql.transact(|| workspace.handle(&context)) {
            Ok(step) => step,
            Err(_) => return failed("r1"),
        };
        drop(ring);
        let Step::Respond { status, content_type, body, effects, more } = step else { return step };
        let delivered = self.push(&workspace, &effects) && (!more || self.push_pending(&workspace));
        if !delivered {
            return push_pending();
        }
        Step::Respond { status, content_type, body, effects: Vec::new(), more: false }
    }

    fn push(&self, workspace: &WorkspaceObject<TestSql>, effects: &[Push]) -> bool {
        let mut all = true;
        for Push { key, version, plan, alerts_of, telemetry_of } in effects {
            if self.unreachable.borrow().contains(key) {
                all = false;
                continue;
            }
            if alerts_of.is_some() && !self.unreachable.borrow().contains("alerts") {
                let name = alerts_of.as_deref().unwrap();
                self.alerts(name).apply_config(plan, self.now()).unwrap();
                all &= workspace.pushed(key, version).is_ok();
                continue;
            }
            if let Some(name) = telemetry_of {
                self.telemetry(name).apply_config(plan, self.now()).unwrap();
                all &= workspace.pushed(key, version).is_ok();
                continue;
            }
            self.meter(key).apply_plan(plan, &self.ring.borrow()).unwrap();
            all &= workspace.pushed(key, version).is_ok();
        }
        all
    }

    fn push_pending(&self, workspace: &WorkspaceObject<TestSql>) -> bool {
        loop {
            let pending = workspace.pending().unwrap();
            if pending.is_empty() {
                return true;
            }
            if !self.push(workspace, &pending) {
                return false;
            }
        }
    }

    /// The workspace's alarm rings. True: nothing waits any more.
    pub(crate) fn alarm(&self, name: &str) -> bool {
        self.push_pending(&WorkspaceObject::open(self.workspace_sql(name)).unwrap())
    }
}
