//! The FOCUS export of a month: the newest revision of every line, as Cost and Usage, Invoice Detail and Billing Period.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::{PriceBook, PriceBookError};
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::run::month_mark;
use super::units::tier_name;
use crate::bill::{BillLine, ChargeKind, Meter};
use crate::focus::ExportError;
use crate::focus::charges::{Account, Context, Estimates, rows_of_unit};
use crate::focus::columns::Version;
use crate::focus::export::{Exporter, Format, Part, Record};
use crate::focus::invoices::{BillingPeriodRow, InvoiceIndex};
use crate::focus::month::Month;
use crate::focus::providers::seller;
use crate::focus::row::FocusRow;
use crate::ledger::{Revision, UnitId};
use crate::ports::{LedgerStore, ObjectStore, StoreError};

/// Why an export could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailed {
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rows.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The price book.
    #[error(transparent)]
    Prices(#[from] PriceBookError),
    /// What was asked for.
    #[error("`{0}` is no month: give YYYY-MM")]
    Month(String),
}

/// What an export made. As JSON it lies beside the files, as the list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// When it was made.
    pub made_at: Timestamp,
    /// The number of this export: of several of a month, the greatest counts. When it was made, in milliseconds since
    /// 1970, or one more than the export before it where that is greater.
    pub number: u64,
    /// The files, in their order.
    pub parts: Vec<Part>,
    /// Lines left out because nobody has billed them yet.
    pub unbilled: u64,
}

/// The edition and the file formats of an export.
const EDITIONS: [(Version, Format); 4] = [
    (Version::V1_4, Format::Csv),
    (Version::V1_4, Format::Parquet),
    (Version::V1_2, Format::Csv),
    (Version::V1_2, Format::Parquet),
];

/// Exports a month of a workspace: files in `directory`, and write-once in the object store.
pub async fn export(
    workspace: &str,
    month: &str,
    now: Timestamp,
    directory: &Path,
    accounts: &BTreeMap<(String, String), Account>,
    ledger: &dyn LedgerStore,
    objects: &dyn ObjectStore,
) -> Result<Delivery, ExportFailed> {
    let billing = Month::parse(month).ok_or_else(|| ExportFailed::Month(month.to_owned()))?;
    // Books that begin anew begin their counting anew: the clock keeps them from the numbers, and so from the files and
    // the rank at the edge, of what the books before them exported.
    let clock = u64::try_from(now.ms()).unwrap_or(0);
    let number = ledger.next_number(&format!("export#{workspace}#{month}"), clock).await?;
    let units = units_of(workspace, billing, ledger).await?;
    let closed = ledger.mark(&month_mark(workspace, month)).await?.is_some();
    let index = invoices(&units, billing, ledger).await?;
    let context = Context {
        prices: PriceBook::built_in().map_err(|error| error.clone())?,
        invoices: &index,
        accounts,
        estimates: Estimates::LeaveOut,
    };
    let mut rows: Vec<FocusRow> = Vec::new();
    let mut delivery = Delivery { made_at: now, number, parts: Vec::new(), unbilled: 0 };
    for revisions in units.values() {
        let made = rows_of_unit(revisions, billing, &context)?;
        delivery.unbilled += made.unbilled;
        rows.extend(made.rows);
    }
    rows.sort_by_key(|row| (row.billing, row.start));
    let details = index.details(&BTreeMap::new());
    // Several providers may have one issuer.
    let issuers: BTreeMap<&str, &str> = units
        .keys()
        .map(|unit| (seller(&unit.provider, &unit.provider).issuer, unit.provider.as_str()))
        .collect();
    let periods: Vec<BillingPeriodRow> = issuers
        .into_values()
        .map(|provider| BillingPeriodRow::new(billing, provider, closed, now))
        .collect();
    for (version, format) in EDITIONS {
        if format == Format::Parquet && cfg!(not(feature = "parquet")) {
            continue;
        }
        delivery.parts.extend(table(directory, workspace, number, (version, format), &rows)?);
        if version == Version::V1_4 {
            let edition = (version, format);
            delivery.parts.extend(table(directory, workspace, number, edition, &details)?);
            delivery.parts.extend(table(directory, workspace, number, edition, &periods)?);
        }
    }
    for part in &delivery.parts {
        objects.put_file_once(&part.key, &part.path).await?;
    }
    let list = serde_json::to_vec(&delivery)
        .map_err(|e| StoreError::Failed { store: "exports", reason: e.to_string() })?;
    objects.put_once(&list_key(workspace, month, number), list.into()).await?;
    Ok(delivery)
}

/// Where the list of an export lies.
fn list_key(workspace: &str, month: &str, number: u64) -> String {
    format!("export-list/v1/{workspace}/{month}/{number:05}.json")
}

