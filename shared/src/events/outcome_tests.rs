use proptest::prelude::*;
use serde_json::json;

use super::*;

/// 2026-11-20T10:00:00Z
const NOW: Timestamp = Timestamp::from_ms(1_795_168_800_000);

fn id_at(at: Timestamp) -> RequestId {
    RequestId::mint(at, &[7; 10])
}

fn read(body: &Value) -> Result<Reports, ReportError> {
    read_reports(&body.to_string(), NOW)
}

/// The field and the text of the error that a change of a good report makes.
fn broken(field: &str, value: &Value) -> (String, String) {
    let mut body = json!({ "request": id_at(NOW), "outcome": "accepted" });
    body[field] = value.clone();
    let error = read(&body).unwrap_err();
    (error.field.unwrap_or_default(), error.detail)
}

#[test]
fn a_report_is_read_with_all_it_says() {
    let body = json!({ "request": id_at(NOW), "outcome": "rejected", "value_usd": "12.50",
        "label": "pull-request_v1.2", "at": "2026-11-20T09:59:00.250Z" });
    let expect = OutcomeReport {
        subject: Subject::Request(id_at(NOW)),
        outcome: Verdict::Rejected,
        value_usd: Some("12.5".parse().unwrap()),
        label: Some("pull-request_v1.2".to_owned()),
        at: Some(NOW.plus_ms(-59_750)),
    };
    assert_eq!(read(&body), Ok(Reports { listed: false, reports: vec![expect] }));
}

#[test]
fn what_is_left_out_stays_open() {
    let reports = read(&json!([{ "session": "s 1", "outcome": "accepted" }])).unwrap();
    assert!(reports.listed);
    let [report] = reports.reports.as_slice() else { panic!("one report") };
    assert_eq!(report.subject, Subject::Session("s 1".to_owned()));
    assert_eq!((report.value_usd, &report.label, report.at), (None, &None, None));
}

#[test]
fn an_error_names_the_field_and_the_remedy() {
    let id = id_at(NOW);
    for (field, value, problem) in [
        ("request", json!(7), "Send the id from `x-tallygate-request-id`."),
        ("request", json!("req_1"), "is not a request id"),
        ("session", json!("s"), "exactly one"),
        ("outcome", json!("good"), "Send `accepted` or `rejected`."),
        ("outcome", json!(true), "Send `accepted` or `rejected`."),
        ("value_usd", json!(12.5), "is no text"),
        ("value_usd", json!("-0.01"), "is out of range"),
        ("value_usd", json!("1000000.01"), "is out of range"),
        ("value_usd", json!("12,50"), "is not a decimal number"),
        ("label", json!(""), "is no label"),
        ("label", json!("Upper"), "is no label"),
        ("label", json!("a".repeat(65)), "is no label"),
        ("at", json!("2026-11-20"), "is no time"),
        ("at", json!(1_795_168_800_000_i64), "is no time"),
    ] {
        let (named, detail) = broken(field, &value);
        assert_eq!(named, field);
        assert!(detail.contains(problem), "{detail}");
        assert!(!detail.contains(id.as_str()), "what came is not repeated: {detail}");
    }
    let none = read(&json!({ "outcome": "accepted" })).unwrap_err();
    assert_eq!(none.field.as_deref(), Some("request"));
    let none = read(&json!({ "session": "s" })).unwrap_err();
    assert_eq!(none.field.as_deref(), Some("outcome"));
    let second = json!([{ "session": "s", "outcome": "accepted" }, { "session": "", "outcome": "accepted" }]);
    assert_eq!(read(&second).unwrap_err().field.as_deref(), Some("[1].session"));
}

#[test]
fn an_unknown_or_repeated_field_is_refused() {
    let error = read(&json!({ "session": "s", "outcome": "accepted", "score": 1 })).unwrap_err();
    assert!(error.detail.contains("unknown field `score`"), "{}", error.detail);
    let twice = r#"{"session":"s","outcome":"accepted","outcome":"rejected"}"#;
    let error = read_reports(twice, NOW).unwrap_err();
    assert!(error.detail.contains("duplicate field `outcome`"), "{}", error.detail);
    for body in ["", "{", "7", "null", "[7]", "\"s\""] {
        read_reports(body, NOW).unwrap_err();
    }
}

