//! One invocation: an event becomes a command, the command is worked on until it is done or the time is up, and the answer
//! says how it stands. Nothing here knows the Lambda runtime: `bin/bootstrap.rs` does.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tallygate_shared::time::{Date, Timestamp};

use crate::app::{App, AppError, Span};
use crate::deliver::{self, Delivered, Exported};
use crate::focus::month::Month;
use crate::metrics::{self, Outcome};
use crate::night::run::{Again, Clock, Ended, Progress, RunError};
use crate::ports::StoreError;
use crate::report::{Report, Status};

/// Of each list of a report, so many entries are answered and logged: an answer has at most 6 MB. The kept report has all.
const SHOWN: usize = 100;
/// Months of the look-back that a night exports.
const NIGHT_MONTHS: usize = 2;

/// What an event asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The look-back up to yesterday, and its exports.
    Night,
    /// Chosen days, and their exports.
    Backfill {
        /// The first.
        from: Date,
        /// The last.
        last: Date,
    },
    /// A month's export, whether or not something changed.
    Export {
        /// The month.
        month: Month,
    },
    /// Whether everything answers.
    Doctor,
}

/// A read event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What to do.
    pub command: Command,
    /// What time it is, for tests.
    pub now: Option<Timestamp>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Night,
    Backfill,
    Export,
    Doctor,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    command: Name,
    #[serde(default)]
    scheduled_at: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    month: Option<String>,
    #[serde(default)]
    now: Option<String>,
}

/// Why an invocation failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The event.
    #[error("the event's {field} {problem}")]
    Event {
        /// Which field.
        field: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The work.
    #[error(transparent)]
    App(#[from] AppError),
}

impl Failed {
    /// A stable name, to branch on.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Event { .. } => "BadEvent",
            Self::App(AppError::Config(_)) => "BadConfiguration",
            Self::App(AppError::Usage(_)) => "BadRequest",
            Self::App(AppError::Export(_)) => "ExportFailed",
            Self::App(AppError::UnitCosts(_)) => "UnitCostsFailed",
            Self::App(AppError::Store(error) | AppError::Run(RunError::Store(error))) => {
                match error {
                    StoreError::Unavailable { .. } => "StoreUnavailable",
                    StoreError::Denied { .. } => "PermissionMissing",
                    StoreError::Damaged { .. } => "StoreDamaged",
                    StoreError::Failed { .. } => "StoreFailed",
                }
            }
            Self::App(AppError::Run(RunError::Held { .. })) => "RunHeld",
            Self::App(AppError::Run(RunError::Superseded { .. })) => "RunSuperseded",
            Self::App(AppError::Run(RunError::Night(_))) => "BooksRefused",
            Self::App(AppError::Run(RunError::Notes { .. })) => "NotesDamaged",
        }
    }

    /// What it says, without addresses.
    pub fn message(&self) -> String {
        without_addresses(&self.to_string())
    }
}

/// An error's text may hold an address with what somebody put in it: it is cut.
pub fn without_addresses(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, scheme)) = ["https://", "http://"]
        .into_iter()
        .filter_map(|scheme| rest.find(scheme).map(|at| (at, scheme)))
        .min()
    {
        let (before, address) = rest.split_at(at);
        let end = address
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | '>' | ','))
            .unwrap_or(address.len())
            .max(scheme.len());
        said.push_str(before);
        said.push_str("<address>");
        rest = address.get(end..).unwrap_or_default();
    }
    said.push_str(rest);
    said
}

fn wrong(field: &'static str, problem: impl Into<String>) -> Failed {
    Failed::Event { field, problem: problem.into() }
}

