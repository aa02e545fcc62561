//! What an event keeps of a decision: the request's sizes, and each limit that the key has with what it said.

use crate::budget::account::Load;
use crate::budget::rate_limit::{Gcra, State};
use crate::events::decision::{Asked, Decided, LimitCheck};
use crate::money::Usd;
use crate::policy::decide::{Decision, RequestFacts};
use crate::policy::key_plan::KeyPlan;
use crate::policy::refusal::Refusal;
use crate::time::Timestamp;

/// The record of a decision. `token` is whether an actor token came with the request.
pub fn record(
    plan: &KeyPlan,
    request: &RequestFacts,
    token: bool,
    decision: &Decision<'_>,
    load: &Load,
    now: Timestamp,
) -> Decided {
    let refused = decision.checks.iter().find(|check| check.refusal.is_some());
    let refusal = refused.and_then(|check| check.refusal.as_ref());
    let asked = Asked {
        input_tokens: request.input_tokens,
        max_output_tokens: request.max_output_tokens,
        choices: Some(request.choices).filter(|choices| *choices > 1),
        body_bytes: request.body_bytes,
        service_tier: request.service_tier.clone(),
        actor_token: token,
        parts: request.parts,
    };
    let limits = limits(plan, request, decision, load, now);
    let by = refused.map(|check| check.check);
    let limits = limits.into_iter().map(|(check, limit)| {
        // Of several caps, the one that the refusal names.
        let named = match refusal {
            Some(Refusal::BudgetExceeded { window, .. } | Refusal::BudgetHeld { window, .. }) => {
                limit.name == spend_cap(window)
            }
            _ => true,
        };
        LimitCheck { refused: by == Some(check) && named, ..limit }
    });
    Decided {
        asked,
        limits: limits.collect(),
        refused_by: by.map(str::to_owned),
        load: refusal.map(|_| load.clone()),
        leased: false,
    }
}

/// The limits that the key has, each with the check that evaluates it.
fn limits(
    plan: &KeyPlan,
    request: &RequestFacts,
    decision: &Decision<'_>,
    load: &Load,
    now: Timestamp,
) -> Vec<(&'static str, LimitCheck)> {
    let policy = &plan.policy;
    let mut limits = Vec::new();
    let mut put = |check, name: &str, limit: String, before: String, asked: String| {
        let name = name.to_owned();
        limits.push((check, LimitCheck { name, limit, before, asked, refused: false }));
    };
    let none = String::new;
    if policy.ip_ranges.is_some() {
        put("address", "ip_ranges", none(), none(), none());
    }
    if policy.require_actor || !policy.required_claims.is_empty() {
        put("actor", "actor", policy.required_claims.join(" "), none(), none());
    }
    if let Some(limit) = policy.max_request_bytes {
        let asked = request.body_bytes.to_string();
        put("request_size", "max_request_bytes", limit.to_string(), none(), asked);
    }
    if !policy.models.allow.is_empty() || !policy.models.deny.is_empty() {
        put("model", "models", none(), none(), request.model.clone());
    }
    if let Some(limit) = policy.max_output_tokens {
        let asked = request.max_output_tokens.map(|asked| asked.to_string()).unwrap_or_default();
        put("max_output_tokens", "max_output_tokens", limit.to_string(), none(), asked);
    }
    let hold = decision.hold;
    if let Some(limit) = policy.max_request_usd {
        put("max_request_usd", "max_request_usd", limit.to_string(), none(), hold.to_string());
    }
    for (name, limit, state, asked) in [
        ("requests_per_minute", policy.requests_per_minute, &load.requests, 1),
        ("tokens_per_minute", policy.tokens_per_minute, &load.tokens, decision.tokens),
    ] {
        if let Some(limit) = limit {
            let used = used(limit, state, now).to_string();
            put(name, name, limit.to_string(), used, asked.to_string());
        }
    }
    if let Some(limit) = policy.max_concurrency {
        let in_flight = load.in_flight.to_string();
        put("concurrency", "max_concurrency", limit.to_string(), in_flight, "1".to_owned());
    }
    for cap in &policy.spend_caps {
        let taken = load.spent_in(cap.window).saturating_add(load.held);
        let name = spend_cap(cap.window.name());
        put("spend_caps", &name, cap.limit_usd.to_string(), taken.to_string(), hold.to_string());
    }
    limits
}

fn used(limit: u64, state: &State, now: Timestamp) -> u64 {
    let remaining = Gcra { limit, period_ms: 60_000 }.remaining(state, now);
    limit.saturating_sub(remaining)
}

impl Decided {
    /// A shared budget that was evaluated, with what the request asked of it.
    pub fn add_budget(&mut self, name: &str, limit: Option<Usd>, asked: Usd) {
        let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
        let name = budget(name);
        let asked = asked.to_string();
        self.limits.push(LimitCheck { name, limit, asked, ..LimitCheck::default() });
    }

    /// What was admitted so far and is refused by a shared budget or the loop breaker after all.
    pub fn refuse(&mut self, refusal: &Refusal, load: &Load) {
        let (by, limit, before, asked) = match refusal {
            Refusal::BudgetExceeded { budget: Some(it), cap, spent, held, hold, .. }
            | Refusal::BudgetHeld { budget: Some(it), cap, spent, held, hold, .. } => {
                let taken = spent.saturating_add(*held);
                (budget(&it.name), cap.to_string(), taken.to_string(), hold.to_string())
            }
            Refusal::RateLimited { budget: Some(it), limit, .. } => {
                (budget(&it.name), limit.to_string(), limit.to_string(), "1".to_owned())
            }
            Refusal::LoopDetected { .. } => {
                ("loop_breaker".to_owned(), String::new(), String::new(), String::new())
            }
            // What `record` has said already.
            _ => return,
        };
        let check = LimitCheck { name: by.clone(), limit, before, asked, refused: true };
        match self.limits.iter_mut().find(|limit| limit.name == by) {
            Some(known) => *known = check,
            None => self.limits.push(check),
        }
        self.refused_by = Some(by);
        self.load = Some(load.clone());
    }
}

fn spend_cap(window: &str) -> String {
    format!("spend_cap {window}")
}

fn budget(name: &str) -> String {
    format!("budget {name}")
}
