//! What refused requests would have met under another policy: decided again by the same function, from what their events
//! keep. Pure, and it changes nothing.
//!
//! What an event does not keep is never guessed: such a request is counted as one that cannot be told, with the reason. A
//! request that would pass counts with its worst case against those after it, and in the rates for a minute; how long it
//! would have been in flight nobody knows, so it takes no slot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::budget::account::Load;
use tallygate_shared::budget::rate_limit::Gcra;
use tallygate_shared::events::decision::Decided;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::identity::actor::ActorError;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::{RequestFacts, decide};
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::time::Timestamp;

use crate::dialects::Endpoint;
use crate::objects::ledger_requests::RequestsQuery;
use crate::providers::catalog::Shelf;

const MINUTE_MS: i64 = 60_000;

/// The question: which refusals, and the plan that they are decided under. It has no secrets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Which refusals.
    pub query: RequestsQuery,
    /// The workspace's providers, routes, prices and budgets with the policy; of no key in particular.
    pub plan: KeyPlan,
}

/// What one refusal would have met.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Met {
    Passes { hold: Usd, budgets_not_asked: bool },
    Refused { code: String },
    CannotBeTold { reason: &'static str },
}

/// Requests alike that passed: when, what each would have held, the tokens it asked for, and how many.
#[derive(Clone, Copy)]
struct Passed {
    at: Timestamp,
    hold: Usd,
    tokens: u64,
    many: u64,
}

impl Passed {
    fn hold(&self) -> Usd {
        Usd::from_pico(self.hold.pico().saturating_mul(i128::from(self.many)))
    }
}

/// Numbers of one group.
#[derive(Default)]
struct Counts {
    refusals: u64,
    would_pass: u64,
    still_refused: u64,
    cannot_be_told: u64,
}

impl Counts {
    fn add(&mut self, met: &Met, many: u64) {
        let place = match met {
            Met::Passes { .. } => &mut self.would_pass,
            Met::Refused { .. } => &mut self.still_refused,
            Met::CannotBeTold { .. } => &mut self.cannot_be_told,
        };
        *place = place.saturating_add(many);
        self.refusals = self.refusals.saturating_add(many);
    }

    fn shown(&self) -> Value {
        json!({ "refusals": self.refusals, "would_pass": self.would_pass,
                "still_refused": self.still_refused, "cannot_be_told": self.cannot_be_told })
    }
}

/// Decides refusals again. `all` is how many there were in that time, also those that are not among `events`.
pub fn replay(question: &Replay, mut events: Vec<UsageEvent>, all: u64) -> Value {
    events.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    let mut passed: BTreeMap<String, Vec<Passed>> = BTreeMap::new();
    let (mut whole, mut worst_case, mut not_asked) = (Counts::default(), Usd::ZERO, 0_u64);
    let mut by_code: BTreeMap<String, Counts> = BTreeMap::new();
    let mut by_key: BTreeMap<String, (String, String, Counts)> = BTreeMap::new();
    let (mut refused, mut untold) = (BTreeMap::new(), BTreeMap::new());
    for event in &events {
        let own = passed.entry(event.key.as_str().to_owned()).or_default();
        let code = event.code.clone().unwrap_or_default();
        let by_code = by_code.entry(code).or_default();
        let (.., by_key) = by_key
            .entry(event.key.as_str().to_owned())
            .or_insert_with(|| (event.key_name.clone(), event.owner.clone(), Counts::default()));
        for (met, many) in meet(&question.plan, event, own) {
            for counts in [&mut whole, &mut *by_code, &mut *by_key] {
                counts.add(&met, many);
            }
            match met {
                Met::Passes { hold, budgets_not_asked } => {
                    let passed = Passed { hold, many, ..first_of(event) };
                    own.push(passed);
                    worst_case = worst_case.saturating_add(passed.hold());
                    not_asked = not_asked.saturating_add(if budgets_not_asked { many } else { 0 });
                }
                Met::Refused { code } => count(&mut refused, code, many),
                Met::CannotBeTold { reason } => count(&mut untold, reason.to_owned(), many),
            }
        }
    }
    let mut answer = whole.shown();
    let list = |name: &str, counts: BTreeMap<String, u64>| -> Vec<Value> {
        counts.into_iter().map(|(value, many)| json!({ name: value, "refusals": many })).collect()
    };
    let with = |names: Value, counts: &Counts| match (names, counts.shown()) {
        (Value::Object(mut row), Value::Object(counts)) => {
            row.extend(counts);
            Value::Object(row)
        }
        (names, _) => names,
    };
    let more = json!({
        "looked_at": whole.refusals,
        "refusals": all.max(whole.refusals),
        "worst_case_usd": worst_case,
        "shared_budgets_not_asked": not_asked,
        "by_code": by_code.iter().map(|(code, it)| with(json!({ "code": code }), it)).collect::<Vec<_>>(),
        "by_key": by_key
            .iter()
            .map(|(key, (name, owner, it))| {
                with(json!({ "key": key, "key_name": name, "owner": owner }), it)
            })
            .collect::<Vec<_>>(),
        "refused_for": list("code", refused),
        "not_told_because": list("reason", untold),
    });
    if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
        answer.extend(more);
    }
    answer
}

