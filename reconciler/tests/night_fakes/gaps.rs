//! Bills with gaps: a source that fails, a file that waits, a bill that is late, or gone, or comes when its days are past.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tallygate_reconciler::config::Source;
use tallygate_reconciler::connectors::openai::UsageKind;
use tallygate_reconciler::ledger::Revision;
use tallygate_reconciler::night::run::Again;
use tallygate_shared::money::Usd;
use tallygate_shared::time::DAY_MS;

use crate::world::{DAY, World};

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// How the last run ended, as the edge heard it.
fn ended(world: &World) -> String {
    world.edge.0.lock().unwrap().runs.values().next_back().unwrap().clone()
}

#[tokio::test]
async fn a_new_day_waits_for_its_whole_bill_while_one_of_two_accounts_cannot_be_asked() {
    let mut world = World::new(2).await;
    let (a, b) = (world.openai("org-a").await, world.openai("org-b").await);
    world.event_at("oa", DAY, 1, "a", 100, "0.01");
    world.event_at("ob", DAY, 2, "b", 100, "0.02");
    a.bills(DAY, "0.03");
    b.bills(DAY, "0.02");
    // A file adds to what they say, and is not all of it either.
    world.drop("openai/tax", "2026-11-20,2026-11-20,m,in,1,0.001\n").await;
    a.is_down(true);
    let report = world.night().await;
    assert_eq!(report.missing.len(), 1, "{:?}", report.missing);
    assert!(report.missing.keys().all(|what| what.ends_with("org-a")), "{:?}", report.missing);
    let rows = world.rows(DAY, "openai").await;
    assert!(rows.len() == 2 && rows.iter().all(|row| row.content.billed.is_none()), "{rows:?}");
    assert_eq!(world.corrections(), Vec::<String>::new());
    assert_eq!(report.providers["openai"].unbilled_rows, 2);
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
    a.is_down(false);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.051"));
    // What is booked stays while the other account cannot be asked.
    let before = world.rows(DAY, "openai").await;
    b.is_down(true);
    a.bills(DAY, "0.04");
    let report = world.night().await;
    assert_eq!(world.rows(DAY, "openai").await, before);
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
    b.is_down(false);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.061"));
}

#[tokio::test]
async fn a_file_that_waits_for_a_person_keeps_the_books_of_its_provider() {
    let mut world = World::new(3).await;
    let openai = world.openai("org-a").await;
    world.event_at("gq", DAY, 1, "a", 100, "0.01");
    world.drop("groq/1", "2026-11-20,2026-11-20,m,in,100,0.03\n").await;
    world.night().await;
    let (before, told) = (world.rows(DAY, "groq").await, world.corrections());
    assert_eq!((world.billed("groq").await, told.len()), (usd("0.03"), 1));
    // Somebody writes it anew with a slip; another provider's bill comes, and a new day of both.
    world.overwrite(
        "groq/1",
        "2026-11-20,2026-11-20,m,in,100,o.04\n2026-11-19,2026-11-19,m,in,1,1\n",
    );
    world.drop("google/1", "2026-11-20,2026-11-20,m,in,100,0.05\n").await;
    world.event_at("gq", "2026-11-19", 2, "a", 100, "0.01");
    world.event_at("oa", "2026-11-19", 3, "a", 100, "0.01");
    openai.bills("2026-11-19", "0.02");
    world.drop("openai/tax", "2026-11-19,2026-11-19,m,in,1,oops\n").await;
    let report = world.night().await;
    assert_eq!(report.held.len(), 2, "{:?}", report.held);
    assert!(report.held[0].contains("groq/1.csv"), "{:?}", report.held);
    assert_eq!(ended(&world), "partial");
    assert_eq!(world.rows(DAY, "groq").await, before);
    assert!(world.corrections().contains(&told[0]));
    let [new] = &world.rows("2026-11-19", "groq").await[..] else { panic!("one row") };
    assert_eq!(new.content.billed, None, "its bill is in the file that waits");
    for provider in ["google", "groq", "openai"] {
        assert_eq!(report.providers[provider].difference(), Some(Usd::ZERO), "{provider}");
    }
    assert_eq!(world.billed("google").await, usd("0.05"));
    assert_eq!(world.billed("openai").await, usd("0.02"), "it has a source of its own");
    world.overwrite(
        "groq/1",
        "2026-11-20,2026-11-20,m,in,100,0.04\n2026-11-19,2026-11-19,m,in,1,1\n",
    );
    world.overwrite("openai/tax", "2026-11-19,2026-11-19,m,in,1,0.001\n");
    let report = world.night().await;
    assert_eq!((report.missing, report.held), (BTreeMap::new(), Vec::new()));
    assert_eq!(world.billed("groq").await, usd("1.04"));
    assert_eq!(world.billed("openai").await, usd("0.021"));
    // Now that a file's part is booked, it is kept while the file waits.
    world.overwrite("openai/tax", "2026-11-19,2026-11-19,m,in,1,oops\n");
    world.night().await;
    assert_eq!(world.billed("openai").await, usd("0.021"));
}

