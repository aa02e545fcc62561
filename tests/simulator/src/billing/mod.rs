//! The providers' billing APIs, in their documented shapes: who may ask, for which days, page by page, and how a test
//! spoils the answer.

mod analytics;
mod anthropic;
mod keys;
mod openai;
mod openrouter;
mod params;
mod shape;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;

use crate::Shared;
use crate::bills::{Bill, View};
use crate::clock::{Day, Span};
use crate::quirks::{Api, Fault, Kind, Quirks};
use keys::Listed;
use params::{Params, Plan};
use shape::Shape;

/// A billing endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    OpenAiCosts,
    OpenAiUsage(String),
    OpenAiAdminKeys,
    OpenAiProjects,
    OpenAiProjectKeys(String),
    AnthropicCosts,
    AnthropicUsage,
    AnalyticsCosts,
    AnalyticsUsage,
    AnthropicKeys,
    OpenRouterActivity,
    OpenRouterKeys,
}

impl Endpoint {
    /// The endpoint of a path, below its flavour or alone.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let mut segments: Vec<&str> = uri.path().split('/').filter(|s| !s.is_empty()).collect();
        let routed = ["openai", "anthropic", "openrouter"];
        let flavour = segments.first().copied().filter(|first| routed.contains(first));
        if flavour.is_some() {
            segments.remove(0);
        }
        let allowed = |wanted: &str| flavour.is_none_or(|flavour| flavour == wanted);
        match segments.as_slice() {
            ["v1", "organization", rest @ ..] if allowed("openai") => match rest {
                ["costs"] => Some(Self::OpenAiCosts),
                ["usage", kind] => Some(Self::OpenAiUsage((*kind).to_owned())),
                ["admin_api_keys"] => Some(Self::OpenAiAdminKeys),
                ["projects"] => Some(Self::OpenAiProjects),
                ["projects", id, "api_keys"] => Some(Self::OpenAiProjectKeys((*id).to_owned())),
                _ => None,
            },
            ["v1", "organizations", rest @ ..] if allowed("anthropic") => match rest {
                ["cost_report"] => Some(Self::AnthropicCosts),
                ["usage_report", "messages"] => Some(Self::AnthropicUsage),
                ["analytics", "cost"] => Some(Self::AnalyticsCosts),
                ["analytics", "usage"] => Some(Self::AnalyticsUsage),
                ["api_keys"] => Some(Self::AnthropicKeys),
                _ => None,
            },
            ["api", "v1", "activity"] if allowed("openrouter") => Some(Self::OpenRouterActivity),
            ["api", "v1", "keys"] if allowed("openrouter") => Some(Self::OpenRouterKeys),
            _ => None,
        }
    }

    fn provider(&self) -> &'static str {
        match self {
            Self::AnthropicCosts
            | Self::AnthropicUsage
            | Self::AnalyticsCosts
            | Self::AnalyticsUsage
            | Self::AnthropicKeys => "anthropic",
            Self::OpenRouterActivity | Self::OpenRouterKeys => "openrouter",
            _ => "openai",
        }
    }

    fn api(&self) -> Api {
        match self {
            Self::OpenAiCosts
            | Self::AnthropicCosts
            | Self::AnalyticsCosts
            | Self::OpenRouterActivity => Api::Costs,
            Self::OpenAiUsage(_) | Self::AnthropicUsage | Self::AnalyticsUsage => Api::Usage,
            _ => Api::Keys,
        }
    }
}

/// Why there is no answer: a status, and what is wrong in words.
type Refusal = (u16, String);

/// Answers a billing endpoint.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    headers: &HeaderMap,
    uri: &Uri,
) -> Response {
    match attempt(&shared, &endpoint, headers, uri).await {
        Ok(response) => response,
        Err(refusal) => refuse(endpoint.provider(), &refusal, None),
    }
}

