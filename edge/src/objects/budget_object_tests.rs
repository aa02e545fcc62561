//! Meters and a Budget as objects, with the shell's part between them: restarts of each, lost calls, failing storage. The
//! protocol itself is simulated in `shared`; here it is seen that the objects carry it to storage and back unharmed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::pricing::rate;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::{Tally, Tokens, Usage};

use super::budget_object::{BudgetObject, Synced};
use super::meter_budgets::Progress;
use super::meter_object::MeterObject;
use super::migrations::migrate;
use super::sql::Sql;
use super::test_sql::TestSql;
use crate::request::calls::{AdmitAnswer, AdmitCall, Settlement, Ticket};
use crate::vault::KeyRing;

const SECRET: &str = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
const ACCOUNT: &str = "ws_a/b/ws_a";

fn key(meter: usize) -> String {
    format!("0123456789abcde{meter}")
}

fn plan(meter: usize, version: u64, terms: &Value) -> String {
    json!({
        "version": version, "workspace": "ws_a", "key": key(meter), "status": "active",
        "owner": { "name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e" },
        "secrets": [{ "sha256": SECRET }],
        "policy": {},
        "providers": [{ "name": "openai", "kind": "openai", "base_url": "http://localhost" }],
        "budgets": { "b": terms },
        // Output alone costs: 1 dollar a million tokens, so 1,000 nanodollars each.
        "price_overrides": [{ "provider": "openai", "model": "flat", "prices": { "standard": { "input": "0", "output": "1" } } }],
    })
    .to_string()
}

fn terms(limit: &str) -> Value {
    json!({ "scope": { "dimension": "workspace" }, "owner": "o", "limit_usd": limit, "window": "lifetime" })
}

/// What the shell of the objects does, over databases in memory.
struct Net {
    meters: Vec<(TestSql, MeterObject<TestSql>)>,
    budget_sql: TestSql,
    budget: BudgetObject<TestSql>,
    now: Timestamp,
    boots: u64,
    requests: u64,
    calls: u64,
    in_flight: Vec<(usize, Ticket)>,
    charged: Usd,
}

impl Net {
    fn new(meters: usize, terms: &Value) -> Self {
        let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let budget_sql = TestSql::new();
        let mut net = Self {
            meters: Vec::new(),
            budget: BudgetObject::open(budget_sql.clone()).unwrap(),
            budget_sql,
            now,
            boots: 0,
            requests: 0,
            calls: 0,
            in_flight: Vec::new(),
            charged: Usd::ZERO,
        };
        for meter in 0..meters {
            let sql = TestSql::new();
            let opened = MeterObject::open(sql.clone(), &KeyRing::default(), 0, now).unwrap();
            net.meters.push((sql, opened));
            net.meters[meter].1.apply_plan(&plan(meter, 1, terms), &KeyRing::default()).unwrap();
        }
        net
    }

    fn restart_meter(&mut self, meter: usize) {
        self.boots += 1;
        let sql = self.meters[meter].0.clone();
        let boots = self.boots;
        let now = self.now;
        let opened = sql
            .transact(|| MeterObject::open(sql.clone(), &KeyRing::default(), boots, now))
            .unwrap();
        self.meters[meter].1 = opened;
    }

    fn restart_budget(&mut self) {
        self.budget = BudgetObject::open(self.budget_sql.clone()).unwrap();
    }

    fn process(&mut self, call: &str, may_recall: bool) -> Synced {
        self.calls += 1;
        let call = serde_json::from_str(call).unwrap();
        let now = self.now;
        let sql = self.budget_sql.clone();
        sql.transact(|| self.budget.sync(&call, may_recall, now)).unwrap()
    }

    fn sync(&mut self, meter: usize, account: &str) {
        let call = self.meters[meter].1.sync_call(account, self.now).unwrap();
        let mut synced = self.process(&call, true);
        if !synced.recall.is_empty() {
            for wanted in std::mem::take(&mut synced.recall) {
                self.ask(&wanted.meter, &serde_json::to_string(&wanted).unwrap());
            }
            synced = self.process(&call, false);
        }
        self.meters[meter].1.synced(account, &synced.answer, self.now).unwrap();
    }

