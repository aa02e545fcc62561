//! A day's requests, and what became of them.

use tallygate_shared::events::decision::{Asked, Decided, LimitCheck, PromptParts};
use tallygate_shared::events::outcome::{OUTCOME_EVENT_VERSION, OutcomeEvent, Subject, Verdict};
use tallygate_shared::events::usage_event::{Attempt, Outcome, USAGE_EVENT_VERSION, UsageEvent};
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::{PriceBook, rate};
use tallygate_shared::time::{DAY_MS, HOUR_MS, Timestamp};
use tallygate_shared::tokens::{Tally, Tokens, Usage};

use super::features::{CUSTOMERS, FEATURES, Feature, HOURS};
use super::{Demo, DemoKey, Dice};

/// Numbers of a day's events: far more than a day has.
const NUMBERS: u64 = 10_000;
/// The day on which an agent runs in circles.
const LOOP_DAY: u32 = 22;

/// A request before it has a number.
struct Ask<'a> {
    at: i64,
    key: &'a DemoKey,
    actor: Actor,
    feature: &'a Feature,
    input: u64,
    /// It is refused, with this code.
    refused: Option<&'static str>,
}

/// The requests of a day, up to the demo's end.
pub(super) fn events(demo: &Demo, day: u32) -> Vec<UsageEvent> {
    let midnight = demo.date(day).midnight().ms();
    let mut dice = Dice(u64::from(day).wrapping_mul(0x9e37_79b9) ^ 0x7461_6c6c);
    let mut asks = Vec::new();
    for feature in &FEATURES {
        let count = requests_of(feature.daily, demo, day, &mut dice);
        let mut left = count;
        while left > 0 {
            left = left.saturating_sub(ask(demo, feature, midnight, &mut dice, &mut asks));
        }
    }
    if day == LOOP_DAY {
        circles(demo, midnight, &mut asks);
    }
    // A conversation ends at midnight: the next day is another batch, and may be another month.
    let end = demo.until.ms().min(midnight + DAY_MS);
    asks.retain(|ask| ask.at < end);
    asks.sort_by_key(|ask| ask.at);
    let first = u64::from(day) * NUMBERS + 1;
    let numbered = asks.iter().zip(first..);
    numbered.filter_map(|(ask, seq)| event(demo, ask, seq, &mut dice)).collect()
}

/// More from week to week, few at weekends, and never quite the same.
fn requests_of(daily: u64, demo: &Demo, day: u32, dice: &mut Dice) -> u64 {
    let grown = daily * (100 + 2 * u64::from(day)) / 100;
    let weekend = demo.date(day).iso_weekday() > 5;
    let usual = if weekend { grown / 4 } else { grown };
    usual * (90 + dice.roll(21)) / 100 + 1
}

/// Adds one request, or the turns of a conversation; says how many.
fn ask<'a>(
    demo: &'a Demo,
    feature: &'a Feature,
    midnight: i64,
    dice: &mut Dice,
    asks: &mut Vec<Ask<'a>>,
) -> u64 {
    let mut place = dice.roll(HOURS.iter().sum());
    let mut hour = 0;
    for (at, share) in (0..).zip(HOURS) {
        hour = at;
        if place < share {
            break;
        }
        place -= share;
    }
    let mut at = midnight + hour * HOUR_MS + i64::try_from(dice.roll(3_600_000)).unwrap_or(0);
    // A twentieth comes through a key that fixes no team.
    let stray = dice.roll(20) == 0;
    let own = |key: &&DemoKey| key.team.as_deref() == if stray { None } else { Some(feature.team) };
    let Some(key) = demo.keys.iter().find(own).or(demo.keys.first()) else { return u64::MAX };
    let mut actor = Actor::default();
    if key.team.is_some() {
        let named = |text: &str| Some(text.to_owned());
        actor.team = key.team.clone();
        actor.app = named(feature.app);
        actor.feature = named(feature.name);
        actor.agent = feature.agent.and_then(named);
        actor.user = Some(format!("{}-{}", feature.team, dice.roll(7) + 1));
        let customer = usize::try_from(dice.roll(8).min(dice.roll(8))).unwrap_or(0);
        actor.customer =
            CUSTOMERS.get(customer).filter(|_| feature.customers).map(|it| (*it).to_owned());
    }
    let turns = if feature.chat { 3 + dice.roll(8) } else { 1 };
    if feature.chat && actor.team.is_some() {
        actor.session = Some(format!("chat-{:08x}", dice.next() >> 32));
    }
    for turn in 0..turns {
        let refused = match dice.roll(400) {
            0..=5 => Some("budget_exceeded"),
            6..=9 => Some("rate_limited"),
            10..=12 => Some("model_not_allowed"),
            13 => Some("max_request_cost_exceeded"),
            _ => None,
        };
        // Each turn sends what was said before it again.
        let input = dice.about(feature.input) + turn * (feature.input / 2 + feature.output);
        asks.push(Ask { at, key, actor: actor.clone(), feature, input, refused });
        at += 20_000 + i64::try_from(dice.roll(70_000)).unwrap_or(0);
    }
    turns
}

