//! What a workspace counts for ever: requests, tokens, cost, attempts and how long things took.
//!
//! Cardinality is bounded. A group is a provider, a model, a team and an operation; all four come from configuration or
//! from a signed token, never from what a caller may make up, and there are at most [`MAX_GROUPS`]: what comes later
//! counts under `other`. Users, sessions, customers, keys and request ids are never labels.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::attributes::{buckets, error_type, is_timed, operation, outcome_name, tokens_of};
use super::histogram::{DURATION_BOUNDS_MS, Histogram, TOKEN_BOUNDS};
use crate::events::usage_event::{Attempt, Outcome, UsageEvent};
use crate::money::Usd;
use crate::time::Timestamp;

/// Groups with a name of their own: 1,000 x about 1.5 KB is 1.5 MB of an object's 128 MB. Measured with 100 models and
/// 10 teams, a scrape is 11,000 lines (1.2 MB); with 1,000 models it would be some 40,000.
pub const MAX_GROUPS: usize = 1_000;
/// What groups beyond are called.
pub const OTHER: &str = "other";
/// Codes, results and outcomes of one group. They are the gateway's own words, so this is never met in practice.
const MAX_WORDS: usize = 64;
const LABEL_MAX_CHARS: usize = 128;

/// What is counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The provider, by the workspace's name for it. Empty where none was asked.
    pub provider: String,
    /// The model that was asked for there. Empty where none was.
    pub model: String,
    /// The team, of the key or of a signed token. Empty where none is known.
    pub team: String,
    /// `gen_ai.operation.name`.
    pub operation: String,
}

/// The figures of one group. Each only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Totals {
    /// Requests by outcome.
    pub requests: BTreeMap<String, u64>,
    /// Refusals by code.
    pub refusals: BTreeMap<String, u64>,
    /// Requests that failed after they were admitted, by code.
    pub errors: BTreeMap<String, u64>,
    /// Attempts at this group's provider and model, by result: a status, or what went wrong.
    pub attempts: BTreeMap<String, u64>,
    /// Tokens by bucket.
    pub tokens: BTreeMap<String, u64>,
    /// What they cost at the price of the request's moment. What a bill corrects later is not in it.
    pub cost: Usd,
    /// What was counted against budgets.
    pub charged: Usd,
    /// How long operations took, by `error.type`; empty for those that went well.
    pub duration_ms: BTreeMap<String, Histogram>,
    /// How long streams took to their first byte.
    pub first_byte_ms: Histogram,
    /// Input tokens of each request, cached ones among them.
    pub input_tokens: Histogram,
    /// Output tokens of each request, reasoning among them.
    pub output_tokens: Histogram,
}

/// Everything that a workspace counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// By group.
    pub groups: BTreeMap<Group, Totals>,
    /// Groups that changed since [`Self::take_changed`] was called last.
    changed: BTreeSet<Group>,
    /// When the newest event was settled.
    pub last_event_at: Option<Timestamp>,
}

impl Counters {
    /// From what is stored.
    pub fn restore(groups: BTreeMap<Group, Totals>, last_event_at: Option<Timestamp>) -> Self {
        Self { groups, changed: BTreeSet::new(), last_event_at }
    }

    /// Counts an event.
    pub fn observe(&mut self, event: &UsageEvent) {
        self.last_event_at = self.last_event_at.max(Some(event.settled_at));
        for attempt in &event.attempts {
            let group = group_of(event, Some(&attempt.provider), Some(&attempt.model));
            bump(&mut self.totals(group).attempts, &result_of(attempt), 1);
        }
        let group = group_of(event, event.provider.as_deref(), event.model.as_deref());
        self.totals(group).count(event);
    }

    fn totals(&mut self, group: Group) -> &mut Totals {
        let group = self.admitted(group);
        self.changed.insert(group.clone());
        self.groups.entry(group).or_default()
    }

    /// The group as it is counted: beyond the limit, the team goes first, then the model, then the provider.
    fn admitted(&self, mut group: Group) -> Group {
        for blur in [
            |_: &mut Group| {},
            |group: &mut Group| group.team = OTHER.to_owned(),
            |group: &mut Group| group.model = OTHER.to_owned(),
            |group: &mut Group| group.provider = OTHER.to_owned(),
        ] {
            blur(&mut group);
            if self.groups.len() < MAX_GROUPS || self.groups.contains_key(&group) {
                return group;
            }
        }
        // Operations are seven words: these few are beyond the limit.
        group
    }

    /// The groups that changed, to be stored.
    pub fn take_changed(&mut self) -> Vec<(Group, Totals)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|group| {
                let totals = self.groups.get(&group)?.clone();
                Some((group, totals))
            })
            .collect()
    }
}