/// Reads an event. `now` is refused unless `tests` says that time may be chosen.
pub fn read(event: Value, tests: bool) -> Result<Event, Failed> {
    let wire: Wire = serde_path_to_error::deserialize(event)
        .map_err(|error| wrong("JSON", format!("cannot be read: {}", error.inner())))?;
    let moment = |field, text: Option<&String>| {
        let parsed = |text: &String| {
            Timestamp::parse(text)
                .ok_or_else(|| wrong(field, "is no time: give 2026-11-20T02:00:00Z"))
        };
        text.map(parsed).transpose()
    };
    moment("scheduled_at", wire.scheduled_at.as_ref())?;
    let now = moment("now", wire.now.as_ref())?;
    if now.is_some() && !tests {
        return Err(wrong("now", "is for tests: leave it out"));
    }
    let day = |field, text: Option<&String>| {
        let found = text.and_then(|text| Date::parse(text));
        found.ok_or_else(|| wrong(field, "is no day: give 2026-11-20"))
    };
    let command = match wire.command {
        Name::Night => Command::Night,
        Name::Doctor => Command::Doctor,
        Name::Backfill => {
            let (from, last) = (day("from", wire.from.as_ref())?, day("to", wire.to.as_ref())?);
            if last.midnight() < from.midnight() {
                return Err(wrong("to", "is before `from`"));
            }
            Command::Backfill { from, last }
        }
        Name::Export => {
            let month = wire.month.as_deref().and_then(Month::parse);
            Command::Export {
                month: month.ok_or_else(|| wrong("month", "is no month: give 2026-11"))?,
            }
        }
    };
    let days = wire.from.is_some() || wire.to.is_some();
    if days && !matches!(command, Command::Backfill { .. }) {
        return Err(wrong("from and to", "go with the command backfill only"));
    }
    if wire.month.is_some() && !matches!(command, Command::Export { .. }) {
        return Err(wrong("month", "goes with the command export only"));
    }
    Ok(Event { command, now })
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// There was no time left: the next invocation goes on.
    More,
    /// All is done, and nothing is missing.
    Complete,
    /// All is done, and something is missing: the next invocation asks for it again.
    Partial,
}

/// What an invocation answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// How things stand.
    pub status: Standing,
    /// What was done before, so that this invocation had nothing to do.
    pub already: bool,
    /// The run's report, workspace by workspace; of a doctor nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Exports that were made, or handed over now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exported: Vec<Exported>,
    /// Words for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

impl Answer {
    fn new(status: Standing) -> Self {
        let (exported, lines) = <(Vec<_>, Vec<_>)>::default();
        Self { status, already: false, report: None, exported, lines }
    }
}

/// How an invocation went on, in the log.
struct Logged;

impl Progress for Logged {
    fn step(&self, workspace: &str, what: &str, done: u64, of: u64) {
        tracing::info!(workspace, done, of, "{what}");
    }
}

/// Works on a command. `print` gets the lines of metrics.
pub async fn work(
    app: &App,
    command: &Command,
    print: &mut (dyn FnMut(String) + Send),
) -> Result<Answer, Failed> {
    match command {
        Command::Night => reconcile(app, &Span::Nightly, print).await,
        Command::Backfill { from, last } => {
            let span = Span::Backfill { from: *from, last: *last };
            reconcile(app, &span, print).await
        }
        Command::Export { month } => {
            let mut exported = Vec::new();
            for workspace in &app.config.workspaces {
                exported.push(deliver::one(app, workspace, &month.to_string()).await?);
            }
            let whole = exported.iter().all(|made| made.not_handed_over.is_none());
            let standing = if whole { Standing::Complete } else { Standing::Partial };
            Ok(Answer { exported, ..Answer::new(standing) })
        }
        Command::Doctor => {
            let mut lines = Vec::new();
            let well = app.doctor(&mut |line| lines.push(without_addresses(&line))).await;
            let standing = if well { Standing::Complete } else { Standing::Partial };
            Ok(Answer { lines, ..Answer::new(standing) })
        }
    }
}

