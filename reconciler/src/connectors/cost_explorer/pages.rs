//! Cost Explorer's answers as documented, and the bill they make: every dollar in exactly one line.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};

use super::bedrock::{is_bedrock, known_model, usage_type};
use super::{BEDROCK, NAME, RECORDS, SERVICES, Settings};
use crate::bill::{Bill, BillLine, ChargeKind, Meter};
use crate::connectors::read::{AmountText, Day, DollarsText, Lists, Reader, next_day};
use crate::connectors::{Days, PullError, RawPage};

/// Sums of one service by usage type and by tag are rounded apart, at the tenth place. More than this for a service and
/// day means that the data moved between the two answers.
const ROUNDING: Usd = Usd::from_pico(1_000_000);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Page {
    results_by_time: Vec<ByTime>,
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ByTime {
    time_period: Period,
    #[serde(default)]
    total: BTreeMap<String, Total>,
    groups: Vec<Group>,
    estimated: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Total {
    amount: AmountText,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Period {
    start: Day,
    end: Day,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Group {
    keys: Vec<String>,
    metrics: Metrics,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metrics {
    unblended_cost: Cost,
    net_unblended_cost: Option<Cost>,
    usage_quantity: Option<Measured>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Cost {
    amount: DollarsText,
    unit: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Measured {
    amount: AmountText,
    unit: String,
}

/// The services of a page that are Bedrock's.
pub(super) fn bedrock_services(page: &Page) -> impl Iterator<Item = &str> {
    let groups = page.results_by_time.iter().flat_map(|by_time| &by_time.groups);
    groups.filter_map(|group| group.keys.first()).map(String::as_str).filter(|key| is_bedrock(key))
}

/// One group of one day, checked.
struct Charge<'a> {
    label: &'a str,
    keys: [&'a str; 2],
    start: Timestamp,
    end: Timestamp,
    estimated: bool,
    amount: Usd,
    list_amount: Option<Usd>,
    measured: Option<&'a Measured>,
}

/// Builds the bill of `pages`.
pub(super) fn bill(settings: &Settings, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
    let mut lists = Lists::new(NAME);
    let mut read: Vec<(&str, Page)> = Vec::new();
    for raw in pages {
        let label = raw.label.as_str();
        let reader = Reader::new(NAME, label);
        if ![SERVICES, BEDROCK, RECORDS].contains(&label) {
            return Err(reader.wrong("", "is none of the questions that are asked"));
        }
        let page: Page = reader.json(&raw.body)?;
        lists.page(label, page.next_page_token.is_some())?;
        read.push((label, page));
    }
    let asks_bedrock = read
        .iter()
        .any(|(label, page)| *label == SERVICES && bedrock_services(page).next().is_some());
    let expected = [SERVICES, RECORDS].into_iter().chain(asks_bedrock.then_some(BEDROCK));
    lists.finish(expected)?;

    let charges = charges(settings, days, &read)?;
    compare(&charges)?;
    let mut bill = Bill::default();
    let mut doubts = Doubts::default();
    for charge in &charges {
        let line = match charge.label {
            SERVICES if is_bedrock(charge.keys[0]) => continue,
            SERVICES => harness(settings, charge)?,
            BEDROCK => bedrock(settings, charge, &mut doubts),
            _ => record(settings, charge, &mut doubts),
        };
        // Whatever measures and costs nothing is left out: it is most of what Cost Explorer lists.
        if line.amount != Usd::ZERO || line.quantity.is_some_and(|quantity| quantity.pico() != 0) {
            bill.lines.push(line);
        }
    }
    doubts.note(&mut bill.notes);
    bill.each_day = true;
    bill.complete_until = Some(first_estimated(&read).min().unwrap_or(days.end()));
    Ok(bill)
}

fn first_estimated<'a>(read: &'a [(&str, Page)]) -> impl Iterator<Item = Timestamp> + 'a {
    let by_time = read.iter().flat_map(|(_, page)| &page.results_by_time);
    by_time
        .filter(|by_time| by_time.estimated)
        .map(|by_time| by_time.time_period.start.0.midnight())
}

/// What could not be read for certain, each once.
#[derive(Default)]
struct Doubts {
    units: BTreeSet<String>,
    records: BTreeSet<String>,
}

impl Doubts {
    fn note(self, notes: &mut Vec<String>) {
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
        if !self.units.is_empty() {
            notes.push(format!(
                "{NAME}: the unit of these usage types is not certain, their quantity is left out: {}",
                list(self.units)
            ));
        }
        if !self.records.is_empty() {
            notes.push(format!(
                "{NAME}: unknown record types are booked as adjustments: {}",
                list(self.records)
            ));
        }
    }
}

fn charges<'a>(
    settings: &Settings,
    days: Days,
    read: &'a [(&str, Page)],
) -> Result<Vec<Charge<'a>>, PullError> {
    let mut charges = Vec::new();
    let mut seen: BTreeSet<(&str, Timestamp, &[String])> = BTreeSet::new();
    let mut covered: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    let mut net: Option<bool> = None;
    for (label, page) in read {
        let reader = Reader::new(NAME, label);
        let of_label = covered.entry(label).or_default();
        for (at, by_time) in page.results_by_time.iter().enumerate() {
            let field = format!("ResultsByTime[{at}]");
            let (start, end) = (by_time.time_period.start.0, by_time.time_period.end.0);
            reader.within(
                days,
                start.midnight(),
                end.midnight(),
                &format!("{field}.TimePeriod"),
            )?;
            if next_day(start) != end {
                return Err(reader.wrong(&format!("{field}.TimePeriod"), "is not one day"));
            }
            of_label.insert(start.days());
            let lump = by_time.total.values().any(|total| total.amount.0.pico() != 0);
            if by_time.groups.is_empty() && lump {
                let reason = "has an amount, but there are no groups: who it is for is unknown";
                return Err(reader.wrong(&format!("{field}.Total"), reason));
            }
            for (at, group) in by_time.groups.iter().enumerate() {
                let field = format!("{field}.Groups[{at}]");
                if !seen.insert((*label, start.midnight(), &group.keys)) {
                    return Err(reader.wrong(&field, "has keys that were there before on this day"));
                }
                let charge = charge(settings, (*label, &reader, &field), by_time, group)?;
                let has_net = group.metrics.net_unblended_cost.is_some();
                if *net.get_or_insert(has_net) != has_net {
                    let reason = "is there for some groups and not for others";
                    return Err(reader.wrong(&format!("{field}.Metrics.NetUnblendedCost"), reason));
                }
                charges.push(charge);
            }
        }
    }
    for (label, of_label) in covered {
        let has = |day: Date| of_label.contains(&day.days());
        Reader::new(NAME, label).each_day(days, has, "ResultsByTime")?;
    }
    Ok(charges)
}

fn charge<'a>(
    settings: &Settings,
    (label, reader, field): (&'a str, &Reader<'_>, &str),
    by_time: &'a ByTime,
    group: &'a Group,
) -> Result<Charge<'a>, PullError> {
    let keys = match group.keys.as_slice() {
        [only] if label == SERVICES && settings.tag.is_none() => [only.as_str(), ""],
        [first, second] if label != SERVICES || settings.tag.is_some() => {
            [first.as_str(), second.as_str()]
        }
        _ => return Err(reader.wrong(&format!("{field}.Keys"), "are not the groups asked for")),
    };
    let metrics = &group.metrics;
    let usd = |cost: &Cost, name: &str| {
        reader.us_dollars(&cost.unit, &format!("{field}.Metrics.{name}.Unit"))?;
        Ok::<Usd, PullError>(cost.amount.0)
    };
    let unblended = usd(&metrics.unblended_cost, "UnblendedCost")?;
    let net = metrics.net_unblended_cost.as_ref();
    let net = net.map(|cost| usd(cost, "NetUnblendedCost")).transpose()?;
    Ok(Charge {
        label,
        keys,
        start: by_time.time_period.start.0.midnight(),
        end: by_time.time_period.end.0.midnight(),
        estimated: by_time.estimated,
        amount: net.unwrap_or(unblended),
        list_amount: net.map(|_| unblended),
        measured: metrics.usage_quantity.as_ref(),
    })
}

/// Bedrock is asked for twice, by tag and by usage type. Where the two do not agree, Cost Explorer was refreshed in
/// between, and neither is taken.
fn compare(charges: &[Charge<'_>]) -> Result<(), PullError> {
    type Pair = (Usd, Usd);
    let overflow = || Reader::new(NAME, BEDROCK).wrong("", "has a sum that is too large");
    let mut sums: BTreeMap<(Timestamp, &str), Pair> = BTreeMap::new();
    for charge in charges {
        let (service, first) = match charge.label {
            SERVICES if is_bedrock(charge.keys[0]) => (charge.keys[0], true),
            BEDROCK => (charge.keys[0], false),
            _ => continue,
        };
        let (by_tag, by_type) = sums.entry((charge.start, service)).or_default();
        let sum = if first { by_tag } else { by_type };
        *sum = sum.checked_add(charge.amount).ok_or_else(overflow)?;
    }
    for ((at, service), (by_tag, by_type)) in sums {
        let apart = by_tag.checked_sub(by_type).ok_or_else(overflow)?;
        if apart.pico().unsigned_abs() > ROUNDING.pico().unsigned_abs() {
            return Err(PullError::Unavailable {
                source_name: NAME.into(),
                what: BEDROCK.into(),
                reason: format!(
                    "{service} on {} is {by_tag} by tag and {by_type} by usage type: \
                     the data was refreshed between the two answers",
                    at.date()
                ),
            });
        }
    }
    Ok(())
}

fn line(settings: &Settings, charge: &Charge<'_>, service: &str) -> BillLine {
    let provider = if is_bedrock(service) { "bedrock" } else { "aws" };
    BillLine {
        provider: provider.into(),
        account: settings.account.clone(),
        project: None,
        start: charge.start,
        end: charge.end,
        kind: ChargeKind::Usage,
        service: service.to_owned(),
        description: service.to_owned(),
        model: None,
        meter: Meter::Whole,
        tier: None,
        quantity: None,
        unit: None,
        amount: charge.amount,
        list_amount: charge.list_amount,
        invoice_id: None,
        credential: None,
        provisional: charge.estimated,
        tags: BTreeMap::new(),
    }
}

/// A service's use under one value of the tag. Its quantity would add up hours and gigabytes: it is left out.
fn harness(settings: &Settings, charge: &Charge<'_>) -> Result<BillLine, PullError> {
    let [service, key] = charge.keys;
    let mut line = line(settings, charge, service);
    if let Some(tag) = &settings.tag {
        let value = key.strip_prefix(tag.as_str()).and_then(|rest| rest.strip_prefix('$'));
        let value = value.ok_or_else(|| {
            let reason = format!("do not name the tag `{tag}`");
            Reader::new(NAME, SERVICES).wrong("ResultsByTime.Groups.Keys", reason)
        })?;
        if !value.is_empty() {
            line.tags.insert(tag.clone(), value.to_owned());
        }
    }
    Ok(line)
}

fn bedrock(settings: &Settings, charge: &Charge<'_>, doubts: &mut Doubts) -> BillLine {
    let [service, name] = charge.keys;
    let stated = charge.measured.map_or("", |measured| measured.unit.as_str());
    let read = usage_type(service, name, stated);
    let mut line = line(settings, charge, service);
    line.description = name.to_owned();
    line.model = read.model.map(|model| known_model(&model, read.global, &settings.models));
    line.meter = read.meter;
    line.tier = read.tier.map(str::to_owned);
    match (read.unit, charge.measured) {
        (Some(unit), Some(measured)) => {
            line.quantity = Some(measured.amount.0);
            line.unit = Some(unit.into());
        }
        _ if read.meter != Meter::Whole => {
            doubts.units.insert(name.to_owned());
        }
        _ => {}
    }
    if read.global {
        line.tags.insert("inference".into(), "global".into());
    }
    if read.long_context {
        line.tags.insert("context".into(), "long".into());
    }
    line
}

fn record(settings: &Settings, charge: &Charge<'_>, doubts: &mut Doubts) -> BillLine {
    let [record, service] = charge.keys;
    let mut line = line(settings, charge, service);
    line.description = record.to_owned();
    line.kind = kind(record).unwrap_or_else(|| {
        doubts.records.insert(record.to_owned());
        ChargeKind::Adjustment
    });
    line
}

/// The kind of a record type, in the API's spelling and the console's.
pub(super) fn kind(record: &str) -> Option<ChargeKind> {
    let name: String =
        record.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
    Some(match name.as_str() {
        "tax" => ChargeKind::Tax,
        "credit" => ChargeKind::Credit,
        "refund" => ChargeKind::Refund,
        // Takes back the on-demand price of use that a plan covers.
        "savingsplannegation" => ChargeKind::Discount,
        "reservationappliedusage" | "usage" => ChargeKind::Usage,
        _ if name.contains("discount") => ChargeKind::Discount,
        _ if name.ends_with("fee") || name == "recurring" => ChargeKind::Purchase,
        _ => return None,
    })
}
