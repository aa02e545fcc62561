//! A CSV row by a mapping's columns.

use std::collections::BTreeMap;

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::mapping::{
    AmountUnit, Choice, CsvFormat, FileRule, Period, QuantityColumn, Source, unit_parts,
};
use super::table::{BadCell, Cut, Header, Numbers, Row, Rows, read_rows, shown};
use crate::bill::{BillLine, ChargeKind, Meter, Quantity};

/// Reads a whole file.
pub(super) fn read(rule: &FileRule, csv: &CsvFormat, body: &[u8]) -> Rows {
    let mut numbers = Numbers::new(rule.finer, csv.decimal_comma, csv.thousands);
    let delimiter = u8::try_from(csv.delimiter).unwrap_or(b',');
    let cut = Cut { delimiter, skip_lines: csv.skip_lines };
    let check = |header: &Header| header.need(columns(csv));
    let mut rows = read_rows(body, cut, check, |row| line(rule, csv, &mut numbers, row));
    rows.rounded = numbers.rounded;
    rows
}

/// Every column that the mapping names.
fn columns(csv: &CsvFormat) -> Vec<&str> {
    let mut names: Vec<&str> = vec![&csv.amount.column];
    match &csv.period {
        Period::Day { column, .. } | Period::Month { column, .. } => names.push(column),
        Period::Range { start, end, .. } => names.extend([start.as_str(), end]),
        Period::Fixed { .. } => {}
    }
    let optional = [
        &csv.service,
        &csv.description,
        &csv.model,
        &csv.project,
        &csv.tier,
        &csv.invoice_id,
        &csv.credential,
    ];
    let sources = optional.into_iter().flatten().chain([&csv.amount.currency]);
    names.extend(sources.filter_map(|source| match source {
        Source::Column(column) => Some(column.as_str()),
        Source::Fixed(_) => None,
    }));
    if let Some(quantity) = &csv.quantity {
        names.push(&quantity.column);
        names.extend(choice_column(&quantity.unit));
    }
    names.extend(choice_column(&csv.meter));
    names.extend(choice_column(&csv.kind));
    names.extend(csv.list_amount.as_deref());
    names.extend(csv.tags.values().map(String::as_str));
    names.extend(csv.skip_rows.iter().map(|rows| rows.column.as_str()));
    names
}

fn choice_column<T>(choice: &Choice<T>) -> Option<&str> {
    match choice {
        Choice::Column { name, .. } => Some(name),
        Choice::Fixed(_) => None,
    }
}

fn line(
    rule: &FileRule,
    csv: &CsvFormat,
    numbers: &mut Numbers,
    row: Row<'_>,
) -> Result<Option<BillLine>, BadCell> {
    let left_out = csv.skip_rows.iter().any(|rows| {
        let text = row.text(&rows.column).unwrap_or_default();
        rows.equals.iter().any(|wanted| wanted.trim() == text)
    });
    if left_out {
        return Ok(None);
    }
    let source = |source: &Option<Source>| source.as_ref().and_then(|source| text(row, source));
    currency(row, &csv.amount.currency)?;
    let (start, end) = period(row, &csv.period)?;
    let places = match csv.amount.unit {
        AmountUnit::Dollars => 0,
        AmountUnit::Cents => 2,
    };
    let amount = numbers.usd(&csv.amount.column, row.need(&csv.amount.column)?, places)?;
    let list_amount = match csv.list_amount.as_deref() {
        Some(column) => {
            row.text(column).map(|text| numbers.usd(column, text, places)).transpose()?
        }
        None => None,
    };
    let kind = *chosen(row, &csv.kind, "kind")?;
    let meter = *chosen(row, &csv.meter, "meter")?;
    let measured = csv.quantity.as_ref();
    let measured = measured.map(|from| quantity(row, from, (meter, kind), numbers)).transpose()?;
    let (quantity, unit) = measured.flatten().unzip();
    let tags = csv
        .tags
        .iter()
        .filter_map(|(tag, column)| row.text(column).map(|value| (tag.clone(), value.to_owned())));
    let service = source(&csv.service).unwrap_or_else(|| rule.provider.clone());
    Ok(Some(BillLine {
        provider: rule.provider.clone(),
        account: rule.account.clone().unwrap_or_default(),
        project: source(&csv.project),
        start,
        end,
        kind,
        description: source(&csv.description).unwrap_or_else(|| service.clone()),
        service,
        model: source(&csv.model),
        meter,
        tier: source(&csv.tier),
        quantity,
        unit,
        amount,
        list_amount,
        invoice_id: source(&csv.invoice_id),
        credential: source(&csv.credential),
        provisional: rule.provisional,
        tags: tags.collect::<BTreeMap<_, _>>(),
    }))
}

fn text(row: Row<'_>, source: &Source) -> Option<String> {
    match source {
        Source::Fixed(text) => Some(text.clone()),
        Source::Column(column) => row.text(column).map(str::to_owned),
    }
}

