//! What the reconciler and the edge say to each other: the one vocabulary of their signed calls.
//!
//! Everything the reconciler says is absolute and numbered: "for this source the correction is so much, as of revision n".
//! So it may be said again, in any order and in pieces, and an older word never overrules a newer one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alerts::alert::Severity;
use crate::budget::terms::{BudgetTerms, Dimension};
use crate::money::Usd;
use crate::pricing::PriceRow;

/// Most items in one call: a call stays far below the 8 MiB that the edge reads.
pub const MAX_ITEMS: usize = 2_000;

/// What the reconciler needs to know of a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReconcilerContext {
    /// The workspace.
    pub workspace: String,
    /// The version of its configuration.
    pub config_version: u64,
    /// Its providers, by its names for them.
    pub providers: BTreeMap<String, ContextProvider>,
    /// Its shared budgets.
    pub budgets: BTreeMap<String, BudgetTerms>,
    /// Its own prices.
    pub prices: Vec<PriceRow>,
    /// What it wants done with differences.
    #[serde(default)]
    pub settings: ReconcilerSettings,
}

/// A provider of a workspace, as the reconciler needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextProvider {
    /// What its bills call it: its name in the price book where it has one (`openai`, `anthropic`, ...), else its kind.
    /// Azure, whose models the book lists as OpenAI's, is `azure`.
    pub price_book: String,
    /// The last four characters of its credential: enough to find it among those that the provider lists, too few for
    /// anything else. Absent for a short one, and where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_hint: Option<String>,
}

/// What a workspace wants done with differences between estimate and bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ReconcilerSettings {
    /// Whether a price that differs from the bill is proposed, or applied from the next day on. Default: propose.
    pub price_corrections: PriceCorrections,
    /// A day's difference is worth an alert from this much on. Default: "1".
    pub variance_tolerance_usd: Usd,
    /// ... if it is also at least so many percent of the bill. Default: 2.
    pub variance_tolerance_percent: u32,
}

impl Default for ReconcilerSettings {
    fn default() -> Self {
        Self {
            price_corrections: PriceCorrections::Propose,
            variance_tolerance_usd: Usd::from_nanos(1_000_000_000),
            variance_tolerance_percent: 2,
        }
    }
}

/// What happens with a billed price that is not the workspace's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PriceCorrections {
    /// A person decides.
    #[default]
    Propose,
    /// It is taken from the next day on.
    Apply,
}

/// One line of a reconciled day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TrueUp {
    /// The day, `YYYY-MM-DD`.
    pub day: String,
    /// The provider.
    pub provider: String,
    /// The line's name within day and provider.
    pub line: String,
    /// The number of the pull behind it.
    pub revision: u64,
    /// The model, or the service.
    pub model: String,
    /// What was measured: `input`, `output`, ...
    pub meter: String,
    /// The kind of charge: `usage`, `tax`, ...
    pub kind: String,
    /// Whose it is.
    pub owner: BTreeMap<String, String>,
    /// What the edge had estimated.
    pub estimated: Usd,
    /// What of the bill is theirs; absent until there is a bill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed: Option<Usd>,
    /// What other quantities explain of the difference.
    pub quantity_variance: Usd,
    /// What other prices explain of it.
    pub price_variance: Usd,
    /// Whether the provider may still change it.
    pub provisional: bool,
}

/// A correction to what a budget counts as spent: `billed - estimated` of the requests it counts, for one day and provider.
/// Where the budget began to count during that day or after it, it is dropped, unless it takes back what an earlier one gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BudgetCorrection {
    /// The budget's name.
    pub budget: String,
    /// The value of its scope; empty for the workspace's.
    pub value: String,
    /// The day, `YYYY-MM-DD`, UTC. The correction counts in the window that the day's noon lies in.
    pub day: String,
    /// What it comes from: the provider.
    pub source: String,
    /// The number of the pull behind it.
    pub revision: u64,
    /// The whole correction for this day and source, not a change to an earlier one.
    pub amount: Usd,
    /// What of it other quantities explain.
    #[serde(default)]
    pub by_quantity: Usd,
    /// What of it other prices explain.
    #[serde(default)]
    pub by_price: Usd,
}

