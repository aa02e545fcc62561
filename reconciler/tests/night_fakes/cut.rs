//! Nights that are cut: wherever the time runs out, the books, the edge and the report are those of a night in one go.

use std::collections::BTreeMap;

use serde_json::json;
use tallygate_reconciler::ledger::Revision;
use tallygate_reconciler::night::run::{Ended, Steps};
use tallygate_reconciler::report::WorkspaceReport;
use tallygate_shared::time::{DAY_MS, Date};

use crate::world::{DAY, World};

/// All that is left of a night.
#[derive(Debug, PartialEq)]
struct Outcome {
    report: WorkspaceReport,
    books: Vec<Revision>,
    true_ups: BTreeMap<String, (u64, Option<String>)>,
    corrections: BTreeMap<String, (u64, String)>,
    alerts: BTreeMap<String, bool>,
    prices: Vec<serde_json::Value>,
}

/// How often the time can be asked for before it runs out, invocation by invocation.
#[derive(Clone, Copy, Debug)]
enum Cuts {
    Never,
    Every(u32),
    Random(u64),
}

impl Cuts {
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Never => None,
            Self::Every(questions) => Some(*questions),
            Self::Random(seed) => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                Some((*seed >> 33) as u32 % 20)
            }
        }
    }
}

/// A night in as many invocations as it takes. The report, and how many.
async fn night(world: &World, cuts: &mut Cuts) -> (WorkspaceReport, u32) {
    let mut invocations = 0;
    loop {
        invocations += 1;
        assert!(invocations < 2_000, "the night never ends");
        *world.watch.questions.lock().unwrap() = cuts.next();
        let (ended, report) = world.invoke(None).await;
        if ended == Ended::Done {
            return (report, invocations);
        }
    }
}

async fn outcome(world: &World, report: WorkspaceReport) -> Outcome {
    let mut books = Vec::new();
    for unit in world.ledger.units("ws_a", "2026-11").await.unwrap() {
        for row in world.ledger.newest(&unit).await.unwrap() {
            books.extend(world.ledger.history(&unit, &row.line).await.unwrap());
        }
    }
    let state = world.edge.0.lock().unwrap();
    let (true_ups, corrections) = (state.true_ups.clone(), state.corrections.clone());
    let (alerts, prices) = (state.alerts.clone(), state.prices.clone());
    Outcome { report, books, true_ups, corrections, alerts, prices }
}

/// Three nights of one world: the bill comes, use and bill change and lines go, nothing is new. The outcomes, and how many
/// invocations each took.
async fn nights(mut cuts: Cuts) -> (Vec<Outcome>, Vec<u32>) {
    let mut world = World::new(4).await;
    world.steps = Steps { part_events: 4, parts_noted: 2, lines_in_memory: 3, batch: 2 };
    let (mut outcomes, mut invocations) = (Vec::new(), Vec::new());
    let teams = ["a", "b", "c", "d", "e", "f", "g"];
    for number in 0..25 {
        let team = teams[number as usize % teams.len()];
        world.event(DAY, number, team, 100 + number, "0.01");
        if number < 9 {
            world.event("2026-11-18", 100 + number, team, 10 * number, "0.001");
        }
    }
    // Settled after midnight: the next day may be billed for it.
    world.event("2026-11-19", 200, "h", 50, "0.02");
    let late = Date::parse(DAY).unwrap().midnight().ms() + 1;
    world.edge.0.lock().unwrap().events.get_mut("2026-11-19").unwrap()[0]["settled_at"] =
        json!(late);
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,3000,0.3\n").await;
    world.drop("groq/1", "2026-11-17,2026-11-20,x,in,400,0.04\n").await;
    let (report, took) = night(&world, &mut cuts).await;
    assert_eq!(report.missing, BTreeMap::new());
    outcomes.push(outcome(&world, report).await);
    invocations.push(took);

    world.forget_events(DAY);
    for number in 0..25 {
        let team = teams[number as usize % 3];
        world.event(DAY, number, team, 100 + number, "0.011");
    }
    world.drop("google/2", "2026-11-18,2026-11-18,m,in,360,0.5\n").await;
    world
        .drop(
            "google/3",
            "2026-11-20,2026-11-20,n,in,7,0.0000001\n2026-11-20,2026-11-20,m,in,1,2\n",
        )
        .await;
    world.watch.now_ms.fetch_add(DAY_MS / 24, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..2 {
        let (report, took) = night(&world, &mut cuts).await;
        assert_eq!(report.missing, BTreeMap::new());
        outcomes.push(outcome(&world, report).await);
        invocations.push(took);
    }
    (outcomes, invocations)
}

#[tokio::test]
async fn a_night_that_is_cut_anywhere_gives_what_an_uncut_one_gives() {
    let (whole, once) = nights(Cuts::Never).await;
    assert_eq!(once, [1, 1, 1]);
    let [first, second, third] = &whole[..] else { panic!("three nights") };
    assert!(first.report.rows_written > 8 && second.report.rows_written > 8, "{first:?}");
    assert!(second.books.iter().any(|row| row.cause == "bill_changed"));
    assert!(second.books.len() > first.books.len() && third.books == second.books);
    assert_eq!(third.report.rows_written, 0);
    let every = [0, 1, 3, 8, 30].into_iter().map(Cuts::Every);
    for cuts in every.chain((1..3).map(Cuts::Random)) {
        let (outcomes, invocations) = nights(cuts).await;
        for (cut, whole) in outcomes.iter().zip(&whole) {
            assert_eq!(cut.report, whole.report, "{cuts:?}");
            assert_eq!(cut, whole, "{cuts:?}");
        }
        if matches!(cuts, Cuts::Every(0..=3)) {
            assert!(invocations.iter().all(|took| *took > 3), "{cuts:?}: {invocations:?}");
        }
    }
}

#[tokio::test]
async fn sums_that_are_gone_are_made_again() {
    let mut world = World::new(4).await;
    world.steps = Steps { part_events: 4, parts_noted: 2, lines_in_memory: 3, batch: 2 };
    for number in 0..25 {
        world.event(DAY, number, if number % 2 == 0 { "a" } else { "b" }, 100, "0.01");
    }
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,2500,0.25\n").await;
    let mut cuts = Cuts::Every(0);
    for _ in 0..9 {
        *world.watch.questions.lock().unwrap() = cuts.next();
        assert_eq!(world.invoke(None).await.0, Ended::More);
    }
    let sorted = world.directory.path().join("books/objects/sorted");
    let mut found = 0;
    let mut open = vec![sorted];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found += 1;
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    assert!(found > 3, "{found} kept objects");
    let (report, _) = night(&world, &mut Cuts::Never).await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(report.providers["google"].difference(), Some(tallygate_shared::money::Usd::ZERO));
    assert_eq!(world.rows(DAY, "google").await.len(), 2);
}
