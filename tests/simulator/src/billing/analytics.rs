//! Anthropic's newer reports: rows of a day and a group, page by page, in cents as decimal text.

use std::collections::BTreeMap;

use serde::Serialize;

use super::anthropic::{CacheCreation, OTHER_COST, ServerToolUse, span, token_type};
use super::params::{Params, Plan};
use super::shape::{Field, Shape, text};
use crate::bills::{Bill, Line, Reason, key_id};
use crate::clock::Day;
use crate::money::cents;
use crate::quirks::Meter;

/// What rows are told apart by; a simulated use knows the first six, the others are null.
const DIMENSIONS: [&str; 14] = [
    "api_key_id",
    "context_window",
    "inference_geo",
    "model",
    "service_tier",
    "workspace_id",
    "actor",
    "actor_type",
    "agent_id",
    "organization_id",
    "product",
    "session_id",
    "speed",
    "user_profile_id",
];
/// What only costs are told apart by, beside.
const COST_DIMENSIONS: [&str; 2] = ["cost_type", "token_type"];
const MOST_DAYS: i64 = 31;
const MOST_GROUPS: usize = 5;

/// The values of the dimensions.
type Group = BTreeMap<&'static str, Option<String>>;

#[derive(Serialize)]
struct Page<T> {
    data: Vec<T>,
    has_more: bool,
    next_page: Option<String>,
    data_refreshed_at: String,
}

#[derive(Serialize)]
struct CostRow {
    starting_at: String,
    ending_at: String,
    group: Group,
    cost: Cost,
}

#[derive(Serialize)]
struct Cost {
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Field>,
    list_amount: Field,
    currency: &'static str,
    requests: Option<Field>,
}

#[derive(Serialize)]
struct UsageRow {
    starting_at: Field,
    ending_at: String,
    group: Group,
    usage: Usage,
}

#[derive(Serialize)]
struct Usage {
    uncached_input_tokens: Field,
    cache_read_input_tokens: Field,
    cache_creation: CacheCreation,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<Field>,
    total_tokens: Field,
    server_tool_use: ServerToolUse,
    requests: Field,
}

pub(crate) fn plan(
    costs: bool,
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, String> {
    params.only(&[
        "starting_at",
        "ending_at",
        "time_bucket_width",
        "group_by",
        "limit",
        "page",
        "api_key_ids",
        "workspace_ids",
        "models",
        "service_tiers",
    ])?;
    let more = if costs { &COST_DIMENSIONS[..] } else { &[] };
    let groups = params.groups(&[&DIMENSIONS[..], more].concat())?;
    if groups.iter().filter(|group| DIMENSIONS.contains(&group.as_str())).count() > MOST_GROUPS {
        return Err(format!("group_by: at most {MOST_GROUPS} dimensions"));
    }
    if params.one("time_bucket_width")? != Some("1d") {
        return Err("time_bucket_width: only 1d is kept here; say so".to_owned());
    }
    if params.one("ending_at")?.is_none() {
        return Err("ending_at: required with time_bucket_width".to_owned());
    }
    let span = span(params, today)?;
    if span.to.since(span.from) > MOST_DAYS || today.since(span.from) > 365 {
        return Err(format!("starting_at: at most {MOST_DAYS} days, none older than 365"));
    }
    let limit = params.limit(20, 1_000)?;
    Plan::of_rows(params, span, limit.min(page_size.unwrap_or(limit)))
}

fn wanted(plan: &Plan, line: &Line) -> bool {
    plan.wants("api_key_ids", Some(&key_id("anthropic", &line.credential)))
        && plan.wants("workspace_ids", line.project.as_deref())
        && plan.wants("models", Some(&line.model))
        && plan.wants("service_tiers", Some(&line.tier))
}

/// True when the rows are a filtered part, of which charges for the whole are none.
fn filtered(plan: &Plan) -> bool {
    let filters = ["api_key_ids", "workspace_ids", "models", "service_tiers"];
    filters.iter().any(|filter| !plan.wants(filter, None))
}

/// The group of a line: what was asked for has its value, all else is null.
fn group(plan: &Plan, line: &Line, costs: bool) -> Group {
    let of = |dimension: &str| match dimension {
        "api_key_id" => Some(key_id("anthropic", &line.credential)),
        "context_window" => Some("0-200k".to_owned()),
        "inference_geo" => Some("global".to_owned()),
        "model" => Some(line.model.clone()),
        "service_tier" => Some(line.tier.clone()),
        "workspace_id" => line.project.clone(),
        "cost_type" => Some("tokens".to_owned()),
        "token_type" => Some(token_type(line.meter).0.to_owned()),
        _ => None,
    };
    grouped(plan, costs, of)
}

fn grouped(plan: &Plan, costs: bool, of: impl Fn(&str) -> Option<String>) -> Group {
    let groups = plan.groups();
    let more = if costs { &COST_DIMENSIONS[..] } else { &[] };
    let value = |name: &&'static str| {
        let asked = groups.iter().any(|group| group == name);
        (*name, if asked { of(name) } else { None })
    };
    DIMENSIONS.iter().chain(more).map(value).collect()
}

