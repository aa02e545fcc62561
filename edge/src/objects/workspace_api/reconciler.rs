//! The reconciler's calls: what it reads, and what it brings. Who calls here has signed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tallygate_shared::budget::terms::{Dimension, account_name};
use tallygate_shared::feedback::{
    BudgetCorrection, ContextProvider, MAX_ITEMS, ReconcilerContext, ReconcilerFinding,
    ReconcilerSettings, TrueUp,
};
use tallygate_shared::money::{PICO_PER_NANO, Usd};
use tallygate_shared::time::{DAY_MS, Date};

use super::corrections::{Corrections, History, Kept, Record};
use super::{Answer, Api};
use crate::admin::call::{Correct, Step};
use crate::admin::problem::Problem;
use crate::dimensions::{TRUE_UP_DIMENSIONS, TRUE_UP_OWNER_DIMENSIONS};
use crate::objects::budget_calls::{CorrectCall, LineCorrection, SyncCall};
use crate::objects::ledger_true_ups::{ExportQuery, TrueUpsQuery};
use crate::objects::sql::Sql;
use crate::objects::workspace_object::Refused;
use crate::providers::catalog::bill_name;

/// Tolerances beyond these switch the alert off in all but name.
const MAX_TOLERANCE_PERCENT: u32 = 100;
/// Characters of a credential that its provider shows too, and the shortest credential they are shown of.
const HINT: usize = 4;
const SHORTEST_HINTED: usize = 20;
/// The most of one line: a trillion dollars, so that a million lines add up within 64 bits of thousandths.
const MOST_PICO: u128 = 1_000_000_000_000_000_000_000_000;
/// Longest name in a true-up, in bytes.
const MAX_NAME: usize = 512;

