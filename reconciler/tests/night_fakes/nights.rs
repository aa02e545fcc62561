//! Single nights, and what a live gateway never does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tallygate_reconciler::bill::Quantity;
use tallygate_reconciler::ports::Appended;
use tallygate_shared::money::Usd;
use tallygate_shared::time::DAY_MS;
use tokio::sync::Notify;

use crate::world::{DAY, World};

#[tokio::test]
async fn what_could_not_be_taken_back_at_once_is_taken_back_later() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,3\n").await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    let ends = || world.edge.0.lock().unwrap().runs.values().cloned().collect::<Vec<_>>();
    assert_eq!(ends(), ["complete"]);
    let [correction] = &world.corrections()[..] else { panic!("{:?}", world.corrections()) };
    assert!(correction.contains("\"a\"") && correction.ends_with("2.99"), "{correction}");
    assert!(world.alert("bill_variance google:2026-11-20"));
    // The request was another team's and rated as it is billed, and the edge does not listen that night.
    world.forget_events(DAY);
    world.event(DAY, 1, "b", 100, "3");
    world.refuse(&["budget-corrections"]);
    let report = world.night().await;
    assert!(report.missing.keys().any(|what| what.starts_with("feedback of 2026-11-20")));
    assert!(world.alert("bill_variance google:2026-11-20"));
    assert_eq!(ends(), ["partial"]);
    world.refuse(&[]);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.corrections(), Vec::<String>::new());
    assert!(!world.alert("bill_variance google:2026-11-20"));
    assert_eq!(world.night().await.days_settled, 0);
}

#[tokio::test]
async fn what_a_killed_worker_said_is_taken_back() {
    let world = World::new(3).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.03\n").await;
    // It is killed when budgets are corrected, and before it hears so.
    let called = Arc::new(Notify::new());
    world.edge.0.lock().unwrap().silent = Some(("budget-corrections", called.clone()));
    tokio::select! {
        report = world.night() => panic!("{report:?}"),
        () = called.notified() => {}
    }
    assert!(world.corrections()[0].contains("\"a\""), "{:?}", world.corrections());
    // Nobody takes this run up. On the next day the request turns out to be another team's.
    world.edge.0.lock().unwrap().silent = None;
    world.forget_events(DAY);
    world.event(DAY, 1, "b", 100, "0.01");
    world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let [correction] = &world.corrections()[..] else { panic!("{:?}", world.corrections()) };
    assert!(correction.contains("\"b\""), "{correction}");
}

#[tokio::test]
async fn books_stay_when_the_inbox_cannot_be_had_and_new_days_wait_for_their_bill() {
    let world = World::new(3).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world
        .drop(
            "google/1",
            "2026-11-20,2026-11-20,m,in,100,0.03\n2026-11-21,2026-11-21,m,in,50,0.02\n",
        )
        .await;
    world.night().await;
    let before = world.rows(DAY, "google").await;
    world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    world.event("2026-11-21", 2, "a", 50, "0.005");
    world.off.store(true, Ordering::SeqCst);
    let report = world.night().await;
    assert!(report.missing["inbox"].contains("switched off"), "{:?}", report.missing);
    assert_eq!(world.rows(DAY, "google").await, before);
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(report.providers["google"].unbilled_rows, 1, "the new day is estimated");
    world.off.store(false, Ordering::SeqCst);
    let report = world.night().await;
    assert_eq!((report.missing, report.providers["google"].unbilled_rows), (BTreeMap::new(), 0));
    assert_eq!(world.billed("google").await, "0.05".parse().unwrap());
    assert_eq!(world.night().await.rows_written, 0);
}

#[tokio::test]
async fn the_same_bill_in_another_pull_writes_nothing_and_a_cause_is_the_true_one() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.event(DAY, 2, "b", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,200,0.02\n").await;
    assert_eq!(world.night().await.rows_written, 2);
    // Another provider's file makes another pull, and late requests have the day settled anew.
    world.drop("groq/1", "2026-11-20,2026-11-20,x,in,5,0.001\n").await;
    world.event(DAY, 3, "c", 200, "0.02");
    world.night().await;
    let rows = world.rows(DAY, "google").await;
    assert_eq!(rows.iter().map(|row| row.cause.as_str()).collect::<BTreeSet<_>>().len(), 2);
    for row in rows {
        let first = row.line.owner["team"] == "c";
        assert_eq!(row.cause, if first { "first" } else { "usage_changed" }, "{:?}", row.line);
    }
    // A backfill of the day alone is yet another pull, and says the same.
    let report = world.run(Some((DAY, DAY))).await;
    assert_eq!(
        (report.rows_written, report.providers["google"].billed),
        (0, "0.02".parse().unwrap())
    );
}

