//! What the columns of one charge say of each other.

use tallygate_shared::money::parse_decimal;

use super::field::{decimal, moment, object};
use super::{Fields, Found, Rule};
use crate::focus::columns::SERVICE_SUBCATEGORIES;
use crate::focus::month::Month;

/// Checks one row whose values can all be read.
pub(super) fn check(row: &Fields<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    periods(row, &mut found);
    identities(row, &mut found);
    costs(row, &mut found);
    pairs(row, &mut found);
    skus(row, &mut found);
    classes(row, &mut found);
    allocation(row, &mut found);
    found
}

fn fails(found: &mut Vec<Found>, broken: bool, column: &'static str, rule: Rule, what: &str) {
    if broken {
        found.push((column, rule, what.to_owned()));
    }
}

fn number(row: &Fields<'_>, name: &str) -> Option<i128> {
    row.get(name).and_then(decimal)
}

fn periods(row: &Fields<'_>, found: &mut Vec<Found>) {
    let at = |name| row.get(name).and_then(moment);
    let (Some(start), Some(end)) = (at("BillingPeriodStart"), at("BillingPeriodEnd")) else {
        return;
    };
    let month = Month::of(start.date());
    let column = "BillingPeriodEnd";
    let whole = month.start() == start && month.end() == end;
    fails(found, !whole, column, Rule::Period, "the billing period is no calendar month");
    let (Some(from), Some(to)) = (at("ChargePeriodStart"), at("ChargePeriodEnd")) else { return };
    let column = "ChargePeriodStart";
    fails(found, from >= to, column, Rule::Period, "the charge ends before it begins");
    if row.get("ChargeClass").is_some() {
        fails(found, from >= start, column, Rule::Period, "a correction is of an earlier month");
    } else {
        let outside = from < start || to > end;
        fails(found, outside, column, Rule::Period, "the charge lies outside its billing period");
    }
}

/// A cost is its price times its quantity, to the last digit.
fn identities(row: &Fields<'_>, found: &mut Vec<Found>) {
    for (cost, price) in [("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")]
    {
        let all = (row.get(cost), row.get(price), row.get("PricingQuantity"));
        if let (Some(total), Some(unit_price), Some(quantity)) = all
            && product(unit_price, quantity) != exact(total)
        {
            let what = format!("`{total}` is not {unit_price} x {quantity}");
            found.push((cost, Rule::Identity, what));
        }
    }
}

/// A decimal number as its digits and its places, without zeros at the end: exact, and it multiplies.
fn exact(text: &str) -> Option<(i128, u32)> {
    let text = if text.contains('.') { text.trim_end_matches('0') } else { text };
    let text = text.strip_suffix('.').unwrap_or(text);
    let places = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let digits = parse_decimal(text, places).ok()?;
    shortened(digits, u32::try_from(places).ok()?)
}

fn shortened(mut digits: i128, mut places: u32) -> Option<(i128, u32)> {
    while places > 0 && digits % 10 == 0 {
        (digits, places) = (digits / 10, places - 1);
    }
    Some((digits, places))
}

fn product(left: &str, right: &str) -> Option<(i128, u32)> {
    let ((left, of_left), (right, of_right)) = (exact(left)?, exact(right)?);
    shortened(left.checked_mul(right)?, of_left + of_right)
}

fn costs(row: &Fields<'_>, found: &mut Vec<Found>) {
    let category = row.get("ChargeCategory").unwrap_or_default();
    let (billed, effective) = (number(row, "BilledCost"), number(row, "EffectiveCost"));
    let same = matches!(category, "Tax" | "Credit");
    let column = "EffectiveCost";
    let what = "taxes and credits cost what is billed";
    fails(found, same && billed != effective, column, Rule::Costs, what);
    let balance = category == "Purchase" && row.get("CommitmentDiscountId").is_some();
    let what = "what is bought ahead costs when it is used";
    fails(found, balance && effective != Some(0), column, Rule::Costs, what);
    let drawn = row.get("CommitmentDiscountStatus") == Some("Used");
    let column = "BilledCost";
    let what = "use of a prepaid balance is not billed again";
    fails(found, drawn && billed != Some(0), column, Rule::Costs, what);
    let estimated = row.get("x_CostBasis") == Some("Estimated");
    let on_bill = billed != Some(0) || row.get("InvoiceId").is_some();
    fails(found, estimated && on_bill, column, Rule::Costs, "an estimate is on no bill");
    let column = "PricingCurrencyEffectiveCost";
    let other = number(row, column) != effective;
    fails(found, other, column, Rule::Costs, "differs from EffectiveCost in the same currency");
    for (column, plain) in [
        ("PricingCurrencyListUnitPrice", "ListUnitPrice"),
        ("PricingCurrencyContractedUnitPrice", "ContractedUnitPrice"),
    ] {
        let other = number(row, column) != number(row, plain);
        fails(found, other, column, Rule::Costs, "differs from the price in the same currency");
    }
}

