//! The detectors, each by a story: what raises it, what does not, and what ends it.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::events::usage_event::Outcome;
use crate::money::PICO_PER_USD;
use crate::time::{DAY_MS, HOUR_MS};

const MINUTE: i64 = 60_000;
/// A Friday at ten.
const START: &str = "2026-11-20T10:00:00Z";

fn start() -> Timestamp {
    Timestamp::parse(START).unwrap()
}

fn event(at: Timestamp) -> UsageEvent {
    serde_json::from_value(json!({
        "v": 1, "id": format!("req_{:032x}", at.ms()), "seq": 1, "workspace": "ws_acme",
        "key": "0123456789abcdef", "at": at.ms(), "settled_at": at.ms(), "key_name": "ci",
        "owner": "ann", "cost_centre": "", "purpose": "", "environment": "",
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "small",
        "provider": "openai", "model": "gpt", "outcome": "completed", "status": 200,
        "attempts": [{"provider": "openai", "model": "gpt", "status": 200, "started_ms": 0, "took_ms": 5}],
        "usage": {"source": "reported", "tally": {}},
        "cost": {"total": "0.01", "parts": {}, "price": {}},
        "charged": "0.01", "hold": "0.02", "duration_ms": 5,
    }))
    .unwrap()
}

fn usd(amount: i64) -> Usd {
    Usd::from_pico(i128::from(amount) * PICO_PER_USD)
}

struct Story {
    state: DetectorState,
    rules: AlertRules,
}

impl Story {
    fn new() -> Self {
        Self { state: DetectorState::default(), rules: AlertRules::default() }
    }

    /// The findings of a kind, in short: `severity subject`, or `gone subject`.
    fn tell(&mut self, kind: AlertKind, signal: Signal<'_>, now: Timestamp) -> Vec<String> {
        // Through storage each time: what is not written down does not count.
        self.state = through_storage(std::mem::take(&mut self.state));
        let findings = observe(&mut self.state, signal, &self.rules, now);
        findings
            .into_iter()
            .filter_map(|finding| match finding {
                Finding::Raised(raised) if raised.kind == kind => {
                    Some(format!("{:?} {}", raised.severity, raised.subject))
                }
                Finding::Cleared { kind: cleared, subject } if cleared == kind => {
                    Some(format!("gone {subject}"))
                }
                Finding::Raised(_) | Finding::Cleared { .. } => None,
            })
            .collect()
    }
}

fn through_storage(mut state: DetectorState) -> DetectorState {
    macro_rules! touch {
        ($($part:ident),*) => { $(for name in state.$part.names() {
            let _ = state.$part.entry(&name, Timestamp::from_ms(0));
        })* };
    }
    touch!(budgets, spending, providers, models, keys);
    let mut loaded = DetectorState::default();
    for change in state.take_changes().unwrap() {
        if let Some(body) = change.body {
            loaded.load(change.detector, &change.scope, &body).unwrap();
        }
    }
    loaded
}

fn month(spent: Usd, at: Timestamp) -> BudgetSnapshot {
    BudgetSnapshot {
        workspace: WorkspaceId::parse("ws_acme").unwrap(),
        budget: "team".to_owned(),
        dimension: None,
        value: String::new(),
        owner: "ann".to_owned(),
        window_starts_at: Timestamp::parse("2026-11-01").unwrap(),
        window_ends_at: Timestamp::parse("2026-12-01"),
        limit: usd(7_200),
        spent,
        held: Usd::ZERO,
        refusing: false,
        thresholds: vec![50, 80, 100],
        at,
    }
}

#[test]
fn a_threshold_is_told_once_and_the_highest_says_all() {
    let mut story = Story::new();
    let kind = AlertKind::BudgetThreshold;
    let mut tell = |spent: i64, minute: i64| {
        let now = start().plus_ms(minute * MINUTE);
        story.tell(kind, Signal::Budget(&month(usd(spent), now)), now)
    };
    let subject = "team:2026-11-01T00:00:00.000Z";
    assert_eq!(tell(3_599, 0), [""; 0]);
    assert_eq!(tell(3_600, 1), [format!("Info {subject}:50")]);
    assert_eq!(tell(3_601, 2), [""; 0]);
    assert_eq!(tell(7_200, 3), [format!("Critical {subject}:100")]);
    // A larger limit, or money that came back, ends the higher one alone.
    assert_eq!(tell(4_000, 4), [format!("gone {subject}:100"),]);
    assert_eq!(tell(0, 5), [format!("gone {subject}:50")]);
}

