//! The world around the machines: network, clocks, providers, and the truth.

use std::collections::BTreeMap;

use super::Dice;
use super::checks::Truth;
use super::nodes::{BudgetNode, IsolateNode, MeterNode};
use crate::budget::hold::HOLD_LIFETIME_MS;
use crate::budget::lease::sublease::{CLOCK_SKEW_MS, Sublease};
use crate::budget::lease::wallet::Need;
use crate::budget::lease::{Grant, Report, Units};
use crate::time::Timestamp;

/// The longest that a request runs: what a hold lives, less the greatest disagreement of clocks.
const LONGEST_REQUEST_MS: i64 = HOLD_LIFETIME_MS - 2 * CLOCK_SKEW_MS;
/// A window of the simulated budgets.
const WINDOW_MS: i64 = 3_600_000;

/// A message under way.
#[derive(Clone)]
pub(crate) enum Message {
    Report { meter: usize, budget: usize, line: String, report: Report },
    Grant { meter: usize, budget: usize, line: String, grant: Grant },
    Recall { meter: usize, budget: usize, line: String },
    Settle { meter: usize, id: u64 },
    SettleSublet { meter: usize, sublet: String, id: u64, needs: Vec<Need>, cost: Units },
    Sublease { isolate: usize, life: u64, sublease: Sublease },
    SubleaseDone { meter: usize, sublet: String },
}

/// A request under way.
#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) meter: usize,
    pub(crate) needs: Vec<Need>,
    pub(crate) cost: Units,
    pub(crate) since_ms: i64,
    pub(crate) isolate: Option<(usize, String)>,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) time_ms: i64,
    pub(crate) budgets: Vec<BudgetNode>,
    pub(crate) meters: Vec<MeterNode>,
    pub(crate) isolates: Vec<IsolateNode>,
    pub(crate) network: Vec<Message>,
    pub(crate) flights: BTreeMap<u64, Flight>,
    /// Over, and the settlement may be told again.
    pub(crate) over: BTreeMap<u64, Flight>,
    pub(crate) truth: Truth,
    pub(crate) faults: bool,
    next_id: u64,
    pub(crate) calls: u64,
    pub(crate) admitted: u64,
}

pub(crate) fn account(budget: usize) -> String {
    format!("b{budget}")
}

