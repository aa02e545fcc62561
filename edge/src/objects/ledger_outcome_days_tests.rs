//! Sums of outcomes say what their outcomes one by one say, whatever happens in whatever order.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::ledger_object::{LedgerObject, MIGRATIONS};
use super::ledger_outcome_days::OUTCOME_DAYS;
use super::ledger_outcomes_tests::{DAY_START, Month, OURS, THEIRS, id, of};
use super::migrations::migrate;
use super::sql::Sql;
use super::test_sql::TestSql;

const DAY: i64 = 86_400_000;
const TEAMS: [&str; 2] = ["blue", "red"];
const SESSIONS: [&str; 3] = ["s0", "s1", "s2"];
const LABELS: [&str; 2] = ["merged", "rated"];

/// What happens to a month.
#[derive(Clone, Debug)]
enum Step {
    /// The `n`th request comes, once.
    Request { n: u8, ours: bool, model: u8, team: u8, session: u8 },
    /// An outcome of a request or a session is said.
    Outcome {
        of: Result<u8, u8>,
        ours: bool,
        label: u8,
        team: u8,
        accepted: bool,
        hours: i64,
        value: u32,
    },
    /// All but so many events go.
    Keep { events: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let request = (0..24_u8, prop::bool::weighted(0.8), 0..3_u8, 0..3_u8, 0..6_u8).prop_map(
        |(n, ours, model, team, session)| Step::Request { n, ours, model, team, session },
    );
    let subject = prop_oneof![3 => (0..24_u8).prop_map(Ok), 1 => (0..3_u8).prop_map(Err)];
    let outcome = (
        subject,
        prop::bool::weighted(0.8),
        0..4_u8,
        0..6_u8,
        any::<bool>(),
        prop_oneof![4 => Just(0), 1 => 0..60_i64],
        0..4_u32,
    )
        .prop_map(|(of, ours, label, team, accepted, hours, value)| Step::Outcome {
            of,
            ours,
            label,
            team,
            accepted,
            hours,
            value,
        });
    prop_oneof![5 => request, 5 => outcome, 1 => (0..20_u64).prop_map(|events| Step::Keep { events })]
}

fn key(ours: bool) -> &'static str {
    if ours { OURS } else { THEIRS }
}

/// One of the names, or none.
fn named(names: &[&str], place: u8) -> Value {
    names.get(usize::from(place)).map_or(Value::Null, |name| json!(name))
}

fn happens(month: &Month, step: &Step, seen: &mut Vec<(u8, bool)>) {
    match step {
        Step::Request { n, ours, model, team, session } => {
            if seen.contains(&(*n, *ours)) {
                return;
            }
            seen.push((*n, *ours));
            let mut actor = json!({});
            for (name, value) in
                [("team", named(&TEAMS, *team)), ("session", named(&SESSIONS, *session))]
            {
                if !value.is_null() {
                    actor[name] = value;
                }
            }
            // The first model is none: the request was refused.
            let served = match model {
                0 => json!({}),
                model => json!({ "provider": "openai", "model": format!("m{model}") }),
            };
            month.spend_served(key(*ours), *n, &actor, &served);
        }
        Step::Outcome { of: subject, ours, label, team, accepted, hours, value } => {
            let mut changes = json!({
                "key": key(*ours), "outcome": if *accepted { "accepted" } else { "rejected" },
                "at": DAY_START + 3_600_000 * hours, "value_usd": format!("{value}.000000000001"),
            });
            if let Value::String(label) = named(&LABELS, *label) {
                changes["label"] = json!(label);
            }
            if let Value::String(team) = named(&TEAMS, *team) {
                changes["actor"] = json!({ "team": team });
            }
            let subject = match subject {
                Ok(n) => of(*n),
                Err(place) => json!({ "session": named(&SESSIONS, *place) }),
            };
            // That of a request of another key is refused.
            month.try_say(&subject, &changes);
        }
        Step::Keep { events } => month.sql.transact(|| month.ledger.prune(*events)).unwrap(),
    }
}

