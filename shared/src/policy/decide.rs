//! The decision about one request: a pure function of the key's plan, the request's facts, the Meter's counters and
//! the time. All limits are evaluated; the first refusal in order is the answer; nothing is changed here.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::budget::account::Load;
use crate::budget::loop_breaker::shape::RequestShape;
use crate::budget::rate_limit::{Gcra, Verdict};
use crate::events::decision::PromptParts;
use crate::identity::actor::{Actor, ActorError};
use crate::money::Usd;
use crate::policy::key_plan::{
    KeyPlan, KeyStatus, OutputExcess, ProviderPlan, Route, SpendCap, Strategy, Target,
};
use crate::policy::refusal::Refusal;
use crate::pricing::{PriceRow, is_floating_alias, worst_case};
use crate::time::Timestamp;

/// Output that is set aside for a model of which not even the longest answer is known.
const UNKNOWN_MODEL_OUTPUT_TOKENS: u64 = 16_384;
/// Output that counts against tokens per minute when the request states no maximum: most answers are shorter, and
/// the model's own maximum would let one request a minute through. The settlement trues it up.
const TOKENS_PER_MINUTE_DEFAULT_OUTPUT: u64 = 4_096;
/// How soon a caller may try again when only holds or slots stand in the way: about one answer's length.
const HELD_RETRY_AFTER_MS: u64 = 1_000;

/// What the decision needs to know of a request. Everything in it was read, never guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestFacts {
    /// The endpoint's path.
    pub endpoint: String,
    /// The model as the caller named it.
    pub model: String,
    /// Whether the provider charges nothing for this endpoint (moderation, token counting).
    pub free: bool,
    /// Whether the endpoint produces output tokens at all (embeddings do not).
    pub has_output: bool,
    /// Input tokens as counted by the gateway, never under the provider's count in practice.
    pub input_tokens: u64,
    /// The caller's own limit of output tokens.
    pub max_output_tokens: Option<u64>,
    /// How many answers are asked for (`n`), at least 1.
    pub choices: u64,
    /// The service tier asked for.
    pub service_tier: Option<String>,
    /// The body's size.
    pub body_bytes: u64,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// What its input consists of, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PromptParts>,
    /// What the loop breaker may know of it. `None` where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<RequestShape>,
    /// What made the request unreadable, if anything did. It is reported after authentication.
    pub problem: Option<Problem>,
}

/// Why a request could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The stable code.
    pub code: String,
    /// What is wrong and what to do.
    pub detail: String,
    /// The field at fault.
    #[serde(default)]
    pub param: Option<String>,
}

/// What only the adapter knows: which provider can serve the endpoint, and what a model costs there.
pub trait Catalog {
    /// Whether `provider` speaks the endpoint's dialect.
    fn serves(&self, provider: &ProviderPlan) -> bool;
    /// The price of `model` at `provider`, the workspace's overrides first; not the default price.
    fn price<'a>(
        &'a self,
        plan: &'a KeyPlan,
        provider: &ProviderPlan,
        model: &str,
    ) -> Option<&'a PriceRow>;
}

/// What an admitted request may do, and what is set aside for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission<'a> {
    /// Where to send it, in order.
    pub targets: Vec<Chosen<'a>>,
    /// Attempts and time limits.
    pub route: Route,
    /// Money to set aside: the dearest target's worst case. Zero where nothing prices the model.
    pub hold: Usd,
    /// Tokens to set aside against tokens per minute.
    pub hold_tokens: u64,
    /// The output limit to write into the request, where the policy demands one.
    pub set_max_output_tokens: Option<u64>,
    /// New state of the rate limits, to be committed with the hold.
    pub load: Load,
    /// The least that any spending cap leaves after this hold.
    pub budget_remaining: Option<Usd>,
}

/// A target with what is needed to ask it and to price its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen<'a> {
    /// The provider.
    pub provider: &'a ProviderPlan,
    /// The model to ask for.
    pub model: String,
    /// What the model is priced as there: differs from `model` for a deployment's name.
    pub priced_as: String,
    /// Its price, if it has one.
    pub price: Option<&'a PriceRow>,
}