fn count(counts: &mut BTreeMap<String, u64>, name: String, many: u64) {
    let count = counts.entry(name).or_default();
    *count = count.saturating_add(many);
}

/// Before any request of a record passed.
fn first_of(event: &UsageEvent) -> Passed {
    let tokens = event.decided.as_ref().map_or(0, |it| it.asked.input_tokens);
    Passed { at: event.at, hold: Usd::ZERO, tokens, many: 0 }
}

/// What the requests that a record stands for would have met, and how many of them: they were refused alike, in the same
/// minute, and each that passes counts against the next.
fn meet(plan: &KeyPlan, event: &UsageEvent, passed: &[Passed]) -> Vec<(Met, u64)> {
    let first = meets(plan, event, passed, first_of(event));
    let Met::Passes { hold, .. } = first else { return vec![(first, event.sampled)] };
    let behind = |many| meets(plan, event, passed, Passed { hold, many, ..first_of(event) });
    // So many pass; behind `most` of them none does, or there are no more.
    let (mut pass, mut most) = (event.sampled.min(1), event.sampled);
    let mut rest = Vec::new();
    while pass < most {
        // The one behind this many: at first the last of all, which mostly passes too.
        let middle = if rest.is_empty() { most - 1 } else { pass + (most - pass) / 2 };
        match behind(middle) {
            Met::Passes { .. } => pass = middle + 1,
            met => {
                most = middle;
                rest = vec![met];
            }
        }
    }
    let rest = rest.into_iter().map(|met| (met, event.sampled - pass));
    [(first, pass)].into_iter().chain(rest).collect()
}