#[tokio::test]
async fn what_files_charge_before_the_look_back_is_missing_until_it_is_booked() {
    let mut world = World::new(3).await;
    let openai = world.openai("org-a").await;
    for day in 16..=20 {
        openai.bills(&format!("2026-11-{day}"), "0.01");
    }
    world.event_at("oa", "2026-11-16", 1, "a", 100, "0.01");
    assert_eq!(world.run(Some(("2026-11-16", "2026-11-17"))).await.missing, BTreeMap::new());
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.05"));
    // An invoice that begins before the look-back, and one that ended long ago.
    world.drop("openai/1", "2026-11-15,2026-11-19,m,in,1,0.4\n").await;
    world
        .drop("groq/1", "2026-11-01,2026-11-02,m,in,5,0.25\n2026-11-04,2026-11-04,m,in,5,0.5\n")
        .await;
    openai.bills("2026-11-15", "0.01");
    for _ in 0..2 {
        let report = world.night().await;
        assert_eq!(report.missing.len(), 2, "{:?}", report.missing);
        let openai = &report.missing["openai before 2026-11-18"];
        assert!(openai.contains("--from 2026-11-15 --to 2026-11-17"), "{openai}");
        let groq = &report.missing["groq before 2026-11-18"];
        assert!(groq.starts_with("$0.75 "), "{groq}");
        assert!(groq.ends_with("backfill --from 2026-11-01 --to 2026-11-04"), "{groq}");
        assert_eq!(ended(&world), "partial");
    }
    let report = world.run(Some(("2026-11-15", "2026-11-17"))).await;
    assert_eq!(report.missing.into_keys().collect::<Vec<_>>(), ["groq before 2026-11-15"]);
    assert_eq!(
        world.night().await.missing.into_keys().collect::<Vec<_>>(),
        ["groq before 2026-11-18"]
    );
    assert_eq!(world.billed("openai").await, usd("0.46"));
    let report = world.run(Some(("2026-11-01", "2026-11-04"))).await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(ended(&world), "complete");
    assert_eq!(world.billed("groq").await, usd("0.75"));
    // A file that corrects a day which is past is not taken for the one that was booked.
    world.overwrite(
        "groq/1",
        "2026-11-01,2026-11-02,m,in,5,0.2\n2026-11-04,2026-11-04,m,in,5,0.5\n",
    );
    let report = world.night().await;
    let groq = &report.missing["groq before 2026-11-18"];
    assert!(groq.starts_with("$-0.05 ") && groq.contains("--to 2026-11-02"), "{groq}");
}

#[tokio::test]
async fn a_day_of_use_that_its_source_does_not_bill_is_late() {
    let mut world = World::new(2).await;
    let openai = world.openai("org-a").await;
    world.event_at("oa", DAY, 1, "a", 100, "0.01");
    // Of a provider without a source of its own nobody knows when a file comes.
    world.event(DAY, 2, "a", 100, "0.01");
    let report = world.night().await;
    let [(what, why)] = &report.missing.into_iter().collect::<Vec<_>>()[..] else { panic!("one") };
    assert!(what == "the late bill of openai" && why.ends_with(": 2026-11-20"), "{what}: {why}");
    assert_eq!(ended(&world), "partial");
    openai.bills(DAY, "0.01");
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(ended(&world), "complete");
}

#[tokio::test]
async fn a_day_waits_for_an_account_that_was_used_and_has_no_charge_yet() {
    let mut world = World::new(4).await;
    let (a, b) = (world.openai("org-a").await, world.openai("org-b").await);
    let other = "2026-11-19";
    for (number, day) in [DAY, other].into_iter().enumerate() {
        world.event_at("ob", day, number as u64, "b", 100, "0.02");
        b.bills(day, "0.02");
    }
    world.event_at("oa", DAY, 9, "a", 100, "0.01");
    let report = world.night().await;
    assert!(report.missing["the late bill of openai"].ends_with(": 2026-11-20"));
    assert_eq!(report.missing.len(), 1);
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
    assert_eq!(world.corrections(), Vec::<String>::new());
    let of = |rows: Vec<Revision>| rows.iter().map(|row| row.content.billed).collect::<Vec<_>>();
    assert_eq!(of(world.rows(DAY, "openai").await), [None, None]);
    assert_eq!(of(world.rows(other, "openai").await), [Some(usd("0.02"))], "nobody used the other");
    a.bills(DAY, "0.03");
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.07"));
    // It is gone again, and the books stay, until two nights have not brought it back.
    a.forgets(DAY);
    let report = world.night().await;
    assert!(report.missing["the late bill of openai"].ends_with(": 2026-11-20"));
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
    assert_eq!((world.billed("openai").await, report.rows_written), (usd("0.07"), 0));
    world.watch.now_ms.fetch_add(2 * DAY_MS, Ordering::SeqCst);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.04"));
}

