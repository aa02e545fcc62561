//! The archive under everything that happens to it: late events, crashes at each step, a bucket that fails or lies, and
//! exports that run meanwhile. Whatever was archived when, an export has every event once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::feedback::ExportEnd;
use tallygate_shared::telemetry::prometheus::ArchiveGauge;
use tallygate_shared::time::Timestamp;

use super::archive_part::closes_at;
use super::ledger_archive::Job;
use super::ledger_object::LedgerObject;
use super::ledger_object_tests::{DAY_START, HOUR_MS, batch, event, key};
use super::ledger_requests::RequestQuery;
use super::ledger_true_ups::ExportQuery;
use super::sql::{Sql, text};
use super::test_sql::TestSql;
use crate::admin::export::{Export, Next, record_in};

const LEDGER: &str = "ws_acme:2026-11";
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const ALL: (i64, i64) = (DAY_START - DAY_MS, DAY_START + 3 * DAY_MS);

/// Where the object dies in a step of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Never,
    BeforePut,
    AfterPut,
    /// The put itself fails, and the object hears of it.
    Refused,
}

/// A Ledger with its bucket, as the shell runs them.
struct World {
    sql: TestSql,
    bucket: BTreeMap<String, String>,
    kept: u64,
    bound: bool,
    now: i64,
    days: u32,
    seqs: BTreeMap<u8, u64>,
    delivered: BTreeMap<(String, String), (i64, String)>,
}

impl World {
    fn new(kept: u64) -> Self {
        Self {
            sql: TestSql::new(),
            bucket: BTreeMap::new(),
            kept,
            bound: true,
            now: DAY_START,
            days: 400,
            seqs: BTreeMap::new(),
            delivered: BTreeMap::new(),
        }
    }