/// What one more request of a record would have met, behind `own` ones of the same.
fn meets(plan: &KeyPlan, event: &UsageEvent, passed: &[Passed], own: Passed) -> Met {
    let code = event.code.clone().unwrap_or_default();
    let still = || Met::Refused { code: code.clone() };
    let untold = |reason| Met::CannotBeTold { reason };
    let Some(decided) = event.decided.as_deref() else {
        return match code.as_str() {
            "key_invalid" => still(),
            _ => untold("its record is from before sizes and counters were kept"),
        };
    };
    let by = decided.refused_by.as_deref().unwrap_or_default();
    // No policy makes a revoked key, a broken body or a forged token good.
    let forged = by == "actor" && !matches!(code.as_str(), "actor_missing" | "actor_claim_missing");
    if matches!(by, "key_status" | "request") || forged {
        return still();
    }
    let mut plan = plan.clone();
    plan.key = event.key.clone();
    plan.owner.environment.clone_from(&event.environment);
    plan.owner.actor = event.actor.clone();
    let addresses = plan.policy.ip_ranges.take().is_some();
    let actor = match decided.asked.actor_token {
        true => Ok(event.actor.clone()),
        false => Err(ActorError::Missing),
    };
    let facts = facts_of(event, decided);
    let load = load_of(&plan, decided, passed.iter().chain([&own]), event.at);
    let shelf = Shelf::of(&event.endpoint, event.at);
    let decision = decide(&plan, &facts, &actor, &load, &shelf, 0, event.at);
    let hold = match decision.outcome {
        Err(refusal) => return Met::Refused { code: refusal.code().to_owned() },
        Ok(admission) => admission.hold,
    };
    if addresses {
        return untold("only its network is kept, not its address");
    }
    let counted = |name: &str| decided.limits.iter().any(|limit| limit.name == name);
    if plan.policy.requests_per_minute.is_some() && !counted("requests_per_minute") {
        return untold("its key's requests per minute were not counted then");
    }
    if plan.policy.tokens_per_minute.is_some() && !counted("tokens_per_minute") {
        return untold("its key's tokens per minute were not counted then");
    }
    if by == "loop_breaker" && plan.policy.loop_breaker.enabled {
        return untold("what the agent did before is not kept");
    }
    if let Some(limit) =
        decided.limits.iter().find(|it| it.refused && it.name.starts_with("budget "))
    {
        // A shared budget is no part of a policy: only a cheaper request fits into it.
        let amount = |text: &str| text.parse::<Usd>().ok();
        let amounts = (amount(&limit.limit), amount(&limit.before), amount(&limit.asked));
        return match amounts {
            (Some(cap), Some(taken), Some(asked))
                if hold < asked && taken.saturating_add(own.hold()).saturating_add(hold) <= cap =>
            {
                Met::Passes { hold, budgets_not_asked: false }
            }
            _ => still(),
        };
    }
    let known = actor.as_ref().unwrap_or(&plan.owner.actor);
    let budgets_not_asked = plan.budgets_of(known).next().is_some();
    Met::Passes { hold, budgets_not_asked }
}

fn facts_of(event: &UsageEvent, decided: &Decided) -> RequestFacts {
    let endpoint = Endpoint::ALL.into_iter().find(|it| it.path() == event.endpoint);
    let asked = &decided.asked;
    RequestFacts {
        endpoint: event.endpoint.clone(),
        model: event.requested_model.clone(),
        free: matches!(endpoint, Some(Endpoint::CountTokens | Endpoint::Moderations)),
        has_output: !matches!(
            endpoint,
            Some(Endpoint::Embeddings | Endpoint::Moderations | Endpoint::CountTokens)
        ),
        input_tokens: asked.input_tokens,
        max_output_tokens: asked.max_output_tokens,
        choices: asked.choices.unwrap_or(1),
        service_tier: asked.service_tier.clone(),
        body_bytes: asked.body_bytes,
        ..RequestFacts::default()
    }
}

/// The key's counters at that moment, with what would have passed before.
fn load_of<'a>(
    plan: &KeyPlan,
    decided: &Decided,
    passed: impl Iterator<Item = &'a Passed> + Clone,
    at: Timestamp,
) -> Load {
    let mut load = decided.load.clone().unwrap_or_default();
    for (window, spent) in &mut load.spent {
        let same = |before: &&Passed| window.key(before.at) == window.key(at);
        let more = passed.clone().filter(same).map(Passed::hold);
        *spent = more.fold(*spent, Usd::saturating_add);
    }
    let last_minute = passed.filter(|before| at.since_ms(before.at) < MINUTE_MS);
    let per_minute = |limit| Gcra { limit, period_ms: MINUTE_MS.unsigned_abs() };
    if let Some(limit) = plan.policy.requests_per_minute {
        let requests = last_minute.clone().fold(0_u64, |sum, it| sum.saturating_add(it.many));
        load.requests = per_minute(limit).charge(&load.requests, requests, at);
    }
    if let Some(limit) = plan.policy.tokens_per_minute {
        let tokens = last_minute.map(|it| it.tokens.saturating_mul(it.many));
        let tokens = tokens.fold(0, u64::saturating_add);
        load.tokens = per_minute(limit).charge(&load.tokens, tokens, at);
    }
    load
}