    fn ask(&mut self, meter: &str, recall: &str) {
        let asked: usize = meter.strip_prefix("0123456789abcde").unwrap().parse().unwrap();
        let returned = self.meters[asked].1.recall(ACCOUNT, recall, self.now).unwrap();
        let returned = serde_json::from_str(&returned).unwrap();
        let now = self.now;
        let sql = self.budget_sql.clone();
        let answer = sql.transact(|| self.budget.returned(&returned, now)).unwrap();
        let answer = serde_json::to_string(&answer).unwrap();
        self.meters[asked].1.synced(ACCOUNT, &answer, self.now).unwrap();
    }

    fn alarm(&mut self) {
        let now = self.now;
        let sql = self.budget_sql.clone();
        let wake = sql.transact(|| self.budget.wake(now)).unwrap();
        for wanted in wake.recall {
            self.ask(&wanted.meter, &serde_json::to_string(&wanted).unwrap());
        }
    }

    fn admit(&mut self, meter: usize, max_output: u64) -> Result<Ticket, Refusal> {
        self.requests += 1;
        let mut seed = [0; 10];
        seed[..8].copy_from_slice(&self.requests.to_be_bytes());
        let call = AdmitCall {
            id: RequestId::mint(self.now, &seed),
            key_sha256: SECRET.to_owned(),
            facts: RequestFacts {
                endpoint: "/v1/chat/completions".to_owned(),
                model: "flat".to_owned(),
                has_output: true,
                input_tokens: 1,
                max_output_tokens: Some(max_output),
                choices: 1,
                ..RequestFacts::default()
            },
            stream: false,
            actor_token: None,
            labels: BTreeMap::new(),
            draw: "0".to_owned(),
            trace: None,
        };
        let mut progress = Progress::default();
        loop {
            match self.meters[meter].1.admit(&call, progress, self.now).unwrap() {
                AdmitAnswer::Admit(admitted) => {
                    self.in_flight.push((meter, admitted.ticket.clone()));
                    return Ok(admitted.ticket);
                }
                AdmitAnswer::Refuse { refusal, .. } => return Err(*refusal),
                AdmitAnswer::Ask { accounts, progress: next } => {
                    for account in accounts {
                        self.sync(meter, &account);
                    }
                    progress = serde_json::from_str(&next).unwrap();
                }
            }
        }
    }

    fn settle(&mut self, nth: usize, output: u64) {
        let (meter, ticket) = self.in_flight.remove(nth % self.in_flight.len());
        let tally = Tally { tokens: Tokens { output, ..Tokens::default() }, ..Tally::default() };
        let row: tallygate_shared::pricing::PriceRow = serde_json::from_value(
            json!({ "provider": "openai", "model": "flat", "prices": { "standard": { "input": "0", "output": "1" } } }),
        )
        .unwrap();
        let cost = rate(&row, &tally, self.now, None).unwrap();
        self.charged = self.charged.saturating_add(cost.total);
        let settlement = Settlement {
            ticket,
            outcome: Outcome::Completed,
            code: None,
            status: 200,
            provider: None,
            model: None,
            response_model: None,
            provider_request_id: None,
            attempts: Vec::new(),
            usage: Usage::Reported(tally),
            cost: Some(cost),
            duration_ms: 1,
            first_byte_ms: None,
        };
        let now = self.now;
        let (sql, object) = &mut self.meters[meter];
        let sql = sql.clone();
        assert!(sql.transact(|| object.settle(settlement, now)).unwrap());
    }

    fn spent(&mut self) -> Usd {
        let now = self.now;
        let status = self.budget.status(None, now).unwrap().unwrap();
        status.money.unwrap().spent_usd
    }
}

#[test]
fn far_from_the_cap_requests_make_hardly_any_call() {
    let mut net = Net::new(3, &terms("100"));
    for n in 0..300 {
        net.admit(n % 3, 1_000).unwrap();
        net.settle(0, 900);
    }
    assert!(net.calls <= 15, "{} calls for 300 requests", net.calls);
    // Alerts hear whose spending it is.
    let news = json!(net.budget.news(net.now).unwrap().unwrap());
    assert_eq!(news["snapshot"]["dimension"], "workspace");
}

