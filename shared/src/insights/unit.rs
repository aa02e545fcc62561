//! Unit economics: what a feature, a customer, a team, ... costs, models and harness together, for each request and each
//! accepted outcome. The harness is what runs around the models: databases, functions, logs.
//!
//! Models cost what was charged at the edge, corrected by what the bills say; the harness costs what is billed. A bill of
//! the harness that knows its owner but no name in the dimension asked for (an app's database, asked by customer) is
//! shared among the names that its owner's use of models has, in proportion to what that cost, else to its requests.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{apportion, each};
use crate::money::Usd;
use crate::pricing::PriceBook;

/// Names of an owner by dimension.
pub type Owner = BTreeMap<String, String>;

/// Use of models as the edge charged it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// The bucket of time: days since 1970.
    pub bucket: i64,
    /// Whose.
    pub owner: Owner,
    /// What it was charged.
    pub charged: Usd,
    /// Requests that used something.
    pub requests: u64,
}

/// Lines of a bill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bill {
    /// The bucket of time: days since 1970.
    pub bucket: i64,
    /// Who bills.
    pub provider: String,
    /// Whether they bill for models; else for what is around them.
    pub models: bool,
    /// Whose.
    pub owner: Owner,
    /// What was estimated.
    pub estimated: Usd,
    /// What is billed.
    pub billed: Usd,
    /// What was estimated of the lines that are billed.
    pub estimated_of_billed: Usd,
}

/// What became of the work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcomes {
    /// The bucket of time: days since 1970.
    pub bucket: i64,
    /// The name in the dimension; empty for none.
    pub name: String,
    /// Accepted.
    pub accepted: u64,
    /// Rejected.
    pub rejected: u64,
    /// What the accepted ones were worth.
    pub value: Usd,
}

/// What a name cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "UnitEconomics"))]
pub struct Unit {
    /// The feature, customer, ...; empty for what has none.
    pub name: String,
    /// The bucket's first day, where a bucket was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_start: Option<String>,
    /// What models cost: as billed, and as estimated where there is no bill yet.
    pub models_usd: Usd,
    /// The part of the harness.
    pub harness_usd: Usd,
    /// Both.
    pub total_usd: Usd,
    /// The part of the total that is an estimate still.
    pub unbilled_usd: Usd,
    /// Requests that used something.
    pub requests: u64,
    /// Accepted outcomes.
    pub accepted: u64,
    /// Rejected outcomes.
    pub rejected: u64,
    /// What the accepted outcomes were worth, as far as it was said.
    pub value_usd: Usd,
    /// The total by requests; `None` without requests.
    pub per_request_usd: Option<Usd>,
    /// The total, rejected work included, by accepted outcomes; `None` without one.
    pub per_accepted_usd: Option<Usd>,
    /// The value less the total.
    pub margin_usd: Usd,
}

/// Whether a provider bills for models: the gateway sends requests to it, or the price book lists it. Everybody else bills
/// for what is around them. `used`: providers that the gateway is set up with, or has estimates of; what it charged for
/// them is in the usage already, and their bill is no second cost beside it.
pub fn bills_for_models(provider: &str, used: &BTreeSet<String>) -> bool {
    let book = PriceBook::built_in().map(PriceBook::rows).unwrap_or_default();
    used.contains(provider) || book.iter().any(|row| row.provider == provider)
}

/// Dimensions, beside the one asked for, by which bills of the harness must be shared: the usage must tell them apart.
pub fn sharing_dimensions<'b>(
    bills: impl IntoIterator<Item = &'b Bill>,
    dimension: &str,
) -> BTreeSet<String> {
    let shared = bills.into_iter().filter(|bill| is_shared(bill, dimension));
    shared.flat_map(|bill| bill.owner.keys().cloned()).collect()
}

fn is_shared(bill: &Bill, dimension: &str) -> bool {
    !bill.models && !bill.owner.is_empty() && !bill.owner.contains_key(dimension)
}

