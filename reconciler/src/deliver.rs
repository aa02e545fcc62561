//! Exports after a run: the months whose books have changed since their last export, and no others; and those that the
//! edge was not told of yet.

use std::collections::BTreeSet;
use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tallygate_shared::time::{DAY_MS, Date};

use crate::app::{App, AppError};
use crate::config::WorkspaceConfig;
use crate::connectors::Days;
use crate::focus::month::Month;
use crate::hand_over::hand_over;
use crate::lambda::without_addresses;
use crate::ledger::hex;
use crate::night::day_mark::DayMark;
use crate::night::export::{Delivery, export, exported};
use crate::night::run::{Clock, RunError, month_mark, set_mark};
use crate::ports::{LedgerStore, StoreError};
use crate::report::Report;

/// So much time must be left for another export. One that is cut off begins the next slot, with all its time.
const RESERVE_MS: i64 = 60_000;
/// Marks that are read at a time.
const WIDTH: usize = 16;
/// Corrections of closed months are booked in later ones: so many months back they are looked for.
const MONTHS_BACK: usize = 13;

/// An export that was made, or was handed over now.
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
    /// Why the edge does not have it. It is handed over the next time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_handed_over: Option<String>,
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

/// Exports what changed of `months`, in every workspace of the configuration, and hands over to the edge what it lacks.
pub async fn deliver(app: &App, months: &[String]) -> Result<Delivered, AppError> {
    let mut made = Vec::new();
    for workspace in &app.config.workspaces {
        for month in months {
            let of = Of { app, workspace, month };
            let state = state(workspace, month, app.ledger.as_ref()).await?;
            let last = of.last_of(&state).await?;
            if let Some(number) = last
                && of.handed_over().await?.is_some_and(|known| known >= number)
            {
                continue;
            }
            if app.clock.left_ms().is_some_and(|left| left < RESERVE_MS) {
                return Ok(Delivered::More(made));
            }
            let known = match last {
                Some(number) => {
                    exported(&workspace.id, month, number, app.objects.as_ref()).await?
                }
                None => None,
            };
            let done = match known {
                Some(delivery) => of.hand_over(&delivery).await?,
                None => {
                    let scratch = scratch(app)?;
                    of.export(&state, scratch.path()).await?.1
                }
            };
            made.push(done);
        }
    }
    Ok(Delivered::All(made))
}

/// Exports a month of a workspace to the object store, and hands it over to the edge.
pub async fn one(
    app: &App,
    workspace: &WorkspaceConfig,
    month: &str,
) -> Result<Exported, AppError> {
    let scratch = scratch(app)?;
    Ok(one_to(app, workspace, month, scratch.path()).await?.1)
}

/// The same, leaving the files in a directory.
pub async fn one_to(
    app: &App,
    workspace: &WorkspaceConfig,
    month: &str,
    directory: &Path,
) -> Result<(Delivery, Exported), AppError> {
    let state = state(workspace, month, app.ledger.as_ref()).await?;
    Of { app, workspace, month }.export(&state, directory).await
}

fn scratch(app: &App) -> Result<tempfile::TempDir, AppError> {
    let scratch = app.config.scratch.clone().unwrap_or_else(std::env::temp_dir);
    tempfile::tempdir_in(&scratch).map_err(|e| {
        AppError::Usage(format!(
            "`scratch` {}: {e}. Name a directory to write in",
            scratch.display()
        ))
    })
}

/// A month of a workspace.
struct Of<'a> {
    app: &'a App,
    workspace: &'a WorkspaceConfig,
    month: &'a str,
}

