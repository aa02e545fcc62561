//! Exports after a run: the months whose books have changed since their last export, and no others.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tallygate_shared::time::{DAY_MS, Date};

use crate::app::{App, AppError};
use crate::connectors::Days;
use crate::focus::month::Month;
use crate::ledger::hex;
use crate::night::day_mark::DayMark;
use crate::night::export::{Delivery, export};
use crate::night::run::{Clock, RunError, month_mark, set_mark};
use crate::ports::{LedgerStore, StoreError};
use crate::report::Report;

/// So much time must be left for another export. One that is cut off begins the next slot, with all its time.
const RESERVE_MS: i64 = 60_000;
/// Marks that are read at a time.
const WIDTH: usize = 16;
/// Corrections of closed months are booked in later ones: so many months back they are looked for.
const MONTHS_BACK: usize = 13;

/// An export that was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The workspace.
    pub workspace: String,
    /// The month, `2026-11`.
    pub month: String,
    /// Its number: of several of a month, the newest counts.
    pub number: u64,
    /// Files.
    pub files: usize,
    /// Lines left out because nobody has billed them yet.
    pub unbilled: u64,
}

/// What became of a run's exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// All that had changed are made.
    All(Vec<Exported>),
    /// There was no time left: call again.
    More(Vec<Exported>),
}

/// The months of a run's days, oldest first, and at most the `last` of them.
pub fn months(report: &Report, last: usize) -> Vec<String> {
    let (Some(from), Some(to)) = (Date::parse(&report.from), Date::parse(&report.to)) else {
        return Vec::new();
    };
    let mut months = BTreeSet::new();
    let mut day = from;
    while day.midnight() < to.midnight() {
        let month = Month::of(day);
        months.insert(month);
        day = month.end().date();
    }
    let skip = months.len().saturating_sub(last);
    months.into_iter().skip(skip).map(|month| month.to_string()).collect()
}

/// Exports what changed of `months`, in every workspace of the configuration.
pub async fn deliver(app: &App, months: &[String]) -> Result<Delivered, AppError> {
    let mut made = Vec::new();
    for workspace in &app.config.workspaces {
        for month in months {
            let name = format!("exported#{}#{month}", workspace.id);
            let ledger = app.ledger.as_ref();
            let state = state(&workspace.id, month, ledger).await?;
            if ledger.mark(&name).await?.as_deref() == Some(state.as_str()) {
                continue;
            }
            if app.clock.left_ms().is_some_and(|left| left < RESERVE_MS) {
                return Ok(Delivered::More(made));
            }
            made.push(one(app, &workspace.id, month).await?);
            set_mark(ledger, &name, &state).await?;
        }
    }
    Ok(Delivered::All(made))
}

/// Exports a month of a workspace to the object store.
pub async fn one(app: &App, workspace: &str, month: &str) -> Result<Exported, AppError> {
    let scratch = app.config.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::tempdir_in(&scratch).map_err(|e| {
        AppError::Usage(format!(
            "`scratch` {}: {e}. Name a directory to write in",
            scratch.display()
        ))
    })?;
    let (ledger, objects) = (app.ledger.as_ref(), app.objects.as_ref());
    let Delivery { number, parts, unbilled } =
        export(workspace, month, app.clock.now(), directory.path(), ledger, objects).await?;
    let (workspace, month) = (workspace.to_owned(), month.to_owned());
    Ok(Exported { workspace, month, number, files: parts.len(), unbilled })
}

/// All that a month's export follows from, hashed: what its days were settled with, whether it is closed, and what the
/// days of closed months before it were settled with, for their corrections may be booked in it.
async fn state(
    workspace: &str,
    month: &str,
    ledger: &dyn LedgerStore,
) -> Result<String, StoreError> {
    let Some(mut month) = Month::parse(month) else { return Ok(String::new()) };
    let mut names = vec![month_mark(workspace, &month.to_string())];
    for back in 0..=MONTHS_BACK {
        let closed = month_mark(workspace, &month.to_string());
        if back == 0 || ledger.mark(&closed).await?.is_some() {
            let days = Days { from: month.start().date(), to: month.end().date() };
            names.extend(days.each().map(|day| format!("day#{workspace}#{day}")));
        }
        month = Month::of(month.start().plus_ms(-DAY_MS).date());
    }
    let marks: Vec<Option<String>> = futures::stream::iter(&names)
        .map(|name| ledger.mark(name))
        .buffered(WIDTH)
        .try_collect()
        .await?;
    let mut hash = Sha256::new();
    for (name, mark) in names.iter().zip(marks) {
        for text in [name.as_str(), &books(mark)] {
            hash.update(u64::try_from(text.len()).unwrap_or(0).to_be_bytes());
            hash.update(text.as_bytes());
        }
    }
    Ok(hex(hash.finalize().as_slice()))
}

/// What a day was settled with and what its books say, of its mark: the rest of the mark changes when nothing is written.
fn books(mark: Option<String>) -> String {
    let Some(mark) = mark else { return String::new() };
    match serde_json::from_str::<DayMark>(&mark) {
        Ok(day) => serde_json::to_string(&(day.input, day.books)).unwrap_or(mark),
        Err(_) => mark,
    }
}

/// The mark of the last run whose exports are made.
const LAST: &str = "delivered";

