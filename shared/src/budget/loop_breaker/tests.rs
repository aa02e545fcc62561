//! The state machine, transition by transition.

use super::rules::LoopRules;
use super::shape::{Evidence, RequestShape, ScopeKey};
use super::*;

const SECOND: i64 = 1_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(1_790_000_000_000 + seconds * SECOND)
}

fn cents(cents: i64) -> Usd {
    Usd::from_nanos(cents * 10_000_000)
}

fn session(name: &str) -> ScopeKey {
    ScopeKey { id: name.to_owned(), agent: None, session: Some(name.to_owned()) }
}

fn print(fingerprint: u64) -> RequestShape {
    RequestShape { fingerprint, ..RequestShape::default() }
}

/// A key's traffic in one session.
struct Traffic {
    breaker: LoopBreaker,
    rules: LoopRules,
    key: ScopeKey,
}

impl Traffic {
    fn new() -> Self {
        let breaker = LoopBreaker::default();
        Self { breaker, rules: LoopRules::default(), key: session("s") }
    }

    fn check(&mut self, shape: &RequestShape, tokens: u64, second: i64) -> Verdict {
        self.breaker.check(&self.key, shape, tokens, &self.rules, at(second))
    }

    fn end(&mut self, fingerprint: u64, answered: bool, from: i64, to: i64) {
        let watched = Watched { scope: self.key.clone(), fingerprint };
        // Settled half a second later, when the next request is there already.
        let ended = Ended { cost: cents(1), answered, from: at(from), to: at(to) };
        self.breaker.settled(&watched, ended, &self.rules, at(to).plus_ms(500));
    }

    /// One request that takes a second. Whether it passed.
    fn ask(&mut self, shape: &RequestShape, second: i64) -> bool {
        let passed = self.check(shape, 100, second) == Verdict::Pass;
        if passed {
            self.end(shape.fingerprint, true, second, second + 1);
        }
        passed
    }
}

fn trip(verdict: Verdict) -> (Trip, bool) {
    match verdict {
        Verdict::Tripped { trip, fresh } => (*trip, fresh),
        Verdict::Pass => panic!("it passed"),
    }
}

#[test]
fn the_eleventh_equal_request_is_refused_with_what_was_spent() {
    let mut t = Traffic::new();
    for turn in 0..10 {
        assert!(t.ask(&print(1), turn * 2));
    }
    let (trip, fresh) = trip(t.check(&print(1), 100, 20));
    assert!(fresh);
    assert_eq!(trip.evidence, Evidence::RepeatedRequest { times: 10, window_seconds: 300 });
    assert_eq!((trip.spent_usd, trip.requests), (cents(10), 10));
    assert_eq!((trip.until, trip.level), (at(80), 0));
    // Open: everything in the scope waits, other sessions do not.
    assert!(!t.ask(&print(2), 30));
    t.key = session("other");
    assert!(t.ask(&print(1), 30));
}

#[test]
fn failures_and_parallel_requests_are_no_repetitions() {
    let mut t = Traffic::new();
    for turn in 0..30 {
        assert_eq!(t.check(&print(1), 100, turn), Verdict::Pass);
        t.end(1, false, turn, turn + 1);
    }
    for round in [100, 200, 300] {
        for _ in 0..20 {
            assert_eq!(t.check(&print(2), 100, round), Verdict::Pass);
        }
        for _ in 0..20 {
            t.end(2, true, round, round + 9);
        }
    }
    assert_eq!(t.check(&print(2), 100, 310), Verdict::Pass);
}

#[test]
fn after_the_cool_down_one_probe_passes_and_its_like_trips_for_twice_as_long() {
    let mut t = Traffic::new();
    while t.ask(&print(1), t.breaker.uses as i64) {}
    let (first, _) = trip(t.check(&print(1), 100, 30));
    let end = first.until.since_ms(at(0)) / SECOND;
    assert_eq!(t.check(&print(1), 100, end), Verdict::Pass, "the probe");
    let (waits, fresh) = trip(t.check(&print(1), 100, end));
    assert_eq!((waits.until, fresh), (at(end + 5), false), "another waits for the probe");
    assert!(t.ask(&print(9), end), "other work goes on");
    t.end(1, true, end, end + 1);
    let (second, fresh) = trip(t.check(&print(1), 100, end + 1));
    assert!(fresh);
    assert_eq!((second.level, second.until), (1, at(end + 1 + 120)));
}

#[test]
fn a_probe_that_fails_may_be_retried() {
    let mut t = Traffic::new();
    while t.ask(&print(1), t.breaker.uses as i64) {}
    for retry in [200, 202, 204] {
        assert_eq!(t.check(&print(1), 100, retry), Verdict::Pass);
        t.end(1, false, retry, retry + 1);
    }
}

#[test]
fn a_scope_that_does_something_else_is_closed_again() {
    let mut t = Traffic::new();
    while t.ask(&print(1), t.breaker.uses as i64) {}
    assert!(t.ask(&print(2), 100));
    assert!(t.ask(&print(3), 110));
    assert_eq!(t.breaker.trips(at(110)).count(), 1);
    // 20 s of requests, twice 60 s of cool-down, a window of 300 s.
    assert_eq!(t.breaker.trips(at(500)).count(), 0);
    for turn in 0..10 {
        assert!(t.ask(&print(1), 500 + turn));
    }
    assert_eq!(trip(t.check(&print(1), 100, 510)).0.level, 0, "the past is forgotten");
}

