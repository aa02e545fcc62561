//! Traffic of agents that loop, and of ordinary clients, with chance from a seed. Loops are stopped under a stated
//! bound of money; ordinary traffic never is.

use super::rules::LoopRules;
use super::shape::{Evidence, RequestShape, ScopeKey};
use super::*;

/// Seeds that each model runs with.
const SEEDS: u64 = 200;

/// A small generator of chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

/// A client with a clock. A request costs 3 USD per million input tokens and 15 per million of 500 output tokens.
struct Client {
    breaker: LoopBreaker,
    rules: LoopRules,
    scope: ScopeKey,
    now: i64,
    spent: Usd,
    stopped: Option<Trip>,
}

impl Client {
    fn new() -> Self {
        Self {
            breaker: LoopBreaker::default(),
            rules: LoopRules::default(),
            scope: ScopeKey { id: "s".into(), agent: Some("a".into()), session: None },
            now: 1_790_000_000_000,
            spent: Usd::ZERO,
            stopped: None,
        }
    }

    fn check(&mut self, shape: &RequestShape, tokens: u64) -> bool {
        let now = Timestamp::from_ms(self.now);
        match self.breaker.check(&self.scope, shape, tokens, &self.rules, now) {
            Verdict::Pass => true,
            Verdict::Tripped { trip, .. } => {
                self.stopped = Some(*trip);
                false
            }
        }
    }

    fn end(&mut self, fingerprint: u64, tokens: u64, answered: bool, from: i64) {
        let cost = Usd::from_nanos((tokens * 3_000 + 500 * 15_000) as i64);
        let cost = if answered { cost } else { Usd::ZERO };
        self.spent = self.spent.saturating_add(cost);
        let watched = Watched { scope: self.scope.clone(), fingerprint };
        let (from, now) = (Timestamp::from_ms(from), Timestamp::from_ms(self.now));
        let ended = Ended { cost, answered, from, to: now };
        self.breaker.settled(&watched, ended, &self.rules, now);
    }

    /// A request that takes `ms`. Whether it passed.
    fn ask(&mut self, shape: &RequestShape, tokens: u64, answered: bool, ms: u64) -> bool {
        if !self.check(shape, tokens) {
            return false;
        }
        let from = self.now;
        self.now += ms as i64;
        self.end(shape.fingerprint, tokens, answered, from);
        true
    }
}

fn shape(fingerprint: u64, tool_calls: Vec<u64>) -> RequestShape {
    RequestShape { fingerprint, tool_calls, messages: 1 }
}

/// Runs a model with each seed and returns the most that it had spent when it was stopped.
fn worst_spend(name: &str, model: fn(&mut Client, &mut Chance)) -> (Usd, Vec<Evidence>) {
    let mut worst = Usd::ZERO;
    let mut kinds = Vec::new();
    for seed in 0..SEEDS {
        let mut client = Client::new();
        model(&mut client, &mut Chance(seed));
        let trip = client.stopped.unwrap_or_else(|| panic!("{name} was not stopped, seed {seed}"));
        worst = worst.max(client.spent);
        kinds.push(trip.evidence);
    }
    println!("{name}: at most {worst} USD spent when it was stopped");
    (worst, kinds)
}

fn never_stopped(name: &str, model: fn(&mut Client, &mut Chance)) {
    for seed in 0..SEEDS {
        let mut client = Client::new();
        model(&mut client, &mut Chance(seed));
        assert_eq!(client.stopped, None, "{name}, seed {seed}");
    }
}

fn dollars(dollars: i64) -> Usd {
    Usd::from_nanos(dollars * 1_000_000_000)
}

#[test]
fn a_stuck_request_is_stopped_within_ten_answers() {
    // An agent that asks the same of 20,000 tokens again, with failures in between.
    let (worst, kinds) = worst_spend("stuck request", |client, chance| {
        while client.now < 1_790_000_000_000 + 3_600_000 {
            let answered = chance.within(0, 9) > 0;
            let ms = chance.within(500, 15_000);
            if !client.ask(&shape(1, vec![]), 20_000, answered, ms) {
                return;
            }
        }
    });
    // Ten answers of 20,000 tokens at 3 USD a million, and 500 of output at 15.
    assert_eq!(worst, Usd::from_nanos(10 * (20_000 * 3_000 + 500 * 15_000)));
    assert!(kinds.iter().all(|kind| matches!(kind, Evidence::RepeatedRequest { times: 10, .. })));
}

#[test]
fn tools_that_play_ping_pong_are_stopped_within_ten_calls() {
    // After some honest calls, a cycle of one to four. Each turn adds tokens, so no request equals another.
    let (worst, kinds) = worst_spend("tool ping-pong", |client, chance| {
        let honest = chance.within(0, 20);
        let period = chance.within(1, 4);
        let mut calls = Vec::new();
        for turn in 0..200 {
            let tokens = 8_000 + turn * 400;
            let recent = calls.iter().rev().take(16).rev().copied().collect();
            let ms = chance.within(1_000, 40_000);
            if !client.ask(&shape(turn, recent), tokens, true, ms) {
                return;
            }
            calls.push(if turn < honest { 1_000 + turn } else { (turn - honest) % period });
        }
    });
    // 20 honest turns and 12 of a cycle of four, the last of 21,000 tokens.
    assert!(worst < dollars(2), "{worst}");
    assert!(kinds.iter().all(|kind| matches!(kind, Evidence::ToolCycle { .. })));
}