/// A price on a bill that is not the one the edge rates with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PriceCorrection {
    /// The provider, as its bills name it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The service tier.
    pub tier: String,
    /// What it is the price of: `input`, `cache_read`, `cache_write` or `output`.
    pub meter: String,
    /// What the edge rates a million tokens with.
    pub ours_per_million: Usd,
    /// What the bill charges for them.
    pub billed_per_million: Usd,
    /// The day of the bill, `YYYY-MM-DD`.
    pub day: String,
    /// How many tokens were billed so.
    pub tokens: u64,
    /// What the difference came to on that day.
    pub effect: Usd,
}

/// Something that the reconciler found and a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReconcilerFinding {
    /// What it is.
    pub kind: FindingKind,
    /// What tells it from others of its kind: provider, day, credential.
    pub subject: String,
    /// How bad.
    pub severity: Severity,
    /// One line for people.
    pub title: String,
    /// Who answers for it; empty: the workspace's admins.
    #[serde(default)]
    pub owner: String,
    /// Figures and names. Never a part of a prompt or a credential.
    #[serde(default)]
    pub evidence: BTreeMap<String, String>,
    /// False when it is so no longer.
    pub present: bool,
}

/// What the reconciler tells people about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Use on the bill that the gateway never saw.
    UnmeteredUsage,
    /// A day's estimate and bill differ by more than the workspace tolerates.
    BillVariance,
    /// A provider knows a key that the gateway does not hold.
    UnknownCredential,
    /// A night did not get everything, or failed.
    ReconciliationIncomplete,
}

/// The last line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportEnd {
    /// Always true: what tells this line from the others.
    pub end: bool,
    /// How many lines came before it in this answer.
    pub lines: u64,
    /// SHA-256 of those lines, each with its line break, in hexadecimal.
    pub sha256: String,
}

/// What rows change in each budget: `billed - estimated`, summed by budget, value, day and provider. Use that the gateway
/// never saw, and charges that are no use, change no budget: no request could have been refused for them.
#[derive(Clone, Debug)]
pub struct BudgetSums<'b> {
    workspace: &'b str,
    budgets: &'b BTreeMap<String, BudgetTerms>,
    sums: BTreeMap<[String; 4], Sum>,
}

/// What the rows of one correction add up to.
#[derive(Clone, Debug, Default)]
struct Sum {
    revision: u64,
    amount: Usd,
    by_quantity: Usd,
    by_price: Usd,
}

impl<'b> BudgetSums<'b> {
    /// Nothing yet.
    pub const fn new(workspace: &'b str, budgets: &'b BTreeMap<String, BudgetTerms>) -> Self {
        Self { workspace, budgets, sums: BTreeMap::new() }
    }

    /// Takes one row in; `None` when a sum does not fit.
    pub fn add(&mut self, row: &TrueUp) -> Option<()> {
        let Some(billed) = row.billed else { return Some(()) };
        if row.kind != "usage" || row.owner.contains_key("unmetered") {
            return Some(());
        }
        let difference = billed.checked_sub(row.estimated)?;
        for (name, terms) in self.budgets.iter().filter(|(_, terms)| terms.limit_usd.is_some()) {
            let value = match terms.scope.dimension {
                Dimension::Workspace => Some(self.workspace),
                dimension => row.owner.get(dimension.name()).map(String::as_str),
            };
            let Some(value) = value.filter(|value| terms.scope.covers(value)) else { continue };
            let key = [name, value, &row.day, &row.provider].map(str::to_owned);
            let sum = self.sums.entry(key).or_default();
            sum.revision = sum.revision.max(row.revision);
            sum.amount = sum.amount.checked_add(difference)?;
            sum.by_quantity = sum.by_quantity.checked_add(row.quantity_variance)?;
            sum.by_price = sum.by_price.checked_add(row.price_variance)?;
        }
        Some(())
    }

