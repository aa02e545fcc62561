//! What an operator can set about alerts. Every field has a default that suits a workspace nobody has tuned.

use serde::{Deserialize, Serialize};

use super::alert::AlertKind;
use crate::money::{PICO_PER_USD, Usd};

/// When to raise an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlertRules {
    /// Kinds that are not looked for. Default: none.
    pub disabled: Vec<AlertKind>,
    /// A request that costs at least this is expensive. Default: "5".
    pub expensive_request_usd: Usd,
    /// An hour's spending is never an anomaly when it is within this of the median. Default: "1".
    pub anomaly_min_usd: Usd,
    /// How many deviations (1.4826 x MAD) above the median an anomaly is. Default: 6.
    pub anomaly_deviations: u32,
    /// The share of failed attempts, in percent, from which a provider is failing. Default: 20.
    pub provider_error_percent: u32,
    /// The fewest attempts in the window that say anything about a provider. Default: 20.
    pub provider_error_min_requests: u32,
    /// The window, in minutes. Default: 10.
    pub provider_error_window_minutes: u32,
    /// How many days before a key's expiry to say so. Default: 7.
    pub key_expiring_days: u32,
    /// After how many days without use a key is unused. Default: 30.
    pub key_unused_days: u32,
}

impl Default for AlertRules {
    fn default() -> Self {
        Self {
            disabled: Vec::new(),
            expensive_request_usd: Usd::from_pico(5 * PICO_PER_USD),
            anomaly_min_usd: Usd::from_pico(PICO_PER_USD),
            anomaly_deviations: 6,
            provider_error_percent: 20,
            provider_error_min_requests: 20,
            provider_error_window_minutes: 10,
            key_expiring_days: 7,
            key_unused_days: 30,
        }
    }
}

/// A field that cannot be as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    /// The field's name.
    pub field: &'static str,
    /// What it must be.
    pub remedy: String,
}

impl AlertRules {
    /// Whether this kind is looked for.
    pub fn looks_for(&self, kind: AlertKind) -> bool {
        !self.disabled.contains(&kind)
    }

    /// Every field that cannot be as it is.
    pub fn problems(&self) -> Vec<RuleProblem> {
        let mut problems = Vec::new();
        let amounts = [
            ("expensive_request_usd", self.expensive_request_usd),
            ("anomaly_min_usd", self.anomaly_min_usd),
        ];
        for (field, amount) in amounts {
            if amount <= Usd::ZERO {
                let remedy = "must be more than 0 US dollars, such as \"5\"".to_owned();
                problems.push(RuleProblem { field, remedy });
            }
        }
        let numbers = [
            ("anomaly_deviations", self.anomaly_deviations, 1, 100),
            ("provider_error_percent", self.provider_error_percent, 1, 100),
            ("provider_error_min_requests", self.provider_error_min_requests, 1, 1_000_000),
            ("provider_error_window_minutes", self.provider_error_window_minutes, 1, 60),
            ("key_expiring_days", self.key_expiring_days, 1, 90),
            ("key_unused_days", self.key_unused_days, 1, 365),
        ];
        for (field, number, low, high) in numbers {
            if !(low..=high).contains(&number) {
                let remedy = format!("must be between {low} and {high}");
                problems.push(RuleProblem { field, remedy });
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_each_bad_field_is_named() {
        assert_eq!(AlertRules::default().problems(), []);
        let bad: AlertRules = serde_json::from_str(
            r#"{"expensive_request_usd":"0","anomaly_min_usd":"-1","anomaly_deviations":0,
                "provider_error_percent":101,"provider_error_min_requests":0,
                "provider_error_window_minutes":61,"key_expiring_days":0,"key_unused_days":366}"#,
        )
        .unwrap();
        let fields: Vec<_> = bad.problems().iter().map(|problem| problem.field).collect();
        assert_eq!(fields.len(), 8);
        assert!(serde_json::from_str::<AlertRules>(r#"{"pace":1}"#).is_err());
    }
}