    /// The object, opened from its storage as after a restart.
    fn ledger(&self) -> LedgerObject<TestSql> {
        let ledger = LedgerObject::open(self.sql.clone()).unwrap();
        ledger.with_limits(Some(self.kept), self.bound)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    /// Events of these moments come, in one batch.
    fn deliver(&mut self, meter: u8, moments: &[i64]) {
        let mut events = Vec::new();
        for at in moments {
            let seq = self.seqs.entry(meter).or_default();
            *seq += 1;
            let event = event(&key(meter), *seq, *at);
            let place = (event["id"].as_str().unwrap().to_owned(), key(meter));
            self.delivered.insert(place, (*at, format!("{event}\n")));
            events.push(event);
        }
        let text = batch(&key(meter), &events);
        self.sql.transact(|| self.ledger().apply(&text)).unwrap();
    }

    /// One step of the archive. False: there was nothing to do, or it went wrong.
    fn step(&mut self, crash: Crash) -> bool {
        let now = self.now();
        let Some(job) = self.sql.transact(|| self.ledger().archive(LEDGER, now)).unwrap() else {
            return false;
        };
        match job {
            Job::Write { part, lines } => {
                assert!(part.is(&lines));
                match crash {
                    Crash::BeforePut => return false,
                    Crash::Refused => {
                        let refuse = || self.ledger().archive_failed("it is full", now);
                        self.sql.transact(refuse).unwrap();
                        return false;
                    }
                    Crash::Never | Crash::AfterPut => {}
                }
                let size = u64::try_from(lines.len()).unwrap();
                let before = self.bucket.entry(part.name.clone()).or_insert_with(|| lines.clone());
                assert_eq!(*before, lines, "{} is written again with another content", part.name);
                if crash == Crash::AfterPut {
                    return false;
                }
                self.sql.transact(|| self.ledger().written(part.n, size, now)).unwrap();
            }
            Job::Delete { n, name } => {
                if crash != Crash::BeforePut {
                    self.bucket.remove(&name);
                }
                if crash != Crash::Never {
                    return false;
                }
                self.sql.transact(|| self.ledger().deleted(n)).unwrap();
            }
            Job::AskDays => {
                self.sql.transact(|| self.ledger().expire(self.days, now)).unwrap();
            }
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            if !self.step(Crash::Never) {
                // An alarm that rings for nothing would ring again at once.
                let next = self.ledger().archive_at().unwrap();
                assert!(next.is_none_or(|at| at > self.now()), "due at {next:?}");
                return;
            }
        }
        panic!("the archive never comes to rest");
    }

    /// An export as the shell runs it; between its pages, other things happen.
    fn export(
        &mut self,
        span: (i64, i64),
        after: Option<String>,
        mut meanwhile: impl FnMut(&mut Self),
    ) -> Result<String, Value> {
        let (from_ms, to_ms) = span;
        let mut export = Export::new(ExportQuery { from_ms, to_ms, after });
        let mut sent = String::new();
        loop {
            match export.proceed() {
                Next::Ask { payload } => {
                    let answer = self.ledger().query("export", &payload).unwrap();
                    export.page(&answer);
                    meanwhile(self);
                }
                Next::Read { name } => {
                    let lines = self.bucket.get(&name).map(String::as_str);
                    export.part(lines.ok_or("is missing"));
                }
                Next::Send { lines } => sent.push_str(&lines),
                Next::End { line } => {
                    let end: ExportEnd = serde_json::from_str(&line).unwrap();
                    assert_eq!(end.lines, u64::try_from(sent.lines().count()).unwrap());
                    return Ok(sent);
                }
                Next::Fail { body, .. } => return Err(serde_json::from_str(&body).unwrap()),
            }
        }
    }

    fn expected(&self, (from, to): (i64, i64)) -> String {
        let within = |(at, _): &&(i64, String)| (from..to).contains(at);
        self.delivered.values().filter(within).map(|(_, line)| line.as_str()).collect()
    }

    fn check(&mut self, span: (i64, i64)) {
        let expected = self.expected(span);
        assert_eq!(self.export(span, None, |_| ()).unwrap(), expected);
    }

    fn state(&self) -> Value {
        let state: Value =
            serde_json::from_str(&self.ledger().query("archive", "").unwrap()).unwrap();
        state["data"][0].clone()
    }

    fn rows(&self, select: &str) -> u64 {
        let select = format!("SELECT CAST(COUNT(*) AS TEXT) FROM {select}");
        text(&self.sql.exec(&select, &[]).unwrap()[0], 0).unwrap().parse().unwrap()
    }
}

#[test]
fn an_hour_becomes_a_part_when_it_is_closed_and_late_events_become_another() {
    let mut world = World::new(1);
    world.deliver(1, &[DAY_START + 1, DAY_START + 2, DAY_START + HOUR_MS]);
    let due = world.ledger().archive_at().unwrap().unwrap();
    assert_eq!(due.ms(), DAY_START + 90 * MINUTE_MS);
    world.now = due.ms() - 1;
    assert!(!world.step(Crash::Never));
    world.now = due.ms();
    world.settle();
    assert_eq!(world.bucket.len(), 1);
    let name = world.bucket.keys().next().unwrap();
    assert!(name.starts_with("events/v1/ws_acme/2026-11-20/00/2026-11.000001-"), "{name}");
    assert_eq!(world.rows("events"), 1);
    // Both hours are asked for though one has gone.
    world.check(ALL);
    world.deliver(1, &[DAY_START + 3]);
    world.deliver(2, &[DAY_START]);
    world.check(ALL);
    world.settle();
    assert_eq!(world.bucket.len(), 1, "late events wait for more of them");
    world.now = DAY_START + 150 * MINUTE_MS;
    world.settle();
    assert_eq!(world.bucket.len(), 3, "the late part, and the next hour");
    world.check(ALL);
    assert_eq!(world.state()["unarchived_events"], 0);
    assert_eq!(world.state()["events"], 5);
}

#[test]
fn a_large_hour_is_several_parts_and_an_export_goes_on_behind_any_event() {
    let mut world = World::new(3);
    let moments: Vec<i64> = (0..10).map(|n| DAY_START + n * 100).collect();
    world.deliver(1, &moments);
    world.now = DAY_START + 2 * HOUR_MS;
    world.settle();
    assert_eq!(world.bucket.len(), 3);
    assert_eq!(world.rows("events"), 2);
    let late: Vec<i64> = (0..10).map(|n| DAY_START + n * 100 + 50).collect();
    world.deliver(2, &late);
    world.deliver(2, &[DAY_START + 3 * HOUR_MS]);
    world.check(ALL);
    let places: Vec<_> = world.delivered.keys().cloned().collect();
    let lines = world.expected(ALL);
    for (behind, (id, key)) in places.iter().enumerate() {
        let rest: String = lines.lines().skip(behind + 1).map(|line| format!("{line}\n")).collect();
        assert_eq!(world.export(ALL, Some(format!("{id}~{key}")), |_| ()).unwrap(), rest);
    }
}

#[test]
fn a_part_that_is_missing_or_another_is_said_and_never_sent() {
    let mut world = World::new(0);
    world.deliver(1, &[DAY_START, DAY_START + 1, DAY_START + HOUR_MS]);
    world.now = DAY_START + 3 * HOUR_MS;
    world.settle();
    let name = world.bucket.keys().next().unwrap().clone();
    let lines = world.bucket.remove(&name).unwrap();
    let problem = world.export(ALL, None, |_| ()).unwrap_err();
    assert_eq!(problem["code"], "archive_unreadable");
    assert!(problem["detail"].as_str().unwrap().contains(&name), "{problem}");
    let other = lines.replacen("0.000000007", "0.000000006", 1);
    for other in [other, String::new(), lines.lines().next().unwrap().to_owned() + "\n"] {
        world.bucket.insert(name.clone(), other);
        let problem = world.export(ALL, None, |_| ()).unwrap_err();
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!("archive_unreadable"), &json!(502))
        );
    }
    // Another hour does not need it: its ids are further away than clocks differ.
    let later = (DAY_START + DAY_MS, DAY_START + 2 * DAY_MS);
    assert_eq!(world.export(later, None, |_| ()).unwrap(), "");
    world.bucket.insert(name, lines);
    world.check(ALL);
}