fn pairs(row: &Fields<'_>, found: &mut Vec<Found>) {
    const PAIRS: [(&str, &str); 8] = [
        ("PricingQuantity", "PricingUnit"),
        ("ConsumedQuantity", "ConsumedUnit"),
        ("CommitmentDiscountQuantity", "CommitmentDiscountUnit"),
        ("CommitmentDiscountId", "CommitmentDiscountCategory"),
        ("CommitmentDiscountId", "CommitmentDiscountType"),
        ("RegionId", "RegionName"),
        ("ResourceId", "ResourceType"),
        ("SkuId", "SkuPriceId"),
    ];
    for (one, other) in PAIRS {
        let broken = row.get(one).is_some() != row.get(other).is_some();
        fails(
            found,
            broken,
            one,
            Rule::Pair,
            &format!("and {other} are null together, or neither"),
        );
    }
}

fn skus(row: &Fields<'_>, found: &mut Vec<Found>) {
    let category = row.get("ChargeCategory").unwrap_or_default();
    let has_sku = row.get("SkuPriceId").is_some();
    let needs_sku = matches!(category, "Usage" | "Purchase");
    let column = "SkuPriceId";
    fails(found, needs_sku && !has_sku, column, Rule::Sku, "use and purchases have a price");
    fails(found, !needs_sku && has_sku, column, Rule::Sku, "only use and purchases have a price");
    for column in
        ["ListUnitPrice", "ContractedUnitPrice", "PricingQuantity", "PricingCategory", "SkuMeter"]
    {
        let broken = row.get(column).is_some() != has_sku;
        fails(found, broken, column, Rule::Sku, "is null exactly where SkuPriceId is");
    }
    let consumed = row.get("ConsumedQuantity").is_some();
    let column = "ConsumedQuantity";
    let what = "is set exactly on use";
    fails(found, consumed != (category == "Usage"), column, Rule::Sku, what);
}

fn classes(row: &Fields<'_>, found: &mut Vec<Found>) {
    let category = row.get("ChargeCategory").unwrap_or_default();
    let metered = row.get("ChargeFrequency") == Some("Usage-Based");
    let column = "ChargeFrequency";
    let what = "is Usage-Based exactly on use";
    fails(found, metered != (category == "Usage"), column, Rule::Frequency, what);
    let step = row.get("x_CorrectionStep").is_some();
    let column = "ChargeClass";
    let what = "is Correction exactly where x_CorrectionStep is set";
    fails(found, row.get(column).is_some() != step, column, Rule::Correction, what);
    let service = (
        row.get("ServiceSubcategory").unwrap_or_default(),
        row.get("ServiceCategory").unwrap_or_default(),
    );
    let unknown = !SERVICE_SUBCATEGORIES.contains(&service);
    let what = "is no child of ServiceCategory that this export knows";
    fails(found, unknown, "ServiceSubcategory", Rule::Service, what);
}

fn allocation(row: &Fields<'_>, found: &mut Vec<Found>) {
    // FOCUS 1.2 has none of the columns: then nothing is set, and nothing is asked.
    let split = row.get("AllocatedMethodId").is_some();
    for column in ["AllocatedMethodDetails", "AllocatedResourceId", "AllocatedResourceName"] {
        let broken = row.get(column).is_some() != split;
        fails(found, broken, column, Rule::Allocation, "is set exactly where a method is");
    }
    let tags = |name| row.get(name).and_then(object).unwrap_or_default();
    let (allocated, own) = (tags("AllocatedTags"), tags("Tags"));
    let lost = split && own.iter().any(|(key, value)| allocated.get(key) != Some(value));
    fails(found, lost, "AllocatedTags", Rule::Allocation, "lacks one of Tags");
    let invalid = split && ratio(row).is_none();
    let column = "AllocatedMethodDetails";
    fails(found, invalid, column, Rule::Allocation, "has no AllocatedRatio from 0 to 1");
}

/// The allocated ratio, in units of 1e-12. From the text itself: a JSON parser would make a float of it.
pub(super) fn ratio(row: &Fields<'_>) -> Option<i128> {
    let details = row.get("AllocatedMethodDetails")?;
    let (_, rest) = details.split_once(r#""AllocatedRatio":"#)?;
    let end = rest.find([',', '}'])?;
    decimal(rest.get(..end)?.trim()).filter(|ratio| (0..=1_000_000_000_000).contains(ratio))
}
