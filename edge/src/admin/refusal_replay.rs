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
#[derive(Debug, PartialEq, Eq)]
enum Met {
    Passes { hold: Usd, budgets_not_asked: bool },
    Refused { code: String },
    CannotBeTold { reason: &'static str },
}

/// What passed so far, of one key: when, what it would have held, and the tokens it asked for.
type Passed = Vec<(Timestamp, Usd, u64)>;

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
    let mut passed: BTreeMap<String, Passed> = BTreeMap::new();
    let (mut whole, mut worst_case, mut not_asked) = (Counts::default(), Usd::ZERO, 0_u64);
    let mut by_code: BTreeMap<String, Counts> = BTreeMap::new();
    let mut by_key: BTreeMap<String, (String, String, Counts)> = BTreeMap::new();
    let (mut refused, mut untold) = (BTreeMap::new(), BTreeMap::new());
    for event in &events {
        let own = passed.entry(event.key.as_str().to_owned()).or_default();
        let met = meets(&question.plan, event, own);
        // One record may stand for many: they were refused alike, in the same minute.
        let many = event.sampled;
        whole.add(&met, many);
        let code = event.code.clone().unwrap_or_default();
        by_code.entry(code).or_default().add(&met, many);
        let key = by_key
            .entry(event.key.as_str().to_owned())
            .or_insert_with(|| (event.key_name.clone(), event.owner.clone(), Counts::default()));
        key.2.add(&met, many);
        match met {
            Met::Passes { hold, budgets_not_asked } => {
                let tokens = event.decided.as_ref().map_or(0, |it| it.asked.input_tokens);
                own.push((event.at, hold, tokens));
                let hold = hold.pico().saturating_mul(i128::from(many));
                worst_case = worst_case.saturating_add(Usd::from_pico(hold));
                not_asked = not_asked.saturating_add(if budgets_not_asked { many } else { 0 });
            }
            Met::Refused { code } => count(&mut refused, code, many),
            Met::CannotBeTold { reason } => count(&mut untold, reason.to_owned(), many),
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

fn meets(plan: &KeyPlan, event: &UsageEvent, passed: &Passed) -> Met {
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
    let mut own = plan.clone();
    own.key = event.key.clone();
    own.owner.environment.clone_from(&event.environment);
    own.owner.actor = event.actor.clone();
    let addresses = own.policy.ip_ranges.take().is_some();
    let actor = match decided.asked.actor_token {
        true => Ok(event.actor.clone()),
        false => Err(ActorError::Missing),
    };
    let facts = facts_of(event, decided);
    let load = load_of(&own, decided, passed, event.at);
    let shelf = Shelf::of(&event.endpoint, event.at);
    let decision = decide(&own, &facts, &actor, &load, &shelf, 0, event.at);
    let hold = match decision.outcome {
        Err(refusal) => return Met::Refused { code: refusal.code().to_owned() },
        Ok(admission) => admission.hold,
    };
    if addresses {
        return untold("only its network is kept, not its address");
    }
    let counted = |name: &str| decided.limits.iter().any(|limit| limit.name == name);
    if own.policy.requests_per_minute.is_some() && !counted("requests_per_minute") {
        return untold("its key's requests per minute were not counted then");
    }
    if own.policy.tokens_per_minute.is_some() && !counted("tokens_per_minute") {
        return untold("its key's tokens per minute were not counted then");
    }
    if by == "loop_breaker" && own.policy.loop_breaker.enabled {
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
                if hold < asked && taken.saturating_add(hold) <= cap =>
            {
                Met::Passes { hold, budgets_not_asked: false }
            }
            _ => still(),
        };
    }
    let known = actor.as_ref().unwrap_or(&own.owner.actor);
    let budgets_not_asked = own.budgets_of(known).next().is_some();
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
fn load_of(plan: &KeyPlan, decided: &Decided, passed: &Passed, at: Timestamp) -> Load {
    let mut load = decided.load.clone().unwrap_or_default();
    for (window, spent) in &mut load.spent {
        let same = |before: &&(Timestamp, Usd, u64)| window.key(before.0) == window.key(at);
        let more = passed.iter().filter(same).map(|(_, hold, _)| *hold);
        *spent = more.fold(*spent, Usd::saturating_add);
    }
    let last_minute = || passed.iter().filter(|(before, ..)| at.since_ms(*before) < MINUTE_MS);
    let per_minute = |limit| Gcra { limit, period_ms: MINUTE_MS.unsigned_abs() };
    if let Some(limit) = plan.policy.requests_per_minute {
        let requests = u64::try_from(last_minute().count()).unwrap_or(u64::MAX);
        load.requests = per_minute(limit).charge(&load.requests, requests, at);
    }
    if let Some(limit) = plan.policy.tokens_per_minute {
        let tokens = last_minute().map(|(.., tokens)| *tokens).fold(0, u64::saturating_add);
        load.tokens = per_minute(limit).charge(&load.tokens, tokens, at);
    }
    load
}