#[tokio::test]
async fn a_bill_that_vanishes_leaves_the_books_until_a_line_of_nothing_takes_it_back() {
    let mut world = World::new(2).await;
    let openai = world.openai("org-a").await;
    world.event_at("oa", DAY, 1, "a", 100, "0.01");
    openai.bills(DAY, "0.03");
    world.drop("groq/1", "2026-11-19,2026-11-19,m,in,5,0.25\n").await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (before, told) = (world.rows(DAY, "openai").await, world.corrections());
    openai.forgets(DAY);
    world.overwrite("groq/1", "");
    let check = |report: tallygate_reconciler::report::WorkspaceReport| {
        let missing = &report.missing;
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing["the vanished bill of openai"].ends_with(": 2026-11-20"), "{missing:?}");
        assert!(missing["the vanished bill of groq"].ends_with(": 2026-11-19"), "{missing:?}");
        assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
        assert_eq!(report.rows_written, 0);
    };
    check(world.night().await);
    // The same when its source is no longer there.
    world.config.workspaces[0].sources.pop();
    check(world.night().await);
    assert_eq!((world.rows(DAY, "openai").await, world.corrections()), (before, told));
    world.drop("openai/nothing", "2026-11-20,2026-11-20,m,in,1,0\n").await;
    world.overwrite("groq/1", "2026-11-19,2026-11-19,m,in,0,0\n");
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!((world.billed("openai").await, world.billed("groq").await), (Usd::ZERO, Usd::ZERO));
}

#[tokio::test]
async fn what_is_measured_warns_of_a_leaked_key_before_there_is_a_bill() {
    let mut world = World::new(1).await;
    let openai = world.openai("org-a").await;
    openai.0.lock().unwrap().tokens = 100_000;
    let Some(Source::Openai(settings)) = world.config.workspaces[0].sources.last_mut() else {
        panic!("the source")
    };
    settings.usage = vec![UsageKind::Completions];
    world.event_at("oa", DAY, 1, "a", 100, "0.01");
    world.night().await;
    let alerts = world.edge.0.lock().unwrap().alerts.clone();
    assert!(
        alerts.iter().any(|(name, open)| name.starts_with("unmetered_usage ") && *open),
        "{alerts:?}"
    );
    assert_eq!(world.billed("openai").await, Usd::ZERO);
}

#[tokio::test]
async fn what_a_provider_moves_to_another_day_is_booked_once() {
    let mut world = World::new(4).await;
    let openai = world.openai("org-a").await;
    world.event_at("oa", "2026-11-17", 1, "a", 100, "0.01");
    openai.bills("2026-11-17", "12");
    openai.bills("2026-11-18", "1");
    world.drop("openai/tax", "2026-11-17,2026-11-17,m,in,1,0.5\n").await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    openai.forgets("2026-11-17");
    openai.bills("2026-11-18", "13");
    // A day that nobody used and one that is used anew: nothing is charged for either.
    world.event_at("oa", "2026-11-18", 3, "a", 100, "0.01");
    let report = world.night().await;
    assert_eq!(report.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("13.5"));
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
    world.overwrite("openai/tax", "");
    let report = world.night().await;
    assert_eq!((report.missing, world.billed("openai").await), (BTreeMap::new(), usd("13")));
    let rows = world.rows("2026-11-17", "openai").await;
    let used = rows.iter().find(|row| row.content.estimated != Usd::ZERO).unwrap();
    assert_eq!(used.content.billed, Some(Usd::ZERO), "{rows:?}");
    assert_eq!(report.providers["openai"].unbilled_rows, 0);
    assert_eq!(world.night().await.days_settled, 0);
    // What the day says when its grace is over is said then, without any other news.
    world.event_at("oa", "2026-11-19", 4, "a", 100, "0.01");
    assert!(world.night().await.missing.contains_key("the late bill of openai"));
    world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.rows("2026-11-19", "openai").await[0].content.billed, Some(Usd::ZERO));
}

