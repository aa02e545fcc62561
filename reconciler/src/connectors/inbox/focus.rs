//! A FOCUS row, versions 1.0 to 1.4: the columns that all of them have, and the newer ones where they are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::mapped::{rfc3339, unit_fits};
use super::mapping::{FileRule, FocusCost, FocusFormat, unit_parts};
use super::table::{BadCell, Cut, Header, Numbers, Row, Rows, bare, read_rows, shown};
use crate::bill::{BillLine, ChargeKind, Meter, Quantity};

/// Mandatory in every version, and needed here.
const NEEDED: [&str; 6] = [
    "BilledCost",
    "BillingCurrency",
    "ChargeCategory",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ServiceName",
];
/// Names of the model, without case and `_`, best first. FOCUS 1.4 asks for the `x_`, later drafts drop it.
const MODEL_KEYS: [&str; 6] = ["xmodelid", "modelid", "xmodel", "model", "xmodelname", "modelname"];
const CREDENTIAL_KEYS: [&str; 4] = ["xapikeyid", "xcredentialid", "xkeyid", "apikeyid"];
const TIER_KEYS: [&str; 3] = ["xservicetier", "servicetier", "xtier"];

/// Reads a whole file.
pub(super) fn read(rule: &FileRule, format: &FocusFormat, body: &[u8]) -> Rows {
    let mut numbers = Numbers::new(rule.finer, false, None);
    let check = |header: &Header| check(rule, format, header);
    let line = |row: Row<'_>| line(rule, format, &mut numbers, row);
    let mut rows = if body.starts_with(b"PAR1") {
        parquet_rows(body, check, line)
    } else {
        read_rows(body, Cut { delimiter: b',', skip_lines: 0 }, check, line)
    };
    rows.rounded = numbers.rounded;
    rows
}

#[cfg(feature = "parquet")]
use super::parquet::read_rows as parquet_rows;

#[cfg(not(feature = "parquet"))]
fn parquet_rows(
    _: &[u8],
    _: impl FnOnce(&Header) -> Result<(), BadCell>,
    _: impl FnMut(Row<'_>) -> Result<Option<BillLine>, BadCell>,
) -> Rows {
    let reason = "is Parquet, and this build has no feature `parquet`: drop it as CSV";
    super::table::whole_file(BadCell::new("file", reason))
}

fn check(rule: &FileRule, format: &FocusFormat, header: &Header) -> Result<(), BadCell> {
    let account = rule.account.is_none().then_some("BillingAccountId");
    let cost = (format.cost == FocusCost::Effective).then_some("EffectiveCost");
    let more = account.into_iter().chain(cost).chain(format.model_column.as_deref());
    header.need(NEEDED.into_iter().chain(more))?;
    if !format.providers.is_empty() {
        header.need([seller_column(header)])?;
    }
    Ok(())
}

/// 1.3 renamed `ProviderName` and 1.4 dropped it.
fn seller_column(header: &Header) -> &'static str {
    if header.has("ServiceProviderName") { "ServiceProviderName" } else { "ProviderName" }
}

fn line(
    rule: &FileRule,
    format: &FocusFormat,
    numbers: &mut Numbers,
    row: Row<'_>,
) -> Result<Option<BillLine>, BadCell> {
    let currency = row.need("BillingCurrency")?;
    if !currency.eq_ignore_ascii_case("USD") {
        let reason = format!("is {}: only USD is booked, convert it", shown(currency));
        return Err(BadCell::new("BillingCurrency", reason));
    }
    let cost = match format.cost {
        FocusCost::Billed => "BilledCost",
        FocusCost::Effective => "EffectiveCost",
    };
    let amount = numbers.usd(cost, row.need(cost)?, 0)?;
    let list = value(row, "ListCost").map(|text| numbers.usd("ListCost", text, 0)).transpose()?;
    let at = |column: &str| {
        let moment = rfc3339(row.need(column)?);
        moment.ok_or_else(|| BadCell::new(column, "is not a time such as 2026-11-20T00:00:00Z"))
    };
    let (start, end) = (at("ChargePeriodStart")?, at("ChargePeriodEnd")?);
    if start >= end {
        return Err(BadCell::new("ChargePeriodEnd", "is not after ChargePeriodStart"));
    }
    let (kind, correction) = kind(row)?;
    let details = object(row, "SkuPriceDetails")?;
    let mut tags = object(row, "Tags")?;
    if correction {
        tags.insert("charge_class".into(), "Correction".into());
    }
    if let Some(region) = value(row, "RegionId") {
        tags.entry("region".into()).or_insert_with(|| region.to_owned());
    }
    let meter = value(row, "SkuMeter").map_or(Meter::Whole, meter);
    let (quantity, unit) = quantity(row, meter, kind, numbers)?.unzip();
    let model = match &format.model_column {
        Some(column) => value(row, column).map(str::to_owned),
        None => extra(row, &details, &MODEL_KEYS),
    };
    let account = match &rule.account {
        Some(account) => account.clone(),
        None => row.need("BillingAccountId")?.to_owned(),
    };
    let service = row.need("ServiceName")?.to_owned();
    let words = ["ChargeDescription", "SkuMeter", "SkuId"];
    let description = words.into_iter().find_map(|column| value(row, column));
    let invoice_id = value(row, "InvoiceId").map(str::to_owned);
    Ok(Some(BillLine {
        provider: provider(rule, format, row)?,
        account,
        project: value(row, "SubAccountId").map(str::to_owned),
        start,
        end,
        kind,
        description: description.map_or_else(|| service.clone(), str::to_owned),
        service,
        model,
        meter,
        tier: extra(row, &details, &TIER_KEYS),
        quantity,
        unit,
        amount,
        list_amount: list,
        // 1.2 and later name the invoice once there is one.
        provisional: rule.provisional || (row.header.has("InvoiceId") && invoice_id.is_none()),
        invoice_id,
        credential: extra(row, &details, &CREDENTIAL_KEYS),
        tags,
    }))
}