/// One check with its verdict, as `simulate` reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub check: &'static str,
    /// The refusal, if the check refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// The outcome of all checks.
#[derive(Debug)]
pub struct Decision<'a> {
    /// The worst case that was held against the limits; zero where it could not be known.
    pub hold: Usd,
    /// The tokens that were.
    pub tokens: u64,
    /// Every check, in order.
    pub checks: Vec<Check>,
    /// Admitted, or the first refusal.
    pub outcome: Result<Admission<'a>, Refusal>,
}

/// Decides about one request. `draw` is a random number for weighted routes.
pub fn decide<'a>(
    plan: &'a KeyPlan,
    request: &RequestFacts,
    actor: &Result<Actor, ActorError>,
    load: &Load,
    catalog: &'a dyn Catalog,
    draw: u64,
    now: Timestamp,
) -> Decision<'a> {
    let mut checks = Vec::with_capacity(16);
    let mut note = |check: &'static str, verdict: Result<(), Refusal>| {
        checks.push(Check { check, refusal: verdict.err() });
    };
    note("key_status", check_status(plan, now));
    note("address", check_address(plan, request.ip));
    note("actor", check_actor(plan, actor));
    note("request", check_readable(request));
    note("request_size", check_size(plan, request));
    let targets = choose_targets(plan, request, catalog, draw);
    note("model", targets.as_ref().map(|_| ()).map_err(Clone::clone));
    let (route, targets) = targets.unwrap_or_else(|_| (Route::direct("", ""), Vec::new()));
    let output = output_limit(plan, request);
    note("max_output_tokens", output.as_ref().map(|_| ()).map_err(Clone::clone));
    let output = output.unwrap_or(Output { limit: None, write: None });
    let known = actor.as_ref().unwrap_or(&plan.owner.actor);
    let hold = hold_of(plan, request, known, &targets, output.limit);
    note("price", hold.as_ref().map(|_| ()).map_err(Clone::clone));
    let hold = hold.unwrap_or(Usd::ZERO);
    note("max_request_usd", check_request_cost(plan, hold));
    let mut next = load.clone();
    note("requests_per_minute", take_request(plan, &mut next, now));
    let wanted = tokens_wanted(request, output.limit);
    let taken = take_tokens(plan, &mut next, wanted, now);
    note("tokens_per_minute", taken.as_ref().map(|_| ()).map_err(Clone::clone));
    note("concurrency", check_concurrency(plan, load));
    note("spend_caps", check_caps(&plan.policy.spend_caps, load, hold, now));

    let refusal = checks.iter().find_map(|check| check.refusal.clone());
    let outcome = match refusal {
        Some(refusal) => Err(refusal),
        None => Ok(Admission {
            targets,
            route,
            hold,
            hold_tokens: taken.unwrap_or(0),
            set_max_output_tokens: output.write,
            budget_remaining: budget_remaining(&plan.policy.spend_caps, load, hold),
            load: next,
        }),
    };
    Decision { hold, tokens: wanted, checks, outcome }
}

fn check_status(plan: &KeyPlan, now: Timestamp) -> Result<(), Refusal> {
    match plan.status {
        KeyStatus::Revoked => return Err(Refusal::KeyRevoked),
        KeyStatus::Suspended => return Err(Refusal::KeySuspended),
        KeyStatus::Active => {}
    }
    match plan.expires_at {
        Some(expired_at) if expired_at <= now => Err(Refusal::KeyExpired { expired_at }),
        _ => Ok(()),
    }
}

/// Refuses a client address outside the key's ranges.
pub fn check_address(plan: &KeyPlan, address: Option<IpAddr>) -> Result<(), Refusal> {
    let Some(ranges) = &plan.policy.ip_ranges else { return Ok(()) };
    // An address that is not known is in no range.
    match address {
        Some(ip) if ranges.contains(ip) => Ok(()),
        Some(ip) => Err(Refusal::AddressNotAllowed { address: ip.to_string() }),
        None => Err(Refusal::AddressNotAllowed { address: "unknown".to_owned() }),
    }
}