#[test]
fn a_budget_that_refuses_has_reached_its_end() {
    let mut story = Story::new();
    let kind = AlertKind::BudgetThreshold;
    let snapshot = BudgetSnapshot { refusing: true, ..month(usd(7_100), start()) };
    let told = story.tell(kind, Signal::Budget(&snapshot), snapshot.at);
    assert_eq!(told, ["Critical team:2026-11-01T00:00:00.000Z:100"]);
    let raised = BudgetSnapshot { limit: usd(10_000), refusing: false, ..snapshot };
    let told = story.tell(kind, Signal::Budget(&raised), raised.at.plus_ms(MINUTE));
    assert_eq!(
        told,
        ["gone team:2026-11-01T00:00:00.000Z:100", "Info team:2026-11-01T00:00:00.000Z:50"]
    );
}

#[test]
fn a_threshold_ends_with_its_window() {
    let mut story = Story::new();
    let kind = AlertKind::BudgetThreshold;
    let end = Timestamp::parse("2026-12-01").unwrap();
    let snapshot = month(usd(6_000), end.plus_ms(-MINUTE));
    assert_eq!(story.tell(kind, Signal::Budget(&snapshot), snapshot.at).len(), 1);
    assert_eq!(story.tell(kind, Signal::Tick, end.plus_ms(-1)), [""; 0]);
    let gone = "gone team:2026-11-01T00:00:00.000Z:80";
    assert_eq!(story.tell(kind, Signal::Tick, end), [gone]);
}

/// Spends evenly at `rate` hundredths of the pace from `START` on, a snapshot each minute; the minute of the first
/// finding, and what it was.
fn burn(limit: Usd, window_days: i64, rate: i64, minutes: i64) -> Option<(i64, String)> {
    let mut story = Story::new();
    let begin = start();
    let per_minute = limit.pico() * i128::from(rate) / 100 / i128::from(window_days * 24 * 60);
    for minute in 0..minutes {
        let now = begin.plus_ms(minute * MINUTE);
        let snapshot = BudgetSnapshot {
            window_starts_at: begin,
            window_ends_at: Some(begin.plus_ms(window_days * DAY_MS)),
            limit,
            spent: Usd::from_pico(per_minute * i128::from(minute)),
            ..month(Usd::ZERO, now)
        };
        let findings = observe(&mut story.state, Signal::Budget(&snapshot), &story.rules, now);
        for finding in findings {
            if let Finding::Raised(raised) = finding
                && raised.kind == AlertKind::Pace
            {
                return Some((minute, format!("{:?}", raised.severity)));
            }
        }
    }
    None
}

#[test]
fn a_fast_burn_is_found_in_minutes_and_a_slow_one_in_hours() {
    let critical = "Critical".to_owned();
    let within = |found: Option<(i64, String)>, low: i64, high: i64, severity: &str| {
        let (minute, found) = found.unwrap();
        assert!((low..=high).contains(&minute), "{minute} min, {low} to {high} expected");
        assert_eq!(found, severity);
    };
    within(burn(usd(7_200), 30, 10_000, 60), 8, 10, &critical);
    within(burn(usd(7_200), 30, 2_000, 120), 41, 45, &critical);
    within(burn(usd(7_200), 30, 700, 600), 290, 320, &critical);
    within(burn(usd(7_200), 30, 400, 24 * 60), 17 * 60, 18 * 60 + 15, "Warning");
    // Working days alone are 1.4 times the pace: no alarm in three days.
    assert_eq!(burn(usd(7_200), 30, 140, 3 * 24 * 60), None);
    // A day's budget: half of it in the hour at 12 times the pace, and an even day is calm.
    within(burn(usd(24), 1, 1_200, 120), 58, 61, &critical);
    assert_eq!(burn(usd(24), 1, 100, 24 * 60), None);
}