impl Of<'_> {
    /// The mark of what was exported last: what the books were then, and the number of the export.
    fn exported_mark(&self) -> String {
        format!("exported#{}#{}", self.workspace.id, self.month)
    }

    /// The mark of the number of the export that the edge has.
    fn handed_over_mark(&self) -> String {
        format!("handed-over#{}#{}", self.workspace.id, self.month)
    }

    /// The number of the last export, if the books are still what they were then.
    async fn last_of(&self, state: &str) -> Result<Option<u64>, StoreError> {
        let mark = self.app.ledger.mark(&self.exported_mark()).await?;
        let known = mark.as_deref().and_then(|mark| mark.split_once(' '));
        Ok(known.filter(|(of, _)| *of == state).and_then(|(_, number)| number.parse().ok()))
    }

    async fn handed_over(&self) -> Result<Option<u64>, StoreError> {
        let mark = self.app.ledger.mark(&self.handed_over_mark()).await?;
        Ok(mark.and_then(|number| number.parse().ok()))
    }

    async fn export(
        &self,
        state: &str,
        directory: &Path,
    ) -> Result<(Delivery, Exported), AppError> {
        let (ledger, objects) = (self.app.ledger.as_ref(), self.app.objects.as_ref());
        let (id, now) = (&self.workspace.id, self.app.clock.now());
        let accounts = self.workspace.accounts_by_id();
        let delivery = export(id, self.month, now, directory, &accounts, ledger, objects).await?;
        let mark = format!("{state} {}", delivery.number);
        // Noted before the edge is told: whoever is cut off there need not export again.
        set_mark(ledger, &self.exported_mark(), &mark).await?;
        let exported = self.hand_over(&delivery).await?;
        Ok((delivery, exported))
    }

    /// Hands an export over. An edge that does not take it is no reason to fail: the export is made.
    async fn hand_over(&self, delivery: &Delivery) -> Result<Exported, AppError> {
        let (workspace, month) = (self.workspace.id.clone(), self.month.to_owned());
        let not_handed_over = match hand_over(self.app, self.workspace, &month, delivery).await {
            Ok(()) => {
                let number = delivery.number.to_string();
                set_mark(self.app.ledger.as_ref(), &self.handed_over_mark(), &number).await?;
                None
            }
            Err(error) => {
                let why = without_addresses(&error.to_string());
                let number = delivery.number;
                tracing::warn!(workspace, month, number, "made, and not handed over: {why}");
                Some(why)
            }
        };
        let (number, files, unbilled) = (delivery.number, delivery.parts.len(), delivery.unbilled);
        Ok(Exported { workspace, month, number, files, unbilled, not_handed_over })
    }
}