fn budget_of(account: &str) -> usize {
    account.trim_start_matches('b').parse().unwrap()
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let budgets = 1 + dice.pick(4);
        let meters = 1 + dice.pick(6);
        let isolates = dice.pick(4);
        let mut world = Self {
            time_ms: 1_000_000_000,
            budgets: (0..budgets).map(|_| BudgetNode::default()).collect(),
            meters: (0..meters).map(|_| MeterNode::new(dice.next())).collect(),
            isolates: (0..isolates).map(|_| IsolateNode::default()).collect(),
            network: Vec::new(),
            flights: BTreeMap::new(),
            over: BTreeMap::new(),
            truth: Truth::default(),
            faults: true,
            next_id: 1,
            calls: 0,
            admitted: 0,
            dice,
        };
        for place in 0..world.budgets.len() {
            world.set_cap(place);
        }
        for isolate in 0..world.isolates.len() {
            world.isolates[isolate].meter = world.dice.pick(world.meters.len());
        }
        world
    }

    fn set_cap(&mut self, budget: usize) {
        // Mostly so small that a few requests fill it: there the protocol is at work. Sometimes so large that none does.
        let cap = if self.dice.once_in(6) {
            100 << self.dice.below(12)
        } else {
            40 + self.dice.below(200)
        };
        self.budgets[budget].cap = Units::try_from(cap).unwrap();
        self.truth.cap_seen(budget, self.budgets[budget].cap);
    }

    pub(crate) fn meter_now(&self, meter: usize) -> Timestamp {
        Timestamp::from_ms(self.time_ms + self.meters[meter].clock_ms)
    }

    fn isolate_now(&self, isolate: usize) -> Timestamp {
        Timestamp::from_ms(self.time_ms + self.isolates[isolate].clock_ms)
    }

    fn line(&self, now: Timestamp) -> String {
        format!("usd:{}", now.ms() / WINDOW_MS)
    }

    /// One step of anything.
    pub(crate) fn step(&mut self) {
        match self.dice.below(100) {
            0..=24 => self.request(),
            25..=40 => self.finish_one(),
            41..=79 => self.deliver(),
            80..=86 => self.tick(),
            87..=89 => self.alarm_of_any(),
            90..=91 => self.recall_any(),
            92..=93 => self.crash(),
            94 => self.step_clock(),
            95..=98 => self.isolate_asks(),
            _ => {
                if self.dice.once_in(30) {
                    let budget = self.dice.pick(self.budgets.len());
                    self.set_cap(budget);
                } else {
                    self.flush_isolates();
                }
            }
        }
    }

    fn needs(&mut self, now: Timestamp) -> Vec<Need> {
        let units = Units::try_from(1 + self.dice.below(20)).unwrap();
        let line = self.line(now);
        let first = self.dice.pick(self.budgets.len());
        let mut accounts = vec![first];
        let second = self.dice.pick(self.budgets.len());
        if second != first {
            accounts.push(second);
        }
        let need = |budget| Need { account: account(budget), line: line.clone(), units };
        accounts.into_iter().map(need).collect()
    }

    /// What a request will turn out to cost: mostly far below its hold, sometimes above.
    fn cost(&mut self, units: Units) -> Units {
        if self.dice.once_in(40) {
            units + Units::try_from(self.dice.below(10)).unwrap()
        } else if self.dice.once_in(6) {
            Units::try_from(self.dice.below(units.unsigned_abs() + 1)).unwrap()
        } else {
            // Far below: what is left of the cap then lasts for many requests.
            Units::try_from(self.dice.below(2)).unwrap()
        }
    }

    fn request(&mut self) {
        if !self.isolates.is_empty() && self.dice.once_in(3) {
            return self.request_at_isolate();
        }
        let meter = self.dice.pick(self.meters.len());
        let now = self.meter_now(meter);
        let needs = self.needs(now);
        self.next_id += 1;
        self.admit(meter, self.next_id, needs);
    }

    /// Places a hold, or asks the Budgets that it lacks.
    fn admit(&mut self, meter: usize, id: u64, needs: Vec<Need>) {
        let now = self.meter_now(meter);
        self.meters[meter].load(&needs, now);
        let short: Vec<Need> =
            self.meters[meter].wallet.shortage(&needs, now).into_iter().cloned().collect();
        if short.is_empty() {
            self.place(meter, id, needs);
            return;
        }
        for need in &short {
            self.meters[meter].wallet.wait(&[need], now);
        }
        self.meters[meter].waiting.push((id, needs));
        for need in short {
            self.send_reports(meter, &need.account);
        }
    }

    fn place(&mut self, meter: usize, id: u64, needs: Vec<Need>) {
        let now = self.meter_now(meter);
        self.meters[meter].place(id, needs.clone(), now);
        let units = needs[0].units;
        let cost = self.cost(units);
        self.admitted += 1;
        self.truth.placed(&needs);
        self.flights
            .insert(id, Flight { meter, needs, cost, since_ms: self.time_ms, isolate: None });
    }

    fn send_reports(&mut self, meter: usize, account: &str) {
        let now = self.meter_now(meter);
        for (line, report) in self.meters[meter].wallet.reports(account, now) {
            self.calls += 1;
            self.network.push(Message::Report { meter, budget: budget_of(account), line, report });
        }
    }

    fn request_at_isolate(&mut self) {
        let isolate = self.dice.pick(self.isolates.len());
        let now = self.isolate_now(isolate);
        let meter = self.isolates[isolate].meter;
        let units = Units::try_from(1 + self.dice.below(5)).unwrap();
        let Some(sublease) = &mut self.isolates[isolate].sublease else { return };
        let needs: Vec<Need> =
            sublease.left.iter().map(|left| Need { units, ..left.clone() }).collect();
        if !sublease.take(&needs, now) {
            return;
        }
        let sublet = sublease.id.clone();
        let cost = self.cost(units);
        self.next_id += 1;
        self.admitted += 1;
        self.truth.placed_under_sublease(&sublet, &needs);
        let isolate = Some((isolate, sublet));
        self.flights
            .insert(self.next_id, Flight { meter, needs, cost, since_ms: self.time_ms, isolate });
    }

    fn isolate_asks(&mut self) {
        if self.isolates.is_empty() {
            return;
        }
        let isolate = self.dice.pick(self.isolates.len());
        let asked = self.isolate_now(isolate);
        // The old one ends before a new one is asked for.
        if let Some(old) = self.isolates[isolate].sublease.take() {
            let meter = self.isolates[isolate].meter;
            if !self.isolate_owes(isolate, &old.id) {
                self.network.push(Message::SubleaseDone { meter, sublet: old.id });
            }
        }
        self.isolates[isolate].asked = None;
        let meter = self.isolates[isolate].meter;
        let now = self.meter_now(meter);
        let mut needs = self.needs(now);
        for need in &mut needs {
            need.units *= 4;
        }
        self.meters[meter].load(&needs, now);
        if !self.meters[meter].wallet.shortage(&needs, now).is_empty() {
            return;
        }
        self.next_id += 1;
        let id = format!("s{}", self.next_id);
        self.meters[meter].sublet(&id, needs.clone(), now);
        self.truth.sublet(&id, &needs);
        let sublease = Sublease { id, left: needs, since: asked, seen: asked };
        self.isolates[isolate].asked = Some(sublease.id.clone());
        let life = self.isolates[isolate].life;
        self.network.push(Message::Sublease { isolate, life, sublease });
    }

    /// Whether requests under this sublease are in flight or not told yet: it is then left to its time.
    fn isolate_owes(&self, isolate: usize, sublet: &str) -> bool {
        let flying = |flight: &Flight| {
            flight.isolate.as_ref().is_some_and(|(i, s)| *i == isolate && s == sublet)
        };
        let untold = self.isolates[isolate].batch.iter().any(|(s, ..)| s == sublet);
        let under_way = |message: &Message| matches!(message, Message::SettleSublet { sublet: s, .. } if s == sublet);
        untold || self.flights.values().any(flying) || self.network.iter().any(under_way)
    }

    fn flush_isolates(&mut self) {
        for isolate in 0..self.isolates.len() {
            let meter = self.isolates[isolate].meter;
            for (sublet, id, needs, cost) in std::mem::take(&mut self.isolates[isolate].batch) {
                self.network.push(Message::SettleSublet { meter, sublet, id, needs, cost });
            }
        }
    }

    fn finish_one(&mut self) {
        let Some(id) = self.flights.keys().nth(self.dice.pick(self.flights.len().max(1))).copied()
        else {
            return;
        };
        self.finish(id);
    }

    pub(crate) fn finish(&mut self, id: u64) {
        let Some(flight) = self.flights.remove(&id) else { return };
        if let Some((isolate, sublet)) = flight.isolate.clone() {
            let told = (sublet, id, flight.needs.clone(), flight.cost);
            self.isolates[isolate].batch.push(told);
        } else {
            self.network.push(Message::Settle { meter: flight.meter, id });
            self.over.insert(id, flight);
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let place = self.dice.pick(self.network.len());
        let message = self.network.swap_remove(place);
        if self.faults {
            let is_settlement =
                matches!(message, Message::Settle { .. } | Message::SettleSublet { .. });
            if self.dice.once_in(12) {
                self.network.push(message.clone());
            } else if !is_settlement && self.dice.once_in(10) {
                return;
            }
        }
        self.take(message);
    }

    pub(crate) fn take(&mut self, message: Message) {
        match message {
            Message::Report { meter, budget, line, report } => {
                let now = Timestamp::from_ms(self.time_ms);
                let holder = format!("m{meter}");
                let before = self.budgets[budget].line(&line).share(&holder);
                let outcome = self.budgets[budget].report(&line, &holder, &report, now);
                self.truth.check_grant(
                    &mut self.budgets[budget],
                    budget,
                    &line,
                    &holder,
                    before,
                    &report,
                );
                self.network.push(Message::Grant { meter, budget, line, grant: outcome.grant });
            }
            Message::Grant { meter, budget, line, grant } => {
                let now = self.meter_now(meter);
                self.meters[meter].granted(&account(budget), &line, &grant, now);
                for (id, needs) in std::mem::take(&mut self.meters[meter].waiting) {
                    self.meters[meter].load(&needs, now);
                    if self.meters[meter].wallet.shortage(&needs, now).is_empty() {
                        self.place(meter, id, needs);
                    } else if self.dice.once_in(3) {
                        // Others wait on; this one was refused.
                    } else {
                        self.meters[meter].waiting.push((id, needs));
                    }
                }
            }
            Message::Recall { meter, budget, line } => {
                let now = self.meter_now(meter);
                let named = Need { account: account(budget), line: line.clone(), units: 0 };
                self.meters[meter].load(&[named], now);
                for (line, report) in
                    self.meters[meter].wallet.give_back(&account(budget), &[line], now)
                {
                    self.network.push(Message::Report { meter, budget, line, report });
                }
            }
            Message::Settle { meter, id } => {
                let Some(flight) = self.over.get(&id).cloned() else { return };
                let now = self.meter_now(meter);
                if self.meters[meter].settle(id, &flight.needs, flight.cost, now) {
                    self.truth.settled(id, meter, &flight.needs, flight.cost);
                }
            }
            Message::SettleSublet { meter, sublet, id, needs, cost } => {
                let now = self.meter_now(meter);
                if self.meters[meter].settle_sublet(&sublet, id, &needs, cost, now) {
                    self.truth.settled_under_sublease(id, meter, &sublet, &needs, cost);
                }
            }
            Message::Sublease { isolate, life, sublease } => {
                // Who died in between is not there to take it.
                let node = &self.isolates[isolate];
                if node.life == life && node.asked.as_ref() == Some(&sublease.id) {
                    self.isolates[isolate].asked = None;
                    self.isolates[isolate].sublease = Some(sublease);
                }
            }
            Message::SubleaseDone { meter, sublet } => {
                let now = self.meter_now(meter);
                self.truth.sublet_ended(&sublet);
                self.meters[meter].end_sublet(&sublet, now);
            }
        }
    }

    fn tick(&mut self) {
        let ms = 1 << self.dice.below(14);
        self.advance(i64::from(ms));
        if self.dice.once_in(60) {
            self.advance(WINDOW_MS / 2);
        }
    }

    pub(crate) fn advance(&mut self, ms: i64) {
        // Nothing runs longer than the longest request.
        let mut left = ms;
        while left > 0 {
            let part = left.min(10_000);
            left -= part;
            self.time_ms += part;
            let time = self.time_ms;
            let late = |flight: &&u64, flights: &BTreeMap<u64, Flight>| {
                flights
                    .get(flight)
                    .is_some_and(|f| time - f.since_ms >= LONGEST_REQUEST_MS - 20_000)
            };
            let over: Vec<u64> =
                self.flights.keys().filter(|id| late(id, &self.flights)).copied().collect();
            for id in over {
                self.finish(id);
                let is_own = |m: &Message| matches!(m, Message::Settle { id: i, .. } if *i == id);
                if let Some(place) = self.network.iter().position(is_own) {
                    let message = self.network.swap_remove(place);
                    self.take(message);
                }
                self.flush_isolates();
            }
            // A settlement is tried again for seconds, not for ever: the network holds none for minutes.
            if part == 10_000 {
                self.deliver_settlements();
            }
        }
    }

    fn deliver_settlements(&mut self) {
        self.flush_isolates();
        let is_settlement =
            |m: &Message| matches!(m, Message::Settle { .. } | Message::SettleSublet { .. });
        let (settlements, others) =
            std::mem::take(&mut self.network).into_iter().partition(is_settlement);
        self.network = others;
        for message in settlements {
            self.take(message);
        }
    }

    fn alarm_of_any(&mut self) {
        let meter = self.dice.pick(self.meters.len());
        self.alarm(meter);
        if self.dice.once_in(4) {
            let budget = self.dice.pick(self.budgets.len());
            self.budget_alarm(budget);
        }
    }

    pub(crate) fn alarm(&mut self, meter: usize) {
        let now = self.meter_now(meter);
        let ended = |sublet: &crate::budget::lease::sublease::Sublet| sublet.ends_at <= now;
        let over: Vec<String> = self.meters[meter]
            .sublets
            .iter()
            .filter(|(_, s)| ended(s))
            .map(|(id, _)| id.clone())
            .collect();
        for sublet in over {
            self.truth.check_interrupted(&self.meters[meter].sublets[&sublet]);
            self.truth.sublet_ended(&sublet);
            self.meters[meter].end_sublet(&sublet, now);
        }
        for id in self.meters[meter].expired(now) {
            if let Some(flight) = self.over.get(&id).or_else(|| self.flights.get(&id)).cloned() {
                // Nobody settled it: at its hold.
                let units = flight.needs[0].units;
                if self.meters[meter].settle(id, &flight.needs, units, now) {
                    self.truth.settled(id, meter, &flight.needs, units);
                }
            }
        }
        self.meters[meter].lower_ceiling(now);
        let boot = self.dice.next();
        self.meters[meter].wallet.forget_done(boot, now);
        for account in self.meters[meter].wallet.due(now) {
            self.send_reports(meter, &account);
        }
    }

    /// The Budget's alarm: it asks holders that were silent for too long.
    pub(crate) fn budget_alarm(&mut self, budget: usize) {
        let now = Timestamp::from_ms(self.time_ms);
        let lines: Vec<String> = self.budgets[budget].disk.keys().cloned().collect();
        for line in lines {
            for holder in self.budgets[budget].line(&line).silent(now) {
                let meter = holder.trim_start_matches('m').parse().unwrap();
                self.network.push(Message::Recall { meter, budget, line: line.clone() });
            }
        }
    }

    fn recall_any(&mut self) {
        let budget = self.dice.pick(self.budgets.len());
        let meter = self.dice.pick(self.meters.len());
        let line = self.line(Timestamp::from_ms(self.time_ms));
        self.network.push(Message::Recall { meter, budget, line });
    }

    fn crash(&mut self) {
        match self.dice.below(3) {
            0 => {
                let budget = self.dice.pick(self.budgets.len());
                self.budgets[budget].restart();
            }
            1 => {
                let meter = self.dice.pick(self.meters.len());
                let now = self.meter_now(meter);
                let boot = self.dice.next();
                self.meters[meter].restart(boot, now);
            }
            _ if !self.isolates.is_empty() => {
                let isolate = self.dice.pick(self.isolates.len());
                self.kill_isolate(isolate);
            }
            _ => {}
        }
    }

    /// An isolate vanishes: its requests with it, and what it had not told.
    fn kill_isolate(&mut self, isolate: usize) {
        let node = &mut self.isolates[isolate];
        node.sublease = None;
        node.life += 1;
        let untold: Vec<(String, Vec<Need>)> =
            node.batch.drain(..).map(|(sublet, _, needs, _)| (sublet, needs)).collect();
        for (sublet, needs) in untold {
            self.truth.lost_under_sublease(&sublet, &needs);
        }
        let gone = |flight: &Flight| flight.isolate.as_ref().is_some_and(|(i, _)| *i == isolate);
        let ids: Vec<u64> =
            self.flights.iter().filter(|(_, f)| gone(f)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(flight) = self.flights.remove(&id)
                && let Some((_, sublet)) = flight.isolate
            {
                self.truth.lost_under_sublease(&sublet, &flight.needs);
            }
        }
    }

    fn step_clock(&mut self) {
        let ms = i64::try_from(self.dice.below(CLOCK_SKEW_MS.unsigned_abs())).unwrap()
            - CLOCK_SKEW_MS / 2;
        if self.isolates.is_empty() || self.dice.once_in(2) {
            let meter = self.dice.pick(self.meters.len());
            self.meters[meter].clock_ms = ms;
        } else {
            let isolate = self.dice.pick(self.isolates.len());
            self.isolates[isolate].clock_ms = ms;
        }
    }

    /// Delivers everything, and fires what is due, until there is nothing more to say.
    pub(crate) fn calm(&mut self) {
        self.faults = false;
        let mut quiet = 0;
        for _ in 0..200 {
            self.flush_isolates();
            while let Some(message) = self.network.pop() {
                self.take(message);
            }
            self.advance(1_100);
            for meter in 0..self.meters.len() {
                self.alarm(meter);
            }
            // What is due within a second is said within two rounds.
            quiet = if self.network.is_empty() { quiet + 1 } else { 0 };
            if quiet == 2 {
                break;
            }
        }
        self.faults = true;
    }

    /// Nobody waits any more, every request ends, and all clocks pass all deadlines.
    pub(crate) fn quiesce(&mut self) {
        for meter in &mut self.meters {
            meter.waiting.clear();
            meter.clock_ms = 0;
        }
        for isolate in 0..self.isolates.len() {
            self.isolates[isolate].sublease = None;
        }
        for id in self.flights.keys().copied().collect::<Vec<_>>() {
            self.finish(id);
        }
        self.calm();
        self.advance(2 * HOLD_LIFETIME_MS);
        for meter in 0..self.meters.len() {
            self.alarm(meter);
        }
        self.calm();
        for _ in 0..3 {
            self.advance(200_000);
            for meter in 0..self.meters.len() {
                self.alarm(meter);
            }
            for budget in 0..self.budgets.len() {
                self.budget_alarm(budget);
            }
            self.calm();
        }
    }
}
