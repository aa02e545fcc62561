//! Where a workspace stands on the scale crawl, walk, run: six capabilities, each with criteria that what the workspace
//! really uses either meets or not. The table below is the documentation: nothing is asked, everything is counted.

use serde::{Deserialize, Serialize};

use crate::money::Usd;

/// The days that are looked back on.
pub const LOOKBACK_DAYS: i64 = 30;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Requests of the last 30 days.
    pub requests: u64,
    /// What they were charged.
    pub charged_usd: Usd,
    /// What of that has a team.
    pub of_teams_usd: Usd,
    /// What of that has a feature or an agent.
    pub of_features_usd: Usd,
    /// Tokens of input.
    pub input_tokens: u64,
    /// Tokens of input that a cache had.
    pub cached_tokens: u64,
    /// Days of these 30 that have a line of a bill.
    pub billed_days: u64,
    /// Outcomes that were reported.
    pub outcomes: u64,
    /// Keys that work.
    pub keys: u64,
    /// Keys that work, with a cap of their own on spending.
    pub capped_keys: u64,
    /// Keys that work, whose secret is older than the workspace wants.
    pub overdue_keys: u64,
    /// Budgets with a limit of money.
    pub budgets: u64,
    /// Budgets that set a request's worst case aside, so that their limit holds.
    pub strict_budgets: u64,
    /// Model aliases.
    pub routes: u64,
    /// Model aliases that have somewhere else to go.
    pub fallbacks: u64,
    /// Receivers of alerts that are on.
    pub receivers: u64,
    /// Alerts that nobody took on, of the severity `critical`.
    pub critical_open: u64,
    /// Alerts that somebody acknowledged, snoozed or resolved.
    pub handled_alerts: u64,
    /// Metrics or events are exported.
    pub telemetry: bool,
    /// Prices on bills that nobody decided about.
    pub open_proposals: u64,
    /// The reconciler has a secret to sign with.
    pub reconciler: bool,
    /// People and tokens that signed in to the dashboard.
    pub visitors: u64,
    /// Roles among them.
    pub visitor_roles: u64,
}

/// How far a capability is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Not begun.
    None,
    /// The beginnings.
    Crawl,
    /// In daily use.
    Walk,
    /// It works by itself.
    Run,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Is all use seen, and does it agree with the bills?
    Visibility,
    /// Does money have an owner?
    Allocation,
    /// Is it spent well?
    Optimisation,
    /// Are there limits that hold?
    Governance,
    /// Does what is found reach those who act?
    Tooling,
    /// Do people act?
    Culture,
}

impl Capability {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Visibility,
        Self::Allocation,
        Self::Optimisation,
        Self::Governance,
        Self::Tooling,
        Self::Culture,
    ];
}

/// One row of the table of criteria.
#[derive(Debug)]
pub struct Criterion {
    /// What it judges.
    pub capability: Capability,
    /// The level that needs it, together with all criteria of the levels below.
    pub level: Level,
    /// What must be so.
    pub what: &'static str,
    /// How to get there.
    pub next: &'static str,
    /// The dashboard's page to do it on.
    pub page: &'static str,
    /// Whether it is so, and what was counted.
    judge: fn(&Facts) -> (bool, String),
}