impl<S: Sql> Api<'_, S> {
    pub(super) fn put_reconciler_settings(&mut self) -> Answer {
        let settings: ReconcilerSettings = self.context.call.body()?;
        if settings.variance_tolerance_usd.is_negative() {
            let remedy = "Give an amount of 0 or more.";
            return Err(Problem::field("variance_tolerance_usd", "is negative", remedy).into());
        }
        if settings.variance_tolerance_percent > MAX_TOLERANCE_PERCENT {
            let remedy = "Give 0 to 100.";
            let field = "variance_tolerance_percent";
            return Err(Problem::field(field, "is more than the whole bill", remedy).into());
        }
        self.edit(|config, _| {
            let body = json!(settings);
            config.reconciler = settings;
            Ok(body)
        })
    }

    pub(super) fn reconciler_context(&self) -> Answer {
        let config = self.workspace.config();
        let context = ReconcilerContext {
            workspace: self.workspace.id()?.as_str().to_owned(),
            config_version: self.workspace.version(),
            providers: config
                .providers
                .iter()
                .map(|(name, provider)| {
                    let price_book = bill_name(&provider.kind).to_owned();
                    let credential_hint = self.credential_hint(name);
                    (name.clone(), ContextProvider { price_book, credential_hint })
                })
                .collect(),
            budgets: config.budgets.clone(),
            prices: config.prices.values().cloned().collect(),
            settings: config.reconciler.clone(),
        };
        Ok(Step::json(200, &json!(context)))
    }

    /// The end of a provider's credential. A short one is not shown in part: the rest could be guessed.
    fn credential_hint(&self, provider: &str) -> Option<String> {
        let sealed = self.workspace.secrets().credentials.get(provider)?;
        let context = self.context_of("provider", provider).ok()?;
        let plain = self.context.ring.open(sealed, &context).ok()?;
        let hint = plain.get(plain.len().checked_sub(HINT)?..)?;
        (plain.len() >= SHORTEST_HINTED).then(|| hint.to_owned())
    }

    pub(super) fn export_events(&self) -> Answer {
        self.export("export")
    }

    pub(super) fn export_outcomes(&self) -> Answer {
        self.export("export_outcomes")
    }

    fn export(&self, method: &'static str) -> Answer {
        let day = self.context.call.parameter("day").unwrap_or_default();
        let date = day_of("day", &day)?;
        let from = date.midnight();
        let after = self.context.call.parameter("after");
        let query = ExportQuery { from_ms: from.ms(), to_ms: from.plus_ms(DAY_MS).ms(), after };
        let ledger = self.ledger_of(date)?;
        Ok(Step::Export { ledger, method, payload: json!(query).to_string() })
    }

    fn ledger_of(&self, date: Date) -> Result<String, Problem> {
        Ok(format!("{}:{:04}-{:02}", self.workspace.id()?, date.year, date.month))
    }

    pub(super) fn bring_true_ups(&self) -> Answer {
        let lines: Vec<TrueUp> = self.items()?;
        let mut months = BTreeSet::new();
        for (place, line) in lines.iter().enumerate() {
            let date = day_of(&format!("[{place}].day"), &line.day)?;
            months.insert((date.year, date.month));
            let names = [&line.provider, &line.line, &line.model, &line.meter, &line.kind];
            if names.iter().any(|name| name.len() > MAX_NAME) {
                let field = format!("[{place}]");
                let remedy = "Keep each name below 512 bytes.";
                return Err(Problem::field(&field, "has a name that is too long", remedy).into());
            }
            let amounts = [
                ("estimated", line.estimated),
                ("billed", line.billed.unwrap_or_default()),
                ("quantity_variance", line.quantity_variance),
                ("price_variance", line.price_variance),
            ];
            let beyond = |(_, amount): &&(&str, Usd)| amount.pico().unsigned_abs() > MOST_PICO;
            if let Some((name, _)) = amounts.iter().find(beyond) {
                let remedy = "Send amounts of at most a trillion dollars.";
                let field = format!("[{place}].{name}");
                return Err(Problem::field(&field, "is too large", remedy).into());
            }
            let unknown = |name: &&String| !TRUE_UP_OWNER_DIMENSIONS.contains(&name.as_str());
            if let Some(name) = line.owner.keys().find(unknown) {
                let field =
                    format!("[{place}].owner.{}", crate::request::exchange::printable(name));
                let remedy = format!("Use {}.", TRUE_UP_OWNER_DIMENSIONS.join(", "));
                return Err(Problem::field(&field, "is no owner's dimension", &remedy).into());
            }
        }
        if months.len() > 1 {
            let remedy = "Send the lines of each month in a call of their own.";
            return Err(Problem::field("day", "is of several months", remedy).into());
        }
        let Some(line) = lines.first() else { return Ok(Step::json(200, &json!({ "taken": 0 }))) };
        let ledger = self.ledger_of(day_of("day", &line.day)?)?;
        Ok(Step::TrueUp { ledger, payload: json!(lines).to_string() })
    }

    pub(super) fn correct_budgets(&self) -> Answer {
        let corrections: Vec<BudgetCorrection> = self.items()?;
        let histories = self.histories(&corrections)?;
        let Corrections { calls, kept } = self.budget_calls(corrections, &histories)?;
        let record = json!(Record { at: self.context.now, kept }).to_string();
        Ok(Step::Correct { calls, name: self.workspace.id()?.to_string(), record })
    }

    /// What each Budget is to be told, and what is to be remembered of it. `histories`: how the terms of budgets came
    /// about. What a budget did not count on the line of now is in no count of it, so its bill corrects nothing there: it
    /// would give room that the cap does not have, or take room for money that was never counted. Neither does the bill
    /// of the day on which a count began, for nothing says how much of it came after.
    pub(super) fn budget_calls(
        &self,
        corrections: Vec<BudgetCorrection>,
        histories: &BTreeMap<String, History>,
    ) -> Result<Corrections, Refused> {
        let mut kept = Vec::with_capacity(corrections.len());
        let workspace = self.workspace.id()?;
        let mut calls: BTreeMap<String, CorrectCall> = BTreeMap::new();
        for (place, correction) in corrections.into_iter().enumerate() {
            let field = |name: &str| format!("[{place}].{name}");
            let day = day_of(&field("day"), &correction.day)?.midnight();
            // A budget that was removed meanwhile has nothing to correct.
            let Some(terms) = self.workspace.config().budgets.get(&correction.budget) else {
                kept.push(Kept::new(correction, Vec::new()));
                continue;
            };
            let value = match terms.scope.dimension {
                Dimension::Workspace => workspace.as_str(),
                _ => correction.value.as_str(),
            };
            if !terms.scope.covers(value) {
                kept.push(Kept::new(correction, Vec::new()));
                continue;
            }
            let noon = day.plus_ms(DAY_MS / 2);
            let history = histories.get(&correction.budget);
            if history.is_some_and(|history| !history.counted(terms, value, day)) {
                let window = terms.calendar().key(terms.window, noon);
                if !self.takes_back(&correction, &window)? {
                    continue;
                }
            }
            let nanos =
                tallygate_shared::money::div_half_even(correction.amount.pico(), PICO_PER_NANO);
            let units = i64::try_from(nanos).map_err(|_| {
                Problem::field(
                    &field("amount"),
                    "does not fit",
                    "Correct less than 9 billion dollars.",
                )
            })?;
            let account = account_name(workspace, &correction.budget, value);
            let call = calls.entry(account.clone()).or_insert_with(|| CorrectCall {
                terms: SyncCall {
                    account,
                    meter: String::new(),
                    plan_version: self.workspace.version(),
                    terms: Some(terms.clone()),
                    reports: Vec::new(),
                },
                corrections: Vec::new(),
            });
            let source = format!("{}#{}", correction.day, correction.source);
            let mut windows = Vec::new();
            for line in terms.money_lines(noon) {
                windows.extend(line.strip_prefix("usd:").map(str::to_owned));
                let (source, revision) = (source.clone(), correction.revision);
                call.corrections.push(LineCorrection { line, source, revision, units });
            }
            kept.push(Kept::new(correction, windows));
        }
        let call = |(account, call): (String, CorrectCall)| Correct {
            account,
            payload: serde_json::to_string(&call).unwrap_or_default(),
        };
        Ok(Corrections { calls: calls.into_iter().map(call).collect(), kept })
    }

    pub(super) fn bring_findings(&self) -> Answer {
        let findings: Vec<ReconcilerFinding> = self.items()?;
        let name = self.workspace.id()?.as_str().to_owned();
        Ok(Step::Findings { name, payload: json!(findings).to_string() })
    }

    /// The items of a call: a list, of no more than a call may have.
    pub(super) fn items<T: serde::de::DeserializeOwned>(&self) -> Result<Vec<T>, Problem> {
        let items: Vec<T> = self.context.call.body()?;
        if items.len() <= MAX_ITEMS {
            return Ok(items);
        }
        let detail = format!("has {} items", items.len());
        Err(Problem::field(".", detail, "Send at most 2000 in a call."))
    }

    pub(super) fn true_ups(&self) -> Answer {
        let mut query = TrueUpsQuery::default();
        let known = |name: &str| {
            TRUE_UP_DIMENSIONS.contains(&name) || TRUE_UP_OWNER_DIMENSIONS.contains(&name)
        };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => query.from = Some(day_of("from", &value).map(|_| value)?),
                "to" => query.to = Some(day_of("to", &value).map(|_| value)?),
                "group_by" => {
                    for part in value.split(',').filter(|part| !part.is_empty()) {
                        if !known(part) {
                            let names =
                                [&TRUE_UP_DIMENSIONS[..], &TRUE_UP_OWNER_DIMENSIONS[..]].concat();
                            let remedy = format!("Use one of {}.", names.join(", "));
                            let detail = "has an unknown dimension";
                            return Err(Problem::field("group_by", detail, &remedy).into());
                        }
                        query.group_by.push(part.to_owned());
                    }
                }
                _ => {
                    query.filters.insert(name, value);
                }
            }
        }
        let moment = |day: &Option<String>| {
            day.as_deref().and_then(Date::parse).map(|day| day.midnight().ms())
        };
        let names = self.billed_ledgers(moment(&query.from), moment(&query.to))?;
        Ok(Step::Ledgers { names, method: "true_ups", payload: json!(query).to_string() })
    }
}

/// A day of a call.
pub(super) fn day_of(field: &str, text: &str) -> Result<Date, Problem> {
    let remedy = "Give a day such as 2026-11-20.";
    Date::parse(text).ok_or_else(|| Problem::field(field, "is not a day", remedy))
}