#[test]
fn a_spend_leap_is_stopped_at_five_times_its_highest_window() {
    // Two hours of some cents a window; then large requests without a pause, none like another.
    let (worst, kinds) = worst_spend("spend leap", |client, chance| {
        for turn in 0..120 {
            client.ask(&shape(turn, vec![]), chance.within(5_000, 20_000), true, 2_000);
            client.now += 58_000;
        }
        client.spent = Usd::ZERO;
        for turn in 1_000..20_000 {
            let tokens = chance.within(80_000, 120_000);
            if !client.ask(&shape(turn, vec![]), tokens, true, 2_000) {
                return;
            }
        }
    });
    // The floor of 5 USD, once more at the turn of a window, and a request.
    assert!(worst < dollars(11), "{worst}");
    assert!(kinds.iter().all(|kind| matches!(kind, Evidence::SpendLeap { .. })));
}

#[test]
fn a_context_that_never_shrinks_is_stopped_at_its_limit() {
    let (worst, kinds) = worst_spend("endless context", |client, chance| {
        let mut tokens = 4_000;
        for turn in 0..2_000 {
            tokens += chance.within(5_000, 15_000);
            if !client.ask(&shape(turn, vec![turn]), tokens, true, 30_000) {
                return;
            }
        }
    });
    // At most 80 turns of 200,000 tokens on average.
    assert!(worst < dollars(50), "{worst}");
    assert!(kinds.iter().all(|kind| matches!(kind, Evidence::ContextGrowth { .. })));
}

#[test]
fn a_batch_over_many_documents_is_never_stopped() {
    // Up to 40 at once, a prompt of its own each, thousands of tokens, for hours, day after day.
    never_stopped("batch", |client, chance| {
        for _day in 0..3 {
            for _ in 0..60 {
                let from = client.now;
                let documents: Vec<(u64, u64)> = (0..chance.within(5, 40))
                    .map(|_| (chance.next(), chance.within(2_000, 30_000)))
                    .collect();
                for (document, tokens) in &documents {
                    client.check(&shape(*document, vec![]), *tokens);
                }
                client.now += chance.within(2_000, 60_000) as i64;
                for (document, tokens) in documents {
                    client.end(document, tokens, true, from);
                }
            }
            client.now += 20 * 3_600_000;
        }
    });
}

#[test]
fn retries_after_errors_are_never_stopped() {
    // A provider that is down for long; the client tries again every second, then succeeds.
    never_stopped("retries", |client, chance| {
        for task in 0..50 {
            for _ in 0..chance.within(0, 60) {
                client.ask(&shape(task, vec![7]), 10_000, false, 300);
                client.now += 1_000;
            }
            client.ask(&shape(task, vec![7]), 10_000, true, 3_000);
        }
    });
}

#[test]
fn an_evaluation_run_is_never_stopped() {
    // 100 prompts, each 25 times in parallel, in one session; the seed is part of the fingerprint in half of them.
    never_stopped("evaluation", |client, chance| {
        for prompt in 0..100 {
            let seeded = chance.within(0, 1);
            for run in 0..25 {
                client.check(&shape(prompt * 100 + run * seeded, vec![]), 3_000);
            }
            let from = client.now;
            for run in 0..25 {
                client.now += chance.within(10, 800) as i64;
                client.end(prompt * 100 + run * seeded, 3_000, true, from);
            }
        }
    });
}

#[test]
fn a_job_that_polls_every_minute_is_never_stopped() {
    never_stopped("polling", |client, chance| {
        for _ in 0..1_440 {
            let ms = chance.within(500, 20_000);
            client.ask(&shape(1, vec![]), 1_000, true, ms);
            client.now += 60_000 - ms as i64;
        }
    });
}

#[test]
fn a_long_coding_session_is_never_stopped() {
    // Grows to 180,000 to 260,000 counted tokens, is compacted, and goes on; tools vary, with short repetitions.
    never_stopped("coding", |client, chance| {
        let (mut tokens, mut calls) = (15_000, vec![]);
        let mut limit = chance.within(180_000, 260_000);
        for turn in 0..600 {
            tokens += chance.within(300, 8_000);
            if tokens > limit {
                (tokens, limit) = (30_000, chance.within(180_000, 260_000));
            }
            // Reads, edits and test runs: the same test command again and again, after one other call or more.
            let tested = calls.last() == Some(&1);
            let tests = !tested && chance.within(0, 1) == 0;
            calls.push(if tests { 1 } else { chance.within(2, 40) });
            let recent = calls.iter().rev().take(16).rev().copied().collect();
            let ms = chance.within(3_000, 60_000);
            client.ask(&shape(turn, recent), tokens, true, ms);
        }
    });
}
