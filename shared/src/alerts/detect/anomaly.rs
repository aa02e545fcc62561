//! Anomalies: an hour's spending far above the same hour of the week in earlier weeks, for the workspace and for each
//! owner of keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Raisings;
use crate::alerts::alert::{AlertKind, Finding, Raised, Severity};
use crate::alerts::bounded::Bounded;
use crate::alerts::rules::AlertRules;
use crate::events::usage_event::UsageEvent;
use crate::money::Usd;
use crate::time::{HOUR_MS, Timestamp};

/// Hours in a week.
const WEEK: i64 = 168;
/// Earlier weeks that are compared with.
const WEEKS: i64 = 5;
/// The fewest of them that say anything.
const WEEKS_MIN: usize = 3;
/// The scope of all that a workspace spends.
const WORKSPACE: &str = "workspace";

/// What is remembered of one scope's spending.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpendHistory {
    /// The hour of the first event, in hours since the epoch.
    first: Option<i64>,
    /// Spending by hour.
    hours: BTreeMap<i64, Usd>,
    /// The last hour that was an anomaly.
    anomalous: Option<i64>,
    raisings: Raisings,
}

pub(super) fn on_event(
    spending: &mut Bounded<SpendHistory>,
    event: &UsageEvent,
    rules: &AlertRules,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    // A flood of refusals costs nothing and tells nothing here.
    if event.charged <= Usd::ZERO {
        return;
    }
    let hour = hour_of(event.at);
    if hour < hour_of(now).saturating_sub(WEEK * WEEKS) {
        return;
    }
    let owner = (!event.owner.is_empty()).then(|| format!("owner:{}", event.owner));
    for scope in std::iter::once(WORKSPACE.to_owned()).chain(owner) {
        let history = spending.entry(&scope, now);
        history.add(hour, event.charged);
        let raised = history.anomaly(&scope, &event.owner, hour, rules);
        if let Some(raised) = raised {
            history.anomalous = history.anomalous.max(Some(hour));
            findings.extend(history.raisings.raise(raised, now));
        }
    }
}

pub(super) fn on_tick(
    spending: &mut Bounded<SpendHistory>,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let hour = hour_of(now);
    let is_over = |history: &SpendHistory| {
        !history.raisings.is_empty() && history.anomalous.is_none_or(|last| hour - last >= 2)
    };
    let over = spending.iter().filter(|(_, history)| is_over(history));
    let scopes: Vec<String> = over.map(|(scope, _)| scope.to_owned()).collect();
    for scope in scopes {
        let history = spending.entry(&scope, now);
        findings.extend(history.raisings.clear(AlertKind::Anomaly, &scope));
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.ms().div_euclid(HOUR_MS)
}

impl SpendHistory {
    fn add(&mut self, hour: i64, amount: Usd) {
        self.first = Some(self.first.map_or(hour, |first| first.min(hour)));
        let sum = self.hours.entry(hour).or_default();
        *sum = sum.saturating_add(amount);
        let newest = self.hours.keys().next_back().copied().unwrap_or(hour);
        self.hours = self.hours.split_off(&newest.saturating_sub(WEEK * WEEKS));
    }

    fn anomaly(&self, scope: &str, owner: &str, hour: i64, rules: &AlertRules) -> Option<Raised> {
        let first = self.first?;
        let spent = self.hours.get(&hour)?.pico();
        // An hour without spending is a figure too: 0.
        let earlier: Vec<i128> = (1..=WEEKS)
            .map(|weeks| hour - WEEK * weeks)
            .filter(|hour| *hour >= first)
            .map(|hour| self.hours.get(&hour).map_or(0, |amount| amount.pico()))
            .collect();
        if earlier.len() < WEEKS_MIN {
            return None;
        }
        let weeks = i64::try_from(earlier.len()).unwrap_or(WEEKS);
        let middle = median(earlier.clone())?;
        let mad = median(earlier.into_iter().map(|amount| (amount - middle).abs()).collect())?;
        let deviations =
            mad.saturating_mul(14_826).saturating_mul(rules.anomaly_deviations.into()) / 10_000;
        let margin = deviations.max(middle / 2).max(rules.anomaly_min_usd.pico());
        let above = spent - middle;
        if above <= margin {
            return None;
        }
        let severity = if above / 3 > margin { Severity::Critical } else { Severity::Warning };
        let (who, owner) = match scope {
            WORKSPACE => ("The workspace".to_owned(), ""),
            _ => (format!("Owner {owner}"), owner),
        };
        let title = format!("{who} spends far more than at this hour in earlier weeks");
        let usd = |pico: i128| Usd::from_pico(pico).round_to_nanos();
        let raised = Raised::new(AlertKind::Anomaly, scope, severity, &title)
            .owner(owner)
            .link("/usage".to_owned())
            .with("scope", scope)
            .with("hour", Timestamp::from_ms(hour.saturating_mul(HOUR_MS)))
            .with("spent_usd", usd(spent))
            .with("median_usd", usd(middle))
            .with("mad_usd", usd(mad))
            .with("limit_usd", usd(middle + margin))
            .with("weeks", weeks);
        Some(raised)
    }
}

/// The middle value, or the mean of the two.
fn median(mut values: Vec<i128>) -> Option<i128> {
    values.sort_unstable();
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(half.checked_sub(1)?)?;
    Some(lower.saturating_add(upper) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in [
            (vec![], None),
            (vec![4], Some(4)),
            (vec![9, 1], Some(5)),
            (vec![9, 1, 2], Some(2)),
            (vec![100, 1, 2, 3], Some(2)),
        ] {
            assert_eq!(median(values.clone()), expected, "{values:?}");
        }
    }
}
