//! What a request, an accepted outcome, a customer or a feature costs: models and harness together, exact sums, each
//! quotient rounded once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallygate_shared::money::Usd;

use super::allocate::{divide, scale_half_even};
use super::{NightError, fits};
use crate::ledger::{Content, LineId};

/// Which side of the cost of an application a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostSide {
    /// A model provider's bill, with the taxes and discounts on it.
    Models,
    /// What runs around the models.
    Harness,
}

/// A row of the books, seen as a cost.
#[derive(Clone, Copy, Debug)]
pub struct CostRow<'a> {
    /// Its side.
    pub side: CostSide,
    /// The line.
    pub line: &'a LineId,
    /// What it says.
    pub content: &'a Content,
}

/// What came of the work of one owner, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCount {
    /// Whose, as in [`LineId::owner`].
    pub owner: BTreeMap<String, String>,
    /// Outcomes that were accepted.
    pub accepted: u64,
    /// Outcomes that were rejected.
    pub rejected: u64,
    /// What the accepted ones were worth, as far as it was said.
    pub value: Usd,
}

/// The economics of one value of a dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCost {
    /// The customer, feature, ... Empty for what has none.
    pub name: String,
    /// Billed by model providers; estimated where there is no bill yet.
    pub models: Usd,
    /// The part of the harness.
    pub harness: Usd,
    /// Both together.
    pub total: Usd,
    /// The part of the total that is an estimate still.
    pub unbilled: Usd,
    /// Requests.
    pub requests: u64,
    /// Accepted outcomes.
    pub accepted: u64,
    /// Rejected outcomes.
    pub rejected: u64,
    /// What the outcomes were worth.
    pub value: Usd,
    /// The total for each request, rounded half to even to the picodollar. `None` without requests.
    pub per_request: Option<Usd>,
    /// The total, rejected work included, for each accepted outcome. `None` without one.
    pub per_accepted: Option<Usd>,
    /// The total for each outcome. `None` without one.
    pub per_outcome: Option<Usd>,
    /// The value less the total.
    pub margin: Usd,
}

