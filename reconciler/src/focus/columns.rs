//! The tables of FOCUS: every column of Cost and Usage 1.4 and 1.2, Invoice Detail and Billing Period that this export
//! fills, in the order of the file: FOCUS's own by name, then our `x_` ones. Left out are columns whose condition does
//! not hold here: zones, capacity reservations, contracts and commitment programmes of a cloud, payment currencies.

use std::borrow::Cow;

use super::cell::{Cell, Column, Kind};
use super::invoices::{BillingPeriodRow, InvoiceDetailRow};
use super::row::{Category, FocusRow, Step, kind_name};
use crate::bill::Quantity;
use tallygate_shared::money::Usd;

/// Which edition of FOCUS a file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.2, for tools that stop there. No split allocation, no invoice details.
    V1_2,
    /// 1.4.
    V1_4,
}

impl Version {
    /// As it stands in a path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "focus_1_2",
            Self::V1_4 => "focus_1_4",
        }
    }

    /// As FOCUS numbers it.
    pub const fn number(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_4 => "1.4",
        }
    }
}

/// FOCUS's service categories.
#[rustfmt::skip]
pub const SERVICE_CATEGORIES: &[&str] = &[
    "AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools",
    "Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration",
    "Mobile", "Networking", "Security", "Storage", "Web", "Other",
];

/// The service subcategories that this export uses, each with its category.
#[rustfmt::skip]
pub const SERVICE_SUBCATEGORIES: &[(&str, &str)] = &[
    ("Generative AI", "AI and Machine Learning"), ("Machine Learning", "AI and Machine Learning"),
    ("Analytics Platforms", "Analytics"), ("Data Processing", "Analytics"), ("Search", "Analytics"),
    ("Containers", "Compute"), ("Serverless Compute", "Compute"), ("Virtual Machines", "Compute"),
    ("Caching", "Databases"), ("NoSQL Databases", "Databases"), ("Relational Databases", "Databases"),
    ("Development Environments", "Developer Tools"),
    ("API Management", "Integration"), ("Messaging", "Integration"), ("Workflow Orchestration", "Integration"),
    ("Observability", "Management and Governance"),
    ("Content Delivery", "Networking"), ("Network Infrastructure", "Networking"),
    ("Secret Management", "Security"),
    ("Object Storage", "Storage"), ("Other (Storage)", "Storage"),
    ("Application Platforms", "Web"),
    ("Other (Other)", "Other"),
];

const CATEGORIES: Kind = Kind::OneOf(&["Usage", "Purchase", "Tax", "Credit", "Adjustment"]);
const CURRENCY: &str = "USD";

/// Whether FOCUS says it may be null.
const NULL: bool = true;
const NOT_NULL: bool = false;

const fn column<R>(
    name: &'static str,
    kind: Kind,
    nullable: bool,
    read: for<'a> fn(&'a R) -> Cell<'a>,
) -> Column<R> {
    Column { name, kind, nullable, read }
}

fn priced<'a>(
    row: &'a FocusRow,
    read: impl FnOnce(&'a super::row::Pricing) -> Cell<'a>,
) -> Cell<'a> {
    Cell::or_null(row.pricing.as_ref(), read)
}

fn committed<'a>(
    row: &'a FocusRow,
    read: impl FnOnce(&'a super::row::Commitment) -> Cell<'a>,
) -> Cell<'a> {
    Cell::or_null(row.commitment.as_ref(), read)
}

fn allocated<'a>(
    row: &'a FocusRow,
    read: impl FnOnce(&'a super::row::Allocation) -> Cell<'a>,
) -> Cell<'a> {
    Cell::or_null(row.allocation.as_ref(), read)
}

fn text_or_null(text: Option<&String>) -> Cell<'_> {
    Cell::or_null(text, |text| Cell::text(text))
}

/// Never an empty text: that is no value.
fn text_if_any(text: &str) -> Cell<'_> {
    if text.is_empty() { Cell::Null } else { Cell::text(text) }
}

/// What stands between the cost and its price times its quantity: the price is rounded, and of an allocated charge it
/// is the average of all owners.
fn residual(row: &FocusRow) -> Cell<'_> {
    let costs = &row.costs;
    let cost = if costs.billed == Usd::ZERO { costs.effective } else { costs.billed };
    // A draw from a prepaid balance is billed below zero and costs nothing: that is no rounding.
    match (&row.pricing, cost.checked_sub(costs.contracted)) {
        (Some(_), Some(residual)) => Cell::money(residual),
        _ => Cell::money(Usd::ZERO),
    }
}

