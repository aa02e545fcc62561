//! A writer on local disk is killed at any moment, many times: what it said was written is there, and nothing is torn.
//!
//! The test runs its own binary again as the writer, which says on its standard output what it was told is written.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tallygate_reconciler::bill::{ChargeKind, Meter, Quantity};
use tallygate_reconciler::connectors::RawPage;
use tallygate_reconciler::ledger::{Content, LineId, Revision, UnitId};
use tallygate_reconciler::ports::{Appended, LedgerStore, ObjectStore, Put};
use tallygate_reconciler::stores::{local, raw};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

const DIRECTORY: &str = "TALLYGATE_TEST_KILL_DIRECTORY";
const DAY: Date = Date { year: 2026, month: 11, day: 20 };
const KILLS: u64 = 60;
const LINES: u64 = 5;

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

fn page(number: u64) -> RawPage {
    RawPage { label: "costs".into(), body: Bytes::from(format!("{number:08}").repeat(25_000)) }
}

/// The writer. Does nothing in an ordinary run of the tests.
#[tokio::test]
async fn writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (ledger, objects) = local::open(Path::new(&directory)).await.unwrap();
    loop {
        let number = ledger.next_number("pull").await.unwrap();
        println!("number {number}");
        let kept = raw::keep(&objects, "openai", DAY, &page(number)).await.unwrap();
        println!("kept {number} {}", kept.sha256);
        let appended = ledger.append(&row(number)).await.unwrap();
        let Appended::Written(rev) = appended else { panic!("{appended:?}") };
        println!("row {number} {rev}");
    }
}

/// What the writer said before it was killed: the last line may be half.
fn killed_after(directory: &Path, delay: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
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
    let (mut numbers, mut rows, mut pages) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for kill in 0..KILLS {
        // Spread over several rounds of the writer's work, without a pattern that its work could fall in step with.
        let delay = Duration::from_micros((kill * 7919) % 40_000);
        for line in killed_after(directory.path(), delay) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            match (words.first(), number(1), words.len()) {
                (Some(&"number"), Some(number), 2) => numbers.push(number),
                (Some(&"kept"), Some(number), 3) if words[2].len() == 64 => {
                    pages.insert(number, words[2].to_owned());
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
    assert!(numbers.is_sorted_by(|one, next| one < next), "a number was given twice: {numbers:?}");
    let (_, objects) = local::open(directory.path()).await.unwrap();
    for (number, sha256) in &pages {
        let key = format!("raw/v1/openai/{DAY}/{}/{sha256}", &sha256[..2]);
        let size = page(*number).body.len() as u64;
        let kept = raw::ContentRef { label: "costs".into(), key, sha256: sha256.clone(), size };
        assert_eq!(raw::load(&objects, &kept).await.unwrap(), page(*number));
    }
    // Whole or not there, whether the writer lived to say so or not.
    let mut after = None;
    loop {
        let listed = objects.list("", after.as_deref(), 1000).await.unwrap();
        let Some(last) = listed.last() else { break };
        after = Some(last.key.clone());
        assert!(listed.iter().all(|object| object.size == 200_000), "half an object: {listed:?}");
    }
    let left = std::fs::read_dir(directory.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "files of dead writers");
    let number = numbers.last().unwrap();
    let again = objects.put_once(&format!("again/{number}"), page(*number).body).await.unwrap();
    assert_eq!(again, Put::Written);
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