#[test]
fn both_windows_must_burn_and_the_short_one_ends_it() {
    let mut story = Story::new();
    let kind = AlertKind::Pace;
    let mut now = start();
    assert_eq!(story.tell(kind, Signal::Budget(&month(usd(100), now)), now), [""; 0]);
    now = now.plus_ms(MINUTE);
    // 144 = 14.4 times the pace of 10 an hour, for an hour.
    assert_eq!(story.tell(kind, Signal::Budget(&month(usd(244), now)), now), ["Critical team"]);
    assert_eq!(story.tell(kind, Signal::Tick, now.plus_ms(MINUTE)), [""; 0]);
    // Quiet: the five minutes are calm, and the half hour is soon after.
    let gone: Vec<String> = (2..60)
        .flat_map(|minute| story.tell(kind, Signal::Tick, now.plus_ms(minute * MINUTE)))
        .collect();
    // It is told again while the five minutes last.
    assert_eq!(gone, ["Critical team", "gone team"]);
    // The long window still holds it all; without the short one that is nothing.
    now = now.plus_ms(20 * MINUTE);
    assert_eq!(story.tell(kind, Signal::Budget(&month(usd(244), now)), now), [""; 0]);
}

#[test]
fn money_spent_before_it_was_first_seen_is_no_burn() {
    let mut story = Story::new();
    let snapshot = month(usd(7_000), start());
    assert_eq!(story.tell(AlertKind::Pace, Signal::Budget(&snapshot), start()), [""; 0]);
}

fn spend(story: &mut Story, at: Timestamp, amount: i64) -> Vec<String> {
    let event = UsageEvent { charged: usd(amount), ..event(at) };
    story.tell(AlertKind::Anomaly, Signal::Event(&event), at)
}

#[test]
fn an_hour_is_compared_with_the_same_hour_of_earlier_weeks() {
    let week = 7 * DAY_MS;
    let mut story = Story::new();
    for (weeks, amount) in [(4, 10), (3, 12), (2, 500), (1, 11)] {
        assert_eq!(spend(&mut story, start().plus_ms(-weeks * week), amount), [""; 0]);
        // A busy hour next to it is another hour.
        assert_eq!(spend(&mut story, start().plus_ms(-weeks * week + HOUR_MS), 900), [""; 0]);
    }
    // Median 11.5, MAD 1: the bound is 11.5 + 6 x 1.4826, about 20.4. The week of 500 does not move it.
    assert_eq!(spend(&mut story, start(), 20), [""; 0]);
    let found = spend(&mut story, start().plus_ms(MINUTE), 1);
    assert_eq!(found, ["Warning workspace", "Warning owner:ann"]);
    assert_eq!(spend(&mut story, start().plus_ms(2 * MINUTE), 100).len(), 2);
    let tick =
        |story: &mut Story, ms| story.tell(AlertKind::Anomaly, Signal::Tick, start().plus_ms(ms));
    assert_eq!(tick(&mut story, 2 * HOUR_MS - 1), [""; 0]);
    assert_eq!(tick(&mut story, 2 * HOUR_MS), ["gone owner:ann", "gone workspace"]);
}

#[test]
fn two_earlier_weeks_say_nothing_and_a_steady_series_has_room() {
    let week = 7 * DAY_MS;
    let mut story = Story::new();
    for weeks in [2, 1] {
        spend(&mut story, start().plus_ms(-weeks * week), 10);
    }
    assert_eq!(spend(&mut story, start(), 10_000), [""; 0]);
    let mut story = Story::new();
    for weeks in [3, 2, 1] {
        spend(&mut story, start().plus_ms(-weeks * week), 10);
    }
    assert_eq!(spend(&mut story, start(), 15), [""; 0]);
    assert_eq!(spend(&mut story, start(), 1).len(), 2);
}

