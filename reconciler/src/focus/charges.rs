//! The ledger's lines as FOCUS rows.
//!
//! One row for each line. The rows of a charge that was split over owners in proportion to their use share its price,
//! and their quantities, costs and ratios add up to it. A closed month never changes: what a later revision says of it
//! is booked in an open month, as a reversal of the row that was exported and a restatement. A day without a bill is left
//! out, or marked as estimated with nothing billed; see [`Estimates`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::PriceBook;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::ExportError;
use super::corrections::{corrections, snapshot};
use super::invoices::{Found, InvoiceIndex};
use super::month::Month;
use super::prices::{self, DOLLARS, Measure, SEATS};
use super::providers::seller;
use super::row::{
    Allocation, Basis, Category, Commitment, Costs, Custom, FocusRow, Names, PREPAID_TIER, Pricing,
    category_of,
};
use super::sku;
use crate::bill::{ChargeKind, Quantity};
use crate::ledger::{LineId, Revision, UNMETERED, UnitId};

/// The ledger's word for a charge that was split by use.
const PROPORTIONAL: &str = "proportional";
/// A dollar, as a price.
const DOLLAR_MILLIONTHS: i128 = 1_000_000;
/// The documented method behind it: the parts follow the owners' estimated costs, by largest remainder.
pub const ALLOCATION_METHOD: &str = "tallygate:proportional-to-estimates:v1";

/// What to do with days that have no bill yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Estimates {
    /// Leave them out: every row is on a bill.
    #[default]
    LeaveOut,
    /// Export them with `x_CostBasis` `Estimated`, a `BilledCost` of 0 and the estimate as the other costs: for
    /// showback of the last days.
    Mark,
}

/// A balance that was paid ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepaid {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What the workspace knows of a billed account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: Option<String>,
    /// Set where the provider draws use from a balance and never invoices it. Use then has a `BilledCost` of 0. Where
    /// the bill states the use and takes the drawn amount off again, leave it unset: the ledger has a line for that.
    pub prepaid: Option<Prepaid>,
}

/// All that a row needs beside the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// List prices.
    pub prices: &'a PriceBook,
    /// Invoices.
    pub invoices: &'a InvoiceIndex,
    /// Accounts by provider and id.
    pub accounts: &'a BTreeMap<(String, String), Account>,
    /// Days without a bill.
    pub estimates: Estimates,
}

/// The rows of a unit in one billing month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRows {
    /// In the order of the lines; a reversal before its restatement.
    pub rows: Vec<FocusRow>,
    /// Lines left out because nobody has billed them yet.
    pub unbilled: u64,
}

/// The rows that a unit (a workspace's day of a provider) has in the month `billing`.
///
/// `revisions` are of one unit, in any order: the newest of each line, and of lines with corrections
/// ([`Revision::booked_in`]) the whole history. In the unit's own month they are the charges, in a later month the
/// corrections booked there, in others none.
pub fn rows_of_unit(
    revisions: &[Revision],
    billing: Month,
    context: &Context<'_>,
) -> Result<UnitRows, ExportError> {
    let Some(first) = revisions.first() else { return Ok(UnitRows::default()) };
    let unit = &first.unit;
    if let Some(other) = revisions.iter().find(|revision| revision.unit != *unit) {
        return Err(ExportError::TwoUnits {
            first: unit.to_string(),
            second: other.unit.to_string(),
        });
    }
    let day = Date::parse(&unit.day).ok_or_else(|| ExportError::Day { unit: unit.to_string() })?;
    let maker = Maker { unit, start: day.midnight(), billing, context };
    let own = Month::of(day);
    if billing < own {
        return Ok(UnitRows::default());
    }
    if billing == own {
        let lines = snapshot(revisions, |booked| booked.is_none())?;
        let groups = maker.groups(&lines)?;
        let unbilled = groups.unbilled;
        let rows = groups.rows.into_values().flatten().map(|(_, row)| row).collect();
        return Ok(UnitRows { rows, unbilled });
    }
    let before = snapshot(revisions, |booked| booked.is_none_or(|month| month < billing))?;
    let after = snapshot(revisions, |booked| booked.is_none_or(|month| month <= billing))?;
    Ok(UnitRows { rows: corrections(maker.groups(&before)?, maker.groups(&after)?)?, unbilled: 0 })
}

