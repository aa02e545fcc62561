//! One charge as FOCUS sees it. A plain record: [`super::charges`] makes it from the ledger, [`super::columns`] says
//! which field stands in which column.

use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::month::Month;
use crate::bill::{ChargeKind, Quantity};

/// FOCUS's `ChargeCategory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Metered use, also where only its cost is known.
    Usage,
    /// Something bought ahead or by the seat.
    Purchase,
    /// A tax.
    Tax,
    /// A credit granted by the provider.
    Credit,
    /// Rounding, discounts, refunds, minimum fees, the use of a prepaid balance.
    Adjustment,
}

impl Category {
    /// As FOCUS writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "Usage",
            Self::Purchase => "Purchase",
            Self::Tax => "Tax",
            Self::Credit => "Credit",
            Self::Adjustment => "Adjustment",
        }
    }
}

/// The service tier that marks money paid ahead: on a purchase, the balance bought; on a credit, what was drawn from it.
pub const PREPAID_TIER: &str = "prepaid";

/// The category of a kind of charge. A draw from a prepaid balance is no [`Category::Credit`]: a credit lowers the
/// effective cost, and what was paid ahead has been paid.
pub fn category_of(kind: ChargeKind, tier: &str) -> Category {
    match kind {
        ChargeKind::Usage => Category::Usage,
        ChargeKind::Purchase | ChargeKind::Seat => Category::Purchase,
        ChargeKind::Tax => Category::Tax,
        ChargeKind::Credit if tier == PREPAID_TIER => Category::Adjustment,
        ChargeKind::Credit => Category::Credit,
        ChargeKind::MinimumFee
        | ChargeKind::Discount
        | ChargeKind::Refund
        | ChargeKind::Adjustment => Category::Adjustment,
    }
}

/// `x_ChargeKind`: the ledger's finer word for the category.
pub const fn kind_name(kind: ChargeKind) -> &'static str {
    match kind {
        ChargeKind::Usage => "Usage",
        ChargeKind::Purchase => "Purchase",
        ChargeKind::Seat => "Seat",
        ChargeKind::MinimumFee => "MinimumFee",
        ChargeKind::Tax => "Tax",
        ChargeKind::Discount => "Discount",
        ChargeKind::Credit => "Credit",
        ChargeKind::Refund => "Refund",
        ChargeKind::Adjustment => "Adjustment",
    }
}

/// How sure the amount is: `x_CostBasis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Billed.
    Billed,
    /// Billed, and the provider may still change it.
    Provisional,
    /// The gateway's estimate of a day without a bill. `BilledCost` is 0: nobody has billed it.
    Estimated,
}

impl Basis {
    /// As the export writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Billed => "Billed",
            Self::Provisional => "Provisional",
            Self::Estimated => "Estimated",
        }
    }
}

/// Which half of a correction a row is: `x_CorrectionStep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The earlier row with its signs turned.
    Reversal,
    /// What should have stood there.
    Restatement,
}

impl Step {
    /// As the export writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reversal => "Reversal",
            Self::Restatement => "Restatement",
        }
    }
}

/// Who bills, sells and hosts, and the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The provider's id of the billed account.
    pub account: String,
    /// Its name, where known.
    pub account_name: Option<String>,
    /// What it is to the provider: `Organization`, `Account`.
    pub account_type: String,
    /// Who sends the invoice and sells the service.
    pub issuer: String,
    /// Where it runs.
    pub host: Option<String>,
    /// The service.
    pub service: String,
    /// Its category.
    pub category: &'static str,
    /// Its subcategory.
    pub subcategory: &'static str,
}

/// The four costs. They differ: FOCUS asks for list price, agreed price, amortised and invoiced cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// At the published price.
    pub list: Usd,
    /// At the price the provider billed.
    pub contracted: Usd,
    /// What the use cost, prepayments counted when they are used.
    pub effective: Usd,
    /// What is on the invoice.
    pub billed: Usd,
}

/// What was bought, how much of it, and at which prices. Only use and purchases have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pricing {
    /// `provider/model:meter`.
    pub sku: String,
    /// The meter in words.
    pub meter: &'static str,
    /// `provider/model:meter:tier`.
    pub sku_price: String,
    /// Properties of the model as a JSON object.
    pub details: Option<String>,
    /// The published price of one pricing unit.
    pub list_price: Usd,
    /// Whether the price book knew it; otherwise it is the billed price.
    pub listed: bool,
    /// The billed price of one pricing unit.
    pub contracted_price: Usd,
    /// How many pricing units.
    pub quantity: Quantity,
    /// The pricing unit.
    pub unit: &'static str,
    /// What was consumed and its unit. Use only.
    pub consumed: Option<(Quantity, &'static str)>,
    /// True when the provider says how much; false when the gateway counted it.
    pub measured_by_provider: bool,
}