/// The economics by name and bucket, sorted. They add up to what was charged and billed, to the last digit. `None` when
/// a sum does not fit.
pub fn units(
    dimension: &str,
    usage: &[Usage],
    bills: &[Bill],
    outcomes: &[Outcomes],
) -> Option<BTreeMap<(i64, String), Unit>> {
    let mut units: BTreeMap<(i64, String), Unit> = BTreeMap::new();
    let name_of = |owner: &Owner| owner.get(dimension).cloned().unwrap_or_default();
    for row in usage {
        let unit = units.entry((row.bucket, name_of(&row.owner))).or_default();
        unit.models_usd = unit.models_usd.checked_add(row.charged)?;
        unit.unbilled_usd = unit.unbilled_usd.checked_add(row.charged)?;
        unit.requests = unit.requests.checked_add(row.requests)?;
    }
    for bill in bills {
        let open = bill.estimated.checked_sub(bill.estimated_of_billed)?;
        if bill.models {
            let unit = units.entry((bill.bucket, name_of(&bill.owner))).or_default();
            let difference = bill.billed.checked_sub(bill.estimated_of_billed)?;
            unit.models_usd = unit.models_usd.checked_add(difference)?;
            unit.unbilled_usd = unit.unbilled_usd.checked_sub(bill.estimated_of_billed)?;
            continue;
        }
        let cost = bill.billed.checked_add(open)?;
        for (name, cost, open) in shares(dimension, usage, bill, cost, open)? {
            let unit = units.entry((bill.bucket, name)).or_default();
            unit.harness_usd = unit.harness_usd.checked_add(cost)?;
            unit.unbilled_usd = unit.unbilled_usd.checked_add(open)?;
        }
    }
    for outcome in outcomes {
        let unit = units.entry((outcome.bucket, outcome.name.clone())).or_default();
        unit.accepted = unit.accepted.checked_add(outcome.accepted)?;
        unit.rejected = unit.rejected.checked_add(outcome.rejected)?;
        unit.value_usd = unit.value_usd.checked_add(outcome.value)?;
    }
    for ((_, name), unit) in &mut units {
        finish(unit, name)?;
    }
    Some(units)
}

/// The names that a bill of the harness goes to, each with its part of the cost and of what is an estimate still.
fn shares(
    dimension: &str,
    usage: &[Usage],
    bill: &Bill,
    cost: Usd,
    open: Usd,
) -> Option<Vec<(String, Usd, Usd)>> {
    if !is_shared(bill, dimension) {
        let name = bill.owner.get(dimension).cloned().unwrap_or_default();
        return Some(vec![(name, cost, open)]);
    }
    let theirs =
        |row: &&Usage| bill.owner.iter().all(|(name, value)| row.owner.get(name) == Some(value));
    let mut weights: BTreeMap<&str, (i128, i128)> = BTreeMap::new();
    for row in usage.iter().filter(theirs) {
        let weight =
            weights.entry(row.owner.get(dimension).map_or("", String::as_str)).or_default();
        weight.0 = weight.0.checked_add(row.charged.pico())?;
        weight.1 = weight.1.checked_add(i128::from(row.requests))?;
    }
    let money: Vec<i128> = weights.values().map(|weight| weight.0).collect();
    let requests: Vec<i128> = weights.values().map(|weight| weight.1).collect();
    let parts =
        |total: Usd| apportion(total.pico(), &money).or_else(|| apportion(total.pico(), &requests));
    let Some((costs, opens)) = parts(cost).zip(parts(open)) else {
        return Some(vec![(String::new(), cost, open)]);
    };
    let parts = weights.into_keys().zip(costs.into_iter().zip(opens));
    let named = parts
        .map(|(name, (cost, open))| (name.to_owned(), Usd::from_pico(cost), Usd::from_pico(open)));
    Some(named.collect())
}

fn finish(unit: &mut Unit, name: &str) -> Option<()> {
    name.clone_into(&mut unit.name);
    unit.total_usd = unit.models_usd.checked_add(unit.harness_usd)?;
    unit.per_request_usd = each(unit.total_usd, unit.requests);
    unit.per_accepted_usd = each(unit.total_usd, unit.accepted);
    unit.margin_usd = unit.value_usd.checked_sub(unit.total_usd)?;
    Some(())
}

