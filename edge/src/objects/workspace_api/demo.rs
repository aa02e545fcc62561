//! Demo data: brought day by day as real data comes, and taken away with everything that the workspace is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;
use tallygate_shared::budget::terms::{Dimension, EACH, account_name};
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::feedback::{BudgetCorrection, BudgetSums, TrueUp};
use tallygate_shared::ids::KeyId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::key_plan::KeyStatus;
use tallygate_shared::time::Timestamp;

use super::corrections::Record;
use super::{Answer, Api};
use crate::admin::call::{Delivery, Step};
use crate::admin::problem::Problem;
use crate::demo::{DAYS, Demo, DemoKey, METER, is_demo};
use crate::objects::sql::{Sql, integer};
use crate::objects::workspace_object::Refused;

/// Which day is to be brought.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct FillDemo {
    /// Counted from 0. Bring them in order: a Ledger takes events in the order of their numbers.
    pub(crate) day: u32,
}

impl<S: Sql> Api<'_, S> {
    /// One day of the demo's month. The same day again changes nothing.
    pub(super) fn fill_demo(&self) -> Answer {
        let FillDemo { day } = self.context.call.body()?;
        if day >= DAYS {
            let remedy = format!("Give 0 to {}.", DAYS - 1);
            return Err(Problem::field("day", "is beyond the month", &remedy).into());
        }
        let demo = self.demo()?;
        if demo.keys.is_empty() {
            let detail = "Demo traffic comes through gateway keys: issue some first, each with a team in its actor.";
            return Err(Problem::new(409, "no_keys", detail).into());
        }
        let date = demo.date(day);
        let made = demo.day(day);
        let ledger = format!("{}:{:04}-{:02}", demo.workspace, date.year, date.month);
        let charged = self.charged_to_budgets(&demo, &made.events);
        let corrections = self.corrected_by_bills(&demo, &made.true_ups);
        if let Some(run) = &made.run {
            self.keep_run(run)?;
        }
        let events = made.events.len();
        let sent = made.outcomes.iter().enumerate();
        let sent: Vec<_> = sent
            .map(|(place, event)| json!({ "place": place, "dated": true, "event": event }))
            .collect();
        let to = |object, name: &str, method, payload: serde_json::Value| Delivery {
            object,
            name: name.to_owned(),
            method,
            payload: payload.to_string(),
        };
        let batch = json!({ "meter": METER, "events": made.events });
        let mut calls = vec![to("LEDGER", &ledger, "apply", batch)];
        if !made.true_ups.is_empty() {
            calls.push(to("LEDGER", &ledger, "trueUp", json!(made.true_ups)));
        }
        if !sent.is_empty() {
            calls.push(to("LEDGER", &ledger, "recordOutcomes", json!(sent)));
        }
        if !made.findings.is_empty() {
            calls.push(to("ALERTS", demo.workspace.as_str(), "findings", json!(made.findings)));
        }
        // A demo's month lies before its budgets, and is in their count all the same.
        let whole = BTreeMap::new();
        let charged = self.budget_calls(charged, &whole)?;
        let corrections = self.budget_calls(corrections, &whole)?;
        for correct in charged.calls.into_iter().chain(corrections.calls) {
            let (name, payload) = (correct.account, correct.payload);
            calls.push(Delivery { object: "BUDGET", name, method: "correct", payload });
        }
        if let (Some(run), false) = (&made.run, corrections.kept.is_empty()) {
            let record = json!(Record { at: run.ended_at, kept: corrections.kept });
            calls.push(to("WORKSPACE", demo.workspace.as_str(), "corrected", record));
        }
        let body = json!({ "done": day + 1, "of": DAYS, "events": events }).to_string();
        Ok(Step::Deliver { calls, body })
    }

    /// Takes the demo away: everything that its objects have stored, and the workspace itself.
    pub(super) fn remove_demo(&self) -> Answer {
        let demo = self.demo()?;
        let id = demo.workspace.as_str();
        let gone = |object, name: String| Delivery {
            object,
            name,
            method: "remove",
            payload: String::new(),
        };
        let config = self.workspace.config();
        let mut calls: Vec<Delivery> =
            config.keys.keys().map(|key| gone("METER", key.to_string())).collect();
        calls.extend(self.ledgers(None, None)?.into_iter().map(|name| gone("LEDGER", name)));
        let teams: BTreeSet<&str> =
            demo.keys.iter().filter_map(|key| key.team.as_deref()).collect();
        for (name, terms) in &config.budgets {
            let values: Vec<&str> = match (terms.scope.dimension, terms.scope.value.as_str()) {
                (Dimension::Workspace, _) => vec![id],
                (_, EACH) => teams.iter().copied().collect(),
                (_, value) => vec![value],
            };
            let accounts =
                values.into_iter().map(|value| account_name(&demo.workspace, name, value));
            calls.extend(accounts.map(|name| gone("BUDGET", name)));
        }
        calls
            .extend(["ALERTS", "TELEMETRY", "WORKSPACE"].map(|object| gone(object, id.to_owned())));
        let (object, name, method) = ("DIRECTORY", "directory".to_owned(), "forget");
        calls.push(Delivery { object, name, method, payload: id.to_owned() });
        Ok(Step::Deliver { calls, body: json!({ "removed": id }).to_string() })
    }

    fn demo(&self) -> Result<Demo, Refused> {
        let workspace = self.workspace.id()?.clone();
        if !is_demo(workspace.as_str()) {
            let detail = "Demo data goes into a demo workspace only, so that no real book is mixed with it. Create one with `demo: true`.";
            return Err(Problem::new(409, "not_a_demo", detail).into());
        }
        let rows = self.workspace.exec("SELECT value FROM meta WHERE name = 'demo_until'", &[])?;
        let until = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
        let keys = self.workspace.config().keys.iter();
        let keys = keys.filter(|(_, key)| key.status == KeyStatus::Active);
        let keys = keys.filter_map(|(id, key)| {
            Some(DemoKey {
                id: KeyId::parse(id.as_ref()).ok()?,
                name: key.name.clone(),
                owner: key.owner.clone(),
                cost_centre: key.cost_centre.clone(),
                purpose: key.purpose.clone(),
                environment: key.environment.clone(),
                team: key.actor.team.clone(),
            })
        });
        Ok(Demo { workspace, keys: keys.collect(), until: Timestamp::from_ms(until) })
    }

    /// What the day's bills change of that.
    fn corrected_by_bills(&self, demo: &Demo, lines: &[TrueUp]) -> Vec<BudgetCorrection> {
        let mut sums = BudgetSums::new(demo.workspace.as_str(), &self.workspace.config().budgets);
        for line in lines {
            // Demo amounts are far from what a sum holds.
            let _fits = sums.add(line);
        }
        sums.corrections()
    }

    /// What the day's requests count against budgets. Real ones count through their Meters; a demo has none running.
    fn charged_to_budgets(&self, demo: &Demo, events: &[UsageEvent]) -> Vec<BudgetCorrection> {
        let mut sums = BudgetSums::new(demo.workspace.as_str(), &self.workspace.config().budgets);
        for event in events {
            let actor = event.actor.claims().into_iter();
            let owner: BTreeMap<String, String> = actor
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
                .chain([("key".to_owned(), event.key.to_string())])
                .collect();
            let row = TrueUp {
                day: event.at.date().to_string(),
                provider: METER.to_owned(),
                line: String::new(),
                revision: 1,
                model: String::new(),
                meter: String::new(),
                kind: "usage".to_owned(),
                owner,
                estimated: Usd::ZERO,
                billed: Some(event.charged),
                quantity_variance: Usd::ZERO,
                price_variance: Usd::ZERO,
                provisional: false,
            };
            // Demo amounts are far from what a sum holds.
            let _fits = sums.add(&row);
        }
        sums.corrections()
    }
}
