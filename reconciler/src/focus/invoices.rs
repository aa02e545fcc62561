//! Invoices: which one a charge stands on, and the rows of Invoice Detail and Billing Period.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::ExportError;
use super::month::Month;
use super::providers::seller;
use super::row::{Category, category_of};
use crate::bill::BillLine;

/// An invoice: issuer, account and the issuer's number. Providers of one issuer (a cloud and its models) are on the same
/// invoices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvoiceKey {
    /// Who sent it.
    pub issuer: String,
    /// The billed account.
    pub account: String,
    /// The number.
    pub invoice: String,
}

/// What is known of an invoice beside its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceFacts {
    /// When it was first seen, in the bill's own time: not the clock of the run, or the same bill gives other bytes.
    pub created: Timestamp,
    /// When its lines last changed.
    pub updated: Timestamp,
    /// True while the provider may still change it.
    pub open: bool,
    /// When it was issued, where known.
    pub issued: Option<Timestamp>,
    /// When it is due.
    pub due: Option<Timestamp>,
    /// The terms of payment in words.
    pub terms: String,
    /// The invoice it corrects. `None`: itself.
    pub reference: Option<String>,
}

impl InvoiceFacts {
    /// What can be said of an invoice whose header nobody delivered: it belongs to the month's end.
    pub fn of_month(month: Month) -> Self {
        Self {
            created: month.end(),
            updated: month.end(),
            open: false,
            issued: None,
            due: None,
            terms: "As agreed with the issuer".to_owned(),
            reference: None,
        }
    }
}

/// The invoices of a set of bill lines, and what each category of each adds up to.
#[derive(Clone, Debug, Default)]
pub struct InvoiceIndex {
    // An invoice may reach over two months: each has its part of it.
    amounts: BTreeMap<(InvoiceKey, Month), BTreeMap<Category, Usd>>,
    by_month: BTreeMap<(String, String, Month), BTreeSet<String>>,
    open: BTreeSet<InvoiceKey>,
    // What lies on no invoice yet, or on one that the bill does not name: issuer, account, month, category.
    loose: BTreeSet<(String, String, Month, Category)>,
}

/// The invoice of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number.
    pub invoice: String,
    /// Its row of Invoice Detail.
    pub detail: String,
}

impl InvoiceIndex {
    /// Adds a line that is billed in `month`. One that names no invoice has none of its account's month and category
    /// found: it could be any charge.
    pub fn add(&mut self, line: &BillLine, month: Month) -> Result<(), ExportError> {
        let category = category_of(line.kind, line.tier.as_deref().unwrap_or_default());
        let (issuer, account) = (issuer(&line.provider), line.account.clone());
        let Some(invoice) = line.invoice_id.as_ref().filter(|id| !id.is_empty()) else {
            if line.amount != Usd::ZERO {
                self.loose.insert((issuer, account, month, category));
            }
            return Ok(());
        };
        self.by_month
            .entry((issuer.clone(), account.clone(), month))
            .or_default()
            .insert(invoice.clone());
        let key = InvoiceKey { issuer, account, invoice: invoice.clone() };
        let of_invoice = self.amounts.entry((key.clone(), month)).or_default();
        let sum = of_invoice.entry(category).or_default();
        *sum = sum.checked_add(line.amount).ok_or(ExportError::Overflow { what: "an invoice" })?;
        if line.provisional {
            self.open.insert(key);
        }
        Ok(())
    }

    /// The invoice of a charge: the one of the account's month that all of the category is on. `None` where none is
    /// known, or a charge of the category could be on another, or on none.
    pub fn find(
        &self,
        provider: &str,
        account: &str,
        month: Month,
        category: Category,
    ) -> Option<Found> {
        let of_month = (issuer(provider), account.to_owned(), month);
        let invoices = self.by_month.get(&of_month)?;
        let (issuer, account, _) = &of_month;
        let has = |invoice: &&String| {
            let key = InvoiceKey {
                issuer: issuer.clone(),
                account: account.clone(),
                invoice: (*invoice).clone(),
            };
            self.amounts.get(&(key, month)).is_some_and(|sums| sums.contains_key(&category))
        };
        if self.loose.contains(&(issuer.clone(), account.clone(), month, category)) {
            return None;
        }
        let mut having = invoices.iter().filter(has);
        let invoice = having.next().filter(|_| having.next().is_none())?;
        let detail = detail_id(invoice, month, category);
        Some(Found { invoice: invoice.clone(), detail })
    }

    /// The invoices, and whether the provider may still change one.
    pub fn invoices(&self) -> impl Iterator<Item = (&InvoiceKey, bool)> {
        self.amounts.keys().map(|(key, _)| (key, self.open.contains(key)))
    }

    /// The rows of Invoice Detail, by month: one for each category of an invoice. Invoices without facts get
    /// [`InvoiceFacts::of_month`]; one with provisional lines is open.
    pub fn details(&self, facts: &BTreeMap<InvoiceKey, InvoiceFacts>) -> Vec<InvoiceDetailRow> {
        let mut rows = Vec::new();
        for ((key, month), sums) in &self.amounts {
            let mut known =
                facts.get(key).cloned().unwrap_or_else(|| InvoiceFacts::of_month(*month));
            known.open |= self.open.contains(key);
            rows.extend(sums.iter().map(|(category, billed)| InvoiceDetailRow {
                billing: *month,
                account: key.account.clone(),
                issuer: key.issuer.clone(),
                invoice: key.invoice.clone(),
                detail: detail_id(&key.invoice, *month, *category),
                category: *category,
                billed: *billed,
                facts: known.clone(),
            }));
        }
        rows.sort_by_key(|row| row.billing);
        rows
    }
}