/// Units added up by `key`, and finished anew. `None` when a sum does not fit.
pub fn together<'u, K: Ord>(
    units: impl IntoIterator<Item = &'u Unit>,
    key: impl Fn(&Unit) -> K,
) -> Option<BTreeMap<K, Unit>> {
    let mut sums: BTreeMap<K, Unit> = BTreeMap::new();
    for unit in units {
        let fresh = || Unit { name: unit.name.clone(), ..Unit::default() };
        let sum = sums.entry(key(unit)).or_insert_with(fresh);
        sum.models_usd = sum.models_usd.checked_add(unit.models_usd)?;
        sum.harness_usd = sum.harness_usd.checked_add(unit.harness_usd)?;
        sum.unbilled_usd = sum.unbilled_usd.checked_add(unit.unbilled_usd)?;
        sum.requests = sum.requests.checked_add(unit.requests)?;
        sum.accepted = sum.accepted.checked_add(unit.accepted)?;
        sum.rejected = sum.rejected.checked_add(unit.rejected)?;
        sum.value_usd = sum.value_usd.checked_add(unit.value_usd)?;
    }
    for unit in sums.values_mut() {
        let name = std::mem::take(&mut unit.name);
        finish(unit, &name)?;
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(names: &[(&str, &str)]) -> Owner {
        names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn usage(names: &[(&str, &str)], charged: &str, requests: u64) -> Usage {
        Usage { bucket: 0, owner: owner(names), charged: usd(charged), requests }
    }

    fn bill(provider: &str, names: &[(&str, &str)], billed: &str, estimated: &str) -> Bill {
        Bill {
            bucket: 0,
            provider: provider.to_owned(),
            models: provider != "aws",
            owner: owner(names),
            estimated: usd(estimated),
            billed: usd(billed),
            estimated_of_billed: usd(estimated),
        }
    }

    #[test]
    fn models_are_trued_up_and_the_harness_follows_its_owner() {
        let rows = [
            usage(&[("customer", "x"), ("app", "shop")], "3", 3),
            usage(&[("customer", "y"), ("app", "shop")], "1", 9),
            usage(&[("app", "other")], "1", 1),
        ];
        let bills = [
            bill("openai", &[("customer", "x"), ("app", "shop")], "3.5", "3"),
            bill("aws", &[("app", "shop")], "2", "0"),
            bill("aws", &[("app", "idle")], "0.5", "0"),
            bill("aws", &[("customer", "y")], "0.25", "0"),
            bill("aws", &[], "0.125", "0"),
        ];
        assert_eq!(sharing_dimensions(&bills, "customer"), BTreeSet::from(["app".to_owned()]));
        let outcomes =
            [Outcomes { bucket: 0, name: "x".into(), accepted: 2, rejected: 1, value: usd("10") }];
        let found = units("customer", &rows, &bills, &outcomes).unwrap();
        let shown: Vec<String> = found
            .values()
            .map(|u| {
                format!(
                    "{}: {} + {} = {}, open {}",
                    u.name, u.models_usd, u.harness_usd, u.total_usd, u.unbilled_usd
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ": 1 + 0.625 = 1.625, open 1",
                "x: 3.5 + 1.5 = 5, open 0",
                "y: 1 + 0.75 = 1.75, open 1"
            ]
        );
        let x = &found[&(0, "x".to_owned())];
        assert_eq!((x.per_accepted_usd, x.per_request_usd), (Some(usd("2.5")), each(usd("5"), 3)));
        assert_eq!(x.margin_usd, usd("5"));
        let all = together(found.values(), |_| ()).unwrap();
        assert_eq!((all[&()].total_usd, all[&()].requests), (usd("8.375"), 13));
    }

    #[test]
    fn who_is_used_or_listed_bills_for_models() {
        let used = BTreeSet::from(["openrouter".to_owned()]);
        let named = ["openai", "openrouter", "aws"].map(|name| bills_for_models(name, &used));
        assert_eq!(named, [true, true, false]);
        assert!(!bills_for_models("openrouter", &BTreeSet::new()));
    }

    proptest! {
        #[test]
        fn units_add_up_to_what_was_charged_and_billed(
            rows in prop::collection::vec((0_i64..3, "[xy]?", "[ab]?", 0_i64..1_000_000, 0_u64..9), 0..12),
            lines in prop::collection::vec((0_i64..3, any::<bool>(), "[xy]?", "[ab]?", 0_i64..1_000_000, 0_i64..1_000_000), 0..12),
        ) {
            let named = |x: &str, a: &str| {
                let names = [("customer", x), ("app", a)];
                owner(&names.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
            };
            let usage: Vec<Usage> = rows.iter().map(|(bucket, x, a, nanos, requests)| Usage {
                bucket: *bucket, owner: named(x, a), charged: Usd::from_nanos(*nanos), requests: *requests,
            }).collect();
            let bills: Vec<Bill> = lines.iter().map(|(bucket, models, x, a, billed, estimated)| Bill {
                bucket: *bucket,
                provider: if *models { "openrouter" } else { "aws" }.to_owned(),
                models: *models,
                owner: named(x, a),
                billed: Usd::from_nanos(*billed),
                estimated: Usd::from_nanos(*estimated),
                estimated_of_billed: Usd::from_nanos(if *models { *estimated } else { *estimated / 2 }),
            }).collect();
            let expected: i128 = usage.iter().map(|row| row.charged.pico()).sum::<i128>()
                + bills.iter().map(|bill| {
                    let open = bill.estimated.pico() - bill.estimated_of_billed.pico();
                    let less = if bill.models { bill.estimated_of_billed.pico() + open } else { 0 };
                    bill.billed.pico() + open - less
                }).sum::<i128>();
            let found = units("customer", &usage, &bills, &[]).unwrap();
            prop_assert_eq!(found.values().map(|unit| unit.total_usd.pico()).sum::<i128>(), expected);
        }
    }
}
