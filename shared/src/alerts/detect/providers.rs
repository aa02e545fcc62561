//! Providers: the share of attempts that fail, in a window of minutes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Raisings;
use crate::alerts::alert::{AlertKind, Finding, Raised, Severity};
use crate::alerts::bounded::Bounded;
use crate::alerts::rules::AlertRules;
use crate::events::usage_event::{Attempt, Outcome, UsageEvent};
use crate::time::Timestamp;

const MINUTE_MS: i64 = 60_000;
/// The longest window that can be set, in minutes.
const WINDOW_MAX: i64 = 60;
/// From this share on, in percent, it is critical.
const CRITICAL_PERCENT: u64 = 50;

/// What is remembered of one provider.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderHealth {
    /// Attempts and failures by minute since the epoch.
    minutes: BTreeMap<i64, (u64, u64)>,
    raisings: Raisings,
}

pub(super) fn on_event(
    providers: &mut Bounded<ProviderHealth>,
    event: &UsageEvent,
    rules: &AlertRules,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let minute = event.settled_at.ms().div_euclid(MINUTE_MS);
    if minute < now.ms().div_euclid(MINUTE_MS) - WINDOW_MAX {
        return;
    }
    let broke_off = matches!(event.outcome, Outcome::ProviderDied | Outcome::Stalled);
    let last = event.attempts.len().saturating_sub(1);
    let mut touched: Vec<&str> = Vec::new();
    for (place, attempt) in event.attempts.iter().enumerate() {
        let has_failed = failed(attempt) || (broke_off && place == last);
        let health = providers.entry(&attempt.provider, now);
        health.count(minute, has_failed);
        if !touched.contains(&attempt.provider.as_str()) {
            touched.push(&attempt.provider);
        }
    }
    for provider in touched {
        providers.entry(provider, now).look(provider, rules, now, findings);
    }
}

pub(super) fn on_tick(
    providers: &mut Bounded<ProviderHealth>,
    rules: &AlertRules,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let raised = providers.iter().filter(|(_, health)| !health.raisings.is_empty());
    let names: Vec<String> = raised.map(|(name, _)| name.to_owned()).collect();
    for name in names {
        providers.entry(&name, now).look(&name, rules, now, findings);
    }
}

/// Whether the provider is to blame: it was not reached, failed, throttled, or did not take our credential.
fn failed(attempt: &Attempt) -> bool {
    attempt.error.is_some()
        || attempt.status.is_none_or(|status| {
            matches!(status, 401 | 403 | 408 | 429) || (500..=599).contains(&status)
        })
}

impl ProviderHealth {
    fn count(&mut self, minute: i64, has_failed: bool) {
        let (attempts, failures) = self.minutes.entry(minute).or_default();
        *attempts = attempts.saturating_add(1);
        *failures = failures.saturating_add(has_failed.into());
        let newest = self.minutes.keys().next_back().copied().unwrap_or(minute);
        self.minutes = self.minutes.split_off(&(newest - WINDOW_MAX));
    }

    fn look(
        &mut self,
        provider: &str,
        rules: &AlertRules,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        let from = now.ms().div_euclid(MINUTE_MS) - i64::from(rules.provider_error_window_minutes);
        let window = self.minutes.range(from + 1..);
        let (attempts, failures) = window.fold((0_u64, 0_u64), |(all, bad), (_, (more, worse))| {
            (all.saturating_add(*more), bad.saturating_add(*worse))
        });
        let percent = failures.saturating_mul(100) / attempts.max(1);
        let limit = u64::from(rules.provider_error_percent);
        let has_enough = attempts >= u64::from(rules.provider_error_min_requests);
        if !has_enough || percent < limit {
            // Half the limit: a share that wavers around it is one alert.
            let is_calm = attempts == 0 || percent.saturating_mul(2) < limit;
            if is_calm {
                findings.extend(self.raisings.clear(AlertKind::ProviderErrors, provider));
            }
            return;
        }
        let is_critical = percent >= CRITICAL_PERCENT.max(limit);
        let severity = if is_critical { Severity::Critical } else { Severity::Warning };
        let title = format!("Provider {provider} fails in {percent} % of the attempts");
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let raised = Raised::new(AlertKind::ProviderErrors, provider, severity, &title)
            .link(format!("/providers/{provider}"))
            .with("provider", provider)
            .with("attempts", number(attempts))
            .with("failures", number(failures))
            .with("failed_percent", number(percent))
            .with("window_minutes", i64::from(rules.provider_error_window_minutes));
        findings.extend(self.raisings.raise(raised, now));
    }
}
