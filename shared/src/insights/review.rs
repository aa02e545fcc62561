//! A week on one page: what moved and why, what an outcome cost, what is new, what is near its cap; each with one
//! question to whoever answers for it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decompose::{Effects, decompose};
use super::each;
use super::review_text as text;
use super::traffic::Traffic;
use super::week::Week;
use crate::alerts::detect::BudgetSnapshot;
use crate::budget::terms::Dimension;
use crate::money::Usd;
use crate::time::Timestamp;

/// How many weeks before the week are looked at to say that something is new.
pub const WEEKS_BACK: i64 = 8;
/// Movers of one dimension, and outcomes.
const TOP: usize = 5;
/// New things, and budgets near their cap.
const MOST: usize = 20;
/// A budget is near its cap from this share on, in percent; what is held counts.
const NEAR_PERCENT: i128 = 80;
/// The dimensions that movers are looked for in.
const DIMENSIONS: [&str; 3] = ["team", "feature", "model"];
/// How the change is taken apart.
const METHOD: &str = "Shapley values of requests x model mix x tokens per request (of each kind) x price per token: \
    the mean over all orders in which the four can change, by largest remainder to the picodollar. What began or \
    ended this week is all requests. Amounts are as charged at the edge; bills may still correct them.";

/// Traffic of one group in the week, or in the week before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Movement {
    /// In the week, not before it.
    pub after: bool,
    /// The team; empty for none.
    pub team: String,
    /// The feature; empty for none.
    pub feature: String,
    /// Who answers for the key.
    pub owner: String,
    /// `provider/model`.
    pub model: String,
    /// The traffic.
    pub traffic: Traffic,
}

/// What became of a feature's work in the week, or in the week before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// In the week, not before it.
    pub after: bool,
    /// The feature; empty for none.
    pub feature: String,
    /// Accepted.
    pub accepted: u64,
    /// Accepted ones whose cost is not known.
    pub accepted_cost_unknown: u64,
    /// Rejected.
    pub rejected: u64,
    /// What the requests behind them were charged.
    pub cost_usd: Usd,
}

impl Judged {
    fn per_accepted(&self) -> Option<Usd> {
        each(self.cost_usd, self.accepted.checked_sub(self.accepted_cost_unknown)?)
    }
}

/// When something was first seen in the weeks that are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// `key`, `model`, `feature` or `owner`.
    pub dimension: String,
    /// Its name.
    pub name: String,
    /// When: the start of the hour.
    pub first: Timestamp,
    /// What it was charged in the week.
    pub charged_usd: Usd,
}

/// What the Ledgers say about two weeks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// Traffic.
    pub movements: Vec<Movement>,
    /// Outcomes.
    pub judged: Vec<Judged>,
    /// First sights.
    pub seen: Vec<Seen>,
}

/// A change of cost, and where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "CostChange"))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What it cost in the week before.
    pub before_usd: Usd,
    /// What it cost in the week.
    pub after_usd: Usd,
    /// The difference.
    pub change_usd: Usd,
    /// Where the difference comes from: four parts that add up to it.
    pub effects: Effects,
    /// Requests in the week before.
    pub requests_before: u64,
    /// Requests in the week.
    pub requests_after: u64,
}

/// What moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mover {
    /// `team`, `feature` or `model`.
    pub dimension: String,
    /// Its name; empty for what has none.
    pub name: String,
    /// Who answers for most of it.
    pub owner: String,
    /// How it changed.
    pub change: Change,
    /// What to ask its owner.
    pub question: String,
}

/// What an outcome cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OutcomeCost {
    /// The feature; empty for none.
    pub feature: String,
    /// Who answers for most of it.
    pub owner: String,
    /// Accepted in the week.
    pub accepted: u64,
    /// Those of them whose cost is not known.
    #[serde(default)]
    pub accepted_cost_unknown: u64,
    /// Rejected in the week.
    pub rejected: u64,
    /// What the requests behind them were charged.
    pub cost_usd: Usd,
    /// That, by the accepted ones whose cost is known; `None` where there are none.
    pub per_accepted_usd: Option<Usd>,
    /// The same in the week before.
    pub per_accepted_before_usd: Option<Usd>,
    /// How the feature's whole cost changed.
    pub change: Change,
    /// What to ask its owner.
    pub question: String,
}

