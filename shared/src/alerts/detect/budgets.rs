//! Budgets: thresholds crossed, and spending that is too fast for the window.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BudgetSnapshot, Raisings};
use crate::alerts::alert::{AlertKind, Finding, Raised, Severity};
use crate::alerts::bounded::Bounded;
use crate::money::Usd;
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

const MINUTE_MS: i64 = 60_000;
/// Spending is remembered by the minute for the short windows, then by the quarter of an hour: 120 + 92 figures.
const FINE_MS: i64 = 2 * HOUR_MS;
const COARSE_MS: i64 = 15 * MINUTE_MS;
/// No pair asks for more than this share of a budget, in percent.
const SHARE_MAX_PERCENT: i128 = 50;
/// A pair that would fire below this rate, in hundredths, does not apply.
const RATE_MIN: i128 = 200;

/// A long window, its short one, and the burn rate that both must reach.
struct Burn {
    long_ms: i64,
    short_ms: i64,
    /// In hundredths: 100 spends exactly the budget.
    rate: i128,
    severity: Severity,
}

const BURNS: [Burn; 3] = [
    Burn { long_ms: HOUR_MS, short_ms: 5 * MINUTE_MS, rate: 1440, severity: Severity::Critical },
    Burn {
        long_ms: 6 * HOUR_MS,
        short_ms: 30 * MINUTE_MS,
        rate: 600,
        severity: Severity::Critical,
    },
    Burn { long_ms: DAY_MS, short_ms: 2 * HOUR_MS, rate: 300, severity: Severity::Warning },
];

/// What is remembered of one budget.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetHistory {
    latest: Option<BudgetSnapshot>,
    /// Spending by the start of its minute or quarter of an hour, in milliseconds.
    spent: BTreeMap<i64, Usd>,
    raisings: Raisings,
}

pub(super) fn on_snapshot(
    budgets: &mut Bounded<BudgetHistory>,
    snapshot: &BudgetSnapshot,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let name = format!("{}\u{1f}{}", snapshot.budget, snapshot.value);
    let history = budgets.entry(&name, now);
    if history.latest.as_ref().is_some_and(|latest| snapshot.at < latest.at) {
        return;
    }
    history.take(snapshot);
    history.look(now, findings);
}

pub(super) fn on_tick(
    budgets: &mut Bounded<BudgetHistory>,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let raised = budgets.iter().filter(|(_, history)| !history.raisings.is_empty());
    let names: Vec<String> = raised.map(|(name, _)| name.to_owned()).collect();
    for name in names {
        budgets.entry(&name, now).look(now, findings);
    }
}

impl BudgetHistory {
    /// How the budget stood when it was last heard of.
    pub(super) const fn latest(&self) -> Option<&BudgetSnapshot> {
        self.latest.as_ref()
    }

    fn take(&mut self, snapshot: &BudgetSnapshot) {
        // The first sight of a budget says nothing of when its money was spent.
        let before = self.latest.as_ref().map(|latest| {
            if latest.window_starts_at == snapshot.window_starts_at {
                latest.spent
            } else {
                Usd::ZERO
            }
        });
        if let Some(more) = before.and_then(|before| snapshot.spent.checked_sub(before))
            && more > Usd::ZERO
        {
            let minute = floor(snapshot.at.ms(), MINUTE_MS);
            let sum = self.spent.entry(minute).or_default();
            *sum = sum.saturating_add(more);
        }
        self.latest = Some(snapshot.clone());
        self.forget(snapshot.at);
    }

    fn forget(&mut self, now: Timestamp) {
        let oldest = floor(now.ms().saturating_sub(DAY_MS), COARSE_MS);
        let fine = floor(now.ms().saturating_sub(FINE_MS), COARSE_MS);
        let recent = self.spent.split_off(&fine);
        let mut kept = BTreeMap::<i64, Usd>::new();
        for (start, amount) in std::mem::replace(&mut self.spent, recent) {
            if start >= oldest {
                let sum = kept.entry(floor(start, COARSE_MS)).or_default();
                *sum = sum.saturating_add(amount);
            }
        }
        self.spent.append(&mut kept);
    }

