//! A month of demo traffic: what a newcomer sees on each page before there is traffic of their own.
//!
//! Pure and seeded: the same workspace, created at the same time, has the same month. A day is made at once, and brought
//! to the objects by the calls that real events, bills and outcomes come by.

mod bills;
mod day;
mod features;

use tallygate_shared::events::outcome::OutcomeEvent;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::feedback::{ReconcilerFinding, TrueUp};
use tallygate_shared::ids::{KeyId, WorkspaceId};
use tallygate_shared::reconciliation_run::ReconciliationRun;
use tallygate_shared::time::{Date, Timestamp};

/// Days of traffic: the day that the workspace was created on, and thirty before it.
pub const DAYS: u32 = 31;
/// The Meter that demo events say they come from. No key has this id.
pub const METER: &str = "demo";
/// Days whose bills have not come.
const UNBILLED_DAYS: u32 = 3;

/// Whether a workspace is for demo data: its id says so, so that every page knows.
pub fn is_demo(workspace: &str) -> bool {
    workspace == "ws_demo" || workspace.starts_with("ws_demo-")
}

/// A gateway key that demo traffic comes through.
#[derive(Clone, Debug)]
pub struct DemoKey {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// Who pays.
    pub cost_centre: String,
    /// What it is for.
    pub purpose: String,
    /// Where it is used.
    pub environment: String,
    /// The team that it fixes; nobody's traffic without one.
    pub team: Option<String>,
}

/// What the month is made for.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its keys. Those with a team carry the team's features, the others what nobody owns.
    pub keys: Vec<DemoKey>,
    /// The end of the month's traffic.
    pub until: Timestamp,
}

/// A day of it.
#[derive(Clone, Debug, Default)]
pub struct DemoDay {
    /// Requests, in the order of time, numbered from the day's first number on.
    pub events: Vec<UsageEvent>,
    /// What bills say of them.
    pub true_ups: Vec<TrueUp>,
    /// What became of some.
    pub outcomes: Vec<OutcomeEvent>,
    /// What the reconciler found.
    pub findings: Vec<ReconcilerFinding>,
    /// How the night after it ended.
    pub run: Option<ReconciliationRun>,
}

impl Demo {
    /// The date of a day, counted from the first.
    pub fn date(&self, day: u32) -> Date {
        Date::from_days(self.until.date().days() - i64::from(DAYS - 1) + i64::from(day))
    }

    /// A day; nothing beyond the last.
    pub fn day(&self, day: u32) -> DemoDay {
        if day >= DAYS || self.keys.is_empty() {
            return DemoDay::default();
        }
        let events = day::events(self, day);
        let outcomes = day::outcomes(self, &events);
        if day + UNBILLED_DAYS >= DAYS {
            return DemoDay { events, outcomes, ..DemoDay::default() };
        }
        let true_ups = bills::true_ups(self, day, &events);
        let findings = bills::findings(self, day);
        let run = Some(bills::run(self, day, &true_ups));
        DemoDay { events, true_ups, outcomes, findings, run }
    }
}

