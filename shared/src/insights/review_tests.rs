//! The review of made-up weeks.

use proptest::prelude::*;

use super::*;
use crate::ids::WorkspaceId;

fn week() -> Week {
    Week::parse("2026-W47").unwrap()
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn movement(
    after: bool,
    team: &str,
    feature: &str,
    model: &str,
    requests: u64,
    charged: &str,
) -> Movement {
    let traffic = Traffic {
        requests,
        input: requests * 100,
        input_usd: usd(charged),
        charged: usd(charged),
        ..Traffic::default()
    };
    let owner = format!("{team}-owner");
    let (team, feature, model) = (team.to_owned(), feature.to_owned(), model.to_owned());
    Movement { after, team, feature, owner, model, traffic }
}

fn judged(after: bool, feature: &str, accepted: u64, rejected: u64, cost: &str) -> Judged {
    let (feature, cost_usd) = (feature.to_owned(), usd(cost));
    Judged { after, feature, accepted, rejected, cost_usd, ..Judged::default() }
}

fn seen(dimension: &str, name: &str, first: &str, charged: &str) -> Seen {
    let first = Timestamp::parse(first).unwrap();
    Seen { dimension: dimension.into(), name: name.into(), first, charged_usd: usd(charged) }
}

fn budget(name: &str, value: &str, spent: &str, limit: &str) -> BudgetSnapshot {
    let dimension = if name == "teams" { Dimension::Team } else { Dimension::Workspace };
    BudgetSnapshot {
        workspace: WorkspaceId::parse("ws_a").unwrap(),
        budget: name.into(),
        dimension: Some(dimension),
        value: value.into(),
        owner: "ann".into(),
        window_starts_at: week().start(),
        window_ends_at: Some(week().plus(2).start()),
        limit: usd(limit),
        spent: usd(spent),
        held: Usd::ZERO,
        thresholds: Vec::new(),
        refusing: false,
        at: week().end(),
    }
}

fn review() -> Review {
    let findings = Findings {
        movements: vec![
            movement(false, "search", "answers", "o/a", 100, "1"),
            movement(true, "search", "answers", "o/a", 300, "3"),
            movement(false, "support", "replies", "o/a", 90, "0.9"),
            movement(true, "support", "replies", "o/a", 10, "0.1"),
            movement(true, "support", "replies", "o/b", 80, "8"),
            movement(true, "", "x|_<b>", "o/a", 1, "0.01"),
        ],
        judged: vec![
            judged(false, "answers", 10, 0, "1"),
            judged(true, "answers", 5, 5, "3"),
            judged(true, "replies", 0, 4, "8"),
            judged(true, "free", 4, 0, "0"),
        ],
        seen: vec![
            seen("model", "o/a", "2026-11-02T10:00:00Z", "3"),
            seen("model", "o/a", "2026-11-17T10:00:00Z", "0.1"),
            seen("model", "o/b", "2026-11-18T10:00:00Z", "8"),
            seen("key", "k", "2026-11-17T10:00:00Z", "0.01"),
        ],
    };
    let budgets = [
        budget("all", "ws_a", "9.5", "10"),
        budget("teams", "search", "3", "3"),
        budget("teams", "support", "1", "10"),
        BudgetSnapshot { window_ends_at: Some(week().end()), ..budget("old", "", "9", "9") },
        budget("none", "", "0", "0"),
    ];
    draft("ws_a", week(), &findings, week().end()).unwrap().finish(&budgets, week().end())
}

#[test]
fn what_moved_most_comes_first_with_its_cause_and_a_question_about_it() {
    let review = review();
    assert_eq!(
        (review.from.as_str(), review.to.as_str(), review.complete),
        ("2026-11-16", "2026-11-23", true)
    );
    assert_eq!(review.total.change_usd, usd("9.21"));
    let shown: Vec<(&str, &str, String)> = review
        .movers
        .iter()
        .map(|it| (it.dimension.as_str(), it.name.as_str(), it.change.change_usd.to_string()))
        .collect();
    let expected = [
        ("team", "support", "7.2"),
        ("team", "search", "2"),
        ("team", "", "0.01"),
        ("feature", "replies", "7.2"),
        ("feature", "answers", "2"),
        ("feature", "x|_<b>", "0.01"),
        ("model", "o/b", "8"),
        ("model", "o/a", "1.21"),
    ];
    assert_eq!(shown, expected.map(|(a, b, c)| (a, b, c.to_owned())));
    let [support, search, ..] = review.movers.as_slice() else { panic!() };
    assert_eq!(
        (search.change.effects.volume_usd, search.owner.as_str()),
        (usd("2"), "search-owner")
    );
    assert!(
        search.question.contains("requests went from 100 to 300 ($2.00 of the change)"),
        "{}",
        search.question
    );
    assert!(
        support.question.contains("went from 100 % to 11 %")
            || support.question.contains("o/b went from 0 % to 89 %")
    );
    assert!(review.movers[6].question.contains("o/b is new this week at $8.00"));
}

#[test]
fn the_worst_outcomes_the_new_and_the_full() {
    let review = review();
    let outcomes: Vec<(&str, Option<String>)> = review
        .outcomes
        .iter()
        .map(|it| (it.feature.as_str(), it.per_accepted_usd.map(|usd| usd.to_string())))
        .collect();
    assert_eq!(outcomes, [("replies", None), ("answers", Some("0.6".to_owned()))]);
    assert!(review.outcomes[0].question.contains("none of its 4 outcomes was accepted"));
    assert!(
        review.outcomes[1].question.contains("$0.6000, after $0.1000 the week before; 5 of 10")
    );
    let new: Vec<&str> = review.new.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((new.as_slice(), review.new_count), (["o/b", "k"].as_slice(), 2));
    let near: Vec<(&str, &str, u32)> = review
        .near_cap
        .iter()
        .map(|it| (it.budget.as_str(), it.value.as_str(), it.percent))
        .collect();
    assert_eq!(near, [("teams", "search", 100), ("all", "ws_a", 95)]);
    assert_eq!(review.near_cap[0].change.unwrap().change_usd, usd("2"));
    assert_eq!(review.near_cap[1].change.unwrap(), review.total);
    assert!(review.near_cap[1].question.contains("$9.50 of $10.00 are spent and $0.5000 left"));
}

#[test]
fn a_budget_shows_the_change_of_what_it_is_for_and_not_of_a_namesake() {
    let findings = Findings {
        movements: vec![
            movement(true, "x", "a", "o/a", 1, "1"),
            movement(true, "b", "x", "o/a", 1, "5"),
            movement(true, "b", "a", "o/a", 1, "7"),
        ],
        ..Findings::default()
    };
    let of = |dimension| BudgetSnapshot { dimension, ..budget("one", "x", "9", "9") };
    let change = |dimension| {
        let draft = draft("ws_a", week(), &findings, week().end()).unwrap();
        // As it crosses from the Ledgers.
        let draft: Draft = serde_json::from_str(&serde_json::to_string(&draft).unwrap()).unwrap();
        let review = draft.finish([&of(dimension)], week().end());
        review.near_cap[0].change.map(|change| change.change_usd)
    };
    assert_eq!(change(Some(Dimension::Team)), Some(usd("1")));
    assert_eq!(change(Some(Dimension::Feature)), Some(usd("5")));
    assert_eq!(change(Some(Dimension::Workspace)), Some(usd("13")));
    assert_eq!(change(Some(Dimension::Customer)), None);
    assert_eq!(change(None), None);
}

#[test]
fn an_accepted_outcome_of_unknown_cost_is_left_out_and_named() {
    let known = judged(true, "answers", 3, 1, "6");
    let findings = Findings {
        judged: vec![
            Judged { accepted_cost_unknown: 1, ..known.clone() },
            judged(false, "answers", 2, 0, "2"),
            Judged { feature: "lost".to_owned(), accepted_cost_unknown: 3, ..known },
        ],
        ..Findings::default()
    };
    let review = draft("ws_a", week(), &findings, week().end()).unwrap().review;
    let [answers, lost] = review.outcomes.as_slice() else { panic!("{:?}", review.outcomes) };
    assert_eq!((answers.per_accepted_usd, answers.accepted_cost_unknown), (Some(usd("3")), 1));
    assert!(answers.question.contains("without 1 accepted whose cost is not known"));
    assert_eq!(lost.per_accepted_usd, None);
    assert!(lost.question.contains("without 3 accepted"), "{}", lost.question);
    let text = review.markdown("ws_a", None);
    assert!(text.contains("**lost**: no known cost for each accepted outcome"), "{text}");
}

#[test]
fn as_markdown_and_as_messages_it_says_the_same_and_no_name_is_markup() {
    let review = review();
    let text = review.markdown("ws_a", Some("https://gate.example/dashboard/"));
    for part in [
        "# ws\\_a in 2026-W47",
        "## Top movers",
        "## Worst cost per outcome",
        "## New",
        "## Near the cap",
        "x\\|\\_\\<b\\>",
        "(https://gate.example/dashboard/review?week=2026-W47)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("<b>"));
    let body: serde_json::Value =
        serde_json::from_str(&review.webhook_body("ws_a", None, week().end())).unwrap();
    assert_eq!(
        (&body["type"], &body["data"]["review"]["week"]),
        (&"review.weekly".into(), &"2026-W47".into())
    );
    assert!(body["data"]["markdown"].as_str().unwrap().starts_with("# ws"));
    let back: Review = serde_json::from_value(body["data"]["review"].clone()).unwrap();
    assert_eq!(back, review);
    let slack: serde_json::Value = serde_json::from_str(&review.slack_body("ws_a", None)).unwrap();
    assert!(
        slack["text"].as_str().unwrap().starts_with("ws_a in 2026-W47: $1.90 to $11.11"),
        "{slack}"
    );
    assert!(!slack.to_string().contains("<b>"));
}

#[test]
fn an_empty_week_is_an_empty_review() {
    let draft = draft("ws_a", week(), &Findings::default(), week().start()).unwrap();
    let review = draft.finish(&[], week().start());
    assert_eq!((review.total, review.complete, review.movers.len()), (Change::default(), false, 0));
    let text = review.markdown("ws_a", None);
    assert!(text.contains("Nothing moved.") && text.contains("not over"), "{text}");
}

proptest! {
    #[test]
    fn each_change_is_the_sum_of_its_causes_and_teams_add_up_to_the_whole(
        rows in prop::collection::vec((any::<bool>(), "[a-c]?", "[a-c]?", "[m-o]", 0_u64..1_000, 0_i64..1_000_000_000), 0..12),
    ) {
        let movements: Vec<Movement> = rows.iter().map(|(after, team, feature, model, requests, nanos)| {
            movement(*after, team, feature, model, *requests, &Usd::from_nanos(*nanos).to_string())
        }).collect();
        let findings = Findings { movements, ..Findings::default() };
        let review = draft("ws_a", week(), &findings, week().end()).unwrap().finish(&[], week().end());
        let sum = |change: &Change| change.effects.named().iter().map(|(_, part)| part.pico()).sum::<i128>();
        prop_assert_eq!(sum(&review.total), review.total.change_usd.pico());
        for mover in &review.movers {
            prop_assert_eq!(sum(&mover.change), mover.change.change_usd.pico());
        }
        let teams = review.movers.iter().filter(|mover| mover.dimension == "team");
        let teams: i128 = teams.map(|mover| mover.change.change_usd.pico()).sum();
        prop_assert_eq!(teams, review.total.change_usd.pico());
    }
}