/// The amount, what it was before discounts, and requests.
type Sums = (i128, i128, u64);

pub(crate) fn costs(plan: &Plan, bill: &Bill, mut shape: Shape, now: jiff::Timestamp) -> String {
    let groups = plan.groups();
    let by_part = groups.iter().any(|group| COST_DIMENSIONS.contains(&group.as_str()));
    let mut found: BTreeMap<(Day, Group), Sums> = BTreeMap::new();
    for line in bill.lines.iter().filter(|line| wanted(plan, line)) {
        let requests = if line.meter == Meter::Requests { line.count } else { 0 };
        let counted = matches!(line.meter, Meter::Requests | Meter::Reasoning);
        if !(counted && by_part) {
            let sums = found.entry((line.day, group(plan, line, true))).or_default();
            *sums = (sums.0 + line.amount, sums.1 + line.amount, sums.2 + requests);
        }
    }
    for charge in bill.charges.iter().filter(|_| !filtered(plan)) {
        let of = |name: &str| (name == "cost_type").then(|| OTHER_COST.to_owned());
        let sums = found.entry((charge.day, grouped(plan, true, of))).or_default();
        let listed = if charge.reason == Reason::Discount { 0 } else { charge.amount };
        *sums = (sums.0 + charge.amount, sums.1 + listed, sums.2);
    }
    let (rows, next) = plan.rows(found.into_iter().collect(), shape.repeated_cursor);
    let row = |((day, group), (amount, listed, requests)): ((Day, Group), Sums)| {
        let field = |shape: &Shape, pico| shape.text(cents(pico), cents(pico));
        let amount = field(&shape, amount);
        let cost = Cost {
            list_amount: field(&shape, listed),
            requests: (!by_part).then(|| shape.number(requests.to_string())),
            amount: shape.first(amount),
            currency: if shape.wrong_currency { "EUR" } else { "USD" },
        };
        CostRow { starting_at: day.rfc3339(), ending_at: day.plus(1).rfc3339(), group, cost }
    };
    page(rows.into_iter().map(row).collect(), next, now)
}

pub(crate) fn usage(plan: &Plan, bill: &Bill, mut shape: Shape, now: jiff::Timestamp) -> String {
    let mut found: BTreeMap<(Day, Group), BTreeMap<Meter, u64>> = BTreeMap::new();
    for line in bill.lines.iter().filter(|line| wanted(plan, line)) {
        let counts = found.entry((line.day, group(plan, line, false))).or_default();
        *counts.entry(line.meter).or_default() += line.count;
    }
    let (rows, next) = plan.rows(found.into_iter().collect(), shape.repeated_cursor);
    let row = |((day, group), counts): ((Day, Group), BTreeMap<Meter, u64>)| {
        let of = |meter| counts.get(&meter).copied().unwrap_or_default();
        let (write_5m, write_1h) = (of(Meter::CacheWrite5m), of(Meter::CacheWrite1h));
        let (input, read, output) = (of(Meter::Input), of(Meter::CacheRead), of(Meter::Output));
        let number = |shape: &Shape, count: u64| shape.number(count.to_string());
        let usage = Usage {
            uncached_input_tokens: number(&shape, input),
            cache_read_input_tokens: number(&shape, read),
            cache_creation: CacheCreation {
                ephemeral_5m_input_tokens: number(&shape, write_5m),
                ephemeral_1h_input_tokens: number(&shape, write_1h),
            },
            total_tokens: number(&shape, input + read + write_5m + write_1h + output),
            server_tool_use: ServerToolUse { web_search_requests: number(&shape, 0) },
            requests: number(&shape, of(Meter::Requests)),
            output_tokens: shape.first(number(&shape, output)),
        };
        let starting_at = shape.text(day.rfc3339(), day.unix().to_string());
        UsageRow { starting_at, ending_at: day.plus(1).rfc3339(), group, usage }
    };
    page(rows.into_iter().map(row).collect(), next, now)
}

fn page<T: Serialize>(data: Vec<T>, next_page: Option<String>, now: jiff::Timestamp) -> String {
    let has_more = next_page.is_some();
    text(&Page { data, has_more, next_page, data_refreshed_at: now.to_string() })
}