fn check_actor(plan: &KeyPlan, actor: &Result<Actor, ActorError>) -> Result<(), Refusal> {
    let refuse = |error: &ActorError| Refusal::Actor {
        code: error.code().to_owned(),
        detail: error.to_string(),
    };
    let actor = match actor {
        Ok(actor) => actor,
        // A key that asks for no actor can do without; a token that is there but no good is refused all the same.
        Err(ActorError::Missing) if !plan.policy.require_actor => &plan.owner.actor,
        Err(error) => return Err(refuse(error)),
    };
    for claim in &plan.policy.required_claims {
        if actor.claim(claim).is_none() {
            return Err(Refusal::ActorClaimMissing { claim: claim.clone() });
        }
    }
    Ok(())
}

fn check_readable(request: &RequestFacts) -> Result<(), Refusal> {
    match &request.problem {
        None => Ok(()),
        Some(Problem { code, detail, param }) => Err(Refusal::BadRequest {
            code: code.clone(),
            detail: detail.clone(),
            param: param.clone(),
        }),
    }
}

fn check_size(plan: &KeyPlan, request: &RequestFacts) -> Result<(), Refusal> {
    match plan.policy.max_request_bytes {
        Some(limit_bytes) if request.body_bytes > limit_bytes => {
            Err(Refusal::RequestTooLarge { size_bytes: request.body_bytes, limit_bytes })
        }
        _ => Ok(()),
    }
}

/// The route of the named model and its targets in the order to try them.
fn choose_targets<'a>(
    plan: &'a KeyPlan,
    request: &RequestFacts,
    catalog: &'a dyn Catalog,
    draw: u64,
) -> Result<(Route, Vec<Chosen<'a>>), Refusal> {
    let rules = &plan.policy.models;
    if let Some(pattern) = rules.denied_by(&request.model) {
        return Err(not_allowed(&request.model, Some(pattern)));
    }
    let mut route = match plan.routes.get(&request.model) {
        Some(route) => route.clone(),
        None => direct_route(plan, request, catalog)?,
    };
    order(&mut route, draw);
    let named_is_allowed = rules.allows(&request.model);
    let mut chosen = Vec::with_capacity(route.targets.len());
    let mut refusal = Refusal::ModelNotFound { model: request.model.clone() };
    for target in &route.targets {
        let Some(provider) = plan.providers.iter().find(|p| p.name == target.provider) else {
            continue;
        };
        if !catalog.serves(provider) {
            continue;
        }
        let priced_as = provider.models.get(&target.model).unwrap_or(&target.model).clone();
        // Neither an alias nor a deployment's name may lead around a denial: the model behind it is checked too.
        let denied =
            [&target.model, &priced_as].into_iter().find_map(|m| Some((m, rules.denied_by(m)?)));
        if let Some((model, pattern)) = denied {
            refusal = not_allowed(model, Some(pattern));
            continue;
        }
        if !named_is_allowed && !rules.allows(&target.model) && !rules.allows(&priced_as) {
            refusal = not_allowed(&request.model, None);
            continue;
        }
        if plan.policy.refuse_floating_aliases && is_floating_alias(&priced_as) {
            refusal = Refusal::FloatingAlias { model: target.model.clone() };
            continue;
        }
        let price = catalog.price(plan, provider, &priced_as).or(plan.default_price.as_ref());
        chosen.push(Chosen { provider, model: target.model.clone(), priced_as, price });
    }
    if chosen.is_empty() { Err(refusal) } else { Ok((route, chosen)) }
}

fn not_allowed(model: &str, pattern: Option<&str>) -> Refusal {
    Refusal::ModelNotAllowed { model: model.to_owned(), pattern: pattern.map(str::to_owned) }
}