/// A provider's charge: the line without its owner, where it was split; else the line itself.
pub(super) type GroupName = (LineId, bool);

/// The rows of a unit by the provider's charges.
pub(super) struct Groups<'a> {
    pub(super) rows: BTreeMap<GroupName, Vec<(&'a LineId, FocusRow)>>,
    unbilled: u64,
}

/// A line with the amount that is exported.
#[derive(Clone, Copy)]
struct Part<'a> {
    revision: &'a Revision,
    amount: Usd,
    /// The same before discounts.
    list: Usd,
    basis: Basis,
}

/// What all parts of a charge have in common.
struct Priced {
    measure: Measure,
    price: i128,
    /// What it comes to before discounts.
    list_price: i128,
    millionths: Vec<i128>,
    consumed: Vec<Quantity>,
    measured_by_provider: bool,
}

struct Maker<'a> {
    unit: &'a UnitId,
    start: Timestamp,
    billing: Month,
    context: &'a Context<'a>,
}

impl Maker<'_> {
    fn groups<'r>(
        &self,
        lines: &BTreeMap<&'r LineId, &'r Revision>,
    ) -> Result<Groups<'r>, ExportError> {
        let mut parts: BTreeMap<GroupName, Vec<Part<'r>>> = BTreeMap::new();
        let mut unbilled = 0;
        for (line, revision) in lines {
            let content = &revision.content;
            let (amount, basis) = match (content.billed, self.context.estimates) {
                (Some(billed), _) if content.provisional => (billed, Basis::Provisional),
                (Some(billed), _) => (billed, Basis::Billed),
                (None, Estimates::Mark) => (content.estimated, Basis::Estimated),
                (None, Estimates::LeaveOut) => {
                    unbilled += 1;
                    continue;
                }
            };
            let split = content.method == PROPORTIONAL && basis != Basis::Estimated;
            let name = if split {
                LineId { owner: BTreeMap::new(), ..(*line).clone() }
            } else {
                (*line).clone()
            };
            let list = content.list.unwrap_or(amount);
            parts.entry((name, split)).or_default().push(Part { revision, amount, list, basis });
        }
        let mut rows = BTreeMap::new();
        for (name, parts) in parts {
            let made = self.charge(&parts)?;
            let lines = parts.iter().map(|part| &part.revision.line);
            rows.insert(name, lines.zip(made).collect());
        }
        Ok(Groups { rows, unbilled })
    }

    /// The rows of one charge of the provider.
    fn charge(&self, parts: &[Part<'_>]) -> Result<Vec<FocusRow>, ExportError> {
        let overflow = || ExportError::Overflow { what: "the quantities of a charge" };
        let priced = self.priced(parts)?;
        let shares = match parts {
            [_] => Vec::new(),
            _ => {
                let weights: Vec<i128> = parts.iter().map(|part| part.amount.pico()).collect();
                prices::ratios(&weights).ok_or_else(overflow)?
            }
        };
        let mut rows = Vec::with_capacity(parts.len());
        for (place, part) in parts.iter().enumerate() {
            let (pricing, list, contracted) = match self.pricing(part, priced.as_ref(), place)? {
                Some((pricing, list, contracted)) => (Some(pricing), list, contracted),
                None => (None, part.amount, part.amount),
            };
            let share = shares.get(place).copied();
            let measure = priced.as_ref().map(|priced| priced.measure);
            let measure = measure.filter(|measure| *measure != DOLLARS);
            rows.push(self.row(part, pricing, (list, contracted), (share, measure))?);
        }
        Ok(rows)
    }

    /// Price and quantities of a charge, `None` where only its cost is known.
    fn priced(&self, parts: &[Part<'_>]) -> Result<Option<Priced>, ExportError> {
        let overflow = || ExportError::Overflow { what: "the quantities of a charge" };
        let Some(first) = parts.first() else { return Ok(None) };
        let line = &first.revision.line;
        let seats = line.kind == ChargeKind::Seat;
        let measure = if seats { Some(SEATS) } else { prices::measure(line.meter) };
        let category = category_of(line.kind, &line.tier);
        if !is_priced(category) {
            return Ok(None);
        }
        let Some(measure) = measure else { return by_list(parts) };
        let measured: Option<Vec<Quantity>> =
            parts.iter().map(|part| part.revision.content.billed_quantity).collect();
        let measured_by_provider = measured.is_some();
        let consumed = match measured {
            Some(measured) => measured,
            None if seats => return by_list(parts),
            None => parts.iter().map(|part| part.revision.content.metered).collect(),
        };
        let millionths = prices::in_millionths(&measure, &consumed).ok_or_else(overflow)?;
        let counted = millionths.iter().sum();
        let (amount, list) = sums(parts).ok_or_else(overflow)?;
        let Some(price) = prices::billed_price(amount, counted) else { return by_list(parts) };
        // A list amount of the other sign is no price.
        let list_price = prices::billed_price(list, counted).unwrap_or(price);
        Ok(Some(Priced { measure, price, list_price, millionths, consumed, measured_by_provider }))
    }

    /// A row's pricing with its list and contracted cost; `None` for charges that have no SKU.
    fn pricing(
        &self,
        part: &Part<'_>,
        priced: Option<&Priced>,
        place: usize,
    ) -> Result<Option<(Pricing, Usd, Usd)>, ExportError> {
        let line = &part.revision.line;
        let category = category_of(line.kind, &line.tier);
        if !is_priced(category) {
            return Ok(None);
        }
        let is_use = category == Category::Usage;
        let details = sku::details(line);
        let named = |measure: &Measure| {
            let sku = sku::sku(&self.unit.provider, line, measure);
            let price = sku::sku_price(&sku, line);
            (sku, price)
        };
        let Some(priced) = priced else {
            let (sku, sku_price) = named(&DOLLARS);
            let quantity = Quantity::from_pico(part.amount.pico());
            let dollar = Usd::from_pico(tallygate_shared::money::PICO_PER_USD);
            let pricing = Pricing {
                sku,
                meter: DOLLARS.name,
                sku_price,
                details,
                list_price: dollar,
                listed: false,
                contracted_price: dollar,
                quantity,
                unit: DOLLARS.pricing_unit,
                consumed: is_use.then_some((quantity, DOLLARS.unit)),
                measured_by_provider: false,
            };
            return Ok(Some((pricing, part.amount, part.amount)));
        };
        let overflow = || ExportError::Overflow { what: "price times quantity" };
        let millionths = priced.millionths.get(place).copied().unwrap_or_default();
        let known = self.list_price(line).filter(|_| priced.measure != DOLLARS);
        let list = known.map_or(priced.list_price, prices::price_millionths);
        let (sku, sku_price) = named(&priced.measure);
        let consumed = priced.consumed.get(place).copied().unwrap_or_default();
        let pricing = Pricing {
            sku,
            meter: priced.measure.name,
            sku_price,
            details,
            list_price: prices::as_price(list).ok_or_else(overflow)?,
            listed: known.is_some(),
            contracted_price: prices::as_price(priced.price).ok_or_else(overflow)?,
            quantity: prices::as_quantity(millionths).ok_or_else(overflow)?,
            unit: priced.measure.pricing_unit,
            consumed: is_use.then_some((consumed, priced.measure.unit)),
            measured_by_provider: priced.measured_by_provider,
        };
        let cost = |price| prices::product(price, millionths).ok_or_else(overflow);
        Ok(Some((pricing, cost(list)?, cost(priced.price)?)))
    }

    fn list_price(&self, line: &LineId) -> Option<Usd> {
        let model = (self.unit.provider.as_str(), line.model.as_str());
        prices::list_price(self.context.prices, model, line.meter, &line.tier, self.start)
    }

    fn row(
        &self,
        part: &Part<'_>,
        pricing: Option<Pricing>,
        (list, contracted): (Usd, Usd),
        (share, measure): (Option<i128>, Option<Measure>),
    ) -> Result<FocusRow, ExportError> {
        let revision = part.revision;
        let line = &revision.line;
        let category = category_of(line.kind, &line.tier);
        let account =
            self.context.accounts.get(&(self.unit.provider.clone(), line.account.clone()));
        let (costs, commitment) = self.costs(part, (list, contracted), account)?;
        let estimated = part.basis == Basis::Estimated;
        let drawn = commitment.as_ref().is_some_and(|commitment| commitment.used);
        // A bill that is stated anew does not say which invoice the difference is on.
        let corrects = Month::of(self.start.date()) != self.billing;
        let found = if estimated || drawn || corrects {
            None
        } else {
            let provider = &self.unit.provider;
            self.context.invoices.find(provider, &line.account, self.billing, category)
        };
        let (invoice, invoice_detail) =
            found.map(|Found { invoice, detail }| (invoice, detail)).unzip();
        let unmetered = line.owner.get(UNMETERED);
        Ok(FocusRow {
            billing: self.billing,
            start: self.start,
            end: self.start.plus_ms(DAY_MS),
            category,
            correction: None,
            frequency: frequency(line.kind),
            description: sku::description(line, measure.as_ref(), unmetered.is_some()),
            names: self.names(line, account),
            costs,
            pricing,
            commitment,
            invoice,
            invoice_detail,
            key: line.owner.get("key").cloned(),
            tags: tags(&line.owner),
            allocation: share.map(|share| self.allocation(revision, share, measure)),
            custom: self.custom(part),
        })
    }

    /// The four costs, and the prepaid balance behind them.
    fn costs(
        &self,
        part: &Part<'_>,
        (list, contracted): (Usd, Usd),
        account: Option<&Account>,
    ) -> Result<(Costs, Option<Commitment>), ExportError> {
        let line = &part.revision.line;
        let amount = part.amount;
        let prepaid = account.and_then(|account| account.prepaid.as_ref());
        let bought_ahead = line.tier == PREPAID_TIER || prepaid.is_some();
        let commitment = |used| {
            prepaid.map(|Prepaid { id, name }| Commitment {
                id: id.clone(),
                name: name.clone(),
                amount,
                used,
            })
        };
        if part.basis == Basis::Estimated {
            let costs = Costs { list, contracted, effective: amount, billed: Usd::ZERO };
            return Ok((costs, None));
        }
        Ok(match line.kind {
            // Bought for later: the use of it will cost, not the purchase.
            ChargeKind::Purchase if bought_ahead => {
                let costs = Costs { list, contracted, effective: Usd::ZERO, billed: amount };
                (costs, commitment(false))
            }
            ChargeKind::Usage if prepaid.is_some() => {
                let costs = Costs { list, contracted, effective: amount, billed: Usd::ZERO };
                (costs, commitment(true))
            }
            // The bill takes off again what was drawn: it lowers the invoice and not the cost of the use.
            ChargeKind::Credit if line.tier == PREPAID_TIER => {
                if prepaid.is_some() {
                    return Err(ExportError::DrawnTwice {
                        unit: self.unit.to_string(),
                        account: line.account.clone(),
                    });
                }
                (Costs { billed: amount, ..Costs::default() }, None)
            }
            _ => (Costs { list, contracted, effective: amount, billed: amount }, None),
        })
    }

    fn names(&self, line: &LineId, account: Option<&Account>) -> Names {
        let seller = seller(&self.unit.provider, &line.model);
        Names {
            account: line.account.clone(),
            account_name: account.and_then(|account| account.name.clone()),
            account_type: seller.account_type.to_owned(),
            issuer: seller.issuer.to_owned(),
            host: seller.host.map(str::to_owned),
            service: seller.service.to_owned(),
            category: seller.category,
            subcategory: seller.subcategory,
        }
    }

    fn allocation(&self, revision: &Revision, share: i128, measure: Option<Measure>) -> Allocation {
        let line = &revision.line;
        let ratio = Quantity::from_pico(share);
        let basis = measure.map_or_else(String::new, |measure| {
            let metered = revision.content.metered;
            format!(r#","UsageQuantity":{metered},"UsageUnit":"{}""#, measure.unit)
        });
        let pairs: Vec<String> =
            line.owner.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = ["team", "app", "feature", "agent", "user", "customer"]
            .iter()
            .find_map(|dimension| line.owner.get(*dimension));
        let unowned = || "unowned".to_owned();
        let origin = LineId { owner: BTreeMap::new(), ..line.clone() };
        Allocation {
            method: ALLOCATION_METHOD.to_owned(),
            details: format!(r#"{{"Elements":[{{"AllocatedRatio":{ratio}{basis}}}]}}"#),
            resource: if pairs.is_empty() { unowned() } else { pairs.join(",") },
            resource_name: name
                .or_else(|| line.owner.values().next())
                .cloned()
                .unwrap_or_else(unowned),
            origin: self.charge_name(&origin),
        }
    }

    fn custom(&self, part: &Part<'_>) -> Custom {
        let Revision { line, content, rev, .. } = part.revision;
        let owner = |dimension: &str| line.owner.get(dimension).cloned();
        Custom {
            charge: self.charge_name(line),
            workspace: self.unit.workspace.clone(),
            basis: part.basis,
            kind: line.kind,
            estimated: content.estimated,
            quantity_variance: content.quantity_variance,
            price_variance: content.price_variance,
            requests: Quantity::whole(content.requests),
            method: content.method.clone(),
            price_version: content.price_version.clone(),
            source: content.source.clone(),
            revision: *rev,
            unmetered: owner(UNMETERED),
            principal: owner("user"),
            credential: owner("key"),
            consumer: owner("customer"),
        }
    }

    /// A charge's name through all its revisions.
    fn charge_name(&self, line: &LineId) -> String {
        format!("{}/{}/{}", self.unit.day, self.unit.provider, line.digest())
    }
}

/// What a charge comes to as it is billed, and before discounts.
fn sums(parts: &[Part<'_>]) -> Option<(Usd, Usd)> {
    parts.iter().try_fold((Usd::ZERO, Usd::ZERO), |(amount, list), part| {
        Some((amount.checked_add(part.amount)?, list.checked_add(part.list)?))
    })
}

/// The price of a charge without a quantity whose bill states it before discounts too: that is what it is counted in,
/// and what is billed of each dollar is the agreed price. `None` where the bill states one amount.
fn by_list(parts: &[Part<'_>]) -> Result<Option<Priced>, ExportError> {
    let overflow = || ExportError::Overflow { what: "the list amounts of a charge" };
    if parts.iter().all(|part| part.list == part.amount) {
        return Ok(None);
    }
    let lists: Vec<Quantity> =
        parts.iter().map(|part| Quantity::from_pico(part.list.pico())).collect();
    let millionths = prices::in_millionths(&DOLLARS, &lists).ok_or_else(overflow)?;
    let (amount, _) = sums(parts).ok_or_else(overflow)?;
    let Some(price) = prices::billed_price(amount, millionths.iter().sum()) else {
        return Ok(None);
    };
    let counted = millionths.iter().map(|millionths| prices::as_quantity(*millionths));
    let consumed = counted.collect::<Option<Vec<_>>>().ok_or_else(overflow)?;
    let list_price = DOLLAR_MILLIONTHS;
    let measured_by_provider = false;
    let measure = DOLLARS;
    Ok(Some(Priced { measure, price, list_price, millionths, consumed, measured_by_provider }))
}

/// Only use and purchases have a SKU, a price and a quantity.
const fn is_priced(category: Category) -> bool {
    matches!(category, Category::Usage | Category::Purchase)
}

const fn frequency(kind: ChargeKind) -> &'static str {
    match kind {
        ChargeKind::Usage => "Usage-Based",
        ChargeKind::Seat | ChargeKind::MinimumFee => "Recurring",
        ChargeKind::Purchase
        | ChargeKind::Tax
        | ChargeKind::Discount
        | ChargeKind::Credit
        | ChargeKind::Refund
        | ChargeKind::Adjustment => "One-Time",
    }
}

/// The owner as FOCUS's tags, `None` for costs nobody owns.
fn tags(owner: &BTreeMap<String, String>) -> Option<String> {
    if owner.is_empty() { None } else { serde_json::to_string(owner).ok() }
}