#[test]
fn a_bucket_that_fails_is_tried_again_later_and_nothing_goes_meanwhile() {
    let mut world = World::new(0);
    world.deliver(1, &[DAY_START, DAY_START + 1]);
    world.now = DAY_START + 2 * HOUR_MS;
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert!(!world.step(Crash::Refused));
        assert!(!world.step(Crash::Never), "it waits");
        let next = world.ledger().archive_at().unwrap().unwrap().ms();
        waits.push(next - world.now);
        world.now = next;
    }
    assert_eq!((waits[0], waits[1], waits[11]), (2_000, 4_000, 900_000));
    let state = world.state();
    assert_eq!((&state["failures"], &state["error"]), (&json!(12), &json!("it is full")));
    assert_eq!(world.rows("events"), 2);
    world.settle();
    let state = world.state();
    assert_eq!((&state["failures"], &state["error"]), (&json!(12), &Value::Null));
    assert_eq!(world.rows("events"), 0);
    world.check(ALL);
}

#[test]
fn metrics_say_what_waits_for_the_bucket_since_when_and_what_failed() {
    let mut world = World::new(0);
    let gauge = |world: &World| {
        let answer = world.ledger().query("archive_gauge", &world.now.to_string()).unwrap();
        serde_json::from_str::<Option<ArchiveGauge>>(&answer).unwrap()
    };
    world.deliver(1, &[DAY_START, DAY_START + 1, DAY_START + HOUR_MS]);
    world.now = DAY_START + 4 * HOUR_MS;
    // What is of the hour that is not over waits for nothing.
    world.deliver(1, &[world.now]);
    let waiting = ArchiveGauge {
        waiting_hours: 2,
        waiting_since: Some(closes_at(Timestamp::from_ms(DAY_START))),
        ..ArchiveGauge::default()
    };
    assert_eq!(gauge(&world), Some(waiting.clone()));
    assert!(!world.step(Crash::Refused));
    let failed = ArchiveGauge { failed: 1, failures_in_a_row: 1, ..waiting };
    assert_eq!(gauge(&world), Some(failed));
    world.now += HOUR_MS / 2;
    assert!(world.step(Crash::Never));
    let second = gauge(&world).unwrap();
    assert_eq!(second.waiting_hours, 1);
    assert_eq!(second.waiting_since, Some(closes_at(Timestamp::from_ms(DAY_START + HOUR_MS))));
    assert_eq!((second.failed, second.failures_in_a_row), (1, 0));
    world.settle();
    let written_at = Some(world.now());
    let done = ArchiveGauge { written_at, failed: 1, ..ArchiveGauge::default() };
    assert_eq!(gauge(&world), Some(done));
    assert_eq!(world.state()["written_at"], world.now().to_string());
    world.bound = false;
    assert_eq!(gauge(&world), None);
}

