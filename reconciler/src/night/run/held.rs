//! The run itself: its lease, its notes and its report.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::sum_up::LATE;
use super::{Again, Night, RunError};
use crate::config::Config;
use crate::connectors::Days;
use crate::ledger::hex;
use crate::ports::{Lease, LedgerStore, RunId, RunState, StoreError};
use tallygate_shared::time::Timestamp;

use crate::report::{Report, Status};

/// How long a lease lasts. A step between checkpoints takes less.
const LEASE_MS: i64 = 15 * 60_000;
/// So much time must be left for another step; the Lambda's end comes without a word.
const RESERVE_MS: i64 = 60_000;
/// Sentences of a kind in a report.
const MAX_SENTENCES: usize = 300;

/// The lease of a run, and its notes.
pub(super) struct Held {
    pub(super) run: RunId,
    pub(super) token: u64,
    pub(super) state: RunState,
    pub(super) report: Report,
    noted_at: Timestamp,
    /// Whether this invocation has noted something that the next one need not do again.
    advanced: bool,
}

impl Held {
    /// Notes that something need not be done again, under `key`.
    pub(super) fn advance(&mut self, key: String, what: String) {
        self.state.done.insert(key, what);
        self.advanced = true;
    }

    /// Whether to stop here: there is no time for a step of about `step_ms`, and the next invocation will be further than
    /// this one was. Without that a run of steps that are too long would begin the same one for ever.
    pub(super) fn stops(&self, night: &Night<'_>, step_ms: i64) -> bool {
        self.advanced && is_late(night, step_ms)
    }
}

/// Whether there is no time for a step of about `step_ms` and the reserve.
pub(super) fn is_late(night: &Night<'_>, step_ms: i64) -> bool {
    night.clock.left_ms().is_some_and(|left| left < RESERVE_MS.saturating_add(step_ms))
}

/// Extends the lease in the midst of a long step, now and then.
pub(super) async fn keep_lease(night: &Night<'_>, held: &mut Held) -> Result<(), RunError> {
    if night.clock.now().since_ms(held.noted_at) < LEASE_MS / 5 {
        return Ok(());
    }
    checkpoint(night, held).await
}

/// Takes the run's lease. `Err`: it is over, with this report. The same run may be asked for again with other days: then
/// nothing that was noted for the days before counts as done.
pub(super) async fn take(
    night: &Night<'_>,
    run: &RunId,
    days: Days,
    again: Again,
) -> Result<Result<Held, Report>, RunError> {
    let (mut kept, mut paid_calls) = (BTreeMap::new(), 0);
    let mut reopened = false;
    loop {
        let now = night.clock.now();
        let until = now.plus_ms(LEASE_MS);
        match night.ledger.lease(run, &night.holder, now, until).await? {
            Lease::Held { until } => return Err(RunError::Held { run: run.0.clone(), until }),
            Lease::Done(state) => {
                let report = report_of(run, &state, days)?;
                let over = report.status == Status::Complete && is_of(&report, days);
                if reopened || (again == Again::IfPartial && over) {
                    return Ok(Err(report));
                }
                if again == Again::IfPartial {
                    // What was paid for the run's earlier attempts stays paid.
                    paid_calls = report.paid_calls;
                    kept = match is_of(&report, days) {
                        true => what_it_has(night.config, state, &report),
                        false => whatever_the_days(state),
                    };
                }
                night.ledger.reopen(run).await?;
                reopened = true;
            }
            Lease::Granted { token, state } => {
                let mut state = state.unwrap_or_default();
                let mut report = report_of(run, &state, days)?;
                if state.report.is_none() {
                    state.done.extend(kept);
                    (report.paid_calls, report.paid_calls_told) = (paid_calls, paid_calls);
                } else if !is_of(&report, days) {
                    let Report { paid_calls, paid_calls_told, .. } = report;
                    state = RunState { done: whatever_the_days(state), report: None };
                    let fresh = report_of(run, &state, days)?;
                    report = Report { paid_calls, paid_calls_told, ..fresh };
                }
                let run = run.clone();
                let held = Held { run, token, state, report, noted_at: now, advanced: false };
                return Ok(Ok(held));
            }
        }
    }
}

