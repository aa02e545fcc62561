//! For how long a workspace's archive keeps events.

use serde::{Deserialize, Serialize};

/// The reconciler looks 35 days back: what it may still need does not expire.
const MIN_DAYS: u32 = 35;
/// Ten years.
const MAX_DAYS: u32 = 3_653;
/// A year, and the time to close its books.
const DEFAULT_DAYS: u32 = 400;

/// What a workspace wants of its archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveSettings {
    /// Archived events are kept for so many days: 35 to 3653. Default: 400.
    pub keep_days: KeepDays,
}

/// A number of days that events are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "u32", into = "u32")]
pub struct KeepDays(#[cfg_attr(test, schemars(range(min = 35, max = 3653)))] u32);

impl Default for KeepDays {
    fn default() -> Self {
        Self(DEFAULT_DAYS)
    }
}

impl From<KeepDays> for u32 {
    fn from(days: KeepDays) -> Self {
        days.0
    }
}

impl TryFrom<u32> for KeepDays {
    type Error = String;

    fn try_from(days: u32) -> Result<Self, Self::Error> {
        if (MIN_DAYS..=MAX_DAYS).contains(&days) {
            return Ok(Self(days));
        }
        Err(format!("{days} days are too few or too many: give {MIN_DAYS} to {MAX_DAYS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_within_bounds_and_have_a_default() {
        let read = |text: &str| serde_json::from_str::<ArchiveSettings>(text);
        let days = |text: &str| u32::from(read(text).unwrap().keep_days);
        assert_eq!(days("{}"), 400);
        assert_eq!(days(r#"{"keep_days":35}"#), 35);
        let error = read(r#"{"keep_days":34}"#).unwrap_err().to_string();
        assert!(error.contains("35 to 3653"), "{error}");
        assert!(read(r#"{"keep_days":3654}"#).is_err());
    }
}