async fn reconcile(
    app: &App,
    span: &Span,
    print: &mut (dyn FnMut(String) + Send),
) -> Result<Answer, Failed> {
    let (ended, report) = match app.reconcile(span, Again::IfPartial, &Logged).await {
        Ok(done) => done,
        // Another invocation is at work, or was ended by force: its lease ends by itself.
        Err(AppError::Run(error @ RunError::Held { .. })) => {
            tracing::warn!("{error}");
            return Ok(Answer { lines: vec![error.to_string()], ..Answer::new(Standing::More) });
        }
        Err(error) => return Err(error.into()),
    };
    let shown = || Some(shortened(&report));
    let more = || Answer { report: shown(), ..Answer::new(Standing::More) };
    if ended == Ended::More {
        tracing::info!(run = report.run, "no time left: the next invocation goes on");
        return Ok(more());
    }
    let standing = match report.status {
        Status::Complete => Standing::Complete,
        Status::Partial | Status::Running => Standing::Partial,
    };
    if ended == Ended::Before && deliver::is_delivered(app, &report).await? {
        tracing::info!(run = report.run, "over already");
        return Ok(Answer { report: shown(), already: true, ..Answer::new(standing) });
    }
    if ended == Ended::Done {
        print(metrics::line(Outcome::Ended(&report), app.clock.now()));
        log(&shortened(&report));
    }
    let delivered = deliver::deliver(app, &months(app, span, &report)).await?;
    Ok(match delivered {
        Delivered::More(exported) => Answer { exported, ..more() },
        Delivered::All(exported) if exported.iter().any(|made| made.not_handed_over.is_some()) => {
            Answer { report: shown(), exported, ..Answer::new(Standing::Partial) }
        }
        Delivered::All(exported) => {
            deliver::note_delivered(app, &report).await?;
            Answer { report: shown(), exported, ..Answer::new(standing) }
        }
    })
}

/// A night's exports are those of its last months. What is backfilled in closed months is booked in the current one.
fn months(app: &App, span: &Span, report: &Report) -> Vec<String> {
    match span {
        Span::Nightly => deliver::months(report, NIGHT_MONTHS),
        Span::Backfill { .. } => {
            let mut months = deliver::months(report, usize::MAX);
            let current = Month::of(app.clock.now().date()).to_string();
            if !months.contains(&current) {
                months.push(current);
            }
            months
        }
    }
}

/// A report with as much of each list as can be shown, and how much more there is.
fn shortened(report: &Report) -> Report {
    let mut shown = report.clone();
    for found in shown.workspaces.values_mut() {
        let lists = [
            &mut found.held,
            &mut found.notes,
            &mut found.findings,
            &mut found.unknown_credentials,
        ];
        for list in lists {
            let more = list.len().saturating_sub(SHOWN);
            list.truncate(SHOWN);
            if more > 0 {
                list.push(format!("and {more} more, in the kept report"));
            }
        }
        let more = found.missing.len().saturating_sub(SHOWN);
        if let Some(first) = found.missing.keys().nth(SHOWN).cloned() {
            let _cut = found.missing.split_off(&first);
            found.missing.insert(format!("and {more} more"), "see the kept report".to_owned());
        }
    }
    shown
}

