//! Calls that cost money, over the slots of a night.

use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tallygate_reconciler::night::run::Again;
use tallygate_shared::time::DAY_MS;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::world::World;

/// The SDK takes credentials from the environment, which only another process can have anew.
const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")];
const PLAYS: &str = "TALLYGATE_TEST_PLAYS_COST_EXPLORER";

#[test]
fn what_was_paid_for_is_not_paid_for_again() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["paid_calls::slots_with_one_answer", "--exact", "--nocapture"]).env(PLAYS, "1");
    let done = again.envs(CREDENTIALS).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

/// Calls of a slot, a second slot, a third and one on the next night, at a Cost Explorer with one answer to all.
async fn slots(limit: u32, answer: ResponseTemplate) -> [usize; 4] {
    let mut world = World::new(2).await;
    let aws = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&aws).await;
    let source: Value = json!({ "connector": "aws_cost_explorer", "account": "111122223333",
        "endpoint": aws.uri() });
    world.config.workspaces[0].sources = vec![serde_json::from_value(source).unwrap()];
    (world.config.max_paid_calls, world.again) = (limit, Again::IfPartial);
    let (mut made, mut before) = ([0; 4], 0);
    for (slot, made) in made.iter_mut().enumerate() {
        if slot == 3 {
            world.watch.now_ms.fetch_add(DAY_MS, Ordering::SeqCst);
        }
        let report = world.night().await;
        assert!(report.missing.contains_key("aws_cost_explorer"), "{:?}", report.missing);
        let calls = aws.received_requests().await.unwrap().len();
        (*made, before) = (calls - before, calls);
    }
    made
}

/// Does nothing in an ordinary run of the tests.
#[tokio::test]
async fn slots_with_one_answer() {
    if std::env::var_os(PLAYS).is_none() {
        return;
    }
    let answer = |status, body: &str| {
        ResponseTemplate::new(status).set_body_raw(body, "application/x-amz-json-1.1")
    };
    // An answer that nobody can read is kept, and read again, until the next night.
    assert_eq!(slots(50, answer(200, r#"{"ResultsByTime": 7}"#)).await, [1, 0, 0, 1]);
    // The brake is the run's, not the slot's.
    assert_eq!(slots(2, answer(503, "{}")).await, [1, 1, 0, 1]);
}
