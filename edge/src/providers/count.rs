//! Numbers in usage reports: counts and costs, read from their source text and never through a float.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tallygate_shared::money::{MoneyError, Usd, div_half_even, parse_decimal};
use tallygate_shared::tokens::MAX_TOKENS;

use super::UsageError;

/// A count as reported. `null` is absent: providers write it for "not applicable".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Count {
    #[default]
    Absent,
    Is(u64),
    Unusable,
}

impl Count {
    /// The count, 0 when absent.
    pub(super) fn or_zero(self) -> Result<u64, UsageError> {
        self.optional().map(Option::unwrap_or_default)
    }

    /// The count, an error naming `field` when absent.
    pub(super) fn required(self, field: &'static str) -> Result<u64, UsageError> {
        self.optional()?.ok_or(UsageError::Missing(field))
    }

    /// The count, `None` when absent.
    pub(super) fn optional(self) -> Result<Option<u64>, UsageError> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(count) => Ok(Some(count)),
            Self::Unusable => Err(UsageError::CountUnusable),
        }
    }

    fn from_text(text: &str) -> Self {
        if text == "null" {
            return Self::Absent;
        }
        // `12.0` is 12, as some providers write counts as floats; `12.5` is no count.
        match parse_decimal(text, 0).ok().and_then(|count| u64::try_from(count).ok()) {
            Some(count) if count <= MAX_TOKENS => Self::Is(count),
            Some(_) | None => Self::Unusable,
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self::from_text(raw.get()))
    }
}

/// A cost as reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cost {
    #[default]
    Absent,
    Is(Usd),
    Unusable,
}

/// Digits beyond the picodollar are noise of the provider's floats; they are rounded away, half to even.
const NOISE_DECIMALS: usize = 18;
const NOISE_PER_PICO: i128 = 10_i128.pow(18);

impl Cost {
    fn from_text(text: &str) -> Self {
        if text == "null" {
            return Self::Absent;
        }
        let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        let exact = match text.parse::<Usd>() {
            Err(MoneyError::TooPrecise) => parse_decimal(text, NOISE_DECIMALS.saturating_add(12))
                .map(|noisy| Usd::from_pico(div_half_even(noisy, NOISE_PER_PICO))),
            other => other,
        };
        match exact {
            Ok(usd) if !usd.is_negative() => Self::Is(usd),
            Ok(_) | Err(_) => Self::Unusable,
        }
    }
}

/// A cost reported in xAI's ticks of 1e-10 USD.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticks(pub(super) Cost);

impl<'de> Deserialize<'de> for Ticks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(match (raw.get(), parse_decimal(raw.get(), 2)) {
            ("null", _) => Cost::Absent,
            (_, Ok(pico)) if pico >= 0 => Cost::Is(Usd::from_pico(pico)),
            (_, Ok(_) | Err(_)) => Cost::Unusable,
        }))
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self::from_text(raw.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_their_source_text() {
        for (text, expect) in [
            ("0", Count::Is(0)),
            ("12", Count::Is(12)),
            ("12.0", Count::Is(12)),
            ("1.2e1", Count::Is(12)),
            ("null", Count::Absent),
            ("12.5", Count::Unusable),
            ("-1", Count::Unusable),
            ("1000000001", Count::Unusable),
            ("18446744073709551617", Count::Unusable),
            ("1e30", Count::Unusable),
            ("\"12\"", Count::Unusable),
            ("true", Count::Unusable),
            ("{}", Count::Unusable),
        ] {
            assert_eq!(serde_json::from_str::<Count>(text).unwrap(), expect, "{text}");
        }
    }

    #[test]
    fn costs_keep_every_picodollar_and_lose_only_float_noise() {
        for (text, expect) in [
            ("0", Cost::Is(Usd::ZERO)),
            ("0.00014", Cost::Is(Usd::from_pico(140_000_000))),
            ("0.00014250000000000002", Cost::Is(Usd::from_pico(142_500_000))),
            ("1e-12", Cost::Is(Usd::from_pico(1))),
            ("\"0.5\"", Cost::Is(Usd::from_pico(500_000_000_000))),
            ("null", Cost::Absent),
            ("-0.1", Cost::Unusable),
            ("{}", Cost::Unusable),
        ] {
            assert_eq!(serde_json::from_str::<Cost>(text).unwrap(), expect, "{text}");
        }
    }
}