/// A name that is no alias: `provider/model`, else the first provider that has a price for it, else the first that
/// speaks the dialect (which then answers for itself whether it knows the model).
fn direct_route(
    plan: &KeyPlan,
    request: &RequestFacts,
    catalog: &dyn Catalog,
) -> Result<Route, Refusal> {
    if let Some((name, model)) = request.model.split_once('/')
        && !model.is_empty()
        && plan.providers.iter().any(|p| p.name == name)
    {
        return Ok(Route::direct(name, model));
    }
    let knows = |p: &&ProviderPlan| {
        let priced_as = p.models.get(&request.model).unwrap_or(&request.model);
        p.models.contains_key(&request.model) || catalog.price(plan, p, priced_as).is_some()
    };
    let serving = || plan.providers.iter().filter(|p| catalog.serves(p));
    serving()
        .find(knows)
        .or_else(|| serving().next())
        .map(|p| Route::direct(&p.name, &request.model))
        .ok_or_else(|| Refusal::ModelNotFound { model: request.model.clone() })
}

/// Puts the targets into the order in which to try them.
fn order(route: &mut Route, draw: u64) {
    if route.strategy == Strategy::Ordered {
        return;
    }
    let total: u64 = route.targets.iter().map(|t| u64::from(t.weight)).sum();
    if total > 0 {
        let mut rest = draw % total;
        let first = route.targets.iter().position(|target| {
            let weight = u64::from(target.weight);
            let hit = rest < weight;
            rest = rest.saturating_sub(weight);
            hit
        });
        let first: Target = route.targets.remove(first.unwrap_or(0));
        route.targets.sort_by_key(|t| std::cmp::Reverse(t.weight));
        route.targets.insert(0, first);
    }
}

/// The output limit that the answer will keep, and the one to write into the request.
struct Output {
    limit: Option<u64>,
    write: Option<u64>,
}

fn output_limit(plan: &KeyPlan, request: &RequestFacts) -> Result<Output, Refusal> {
    if !request.has_output {
        return Ok(Output { limit: Some(0), write: None });
    }
    match (plan.policy.max_output_tokens, request.max_output_tokens) {
        (None, asked) => Ok(Output { limit: asked, write: None }),
        (Some(limit), Some(asked)) if asked <= limit => {
            Ok(Output { limit: Some(asked), write: None })
        }
        (Some(limit), Some(asked)) if plan.policy.on_output_excess == OutputExcess::Refuse => {
            Err(Refusal::OutputLimitExceeded { asked, limit })
        }
        // A request that states no limit gets the policy's, or the answer could be longer than what is set aside.
        (Some(limit), _) => Ok(Output { limit: Some(limit), write: Some(limit) }),
    }
}