/// An agent that asks the same again and again, until it is stopped.
fn circles<'a>(demo: &'a Demo, midnight: i64, asks: &mut Vec<Ask<'a>>) {
    let Some(feature) = FEATURES.iter().find(|feature| feature.agent == Some("fixer")) else {
        return;
    };
    let own = |key: &&DemoKey| key.team.as_deref() == Some(feature.team);
    let Some(key) = demo.keys.iter().find(own) else { return };
    let named = |text: &str| Some(text.to_owned());
    let actor = Actor {
        team: named(feature.team),
        app: named(feature.app),
        feature: named(feature.name),
        agent: named("fixer"),
        user: named("platform-3"),
        session: named("run-4711"),
        ..Actor::default()
    };
    for turn in 0..64_i64 {
        let refused = (turn >= 40).then_some("loop_detected");
        let input = feature.input + 900 * turn.unsigned_abs();
        let at = midnight + 15 * HOUR_MS + turn * 9_000;
        asks.push(Ask { at, key, actor: actor.clone(), feature, input, refused });
    }
}

/// What a request asked for, and which limit refused it.
fn decided(ask: &Ask<'_>) -> Decided {
    let first = ask.feature.input.min(ask.input);
    let tools = if ask.feature.agent.is_some() { first / 4 } else { 0 };
    let system = first / 3;
    let parts = PromptParts {
        system,
        tools,
        history: ask.input - first,
        last: first - system - tools,
        other: 0,
    };
    // What refused, and the limit's name and text.
    let refusal = ask.refused.map(|code| match code {
        "budget_exceeded" => ("budget teams", "budget teams", ""),
        "rate_limited" => ("requests_per_minute", "requests_per_minute", "60"),
        "model_not_allowed" => ("model", "models", ""),
        "max_request_cost_exceeded" => ("max_request_usd", "max_request_usd", "1"),
        _ => ("loop_breaker", "loop_breaker", ""),
    });
    let limits = refusal.map(|(_, name, limit)| LimitCheck {
        name: name.to_owned(),
        limit: limit.to_owned(),
        refused: true,
        ..LimitCheck::default()
    });
    Decided {
        asked: Asked {
            input_tokens: ask.input,
            body_bytes: ask.input * 4,
            actor_token: ask.actor.team.is_some(),
            parts: Some(parts),
            ..Asked::default()
        },
        refused_by: refusal.map(|(by, _, _)| by.to_owned()),
        limits: limits.into_iter().collect(),
        ..Decided::default()
    }
}