/// Something that was not there in the eight weeks before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Novelty {
    /// `key`, `model`, `feature` or `owner`.
    pub dimension: String,
    /// Its name.
    pub name: String,
    /// The hour of its first request.
    pub first_seen: String,
    /// What it was charged in the week.
    pub charged_usd: Usd,
    /// What to ask about it.
    pub question: String,
}

/// A budget near its cap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NearCap {
    /// The budget.
    pub budget: String,
    /// The value that it counts for, where it has one for each.
    pub value: String,
    /// Who answers for it.
    pub owner: String,
    /// Spent.
    pub spent_usd: Usd,
    /// Set aside.
    pub held_usd: Usd,
    /// What may be spent.
    pub limit_usd: Usd,
    /// Spent and set aside, of the limit.
    pub percent: u32,
    /// How the cost of the team or feature that it is for changed, or of everything; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// What to ask its owner.
    pub question: String,
}

/// The review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "WeeklyReview"))]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// The week.
    pub week: Week,
    /// Its first day.
    pub from: String,
    /// The first day after it.
    pub to: String,
    /// Whether the week is over.
    pub complete: bool,
    /// How all of it changed.
    pub total: Change,
    /// What moved most, by team, feature and model.
    pub movers: Vec<Mover>,
    /// What outcomes cost, the worst first.
    pub outcomes: Vec<OutcomeCost>,
    /// What is new, the dearest first.
    pub new: Vec<Novelty>,
    /// How many new things there are, in the list or not.
    pub new_count: u64,
    /// Budgets near their cap, the fullest first, as they are now.
    pub near_cap: Vec<NearCap>,
    /// How changes are taken apart.
    pub method: String,
}

/// A review that has not heard of budgets yet, and the changes that may belong to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The tenant.
    pub workspace: String,
    /// The review so far.
    pub review: Review,
    /// Changes of teams and features, by name.
    pub changes: BTreeMap<Dimension, BTreeMap<String, Change>>,
}

/// Traffic by model, before and after.
pub(super) type Sides<'a> = [BTreeMap<&'a str, Traffic>; 2];

#[derive(Default)]
struct Moved<'a> {
    sides: Sides<'a>,
    owners: BTreeMap<&'a str, i128>,
}

impl<'a> Moved<'a> {
    fn add(&mut self, movement: &'a Movement) -> Option<()> {
        let [before, after] = &mut self.sides;
        let side = if movement.after { after } else { before };
        side.entry(&movement.model).or_default().add(&movement.traffic)?;
        let owner = self.owners.entry(&movement.owner).or_default();
        *owner = owner.checked_add(movement.traffic.charged.pico())?;
        Some(())
    }

    /// Who answers for most of it; of equals the first by name.
    fn owner(&self) -> String {
        let most = self.owners.iter().max_by_key(|(name, pico)| (**pico, Reverse(**name)));
        most.map_or("", |(name, _)| name).to_owned()
    }

    fn change(&self) -> Option<Change> {
        let [before, after] = &self.sides;
        let sums = |side: &BTreeMap<&str, Traffic>| {
            side.values().try_fold((Usd::ZERO, 0_u64), |(usd, requests), traffic| {
                Some((usd.checked_add(traffic.charged)?, requests.checked_add(traffic.requests)?))
            })
        };
        let ((before_usd, requests_before), (after_usd, requests_after)) =
            (sums(before)?, sums(after)?);
        let effects = decompose(
            before.iter().map(|(model, traffic)| (*model, traffic)),
            after.iter().map(|(model, traffic)| (*model, traffic)),
        )?;
        let change_usd = after_usd.checked_sub(before_usd)?;
        Some(Change { before_usd, after_usd, change_usd, effects, requests_before, requests_after })
    }
}