fn fingerprint(report: &Report) -> Result<String, RunError> {
    let body = serde_json::to_vec(report)
        .map_err(|e| RunError::Notes { run: report.run.clone(), reason: e.to_string() })?;
    Ok(format!("{} {}", report.run, hex(Sha256::digest(&body).as_slice())))
}

/// Whether the exports of this run, ended with this report, are made.
pub async fn is_delivered(app: &App, report: &Report) -> Result<bool, AppError> {
    let known = app.ledger.mark(LAST).await?;
    Ok(known.as_deref() == Some(fingerprint(report)?.as_str()))
}

/// Notes that the exports of this run are made.
pub async fn note_delivered(app: &App, report: &Report) -> Result<(), AppError> {
    set_mark(app.ledger.as_ref(), LAST, &fingerprint(report)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::SystemClock;
    use crate::config::from_value;
    use serde_json::json;

    async fn app(directory: &std::path::Path) -> App {
        let config = from_value(json!({
            "storage": { "local": { "directory": directory.join("books") } },
            "scratch": directory,
            "workspaces": [{ "id": "ws_a",
                "edge": { "url": "https://g", "key_id": "n", "secret": "s" },
                "sources": [{ "connector": "openai", "account": "o", "admin_key": "k" }] }] }));
        App::open(config.unwrap(), SystemClock::default()).await.unwrap()
    }

    async fn mark(app: &App, name: &str, value: &str) {
        set_mark(app.ledger.as_ref(), name, value).await.unwrap();
    }

    async fn numbers(app: &App, months: &[&str]) -> Vec<(String, u64)> {
        let months: Vec<String> = months.iter().map(|month| (*month).to_owned()).collect();
        match deliver(app, &months).await.unwrap() {
            Delivered::All(made) => made.into_iter().map(|one| (one.month, one.number)).collect(),
            Delivered::More(_) => panic!("there is time"),
        }
    }

    fn settled(input: &str, seq: u64) -> String {
        json!({ "input": input, "seq": seq, "fed": true, "told": "" }).to_string()
    }

    #[tokio::test]
    async fn a_month_is_exported_when_its_books_changed() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(directory.path()).await;
        let both = ["2026-10", "2026-11"];
        let of = |made: &[(&str, u64)]| -> Vec<(String, u64)> {
            made.iter().map(|(month, number)| ((*month).to_owned(), *number)).collect()
        };
        assert_eq!(numbers(&app, &both).await, of(&[("2026-10", 1), ("2026-11", 1)]));
        assert_eq!(numbers(&app, &both).await, of(&[]));
        mark(&app, "day#ws_a#2026-11-30", &settled("a", 1)).await;
        assert_eq!(numbers(&app, &both).await, of(&[("2026-11", 2)]));
        // Settled with the same again: nothing was written.
        mark(&app, "day#ws_a#2026-11-30", &settled("a", 2)).await;
        mark(&app, "day#ws_b#2026-11-30", &settled("b", 2)).await;
        assert_eq!(numbers(&app, &both).await, of(&[]));
        // Another worker's rows came in between.
        let other = settled("a", 2).replace("\"seq\"", "\"books\":{\"openai\":\"x\"},\"seq\"");
        mark(&app, "day#ws_a#2026-11-30", &other).await;
        assert_eq!(numbers(&app, &both).await, of(&[("2026-11", 3)]));
        mark(&app, &month_mark("ws_a", "2026-10"), "now").await;
        assert_eq!(numbers(&app, &both).await, of(&[("2026-10", 2), ("2026-11", 4)]));
        // A correction of a closed month is booked in the open one.
        mark(&app, "day#ws_a#2026-10-01", &settled("c", 3)).await;
        assert_eq!(numbers(&app, &both).await, of(&[("2026-10", 3), ("2026-11", 5)]));
        assert_eq!(numbers(&app, &both).await, of(&[]));
    }

    #[tokio::test]
    async fn without_time_the_next_call_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut app = app(directory.path()).await;
        let month = ["2026-11".to_owned()];
        app.clock.deadline_ms = Some(0);
        assert_eq!(deliver(&app, &month).await.unwrap(), Delivered::More(Vec::new()));
        app.clock.deadline_ms = None;
        assert_eq!(numbers(&app, &["2026-11"]).await, [("2026-11".to_owned(), 1)]);
        // Nothing left to do needs no time.
        app.clock.deadline_ms = Some(0);
        assert_eq!(numbers(&app, &["2026-11"]).await, []);
    }

    #[tokio::test]
    async fn a_run_is_delivered_with_the_report_that_it_ended_with() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(directory.path()).await;
        let mut report = Report { run: "night#2026-11-02".into(), ..Report::default() };
        assert!(!is_delivered(&app, &report).await.unwrap());
        note_delivered(&app, &report).await.unwrap();
        assert!(is_delivered(&app, &report).await.unwrap());
        report.paid_calls = 1;
        assert!(!is_delivered(&app, &report).await.unwrap());
    }

    #[test]
    fn months_of_a_run() {
        let of = |from: &str, to: &str, last| {
            let report = Report { from: from.into(), to: to.into(), ..Report::default() };
            months(&report, last)
        };
        assert_eq!(of("2026-09-28", "2026-11-02", 2), ["2026-10", "2026-11"]);
        assert_eq!(of("2026-09-28", "2026-11-01", 2), ["2026-09", "2026-10"]);
        assert_eq!(of("2025-12-31", "2026-01-02", 9), ["2025-12", "2026-01"]);
        assert!(of("2026-01-02", "2026-01-02", 2).is_empty());
    }
}