impl Totals {
    fn count(&mut self, event: &UsageEvent) {
        let error = error_type(event).unwrap_or_default();
        bump(&mut self.requests, outcome_name(event.outcome), event.sampled);
        match event.outcome {
            Outcome::Completed => {}
            Outcome::Refused => bump(&mut self.refusals, error, event.sampled),
            _ => bump(&mut self.errors, error, event.sampled),
        }
        let tokens = tokens_of(event);
        for (name, count) in tokens.iter().flat_map(buckets).filter(|(_, count)| *count > 0) {
            bump(&mut self.tokens, name, count);
        }
        if !tokens.is_empty() {
            let sum = |part: fn(&crate::tokens::Tokens) -> u64| {
                tokens.iter().map(part).fold(0, u64::saturating_add)
            };
            self.input_tokens.observe(sum(|t| t.input_total()), &TOKEN_BOUNDS);
            self.output_tokens.observe(sum(|t| t.output_total()), &TOKEN_BOUNDS);
        }
        // A counter must not fall: a cost below zero is none that a price book gives.
        let cost = event.cost.as_ref().map_or(Usd::ZERO, |cost| cost.total).max(Usd::ZERO);
        self.cost = self.cost.saturating_add(cost);
        self.charged = self.charged.saturating_add(event.charged.max(Usd::ZERO));
        if is_timed(event) {
            let key = known_word(&self.duration_ms, error);
            let durations = self.duration_ms.entry(key).or_default();
            durations.observe(event.duration_ms, &DURATION_BOUNDS_MS);
            if let Some(first_byte_ms) = event.first_byte_ms.filter(|_| event.stream) {
                self.first_byte_ms.observe(first_byte_ms, &DURATION_BOUNDS_MS);
            }
        }
    }
}

fn group_of(event: &UsageEvent, provider: Option<&str>, model: Option<&str>) -> Group {
    Group {
        provider: label(provider),
        model: label(model),
        team: label(event.actor.team.as_deref()),
        operation: operation(&event.endpoint).to_owned(),
    }
}

fn label(text: Option<&str>) -> String {
    text.unwrap_or_default().chars().take(LABEL_MAX_CHARS).collect()
}

fn result_of(attempt: &Attempt) -> String {
    match (&attempt.error, attempt.status) {
        (Some(error), _) => error.clone(),
        (None, Some(status)) => status.to_string(),
        (None, None) => "unknown".to_owned(),
    }
}

fn known_word<T>(map: &BTreeMap<String, T>, word: &str) -> String {
    let is_known = map.len() < MAX_WORDS || map.contains_key(word);
    if is_known { word.to_owned() } else { OTHER.to_owned() }
}

