//! Keys: about to expire, not used, or used from a network they were not used from before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{KeyFacts, Raisings};
use crate::alerts::alert::{AlertKind, Finding, Raised, Severity};
use crate::alerts::bounded::Bounded;
use crate::alerts::rules::AlertRules;
use crate::events::usage_event::UsageEvent;
use crate::time::{DAY_MS, Timestamp};

/// Networks remembered of a key.
const NETWORKS: usize = 32;
/// A caller without a valid key: it says nothing about where the key is used.
const UNAUTHENTICATED: u16 = 401;

/// What is remembered of one key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeySeen {
    last_used_at: Option<Timestamp>,
    /// When each network was seen last.
    networks: BTreeMap<String, Timestamp>,
    raisings: Raisings,
}

pub(super) fn on_event(
    keys: &mut Bounded<KeySeen>,
    event: &UsageEvent,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    if event.status == UNAUTHENTICATED {
        return;
    }
    let seen = keys.entry(event.key.as_str(), now);
    seen.last_used_at = seen.last_used_at.max(Some(event.at));
    findings.extend(seen.raisings.clear(AlertKind::KeyUnused, event.key.as_str()));
    let Some(network) = &event.network else { return };
    // The first network of a key is no surprise: that is where it lives.
    let is_new = !seen.networks.is_empty() && !seen.networks.contains_key(network);
    let last = seen.networks.entry(network.clone()).or_insert(event.at);
    *last = (*last).max(event.at);
    if seen.networks.len() > NETWORKS {
        let oldest = seen.networks.iter().min_by_key(|(_, at)| **at);
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            seen.networks.remove(&oldest);
        }
    }
    if is_new {
        let subject = format!("{}:{network}", event.key);
        let title = format!("Key {} is used from a new network", event.key_name);
        let known = i64::try_from(seen.networks.len()).unwrap_or(i64::MAX);
        let raised = Raised::new(AlertKind::KeyNewNetwork, &subject, Severity::Warning, &title)
            .owner(&event.owner)
            .link(format!("/keys/{}", event.key))
            .with("key", event.key.as_str())
            .with("key_name", event.key_name.as_str())
            .with("network", network.as_str())
            .with("networks_known", known)
            .with("request", event.id.as_str());
        findings.push(raised.found());
    }
}

pub(super) fn on_keys(
    keys: &mut Bounded<KeySeen>,
    facts: &[KeyFacts],
    rules: &AlertRules,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    for key in facts {
        let id = key.key.as_str();
        let used_at = keys.get(id).and_then(|seen| seen.last_used_at).max(key.last_used_at);
        let wanted = [
            (AlertKind::KeyExpiring, expiring(key, rules, now)),
            (AlertKind::KeyUnused, unused(key, used_at, rules, now)),
        ];
        for (kind, raised) in wanted {
            let was = keys.get(id).is_some_and(|seen| seen.raisings.contains(kind, id));
            if raised.is_some() || was {
                findings.extend(keys.entry(id, now).raisings.set(kind, id, raised, now));
            }
        }
    }
    let known: BTreeSet<&str> = facts.iter().map(|key| key.key.as_str()).collect();
    for id in keys.names() {
        if known.contains(id.as_str()) {
            continue;
        }
        for kind in [AlertKind::KeyExpiring, AlertKind::KeyUnused] {
            findings.extend(keys.entry(&id, now).raisings.clear(kind, &id));
        }
        keys.remove(&id);
    }
}

fn about(key: &KeyFacts, kind: AlertKind, severity: Severity, title: &str) -> Raised {
    Raised::new(kind, key.key.as_str(), severity, title)
        .owner(&key.owner)
        .link(format!("/keys/{}", key.key))
        .with("key", key.key.as_str())
        .with("key_name", key.name.as_str())
}

fn expiring(key: &KeyFacts, rules: &AlertRules, now: Timestamp) -> Option<Raised> {
    let expires_at = key.expires_at?;
    let left = expires_at.since_ms(now);
    if left <= 0 || left > i64::from(rules.key_expiring_days).saturating_mul(DAY_MS) {
        return None;
    }
    let severity = if left <= DAY_MS { Severity::Critical } else { Severity::Warning };
    let title = format!("Key {} expires on {}", key.name, expires_at.date());
    Some(about(key, AlertKind::KeyExpiring, severity, &title).with("expires_at", expires_at))
}

fn unused(
    key: &KeyFacts,
    used_at: Option<Timestamp>,
    rules: &AlertRules,
    now: Timestamp,
) -> Option<Raised> {
    let since = used_at.unwrap_or(key.created_at);
    let idle = now.since_ms(since);
    let has_expired = key.expires_at.is_some_and(|end| end <= now);
    if has_expired || idle < i64::from(rules.key_unused_days).saturating_mul(DAY_MS) {
        return None;
    }
    let days = idle / DAY_MS;
    let title = format!("Key {} is not used", key.name);
    let raised = about(key, AlertKind::KeyUnused, Severity::Info, &title);
    let raised = raised.with("unused_days", days).with("created_at", key.created_at);
    Some(match used_at {
        Some(at) => raised.with("last_used_at", at),
        None => raised,
    })
}