/// The criteria.
pub const CRITERIA: &[Criterion] = &[
    Criterion {
        capability: Capability::Visibility,
        level: Level::Crawl,
        what: "Requests go through the gateway",
        next: "Issue a key and send requests with it.",
        page: "/keys",
        judge: |it| (it.requests > 0, format!("{} requests in 30 days", it.requests)),
    },
    Criterion {
        capability: Capability::Visibility,
        level: Level::Walk,
        what: "Estimates are compared with bills",
        next: "Give the reconciler a secret and a provider's bill, and run it every night.",
        page: "/reconciliation",
        judge: |it| (it.billed_days > 0, format!("{} of 30 days have a bill", it.billed_days)),
    },
    Criterion {
        capability: Capability::Visibility,
        level: Level::Run,
        what: "Nearly every day has its bill",
        next: "See which nights the reconciler did not finish, and why.",
        page: "/reconciliation",
        judge: |it| (it.billed_days >= 25, format!("{} of 30 days have a bill", it.billed_days)),
    },
    Criterion {
        capability: Capability::Allocation,
        level: Level::Crawl,
        what: "Half of the money has a team",
        next: "Give keys the team in their `actor`, or send actor tokens.",
        page: "/keys",
        judge: |it| share(it.of_teams_usd, it.charged_usd, 50, "has a team"),
    },
    Criterion {
        capability: Capability::Allocation,
        level: Level::Walk,
        what: "80 % of the money has a team",
        next: "See what is unallocated, and whose keys it comes from.",
        page: "/usage?by=team",
        judge: |it| share(it.of_teams_usd, it.charged_usd, 80, "has a team"),
    },
    Criterion {
        capability: Capability::Allocation,
        level: Level::Run,
        what: "90 % of the money has a feature or an agent",
        next: "Name the feature or the agent in actor tokens, and have policies require the claim.",
        page: "/usage?by=feature",
        judge: |it| share(it.of_features_usd, it.charged_usd, 90, "has a feature or an agent"),
    },
    Criterion {
        capability: Capability::Optimisation,
        level: Level::Crawl,
        what: "Prompts are cached",
        next: "Put what repeats at the beginning of prompts, and mark it where the provider wants that.",
        page: "",
        judge: |it| {
            let text = format!(
                "{} of {} tokens of input came from a cache",
                it.cached_tokens, it.input_tokens
            );
            (it.cached_tokens > 0, text)
        },
    },
    Criterion {
        capability: Capability::Optimisation,
        level: Level::Walk,
        what: "A model can be exchanged without touching callers",
        next: "Make a route with two targets, and have callers name it.",
        page: "/settings",
        judge: |it| {
            (
                it.fallbacks > 0,
                format!("{} of {} routes have a second target", it.fallbacks, it.routes),
            )
        },
    },
    Criterion {
        capability: Capability::Optimisation,
        level: Level::Run,
        what: "What comes of requests is known for one in ten",
        next: "Report outcomes with POST /v1/outcomes, so that the cost of an accepted one is known.",
        page: "/usage?by=feature",
        judge: |it| {
            let enough = it.outcomes > 0 && it.outcomes.saturating_mul(10) >= it.requests;
            (enough, format!("{} outcomes of {} requests", it.outcomes, it.requests))
        },
    },
    Criterion {
        capability: Capability::Governance,
        level: Level::Crawl,
        what: "There is a budget or a cap",
        next: "Make a budget, by hand or from what is proposed.",
        page: "/budgets",
        judge: |it| {
            let text = format!(
                "{} budgets; {} of {} keys have a cap",
                it.budgets, it.capped_keys, it.keys
            );
            (it.budgets > 0 || it.capped_keys > 0, text)
        },
    },
    Criterion {
        capability: Capability::Governance,
        level: Level::Walk,
        what: "A limit holds to the cent",
        next: "Set a budget's mode to `strict`, or give keys caps of their own.",
        page: "/budgets",
        judge: |it| {
            let all_capped = it.keys > 0 && it.capped_keys == it.keys;
            let text = format!(
                "{} budgets are strict; {} of {} keys have a cap",
                it.strict_budgets, it.capped_keys, it.keys
            );
            (it.strict_budgets > 0 || all_capped, text)
        },
    },
    Criterion {
        capability: Capability::Governance,
        level: Level::Run,
        what: "No key is overdue for a new secret",
        next: "Rotate the keys that are due.",
        page: "/keys",
        judge: |it| {
            let text = format!("{} of {} keys are overdue", it.overdue_keys, it.keys);
            (it.keys > 0 && it.overdue_keys == 0, text)
        },
    },
    Criterion {
        capability: Capability::Tooling,
        level: Level::Crawl,
        what: "Alerts reach somebody",
        next: "Set a receiver: a webhook or a channel.",
        page: "/receivers",
        judge: |it| (it.receivers > 0, format!("{} receivers are on", it.receivers)),
    },
    Criterion {
        capability: Capability::Tooling,
        level: Level::Walk,
        what: "Metrics and events reach your own tools",
        next: "Set an OpenTelemetry collector.",
        page: "/settings",
        judge: |it| {
            let text = if it.telemetry { "A collector is set" } else { "No collector is set" };
            (it.telemetry, text.to_owned())
        },
    },
    Criterion {
        capability: Capability::Tooling,
        level: Level::Run,
        what: "Prices follow the bills",
        next: "Decide about the prices that bills propose, or have them applied.",
        page: "/reconciliation",
        judge: |it| {
            let text = format!(
                "{} proposals wait; {} of 30 days have a bill",
                it.open_proposals, it.billed_days
            );
            (it.reconciler && it.billed_days > 0 && it.open_proposals == 0, text)
        },
    },
    Criterion {
        capability: Capability::Culture,
        level: Level::Crawl,
        what: "More than one looks at it",
        next: "Give finance and developers tokens of their own, or make them members.",
        page: "/settings/people",
        judge: |it| (it.visitors >= 2, format!("{} signed in during 30 days", it.visitors)),
    },
    Criterion {
        capability: Capability::Culture,
        level: Level::Walk,
        what: "Alerts are taken on",
        next: "Acknowledge alerts, or snooze them with a reason.",
        page: "/alerts",
        judge: |it| {
            let text = format!(
                "{} alerts were taken on; {} critical ones were not",
                it.handled_alerts, it.critical_open
            );
            (it.handled_alerts > 0 && it.critical_open == 0, text)
        },
    },
    Criterion {
        capability: Capability::Culture,
        level: Level::Run,
        what: "Engineering and finance look at the same figures",
        next: "Have at least three people of two roles look at it every month.",
        page: "/settings",
        judge: |it| {
            let text =
                format!("{} of {} roles signed in during 30 days", it.visitors, it.visitor_roles);
            (it.visitors >= 3 && it.visitor_roles >= 2, text)
        },
    },
];

/// Whether at least so many percent of an amount are so.
fn share(part: Usd, all: Usd, percent: i128, what: &str) -> (bool, String) {
    let met =
        all > Usd::ZERO && part.pico().saturating_mul(100) >= all.pico().saturating_mul(percent);
    (met, format!("{part} of {all} US dollars {what}"))
}