/// What a partial run need not ask for again: answers that it has. Dropped files are looked at again: a person may have
/// mended them. So are bills that were late, unless asking is paid for.
pub(super) fn what_it_has(
    config: &Config,
    state: RunState,
    report: &Report,
) -> BTreeMap<String, String> {
    let mut kept = state.done;
    let again: BTreeSet<String> = config
        .workspaces
        .iter()
        .flat_map(|workspace| {
            let sources = workspace.sources.iter().enumerate();
            let missing = report.workspaces.get(&workspace.id).map(|report| &report.missing);
            let is_late = move |name: String| {
                missing.is_some_and(|missing| missing.contains_key(&format!("{LATE} {name}")))
            };
            let files = sources.filter(move |(_, source)| match source.providers() {
                None => true,
                Some(names) => !source.is_paid() && names.into_iter().any(is_late),
            });
            files.map(|(place, _)| format!("pull#{}#{place}", workspace.id))
        })
        .collect();
    kept.retain(|key, _| {
        (key.starts_with("pull#") && !again.contains(key)) || key.starts_with("events#")
    });
    kept
}

/// What is done whatever days are asked for: days' events that were copied.
fn whatever_the_days(state: RunState) -> BTreeMap<String, String> {
    let mut kept = state.done;
    kept.retain(|key, _| key.starts_with("events#"));
    kept
}

/// Whether a report is of these days.
fn is_of(report: &Report, days: Days) -> bool {
    (&report.from, &report.to) == (&days.from.to_string(), &days.to.to_string())
}

pub(super) fn report_of(run: &RunId, state: &RunState, days: Days) -> Result<Report, RunError> {
    let Some(text) = &state.report else {
        let (from, to) = (days.from.to_string(), days.to.to_string());
        return Ok(Report { run: run.0.clone(), from, to, ..Report::default() });
    };
    serde_json::from_str(text)
        .map_err(|e| RunError::Notes { run: run.0.clone(), reason: e.to_string() })
}

pub(super) fn superseded(held: &Held) -> RunError {
    RunError::Superseded { run: held.run.0.clone() }
}

pub(super) fn note(held: &mut Held) -> Result<(), RunError> {
    let text = serde_json::to_string(&held.report)
        .map_err(|e| RunError::Notes { run: held.run.0.clone(), reason: e.to_string() })?;
    held.state.report = Some(text);
    Ok(())
}

pub(super) async fn checkpoint(night: &Night<'_>, held: &mut Held) -> Result<(), RunError> {
    note(held)?;
    held.noted_at = night.clock.now();
    let until = held.noted_at.plus_ms(LEASE_MS);
    if night.ledger.checkpoint(&held.run, held.token, until, &held.state).await? {
        Ok(())
    } else {
        Err(superseded(held))
    }
}

pub(super) async fn keep_report(night: &Night<'_>, report: &Report) -> Result<(), RunError> {
    let body = serde_json::to_vec(report)
        .map_err(|e| RunError::Notes { run: report.run.clone(), reason: e.to_string() })?;
    let key = format!("report/v1/{}.json", hex(Sha256::digest(&body).as_slice()));
    night.objects.put_once(&key, body.into()).await?;
    set_mark(night.ledger.as_ref(), "report#latest", &key).await?;
    Ok(())
}

pub(crate) async fn set_mark(
    ledger: &dyn LedgerStore,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    loop {
        let before = ledger.mark(name).await?;
        if before.as_deref() == Some(value)
            || ledger.set_mark(name, before.as_deref(), value).await?
        {
            return Ok(());
        }
    }
}

/// Adds a sentence to a report, once, and not without end: a run's notes are one item of the ledger.
pub(super) fn say(to: &mut Vec<String>, sentence: String) {
    match to.len() {
        MAX_SENTENCES => {}
        length if length + 1 == MAX_SENTENCES => to.push("and more, in the logs".to_owned()),
        _ if to.contains(&sentence) => return,
        _ => {
            to.push(sentence);
            return;
        }
    }
    tracing::warn!(sentence, "the report is full");
}