/// The dearest target's worst case. Zero for what is free, or has no price and no budget that depends on it.
fn hold_of(
    plan: &KeyPlan,
    request: &RequestFacts,
    actor: &Actor,
    targets: &[Chosen<'_>],
    output: Option<u64>,
) -> Result<Usd, Refusal> {
    let mut hold = Usd::ZERO;
    if request.free {
        return Ok(hold);
    }
    let shared = plan.budgets_of(actor).any(|(_, _, terms)| terms.limit_usd.is_some());
    let own = !plan.policy.spend_caps.is_empty() || plan.policy.max_request_usd.is_some();
    let budgeted = own || shared;
    for target in targets {
        let unpriced = |cause: &str| Refusal::ModelUnpriced {
            model: target.model.clone(),
            cause: cause.to_owned(),
        };
        let Some(row) = target.price else {
            if budgeted {
                return Err(unpriced("model_unpriced"));
            }
            continue;
        };
        let longest = row.max_output_tokens.unwrap_or(UNKNOWN_MODEL_OUTPUT_TOKENS);
        let output = output.unwrap_or(longest).saturating_mul(request.choices.max(1));
        let tier = request.service_tier.as_deref();
        let region = target.provider.region.as_deref();
        match worst_case(row, request.input_tokens, output, tier, region) {
            Ok(cost) => hold = hold.max(cost),
            Err(error) if budgeted => return Err(unpriced(error.code())),
            Err(_) => {}
        }
    }
    Ok(hold)
}

fn check_request_cost(plan: &KeyPlan, hold: Usd) -> Result<(), Refusal> {
    match plan.policy.max_request_usd {
        Some(limit) if hold > limit => {
            Err(Refusal::RequestCostExceeded { worst_case: hold, limit })
        }
        _ => Ok(()),
    }
}

fn per_minute(limit: u64) -> Gcra {
    Gcra { limit, period_ms: 60_000 }
}

fn take_request(plan: &KeyPlan, load: &mut Load, now: Timestamp) -> Result<(), Refusal> {
    let Some(limit) = plan.policy.requests_per_minute else { return Ok(()) };
    match per_minute(limit).check(&load.requests, 1, now) {
        Verdict::Ok(state) => load.requests = state,
        Verdict::Limited { retry_after_ms, .. } => {
            return Err(rate_limited("requests_per_minute", limit, retry_after_ms));
        }
    }
    Ok(())
}

fn tokens_wanted(request: &RequestFacts, output: Option<u64>) -> u64 {
    let output = output.unwrap_or(TOKENS_PER_MINUTE_DEFAULT_OUTPUT);
    request.input_tokens.saturating_add(output.saturating_mul(request.choices.max(1)))
}

fn take_tokens(
    plan: &KeyPlan,
    load: &mut Load,
    wanted: u64,
    now: Timestamp,
) -> Result<u64, Refusal> {
    let Some(limit) = plan.policy.tokens_per_minute else { return Ok(wanted) };
    // A request that may be larger than a whole minute's tokens passes alone, when nothing else was used.
    let taken = wanted.min(limit);
    match per_minute(limit).check(&load.tokens, taken, now) {
        Verdict::Ok(state) => load.tokens = state,
        Verdict::Limited { retry_after_ms, .. } => {
            return Err(rate_limited("tokens_per_minute", limit, retry_after_ms));
        }
    }
    Ok(taken)
}

fn check_concurrency(plan: &KeyPlan, load: &Load) -> Result<(), Refusal> {
    match plan.policy.max_concurrency {
        Some(limit) if load.in_flight >= limit => {
            Err(rate_limited("concurrent_requests", limit, HELD_RETRY_AFTER_MS))
        }
        _ => Ok(()),
    }
}

fn rate_limited(unit: &str, limit: u64, retry_after_ms: u64) -> Refusal {
    Refusal::RateLimited { budget: None, unit: unit.to_owned(), limit, retry_after_ms }
}

fn check_caps(caps: &[SpendCap], load: &Load, hold: Usd, now: Timestamp) -> Result<(), Refusal> {
    for SpendCap { window, limit_usd: cap } in caps {
        let (cap, spent, held) = (*cap, load.spent_in(*window), load.held);
        let name = window.name().to_owned();
        // A hold of nothing (a free endpoint) still needs a budget that is not used up.
        let spent_up = spent.saturating_add(hold) > cap || spent >= cap;
        if spent_up {
            let resets_at = window.end(now);
            return Err(Refusal::BudgetExceeded {
                budget: None,
                window: name,
                cap,
                spent,
                held,
                hold,
                resets_at,
            });
        }
        if spent.saturating_add(held).saturating_add(hold) > cap {
            let retry_after_ms = HELD_RETRY_AFTER_MS;
            return Err(Refusal::BudgetHeld {
                budget: None,
                window: name,
                cap,
                spent,
                held,
                hold,
                retry_after_ms,
            });
        }
    }
    Ok(())
}

fn budget_remaining(caps: &[SpendCap], load: &Load, hold: Usd) -> Option<Usd> {
    let taken = |window| load.spent_in(window).saturating_add(load.held).saturating_add(hold);
    caps.iter().map(|cap| cap.limit_usd.remaining_after(taken(cap.window))).min()
}
