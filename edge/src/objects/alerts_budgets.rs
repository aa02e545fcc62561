//! How budgets stand, as the Alerts object last heard of them: it knows the accounts of all values, so it can say which
//! are the fullest without a call of each.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::alerts::detect::BudgetSnapshot;
use tallygate_shared::budget::terms::Scope;

use super::alerts_object::AlertsObject;
use super::sql::Sql;

/// Which accounts to list, the fullest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingsQuery {
    /// Of these budgets: those that there are, and that the caller sees, with what each is of. An account of what a
    /// budget was of before is none of it.
    pub budgets: BTreeMap<String, Scope>,
    /// How many.
    pub limit: usize,
}

impl<S: Sql> AlertsObject<S> {
    /// The fullest accounts.
    pub(super) fn standings(&self, query: &StandingsQuery) -> Value {
        let is_of = |account: &BudgetSnapshot, scope: &Scope| {
            account.dimension.is_none_or(|dimension| dimension == scope.dimension)
                && scope.covers(&account.value)
        };
        let asked = self.state.budgets();
        let asked =
            asked.filter(|it| query.budgets.get(&it.budget).is_some_and(|scope| is_of(it, scope)));
        let mut all: Vec<(i128, &BudgetSnapshot)> =
            asked.filter_map(|account| Some((account.percent(self.now)?, account))).collect();
        all.sort_by_key(|(percent, account)| (Reverse(*percent), &account.budget, &account.value));
        let row = |(percent, account): &(i128, &BudgetSnapshot)| {
            json!({ "budget": account.budget, "value": account.value, "owner": account.owner,
                    "limit_usd": account.limit, "spent_usd": account.spent, "held_usd": account.held,
                    "percent": u32::try_from(*percent).unwrap_or(u32::MAX), "at": account.at.to_string() })
        };
        let data: Vec<Value> = all.iter().take(query.limit).map(row).collect();
        json!({ "data": data, "all": all.len() })
    }
}