/// All that is answered from outcomes.
fn answers(month: &Month) -> Vec<Value> {
    let (next, far) = (DAY_START + DAY, DAY_START + 3 * DAY);
    let spans = [
        json!({}),
        json!({ "from_ms": DAY_START + 5_000, "to_ms": far }),
        json!({ "from_ms": DAY_START, "to_ms": next + 7_200_000 }),
    ];
    let mut asked = Vec::new();
    for span in &spans {
        let mut ask = |method: &str, more: Value| {
            let mut query = span.clone();
            for (name, value) in more.as_object().unwrap() {
                query[name] = value.clone();
            }
            asked.push(json!([
                method,
                query,
                month.ask(method, &query),
                month.rest(method, &query)
            ]));
        };
        ask("outcome_summary", json!({}));
        ask(
            "outcome_summary",
            json!({ "group_by": ["team", "key"], "filters": { "owner": "ada" } }),
        );
        ask("outcome_summary", json!({ "group_by": ["key"], "filters": { "team": "blue" } }));
        ask("outcome_summary", json!({ "group_by": ["label", "team"] }));
        ask("outcome_summary", json!({ "filters": { "outcome": "accepted" } }));
        ask("model_performance", json!({ "group_by": ["provider", "model"] }));
        ask("model_performance", json!({ "group_by": ["provider"], "bucket": "day" }));
        ask("model_performance", json!({ "group_by": [], "bucket": "hour" }));
        ask(
            "model_performance",
            json!({ "group_by": ["model"], "filters": { "provider": "openai" } }),
        );
    }
    for bucket in ["day", "month"] {
        let query =
            json!({ "from_ms": DAY_START, "to_ms": far, "group_by": "team", "bucket": bucket });
        asked.push(json!([query, month.ask("unit_economics", &query)]));
    }
    asked
}

/// The answers when no outcome is in a sum.
fn one_by_one(month: &Month) -> Vec<Value> {
    let mut answered = Vec::new();
    let undone: Result<(), ()> = month.sql.transact(|| {
        month.sql.exec("UPDATE outcomes SET summed = 0", &[]).unwrap();
        month.sql.exec("DELETE FROM outcome_days", &[]).unwrap();
        answered = answers(month);
        Err(())
    });
    assert!(undone.is_err());
    answered
}

fn number(month: &Month, select: &str) -> i64 {
    month.sql.exec(select, &[]).unwrap()[0][0].as_deref().unwrap().parse().unwrap()
}

fn summed(month: &Month) -> i64 {
    let rows = number(month, "SELECT CAST(COUNT(*) AS TEXT) FROM outcomes WHERE summed = 1");
    let sums = "SELECT CAST(COALESCE(SUM(accepted + rejected), 0) AS TEXT) FROM outcome_days";
    assert_eq!(number(month, sums), rows);
    let wrong = "WITH b AS (
            SELECT id, key, COALESCE(provider, '') AS provider, COALESCE(model, '') AS model, charged_nanos FROM events
            UNION ALL SELECT id, key, provider, model, charged_nanos FROM released WHERE id <> '')
        SELECT CAST(COUNT(*) AS TEXT) FROM outcomes AS o LEFT JOIN b ON b.id = o.subject AND b.key = o.key
        WHERE o.kind = 'request' AND (o.provider IS NOT b.provider OR o.model IS NOT b.model
            OR o.charged_nanos <> COALESCE(b.charged_nanos, 0))";
    assert_eq!(number(month, wrong), 0, "outcomes know their requests");
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn sums_say_what_the_outcomes_say(steps in prop::collection::vec(step(), 1..60)) {
        let month = Month::new();
        let mut seen = Vec::new();
        for step in &steps {
            happens(&month, step, &mut seen);
            summed(&month);
        }
        let (sums, rows) = (answers(&month), one_by_one(&month));
        for (sum, row) in sums.iter().zip(&rows) {
            prop_assert_eq!(sum, row);
        }
    }
}

/// `n` requests with an outcome each, and one of a session of four.
fn usual(month: &Month, n: u8) {
    let served = json!({ "provider": "openai", "model": "m1" });
    for n in 0..n {
        month.spend_served(OURS, n, &json!({ "team": TEAMS[usize::from(n % 2)] }), &served);
        month.say(&of(n), &json!({ "value_usd": "1" }));
    }
    month.say(&json!({ "session": "s0" }), &json!({}));
    for n in 200..204 {
        month.spend_served(OURS, n, &json!({ "session": "s0", "team": "blue" }), &served);
    }
    month.say(&json!({ "session": "s0" }), &json!({ "label": "merged" }));
}