#[test]
fn a_tool_cycle_trips_and_a_person_can_let_it_go_on() {
    let mut t = Traffic::new();
    let mut shape = print(1);
    for turn in 0..12_u64 {
        shape.fingerprint = turn;
        shape.tool_calls.push(turn % 2);
        if !t.ask(&shape, turn as i64 * 3) {
            break;
        }
    }
    assert_eq!(shape.tool_calls.len(), 10);
    let trips: Vec<Trip> = t.breaker.trips(at(30)).cloned().collect();
    assert_eq!(trips[0].evidence, Evidence::ToolCycle { calls: 10, period: 2 });
    assert!(t.breaker.clear("s", &t.rules, at(31)));
    assert!(!t.breaker.clear("s", &t.rules, at(31)), "nothing is left to clear");
    assert!(t.ask(&shape, 32) && t.ask(&shape, 34));
    assert!(!t.ask(&shape, 31 + 300), "for one window, not for ever");
}

#[test]
fn a_context_trips_that_only_ever_grows() {
    let mut t = Traffic::new();
    let mut stopped = None;
    for turn in 1..100_u64 {
        let tokens = turn * 10_000;
        if t.check(&print(turn), tokens, turn as i64) != Verdict::Pass {
            stopped = Some(tokens);
            break;
        }
    }
    assert_eq!(stopped, Some(400_000));
    // Compacted once on the way, it does not.
    t.key = session("compacted");
    for turn in 1..200_u64 {
        let tokens = 20_000 + turn % 37 * 10_000;
        assert_eq!(t.check(&print(turn), tokens, turn as i64), Verdict::Pass);
    }
}

#[test]
fn a_leap_is_measured_against_the_highest_window_and_does_not_become_the_measure() {
    let mut t = Traffic::new();
    let watched = Watched { scope: t.key.clone(), fingerprint: 0 };
    let start = -at(0).ms().rem_euclid(300_000) / SECOND + 300;
    let pay = |t: &mut Traffic, amount, second: i64| {
        let ended = Ended { cost: amount, answered: false, from: at(second), to: at(second) };
        t.breaker.settled(&watched, ended, &t.rules, at(second));
    };
    for window in 0..8 {
        pay(&mut t, cents(if window == 3 { 400 } else { 100 }), start + window * 300);
    }
    let leap = start + 8 * 300;
    pay(&mut t, cents(1_999), leap);
    assert_eq!(t.check(&print(1), 100, leap + 1), Verdict::Pass);
    pay(&mut t, cents(1), leap + 2);
    let (found, _) = trip(t.check(&print(1), 100, leap + 3));
    let expected = Evidence::SpendLeap {
        spent_usd: cents(2_000),
        baseline_usd: cents(400),
        window_seconds: 300,
    };
    assert_eq!(found.evidence, expected);
    // Half-open: the probe passes, a quarter of the leap trips again.
    assert_eq!(t.check(&print(2), 100, leap + 70), Verdict::Pass);
    t.end(2, true, leap + 70, leap + 71);
    assert_eq!(t.check(&print(3), 100, leap + 72), Verdict::Pass);
    pay(&mut t, cents(500), leap + 73);
    assert_eq!(trip(t.check(&print(4), 100, leap + 74)).0.level, 1);
}

#[test]
fn a_restart_does_not_let_a_stopped_scope_go() {
    let mut t = Traffic::new();
    while t.ask(&print(1), t.breaker.uses as i64) {}
    let kept: Vec<Trip> = t.breaker.trips(at(21)).cloned().collect();
    let stored = serde_json::to_string(&kept).unwrap();
    let stored: Vec<Trip> = serde_json::from_str(&stored).unwrap();
    t.breaker = LoopBreaker::restore(stored.clone(), at(22));
    let (again, fresh) = trip(t.check(&print(2), 100, 22));
    assert_eq!((&again, fresh), (&kept[0], false));
    t.breaker = LoopBreaker::restore(stored, kept[0].forget_at);
    assert_eq!(t.breaker.scopes.len(), 0);
}

#[test]
fn memory_is_bounded_and_a_flood_of_sessions_frees_nobody() {
    let mut t = Traffic::new();
    while t.ask(&print(1), t.breaker.uses as i64) {}
    for name in 0..2_000 {
        t.key = session(&format!("flood-{name}"));
        for turn in 0..3 {
            assert!(t.ask(&print(turn), 30));
        }
    }
    assert_eq!(t.breaker.scopes.len(), SCOPES);
    t.key = session("s");
    assert!(!t.ask(&print(1), 31));
    for turn in 0..1_000 {
        t.key = session("flood-1999");
        t.ask(&print(turn), 32);
    }
    assert!(t.breaker.scopes.values().all(|scope| scope.answers.len() <= ANSWERS));
}
