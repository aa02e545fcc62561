//! What settling a unit takes and gives.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tallygate_shared::money::Usd;

use super::read::{Estimate, ProviderFacts};
use crate::bill::{BillLine, ChargeKind, MeasuredUsage, Meter, Quantity};
use crate::ledger::{Content, LineId, UnitId};

/// The provider's side of a unit: everything but the estimates.
#[derive(Clone, Debug)]
pub struct UnitBill {
    /// The unit.
    pub unit: UnitId,
    /// What reading the events told about the provider.
    pub facts: ProviderFacts,
    /// The charges of this day, longer ones spread (see [`super::match_up::spread_over_days`]). Lines of other providers
    /// are refused. Without any, the rows have no billed amount, unless `is_stated`.
    pub lines: Vec<BillLine>,
    /// Whether it says that nothing is charged on this day when there are no lines.
    pub is_stated: bool,
    /// What the provider measured on this day.
    pub usage: Vec<MeasuredUsage>,
    /// The content address of the bill.
    pub source: String,
    /// True while the day is not complete as far as the provider says.
    pub provisional: bool,
    /// The lines that the books have for this unit. One that is no longer there is stated as nothing, so that the
    /// newest revisions go on adding up to the bill.
    pub previous: Vec<LineId>,
}

/// One unit to settle.
#[derive(Clone, Debug)]
pub struct UnitInput {
    /// The provider's side.
    pub bill: UnitBill,
    /// The gateway's side, in any order. Those of other providers are refused.
    pub estimates: Vec<Estimate>,
}

/// How units are settled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The provider's ids of the API keys that the gateway holds. With none, nothing is told by credential.
    pub known_credentials: BTreeSet<String>,
    /// The kinds of charge beside usage that are shared among the day's owners in proportion to what was billed to
    /// them. The others are owned by whom their tags name, or by nobody.
    pub shared_kinds: BTreeSet<ChargeKind>,
    /// The owner dimension that a tag of a bill line names, by the tag's name.
    pub tag_owners: BTreeMap<String, String>,
    /// From how much on a difference is reported.
    pub tolerance: Tolerance,
    /// The unit in which the provider rounds amounts. `None`: as many places as the bill's amounts show, 9 at most.
    pub resolution: Option<Usd>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            known_credentials: BTreeSet::new(),
            shared_kinds: BTreeSet::from([
                ChargeKind::Tax,
                ChargeKind::Discount,
                ChargeKind::MinimumFee,
            ]),
            tag_owners: BTreeMap::new(),
            tolerance: Tolerance::default(),
            resolution: None,
        }
    }
}

/// A difference is reported when it is above both.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// An amount.
    pub amount: Usd,
    /// A part of the estimate, in thousandths.
    pub per_mille: u32,
}

impl Default for Tolerance {
    /// One dollar and one percent.
    fn default() -> Self {
        Self { amount: Usd::from_nanos(1_000_000_000), per_mille: 10 }
    }
}

impl Tolerance {
    /// Whether `billed` is too far from `estimated`.
    pub(super) fn exceeded(&self, billed: i128, estimated: i128) -> bool {
        let difference = billed.abs_diff(estimated);
        let part = estimated.unsigned_abs() / 1000 * u128::from(self.per_mille);
        difference > self.amount.pico().unsigned_abs() && difference > part
    }
}

/// Why use counts as unmetered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnmeteredReason {
    /// The API key is not one that the gateway holds.
    UnknownCredential,
    /// The provider counted more than the gateway did.
    BeyondMetered,
    /// The gateway saw no use of it at all.
    NeverSeen,
}

/// Use that the provider bills and the gateway never saw.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unmetered {
    /// The credential, project or account it is known by: the owner of its row.
    pub label: String,
    /// The account.
    pub account: String,
    /// The model; without one, the service.
    pub model: String,
    /// The meter.
    pub meter: Meter,
    /// Why.
    pub reason: UnmeteredReason,
    /// How much, to the token. `None` when the provider does not say.
    pub quantity: Option<Quantity>,
    /// What it cost: its share of the bill.
    pub amount: Usd,
}

/// A price that differs from the one that the estimates were made with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PriceFinding {
    /// The provider.
    pub provider: String,
    /// The model, as the price book names it.
    pub model: String,
    /// The service tier.
    pub tier: String,
    /// The meter.
    pub meter: Meter,
    /// What the estimates come to for a million units: the shortest price that explains them. Where it is not the
    /// price book's, the estimates mix several prices (long context, cache lifetimes), and so does the bill.
    pub ours_per_million: Usd,
    /// What the bill comes to: the shortest price consistent with every line, else the plain quotient.
    pub billed_per_million: Usd,
    /// Whether one price explains every line.
    pub consistent: bool,
    /// Bill lines that show it.
    pub observations: u64,
    /// How many tokens (or calls) were billed at it.
    pub tokens: Quantity,
    /// What the difference came to.
    pub effect: Usd,
}

/// Something to tell people, or the edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Use that the gateway never saw.
    Unmetered(Unmetered),
    /// A price other than ours.
    Price(PriceFinding),
    /// The provider billed more than was counted, and requests of unknown usage explain it.
    Uncertain {
        /// The model.
        model: String,
        /// The meter.
        meter: Meter,
        /// How much, where it is counted.
        quantity: Option<Quantity>,
        /// What it cost.
        amount: Usd,
    },
    /// Nobody says how much was used: the whole difference counts as price variance.
    QuantityUnknown {
        /// The model; without one, the service.
        model: String,
        /// The meter.
        meter: Meter,
        /// Billed less estimated.
        difference: Usd,
        /// The units of quantities that are not understood.
        units: BTreeSet<String>,
    },
    /// The gateway counted use that the bill does not have, above the tolerance.
    NotBilled {
        /// The account.
        account: String,
        /// The model.
        model: String,
        /// The meter.
        meter: Meter,
        /// What was estimated.
        estimated: Usd,
    },
    /// The unit's bill is further from its estimate than tolerated.
    Variance {
        /// What was estimated.
        estimated: Usd,
        /// What was billed for use.
        billed: Usd,
    },
}

/// The sums of a unit. `billed - estimated = quantity_variance + price_variance`, and
/// `billed = matched + uncertain + unmetered + adjustments + untagged + tagged`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// What the gateway had estimated.
    pub estimated: Usd,
    /// The bill. `None` without one.
    pub billed: Option<Usd>,
    /// The part of the difference that other quantities explain.
    pub quantity_variance: Usd,
    /// The part that other prices explain.
    pub price_variance: Usd,
    /// Billed for use that the gateway counted.
    pub matched: Usd,
    /// Billed for requests whose usage was unknown.
    pub uncertain: Usd,
    /// Billed for use that the gateway never saw.
    pub unmetered: Usd,
    /// Billed beside use: taxes, fees, seats, credits and the like.
    pub adjustments: Usd,
    /// Costs without a model that tags give to an owner.
    pub tagged: Usd,
    /// Costs that are nobody's.
    pub unowned: Usd,
    /// Rows.
    pub rows: u64,
}

/// What a streamed settling says beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What to tell, sorted.
    pub findings: Vec<Finding>,
    /// The sums.
    pub totals: Totals,
}

/// A settled unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitOutcome {
    /// The rows, sorted by line.
    pub rows: Vec<(LineId, Content)>,
    /// What to tell, sorted.
    pub findings: Vec<Finding>,
    /// The sums.
    pub totals: Totals,
}