#[tokio::test]
async fn what_an_overtaken_worker_wrote_later_is_found_and_withdrawn() {
    let world = World::new(1).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.night().await;
    assert_eq!(world.night().await.days_unchanged, 1);
    // A line that the newer pull does not have, from a pull before it.
    let mut stray = world.rows(DAY, "google").await[0].clone();
    stray.line.owner.insert("team".into(), "ghost".into());
    stray.seq = 0;
    assert_eq!(world.ledger.append(&stray).await.unwrap(), Appended::Written(1));
    let report = world.night().await;
    assert_eq!((report.days_settled, report.rows_written), (1, 1));
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(world.night().await.days_settled, 0);
}

#[tokio::test]
async fn a_long_charge_adds_up_over_days_outside_of_the_look_back_and_over_two_months() {
    let world = World::new(3).await;
    for (number, day) in ["2026-10-30", "2026-11-02", "2026-11-19"].into_iter().enumerate() {
        world.event(day, number as u64, "a", 100, "0.01");
    }
    // It reaches from October into the look-back; a fee lies on one of its days outside.
    world.drop("google/1", "2026-10-25,2026-11-20,m,in,1000,0.1000000001\n").await;
    world.drop("google/2", "2026-11-02,2026-11-02,m,in,10,0.5\n").await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    let whole: Usd = "0.6000000001".parse().unwrap();
    assert_eq!(world.billed("google").await, whole);
    // Late use moves shares between days, and not a digit is lost or counted twice.
    world.event("2026-11-20", 9, "b", 700, "0.07");
    let report = world.night().await;
    assert!(report.rows_written > 0, "{report:?}");
    assert_eq!(world.billed("google").await, whole);
    assert_eq!(world.night().await.rows_written, 0);
}

#[tokio::test]
async fn one_bill_that_cannot_be_settled_stops_no_other() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    // Longer than any invoice.
    world.drop("groq/1", "2024-01-01,2026-11-20,x,in,5,0.001\n").await;
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    let report = world.night().await;
    let (what, why) = report.missing.first_key_value().unwrap();
    assert!(what.contains("groq") && why.contains("400 days"), "{what}: {why}");
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(world.billed("google").await, "0.01".parse().unwrap());
    assert_eq!(world.billed("groq").await, Usd::ZERO);
}

#[tokio::test]
async fn an_edge_that_does_not_export_a_day_is_said_and_the_day_taken_up() {
    let world = World::new(2).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.refuse(&["events"]);
    let report = world.night().await;
    assert!(report.missing.contains_key("events of 2026-11-20"), "{:?}", report.missing);
    // A bill without books is no agreement.
    assert_eq!(report.providers["google"].difference(), Some("-0.01".parse().unwrap()));
    assert!(world.alert("reconciliation_incomplete ws_a"));
    world.refuse(&[]);
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert!(!world.alert("reconciliation_incomplete ws_a"));
    assert!(world.directory.path().exists());
    let row = &world.rows(DAY, "google").await[0];
    assert_eq!(row.content.billed_quantity, Some(Quantity::whole(100)));
}

/// What an export says was billed, by file of charges.
async fn exported(world: &World, month: &str) -> Usd {
    let made = world.export(month).await;
    let mut sum = Usd::ZERO;
    for part in made.parts.iter().filter(|part| part.key.contains("focus_1_4_csv/cost_and_usage")) {
        let mut rows = csv::Reader::from_path(&part.path).unwrap();
        let at = rows.headers().unwrap().iter().position(|name| name == "BilledCost").unwrap();
        for row in rows.records() {
            sum = sum.checked_add(row.unwrap()[at].parse().unwrap()).unwrap();
        }
    }
    sum
}

#[tokio::test]
async fn a_closed_month_changes_by_correction_in_the_open_one_only() {
    let world = World::new(20).await;
    let usd = |text: &str| text.parse::<Usd>().unwrap();
    world.event(DAY, 1, "a", 100, "0.01");
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.01\n").await;
    world.night().await;
    assert_eq!(exported(&world, "2026-11").await, usd("0.01"));
    world.close("2026-11").await;
    // In December the bill of November grows, by more for what there was and by a model that was not there.
    world.watch.now_ms.fetch_add(12 * DAY_MS, Ordering::SeqCst);
    world
        .drop(
            "google/2",
            "2026-11-20,2026-11-20,m,in,0,0.002\n2026-11-20,2026-11-20,n,in,7,0.0005\n",
        )
        .await;
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(report.providers["google"].difference(), Some(Usd::ZERO));
    assert_eq!(world.billed("google").await, usd("0.0125"));
    let corrected: Vec<_> = world.rows(DAY, "google").await;
    assert!(
        corrected.iter().all(|row| {
            row.cause == "correction" && row.booked_in.as_deref() == Some("2026-12")
        })
    );
    assert_eq!(exported(&world, "2026-11").await, usd("0.01"), "it is closed");
    assert_eq!(
        exported(&world, "2026-12").await,
        usd("0.0025"),
        "what was taken back and stated anew"
    );
    assert_eq!(world.night().await.rows_written, 0);
}