/// Cost and Usage in the order of the file, with what each edition has. A table: one line, one column.
#[rustfmt::skip]
static COST_AND_USAGE: &[(Edition, Column<FocusRow>)] = &[
    (V14, column("AllocatedMethodDetails", Kind::Object, NULL, |r| allocated(r, |a| Cell::text(&a.details)))),
    (V14, column("AllocatedMethodId", Kind::Text, NULL, |r| allocated(r, |a| Cell::text(&a.method)))),
    (V14, column("AllocatedResourceId", Kind::Text, NULL, |r| allocated(r, |a| Cell::text(&a.resource)))),
    (V14, column("AllocatedResourceName", Kind::Text, NULL, |r| allocated(r, |a| Cell::text(&a.resource_name)))),
    (V14, column("AllocatedTags", Kind::KeyValue, NULL, |r| {
        if r.allocation.is_some() { text_or_null(r.tags.as_ref()) } else { Cell::Null }
    })),
    (BOTH, column("BilledCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.costs.billed))),
    (BOTH, column("BillingAccountId", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.account))),
    (BOTH, column("BillingAccountName", Kind::Text, NULL, |r| text_or_null(r.names.account_name.as_ref()))),
    (BOTH, column("BillingAccountType", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.account_type))),
    (BOTH, column("BillingCurrency", Kind::Currency, NOT_NULL, |_| Cell::text(CURRENCY))),
    (BOTH, column("BillingPeriodEnd", Kind::Time, NOT_NULL, |r| Cell::Time(r.billing.end()))),
    (BOTH, column("BillingPeriodStart", Kind::Time, NOT_NULL, |r| Cell::Time(r.billing.start()))),
    (BOTH, column("ChargeCategory", CATEGORIES, NOT_NULL, |r| Cell::text(r.category.as_str()))),
    (BOTH, column("ChargeClass", Kind::OneOf(&["Correction"]), NULL, |r| {
        Cell::or_null(r.correction, |_| Cell::text("Correction"))
    })),
    (BOTH, column("ChargeDescription", Kind::Text, NULL, |r| Cell::text(&r.description))),
    (BOTH, column("ChargeFrequency", Kind::OneOf(&["One-Time", "Recurring", "Usage-Based"]), NOT_NULL, |r| {
        Cell::text(r.frequency)
    })),
    (BOTH, column("ChargePeriodEnd", Kind::Time, NOT_NULL, |r| Cell::Time(r.end))),
    (BOTH, column("ChargePeriodStart", Kind::Time, NOT_NULL, |r| Cell::Time(r.start))),
    (BOTH, column("CommitmentDiscountCategory", Kind::OneOf(&["Spend", "Usage"]), NULL, |r| {
        committed(r, |_| Cell::text("Spend"))
    })),
    (BOTH, column("CommitmentDiscountId", Kind::Text, NULL, |r| committed(r, |c| Cell::text(&c.id)))),
    (BOTH, column("CommitmentDiscountName", Kind::Text, NULL, |r| committed(r, |c| Cell::text(&c.name)))),
    (BOTH, column("CommitmentDiscountQuantity", Kind::Decimal, NULL, |r| committed(r, |c| Cell::money(c.amount)))),
    (BOTH, column("CommitmentDiscountStatus", Kind::OneOf(&["Used", "Unused"]), NULL, |r| {
        committed(r, |c| if c.used { Cell::text("Used") } else { Cell::Null })
    })),
    (BOTH, column("CommitmentDiscountType", Kind::Text, NULL, |r| committed(r, |_| Cell::text("Prepaid Balance")))),
    (BOTH, column("CommitmentDiscountUnit", Kind::Unit, NULL, |r| committed(r, |_| Cell::text(CURRENCY)))),
    (BOTH, column("ConsumedQuantity", Kind::Decimal, NULL, |r| {
        priced(r, |p| Cell::or_null(p.consumed, |(quantity, _)| Cell::count(quantity)))
    })),
    (BOTH, column("ConsumedUnit", Kind::Unit, NULL, |r| {
        priced(r, |p| Cell::or_null(p.consumed, |(_, unit)| Cell::text(unit)))
    })),
    (BOTH, column("ContractedCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.costs.contracted))),
    (BOTH, column("ContractedUnitPrice", Kind::Price, NULL, |r| priced(r, |p| Cell::money(p.contracted_price)))),
    (BOTH, column("EffectiveCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.costs.effective))),
    (V14, column("HostProviderName", Kind::Text, NULL, |r| text_or_null(r.names.host.as_ref()))),
    (V14, column("InvoiceDetailId", Kind::Text, NULL, |r| text_or_null(r.invoice_detail.as_ref()))),
    (BOTH, column("InvoiceId", Kind::Text, NULL, |r| text_or_null(r.invoice.as_ref()))),
    (BOTH, column("InvoiceIssuerName", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.issuer))),
    (BOTH, column("ListCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.costs.list))),
    (BOTH, column("ListUnitPrice", Kind::Price, NULL, |r| priced(r, |p| Cell::money(p.list_price)))),
    (BOTH, column("PricingCategory", Kind::OneOf(&["Standard", "Dynamic", "Committed", "Other"]), NULL, |r| {
        let used = r.commitment.as_ref().is_some_and(|commitment| commitment.used);
        priced(r, |_| Cell::text(if used { "Committed" } else { "Standard" }))
    })),
    (BOTH, column("PricingCurrency", Kind::Currency, NOT_NULL, |_| Cell::text(CURRENCY))),
    (BOTH, column("PricingCurrencyContractedUnitPrice", Kind::Price, NULL, |r| {
        priced(r, |p| Cell::money(p.contracted_price))
    })),
    (BOTH, column("PricingCurrencyEffectiveCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.costs.effective))),
    (BOTH, column("PricingCurrencyListUnitPrice", Kind::Price, NULL, |r| priced(r, |p| Cell::money(p.list_price)))),
    (BOTH, column("PricingQuantity", Kind::Decimal, NULL, |r| priced(r, |p| Cell::count(p.quantity)))),
    (BOTH, column("PricingUnit", Kind::Unit, NULL, |r| priced(r, |p| Cell::text(p.unit)))),
    (V12, column("ProviderName", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.issuer))),
    (V12, column("PublisherName", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.issuer))),
    // No bill tells the ledger a region or a sub-account of its lines; the columns stand for readers that ask for them.
    (BOTH, column("RegionId", Kind::Text, NULL, |_| Cell::Null)),
    (BOTH, column("RegionName", Kind::Text, NULL, |_| Cell::Null)),
    (BOTH, column("ResourceId", Kind::Text, NULL, |r| text_or_null(r.key.as_ref()))),
    (BOTH, column("ResourceName", Kind::Text, NULL, |r| {
        Cell::or_null(r.key.as_ref(), |key| Cell::Text(Cow::Owned(format!("Gateway key {key}"))))
    })),
    (BOTH, column("ResourceType", Kind::Text, NULL, |r| Cell::or_null(r.key.as_ref(), |_| Cell::text("API Key")))),
    (BOTH, column("ServiceCategory", Kind::OneOf(SERVICE_CATEGORIES), NOT_NULL, |r| Cell::text(r.names.category))),
    (BOTH, column("ServiceName", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.service))),
    (V14, column("ServiceProviderName", Kind::Text, NOT_NULL, |r| Cell::text(&r.names.issuer))),
    (BOTH, column("ServiceSubcategory", Kind::Text, NOT_NULL, |r| Cell::text(r.names.subcategory))),
    (BOTH, column("SkuId", Kind::Text, NULL, |r| priced(r, |p| Cell::text(&p.sku)))),
    (BOTH, column("SkuMeter", Kind::Text, NULL, |r| priced(r, |p| Cell::text(p.meter)))),
    (BOTH, column("SkuPriceDetails", Kind::KeyValue, NULL, |r| priced(r, |p| text_or_null(p.details.as_ref())))),
    (BOTH, column("SkuPriceId", Kind::Text, NULL, |r| priced(r, |p| Cell::text(&p.sku_price)))),
    (BOTH, column("SubAccountId", Kind::Text, NULL, |_| Cell::Null)),
    (BOTH, column("SubAccountName", Kind::Text, NULL, |_| Cell::Null)),
    (BOTH, column("SubAccountType", Kind::Text, NULL, |_| Cell::Null)),
    (BOTH, column("Tags", Kind::KeyValue, NULL, |r| text_or_null(r.tags.as_ref()))),
    (BOTH, column("x_AllocationMethod", Kind::Text, NULL, |r| text_if_any(&r.custom.method))),
    (BOTH, column("x_BillSource", Kind::Text, NULL, |r| text_if_any(&r.custom.source))),
    (BOTH, column("x_ChargeId", Kind::Text, NOT_NULL, |r| Cell::text(&r.custom.charge))),
    (BOTH, column("x_ChargeKind", KINDS, NOT_NULL, |r| Cell::text(kind_name(r.custom.kind)))),
    (BOTH, column("x_ConsumerId", Kind::Text, NULL, |r| text_or_null(r.custom.consumer.as_ref()))),
    (BOTH, column("x_CorrectionStep", Kind::OneOf(&["Reversal", "Restatement"]), NULL, |r| {
        Cell::or_null(r.correction, |step: Step| Cell::text(step.as_str()))
    })),
    (BOTH, column("x_CostBasis", Kind::OneOf(&["Billed", "Provisional", "Estimated"]), NOT_NULL, |r| {
        Cell::text(r.custom.basis.as_str())
    })),
    (BOTH, column("x_CostResidual", Kind::Decimal, NOT_NULL, residual)),
    (BOTH, column("x_CredentialId", Kind::Text, NULL, |r| text_or_null(r.custom.credential.as_ref()))),
    (BOTH, column("x_EstimatedCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.custom.estimated))),
    (BOTH, column("x_LedgerRevision", Kind::Decimal, NOT_NULL, |r| {
        Cell::count(Quantity::whole(u64::from(r.custom.revision)))
    })),
    (BOTH, column("x_ListPriceSource", Kind::OneOf(&["PriceBook", "Bill"]), NULL, |r| {
        priced(r, |p| Cell::text(if p.listed { "PriceBook" } else { "Bill" }))
    })),
    (BOTH, column("x_OriginChargeId", Kind::Text, NULL, |r| allocated(r, |a| Cell::text(&a.origin)))),
    (BOTH, column("x_PriceVarianceCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.custom.price_variance))),
    (BOTH, column("x_PriceVersion", Kind::Text, NULL, |r| text_if_any(&r.custom.price_version))),
    (BOTH, column("x_PrincipalId", Kind::Text, NULL, |r| text_or_null(r.custom.principal.as_ref()))),
    (BOTH, column("x_QuantitySource", Kind::OneOf(&["Provider", "Gateway"]), NULL, |r| {
        priced(r, |p| Cell::text(if p.measured_by_provider { "Provider" } else { "Gateway" }))
    })),
    (BOTH, column("x_QuantityVarianceCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.custom.quantity_variance))),
    (BOTH, column("x_RequestCount", Kind::Decimal, NOT_NULL, |r| Cell::count(r.custom.requests))),
    (BOTH, column("x_UnmeteredCredential", Kind::Text, NULL, |r| text_or_null(r.custom.unmetered.as_ref()))),
    (BOTH, column("x_WorkspaceId", Kind::Text, NOT_NULL, |r| Cell::text(&r.custom.workspace))),
];

/// Which editions have a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edition {
    Only(Version),
    All,
}
const V12: Edition = Edition::Only(Version::V1_2);
const V14: Edition = Edition::Only(Version::V1_4);
const BOTH: Edition = Edition::All;

#[rustfmt::skip]
const KINDS: Kind = Kind::OneOf(&[
    "Usage", "Purchase", "Seat", "MinimumFee", "Tax", "Discount", "Credit", "Refund", "Adjustment",
]);

/// The columns of Cost and Usage, in the order of the file.
pub fn cost_and_usage(version: Version) -> Vec<&'static Column<FocusRow>> {
    COST_AND_USAGE
        .iter()
        .filter(|(edition, _)| *edition == BOTH || *edition == Edition::Only(version))
        .map(|(_, column)| column)
        .collect()
}

/// The columns of Invoice Detail (1.4).
pub fn invoice_detail() -> Vec<&'static Column<InvoiceDetailRow>> {
    INVOICE_DETAIL.iter().collect()
}

/// The columns of Billing Period (1.4).
pub fn billing_period() -> Vec<&'static Column<BillingPeriodRow>> {
    BILLING_PERIOD.iter().collect()
}

#[rustfmt::skip]
static INVOICE_DETAIL: &[Column<InvoiceDetailRow>] = &[
    column("BilledCost", Kind::Decimal, NOT_NULL, |r| Cell::money(r.billed)),
    column("BillingAccountId", Kind::Text, NOT_NULL, |r| Cell::text(&r.account)),
    column("BillingCurrency", Kind::Currency, NOT_NULL, |_| Cell::text(CURRENCY)),
    column("BillingPeriodEnd", Kind::Time, NOT_NULL, |r| Cell::Time(r.billing.end())),
    column("BillingPeriodStart", Kind::Time, NOT_NULL, |r| Cell::Time(r.billing.start())),
    column("ChargeCategory", CATEGORIES, NOT_NULL, |r| Cell::text(Category::as_str(r.category))),
    column("InvoiceDetailCreated", Kind::Time, NOT_NULL, |r| Cell::Time(r.facts.created)),
    column("InvoiceDetailDescription", Kind::Text, NULL, |r| {
        let text = format!("{}, {}: {}", r.issuer, r.billing, r.category.as_str());
        Cell::Text(Cow::Owned(text))
    }),
    // One detail has all services, models and keys of its category: it has no grain to name.
    column("InvoiceDetailGrain", Kind::KeyValue, NULL, |_| Cell::Null),
    column("InvoiceDetailId", Kind::Text, NOT_NULL, |r| Cell::text(&r.detail)),
    column("InvoiceDetailLastUpdated", Kind::Time, NOT_NULL, |r| Cell::Time(r.facts.updated)),
    column("InvoiceId", Kind::Text, NOT_NULL, |r| Cell::text(&r.invoice)),
    column("InvoiceIssueDate", Kind::Time, NULL, |r| Cell::or_null(r.facts.issued, Cell::Time)),
    column("InvoiceIssueStatus", Kind::OneOf(&["Open", "Issued", "Voided"]), NOT_NULL, |r| {
        Cell::text(if r.facts.open { "Open" } else { "Issued" })
    }),
    column("InvoiceIssuerName", Kind::Text, NOT_NULL, |r| Cell::text(&r.issuer)),
    column("PaymentDueDate", Kind::Time, NULL, |r| Cell::or_null(r.facts.due, Cell::Time)),
    column("PaymentTerms", Kind::Text, NOT_NULL, |r| Cell::text(&r.facts.terms)),
    column("ReferenceInvoiceId", Kind::Text, NOT_NULL, |r| {
        Cell::text(r.facts.reference.as_ref().unwrap_or(&r.invoice))
    }),
];

#[rustfmt::skip]
static BILLING_PERIOD: &[Column<BillingPeriodRow>] = &[
    column("BillingPeriodCreated", Kind::Time, NOT_NULL, |r| Cell::Time(r.created)),
    column("BillingPeriodEnd", Kind::Time, NOT_NULL, |r| Cell::Time(r.billing.end())),
    column("BillingPeriodLastUpdated", Kind::Time, NOT_NULL, |r| Cell::Time(r.updated)),
    column("BillingPeriodStart", Kind::Time, NOT_NULL, |r| Cell::Time(r.billing.start())),
    column("BillingPeriodStatus", Kind::OneOf(&["Open", "Closed"]), NOT_NULL, |r| {
        Cell::text(if r.closed { "Closed" } else { "Open" })
    }),
    column("InvoiceIssuerName", Kind::Text, NOT_NULL, |r| Cell::text(&r.issuer)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: Version) -> String {
        cost_and_usage(version).iter().map(|column| column.name).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn both_headers_format_unchanged() {
        assert_eq!(header(Version::V1_4), include_str!("golden/cost_and_usage_1_4.txt").trim_end());
        assert_eq!(header(Version::V1_2), include_str!("golden/cost_and_usage_1_2.txt").trim_end());
    }

    #[test]
    fn columns_of_focus_stand_first_in_order_and_ours_behind() {
        for version in [Version::V1_2, Version::V1_4] {
            let names: Vec<_> = cost_and_usage(version).iter().map(|column| column.name).collect();
            let (own, ours): (Vec<_>, Vec<_>) =
                names.iter().copied().partition(|name| !name.starts_with("x_"));
            assert!(own.is_sorted() && ours.is_sorted());
            assert_eq!(names, [own, ours].concat());
            assert!(names.iter().all(|name| name.len() <= 50));
        }
    }

    #[test]
    fn headers_of_the_invoice_tables_format_unchanged() {
        let names = |names: Vec<&'static str>| names.join(" ");
        assert_eq!(
            names(invoice_detail().iter().map(|column| column.name).collect()),
            "BilledCost BillingAccountId BillingCurrency BillingPeriodEnd BillingPeriodStart \
             ChargeCategory InvoiceDetailCreated InvoiceDetailDescription InvoiceDetailGrain \
             InvoiceDetailId InvoiceDetailLastUpdated InvoiceId InvoiceIssueDate \
             InvoiceIssueStatus InvoiceIssuerName PaymentDueDate PaymentTerms ReferenceInvoiceId"
        );
        assert_eq!(
            names(billing_period().iter().map(|column| column.name).collect()),
            "BillingPeriodCreated BillingPeriodEnd BillingPeriodLastUpdated BillingPeriodStart \
             BillingPeriodStatus InvoiceIssuerName"
        );
    }
}