/// A cell; tools write a null as nothing, or as the word.
fn value<'a>(row: Row<'a>, column: &str) -> Option<&'a str> {
    row.text(column).filter(|text| !text.eq_ignore_ascii_case("null"))
}

fn provider(rule: &FileRule, format: &FocusFormat, row: Row<'_>) -> Result<String, BadCell> {
    if format.providers.is_empty() {
        return Ok(rule.provider.clone());
    }
    let column = seller_column(row.header);
    let seller = row.need(column)?;
    format.providers.get(seller).cloned().ok_or_else(|| {
        let reason = format!("is {}: add it to the mapping's `providers`", shown(seller));
        BadCell::new(column, reason)
    })
}

/// The kind, and whether it corrects an invoiced period. Corrected use is an adjustment: its quantity may be absent, so
/// beside metered use it would pass for another price.
fn kind(row: Row<'_>) -> Result<(ChargeKind, bool), BadCell> {
    let category = row.need("ChargeCategory")?;
    let kind = match category {
        "Usage" => ChargeKind::Usage,
        "Purchase" => ChargeKind::Purchase,
        "Tax" => ChargeKind::Tax,
        "Credit" => ChargeKind::Credit,
        "Adjustment" => ChargeKind::Adjustment,
        other => {
            let known = "Usage, Purchase, Tax, Credit and Adjustment";
            let reason = format!("is {}; FOCUS knows {known}", shown(other));
            return Err(BadCell::new("ChargeCategory", reason));
        }
    };
    match (value(row, "ChargeClass"), kind) {
        (None, kind) => Ok((kind, false)),
        (Some("Correction"), ChargeKind::Usage | ChargeKind::Purchase) => {
            Ok((ChargeKind::Adjustment, true))
        }
        (Some("Correction"), kind) => Ok((kind, true)),
        (Some(other), _) => {
            let reason = format!("is {}; FOCUS knows Correction or nothing", shown(other));
            Err(BadCell::new("ChargeClass", reason))
        }
    }
}

/// What a SKU's meter measures, by the words in its name. [`Meter::Whole`] for anything else, and for what is priced by
/// the hour.
pub(super) fn meter(name: &str) -> Meter {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["storage", "hour"]) {
        Meter::Whole
    } else if has(&["cache", "caching"]) && has(&["write", "creation", "create"]) {
        Meter::CacheWrite
    } else if has(&["cache", "caching"]) && has(&["read", "hit", "cached", "input"]) {
        Meter::CacheRead
    } else if has(&["output", "completion", "reasoning"]) {
        Meter::Output
    } else if has(&["input", "prompt"]) {
        Meter::Input
    } else if has(&["request", "search", "calls", "queries"]) {
        Meter::Calls
    } else {
        Meter::Whole
    }
}

fn quantity(
    row: Row<'_>,
    meter: Meter,
    kind: ChargeKind,
    numbers: &mut Numbers,
) -> Result<Option<(Quantity, String)>, BadCell> {
    // Consumed is what was used; a SKU without it states only what it is priced by.
    let pairs = [("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit")];
    let measured =
        pairs.into_iter().find_map(|(column, unit)| Some((column, value(row, column)?, unit)));
    let Some((column, text, unit_column)) = measured else {
        return if kind == ChargeKind::Usage && meter != Meter::Whole {
            Err(BadCell::new("ConsumedQuantity", "is empty, and so is PricingQuantity"))
        } else {
            Ok(None)
        };
    };
    let count = numbers.quantity(column, text)?;
    let unit = canonical(row.need(unit_column)?);
    unit_fits(meter, &unit).map_err(|reason| BadCell::new(unit_column, reason))?;
    Ok(Some((count, unit)))
}

/// Exporters write `tokens`, `Token` and `Tokens` for one thing.
fn canonical(unit: &str) -> String {
    let any =
        |name: &str| name.eq_ignore_ascii_case("token") || name.eq_ignore_ascii_case("tokens");
    match unit_parts(unit) {
        Some((1, name)) if any(name) => "Tokens".into(),
        Some((count, name)) if any(name) => format!("{count} Tokens"),
        _ => unit.to_owned(),
    }
}

/// A column of JSON with plain values.
fn object(row: Row<'_>, column: &str) -> Result<BTreeMap<String, String>, BadCell> {
    let Some(text) = value(row, column) else { return Ok(BTreeMap::new()) };
    let read: BTreeMap<String, Value> = serde_json::from_str(text)
        .map_err(|_| BadCell::new(column, "is not a JSON object such as {\"team\":\"a\"}"))?;
    let plain = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(read.into_iter().map(|(name, value)| (name, plain(value))).collect())
}

/// The first of `keys` that is a column with a value, or a key of `SkuPriceDetails`.
fn extra(row: Row<'_>, details: &BTreeMap<String, String>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| {
        let column = row.header.by_bare_name(key);
        let cell = column.and_then(|column| value(row, column)).map(str::to_owned);
        cell.or_else(|| details.iter().find(|(name, _)| bare(name) == *key).map(|(_, v)| v.clone()))
    })
}
