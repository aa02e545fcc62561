//! Shared budgets.

use std::collections::BTreeMap;

use serde_json::json;
use tallygate_shared::budget::terms::{BudgetTerms, Dimension, EACH, Raise, account_name};

use super::reports::page;
use super::{Answer, Api};
use crate::admin::bodies::TakenProposal;
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::objects::alerts_budgets::StandingsQuery;
use crate::objects::budget_calls::SyncCall;
use crate::objects::sql::Sql;

/// Accounts in a page, where no limit is asked for.
const DEFAULT_PAGE: usize = 50;

impl<S: Sql> Api<'_, S> {
    fn terms(&self, name: &str) -> Result<&BudgetTerms, Problem> {
        let terms = self.workspace.config().budgets.get(name);
        let terms = terms.filter(|terms| self.sees(&terms.owner));
        terms.ok_or_else(|| Problem::not_found("budget", name))
    }

    pub(super) fn budgets(&self) -> Answer {
        let all = self.workspace.config().budgets.iter();
        let seen: BTreeMap<_, _> = all.filter(|(_, terms)| self.sees(&terms.owner)).collect();
        Ok(Step::json(200, &json!(seen)))
    }

    pub(super) fn budget_standings(&self) -> Answer {
        let named = self.context.call.parameter("budget");
        let limit = self.context.call.parameter("limit").map(|text| page(&text)).transpose()?;
        let limit =
            limit.map_or(DEFAULT_PAGE, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let all = self.workspace.config().budgets.iter();
        let asked = |name: &String| named.as_ref().is_none_or(|asked| asked == name);
        let seen = all.filter(|(name, terms)| self.sees(&terms.owner) && asked(name));
        let budgets = seen.map(|(name, terms)| (name.clone(), terms.scope.clone())).collect();
        self.ask_alerts("budgets", json!(StandingsQuery { budgets, limit }).to_string())
    }

    pub(super) fn budget(&self, name: &str) -> Answer {
        Ok(Step::json(200, &json!(self.terms(name)?)))
    }

    pub(super) fn put_budget(&mut self, name: &str) -> Answer {
        let terms: BudgetTerms = self.context.call.body()?;
        self.edit(|config, _| {
            let body = json!(terms);
            config.budgets.insert(name.to_owned(), terms);
            Ok(body)
        })
    }

    pub(super) fn delete_budget(&mut self, name: &str) -> Answer {
        self.edit(|config, _| {
            config.budgets.remove(name).ok_or_else(|| Problem::not_found("budget", name))?;
            Ok(json!({}))
        })
    }

    /// Takes a proposal: the month's budget of this scope gets the limit, or is made.
    pub(super) fn take_proposal(&mut self) -> Answer {
        let taken: TakenProposal = self.context.call.body()?;
        let TakenProposal { dimension, value, limit_usd, owner } = taken;
        if dimension == Dimension::Workspace || value.trim().is_empty() || value == EACH {
            let remedy = "Name a team, feature, key, ... that a budget was proposed for.";
            return Err(Problem::field("value", "names none", remedy).into());
        }
        let owner = owner.unwrap_or_else(|| value.clone());
        let terms = json!({ "scope": { "dimension": dimension, "value": value }, "owner": owner,
                            "limit_usd": limit_usd });
        let fresh: BudgetTerms =
            serde_json::from_value(terms).map_err(|error| Problem::body("value", &error))?;
        self.edit(|config, _| {
            let same =
                |terms: &BudgetTerms| terms.scope == fresh.scope && terms.window == fresh.window;
            let known = config.budgets.iter_mut().find(|(_, terms)| same(terms));
            if let Some((name, terms)) = known {
                terms.limit_usd = fresh.limit_usd;
                return Ok(json!({ "name": name, "created": false, "terms": terms }));
            }
            let name = free_name(&config.budgets, dimension, &value);
            let body = json!({ "name": name, "created": true, "terms": fresh });
            config.budgets.insert(name, fresh);
            Ok(body)
        })
    }

    pub(super) fn raise_budget(&mut self, name: &str) -> Answer {
        let raise: Raise = self.context.call.body()?;
        if raise.until <= self.context.now {
            let remedy = "Give a time that is still to come.";
            return Err(Problem::field("until", "is over already", remedy).into());
        }
        self.edit(|config, _| {
            let terms = config.budgets.get_mut(name);
            let terms = terms.ok_or_else(|| Problem::not_found("budget", name))?;
            terms.raise = Some(raise);
            Ok(json!(terms))
        })
    }

    pub(super) fn end_raise(&mut self, name: &str) -> Answer {
        self.edit(|config, _| {
            let terms = config.budgets.get_mut(name);
            let terms = terms.ok_or_else(|| Problem::not_found("budget", name))?;
            if terms.raise.take().is_none() {
                let detail = format!("The budget `{name}` is not raised.");
                return Err(Problem::new(404, "not_found", detail));
            }
            Ok(json!(terms))
        })
    }

    pub(super) fn budget_status(&self, name: &str) -> Answer {
        let terms = self.terms(name)?;
        let workspace = self.workspace.id()?;
        let named = self.context.call.parameter("value");
        let value = match (terms.scope.dimension, terms.scope.value.as_str(), named) {
            (Dimension::Workspace, _, _) => workspace.as_str().to_owned(),
            (_, EACH, Some(value)) => value,
            (dimension, EACH, None) => {
                let detail = "is missing: each value has a budget of its own";
                let remedy = format!("Name the {} with ?value=.", dimension.name());
                return Err(Problem::field("value", detail, &remedy).into());
            }
            (_, fixed, Some(value)) if value != fixed => {
                let remedy = format!("This budget counts `{fixed}` only; leave `value` out.");
                return Err(
                    Problem::field("value", "is not in this budget's scope", &remedy).into()
                );
            }
            (_, fixed, _) => fixed.to_owned(),
        };
        let name = account_name(workspace, name, &value);
        let call = SyncCall {
            account: name.clone(),
            meter: String::new(),
            plan_version: self.workspace.version(),
            terms: Some(terms.clone()),
            reports: Vec::new(),
        };
        let call = serde_json::to_string(&call).unwrap_or_default();
        Ok(Step::Budget { name, call })
    }
}

/// The longest part of a name that is a value's: a budget's name has 128 characters at most.
const NAMED_CHARS: usize = 80;

/// `team-search`, or `team-search-2` where that is taken.
fn free_name(budgets: &BTreeMap<String, BudgetTerms>, dimension: Dimension, value: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.:@".contains(c) { c } else { '-' };
    let value: String = value.chars().take(NAMED_CHARS).map(plain).collect();
    let name = format!("{}-{value}", dimension.name());
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !budgets.contains_key(name)).unwrap_or(name)
}