fn bump(map: &mut BTreeMap<String, u64>, word: &str, by: u64) {
    let count = map.entry(known_word(map, word)).or_default();
    *count = count.saturating_add(by);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// An event of this shape with what a test changes of it.
    pub(crate) fn event(changes: serde_json::Value) -> UsageEvent {
        let mut event = json!({
            "v": 1, "id": "req_0199a0000000700080000000000000ab", "seq": 1, "workspace": "ws_0123456789abcdef",
            "key": "0123456789abcdef", "at": 1_790_000_000_000_u64, "settled_at": 1_790_000_001_500_u64,
            "key_name": "n", "owner": "o", "cost_centre": "cc-1", "purpose": "p", "environment": "prod",
            "actor": { "user": "ada", "team": "search", "feature": "answers", "session": "s-1" },
            "labels": { "free": "text that nobody vouches for" },
            "endpoint": "/v1/chat/completions", "stream": true, "requested_model": "smart",
            "provider": "main", "model": "gpt-5", "response_model": "gpt-5-2026-01-01",
            "provider_request_id": "chatcmpl-1",
            "attempts": [
                { "provider": "spare", "model": "gpt-4", "error": "connection_failed", "started_ms": 1, "took_ms": 9 },
                { "provider": "main", "model": "gpt-5", "status": 200, "started_ms": 11, "took_ms": 80 },
            ],
            "outcome": "completed", "status": 200,
            "usage": { "source": "reported", "tally": { "tokens": {
                "input": 100, "cache_read": 28, "output": 20, "reasoning": 5 } } },
            "cost": { "total": "0.00125", "parts": { "input": "0.00125" },
                "price": { "row": "openai/gpt-5", "book": "b", "tier": "standard" } },
            "charged": "0.00125", "hold": "0.01", "duration_ms": 1500, "first_byte_ms": 250,
        });
        let serde_json::Value::Object(changes) = changes else { panic!("changes are an object") };
        event.as_object_mut().unwrap().extend(changes);
        serde_json::from_value(event).unwrap()
    }

    pub(crate) fn refusal(code: &str, sampled: u64) -> UsageEvent {
        event(json!({
            "provider": null, "model": null, "response_model": null, "attempts": [], "outcome": "refused",
            "code": code, "status": 403, "usage": { "source": "absent" }, "cost": null, "charged": "0",
            "sampled": sampled,
        }))
    }

    #[test]
    fn an_event_counts_in_its_group_and_an_attempt_in_its_own() {
        let mut counters = Counters::default();
        counters.observe(&event(json!({})));
        counters.observe(&event(json!({})));
        let group = |provider: &str, model: &str| Group {
            provider: provider.to_owned(),
            model: model.to_owned(),
            team: "search".to_owned(),
            operation: "chat".to_owned(),
        };
        assert_eq!(counters.groups.len(), 2);
        let main = &counters.groups[&group("main", "gpt-5")];
        assert_eq!(main.requests["completed"], 2);
        assert_eq!(main.attempts["200"], 2);
        assert_eq!(main.tokens["input"], 200);
        assert_eq!(main.tokens["reasoning"], 10);
        assert_eq!(main.cost.to_string(), "0.0025");
        assert_eq!(main.duration_ms[""].count(), 2);
        assert_eq!(main.duration_ms[""].sum, 3_000);
        assert_eq!(main.first_byte_ms.sum, 500);
        assert_eq!((main.input_tokens.sum, main.output_tokens.sum), (256, 50));
        let spare = &counters.groups[&group("spare", "gpt-4")];
        assert_eq!(spare.attempts["connection_failed"], 2);
        assert!(spare.requests.is_empty());
        assert_eq!(counters.take_changed().len(), 2);
        assert!(counters.take_changed().is_empty());
        assert_eq!(counters.last_event_at, Some(Timestamp::from_ms(1_790_000_001_500)));
    }

    #[test]
    fn a_refusal_counts_as_often_as_it_stands_for() {
        let mut counters = Counters::default();
        counters.observe(&refusal("model_not_allowed", 40));
        counters.observe(&refusal("budget_exceeded", 1));
        let totals = counters.groups.values().next().unwrap();
        assert_eq!(totals.requests["refused"], 41);
        assert_eq!(totals.refusals["model_not_allowed"], 40);
        assert!(totals.errors.is_empty() && totals.duration_ms.is_empty());
        assert_eq!(totals.input_tokens.count(), 0);
    }

    #[test]
    fn what_failed_is_an_error_with_its_code() {
        let mut counters = Counters::default();
        counters
            .observe(&event(json!({ "outcome": "provider_error", "code": "provider_overloaded" })));
        counters.observe(&event(json!({ "outcome": "abandoned" })));
        let totals = counters.groups.values().next().unwrap();
        assert_eq!(totals.errors["provider_overloaded"], 1);
        assert_eq!(totals.errors["abandoned"], 1);
        assert_eq!(totals.duration_ms["provider_overloaded"].count(), 1);
        assert!(!totals.duration_ms.contains_key("abandoned"), "nobody knows how long it took");
    }

    #[test]
    fn groups_beyond_the_limit_count_under_other() {
        let mut counters = Counters::default();
        for n in 0..MAX_GROUPS + 50 {
            let actor = json!({ "team": format!("team-{n}") });
            let model = format!("model-{n}");
            counters.observe(&event(json!({ "actor": actor, "model": model, "attempts": [] })));
        }
        let requests: u64 =
            counters.groups.values().filter_map(|t| t.requests.get("completed")).sum();
        assert_eq!(requests, u64::try_from(MAX_GROUPS).unwrap() + 50);
        assert_eq!(counters.groups.len(), MAX_GROUPS + 1);
        let other = counters.groups.iter().find(|(group, _)| group.model == OTHER).unwrap();
        assert_eq!((other.0.team.as_str(), other.0.provider.as_str()), (OTHER, OTHER));
        assert_eq!(other.1.requests["completed"], 50);
    }

    #[test]
    fn stored_totals_format_unchanged() {
        let mut counters = Counters::default();
        counters.observe(&event(json!({ "attempts": [] })));
        let stored = serde_json::to_string(&counters.take_changed()).unwrap();
        let golden = include_str!("golden/totals.json");
        assert_eq!(stored, golden.trim());
        let back: Vec<(Group, Totals)> = serde_json::from_str(golden).unwrap();
        assert_eq!(Counters::restore(back.into_iter().collect(), counters.last_event_at), counters);
    }
}