fn issuer(provider: &str) -> String {
    seller(provider, provider).issuer.to_owned()
}

fn detail_id(invoice: &str, month: Month, category: Category) -> String {
    format!("{invoice}:{month}:{}", category.as_str())
}

/// One row of Invoice Detail: what one category of an invoice adds up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceDetailRow {
    /// The month it is billed in.
    pub billing: Month,
    /// The billed account.
    pub account: String,
    /// Who sent it.
    pub issuer: String,
    /// The invoice.
    pub invoice: String,
    /// The row's own name: rows of Cost and Usage point here.
    pub detail: String,
    /// The category.
    pub category: Category,
    /// What it adds up to.
    pub billed: Usd,
    /// The invoice's header.
    pub facts: InvoiceFacts,
}

/// One row of Billing Period: a month of an issuer, open or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillingPeriodRow {
    /// The month.
    pub billing: Month,
    /// Who bills.
    pub issuer: String,
    /// Closed months change by corrections in a later month only.
    pub closed: bool,
    /// Its first moment in this export.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl BillingPeriodRow {
    /// The month of a provider, as the ledger names it. `updated`: the newest pull in it, or its closing.
    pub fn new(month: Month, provider: &str, closed: bool, updated: Timestamp) -> Self {
        let issuer = seller(provider, provider).issuer.to_owned();
        Self { billing: month, issuer, closed, created: month.start(), updated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::{ChargeKind, Meter};

    fn month(text: &str) -> Month {
        Month::parse(text).unwrap()
    }

    fn line(invoice: &str, kind: ChargeKind, amount: &str) -> BillLine {
        let month = month("2026-11");
        BillLine {
            provider: "openai".into(),
            account: "org-1".into(),
            project: None,
            start: month.start(),
            end: month.end(),
            kind,
            service: "OpenAI API".into(),
            description: String::new(),
            model: None,
            meter: Meter::Whole,
            tier: None,
            quantity: None,
            unit: None,
            amount: amount.parse().unwrap(),
            list_amount: None,
            invoice_id: Some(invoice.into()),
            credential: None,
            provisional: false,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn details_of_an_invoice_add_up_to_its_lines() {
        let mut index = InvoiceIndex::default();
        for (kind, amount) in [
            (ChargeKind::Usage, "1.10"),
            (ChargeKind::Usage, "2.000000000001"),
            (ChargeKind::Tax, "0.59"),
        ] {
            index.add(&line("INV-1", kind, amount), month("2026-11")).unwrap();
        }
        let rows = index.details(&BTreeMap::new());
        let seen: Vec<_> =
            rows.iter().map(|row| (row.detail.as_str(), row.billed.to_string())).collect();
        assert_eq!(
            seen,
            [
                ("INV-1:2026-11:Usage", "3.100000000001".to_owned()),
                ("INV-1:2026-11:Tax", "0.59".to_owned())
            ]
        );
    }

    #[test]
    fn a_charge_finds_its_invoice_only_where_there_is_no_doubt() {
        let mut index = InvoiceIndex::default();
        let november = month("2026-11");
        index.add(&line("INV-1", ChargeKind::Usage, "1"), november).unwrap();
        let find = |index: &InvoiceIndex, category| {
            index
                .find("openai", "org-1", november, category)
                .map(|found| (found.invoice, found.detail))
        };
        assert_eq!(
            find(&index, Category::Usage),
            Some(("INV-1".into(), "INV-1:2026-11:Usage".into()))
        );
        assert_eq!(find(&index, Category::Adjustment), None, "the invoice has none");
        index.add(&line("INV-2", ChargeKind::Purchase, "1"), november).unwrap();
        index.add(&line("", ChargeKind::Purchase, "0"), november).unwrap();
        assert_eq!(find(&index, Category::Purchase).unwrap().0, "INV-2");
        index.add(&line("", ChargeKind::Purchase, "9"), november).unwrap();
        assert_eq!(find(&index, Category::Purchase), None, "some of it is on no invoice");
        index.add(&line("INV-2", ChargeKind::Usage, "1"), november).unwrap();
        assert_eq!(find(&index, Category::Usage), None);
        assert_eq!(index.find("openai", "org-1", month("2026-12"), Category::Usage), None);
    }

    #[test]
    fn an_invoice_over_two_months_has_its_part_in_each() {
        let mut index = InvoiceIndex::default();
        index.add(&line("INV-1", ChargeKind::Usage, "1"), month("2026-11")).unwrap();
        index.add(&line("INV-1", ChargeKind::Usage, "2"), month("2026-12")).unwrap();
        let rows = index.details(&BTreeMap::new());
        let seen: Vec<_> = rows.iter().map(|r| (r.detail.as_str(), r.billed.to_string())).collect();
        assert_eq!(
            seen,
            [("INV-1:2026-11:Usage", "1".to_owned()), ("INV-1:2026-12:Usage", "2".to_owned())]
        );
    }

    #[test]
    fn an_invoice_with_provisional_lines_is_open() {
        let mut index = InvoiceIndex::default();
        let provisional = BillLine { provisional: true, ..line("INV-1", ChargeKind::Usage, "1") };
        index.add(&provisional, month("2026-11")).unwrap();
        assert!(index.details(&BTreeMap::new())[0].facts.open);
    }
}
