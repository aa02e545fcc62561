//! One invoice: its lines, its tax, and the credits drawn for it.

use std::collections::BTreeMap;

use serde::Deserialize;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::{NAME, on};
use crate::bill::{Bill, BillLine, ChargeKind, Meter};
use crate::connectors::read::{Amount, Reader, Utc, next_day};
use crate::connectors::{Days, PullError};

/// Picodollars in a cent.
const PICO_PER_CENT: i128 = 10_000_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invoice {
    id: String,
    status_name: Status,
    start_date: Utc,
    end_date: Utc,
    amount_billed_cents: i64,
    credits_cents: i64,
    sales_tax_cents: i64,
    line_items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Pending,
    Closed,
    Forgiven,
    Failed,
    Paid,
    Free,
    Prepaid,
    Invoiced,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    total_price_cents: i64,
    sku: String,
    start_date: Utc,
    end_date: Utc,
    quantity: Option<Amount>,
    unit: Option<String>,
    group_id: Option<String>,
    group_name: Option<String>,
    cluster_name: Option<String>,
    note: Option<String>,
    discount_cents: Option<i64>,
    tags: Option<BTreeMap<String, Vec<String>>>,
}

/// Reads one invoice, for the days.
pub(super) fn read(
    reader: &Reader<'_>,
    days: Days,
    (account, id): (&str, &str),
    body: &[u8],
    bill: &mut Bill,
) -> Result<(), PullError> {
    let invoice: Invoice = reader.json(body)?;
    if invoice.id != id {
        return Err(reader.wrong("id", "is another invoice than was asked for"));
    }
    if invoice.start_date >= invoice.end_date {
        return Err(reader.wrong("endDate", "is not after `startDate`"));
    }
    let provisional = invoice.status_name == Status::Pending;
    let base = |period: (Timestamp, Timestamp), kind, amount| BillLine {
        provider: NAME.into(),
        account: account.into(),
        project: None,
        start: period.0,
        end: period.1,
        kind,
        service: "MongoDB Atlas".into(),
        description: String::new(),
        model: None,
        meter: Meter::Whole,
        tier: None,
        quantity: None,
        unit: None,
        amount,
        list_amount: None,
        // Until it is closed it is a draft.
        invoice_id: (!provisional).then(|| id.to_owned()),
        credential: None,
        provisional,
        tags: BTreeMap::new(),
    };
    let extra = settle(&invoice, bill);
    let last = invoice.end_date.0.plus_ms(-1).date();
    for (index, item) in invoice.line_items.into_iter().enumerate() {
        let at = format!("lineItems[{index}]");
        let mut period = (item.start_date.0, item.end_date.0);
        if period.0 > period.1 {
            return Err(reader.wrong(&format!("{at}.endDate"), "is before `startDate`"));
        }
        if period.0 == period.1 {
            // What is charged at a moment is charged on its day.
            period.1 = next_day(period.0.date()).midnight();
        }
        let stated = period;
        let ends = period.1.plus_ms(-1).date();
        if ends > period.0.date() {
            let day = ends.min(last);
            period = (day.midnight(), next_day(day).midnight());
        }
        if item.quantity.is_some() && item.unit.is_none() {
            return Err(reader.wrong(&format!("{at}.unit"), "is missing, and `quantity` is there"));
        }
        if on(days, period.0) {
            let base = base(period, kind(&item), cents(item.total_price_cents));
            bill.lines.push(line(base, item, stated));
        }
    }
    // What belongs to the invoice as a whole is booked on its last day.
    let period = (last.midnight(), next_day(last).midnight());
    if on(days, period.0) {
        for (kind, description, amount) in extra {
            let line = base(period, kind, cents(amount));
            bill.lines.push(BillLine { description: description.into(), ..line });
        }
    }
    Ok(())
}

/// What an invoice charges beside its lines. Tax is stated. Credits are a line of their own only where the stated
/// amounts prove it: some invoices have them among their lines already. Where they prove nothing a note says so.
fn settle(invoice: &Invoice, bill: &mut Bill) -> Vec<(ChargeKind, &'static str, i64)> {
    let wide = |cents: i64| i128::from(cents);
    let lines: i128 = invoice.line_items.iter().map(|item| wide(item.total_price_cents)).sum();
    let (tax, credits) = (invoice.sales_tax_cents, invoice.credits_cents);
    let billed = wide(invoice.amount_billed_cents);
    let before_credits = lines.saturating_add(wide(tax));
    let mut extra = vec![(ChargeKind::Tax, "Sales tax", tax)];
    if billed == before_credits || invoice.status_name == Status::Pending {
        // Nothing is to be explained.
    } else if billed == before_credits.saturating_sub(wide(credits)) {
        extra.push((ChargeKind::Credit, "Credits", credits.saturating_neg()));
    } else {
        bill.notes.push(format!(
            "{NAME}: invoice {} bills {billed} cents, and its lines are {lines}, its tax {tax}, its credits {credits} \
             cents: the lines and the tax are booked",
            invoice.id
        ));
    }
    extra.retain(|(_, _, cents)| *cents != 0);
    extra
}

fn cents(cents: i64) -> Usd {
    // 2^63 cents are 10^29 picodollars, far from the end of 128 bits.
    Usd::from_pico(i128::from(cents) * PICO_PER_CENT)
}

fn kind(item: &Item) -> ChargeKind {
    match (item.sku.as_str(), item.total_price_cents < 0) {
        ("CREDIT", _) => ChargeKind::Credit,
        (_, true) => ChargeKind::Adjustment,
        (_, false) => ChargeKind::Usage,
    }
}

fn line(base: BillLine, item: Item, stated: (Timestamp, Timestamp)) -> BillLine {
    let tags = item.tags.unwrap_or_default();
    let mut tags: BTreeMap<_, _> =
        tags.into_iter().map(|(name, values)| (name, values.join(","))).collect();
    let description = match &item.cluster_name {
        Some(cluster) => format!("{} {cluster}", item.sku),
        None => item.sku.clone(),
    };
    let discount = item.discount_cents.filter(|cents| *cents != 0);
    let long = (stated != (base.start, base.end)).then(|| format!("{}..{}", stated.0, stated.1));
    // The organization's own tags keep their names.
    for (name, value) in [
        ("atlas:sku", Some(item.sku)),
        ("atlas:cluster", item.cluster_name),
        ("atlas:project_name", item.group_name),
        ("atlas:note", item.note),
        ("atlas:period", long),
        ("atlas:discount_cents", discount.map(|cents| cents.to_string())),
    ] {
        tags.extend(value.map(|value| (name.to_owned(), value)));
    }
    BillLine {
        project: item.group_id,
        description,
        unit: item.unit.filter(|_| item.quantity.is_some()),
        quantity: item.quantity.map(|quantity| quantity.0),
        tags,
        ..base
    }
}
