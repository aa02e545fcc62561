//! What only several rows together say. It remembers a few words of each charge, never the rows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sha2::{Digest, Sha256};
use tallygate_shared::money::Usd;

use super::charge::ratio;
use super::field::decimal;
use super::{Fields, Found, Rule};
use crate::bill::Quantity;
use crate::focus::cell;
use crate::focus::invoices::InvoiceDetailRow;

/// Issuer, invoice, start of the billing period, category: what one row of Invoice Detail is about.
type DetailKey = (String, String, String, String);

#[derive(Debug)]
pub(super) struct Across {
    details: Option<BTreeMap<DetailKey, (Usd, String)>>,
    billed: BTreeMap<DetailKey, i128>,
    // Issuer, month and category of charges that name no invoice.
    loose: BTreeSet<(String, String, String)>,
    services: HashMap<String, String>,
    sku_of_price: HashMap<String, String>,
    // 128 bits of each charge's hash: a million rows are 40 MB, and a false alarm is not to be expected.
    charges: HashSet<[u8; 16]>,
    // Reversals and restatements of a charge in a month, and where it was seen first.
    steps: BTreeMap<(String, String), (bool, bool, u64)>,
    ratios: BTreeMap<(String, String, String), (i128, u64)>,
}

impl Across {
    pub(super) fn new(details: Option<&[InvoiceDetailRow]>) -> Self {
        let named = |row: &InvoiceDetailRow| {
            let month = cell::date_time(row.billing.start());
            let category = row.category.as_str().to_owned();
            let key = (row.issuer.clone(), row.invoice.clone(), month, category);
            (key, (row.billed, row.detail.clone()))
        };
        Self {
            details: details.map(|rows| rows.iter().map(named).collect()),
            billed: BTreeMap::new(),
            loose: BTreeSet::new(),
            services: HashMap::new(),
            sku_of_price: HashMap::new(),
            charges: HashSet::new(),
            steps: BTreeMap::new(),
            ratios: BTreeMap::new(),
        }
    }

    /// Takes in a row, and says what it contradicts.
    pub(super) fn add(&mut self, place: u64, row: &Fields<'_>) -> Vec<Found> {
        let mut found = Vec::new();
        let text = |name| row.get(name).unwrap_or_default().to_owned();
        let month = text("BillingPeriodStart");
        let step = text("x_CorrectionStep");
        let charge = text("x_ChargeId");
        if !self.charges.insert(digest(&[&charge, &month, &step])) {
            let what = format!("`{charge}` stands in the month twice");
            found.push(("x_ChargeId", Rule::Unique, what));
        }
        let category = text("ServiceCategory");
        let known = self.services.entry(text("ServiceName")).or_insert_with(|| category.clone());
        if *known != category {
            let what = format!("the service is in `{known}` elsewhere");
            found.push(("ServiceCategory", Rule::Service, what));
        }
        if let (Some(price), Some(sku)) = (row.get("SkuPriceId"), row.get("SkuId")) {
            let known = self.sku_of_price.entry(price.to_owned()).or_insert_with(|| sku.to_owned());
            if known != sku {
                let what = format!("the price belongs to `{known}` elsewhere");
                found.push(("SkuId", Rule::Sku, what));
            }
        }
        if !step.is_empty() {
            let seen = self.steps.entry((charge, month.clone())).or_insert((false, false, place));
            seen.0 |= step == "Reversal";
            seen.1 |= step == "Restatement";
        }
        if let (Some(origin), Some(ratio)) = (row.get("x_OriginChargeId"), ratio(row)) {
            let of_origin = (origin.to_owned(), month, step);
            self.ratios.entry(of_origin).or_insert((0, place)).0 += ratio;
        }
        found.extend(self.invoice(row));
        found
    }

    fn invoice(&mut self, row: &Fields<'_>) -> Option<Found> {
        let details = self.details.as_ref()?;
        let billed = row.get("BilledCost").and_then(decimal)?;
        let text = |name| row.get(name).unwrap_or_default().to_owned();
        let Some(invoice) = row.get("InvoiceId") else {
            if billed != 0 {
                let (month, category) = (text("BillingPeriodStart"), text("ChargeCategory"));
                self.loose.insert((text("InvoiceIssuerName"), month, category));
            }
            return None;
        };
        let key = (
            text("InvoiceIssuerName"),
            invoice.to_owned(),
            text("BillingPeriodStart"),
            text("ChargeCategory"),
        );
        let Some((_, id)) = details.get(&key) else {
            let what = format!("invoice `{invoice}` has no {} in Invoice Detail", key.3);
            return (billed != 0).then_some(("InvoiceId", Rule::InvoiceSum, what));
        };
        // FOCUS 1.2 has no such column.
        if row.get("InvoiceDetailId").is_some_and(|named| named != id) {
            let what = format!("is not `{id}`, the row of its invoice and category");
            return Some(("InvoiceDetailId", Rule::InvoiceSum, what));
        }
        let sum = self.billed.entry(key).or_default();
        *sum = sum.saturating_add(billed);
        None
    }

    /// What is wrong once all rows are in: row, column, rule, what.
    pub(super) fn finish(self) -> Vec<(u64, &'static str, Rule, String)> {
        let mut found = Vec::new();
        for ((origin, ..), (sum, place)) in self.ratios {
            if sum != Quantity::ONE {
                let what = format!("ratios of `{origin}` sum to {}", cell::decimal(sum));
                found.push((place, "AllocatedMethodDetails", Rule::RatioSum, what));
            }
        }
        for ((charge, month), (reversed, restated, place)) in self.steps {
            if reversed && !restated {
                let what = format!("`{charge}` is reversed in {month} and not restated");
                found.push((place, "x_CorrectionStep", Rule::Correction, what));
            }
        }
        for (key, (amount, id)) in self.details.unwrap_or_default() {
            let sum = self.billed.get(&key).copied();
            // It may be among the charges that could be on one invoice or another.
            let of_loose = (key.0.clone(), key.2.clone(), key.3.clone());
            if sum.is_none() && self.loose.contains(&of_loose) {
                continue;
            }
            let sum = sum.unwrap_or_default();
            if sum != amount.pico() {
                let (sum, there) = (cell::decimal(sum), cell::decimal(amount.pico()));
                let what = format!("charges of `{id}` of {} sum to {sum}, not {there}", key.0);
                found.push((0, "BilledCost", Rule::InvoiceSum, what));
            }
        }
        found
    }
}

pub(super) fn digest(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let whole: [u8; 32] = hash.finalize().into();
    let mut short = [0; 16];
    short.iter_mut().zip(whole).for_each(|(to, byte)| *to = byte);
    short
}