fn log(report: &Report) {
    for (workspace, found) in &report.workspaces {
        for (provider, sums) in &found.providers {
            tracing::info!(
                run = report.run,
                workspace,
                provider,
                estimated = %sums.estimated,
                billed = %sums.billed,
                ledger = %sums.ledger,
                unmetered = %sums.unmetered,
                "reconciled"
            );
        }
        for (what, why) in &found.missing {
            let why = without_addresses(why);
            tracing::warn!(run = report.run, workspace, "MISSING {what}: {why}");
        }
        for held in &found.held {
            tracing::warn!(run = report.run, workspace, "HELD {}", without_addresses(held));
        }
        for finding in &found.findings {
            tracing::warn!(run = report.run, workspace, "FOUND {}", without_addresses(finding));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_become_commands() {
        let day = |text| Date::parse(text).unwrap();
        for (event, command) in [
            (json!({ "command": "night", "scheduled_at": "2026-11-20T02:15:00Z" }), Command::Night),
            (json!({ "command": "night" }), Command::Night),
            (json!({ "command": "doctor" }), Command::Doctor),
            (
                json!({ "command": "backfill", "from": "2026-07-01", "to": "2026-07-31" }),
                Command::Backfill { from: day("2026-07-01"), last: day("2026-07-31") },
            ),
            (
                json!({ "command": "export", "month": "2026-11" }),
                Command::Export { month: Month::parse("2026-11").unwrap() },
            ),
        ] {
            assert_eq!(read(event, false).unwrap(), Event { command, now: None });
        }
    }

    #[test]
    fn a_wrong_event_names_the_field() {
        for (event, expected) in [
            (json!({ "command": "nigth" }), "expected one of `night`"),
            (json!({}), "command"),
            (json!("night"), "JSON"),
            (json!({ "command": "night", "days": 3 }), "days"),
            (json!({ "command": "night", "scheduled_at": "<aws.scheduler.x>" }), "scheduled_at"),
            (json!({ "command": "night", "from": "2026-07-01" }), "from and to"),
            (json!({ "command": "doctor", "month": "2026-07" }), "month"),
            (json!({ "command": "backfill", "from": "2026-07-01" }), "to is no day"),
            (json!({ "command": "backfill", "from": "x", "to": "2026-07-01" }), "from is no day"),
            (json!({ "command": "backfill", "from": "2026-07-02", "to": "2026-07-01" }), "before"),
            (json!({ "command": "export" }), "month is no month"),
            (json!({ "command": "export", "month": "2026-13" }), "month is no month"),
            (json!({ "command": "night", "now": "2026-11-20T02:15:00Z" }), "for tests"),
        ] {
            let failed = read(event, false).unwrap_err();
            assert_eq!(failed.kind(), "BadEvent");
            assert!(failed.message().contains(expected), "{expected}: {}", failed.message());
        }
    }

    #[test]
    fn tests_may_choose_the_time() {
        let event = json!({ "command": "night", "now": "2026-11-20T02:15:00Z" });
        let read = read(event, true).unwrap();
        assert_eq!(read.now, Timestamp::parse("2026-11-20T02:15:00Z"));
    }

    #[test]
    fn a_long_report_is_shortened_and_a_short_one_is_not() {
        use crate::report::WorkspaceReport;
        let report = |count: usize| {
            let words = |what| (0..count).map(|n| format!("{what} {n:03}")).collect::<Vec<_>>();
            let one = WorkspaceReport {
                findings: words("found"),
                missing: words("lacks").into_iter().map(|what| (what, "late".into())).collect(),
                ..WorkspaceReport::default()
            };
            Report { workspaces: [("ws_a".to_owned(), one)].into(), ..Report::default() }
        };
        assert_eq!(shortened(&report(SHOWN)), report(SHOWN));
        let cut = shortened(&report(SHOWN + 7));
        let cut = &cut.workspaces["ws_a"];
        assert_eq!((cut.findings.len(), cut.missing.len()), (SHOWN + 1, SHOWN + 1));
        assert!(cut.findings[SHOWN].contains("7 more") && cut.findings[SHOWN - 1] == "found 099");
        assert!(cut.missing.contains_key("and 7 more") && cut.missing.contains_key("lacks 099"));
    }

    #[test]
    fn addresses_are_cut() {
        for (text, expected) in [
            ("no address", "no address"),
            ("https://u:p@h/x?key=1", "<address>"),
            ("(http://h:1/a) and `https://b`, too", "(<address>) and `<address>`, too"),
            ("http://", "<address>"),
            ("error for url (https://h/ä?k=ö): größer", "error for url (<address>): größer"),
        ] {
            assert_eq!(without_addresses(text), expected);
        }
    }
}
