//! What the breaker knows of a request: hashes and sizes, never a word of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rules::{LoopRules, Watch};
use crate::identity::actor::Actor;
use crate::money::Usd;

/// A request without its words. Hashes have 52 bits, so that they cross JavaScript as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestShape {
    /// Equal for requests that ask the same: model, sampling settings and input, normalised.
    pub fingerprint: u64,
    /// The last tool calls since a person or program last spoke, oldest first: each a hash of name and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<u64>,
    /// Messages in the conversation.
    pub messages: u32,
}

/// Whose requests are watched together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ScopeKey {
    /// Its id: `key`, or 16 hexadecimal digits.
    pub id: String,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

impl ScopeKey {
    /// The scope of a request, `None` when it is not watched.
    pub fn of(actor: &Actor, rules: &LoopRules) -> Option<Self> {
        if !rules.enabled {
            return None;
        }
        if actor.agent.is_none() && actor.session.is_none() {
            let key = Self { id: "key".to_owned(), agent: None, session: None };
            return (rules.watch == Watch::Key).then_some(key);
        }
        let mut hash = Sha256::new();
        for part in [&actor.agent, &actor.session] {
            // Lengths first: no pair of names reads like another.
            let part = part.as_deref().unwrap_or_default();
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digits = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { id: digits, agent: actor.agent.clone(), session: actor.session.clone() })
    }
}

/// Why a scope is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// The same request was answered again and again.
    RepeatedRequest {
        /// How often, one after the other.
        times: u32,
        /// In how many seconds at most.
        window_seconds: u64,
    },
    /// The conversation ends in a cycle of tool calls with equal arguments.
    ToolCycle {
        /// Calls that belong to it.
        calls: u32,
        /// Calls until it begins anew.
        period: u32,
    },
    /// The scope spends far faster than it ever did.
    SpendLeap {
        /// What it spent in the current window.
        spent_usd: Usd,
        /// The most that it spent in one of its last windows.
        baseline_usd: Usd,
        /// The window's length in seconds.
        window_seconds: u64,
    },
    /// The conversation grows without ever being compacted.
    ContextGrowth {
        /// Its size now, as counted by the gateway.
        input_tokens: u64,
        /// Its size when the growth began.
        from_tokens: u64,
        /// Requests since then.
        requests: u32,
    },
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RepeatedRequest { times, window_seconds } => write!(
                f,
                "the same request was answered {times} times, one after the other, within {window_seconds} seconds"
            ),
            Self::ToolCycle { calls, period } => write!(
                f,
                "the last {calls} tool calls repeat a cycle of {period} with equal arguments"
            ),
            Self::SpendLeap { spent_usd, baseline_usd, window_seconds } => write!(
                f,
                "it spent {spent_usd} USD within {window_seconds} seconds, and never more than {baseline_usd} USD before"
            ),
            Self::ContextGrowth { input_tokens, from_tokens, requests } => write!(
                f,
                "its context grew from {from_tokens} to {input_tokens} tokens in {requests} requests without being compacted"
            ),
        }
    }
}

/// The cycle that `calls` end in, as (calls in it, period): at least `least` calls, and three rounds of it.
pub(super) fn cycle(calls: &[u64], least: u32) -> Option<Evidence> {
    let least = usize::try_from(least).unwrap_or(usize::MAX);
    for period in 1..=4_usize {
        // Counted from the end: how far each call equals the one a period before it.
        let later = calls.iter().rev();
        let earlier = calls.iter().rev().skip(period);
        let equal = later.zip(earlier).take_while(|(a, b)| a == b).count();
        let length = equal + period;
        if equal > 0 && length >= least.max(period * 3) {
            let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
            return Some(Evidence::ToolCycle { calls: number(length), period: number(period) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(calls: &[u64], least: u32) -> Option<(u32, u32)> {
        match cycle(calls, least)? {
            Evidence::ToolCycle { calls, period } => Some((calls, period)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn cycles_of_one_to_four_calls_are_found_at_the_end_only() {
        assert_eq!(found(&[7, 1, 2, 1, 2, 1, 2, 1, 2], 8), Some((8, 2)));
        assert_eq!(found(&[5, 5, 5, 5], 4), Some((4, 1)));
        assert_eq!(found(&[1, 2, 3, 1, 2, 3, 1, 2, 3], 6), Some((9, 3)));
        assert_eq!(found(&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], 4), Some((12, 4)));
        // It was broken by another call, is too short, or has only two rounds.
        assert_eq!(found(&[1, 2, 1, 2, 1, 2, 1, 2, 9], 8), None);
        assert_eq!(found(&[1, 2, 1, 2, 1, 2, 1], 8), None);
        assert_eq!(found(&[1, 2, 3, 4, 1, 2, 3, 4], 8), None);
        assert_eq!(found(&[], 4), None);
    }

    #[test]
    fn a_scope_needs_an_agent_or_a_session_unless_the_key_is_watched() {
        let mut rules = LoopRules::default();
        let nobody = Actor::default();
        let agent = Actor { agent: Some("a".into()), ..Actor::default() };
        let session = Actor { session: Some("a".into()), ..Actor::default() };
        assert_eq!(ScopeKey::of(&nobody, &rules), None);
        let ids = [&agent, &session].map(|actor| ScopeKey::of(actor, &rules).unwrap().id);
        assert_ne!(ids[0], ids[1], "an agent is not a session of the same name");
        assert_eq!(ids[0].len(), 16);
        rules.watch = Watch::Key;
        assert_eq!(ScopeKey::of(&nobody, &rules).unwrap().id, "key");
        rules.enabled = false;
        assert_eq!(ScopeKey::of(&agent, &rules), None);
    }
}