/// All that a month's export follows from, hashed: what its days were settled with, whether it is closed, and what the
/// days of closed months before it were settled with, for their corrections may be booked in it; and what the
/// configuration says of billed accounts.
async fn state(
    WorkspaceConfig { id: workspace, billed_accounts, .. }: &WorkspaceConfig,
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
    if !billed_accounts.is_empty() {
        // Plain texts: serialising them cannot fail.
        hash.update(serde_json::to_vec(billed_accounts).unwrap_or_default());
    }
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
    use std::time::Duration;

    use serde_json::{Value, json};
    use tallygate_shared::identity::signature::body_sha256;
    use wiremock::matchers::{method, path, path_regex};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::app::SystemClock;
    use crate::config::from_value;
    use crate::connectors::http::Patience;
    use crate::focus::charges_tests::revision;
    use crate::lambda::{Command, Standing, work};

    async fn app_at(directory: &Path, edge: &str) -> App {
        let config = from_value(json!({
            "storage": { "local": { "directory": directory.join("books") } },
            "scratch": directory,
            "workspaces": [{ "id": "ws_a",
                "edge": { "url": edge, "key_id": "n", "secret": "s" },
                "sources": [{ "connector": "openai", "account": "o", "admin_key": "k" }] }] }));
        let mut app = App::open(config.unwrap(), SystemClock::default()).await.unwrap();
        app.patience = Patience { retries: 0, first_wait: Duration::from_millis(1) };
        app
    }

    /// An edge that takes everything, or that stores no files.
    async fn edge(stored: bool) -> MockServer {
        let server = MockServer::start().await;
        let taken = ResponseTemplate::new(200).set_body_json(json!({ "stored": stored }));
        let file =
            "^/api/v1/workspaces/ws_a/reconciler/focus-files/2026-[0-9]{2}/[0-9]+/[a-z0-9._-]+$";
        Mock::given(method("PUT")).and(path_regex(file)).respond_with(taken).mount(&server).await;
        let kept = ResponseTemplate::new(200).set_body_json(json!({ "number": 1 }));
        let commit = "/api/v1/workspaces/ws_a/reconciler/focus-exports";
        Mock::given(method("POST")).and(path(commit)).respond_with(kept).mount(&server).await;
        server
    }

    async fn app(directory: &Path) -> (App, MockServer) {
        let edge = edge(true).await;
        (app_at(directory, &edge.uri()).await, edge)
    }

    /// The bodies of files by their names, and the exports that were committed.
    async fn heard(server: &MockServer) -> (Vec<(String, Vec<u8>)>, Vec<Value>) {
        let (mut files, mut commits) = (Vec::new(), Vec::new());
        for request in server.received_requests().await.unwrap() {
            match request.method.as_str() {
                "PUT" => {
                    let name = request.url.path().rsplit('/').next().unwrap().to_owned();
                    files.push((name, request.body));
                }
                _ => commits.push(serde_json::from_slice(&request.body).unwrap()),
            }
        }
        files.sort();
        (files, commits)
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

    async fn exported_months(app: &App, months: &[&str]) -> Vec<String> {
        numbers(app, months).await.into_iter().map(|(month, _)| month).collect()
    }

    async fn number_of_november(app: &App) -> u64 {
        let made = numbers(app, &["2026-11"]).await;
        assert_eq!(made.len(), 1);
        made[0].1
    }

    fn settled(input: &str, seq: u64) -> String {
        json!({ "input": input, "seq": seq, "fed": true, "told": "" }).to_string()
    }

    #[tokio::test]
    async fn a_month_is_exported_when_its_books_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (app, _edge) = app(directory.path()).await;
        let both = ["2026-10", "2026-11"];
        assert_eq!(exported_months(&app, &both).await, ["2026-10", "2026-11"]);
        assert!(exported_months(&app, &both).await.is_empty());
        mark(&app, "day#ws_a#2026-11-30", &settled("a", 1)).await;
        assert_eq!(exported_months(&app, &both).await, ["2026-11"]);
        // Settled with the same again: nothing was written.
        mark(&app, "day#ws_a#2026-11-30", &settled("a", 2)).await;
        mark(&app, "day#ws_b#2026-11-30", &settled("b", 2)).await;
        assert!(exported_months(&app, &both).await.is_empty());
        // Another worker's rows came in between.
        let other = settled("a", 2).replace("\"seq\"", "\"books\":{\"openai\":\"x\"},\"seq\"");
        mark(&app, "day#ws_a#2026-11-30", &other).await;
        assert_eq!(exported_months(&app, &both).await, ["2026-11"]);
        mark(&app, &month_mark("ws_a", "2026-10"), "now").await;
        assert_eq!(exported_months(&app, &both).await, ["2026-10", "2026-11"]);
        // A correction of a closed month is booked in the open one.
        mark(&app, "day#ws_a#2026-10-01", &settled("c", 3)).await;
        assert_eq!(exported_months(&app, &both).await, ["2026-10", "2026-11"]);
        assert!(exported_months(&app, &both).await.is_empty());
    }

    #[tokio::test]
    async fn without_time_the_next_call_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (mut app, _edge) = app(directory.path()).await;
        let month = ["2026-11".to_owned()];
        app.clock.deadline_ms = Some(0);
        assert_eq!(deliver(&app, &month).await.unwrap(), Delivered::More(Vec::new()));
        app.clock.deadline_ms = None;
        assert_eq!(exported_months(&app, &["2026-11"]).await, ["2026-11"]);
        // Nothing left to do needs no time.
        app.clock.deadline_ms = Some(0);
        assert!(exported_months(&app, &["2026-11"]).await.is_empty());
    }

    #[tokio::test]
    async fn a_run_is_delivered_with_the_report_that_it_ended_with() {
        let directory = tempfile::tempdir().unwrap();
        let (app, _edge) = app(directory.path()).await;
        let mut report = Report { run: "night#2026-11-02".into(), ..Report::default() };
        assert!(!is_delivered(&app, &report).await.unwrap());
        note_delivered(&app, &report).await.unwrap();
        assert!(is_delivered(&app, &report).await.unwrap());
        report.paid_calls = 1;
        assert!(!is_delivered(&app, &report).await.unwrap());
    }

    /// A month with a charge that is billed.
    async fn charge(app: &App) {
        let mut row = revision("a", Some("1"), 1_000_000);
        row.unit.workspace = "ws_a".into();
        row.unit.day = "2026-11-19".into();
        app.ledger.append(&row).await.unwrap();
    }

    #[tokio::test]
    async fn the_edge_gets_every_file_and_then_the_export() {
        let directory = tempfile::tempdir().unwrap();
        let (app, edge) = app(directory.path()).await;
        charge(&app).await;
        let Delivered::All(made) = deliver(&app, &["2026-11".to_owned()]).await.unwrap() else {
            panic!("there is time");
        };
        assert_eq!((made.len(), &made[0].not_handed_over), (1, &None));
        let (files, commits) = heard(&edge).await;
        assert_eq!((files.len(), commits.len()), (made[0].files, 1));
        let told = commits[0]["files"].as_array().unwrap();
        assert_eq!((told.len(), &commits[0]["number"]), (files.len(), &json!(made[0].number)));
        for (name, body) in &files {
            let told = told.iter().find(|it| it["file"] == name.as_str()).unwrap();
            assert_eq!(told["sha256"], body_sha256(body));
            assert_eq!((&told["uploaded"], &told["bytes"]), (&json!(true), &json!(body.len())));
            // The place is where it is.
            assert_eq!(std::fs::read(told["place"].as_str().unwrap()).unwrap(), *body);
        }
        let csv = "focus_1_4-cost_and_usage-2026-11-19.csv";
        assert!(files.iter().any(|(name, _)| name == csv));
        assert!(exported_months(&app, &["2026-11"]).await.is_empty());
    }

    #[tokio::test]
    async fn other_words_for_an_account_are_another_export() {
        let directory = tempfile::tempdir().unwrap();
        let (mut app, _edge) = app(directory.path()).await;
        charge(&app).await;
        let first = number_of_november(&app).await;
        let known = json!({ "provider": "openai", "account": "org-1", "name": "Acme" });
        app.config.workspaces[0].billed_accounts = vec![serde_json::from_value(known).unwrap()];
        assert!(number_of_november(&app).await > first);
        assert!(exported_months(&app, &["2026-11"]).await.is_empty());
    }

    #[tokio::test]
    async fn what_the_edge_did_not_take_is_handed_over_later_and_not_exported_again() {
        let directory = tempfile::tempdir().unwrap();
        let app_down = app_at(directory.path(), "http://127.0.0.1:9").await;
        charge(&app_down).await;
        let months = ["2026-11".to_owned()];
        let mut first = None;
        for _ in 0..2 {
            let Delivered::All(made) = deliver(&app_down, &months).await.unwrap() else {
                panic!("there is time");
            };
            let why = made[0].not_handed_over.as_deref().unwrap();
            assert!(why.contains("edge") && !why.contains("127.0.0.1"), "{why}");
            assert_eq!(made[0].number, *first.get_or_insert(made[0].number));
        }
        // Nor is it lost where a month is exported by hand.
        let command = Command::Export { month: Month::parse("2026-11").unwrap() };
        let answer = work(&app_down, &command, &mut |_| ()).await.unwrap();
        let by_hand = answer.exported[0].number;
        assert!(answer.status == Standing::Partial && Some(by_hand) > first);
        drop(app_down);
        let (app, edge) = app(directory.path()).await;
        assert_eq!(number_of_november(&app).await, by_hand);
        let (files, commits) = heard(&edge).await;
        assert!(!files.is_empty() && commits.len() == 1);
        for (name, body) in files {
            let told = commits[0]["files"].as_array().unwrap().iter();
            let told = told.clone().find(|it| it["file"] == name.as_str()).unwrap();
            assert_eq!(told["sha256"], body_sha256(&body));
        }
        assert!(exported_months(&app, &["2026-11"]).await.is_empty());
    }

    #[tokio::test]
    async fn an_edge_without_a_bucket_hears_where_the_files_lie() {
        let directory = tempfile::tempdir().unwrap();
        let edge = edge(false).await;
        let app = app_at(directory.path(), &edge.uri()).await;
        charge(&app).await;
        let made = one(&app, &app.config.workspaces[0], "2026-11").await.unwrap();
        assert_eq!(made.not_handed_over, None);
        let (files, commits) = heard(&edge).await;
        // Those that were on their way when the first answer came.
        assert!(files.len() <= 4 && files.len() < made.files, "{}", files.len());
        let told = commits[0]["files"].as_array().unwrap();
        assert_eq!(told.len(), made.files);
        assert!(told.iter().all(|file| file["uploaded"] == json!(false)));
        // What is exported by hand is what the next night would export.
        assert!(exported_months(&app, &["2026-11"]).await.is_empty());
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
