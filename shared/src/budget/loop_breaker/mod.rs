//! Stops an agent that goes round in circles, before the budget has to: a state machine over hashes, sizes and costs.
//!
//! A scope is an agent and session under one key. Closed, its requests pass and are watched. Evidence of a loop opens
//! it: requests are refused until the cool-down ends. Then one request at a time may probe. Once a probe was answered,
//! the same evidence trips at once, for twice as long; without it, the trip is forgotten after a while.
//!
//! Only answers count: a request that failed, or was refused, is no repetition, so retries never trip. Answers that
//! were under way at the same time count once, so the same prompt many times in parallel never trips.
//!
//! - [`rules`]: thresholds and cool-downs
//! - [`shape`]: what is known of a request, and the evidence

pub mod rules;
pub mod shape;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use self::rules::LoopRules;
use self::shape::{Evidence, RequestShape, ScopeKey, cycle};
use crate::money::Usd;
use crate::time::Timestamp;

/// Scopes remembered for a key. With [`ANSWERS`] and [`WINDOWS`] each takes at most about 3 KB: under 1 MB together.
pub const SCOPES: usize = 256;
/// Answers remembered for a scope.
const ANSWERS: usize = 64;
/// Windows with spending that make a scope's baseline.
const WINDOWS: usize = 12;
/// Fewer windows make no baseline.
const LEAST_WINDOWS: usize = 6;
/// A context that runs away has grown over at least so many requests,
const GROWTH_REQUESTS: u32 = 20;
/// and by this factor.
const GROWTH_FACTOR: u64 = 4;
/// A probe that is not over by then no longer keeps others back.
const PROBE_MS: i64 = 120_000;
/// What a request is told to wait while another probes.
const PROBE_WAIT_MS: i64 = 5_000;

/// A scope that was stopped. Kept until `forget_at`, so that a restart does not let it go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Trip {
    /// Whose requests.
    pub scope: ScopeKey,
    /// Why.
    pub evidence: Evidence,
    /// What the scope had spent when it was stopped, since it was first watched.
    pub spent_usd: Usd,
    /// Its answered requests, likewise.
    pub requests: u64,
    /// When it was stopped.
    pub tripped_at: Timestamp,
    /// The end of the cool-down.
    pub until: Timestamp,
    /// When the trip is forgotten, if nothing follows.
    pub forget_at: Timestamp,
    /// Trips before this one that it follows.
    pub level: u32,
    /// The fingerprint of the request that was refused.
    pub fingerprint: u64,
}

/// What the breaker says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Pass,
    /// It may not.
    Tripped {
        /// Why, and until when.
        trip: Box<Trip>,
        /// Whether this request tripped it: then the trip must be kept.
        fresh: bool,
    },
}

/// What the breaker must hear of a request that it let pass, when it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Whose request.
    pub scope: ScopeKey,
    /// Its fingerprint.
    pub fingerprint: u64,
}

/// How a request ended that passed.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What it was charged.
    pub cost: Usd,
    /// The caller got a whole answer.
    pub answered: bool,
    /// When it was admitted.
    pub from: Timestamp,
    /// When the caller had its last byte: before the settlement, which must not make two requests overlap.
    pub to: Timestamp,
}

/// One answered request.
#[derive(Clone, Copy, Debug)]
struct Answer {
    fingerprint: u64,
    from: Timestamp,
    to: Timestamp,
}

/// How a conversation grew since it last shrank.
#[derive(Clone, Copy, Debug, Default)]
struct Growth {
    from_tokens: u64,
    last_tokens: u64,
    requests: u32,
}

#[derive(Debug, Default)]
struct Scope {
    used: u64,
    answers: VecDeque<Answer>,
    growth: Growth,
    /// Spending by window, only windows that have any: (number, amount).
    windows: VecDeque<(i64, Usd)>,
    spent: Usd,
    requests: u64,
    trip: Option<Trip>,
    /// A request was answered since the cool-down ended.
    answered: bool,
    probe: Option<Timestamp>,
    /// After a person cleared a trip, the conversation still ends in its cycle: it is overlooked until then.
    pardoned_until: Option<Timestamp>,
}

/// The loop breaker of one key.
#[derive(Debug, Default)]
pub struct LoopBreaker {
    scopes: BTreeMap<String, Scope>,
    uses: u64,
}

impl LoopBreaker {
    /// A breaker that knows the trips of an earlier life.
    pub fn restore(trips: impl IntoIterator<Item = Trip>, now: Timestamp) -> Self {
        let mut breaker = Self::default();
        for trip in trips.into_iter().filter(|trip| trip.forget_at > now) {
            let scope = breaker.scope(&trip.scope.id);
            (scope.spent, scope.requests) = (trip.spent_usd, trip.requests);
            scope.trip = Some(trip);
        }
        breaker
    }