    /// The corrections, sorted.
    pub fn corrections(self) -> Vec<BudgetCorrection> {
        let sums = self.sums.into_iter();
        sums.map(|([budget, value, day, source], sum)| BudgetCorrection {
            budget,
            value,
            day,
            source,
            revision: sum.revision,
            amount: sum.amount,
            by_quantity: sum.by_quantity,
            by_price: sum.by_price,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: &[(&str, &str)], kind: &str, estimated: &str, billed: Option<&str>) -> TrueUp {
        TrueUp {
            day: "2026-11-20".into(),
            provider: "openai".into(),
            line: "l".into(),
            revision: 7,
            model: "m".into(),
            meter: "input".into(),
            kind: kind.into(),
            owner: owner.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            estimated: estimated.parse().unwrap(),
            billed: billed.map(|billed| billed.parse().unwrap()),
            quantity_variance: Usd::ZERO,
            price_variance: Usd::ZERO,
            provisional: false,
        }
    }

    fn terms(dimension: &str, value: &str) -> BudgetTerms {
        serde_json::from_value(serde_json::json!({
            "scope": { "dimension": dimension, "value": value }, "owner": "o", "limit_usd": "5" }))
        .unwrap()
    }

    #[test]
    fn each_budget_takes_what_its_requests_differ_by() {
        let budgets = BTreeMap::from([
            ("all".to_owned(), terms("workspace", "*")),
            ("teams".to_owned(), terms("team", "*")),
            ("search".to_owned(), terms("team", "search")),
            ("apps".to_owned(), terms("app", "*")),
        ]);
        let rows = [
            row(&[("team", "search")], "usage", "1", Some("1.5")),
            row(&[("team", "ads")], "usage", "2", Some("1.9")),
            row(&[("team", "ads")], "usage", "9", None),
            row(&[("team", "ads")], "tax", "0", Some("3")),
            row(&[("unmetered", "sk")], "usage", "0", Some("4")),
        ];
        let mut sums = BudgetSums::new("ws_a", &budgets);
        rows.iter().for_each(|row| sums.add(row).unwrap());
        let corrections = sums.corrections();
        let shown: Vec<(&str, &str, String)> = corrections
            .iter()
            .map(|c| (c.budget.as_str(), c.value.as_str(), c.amount.to_string()))
            .collect();
        let expected = [
            ("all", "ws_a", "0.4"),
            ("search", "search", "0.5"),
            ("teams", "ads", "-0.1"),
            ("teams", "search", "0.5"),
        ];
        assert_eq!(shown, expected.map(|(b, v, a)| (b, v, a.to_owned())));
    }

    #[test]
    fn a_correction_says_what_of_it_quantities_and_prices_explain() {
        let budgets = BTreeMap::from([("all".to_owned(), terms("workspace", "*"))]);
        let mut sums = BudgetSums::new("ws_a", &budgets);
        for (billed, quantity, price) in [("1.5", "0.2", "0.3"), ("0.4", "-0.5", "-0.1")] {
            let line = TrueUp {
                quantity_variance: quantity.parse().unwrap(),
                price_variance: price.parse().unwrap(),
                ..row(&[], "usage", "1", Some(billed))
            };
            sums.add(&line).unwrap();
        }
        let correction = sums.corrections().remove(0);
        let shown = [correction.amount, correction.by_quantity, correction.by_price];
        assert_eq!(shown.map(|it| it.to_string()), ["-0.1", "-0.3", "0.2"]);
        // A reconciler of before says nothing of it.
        let mut old = serde_json::to_value(&correction).unwrap();
        let fields = old.as_object_mut().unwrap();
        fields.retain(|name, _| !name.starts_with("by_"));
        let read: BudgetCorrection = serde_json::from_value(old).unwrap();
        assert_eq!((read.amount, read.by_price), (correction.amount, Usd::ZERO));
    }
}
