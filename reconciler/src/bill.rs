//! What a provider says it billed and measured, in one vocabulary for all of them. A connector makes these; nothing
//! behind it knows a provider's format.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tallygate_shared::money::{MoneyError, Usd, parse_decimal};
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::{Calls, Tokens};

/// A count of something, in units of 1e-12: providers send fractions (1K-token units, hours). Decimal text in JSON.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity(i128);

impl Quantity {
    /// How many of the smallest unit make one.
    pub const ONE: i128 = 1_000_000_000_000;

    /// A whole number.
    pub const fn whole(count: u64) -> Self {
        Self(count as i128 * Self::ONE)
    }

    /// From units of 1e-12.
    pub const fn from_pico(pico: i128) -> Self {
        Self(pico)
    }

    /// In units of 1e-12.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// Parses decimal text exactly, `E` notation included. More than 12 places are refused, not rounded.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        parse_decimal(text, 12).map(Self)
    }

    /// The sum, `None` on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) =
            (self.0.unsigned_abs() / 1_000_000_000_000, self.0.unsigned_abs() % 1_000_000_000_000);
        if rest == 0 {
            return write!(to, "{sign}{whole}");
        }
        let digits = format!("{rest:012}");
        write!(to, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

impl TryFrom<String> for Quantity {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        Self::parse(&text)
    }
}

/// What is measured and priced apart. Reasoning is part of [`Meter::Output`], as every provider bills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Uncached input tokens.
    Input,
    /// Input tokens read from the prompt cache.
    CacheRead,
    /// Input tokens written to the prompt cache, whatever their lifetime.
    CacheWrite,
    /// Output tokens, reasoning included.
    Output,
    /// What is billed by the call: web searches, search units, audio seconds.
    Calls,
    /// A cost that the provider states as a whole, or a label that names no meter.
    Whole,
}

/// What kind of charge a line is: FOCUS's `ChargeCategory`, with the reasons that the ledger tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeKind {
    /// Metered use.
    Usage,
    /// Prepaid credit, provisioned throughput, a subscription bought.
    Purchase,
    /// A seat of a subscription.
    Seat,
    /// What a minimum commitment adds to the metered use.
    MinimumFee,
    /// A tax.
    Tax,
    /// A negotiated or volume discount (negative).
    Discount,
    /// A promotional or prepaid credit drawn (negative).
    Credit,
    /// Money given back (negative).
    Refund,
    /// Rounding, and anything the provider calls an adjustment.
    Adjustment,
}

/// One line of a bill: an amount somebody owes. The amount keeps every digit of its source text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BillLine {
    /// The provider, as the price book names it: `openai`, `anthropic`, `bedrock`, ... For harness costs, who bills:
    /// `aws`, `vercel`, `mongodb_atlas`.
    pub provider: String,
    /// The provider's id of the account or organisation that is billed.
    pub account: String,
    /// The project, workspace or linked account within it, where the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// First moment of the charge's period, UTC.
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
    /// What kind of charge.
    pub kind: ChargeKind,
    /// The service, in the provider's words: `OpenAI API`, `Amazon Bedrock`, `Amazon OpenSearch Service`.
    pub service: String,
    /// The line in the provider's own words. Never parsed for money.
    pub description: String,
    /// The model, where the line names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What was measured. [`Meter::Whole`] when the line does not say.
    pub meter: Meter,
    /// The service tier (`standard`, `batch`, ...), where the line names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// How much was measured, in `unit`s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Quantity>,
    /// The unit of `quantity`: `Tokens`, `1000 Tokens`, `Requests`, ... as FOCUS writes units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What is billed, in US dollars. Negative for credits, discounts and refunds.
    pub amount: Usd,
    /// The same before discounts, where the provider states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_amount: Option<Usd>,
    /// The invoice, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoice_id: Option<String>,
    /// The provider's id of the API key that was used, where the line names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// True while the provider may still change it.
    #[serde(default)]
    pub provisional: bool,
    /// Tags and dimensions that the provider carries (cost-allocation tags, user of a seat, region).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl BillLine {
    /// What it comes to before discounts; what is billed, where the provider states nothing else.
    pub fn before_discounts(&self) -> Usd {
        self.list_amount.unwrap_or(self.amount)
    }
}

/// What a provider measured, without money: it tells quantity from price when the bill names no quantity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredUsage {
    /// As in [`BillLine::provider`].
    pub provider: String,
    /// As in [`BillLine::account`].
    pub account: String,
    /// As in [`BillLine::project`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// First moment, UTC.
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
    /// The model.
    pub model: String,
    /// The service tier, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The provider's id of the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Requests, where counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Tokens in disjoint buckets.
    #[serde(default)]
    pub tokens: Tokens,
    /// Counted calls.
    #[serde(default)]
    pub calls: Calls,
}

/// An API key that a provider's admin API lists. Its secret is not known, and is not wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The provider.
    pub provider: String,
    /// The account.
    pub account: String,
    /// The project or workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The provider's id of the key.
    pub id: String,
    /// Its name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The redacted value the provider shows (`sk-...abcd`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// False once it is archived or revoked.
    pub active: bool,
}

/// A person's seat in a tool that is billed by seat (Copilot, Cursor, Claude Code), and how much they used it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatUse {
    /// The tool.
    pub provider: String,
    /// The account.
    pub account: String,
    /// Who: login or mail address, as the tool names them.
    pub person: String,
    /// The day, or the start of the period.
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
    /// Last activity, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Timestamp>,
    /// Tokens, where the tool counts them.
    #[serde(default)]
    pub tokens: Tokens,
    /// What the tool itself estimates that the use cost. Never a bill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated: Option<Usd>,
    /// Other counts: sessions, commits, accepted suggestions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, Quantity>,
}

/// All that one pull brought, read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bill {
    /// Charges.
    #[serde(default)]
    pub lines: Vec<BillLine>,
    /// Measured use.
    #[serde(default)]
    pub usage: Vec<MeasuredUsage>,
    /// Keys the provider knows.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// Seats.
    #[serde(default)]
    pub seats: Vec<SeatUse>,
    /// What is missing or doubtful, in words for the run's report. Not an error.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Charges on days before those that were asked for, on which a dropped file has them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Before>,
    /// Whether it says of each asked day what was charged: a day without a charge is a day on which nothing was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each_day: bool,
    /// Charges from this moment on are still to come or to change, as far as the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_until: Option<Timestamp>,
}

/// What dropped files charge for one period, before the days that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Who charges.
    pub provider: String,
    /// From when.
    pub start: Timestamp,
    /// Up to when.
    pub end: Timestamp,
    /// How much.
    pub amount: Usd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_keep_their_digits() {
        for text in ["0", "1", "433.893", "-0.5", "12.3456789012"] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Quantity::parse("1E3").unwrap(), Quantity::whole(1000));
        assert!(Quantity::parse("0.0000000000001").is_err());
    }
}