#[test]
fn an_array_has_1_to_100() {
    let one = json!({ "session": "s", "outcome": "accepted" });
    assert_eq!(read(&json!(vec![one.clone(); 100])).unwrap().reports.len(), 100);
    for count in [0, 101] {
        let error = read(&json!(vec![one.clone(); count])).unwrap_err();
        assert!(error.detail.contains("Send 1 to 100."), "{}", error.detail);
    }
}

#[test]
fn times_are_bounded_to_the_millisecond() {
    let at = |ms: i64| {
        let at = NOW.plus_ms(ms).to_string();
        read(&json!({ "session": "s", "outcome": "accepted", "at": at })).is_ok()
    };
    assert!(at(300_000) && !at(300_001));
    assert!(at(-40 * DAY_MS) && !at(-40 * DAY_MS - 1));
    let of = |ms: i64| {
        read(&json!({ "request": id_at(NOW.plus_ms(ms)), "outcome": "accepted" })).is_ok()
    };
    assert!(of(300_000) && !of(300_001));
    assert!(of(-400 * DAY_MS) && !of(-400 * DAY_MS - 1));
}

fn event(subject: Subject) -> OutcomeEvent {
    OutcomeEvent {
        v: OUTCOME_EVENT_VERSION,
        workspace: WorkspaceId::parse("ws_acme").unwrap(),
        key: KeyId::parse("0000000000000001").unwrap(),
        subject,
        label: Some("merged".to_owned()),
        outcome: Verdict::Accepted,
        value_usd: Some("12.5".parse().unwrap()),
        at: NOW,
        recorded_at: NOW.plus_ms(5),
        owner: "ada".to_owned(),
        cost_centre: "r&d".to_owned(),
        environment: "staging".to_owned(),
        actor: Actor { team: Some("blue".to_owned()), ..Actor::default() },
    }
}

#[test]
fn outcome_event_format_unchanged() {
    let written = serde_json::to_string(&event(Subject::Session("s1".to_owned()))).unwrap();
    let expect = r#"{"v":1,"workspace":"ws_acme","key":"0000000000000001","subject":{"session":"s1"},"label":"merged","outcome":"accepted","value_usd":"12.5","at":1795168800000,"recorded_at":1795168800005,"owner":"ada","cost_centre":"r&d","environment":"staging","actor":{"team":"blue"}}"#;
    assert_eq!(written, expect);
    let read: OutcomeEvent = serde_json::from_str(expect).unwrap();
    assert_eq!(read, event(Subject::Session("s1".to_owned())));
    let unknown = expect.replace(r#""v":1"#, r#""v":1,"score":1"#);
    serde_json::from_str::<OutcomeEvent>(&unknown).unwrap_err();
}

#[test]
fn the_same_again_changes_nothing_and_of_different_ones_the_later_counts() {
    let stored = event(Subject::Session("s".to_owned()));
    let said = |outcome, value: &str, ms| OutcomeEvent {
        outcome,
        value_usd: Some(value.parse().unwrap()),
        at: NOW.plus_ms(ms),
        ..stored.clone()
    };
    for (outcome, value, ms, dated, replaces) in [
        (Verdict::Accepted, "12.50", 0, true, false),
        (Verdict::Accepted, "12.50", 9, false, false),
        (Verdict::Accepted, "12.50", 9, true, true),
        (Verdict::Accepted, "12.51", 9, false, true),
        (Verdict::Rejected, "12.50", 0, true, true),
        (Verdict::Rejected, "12.50", 9, false, true),
        (Verdict::Rejected, "12.50", -1, true, false),
        (Verdict::Rejected, "12.50", -1, false, false),
    ] {
        let new = said(outcome, value, ms);
        assert_eq!(new.replaces(&stored, dated), replaces, "{outcome:?} {value} {ms} {dated}");
    }
}

#[test]
fn a_requests_outcome_counts_at_the_requests_time_and_a_sessions_at_its_own() {
    let earlier = NOW.plus_ms(-20 * DAY_MS);
    assert_eq!(event(Subject::Request(id_at(earlier))).counts_at(), earlier);
    assert_eq!(event(Subject::Session("s".to_owned())).counts_at(), NOW);
}

proptest! {
    #[test]
    fn no_body_panics(body in r#"[\[\]{}",:a-z0-9]{0,60}"#) {
        let _ = read_reports(&body, NOW);
    }
}
