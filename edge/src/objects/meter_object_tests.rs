//! The Meter by simulation: random requests, settlements lost, repeated and late, restarts, failing storage and a moving
//! clock. After each step the books must agree; a failing seed is printed and replays.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::budget::hold::HOLD_LIFETIME_MS;
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::pricing::rate;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::{Tally, Tokens, Usage};

use super::meter_budgets::Progress;
use super::meter_object::MeterObject;
use super::sql::Sql;
use super::test_sql::TestSql;
use crate::request::calls::{AdmitAnswer, AdmitCall, Settlement, Ticket};
use crate::vault::KeyRing;

const KEY: &str = "0123456789abcdef";
const SECRET: &str = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    Admit {
        input: u64,
        max_output: u64,
    },
    /// Settles the n-th request in flight, with a cost in percent of its hold.
    Settle {
        nth: usize,
        percent: u64,
    },
    /// Settles one that was settled before.
    SettleAgain {
        nth: usize,
    },
    /// The isolate died: nobody will settle this one.
    Lose {
        nth: usize,
    },
    Restart,
    Wait {
        ms: i64,
    },
    Alarm,
    /// Storage fails after so many statements, and the object is opened anew.
    FailStorage {
        statements: u32,
        then: Box<Step>,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let simple = prop_oneof![
        6 => (1_u64..2_000, 1_u64..2_000).prop_map(|(input, max_output)| Step::Admit { input, max_output }),
        5 => (0_usize..8, 0_u64..130).prop_map(|(nth, percent)| Step::Settle { nth, percent }),
        1 => (0_usize..8).prop_map(|nth| Step::SettleAgain { nth }),
        1 => (0_usize..8).prop_map(|nth| Step::Lose { nth }),
        1 => Just(Step::Restart),
        2 => (0_i64..20_000).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Alarm),
    ];
    let failing = (0_u32..6, simple.clone())
        .prop_map(|(statements, then)| Step::FailStorage { statements, then: Box::new(then) });
    prop_oneof![12 => simple, 1 => failing]
}

struct Run {
    sql: TestSql,
    meter: MeterObject<TestSql>,
    cap: Usd,
    now: Timestamp,
    count: u64,
    in_flight: Vec<Ticket>,
    settled: Vec<Settlement>,
    /// What is known to be spent, by request: a model of the books that shares no code with them.
    charged: BTreeMap<String, Usd>,
}

impl Run {
    fn new(cap: &str) -> Self {
        let sql = TestSql::new();
        let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let ring = KeyRing::default();
        let mut meter = MeterObject::open(sql.clone(), &ring, 1, now).unwrap();
        let plan = json!({
            "version": 1, "workspace": "ws_a", "key": KEY, "status": "active",
            "owner": { "name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e" },
            "secrets": [{ "sha256": SECRET }],
            "policy": { "spend_caps": [{ "window": "lifetime", "limit_usd": cap }] },
            "providers": [{ "name": "openai", "kind": "openai", "base_url": "http://localhost" }],
        });
        meter.apply_plan(&plan.to_string(), &ring).unwrap();
        Self {
            sql,
            meter,
            cap: cap.parse().unwrap(),
            now,
            count: 0,
            in_flight: Vec::new(),
            settled: Vec::new(),
            charged: BTreeMap::new(),
        }
    }

