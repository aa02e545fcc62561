//! Runs that are taken up under other circumstances than they were begun in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tallygate_reconciler::app::{App, SystemClock};
use tallygate_reconciler::connectors::http::Patience;
use tallygate_reconciler::night::run::{Again, Ended};
use tallygate_reconciler::stores::local;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Timestamp};

use crate::world::{DAY, World};

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// Four days of a look-back with a bill for each.
async fn four_days() -> World {
    let world = World::new(4).await;
    for day in 17..=20 {
        world.event(&format!("2026-11-{day}"), day, "a", 100, "0.01");
        let row = format!("2026-11-{day},2026-11-{day},m,in,100,0.02\n");
        world.drop(&format!("google/{day}"), &row).await;
    }
    world
}

#[tokio::test]
async fn a_run_that_is_taken_up_with_other_days_asks_for_their_bills() {
    let mut world = four_days().await;
    world.night().await;
    assert_eq!(world.billed("google").await, usd("0.08"));
    // A run of the last day alone ends after its pull, and all days are asked for.
    world.config.lookback_days = 1;
    *world.watch.questions.lock().unwrap() = Some(0);
    assert_eq!(world.invoke(None).await.0, Ended::More);
    world.config.lookback_days = 4;
    *world.watch.questions.lock().unwrap() = None;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    let google = report.providers["google"];
    assert_eq!((google.billed, google.unbilled_rows), (usd("0.08"), 0));
    assert_eq!(world.billed("google").await, usd("0.08"), "no day lost its bill");
}

#[tokio::test]
async fn a_whole_run_of_other_days_does_not_stand_for_these() {
    let mut world = four_days().await;
    world.again = Again::IfPartial;
    world.config.lookback_days = 1;
    assert_eq!(world.night().await.providers["google"].billed, usd("0.02"));
    world.config.lookback_days = 4;
    assert_eq!(world.night().await.providers["google"].billed, usd("0.08"));
    assert_eq!(world.invoke(None).await.0, Ended::Before, "of these it does");
}

#[tokio::test]
async fn the_edge_listens_to_books_that_begin_anew() {
    let mut world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.03\n").await;
    let before = world.night().await.seq;
    assert_eq!(world.night().await.seq, before + 1, "two pulls of one moment are two");
    world.drop("google/2", "2026-11-20,2026-11-20,m,in,0,0.07\n").await;
    world.night().await;
    let (ledger, _) = local::open(&world.directory.path().join("new-books")).await.unwrap();
    world.ledger = Arc::new(ledger);
    world.watch.now_ms.fetch_add(DAY_MS / 24, Ordering::SeqCst);
    world.drop("google/3", "2026-11-20,2026-11-20,m,in,0,0.5\n").await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    let told = world.edge.0.lock().unwrap().true_ups.clone();
    let billed = told.values().filter_map(|(_, billed)| Some(usd(billed.as_deref()?)));
    let sum = billed.fold(Usd::ZERO, |sum, one| sum.checked_add(one).unwrap());
    assert_eq!(sum, usd("0.6"));
    let [correction] = &world.corrections()[..] else { panic!("{:?}", world.corrections()) };
    assert!(correction.ends_with(" 0.59"), "{correction}");
    // A clock that is put back brings no pull before those that were made.
    world.watch.now_ms.fetch_sub(DAY_MS / 24, Ordering::SeqCst);
    assert_eq!(world.night().await.seq, report.seq + 1);
}

#[tokio::test]
async fn a_month_is_closed_once_it_is_over() {
    let world = World::new(2).await;
    let close = async |now: &str| {
        let app = App {
            config: world.config.clone(),
            objects: world.objects.clone(),
            ledger: world.ledger.clone(),
            clock: SystemClock::showing(Timestamp::parse(now).unwrap()),
            patience: Patience { retries: 0, first_wait: Duration::from_millis(1) },
        };
        app.close("ws_a", "2026-11").await
    };
    let refused = close("2026-11-30T23:00:00Z").await.unwrap_err().to_string();
    assert_eq!(refused, "2026-11 is not over: close it from 2026-12-01 on (UTC)");
    assert!(close("2026-12-01T00:00:00Z").await.unwrap(), "nothing was closed before");
    assert!(!close("2026-12-01T00:00:00Z").await.unwrap());
}

#[tokio::test]
async fn corrections_are_booked_in_a_month_that_is_open() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.night().await;
    // A clock that was wrong closed them.
    for month in ["2026-11", "2026-12"] {
        let name = tallygate_reconciler::night::run::month_mark("ws_a", month);
        assert!(world.ledger.set_mark(&name, None, "closed").await.unwrap());
    }
    world.drop("google/2", "2026-11-20,2026-11-20,m,in,0,0.002\n").await;
    assert!(world.night().await.rows_written > 0);
    let [row] = &world.rows(DAY, "google").await[..] else { panic!("one line") };
    assert_eq!(row.booked_in.as_deref(), Some("2027-01"));
}
