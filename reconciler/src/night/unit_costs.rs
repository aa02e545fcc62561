//! Unit economics of a month: what each customer, feature, ... cost, models and harness together, for each request and each
//! accepted outcome. From the books, and from the outcomes that the edge heard of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tallygate_shared::events::outcome::{OutcomeEvent, Verdict};
use tallygate_shared::feedback::ContextProvider;
use tallygate_shared::insights::unit::bills_for_models;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::economics::{CostRow, CostSide, OutcomeCount, UnitCost, economics, overall};
use super::{NightError, fits};
use crate::connectors::{Days, PullError};
use crate::edge::Edge;
use crate::focus::month::Month;
use crate::ledger::Revision;
use crate::ports::{LedgerStore, StoreError};

/// The dimensions that a report is made for.
pub const DIMENSIONS: [&str; 4] = ["feature", "customer", "app", "team"];

/// A month's unit economics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCosts {
    /// The month, `YYYY-MM`.
    pub month: String,
    /// Everything together.
    pub overall: UnitCost,
    /// By dimension, by name.
    pub by: BTreeMap<String, Vec<UnitCost>>,
}

/// Why they cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UnitCostsFailed {
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The edge.
    #[error(transparent)]
    Edge(#[from] PullError),
    /// The sums.
    #[error(transparent)]
    Night(#[from] NightError),
}

/// The month's unit economics, up to yesterday.
pub async fn of_month(
    workspace: &str,
    month: Month,
    now: Timestamp,
    edge: &Edge<'_>,
    ledger: &dyn LedgerStore,
) -> Result<UnitCosts, UnitCostsFailed> {
    let mut outcomes = Vec::new();
    let days = Days { from: month.start().date(), to: month.end().date() };
    for day in days.each().take_while(|day| day.midnight() < now) {
        outcomes.extend(edge.outcomes(day).await?);
    }
    let mut rows = Vec::new();
    for unit in ledger.units(workspace, &month.to_string()).await? {
        rows.extend(ledger.newest(&unit).await?);
    }
    let context = edge.context().await?;
    Ok(of(month, &context.providers, &rows, &outcomes)?)
}

/// The same, from what was read. `providers`: the workspace's.
pub fn of(
    month: Month,
    providers: &BTreeMap<String, ContextProvider>,
    rows: &[Revision],
    outcomes: &[OutcomeEvent],
) -> Result<UnitCosts, NightError> {
    let estimated = rows.iter().filter(|row| row.content.estimated != Usd::ZERO);
    let estimated = estimated.map(|row| row.unit.provider.clone());
    let configured = providers.values().map(|provider| provider.price_book.clone());
    let used: BTreeSet<String> = estimated.chain(configured).collect();
    let costs: Vec<CostRow<'_>> = rows
        .iter()
        .map(|row| CostRow {
            side: match bills_for_models(&row.unit.provider, &used) {
                true => CostSide::Models,
                false => CostSide::Harness,
            },
            line: &row.line,
            content: &row.content,
        })
        .collect();
    let counts = counts(outcomes)?;
    let mut by = BTreeMap::new();
    for dimension in DIMENSIONS {
        by.insert(dimension.to_owned(), economics(&costs, &counts, dimension)?);
    }
    Ok(UnitCosts { month: month.to_string(), overall: overall(&costs, &counts)?, by })
}

fn counts(outcomes: &[OutcomeEvent]) -> Result<Vec<OutcomeCount>, NightError> {
    let mut counts: BTreeMap<BTreeMap<String, String>, OutcomeCount> = BTreeMap::new();
    for outcome in outcomes {
        let owner = owner_of(outcome);
        let count = counts
            .entry(owner.clone())
            .or_insert_with(|| OutcomeCount { owner, ..OutcomeCount::default() });
        match outcome.outcome {
            Verdict::Accepted => {
                count.accepted += 1;
                let value = outcome.value_usd.unwrap_or_default();
                count.value = fits(count.value.checked_add(value), "outcomes")?;
            }
            Verdict::Rejected => count.rejected += 1,
        }
    }
    Ok(counts.into_values().collect())
}

fn owner_of(outcome: &OutcomeEvent) -> BTreeMap<String, String> {
    let actor = &outcome.actor;
    let fields = [
        ("user", actor.user.as_deref()),
        ("team", actor.team.as_deref()),
        ("app", actor.app.as_deref()),
        ("feature", actor.feature.as_deref()),
        ("agent", actor.agent.as_deref()),
        ("customer", actor.customer.as_deref()),
        ("environment", actor.environment.as_deref().or(Some(&outcome.environment))),
        ("key", Some(outcome.key.as_str())),
        ("owner", Some(&outcome.owner)),
        ("cost_centre", Some(&outcome.cost_centre)),
    ];
    let known = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::{ChargeKind, Meter};
    use crate::ledger::{Content, LineId, UnitId};

    fn row(provider: &str, estimated: &str, billed: &str) -> Revision {
        let unit = UnitId {
            workspace: "acme".into(),
            day: "2026-11-20".into(),
            provider: provider.into(),
        };
        let line = LineId {
            account: String::new(),
            model: "m".into(),
            meter: Meter::Whole,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner: BTreeMap::new(),
        };
        let (estimated, billed) = (estimated.parse().unwrap(), billed.parse().ok());
        let content = Content { estimated, billed, ..Content::default() };
        let (cause, run) = ("first".into(), String::new());
        Revision { unit, line, rev: 1, seq: 1, cause, run, booked_in: None, content }
    }

    #[test]
    fn what_the_gateway_uses_is_no_harness_listed_or_not() {
        let rows = [
            row("openai", "1", "1"),
            row("openrouter", "10", "11"),
            row("azure", "0", "100"),
            row("vercel", "0", "1000"),
        ];
        let azure = ContextProvider { price_book: "azure".into(), credential_hint: None };
        let providers = BTreeMap::from([("foundry".to_owned(), azure)]);
        let month = Month::parse("2026-11").unwrap();
        let overall = of(month, &providers, &rows, &[]).unwrap().overall;
        let shown = [overall.models, overall.harness].map(|it| it.to_string());
        assert_eq!(shown, ["112", "1000"]);
    }
}
