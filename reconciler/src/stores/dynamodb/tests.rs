use super::*;
use crate::bill::{ChargeKind, Meter, Quantity};
use crate::ledger::Content;
use crate::stores::aws::{ATTEMPTS, dynamodb_client};
use crate::stores::replay::{Answer, Asked, Replay, SECRET};
use serde_json::json;
use std::collections::BTreeMap;
use tallygate_shared::money::Usd;

fn ledger(replay: &Replay) -> DynamoLedger {
    DynamoLedger::new(dynamodb_client(&replay.config(), None), "books")
}

fn fault(status: u16, code: &str) -> Answer {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "says AWS" });
    Answer::Say(status, body.to_string())
}

fn done() -> Answer {
    Answer::Say(200, "{}".into())
}

fn conflict() -> Answer {
    fault(400, "ConditionalCheckFailedException")
}

fn row(cents: i128, seq: u64) -> Revision {
    Revision {
        unit: UnitId { workspace: "w".into(), day: "2026-11-20".into(), provider: "openai".into() },
        line: LineId {
            account: "org".into(),
            model: "m".into(),
            meter: Meter::Input,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner: BTreeMap::new(),
        },
        rev: 0,
        seq,
        cause: "first".into(),
        run: "night".into(),
        booked_in: None,
        content: Content {
            estimated: Usd::from_pico(cents),
            metered: Quantity::whole(1),
            requests: 1,
            billed: None,
            billed_quantity: None,
            quantity_variance: Usd::default(),
            price_variance: Usd::default(),
            provisional: true,
            price_version: "v".into(),
            source: String::new(),
            method: "direct".into(),
        },
    }
}

/// An item as DynamoDB answers it.
fn item(row: &Revision, rev: u32, writer: &str) -> String {
    let body = serde_json::to_string(&Revision { rev, ..row.clone() }).unwrap();
    json!({ "Item": {
        "rev_": { "N": rev.to_string() }, "seq_": { "N": row.seq.to_string() }, "seen_": { "N": row.seq.to_string() },
        "hash_": { "S": row.content.hash() }, "writer_": { "S": writer }, "body_": { "S": body },
    } })
    .to_string()
}

fn there(row: &Revision, rev: u32) -> Answer {
    Answer::Say(200, item(row, rev, "somebody"))
}

/// The item as the last put of a head left it.
fn landed(asked: &[Asked]) -> (Revision, String) {
    let put = asked
        .iter()
        .rfind(|asked| asked.what == "PutItem" && asked.attribute("sk").starts_with("h#"));
    let put = put.unwrap();
    (serde_json::from_str(&put.attribute("body_")).unwrap(), put.attribute("writer_"))
}

#[tokio::test]
async fn faults_that_pass_are_waited_for() {
    let replay = Replay::new([
        fault(400, "ProvisionedThroughputExceededException"),
        fault(400, "ThrottlingException"),
        fault(500, "InternalServerError"),
        done(),
        fault(400, "TransactionConflictException"),
        fault(400, "TransactionConflictException"),
        done(),
        fault(503, "ServiceUnavailable"),
        fault(400, "RequestLimitExceeded"),
        done(),
    ]);
    assert_eq!(ledger(&replay).append(&row(1, 1)).await.unwrap(), Appended::Written(1));
    let names = replay.names();
    assert_eq!(names.iter().filter(|name| *name == "GetItem").count(), 4);
    assert_eq!(names.iter().filter(|name| *name == "PutItem").count(), 6);
}