#[test]
fn an_expensive_request_is_told_for_its_key_and_model() {
    let mut story = Story::new();
    let kind = AlertKind::ExpensiveRequest;
    let mut tell = |amount: i64| {
        let event = UsageEvent { charged: usd(amount), ..event(start()) };
        story.tell(kind, Signal::Event(&event), start())
    };
    assert_eq!(tell(4), [""; 0]);
    assert_eq!(tell(5), ["Warning 0123456789abcdef:gpt"]);
    assert_eq!(tell(50), ["Critical 0123456789abcdef:gpt"]);
}

#[test]
fn a_failing_provider_needs_enough_attempts_and_a_calm_one_ends_it() {
    let mut story = Story::new();
    let kind = AlertKind::ProviderErrors;
    let mut tell = |status: Option<u16>, count: i64, minute: i64| {
        let now = start().plus_ms(minute * MINUTE);
        let mut found = Vec::new();
        for _ in 0..count {
            let mut event = event(now);
            for attempt in &mut event.attempts {
                attempt.status = status;
            }
            found.extend(story.tell(kind, Signal::Event(&event), now));
        }
        found
    };
    assert_eq!(tell(Some(500), 19, 0), [""; 0]);
    assert_eq!(tell(Some(400), 1, 0), ["Critical openai"]);
    // 19 of 60 attempts: a warning, then under half the limit: gone.
    assert_eq!(tell(Some(200), 40, 1).first().map(String::as_str), Some("Warning openai"));
    assert_eq!(tell(Some(200), 140, 2), ["gone openai"]);
    assert_eq!(tell(None, 19, 30), [""; 0]);
    assert_eq!(tell(Some(429), 1, 30), ["Critical openai"]);
    assert_eq!(story.tell(kind, Signal::Tick, start().plus_ms(39 * MINUTE)), ["Critical openai"]);
    assert_eq!(story.tell(kind, Signal::Tick, start().plus_ms(40 * MINUTE)), ["gone openai"]);
}

#[test]
fn a_broken_off_answer_is_a_failure() {
    let mut story = Story::new();
    story.rules.provider_error_min_requests = 1;
    let died = UsageEvent { outcome: Outcome::ProviderDied, ..event(start()) };
    let found = story.tell(AlertKind::ProviderErrors, Signal::Event(&died), start());
    assert_eq!(found, ["Critical openai"]);
}

#[test]
fn a_model_is_new_once() {
    let mut story = Story::new();
    let kind = AlertKind::NewModel;
    let mut refused = event(start());
    refused.outcome = Outcome::Refused;
    assert_eq!(story.tell(kind, Signal::Event(&refused), start()), [""; 0]);
    assert_eq!(story.tell(kind, Signal::Event(&event(start())), start()), ["Info openai/gpt"]);
    assert_eq!(story.tell(kind, Signal::Event(&event(start())), start()), [""; 0]);
}

#[test]
fn a_model_without_a_price_is_told_until_it_has_one() {
    let mut story = Story::new();
    let kind = AlertKind::UnpricedModel;
    let unpriced = UsageEvent { cost: None, ..event(start()) };
    assert_eq!(story.tell(kind, Signal::Event(&unpriced), start()), ["Warning openai/gpt"]);
    assert_eq!(story.tell(kind, Signal::Event(&event(start())), start()), ["gone openai/gpt"]);
    let mut refused = event(start());
    (refused.outcome, refused.code) = (Outcome::Refused, Some("model_unpriced".to_owned()));
    (refused.provider, refused.model) = (None, None);
    assert_eq!(story.tell(kind, Signal::Event(&refused), start()), ["Warning small"]);
    let gone = story.tell(kind, Signal::Event(&event(start())), start());
    assert_eq!(gone, ["gone openai/gpt", "gone small"]);
}

fn key(created_days_ago: i64, expires_in_ms: Option<i64>) -> KeyFacts {
    KeyFacts {
        key: KeyId::parse("0123456789abcdef").unwrap(),
        name: "ci".to_owned(),
        owner: "ann".to_owned(),
        created_at: start().plus_ms(-created_days_ago * DAY_MS),
        expires_at: expires_in_ms.map(|ms| start().plus_ms(ms)),
        last_used_at: None,
    }
}

