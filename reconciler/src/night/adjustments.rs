//! What a bill has beside metered use of models: taxes, discounts, fees, seats, credits, refunds, and the costs of the
//! harness around the models. Each kind keeps lines of its own.

use std::collections::BTreeMap;

use super::allocate::divide;
use super::explain::Extra;
use super::outcome::Options;
use super::units::tier_name;
use super::{NightError, fits};
use crate::bill::{BillLine, ChargeKind, Meter};
use crate::ledger::LineId;

/// An owner: dimension and value.
pub(super) type Owner = BTreeMap<String, String>;

/// The owner that a line's tags name. Empty when they name none.
fn tagged_owner(line: &BillLine, options: &Options) -> Owner {
    let named = options.tag_owners.iter().filter_map(|(tag, dimension)| {
        let value = line.tags.get(tag).filter(|value| !value.is_empty())?;
        Some((dimension.clone(), value.clone()))
    });
    named.collect()
}

/// What lines of one row add up to.
#[derive(Default)]
struct Sum {
    billed: i128,
    list: i128,
    seats: Option<i128>,
    provisional: bool,
}

/// Rows for lines that no estimate is behind: an owner's where tags name one; else shared among `owners` in proportion
/// to what was billed to each, where the kind is one of those; else nobody's.
pub(super) fn adjust(
    lines: &[&BillLine],
    owners: &BTreeMap<Owner, u128>,
    options: &Options,
) -> Result<Vec<Extra>, NightError> {
    let mut sums: BTreeMap<(LineId, bool), Sum> = BTreeMap::new();
    for line in lines {
        let owner = tagged_owner(line, options);
        // Use is never shared out: what it belongs to is a matter of matching.
        let shared = owner.is_empty()
            && line.kind != ChargeKind::Usage
            && options.shared_kinds.contains(&line.kind);
        let id = LineId {
            account: line.account.clone(),
            model: line.model.clone().unwrap_or_else(|| line.service.clone()),
            meter: Meter::Whole,
            tier: tier_name(line.tier.as_deref().unwrap_or("")).to_owned(),
            kind: line.kind,
            owner,
        };
        let sum = sums.entry((id, shared)).or_default();
        sum.billed = fits(sum.billed.checked_add(line.amount.pico()), "billed")?;
        let list = line.before_discounts().pico();
        sum.list = fits(sum.list.checked_add(list), "list amounts")?;
        // Of what is counted beside use only seats have a unit that is known.
        if let Some(seats) = line.quantity.filter(|_| line.kind == ChargeKind::Seat) {
            let counted = sum.seats.unwrap_or(0).checked_add(seats.pico());
            sum.seats = Some(fits(counted, "seats")?);
        }
        sum.provisional |= line.provisional;
    }
    let weights: Vec<u128> = owners.values().copied().collect();
    let mut rows = Vec::new();
    for ((line, shared), sum) in sums {
        let Sum { billed, list, seats, provisional } = sum;
        let split = |total: i128| if shared { divide(total, &weights) } else { None };
        let Some((parts, lists)) = split(billed).zip(split(list)) else {
            let method = if line.owner.is_empty() { "unowned" } else { "tag" };
            rows.push(Extra { line, billed, list, quantity: seats, method, provisional });
            continue;
        };
        let seats = seats.and_then(split);
        for (at, ((owner, billed), list)) in owners.keys().zip(parts).zip(lists).enumerate() {
            let quantity = seats.as_ref().and_then(|seats| seats.get(at)).copied();
            if (billed, list, quantity.unwrap_or(0)) != (0, 0, 0) {
                let line = LineId { owner: owner.clone(), ..line.clone() };
                let method = "proportional";
                rows.push(Extra { line, billed, list, quantity, method, provisional });
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::Quantity;
    use proptest::prelude::*;
    use serde_json::json;
    use tallygate_shared::money::Usd;

    fn line(kind: &str, amount: &str, tags: serde_json::Value) -> BillLine {
        serde_json::from_value(
            json!({"provider": "p", "account": "a", "start": 0, "end": 1, "kind": kind,
            "service": "S", "description": "", "meter": "whole", "amount": amount, "tags": tags}),
        )
        .unwrap()
    }

    fn owner(user: &str) -> Owner {
        Owner::from([("user".to_owned(), user.to_owned())])
    }

    fn options() -> Options {
        Options {
            tag_owners: BTreeMap::from([("app-tag".to_owned(), "app".to_owned())]),
            ..Options::default()
        }
    }

    fn told(lines: &[BillLine], owners: &[(&str, u128)]) -> Vec<String> {
        let owners = owners.iter().map(|(user, weight)| (owner(user), *weight)).collect();
        let rows = adjust(&lines.iter().collect::<Vec<_>>(), &owners, &options()).unwrap();
        let text = |row: &Extra| {
            let owner: Vec<String> =
                row.line.owner.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let amount = Usd::from_pico(row.billed);
            format!("{:?} {} {} {}", row.line.kind, owner.join(","), row.method, amount)
        };
        rows.iter().map(text).collect()
    }

    #[test]
    fn kinds_are_shared_tagged_or_nobodys() {
        let none = json!({});
        let lines = [
            line("tax", "3", none.clone()),
            line("tax", "1", none.clone()),
            line("discount", "-0.5", none.clone()),
            line("credit", "-7", none.clone()),
            line("seat", "20", none.clone()),
            line("purchase", "5", json!({"app-tag": "shop"})),
            line("usage", "2", json!({"app-tag": "shop"})),
            line("usage", "4", json!({"app-tag": "", "other": "x"})),
        ];
        assert_eq!(
            told(&lines, &[("ann", 1), ("bob", 3), ("cy", 0)]),
            [
                "Usage  unowned 4",
                "Usage app=shop tag 2",
                "Purchase app=shop tag 5",
                "Seat  unowned 20",
                "Tax user=ann proportional 1",
                "Tax user=bob proportional 3",
                "Discount user=ann proportional -0.125",
                "Discount user=bob proportional -0.375",
                "Credit  unowned -7",
            ]
        );
        assert_eq!(told(&[line("tax", "3", none)], &[("ann", 0)]), ["Tax  unowned 3"]);
    }

    #[test]
    fn a_row_keeps_the_tier_the_seats_and_what_came_before_discounts() {
        let none = json!({});
        let mut seats = line("seat", "19", none.clone());
        seats.quantity = Some(Quantity::whole(2));
        seats.list_amount = Some("21".parse().unwrap());
        let mut bought = line("purchase", "100", none.clone());
        (bought.tier, bought.quantity) = (Some("prepaid".into()), Some(Quantity::whole(9)));
        let lines = [seats, bought, line("purchase", "5", none)];
        let shared = Options { shared_kinds: [ChargeKind::Seat].into(), ..Options::default() };
        let owners = BTreeMap::from([(owner("ann"), 3), (owner("bob"), 1)]);
        let rows = adjust(&lines.iter().collect::<Vec<_>>(), &owners, &shared).unwrap();
        let told = |row: &Extra| {
            let quantity = row.quantity.map(|seats| Quantity::from_pico(seats).to_string());
            let amounts = [row.billed, row.list].map(|pico| Usd::from_pico(pico).to_string());
            (row.line.tier.clone(), amounts.join(" "), quantity.unwrap_or_default())
        };
        let expected = [
            ("prepaid", "100 100", ""),
            ("standard", "5 5", ""),
            ("standard", "14.25 15.75", "1.5"),
            ("standard", "4.75 5.25", "0.5"),
        ];
        let text = |(tier, amounts, seats): (&str, &str, &str)| {
            (tier.to_owned(), amounts.to_owned(), seats.to_owned())
        };
        assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), expected.map(text));
    }

    proptest! {
        #[test]
        fn rows_add_up_to_the_lines(
            lines in prop::collection::vec((0..9_usize, any::<i64>(), any::<bool>()), 0..20),
            weights in prop::collection::vec(any::<u64>(), 0..6),
        ) {
            let kinds = ["usage", "purchase", "seat", "minimum_fee", "tax", "discount", "credit", "refund", "adjustment"];
            let lines: Vec<BillLine> = lines.iter().map(|(kind, pico, tagged)| {
                let tags = if *tagged { json!({"app-tag": "x"}) } else { json!({}) };
                line(kinds[*kind], &Usd::from_pico(i128::from(*pico)).to_string(), tags)
            }).collect();
            let owners = weights.iter().enumerate().map(|(at, w)| (owner(&at.to_string()), u128::from(*w))).collect();
            let rows = adjust(&lines.iter().collect::<Vec<_>>(), &owners, &options()).unwrap();
            let sum = |kind| lines.iter().filter(|l| l.kind == kind).map(|l| l.amount.pico()).sum::<i128>();
            for kind in lines.iter().map(|l| l.kind) {
                let rows: i128 = rows.iter().filter(|r| r.line.kind == kind).map(|r| r.billed).sum();
                prop_assert_eq!(rows, sum(kind));
            }
        }
    }
}