#[tokio::test]
async fn faults_that_stay_are_unavailable() {
    for code in ["ProvisionedThroughputExceededException", "TransactionConflictException"] {
        let replay = Replay::new((0..ATTEMPTS).map(|_| fault(400, code)));
        let error = ledger(&replay).append(&row(1, 1)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Unavailable { reason, .. } if reason.contains(code)),
            "{error}"
        );
        assert_eq!(replay.names().len(), ATTEMPTS as usize);
    }
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_our_own() {
    let replay = Replay::new([
        done(),
        done(),
        Answer::Lost,
        conflict(),
        Answer::Make(Box::new(|asked| {
            let (row, writer) = landed(asked);
            item(&row, 1, &writer)
        })),
    ]);
    assert_eq!(ledger(&replay).append(&row(1, 1)).await.unwrap(), Appended::Written(1));
    assert_eq!(replay.names(), ["GetItem", "PutItem", "PutItem", "PutItem", "GetItem"]);
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_found_behind_a_newer_one() {
    // Ours landed as revision 1; before we looked, another one came with other content. Ours must not come again.
    let replay = Replay::new([
        done(),
        done(),
        Answer::Lost,
        conflict(),
        there(&row(2, 1), 2),
        Answer::Make(Box::new(|asked| {
            let (row, writer) = landed(asked);
            item(&row, 1, &writer)
        })),
    ]);
    assert_eq!(ledger(&replay).append(&row(1, 1)).await.unwrap(), Appended::Written(1));
    let asked = replay.asked();
    assert!(asked[5].body.contains("#0000000001"), "{:?}", asked[5]);
}

#[tokio::test]
async fn a_put_that_another_was_quicker_than_is_decided_anew() {
    let same = [done(), done(), conflict(), there(&row(1, 1), 1)];
    let unchanged = ledger(&Replay::new(same)).append(&row(1, 1)).await.unwrap();
    assert_eq!(unchanged, Appended::Unchanged);
    let newer = [done(), done(), conflict(), there(&row(2, 5), 1)];
    assert_eq!(ledger(&Replay::new(newer)).append(&row(1, 4)).await.unwrap(), Appended::Stale(5));
    let older = [done(), done(), conflict(), there(&row(2, 3), 1), done(), done()];
    let replay = Replay::new(older);
    assert_eq!(ledger(&replay).append(&row(1, 4)).await.unwrap(), Appended::Written(2));
    replay.asked();
}

#[tokio::test]
async fn a_revision_is_put_aside_before_it_is_written_over() {
    // An earlier writer died after putting it aside: the condition fails, and that is well.
    let replay = Replay::new([there(&row(1, 1), 7), conflict(), done()]);
    assert_eq!(ledger(&replay).append(&row(2, 2)).await.unwrap(), Appended::Written(8));
    let asked = replay.asked();
    assert!(asked[1].attribute("sk").ends_with("#0000000007"));
    assert!(asked[1].body.contains("attribute_not_exists(pk)"));
    let aside: Revision = serde_json::from_str(&asked[1].attribute("body_")).unwrap();
    assert_eq!(aside, Revision { rev: 7, ..row(1, 1) });
    assert!(asked[2].body.contains("rev_ = :rev AND seen_ <= :seq"));
    // If putting aside fails, nothing is written over.
    let replay = Replay::new([there(&row(1, 1), 7), fault(400, "AccessDeniedException")]);
    assert!(ledger(&replay).append(&row(2, 2)).await.is_err());
    assert_eq!(replay.names().len(), 2);
}

#[tokio::test]
async fn a_mark_whose_answer_was_lost_is_set() {
    let replay = Replay::new([
        Answer::Lost,
        conflict(),
        Answer::Make(Box::new(|asked| {
            let writer = asked[0].attribute("writer_");
            json!({ "Item": { "value_": { "S": "new" }, "writer_": { "S": writer } } }).to_string()
        })),
    ]);
    assert!(ledger(&replay).set_mark("m", Some("old"), "new").await.unwrap());
    let other = json!({ "Item": { "value_": { "S": "new" }, "writer_": { "S": "another" } } });
    let replay = Replay::new([conflict(), Answer::Say(200, other.to_string())]);
    assert!(!ledger(&replay).set_mark("m", Some("old"), "new").await.unwrap());
}

#[tokio::test]
async fn a_missing_permission_is_named_and_not_tried_again() {
    let replay = Replay::new([fault(400, "AccessDeniedException")]);
    let error = ledger(&replay).append(&row(1, 1)).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Denied { action, .. } if action == "dynamodb:GetItem"),
        "{error}"
    );
    assert_eq!(replay.names().len(), 1);
    let replay = Replay::new([fault(400, "AccessDeniedException")]);
    let error = ledger(&replay).newest(&row(1, 1).unit).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Denied { action, .. } if action == "dynamodb:Query"),
        "{error}"
    );
}

#[tokio::test]
async fn credentials_and_tables_are_told_apart() {
    let cases = [
        ("ExpiredTokenException", true, "expired"),
        ("UnrecognizedClientException", false, "not accepted"),
        ("InvalidSignatureException", false, "not accepted"),
        ("ResourceNotFoundException", false, "no such table"),
        ("ValidationException", false, "ValidationException"),
    ];
    for (code, again, says) in cases {
        let replay = Replay::new([fault(400, code)]);
        let error = ledger(&replay).mark("m").await.unwrap_err();
        assert_eq!(matches!(error, StoreError::Unavailable { .. }), again, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!format!("{error:?}").contains(SECRET));
        replay.asked();
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_not_taken_for_nothing() {
    let page = || Answer::Say(200, "<html>a proxy".into());
    let replay = Replay::new((0..ATTEMPTS).map(|_| page()));
    let error = ledger(&replay).mark("m").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("cannot be read"), "{error}");
    replay.asked();
    let good = json!({ "Item": { "value_": { "S": "v" } } }).to_string();
    let replay = Replay::new([page(), Answer::Say(200, good[..12].into()), Answer::Say(200, good)]);
    assert_eq!(ledger(&replay).mark("m").await.unwrap().as_deref(), Some("v"));
}

#[tokio::test]
async fn damage_is_said_and_not_read_over() {
    let foreign = || Answer::Say(200, json!({ "Item": { "rev_": { "N": "1" } } }).to_string());
    let error = ledger(&Replay::new([foreign()])).append(&row(1, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    // A history whose first revision is gone.
    let (unit, line) = (row(1, 1).unit, row(1, 1).line);
    let replay = Replay::new([there(&row(2, 2), 2), Answer::Say(200, "{\"Items\":[]}".into())]);
    let error = ledger(&replay).history(&unit, &line).await.unwrap_err();
    assert!(error.to_string().contains("revision 1 is missing"), "{error}");
    let half = json!({ "Attributes": { "value_": { "N": "1.5" } } });
    let error =
        ledger(&Replay::new([Answer::Say(200, half.to_string())])).next_number("n", 0).await;
    assert!(matches!(error, Err(StoreError::Damaged { .. })), "{error:?}");
}
