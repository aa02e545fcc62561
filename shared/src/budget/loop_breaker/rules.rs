//! When a run of requests counts as a loop. Each default says why it is what it is.

use serde::{Deserialize, Serialize};

use crate::money::Usd;

/// The most that `repeats` may be: the breaker remembers 64 answers of a scope, and other requests stand between.
pub const MAX_REPEATS: u32 = 32;
/// The most tool calls that a request's shape carries.
pub const MAX_TOOL_CALLS: usize = 16;
/// A day: no window and no cool-down is longer.
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// What is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// Each agent and session by itself. Requests that name neither are not watched.
    #[default]
    Session,
    /// As `session`, and requests that name neither are watched together, as the key.
    Key,
}

/// The loop breaker's rules for one key. An absent field has its default; `null` switches a kind off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LoopRules {
    /// Whether loops are looked for at all.
    pub enabled: bool,
    /// What is watched.
    pub watch: Watch,
    /// Equal requests, one after the other, that are answered in a window; the next is refused. Default 10: a job that
    /// polls every minute makes 5 in the default window, an agent that is stuck makes 10 in a minute or two.
    pub repeats: Option<u32>,
    /// The window for equal requests and for the spend rate, in seconds. Default 300.
    pub window_seconds: u64,
    /// Tool calls at the end of the conversation that repeat a cycle of at most four, with equal arguments, at least
    /// three times. Default 10: an agent that waits for a job looks a few times, not five times in a row.
    pub cycle_calls: Option<u32>,
    /// How many times the highest of its last windows a scope may spend in one window. Default 5: with the highest
    /// and not the average as the measure, a busy hour is no leap.
    pub spend_factor: Option<u32>,
    /// Below this amount in a window nothing is a leap. Default 5 USD: a smaller leap is left to the budgets.
    pub spend_floor_usd: Usd,
    /// Input tokens, as counted by the gateway, that a conversation may reach by growing four-fold or more over 20 or
    /// more requests without ever shrinking. Default 400000: above what a window of 200000 of a provider's tokens
    /// holds, so only a conversation that is never compacted comes there.
    pub context_tokens: Option<u64>,
    /// How long the first trip refuses, in seconds; each trip that follows doubles it. Default 60.
    pub cool_down_seconds: u64,
    /// The longest cool-down, in seconds. Default 3600: somebody should look by then.
    pub max_cool_down_seconds: u64,
}

impl Default for LoopRules {
    fn default() -> Self {
        Self {
            enabled: true,
            watch: Watch::Session,
            repeats: Some(10),
            window_seconds: 300,
            cycle_calls: Some(10),
            spend_factor: Some(5),
            spend_floor_usd: Usd::from_nanos(5_000_000_000),
            context_tokens: Some(400_000),
            cool_down_seconds: 60,
            max_cool_down_seconds: 3_600,
        }
    }
}

impl LoopRules {
    /// Whether these are the defaults, which a policy need not write down.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The field that is out of its range, and what it must be.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let within = |value: Option<u64>, low: u64, high: u64| {
            value.is_none_or(|value| (low..=high).contains(&value))
        };
        let from_to = |low: u64, high: u64| format!("must be from {low} to {high}");
        let cool_down = self.cool_down_seconds;
        let checks = [
            ("repeats", self.repeats.map(u64::from), 2, u64::from(MAX_REPEATS)),
            ("window_seconds", Some(self.window_seconds), 10, DAY_SECONDS),
            ("cycle_calls", self.cycle_calls.map(u64::from), 4, 16),
            ("spend_factor", self.spend_factor.map(u64::from), 2, 1_000),
            ("context_tokens", self.context_tokens, 1_000, 100_000_000),
            ("cool_down_seconds", Some(cool_down), 1, DAY_SECONDS),
            ("max_cool_down_seconds", Some(self.max_cool_down_seconds), cool_down, DAY_SECONDS),
        ];
        let wrong = checks.into_iter().find(|(_, value, low, high)| !within(*value, *low, *high));
        if let Some((field, _, low, high)) = wrong {
            return Some((field, from_to(low, high)));
        }
        (self.spend_floor_usd <= Usd::ZERO)
            .then(|| ("spend_floor_usd", "must be more than 0".to_owned()))
    }

    pub(super) fn window_ms(&self) -> i64 {
        ms(self.window_seconds)
    }

    /// The cool-down of a trip that follows `level` others.
    pub(super) fn cool_down_ms(&self, level: u32) -> i64 {
        let doubled = self.cool_down_seconds.saturating_mul(1_u64 << level.min(20));
        ms(doubled.min(self.max_cool_down_seconds))
    }
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_the_defaults_and_they_have_no_fault() {
        let rules: LoopRules = serde_json::from_str("{}").unwrap();
        assert!(rules.is_default());
        assert_eq!(rules.fault(), None);
    }

    #[test]
    fn null_switches_a_kind_off_and_a_typing_error_is_refused() {
        let rules: LoopRules = serde_json::from_str(r#"{"repeats":null}"#).unwrap();
        assert_eq!((rules.repeats, rules.fault()), (None, None));
        assert!(serde_json::from_str::<LoopRules>(r#"{"repeat":3}"#).is_err());
    }

    #[test]
    fn each_fault_names_its_field() {
        for (field, rules) in [
            ("repeats", r#"{"repeats":1}"#),
            ("repeats", r#"{"repeats":33}"#),
            ("window_seconds", r#"{"window_seconds":0}"#),
            ("cycle_calls", r#"{"cycle_calls":17}"#),
            ("spend_factor", r#"{"spend_factor":1}"#),
            ("spend_floor_usd", r#"{"spend_floor_usd":"0"}"#),
            ("context_tokens", r#"{"context_tokens":0}"#),
            ("cool_down_seconds", r#"{"cool_down_seconds":0}"#),
            ("max_cool_down_seconds", r#"{"cool_down_seconds":90,"max_cool_down_seconds":60}"#),
        ] {
            let rules: LoopRules = serde_json::from_str(rules).unwrap();
            assert_eq!(rules.fault().map(|fault| fault.0), Some(field));
        }
    }

    #[test]
    fn cool_downs_double_up_to_the_ceiling() {
        let rules = LoopRules::default();
        let seconds = [0, 1, 2, 6, 63].map(|level| rules.cool_down_ms(level) / 1000);
        assert_eq!(seconds, [60, 120, 240, 3_600, 3_600]);
    }
}