/// A criterion as it was met or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Judged {
    /// The level that needs it.
    pub level: Level,
    /// What must be so.
    pub what: &'static str,
    /// Whether it is.
    pub met: bool,
    /// What was counted.
    pub evidence: String,
    /// How to get there.
    pub next: &'static str,
    /// The dashboard's page to do it on.
    pub page: &'static str,
}

/// Where a capability stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Standing {
    /// The capability.
    pub capability: Capability,
    /// The highest level whose criteria, and those of all levels below, are met.
    pub level: Level,
    /// Its criteria.
    pub criteria: Vec<Judged>,
    /// The next step; absent when all are met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<&'static str>,
}

/// Judges what was counted.
pub fn assess(facts: &Facts) -> Vec<Standing> {
    Capability::ALL.map(|capability| standing(capability, facts)).into()
}

fn standing(capability: Capability, facts: &Facts) -> Standing {
    let rows = CRITERIA.iter().filter(|row| row.capability == capability);
    let criteria: Vec<Judged> = rows
        .map(|row| {
            let (met, evidence) = (row.judge)(facts);
            let Criterion { level, what, next, page, .. } = *row;
            Judged { level, what, met, evidence, next, page }
        })
        .collect();
    // The rows stand in the order of the levels.
    let reached = criteria.iter().take_while(|it| it.met).map(|it| it.level).last();
    let next = criteria.iter().find(|it| !it.met).map(|it| it.next);
    Standing { capability, level: reached.unwrap_or(Level::None), criteria, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn levels(facts: &Facts) -> Vec<Level> {
        assess(facts).iter().map(|it| it.level).collect()
    }

    #[test]
    fn each_capability_has_one_criterion_for_each_level_in_order() {
        for capability in Capability::ALL {
            let rows = CRITERIA.iter().filter(|row| row.capability == capability);
            let levels: Vec<Level> = rows.map(|row| row.level).collect();
            assert_eq!(levels, [Level::Crawl, Level::Walk, Level::Run], "{capability:?}");
        }
    }

    #[test]
    fn a_workspace_that_does_nothing_has_not_begun_and_hears_how_to() {
        let standing = assess(&Facts::default());
        for it in &standing {
            assert_eq!(it.level, Level::None, "{:?}", it.capability);
            assert_eq!(it.next, Some(it.criteria.first().unwrap().next));
        }
    }

    #[test]
    fn a_workspace_that_uses_all_runs() {
        let facts = Facts {
            requests: 100,
            charged_usd: usd("10"),
            of_teams_usd: usd("10"),
            of_features_usd: usd("9"),
            input_tokens: 1_000,
            cached_tokens: 1,
            billed_days: 25,
            outcomes: 10,
            keys: 2,
            capped_keys: 1,
            overdue_keys: 0,
            budgets: 1,
            strict_budgets: 1,
            routes: 2,
            fallbacks: 1,
            receivers: 1,
            critical_open: 0,
            handled_alerts: 1,
            telemetry: true,
            open_proposals: 0,
            reconciler: true,
            visitors: 3,
            visitor_roles: 2,
        };
        assert_eq!(levels(&facts), [Level::Run; 6]);
        assert!(assess(&facts).iter().all(|it| it.next.is_none()));
        // Each fact that falls short takes its capability down, and no other.
        let less = |change: fn(&mut Facts)| {
            let mut facts = facts.clone();
            change(&mut facts);
            levels(&facts)
        };
        let expected = |place: usize, level: Level| {
            let mut all = [Level::Run; 6];
            all[place] = level;
            all.to_vec()
        };
        assert_eq!(less(|it| it.requests = 0), expected(0, Level::None));
        assert_eq!(less(|it| it.billed_days = 24), expected(0, Level::Walk));
        assert_eq!(less(|it| it.of_teams_usd = usd("7.99")), expected(1, Level::Crawl));
        assert_eq!(less(|it| it.of_features_usd = usd("8.99")), expected(1, Level::Walk));
        assert_eq!(less(|it| it.cached_tokens = 0), expected(2, Level::None));
        assert_eq!(less(|it| it.outcomes = 9), expected(2, Level::Walk));
        assert_eq!(less(|it| it.strict_budgets = 0), expected(3, Level::Crawl));
        assert_eq!(less(|it| it.overdue_keys = 1), expected(3, Level::Walk));
        assert_eq!(less(|it| it.open_proposals = 1), expected(4, Level::Walk));
        assert_eq!(less(|it| it.receivers = 0), expected(4, Level::None));
        assert_eq!(less(|it| it.critical_open = 1), expected(5, Level::Crawl));
        assert_eq!(less(|it| it.visitor_roles = 1), expected(5, Level::Walk));
    }

    #[test]
    fn no_money_is_no_share_of_money() {
        let facts = Facts { requests: 1, ..Facts::default() };
        let allocation = assess(&facts).swap_remove(1);
        assert_eq!((allocation.level, allocation.criteria[0].met), (Level::None, false));
    }
}