fn by<'a>(
    movements: &'a [Movement],
    name: impl Fn(&'a Movement) -> &'a str,
) -> Option<BTreeMap<&'a str, Moved<'a>>> {
    let mut groups: BTreeMap<&str, Moved<'_>> = BTreeMap::new();
    for movement in movements {
        groups.entry(name(movement)).or_default().add(movement)?;
    }
    Some(groups)
}

fn of<'m>(movement: &'m Movement, dimension: &str) -> &'m str {
    match dimension {
        "team" => &movement.team,
        "feature" => &movement.feature,
        _ => &movement.model,
    }
}

/// Makes the review from what the Ledgers say, all but the budgets. `None` when a sum does not fit.
pub fn draft(workspace: &str, week: Week, findings: &Findings, now: Timestamp) -> Option<Draft> {
    let movements = &findings.movements;
    let all = by(movements, |_| "")?;
    let total = all.get("").map_or(Some(Change::default()), Moved::change)?;
    let mut movers = Vec::new();
    let mut changes = BTreeMap::new();
    let mut features = BTreeMap::new();
    for dimension in DIMENSIONS {
        let mut found = Vec::new();
        for (name, moved) in by(movements, |movement| of(movement, dimension))? {
            let change = moved.change()?;
            let of_budgets = match dimension {
                "team" => Some(Dimension::Team),
                "feature" => Some(Dimension::Feature),
                _ => None,
            };
            if let Some(dimension) = of_budgets.filter(|_| !name.is_empty()) {
                let named: &mut BTreeMap<_, _> = changes.entry(dimension).or_default();
                named.insert(name.to_owned(), change);
            }
            if dimension == "feature" {
                features.insert(name.to_owned(), (change, moved.owner()));
            }
            let question = text::question(name, &change, &moved.sides);
            let (name, owner) = (name.to_owned(), moved.owner());
            found.push(Mover { dimension: dimension.to_owned(), name, owner, change, question });
        }
        found.retain(|mover| mover.change.change_usd != Usd::ZERO);
        found.sort_by_key(|mover| Reverse(mover.change.change_usd.pico().unsigned_abs()));
        found.truncate(TOP);
        movers.extend(found);
    }
    let (new, new_count) = novelties(week, &findings.seen)?;
    let review = Review {
        week,
        from: week.monday().to_string(),
        to: week.plus(1).monday().to_string(),
        complete: week.end() <= now,
        total,
        movers,
        outcomes: outcomes(&findings.judged, &features)?,
        new,
        new_count,
        near_cap: Vec::new(),
        method: METHOD.to_owned(),
    };
    Some(Draft { workspace: workspace.to_owned(), review, changes })
}

fn outcomes(
    judged: &[Judged],
    features: &BTreeMap<String, (Change, String)>,
) -> Option<Vec<OutcomeCost>> {
    let mut sums: BTreeMap<(&str, bool), Judged> = BTreeMap::new();
    for one in judged {
        let sum = sums.entry((&one.feature, one.after)).or_default();
        sum.accepted = sum.accepted.checked_add(one.accepted)?;
        sum.accepted_cost_unknown =
            sum.accepted_cost_unknown.checked_add(one.accepted_cost_unknown)?;
        sum.rejected = sum.rejected.checked_add(one.rejected)?;
        sum.cost_usd = sum.cost_usd.checked_add(one.cost_usd)?;
    }
    let mut found = Vec::new();
    for ((feature, after), sum) in &sums {
        if !after || sum.cost_usd == Usd::ZERO {
            continue;
        }
        let before = sums.get(&(*feature, false));
        let (change, owner) = features.get(*feature).cloned().unwrap_or_default();
        let mut one = OutcomeCost {
            feature: (*feature).to_owned(),
            owner,
            accepted: sum.accepted,
            accepted_cost_unknown: sum.accepted_cost_unknown,
            rejected: sum.rejected,
            cost_usd: sum.cost_usd,
            per_accepted_usd: sum.per_accepted(),
            per_accepted_before_usd: before.and_then(Judged::per_accepted),
            change,
            question: String::new(),
        };
        one.question = text::outcome_question(&one);
        found.push(one);
    }
    // What costs and brings nothing is the worst; of what brings something at unknown cost nothing can be said.
    found.sort_by_key(|one| {
        let none = if one.accepted == 0 { i128::MAX } else { 0 };
        let each = one.per_accepted_usd.map_or(none, Usd::pico);
        (Reverse(each), Reverse(one.cost_usd.pico()))
    });
    found.truncate(TOP);
    Some(found)
}