#[test]
fn what_is_usual_is_in_sums_and_its_rows_are_few() {
    let month = Month::new();
    usual(&month, 100);
    assert_eq!(summed(&month), 102);
    assert_eq!(number(&month, "SELECT CAST(COUNT(*) AS TEXT) FROM outcome_days"), 4);
    let [whole] = &month.summary(&[])[..] else { panic!("one group") };
    let expect = json!({ "accepted": 102, "rejected": 0, "value_usd": "100", "requests": 104,
        "cost_usd": (0..100).chain(200..204).sum::<i32>().to_string(), "cost_unknown": 0,
        "accepted_cost_unknown": 0 });
    assert_eq!(whole, &expect);
}

#[test]
fn what_shares_its_requests_or_has_several_models_is_in_none() {
    let month = Month::new();
    usual(&month, 2);
    let [other, served] = ["m2", "m1"].map(|model| json!({ "provider": "openai", "model": model }));
    assert_eq!(summed(&month), 4);
    // A request of the session has an outcome too.
    month.say(&of(201), &json!({}));
    assert_eq!(summed(&month), 2);
    // Another label of another team.
    month.say(&of(1), &json!({ "label": "rated", "actor": { "team": "blue" } }));
    assert_eq!(summed(&month), 1);
    // A session goes on with another model.
    month.spend_served(OURS, 210, &json!({ "session": "s1" }), &served);
    month.say(&json!({ "session": "s1" }), &json!({}));
    assert_eq!(summed(&month), 2);
    month.spend_served(OURS, 211, &json!({ "session": "s1" }), &other);
    assert_eq!(summed(&month), 1);
    assert_eq!(answers(&month), one_by_one(&month));
}

#[test]
fn outcomes_of_before_are_read_one_by_one_and_know_their_requests() {
    let sql = TestSql::new();
    let before = MIGRATIONS.iter().position(|step| *step == OUTCOME_DAYS).unwrap();
    migrate(&sql, &MIGRATIONS[..before]).unwrap();
    let event =
        "INSERT INTO events (id, at_ms, status, charged_nanos, key, provider, model, session, body)
        VALUES (?, 1, 200, 5000000000, ?, 'openai', 'm1', ?, '{}')";
    sql.exec(event, &[Some(&id(5)), Some(OURS), None]).unwrap();
    sql.exec(event, &[Some(&id(6)), Some(OURS), Some("s0")]).unwrap();
    let released = "INSERT INTO released VALUES (?, ?, '', 'openai', 'm2', 1, 7000000000)";
    sql.exec(released, &[Some(&id(7)), Some(OURS)]).unwrap();
    let outcome = "INSERT INTO outcomes (workspace, kind, subject, key, label, time_ms, at_ms, recorded_ms, accepted,
            owner, cost_centre, environment)
        VALUES ('ws_acme', ?, ?, ?, '', CAST(? AS INTEGER), 1, 1, 1, 'ada', 'r&d', 'staging')";
    let at = (DAY_START + 5_000).to_string();
    for (kind, subject) in
        [("request", id(5)), ("session", "s0".into()), ("request", id(7)), ("request", id(8))]
    {
        sql.exec(outcome, &[Some(kind), Some(&subject), Some(OURS), Some(&at)]).unwrap();
    }
    let month = Month { ledger: LedgerObject::open(sql.clone()).unwrap(), sql };
    assert_eq!(summed(&month), 0);
    let whole = json!({ "accepted": 4, "rejected": 0, "value_usd": "0", "requests": 3, "cost_usd": "17",
        "cost_unknown": 1, "accepted_cost_unknown": 1 });
    assert_eq!(month.summary(&[])[0], whole);
    // What is said of them anew puts them into sums, and changes none.
    month.say(&of(7), &json!({ "label": "rated", "outcome": "rejected" }));
    month.spend(OURS, 8, &json!({}));
    let mut expect = whole;
    for (name, value) in [
        ("rejected", json!(1)),
        ("requests", json!(4)),
        ("cost_usd", json!("25")),
        ("cost_unknown", json!(0)),
        ("accepted_cost_unknown", json!(0)),
    ] {
        expect[name] = value;
    }
    assert_eq!(month.summary(&[]), [expect]);
    assert_eq!(summed(&month), 3);
    assert_eq!(answers(&month), one_by_one(&month));
}