#[test]
fn events_expire_from_the_object_and_the_bucket_and_an_export_says_so() {
    let mut world = World::new(1);
    world.deliver(1, &[DAY_START, DAY_START + HOUR_MS, DAY_START + 30 * HOUR_MS]);
    world.now = DAY_START + 40 * HOUR_MS;
    world.settle();
    assert_eq!((world.bucket.len(), world.rows("events")), (3, 1));
    world.days = 35;
    world.now = DAY_START + 35 * DAY_MS + 2 * HOUR_MS - 1;
    // The deletion dies on either side of the bucket, and is done all the same.
    for crash in [Crash::Never, Crash::BeforePut, Crash::AfterPut] {
        world.step(crash);
    }
    world.settle();
    assert_eq!(world.bucket.len(), 2, "the second hour is not 35 days old");
    assert_eq!(world.rows("archive_parts"), 2);
    world.now += DAY_MS;
    world.settle();
    let problem = world.export((DAY_START, DAY_START + DAY_MS), None, |_| ()).unwrap_err();
    assert_eq!(problem["status"], 410);
    world.check((DAY_START + DAY_MS + 3 * HOUR_MS, DAY_START + 2 * DAY_MS));
    world.now += DAY_MS;
    world.settle();
    assert_eq!((world.bucket.len(), world.rows("events"), world.rows("archive_parts")), (0, 0, 0));
    assert_eq!(world.state()["kept_events"], 0);
    assert_eq!(world.ledger().archive_at().unwrap(), None, "an empty month sleeps");
}

#[test]
fn without_a_bucket_the_oldest_events_go_and_a_bucket_takes_what_is_left() {
    let mut world = World::new(3);
    world.bound = false;
    world.deliver(1, &[DAY_START, DAY_START + 1, DAY_START + 2, DAY_START + 3]);
    assert_eq!(world.ledger().archive_at().unwrap(), None);
    assert!(!world.step(Crash::Never));
    assert_eq!(world.export(ALL, None, |_| ()).unwrap_err()["code"], "events_pruned");
    world.bound = true;
    world.now = DAY_START + 2 * HOUR_MS;
    // The bucket is taken away between the plan and the put, and the planned events go.
    assert!(!world.step(Crash::BeforePut));
    world.bound = false;
    world.deliver(1, &[DAY_START + 4, DAY_START + 5]);
    world.bound = true;
    world.settle();
    assert_eq!(world.state()["unarchived_events"], 0);
    assert_eq!(world.rows("archive_parts"), 2, "what is left of the plan, and the new ones");
    assert_eq!(world.state()["events"], 3);
}