#[test]
fn an_event_says_which_shared_budget_was_evaluated_and_which_refused() {
    let mut net = Net::new(1, &terms("0.0015"));
    net.admit(0, 1_000).unwrap();
    net.settle(0, 1_000);
    assert!(net.admit(0, 1_000).is_err());
    let (sql, meter) = &mut net.meters[0];
    meter.wake(net.now).unwrap();
    let rows = sql.exec("SELECT body FROM events ORDER BY seq", &[]).unwrap();
    let events: Vec<UsageEvent> =
        rows.iter().map(|row| serde_json::from_str(row[0].as_deref().unwrap()).unwrap()).collect();
    let checks: Vec<_> = events
        .iter()
        .map(|event| {
            let decided = event.decided.as_ref().unwrap();
            let [limit] = decided.limits.as_slice() else { panic!("{decided:?}") };
            assert!(limit.name.starts_with("budget "), "{limit:?}");
            (limit.limit.as_str(), limit.refused, decided.refused_by == Some(limit.name.clone()))
        })
        .collect();
    assert_eq!(checks, [("0.0015", false, false), ("0.0015", true, true)]);
}

#[test]
fn a_restart_of_either_side_forgets_nothing_that_was_spent() {
    let mut net = Net::new(2, &terms("0.01"));
    for n in 0..6 {
        net.admit(n % 2, 1_000).unwrap();
        net.settle(0, 1_000);
        net.restart_meter(n % 2);
        net.restart_budget();
    }
    net.now = net.now.plus_ms(1_000_000);
    let mut served = 6;
    while net.admit(served % 2, 1_000).is_ok() {
        net.settle(0, 1_000);
        served += 1;
    }
    // 10,000,000 nanodollars; each takes 1,000,000, and sets aside a few more.
    assert_eq!(served, 9);
    for meter in 0..2 {
        net.sync(meter, ACCOUNT);
    }
    assert_eq!(net.spent(), net.charged);
}

#[test]
fn a_lease_that_memory_let_go_of_is_taken_up_where_it_was() {
    let mut net = Net::new(1, &terms("0.01"));
    let mut served = 0;
    while net.admit(0, 1_000).is_ok() {
        net.settle(0, 1_000);
        served += 1;
        // Long enough to report, to be idle, and to be let go of.
        for _ in 0..3 {
            net.now = net.now.plus_ms(61_000);
            for account in net.meters[0].1.wake(net.now).unwrap().accounts {
                net.sync(0, &account);
            }
        }
        assert!(net.meters[0].1.budgets.wallet.is_empty(), "after {served}");
    }
    assert_eq!(served, 9);
    assert_eq!(net.spent(), net.charged);
}

#[test]
fn what_a_vanished_meter_kept_comes_back_through_the_alarm() {
    let mut net = Net::new(2, &terms("0.1"));
    net.admit(0, 1_000).unwrap();
    net.settle(0, 1_000);
    let leased = |net: &mut Net| {
        let now = net.now;
        net.budget.status(None, now).unwrap().unwrap().money.unwrap().leased_usd
    };
    assert!(leased(&mut net) > Usd::ZERO);
    net.restart_meter(0);
    net.now = net.now.plus_ms(1_000_000);
    // The first time the Meter must learn the version; then it can give back.
    net.alarm();
    net.now = net.now.plus_ms(1_000_000);
    net.alarm();
    assert_eq!(leased(&mut net), Usd::ZERO);
    assert_eq!(net.spent(), net.charged);
}

#[test]
fn a_meter_of_the_first_schema_opens_and_spends_from_a_shared_budget() {
    let sql = TestSql::new();
    migrate(&sql, &super::meter_store::MIGRATIONS[..1]).unwrap();
    let stored = plan(0, 1, &terms("1"));
    sql.exec("INSERT INTO meta (name, value) VALUES ('plan', ?)", &[Some(&stored)]).unwrap();
    sql.exec("INSERT INTO spent (window, nanos) VALUES ('lifetime', 42)", &[]).unwrap();
    let mut net = Net::new(1, &terms("1"));
    let opened = MeterObject::open(sql.clone(), &KeyRing::default(), 7, net.now).unwrap();
    net.meters[0] = (sql, opened);
    net.admit(0, 1_000).unwrap();
    net.settle(0, 1_000);
    net.sync(0, ACCOUNT);
    assert_eq!(net.spent(), net.charged);
    let state = net.meters[0].1.state(net.now).unwrap();
    assert_eq!(state.spent_usd["lifetime"], net.charged.saturating_add(Usd::from_nanos(42)));
}

