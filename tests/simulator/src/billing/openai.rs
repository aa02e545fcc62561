//! OpenAI's organization costs (dollars, as numbers) and usage (token counts).

use std::collections::BTreeMap;

use serde::Serialize;

use super::params::{Params, Plan};
use super::shape::{Field, Shape, text};
use crate::bills::{Bill, Line, key_id};
use crate::clock::{Day, Span};
use crate::money::dollars;
use crate::quirks::Meter;

/// The kinds of usage; what the simulator does not serve is empty.
pub(crate) const KINDS: [&str; 11] = [
    "completions",
    "embeddings",
    "moderations",
    "images",
    "audio_speeches",
    "audio_transcriptions",
    "vector_stores",
    "code_interpreter_sessions",
    "file_search_calls",
    "web_search_calls",
    "decisions",
];

/// The project of keys of which a test said nothing.
pub(crate) const PROJECT: &str = "proj_sim";

#[derive(Serialize)]
struct Page<T> {
    object: &'static str,
    data: Vec<Bucket<T>>,
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Serialize)]
struct Bucket<T> {
    object: &'static str,
    start_time: i64,
    end_time: i64,
    results: Vec<T>,
}

#[derive(Serialize)]
struct Amount {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Field>,
    currency: Field,
}

#[derive(Serialize)]
struct Cost {
    object: &'static str,
    amount: Amount,
    line_item: Option<String>,
    project_id: Option<String>,
    api_key_id: Option<String>,
    user_id: Option<String>,
    api_source: Option<String>,
    quantity: Option<Field>,
    quantity_unit: Option<&'static str>,
}

const COMMON: [&str; 7] =
    ["start_time", "end_time", "bucket_width", "group_by", "limit", "page", "project_ids"];

fn span(params: &Params, today: Day) -> Result<Span, String> {
    let start = params.integer("start_time")?.ok_or("'start_time' is required.")?;
    let from = Day::of_unix(start);
    let end = params.integer("end_time")?;
    if end.is_some_and(|end| end <= start) {
        return Err("'end_time' must be after 'start_time'.".to_owned());
    }
    let to = end.map_or(today.plus(1), |end| Day::of_unix(end.saturating_sub(1)).plus(1));
    // There are no buckets of days to come.
    Ok(Span { from, to: to.min(today.plus(1)).max(from) })
}

fn plan(params: &Params, today: Day, page_size: Option<u64>, most: u64) -> Result<Plan, String> {
    params.days_only()?;
    let limit = params.limit(7, most)?;
    Plan::of_days(params, span(params, today)?, limit.min(page_size.unwrap_or(limit)))
}