fn currency(row: Row<'_>, source: &Source) -> Result<(), BadCell> {
    let Source::Column(column) = source else {
        // The mapping is checked: a fixed currency is USD.
        return Ok(());
    };
    let currency = row.need(column)?;
    if currency.eq_ignore_ascii_case("USD") {
        return Ok(());
    }
    Err(BadCell::new(column, format!("is {}: only USD is booked, convert it", shown(currency))))
}

fn chosen<'a, T>(row: Row<'_>, choice: &'a Choice<T>, field: &str) -> Result<&'a T, BadCell> {
    let (name, values, otherwise) = match choice {
        Choice::Fixed(value) => return Ok(value),
        Choice::Column { name, values, otherwise } => (name, values, otherwise),
    };
    let label = row.text(name).unwrap_or_default();
    values.get(label).or(otherwise.as_ref()).ok_or_else(|| {
        let reason =
            format!("is {}, which the mapping's `{field}` does not know: add it", shown(label));
        BadCell::new(name, reason)
    })
}

fn quantity(
    row: Row<'_>,
    from: &QuantityColumn,
    (meter, kind): (Meter, ChargeKind),
    numbers: &mut Numbers,
) -> Result<Option<(Quantity, String)>, BadCell> {
    let Some(text) = row.text(&from.column) else {
        // Taxes and lump sums measure nothing; metered use without a quantity is a hole.
        return if kind == ChargeKind::Usage && meter != Meter::Whole {
            Err(BadCell::new(&from.column, "is empty"))
        } else {
            Ok(None)
        };
    };
    let count = numbers.quantity(&from.column, text)?;
    let unit = chosen(row, &from.unit, "quantity.unit")?;
    unit_fits(meter, unit).map_err(|reason| BadCell::new(&from.column, reason))?;
    Ok(Some((count, unit.clone())))
}

/// Token meters are measured in tokens, and in nothing else.
pub(super) fn unit_fits(meter: Meter, unit: &str) -> Result<(), String> {
    let tokens = unit_parts(unit).is_some_and(|(_, name)| matches!(name, "Tokens" | "Token"));
    match meter {
        Meter::Input | Meter::CacheRead | Meter::CacheWrite | Meter::Output if !tokens => {
            Err(format!("is in {}, but tokens are counted in `Tokens`", shown(unit)))
        }
        _ => Ok(()),
    }
}

fn period(row: Row<'_>, period: &Period) -> Result<(Timestamp, Timestamp), BadCell> {
    let read = |column: &str, format: &str| moment(column, row.need(column)?, format);
    let (column, start, end) = match period {
        Period::Day { column, format } => {
            let day = read(column, format)?.date();
            (column, day.midnight(), Date::from_days(day.days().saturating_add(1)).midnight())
        }
        Period::Month { column, format } => {
            let first = read(column, format)?.date().first_of_month();
            (column, first.midnight(), first.first_of_next_month().midnight())
        }
        Period::Range { start, end, format, end_is_last_day } => {
            let (from, to) = (read(start, format)?, read(end, format)?);
            let to = if *end_is_last_day { to.date().midnight().plus_ms(DAY_MS) } else { to };
            (end, from, to)
        }
        Period::Fixed { start, end } => {
            let day = |text: &str| {
                let day = Date::parse(text).map(Date::midnight);
                day.ok_or_else(|| BadCell::new("period.fixed", "is not a day such as 2026-10-01"))
            };
            (end, day(start)?, day(end)?)
        }
    };
    if start < end {
        Ok((start, end))
    } else {
        Err(BadCell::new(column, "is not after the start of the period"))
    }
}

/// A moment as the format says. Without an offset it is UTC.
fn moment(column: &str, text: &str, format: &str) -> Result<Timestamp, BadCell> {
    let wrong = || BadCell::new(column, format!("is not a date as `{format}` says"));
    let at = match format {
        "rfc3339" => return rfc3339(text).ok_or_else(wrong),
        "unix_seconds" => jiff::Timestamp::from_second(text.parse().map_err(|_| wrong())?),
        "unix_ms" => jiff::Timestamp::from_millisecond(text.parse().map_err(|_| wrong())?),
        _ => return strptime(text, format).ok_or_else(wrong),
    };
    at.map(|at| Timestamp::from_ms(at.as_millisecond())).map_err(|_| wrong())
}

/// RFC 3339 with any offset, or a bare `YYYY-MM-DD`.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    if let Some(day) = Date::parse(text) {
        return Some(day.midnight());
    }
    text.parse().ok().map(|at: jiff::Timestamp| Timestamp::from_ms(at.as_millisecond()))
}

fn strptime(text: &str, format: &str) -> Option<Timestamp> {
    let mut parts = BrokenDownTime::parse(format, text).ok()?;
    if parts.day().is_none() {
        parts.set_day(Some(1)).ok()?;
    }
    if parts.offset().is_some() {
        let at = parts.to_timestamp().ok()?;
        return Some(Timestamp::from_ms(at.as_millisecond()));
    }
    if parts.hour().is_none() {
        parts.set_hour(Some(0)).ok()?;
    }
    let at = parts.to_datetime().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp::from_ms(at.timestamp().as_millisecond()))
}