#[test]
fn a_budget_of_the_first_schema_opens_remembers_and_takes_corrections() {
    let sql = TestSql::new();
    migrate(&sql, &super::budget_object::MIGRATIONS[..1]).unwrap();
    let stored = terms("1").to_string();
    for (name, value) in [("account", ACCOUNT), ("version", "1"), ("terms", stored.as_str())] {
        let insert = "INSERT INTO meta (name, value) VALUES (?, ?)";
        sql.exec(insert, &[Some(name), Some(value)]).unwrap();
    }
    let share = "INSERT INTO shares (line, holder, version, authorised, spent, keep, quota, quota_bound, at_ms)
        VALUES ('usd:lifetime', '0123456789abcde7', 3, 42, 42, 0, 0, 0, 1)";
    sql.exec(share, &[]).unwrap();
    let mut net = Net::new(1, &terms("1"));
    net.budget_sql = sql.clone();
    net.budget = BudgetObject::open(sql).unwrap();
    assert_eq!(net.spent(), Usd::from_nanos(42));
    let correction = json!({
        "terms": { "account": ACCOUNT, "meter": "", "plan_version": 1, "terms": terms("1"), "reports": [] },
        "corrections": [{ "line": "usd:lifetime", "source": "d#p", "revision": 1, "units": 8 }] });
    net.budget.correct(&serde_json::from_value(correction).unwrap(), net.now).unwrap();
    assert_eq!(net.spent(), Usd::from_nanos(50));
}

#[test]
fn a_plan_without_budgets_from_an_earlier_build_is_read() {
    let mut old: Value = serde_json::from_str(&plan(0, 1, &terms("1"))).unwrap();
    old.as_object_mut().unwrap().remove("budgets");
    let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
    let ring = KeyRing::default();
    let mut meter = MeterObject::open(TestSql::new(), &ring, 1, now).unwrap();
    meter.apply_plan(&old.to_string(), &ring).unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Admit(usize, u64),
    Settle(usize, u64),
    RestartMeter(usize),
    RestartBudget,
    Wait(i64),
    Alarm,
    Limit(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0_usize..4, 1_u64..2_000).prop_map(|(meter, output)| Op::Admit(meter, output)),
        8 => (0_usize..8, 0_u64..100).prop_map(|(nth, percent)| Op::Settle(nth, percent)),
        1 => (0_usize..4).prop_map(Op::RestartMeter),
        1 => Just(Op::RestartBudget),
        1 => (0_i64..200_000).prop_map(Op::Wait),
        1 => Just(Op::Alarm),
        1 => (1_u64..40).prop_map(Op::Limit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever restarts and whatever changes: what was charged never passes the highest cap that was ever set, and every
    /// Budget's books end up equal to its Meters'.
    #[test]
    fn the_cap_holds_through_restarts_of_the_objects(ops in proptest::collection::vec(any_op(), 1..250)) {
        let mut net = Net::new(4, &terms("0.02"));
        let (mut version, mut highest) = (1, Usd::from_nanos(20_000_000));
        for op in ops {
            match op {
                Op::Admit(meter, output) => {
                    let _ = net.admit(meter, output);
                }
                Op::Settle(nth, percent) if !net.in_flight.is_empty() => {
                    let nth = nth % net.in_flight.len();
                    let nanos = net.in_flight[nth].1.hold.amount.nanos().unwrap();
                    let output = u64::try_from(nanos).unwrap() / 1_000 * percent / 100;
                    net.settle(nth, output);
                }
                Op::Settle(..) => {}
                Op::RestartMeter(meter) => net.restart_meter(meter),
                Op::RestartBudget => net.restart_budget(),
                Op::Wait(ms) => net.now = net.now.plus_ms(ms),
                Op::Alarm => net.alarm(),
                Op::Limit(cents) => {
                    version += 1;
                    let limit = Usd::from_nanos(i64::try_from(cents).unwrap() * 1_000_000);
                    highest = highest.max(limit);
                    for meter in 0..4 {
                        let plan = plan(meter, version, &terms(&limit.to_string()));
                        net.meters[meter].1.apply_plan(&plan, &KeyRing::default()).unwrap();
                    }
                }
            }
            prop_assert!(net.charged <= highest, "charged {} of {highest}", net.charged);
        }
        while !net.in_flight.is_empty() {
            net.settle(0, 0);
        }
        // A Meter that restarted does not know what it has not said: the Budget's alarm asks it.
        for meter in 0..4 {
            net.sync(meter, ACCOUNT);
        }
        net.now = net.now.plus_ms(1_000_000);
        net.alarm();
        prop_assert_eq!(net.spent(), net.charged);
    }
}