#[test]
fn a_key_that_expires_is_told_and_worse_on_the_last_day() {
    let mut story = Story::new();
    let kind = AlertKind::KeyExpiring;
    let mut tell =
        |expires_in_ms| story.tell(kind, Signal::Keys(&[key(1, expires_in_ms)]), start());
    assert_eq!(tell(Some(7 * DAY_MS + 1)), [""; 0]);
    assert_eq!(tell(Some(7 * DAY_MS)), ["Warning 0123456789abcdef"]);
    assert_eq!(tell(Some(DAY_MS)), ["Critical 0123456789abcdef"]);
    assert_eq!(tell(None), ["gone 0123456789abcdef"]);
    assert_eq!(tell(Some(DAY_MS)).len(), 1);
    assert_eq!(story.tell(kind, Signal::Keys(&[]), start()), ["gone 0123456789abcdef"]);
}

#[test]
fn an_unused_key_is_told_until_it_is_used() {
    let mut story = Story::new();
    let kind = AlertKind::KeyUnused;
    assert_eq!(story.tell(kind, Signal::Keys(&[key(29, None)]), start()), [""; 0]);
    let found = story.tell(kind, Signal::Keys(&[key(30, None)]), start());
    assert_eq!(found, ["Info 0123456789abcdef"]);
    let gone = story.tell(kind, Signal::Event(&event(start())), start());
    assert_eq!(gone, ["gone 0123456789abcdef"]);
    assert_eq!(story.tell(kind, Signal::Keys(&[key(30, None)]), start()), [""; 0]);
}

#[test]
fn the_first_network_of_a_key_is_where_it_lives() {
    let mut story = Story::new();
    let kind = AlertKind::KeyNewNetwork;
    let mut tell = |network: &str, status: u16| {
        let event = UsageEvent { network: Some(network.to_owned()), status, ..event(start()) };
        story.tell(kind, Signal::Event(&event), start())
    };
    assert_eq!(tell("198.51.100.0/24", 200), [""; 0]);
    assert_eq!(tell("203.0.113.0/24", 401), [""; 0]);
    assert_eq!(tell("203.0.113.0/24", 200), ["Warning 0123456789abcdef:203.0.113.0/24"]);
    assert_eq!(tell("203.0.113.0/24", 200), [""; 0]);
    assert_eq!(tell("198.51.100.0/24", 200), [""; 0]);
}

#[test]
fn a_disabled_kind_is_not_told() {
    let mut story = Story::new();
    story.rules.disabled = vec![AlertKind::NewModel];
    let found = story.tell(AlertKind::NewModel, Signal::Event(&event(start())), start());
    assert_eq!(found, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However budgets move, the state of one stays small, and an end is told only of what was raised.
    #[test]
    fn a_budget_s_state_is_bounded(steps in proptest::collection::vec((0_i64..90, 0_i64..500), 1..400)) {
        let mut state = DetectorState::default();
        let rules = AlertRules::default();
        let (mut now, mut spent) = (start(), 0);
        let mut raised = std::collections::BTreeSet::new();
        for (minutes, more) in steps {
            now = now.plus_ms(minutes * MINUTE);
            spent = if more == 0 { 0 } else { spent + more };
            let snapshot = BudgetSnapshot { window_ends_at: Some(now.plus_ms(20 * DAY_MS)), ..month(usd(spent), now) };
            for finding in observe(&mut state, Signal::Budget(&snapshot), &rules, now) {
                match finding {
                    Finding::Raised(it) => { raised.insert((it.kind, it.subject)); }
                    Finding::Cleared { kind, subject } => prop_assert!(raised.remove(&(kind, subject))),
                }
            }
            let size: usize = state.take_changes().unwrap().iter()
                .map(|change| change.body.as_ref().map_or(0, String::len)).sum();
            prop_assert!(size < 12_000, "{size} bytes");
        }
    }
}
