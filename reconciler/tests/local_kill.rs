//! Two writers on local disk are killed at any moment, many times: what they said was written is there, and nothing is
//! torn.
//!
//! The test runs its own binary again as the writers, which say on their standard output what they were told is written.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tallygate_reconciler::bill::{ChargeKind, Meter, Quantity};
use tallygate_reconciler::ledger::{Content, LineId, Revision, UnitId};
use tallygate_reconciler::ports::{Appended, LedgerStore, ObjectStore};
use tallygate_reconciler::stores::local;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

const DIRECTORY: &str = "TALLYGATE_TEST_KILL_DIRECTORY";
const DAY: Date = Date { year: 2026, month: 11, day: 20 };
const KILLS: u64 = 60;
const LINES: u64 = 5;
const SIZE: usize = 4 * 1024 * 1024;

fn unit() -> UnitId {
    UnitId { workspace: "ws".into(), day: DAY.to_string(), provider: "openai".into() }
}

fn row(number: u64) -> Revision {
    Revision {
        unit: unit(),
        line: LineId {
            account: "org".into(),
            model: format!("m{}", number % LINES),
            meter: Meter::Whole,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner: BTreeMap::new(),
        },
        rev: 0,
        seq: number,
        cause: "bill_changed".into(),
        run: "night".into(),
        booked_in: None,
        content: Content {
            estimated: Usd::from_pico(0),
            metered: Quantity::default(),
            requests: number,
            billed: None,
            billed_quantity: None,
            quantity_variance: Usd::from_pico(0),
            price_variance: Usd::from_pico(0),
            provisional: false,
            price_version: String::new(),
            // Large enough for a row to spread over pages of the file.
            source: "s".repeat(6000),
            method: "direct".into(),
        },
    }
}

/// Large enough for a kill to fall into its writing.
fn page(number: u64) -> Bytes {
    Bytes::from(format!("{number:08}").repeat(SIZE / 8))
}

/// The writer. Does nothing in an ordinary run of the tests.
#[tokio::test]
async fn writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (ledger, objects) = local::open(Path::new(&directory)).await.unwrap();
    // Ends the line that the test's name is on.
    println!();
    loop {
        let number = ledger.next_number("pull", 0).await.unwrap();
        println!("number {number}");
        objects.put_once(&format!("pages/{number}"), page(number)).await.unwrap();
        println!("kept {number}");
        let appended = ledger.append(&row(number)).await.unwrap();
        match appended {
            Appended::Written(rev) => println!("row {number} {rev}"),
            // The other writer was quicker with a later number.
            Appended::Stale(newer) if newer > number => {}
            other => panic!("{other:?}"),
        }
    }
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a writer said before it was killed: the last line may be half.
fn killed_after(mut child: Child, delay: Duration) -> Vec<String> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // From its first sign of life on, so that kills fall on its work and not on its start.
    let mut said: Vec<String> = Vec::new();
    for line in lines.by_ref() {
        said.push(line.unwrap());
        if said.last().is_some_and(|line| line.starts_with("number")) {
            break;
        }
    }
    std::thread::sleep(delay);
    // SIGKILL, on Unix.
    child.kill().unwrap();
    child.wait().unwrap();
    said.extend(lines.map_while(Result::ok));
    said
}

#[tokio::test]
async fn nothing_is_lost_or_torn() {
    let directory = tempfile::tempdir().unwrap();
    let (mut numbers, mut rows, mut pages) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for kill in 0..KILLS {
        // Spread over several rounds of the writer's work, without a pattern that its work could fall in step with.
        let delay = Duration::from_micros((kill * 7919) % 40_000);
        let writers = [start(directory.path()), start(directory.path())];
        for line in writers.into_iter().flat_map(|writer| killed_after(writer, delay)) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            match (words.first(), number(1), words.len()) {
                (Some(&"number"), Some(number), 2) => {
                    assert!(numbers.insert(number), "{number} was given twice");
                }
                (Some(&"kept"), Some(number), 2) => {
                    pages.insert(number);
                }
                (Some(&"row"), Some(pull), 3) => {
                    rows.insert(pull, number(2).unwrap());
                }
                _ => {}
            }
        }
        // Each kill leaves a store that opens and goes on.
        check(directory.path(), &rows).await;
    }
    assert!(rows.len() > KILLS as usize / 2, "{} rows: the kills fell on nothing", rows.len());
    let (_, objects) = local::open(directory.path()).await.unwrap();
    // Whole or not there, whether the writer lived to say so or not.
    let (mut after, mut found): (Option<String>, BTreeSet<u64>) = (None, BTreeSet::new());
    loop {
        let listed = objects.list("pages/", after.as_deref(), 100).await.unwrap();
        let Some(last) = listed.last() else { break };
        after = Some(last.key.clone());
        for object in listed {
            let number = object.key.trim_start_matches("pages/").parse().unwrap();
            let body = objects.get(&object.key).await.unwrap();
            assert!(body == Some(page(number)), "{} is torn, {} bytes", object.key, object.size);
            found.insert(number);
        }
    }
    assert!(pages.is_subset(&found), "lost: {:?}", pages.difference(&found));
    let left = std::fs::read_dir(directory.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "files of dead writers");
}

/// Rows have no gaps, are whole, and hold what was said to be written.
async fn check(directory: &Path, said: &BTreeMap<u64, u64>) {
    let (ledger, _) = local::open(directory).await.unwrap();
    let mut found = BTreeMap::new();
    for line in 0..LINES {
        let history = ledger.history(&unit(), &row(line).line).await.unwrap();
        for (rev, read) in (1..).zip(&history) {
            assert_eq!(*read, Revision { rev, ..row(read.seq) });
            found.insert(read.seq, u64::from(rev));
        }
        let newest = ledger.newest(&unit()).await.unwrap();
        let newest = newest.iter().find(|read| read.line == row(line).line);
        assert_eq!(newest, history.last(), "the note of the newest and the rows go together");
    }
    for (pull, rev) in said {
        assert_eq!(found.get(pull), Some(rev), "pull {pull} was told to be written");
    }
}