    fn reopen(&mut self) {
        self.sql.fail_after(None);
        let sql = self.sql.clone();
        self.meter =
            self.sql.transact(|| MeterObject::open(sql, &KeyRing::default(), 2, self.now)).unwrap();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Admit { input, max_output } => self.admit(*input, *max_output),
            Step::Settle { nth, percent } => self.settle(*nth, *percent),
            Step::SettleAgain { nth } => {
                if let Some(settlement) = self.settled.get(nth % self.settled.len().max(1)).cloned()
                {
                    let now = self.now;
                    let first = self.sql.clone().transact(|| self.meter.settle(settlement, now));
                    // With failing storage nothing is known; without, it was settled before.
                    assert!(!matches!(first, Ok(true)), "a settlement counted twice");
                }
            }
            Step::Lose { nth } => {
                if !self.in_flight.is_empty() {
                    self.in_flight.remove(nth % self.in_flight.len());
                }
            }
            Step::Restart => self.reopen(),
            Step::Wait { ms } => self.now = self.now.plus_ms(*ms),
            Step::Alarm => {
                let now = self.now;
                let _ = self.sql.clone().transact(|| self.meter.wake(now));
            }
            Step::FailStorage { statements, then } => {
                self.sql.fail_after(Some(*statements));
                self.take(then);
                self.reopen();
            }
        }
    }

    fn admit(&mut self, input: u64, max_output: u64) {
        self.count += 1;
        let mut seed = [0; 10];
        seed[..8].copy_from_slice(&self.count.to_be_bytes());
        let call = AdmitCall {
            id: RequestId::mint(self.now, &seed),
            key_sha256: SECRET.to_owned(),
            facts: RequestFacts {
                endpoint: "/v1/chat/completions".to_owned(),
                model: "gpt-6-sol".to_owned(),
                has_output: true,
                input_tokens: input,
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
        let (spent, held) = (self.spent(), self.held());
        if let Ok(AdmitAnswer::Admit(admitted)) =
            self.meter.admit(&call, Progress::default(), self.now)
        {
            let hold = admitted.ticket.hold.amount;
            let taken = spent.checked_add(held).unwrap().checked_add(hold).unwrap();
            assert!(taken <= self.cap, "spent {spent} + held {held} + hold {hold} passes the cap");
            if let Ok(state) = self.meter.state(self.now) {
                assert!(
                    state.ceiling_usd >= state.held_usd,
                    "held money above the durable ceiling"
                );
            }
            self.in_flight.push(admitted.ticket);
        }
    }

    fn settle(&mut self, nth: usize, percent: u64) {
        if self.in_flight.is_empty() {
            return;
        }
        let ticket = self.in_flight.remove(nth % self.in_flight.len());
        // Output tokens at 10 USD per million that make up this share of the hold.
        let nanos = ticket.hold.amount.nanos().unwrap() / 100 * i64::try_from(percent).unwrap();
        let tokens = Tokens { output: u64::try_from(nanos / 10_000).unwrap(), ..Tokens::default() };
        let tally = Tally { tokens, ..Tally::default() };
        let book = tallygate_shared::pricing::PriceBook::built_in().unwrap();
        let row = book.find("openai", "gpt-6-sol", self.now).unwrap();
        let cost = rate(row, &tally, self.now, None).unwrap();
        let settlement = Settlement {
            ticket: ticket.clone(),
            outcome: Outcome::Completed,
            code: None,
            status: 200,
            provider: Some("openai".to_owned()),
            model: Some("gpt-6-sol".to_owned()),
            response_model: None,
            provider_request_id: None,
            attempts: Vec::new(),
            usage: Usage::Reported(tally),
            cost: Some(cost),
            duration_ms: 1,
            first_byte_ms: None,
        };
        let now = self.now;
        let copy = settlement.clone();
        match self.sql.clone().transact(|| self.meter.settle(copy, now)) {
            Ok(_) => self.settled.push(settlement),
            // The shell sends it again.
            Err(_) => self.in_flight.push(ticket),
        }
    }

    fn events(&self) -> Vec<UsageEvent> {
        self.sql.fail_after(None);
        let rows = self.sql.exec("SELECT body FROM events ORDER BY seq", &[]).unwrap();
        rows.iter().map(|row| serde_json::from_str(row[0].as_deref().unwrap()).unwrap()).collect()
    }

    fn spent(&self) -> Usd {
        self.meter
            .state(self.now)
            .map_or(Usd::ZERO, |state| state.spent_usd.get("lifetime").copied().unwrap_or_default())
    }

    fn held(&self) -> Usd {
        self.meter.state(self.now).map_or(Usd::ZERO, |state| state.held_usd)
    }

    fn check(&mut self) {
        let events = self.events();
        let mut seen = BTreeSet::new();
        let mut sum = Usd::ZERO;
        for (place, event) in events.iter().enumerate() {
            assert_eq!(event.seq, u64::try_from(place).unwrap() + 1, "a gap in the sequence");
            assert!(seen.insert(event.id.clone()), "two events of one request");
            sum = sum.checked_add(event.charged).unwrap();
            let known = self.charged.insert(event.id.as_str().to_owned(), event.charged);
            assert!(known.is_none_or(|known| known == event.charged), "an event changed");
        }
        assert_eq!(self.spent(), sum, "the counter is not the sum of the events");
        // Whatever is in flight is held, by name or as unclear; an abandoned one was charged instead.
        let mut owed = Usd::ZERO;
        for ticket in self.in_flight.iter().filter(|ticket| ticket.hold.expires_at > self.now) {
            if !seen.contains(&ticket.hold.id) {
                owed = owed.checked_add(ticket.hold.amount).unwrap();
            }
        }
        assert!(self.held() >= owed, "held {} is less than what is in flight, {owed}", self.held());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_books_always_agree_and_a_cap_is_never_passed(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut run = Run::new("0.2");
        for step in &steps {
            run.take(step);
            run.check();
        }
        // When everything is over, nothing is held.
        run.in_flight.clear();
        run.now = run.now.plus_ms(2 * HOLD_LIFETIME_MS);
        let now = run.now;
        run.sql.clone().transact(|| run.meter.wake(now)).unwrap();
        run.check();
        prop_assert_eq!(run.held(), Usd::ZERO);
        prop_assert_eq!(run.meter.state(now).unwrap().ceiling_usd, Usd::ZERO);
    }
}

#[test]
fn a_settlement_that_a_restart_forgot_is_still_recorded_once() {
    let mut run = Run::new("1");
    run.admit(100, 100);
    run.reopen();
    run.settle(0, 50);
    let recorded =
        |run: &Run| run.events().iter().filter(|e| e.outcome == Outcome::Completed).count();
    assert_eq!(recorded(&run), 1);
    run.reopen();
    run.take(&Step::SettleAgain { nth: 0 });
    assert_eq!(recorded(&run), 1);
}

#[test]
fn a_restart_with_requests_in_flight_is_in_the_books_with_its_bound() {
    let mut run = Run::new("1000");
    run.admit(1_000, 1_000);
    let held = run.held();
    run.reopen();
    let interrupted = run.events().into_iter().find(|e| e.outcome == Outcome::Interrupted).unwrap();
    assert!(interrupted.hold >= held);
    assert_eq!(interrupted.charged, Usd::ZERO);
    // It is said once, however often the object starts.
    run.reopen();
    run.reopen();
    assert_eq!(run.events().len(), 1);
}

#[test]
fn near_a_cap_a_restart_leaves_nothing_unclear() {
    let mut run = Run::new("1");
    run.admit(1_000, 1_000);
    let held = run.held();
    run.reopen();
    assert!(run.events().is_empty());
    let state = run.meter.state(run.now).unwrap();
    assert_eq!((state.held_usd, state.in_flight), (held, 1));
    run.now = run.now.plus_ms(HOLD_LIFETIME_MS);
    run.take(&Step::Alarm);
    let events = run.events();
    assert_eq!((events[0].outcome, events[0].charged), (Outcome::Abandoned, held));
}

#[test]
fn a_flood_of_refusals_is_sampled_and_still_counted() {
    let mut run = Run::new("0");
    for _ in 0..1_000 {
        run.admit(10, 10);
    }
    let now = run.now;
    run.sql.clone().transact(|| run.meter.wake(now)).unwrap();
    let events = run.events();
    assert!(events.len() < 70, "{}", events.len());
    assert_eq!(events.iter().map(|event| event.sampled).sum::<u64>(), 1_000);
    assert!(events.iter().all(|event| event.code.as_deref() == Some("budget_exceeded")));
}

#[test]
fn telemetry_gets_every_event_once_and_hears_of_the_ledger_s_queue() {
    let mut run = Run::new("1");
    for nth in 0..3 {
        run.admit(100, 100);
        run.settle(nth, 50);
    }
    let first = run.meter.telemetry_delivery().unwrap().unwrap();
    let batch: Value = serde_json::from_str(&first.payload).unwrap();
    let seqs: Vec<u64> =
        batch["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!((seqs, first.up_to), (vec![1, 2, 3], Some(3)));
    assert_eq!((&batch["waiting"], first.waiting), (&Value::from(3), 3));
    // It did not arrive: it comes again, after a restart too.
    run.reopen();
    let again = run.meter.telemetry_delivery().unwrap().unwrap();
    let repeated: Value = serde_json::from_str(&again.payload).unwrap();
    for place in 0..3 {
        assert_eq!(repeated["events"][place], batch["events"][place]);
    }
    run.meter.exported(again.up_to, again.waiting).unwrap();
    assert!(run.meter.telemetry_delivery().unwrap().is_none(), "nothing is new");
    // The Ledger took them: that alone is news.
    run.meter.delivered(again.up_to.unwrap()).unwrap();
    let second = run.meter.telemetry_delivery().unwrap().unwrap();
    assert_eq!((second.up_to, second.waiting), (None, 0));
    run.meter.exported(second.up_to, second.waiting).unwrap();
    assert!(run.meter.telemetry_delivery().unwrap().is_none());
}

#[test]
fn usage_event_v1_format_unchanged() {
    let mut run = Run::new("1");
    run.admit(100, 100);
    run.settle(0, 50);
    let event = serde_json::to_value(run.events().remove(0)).unwrap();
    let fields: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "actor",
            "at",
            "charged",
            "cost",
            "cost_centre",
            "decided",
            "duration_ms",
            "endpoint",
            "environment",
            "hold",
            "id",
            "key",
            "key_name",
            "model",
            "outcome",
            "owner",
            "provider",
            "purpose",
            "requested_model",
            "seq",
            "settled_at",
            "status",
            "stream",
            "usage",
            "v",
            "workspace",
        ]
    );
    assert_eq!(event.get("v"), Some(&Value::from(1)));
    assert_eq!(event.pointer("/usage/source"), Some(&Value::from("reported")));
}