/// The economics of everything: one unit cost, named by nothing.
pub fn overall(rows: &[CostRow<'_>], outcomes: &[OutcomeCount]) -> Result<UnitCost, NightError> {
    let mut units = economics(rows, outcomes, "")?;
    Ok(units.pop().unwrap_or_default())
}

/// The economics by one owner dimension (`customer`, `feature`, `app`, ...), sorted by name. A harness row that knows its
/// owner but not in this dimension (an app's database, asked by customer) is shared among the names that its owner's
/// use of models has, in proportion to what that cost, else to its requests. What remains without a name is under "".
/// The totals add up to the rows, to the last digit.
pub fn economics(
    rows: &[CostRow<'_>],
    outcomes: &[OutcomeCount],
    dimension: &str,
) -> Result<Vec<UnitCost>, NightError> {
    let mut units: BTreeMap<&str, UnitCost> = BTreeMap::new();
    let mut shared: BTreeMap<&BTreeMap<String, String>, (i128, i128)> = BTreeMap::new();
    for row in rows {
        let (cost, unbilled) = cost_of(row.content);
        let owner = &row.line.owner;
        let name = owner.get(dimension);
        if row.side == CostSide::Harness && name.is_none() && !owner.is_empty() {
            let sums = shared.entry(owner).or_default();
            sums.0 = fits(sums.0.checked_add(cost), "harness")?;
            sums.1 = fits(sums.1.checked_add(unbilled), "harness")?;
            if row.content.requests > 0 {
                let unit = units.entry("").or_default();
                let requests = unit.requests.checked_add(row.content.requests);
                unit.requests = fits(requests, "requests")?;
            }
            continue;
        }
        let unit = units.entry(name.map_or("", String::as_str)).or_default();
        match row.side {
            CostSide::Models => add(&mut unit.models, cost)?,
            CostSide::Harness => add(&mut unit.harness, cost)?,
        }
        add(&mut unit.unbilled, unbilled)?;
        unit.requests = fits(unit.requests.checked_add(row.content.requests), "requests")?;
    }
    for (owner, (cost, unbilled)) in shared {
        for (name, cost, unbilled) in share(rows, owner, dimension, cost, unbilled)? {
            let unit = units.entry(name).or_default();
            add(&mut unit.harness, cost)?;
            add(&mut unit.unbilled, unbilled)?;
        }
    }
    for outcome in outcomes {
        let name = outcome.owner.get(dimension).map_or("", String::as_str);
        let unit = units.entry(name).or_default();
        unit.accepted = fits(unit.accepted.checked_add(outcome.accepted), "accepted")?;
        unit.rejected = fits(unit.rejected.checked_add(outcome.rejected), "rejected")?;
        add(&mut unit.value, outcome.value.pico())?;
    }
    units.into_iter().map(|(name, unit)| finished(name, unit)).collect()
}

/// What a row costs, and how much of that is an estimate.
fn cost_of(content: &Content) -> (i128, i128) {
    match content.billed {
        Some(billed) => (billed.pico(), 0),
        None => (content.estimated.pico(), content.estimated.pico()),
    }
}

fn add(to: &mut Usd, pico: i128) -> Result<(), NightError> {
    *to = fits(to.checked_add(Usd::from_pico(pico)), "cost")?;
    Ok(())
}

/// The names that an owner's use of models has, each with its part of a harness cost.
fn share<'a>(
    rows: &[CostRow<'a>],
    owner: &BTreeMap<String, String>,
    dimension: &str,
    cost: i128,
    unbilled: i128,
) -> Result<Vec<(&'a str, i128, i128)>, NightError> {
    let mut weights: BTreeMap<&str, (u128, u128)> = BTreeMap::new();
    let theirs =
        |line: &LineId| owner.iter().all(|(name, value)| line.owner.get(name) == Some(value));
    for row in rows.iter().filter(|row| row.side == CostSide::Models && theirs(row.line)) {
        let name = row.line.owner.get(dimension).map_or("", String::as_str);
        let weight = weights.entry(name).or_default();
        let cost = u128::try_from(cost_of(row.content).0).unwrap_or(0);
        weight.0 = fits(weight.0.checked_add(cost), "cost")?;
        weight.1 = fits(weight.1.checked_add(u128::from(row.content.requests)), "requests")?;
    }
    let money: Vec<u128> = weights.values().map(|weight| weight.0).collect();
    let requests: Vec<u128> = weights.values().map(|weight| weight.1).collect();
    let parts = |total| divide(total, &money).or_else(|| divide(total, &requests));
    let Some((costs, unbilled)) = parts(cost).zip(parts(unbilled)) else {
        return Ok(vec![("", cost, unbilled)]);
    };
    let parts = costs.into_iter().zip(unbilled);
    Ok(weights.into_keys().zip(parts).map(|(name, (cost, rest))| (name, cost, rest)).collect())
}

fn finished(name: &str, unit: UnitCost) -> Result<UnitCost, NightError> {
    let total = fits(unit.models.checked_add(unit.harness), "cost")?;
    let outcomes = fits(unit.accepted.checked_add(unit.rejected), "outcomes")?;
    // A quotient is no larger than what is divided, so it always fits.
    let per = |count: u64| {
        let divided = || scale_half_even(total.pico(), 1, u128::from(count)).map(Usd::from_pico);
        if count == 0 { None } else { divided() }
    };
    Ok(UnitCost {
        name: name.to_owned(),
        total,
        per_request: per(unit.requests),
        per_accepted: per(unit.accepted),
        per_outcome: per(outcomes),
        margin: fits(unit.value.checked_sub(total), "margin")?,
        ..unit
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::{ChargeKind, Meter};
    use proptest::prelude::*;

    fn owner(dimensions: &[(&str, &str)]) -> BTreeMap<String, String> {
        dimensions.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    type Kept = (CostSide, LineId, Content);

    fn row(side: CostSide, own: &[(&str, &str)], billed: Option<&str>, requests: u64) -> Kept {
        let line = LineId {
            account: "a".into(),
            model: "m".into(),
            meter: Meter::Whole,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner: owner(own),
        };
        let content = Content {
            estimated: "1".parse().unwrap(),
            requests,
            billed: billed.map(|usd| usd.parse().unwrap()),
            ..Content::default()
        };
        (side, line, content)
    }

    fn rows(kept: &[Kept]) -> Vec<CostRow<'_>> {
        kept.iter().map(|(side, line, content)| CostRow { side: *side, line, content }).collect()
    }

    fn shop() -> Vec<Kept> {
        use CostSide::{Harness, Models};
        vec![
            row(Models, &[("app", "shop"), ("customer", "acme")], Some("3"), 4),
            row(Models, &[("app", "shop"), ("customer", "brick")], Some("1"), 3),
            row(Models, &[("app", "blog")], None, 2),
            row(Models, &[("unmetered", "key")], Some("7"), 0),
            row(Harness, &[("app", "shop")], Some("2"), 0),
            row(Harness, &[("app", "idle")], Some("0.5"), 0),
            row(Harness, &[], Some("0.25"), 0),
        ]
    }

    fn told(dimension: &str, outcomes: &[OutcomeCount]) -> Vec<String> {
        let kept = shop();
        let units = economics(&rows(&kept), outcomes, dimension).unwrap();
        let text = |usd: Option<Usd>| usd.map_or("-".to_owned(), |usd| usd.to_string());
        let each = units.iter().map(|u| {
            let (request, accepted) = (text(u.per_request), text(u.per_accepted));
            format!("{}: {} + {} = {}, {request}, {accepted}", u.name, u.models, u.harness, u.total)
        });
        each.collect()
    }

    #[test]
    fn models_and_harness_are_one_cost() {
        assert_eq!(
            told("app", &[]),
            [
                ": 7 + 0.25 = 7.25, -, -",
                "blog: 1 + 0 = 1, 0.5, -",
                "idle: 0 + 0.5 = 0.5, -, -",
                "shop: 4 + 2 = 6, 0.857142857143, -",
            ]
        );
    }

    #[test]
    fn a_harness_that_knows_no_customer_follows_its_apps_customers() {
        let accepted = |customer: &str, accepted, rejected| OutcomeCount {
            owner: owner(&[("customer", customer)]),
            accepted,
            rejected,
            value: "10".parse().unwrap(),
        };
        assert_eq!(
            told(
                "customer",
                &[accepted("acme", 2, 5), accepted("brick", 0, 1), accepted("new", 1, 0)]
            ),
            [
                ": 8 + 0.75 = 8.75, 4.375, -",
                "acme: 3 + 1.5 = 4.5, 1.125, 2.25",
                "brick: 1 + 0.5 = 1.5, 0.5, -",
                "new: 0 + 0 = 0, -, 0",
            ]
        );
    }

    #[test]
    fn everything_together() {
        let kept = shop();
        let outcomes = [OutcomeCount { accepted: 4, rejected: 1, ..OutcomeCount::default() }];
        let all = overall(&rows(&kept), &outcomes).unwrap();
        assert_eq!((all.total.to_string(), all.unbilled.to_string()), ("14.75".into(), "1".into()));
        assert_eq!(all.requests, 9);
        assert_eq!(all.per_accepted.unwrap().to_string(), "3.6875");
        assert_eq!(all.per_outcome.unwrap().to_string(), "2.95");
        assert_eq!(all.margin.to_string(), "-14.75");
        assert_eq!(overall(&[], &[]).unwrap(), UnitCost::default());
    }

    proptest! {
        #[test]
        fn whatever_the_dimension_the_costs_add_up(
            made in prop::collection::vec((any::<bool>(), 0..4_usize, 0..4_usize, any::<Option<i64>>(), 0..5_u64), 0..30),
        ) {
            let kept: Vec<Kept> = made.iter().map(|(harness, app, customer, pico, requests)| {
                let names = ["", "x", "y", "z"];
                let mut own = Vec::new();
                if *app > 0 { own.push(("app", names[*app])); }
                if *customer > 0 { own.push(("customer", names[*customer])); }
                let side = if *harness { CostSide::Harness } else { CostSide::Models };
                let text = pico.map(|pico| Usd::from_pico(i128::from(pico)).to_string());
                row(side, &own, text.as_deref(), *requests)
            }).collect();
            let cost: i128 = kept.iter().map(|(_, _, content)| cost_of(content).0).sum();
            let unbilled: i128 = kept.iter().map(|(_, _, content)| cost_of(content).1).sum();
            let requests: u64 = kept.iter().map(|(_, _, content)| content.requests).sum();
            for dimension in ["app", "customer", "feature"] {
                let units = economics(&rows(&kept), &[], dimension).unwrap();
                prop_assert_eq!(units.iter().map(|u| u.total.pico()).sum::<i128>(), cost);
                prop_assert_eq!(units.iter().map(|u| u.unbilled.pico()).sum::<i128>(), unbilled);
                prop_assert_eq!(units.iter().map(|u| u.requests).sum::<u64>(), requests);
            }
            let all = overall(&rows(&kept), &[]).unwrap();
            prop_assert_eq!(all.total.pico(), cost);
        }
    }
}