/// What an earlier export made, of its list. `None` where no list has that number, or none that can be read any more.
pub async fn exported(
    workspace: &str,
    month: &str,
    number: u64,
    objects: &dyn ObjectStore,
) -> Result<Option<Delivery>, StoreError> {
    let list = objects.get(&list_key(workspace, month, number)).await?;
    Ok(list.and_then(|list| serde_json::from_slice(&list).ok()))
}

fn table<R: Record>(
    directory: &Path,
    workspace: &str,
    number: u64,
    (version, format): (Version, Format),
    rows: &[R],
) -> Result<Vec<Part>, ExportError> {
    let mut exporter = Exporter::new(directory, workspace, version, format)?.numbered(number);
    for row in rows {
        exporter.push(row)?;
    }
    exporter.finish()
}

/// All revisions that the month's export needs: the newest of its own units, and the whole history of lines of earlier
/// months that were corrected.
async fn units_of(
    workspace: &str,
    billing: Month,
    ledger: &dyn LedgerStore,
) -> Result<BTreeMap<UnitId, Vec<Revision>>, StoreError> {
    let mut found = BTreeMap::new();
    let mut month = billing;
    for back in 0..=MONTHS_BACK {
        for unit in ledger.units(workspace, &month.to_string()).await? {
            let mut revisions = ledger.newest(&unit).await?;
            let corrected: Vec<_> = revisions
                .iter()
                .filter(|row| row.booked_in.is_some())
                .map(|row| row.line.clone())
                .collect();
            if back > 0 && corrected.is_empty() {
                continue;
            }
            for line in corrected {
                revisions.retain(|row| row.line != line);
                revisions.extend(ledger.history(&unit, &line).await?);
            }
            found.insert(unit, revisions);
        }
        month = earlier(month);
    }
    Ok(found)
}

/// Corrections of months longer ago than this are not looked for.
const MONTHS_BACK: u32 = 13;

fn earlier(month: Month) -> Month {
    Month::of(month.start().plus_ms(-1).date())
}

/// What of a unit's bill names an invoice, as the books note it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoiced {
    /// The billed account.
    pub account: String,
    /// The invoice. Empty for what the bill puts on none.
    pub invoice: String,
    /// The kind of charge.
    pub kind: ChargeKind,
    /// The tier: it tells a balance that was paid ahead.
    pub tier: String,
    /// What is on it.
    pub amount: Usd,
    /// Whether it may still change.
    pub provisional: bool,
}

/// The invoices that a unit's charges name, summed by what Invoice Detail tells apart, and what names none. `None` when
/// a sum does not fit.
pub fn invoiced(lines: &[BillLine]) -> Option<Vec<Invoiced>> {
    let mut sums: BTreeMap<(String, String, ChargeKind, String), (Usd, bool)> = BTreeMap::new();
    for line in lines {
        let invoice = line.invoice_id.clone().unwrap_or_default();
        let tier = tier_name(line.tier.as_deref().unwrap_or_default()).to_owned();
        let sum = sums.entry((line.account.clone(), invoice, line.kind, tier)).or_default();
        *sum = (sum.0.checked_add(line.amount)?, sum.1 || line.provisional);
    }
    let of = |((account, invoice, kind, tier), (amount, provisional))| Invoiced {
        account,
        invoice,
        kind,
        tier,
        amount,
        provisional,
    };
    Some(sums.into_iter().map(of).collect::<Vec<_>>())
}

/// The mark that notes a unit's invoices.
pub fn invoice_mark(unit: &UnitId) -> String {
    format!("invoices#{unit}")
}

async fn invoices(
    units: &BTreeMap<UnitId, Vec<Revision>>,
    billing: Month,
    ledger: &dyn LedgerStore,
) -> Result<InvoiceIndex, ExportFailed> {
    let mut index = InvoiceIndex::default();
    for unit in units.keys() {
        let Some(day) = Date::parse(&unit.day).filter(|day| Month::of(*day) == billing) else {
            continue;
        };
        let Some(text) = ledger.mark(&invoice_mark(unit)).await? else { continue };
        let noted: Vec<Invoiced> = serde_json::from_str(&text).map_err(|e| {
            StoreError::Damaged { store: "ledger", key: invoice_mark(unit), reason: e.to_string() }
        })?;
        for charge in noted {
            let line = BillLine {
                provider: unit.provider.clone(),
                account: charge.account,
                project: None,
                start: day.midnight(),
                end: day.midnight().plus_ms(DAY_MS),
                kind: charge.kind,
                service: String::new(),
                description: String::new(),
                model: None,
                meter: Meter::Whole,
                tier: Some(charge.tier),
                quantity: None,
                unit: None,
                amount: charge.amount,
                list_amount: None,
                invoice_id: Some(charge.invoice),
                credential: None,
                provisional: charge.provisional,
                tags: BTreeMap::new(),
            };
            index.add(&line, billing)?;
        }
    }
    Ok(index)
}