/// Numbers that look random and come again: SplitMix64.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    /// 0 to one below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    /// `from` up to twice `from`, the lower the likelier.
    fn about(&mut self, from: u64) -> u64 {
        from + self.roll(from + 1).min(self.roll(from + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tallygate_shared::events::usage_event::Outcome;
    use tallygate_shared::money::Usd;

    use super::*;

    fn demo() -> Demo {
        let key = |place: u64, team: Option<&str>| DemoKey {
            id: KeyId::parse(&format!("{place:016}")).unwrap(),
            name: format!("key-{place}"),
            owner: "ann".into(),
            cost_centre: format!("cc-{place}"),
            purpose: "p".into(),
            environment: "production".into(),
            team: team.map(str::to_owned),
        };
        let teams = ["support", "search", "sales", "data", "platform", "growth"];
        let mut keys: Vec<DemoKey> = (1..).zip(teams).map(|(n, team)| key(n, Some(team))).collect();
        keys.push(key(9, None));
        Demo {
            workspace: WorkspaceId::parse("ws_demo").unwrap(),
            keys,
            // 2026-11-20T10:00:00Z
            until: Timestamp::from_ms(1_795_168_800_000),
        }
    }

    #[test]
    fn only_ids_that_say_so_are_for_demos() {
        assert!(is_demo("ws_demo") && is_demo("ws_demo-2"));
        assert!(!is_demo("ws_demonstration") && !is_demo("ws_acme") && !is_demo("demo"));
    }

    #[test]
    fn a_month_is_the_same_again_and_holds_what_pages_show() {
        let demo = demo();
        let days: Vec<DemoDay> = (0..DAYS).map(|day| demo.day(day)).collect();
        let events: Vec<&UsageEvent> = days.iter().flat_map(|day| &day.events).collect();
        assert!((15_000..25_000).contains(&events.len()), "{}", events.len());
        assert_eq!(demo.day(7).events, days[7].events);
        assert_eq!(demo.day(DAYS).events.len(), 0);
        let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids.len(), events.len());
        assert!(events.windows(2).all(|two| two[0].seq < two[1].seq && two[0].at <= two[1].at));
        assert!(events.iter().all(|event| event.at <= demo.until));
        let all = |of: &dyn Fn(&UsageEvent) -> Option<String>| {
            events.iter().filter_map(|event| of(event)).collect::<BTreeSet<String>>().len()
        };
        assert_eq!(all(&|event| event.actor.team.clone()), 6);
        assert_eq!(all(&|event| event.actor.feature.clone()), 20);
        assert!(all(&|event| event.provider.clone()) >= 3);
        assert!(all(&|event| event.actor.customer.clone()) >= 5);
        assert!(all(&|event| event.actor.agent.clone()) >= 2);
        assert!(all(&|event| event.code.clone()) >= 4);
        assert!(events.iter().any(|event| event.actor.team.is_none()));
        assert!(events.iter().any(|event| event.code.as_deref() == Some("loop_detected")));
        assert!(events.iter().any(|event| event.attempts.len() > 1));
        for event in &events {
            let cost = event.cost.as_ref().map_or(Usd::ZERO, |cost| cost.total);
            assert_eq!(event.charged, cost, "{event:?}");
            assert_eq!(event.outcome == Outcome::Refused, event.provider.is_none());
            assert!(event.charged <= event.hold || event.hold == Usd::ZERO);
        }
        assert!(days.iter().flat_map(|day| &day.outcomes).count() > 500);
        assert!(days.iter().flat_map(|day| &day.findings).count() >= 2);
        // Each billed day's estimates are its charges, to the last digit.
        for day in days.iter().filter(|day| !day.true_ups.is_empty()) {
            let estimated: i128 = day.true_ups.iter().map(|line| line.estimated.pico()).sum();
            let charged: i128 = day.events.iter().map(|event| event.charged.pico()).sum();
            assert_eq!(estimated, charged);
            for line in &day.true_ups {
                let billed = line.billed.unwrap().pico();
                let explained = line.quantity_variance.pico() + line.price_variance.pico();
                assert_eq!(billed - line.estimated.pico(), explained, "{line:?}");
            }
        }
        assert_eq!(days.iter().filter(|day| day.run.is_some()).count(), 28);
    }

    #[test]
    fn weekends_are_quiet_and_the_month_grows() {
        let demo = demo();
        let spent = |day: u32| demo.day(day).events.iter().map(|e| e.charged.pico()).sum::<i128>();
        let weekday = |day: u32| demo.date(day).iso_weekday();
        let sunday = (7..30).find(|day| weekday(*day) == 7).unwrap();
        assert!(spent(sunday) * 2 < spent(sunday + 2));
        assert!(spent(sunday + 2) > spent(sunday + 2 - 7));
    }
}