#[test]
fn a_request_is_found_in_its_part() {
    let mut world = World::new(0);
    world.deliver(1, &[DAY_START, DAY_START + 1]);
    let (id, _) = world.delivered.keys().next().unwrap().clone();
    let query = |id: &str, owner: Option<&str>| RequestQuery {
        id: id.to_owned(),
        owner: owner.map(str::to_owned),
    };
    let ask = |world: &World| -> Value {
        let query = json!(query(&id, None)).to_string();
        serde_json::from_str(&world.ledger().query("request", &query).unwrap()).unwrap()
    };
    assert_eq!(ask(&world)["data"][0]["id"], json!(id));
    world.now = DAY_START + 2 * HOUR_MS;
    world.settle();
    let answer = ask(&world);
    assert_eq!(answer["data"], json!([]));
    let part = serde_json::from_value(answer["parts"][0].clone()).unwrap();
    let lines = world.bucket.values().next().unwrap();
    let found = record_in(&part, Ok(lines), &query(&id, None)).unwrap().unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["id"], json!(id));
    let owner = found["owner"].as_str().unwrap();
    assert!(record_in(&part, Ok(lines), &query(&id, Some(owner))).unwrap().is_some());
    assert_eq!(record_in(&part, Ok(lines), &query(&id, Some("eve"))).unwrap(), None);
    assert_eq!(record_in(&part, Ok(lines), &query("req_1", None)).unwrap(), None);
    assert!(record_in(&part, Ok("{}\n"), &query(&id, None)).is_err());
    assert!(record_in(&part, Err("is missing"), &query(&id, None)).is_err());
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Act {
    /// Events come, so many minutes after they were made.
    Deliver {
        meter: u8,
        ages: Vec<i64>,
    },
    Pass {
        minutes: i64,
    },
    Archive {
        crash: Crash,
        steps: usize,
    },
    Export,
}

fn act() -> impl Strategy<Value = Act> {
    let age = prop_oneof![4 => 0..3_i64, 1 => 0..400_i64];
    let crash = prop_oneof![
        Just(Crash::Never),
        Just(Crash::BeforePut),
        Just(Crash::AfterPut),
        Just(Crash::Refused)
    ];
    prop_oneof![
        4 => (1..4_u8, prop::collection::vec(age, 1..12))
            .prop_map(|(meter, ages)| Act::Deliver { meter, ages }),
        3 => (1..200_i64).prop_map(|minutes| Act::Pass { minutes }),
        4 => (crash, 1..4_usize).prop_map(|(crash, steps)| Act::Archive { crash, steps }),
        1 => Just(Act::Export),
    ]
}

proptest! {
    // Each case opens the object hundreds of times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_export_has_every_event_once_whatever_was_archived_when(
        acts in prop::collection::vec(act(), 1..60), kept in 0_u64..12,
    ) {
        let mut world = World::new(kept);
        for act in acts {
            match act {
                Act::Deliver { meter, ages } => {
                    let at: Vec<i64> = ages.iter().map(|age| world.now - age * MINUTE_MS).collect();
                    world.deliver(meter, &at);
                }
                Act::Pass { minutes } => world.now += minutes * MINUTE_MS,
                Act::Archive { crash, steps } => {
                    for _ in 1..steps {
                        world.step(Crash::Never);
                    }
                    world.step(crash);
                }
                Act::Export => {
                    let expected = world.expected(ALL);
                    // What is archived while an export runs changes nothing of it.
                    let sent = world.export(ALL, None, |world| { world.step(Crash::Never); });
                    prop_assert_eq!(sent.unwrap(), expected);
                }
            }
            let kept = world.state()["kept_events"].as_u64().unwrap();
            prop_assert_eq!(kept, world.rows("events"));
        }
        world.check(ALL);
        // In the end all is archived, each event in one part, and what is too much has gone.
        for _ in 0..3 {
            world.now += 2 * HOUR_MS;
            world.settle();
        }
        prop_assert_eq!(world.state()["unarchived_events"].as_u64(), Some(0));
        prop_assert!(world.rows("events") <= kept);
        let archived: Vec<&str> = world.bucket.values().flat_map(|lines| lines.lines()).collect();
        let once: BTreeSet<&str> = archived.iter().copied().collect();
        prop_assert_eq!((archived.len(), once.len()), (world.delivered.len(), world.delivered.len()));
        world.check(ALL);
        world.check((DAY_START, DAY_START + HOUR_MS));
    }
}