    fn spent_within(&self, window_ms: i64, now: Timestamp) -> Usd {
        let from = floor(now.ms().saturating_sub(window_ms), MINUTE_MS);
        self.spent.range(from..).fold(Usd::ZERO, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    fn look(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        let Some(snapshot) = self.latest.take() else { return };
        self.look_at_thresholds(&snapshot, now, findings);
        let burning = self.burning(&snapshot, now);
        let subject = subject(&snapshot);
        findings.extend(self.raisings.set(AlertKind::Pace, &subject, burning, now));
        self.latest = Some(snapshot);
    }

    fn look_at_thresholds(
        &mut self,
        snapshot: &BudgetSnapshot,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        let is_over = snapshot.window_ends_at.is_some_and(|end| end <= now);
        let reached = |threshold: u8| {
            let part = snapshot.spent.pico().saturating_mul(100);
            !is_over
                && snapshot.limit > Usd::ZERO
                && (part >= snapshot.limit.pico().saturating_mul(i128::from(threshold))
                    || snapshot.refusing && threshold <= 100)
        };
        let subject_of = |threshold: u8| {
            let start = snapshot.window_starts_at;
            format!("{}:{start}:{threshold}", subject(snapshot))
        };
        // Where several are reached at once, the highest says all.
        let highest = snapshot.thresholds.iter().copied().filter(|t| reached(*t)).max();
        let still: Vec<String> =
            snapshot.thresholds.iter().filter(|t| reached(**t)).map(|t| subject_of(*t)).collect();
        let own = subject(snapshot);
        for raised in self.raisings.subjects(AlertKind::BudgetThreshold) {
            if raised.starts_with(&own) && !still.contains(&raised) {
                findings.extend(self.raisings.clear(AlertKind::BudgetThreshold, &raised));
            }
        }
        let Some(threshold) = highest else { return };
        let severity = match threshold {
            100.. => Severity::Critical,
            80..=99 => Severity::Warning,
            0..=79 => Severity::Info,
        };
        let title = format!("Budget {} has reached {threshold} %", own);
        let raised =
            Raised::new(AlertKind::BudgetThreshold, &subject_of(threshold), severity, &title)
                .owner(&snapshot.owner)
                .link(link(snapshot))
                .with("budget", snapshot.budget.as_str())
                .with("value", snapshot.value.as_str())
                .with("threshold_percent", i64::from(threshold))
                .with("limit_usd", snapshot.limit)
                .with("spent_usd", snapshot.spent)
                .with("held_usd", snapshot.held)
                .with("refuses_requests", if snapshot.refusing { "yes" } else { "no" })
                .with("window_starts_at", snapshot.window_starts_at);
        findings.extend(self.raisings.raise(raised, now));
    }

    /// The first pair that burns.
    fn burning(&self, snapshot: &BudgetSnapshot, now: Timestamp) -> Option<Raised> {
        let end = snapshot.window_ends_at?;
        let length = i128::from(end.since_ms(snapshot.window_starts_at));
        let limit = snapshot.limit.pico();
        if limit <= 0 || length <= 0 {
            return None;
        }
        // The rate, in hundredths, of what was spent in a window.
        let rate_of = |window_ms: i64| {
            let spent = self.spent_within(window_ms, now);
            let over = limit.saturating_mul(i128::from(window_ms));
            (spent, spent.pico().saturating_mul(length).saturating_mul(100) / over.max(1))
        };
        BURNS.iter().find_map(|burn| {
            let share_max = SHARE_MAX_PERCENT.saturating_mul(length) / i128::from(burn.long_ms);
            let rate = burn.rate.min(share_max);
            let (long, long_rate) = rate_of(burn.long_ms);
            let (short, short_rate) = rate_of(burn.short_ms);
            if rate < RATE_MIN || long_rate < rate || short_rate < rate {
                return None;
            }
            let times = long_rate / 100;
            let title = format!("Budget {} burns {times} times its pace", subject(snapshot));
            let hundredths = |rate: i128| i64::try_from(rate).unwrap_or(i64::MAX);
            let raised = Raised::new(AlertKind::Pace, &subject(snapshot), burn.severity, &title)
                .owner(&snapshot.owner)
                .link(link(snapshot))
                .with("budget", snapshot.budget.as_str())
                .with("value", snapshot.value.as_str())
                .with("limit_usd", snapshot.limit)
                .with("spent_usd", snapshot.spent)
                .with("long_window_minutes", burn.long_ms / MINUTE_MS)
                .with("long_window_spent_usd", long)
                .with("long_window_rate_percent", hundredths(long_rate))
                .with("short_window_minutes", burn.short_ms / MINUTE_MS)
                .with("short_window_spent_usd", short)
                .with("short_window_rate_percent", hundredths(short_rate))
                .with("rate_limit_percent", hundredths(rate));
            Some(raised)
        })
    }
}

fn floor(ms: i64, step: i64) -> i64 {
    ms.saturating_sub(ms.rem_euclid(step))
}

fn subject(snapshot: &BudgetSnapshot) -> String {
    if snapshot.value.is_empty() {
        snapshot.budget.clone()
    } else {
        format!("{}/{}", snapshot.budget, snapshot.value)
    }
}

fn link(snapshot: &BudgetSnapshot) -> String {
    format!("/budgets/{}", snapshot.budget)
}
