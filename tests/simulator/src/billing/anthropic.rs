//! Anthropic's cost report (cents, as decimal text) and its usage report of messages.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde::Serialize;

use super::Endpoint;
use super::params::{Params, Plan};
use super::shape::{Field, Shape, text};
use crate::bills::{Bill, Line, key_id};
use crate::clock::{Day, Span};
use crate::money::cents;
use crate::quirks::Meter;

#[derive(Serialize)]
struct Page<T> {
    data: Vec<Bucket<T>>,
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Serialize)]
struct Bucket<T> {
    starting_at: String,
    ending_at: String,
    results: Vec<T>,
}

#[derive(Serialize)]
struct Cost {
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Field>,
    workspace_id: Option<String>,
    description: Option<String>,
    cost_type: Option<&'static str>,
    context_window: Option<&'static str>,
    model: Option<String>,
    service_tier: Option<String>,
    token_type: Option<&'static str>,
    inference_geo: Option<&'static str>,
}

/// The type of a cost that no token explains.
pub(crate) const OTHER_COST: &str = "session_usage";
const ANALYTICS_BETA: &str = "analytics-usage-cost-2026-08-24";

const COMMON: [&str; 6] = ["starting_at", "ending_at", "bucket_width", "group_by", "limit", "page"];

/// The headers that the reports ask for.
pub(crate) fn check_headers(endpoint: &Endpoint, headers: &HeaderMap) -> Result<(), String> {
    let analytics = matches!(endpoint, Endpoint::AnalyticsCosts | Endpoint::AnalyticsUsage);
    let beta = headers.get("anthropic-beta").and_then(|value| value.to_str().ok());
    if !headers.contains_key("anthropic-version") {
        return Err("anthropic-version: header is required".to_owned());
    }
    match !analytics || beta.is_some_and(|beta| beta.contains(ANALYTICS_BETA)) {
        true => Ok(()),
        false => Err(format!("anthropic-beta: {ANALYTICS_BETA} is required")),
    }
}

/// The days asked for.
pub(crate) fn span(params: &Params, today: Day) -> Result<Span, String> {
    let moment = |name: &str| {
        let parse = |text: &str| {
            text.parse::<jiff::Timestamp>().map_err(|_| format!("{name}: not RFC 3339"))
        };
        params.one(name)?.map(parse).transpose()
    };
    let start = moment("starting_at")?.ok_or("starting_at: Field required")?;
    let end = moment("ending_at")?;
    if end.is_some_and(|end| end <= start) {
        return Err("ending_at: must be after starting_at".to_owned());
    }
    let from = Day::of(start);
    let to =
        end.map_or(today.plus(1), |end| Day::of_unix(end.as_second().saturating_sub(1)).plus(1));
    // There are no buckets of days to come.
    Ok(Span { from, to: to.min(today.plus(1)).max(from) })
}

fn plan(params: &Params, today: Day, page_size: Option<u64>) -> Result<Plan, String> {
    params.days_only()?;
    let limit = params.limit(7, 31)?;
    Plan::of_days(params, span(params, today)?, limit.min(page_size.unwrap_or(limit)))
}