async fn attempt(
    shared: &Shared,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Response, Refusal> {
    let provider = endpoint.provider();
    let account = account(provider, headers)?;
    if provider == "anthropic" {
        anthropic::check_headers(endpoint, headers).map_err(|problem| (400, problem))?;
    }
    let params = Params::of(uri)?;
    let now = shared.now();
    let today = Day::of(now);
    let (plan, faults) = shared.quirks(provider, &account, |quirks| {
        let plan = plan(endpoint, &params, today, quirks.page_size)?;
        Ok::<_, Refusal>((plan.clone(), quirks.faults(endpoint.api(), plan.page)))
    })?;
    let wait = faults.iter().map(|fault| fault.latency_ms).max().unwrap_or_default();
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    if let Some((fault, status)) = faults.iter().find_map(|fault| Some((fault, fault.status?))) {
        let refusal = (status, "The simulator was asked for this.".to_owned());
        return Ok(refuse(provider, &refusal, fault.retry_after));
    }
    let quirks = shared.quirks(provider, &account, |quirks| {
        if endpoint.api() == Api::Costs && plan.page == 1 {
            quirks.pulled(plan.span);
        }
        quirks.clone()
    });
    let shape = Shape::new(faults.iter().map(|fault| fault.kind));
    let text = render(shared, endpoint, &plan, &quirks, (shape, now))?;
    Ok(spoil(text, &faults))
}

fn plan(
    endpoint: &Endpoint,
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, Refusal> {
    let wrong = |problem: String| (400, problem);
    match endpoint {
        Endpoint::OpenAiCosts => openai::costs_plan(params, today, page_size).map_err(wrong),
        Endpoint::OpenAiUsage(kind) if !openai::KINDS.contains(&kind.as_str()) => {
            Err((404, format!("Unknown kind of usage: {kind}.")))
        }
        Endpoint::OpenAiUsage(_) => openai::usage_plan(params, today, page_size).map_err(wrong),
        Endpoint::AnthropicCosts => anthropic::costs_plan(params, today, page_size).map_err(wrong),
        Endpoint::AnthropicUsage => anthropic::usage_plan(params, today, page_size).map_err(wrong),
        Endpoint::AnalyticsCosts => analytics::plan(true, params, today, page_size).map_err(wrong),
        Endpoint::AnalyticsUsage => analytics::plan(false, params, today, page_size).map_err(wrong),
        Endpoint::OpenRouterActivity => openrouter::activity_plan(params, today).map_err(wrong),
        _ => keys::plan(endpoint, params, today, page_size).map_err(wrong),
    }
}

fn render(
    shared: &Shared,
    endpoint: &Endpoint,
    plan: &Plan,
    quirks: &Quirks,
    (shape, now): (Shape, jiff::Timestamp),
) -> Result<String, Refusal> {
    let bill =
        |days: Span| shared.books(|books| Bill::new(books.used(), quirks, days, View::Shown));
    let listed = || shared.books(|books| Listed::all(books.used(), quirks));
    let text = match endpoint {
        Endpoint::OpenAiCosts => openai::costs(plan, &bill(plan.window), shape),
        Endpoint::OpenAiUsage(kind) => openai::usage(kind, plan, &bill(plan.window), shape),
        Endpoint::AnthropicCosts => anthropic::costs(plan, &bill(plan.window), shape),
        Endpoint::AnthropicUsage => anthropic::usage(plan, &bill(plan.window), shape),
        Endpoint::AnalyticsCosts => analytics::costs(plan, &bill(plan.window), shape, now),
        Endpoint::AnalyticsUsage => analytics::usage(plan, &bill(plan.window), shape, now),
        Endpoint::OpenRouterActivity => openrouter::activity(plan, &bill(plan.window), shape),
        Endpoint::OpenAiAdminKeys => keys::openai_admin(quirks),
        Endpoint::OpenAiProjects => keys::openai_projects(plan, &listed(), shape),
        Endpoint::OpenAiProjectKeys(id) => return keys::openai_keys(id, plan, &listed(), shape),
        Endpoint::AnthropicKeys => keys::anthropic(plan, &listed(), shape),
        Endpoint::OpenRouterKeys => keys::openrouter(plan, &listed(), shape),
    };
    Ok(text)
}

/// The account whose admin credential this is: what follows the documented beginning and `sim`.
fn account(provider: &str, headers: &HeaderMap) -> Result<String, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let (given, admin) = match provider {
        // The documents send the key in a header of its own, the official SDK as a bearer.
        "anthropic" => (header("x-api-key").or(bearer), "sk-ant-admin01-sim"),
        "openrouter" => (bearer, "sk-or-v1-sim"),
        _ => (bearer, "sk-admin-sim"),
    };
    let given = given.unwrap_or_default();
    let rest = given.strip_prefix(admin);
    match rest.filter(|rest| rest.is_empty() || rest.starts_with('-')) {
        Some(rest) => Ok(rest.trim_start_matches('-').to_owned()),
        None if given.starts_with("sk-sim-") => Err((
            403,
            "This key cannot read the organization's bills: an admin key can.".to_owned(),
        )),
        None => Err((401, "Incorrect API key provided.".to_owned())),
    }
}

fn refuse(provider: &str, (status, problem): &Refusal, retry_after: Option<u64>) -> Response {
    let body = match provider {
        "anthropic" => crate::anthropic::error(*status, problem),
        _ => crate::openai::error(*status, problem),
    };
    let mut response = json_response(body.to_string());
    *response.status_mut() =
        StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(Ok(value)) = retry_after.map(|seconds| seconds.to_string().parse()) {
        response.headers_mut().insert("retry-after", value);
    }
    response
}

fn json_response(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    if let Ok(value) = "application/json".parse() {
        response.headers_mut().insert("content-type", value);
    }
    response
}

/// A body that is not the page.
fn spoil(text: String, faults: &[Fault]) -> Response {
    let has = |kind| faults.iter().any(|fault| fault.kind == kind);
    if has(Kind::Html) {
        let mut response = Response::new(Body::from("<html><body>Please sign in</body></html>"));
        if let Ok(value) = "text/html; charset=utf-8".parse() {
            response.headers_mut().insert("content-type", value);
        }
        return response;
    }
    if has(Kind::HalfPage) {
        let half: String = text.chars().take(text.len() / 2).collect();
        return json_response(half);
    }
    json_response(text)
}

#[cfg(test)]
mod tests;