/// A prepaid balance that the charge buys or draws on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// The balance.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Dollars bought or drawn.
    pub amount: Usd,
    /// True on the use that draws on it.
    pub used: bool,
}

/// The split of one charge of the provider over owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The documented method.
    pub method: String,
    /// Its JSON details, the ratio among them.
    pub details: String,
    /// Whom it goes to.
    pub resource: String,
    /// The same in words.
    pub resource_name: String,
    /// The charge of the provider, by a name of its own. Rows of one origin add up to it.
    pub origin: String,
}

/// What the ledger knows beyond FOCUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// The ledger line and day: the same in every revision.
    pub charge: String,
    /// The workspace.
    pub workspace: String,
    /// How sure the amount is.
    pub basis: Basis,
    /// The ledger's kind of charge.
    pub kind: ChargeKind,
    /// What the gateway had estimated.
    pub estimated: Usd,
    /// What other quantities explain of the difference.
    pub quantity_variance: Usd,
    /// What other prices explain.
    pub price_variance: Usd,
    /// Requests behind it.
    pub requests: Quantity,
    /// How the bill was allocated.
    pub method: String,
    /// The price book behind the estimate.
    pub price_version: String,
    /// The content address of the bill.
    pub source: String,
    /// The ledger revision.
    pub revision: u32,
    /// Use that never went through the gateway: the credential or account.
    pub unmetered: Option<String>,
    /// The owner's user.
    pub principal: Option<String>,
    /// The owner's gateway key.
    pub credential: Option<String>,
    /// The owner's customer.
    pub consumer: Option<String>,
}

/// One row of Cost and Usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FocusRow {
    /// The month it is billed in.
    pub billing: Month,
    /// First moment of the charge.
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
    /// The category.
    pub category: Category,
    /// Set on corrections of a closed month.
    pub correction: Option<Step>,
    /// `Usage-Based`, `Recurring`, `One-Time`.
    pub frequency: &'static str,
    /// The charge in words.
    pub description: String,
    /// Who.
    pub names: Names,
    /// How much.
    pub costs: Costs,
    /// Of what.
    pub pricing: Option<Pricing>,
    /// Against which prepaid balance.
    pub commitment: Option<Commitment>,
    /// The invoice.
    pub invoice: Option<String>,
    /// The row of Invoice Detail.
    pub invoice_detail: Option<String>,
    /// The gateway key.
    pub key: Option<String>,
    /// The owner as a JSON object.
    pub tags: Option<String>,
    /// How it was split off.
    pub allocation: Option<Allocation>,
    /// The ledger's own facts.
    pub custom: Custom,
}

impl FocusRow {
    /// What a correction compares: all but the bookkeeping of pulls, which changes when nothing else does.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let bare = |row: &Self| {
            let mut row = row.clone();
            row.custom.revision = 0;
            row.custom.source.clear();
            row.custom.price_version.clear();
            row.custom.basis = Basis::Billed;
            row
        };
        bare(self) == bare(other)
    }

    /// The row with all its summable figures negated. Prices and ratios stay: FOCUS's identities hold either way.
    /// `None` on overflow.
    pub(crate) fn reversed(mut self) -> Option<Self> {
        let money = |amount: &mut Usd| {
            *amount = Usd::from_pico(amount.pico().checked_neg()?);
            Some(())
        };
        let count = |quantity: &mut Quantity| {
            *quantity = Quantity::from_pico(quantity.pico().checked_neg()?);
            Some(())
        };
        let Costs { list, contracted, effective, billed } = &mut self.costs;
        for amount in [list, contracted, effective, billed] {
            money(amount)?;
        }
        let Custom { estimated, quantity_variance, price_variance, .. } = &mut self.custom;
        for amount in [estimated, quantity_variance, price_variance] {
            money(amount)?;
        }
        count(&mut self.custom.requests)?;
        if let Some(pricing) = &mut self.pricing {
            count(&mut pricing.quantity)?;
            if let Some((consumed, _)) = &mut pricing.consumed {
                count(consumed)?;
            }
        }
        if let Some(commitment) = &mut self.commitment {
            money(&mut commitment.amount)?;
        }
        Some(self)
    }
}