pub(crate) fn costs_plan(
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, String> {
    params.only(&COMMON)?;
    params.groups(&["workspace_id", "description"])?;
    plan(params, today, page_size)
}

pub(crate) fn usage_plan(
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, String> {
    let filters = ["api_key_ids", "workspace_ids", "models", "service_tiers"];
    params.only(&[&COMMON[..], &filters].concat())?;
    params.groups(&[
        "account_id",
        "api_key_id",
        "context_window",
        "inference_geo",
        "model",
        "service_account_id",
        "service_tier",
        "workspace_id",
    ])?;
    if params.one("bucket_width")?.is_none() {
        return Err("bucket_width: only 1d is kept here; say so".to_owned());
    }
    plan(params, today, page_size)
}

/// A model's name in the report's words: `Claude Haiku 4 5`.
fn title(model: &str) -> String {
    let words = model.split('-').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    words.collect::<Vec<String>>().join(" ")
}

pub(crate) fn token_type(meter: Meter) -> (&'static str, &'static str) {
    match meter {
        Meter::CacheRead => ("cache_read_input_tokens", "Input Tokens, Cache Read"),
        Meter::CacheWrite5m => {
            ("cache_creation.ephemeral_5m_input_tokens", "Input Tokens, Cache Write (5m)")
        }
        Meter::CacheWrite1h => {
            ("cache_creation.ephemeral_1h_input_tokens", "Input Tokens, Cache Write (1h)")
        }
        Meter::Output | Meter::Reasoning => ("output_tokens", "Output Tokens"),
        Meter::Input | Meter::Requests => ("uncached_input_tokens", "Input Tokens"),
    }
}

/// What a line of the report is told apart by: its workspace, its words, and where it is metered, what it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct CostKey {
    workspace: Option<String>,
    description: Option<String>,
    of: Option<(String, String, Meter)>,
}

fn cost_groups(plan: &Plan, bill: &Bill, day: Day) -> BTreeMap<CostKey, i128> {
    let groups = plan.groups();
    let grouped = |name: &str| groups.iter().any(|group| group == name);
    let (by_workspace, by_words) = (grouped("workspace_id"), grouped("description"));
    let mut found: BTreeMap<CostKey, i128> = BTreeMap::new();
    let billed =
        |line: &&Line| line.day == day && !matches!(line.meter, Meter::Reasoning | Meter::Requests);
    for line in bill.lines.iter().filter(billed) {
        let mut key = CostKey::default();
        if by_workspace {
            key.workspace.clone_from(&line.project);
        }
        if by_words {
            let batch = if line.tier == "batch" { ", Batch" } else { "" };
            let (name, words) = (title(&line.model), token_type(line.meter).1);
            key.description = Some(format!("{name} Usage{batch} - {words}"));
            key.of = Some((line.model.clone(), line.tier.clone(), line.meter));
        }
        *found.entry(key).or_default() += line.amount;
    }
    for charge in bill.charges.iter().filter(|charge| charge.day == day) {
        let description = by_words.then(|| charge.description.clone());
        *found.entry(CostKey { description, ..CostKey::default() }).or_default() += charge.amount;
    }
    found
}

pub(crate) fn costs(plan: &Plan, bill: &Bill, mut shape: Shape) -> String {
    let next = plan.cursor(shape.repeated_cursor);
    let mut cost = |(key, amount): (CostKey, i128)| {
        let (metered, by_words) = (key.of.is_some(), key.description.is_some());
        let (model, service_tier, meter) = match key.of {
            Some((model, tier, meter)) => (Some(model), Some(tier), Some(meter)),
            None => (None, None, None),
        };
        let amount = cents(amount);
        let amount = shape.text(amount.clone(), amount);
        Cost {
            currency: if shape.wrong_currency { "EUR" } else { "USD" },
            amount: shape.first(amount),
            workspace_id: key.workspace,
            description: key.description,
            cost_type: by_words.then_some(if metered { "tokens" } else { OTHER_COST }),
            context_window: metered.then_some("0-200k"),
            model,
            service_tier,
            token_type: meter.map(|meter| token_type(meter).0),
            inference_geo: metered.then_some("global"),
        }
    };
    page(plan, next, |day| cost_groups(plan, bill, day).into_iter().map(&mut cost).collect())
}

fn page<T: Serialize>(
    plan: &Plan,
    next_page: Option<String>,
    mut results: impl FnMut(Day) -> Vec<T>,
) -> String {
    let bucket = |day: Day| Bucket {
        starting_at: day.rfc3339(),
        ending_at: day.plus(1).rfc3339(),
        results: results(day),
    };
    let data = plan.window.days().map(bucket).collect();
    text(&Page { data, has_more: next_page.is_some(), next_page })
}

#[derive(Serialize)]
pub(crate) struct CacheCreation {
    pub(crate) ephemeral_5m_input_tokens: Field,
    pub(crate) ephemeral_1h_input_tokens: Field,
}

#[derive(Serialize)]
pub(crate) struct ServerToolUse {
    pub(crate) web_search_requests: Field,
}

#[derive(Serialize)]
struct Usage {
    uncached_input_tokens: Field,
    cache_creation: CacheCreation,
    cache_read_input_tokens: Field,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<Field>,
    server_tool_use: ServerToolUse,
    api_key_id: Option<String>,
    workspace_id: Option<String>,
    model: Option<Field>,
    service_tier: Option<String>,
    context_window: Option<&'static str>,
    inference_geo: Option<&'static str>,
    account_id: Option<String>,
    service_account_id: Option<String>,
}

/// Key, workspace, model and tier.
type UsageKey = [Option<String>; 4];

fn usage_groups(plan: &Plan, bill: &Bill, day: Day) -> BTreeMap<UsageKey, BTreeMap<Meter, u64>> {
    let groups = plan.groups();
    let by = |name: &str, value: Option<&String>| {
        groups.iter().any(|group| group == name).then(|| value.cloned()).flatten()
    };
    let mut found: BTreeMap<UsageKey, BTreeMap<Meter, u64>> = BTreeMap::new();
    for line in bill.lines.iter().filter(|line| line.day == day) {
        let key = key_id("anthropic", &line.credential);
        let wanted = plan.wants("api_key_ids", Some(&key))
            && plan.wants("workspace_ids", line.project.as_deref())
            && plan.wants("models", Some(&line.model))
            && plan.wants("service_tiers", Some(&line.tier));
        if wanted {
            let place = [
                by("api_key_id", Some(&key)),
                by("workspace_id", line.project.as_ref()),
                by("model", Some(&line.model)),
                by("service_tier", Some(&line.tier)),
            ];
            *found.entry(place).or_default().entry(line.meter).or_default() += line.count;
        }
    }
    found
}

pub(crate) fn usage(plan: &Plan, bill: &Bill, mut shape: Shape) -> String {
    let groups = plan.groups();
    let grouped = |name: &str| groups.iter().any(|group| group == name);
    let next = plan.cursor(shape.repeated_cursor);
    let mut result = |([key, workspace, model, tier], of): (UsageKey, BTreeMap<Meter, u64>)| {
        let count = |meter| shape.number(of.get(&meter).copied().unwrap_or_default().to_string());
        let (uncached, read, output) =
            (count(Meter::Input), count(Meter::CacheRead), count(Meter::Output));
        let (write_5m, write_1h) = (count(Meter::CacheWrite5m), count(Meter::CacheWrite1h));
        Usage {
            uncached_input_tokens: uncached,
            cache_creation: CacheCreation {
                ephemeral_5m_input_tokens: write_5m,
                ephemeral_1h_input_tokens: write_1h,
            },
            cache_read_input_tokens: read,
            server_tool_use: ServerToolUse { web_search_requests: shape.number("0".to_owned()) },
            output_tokens: shape.first(output),
            api_key_id: key,
            workspace_id: workspace,
            model: model.map(|model| shape.text(model, "5".to_owned())),
            service_tier: tier,
            context_window: grouped("context_window").then_some("0-200k"),
            inference_geo: grouped("inference_geo").then_some("global"),
            account_id: None,
            service_account_id: None,
        }
    };
    page(plan, next, |day| usage_groups(plan, bill, day).into_iter().map(&mut result).collect())
}