fn novelties(week: Week, seen: &[Seen]) -> Option<(Vec<Novelty>, u64)> {
    let mut sums: BTreeMap<(&str, &str), (Timestamp, Usd)> = BTreeMap::new();
    for one in seen {
        let fresh = (one.first, Usd::ZERO);
        let sum = sums.entry((&one.dimension, &one.name)).or_insert(fresh);
        sum.0 = sum.0.min(one.first);
        sum.1 = sum.1.checked_add(one.charged_usd)?;
    }
    let fresh =
        sums.into_iter().filter(|(_, (first, _))| (week.start()..week.end()).contains(first));
    let novelty =
        |((dimension, name), (first, charged_usd)): ((&str, &str), (Timestamp, Usd))| Novelty {
            dimension: dimension.to_owned(),
            name: name.to_owned(),
            first_seen: first.to_string(),
            charged_usd,
            question: text::new_question(dimension, name, charged_usd),
        };
    let mut new: Vec<Novelty> = fresh.map(novelty).collect();
    new.sort_by_key(|one| Reverse(one.charged_usd));
    let count = u64::try_from(new.len()).ok()?;
    new.truncate(MOST);
    Some((new, count))
}

impl Draft {
    /// The review, with the budgets that are near their cap now.
    pub fn finish<'b>(
        self,
        budgets: impl IntoIterator<Item = &'b BudgetSnapshot>,
        now: Timestamp,
    ) -> Review {
        let Self { mut review, changes, .. } = self;
        let near = budgets.into_iter().filter_map(|budget| {
            let percent = budget.percent(now).filter(|percent| *percent >= NEAR_PERCENT)?;
            Some((budget, percent))
        });
        let mut near: Vec<(&BudgetSnapshot, i128)> = near.collect();
        near.sort_by_key(|(budget, percent)| {
            (Reverse(*percent), budget.budget.clone(), budget.value.clone())
        });
        let whole = review.total;
        let near = near.into_iter().take(MOST).map(|(budget, percent)| NearCap {
            budget: budget.budget.clone(),
            value: budget.value.clone(),
            owner: budget.owner.clone(),
            spent_usd: budget.spent,
            held_usd: budget.held,
            limit_usd: budget.limit,
            percent: u32::try_from(percent).unwrap_or(u32::MAX),
            change: match budget.dimension {
                Some(Dimension::Workspace) => Some(whole),
                Some(other) => {
                    changes.get(&other).and_then(|named| named.get(&budget.value)).copied()
                }
                None => None,
            },
            question: text::cap_question(budget),
        });
        review.near_cap = near.collect();
        review
    }
}

impl Review {
    /// The same as Markdown, with links to the dashboard where its address is known.
    pub fn markdown(&self, workspace: &str, dashboard: Option<&str>) -> String {
        text::markdown(self, workspace, dashboard)
    }

    /// The body of a Standard Webhooks message.
    pub fn webhook_body(&self, workspace: &str, dashboard: Option<&str>, now: Timestamp) -> String {
        let data = serde_json::json!({
            "workspace": workspace, "review": self, "markdown": self.markdown(workspace, dashboard),
        });
        serde_json::json!({ "type": EVENT, "timestamp": now.to_string(), "data": data }).to_string()
    }

    /// The body for Slack's incoming webhooks.
    pub fn slack_body(&self, workspace: &str, dashboard: Option<&str>) -> String {
        text::slack_body(self, workspace, dashboard)
    }
}

/// The type of the message that carries a review.
pub const EVENT: &str = "review.weekly";

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