/// The event of a request; `None` where the price book has no price for it at that time.
fn event(demo: &Demo, ask: &Ask<'_>, seq: u64, dice: &mut Dice) -> Option<UsageEvent> {
    let at = Timestamp::from_ms(ask.at);
    let mut random = [0; 10];
    random.iter_mut().for_each(|byte| *byte = dice.next().to_le_bytes()[0]);
    let feature = ask.feature;
    let (outcome, status) = match (ask.refused, dice.roll(200)) {
        (Some(_), _) => (Outcome::Refused, 429),
        (None, 0 | 1) => (Outcome::ProviderError, 503),
        (None, 2) => (Outcome::ClientGone, 200),
        (None, 3) => (Outcome::ProviderDied, 200),
        (None, _) => (Outcome::Completed, 200),
    };
    let served = !matches!(outcome, Outcome::Refused | Outcome::ProviderError);
    let cached = ask.input * feature.cached.min(90) / 100 * (60 + dice.roll(41)) / 100;
    let output = dice.about(feature.output);
    let reasoning = if feature.model.contains("sol") { output / 3 } else { 0 };
    let tokens = Tokens {
        input: ask.input - cached,
        cache_read: cached,
        output: output - reasoning,
        reasoning,
        ..Tokens::default()
    };
    let tally = Tally { tokens, ..Tally::default() };
    let row = PriceBook::built_in().ok()?.find(feature.provider, feature.model, at)?;
    let cost = served.then(|| rate(row, &tally, at, None).ok()).flatten();
    let charged = cost.as_ref().map_or(Usd::ZERO, |cost| cost.total);
    let first_byte = 180 + dice.about(200) + ask.input / 40;
    let took = first_byte + output * 9;
    let refused = outcome == Outcome::Refused;
    // One in thirty is asked for twice: the first attempt found the provider busy.
    let retried = served && dice.roll(30) == 0;
    let attempt = |status, started_ms, took_ms| Attempt {
        provider: feature.provider.to_owned(),
        model: feature.model.to_owned(),
        status: Some(status),
        error: None,
        started_ms,
        took_ms,
    };
    let attempts = match (refused, served, retried) {
        (true, _, _) => Vec::new(),
        (false, false, _) => vec![attempt(503, 4, 900)],
        (false, true, true) => vec![attempt(529, 4, 400), attempt(200, 900, first_byte)],
        (false, true, false) => vec![attempt(200, 4, first_byte)],
    };
    let duration_ms = if refused { 2 } else { took };
    Some(UsageEvent {
        v: USAGE_EVENT_VERSION,
        id: RequestId::mint(at, &random),
        seq,
        workspace: demo.workspace.clone(),
        key: ask.key.id.clone(),
        at,
        settled_at: at.plus_ms(i64::try_from(duration_ms).unwrap_or(0)),
        key_name: ask.key.name.clone(),
        owner: ask.key.owner.clone(),
        cost_centre: ask.key.cost_centre.clone(),
        purpose: ask.key.purpose.clone(),
        environment: ask.key.environment.clone(),
        actor: ask.actor.clone(),
        labels: [("demo".to_owned(), "true".to_owned())].into(),
        network: None,
        endpoint: if feature.provider == "anthropic" {
            "/v1/messages"
        } else {
            "/v1/chat/completions"
        }
        .to_owned(),
        stream: feature.chat,
        requested_model: feature.model.to_owned(),
        downgraded_by: None,
        provider: (!refused).then(|| feature.provider.to_owned()),
        model: (!refused).then(|| feature.model.to_owned()),
        response_model: served.then(|| feature.model.to_owned()),
        provider_request_id: None,
        attempts,
        outcome,
        code: match outcome {
            Outcome::Refused => ask.refused.map(str::to_owned),
            Outcome::ProviderError => Some("provider_error".to_owned()),
            _ => None,
        },
        status,
        usage: if served { Usage::Reported(tally) } else { Usage::Absent },
        cost,
        charged,
        hold: charged.saturating_add(charged).saturating_add(Usd::from_nanos(1_000_000)),
        duration_ms,
        first_byte_ms: served.then_some(first_byte),
        decided: Some(Box::new(decided(ask))),
        trace_id: None,
        span_id: None,
        sampled: 1,
    })
}

/// What became of the answers of some features: most are taken, and worth something.
pub(super) fn outcomes(demo: &Demo, events: &[UsageEvent]) -> Vec<OutcomeEvent> {
    let judged =
        ["reply-draft", "mail-draft", "test-repair", "code-review", "lead-research", "answers"];
    let judged = |event: &&UsageEvent| {
        let feature = event.actor.feature.as_deref();
        event.outcome == Outcome::Completed && feature.is_some_and(|it| judged.contains(&it))
    };
    let mut found = Vec::new();
    for event in events.iter().filter(judged) {
        let mut dice = Dice(event.seq);
        if dice.roll(3) == 0 {
            continue;
        }
        let at = event.settled_at.plus_ms(60_000 + i64::try_from(dice.roll(600_000)).unwrap_or(0));
        let accepted = dice.roll(100) < 78;
        if at > demo.until {
            continue;
        }
        found.push(OutcomeEvent {
            v: OUTCOME_EVENT_VERSION,
            workspace: demo.workspace.clone(),
            key: event.key.clone(),
            subject: Subject::Request(event.id.clone()),
            label: None,
            outcome: if accepted { Verdict::Accepted } else { Verdict::Rejected },
            value_usd: accepted.then(|| Usd::from_nanos(400_000_000)),
            at,
            recorded_at: at,
            owner: event.owner.clone(),
            cost_centre: event.cost_centre.clone(),
            environment: event.environment.clone(),
            actor: event.actor.clone(),
        });
    }
    found
}