    /// Decides about a request that is otherwise admitted. `input_tokens` is the size of its context.
    pub fn check(
        &mut self,
        key: &ScopeKey,
        shape: &RequestShape,
        input_tokens: u64,
        rules: &LoopRules,
        now: Timestamp,
    ) -> Verdict {
        let scope = self.scope(&key.id);
        if scope.trip.as_ref().is_some_and(|trip| trip.forget_at <= now) {
            scope.close();
        }
        if let Some(trip) = scope.trip.as_ref().filter(|trip| now < trip.until) {
            return Verdict::Tripped { trip: Box::new(trip.clone()), fresh: false };
        }
        let evidence = scope
            .evidence(shape, input_tokens, rules, now)
            .or_else(|| scope.goes_on(shape, rules, now));
        let Some(evidence) = evidence else {
            scope.growth.pass(input_tokens);
            return Verdict::Pass;
        };
        let level = match &scope.trip {
            // Half-open: the evidence must go on after an answered probe.
            Some(trip) if !scope.answered => {
                if scope.probe.is_some_and(|at| now.since_ms(at) < PROBE_MS) {
                    let until = now.plus_ms(PROBE_WAIT_MS);
                    let trip = Box::new(Trip { until, ..trip.clone() });
                    return Verdict::Tripped { trip, fresh: false };
                }
                scope.probe = Some(now);
                scope.growth.pass(input_tokens);
                return Verdict::Pass;
            }
            Some(trip) => trip.level.saturating_add(1),
            None => 0,
        };
        let cool_down = rules.cool_down_ms(level);
        let trip = Trip {
            scope: key.clone(),
            evidence,
            spent_usd: scope.spent,
            requests: scope.requests,
            tripped_at: now,
            until: now.plus_ms(cool_down),
            forget_at: now.plus_ms(cool_down.saturating_mul(2)).plus_ms(rules.window_ms()),
            level,
            fingerprint: shape.fingerprint,
        };
        scope.open(trip.clone());
        Verdict::Tripped { trip: Box::new(trip), fresh: true }
    }

    /// Takes in how a request ended that passed.
    pub fn settled(&mut self, watched: &Watched, ended: Ended, rules: &LoopRules, now: Timestamp) {
        let Ended { cost, answered, from, to } = ended;
        let scope = self.scope(&watched.scope.id);
        scope.spend(cost, rules, now);
        if scope.trip.as_ref().is_some_and(|trip| trip.until <= from) {
            scope.probe = None;
            scope.answered |= answered;
        }
        if answered {
            scope.requests = scope.requests.saturating_add(1);
            // In the order of their ends, whatever the order of the settlements.
            let to = to.min(now);
            let place = scope.answers.partition_point(|answer| answer.to <= to);
            scope.answers.insert(place, Answer { fingerprint: watched.fingerprint, from, to });
            if scope.answers.len() > ANSWERS {
                scope.answers.pop_front();
            }
        }
    }

    /// A person lets a scope go on: all that was held against it is forgotten. Returns whether it was stopped.
    pub fn clear(&mut self, id: &str, rules: &LoopRules, now: Timestamp) -> bool {
        let Some(scope) = self.scopes.get_mut(id) else { return false };
        let stopped = scope.trip.as_ref().is_some_and(|trip| trip.forget_at > now);
        if stopped {
            *scope = Scope {
                used: scope.used,
                windows: std::mem::take(&mut scope.windows),
                spent: scope.spent,
                requests: scope.requests,
                pardoned_until: Some(now.plus_ms(rules.window_ms())),
                ..Scope::default()
            };
        }
        stopped
    }

    /// The trips that are not forgotten.
    pub fn trips(&self, now: Timestamp) -> impl Iterator<Item = &Trip> {
        let trips = self.scopes.values().filter_map(|scope| scope.trip.as_ref());
        trips.filter(move |trip| trip.forget_at > now)
    }

    /// The scope, made room for. The one that goes is not stopped, if there is such a one, and longest unused.
    fn scope(&mut self, id: &str) -> &mut Scope {
        self.uses = self.uses.saturating_add(1);
        if self.scopes.len() >= SCOPES && !self.scopes.contains_key(id) {
            let rank = |scope: &Scope| (scope.trip.is_some(), scope.used);
            let oldest = self.scopes.iter().min_by_key(|(_, scope)| rank(scope));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                self.scopes.remove(&id);
            }
        }
        let scope = self.scopes.entry(id.to_owned()).or_default();
        scope.used = self.uses;
        scope
    }
}

impl Growth {
    fn pass(&mut self, tokens: u64) {
        if tokens < self.last_tokens || self.requests == 0 {
            *self = Self { from_tokens: tokens, last_tokens: tokens, requests: 1 };
        } else if tokens > self.last_tokens {
            self.last_tokens = tokens;
            self.requests = self.requests.saturating_add(1);
        }
    }
}