#[tokio::test]
async fn a_file_does_not_stand_for_the_bill_of_a_source_that_is_gone() {
    let mut world = World::new(2).await;
    let openai = world.openai("org-a").await;
    world.event_at("oa", DAY, 1, "a", 100, "0.01");
    openai.bills(DAY, "0.03");
    world.drop("openai/tax", "2026-11-20,2026-11-20,m,in,1,0.5\n").await;
    world.drop("openai/fee", "2026-11-19,2026-11-19,m,in,1,0.25\n").await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.78"));
    let before = world.rows(DAY, "openai").await;
    world.config.workspaces[0].sources.pop();
    world.overwrite("openai/fee", "2026-11-19,2026-11-19,m,in,1,0.2\n");
    let report = world.night().await;
    let [(what, why)] = &report.missing.iter().collect::<Vec<_>>()[..] else { panic!("one") };
    // The day that only the file charges for is the file's alone.
    assert!(*what == "the vanished bill of openai" && why.ends_with(": 2026-11-20"), "{why}");
    assert_eq!(world.rows(DAY, "openai").await, before);
    assert_eq!(world.billed("openai").await, usd("0.73"));
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
    world.drop("openai/nothing", "2026-11-20,2026-11-20,m,in,1,0\n").await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.7"));
}

#[tokio::test]
async fn marks_that_do_not_note_what_files_charge_are_believed_by_their_books() {
    let world = World::new(3).await;
    world.drop("groq/1", "2026-11-01,2026-11-02,m,in,5,0.25\n").await;
    world.drop("google/1", "2026-11-02,2026-11-02,m,in,5,0.5\n").await;
    assert_eq!(world.run(Some(("2026-11-01", "2026-11-02"))).await.missing, BTreeMap::new());
    for day in ["2026-11-01", "2026-11-02"] {
        let name = format!("day#ws_a#{day}");
        let now = world.ledger.mark(&name).await.unwrap().unwrap();
        let mut before: serde_json::Value = serde_json::from_str(&now).unwrap();
        assert!(before.as_object_mut().unwrap().remove("filed").is_some(), "{now}");
        assert!(world.ledger.set_mark(&name, Some(&now), &before.to_string()).await.unwrap());
    }
    assert_eq!(world.night().await.missing, BTreeMap::new());
    // What those books do not have at all is missing.
    world.drop("google/2", "2026-11-01,2026-11-01,m,in,5,0.125\n").await;
    let report = world.night().await;
    let [(what, why)] = &report.missing.iter().collect::<Vec<_>>()[..] else { panic!("one") };
    assert!(*what == "google before 2026-11-18" && why.starts_with("$0.125 "), "{what}: {why}");
}

#[tokio::test]
async fn the_next_slot_asks_for_a_late_bill_again() {
    let mut world = World::new(2).await;
    let (a, b) = (world.openai("org-a").await, world.openai("org-b").await);
    world.again = Again::IfPartial;
    world.event_at("oa", DAY, 1, "a", 100, "0.01");
    // Of an account without a source nobody says that its bill is late.
    world.event_at("gq", DAY, 2, "a", 100, "0.01");
    assert!(world.night().await.missing.contains_key("the late bill of openai"));
    a.bills(DAY, "0.03");
    b.bills(DAY, "0.01");
    assert_eq!(world.night().await.missing, BTreeMap::new());
    assert_eq!(world.billed("openai").await, usd("0.04"));
}

#[tokio::test]
async fn a_bill_is_late_only_of_accounts_whose_source_answers() {
    let mut world = World::new(2).await;
    let a = world.openai("org-a").await;
    world.event_at("ob", DAY, 1, "b", 100, "0.02");
    assert_eq!(world.night().await.missing, BTreeMap::new());
    world.event_at("oa", DAY, 2, "a", 100, "0.02");
    assert!(world.night().await.missing.contains_key("the late bill of openai"));
    // Nor does the other's source say that its use is free.
    a.bills("2026-11-19", "0.01");
    world.watch.now_ms.fetch_add(DAY_MS + DAY_MS / 2, Ordering::SeqCst);
    world.config.lookback_days = 4;
    world.night().await;
    let billed =
        |rows: Vec<Revision>| rows.iter().map(|row| row.content.billed).collect::<Vec<_>>();
    assert_eq!(billed(world.rows(DAY, "openai").await), [None, None]);
    world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
    let report = world.night().await;
    assert_eq!(billed(world.rows(DAY, "openai").await), [None, None]);
    assert_eq!(report.providers["openai"].difference(), Some(Usd::ZERO));
}