pub(crate) fn costs_plan(
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, String> {
    params.only(&[&COMMON[..], &["api_key_ids", "line_items"]].concat())?;
    params.groups(&["project_id", "user_id", "line_item", "api_key_id", "api_source"])?;
    plan(params, today, page_size, 180)
}

pub(crate) fn usage_plan(
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, String> {
    params.only(&[&COMMON[..], &["api_key_ids", "user_ids", "models", "batch"]].concat())?;
    params.groups(&[
        "project_id",
        "user_id",
        "api_key_id",
        "model",
        "batch",
        "service_tier",
        "api_source",
    ])?;
    plan(params, today, page_size, 31)
}

fn project(line: &Line) -> String {
    line.project.clone().unwrap_or_else(|| PROJECT.to_owned())
}

/// The label of a line, as the costs have it: opaque, in the words of the day.
fn label(line: &Line) -> String {
    let meter = match line.meter {
        Meter::Input => "input",
        Meter::CacheRead => "cached input",
        Meter::CacheWrite5m | Meter::CacheWrite1h => "cache write",
        Meter::Output | Meter::Reasoning => "output",
        Meter::Requests => "requests",
    };
    match line.tier.as_str() {
        "default" => format!("{}, {meter}", line.model),
        tier => format!("{}, {tier} {meter}", line.model),
    }
}

/// Grouped by project, line item and key; and how much of what.
type CostKey = [Option<String>; 3];

fn cost_groups(plan: &Plan, bill: &Bill, day: Day) -> BTreeMap<CostKey, (i128, u64)> {
    let groups = plan.groups();
    let by = |name: &str, value: String| groups.iter().any(|group| group == name).then_some(value);
    let mut found: BTreeMap<CostKey, (i128, u64)> = BTreeMap::new();
    for line in bill.lines.iter().filter(|line| line.day == day) {
        let counted = !matches!(line.meter, Meter::Reasoning | Meter::Requests);
        let (project, label) = (project(line), label(line));
        let key = key_id("openai", &line.credential);
        let wanted = plan.wants("project_ids", Some(&project))
            && plan.wants("api_key_ids", Some(&key))
            && plan.wants("line_items", Some(&label));
        if wanted && (counted || line.amount != 0) {
            let place = [by("project_id", project), by("line_item", label), by("api_key_id", key)];
            let (amount, quantity) = found.entry(place).or_default();
            *amount += line.amount;
            *quantity += if counted { line.count } else { 0 };
        }
    }
    for charge in bill.charges.iter().filter(|charge| charge.day == day) {
        let label = &charge.description;
        let wanted = plan.wants("project_ids", None)
            && plan.wants("api_key_ids", None)
            && plan.wants("line_items", Some(label));
        if wanted {
            let place = [None, by("line_item", label.clone()), None];
            found.entry(place).or_default().0 += charge.amount;
        }
    }
    found
}

pub(crate) fn costs(plan: &Plan, bill: &Bill, mut shape: Shape) -> String {
    let next = plan.cursor(shape.repeated_cursor);
    let mut cost =
        |([project_id, line_item, api_key_id], (amount, quantity)): (CostKey, (i128, u64))| {
            let counted = line_item.is_some() && quantity > 0;
            let currency = if shape.wrong_currency { "eur" } else { "usd" };
            let value = shape.number(dollars(amount));
            Cost {
                object: "organization.costs.result",
                amount: Amount {
                    value: shape.first(value),
                    currency: shape.text(currency.to_owned(), "840".to_owned()),
                },
                line_item,
                project_id,
                api_key_id,
                user_id: None,
                api_source: None,
                quantity: counted.then(|| shape.number(quantity.to_string())),
                quantity_unit: counted.then_some("tokens"),
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
        object: "bucket",
        start_time: day.unix(),
        end_time: day.plus(1).unix(),
        results: results(day),
    };
    let data = plan.window.days().map(bucket).collect();
    text(&Page { object: "page", data, has_more: next_page.is_some(), next_page })
}

#[derive(Serialize)]
struct Usage {
    object: String,
    #[serde(flatten)]
    counts: BTreeMap<&'static str, Field>,
    project_id: Option<String>,
    user_id: Option<String>,
    api_key_id: Option<String>,
    model: Option<Field>,
    #[serde(flatten)]
    of_completions: Option<OfCompletions>,
}

#[derive(Serialize)]
struct OfCompletions {
    batch: Option<bool>,
    service_tier: Option<String>,
    api_source: Option<String>,
}

/// Project, key, model, tier and whether it was a batch.
type UsageKey = ([Option<String>; 4], Option<bool>);

fn usage_groups(
    embeddings: bool,
    plan: &Plan,
    bill: &Bill,
    day: Day,
) -> BTreeMap<UsageKey, BTreeMap<Meter, u64>> {
    let groups = plan.groups();
    let grouped = |name: &str| groups.iter().any(|group| group == name);
    let by = |name: &str, value: String| grouped(name).then_some(value);
    let mut found: BTreeMap<UsageKey, BTreeMap<Meter, u64>> = BTreeMap::new();
    let of_day = |line: &&Line| line.day == day && line.embeddings == embeddings;
    for line in bill.lines.iter().filter(of_day) {
        let (project, key) = (project(line), key_id("openai", &line.credential));
        let batch = line.tier == "batch";
        let wanted = plan.wants("project_ids", Some(&project))
            && plan.wants("api_key_ids", Some(&key))
            && plan.wants("user_ids", None)
            && plan.wants("models", Some(&line.model))
            && plan.wants("batch", Some(if batch { "true" } else { "false" }));
        if wanted {
            let place = [
                by("project_id", project),
                by("api_key_id", key),
                by("model", line.model.clone()),
                by("service_tier", line.tier.clone()),
            ];
            let place = (place, grouped("batch").then_some(batch));
            *found.entry(place).or_default().entry(line.meter).or_default() += line.count;
        }
    }
    found
}

pub(crate) fn usage(kind: &str, plan: &Plan, bill: &Bill, mut shape: Shape) -> String {
    let embeddings = kind == "embeddings";
    let served = embeddings || kind == "completions";
    let next = plan.cursor(shape.repeated_cursor);
    let mut result = |(([project_id, api_key_id, model, tier], batch), of): (UsageKey, _)| Usage {
        object: format!("organization.usage.{kind}.result"),
        counts: counts(embeddings, &of, &mut shape),
        project_id,
        user_id: None,
        api_key_id,
        model: model.map(|model| shape.text(model, "6".to_owned())),
        of_completions: (!embeddings).then_some(OfCompletions {
            batch,
            service_tier: tier,
            api_source: None,
        }),
    };
    page(plan, next, |day| match served {
        true => usage_groups(embeddings, plan, bill, day).into_iter().map(&mut result).collect(),
        false => Vec::new(),
    })
}

fn counts(
    embeddings: bool,
    of: &BTreeMap<Meter, u64>,
    shape: &mut Shape,
) -> BTreeMap<&'static str, Field> {
    let count = |meter| of.get(&meter).copied().unwrap_or_default();
    let (input, cached, output) =
        (count(Meter::Input), count(Meter::CacheRead), count(Meter::Output));
    let (write_30m, write_12h) = (count(Meter::CacheWrite5m), count(Meter::CacheWrite1h));
    let requests = ("num_model_requests", count(Meter::Requests));
    // What a cache holds is part of the input here.
    let all = ("input_tokens", input + cached + write_30m + write_12h);
    let list = [
        ("input_cached_tokens", cached),
        ("input_uncached_tokens", input),
        ("input_cache_write_tokens", write_30m + write_12h),
        ("input_cache_write_30m_tokens", write_30m),
        ("input_cache_write_12h_tokens", write_12h),
        ("input_text_tokens", input),
        ("input_audio_tokens", 0),
        ("input_image_tokens", 0),
        ("input_cached_text_tokens", cached),
        ("input_cached_audio_tokens", 0),
        ("input_cached_image_tokens", 0),
        ("output_tokens", output),
        ("output_text_tokens", output),
        ("output_audio_tokens", 0),
        ("output_image_tokens", 0),
    ];
    let list = if embeddings { &[][..] } else { &list[..] };
    let mut fields: BTreeMap<&'static str, Field> = BTreeMap::new();
    if let Some(field) = shape.first(shape.number(all.1.to_string())) {
        fields.insert(all.0, field);
    }
    for (name, count) in [requests].iter().chain(list) {
        fields.insert(name, shape.number(count.to_string()));
    }
    fields
}