impl Scope {
    fn close(&mut self) {
        (self.trip, self.answered, self.probe) = (None, false, None);
    }

    fn open(&mut self, trip: Trip) {
        if matches!(trip.evidence, Evidence::SpendLeap { .. }) {
            // The leap must not become the baseline of the next.
            self.windows.pop_back();
        }
        self.close();
        self.trip = Some(trip);
    }

    fn spend(&mut self, cost: Usd, rules: &LoopRules, now: Timestamp) {
        if cost <= Usd::ZERO {
            return;
        }
        self.spent = self.spent.saturating_add(cost);
        let window = window_of(rules, now);
        match self.windows.back_mut() {
            Some((number, amount)) if *number == window => *amount = amount.saturating_add(cost),
            _ => self.windows.push_back((window, cost)),
        }
        if self.windows.len() > WINDOWS + 1 {
            self.windows.pop_front();
        }
    }

    /// Evidence of a loop, each kind against its full threshold.
    fn evidence(
        &self,
        shape: &RequestShape,
        input_tokens: u64,
        rules: &LoopRules,
        now: Timestamp,
    ) -> Option<Evidence> {
        let times = self.sequence(shape.fingerprint, now.plus_ms(-rules.window_ms()));
        if rules.repeats.is_some_and(|repeats| times >= repeats) {
            return Some(repeated(times, rules));
        }
        let pardoned = self.pardoned_until.is_some_and(|end| now < end);
        if let Some(least) = rules.cycle_calls.filter(|_| !pardoned)
            && let Some(found) = cycle(&shape.tool_calls, least)
        {
            return Some(found);
        }
        self.runaway(input_tokens, rules).or_else(|| self.leap(rules, 1, now))
    }

    /// After a trip less is needed: the same request once more, or a quarter of a leap.
    fn goes_on(&self, shape: &RequestShape, rules: &LoopRules, now: Timestamp) -> Option<Evidence> {
        let trip = self.trip.as_ref()?;
        match &trip.evidence {
            Evidence::RepeatedRequest { .. } if shape.fingerprint == trip.fingerprint => {
                let since = trip.until.max(now.plus_ms(-rules.window_ms()));
                Some(repeated(self.sequence(shape.fingerprint, since), rules))
            }
            Evidence::SpendLeap { .. } if self.answered => self.leap(rules, 4, now),
            Evidence::SpendLeap { .. } => Some(trip.evidence.clone()),
            Evidence::RepeatedRequest { .. }
            | Evidence::ToolCycle { .. }
            | Evidence::ContextGrowth { .. } => None,
        }
    }

    /// Answers to a fingerprint since a moment, one after the other: those that overlap count once.
    fn sequence(&self, fingerprint: u64, since: Timestamp) -> u32 {
        let mut last_end: Option<Timestamp> = None;
        let mut count = 0_u32;
        let same = |answer: &&Answer| answer.fingerprint == fingerprint && answer.to >= since;
        for answer in self.answers.iter().filter(same) {
            if last_end.is_none_or(|end| answer.from >= end) {
                last_end = Some(answer.to);
                count = count.saturating_add(1);
            }
        }
        count
    }

    fn runaway(&self, input_tokens: u64, rules: &LoopRules) -> Option<Evidence> {
        let Growth { from_tokens, last_tokens, requests } = self.growth;
        let limit = rules.context_tokens?;
        let grown = input_tokens >= limit.max(from_tokens.saturating_mul(GROWTH_FACTOR));
        (grown && input_tokens >= last_tokens && requests >= GROWTH_REQUESTS)
            .then_some(Evidence::ContextGrowth { input_tokens, from_tokens, requests })
    }

    /// Whether the current window's spending reaches the threshold, divided by `part`.
    fn leap(&self, rules: &LoopRules, part: i128, now: Timestamp) -> Option<Evidence> {
        let factor = i128::from(rules.spend_factor?);
        let current = window_of(rules, now);
        let spent = self.windows.back().filter(|(window, _)| *window == current)?.1;
        let earlier = self.windows.iter().filter(|(window, _)| *window != current);
        if earlier.clone().count() < LEAST_WINDOWS {
            return None;
        }
        let baseline = earlier.map(|(_, amount)| *amount).max().unwrap_or_default();
        let threshold = baseline.pico().saturating_mul(factor).max(rules.spend_floor_usd.pico());
        (spent.pico() >= threshold / part).then_some(Evidence::SpendLeap {
            spent_usd: spent,
            baseline_usd: baseline,
            window_seconds: rules.window_seconds,
        })
    }
}

fn repeated(times: u32, rules: &LoopRules) -> Evidence {
    Evidence::RepeatedRequest { times, window_seconds: rules.window_seconds }
}

fn window_of(rules: &LoopRules, now: Timestamp) -> i64 {
    now.ms().div_euclid(rules.window_ms().max(1))
}
