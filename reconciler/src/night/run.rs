//! One run: the steps of a night in order, for each workspace and day, under a lease, with checkpoints. A run that is
//! killed anywhere is taken up where it stood; a run that is repeated changes nothing.

mod day;
mod events;
mod held;
mod sum_up;
mod unit;
mod workspace;

use std::sync::Arc;

use tallygate_shared::feedback::MAX_ITEMS;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

pub(crate) use self::held::set_mark;
use self::held::{checkpoint, keep_report, note, superseded, take};
use self::workspace::Workspace;
use super::NightError;
use super::events::PART_EVENTS;
use super::pull::Shared;
use super::write::WriteFailed;
use crate::config::Config;
use crate::connectors::Days;
use crate::connectors::cost_explorer::PaidCalls;
use crate::connectors::http::Patience;
use crate::edge::Signing;
use crate::ports::{LedgerStore, ObjectStore, RunId, StoreError};
use crate::report::{Report, Status};

/// How the names of nights begin.
const NIGHT: &str = "night#";
/// How the content address of a bill from the inbox begins.
const INBOX: &str = "pull/v1/inbox/";

/// Why a run could not go on. What is in the books stays right; the run is taken up later.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Somebody else runs.
    #[error("another run holds the lease of {run} until {until}: it ends by itself")]
    Held {
        /// The run.
        run: String,
        /// Until when.
        until: Timestamp,
    },
    /// Somebody else took the run over.
    #[error("another worker took {run} over: this one stops")]
    Superseded {
        /// The run.
        run: String,
    },
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The books.
    #[error(transparent)]
    Night(#[from] NightError),
    /// The run's notes cannot be read.
    #[error("the notes of {run} are damaged: {reason}")]
    Notes {
        /// The run.
        run: String,
        /// Why.
        reason: String,
    },
}

impl From<WriteFailed> for RunError {
    fn from(failed: WriteFailed) -> Self {
        match failed {
            WriteFailed::Store(error) => Self::Store(error),
            WriteFailed::Night(error) => Self::Night(error),
        }
    }
}

/// Time, as the run sees it.
pub trait Clock: Signing {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Milliseconds until the process is ended. `None`: it is not.
    fn left_ms(&self) -> Option<i64>;
}

/// Who hears how a run goes on.
pub trait Progress: Send + Sync {
    /// A step begins.
    fn step(&self, workspace: &str, what: &str, done: u64, of: u64);
}

/// How large the steps of a run are. After each the time is looked at, and there a run can be cut.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Events of a part of a day's copy.
    pub part_events: u64,
    /// Parts after which what was copied or summed so far is noted, be there time or not.
    pub parts_noted: usize,
    /// Lines in memory before they spill.
    pub lines_in_memory: usize,
    /// Lines of the books that are written, or told to the edge, at once.
    pub batch: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            part_events: PART_EVENTS,
            // 5 million events: what is read again when a worker is killed.
            parts_noted: 50,
            // About 300 bytes each: 120 MB.
            lines_in_memory: 400_000,
            batch: MAX_ITEMS,
        }
    }
}

/// Why a step ends early.
enum Stop {
    /// There is no time left. What was done is noted.
    Time,
    /// It failed.
    Failed(RunError),
}

impl<E> From<E> for Stop
where
    RunError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// How a call of [`run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run is over.
    Done,
    /// The run was over before: nothing was done.
    Before,
    /// There was no time left: call again.
    More,
}

/// What becomes of a run that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is made again.
    Always,
    /// It is made again when something was missing, with what it has: only what is missing is asked for.
    IfPartial,
}

/// All that a run needs.
pub struct Night<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerStore>,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Who hears of it.
    pub progress: &'a dyn Progress,
    /// How patient to be with sources and the edge.
    pub patience: Patience,
    /// This worker's name: no other has it.
    pub holder: String,
    /// How large its steps are.
    pub steps: Steps,
}

/// Runs, or goes on with a run.
pub async fn run(
    night: &Night<'_>,
    run: RunId,
    days: Days,
    again: Again,
) -> Result<(Ended, Report), RunError> {
    let mut held = match take(night, &run, days, again).await? {
        Ok(held) => held,
        Err(report) => return Ok((Ended::Before, report)),
    };
    // What an earlier invocation of the same run has spent is spent.
    let paid_calls = PaidCalls::going_on(night.config.max_paid_calls, held.report.paid_calls);
    let shared = Shared {
        objects: night.objects.clone(),
        paid_calls: Arc::new(paid_calls),
        patience: night.patience,
    };
    for workspace in &night.config.workspaces {
        let key = format!("done#{}", workspace.id);
        if held.state.done.contains_key(&key) {
            continue;
        }
        let mut one = Workspace { night, config: workspace, days, shared: &shared };
        match one.run(&mut held).await {
            Err(Stop::Time) => {
                note(&mut held)?;
                let kept = night.ledger.release(&held.run, held.token, &held.state).await?;
                return if kept { Ok((Ended::More, held.report)) } else { Err(superseded(&held)) };
            }
            Err(Stop::Failed(error)) => return Err(error),
            Ok(()) => {
                held.state.done.insert(key, String::new());
                checkpoint(night, &mut held).await?;
            }
        }
    }
    held.report.status = if held.report.is_whole() { Status::Complete } else { Status::Partial };
    note(&mut held)?;
    keep_report(night, &held.report).await?;
    if !night.ledger.finish(&held.run, held.token, &held.state).await? {
        return Err(superseded(&held));
    }
    Ok((Ended::Done, held.report))
}

/// The mark that closes a workspace's month.
pub fn month_mark(workspace: &str, month: &str) -> String {
    format!("closed#{workspace}#{month}")
}

/// What a run of the whole look-back is called, and its days.
pub fn nightly(now: Timestamp, lookback_days: u32) -> (RunId, Days) {
    let today = now.date();
    let from = today.midnight().plus_ms(-i64::from(lookback_days) * DAY_MS).date();
    (RunId(format!("{NIGHT}{today}")), Days { from, to: today })
}

/// What a run of chosen days is called. The last day is included.
pub fn backfill(from: Date, last: Date) -> (RunId, Days) {
    let to = last.midnight().plus_ms(DAY_MS).date();
    (RunId(format!("backfill#{from}..{last}")), Days { from, to })
}
