//! OpenRouter's activity: dollars, as numbers, by day and model, for the last thirty completed days.

use std::collections::BTreeMap;

use serde::Serialize;

use super::params::{Params, Plan};
use super::shape::{Field, Shape, text};
use crate::bills::{Bill, key_id};
use crate::clock::{Day, Span};
use crate::money::dollars;
use crate::quirks::Meter;

const DAYS: i64 = 30;

#[derive(Serialize)]
struct Activity {
    data: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    date: Field,
    model: String,
    model_permaslug: String,
    endpoint_id: String,
    provider_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Field>,
    byok_usage_inference: Field,
    requests: Field,
    prompt_tokens: Field,
    completion_tokens: Field,
    reasoning_tokens: Field,
    cached_tokens: Field,
    workspace_id: Option<String>,
}

pub(crate) fn activity_plan(params: &Params, today: Day) -> Result<Plan, String> {
    params.only(&["date", "api_key_hash", "user_id", "group_by", "workspace_id"])?;
    let by = params.one("group_by")?;
    if by.is_some_and(|by| by != "workspace") {
        return Err("group_by: only `workspace`".to_owned());
    }
    let kept = Span { from: today.plus(-DAYS), to: today };
    let span = match params.one("date")? {
        None => kept,
        Some(text) => {
            let day = Day::parse(text)?;
            if !kept.has(day) {
                return Err("date: must be within the last 30 completed UTC days".to_owned());
            }
            Span { from: day, to: day.plus(1) }
        }
    };
    Plan::of_days(params, span, DAYS.unsigned_abs())
}

pub(crate) fn activity(plan: &Plan, bill: &Bill, mut shape: Shape) -> String {
    let by_workspace = !plan.groups().is_empty();
    let mut found: BTreeMap<_, (i128, BTreeMap<Meter, u64>)> = BTreeMap::new();
    for line in &bill.lines {
        let wanted = plan.wants("api_key_hash", Some(&key_id("openrouter", &line.credential)))
            && plan.wants("workspace_id", line.project.as_deref())
            && plan.wants("user_id", None);
        if wanted {
            let workspace = line.project.as_ref().filter(|_| by_workspace);
            let (amount, counts) = found.entry((line.day, &line.model, workspace)).or_default();
            *amount += line.amount;
            *counts.entry(line.meter).or_default() += line.count;
        }
    }
    let rows = found.into_iter().map(|((day, model, workspace), (amount, counts))| {
        let of = |meter| counts.get(&meter).copied().unwrap_or_default();
        let cached = of(Meter::CacheRead);
        let prompt = of(Meter::Input) + cached + of(Meter::CacheWrite5m) + of(Meter::CacheWrite1h);
        let number = |count: u64| shape.number(count.to_string());
        let row = Row {
            date: shape.text(day.to_string(), day.to_string().replace('-', "")),
            model: model.clone(),
            model_permaslug: model.clone(),
            endpoint_id: format!("endpoint-{model}"),
            provider_name: "Simulator",
            usage: None,
            byok_usage_inference: number(0),
            requests: number(of(Meter::Requests)),
            prompt_tokens: number(prompt),
            completion_tokens: number(of(Meter::Output)),
            reasoning_tokens: number(of(Meter::Reasoning)),
            cached_tokens: number(cached),
            workspace_id: workspace.cloned(),
        };
        let usage = shape.number(dollars(amount));
        Row { usage: shape.first(usage), ..row }
    });
    text(&Activity { data: rows.collect() })
}
